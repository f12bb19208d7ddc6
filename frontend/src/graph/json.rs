//! A graph as JSON: what `render` shows, for programs.

use serde_json::{Map, Value, json};

use super::{Graph, Vertex, VertexId};

impl Graph {
    /// The graph as JSON: `{"vertices": [{"id", "kind", "name", "digest", "inputs", …}]}`. `definition` is the op as
    /// [`Graph::to_text`] shows it, a line each.
    pub fn to_json(&self) -> Value {
        let text = self.to_text();
        let vertices: Vec<Value> = self
            .vertices()
            .zip(text.split("\n\n"))
            .map(|((id, vertex), paragraph)| node(id, vertex, paragraph))
            .collect();
        json!({ "vertices": vertices })
    }
}

fn node(id: VertexId, vertex: &Vertex, paragraph: &str) -> Value {
    let mut node = Map::new();
    node.insert("id".into(), json!(id.0));
    node.insert("kind".into(), json!(vertex.op.kind()));
    node.insert("name".into(), json!(vertex.name));
    node.insert(
        "digest".into(),
        json!(format!("blake3:{}", vertex.digest.to_hex())),
    );
    let inputs: Vec<usize> = vertex.inputs.iter().map(|input| input.0).collect();
    node.insert("inputs".into(), json!(inputs));
    if let Some(origin) = &vertex.origin {
        node.insert(
            "lines".into(),
            json!([origin.lines.first, origin.lines.last]),
        );
        node.insert("stage".into(), json!(origin.stage));
    }
    node.insert("ignoresCache".into(), json!(vertex.ignores_cache));
    let definition: Vec<&str> = paragraph
        .lines()
        .skip(1)
        .map(str::trim_start)
        .filter(|line| {
            !["name ", "lines "]
                .iter()
                .any(|start| line.starts_with(start))
        })
        .filter(|line| *line != "no-cache")
        .collect();
    node.insert("definition".into(), json!(definition));
    Value::Object(node)
}
