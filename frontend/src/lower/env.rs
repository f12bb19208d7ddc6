//! ENV, LABEL and ARG.

use crate::ast::{ArgDeclaration, KeyValues};

use super::args::is_environment;
use super::emit::Emitter;
use super::error::InstructionError;
use super::state::StageState;

/// ENV: all words see the environment before the instruction.
pub(super) fn env(
    emitter: &Emitter<'_>,
    state: &mut StageState,
    pairs: &KeyValues,
) -> Result<(), InstructionError> {
    let pairs = expand_pairs(emitter, state, pairs)?;
    for (name, value) in &pairs {
        state.scope.set(name, value.clone());
        state.image.set_env(name, value);
    }
    state.record(created_by("ENV", &pairs));
    Ok(())
}

/// LABEL: keys are expanded too.
pub(super) fn label(
    emitter: &Emitter<'_>,
    state: &mut StageState,
    pairs: &KeyValues,
) -> Result<(), InstructionError> {
    let pairs = expand_pairs(emitter, state, pairs)?;
    let labels = state.image.config.labels.get_or_insert_default();
    labels.extend(pairs.iter().cloned());
    state.record(created_by("LABEL", &pairs));
    Ok(())
}

/// ARG: a build arg wins over the default, the default over the global value. Unlike in ENV, each word sees those
/// before it.
pub(super) fn arg(
    emitter: &Emitter<'_>,
    state: &mut StageState,
    declarations: &[ArgDeclaration],
) -> Result<(), InstructionError> {
    let mut words = Vec::with_capacity(declarations.len());
    for declaration in declarations {
        let name = &declaration.name.value;
        let value = match (emitter.options.build_args.get(name), &declaration.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(emitter.expand(state, &default.value)?),
            (None, None) => emitter.plan.globals.value(name).map(str::to_owned),
        };
        if let Some(value) = value.as_ref().filter(|_| is_environment(name)) {
            state.scope.set(name, value.clone());
        }
        words.push(match &value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        });
        state.args.declare(name, value.unwrap_or_default());
    }
    state.record(format!("ARG {}", words.join(" ")));
    Ok(())
}

fn expand_pairs(
    emitter: &Emitter<'_>,
    state: &StageState,
    pairs: &KeyValues,
) -> Result<Vec<(String, String)>, InstructionError> {
    pairs
        .pairs
        .iter()
        .map(|pair| {
            Ok((
                emitter.expand(state, &pair.key.value)?,
                emitter.expand(state, &pair.value.value)?,
            ))
        })
        .collect()
}

fn created_by(keyword: &str, pairs: &[(String, String)]) -> String {
    let mut text = keyword.to_owned();
    for (name, value) in pairs {
        text.push_str(&format!(" {name}={value}"));
    }
    text
}
