//! Splitting an instruction's text into words, before any expansion.
//!
//! Words are ranges of the text: quotes and escapes stay in them. Both splitters know nothing of `${…}`, so a blank in
//! braces ends a word (features.md 1.4).

use std::ops::Range;

/// What separates the keyword, the words of FROM, COPY and the like, and the two halves of a legacy ENV.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// The part of `range` without white space at both ends.
pub(super) fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let slice = &text[range.clone()];
    let start = range.end - slice.trim_start().len();
    start..start + slice.trim().len()
}

/// Splits at blanks; quotes mean nothing.
pub(super) fn split_at_blanks(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text[range.clone()].char_indices() {
        let at = range.start + at;
        if !is_blank(c) {
            start.get_or_insert(at);
        } else if let Some(start) = start.take() {
            words.push(start..at);
        }
    }
    words.extend(start.map(|start| start..range.end));
    words
}

/// Splits off the first word: (word, rest without the blanks between them).
pub(super) fn split_first(text: &str, range: Range<usize>) -> (Range<usize>, Range<usize>) {
    let slice = &text[range.clone()];
    let end = range.start + slice.find(is_blank).unwrap_or(slice.len());
    let rest = range.end - text[end..range.end].trim_start_matches(is_blank).len();
    (range.start..end, rest..range.end)
}

/// Splits at white space outside of quotes. An escape character protects the next one, except in single quotes; one at
/// the very end is dropped.
pub(super) fn split_quoted(text: &str, range: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut end = range.end;
    let mut chars = text[range.clone()].char_indices();
    while let Some((at, c)) = chars.next() {
        let at = range.start + at;
        if quote.is_none() && c.is_whitespace() {
            words.extend(start.take().map(|start| start..at));
            continue;
        }
        start.get_or_insert(at);
        if c == escape && quote != Some('\'') {
            if chars.next().is_none() {
                end = at;
            }
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '\'' | '"') {
            quote = Some(c);
        }
    }
    words.extend(start.filter(|start| *start < end).map(|start| start..end));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, words: Vec<Range<usize>>) -> Vec<&str> {
        words.into_iter().map(|word| &text[word]).collect()
    }

    #[test]
    fn blanks_split_without_regard_to_quotes() {
        for (text, words) in [
            ("", vec![]),
            (" \t", vec![]),
            ("a\tb  c", vec!["a", "b", "c"]),
            ("\"a b\" c\u{a0}d", vec!["\"a", "b\"", "c\u{a0}d"]),
        ] {
            assert_eq!(texts(text, split_at_blanks(text, 0..text.len())), words);
        }
    }

    #[test]
    fn the_first_word_is_split_off() {
        for (text, first, rest) in [
            ("ENV", "ENV", ""),
            ("ENV  a b ", "ENV", "a b "),
            ("", "", ""),
        ] {
            let (word, tail) = split_first(text, 0..text.len());
            assert_eq!((&text[word], &text[tail]), (first, rest));
        }
    }

    #[test]
    fn quotes_and_escapes_hold_words_together() {
        for (text, words) in [
            ("", vec![]),
            ("a=1 b=2", vec!["a=1", "b=2"]),
            ("a=\"x y\"z b='1 2'", vec!["a=\"x y\"z", "b='1 2'"]),
            (r"a=x\ y b", vec![r"a=x\ y", "b"]),
            (r#"a="x\" y" b"#, vec![r#"a="x\" y""#, "b"]),
            (r"a='x\' b", vec![r"a='x\'", "b"]),
            (r#"a=\" b"#, vec![r#"a=\""#, "b"]),
            (r"a=x\", vec!["a=x"]),
            (r"a \", vec!["a"]),
            (r#"a="x\"#, vec![r#"a="x"#]),
            ("a=\"x y", vec!["a=\"x y"]),
            ("\"\"", vec!["\"\""]),
            ("a=${x:-b c}", vec!["a=${x:-b", "c}"]),
        ] {
            assert_eq!(texts(text, split_quoted(text, 0..text.len(), '\\')), words);
        }
        let text = "a=x` y";
        assert_eq!(
            texts(text, split_quoted(text, 0..text.len(), '`')),
            ["a=x` y"]
        );
    }

    #[test]
    fn trimming_keeps_places() {
        let text = "ab  c d\t ";
        assert_eq!(trimmed(text, 2..text.len()), 4..7);
        assert_eq!(trimmed(text, 2..4), 4..4);
    }
}
