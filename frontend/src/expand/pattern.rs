//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and escapes, no bracket expressions.

use regex::Regex;

use super::allowance::{Allowance, Exhausted};

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    /// A backslash before something that needs none.
    #[error("invalid escape '\\{}'", .0.map_or(String::new(), String::from))]
    InvalidEscape(Option<char>),
    /// More replacements than can be made.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// Longer than the matcher takes.
    #[error("pattern is too large")]
    TooLarge,
}

/// How much a `*` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greed {
    Shortest,
    Longest,
}

/// `${value#pattern}` and `${value##pattern}`.
pub(crate) fn trim_prefix(
    value: &str,
    pattern: &str,
    greed: Greed,
) -> Result<String, PatternError> {
    let regex = compile(pattern, greed, true)?;
    Ok(match regex.find(value) {
        Some(found) => value[found.end()..].to_owned(),
        None => value.to_owned(),
    })
}

/// `${value%pattern}` and `${value%%pattern}`: a prefix of the text read backwards.
pub(crate) fn trim_suffix(
    value: &str,
    pattern: &str,
    greed: Greed,
) -> Result<String, PatternError> {
    let backwards: String = value.chars().rev().collect();
    let trimmed = trim_prefix(&backwards, &reverse(pattern), greed)?;
    Ok(trimmed.chars().rev().collect())
}

/// `${value/pattern/replacement}`: the first match; the replacement is taken as it is.
pub(crate) fn replace_first(
    value: &str,
    pattern: &str,
    replacement: &str,
) -> Result<String, PatternError> {
    let regex = compile(pattern, Greed::Longest, false)?;
    Ok(match regex.find(value) {
        Some(found) => format!(
            "{}{replacement}{}",
            &value[..found.start()],
            &value[found.end()..]
        ),
        None => value.to_owned(),
    })
}

/// `${value//pattern/replacement}`: all matches. The replacement is a template as of Go's `ReplaceAllString`: a `$1` that
/// survived expansion is an (empty) group.
pub(crate) fn replace_all(
    value: &str,
    pattern: &str,
    replacement: &str,
    allowance: &Allowance,
) -> Result<String, PatternError> {
    let regex = compile(pattern, Greed::Longest, false)?;
    let mut out = String::new();
    let mut position = 0;
    for found in regex.captures_iter(value) {
        let range = found.get_match().range();
        out.push_str(&value[position..range.start]);
        let before = out.len();
        found.expand(replacement, &mut out);
        allowance.spend(out.len() - before)?;
        position = range.end;
    }
    out.push_str(&value[position..]);
    Ok(out)
}

fn compile(pattern: &str, greed: Greed, is_anchored: bool) -> Result<Regex, PatternError> {
    let star = match greed {
        Greed::Shortest => ".*?",
        Greed::Longest => ".*",
    };
    let mut out = String::from(if is_anchored { "^" } else { "" });
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' => out.push_str(star),
            '?' => out.push('.'),
            // `}` and `/` are escaped for `${}`, the escape is not part of the pattern.
            '\\' if matches!(rest.peek(), Some('}' | '/')) => {}
            '\\' => match rest.next() {
                Some(next @ ('*' | '?' | '\\')) => push_literal(&mut out, next),
                other => return Err(PatternError::InvalidEscape(other)),
            },
            other => push_literal(&mut out, other),
        }
    }
    Regex::new(&out).map_err(|_too_large| PatternError::TooLarge)
}

fn push_literal(out: &mut String, c: char) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// The pattern read backwards, escapes kept in front of what they escape.
fn reverse(pattern: &str) -> String {
    let mut units: Vec<String> = Vec::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let mut unit = String::from(c);
        if c == '\\' {
            unit.extend(rest.next());
        }
        units.push(unit);
    }
    units.reverse();
    units.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_like_a_shell() {
        use Greed::{Longest, Shortest};
        for (value, pattern, greed, prefix, suffix) in [
            ("a.b.c", "*.", Shortest, "b.c", "a.b.c"),
            ("a.b.c", "*.", Longest, "c", "a.b.c"),
            ("a.b.c", ".*", Shortest, "a.b.c", "a.b"),
            ("a.b.c", ".*", Longest, "a.b.c", "a"),
            ("[x]", "[x]", Shortest, "", ""),
            ("a*b", "a\\*", Shortest, "b", "a*b"),
            ("b*a", "\\*a", Shortest, "b*a", "b"),
            ("öä", "?", Shortest, "ä", "ö"),
        ] {
            assert_eq!(trim_prefix(value, pattern, greed).unwrap(), prefix);
            assert_eq!(trim_suffix(value, pattern, greed).unwrap(), suffix);
        }
    }

    #[test]
    fn replaces_with_go_semantics() {
        let replaced =
            |value, pattern, with| replace_all(value, pattern, with, &Allowance::default());
        assert_eq!(replace_first("banana", "a", "$1").unwrap(), "b$1nana");
        assert_eq!(replaced("banana", "a", "$1").unwrap(), "bnn");
        assert_eq!(replaced("banana", "a", "$$").unwrap(), "b$n$n$");
        assert_eq!(replaced("a/b", "\\/", "-").unwrap(), "a-b");
        assert_eq!(
            replaced("a b", "\\ ", "-").unwrap_err().to_string(),
            "invalid escape '\\ '"
        );
    }
}
