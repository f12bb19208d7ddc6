//! Following the steps of a build while they run.

use frontend::graph::VertexId;

use super::steps::Done;

/// How far a vertex is.
#[derive(Clone, Copy, Debug)]
pub enum StepNews<'a> {
    /// It was not in the cache, and nobody else has just run it: it runs now.
    Runs,
    /// Its result is known, by running it or from the cache.
    Done(&'a Done),
}

/// Is told how far vertices are, on the thread that got them there: it must not block.
pub type Watcher = Box<dyn Fn(VertexId, StepNews<'_>) + Send + Sync>;
