//! Arrays of strings in JSON: the exec form and lists of paths.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

use super::error::SyntaxError;

/// A string of the array and where it stands in the text, quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: String,
    pub(super) range: Range<usize>,
}

/// Reads the text as a JSON array of strings; `None` if it is no JSON array, which then is no error but another form.
///
/// # Errors
///
/// If it is an array of something else.
pub(super) fn parse(text: &str) -> Result<Option<Vec<Item>>, SyntaxError> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let text = without_lone_surrogates(text);
    let text = text.as_ref();
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else {
        return Ok(None);
    };
    let strings = values.into_iter().map(|value| match value {
        Value::String(value) => Ok(value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(SyntaxError::NotStrings)
        }
    });
    let mut position = 0;
    let items = strings.map(|value| {
        let range = string_after(text, position);
        position = range.end;
        value.map(|value| Item { value, range })
    });
    items.collect::<Result<_, _>>().map(Some)
}

/// The text with `\ufffd` for each escape of half a surrogate pair: JSON allows them, but no text can hold them. Positions
/// stay as they are.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let mut whole = Cow::Borrowed(text);
    let mut position = 0;
    while let Some(found) = text[position..].find('\\') {
        let at = position + found;
        position = match (escaped_unit(text, at), escaped_unit(text, at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at + 12,
            (Some(0xd800..=0xdfff), _) => {
                whole.to_mut().replace_range(at..at + 6, "\\ufffd");
                at + 6
            }
            // The next character is escaped, a backslash too.
            _ => at + 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    whole
}

/// The number of a `\uXXXX` that stands at a position.
fn escaped_unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

/// The next string literal at or after a position between the elements of a valid array.
fn string_after(text: &str, position: usize) -> Range<usize> {
    let rest = &text[position..];
    let Some(open) = rest.find('"') else {
        return position..position;
    };
    let mut is_escaped = false;
    let close = rest[open + 1..].find(|c| {
        let closes = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        closes
    });
    let end = close.map_or(rest.len(), |close| open + 1 + close + 1);
    position + open..position + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_strings_are_read() {
        let text = r#"[ "a b" ,"\"q\"","é\u00e9\\" ,""]"#;
        let items = parse(text).expect("strings").expect("array");
        let found: Vec<_> = items
            .iter()
            .map(|item| (item.value.as_str(), &text[item.range.clone()]))
            .collect();
        assert_eq!(
            found,
            [
                ("a b", r#""a b""#),
                ("\"q\"", r#""\"q\"""#),
                ("éé\\", r#""é\u00e9\\""#),
                ("", r#""""#),
            ]
        );
        assert_eq!(parse("[]"), Ok(Some(vec![])));
    }

    #[test]
    fn half_a_surrogate_pair_is_a_replacement_character() {
        for (text, found) in [
            (r#"["\ud83d\ude00"]"#, "\u{1f600}"),
            (r#"["a\ud83d b"]"#, "a\u{fffd} b"),
            (r#"["\uDE00"]"#, "\u{fffd}"),
            (r#"["\ud83d\ud83d\ude00"]"#, "\u{fffd}\u{1f600}"),
            (r#"["\ud83d\u0041"]"#, "\u{fffd}A"),
            (r#"["\\ud83d"]"#, r"\ud83d"),
        ] {
            let items = parse(text).expect("strings").expect("array");
            assert_eq!(items[0].value, found, "{text}");
            assert_eq!(items[0].range, 1..text.len() - 1, "{text}");
        }
        assert_eq!(parse(r#"["\ud83"]"#), Ok(None));
        assert_eq!(parse(r#"["\+d83d"]"#), Ok(None));
    }

    #[test]
    fn what_is_no_array_is_another_form() {
        for text in [
            "",
            "a",
            "['a']",
            r#"["a""#,
            r#"["a",]"#,
            r#"["a"] b"#,
            "[ -d /x ]",
            r#"[1, x"#,
        ] {
            assert_eq!(parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn other_elements_are_errors() {
        for text in ["[1]", r#"["a", null]"#, r#"[["a"]]"#, "[{}]"] {
            assert_eq!(parse(text), Err(SyntaxError::NotStrings), "{text}");
        }
    }
}
