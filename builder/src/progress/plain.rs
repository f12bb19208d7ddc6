//! `--progress=plain`: the lines that BuildKit writes (`util/progress/progressui/printer.go`).
//!
//! One vertex has the floor at a time; its lines are prefixed with its number, given in the order of first appearance.
//! What ends is printed at once and whole. Of those at work, the one that writes most holds the floor, but no longer
//! than its share of the output allows, and nobody is kept waiting for more than 10 s.

use std::collections::BTreeSet;
use std::time::Duration;

use memchr::{memchr, memrchr};

use super::event::{Event, Timed};
use super::lines;
use super::text;
use super::tracker::{Part, Phase, Tracker, VertexState};

/// Shortest time between two writes; BuildKit's.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);

/// A vertex that holds the floor keeps it this long, at least, before others get a turn; BuildKit's.
const ANTI_FLICKER: Duration = Duration::from_secs(5);

/// A vertex with something to say waits this long, at most; BuildKit's.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// A part is told again after so long or so much progress (in 1/20 of its total); BuildKit's.
const PART_INTERVAL: Duration = Duration::from_secs(5);

/// Output of one waiting vertex that is held in memory before it gets the floor.
const PENDING_LIMIT_BYTES: usize = 256 << 10;

/// A line without an end is broken here, so that it can be held in memory.
const LINE_LIMIT_BYTES: usize = 64 << 10;

/// Folds events into lines.
#[derive(Debug, Default)]
pub(super) struct Plain {
    slots: Vec<Slot>,
    changed: BTreeSet<usize>,
    /// Who has the floor.
    current: Option<usize>,
    last_number: usize,
    /// Where the cursor is.
    cursor: Cursor,
    now: Duration,
}

/// Where the cursor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cursor {
    /// Nothing was written.
    #[default]
    Top,
    /// At the start of a line.
    LineStart,
    /// Behind an unfinished line of the vertex that has the floor.
    MidLine,
}

/// What is still to be said of a vertex.
#[derive(Debug, Default)]
struct Slot {
    number: Option<usize>,
    /// Output that was not printed yet.
    output: Vec<Chunk>,
    /// What `output` takes in memory.
    pending_bytes: usize,
    /// The line that was printed last, if it has no end yet.
    open: Option<OpenLine>,
    warnings: Vec<String>,
    parts: BTreeSet<String>,
    shown_parts: Vec<Part>,
    /// Updates since the vertex last began to wait or got the floor, and since when.
    updates: u32,
    waits_since: Duration,
}

/// Output as it came.
#[derive(Debug)]
struct Chunk {
    /// Time between the vertex's start and its coming.
    since: Duration,
    bytes: Vec<u8>,
}

/// A line without an end.
#[derive(Debug)]
struct OpenLine {
    /// The time of its first byte and its text so far.
    text: Vec<u8>,
    /// Whether the cursor stands behind it; if not, it is told again from its start.
    is_shown: bool,
}

impl Plain {
    /// Takes an event that `tracker` has taken already and found to be about the vertex at `index`.
    pub(super) fn observe(&mut self, timed: Timed, index: Option<usize>, tracker: &Tracker) {
        let Some(index) = index else { return };
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let (slot, state) = (&mut self.slots[index], &tracker.vertices()[index]);
        match timed.event {
            // Nothing is said of a vertex before it begins.
            Event::VertexAdded { .. } | Event::CacheMiss { .. } => return,
            Event::Output { bytes, .. } => slot.push(state.phase.elapsed(timed.at), bytes),
            Event::Status { id, .. } => {
                slot.parts.insert(id);
            }
            Event::Warning { message, .. } => slot.warnings.push(message),
            Event::Started { .. }
            | Event::CacheHit { .. }
            | Event::Completed { .. }
            | Event::Failed { .. }
            | Event::Canceled { .. } => {
                if state.phase.started().is_none() {
                    return;
                }
            }
        }
        if slot.updates == 0 {
            slot.waits_since = timed.at;
        }
        slot.updates = slot.updates.saturating_add(1);
        self.changed.insert(index);
    }

    /// Whether there is anything to print.
    pub(super) fn is_due(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether so much waits that it must be printed at once.
    pub(super) fn is_full(&self) -> bool {
        let is_full = |index: &usize| self.slots[*index].is_full();
        self.changed.iter().any(is_full)
    }

    /// Adds the lines that are due at `now`.
    pub(super) fn print(&mut self, tracker: &Tracker, now: Duration, out: &mut Vec<u8>) {
        self.now = now;
        let holder = self.current;
        let vertices = tracker.vertices();
        let (mut ended, open): (Vec<usize>, Vec<usize>) = std::mem::take(&mut self.changed)
            .into_iter()
            .partition(|index| vertices[*index].phase.ended().is_some());
        ended.sort_by_key(|index| (Some(*index) != holder, vertices[*index].phase.ended()));
        for index in ended {
            self.print_vertex(index, tracker, out);
        }
        let runs = |index: &usize| matches!(vertices[*index].phase, Phase::Running { .. });
        let holder = holder.filter(runs);
        if open.is_empty() {
            let next = (0..vertices.len())
                .filter(runs)
                .min_by_key(|index| vertices[*index].phase.started());
            if let (None, Some(next)) = (holder, next) {
                self.print_vertex(next, tracker, out);
            }
            return;
        }
        if let Some(holder) = holder.filter(|holder| open.contains(holder)) {
            self.print_vertex(holder, tracker, out);
        }
        let next = self.next_holder(holder, &open);
        // Those that did not get the floor still have something to say.
        self.changed
            .extend(open.into_iter().filter(|index| Some(*index) != holder));
        if let Some(next) = next {
            self.print_vertex(next, tracker, out);
        }
    }

    /// Who gets the floor, if it changes hands. `open` have something to say.
    fn next_holder(&self, holder: Option<usize>, open: &[usize]) -> Option<usize> {
        let waited = |index: usize| {
            self.now
                .saturating_sub(self.slots[index].waits_since)
                .as_secs_f64()
        };
        let speed = |index: usize| f64::from(self.slots[index].updates) / waited(index).max(0.001);
        let is_overdue = |index: &usize| {
            Some(*index) != holder
                && (waited(*index) > MAX_DELAY.as_secs_f64() || self.slots[*index].is_full())
        };
        if let Some(overdue) = open.iter().copied().find(is_overdue) {
            return Some(overdue);
        }
        let fastest = open
            .iter()
            .copied()
            .max_by(|a, b| speed(*a).total_cmp(&speed(*b)).then(b.cmp(a)));
        let Some(holder) = holder else { return fastest };
        let others = open.iter().copied().filter(|index| *index != holder);
        let sum: f64 = others.map(speed).sum::<f64>() + speed(holder);
        let share = speed(holder) / sum;
        let turn = ANTI_FLICKER.as_secs_f64() / (1.0 - share);
        fastest.filter(|_| turn < waited(holder))
    }

    fn print_vertex(&mut self, index: usize, tracker: &Tracker, out: &mut Vec<u8>) {
        let state = &tracker.vertices()[index];
        self.changed.remove(&index);
        let number = self.take_floor(index, state, out);
        let notes = self.slots[index].notes(state);
        if !notes.is_empty() {
            self.end_line(index, out);
        }
        for note in notes {
            push_line(out, format_args!("#{number} {note}"));
        }
        if let Some(cursor) = self.slots[index].print_lines(number, out) {
            self.cursor = cursor;
        }
        let Some(end) = end_of(&state.phase) else {
            return;
        };
        self.end_line(index, out);
        push_line(out, format_args!("#{number} {end}"));
        self.slots[index] = Slot {
            number: Some(number),
            ..Slot::default()
        };
        self.current = None;
    }

    /// Gives the floor to a vertex: its number.
    fn take_floor(&mut self, index: usize, state: &VertexState, out: &mut Vec<u8>) -> usize {
        let number = *self.slots[index].number.get_or_insert_with(|| {
            self.last_number += 1;
            self.last_number
        });
        if self.current == Some(index) {
            return number;
        }
        if let Some(old) = self.current {
            self.end_line(old, out);
            let slot = &mut self.slots[old];
            slot.updates = 0;
            push_line(
                out,
                format_args!("#{} ...", slot.number.unwrap_or_default()),
            );
        }
        if self.cursor != Cursor::Top {
            out.push(b'\n');
        }
        push_line(out, format_args!("#{number} {}", one_line(&state.name)));
        self.cursor = Cursor::LineStart;
        self.current = Some(index);
        // Its share counts from here: what it said while it waited must not end its turn at once.
        self.slots[index].updates = 1;
        self.slots[index].waits_since = self.now;
        number
    }

    /// Ends an unfinished line; if there is more of it later, it is told again from its start.
    fn end_line(&mut self, index: usize, out: &mut Vec<u8>) {
        if self.cursor == Cursor::MidLine {
            out.push(b'\n');
            self.cursor = Cursor::LineStart;
        }
        if let Some(open) = &mut self.slots[index].open {
            open.is_shown = false;
        }
    }
}

impl Slot {
    /// Takes output that came `since` the vertex's start.
    fn push(&mut self, since: Duration, bytes: Vec<u8>) {
        self.pending_bytes += bytes.len() + size_of::<Chunk>();
        self.output.push(Chunk { since, bytes });
    }

    fn is_full(&self) -> bool {
        self.pending_bytes > PENDING_LIMIT_BYTES
    }

    /// Warnings and news of parts, as they follow the number.
    fn notes(&mut self, state: &VertexState) -> Vec<String> {
        let warnings = std::mem::take(&mut self.warnings);
        let mut notes: Vec<String> = warnings
            .iter()
            .map(|warning| format!("WARN: {}", one_line(warning)))
            .collect();
        let news = std::mem::take(&mut self.parts);
        for part in state.parts.iter().filter(|part| news.contains(&part.id)) {
            let shown = self.shown_parts.iter().position(|old| old.id == part.id);
            match shown {
                Some(index) if !is_news(&self.shown_parts[index], part) => continue,
                Some(index) => self.shown_parts[index] = part.clone(),
                None => self.shown_parts.push(part.clone()),
            }
            notes.push(part_line(part));
        }
        notes
    }

    /// Writes the output: where the cursor is then, if there is any. An unfinished line is kept.
    fn print_lines(&mut self, number: usize, out: &mut Vec<u8>) -> Option<Cursor> {
        self.pending_bytes = 0;
        if self.open.is_none() && self.output.is_empty() {
            return None;
        }
        let number = format!("#{number} ");
        if let Some(open) = self.open.as_mut().filter(|open| !open.is_shown) {
            out.extend_from_slice(number.as_bytes());
            out.extend_from_slice(&open.text);
            open.is_shown = true;
        }
        for Chunk { since, bytes } in std::mem::take(&mut self.output) {
            self.print_chunk(&number, &text::stamp(since), &bytes, out);
        }
        Some(match self.open {
            Some(_) => Cursor::MidLine,
            None => Cursor::LineStart,
        })
    }

    /// Writes output behind the unfinished line, if there is one.
    fn print_chunk(&mut self, number: &str, stamp: &str, bytes: &[u8], out: &mut Vec<u8>) {
        let (first, rest) = match &self.open {
            None => (&[][..], bytes),
            Some(_) => bytes.split_at(memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)),
        };
        out.extend_from_slice(first);
        if let Some(mut open) = self.open.take().filter(|_| !first.ends_with(b"\n")) {
            open.text.extend_from_slice(first);
            self.keep_open(open.text, out);
        }
        let (whole, unfinished) = rest.split_at(memrchr(b'\n', rest).map_or(0, |at| at + 1));
        let head = format!("{number}{stamp} ");
        lines::push(out, head.as_bytes(), whole);
        if !unfinished.is_empty() {
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(unfinished);
            self.keep_open([stamp.as_bytes(), b" ", unfinished].concat(), out);
        }
    }

    /// Remembers the unfinished line that was just written, or ends it.
    fn keep_open(&mut self, text: Vec<u8>, out: &mut Vec<u8>) {
        if text.len() >= LINE_LIMIT_BYTES {
            out.push(b'\n');
            return;
        }
        let is_shown = true;
        self.open = Some(OpenLine { text, is_shown });
    }
}

/// Whether a part has changed enough to be told again.
fn is_news(shown: &Part, part: &Part) -> bool {
    let progress = part.current.saturating_sub(shown.current);
    part.is_completed
        || part.updated.saturating_sub(shown.updated) >= PART_INTERVAL
        || (part.total > 0 && progress.saturating_mul(20) >= part.total)
}

fn part_line(part: &Part) -> String {
    let mut line = one_line(&part.id);
    if let Some(transfer) = text::transfer(part.current, part.total) {
        line.push(' ');
        line.push_str(&transfer);
    }
    let elapsed = part.updated.saturating_sub(part.started);
    if elapsed > Duration::from_millis(10) {
        line.push(' ');
        line.push_str(&text::seconds(elapsed));
    }
    if part.is_completed {
        line.push_str(" done");
    }
    line
}

fn end_of(phase: &Phase) -> Option<String> {
    match phase {
        Phase::Waiting | Phase::Running { .. } => None,
        Phase::Cached { .. } => Some("CACHED".to_owned()),
        Phase::Done { started, ended } => Some(format!(
            "DONE {}",
            text::seconds(ended.saturating_sub(*started))
        )),
        Phase::Failed { message, .. } => Some(format!("ERROR: {}", one_line(message))),
        Phase::Canceled { .. } => Some("CANCELED".to_owned()),
    }
}

/// Text that is shown on one line: a line end in it would pass for a line of ours.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn push_line(out: &mut Vec<u8>, line: std::fmt::Arguments<'_>) {
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
