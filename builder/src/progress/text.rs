//! Times, sizes and foreign text as the renderers write them.

use std::time::Duration;

/// Time since a step began as BuildKit writes it before a line of output: more digits while it is short.
pub(crate) fn stamp(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let precision = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.precision$}")
}

/// A duration as `3.2s`.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// A size in decimal units as BuildKit writes it: `512B`, `1.05MB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (1_000_000_000_000_000, "PB"),
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    match UNITS.iter().find(|(unit, _)| count >= *unit) {
        None => format!("{count}B"),
        // In hundredths, in integers: no rounding surprises, no lossy cast.
        Some((unit, name)) => {
            let hundredths = (u128::from(count) * 100 + u128::from(unit / 2)) / u128::from(*unit);
            format!("{}.{:02}{name}", hundredths / 100, hundredths % 100)
        }
    }
}

/// `1.05MB / 3.20MB`, `1.05MB` if the total is not known, nothing if nothing is.
pub(super) fn transfer(current: u64, total: u64) -> Option<String> {
    match (current, total) {
        (0, 0) => None,
        (_, 0) => Some(bytes(current)),
        _ => Some(format!("{} / {}", bytes(current), bytes(total))),
    }
}

/// What a terminal would show of a line of foreign text: without escape sequences and control characters, and of a line
/// that was overwritten with carriage returns the last state.
pub(crate) fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\t' => out.push(' '),
            '\u{1b}' => skip_escape(&mut chars),
            c if is_unsafe(c) => {}
            c => out.push(c),
        }
    }
    out
}

// C0 and C1 controls, and the characters that turn the reading direction of all that follows.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

// ECMA-48: a control sequence ends with 0x40..=0x7e; an operating system command with BEL or ESC \; others are one
// character long.
fn skip_escape(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('[') => {
            chars.find(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        Some(']') => {
            if chars.find(|c| matches!(c, '\u{7}' | '\u{1b}')) == Some('\u{1b}') {
                chars.next();
            }
        }
        Some(_) | None => {}
    }
}

/// Columns that a text without control characters takes, never too few: what may be wide counts as wide.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(char_columns).sum()
}

fn char_columns(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2600}'..='\u{27bf}'
        | '\u{2b00}'..='\u{2bff}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// The longest beginning of a text that takes at most `width` columns.
pub(super) fn fit(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += char_columns(c);
        if used > width {
            return &text[..at];
        }
    }
    text
}

/// `left` and `right` at the two ends of `width` columns; `left` gives way. Both without control characters.
pub(super) fn align(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(columns(right) + 1);
    let left = fit(left, room);
    let gap = room.saturating_sub(columns(left)) + 1;
    fit(&format!("{left}{:gap$}{right}", ""), width)
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_lose_digits_as_they_grow() {
        let cases = [
            (0, "0.000"),
            (246, "0.246"),
            (9_999, "9.999"),
            (12_345, "12.35"),
            (123_456, "123.5"),
        ];
        for (millis, want) in cases {
            assert_eq!(stamp(Duration::from_millis(millis)), want);
        }
    }

    #[test]
    fn sizes_are_decimal_with_two_digits() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1.00kB"),
            (1_048_576, "1.05MB"),
            (3_200_000, "3.20MB"),
            (u64::MAX, "18446.74PB"),
        ];
        for (count, want) in cases {
            assert_eq!(bytes(count), want);
        }
        assert_eq!(transfer(0, 0), None);
        assert_eq!(transfer(2, 0).as_deref(), Some("2B"));
        assert_eq!(transfer(0, 5_000).as_deref(), Some("0B / 5.00kB"));
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain", "plain"),
            (b"a\tb", "a b"),
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07rest", "rest"),
            (b"\x1b]8;;http://x\x1b\\link", "link"),
            (b" 10%\r 50%\r100%\r\n", "100%"),
            (b"\x1b[2Ja\x08b\x00", "ab"),
            ("a\u{202e}b\u{9b}".as_bytes(), "ab"),
        ];
        for (line, want) in cases {
            assert_eq!(printable(line), want, "{line:?}");
        }
    }

    #[test]
    fn lines_keep_to_their_width() {
        assert_eq!(align(" => abc", "3.2s", 16), " => abc     3.2s");
        assert_eq!(align(" => abcdefghijk", "3.2s", 16), " => abcdefg 3.2s");
        assert_eq!(align("日本語日本語", "1s", 9), "日本語 1s");
        assert_eq!(align("abc", "", 10), "abc");
        assert_eq!(columns(&align("abc", "longer than all", 5)), 5);
        assert_eq!(fit("é\u{301}x", 1), "é\u{301}");
    }
}
