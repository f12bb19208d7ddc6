//! An instruction cut into keyword, flags and arguments, with the checks that BuildKit makes while it still reads lines.

use std::ops::Range;

use crate::ast::{CommandLine, Heredoc, KeyValue, KeyValues};
use crate::source::{Span, Spanned};

use super::error::SyntaxError;
use super::flags::{self, FlagKind, Flags, RawFlag};
use super::heredoc;
use super::instruction::Keyword;
use super::json::{self, Item};
use super::lines::{Lines, Logical};
use super::words;

/// One instruction before its arguments are understood.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    pub(super) line: &'a Logical<'a>,
    /// The keyword as written, and what it is if it is known.
    pub(super) keyword: &'a str,
    pub(super) keyword_span: Span,
    pub(super) known: Option<Keyword>,
    raw_flags: Vec<RawFlag>,
    /// The arguments, without white space at the ends.
    rest: Range<usize>,
    pub(super) arguments: Arguments<'a>,
    pub(super) heredocs: Vec<Heredoc>,
}

/// The arguments, as far as they are understood while lines are read.
#[derive(Debug)]
pub(super) enum Arguments<'a> {
    /// Text; what it means depends on the instruction.
    Text,
    /// A JSON array.
    Array(Vec<Item>),
    /// Pairs of ENV or LABEL.
    Pairs(KeyValues),
    /// HEALTHCHECK's first word and its command.
    Health(Range<usize>, CommandLine),
    /// The instruction behind ONBUILD.
    Trigger(Box<Statement<'a>>),
}

impl<'a> Statement<'a> {
    /// Cuts a logical line apart.
    pub(super) fn read(line: &'a Logical<'a>, escape: char) -> Result<Self, SyntaxError> {
        let mut statement = Self::cut(line, 0..line.text.len());
        statement.arguments = statement.understand(escape)?;
        Ok(statement)
    }

    fn cut(line: &'a Logical<'a>, range: Range<usize>) -> Self {
        let text = &*line.text;
        let range = words::trimmed(text, range);
        let (keyword, rest) = words::split_first(text, range);
        let (raw_flags, start) = flags::extract(text, rest.clone());
        let written = &text[keyword.clone()];
        Self {
            line,
            known: Keyword::parse(written),
            keyword: written,
            keyword_span: line.span(keyword),
            raw_flags,
            rest: words::trimmed(text, start..rest.end),
            arguments: Arguments::Text,
            heredocs: Vec::new(),
        }
    }

    fn understand(&self, escape: char) -> Result<Arguments<'a>, SyntaxError> {
        match self.known {
            Some(Keyword::Onbuild) if !self.rest.is_empty() => {
                let mut trigger = Self::cut(self.line, self.rest.clone());
                // A trigger of a trigger is an error later; looking into it would be recursion without bound.
                if trigger.known != Some(Keyword::Onbuild) {
                    trigger.arguments = trigger.understand(escape)?;
                }
                Ok(Arguments::Trigger(Box::new(trigger)))
            }
            Some(
                Keyword::Run
                | Keyword::Cmd
                | Keyword::Entrypoint
                | Keyword::Shell
                | Keyword::Copy
                | Keyword::Add
                | Keyword::Volume,
            ) => Ok(json::parse(self.text())?.map_or(Arguments::Text, Arguments::Array)),
            Some(Keyword::Healthcheck) => {
                let (kind, command) = words::split_first(&self.line.text, self.rest.clone());
                let command = &self.line.text[command];
                let command = match json::parse(command)? {
                    Some(items) => CommandLine::Exec(values(items)),
                    None => CommandLine::Shell(command.to_owned()),
                };
                Ok(Arguments::Health(kind, command))
            }
            Some(keyword @ (Keyword::Env | Keyword::Label)) => {
                self.pairs(keyword, escape).map(Arguments::Pairs)
            }
            Some(
                Keyword::From
                | Keyword::Maintainer
                | Keyword::Expose
                | Keyword::User
                | Keyword::Workdir
                | Keyword::Arg
                | Keyword::Onbuild
                | Keyword::Stopsignal,
            )
            | None => Ok(Arguments::Text),
        }
    }

    /// `key=value…`, or `key rest of line` if the first word has no `=`.
    fn pairs(&self, keyword: Keyword, escape: char) -> Result<KeyValues, SyntaxError> {
        let text = &*self.line.text;
        let words = words::split_quoted(text, self.rest.clone(), escape);
        let Some(first) = words.first() else {
            return Ok(KeyValues {
                pairs: Vec::new(),
                is_legacy: false,
            });
        };
        if !text[first.clone()].contains('=') {
            let (key, value) = words::split_first(text, self.rest.clone());
            if value.is_empty() {
                return Err(SyntaxError::TwoArguments {
                    keyword: keyword.name(),
                });
            }
            let (key, value) = (self.spanned(key), self.spanned(value));
            return Ok(KeyValues {
                pairs: vec![KeyValue { key, value }],
                is_legacy: true,
            });
        }
        let pairs = words.into_iter().map(|word| {
            let (key, value) = self.halves(word.clone());
            match value {
                Some(value) => Ok(KeyValue { key, value }),
                None => Err(SyntaxError::MissingEquals {
                    word: text[word].to_owned(),
                }),
            }
        });
        Ok(KeyValues {
            pairs: exact(pairs.collect::<Result<_, _>>()?),
            is_legacy: false,
        })
    }

    /// Reads the bodies of the heredocs that the statement, or the one behind ONBUILD, opens.
    pub(super) fn read_heredocs(&mut self, lines: &mut Lines<'_>) -> Result<(), SyntaxError> {
        let taker = match &self.arguments {
            Arguments::Trigger(trigger) => trigger,
            Arguments::Text | Arguments::Array(_) | Arguments::Pairs(_) | Arguments::Health(..) => {
                &*self
            }
        };
        let takes_heredocs = match taker.known {
            Some(Keyword::Run | Keyword::Copy | Keyword::Add) => {
                matches!(taker.arguments, Arguments::Text)
            }
            Some(_) | None => false,
        };
        if takes_heredocs {
            for marker in heredoc::markers(&self.line.text) {
                self.heredocs.push(marker.read_body(lines)?);
            }
        }
        Ok(())
    }

    /// The arguments as text.
    pub(super) fn text(&self) -> &'a str {
        &self.line.text[self.rest.clone()]
    }

    /// The arguments as one value, if there are any.
    pub(super) fn whole(&self) -> Option<Spanned<String>> {
        (!self.rest.is_empty()).then(|| self.spanned(self.rest.clone()))
    }

    /// The arguments split at blanks; the elements if they are a JSON array.
    pub(super) fn list(&self) -> Vec<Spanned<String>> {
        match &self.arguments {
            Arguments::Array(items) => items
                .iter()
                .map(|item| Spanned {
                    value: item.value.clone(),
                    span: self
                        .line
                        .span(self.rest.start + item.range.start..self.rest.start + item.range.end),
                })
                .collect(),
            Arguments::Text
            | Arguments::Pairs(_)
            | Arguments::Health(..)
            | Arguments::Trigger(_) => words::split_at_blanks(&self.line.text, self.rest.clone())
                .into_iter()
                .map(|word| self.spanned(word))
                .collect(),
        }
    }

    /// The arguments split at white space outside of quotes, each at its first `=`.
    pub(super) fn names(&self, escape: char) -> Vec<(Spanned<String>, Option<Spanned<String>>)> {
        words::split_quoted(&self.line.text, self.rest.clone(), escape)
            .into_iter()
            .map(|word| self.halves(word))
            .collect()
    }

    /// The exec form if the arguments are a JSON array, else the shell form.
    pub(super) fn command(&self) -> CommandLine {
        match &self.arguments {
            Arguments::Array(items) => {
                CommandLine::Exec(items.iter().map(|item| item.value.clone()).collect())
            }
            Arguments::Text
            | Arguments::Pairs(_)
            | Arguments::Health(..)
            | Arguments::Trigger(_) => CommandLine::Shell(self.text().to_owned()),
        }
    }

    /// Checks the flags against those that the instruction has.
    pub(super) fn flags(
        &self,
        known: &[(&'static str, FlagKind)],
    ) -> Result<Flags, flags::FlagError> {
        Flags::parse(self.line, &self.raw_flags, known)
    }

    pub(super) fn spanned(&self, range: Range<usize>) -> Spanned<String> {
        Spanned {
            value: self.line.text[range.clone()].to_owned(),
            span: self.line.span(range),
        }
    }

    /// Splits a word at its first `=`.
    fn halves(&self, word: Range<usize>) -> (Spanned<String>, Option<Spanned<String>>) {
        match self.line.text[word.clone()].find('=') {
            Some(at) => {
                let at = word.start + at;
                let value = self.spanned(at + 1..word.end);
                (self.spanned(word.start..at), Some(value))
            }
            None => (self.spanned(word), None),
        }
    }
}

/// The same list without room for more: a file has many lists, most of them short.
pub(super) fn exact<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

fn values(items: Vec<Item>) -> Vec<String> {
    items.into_iter().map(|item| item.value).collect()
}
