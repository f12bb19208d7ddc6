//! Bytes to typed instructions, with a place for everything.
//!
//! ```text
//! lines (physical ─► logical) ─► statement (keyword, flags, arguments, heredocs) ─► instruction::* ─► ast::Instruction
//!    └ directive, comments           └ words, flags, json, heredoc
//! ```
//!
//! One pass over the text, linear in its length. What an error stops is its own instruction only: the rest of the file is
//! still checked. Errors are ordered as BuildKit finds them (module `error`), which is why the first one is the one it
//! reports.
//!
//! Not here: the meaning of stages, expansion of variables, checks that are not errors.

mod directive;
mod duration;
mod error;
mod file;
mod flags;
mod heredoc;
mod hint;
mod instruction;
mod json;
mod lines;
mod statement;
mod syntax;
mod words;

pub use syntax::check_syntax;

use crate::ast::{Dockerfile, Instruction};
use crate::source::{Diagnostic, SourceFile};

/// Parses a Dockerfile.
///
/// # Errors
///
/// Every error that can be found independently of the others; at least one. The first is the one that BuildKit reports:
/// those of lines, words and heredocs come first, then those of instructions, then those of mounts, each in file order.
pub fn parse(source: &SourceFile) -> Result<Dockerfile, Vec<Diagnostic>> {
    file::parse(source.text()).map_err(error::diagnostics)
}

/// Parses the text of an ONBUILD trigger as an instruction of its own. Its spans are places in that text.
///
/// # Errors
///
/// The first error in it, without lines: they would be lines of the trigger, which is in no file.
pub fn parse_trigger(text: &str) -> Result<Instruction, Diagnostic> {
    file::parse_trigger(text).map_err(error::Failure::into_trigger_diagnostic)
}

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
