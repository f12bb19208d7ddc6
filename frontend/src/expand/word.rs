//! The shell lexer: quotes, escapes and `$` in one word.
//!
//! Not for splitting an instruction into words: the parser has done that, before expansion and without knowing of it.
//! What stands in `${…}` is read by `braces`.

use std::iter::Peekable;
use std::str::Chars;

use super::allowance::{Allowance, Exhausted};
use super::error::{ExpandError, SyntaxError};

/// Where values come from.
pub(crate) trait Variables {
    /// The value of a variable, `None` if it is not set.
    fn lookup(&self, name: &str) -> Option<String>;

    /// What values may still be made of.
    fn allowance(&self) -> &Allowance;
}

/// More `${…}` within each other are refused: it bounds recursion.
const MAX_NESTING: usize = 64;

/// How quotes are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// They quote and are removed.
    Remove,
    /// They quote and stay: for showing a command.
    Keep,
    /// They are ordinary characters: heredoc bodies.
    Ordinary,
}

/// What happens to names without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unset {
    /// They expand to nothing.
    Empty,
    /// They stay as written: for showing a command.
    Keep,
}

/// Expands words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lexer {
    escape: char,
    quotes: Quotes,
    pub(super) unset: Unset,
}

/// An expanded word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expanded {
    /// The text.
    pub(crate) text: String,
    /// The text split at blanks that come from values or stand unquoted.
    pub(crate) words: Vec<String>,
}

impl Lexer {
    /// A lexer for the words of instructions, with the escape character of the file.
    pub(crate) fn new(escape: char) -> Self {
        Self {
            escape,
            quotes: Quotes::Remove,
            unset: Unset::Empty,
        }
    }

    /// A lexer for heredoc bodies: the escape directive does not apply to them.
    pub(crate) fn for_heredocs() -> Self {
        Self {
            escape: '\\',
            quotes: Quotes::Ordinary,
            unset: Unset::Empty,
        }
    }

    /// The same lexer for showing a RUN to the user.
    pub(crate) fn for_display(self) -> Self {
        Self {
            quotes: Quotes::Keep,
            unset: Unset::Keep,
            ..self
        }
    }

    /// Expands a word to one text.
    pub(crate) fn expand(
        &self,
        word: &str,
        variables: &dyn Variables,
    ) -> Result<String, ExpandError> {
        if self.is_plain(word) {
            return Ok(word.to_owned());
        }
        Ok(self.expand_words(word, variables)?.text)
    }

    /// Whether a word expands to itself: most do.
    pub(crate) fn is_plain(&self, word: &str) -> bool {
        !word.contains(['$', '\'', '"', self.escape])
    }

    /// Expands a word, also split at blanks.
    pub(crate) fn expand_words(
        &self,
        word: &str,
        variables: &dyn Variables,
    ) -> Result<Expanded, ExpandError> {
        let mut run = Run {
            lexer: *self,
            variables,
            rest: word.chars().peekable(),
            depth: 0,
        };
        run.until(None, false).map_err(|reason| ExpandError {
            word: word.to_owned(),
            reason,
        })
    }
}

/// The words under way.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

/// A word under way.
pub(super) struct Run<'a> {
    pub(super) lexer: Lexer,
    pub(super) variables: &'a dyn Variables,
    pub(super) rest: Peekable<Chars<'a>>,
    /// How many `${…}` are open.
    pub(super) depth: usize,
}

impl Run<'_> {
    /// Reads up to and including `stop`, or to the end.
    pub(super) fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<Expanded, SyntaxError> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(&c) = self.rest.peek() {
            if stop == Some(c) {
                self.rest.next();
                return Ok(Expanded {
                    text,
                    words: words.finish(),
                });
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.push(c));
                    text.push_str(&value);
                }
                '\'' | '"' if self.lexer.quotes != Quotes::Ordinary => {
                    let quoted = self.quoted(c, raw_escapes)?;
                    words.current.push_str(&quoted);
                    text.push_str(&quoted);
                }
                _ => self.plain(raw_escapes, &mut text, &mut words),
            }
        }
        match stop {
            Some(stop) => Err(SyntaxError::Unclosed(stop.to_string())),
            None => Ok(Expanded {
                text,
                words: words.finish(),
            }),
        }
    }

    /// One ordinary or escaped character.
    fn plain(&mut self, raw_escapes: bool, text: &mut String, words: &mut Words) {
        let Some(c) = self.rest.next() else { return };
        if c != self.lexer.escape {
            words.push(c);
            text.push(c);
            return;
        }
        if raw_escapes {
            words.current.push(c);
            text.push(c);
        }
        if let Some(next) = self.rest.next() {
            words.current.push(next);
            text.push(next);
        }
    }

    fn quoted(&mut self, quote: char, raw_escapes: bool) -> Result<String, SyntaxError> {
        self.rest.next();
        let inner = if quote == '\'' {
            self.single_quoted()?
        } else {
            self.double_quoted(raw_escapes)?
        };
        Ok(match self.lexer.quotes {
            Quotes::Keep => format!("{quote}{inner}{quote}"),
            Quotes::Remove | Quotes::Ordinary => inner,
        })
    }

    fn single_quoted(&mut self) -> Result<String, SyntaxError> {
        let mut text = String::new();
        for c in self.rest.by_ref() {
            if c == '\'' {
                return Ok(text);
            }
            text.push(c);
        }
        Err(SyntaxError::Unclosed("single-quote".to_owned()))
    }

    /// Within double quotes only `"`, `$` and the escape character itself can be escaped.
    fn double_quoted(&mut self, raw_escapes: bool) -> Result<String, SyntaxError> {
        let mut text = String::new();
        while let Some(&c) = self.rest.peek() {
            match c {
                '"' => {
                    self.rest.next();
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                _ => {
                    self.rest.next();
                    if c != self.lexer.escape {
                        text.push(c);
                        continue;
                    }
                    if raw_escapes {
                        text.push(c);
                    }
                    match self.rest.peek() {
                        None => {}
                        Some(&next) if next == '"' || next == '$' || next == c => {
                            self.rest.next();
                            text.push(next);
                        }
                        Some(_) => text.push(c),
                    }
                }
            }
        }
        Err(SyntaxError::Unclosed("double-quote".to_owned()))
    }

    /// `${…}` behind its `{`, if not too many are open.
    fn nested(&mut self) -> Result<String, SyntaxError> {
        if self.depth == MAX_NESTING {
            return Err(SyntaxError::TooDeep);
        }
        self.depth += 1;
        let value = self.braces()?;
        self.depth -= 1;
        Ok(value)
    }

    /// The value of a variable, if there is enough left for it.
    pub(super) fn lookup(&self, name: &str) -> Result<Option<String>, Exhausted> {
        let value = self.variables.lookup(name);
        let size = value.as_ref().map_or(0, String::len);
        self.variables.allowance().spend(size)?;
        Ok(value)
    }

    fn dollar(&mut self) -> Result<String, SyntaxError> {
        self.rest.next();
        if self.rest.peek() == Some(&'{') {
            self.rest.next();
            return self.nested();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(match (self.lookup(&name)?, self.lexer.unset) {
            (Some(value), _) => value,
            (None, Unset::Keep) => format!("${name}"),
            (None, Unset::Empty) => String::new(),
        })
    }

    /// A name: letters, digits and `_`, or only digits, or one special parameter. Empty if there is none.
    pub(super) fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_ascii_digit() || c.is_numeric() => {
                while let Some(c) = self.rest.next_if(|c| c.is_numeric()) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.rest.next()),
            Some(_) | None => {
                while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }
}

#[cfg(test)]
mod tests;
