//! RUN and its flags.

use crate::ast::{Run, RunNetwork, RunSecurity};
use crate::parse::error::{InstructionError, RunError};
use crate::parse::flags::{FlagKind, Flags};
use crate::parse::statement::{Statement, exact};

use super::mount;

pub(super) fn run(statement: Statement<'_>) -> Result<Run, InstructionError> {
    let flags = statement.flags(&[
        ("mount", FlagKind::Strings),
        ("network", FlagKind::String),
        ("security", FlagKind::String),
        ("device", FlagKind::Strings),
    ])?;
    let mounts = flags.strings("mount").into_iter().map(mount::read);
    Ok(Run {
        mounts: exact(mounts.collect::<Result<_, _>>().map_err(RunError::Mount)?),
        network: network(&flags)?,
        security: security(&flags)?,
        devices: flags.strings("device"),
        command: statement.command(),
        heredocs: statement.heredocs,
    })
}

fn network(flags: &Flags) -> Result<Option<RunNetwork>, RunError> {
    let Some(text) = flags.given("network") else {
        return Ok(None);
    };
    match text.value.as_str() {
        "default" => Ok(Some(RunNetwork::Default)),
        "none" => Ok(Some(RunNetwork::None)),
        "host" => Ok(Some(RunNetwork::Host)),
        other => Err(RunError::Network {
            value: other.to_owned(),
        }),
    }
}

fn security(flags: &Flags) -> Result<Option<RunSecurity>, RunError> {
    let Some(text) = flags.given("security") else {
        return Ok(None);
    };
    match text.value.as_str() {
        "sandbox" => Ok(Some(RunSecurity::Sandbox)),
        "insecure" => Ok(Some(RunSecurity::Insecure)),
        other => Err(RunError::Security {
            value: other.to_owned(),
        }),
    }
}
