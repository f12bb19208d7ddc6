//! Folds events into the state of a build. No I/O.
//!
//! Invariants: vertices stand in the order in which they were added; a vertex that ended stays as it ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use memchr::memrchr_iter;

use super::event::{Event, Timed, VertexRef};

/// Lines of output that are kept of each vertex: what BuildKit shows of a failed step (`progressui/display.go`).
const TAIL_LINES: usize = 10;

/// Longest kept line. A view: the whole output is in the step's log.
const TAIL_LINE_BYTES: usize = 4096;

/// What is known of a build.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    vertices: Vec<VertexState>,
    by_ref: BTreeMap<VertexRef, usize>,
    warnings: Vec<String>,
    begun: Option<Duration>,
}

/// What is known of a vertex.
#[derive(Clone, Debug)]
pub struct VertexState {
    /// Which.
    pub vertex: VertexRef,
    /// Shown name.
    pub name: String,
    /// The vertices it waits for.
    pub inputs: Vec<VertexRef>,
    /// How far it is.
    pub phase: Phase,
    /// Why it was not in the cache, if it was looked up and not found.
    pub miss: Option<String>,
    /// Its parts, in the order in which they began.
    pub parts: Vec<Part>,
    /// Warnings about it.
    pub warnings: Vec<String>,
    /// The end of its output.
    pub tail: Tail,
}

/// How far a vertex is. Times are since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    Waiting,
    /// At work.
    Running {
        /// Since when.
        started: Duration,
    },
    /// Its result was in the cache.
    Cached {
        /// When the look-up began.
        started: Duration,
        /// When it ended.
        ended: Duration,
    },
    /// Done.
    Done {
        /// When it began.
        started: Duration,
        /// When it ended.
        ended: Duration,
    },
    /// Failed.
    Failed {
        /// When it began.
        started: Duration,
        /// When it ended.
        ended: Duration,
        /// Why, one line.
        message: String,
    },
    /// Given up.
    Canceled {
        /// When it began, if it had.
        started: Option<Duration>,
        /// When it ended.
        ended: Duration,
    },
}

impl Phase {
    /// When it began, if it has.
    pub fn started(&self) -> Option<Duration> {
        match self {
            Self::Waiting => None,
            Self::Running { started }
            | Self::Cached { started, .. }
            | Self::Done { started, .. }
            | Self::Failed { started, .. } => Some(*started),
            Self::Canceled { started, .. } => *started,
        }
    }

    /// When it ended, if it has.
    pub fn ended(&self) -> Option<Duration> {
        match self {
            Self::Waiting | Self::Running { .. } => None,
            Self::Cached { ended, .. }
            | Self::Done { ended, .. }
            | Self::Failed { ended, .. }
            | Self::Canceled { ended, .. } => Some(*ended),
        }
    }

    /// How long it took, or has taken by `now`.
    pub fn elapsed(&self, now: Duration) -> Duration {
        let end = self.ended().unwrap_or(now);
        self.started()
            .map_or(Duration::ZERO, |started| end.saturating_sub(started))
    }
}

/// A part of a vertex's work that has a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is, shown as it is.
    pub id: String,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all, 0 if unknown.
    pub total: u64,
    /// When it was first heard of.
    pub started: Duration,
    /// When it was last heard of.
    pub updated: Duration,
    /// Whether it is done.
    pub is_completed: bool,
}

/// The last lines of a vertex's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    lines: VecDeque<TailLine>,
    is_open: bool,
}

/// A line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailLine {
    /// Time between the vertex's start and the line's first byte.
    pub at: Duration,
    /// The bytes without the line end, cut if very long.
    pub bytes: Vec<u8>,
}

impl Tail {
    /// The lines, oldest first; the last may be unfinished.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &TailLine> {
        self.lines.iter()
    }

    fn push(&mut self, at: Duration, mut bytes: &[u8]) {
        // Only what will be left is looked at.
        let inner = &bytes[..bytes.len().saturating_sub(1)];
        if let Some(end) = memrchr_iter(b'\n', inner).nth(TAIL_LINES - 1) {
            bytes = &bytes[end + 1..];
            self.is_open = false;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            if !self.is_open {
                if self.lines.len() == TAIL_LINES {
                    self.lines.pop_front();
                }
                let bytes = Vec::new();
                self.lines.push_back(TailLine { at, bytes });
            }
            if let Some(line) = self.lines.back_mut() {
                let room = TAIL_LINE_BYTES.saturating_sub(line.bytes.len());
                line.bytes.extend_from_slice(&text[..text.len().min(room)]);
            }
            self.is_open = text.len() == piece.len();
        }
    }
}

impl Tracker {
    /// The vertices, in the order in which they were added.
    pub fn vertices(&self) -> &[VertexState] {
        &self.vertices
    }

    /// A vertex.
    pub fn vertex(&self, vertex: &VertexRef) -> Option<&VertexState> {
        self.vertices.get(*self.by_ref.get(vertex)?)
    }

    /// All warnings, in order.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// When the first event happened.
    pub fn begun(&self) -> Option<Duration> {
        self.begun
    }

    /// How many vertices have ended.
    pub fn ended_count(&self) -> usize {
        let ended = |vertex: &&VertexState| vertex.phase.ended().is_some();
        self.vertices.iter().filter(ended).count()
    }

    /// Takes an event. Gives the place of the vertex it is about.
    pub(crate) fn apply(&mut self, timed: &Timed) -> Option<usize> {
        let at = timed.at;
        self.begun.get_or_insert(at);
        let (vertex, change) = match &timed.event {
            Event::VertexAdded {
                vertex,
                name,
                inputs,
            } => {
                let index = self.index_of(vertex);
                let state = &mut self.vertices[index];
                state.name.clone_from(name);
                state.inputs.clone_from(inputs);
                return Some(index);
            }
            Event::Warning {
                vertex: None,
                message,
            } => {
                self.warnings.push(message.clone());
                return None;
            }
            Event::Warning {
                vertex: Some(vertex),
                message,
            } => {
                self.warnings.push(message.clone());
                let index = self.index_of(vertex);
                self.vertices[index].warnings.push(message.clone());
                return Some(index);
            }
            Event::Output { vertex, bytes, .. } => {
                let index = self.index_of(vertex);
                let state = &mut self.vertices[index];
                let since = state.phase.elapsed(at);
                state.tail.push(since, bytes);
                return Some(index);
            }
            Event::Status { vertex, .. } => {
                let index = self.index_of(vertex);
                self.vertices[index].update_part(at, &timed.event);
                return Some(index);
            }
            Event::CacheMiss { vertex, reason } => {
                let index = self.index_of(vertex);
                self.vertices[index].miss = Some(reason.clone());
                return Some(index);
            }
            Event::Started { vertex } => (vertex, Change::Start),
            Event::CacheHit { vertex } => (vertex, Change::Hit),
            Event::Completed { vertex } => (vertex, Change::Complete),
            Event::Failed { vertex, message } => (vertex, Change::Fail(message)),
            Event::Canceled { vertex } => (vertex, Change::Cancel),
        };
        let index = self.index_of(vertex);
        self.vertices[index].change(at, change);
        Some(index)
    }

    // A vertex that was never added is shown under its digest rather than lost.
    fn index_of(&mut self, vertex: &VertexRef) -> usize {
        if let Some(index) = self.by_ref.get(vertex) {
            return *index;
        }
        let index = self.vertices.len();
        self.by_ref.insert(vertex.clone(), index);
        self.vertices.push(VertexState {
            vertex: vertex.clone(),
            name: vertex.0.to_string(),
            inputs: Vec::new(),
            phase: Phase::Waiting,
            miss: None,
            parts: Vec::new(),
            warnings: Vec::new(),
            tail: Tail::default(),
        });
        index
    }
}

enum Change<'a> {
    Start,
    Hit,
    Complete,
    Fail(&'a str),
    Cancel,
}

impl VertexState {
    fn change(&mut self, at: Duration, change: Change<'_>) {
        if self.phase.ended().is_some() {
            return;
        }
        let begun = self.phase.started();
        let (started, ended) = (begun.unwrap_or(at), at);
        self.phase = match change {
            Change::Start => Phase::Running { started },
            Change::Hit => Phase::Cached { started, ended },
            Change::Complete => Phase::Done { started, ended },
            Change::Fail(message) => Phase::Failed {
                started,
                ended,
                message: message.to_owned(),
            },
            Change::Cancel => Phase::Canceled {
                started: begun,
                ended,
            },
        };
    }

    fn update_part(&mut self, at: Duration, event: &Event) {
        let Event::Status {
            id,
            current,
            total,
            is_completed,
            ..
        } = event
        else {
            return;
        };
        let known = self.parts.iter().position(|part| part.id == *id);
        let started = known.map_or(at, |index| self.parts[index].started);
        let part = Part {
            id: id.clone(),
            current: *current,
            total: *total,
            started,
            updated: at,
            is_completed: *is_completed,
        };
        match known {
            Some(index) => self.parts[index] = part,
            None => self.parts.push(part),
        }
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
pub(super) mod tests;
