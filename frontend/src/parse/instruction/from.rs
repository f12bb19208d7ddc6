//! FROM.

use crate::ast::From;
use crate::parse::error::InstructionError;
use crate::parse::flags::FlagKind;
use crate::parse::statement::Statement;

pub(super) fn from(statement: &Statement<'_>) -> Result<From, InstructionError> {
    let mut words = statement.list().into_iter();
    let (image, as_keyword, name) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(image), None, None, None) => (image, None, None),
        (Some(image), Some(keyword), Some(name), None)
            if keyword.value.eq_ignore_ascii_case("as") =>
        {
            (image, Some(keyword), Some(name))
        }
        _ => return Err(InstructionError::FromArguments),
    };
    if let Some(name) = &name
        && !is_stage_name(&name.value)
    {
        return Err(InstructionError::StageName {
            name: name.value.clone(),
        });
    }
    let flags = statement.flags(&[("platform", FlagKind::String)])?;
    Ok(From {
        platform: flags.string("platform"),
        image,
        name,
        as_keyword,
    })
}

/// A letter, then letters, digits, `-`, `_`, `.`; names ignore case.
fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
