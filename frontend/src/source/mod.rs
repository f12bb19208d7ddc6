//! The text of a Dockerfile and places in it.

mod diagnostic;
mod span;
mod suggest;
mod text;

pub use diagnostic::Diagnostic;
pub use span::{LineRange, Span, Spanned};
pub(crate) use suggest::{Suggestion, did_you_mean, did_you_mean_in_any_case};
pub use text::SourceFile;
