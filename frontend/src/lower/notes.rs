//! What a target takes, noted while its stages are lowered: see [`crate::outline`].

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{Dockerfile, InstructionKind};
use crate::expand::{Lexer, Scope, watch};
use crate::graph::{MountKind, Op};
use crate::outline::{Credential, Outline, Parameter, description};
use crate::source::LineRange;

use super::args::global_args;
use super::emit::{Emitter, Step};
use super::stage::SourceRef;
use super::state::StageState;

/// What a stage and those it starts from take.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    args: BTreeMap<String, Arg>,
    secrets: BTreeMap<String, Credential>,
    ssh: BTreeMap<String, Credential>,
}

/// Where the value of an ARG comes from.
#[derive(Clone, Debug)]
enum Arg {
    Own(Parameter),
    /// `ARG NAME` of a global one.
    Global,
}

/// Notes an instruction that was lowered.
pub(super) fn note(emitter: &Emitter<'_>, state: &mut StageState, step: Step<'_>) {
    match &step.command.instruction.kind {
        InstructionKind::Arg(_) => note_args(emitter, state, step),
        InstructionKind::Run(_) => note_mounts(emitter, state, step.lines()),
        InstructionKind::From(_)
        | InstructionKind::Cmd(_)
        | InstructionKind::Label(_)
        | InstructionKind::Maintainer(_)
        | InstructionKind::Expose(_)
        | InstructionKind::Env(_)
        | InstructionKind::Add(_)
        | InstructionKind::Copy(_)
        | InstructionKind::Entrypoint(_)
        | InstructionKind::Volume(_)
        | InstructionKind::User(_)
        | InstructionKind::Workdir(_)
        | InstructionKind::Onbuild(_)
        | InstructionKind::Stopsignal(_)
        | InstructionKind::Healthcheck(_)
        | InstructionKind::Shell(_) => {}
    }
}

fn note_args(emitter: &Emitter<'_>, state: &mut StageState, step: Step<'_>) {
    let instruction = &step.command.instruction;
    let InstructionKind::Arg(names) = &instruction.kind else {
        return;
    };
    for declaration in names {
        let name = &declaration.name.value;
        let is_given = emitter.options.build_args.contains_key(name);
        let is_global = declaration.default.is_none() && !is_given;
        let arg = if is_global && emitter.plan.globals.value(name).is_some() {
            Arg::Global
        } else {
            Arg::Own(Parameter {
                name: name.clone(),
                description: description(&instruction.comments, name),
                value: state.args.value(name).to_owned(),
                lines: step.lines(),
            })
        };
        state.notes.args.insert(name.clone(), arg);
    }
}

fn note_mounts(emitter: &Emitter<'_>, state: &mut StageState, lines: LineRange) {
    let Some(Op::Exec(exec)) = state.root.map(|root| emitter.builder.op(root)) else {
        return;
    };
    for mount in &exec.mounts {
        let (known, name, is_required) = match &mount.kind {
            MountKind::Secret {
                id, is_required, ..
            } => (&mut state.notes.secrets, id, *is_required),
            MountKind::Ssh {
                id, is_required, ..
            } => (&mut state.notes.ssh, id, *is_required),
            MountKind::Bind { .. } | MountKind::Cache { .. } | MountKind::Tmpfs { .. } => continue,
        };
        let credential = known.entry(name.clone()).or_insert_with(|| Credential {
            name: name.clone(),
            is_required: false,
            lines,
        });
        credential.is_required |= is_required;
    }
}

/// Puts the notes together: the target's, then those of the stages that it needs.
pub(super) fn outline(
    emitter: &Emitter<'_>,
    dockerfile: &Dockerfile,
    target: &StageState,
) -> Outline {
    let stages = &emitter.plan.stages;
    let froms: Vec<_> = dockerfile
        .instructions
        .iter()
        .filter_map(|instruction| {
            if let InstructionKind::From(from) = &instruction.kind {
                return Some((instruction, from));
            }
            None
        })
        .collect();
    let globals = Globals::read(emitter, dockerfile);
    let mut outline = Outline::default();
    if let Some((instruction, from)) = froms.get(stages.target)
        && let Some(name) = &from.name
    {
        outline.name = name.value.to_lowercase();
        outline.description = description(&instruction.comments, &outline.name);
    }
    let mut used = BTreeSet::new();
    let reachable = stages.reachable();
    let others = reachable
        .iter()
        .filter(|reference| **reference != SourceRef::Stage(stages.target));
    for reference in [SourceRef::Stage(stages.target)].iter().chain(others) {
        let SourceRef::Stage(index) = reference else {
            continue;
        };
        if let Some((_, from)) = froms.get(*index) {
            let words = [Some(&from.image), from.platform.as_ref()];
            for word in words.into_iter().flatten() {
                used.extend(watch(emitter.lexer, &word.value, &emitter.plan.globals).found);
            }
        }
        let state = match emitter.emitted(*index) {
            Some(state) => state,
            None if *index == stages.target => target,
            None => continue,
        };
        for (name, arg) in &state.notes.args {
            match arg {
                Arg::Own(parameter) => outline.args.push(parameter.clone()),
                Arg::Global => drop(used.insert(name.clone())),
            }
        }
        outline
            .secrets
            .extend(state.notes.secrets.values().cloned());
        outline.ssh.extend(state.notes.ssh.values().cloned());
    }
    outline.args.extend(globals.used(used));
    outline.tidy()
}

/// Global ARGs, and which others their defaults use.
struct Globals {
    known: BTreeMap<String, (Parameter, Vec<String>)>,
}

impl Globals {
    fn read(emitter: &Emitter<'_>, dockerfile: &Dockerfile) -> Self {
        let scope: &Scope = &emitter.plan.globals;
        let lexer: Lexer = emitter.lexer;
        let mut known = BTreeMap::new();
        for (instruction, names) in global_args(dockerfile) {
            for declaration in names {
                let name = &declaration.name.value;
                let default = declaration.default.as_ref();
                let is_given = emitter.options.build_args.contains_key(name);
                let default = default.filter(|_| !is_given);
                let uses = default.map(|default| watch(lexer, &default.value, scope).found);
                let parameter = Parameter {
                    name: name.clone(),
                    description: description(&instruction.comments, name),
                    value: scope.value(name).unwrap_or_default().to_owned(),
                    lines: instruction.lines,
                };
                known.insert(name.clone(), (parameter, uses.unwrap_or_default()));
            }
        }
        Self { known }
    }

    /// The named ones and those that they use.
    fn used(mut self, names: BTreeSet<String>) -> Vec<Parameter> {
        let mut open: Vec<String> = names.into_iter().collect();
        let mut found = Vec::new();
        while let Some(name) = open.pop() {
            if let Some((parameter, uses)) = self.known.remove(&name) {
                found.push(parameter);
                open.extend(uses);
            }
        }
        found
    }
}
