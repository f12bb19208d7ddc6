//! The build checks that lowering runs: those about FROM, about base images, and about steps.

use std::collections::BTreeMap;

use crate::ast::Dockerfile;
use crate::expand::{Lexer, Scope};
use crate::lint::{BaseView, Globals, Report, StepView, check_base, check_froms, check_step};
use crate::platform::Platform;

use super::LowerOptions;
use super::args::{global_args, global_scope};
use super::copy::is_http;
use super::emit::{Emitter, Step};
use super::from::Base;
use super::git::GitReference;
use super::plan::Plan;
use super::stage::SourceRef;
use super::state::StageState;

/// Checks all FROM lines, needed or not; `target` with the global scope that was made for it.
pub(super) fn froms(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    (target, scope): (&str, &Scope),
    lexer: Lexer,
    report: &mut Report,
) {
    if report.is_silent() {
        return;
    }
    let defaults = global_scope(dockerfile, options, &BTreeMap::new(), target, &lexer).ok();
    let declared = global_args(dockerfile).flat_map(|(_, names)| names);
    let globals = Globals {
        scope,
        defaults: defaults.as_ref(),
        declared: declared.map(|name| name.name.value.as_str()).collect(),
        lexer,
        architecture: &options.build_platform.architecture,
    };
    check_froms(&dockerfile.instructions, &globals, report);
}

/// Checks the base images of needed stages.
pub(super) fn bases(plan: &Plan<'_>, options: &LowerOptions, report: &mut Report) {
    for (reference, base) in &plan.bases {
        let (SourceRef::Stage(index), Base::Image(image)) = (reference, base) else {
            continue;
        };
        let stage = &plan.stages.list[*index];
        let member = |name: &str| {
            let value = image.document.get(name).and_then(serde_json::Value::as_str);
            value.unwrap_or_default()
        };
        let found = Platform::normalised(
            member("os"),
            member("architecture"),
            member("variant"),
            member("os.version"),
        );
        let view = BaseView {
            name: &stage.base,
            lines: stage.lines,
            wanted: stage.platform.as_ref().unwrap_or(&options.target_platform),
            found: &found,
        };
        check_base(&view, report);
    }
}

/// Checks an instruction before it is lowered.
pub(super) fn step(emitter: &mut Emitter<'_>, state: &mut StageState, step: Step<'_>) {
    if emitter.checks.report.is_silent() {
        return;
    }
    let instruction = &*step.command.instruction;
    let shell = state.image.config.shell.as_ref();
    let view = StepView {
        instruction,
        lines: step.lines(),
        lexer: emitter.lexer,
        scope: &state.scope,
        declared: &state.args,
        build_args: &emitter.options.build_args,
        has_shell: shell.is_some_and(|shell| !shell.is_empty()),
        memory: &state.memory,
        ignore: emitter.checks.ignore,
        is_remote: |path| is_http(path) || GitReference::parse(path).is_some(),
    };
    check_step(&view, emitter.checks.report);
    state.memory.note(&instruction.kind, step.lines());
}
