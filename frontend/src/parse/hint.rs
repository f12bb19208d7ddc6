//! What to do about an error, beyond what BuildKit says: for mistakes whose message does not name its cause.

use super::duration::DurationError;
use super::error::{HealthError, InstructionError, ParseError, SyntaxError};

/// The remedy, if one is known.
pub(super) fn hint(error: &ParseError) -> Option<String> {
    match error {
        ParseError::Syntax(SyntaxError::UnterminatedHeredoc { name }) => {
            Some(format!("end it with a line that is exactly `{name}`"))
        }
        ParseError::Syntax(SyntaxError::LineTooLong) => {
            Some("break the line after this one with continuations".to_owned())
        }
        ParseError::Instruction(InstructionError::Unknown {
            keyword,
            suggestion,
        }) => unknown_instruction(keyword, suggestion.0.is_some()),
        ParseError::Instruction(InstructionError::Health(HealthError::Duration(
            DurationError::MissingUnit { text },
        ))) => Some(format!(
            "say in what it is counted, such as `{text}s` for seconds"
        )),
        ParseError::Syntax(_)
        | ParseError::Instruction(_)
        | ParseError::Structure(_)
        | ParseError::Mount(_) => None,
    }
}

/// What may have made a line start with a word that is no instruction.
fn unknown_instruction(keyword: &str, has_suggestion: bool) -> Option<String> {
    if keyword.contains('\0') {
        return Some("save the file as UTF-8: this looks like UTF-16".to_owned());
    }
    if let Some(unseen) = keyword.chars().find(|c| is_unseen(*c)) {
        return Some(format!(
            "the word holds U+{:04X}, which looks like a blank or like nothing: write a plain blank or remove it",
            u32::from(unseen)
        ));
    }
    if ["<<<<<<<", "=======", ">>>>>>>"].contains(&keyword) {
        return Some("a merge left this line: resolve its conflict".to_owned());
    }
    (!has_suggestion).then(|| {
        "if the line goes on from the one before, end that with the escape character; if it is a command, put RUN before it"
            .to_owned()
    })
}

/// Whether a character shows as a blank or not at all, and yet separates no words.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
    ) || (c.is_whitespace() && !c.is_ascii())
}

#[cfg(test)]
mod tests {
    use crate::source::SourceFile;

    /// The hint of the only error of a file.
    fn hint(text: &[u8]) -> Option<String> {
        let errors = crate::parse::parse(&SourceFile::new("Dockerfile", text)).expect_err("errors");
        let [error] = errors.as_slice() else {
            panic!("{errors:?}");
        };
        error.hint.clone()
    }

    #[test]
    fn lines_that_start_with_no_instruction() {
        let table: [(&[u8], &str); 6] = [
            (
                b"FROM a\nRUN b &&\n  && c\n",
                "end that with the escape character",
            ),
            (b"FROM a\napt-get install b\n", "put RUN before it"),
            (b"FROM a\n<<<<<<< HEAD\n", "a merge left this line"),
            ("FROM a\nRUN\u{a0}echo\n".as_bytes(), "U+00A0"),
            ("FROM a\nENV\u{200b} b=c\n".as_bytes(), "U+200B"),
            (b"\xff\xfeF\0R\0O\0M\0 \0a\0", "as UTF-8"),
        ];
        for (text, part) in table {
            let hint = hint(text).unwrap_or_default();
            assert!(hint.contains(part), "{text:?}: {hint}");
        }
    }

    #[test]
    fn a_word_that_is_nearly_an_instruction_has_its_suggestion() {
        assert_eq!(hint(b"FROM a\nCOPPY b c\n"), None);
    }

    #[test]
    fn durations_without_a_unit() {
        let hint = hint(b"FROM a\nHEALTHCHECK --interval=30 CMD b\n");
        assert_eq!(
            hint.as_deref(),
            Some("say in what it is counted, such as `30s` for seconds")
        );
    }
}
