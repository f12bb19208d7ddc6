//! Tests of the plain renderer: events in, lines out.

use super::super::tracker::tests::{
    added, at, canceled, completed, failed, hit, output, started, status, warned,
};
use super::*;
use crate::progress::event::{Stream, VertexRef};

/// Renders events, printing after each of the times given and at the end.
fn rendered(events: &[Timed], prints: &[u64]) -> String {
    let mut tracker = Tracker::default();
    let mut plain = Plain::default();
    let mut out = Vec::new();
    let mut prints = prints
        .iter()
        .copied()
        .map(|millis| Duration::from_millis(1_000_000 + millis))
        .peekable();
    for event in events {
        while let Some(now) = prints.next_if(|now| *now < event.at) {
            plain.print(&tracker, now, &mut out);
        }
        let index = tracker.apply(event);
        plain.observe(event.clone(), index, &tracker);
    }
    for now in prints {
        plain.print(&tracker, now, &mut out);
    }
    let end = events.last().map(|event| event.at).unwrap_or_default();
    plain.print(&tracker, end, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_short_build_is_printed_vertex_by_vertex() {
    let text = rendered(
        &[
            at(
                0,
                added(
                    "m",
                    "[internal] load metadata for docker.io/library/busybox:latest",
                ),
            ),
            at(0, added("c", "[1/3] FROM docker.io/library/busybox")),
            at(0, added("r", "[2/3] RUN echo hi")),
            at(0, added("w", "[3/3] RUN never")),
            at(0, started("m")),
            at(31, completed("m")),
            at(32, hit("c")),
            at(33, started("r")),
            at(279, output("r", "hi\n")),
            at(333, completed("r")),
        ],
        &[],
    );
    assert_eq!(
        text,
        "#1 [internal] load metadata for docker.io/library/busybox:latest\n#1 DONE 0.0s\n\n\
         #2 [1/3] FROM docker.io/library/busybox\n#2 CACHED\n\n\
         #3 [2/3] RUN echo hi\n#3 0.246 hi\n#3 DONE 0.3s\n"
    );
}

#[test]
fn ends_other_than_done_are_named() {
    let text = rendered(
        &[
            at(0, started("a")),
            at(1, started("b")),
            at(
                2,
                failed(
                    "a",
                    "process \"/bin/sh -c x\" did not complete successfully: exit code: 1",
                ),
            ),
            at(3, canceled("b")),
            at(4, canceled("never-begun")),
        ],
        &[],
    );
    assert_eq!(
        text,
        "#1 sha256:a\n#1 ERROR: process \"/bin/sh -c x\" did not complete successfully: exit code: 1\n\n\
         #2 sha256:b\n#2 CANCELED\n"
    );
}

#[test]
fn parts_are_told_when_they_moved() {
    let text = rendered(
        &[
            at(0, started("a")),
            at(0, status("a", "sha256:ff", (0, 3_200_000), false)),
            at(110, status("a", "sha256:ff", (100_000, 3_200_000), false)),
            at(220, status("a", "sha256:ff", (1_050_000, 3_200_000), false)),
            at(330, status("a", "sha256:ff", (3_200_000, 3_200_000), true)),
            at(440, status("a", "exporting layers", (0, 0), true)),
            at(550, warned(Some("a"), "odd\nthing")),
        ],
        &[50, 150, 250, 350, 450],
    );
    assert_eq!(
        text,
        "#1 sha256:a\n#1 sha256:ff 0B / 3.20MB\n#1 sha256:ff 1.05MB / 3.20MB 0.2s\n\
         #1 sha256:ff 3.20MB / 3.20MB 0.3s done\n#1 exporting layers done\n#1 WARN: odd thing\n"
    );
}

#[test]
fn unfinished_lines_are_continued_or_told_again() {
    let text = rendered(
        &[
            at(0, started("a")),
            at(1, output("a", "one\ntw")),
            at(101, output("a", "o\nthr")),
            at(210, started("b")),
            at(211, hit("b")),
            at(310, output("a", "ee\n")),
        ],
        &[50, 150, 250],
    );
    assert_eq!(
        text,
        "#1 sha256:a\n#1 0.001 one\n#1 0.001 two\n#1 0.101 thr\n#1 ...\n\n#2 sha256:b\n#2 CACHED\n\n\
         #1 sha256:a\n#1 0.101 three\n"
    );
}

#[test]
fn warnings_do_not_land_in_the_middle_of_a_line() {
    let text = rendered(
        &[
            at(0, started("a")),
            at(1, output("a", "half")),
            at(101, warned(Some("a"), "w")),
            at(201, completed("a")),
        ],
        &[50, 150],
    );
    assert_eq!(
        text,
        "#1 sha256:a\n#1 0.001 half\n#1 WARN: w\n#1 0.001 half\n#1 DONE 0.2s\n"
    );
}

#[test]
fn the_floor_changes_only_after_a_fair_turn() {
    // Two vertices that write alike: turns of 5 s / (1 - 1/2) = 10 s, the longest that anyone may wait.
    let mut events = vec![at(0, started("a")), at(0, started("b"))];
    let mut prints = vec![];
    for tick in 1..=150 {
        events.push(at(tick * 100, output("a", "a\n")));
        events.push(at(tick * 100, output("b", "b\n")));
        prints.push(tick * 100 + 50);
    }
    let text = rendered(&events, &prints);
    let changes: Vec<&str> = text.lines().filter(|line| line.ends_with("...")).collect();
    assert_eq!(changes, ["#1 ..."]);
    let seen = |line: &str| text.lines().filter(|l| l.ends_with(line)).count();
    assert!(seen(" b") >= 140, "{text}");
}

#[test]
fn much_output_does_not_pile_up() {
    let chunk = "x".repeat(1023) + "\n";
    let mut events = vec![
        at(0, started("a")),
        at(1, output("a", "a\n")),
        at(2, started("b")),
    ];
    for line in 0..300 {
        events.push(at(100 + line, output("b", &chunk)));
    }
    let text = rendered(&events, &[50, 450]);
    assert!(
        text.contains("#1 ...\n\n#2 sha256:b\n#2 0.098 x"),
        "{}",
        &text[..200]
    );
}

#[test]
fn endless_lines_are_broken() {
    let text = rendered(
        &[
            at(0, started("a")),
            at(0, output("a", &"y".repeat(LINE_LIMIT_BYTES))),
            at(1, output("a", "z\n")),
        ],
        &[],
    );
    assert!(text.ends_with("y\n#1 0.001 z\n"));
}

#[test]
fn an_open_vertex_is_named_when_nothing_else_is_said() {
    let text = rendered(
        &[
            at(0, started("a")),
            at(55, started("b")),
            at(60, completed("a")),
            at(500, added("c", "C")),
        ],
        &[50, 100, 200],
    );
    assert_eq!(text, "#1 sha256:a\n#1 DONE 0.1s\n\n#2 sha256:b\n");
}

#[test]
fn output_is_told_alike_however_it_comes() {
    let output_of = |bytes: &[u8]| Event::Output {
        vertex: VertexRef("sha256:a".into()),
        stream: Stream::Stdout,
        bytes: bytes.to_vec(),
    };
    let text: Vec<u8> = (0..600_u16)
        .flat_map(|line| {
            [
                vec![b'\r', 0xff, 0],
                vec![b'x'; usize::from(line) % 97],
                vec![b'\n'],
            ]
            .concat()
        })
        .chain(*b"no end")
        .collect();
    let lines = text.split(|byte| *byte == b'\n');
    let told = lines.flat_map(|line| [b"\n#1 0.005 ", line].concat());
    let want: Vec<u8> = b"#1 sha256:a"
        .iter()
        .copied()
        .chain(told)
        .chain(*b"\n#1 DONE 0.0s\n")
        .collect();
    for cut in [1, 2, 10, 99, 4_096, text.len()] {
        for is_printed_often in [false, true] {
            let (mut tracker, mut plain, mut out) =
                (Tracker::default(), Plain::default(), Vec::new());
            let pieces = text.chunks(cut).map(|piece| at(5, output_of(piece)));
            let events = [at(0, started("a"))]
                .into_iter()
                .chain(pieces)
                .chain([at(7, completed("a"))]);
            for event in events {
                let index = tracker.apply(&event);
                plain.observe(event, index, &tracker);
                if is_printed_often || plain.is_full() {
                    plain.print(&tracker, Duration::from_millis(1_000_006), &mut out);
                }
            }
            plain.print(&tracker, Duration::from_millis(1_000_008), &mut out);
            assert!(
                out == want,
                "in pieces of {cut}: {}",
                String::from_utf8_lossy(&out)
            );
        }
    }
}

#[test]
fn what_waits_is_bounded() {
    let (mut tracker, mut plain) = (Tracker::default(), Plain::default());
    let mut taken = 0;
    for event in (0..).map(|_| at(1, output("a", "\n"))) {
        let index = tracker.apply(&event);
        plain.observe(event, index, &tracker);
        taken += 1;
        if plain.is_full() {
            break;
        }
    }
    // Memory that is not the text counts too.
    assert!(taken < PENDING_LIMIT_BYTES / 16, "{taken}");
    plain.print(&tracker, Duration::from_millis(1_000_002), &mut Vec::new());
    assert!(!plain.is_full());
}
