//! Progress of an export under BuildKit's names: one vertex for an output, a status for each part of its work.

use std::sync::Arc;

use cache::digest::Digest;

use crate::progress::event::{Event, VertexRef};
use crate::progress::sink::EventSink;

/// The vertex of an output.
pub struct Activity<'a> {
    events: &'a dyn EventSink,
    vertex: VertexRef,
}

impl std::fmt::Debug for Activity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Activity").field(&self.vertex).finish()
    }
}

impl<'a> Activity<'a> {
    /// Does the work of the `output`-th output as a vertex of this name, which completes or fails with it.
    pub fn run<T, E: std::error::Error>(
        events: &'a dyn EventSink,
        name: &str,
        output: usize,
        work: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        Self::begin(events, name, output).finish(work)
    }

    /// The vertex of the `output`-th output, without telling anybody of it.
    pub fn of(events: &'a dyn EventSink, name: &str, output: usize) -> Self {
        let identity = match output {
            0 => name.to_owned(),
            again => format!("{name} {again}"),
        };
        let vertex = VertexRef(Arc::from(Digest::of(identity.as_bytes()).as_str()));
        Self { events, vertex }
    }

    /// Begins the work of the `output`-th output as a vertex of this name.
    pub fn begin(events: &'a dyn EventSink, name: &str, output: usize) -> Self {
        let activity = Self::of(events, name, output);
        let vertex = activity.vertex.clone();
        events.emit(Event::VertexAdded {
            vertex: vertex.clone(),
            name: name.to_owned(),
            inputs: Vec::new(),
        });
        events.emit(Event::Started { vertex });
        activity
    }

    /// Does the rest of the work that was begun; the vertex completes or fails with it.
    pub fn finish<T, E: std::error::Error>(
        self,
        work: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let result = work(&self);
        let vertex = self.vertex;
        self.events.emit(match &result {
            Ok(_) => Event::Completed { vertex },
            Err(error) => Event::Failed {
                vertex,
                message: crate::text::chain(error).replace('\n', " "),
            },
        });
        result
    }

    /// Gives up the work that was begun.
    pub fn cancel(self) {
        let vertex = self.vertex;
        self.events.emit(Event::Canceled { vertex });
    }

    /// Does a part of the work without a size.
    pub fn part<T, E>(&self, id: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.status(id, 0, 0, false);
        let result = work();
        if result.is_ok() {
            self.status(id, 0, 0, true);
        }
        result
    }

    /// Tells how far a part is.
    pub fn status(&self, id: &str, current: u64, total: u64, is_completed: bool) {
        self.events.emit(Event::Status {
            vertex: self.vertex.clone(),
            id: id.to_owned(),
            current,
            total,
            is_completed,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Recorder;
    use super::*;

    #[test]
    fn a_vertex_completes_or_fails_and_equal_outputs_differ() {
        let recorder = Recorder::default();
        let done: Result<(), std::fmt::Error> = Activity::run(&recorder, "x", 0, |activity| {
            activity.part("part", || Ok(()))
        });
        assert!(done.is_ok());
        let failed: Result<(), _> = Activity::run(&recorder, "x", 1, |activity| {
            activity.part("part", || Err(std::io::Error::other("a\nb")))
        });
        assert!(failed.is_err());
        assert_eq!(
            recorder.lines(),
            [
                "x",
                "start",
                "part 0/0",
                "part 0/0 done",
                "complete", //
                "x",
                "start",
                "part 0/0",
                "fail a b",
            ]
        );
        assert_eq!(recorder.vertices().len(), 2);
    }
}
