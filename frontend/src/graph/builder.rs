//! Adds vertices; equal ones are one.

use std::collections::BTreeMap;

use super::{Graph, Op, Origin, Vertex, VertexDigest, VertexId};

/// Builds a graph, inputs first. Ids given out while building hold until [`GraphBuilder::finish`].
#[derive(Debug, Default)]
pub struct GraphBuilder {
    vertices: Vec<Vertex>,
    known: BTreeMap<VertexDigest, VertexId>,
}

/// What a vertex shows and obeys, beside its definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presentation {
    /// What progress shows.
    pub name: String,
    /// Where it comes from; `None` for internal vertices.
    pub origin: Option<Origin>,
    /// `--no-cache` covers it.
    pub ignores_cache: bool,
}

/// A finished graph, and where the vertices of the builder went.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The graph.
    pub graph: Graph,
    ids: Vec<Option<VertexId>>,
}

impl Finished {
    /// The vertex in the graph; `None` if the output does not need it.
    pub fn id(&self, built: VertexId) -> Option<VertexId> {
        self.ids.get(built.0).copied().flatten()
    }
}

impl GraphBuilder {
    /// Adds a vertex, or finds the equal one; that then carries the later name and place, as in BuildKit, and ignores
    /// the cache if one of the two does.
    pub fn add(&mut self, op: Op, inputs: Vec<VertexId>, shown: Presentation) -> VertexId {
        let digests: Vec<VertexDigest> = inputs
            .iter()
            .map(|input| self.vertices[input.0].digest)
            .collect();
        let digest = VertexDigest::of(&op, &digests);
        if let Some(&id) = self.known.get(&digest) {
            let vertex = &mut self.vertices[id.0];
            vertex.name = shown.name;
            vertex.origin = shown.origin;
            vertex.ignores_cache |= shown.ignores_cache;
            return id;
        }
        let id = VertexId(self.vertices.len());
        self.vertices.push(Vertex {
            op,
            inputs,
            digest,
            name: shown.name,
            origin: shown.origin,
            ignores_cache: shown.ignores_cache,
        });
        self.known.insert(digest, id);
        id
    }

    /// What a vertex added before does.
    pub fn op(&self, id: VertexId) -> &Op {
        &self.vertices[id.0].op
    }

    /// Keeps what the outputs reach, in the order of adding, and numbers it anew.
    pub fn finish(self, outputs: &[VertexId]) -> Finished {
        let mut is_needed = vec![false; self.vertices.len()];
        for output in outputs {
            is_needed[output.0] = true;
        }
        // Inputs stand before their users, so one pass from the end finds all.
        for index in (0..self.vertices.len()).rev() {
            if is_needed[index] {
                for input in &self.vertices[index].inputs {
                    is_needed[input.0] = true;
                }
            }
        }
        let mut ids: Vec<Option<VertexId>> = vec![None; self.vertices.len()];
        let mut kept = Vec::new();
        for (index, mut vertex) in self.vertices.into_iter().enumerate() {
            if !is_needed[index] {
                continue;
            }
            vertex.inputs = vertex
                .inputs
                .iter()
                .filter_map(|input| ids[input.0])
                .collect();
            ids[index] = Some(VertexId(kept.len()));
            kept.push(vertex);
        }
        Finished {
            graph: Graph::from_sorted(kept),
            ids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FileAction, FileOp, InputIndex, LocalOp, MergeOp};
    use super::*;

    fn local(name: &str) -> Op {
        Op::Local(LocalOp {
            name: name.to_owned(),
        })
    }

    fn mkdir(path: &str, base: Option<usize>) -> Op {
        Op::File(FileOp {
            base: base.map(InputIndex),
            actions: vec![FileAction::Mkdir {
                path: path.to_owned(),
                mode: 0o755,
                owner: None,
            }],
        })
    }

    fn named(name: &str) -> Presentation {
        Presentation {
            name: name.to_owned(),
            ..Presentation::default()
        }
    }

    #[test]
    fn equal_vertices_are_one_with_the_later_name() {
        let mut builder = GraphBuilder::default();
        let a = builder.add(local("a"), vec![], named("first"));
        let again = builder.add(
            local("a"),
            vec![],
            Presentation {
                ignores_cache: true,
                ..named("second")
            },
        );
        assert_eq!(a, again);
        let graph = builder.finish(&[a]).graph;
        assert_eq!(graph.len(), 1);
        assert_eq!(graph.vertex(VertexId(0)).name, "second");
        assert!(graph.vertex(VertexId(0)).ignores_cache);
    }

    #[test]
    fn only_what_the_output_needs_is_kept_in_order() {
        let mut builder = GraphBuilder::default();
        let unused = builder.add(local("unused"), vec![], named("unused"));
        let base = builder.add(local("base"), vec![], named("base"));
        let left = builder.add(mkdir("/l", Some(0)), vec![base], named("left"));
        let right = builder.add(mkdir("/r", Some(0)), vec![base], named("right"));
        let merge = Op::Merge(MergeOp {
            base: Some(InputIndex(0)),
            upper: InputIndex(1),
        });
        let top = builder.add(merge, vec![left, right], named("top"));
        let finished = builder.finish(&[top]);
        let names: Vec<&str> = finished
            .graph
            .vertices()
            .map(|(_, v)| v.name.as_str())
            .collect();
        assert_eq!(names, ["base", "left", "right", "top"]);
        assert_eq!(finished.id(unused), None);
        assert_eq!(finished.id(top), Some(VertexId(3)));
        assert_eq!(
            finished.graph.users(VertexId(0)),
            [VertexId(1), VertexId(2)]
        );
        assert_eq!(
            finished.graph.vertex(VertexId(3)).inputs,
            [VertexId(1), VertexId(2)]
        );
    }
}
