//! Text as Go's `fmt` and `time` print it: history entries and messages of BuildKit are made with them, and people and
//! scripts compare both.

use std::fmt::Write as _;

/// `%q`: a double-quoted Go string.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => push_escape(&mut out, "\\x", 2, c),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x1_0000 => push_escape(&mut out, "\\u", 4, c),
            c => push_escape(&mut out, "\\U", 8, c),
        }
    }
    out.push('"');
    out
}

fn push_escape(out: &mut String, prefix: &str, width: usize, c: char) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{prefix}{:0width$x}", u32::from(c));
}

/// `strconv.IsPrint` for what occurs in Dockerfiles: controls, unusual blanks and format characters are escaped.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}'))
}

/// `%q` of a slice: `["a" "b"]`.
pub(crate) fn quote_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `%v` of a slice: `[a b]`.
pub(crate) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `time.Duration.String`: `1m30s`, `1.5s`, `500ms`, `0s`.
pub(crate) fn duration(nanoseconds: i64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    if total < SECOND {
        let (unit, name) = match total {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{name}", decimal(total, unit));
    }
    let minutes = total / (60 * SECOND);
    let seconds = decimal(total % (60 * SECOND), SECOND);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit` with as many decimals as it needs; `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let whole = value / unit;
    let rest = value % unit;
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.to_string().len() - 1;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_like_go() {
        for (text, want) in [
            ("a b", r#""a b""#),
            ("d \"e\"", r#""d \"e\"""#),
            ("$A \\$A", r#""$A \\$A""#),
            ("tab\tnew\n", r#""tab\tnew\n""#),
            ("\u{1}\u{7f}", r#""\x01\x7f""#),
            ("ü日\u{200b}", "\"ü日\\u200b\""),
        ] {
            assert_eq!(quote(text), want);
        }
        assert_eq!(quote_list(&["a".into(), "b c".into()]), r#"["a" "b c"]"#);
        assert_eq!(plain_list(&[]), "[]");
    }

    #[test]
    fn prints_durations_like_go() {
        for (nanoseconds, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-2_000_000_000, "-2s"),
        ] {
            assert_eq!(duration(nanoseconds), want);
        }
    }
}
