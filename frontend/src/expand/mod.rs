//! Variable expansion: the words of an instruction and the variables that hold where it stands.
//!
//! The rules are those of BuildKit's `frontend/dockerfile/shell` (features.md 1.6), which are close to a POSIX shell's and
//! differ from them in the places that the tests of `word` list.

mod allowance;
mod braces;
mod declared;
mod error;
mod pattern;
mod scope;
mod watch;
mod word;

pub(crate) use allowance::{Allowance, Exhausted};
pub(crate) use declared::Declared;
pub(crate) use error::ExpandError;
pub(crate) use scope::Scope;
pub(crate) use watch::watch;
pub(crate) use word::{Lexer, Variables};
