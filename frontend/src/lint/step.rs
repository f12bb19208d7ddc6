//! What rules about an instruction see, where its stage stands.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::ast::{Instruction, InstructionKind};
use crate::expand::{Declared, Lexer, Scope};
use crate::ignore::IgnoreRules;
use crate::source::LineRange;

use super::report::{Place, Report};
use super::rules::{Check, RULES};

/// What rules about an instruction see.
pub(crate) struct StepView<'a> {
    pub(crate) instruction: &'a Instruction,
    /// Where to point at: the FROM for triggers.
    pub(crate) lines: LineRange,
    /// The lexer of the file.
    pub(crate) lexer: Lexer,
    /// The variables before the instruction.
    pub(crate) scope: &'a Scope,
    /// The ARGs declared before it, with or without a value.
    pub(crate) declared: &'a Declared,
    /// `--build-arg`
    pub(crate) build_args: &'a BTreeMap<String, String>,
    /// Whether SHELL, here or in the base, said which shell is meant.
    pub(crate) has_shell: bool,
    /// What came before it in the stage.
    pub(crate) memory: &'a StageMemory,
    /// The ignore file of the build context.
    pub(crate) ignore: Option<&'a IgnoreRules>,
    /// Whether a source of ADD is a URL or a repository.
    pub(crate) is_remote: fn(&str) -> bool,
}

/// What rules remember of a stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct StageMemory {
    /// The last CMD.
    pub(crate) cmd: Option<LineRange>,
    /// The last ENTRYPOINT.
    pub(crate) entrypoint: Option<LineRange>,
    /// The last HEALTHCHECK.
    pub(crate) healthcheck: Option<LineRange>,
    /// Whether there was a WORKDIR, in this stage or one that it starts from.
    pub(crate) has_workdir: bool,
}

impl StageMemory {
    /// What a stage that starts from this one remembers.
    pub(crate) fn for_child(&self) -> Self {
        Self {
            has_workdir: self.has_workdir,
            ..Self::default()
        }
    }

    /// Remembers an instruction.
    pub(crate) fn note(&mut self, kind: &InstructionKind, lines: LineRange) {
        match kind {
            InstructionKind::Cmd(_) => self.cmd = Some(lines),
            InstructionKind::Entrypoint(_) => self.entrypoint = Some(lines),
            InstructionKind::Healthcheck(_) => self.healthcheck = Some(lines),
            InstructionKind::Workdir(_) => self.has_workdir = true,
            InstructionKind::From(_)
            | InstructionKind::Run(_)
            | InstructionKind::Label(_)
            | InstructionKind::Maintainer(_)
            | InstructionKind::Expose(_)
            | InstructionKind::Env(_)
            | InstructionKind::Add(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Volume(_)
            | InstructionKind::User(_)
            | InstructionKind::Arg(_)
            | InstructionKind::Onbuild(_)
            | InstructionKind::Stopsignal(_)
            | InstructionKind::Shell(_) => {}
        }
    }
}

impl<'a> StepView<'a> {
    /// Where it stands.
    pub(super) fn place(&self) -> Place<'a> {
        Place {
            lines: self.lines,
            comments: &self.instruction.comments,
        }
    }

    /// The keyword in the casing that was written.
    pub(super) fn keyword(&self) -> &'a str {
        self.instruction.keyword()
    }

    /// A word expanded; as written if that fails, which lowering reports.
    pub(super) fn expand<'w>(&self, word: &'w str) -> Cow<'w, str> {
        if self.lexer.is_plain(word) {
            return Cow::Borrowed(word);
        }
        let expanded = self.lexer.expand(word, self.scope);
        expanded.map_or(Cow::Borrowed(word), Cow::Owned)
    }
}

/// Runs the rules about one instruction.
pub(crate) fn check_step(view: &StepView<'_>, report: &mut Report) {
    for rule in RULES {
        if let Check::Step(check) = rule.check {
            check(view, report);
        }
    }
}
