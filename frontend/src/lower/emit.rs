//! From stages to vertices: each needed stage in file order, each instruction by its family.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{Instruction, InstructionKind};
use crate::expand::Lexer;
use crate::graph::{GraphBuilder, LocalOp, Op, Presentation, VertexId};
use crate::lint::Checks;
use crate::shown_url::without_secrets;
use crate::source::{Diagnostic, LineRange, SourceFile};

use super::error::{InstructionError, diagnostic};
use super::from::{Base, ContextBase};
use super::plan::Plan;
use super::stage::{Command, SourceRef, Stage};
use super::state::{StageImage, StageState, Steps, display, origin};
use super::{LowerOptions, NoCache, add, check, copy, env, meta, notes, run};

/// Name of the build context among directories of the client.
const BUILD_CONTEXT: &str = "context";

/// Everything that instructions need beside their stage's state.
pub(super) struct Emitter<'a> {
    pub(super) source: &'a SourceFile,
    pub(super) options: &'a LowerOptions,
    pub(super) plan: &'a Plan<'a>,
    pub(super) lexer: Lexer,
    pub(super) proxy: BTreeMap<String, String>,
    pub(super) builder: GraphBuilder,
    /// What the build checks found and look at.
    pub(super) checks: Checks<'a>,
    /// The stages emitted so far, whole as long as another one is to start from them.
    states: BTreeMap<usize, StageState>,
    /// How many stages are still to start from each.
    children: BTreeMap<usize, usize>,
    /// The file systems of what comes from outside.
    externals: BTreeMap<usize, Option<VertexId>>,
}

/// The step under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'c> {
    /// Its command.
    pub(super) command: &'c Command<'c>,
    /// The stage's name as in messages.
    pub(super) stage: &'c str,
    /// Whether `--no-cache` covers it.
    pub(super) ignores_cache: bool,
}

impl Step<'_> {
    /// The instruction on one line.
    pub(super) fn original(&self) -> &str {
        &self.command.instruction.original
    }

    /// Where to point at.
    pub(super) fn lines(&self) -> LineRange {
        self.command.lines
    }

    /// Whether a trigger is run.
    pub(super) fn is_trigger(&self) -> bool {
        self.command.trigger.is_some()
    }
}

impl<'a> Emitter<'a> {
    /// Starts with an empty graph.
    pub(super) fn new(
        source: &'a SourceFile,
        options: &'a LowerOptions,
        plan: &'a Plan<'a>,
        lexer: Lexer,
        checks: Checks<'a>,
    ) -> Self {
        Self {
            source,
            options,
            plan,
            lexer,
            checks,
            proxy: super::args::proxy_environment(options),
            builder: GraphBuilder::default(),
            states: BTreeMap::new(),
            children: children(plan),
            externals: BTreeMap::new(),
        }
    }

    /// Emits all needed stages and gives the target's state.
    pub(super) fn stages(&mut self) -> Result<StageState, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let mut failed = BTreeSet::new();
        for (index, stage) in self.plan.stages.list.iter().enumerate() {
            if !self.plan.needed.contains(&SourceRef::Stage(index)) {
                continue;
            }
            // A stage that needs one that has failed has no error of its own to add.
            let is_lost = stage.sources().any(|source| failed.contains(&source));
            let state = if is_lost {
                None
            } else {
                self.base_state(index, stage)
            };
            let Some(state) = state else {
                failed.insert(SourceRef::Stage(index));
                continue;
            };
            match self.stage(stage, state) {
                Ok(mut state) => {
                    if !self.children.contains_key(&index) {
                        state = state.remains();
                    }
                    self.states.insert(index, state);
                }
                Err(found) => {
                    failed.insert(SourceRef::Stage(index));
                    errors.extend(found);
                }
            }
            // Nothing more can be lowered, through the fault of none but what came before.
            if let Err(exhausted) = self.plan.globals.check_allowance() {
                if errors.is_empty() {
                    errors.push(diagnostic(&exhausted, Some(stage.lines)));
                }
                break;
            }
        }
        match self.states.remove(&self.plan.stages.target) {
            Some(state) if errors.is_empty() => Ok(state),
            Some(_) | None => Err(errors),
        }
    }

    /// The state that a stage begins with.
    fn base_state(&mut self, index: usize, stage: &Stage<'_>) -> Option<StageState> {
        let steps = Steps {
            label: stage.label.clone(),
            total: stage.total,
            shown: 0,
        };
        if let Some(parent) = stage.parent {
            return Some(self.hand_on(parent)?.begin(steps));
        }
        let base = self.plan.bases.get(&SourceRef::Stage(index))?.clone();
        let scope = self.plan.globals.sibling();
        Some(match base {
            // It has no platform of its own, whatever was asked for.
            Base::Scratch => StageState::new(None, StageImage::empty(), None, scope).begin(steps),
            Base::Image(image) => {
                let mut steps = steps;
                let root = image.op.clone().map(|op| {
                    steps.advance();
                    let shown = Presentation {
                        name: steps.name(&format!("FROM {}", image.shown), false),
                        origin: Some(origin(stage.lines, &steps)),
                        ignores_cache: false,
                    };
                    self.builder.add(Op::Image(op), Vec::new(), shown)
                });
                let platform = stage.platform.clone();
                StageState::new(root, StageImage::of(*image), platform, scope).begin(steps)
            }
            Base::Context(context) => {
                let root = self.context_root(&context);
                // A directory in place of a whole stage has no image at all, one in place of a base an empty one.
                let image = match (context.image, &stage.replacement) {
                    (Some(image), _) => StageImage::of(image),
                    (None, Some(_)) => StageImage::default(),
                    (None, None) => StageImage::empty(),
                };
                let state = StageState::new(root, image, stage.platform.clone(), scope);
                match stage.replacement {
                    Some(_) => state,
                    None => state.begin(steps),
                }
            }
        })
    }

    fn context_root(&mut self, context: &ContextBase) -> Option<VertexId> {
        let op = context.op.clone()?;
        let shown = Presentation {
            name: context.shown.clone(),
            ..Presentation::default()
        };
        Some(self.builder.add(op, Vec::new(), shown))
    }

    fn stage(
        &mut self,
        stage: &Stage<'_>,
        mut state: StageState,
    ) -> Result<StageState, Vec<Diagnostic>> {
        if stage.replacement.is_some() {
            return Ok(state);
        }
        let ignores_cache = self.ignores_cache(stage);
        let mut errors = Vec::new();
        for command in &stage.commands {
            let step = Step {
                command,
                stage: &stage.label,
                ignores_cache,
            };
            check::step(self, &mut state, step);
            let lowered = self.instruction(&mut state, step, &command.instruction);
            match lowered.and_then(|()| Ok(state.scope.check_allowance()?)) {
                Ok(()) => notes::note(self, &mut state, step),
                Err(error) => {
                    errors.push(diagnostic(&error, Some(command.lines)));
                    // Later instructions would miss a variable through no fault of theirs.
                    let kind = &command.instruction.kind;
                    let is_setting =
                        matches!(kind, InstructionKind::Env(_) | InstructionKind::Arg(_));
                    if is_setting || state.scope.check_allowance().is_err() {
                        break;
                    }
                }
            }
        }
        if errors.is_empty() {
            Ok(state)
        } else {
            Err(errors)
        }
    }

    /// The state of a stage for another one that starts from it; the last of those takes it.
    fn hand_on(&mut self, parent: usize) -> Option<StageState> {
        let state = self.states.get_mut(&parent)?;
        let children = self.children.get_mut(&parent)?;
        *children -= 1;
        if *children > 0 {
            state.scope.charge(state.size());
            return Some(state.clone());
        }
        let remains = state.remains();
        Some(std::mem::replace(state, remains))
    }

    /// The state that a stage came to; the target's has been handed out.
    pub(super) fn emitted(&self, index: usize) -> Option<&StageState> {
        self.states.get(&index)
    }

    fn ignores_cache(&self, stage: &Stage<'_>) -> bool {
        match &self.options.no_cache {
            NoCache::Never => false,
            NoCache::Always => true,
            NoCache::Stages(names) => {
                let own = stage.name.as_deref().unwrap_or_default();
                names.iter().any(|name| name.eq_ignore_ascii_case(own))
            }
        }
    }

    fn instruction(
        &mut self,
        state: &mut StageState,
        step: Step<'_>,
        instruction: &Instruction,
    ) -> Result<(), InstructionError> {
        match &instruction.kind {
            // The parser lets FROM open a stage and nothing else.
            InstructionKind::From(_) => Ok(()),
            InstructionKind::Run(run) => run::lower(self, state, step, run),
            InstructionKind::Copy(copy) => copy::lower(self, state, step, copy),
            InstructionKind::Add(add) => add::lower(self, state, step, add),
            InstructionKind::Env(pairs) => env::env(self, state, pairs),
            InstructionKind::Label(pairs) => env::label(self, state, pairs),
            InstructionKind::Arg(declarations) => env::arg(self, state, declarations),
            InstructionKind::Workdir(path) => meta::workdir(self, state, step, &path.value),
            InstructionKind::User(user) => meta::user(self, state, &user.value),
            InstructionKind::Expose(ports) => meta::expose(self, state, ports),
            InstructionKind::Volume(volumes) => meta::volume(self, state, volumes),
            InstructionKind::Stopsignal(signal) => meta::stopsignal(self, state, &signal.value),
            InstructionKind::Cmd(command) => {
                meta::cmd(state, command);
                Ok(())
            }
            InstructionKind::Entrypoint(command) => {
                meta::entrypoint(state, command);
                Ok(())
            }
            InstructionKind::Healthcheck(check) => {
                meta::healthcheck(state, check);
                Ok(())
            }
            InstructionKind::Shell(shell) => {
                meta::shell(state, shell);
                Ok(())
            }
            InstructionKind::Maintainer(author) => {
                meta::maintainer(state, author);
                Ok(())
            }
            InstructionKind::Onbuild(onbuild) => {
                let triggers = state.image.config.on_build.get_or_insert_default();
                triggers.push(onbuild.text.clone());
                Ok(())
            }
        }
    }

    /// The vertex of the build context.
    pub(super) fn build_context(&mut self) -> VertexId {
        let op = Op::Local(LocalOp {
            name: BUILD_CONTEXT.to_owned(),
        });
        let shown = Presentation {
            name: "[internal] load build context".to_owned(),
            ..Presentation::default()
        };
        self.builder.add(op, Vec::new(), shown)
    }

    /// The file system that `--from` names: `Err` if it is a stage that was not emitted yet.
    pub(super) fn source_root(
        &mut self,
        reference: SourceRef,
    ) -> Result<Option<VertexId>, NotEmitted> {
        match reference {
            SourceRef::Stage(index) => self
                .states
                .get(&index)
                .map(|state| state.root)
                .ok_or(NotEmitted),
            SourceRef::External(index) => Ok(self.external_root(index)),
        }
    }

    fn external_root(&mut self, index: usize) -> Option<VertexId> {
        if let Some(root) = self.externals.get(&index) {
            return *root;
        }
        let root = match self.plan.bases.get(&SourceRef::External(index)).cloned() {
            None | Some(Base::Scratch) => None,
            Some(Base::Context(context)) => self.context_root(&context),
            Some(Base::Image(image)) => image.op.clone().map(|op| {
                let shown = Presentation {
                    name: format!("FROM {}", image.shown),
                    ..Presentation::default()
                };
                self.builder.add(Op::Image(op), Vec::new(), shown)
            }),
        };
        self.externals.insert(index, root);
        root
    }

    /// Adds the vertex of a step; `text` is the instruction as progress shows it.
    pub(super) fn present(&self, state: &StageState, step: Step<'_>, text: &str) -> Presentation {
        Presentation {
            name: state.steps.name(text, step.is_trigger()),
            origin: Some(origin(step.lines(), &state.steps)),
            ignores_cache: step.ignores_cache,
        }
    }

    /// A step's instruction as progress shows it; no command, in which `://` may be anything.
    pub(super) fn shown(&self, state: &StageState, step: Step<'_>) -> String {
        without_secrets(&display(self.lexer, step.original(), &state.scope))
    }

    /// Expands a word where the stage stands.
    pub(super) fn expand(
        &self,
        state: &StageState,
        word: &str,
    ) -> Result<String, InstructionError> {
        Ok(self.lexer.expand(word, &state.scope)?)
    }
}

/// How many needed stages start from each; the image counts as one that starts from the target.
fn children(plan: &Plan<'_>) -> BTreeMap<usize, usize> {
    let mut children = BTreeMap::from([(plan.stages.target, 1)]);
    for reference in &plan.needed {
        if let SourceRef::Stage(index) = reference
            && let Some(parent) = plan.stages.list[*index].parent
        {
            *children.entry(parent).or_default() += 1;
        }
    }
    children
}

/// A stage that is needed before it stands in the file, or that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotEmitted;
