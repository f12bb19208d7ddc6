//! Vertices and the graph that holds them.

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use super::{InputIndex, Op, VertexDigest};
use crate::source::LineRange;

/// A vertex of one graph: its place in topological order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(pub usize);

/// Where a vertex comes from, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The lines of the Dockerfile.
    pub lines: LineRange,
    /// The stage's name, `None` if the Dockerfile has one unnamed stage or it does not matter.
    pub stage: Option<String>,
}

/// A node of the graph. Equality of vertices is equality of [`Vertex::digest`]; `name`, `origin` and `ignores_cache` are
/// presentation or policy and not part of it.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// Its inputs; ops name them by [`super::InputIndex`].
    pub inputs: Vec<VertexId>,
    /// Definition digest: the op and the inputs' digests.
    pub digest: VertexDigest,
    /// What progress shows, such as `[stage-1 2/3] RUN make` or `[internal] load build context`.
    pub name: String,
    /// Where it comes from; `None` for internal vertices.
    pub origin: Option<Origin>,
    /// `--no-cache` covers it.
    pub ignores_cache: bool,
}

/// A step graph. Vertices stand in topological order: inputs before users.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(super) dag: DiGraph<Vertex, InputIndex>,
}

impl Graph {
    /// Takes vertices that stand in topological order.
    pub(super) fn from_sorted(vertices: Vec<Vertex>) -> Self {
        let mut dag = DiGraph::with_capacity(vertices.len(), vertices.len());
        for vertex in vertices {
            let inputs = vertex.inputs.clone();
            let user = dag.add_node(vertex);
            for (index, input) in inputs.into_iter().enumerate() {
                dag.add_edge(NodeIndex::new(input.0), user, InputIndex(index));
            }
        }
        Self { dag }
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All vertices, inputs before users.
    pub fn vertices(&self) -> impl Iterator<Item = (VertexId, &Vertex)> {
        self.dag
            .node_weights()
            .enumerate()
            .map(|(index, vertex)| (VertexId(index), vertex))
    }

    /// A vertex by its place.
    ///
    /// # Panics
    ///
    /// If the id is not one of this graph's.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.dag[NodeIndex::new(id.0)]
    }

    /// The vertices that have `id` among their inputs, in order, each once.
    pub fn users(&self, id: VertexId) -> Vec<VertexId> {
        let mut users: Vec<VertexId> = self
            .dag
            .neighbors_directed(NodeIndex::new(id.0), Direction::Outgoing)
            .map(|index| VertexId(index.index()))
            .collect();
        users.sort_unstable();
        users.dedup();
        users
    }
}
