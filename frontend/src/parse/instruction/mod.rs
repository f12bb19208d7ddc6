//! From a statement to what the instruction says: one file per family.
//!
//! Which of two errors comes first follows BuildKit (`instructions/parse.go`): most instructions check their flags
//! first, those with a fixed number of arguments count them first.

mod command;
mod copy;
mod from;
mod meta;
pub(super) mod mount;
mod names;
mod run;

use crate::ast::InstructionKind;
use crate::source::{Suggestion, did_you_mean_in_any_case};

use super::error::InstructionError;
use super::statement::Statement;

/// The instructions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

impl Keyword {
    /// The commonest first: of equally near suggestions the first is made.
    const ALL: [Self; 18] = [
        Self::From,
        Self::Run,
        Self::Copy,
        Self::Env,
        Self::Arg,
        Self::Add,
        Self::Cmd,
        Self::Entrypoint,
        Self::Workdir,
        Self::User,
        Self::Expose,
        Self::Label,
        Self::Volume,
        Self::Shell,
        Self::Healthcheck,
        Self::Stopsignal,
        Self::Onbuild,
        Self::Maintainer,
    ];

    /// Reads a keyword in any casing.
    pub(super) fn parse(word: &str) -> Option<Self> {
        let is_it = |keyword: &Self| keyword.name().eq_ignore_ascii_case(word);
        Self::ALL.into_iter().find(is_it)
    }

    /// The keyword in upper case.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Arg => "ARG",
            Self::Cmd => "CMD",
            Self::Copy => "COPY",
            Self::Entrypoint => "ENTRYPOINT",
            Self::Env => "ENV",
            Self::Expose => "EXPOSE",
            Self::From => "FROM",
            Self::Healthcheck => "HEALTHCHECK",
            Self::Label => "LABEL",
            Self::Maintainer => "MAINTAINER",
            Self::Onbuild => "ONBUILD",
            Self::Run => "RUN",
            Self::Shell => "SHELL",
            Self::Stopsignal => "STOPSIGNAL",
            Self::User => "USER",
            Self::Volume => "VOLUME",
            Self::Workdir => "WORKDIR",
        }
    }
}

/// Understands a statement.
pub(super) fn parse(
    statement: Statement<'_>,
    escape: char,
) -> Result<InstructionKind, InstructionError> {
    let Some(keyword) = statement.known else {
        return Err(unknown(statement.keyword));
    };
    Ok(match keyword {
        Keyword::Add => InstructionKind::Add(Box::new(copy::add(statement)?)),
        Keyword::Arg => InstructionKind::Arg(names::arg(&statement, escape)?),
        Keyword::Cmd => InstructionKind::Cmd(command::cmd(&statement)?),
        Keyword::Copy => InstructionKind::Copy(Box::new(copy::copy(statement)?)),
        Keyword::Entrypoint => InstructionKind::Entrypoint(command::cmd(&statement)?),
        Keyword::Env | Keyword::Label => {
            let pairs = names::pairs(statement, keyword)?;
            if keyword == Keyword::Env {
                InstructionKind::Env(pairs)
            } else {
                InstructionKind::Label(pairs)
            }
        }
        Keyword::Expose => InstructionKind::Expose(meta::expose(&statement)?),
        Keyword::From => InstructionKind::From(Box::new(from::from(&statement)?)),
        Keyword::Healthcheck => {
            InstructionKind::Healthcheck(Box::new(command::healthcheck(statement)?))
        }
        Keyword::Maintainer => {
            InstructionKind::Maintainer(meta::single(&statement, keyword)?.value)
        }
        Keyword::Onbuild => InstructionKind::Onbuild(meta::onbuild(&statement)?),
        Keyword::Run => InstructionKind::Run(Box::new(run::run(statement)?)),
        Keyword::Shell => InstructionKind::Shell(command::shell(&statement)?),
        Keyword::Stopsignal => InstructionKind::Stopsignal(meta::stopsignal(&statement)?),
        Keyword::User => InstructionKind::User(meta::single(&statement, keyword)?),
        Keyword::Volume => InstructionKind::Volume(meta::volume(&statement)?),
        Keyword::Workdir => InstructionKind::Workdir(meta::single(&statement, keyword)?),
    })
}

fn unknown(keyword: &str) -> InstructionError {
    let names = Keyword::ALL.iter().map(|known| known.name());
    InstructionError::Unknown {
        keyword: keyword.to_owned(),
        suggestion: Suggestion(did_you_mean_in_any_case(keyword, names)),
    }
}
