//! Parser directives: `# syntax=`, `# escape=`, `# check=` before anything else in the file (features.md 1.2).

use crate::ast::Directives;
use crate::source::{Span, Spanned};

use super::error::SyntaxError;
use super::lines::Physical;

/// Collects directives until the first line that is none.
#[derive(Debug)]
pub(super) struct DirectiveReader {
    pub(super) found: Directives,
    has_escape: bool,
    is_done: bool,
    /// A `#!` line came first: `syntax` and `check` are still looked for, `escape` is not.
    has_shebang: bool,
}

impl DirectiveReader {
    pub(super) fn new() -> Self {
        Self {
            found: Directives {
                syntax: None,
                check: None,
                escape: '\\',
            },
            has_escape: false,
            is_done: false,
            has_shebang: false,
        }
    }

    /// Whether no line can be a directive any more.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Looks at the next line; true if it is a directive.
    pub(super) fn read(&mut self, line: &Physical<'_>) -> Result<bool, SyntaxError> {
        if self.is_done {
            return Ok(false);
        }
        if line.number == 1 && line.raw.starts_with("#!") {
            self.has_shebang = true;
            return Ok(false);
        }
        let Some((name, value, start)) = split(line.content(), "#") else {
            self.is_done = true;
            return Ok(false);
        };
        let spanned = |text: &str| {
            let start = line.start + start;
            Some(Spanned {
                value: text.to_owned(),
                span: Span {
                    start,
                    end: start + text.len(),
                },
            })
        };
        let is_repeated = match name.to_ascii_lowercase().as_str() {
            "syntax" => replace(&mut self.found.syntax, spanned(value)),
            "check" => {
                let first_word = value.split(' ').next().unwrap_or_default();
                replace(&mut self.found.check, spanned(first_word))
            }
            "escape" if self.has_shebang => return Ok(false),
            "escape" => {
                let is_repeated = self.has_escape;
                self.has_escape = true;
                if !is_repeated {
                    self.found.escape = escape_character(value)?;
                }
                is_repeated
            }
            _ => {
                self.is_done = true;
                return Ok(false);
            }
        };
        if is_repeated {
            let name = name.to_ascii_lowercase();
            return Err(SyntaxError::RepeatedDirective { name });
        }
        Ok(true)
    }
}

/// Sets a directive that must not be set; true, and no change, if it is.
fn replace(directive: &mut Option<Spanned<String>>, value: Option<Spanned<String>>) -> bool {
    if directive.is_some() {
        return true;
    }
    *directive = value;
    false
}

/// Splits `# name = value` into the name, the value and where the value starts; `mark` is what starts a comment.
pub(super) fn split<'l>(content: &'l str, mark: &str) -> Option<(&'l str, &'l str, usize)> {
    let body = content.trim_start().strip_prefix(mark)?.trim_start();
    let (name, value) = body.split_once('=')?;
    let name = name.trim_end();
    let value = value.trim_start();
    let start = content.len() - value.len();
    let value = value.trim_end();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then_some((name, value, start))
}

fn escape_character(value: &str) -> Result<char, SyntaxError> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(SyntaxError::EscapeToken {
            token: value.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::Lines;
    use super::*;

    fn read(text: &str) -> Result<Directives, SyntaxError> {
        let mut reader = DirectiveReader::new();
        let mut lines = Lines::new(text);
        while let Some(line) = lines.next() {
            reader.read(&line)?;
        }
        Ok(reader.found)
    }

    #[test]
    fn directives_are_read_until_another_line() {
        for (text, syntax, check, escape) in [
            ("# syntax=a b\n#escape=`\n", Some("a b"), None, '`'),
            ("#   EsCaPe =  `  \r\n", None, None, '`'),
            ("  # escape=`", None, None, '`'),
            ("# check=skip=A, B\n", None, Some("skip=A,"), '\\'),
            ("\n# escape=`", None, None, '\\'),
            ("# words\n# escape=`", None, None, '\\'),
            ("# flavour=x\n# escape=`", None, None, '\\'),
            ("# escape=\n# escape=`", None, None, '\\'),
            ("FROM a\n# escape=`", None, None, '\\'),
            ("#!/bin/x\n# syntax=a\n# escape=`", Some("a"), None, '\\'),
            ("\u{feff}# escape=`", None, None, '`'),
        ] {
            let found = read(text).expect(text);
            let value = |d: &Option<Spanned<String>>| d.as_ref().map(|d| d.value.clone());
            assert_eq!(value(&found.syntax).as_deref(), syntax, "{text:?}");
            assert_eq!(value(&found.check).as_deref(), check, "{text:?}");
            assert_eq!(found.escape, escape, "{text:?}");
        }
    }

    #[test]
    fn a_value_knows_its_place() {
        let text = "# escape=`\n#  syntax =  a b  \n";
        let syntax = read(text).expect("valid").syntax.expect("present");
        assert_eq!(&text[syntax.span.start..syntax.span.end], "a b");
    }

    #[test]
    fn bad_directives_are_errors() {
        for (text, message) in [
            (
                "# escape=x",
                "invalid escape token 'x' does not match ` or \\",
            ),
            (
                "# syntax=a\n# Syntax=b",
                "only one syntax parser directive can be used",
            ),
            (
                "# escape=`\n# escape=`",
                "only one escape parser directive can be used",
            ),
        ] {
            assert_eq!(read(text).expect_err(text).to_string(), message);
        }
    }
}
