//! Heredocs: finding `<<WORD` in an instruction and reading the bodies that follow it (features.md 1.5).
//!
//! Words are told apart as BuildKit's shell lexer does, always with `\` as the escape character: quotes group, `$…` is
//! skipped whole, and blanks after `<<` belong to the word. A line that this lexer cannot read (an unclosed quote, a
//! `${…}` that is no substitution of a Dockerfile) has no heredocs at all: it may well be fine for the shell.

use std::iter::Peekable;
use std::str::CharIndices;

use crate::ast::Heredoc;
use crate::source::Span;

use super::error::SyntaxError;
use super::lines::Lines;

/// Deeper substitutions than this are not followed; it bounds recursion.
const MAX_NESTING: usize = 64;

/// `<<WORD` in an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) name: String,
    pub(super) fd: Option<u32>,
    pub(super) expand: bool,
    pub(super) chomp: bool,
}

impl Marker {
    /// Reads a word as a marker: digits, `<<`, `-` if tabs are to go, and one word, quoted or not.
    pub(super) fn parse(word: &str) -> Option<Self> {
        let (digits, rest) = word.split_once("<<")?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) || rest.contains('<') {
            return None;
        }
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (name, is_quoted) = unquote(rest.trim_start())?;
        Some(Self {
            name,
            fd: digits.parse().ok(),
            expand: !is_quoted,
            chomp,
        })
    }

    /// Reads the body up to the line that is the marker's name.
    pub(super) fn read_body(self, lines: &mut Lines<'_>) -> Result<Heredoc, SyntaxError> {
        let mut span: Option<Span> = None;
        while let Some(line) = lines.next() {
            let content = line.content();
            let terminator = if self.chomp {
                content.trim_start_matches('\t')
            } else {
                content
            };
            let body = span.get_or_insert(Span {
                start: line.start,
                end: line.start,
            });
            if terminator != self.name {
                body.end = line.start + line.raw.len();
                continue;
            }
            let span = *body;
            let raw = lines.slice(span.start..span.end);
            let content = if self.chomp {
                raw.split_inclusive('\n')
                    .map(|line| line.trim_start_matches('\t'))
                    .collect()
            } else {
                raw.to_owned()
            };
            return Ok(Heredoc {
                name: self.name,
                fd: self.fd,
                expand: self.expand,
                chomp: self.chomp,
                content,
                span,
            });
        }
        Err(SyntaxError::UnterminatedHeredoc { name: self.name })
    }
}

/// All markers of a line, in order.
pub(super) fn markers(line: &str) -> Vec<Marker> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let words = ShellWords::new(line).split().unwrap_or_default();
    words.into_iter().filter_map(Marker::parse).collect()
}

/// Removes quotes and escapes; the flag tells if there were quotes. `None` if it isn't exactly one non-empty word.
fn unquote(word: &str) -> Option<(String, bool)> {
    let mut out = String::new();
    let mut is_quoted = false;
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                is_quoted = true;
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => out.push(c),
                    }
                }
            }
            '"' => {
                is_quoted = true;
                unquote_double(&mut chars, &mut out)?;
            }
            '\\' => out.extend(chars.next()),
            c if c.is_whitespace() => return None,
            c => out.push(c),
        }
    }
    (!out.is_empty()).then_some((out, is_quoted))
}

fn unquote_double(chars: &mut std::str::Chars<'_>, out: &mut String) -> Option<()> {
    loop {
        match chars.next()? {
            '"' => return Some(()),
            '\\' => match chars.next()? {
                c @ ('"' | '$' | '\\') => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
}

/// Splits a line into words, quotes and escapes kept. Its methods return `None` where BuildKit's lexer fails.
struct ShellWords<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    nesting: usize,
}

impl<'a> ShellWords<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            chars: text.char_indices().peekable(),
            nesting: 0,
        }
    }

    fn split(mut self) -> Option<Vec<&'a str>> {
        let mut words = Vec::new();
        let mut start = None;
        while let Some((at, c)) = self.chars.next() {
            if c.is_whitespace() {
                words.extend(start.take().map(|start| &self.text[start..at]));
                continue;
            }
            start.get_or_insert(at);
            self.skip(c)?;
            if c == '<' && self.eat('<') {
                while self.eat(' ') || self.eat('\t') {}
            }
        }
        words.extend(start.map(|start| &self.text[start..]));
        Some(words)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        self.chars.next().map(|(_, c)| c)
    }

    fn eat(&mut self, c: char) -> bool {
        self.chars.next_if(|(_, next)| *next == c).is_some()
    }

    /// Skips what belongs to `c`, which has been read.
    fn skip(&mut self, c: char) -> Option<()> {
        match c {
            '\'' => while self.next()? != '\'' {},
            '"' => self.skip_double_quoted()?,
            '$' => self.skip_dollar()?,
            '\\' => {
                self.next();
            }
            _ => {}
        }
        Some(())
    }

    fn skip_double_quoted(&mut self) -> Option<()> {
        loop {
            match self.next()? {
                '"' => return Some(()),
                '$' => self.skip_dollar()?,
                '\\' if matches!(self.peek(), Some('"' | '$' | '\\')) => {
                    self.next();
                }
                _ => {}
            }
        }
    }

    fn skip_dollar(&mut self) -> Option<()> {
        if !self.eat('{') {
            self.skip_name();
            return Some(());
        }
        self.nesting += 1;
        if self.nesting > MAX_NESTING || matches!(self.peek()?, '{' | '}' | ':') {
            return None;
        }
        self.skip_name();
        match self.next()? {
            '}' => {}
            ':' => {
                self.next()?;
                self.skip_until('}')?;
            }
            '+' | '-' | '?' | '#' | '%' => self.skip_until('}')?,
            '/' => {
                self.eat('/');
                self.skip_until('/')?;
                self.skip_until('}')?;
            }
            _ => return None,
        }
        self.nesting -= 1;
        Some(())
    }

    fn skip_until(&mut self, stop: char) -> Option<()> {
        loop {
            let c = self.next()?;
            if c == stop {
                return Some(());
            }
            self.skip(c)?;
        }
    }

    /// A variable's name, a number, or one of the shell's special parameters.
    fn skip_name(&mut self) {
        match self.peek() {
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.next();
            }
            Some(c) if c.is_numeric() => {
                while self.chars.next_if(|(_, c)| c.is_numeric()).is_some() {}
            }
            Some(_) | None => {
                let is_name = |c: char| c.is_alphanumeric() || c == '_';
                while self.chars.next_if(|(_, c)| is_name(*c)).is_some() {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_words() {
        for (line, names) in [
            ("RUN <<EOF", vec!["EOF"]),
            ("RUN <<A cat <<B", vec!["A", "B"]),
            ("RUN << EOF", vec!["EOF"]),
            ("RUN cat <<\t EOF > /b", vec!["EOF"]),
            ("RUN <<- EOF", vec![]),
            ("RUN << -EOF", vec!["-EOF"]),
            ("RUN 3<<EOF <&3", vec!["EOF"]),
            ("RUN <<$EOF", vec!["$EOF"]),
            ("COPY <<a.txt <<\"b.sh\" /d/", vec!["a.txt", "b.sh"]),
            ("RUN <<'a b'", vec!["a b"]),
            ("RUN <<\\EOF", vec!["EOF"]),
            ("RUN \"<<EOF\"", vec![]),
            ("RUN '<<EOF'", vec![]),
            ("RUN cat<<EOF", vec![]),
            ("RUN cat <<<EOF", vec![]),
            ("RUN cat <<< EOF", vec![]),
            ("RUN echo $((1<<3))", vec![]),
            ("RUN <<\"\"", vec![]),
            ("RUN <<", vec![]),
            ("RUN echo 'it <<EOF", vec![]),
            ("RUN ${x^^} <<EOF", vec![]),
            ("RUN ${#x} <<EOF", vec![]),
            (
                "RUN ${x:-${y:+\"z}\"}} ${x//a/b} ${x:0:3} <<EOF",
                vec!["EOF"],
            ),
            ("RUN \"$(x ${y%'}'})\" <<EOF", vec!["EOF"]),
        ] {
            let found: Vec<_> = markers(line).into_iter().map(|m| m.name).collect();
            assert_eq!(found, names, "{line}");
        }
    }

    #[test]
    fn a_marker_says_how_to_read_its_body() {
        let marker = |name: &str, fd, expand, chomp| {
            Some(Marker {
                name: name.to_owned(),
                fd,
                expand,
                chomp,
            })
        };
        for (word, expected) in [
            ("<<E", marker("E", None, true, false)),
            ("12<<-E", marker("E", Some(12), true, true)),
            ("<<'E'", marker("E", None, false, false)),
            ("<<E\"F\"", marker("EF", None, false, false)),
            ("<<\"a\\\"\\b\"", marker("a\"\\b", None, false, false)),
            ("x<<E", None),
            ("<<'E", None),
        ] {
            assert_eq!(Marker::parse(word), expected, "{word}");
        }
    }

    #[test]
    fn deep_substitutions_do_not_recurse_for_ever() {
        let line = format!("RUN <<EOF {}", "${x:-".repeat(100_000));
        assert_eq!(markers(&line), []);
    }

    #[test]
    fn bodies_are_read_to_their_terminator() {
        for (text, chomp, content, raw) in [
            (
                "a\r\n EOF\nEOF \nEOF\nrest",
                false,
                "a\r\n EOF\nEOF \n",
                "a\r\n EOF\nEOF \n",
            ),
            ("\ta\n \tb\n\t\tEOF", true, "a\n \tb\n", "\ta\n \tb\n"),
            ("EOF\n", false, "", ""),
        ] {
            let mut lines = Lines::new(text);
            let marker = Marker {
                name: "EOF".to_owned(),
                fd: None,
                expand: true,
                chomp,
            };
            let heredoc = marker.read_body(&mut lines).expect(text);
            assert_eq!(heredoc.content, content);
            assert_eq!(heredoc.raw(text), raw);
        }
    }

    #[test]
    fn a_missing_terminator_is_an_error() {
        let marker = Marker::parse("<<EOF").expect("valid");
        let error = marker
            .read_body(&mut Lines::new("a\n\tEOF\n"))
            .expect_err("unterminated");
        assert_eq!(error.to_string(), "unterminated heredoc");
    }
}
