//! How each op of the step graph is carried out, and what its cache key is made of.

pub mod copy;

