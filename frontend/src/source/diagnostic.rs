//! Something to tell about a Dockerfile, and where.

use std::fmt;

use super::LineRange;

/// An error or warning about a Dockerfile, pointing at lines of it.
///
/// `message` is this level's text only; where a conformance case records a fragment it stands in it verbatim. `lines`
/// is `None` for errors that BuildKit reports without a source listing. The excerpt is made by
/// [`super::SourceFile::excerpt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, lower case, without a final full stop.
    pub message: String,
    /// The lines it is about.
    pub lines: Option<LineRange>,
    /// What to do about it, if known.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}
