//! "did you mean …?": the nearest of a few known words.
//!
//! Distance and threshold are BuildKit's (`util/suggest`): Levenshtein, fewer than three edits, the first of equals.

use std::fmt;

/// From this many edits on a word is another word, not a typo.
const FAR: usize = 3;

/// The ending of a message that suggests a word, empty without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Suggestion(pub(crate) Option<String>);

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(word) => write!(f, " (did you mean {word}?)"),
            None => Ok(()),
        }
    }
}

/// The candidate nearest to `word`; `None` if none is near or `word` itself is among them.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let mut best = None;
    let mut nearest = FAR;
    for candidate in candidates {
        let distance = distance_below(word, candidate, nearest);
        match distance {
            Some(0) => return None,
            Some(distance) => {
                nearest = distance;
                best = Some(candidate);
            }
            None => {}
        }
    }
    best
}

/// Like [`did_you_mean`] without regard to case; the answer has the casing of `word` if that has one.
pub(crate) fn did_you_mean_in_any_case<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let lower = word.to_lowercase();
    let lowered: Vec<String> = candidates.into_iter().map(str::to_lowercase).collect();
    let found = did_you_mean(&lower, lowered.iter().map(String::as_str))?;
    let is_upper = word == word.to_uppercase() && word != lower;
    Some(if is_upper {
        found.to_uppercase()
    } else {
        found.to_owned()
    })
}

/// The number of edits between two words if it is less than `limit`.
fn distance_below(a: &str, b: &str, limit: usize) -> Option<usize> {
    let b: Vec<char> = b.chars().collect();
    // Each missing character is an edit: long words need no table.
    let length = a.chars().take(b.len() + limit).count();
    if length.abs_diff(b.len()) >= limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    Some(row[b.len()]).filter(|distance| *distance < limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let flags = ["from", "chown", "chmod", "link"];
        for (word, expected) in [
            ("chwn", Some("chown")),
            ("chown", None),
            ("form", Some("from")),
            ("lonk", Some("link")),
            ("colour", None),
            ("", None),
            ("éhown", Some("chown")),
        ] {
            assert_eq!(did_you_mean(word, flags), expected, "{word}");
        }
        assert_eq!(did_you_mean(&"x".repeat(1 << 20), flags), None);
    }

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(did_you_mean("ab", ["ac", "ad"]), Some("ac"));
        assert_eq!(did_you_mean("ab", ["xyb", "ad"]), Some("ad"));
    }

    #[test]
    fn casing_follows_the_word() {
        for (word, expected) in [
            ("RUNN", Some("RUN")),
            ("runn", Some("run")),
            ("Runn", Some("run")),
            ("Run", None),
        ] {
            let found = did_you_mean_in_any_case(word, ["RUN", "USER"]);
            assert_eq!(found.as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn a_suggestion_ends_a_message() {
        assert_eq!(
            Suggestion(Some("x".to_owned())).to_string(),
            " (did you mean x?)"
        );
        assert_eq!(Suggestion(None).to_string(), "");
    }
}
