//! `--progress=rawjson`: BuildKit's `client.SolveStatus`, one JSON object a line, as `docker buildx` writes it.
//!
//! A stable interface. The first line is `{"version":1}`, which readers of BuildKit's stream pass over; a field may be
//! added, a meaning may not change without another version. Ours beyond BuildKit's: `miss` of a vertex, why it was not
//! taken from the cache.
//!
//! What happened between two writes is one object; of a vertex or a part that changed more than once in it, the last
//! state is told.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Serialize, Serializer};

use super::event::{Event, Stream, Timed, VertexRef};
use super::tracker::{Part, Phase, Tracker, VertexState};

/// Changing the meaning of a field needs another number here.
const VERSION: u32 = 1;

/// The error that BuildKit's renderers show as `CANCELED`.
const CANCELED: &str = "context canceled";

/// Writes the stream.
#[derive(Debug, Default)]
pub(super) struct Json {
    is_begun: bool,
}

impl Json {
    /// Adds the line for `events`, which `tracker` has taken already; none if there is nothing to tell.
    pub(super) fn write(&mut self, events: &[Timed], tracker: &Tracker, out: &mut Vec<u8>) {
        if !self.is_begun {
            self.is_begun = true;
            write_line(&Hello { version: VERSION }, out);
        }
        let status = SolveStatus::of(events, tracker);
        if !status.is_empty() {
            write_line(&status, out);
        }
    }
}

fn write_line(value: &impl Serialize, out: &mut Vec<u8>) {
    let length = out.len();
    match serde_json::to_writer(&mut *out, value) {
        Ok(()) => out.push(b'\n'),
        // Our types have text keys and no fallible impls, so this is not reached; half a line must not be written.
        Err(_) => out.truncate(length),
    }
}

#[derive(Serialize)]
struct Hello {
    version: u32,
}

#[derive(Default, Serialize)]
struct SolveStatus<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<Vertex<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<VertexStatus<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<VertexLog<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<VertexWarning<'a>>,
}

#[derive(Serialize)]
struct Vertex<'a> {
    digest: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<&'a str>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Time>,
    #[serde(skip_serializing_if = "is_false")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    miss: Option<&'a str>,
}

#[derive(Serialize)]
struct VertexStatus<'a> {
    id: &'a str,
    vertex: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: Time,
    started: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Time>,
}

#[derive(Serialize)]
struct VertexLog<'a> {
    vertex: &'a str,
    stream: u8,
    data: Base64<'a>,
    timestamp: Time,
}

#[derive(Serialize)]
struct VertexWarning<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertex: Option<&'a str>,
    level: u8,
    short: Base64<'a>,
}

impl<'a> SolveStatus<'a> {
    fn of(events: &'a [Timed], tracker: &'a Tracker) -> Self {
        let mut status = Self::default();
        let mut vertices = Seen::default();
        let mut parts = Seen::default();
        for Timed { at, event } in events {
            match event {
                Event::VertexAdded { vertex, .. }
                | Event::Started { vertex }
                | Event::CacheHit { vertex }
                | Event::CacheMiss { vertex, .. }
                | Event::Completed { vertex }
                | Event::Failed { vertex, .. }
                | Event::Canceled { vertex } => vertices.insert((vertex, "")),
                Event::Status { vertex, id, .. } => parts.insert((vertex, id.as_str())),
                Event::Output {
                    vertex,
                    stream,
                    bytes,
                } => status.logs.push(VertexLog {
                    vertex: &vertex.0,
                    stream: match stream {
                        Stream::Stdout => 1,
                        Stream::Stderr => 2,
                    },
                    data: Base64(bytes),
                    timestamp: Time(*at),
                }),
                Event::Warning { vertex, message } => status.warnings.push(VertexWarning {
                    vertex: vertex.as_ref().map(|vertex| &*vertex.0),
                    level: 1,
                    short: Base64(message.as_bytes()),
                }),
            }
        }
        let known = |(vertex, id): &(&VertexRef, &'a str)| Some((tracker.vertex(vertex)?, *id));
        let of_vertex = |(state, _)| vertex(state);
        let of_part = |(state, id)| part(state, id);
        status.vertexes = vertices
            .order
            .iter()
            .filter_map(known)
            .map(of_vertex)
            .collect();
        status.statuses = parts
            .order
            .iter()
            .filter_map(known)
            .filter_map(of_part)
            .collect();
        status
    }

    fn is_empty(&self) -> bool {
        self.vertexes.is_empty()
            && self.statuses.is_empty()
            && self.logs.is_empty()
            && self.warnings.is_empty()
    }
}

// What was named, once each, in the order of first mention.
#[derive(Default)]
struct Seen<'a> {
    known: BTreeMap<(&'a VertexRef, &'a str), ()>,
    order: Vec<(&'a VertexRef, &'a str)>,
}

impl<'a> Seen<'a> {
    fn insert(&mut self, item: (&'a VertexRef, &'a str)) {
        if self.known.insert(item, ()).is_none() {
            self.order.push(item);
        }
    }
}

fn vertex(state: &VertexState) -> Vertex<'_> {
    // BuildKit's cancelled vertices always have a start.
    let ended = state.phase.ended();
    Vertex {
        digest: &state.vertex.0,
        inputs: state.inputs.iter().map(|input| &*input.0).collect(),
        name: &state.name,
        started: state.phase.started().or(ended).map(Time),
        completed: ended.map(Time),
        cached: matches!(state.phase, Phase::Cached { .. }),
        error: match &state.phase {
            Phase::Failed { message, .. } => Some(message),
            Phase::Canceled { .. } => Some(CANCELED),
            Phase::Waiting | Phase::Running { .. } | Phase::Cached { .. } | Phase::Done { .. } => {
                None
            }
        },
        miss: state.miss.as_deref(),
    }
}

fn part<'a>(state: &'a VertexState, id: &str) -> Option<VertexStatus<'a>> {
    let part: &Part = state.parts.iter().find(|part| part.id == id)?;
    Some(VertexStatus {
        id: &part.id,
        vertex: &state.vertex.0,
        name: &part.id,
        total: part.total,
        current: part.current,
        timestamp: Time(part.updated),
        started: Time(part.started),
        completed: part.is_completed.then_some(Time(part.updated)),
    })
}

// Go's encoding of []byte.
struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

// Go's encoding of time.Time: RFC 3339 with as many digits of a second as it needs.
#[derive(Clone, Copy)]
struct Time(Duration);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nanoseconds = i128::try_from(self.0.as_nanos()).unwrap_or(i128::MAX);
        let time = jiff::Timestamp::from_nanosecond(nanoseconds).unwrap_or(jiff::Timestamp::MAX);
        serializer.collect_str(&time)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::super::tracker::tests::{
        added, at, canceled, completed, failed, hit, output, started, status, tracked, vertex,
        warned,
    };
    use super::*;

    fn lines(batches: &[&[Timed]]) -> Vec<String> {
        let mut json = Json::default();
        let mut out = Vec::new();
        let mut seen = Vec::new();
        for batch in batches {
            seen.extend(batch.iter().cloned());
            json.write(batch, &tracked(&seen), &mut out);
        }
        String::from_utf8(out)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_step_is_told_as_buildkit_tells_it() {
        let lines = lines(&[
            &[
                at(0, added("a", "[1/2] FROM x")),
                at(0, added("b", "[2/2] RUN y")),
            ],
            &[
                at(1, hit("a")),
                at(2, started("b")),
                at(250, output("b", "hi\n")),
            ],
            &[],
            &[at(400, failed("b", "exit code: 1"))],
        ]);
        assert_eq!(
            lines,
            [
                r#"{"version":1}"#,
                r#"{"vertexes":[{"digest":"sha256:a","name":"[1/2] FROM x"},{"digest":"sha256:b","name":"[2/2] RUN y"}]}"#,
                concat!(
                    r#"{"vertexes":[{"digest":"sha256:a","name":"[1/2] FROM x","started":"1970-01-01T00:16:40.001Z","#,
                    r#""completed":"1970-01-01T00:16:40.001Z","cached":true},{"digest":"sha256:b","name":"[2/2] RUN y","#,
                    r#""started":"1970-01-01T00:16:40.002Z"}],"logs":[{"vertex":"sha256:b","stream":1,"data":"aGkK","#,
                    r#""timestamp":"1970-01-01T00:16:40.25Z"}]}"#
                ),
                concat!(
                    r#"{"vertexes":[{"digest":"sha256:b","name":"[2/2] RUN y","started":"1970-01-01T00:16:40.002Z","#,
                    r#""completed":"1970-01-01T00:16:40.4Z","error":"exit code: 1"}]}"#
                ),
            ]
        );
    }

    #[test]
    fn parts_warnings_misses_and_inputs_are_told() {
        let add = Event::VertexAdded {
            vertex: vertex("b"),
            name: "B".into(),
            inputs: vec![vertex("a")],
        };
        let miss = Event::CacheMiss {
            vertex: vertex("b"),
            reason: "argument V changed".into(),
        };
        let lines = lines(&[
            &[at(0, add), at(0, miss)],
            &[
                at(1, status("b", "sha256:f", (1, 4), false)),
                at(2, status("b", "sha256:f", (4, 4), true)),
                at(3, warned(None, "loose")),
                at(3, warned(Some("b"), "own")),
            ],
        ]);
        assert_eq!(
            lines[1..],
            [
                r#"{"vertexes":[{"digest":"sha256:b","inputs":["sha256:a"],"name":"B","miss":"argument V changed"}]}"#,
                concat!(
                    r#"{"statuses":[{"id":"sha256:f","vertex":"sha256:b","name":"sha256:f","total":4,"current":4,"#,
                    r#""timestamp":"1970-01-01T00:16:40.002Z","started":"1970-01-01T00:16:40.001Z","#,
                    r#""completed":"1970-01-01T00:16:40.002Z"}],"warnings":[{"level":1,"short":"bG9vc2U="},"#,
                    r#"{"vertex":"sha256:b","level":1,"short":"b3du"}]}"#
                ),
            ]
        );
    }

    #[test]
    fn ends_are_told_once_with_their_last_state() {
        let lines = lines(&[&[
            at(0, added("a", "A")),
            at(0, started("a")),
            at(1, completed("a")),
            at(1, added("b", "B")),
            at(2, canceled("b")),
        ]]);
        let status: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        let vertexes = status["vertexes"].as_array().unwrap();
        assert_eq!(vertexes.len(), 2);
        assert_eq!(vertexes[0]["completed"], "1970-01-01T00:16:40.001Z");
        assert_eq!(vertexes[0].get("cached"), None);
        assert_eq!(vertexes[1]["error"], "context canceled");
        assert_eq!(vertexes[1]["started"], vertexes[1]["completed"]);
    }
}
