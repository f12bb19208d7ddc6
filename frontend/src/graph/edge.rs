//! The link from a vertex to one of its inputs.

/// Which input of a vertex: an index into its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputIndex(pub usize);
