//! A Dockerfile's text, its name and its lines.

use super::LineRange;

/// A Dockerfile as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

impl SourceFile {
    /// Takes the name to show in messages (as the user gave it) and the bytes; bytes that are not UTF-8 are replaced.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let text = String::from_utf8(bytes.into())
            .unwrap_or_else(|other| String::from_utf8_lossy(other.as_bytes()).into_owned());
        let mut line_starts = vec![0];
        line_starts.extend(text.match_indices('\n').map(|(index, _)| index + 1));
        line_starts.shrink_to_fit();
        Self {
            name: name.into(),
            text,
            line_starts,
        }
    }

    /// The name shown in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line, counted from one, that holds the byte at `offset`.
    pub fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// The text of a line counted from one, without its line end; the line after a final line end is empty.
    pub fn line(&self, number: usize) -> Option<&str> {
        let start = *self.line_starts.get(number.checked_sub(1)?)?;
        let end = self
            .line_starts
            .get(number)
            .copied()
            .unwrap_or(self.text.len());
        let line = &self.text[start..end];
        let line = line.strip_suffix('\n').unwrap_or(line);
        Some(line.strip_suffix('\r').unwrap_or(line))
    }

    /// The source listing that goes with a message, in BuildKit's format (`solver/errdefs/source.go`): two lines of
    /// context around a single line, one around a longer range, `>>>` before the lines meant. The line after a final
    /// line end counts. Empty if the lines are not in the file.
    pub fn excerpt(&self, lines: LineRange) -> String {
        use std::fmt::Write as _;

        let last_line = self.line_starts.len();
        if lines.first == 0 || lines.first > last_line {
            return String::new();
        }
        let around = if lines.first == lines.last { 2 } else { 1 };
        let from = lines.first.saturating_sub(around).max(1);
        let to = (lines.last + around).min(last_line);
        let rule = "-".repeat(20);
        let mut out = format!("{}:{}\n{rule}\n", self.name, lines.first);
        for number in from..=to {
            let mark = if (lines.first..=lines.last).contains(&number) {
                ">>>"
            } else {
                "   "
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                " {number:3} | {mark} {}",
                self.line(number).unwrap_or_default()
            );
        }
        out.push_str(&rule);
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: &str, first: usize, last: usize) -> String {
        SourceFile::new("Dockerfile", text.as_bytes()).excerpt(LineRange { first, last })
    }

    #[test]
    fn a_single_line_has_two_lines_around_it() {
        let rule = "--------------------";
        assert_eq!(
            excerpt("one\ntwo\nthree\nfour\nfive\nsix\n", 3, 3),
            format!(
                "Dockerfile:3\n{rule}\n   1 |     one\n   2 |     two\n   3 | >>> three\n   4 |     four\n   \
                 5 |     five\n{rule}\n"
            )
        );
    }

    #[test]
    fn a_range_has_one_line_around_it() {
        let rule = "--------------------";
        assert_eq!(
            excerpt("one\ntwo\nthree\nfour\n", 2, 3),
            format!(
                "Dockerfile:2\n{rule}\n   1 |     one\n   2 | >>> two\n   3 | >>> three\n   4 |     four\n{rule}\n"
            )
        );
    }

    #[test]
    fn context_is_clipped_at_the_ends_of_the_file() {
        let rule = "--------------------";
        for (text, first, last, expected) in [
            ("one", 1, 1, "   1 | >>> one\n"),
            ("one\n", 1, 1, "   1 | >>> one\n   2 |     \n"),
            (
                "one\r\ntwo\r\n",
                1,
                9,
                "   1 | >>> one\n   2 | >>> two\n   3 | >>> \n",
            ),
        ] {
            let expected = format!("Dockerfile:1\n{rule}\n{expected}{rule}\n");
            assert_eq!(excerpt(text, first, last), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_that_are_not_there_have_no_excerpt() {
        assert_eq!(excerpt("one\n", 0, 0), "");
        assert_eq!(excerpt("one\n", 3, 3), "");
    }

    #[test]
    fn offsets_and_lines_belong_together() {
        let file = SourceFile::new("Dockerfile", b"one\ntwo\r\n");
        let lines: Vec<_> = (0..=4).map(|number| file.line(number)).collect();
        assert_eq!(lines, [None, Some("one"), Some("two"), Some(""), None]);
        let numbers: Vec<_> = [0, 3, 4, 8, 9].map(|offset| file.line_at(offset)).to_vec();
        assert_eq!(numbers, [1, 1, 2, 2, 3]);
    }

    #[test]
    fn other_bytes_than_utf_8_are_replaced() {
        assert_eq!(SourceFile::new("f", b"a\xffb").text(), "a\u{fffd}b");
    }
}
