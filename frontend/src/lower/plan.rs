//! What must be built: the stages that the target needs, their bases resolved, their triggers in place.
//!
//! A base image can bring triggers, a trigger can need another stage, and that another base: so finding out goes round
//! until nothing new is needed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::lint::Coverage;
use crate::platform::Platform;
use crate::source::Diagnostic;

use super::LowerOptions;
use super::context::Contexts;
use super::error::{BaseError, diagnostic};
use super::from::{Base, Bases, parse_reference};
use super::link;
use super::stage::{Command, SourceRef, Stages};

/// What an instruction takes beside its text, about.
const TRIGGER_BYTES: usize = 512;

/// What must be built.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) stages: Stages<'a>,
    /// What the target needs.
    pub(super) needed: BTreeSet<SourceRef>,
    /// What stages without a parent start from, and what comes from outside.
    pub(super) bases: BTreeMap<SourceRef, Base>,
    /// The global ARGs and predefined variables.
    pub(super) globals: crate::expand::Scope,
}

impl<'a> Plan<'a> {
    /// Resolves what the target needs.
    pub(super) fn new(
        stages: Stages<'a>,
        globals: crate::expand::Scope,
        options: &LowerOptions,
        contexts: &Contexts<'_>,
        resolver: &dyn super::ImageResolver,
        coverage: Coverage,
    ) -> Result<Self, Vec<Diagnostic>> {
        check_names(&stages)?;
        let bases = Bases {
            contexts,
            resolver,
            labels: stages.labels().map(str::to_owned).collect(),
        };
        let mut plan = Self {
            needed: BTreeSet::new(),
            bases: BTreeMap::new(),
            globals,
            stages,
        };
        loop {
            plan.needed = match coverage {
                Coverage::Target => plan.stages.reachable(),
                Coverage::AllStages => plan.stages.all(),
            };
            plan.resolve(&bases, options)?;
            if !plan.add_triggers()? {
                return Ok(plan);
            }
        }
    }

    /// Resolves what is needed and was not yet: one error for each that fails, in file order.
    fn resolve(
        &mut self,
        bases: &Bases<'_>,
        options: &LowerOptions,
    ) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        for reference in &self.needed {
            if self.bases.contains_key(reference) {
                continue;
            }
            match self.resolve_one(*reference, bases, options) {
                Ok(Some(base)) => drop(self.bases.insert(*reference, base)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(errors)
    }

    fn resolve_one(
        &self,
        reference: SourceRef,
        bases: &Bases<'_>,
        options: &LowerOptions,
    ) -> Result<Option<Base>, Diagnostic> {
        let target: &Platform = &options.target_platform;
        match reference {
            SourceRef::External(index) => {
                let external = &self.stages.externals[index];
                bases
                    .resolve(&external.name, target)
                    .map(Some)
                    .map_err(|error| error.at(external.lines))
            }
            SourceRef::Stage(index) => {
                let stage = &self.stages.list[index];
                let platform = stage.platform.as_ref().unwrap_or(target);
                let base: Result<Option<Base>, BaseError> = match (&stage.replacement, stage.parent)
                {
                    (Some(context), _) => bases
                        .context(context, platform)
                        .map(|context| Some(Base::Context(Box::new(context)))),
                    (None, Some(_)) => Ok(None),
                    (None, None) => bases.resolve(&stage.base, platform).map(Some),
                };
                base.map_err(|error| error.at(Some(stage.lines)))
            }
        }
    }

    /// Puts the triggers of bases before the instructions of needed stages; tells whether they may need more.
    fn add_triggers(&mut self) -> Result<bool, Vec<Diagnostic>> {
        let mut may_need_more = false;
        let mut errors = Vec::new();
        for reference in self.needed.clone() {
            let SourceRef::Stage(index) = reference else {
                continue;
            };
            let stage = &self.stages.list[index];
            if stage.has_triggers || stage.replacement.is_some() {
                continue;
            }
            let triggers = match stage.parent.map(|parent| &self.stages.list[parent]) {
                Some(parent) if parent.replacement.is_some() => Vec::new(),
                Some(parent) => parent.own_triggers(),
                None => self
                    .bases
                    .get(&reference)
                    .map(Base::triggers)
                    .unwrap_or_default(),
            };
            match self.triggers(index, triggers) {
                Ok(needs_more) => may_need_more |= needs_more,
                Err(error) => errors.push(error),
            }
            if self.globals.check_allowance().is_err() {
                break;
            }
        }
        if errors.is_empty() {
            return Ok(may_need_more);
        }
        Err(errors)
    }

    fn triggers(&mut self, index: usize, texts: Vec<String>) -> Result<bool, Diagnostic> {
        let lines = self.stages.list[index].lines;
        let mut commands = Vec::new();
        for text in texts {
            self.globals.charge(text.len() + TRIGGER_BYTES);
            self.globals
                .check_allowance()
                .map_err(|error| diagnostic(&error, Some(lines)))?;
            let instruction = crate::parse::parse_trigger(&text).map_err(|error| Diagnostic {
                lines: Some(lines),
                ..error
            })?;
            let sources = link::sources(&mut self.stages, &instruction, lines)
                .map_err(|error| diagnostic(&error, Some(lines)))?;
            commands.push(Command {
                instruction: Cow::Owned(instruction),
                lines,
                trigger: Some(text),
                sources,
            });
        }
        let stage = &mut self.stages.list[index];
        stage.has_triggers = true;
        stage.total += commands.len();
        let needs_more = commands.iter().any(|command| !command.sources.is_empty());
        commands.append(&mut stage.commands);
        stage.commands = commands;
        Ok(needs_more)
    }
}

/// The names of all bases must be well formed, needed or not.
fn check_names(stages: &Stages<'_>) -> Result<(), Vec<Diagnostic>> {
    let of_stages = stages
        .list
        .iter()
        .filter(|stage| stage.parent.is_none() && stage.base != "scratch")
        .map(|stage| (&stage.base, Some(stage.lines)));
    let of_externals = stages
        .externals
        .iter()
        .filter(|external| external.name != "scratch")
        .map(|external| (&external.name, external.lines));
    let errors: Vec<Diagnostic> = of_stages
        .chain(of_externals)
        .filter_map(|(name, lines)| parse_reference(name).err().map(|error| error.at(lines)))
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors)
}
