//! Flags of instructions: `--name`, `--name=value` before the arguments (features.md 1.3).

use std::borrow::Cow;
use std::ops::Range;

use thiserror::Error;

use crate::source::{Spanned, Suggestion, did_you_mean};

use super::lines::Logical;

/// Why a flag was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum FlagError {
    #[error("unknown flag: --{name}{suggestion}")]
    Unknown {
        name: String,
        suggestion: Suggestion,
    },
    #[error("duplicate flag specified: --{name}")]
    Duplicate { name: String },
    #[error("missing a value on flag: --{name}")]
    MissingValue { name: String },
    #[error("expecting boolean value for flag --{name}, not: {value}")]
    NotBoolean { name: String, value: String },
}

/// A leading word that starts with `--`, quotes and escapes removed.
#[derive(Clone, Debug)]
pub(super) struct RawFlag {
    text: String,
    /// Where it stands in the logical line.
    range: Range<usize>,
    /// Where its value starts: after the first `=`.
    value_start: Option<usize>,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// Nothing, `true` or `false`.
    Bool,
    /// One value.
    String,
    /// A value each time it is given.
    Strings,
}

/// The flags of an instruction, checked.
#[derive(Debug)]
pub(super) struct Flags {
    used: Vec<(&'static str, Spanned<String>)>,
}

/// Takes the flags off the front of `range`; returns where the arguments start. The escape character of flags is always
/// `\`, as in BuildKit.
pub(super) fn extract(text: &str, range: Range<usize>) -> (Vec<RawFlag>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        let rest = &text[at..range.end];
        let start = range.end - rest.trim_start().len();
        if !text[start..range.end].starts_with("--") {
            return (flags, start);
        }
        let flag = read_word(text, start..range.end);
        at = flag.range.end;
        if flag.text == "--" {
            return (flags, at);
        }
        flags.push(flag);
    }
}

/// Reads a word up to white space outside of quotes.
fn read_word(text: &str, range: Range<usize>) -> RawFlag {
    let mut flag = RawFlag {
        text: String::new(),
        range: range.clone(),
        value_start: None,
    };
    let mut quote = None;
    let mut chars = text[range.clone()].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if quote == Some(c) => quote = None,
            '\\' => flag.text.extend(chars.next().map(|(_, c)| c)),
            _ if quote.is_some() => flag.text.push(c),
            '\'' | '"' => quote = Some(c),
            _ if c.is_whitespace() => {
                flag.range.end = range.start + at;
                break;
            }
            _ => {
                flag.text.push(c);
                if c == '=' && flag.value_start.is_none() {
                    flag.value_start = Some(range.start + at + 1);
                }
            }
        }
    }
    flag
}

impl Flags {
    /// Checks flags against those that the instruction has.
    pub(super) fn parse(
        line: &Logical<'_>,
        raw: &[RawFlag],
        known: &[(&'static str, FlagKind)],
    ) -> Result<Self, FlagError> {
        let mut flags = Self { used: Vec::new() };
        for flag in raw {
            let (name, value) = match flag.text[2..].split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&flag.text[2..], None),
            };
            let Some((known_name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let near = did_you_mean(name, known.iter().map(|(known, _)| *known));
                return Err(FlagError::Unknown {
                    name: name.to_owned(),
                    suggestion: Suggestion(near.map(str::to_owned)),
                });
            };
            if *kind != FlagKind::Strings && flags.find(name).is_some() {
                return Err(FlagError::Duplicate {
                    name: name.to_owned(),
                });
            }
            let value = checked_value(name, value, *kind)?.into_owned();
            let start = flag.value_start.unwrap_or(flag.range.start);
            let span = line.span(start..flag.range.end);
            flags.used.push((known_name, Spanned { value, span }));
        }
        Ok(flags)
    }

    fn find(&self, name: &str) -> Option<&Spanned<String>> {
        let (_, value) = self.used.iter().find(|(used, _)| *used == name)?;
        Some(value)
    }

    /// The value of a flag as written, empty ones included.
    pub(super) fn given(&self, name: &str) -> Option<&Spanned<String>> {
        self.find(name)
    }

    /// The value of a flag; an empty one is as good as none.
    pub(super) fn string(&self, name: &str) -> Option<Spanned<String>> {
        self.find(name)
            .filter(|value| !value.value.is_empty())
            .cloned()
    }

    /// The value of a boolean flag, if it was given.
    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        self.find(name).map(|value| value.value == "true")
    }

    /// All values of a flag in order.
    pub(super) fn strings(&self, name: &str) -> Vec<Spanned<String>> {
        let values = self.used.iter().filter(|(used, _)| *used == name);
        values.map(|(_, value)| value.clone()).collect()
    }
}

fn checked_value<'a>(
    name: &str,
    value: Option<&'a str>,
    kind: FlagKind,
) -> Result<Cow<'a, str>, FlagError> {
    let missing = || FlagError::MissingValue {
        name: name.to_owned(),
    };
    match (kind, value) {
        (FlagKind::Bool, None) => Ok(Cow::Borrowed("true")),
        (FlagKind::Bool, Some("")) | (FlagKind::String | FlagKind::Strings, None) => Err(missing()),
        (FlagKind::Bool, Some(value)) => match value.to_lowercase() {
            lower if lower == "true" || lower == "false" => Ok(Cow::Owned(lower)),
            _other => Err(FlagError::NotBoolean {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
        },
        (FlagKind::String | FlagKind::Strings, Some(value)) => Ok(Cow::Borrowed(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::Lines;
    use super::*;

    const KNOWN: &[(&str, FlagKind)] = &[
        ("chown", FlagKind::String),
        ("link", FlagKind::Bool),
        ("exclude", FlagKind::Strings),
    ];

    fn extracted(text: &str) -> (Vec<String>, &str) {
        let (flags, rest) = extract(text, 0..text.len());
        (
            flags.into_iter().map(|flag| flag.text).collect(),
            &text[rest..],
        )
    }

    fn parse(text: &str) -> Result<Flags, FlagError> {
        let mut lines = Lines::new(text);
        let first = lines.next().expect("a line");
        let line = Logical::read(&mut lines, first, '\\');
        let (raw, _) = extract(&line.text, 0..line.text.len());
        Flags::parse(&line, &raw, KNOWN)
    }

    #[test]
    fn flags_are_leading_words() {
        for (text, flags, rest) in [
            ("a b", vec![], "a b"),
            ("--a --b=c d --e", vec!["--a", "--b=c"], "d --e"),
            ("--a=\"b c\"'d e'  f", vec!["--a=b cd e"], "f"),
            (r"--a=b\ c\", vec!["--a=b c"], ""),
            (r#"--a="\"x\\" y"#, vec![r#"--a="x\"#], "y"),
            ("--a -- --b", vec!["--a"], " --b"),
            ("- --a", vec![], "- --a"),
            ("--a=\"b c", vec!["--a=b c"], ""),
            ("--a=é\u{e0} x", vec!["--a=é\u{e0}"], "x"),
        ] {
            let flags: Vec<String> = flags.into_iter().map(str::to_owned).collect();
            assert_eq!(extracted(text), (flags, rest), "{text}");
        }
    }

    #[test]
    fn values_are_typed_and_know_their_place() {
        let text = "--chown=\"1:2\" --link --exclude=a --exclude=b x";
        let flags = parse(text).expect("valid");
        let chown = flags.string("chown").expect("given");
        assert_eq!(
            (
                chown.value.as_str(),
                &text[chown.span.start..chown.span.end]
            ),
            ("1:2", "\"1:2\"")
        );
        assert_eq!(flags.boolean("link"), Some(true));
        assert_eq!(flags.boolean("chown"), Some(false));
        let excluded: Vec<_> = flags
            .strings("exclude")
            .into_iter()
            .map(|e| e.value)
            .collect();
        assert_eq!(excluded, ["a", "b"]);
    }

    #[test]
    fn boolean_flags_take_both_words_in_any_case() {
        for (text, expected) in [
            ("x", None),
            ("--link", Some(true)),
            ("--link=TRUE", Some(true)),
            ("--link=False", Some(false)),
        ] {
            assert_eq!(parse(text).expect(text).boolean("link"), expected, "{text}");
        }
        assert_eq!(parse("--chown= x").expect("valid").string("chown"), None);
    }

    #[test]
    fn bad_flags_are_named() {
        for (text, message) in [
            ("--chwon=1", "unknown flag: --chwon (did you mean chown?)"),
            ("--colour", "unknown flag: --colour"),
            ("--Link", "unknown flag: --Link (did you mean link?)"),
            ("--chown=1 --chown=2", "duplicate flag specified: --chown"),
            ("--chown 1", "missing a value on flag: --chown"),
            ("--exclude", "missing a value on flag: --exclude"),
            ("--link=", "missing a value on flag: --link"),
            (
                "--link=yes",
                "expecting boolean value for flag --link, not: yes",
            ),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), message);
        }
    }
}
