//! The step graph: what must be done for a target, as a DAG of vertices.
//!
//! Close to BuildKit's LLB in vocabulary, so that the two can be translated. `scratch` is no vertex: an absent edge.
//! Equal vertices are one vertex; only what the target reaches is in the graph.

mod builder;
mod digest;
mod edge;
mod json;
mod op;
mod render;
mod vertex;

pub use builder::{Finished, GraphBuilder, Presentation};
pub use digest::VertexDigest;
pub use edge::InputIndex;
pub use op::*;
pub use vertex::{Graph, Origin, Vertex, VertexId};
