//! ARG, ENV and LABEL: names and values.

use crate::ast::{ArgDeclaration, KeyValues};
use crate::parse::error::InstructionError;
use crate::parse::statement::{Arguments, Statement, exact};

use super::Keyword;

/// ARG has no flags; BuildKit ignores what looks like one.
pub(super) fn arg(
    statement: &Statement<'_>,
    escape: char,
) -> Result<Vec<ArgDeclaration>, InstructionError> {
    let keyword = Keyword::Arg.name();
    let names = statement.names(escape);
    if names.is_empty() {
        return Err(InstructionError::AtLeastOne { keyword });
    }
    if names.iter().any(|(name, _)| name.value.is_empty()) {
        return Err(InstructionError::BlankName { keyword });
    }
    let names = names.into_iter();
    let declarations = names.map(|(name, default)| ArgDeclaration { name, default });
    Ok(exact(declarations.collect()))
}

pub(super) fn pairs(
    statement: Statement<'_>,
    keyword: Keyword,
) -> Result<KeyValues, InstructionError> {
    statement.flags(&[])?;
    let keyword = keyword.name();
    let pairs = match statement.arguments {
        Arguments::Pairs(pairs) if !pairs.pairs.is_empty() => pairs,
        Arguments::Pairs(_)
        | Arguments::Text
        | Arguments::Array(_)
        | Arguments::Health(..)
        | Arguments::Trigger(_) => return Err(InstructionError::AtLeastOne { keyword }),
    };
    if pairs.pairs.iter().any(|pair| pair.key.value.is_empty()) {
        return Err(InstructionError::BlankName { keyword });
    }
    Ok(pairs)
}
