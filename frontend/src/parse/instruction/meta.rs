//! EXPOSE, MAINTAINER, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR.

use crate::ast::Onbuild;
use crate::parse::error::InstructionError;
use crate::parse::statement::{Arguments, Statement};
use crate::source::Spanned;

use super::Keyword;

pub(super) fn expose(statement: &Statement<'_>) -> Result<Vec<Spanned<String>>, InstructionError> {
    let keyword = Keyword::Expose.name();
    let ports = statement.list();
    if ports.is_empty() {
        return Err(InstructionError::AtLeastOne { keyword });
    }
    statement.flags(&[])?;
    Ok(ports)
}

pub(super) fn volume(statement: &Statement<'_>) -> Result<Vec<Spanned<String>>, InstructionError> {
    let keyword = Keyword::Volume.name();
    let mut volumes = statement.list();
    if volumes.is_empty() {
        return Err(InstructionError::AtLeastOne { keyword });
    }
    statement.flags(&[])?;
    for volume in &mut volumes {
        let trimmed = volume.value.trim();
        if trimmed.is_empty() {
            return Err(InstructionError::EmptyVolume);
        }
        if trimmed.len() < volume.value.len() {
            volume.value = trimmed.to_owned();
        }
    }
    Ok(volumes)
}

/// Instructions whose argument is the rest of the line.
pub(super) fn single(
    statement: &Statement<'_>,
    keyword: Keyword,
) -> Result<Spanned<String>, InstructionError> {
    let keyword = keyword.name();
    let value = statement
        .whole()
        .ok_or(InstructionError::ExactlyOne { keyword })?;
    statement.flags(&[])?;
    Ok(value)
}

/// STOPSIGNAL has no flags; BuildKit ignores what looks like one.
pub(super) fn stopsignal(statement: &Statement<'_>) -> Result<Spanned<String>, InstructionError> {
    let keyword = Keyword::Stopsignal.name();
    statement
        .whole()
        .ok_or(InstructionError::ExactlyOne { keyword })
}

pub(super) fn onbuild(statement: &Statement<'_>) -> Result<Onbuild, InstructionError> {
    let Arguments::Trigger(trigger) = &statement.arguments else {
        return Err(InstructionError::AtLeastOne {
            keyword: Keyword::Onbuild.name(),
        });
    };
    statement.flags(&[])?;
    if trigger.known == Some(Keyword::Onbuild) {
        return Err(InstructionError::ChainedOnbuild);
    }
    if let Some(keyword @ (Keyword::From | Keyword::Maintainer)) = trigger.known {
        return Err(InstructionError::ForbiddenTrigger {
            keyword: keyword.name(),
        });
    }
    let line = statement.line.text.trim_start();
    let mut text = line[Keyword::Onbuild.name().len()..]
        .trim_start()
        .to_owned();
    for heredoc in &statement.heredocs {
        text.push('\n');
        text.push_str(heredoc.raw(statement.line.source));
        text.push_str(&heredoc.name);
    }
    Ok(Onbuild { text })
}
