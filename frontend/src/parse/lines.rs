//! Physical lines and the logical lines that continuations make of them.
//!
//! A logical line is the byte-exact concatenation of slices of the source, so that any range of it maps back to a place
//! in the file. Comment lines and blank lines between its parts are left out.
//!
//! Not here: what the text means, and heredoc bodies, whose lines are read raw ([`super::heredoc`]).

use std::borrow::Cow;
use std::ops::Range;

use crate::source::{LineRange, Span};

/// The most bytes a physical line may have without its line end: BuildKit reads lines through Go's `bufio.Scanner`, whose
/// buffer ends there.
pub(super) const MAX_LINE_BYTES: usize = 65_535;

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// One line of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Physical<'a> {
    /// Offset of its first byte.
    pub(super) start: usize,
    /// Its text, line end included.
    pub(super) raw: &'a str,
    /// Counted from one.
    pub(super) number: usize,
}

impl<'a> Physical<'a> {
    /// The text without CR and LF at its end.
    pub(super) fn content(&self) -> &'a str {
        self.raw.trim_end_matches(['\r', '\n'])
    }
}

/// Hands out the lines of a text one after the other; stops for good at a line that is too long.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    position: usize,
    /// One past the last byte of the last line handed out, without its line end.
    pub(super) content_end: usize,
    /// Number of the last line handed out.
    pub(super) number: usize,
    /// Whether it stopped at a line that is too long.
    pub(super) is_too_long: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let position = if text.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        Self {
            text,
            position,
            content_end: position,
            number: 0,
            is_too_long: false,
        }
    }

    /// The text from `range.start` to `range.end`.
    pub(super) fn slice(&self, range: Range<usize>) -> &'a str {
        &self.text[range]
    }

    pub(super) fn next(&mut self) -> Option<Physical<'a>> {
        let rest = &self.text[self.position..];
        // The last line end makes no line of its own, but a mark alone in the file does.
        if self.is_too_long || (rest.is_empty() && (self.number > 0 || self.position == 0)) {
            return None;
        }
        let (length, ending) = match rest.find('\n') {
            Some(index) => (index, 1),
            None => (rest.len(), 0),
        };
        if length > MAX_LINE_BYTES {
            self.is_too_long = true;
            return None;
        }
        let start = self.position;
        self.position += length + ending;
        self.number += 1;
        let line = Physical {
            start,
            raw: &rest[..length + ending],
            number: self.number,
        };
        self.content_end = start + line.content().len();
        Some(line)
    }
}

/// An instruction's text on one line.
#[derive(Debug)]
pub(super) struct Logical<'a> {
    /// The whole file.
    pub(super) source: &'a str,
    /// The text: leading blanks of the first line are gone, those of later ones are kept.
    pub(super) text: Cow<'a, str>,
    /// Where its parts stand: (offset in `text`, offset in the file), ascending.
    parts: Vec<(usize, usize)>,
    /// The lines it was made of.
    pub(super) lines: LineRange,
    /// Lines that were skipped because they are blank.
    pub(super) blank_continuations: Vec<usize>,
}

impl<'a> Logical<'a> {
    /// Joins `first` with the lines that continue it.
    pub(super) fn read(lines: &mut Lines<'a>, first: Physical<'a>, escape: char) -> Self {
        let content = first.content();
        let trimmed = content.trim_start();
        let mut logical = Logical {
            source: lines.text,
            text: Cow::Borrowed(""),
            parts: Vec::new(),
            lines: LineRange {
                first: first.number,
                last: first.number,
            },
            blank_continuations: Vec::new(),
        };
        let start = first.start + (content.len() - trimmed.len());
        let mut continues = logical.push(start, trimmed, escape);
        while continues {
            let Some(line) = lines.next() else { break };
            let content = line.content();
            logical.lines.last = line.number;
            let trimmed = content.trim_start();
            if trimmed.is_empty() {
                logical.blank_continuations.push(line.number);
            } else if !trimmed.starts_with('#') {
                continues = logical.push(line.start, content, escape);
            }
        }
        logical
    }

    /// Appends a line; true if another one follows.
    fn push(&mut self, start: usize, content: &'a str, escape: char) -> bool {
        let continued = strip_continuation(content, escape);
        let part = continued.unwrap_or(content);
        self.parts.push((self.text.len(), start));
        if self.text.is_empty() {
            self.text = Cow::Borrowed(part);
        } else {
            self.text.to_mut().push_str(part);
        }
        continued.is_some()
    }

    /// Where a range of `text` stands in the file. A range over several lines covers what is between them.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        let start = self.offset(range.start);
        let end = if range.is_empty() {
            start
        } else {
            self.offset(range.end - 1) + 1
        };
        Span { start, end }
    }

    fn offset(&self, at: usize) -> usize {
        let part = self.parts.partition_point(|(logical, _)| *logical <= at);
        match self.parts[..part].last() {
            Some((logical, source)) => source + (at - logical),
            None => at,
        }
    }
}

/// The line without its continuation mark: an escape character that no other one stands before, blanks after it allowed.
fn strip_continuation(content: &str, escape: char) -> Option<&str> {
    let body = content.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!body.ends_with(escape)).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Logical<'_> {
        let mut lines = Lines::new(text);
        let first = lines.next().expect("a line");
        Logical::read(&mut lines, first, '\\')
    }

    #[test]
    fn continuations_are_joined() {
        for (text, joined, last, blank) in [
            ("RUN a", "RUN a", 1, vec![]),
            ("  RUN a  \nx", "RUN a  ", 1, vec![]),
            ("RUN a \\\n  b\nc", "RUN a   b", 2, vec![]),
            ("RUN a \\ \t\r\n  b\r\nc", "RUN a   b", 2, vec![]),
            ("RUN a \\\n  # c \\\n\n \t\nb", "RUN a b", 5, vec![3, 4]),
            ("RUN a\\\\\nb", "RUN a\\\\", 1, vec![]),
            ("\\\nRUN a", "RUN a", 2, vec![]),
            ("RUN a \\", "RUN a ", 1, vec![]),
            ("RUN a \\\n# b\n", "RUN a ", 2, vec![]),
        ] {
            let logical = read(text);
            assert_eq!(logical.text, joined, "{text:?}");
            assert_eq!(logical.lines, LineRange { first: 1, last }, "{text:?}");
            assert_eq!(logical.blank_continuations, blank, "{text:?}");
        }
    }

    #[test]
    fn ranges_map_back_to_the_file() {
        let text = "  RUN a \\\n# no\n  bc\\\nd";
        let logical = read(text);
        assert_eq!(logical.text, "RUN a   bcd");
        for (word, source) in [("RUN", "RUN"), ("a", "a"), ("bcd", "bc\\\nd")] {
            let at = logical.text.find(word).expect("present");
            let span = logical.span(at..at + word.len());
            assert_eq!(&text[span.start..span.end], source);
        }
    }

    #[test]
    fn long_lines_stop_the_reading() {
        let fits = format!("a\n{}\nb", "x".repeat(MAX_LINE_BYTES));
        let mut lines = Lines::new(&fits);
        while lines.next().is_some() {}
        assert_eq!((lines.number, lines.is_too_long), (3, false));
        let long = format!("a\n{}\nb", "x".repeat(MAX_LINE_BYTES + 1));
        let mut lines = Lines::new(&long);
        while lines.next().is_some() {}
        assert_eq!((lines.number, lines.is_too_long), (1, true));
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let mut lines = Lines::new("\u{feff}FROM a\n");
        let first = lines.next().expect("a line");
        assert_eq!((first.start, first.content()), (3, "FROM a"));
        assert!(lines.next().is_none());
    }
}
