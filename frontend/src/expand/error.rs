//! Why a word cannot be expanded.

use super::allowance::Exhausted;
use super::pattern::PatternError;
use crate::gofmt;

/// Why a word cannot be expanded. The texts are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", gofmt::quote(.word))]
pub(crate) struct ExpandError {
    /// The word.
    pub word: String,
    /// What is wrong with it.
    #[source]
    pub reason: SyntaxError,
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyntaxError {
    /// A quote or another delimiter is not closed.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unclosed(String),
    /// `${…` without its `}`.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${v/p` without its second `/`.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}` and the like.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// An operator that is none.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// Values that grow beyond all measure.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// Too many `${…}` within each other.
    #[error("substitutions are nested too deeply")]
    TooDeep,
    /// `${v?message}` and the variable has no value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message given, or the default one.
        message: String,
    },
    /// A pattern that is none.
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: PatternError,
    },
}
