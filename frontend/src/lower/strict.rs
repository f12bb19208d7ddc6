//! `--strict`: what BuildKit passes over in silence is an error. What takes the files to know, the copying checks.

use std::collections::BTreeSet;

use crate::ast::{Dockerfile, InstructionKind};
use crate::source::{Diagnostic, Suggestion};

use super::args::is_predefined;
use super::copy::{Request, Written};
use super::error::{diagnostic, suggest};
use super::plan::Plan;
use super::{LowerOptions, NoCache, Strictness};

/// What is passed over in silence unless `--strict` says otherwise.
#[derive(Debug, thiserror::Error)]
pub(super) enum StrictError {
    #[error("--build-arg {name} is declared by no ARG{suggestion}")]
    UnusedBuildArg {
        name: String,
        suggestion: Suggestion,
    },
    #[error("--no-cache-filter {name} names no stage{suggestion}")]
    UnknownStage {
        name: String,
        suggestion: Suggestion,
    },
    #[error(
        "{keyword} has several sources, so its destination must end with a /, or each file replaces the one before: \
         {destination}"
    )]
    SeveralOntoFile {
        keyword: &'static str,
        destination: String,
    },
    #[error("--link has no effect together with --chmod")]
    IneffectiveLink,
}

/// Checks what was asked for against what the file has.
pub(super) fn check_options(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    plan: &Plan<'_>,
) -> Result<(), Vec<Diagnostic>> {
    match options.strictness {
        Strictness::Lenient => return Ok(()),
        Strictness::Strict => {}
    }
    let mut errors = unused_build_args(dockerfile, options, plan);
    errors.extend(unknown_stages(options, plan));
    if errors.is_empty() {
        return Ok(());
    }
    let errors = errors.iter().map(|error| diagnostic(error, None));
    Err(errors.collect())
}

/// ARGs of every stage count, needed or not: one command line may serve several targets.
fn unused_build_args(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    plan: &Plan<'_>,
) -> Vec<StrictError> {
    let in_file = dockerfile.instructions.iter().map(|i| &i.kind);
    let commands = plan.stages.list.iter().flat_map(|stage| &stage.commands);
    let kinds = in_file.chain(commands.map(|command| &command.instruction.kind));
    let mut declared = BTreeSet::new();
    for kind in kinds {
        if let InstructionKind::Arg(names) = kind {
            declared.extend(names.iter().map(|name| name.name.value.as_str()));
        }
    }
    let is_unused = |name: &&String| !declared.contains(name.as_str()) && !is_predefined(name);
    let unused = options.build_args.keys().filter(is_unused);
    unused
        .map(|name| StrictError::UnusedBuildArg {
            name: name.clone(),
            suggestion: suggest(name, declared.iter().copied()),
        })
        .collect()
}

fn unknown_stages(options: &LowerOptions, plan: &Plan<'_>) -> Vec<StrictError> {
    let NoCache::Stages(names) = &options.no_cache else {
        return Vec::new();
    };
    let known: Vec<&str> = plan
        .stages
        .list
        .iter()
        .filter_map(|stage| stage.name.as_deref())
        .collect();
    let is_unknown = |name: &&String| !known.iter().any(|known| known.eq_ignore_ascii_case(name));
    let unknown = names.iter().filter(is_unknown);
    unknown
        .map(|name| StrictError::UnknownStage {
            name: name.clone(),
            suggestion: suggest(name, known.iter().copied()),
        })
        .collect()
}

/// Checks the words of a COPY or ADD.
pub(super) fn check_copy(
    strictness: Strictness,
    written: &Written<'_>,
    request: &Request,
) -> Result<(), StrictError> {
    match strictness {
        Strictness::Lenient => return Ok(()),
        Strictness::Strict => {}
    }
    if written.sources.len() > 1 && !request.is_into_directory() {
        return Err(StrictError::SeveralOntoFile {
            keyword: written.keyword,
            destination: written.destination.to_owned(),
        });
    }
    if written.is_link && !request.is_link() {
        return Err(StrictError::IneffectiveLink);
    }
    Ok(())
}
