//! CMD, ENTRYPOINT, SHELL and HEALTHCHECK: command lines for later.

use crate::ast::{CommandLine, Healthcheck};
use crate::parse::duration;
use crate::parse::error::{HealthError, InstructionError};
use crate::parse::flags::{FlagKind, Flags};
use crate::parse::statement::{Arguments, Statement};

use super::Keyword;

/// The shortest duration that HEALTHCHECK takes, in nanoseconds: what the container runtime checks, too.
const MIN_DURATION: i64 = 1_000_000;

/// CMD and ENTRYPOINT; nothing at all is the shell form of nothing.
pub(super) fn cmd(statement: &Statement<'_>) -> Result<CommandLine, InstructionError> {
    statement.flags(&[])?;
    Ok(statement.command())
}

pub(super) fn shell(statement: &Statement<'_>) -> Result<Vec<String>, InstructionError> {
    statement.flags(&[])?;
    match statement.command() {
        CommandLine::Exec(words) if !words.is_empty() => Ok(words),
        CommandLine::Shell(text) if !text.is_empty() => Err(InstructionError::ShellForm),
        CommandLine::Exec(_) | CommandLine::Shell(_) => Err(InstructionError::AtLeastOne {
            keyword: Keyword::Shell.name(),
        }),
    }
}

pub(super) fn healthcheck(statement: Statement<'_>) -> Result<Healthcheck, InstructionError> {
    let missing = InstructionError::AtLeastOne {
        keyword: Keyword::Healthcheck.name(),
    };
    let Arguments::Health(kind, command) = &statement.arguments else {
        return Err(missing);
    };
    let kind = statement.line.text[kind.clone()].to_uppercase();
    let is_empty = match command {
        CommandLine::Shell(text) => text.is_empty(),
        CommandLine::Exec(words) => words.is_empty(),
    };
    match kind.as_str() {
        "" => return Err(missing),
        "NONE" if is_empty => return Ok(Healthcheck::None),
        "NONE" => return Err(HealthError::NoneArguments.into()),
        _ => {}
    }
    let flags = statement.flags(&[
        ("interval", FlagKind::String),
        ("timeout", FlagKind::String),
        ("start-period", FlagKind::String),
        ("start-interval", FlagKind::String),
        ("retries", FlagKind::String),
    ])?;
    if kind != "CMD" {
        return Err(HealthError::UnknownType { word: kind }.into());
    }
    if is_empty {
        return Err(HealthError::MissingCommand.into());
    }
    Ok(Healthcheck::Cmd {
        interval: optional_duration(&flags, "interval")?,
        timeout: optional_duration(&flags, "timeout")?,
        start_period: optional_duration(&flags, "start-period")?,
        start_interval: optional_duration(&flags, "start-interval")?,
        retries: optional_retries(&flags)?,
        command: command.clone(),
    })
}

fn optional_duration(flags: &Flags, name: &'static str) -> Result<i64, HealthError> {
    let Some(text) = flags.string(name) else {
        return Ok(0);
    };
    match duration::parse(&text.value)? {
        0 => Ok(0),
        duration if duration < MIN_DURATION => Err(HealthError::TooShort { name }),
        duration => Ok(duration),
    }
}

fn optional_retries(flags: &Flags) -> Result<u32, HealthError> {
    let Some(text) = flags.string("retries") else {
        return Ok(0);
    };
    let value: i32 = text
        .value
        .parse()
        .map_err(|_not_a_number| HealthError::Retries {
            value: text.value.clone(),
        })?;
    u32::try_from(value).map_err(|_negative| HealthError::NegativeRetries { value })
}
