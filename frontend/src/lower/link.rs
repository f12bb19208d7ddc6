//! `COPY --from` and `RUN --mount=from=`: which stage, image or named context is meant.

use std::collections::BTreeSet;

use crate::ast::{Instruction, InstructionKind, RunMount};
use crate::expand::{Lexer, Scope};
use crate::source::{Diagnostic, LineRange};

use super::error::{StageError, diagnostic};
use super::stage::{SourceRef, Stages};

/// The sources of an instruction. Names of stages match in any case; only COPY knows numbers.
pub(super) fn sources(
    stages: &mut Stages<'_>,
    instruction: &Instruction,
    lines: LineRange,
) -> Result<Vec<Option<SourceRef>>, StageError> {
    if let InstructionKind::Copy(copy) = &instruction.kind {
        let from = copy.from.as_ref().filter(|from| !from.value.is_empty());
        let source = from.map(|from| copy_source(stages, &from.value, lines));
        return Ok(source.transpose()?.map(Some).into_iter().collect());
    }
    let InstructionKind::Run(run) = &instruction.kind else {
        return Ok(Vec::new());
    };
    let mounts = run.mounts.iter();
    Ok(mounts
        .map(|mount| Some(mount_source(stages, mount)))
        .collect())
}

/// A mount without `from` counts as one of scratch here, as in BuildKit: a stage of that name is needed.
fn mount_source(stages: &mut Stages<'_>, mount: &RunMount) -> SourceRef {
    let mut options = mount.options.iter().rev();
    let from = options
        .find(|(key, _)| key.eq_ignore_ascii_case("from"))
        .and_then(|(_, value)| value.as_deref())
        .filter(|name| !name.is_empty())
        .unwrap_or("scratch");
    match stages.named(from) {
        Some(index) => SourceRef::Stage(index),
        None => stages.external(from, None),
    }
}

fn copy_source(
    stages: &mut Stages<'_>,
    from: &str,
    lines: LineRange,
) -> Result<SourceRef, StageError> {
    if Lexer::new('\\').expand(from, &Scope::default())? != from {
        return Err(StageError::VariableInFrom);
    }
    if let Ok(number) = from.parse::<i64>() {
        return usize::try_from(number)
            .ok()
            .filter(|index| *index < stages.list.len())
            .map(SourceRef::Stage)
            .ok_or_else(|| StageError::NoIndex(number.to_string()));
    }
    Ok(match stages.named(from) {
        Some(index) => SourceRef::Stage(index),
        None => stages.external(from, Some(lines)),
    })
}

/// Refuses stages that take files from each other in a circle. Points at the first instruction on the way into it.
pub(super) fn check_circles(stages: &Stages<'_>) -> Result<(), Diagnostic> {
    let mut done = vec![false; stages.list.len()];
    for start in 0..stages.list.len() {
        if let Some(lines) = find_circle(stages, start, &mut done) {
            let error = StageError::Circular(stages.list[start].label.clone());
            return Err(diagnostic(&error, Some(lines)));
        }
    }
    Ok(())
}

/// A stage on the way, and what it takes from others that is still to be followed.
struct Visit {
    stage: usize,
    open: Vec<(usize, LineRange)>,
    followed: Option<LineRange>,
}

/// Goes depth first, without recursion: a file can have more stages than the stack has room for.
fn find_circle(stages: &Stages<'_>, start: usize, done: &mut [bool]) -> Option<LineRange> {
    let visit = |stage: usize| Visit {
        stage,
        open: needs(stages, stage),
        followed: None,
    };
    let mut on_path = BTreeSet::new();
    let mut path = Vec::new();
    if !done[start] {
        done[start] = true;
        on_path.insert(start);
        path.push(visit(start));
    }
    while let Some(top) = path.last_mut() {
        let Some((next, lines)) = top.open.pop() else {
            on_path.remove(&top.stage);
            path.pop();
            continue;
        };
        top.followed = Some(lines);
        if on_path.contains(&next) {
            return path.first().and_then(|first| first.followed);
        }
        if !done[next] {
            done[next] = true;
            on_path.insert(next);
            path.push(visit(next));
        }
    }
    None
}

/// The stages that a stage takes files from, the last first.
fn needs(stages: &Stages<'_>, stage: usize) -> Vec<(usize, LineRange)> {
    let commands = stages.list[stage].commands.iter().rev();
    commands
        .flat_map(|command| {
            let sources = command.sources.iter().rev().flatten();
            sources.filter_map(|source| match source {
                SourceRef::Stage(index) => Some((*index, command.lines)),
                SourceRef::External(_) => None,
            })
        })
        .collect()
}
