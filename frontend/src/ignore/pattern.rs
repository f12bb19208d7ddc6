//! One pattern of the rule language, as `moby/patternmatcher` compiles it.
//!
//! The translation goes through the text of a Go regular expression, odd corners included (`\a` is a bell, `|` is an
//! alternative once the pattern has a wildcard): a pattern must mean here what it means there.

use regex::Regex;

use super::match_path;

/// Why a pattern cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Go's `filepath.ErrBadPattern`.
    #[error("syntax error in pattern")]
    Syntax,
    /// A `!` with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    EmptyException,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    is_exception: bool,
    matching: Matching,
}

#[derive(Clone, Debug)]
enum Matching {
    Exact,
    /// The pattern without its trailing `**` starts the path.
    Prefix(String),
    /// The pattern without its leading `**` ends the path.
    Suffix(String),
    Regex(Regex),
}

impl Pattern {
    /// Compiles a pattern; `None` if there is nothing but blanks.
    pub(super) fn new(pattern: &str) -> Result<Option<Self>, PatternError> {
        let trimmed = pattern.trim();
        if trimmed.is_empty() {
            return Ok(None);
        }
        let cleaned = super::clean_path(trimmed);
        let (is_exception, text) = match cleaned.strip_prefix('!') {
            Some("") => return Err(PatternError::EmptyException),
            Some(rest) => (true, rest.to_owned()),
            None => (false, cleaned),
        };
        match_path(&text, ".")?;
        let matching = compile(&text)?;
        Ok(Some(Self {
            text,
            is_exception,
            matching,
        }))
    }

    /// The pattern, cleaned, without its `!`.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it starts with `!`.
    pub(super) fn is_exception(&self) -> bool {
        self.is_exception
    }

    /// Whether it matches a path itself or one of the directories above it.
    pub(super) fn matches_or_parent(&self, path: &str) -> bool {
        self.matches(path)
            || path
                .match_indices('/')
                .any(|(at, _)| self.matches(&path[..at]))
    }

    /// Whether it matches exactly this path.
    fn matches(&self, path: &str) -> bool {
        match &self.matching {
            Matching::Exact => path == self.text,
            Matching::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Matching::Suffix(suffix) => {
                path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path)
            }
            Matching::Regex(regex) => regex.is_match(path),
        }
    }

    /// Whether it may match something below a directory: false only if that is certain.
    pub(super) fn may_match_below(&self, directory: &str) -> bool {
        let literal: String = self
            .text
            .chars()
            .take_while(|c| !matches!(c, '*' | '?' | '[' | '\\'))
            .collect();
        if literal.len() == self.text.len() {
            return literal
                .strip_prefix(directory)
                .is_some_and(|rest| rest.starts_with('/'))
                || self.matches_or_parent(directory);
        }
        let below = format!("{directory}/");
        literal.starts_with(&below) || below.starts_with(&literal)
    }
}

/// How far the pattern was found to be from plain text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

fn compile(pattern: &str) -> Result<Matching, PatternError> {
    let (form, regex) = translate(pattern);
    Ok(match form {
        Form::Exact => Matching::Exact,
        Form::Prefix => Matching::Prefix(pattern[..pattern.len() - 2].to_owned()),
        Form::Suffix => Matching::Suffix(pattern[2..].to_owned()),
        Form::Regex => {
            let text = rust_syntax(&format!("^{regex}$")).ok_or(PatternError::Syntax)?;
            Matching::Regex(Regex::new(&text).map_err(|_invalid| PatternError::Syntax)?)
        }
    })
}

/// The pattern as the inside of a Go regular expression.
fn translate(pattern: &str) -> (Form, String) {
    let mut form = Form::Exact;
    let mut out = String::new();
    let mut rest = pattern.chars().peekable();
    let mut is_first = true;
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                // `**/` is `**`.
                rest.next_if_eq(&'/');
                if rest.peek().is_some() {
                    out.push_str("(.*/)?");
                    form = Form::Regex;
                } else if form == Form::Exact {
                    form = Form::Prefix;
                } else {
                    out.push_str(".*");
                    form = Form::Regex;
                }
                if is_first {
                    form = Form::Suffix;
                }
            }
            '*' => {
                out.push_str("[^/]*");
                form = Form::Regex;
            }
            '?' => {
                out.push_str("[^/]");
                form = Form::Regex;
            }
            '.' | '+' | '(' | ')' | '$' => {
                out.push('\\');
                out.push(c);
            }
            '\\' => {
                out.push('\\');
                if let Some(next) = rest.next() {
                    out.push(next);
                    form = Form::Regex;
                }
            }
            '[' | ']' => {
                out.push(c);
                form = Form::Regex;
            }
            other => out.push(other),
        }
        is_first = false;
    }
    (form, out)
}

/// A Go regular expression in the syntax of the `regex` crate; `None` where Go would refuse it.
fn rust_syntax(go: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = go.chars().peekable();
    let mut class_length = None;
    while let Some(c) = rest.next() {
        match (c, class_length) {
            ('\\', _) => {
                push_escape(&mut out, rest.next()?)?;
                class_length = class_length.map(|length: usize| length + 1);
            }
            ('[', None) => {
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                class_length = Some(0);
            }
            (']', Some(1..)) => {
                out.push(']');
                class_length = None;
            }
            (c, Some(length)) => {
                // `[`, `&&`, `--` and `~~` mean something in a class of the `regex` crate only.
                let is_operator = matches!(c, '[' | ']' | '&' | '~')
                    || (c == '-' && (length == 0 || rest.peek() == Some(&'-')));
                if is_operator {
                    out.push('\\');
                }
                out.push(c);
                class_length = Some(length + 1);
            }
            // Go takes a brace that is no repetition literally.
            ('{', None) if !is_repetition(&rest.clone().collect::<String>()) => out.push_str("\\{"),
            ('}', None) => out.push('}'),
            (']', None) => out.push_str("\\]"),
            (c, None) => out.push(c),
        }
    }
    class_length.is_none().then_some(out)
}

/// Whether the text behind a `{` makes it a counted repetition.
fn is_repetition(rest: &str) -> bool {
    let Some((inner, _)) = rest.split_once('}') else {
        return false;
    };
    let (low, high) = inner.split_once(',').unwrap_or((inner, "0"));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !low.is_empty() && is_number(low) && is_number(high)
}

/// `\c` as Go reads it.
fn push_escape(out: &mut String, c: char) -> Option<()> {
    match c {
        'a' | 'f' | 't' | 'n' | 'r' | 'v' | 'b' | 'B' | 'A' | 'z' => {
            out.push('\\');
            out.push(c);
        }
        // Perl classes are ASCII in Go.
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        c if c.is_ascii_punctuation() || c == ' ' => {
            out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
        }
        _ => return None,
    }
    Some(())
}
