//! What happens in a build, as plain data.

use std::sync::Arc;
use std::time::Duration;

/// Which vertex an event is about: a digest (`sha256:…`) that is unique in a build. Steps have their definition digest;
/// internal work (loading metadata, exporting) has the digest of its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexRef(pub Arc<str>);

/// An event and when it happened (time since the Unix epoch by [`crate::clock::Clock`]).
#[derive(Clone, Debug)]
pub struct Timed {
    /// When.
    pub at: Duration,
    /// What.
    pub event: Event,
}

/// What happened.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Event {
    /// A vertex is known. Comes before any other event about it.
    VertexAdded {
        /// Which.
        vertex: VertexRef,
        /// Shown name, such as `[stage-1 2/3] RUN make`.
        name: String,
        /// The vertices it waits for.
        inputs: Vec<VertexRef>,
    },
    /// Work on it began.
    Started {
        /// Which.
        vertex: VertexRef,
    },
    /// Its result was in the cache: nothing ran. Completes the vertex.
    CacheHit {
        /// Which.
        vertex: VertexRef,
    },
    /// Its result was not in the cache.
    CacheMiss {
        /// Which.
        vertex: VertexRef,
        /// One line a person understands.
        reason: String,
    },
    /// Its command wrote something.
    Output {
        /// Which.
        vertex: VertexRef,
        /// Where.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// A part of its work with a size: a transfer, an extraction, an export step (`exporting layers`).
    Status {
        /// Which vertex.
        vertex: VertexRef,
        /// Which part; unique in the vertex. Shown as it is: `sha256:…`, `exporting layers`.
        id: String,
        /// Bytes done.
        current: u64,
        /// Bytes in all, 0 if unknown.
        total: u64,
        /// Whether this is the last status of the part.
        is_completed: bool,
    },
    /// Something to tell, not an error. Shown with its vertex and again at the end.
    Warning {
        /// Which vertex, if any.
        vertex: Option<VertexRef>,
        /// One line.
        message: String,
    },
    /// It is done.
    Completed {
        /// Which.
        vertex: VertexRef,
    },
    /// It failed.
    Failed {
        /// Which.
        vertex: VertexRef,
        /// Why, one line.
        message: String,
    },
    /// It was given up because something else failed or the user said so.
    Canceled {
        /// Which.
        vertex: VertexRef,
    },
}

/// Where a command wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
