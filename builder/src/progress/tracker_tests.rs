//! Tests of `tracker`, and events for those of its readers.

use super::*;
use crate::progress::event::Stream;

pub(in crate::progress) fn vertex(name: &str) -> VertexRef {
    VertexRef(format!("sha256:{name}").into())
}

pub(in crate::progress) fn at(millis: u64, event: Event) -> Timed {
    Timed {
        at: Duration::from_millis(1_000_000 + millis),
        event,
    }
}

pub(in crate::progress) fn added(name: &str, shown: &str) -> Event {
    Event::VertexAdded {
        vertex: vertex(name),
        name: shown.to_owned(),
        inputs: Vec::new(),
    }
}

pub(in crate::progress) fn started(name: &str) -> Event {
    let vertex = vertex(name);
    Event::Started { vertex }
}

pub(in crate::progress) fn completed(name: &str) -> Event {
    let vertex = vertex(name);
    Event::Completed { vertex }
}

pub(in crate::progress) fn hit(name: &str) -> Event {
    let vertex = vertex(name);
    Event::CacheHit { vertex }
}

pub(in crate::progress) fn canceled(name: &str) -> Event {
    let vertex = vertex(name);
    Event::Canceled { vertex }
}

pub(in crate::progress) fn failed(name: &str, message: &str) -> Event {
    Event::Failed {
        vertex: vertex(name),
        message: message.to_owned(),
    }
}

pub(in crate::progress) fn warned(name: Option<&str>, message: &str) -> Event {
    Event::Warning {
        vertex: name.map(vertex),
        message: message.to_owned(),
    }
}

pub(in crate::progress) fn output(name: &str, text: &str) -> Event {
    Event::Output {
        vertex: vertex(name),
        stream: Stream::Stdout,
        bytes: text.into(),
    }
}

pub(in crate::progress) fn status(
    name: &str,
    id: &str,
    done: (u64, u64),
    is_completed: bool,
) -> Event {
    Event::Status {
        vertex: vertex(name),
        id: id.to_owned(),
        current: done.0,
        total: done.1,
        is_completed,
    }
}

pub(in crate::progress) fn tracked(events: &[Timed]) -> Tracker {
    let mut tracker = Tracker::default();
    for event in events {
        tracker.apply(event);
    }
    tracker
}

#[test]
fn phases_follow_events_and_the_first_end_stays() {
    let ms = |millis: u64| Duration::from_millis(1_000_000 + millis);
    let cases = [
        (vec![], Phase::Waiting),
        (vec![started("a")], Phase::Running { started: ms(0) }),
        (
            vec![hit("a")],
            Phase::Cached {
                started: ms(0),
                ended: ms(0),
            },
        ),
        (
            vec![started("a"), hit("a")],
            Phase::Cached {
                started: ms(0),
                ended: ms(1),
            },
        ),
        (
            vec![started("a"), completed("a"), failed("a", "x")],
            Phase::Done {
                started: ms(0),
                ended: ms(1),
            },
        ),
        (
            vec![hit("a"), completed("a"), started("a")],
            Phase::Cached {
                started: ms(0),
                ended: ms(0),
            },
        ),
        (
            vec![canceled("a")],
            Phase::Canceled {
                started: None,
                ended: ms(0),
            },
        ),
        (
            vec![started("a"), failed("a", "exit code: 1")],
            Phase::Failed {
                started: ms(0),
                ended: ms(1),
                message: "exit code: 1".into(),
            },
        ),
    ];
    for (events, want) in cases {
        let mut all = vec![at(0, added("a", "A"))];
        all.extend((0..).zip(events).map(|(millis, event)| at(millis, event)));
        let tracker = tracked(&all);
        assert_eq!(tracker.vertices()[0].phase, want);
    }
}

#[test]
fn the_tail_is_the_last_ten_lines_with_the_time_of_their_first_byte() {
    let mut events = vec![at(0, added("a", "A")), at(100, started("a"))];
    for line in 0..12 {
        events.push(at(200 + line, output("a", &format!("line {line}\n"))));
    }
    events.push(at(300, output("a", "par")));
    events.push(at(400, output("a", "tial\nnext")));
    let tracker = tracked(&events);
    let lines: Vec<(u128, String)> = tracker.vertices()[0]
        .tail
        .lines()
        .map(|line| {
            (
                line.at.as_millis(),
                String::from_utf8_lossy(&line.bytes).into_owned(),
            )
        })
        .collect();
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[0], (104, "line 4".to_owned()));
    assert_eq!(lines[8], (200, "partial".to_owned()));
    assert_eq!(lines[9], (300, "next".to_owned()));
}

#[test]
fn the_tail_is_the_same_however_output_comes() {
    for lines in 0..25 {
        for end in ["", "\n", "\n\n", "open"] {
            let text: String = (0..lines).map(|line| format!("{line}\n")).collect();
            let text = format!("{text}{end}");
            let tail = |cut: usize| {
                let pieces = text.as_bytes().chunks(cut);
                let mut events = vec![at(0, output("a", "before\nbegun"))];
                events
                    .extend(pieces.map(|piece| at(0, output("a", str::from_utf8(piece).unwrap()))));
                tracked(&events).vertices()[0].tail.clone()
            };
            assert_eq!(tail(1_000), tail(1), "{text:?}");
        }
    }
}

#[test]
fn long_lines_are_cut_and_empty_ones_kept() {
    let long = "x".repeat(TAIL_LINE_BYTES + 5);
    let tracker = tracked(&[at(0, output("a", &format!("{long}\n\nend\n")))]);
    let lengths: Vec<usize> = tracker.vertices()[0]
        .tail
        .lines()
        .map(|line| line.bytes.len())
        .collect();
    assert_eq!(lengths, [TAIL_LINE_BYTES, 0, 3]);
}

#[test]
fn parts_and_warnings_and_misses_are_kept() {
    let tracker = tracked(&[
        at(0, status("a", "layer", (1, 10), false)),
        at(5, status("a", "layer", (10, 10), true)),
        at(6, warned(Some("a"), "careful")),
        at(7, warned(None, "generally")),
        at(
            8,
            Event::CacheMiss {
                vertex: vertex("a"),
                reason: "f changed".into(),
            },
        ),
    ]);
    let a = tracker.vertex(&vertex("a")).unwrap();
    assert_eq!(a.name, "sha256:a");
    assert_eq!(a.parts.len(), 1);
    assert_eq!((a.parts[0].current, a.parts[0].is_completed), (10, true));
    assert_eq!(
        a.parts[0].updated - a.parts[0].started,
        Duration::from_millis(5)
    );
    assert_eq!(a.warnings, ["careful"]);
    assert_eq!(a.miss.as_deref(), Some("f changed"));
    assert_eq!(tracker.warnings(), ["careful", "generally"]);
}
