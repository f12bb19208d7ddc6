//! What the terminal shows: a pure function from the state of a build and the terminal's size to lines of text.
//!
//! # Layout
//!
//! ```text
//! [+] Building 3.2s (5/9)
//!  => [build 2/4] RUN make                                                  2.1s
//!  => => # cc -c main.c
//!  => [internal] load build context                                         0.3s
//!  => => transferring context: [######--------------] 1.05MB / 3.20MB       0.2s
//! ```
//!
//! The live part has at most two lines fewer than the terminal. Running vertices come first, then their open parts,
//! then up to six lines of output each, of those that wrote last first. What ended is above, written once.

use std::time::Duration;

use super::text::{self, align, fit, printable};
use super::tracker::{Part, Phase, TailLine, Tracker, VertexState};

/// Lines of output shown under a running vertex; BuildKit's.
const LOG_LINES: usize = 6;

/// Cells of a transfer's bar, and the narrowest terminal that has room for one.
const BAR_CELLS: u64 = 20;
const BAR_MIN_COLUMNS: usize = 72;

/// Shorter times are shown as none; BuildKit's.
const SHORTEST: Duration = Duration::from_millis(50);

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// A line and what it says, for colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The text: no control characters, and fits the terminal.
    pub(super) text: String,
    /// What it says.
    pub(super) tone: Tone,
}

/// What a line says. Each is understandable without colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Something at work, or the header.
    Plain,
    /// Something done.
    Done,
    /// Something failed.
    Failed,
    /// Something given up, or a warning.
    Canceled,
    /// A command's output.
    Output,
}

/// The header: `[+] Building 3.2s (5/9)`, with `FINISHED` when all is done and well.
pub(super) fn header(tracker: &Tracker, size: Size, now: Duration, is_last: bool) -> Line {
    let elapsed = now.saturating_sub(tracker.begun().unwrap_or(now));
    let (ended, all) = (tracker.ended_count(), tracker.vertices().len());
    let is_well =
        |vertex: &VertexState| matches!(vertex.phase, Phase::Done { .. } | Phase::Cached { .. });
    let is_finished = is_last && all > 0 && tracker.vertices().iter().all(is_well);
    let finished = if is_finished { " FINISHED" } else { "" };
    let text = format!(
        "[+] Building {} ({ended}/{all}){finished}",
        text::seconds(elapsed)
    );
    Line {
        text: fit(&text, width(size)).to_owned(),
        tone: Tone::Plain,
    }
}

/// The live part: the header and what is at work.
pub(super) fn live(tracker: &Tracker, size: Size, now: Duration) -> Vec<Line> {
    let room = usize::from(size.rows).saturating_sub(2).max(1);
    let mut lines = vec![header(tracker, size, now, false)];
    let mut running: Vec<&VertexState> = tracker
        .vertices()
        .iter()
        .filter(|vertex| matches!(vertex.phase, Phase::Running { .. }))
        .collect();
    running.sort_by_key(|vertex| vertex.phase.started());
    let room = room - 1;
    let hidden = hidden_count(running.len(), room);
    running.truncate(running.len() - hidden);
    let spare = room - running.len() - usize::from(hidden > 0 && room > 0);
    let details = shares(&running, spare);
    for (vertex, share) in running.into_iter().zip(details) {
        lines.push(vertex_line(vertex, size, now));
        let open = open_parts(vertex).take(share.parts);
        lines.extend(open.map(|part| part_line(part, size, now)));
        lines.extend(output_lines(vertex, share.output, size));
    }
    if hidden > 0 && room > 0 {
        let text = format!(" => and {hidden} more running");
        lines.push(Line {
            text: fit(&text, width(size)).to_owned(),
            tone: Tone::Plain,
        });
    }
    lines
}

/// The lines that stay above the live part when a vertex has ended; none if it never began.
pub(super) fn ended(vertex: &VertexState, size: Size) -> Vec<Line> {
    let Some(now) = vertex
        .phase
        .ended()
        .filter(|_| vertex.phase.started().is_some())
    else {
        return Vec::new();
    };
    let mut lines = vec![vertex_line(vertex, size, now)];
    lines.extend(vertex.parts.iter().map(|part| part_line(part, size, now)));
    lines.extend(vertex.warnings.iter().map(|warning| Line {
        text: align(
            &format!(" => WARN: {}", printable(warning.as_bytes())),
            "",
            width(size),
        ),
        tone: Tone::Canceled,
    }));
    lines
}

// The last column stays free: some terminals wrap when it is written.
fn width(size: Size) -> usize {
    usize::from(size.columns).saturating_sub(1).max(1)
}

/// How many of `running` have no line; if any, one line of `room` says so.
fn hidden_count(running: usize, room: usize) -> usize {
    if running <= room {
        0
    } else {
        running - room.saturating_sub(1)
    }
}

/// Lines that a running vertex has beside its own.
#[derive(Clone, Copy, Default)]
struct Share {
    parts: usize,
    output: usize,
}

fn shares(running: &[&VertexState], mut spare: usize) -> Vec<Share> {
    let mut shares = vec![Share::default(); running.len()];
    // Parts in turns, so that one pull of many layers does not hide another.
    let wanted: Vec<usize> = running
        .iter()
        .map(|vertex| open_parts(vertex).count())
        .collect();
    while spare > 0
        && shares
            .iter()
            .zip(&wanted)
            .any(|(share, wanted)| share.parts < *wanted)
    {
        for (share, wanted) in shares.iter_mut().zip(&wanted) {
            if share.parts < *wanted && spare > 0 {
                share.parts += 1;
                spare -= 1;
            }
        }
    }
    let mut order: Vec<usize> = (0..running.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(last_output(running[*index])));
    for index in order {
        let wanted = running[index].tail.lines().count().min(LOG_LINES);
        shares[index].output = wanted.min(spare);
        spare -= shares[index].output;
    }
    shares
}

fn last_output(vertex: &VertexState) -> Option<Duration> {
    let last = vertex.tail.lines().next_back()?;
    Some(vertex.phase.started().unwrap_or_default() + last.at)
}

fn open_parts(vertex: &VertexState) -> impl Iterator<Item = &Part> {
    vertex.parts.iter().filter(|part| !part.is_completed)
}

fn vertex_line(vertex: &VertexState, size: Size, now: Duration) -> Line {
    let (word, tone) = match vertex.phase {
        Phase::Waiting | Phase::Running { .. } => ("", Tone::Plain),
        Phase::Cached { .. } => ("CACHED ", Tone::Done),
        Phase::Done { .. } => ("", Tone::Done),
        Phase::Failed { .. } => ("ERROR ", Tone::Failed),
        Phase::Canceled { .. } => ("CANCELED ", Tone::Canceled),
    };
    let name = printable(vertex.name.replace('\n', " ").as_bytes());
    Line {
        text: align(
            &format!(" => {word}{name}"),
            &timer(vertex.phase.elapsed(now)),
            width(size),
        ),
        tone,
    }
}

fn part_line(part: &Part, size: Size, now: Duration) -> Line {
    let end = if part.is_completed { part.updated } else { now };
    let mut text = format!(" => => {}", short_id(&part.id));
    if !part.is_completed && part.total > 0 && width(size) >= BAR_MIN_COLUMNS {
        text.push(' ');
        text.push_str(&bar(part.current, part.total));
    }
    if let Some(transfer) = text::transfer(part.current, part.total) {
        text.push(' ');
        text.push_str(&transfer);
    }
    Line {
        text: align(&text, &timer(end.saturating_sub(part.started)), width(size)),
        tone: if part.is_completed {
            Tone::Done
        } else {
            Tone::Plain
        },
    }
}

fn output_lines(vertex: &VertexState, count: usize, size: Size) -> impl Iterator<Item = Line> {
    let line = move |line: &TailLine| Line {
        text: align(
            &format!(" => => # {}", printable(&line.bytes)),
            "",
            width(size),
        ),
        tone: Tone::Output,
    };
    let skipped = vertex.tail.lines().count().saturating_sub(count);
    vertex.tail.lines().skip(skipped).map(line)
}

fn timer(elapsed: Duration) -> String {
    text::seconds(if elapsed < SHORTEST {
        Duration::ZERO
    } else {
        elapsed
    })
}

// A digest is recognised by its first digits; all of them leave no room for the sizes.
fn short_id(id: &str) -> String {
    let id = printable(id.as_bytes());
    match id.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 => fit(&id, "sha256:".len() + 12).to_owned(),
        _ => id,
    }
}

fn bar(current: u64, total: u64) -> String {
    let cells = u128::from(current.min(total)) * u128::from(BAR_CELLS) / u128::from(total.max(1));
    let full = usize::try_from(cells).unwrap_or_default();
    let empty = usize::try_from(BAR_CELLS).unwrap_or_default() - full;
    format!("[{}{}]", "#".repeat(full), "-".repeat(empty))
}

#[cfg(test)]
mod tests {
    use super::super::tracker::tests::{
        added, at, canceled, completed, failed, hit, output, started, status, tracked, warned,
    };
    use super::*;
    use crate::progress::event::Timed;

    const TERMINAL: Size = Size {
        columns: 80,
        rows: 24,
    };

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    fn now(millis: u64) -> Duration {
        Duration::from_millis(1_000_000 + millis)
    }

    fn busy(count: u64) -> Vec<Timed> {
        let mut events = Vec::new();
        for index in 0..count {
            let name = format!("v{index}");
            events.push(at(
                index,
                added(&name, &format!("[s{index} 2/3] RUN sleep {index}")),
            ));
            events.push(at(index, started(&name)));
            for line in 0..8 {
                events.push(at(
                    100 + index,
                    output(&name, &format!("{index}: line {line}\n")),
                ));
            }
        }
        events
    }

    #[test]
    fn a_running_step_shows_its_parts_and_last_lines() {
        let mut events = vec![
            at(0, added("f", "[1/2] FROM docker.io/library/busybox:latest")),
            at(0, added("r", "[2/2] RUN make\n  all")),
            at(0, started("f")),
            at(
                0,
                status(
                    "f",
                    &format!("sha256:{}", "ab".repeat(32)),
                    (1_050_000, 3_200_000),
                    false,
                ),
            ),
            at(0, status("f", "config", (10, 10), true)),
            at(100, started("r")),
        ];
        for line in 1..=7 {
            events.push(at(
                200,
                output("r", &format!("\x1b[1mline\x1b[0m {line}\n")),
            ));
        }
        let lines = live(&tracked(&events), TERMINAL, now(2_100));
        let expected = [
            "[+] Building 2.1s (0/2)".to_owned(),
            format!(
                " => [1/2] FROM docker.io/library/busybox:latest{}2.1s",
                " ".repeat(28)
            ),
            format!(
                " => => sha256:abababababab [######--------------] 1.05MB / 3.20MB{}2.1s",
                " ".repeat(10)
            ),
            format!(" => [2/2] RUN make   all{}2.0s", " ".repeat(51)),
            " => => # line 2".to_owned(),
            " => => # line 3".to_owned(),
            " => => # line 4".to_owned(),
            " => => # line 5".to_owned(),
            " => => # line 6".to_owned(),
            " => => # line 7".to_owned(),
        ];
        assert_eq!(texts(&lines), expected);
    }

    #[test]
    fn frames_fit_every_terminal() {
        for count in [0, 1, 3, 20, 21, 22, 60] {
            let tracker = tracked(&busy(count));
            for (columns, rows) in [
                (80, 24),
                (40, 10),
                (20, 5),
                (8, 3),
                (1, 1),
                (0, 0),
                (200, 60),
            ] {
                let size = Size { columns, rows };
                let lines = live(&tracker, size, now(5_000));
                assert!(
                    lines.len() <= usize::from(rows).saturating_sub(2).max(1),
                    "{count} in {size:?}"
                );
                for line in lines {
                    assert!(
                        text::columns(&line.text) < usize::from(columns).max(2),
                        "{line:?} in {size:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn sixty_running_steps_leave_a_count_of_those_not_shown() {
        let tracker = tracked(&busy(60));
        let lines = live(&tracker, TERMINAL, now(5_000));
        assert_eq!(lines.len(), 22);
        assert!(lines[1].text.starts_with(" => [s0 2/3] RUN sleep 0"));
        assert!(lines[20].text.starts_with(" => [s19 2/3] RUN sleep 19"));
        assert_eq!(lines[21].text, " => and 40 more running");
    }

    #[test]
    fn room_for_output_goes_to_who_wrote_last() {
        let tracker = tracked(&busy(4));
        let lines = live(
            &tracker,
            Size {
                columns: 80,
                rows: 15,
            },
            now(5_000),
        );
        let output: Vec<&str> = texts(&lines)
            .into_iter()
            .filter(|line| line.contains('#'))
            .collect();
        assert_eq!(
            output,
            [
                " => => # 2: line 6",
                " => => # 2: line 7",
                " => => # 3: line 2",
                " => => # 3: line 3",
                " => => # 3: line 4",
                " => => # 3: line 5",
                " => => # 3: line 6",
                " => => # 3: line 7",
            ]
        );
    }

    #[test]
    fn what_ended_is_one_block_with_its_word() {
        let cases = [
            (
                vec![started("a"), completed("a")],
                vec![" => A                     0.2s"],
                Tone::Done,
            ),
            (
                vec![hit("a")],
                vec![" => CACHED A              0.0s"],
                Tone::Done,
            ),
            (
                vec![started("a"), failed("a", "x")],
                vec![" => ERROR A               0.2s"],
                Tone::Failed,
            ),
            (
                vec![started("a"), canceled("a")],
                vec![" => CANCELED A            0.2s"],
                Tone::Canceled,
            ),
            (vec![canceled("a")], vec![], Tone::Canceled),
            (vec![started("a")], vec![], Tone::Plain),
            (
                vec![
                    started("a"),
                    warned(Some("a"), "odd"),
                    status("a", "push", (5, 5), true),
                    completed("a"),
                ],
                vec![
                    " => A                     0.6s",
                    " => => push 5B / 5B       0.0s",
                    " => WARN: odd",
                ],
                Tone::Done,
            ),
        ];
        for (events, want, tone) in cases {
            let mut all = vec![at(0, added("a", "A"))];
            all.extend((0..).zip(events).map(|(tick, event)| at(tick * 200, event)));
            let tracker = tracked(&all);
            let lines = ended(
                &tracker.vertices()[0],
                Size {
                    columns: 31,
                    rows: 24,
                },
            );
            assert_eq!(texts(&lines), want);
            assert!(lines.first().is_none_or(|line| line.tone == tone));
        }
    }

    #[test]
    fn finished_means_all_well() {
        let header = |events: &[Timed]| header(&tracked(events), TERMINAL, now(3_200), true).text;
        assert_eq!(
            header(&[at(0, hit("a"))]),
            "[+] Building 3.2s (1/1) FINISHED"
        );
        assert_eq!(
            header(&[at(0, hit("a")), at(0, failed("b", "x"))]),
            "[+] Building 3.2s (2/2)"
        );
        assert_eq!(header(&[]), "[+] Building 0.0s (0/0)");
    }
}
