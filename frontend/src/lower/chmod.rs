//! The value of `--chmod`.

use crate::graph::Chmod;

/// Why a mode is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChmodError {
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Octal(String),
    #[error("invalid chmod parameter: '{0}': invalid syntax")]
    Symbolic(String),
}

/// Reads octal digits or a symbolic mode such as `u=rwX,go=rX`; an empty text is no mode.
pub(super) fn parse_chmod(text: &str) -> Result<Option<Chmod>, ChmodError> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o7777 => Ok(Some(Chmod::Octal(bits))),
            Ok(_) | Err(_) => Err(ChmodError::Octal(text.to_owned())),
        };
    }
    if text.split(',').all(is_clause) {
        return Ok(Some(Chmod::Symbolic(text.to_owned())));
    }
    Err(ChmodError::Symbolic(text.to_owned()))
}

/// `[ugoa]*` and then one or more of `[-+=]` with permissions, or one of `u`, `g`, `o` to copy from.
fn is_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    let is_operator = |c: char| matches!(c, '+' | '-' | '=');
    let Some(first) = actions.strip_prefix(is_operator) else {
        return false;
    };
    first.split(is_operator).all(|permissions| {
        matches!(permissions, "u" | "g" | "o")
            || permissions
                .chars()
                .all(|c| matches!(c, 'r' | 'w' | 'x' | 'X' | 's' | 't'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_modes() {
        for (text, want) in [
            ("755", Chmod::Octal(0o755)),
            ("07777", Chmod::Octal(0o7777)),
            ("u=rwX,go=rX", Chmod::Symbolic("u=rwX,go=rX".into())),
            ("+x", Chmod::Symbolic("+x".into())),
            ("g=u", Chmod::Symbolic("g=u".into())),
            ("a-w+t", Chmod::Symbolic("a-w+t".into())),
        ] {
            assert_eq!(parse_chmod(text), Ok(Some(want)));
        }
        assert_eq!(parse_chmod(""), Ok(None));
        for text in ["999", "17777", "99", "7x"] {
            assert_eq!(parse_chmod(text), Err(ChmodError::Octal(text.into())));
        }
        for text in ["foo", "u", "u=rwx,", "u=ru", "rwx"] {
            let error = parse_chmod(text).unwrap_err();
            assert_eq!(error, ChmodError::Symbolic(text.into()));
            assert!(error.to_string().contains("invalid syntax"));
        }
    }
}
