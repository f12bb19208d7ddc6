//! Stages: names, bases, what they take from each other, and which of them the target needs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{self, Dockerfile, Instruction, InstructionKind};
use crate::expand::{Lexer, Scope, watch};
use crate::platform::Platform;
use crate::source::{Diagnostic, LineRange, Suggestion};

use super::context::Contexts;
use super::error::{StageError, diagnostic, suggest};
use super::{LowerOptions, link};

/// All stages of a file.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    /// In file order.
    pub(super) list: Vec<Stage<'a>>,
    /// The last stage of each lower-case name.
    by_name: BTreeMap<String, usize>,
    /// What is neither stage nor build context: images and named contexts of `--from` and of mounts.
    pub(super) externals: Vec<External>,
    /// The target.
    pub(super) target: usize,
}

/// One FROM and what follows.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// The lower-case name.
    pub(super) name: Option<String>,
    /// The name, or `stage-N`.
    pub(super) label: String,
    /// The lines of its FROM.
    pub(super) lines: LineRange,
    /// The base as expanded.
    pub(super) base: String,
    /// The stage it starts from, if that is one.
    pub(super) parent: Option<usize>,
    /// `--platform`
    pub(super) platform: Option<Platform>,
    /// The named context that replaces it.
    pub(super) replacement: Option<String>,
    /// Its instructions; triggers come first once they are known.
    pub(super) commands: Vec<Command<'a>>,
    /// Number of numbered steps.
    pub(super) total: usize,
    /// Whether the triggers of the base are in `commands`.
    pub(super) has_triggers: bool,
}

/// An instruction within a stage.
#[derive(Clone, Debug)]
pub(super) struct Command<'a> {
    /// The instruction.
    pub(super) instruction: Cow<'a, Instruction>,
    /// Where to point at: the FROM for triggers.
    pub(super) lines: LineRange,
    /// The text that the spans of a trigger refer to; `None` for instructions of the file.
    pub(super) trigger: Option<String>,
    /// The source of a COPY, or of each mount of a RUN.
    pub(super) sources: Vec<Option<SourceRef>>,
}

/// What `--from` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SourceRef {
    /// A stage.
    Stage(usize),
    /// An image, a named context or scratch: index into [`Stages::externals`].
    External(usize),
}

/// Something from outside that an instruction names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct External {
    /// The name as written.
    pub(super) name: String,
    /// Where to point at; mounts have no place in BuildKit's messages.
    pub(super) lines: Option<LineRange>,
}

impl<'a> Stages<'a> {
    /// Reads the stages of a file.
    pub(super) fn read(
        dockerfile: &'a Dockerfile,
        options: &LowerOptions,
        contexts: &Contexts<'_>,
        lexer: &Lexer,
        globals: &Scope,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut stages = Self {
            list: Vec::new(),
            by_name: BTreeMap::new(),
            externals: Vec::new(),
            target: 0,
        };
        let mut errors = Vec::new();
        for instruction in &dockerfile.instructions {
            if let InstructionKind::From(from) = &instruction.kind {
                let lines = instruction.lines;
                match stages.open(from, lines, options, lexer, globals) {
                    Ok(stage) => stages.add(stage, contexts, options),
                    Err(error) => errors.push(diagnostic(&error, Some(lines))),
                }
            } else if let Some(stage) = stages.list.last_mut() {
                stage.push(instruction);
            }
        }
        // Without all stages, what refers to them cannot be judged.
        if !errors.is_empty() {
            return Err(errors);
        }
        stages.target = stages
            .find_target(options)
            .map_err(|error| vec![diagnostic(&error, None)])?;
        stages.link()?;
        Ok(stages)
    }

    fn open(
        &self,
        from: &ast::From,
        lines: LineRange,
        options: &LowerOptions,
        lexer: &Lexer,
        globals: &Scope,
    ) -> Result<Stage<'a>, StageError> {
        let base = lexer.expand(&from.image.value, globals)?;
        if base.is_empty() {
            let word = &from.image.value;
            return Err(StageError::BlankBase {
                base: word.clone(),
                suggestion: suggest_argument(*lexer, word, globals),
            });
        }
        let platform = from
            .platform
            .as_ref()
            .map(|written| parse_platform(&written.value, options, lexer, globals))
            .transpose()?;
        let name = from.name.as_ref().map(|name| name.value.to_lowercase());
        let label = name
            .clone()
            .unwrap_or_else(|| format!("stage-{}", self.list.len()));
        Ok(Stage {
            name,
            label,
            lines,
            base,
            parent: None,
            platform,
            replacement: None,
            commands: Vec::new(),
            total: 0,
            has_triggers: false,
        })
    }

    fn add(&mut self, mut stage: Stage<'a>, contexts: &Contexts<'_>, options: &LowerOptions) {
        if let Some(name) = &stage.name {
            let platform = stage.platform.as_ref().unwrap_or(&options.target_platform);
            stage.replacement = contexts.find(name, platform).map(str::to_owned);
        }
        if stage.replacement.is_none() {
            stage.parent = self.by_name.get(&stage.base).copied();
        }
        if stage.base != "scratch" && stage.parent.is_none() {
            stage.total = 1;
        }
        if let Some(name) = &stage.name {
            self.by_name.insert(name.clone(), self.list.len());
        }
        self.list.push(stage);
    }

    fn find_target(&self, options: &LowerOptions) -> Result<usize, StageError> {
        let last = self.list.len().checked_sub(1).ok_or(StageError::NoStages)?;
        let Some(name) = &options.target else {
            return Ok(last);
        };
        self.named(name).ok_or_else(|| StageError::NoTarget {
            name: name.clone(),
            suggestion: suggest(name, self.labels()),
        })
    }

    /// Finds out what each instruction of each stage takes its files from; also of stages that the target does not need.
    fn link(&mut self) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        for index in 0..self.list.len() {
            for position in 0..self.list[index].commands.len() {
                let command = &self.list[index].commands[position];
                let (instruction, lines) = (command.instruction.clone(), command.lines);
                match link::sources(self, &instruction, lines) {
                    Ok(sources) => self.list[index].commands[position].sources = sources,
                    Err(error) => errors.push(diagnostic(&error, None)),
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        link::check_circles(self).map_err(|error| vec![error])?;
        // The name of the only stage is of no interest.
        if self.list.len() == 1 && self.externals.is_empty() {
            self.list[0].label.clear();
        }
        Ok(())
    }

    /// The stage of a name in any case.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    /// The names of all stages, for suggestions.
    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|stage| stage.label.as_str())
    }

    /// Notes something from outside.
    pub(super) fn external(&mut self, name: &str, lines: Option<LineRange>) -> SourceRef {
        self.externals.push(External {
            name: name.to_owned(),
            lines,
        });
        SourceRef::External(self.externals.len() - 1)
    }

    /// The stages and externals that the target needs.
    pub(super) fn reachable(&self) -> BTreeSet<SourceRef> {
        self.reachable_from(vec![SourceRef::Stage(self.target)])
    }

    /// All stages, and the externals that they need.
    pub(super) fn all(&self) -> BTreeSet<SourceRef> {
        self.reachable_from((0..self.list.len()).map(SourceRef::Stage).collect())
    }

    fn reachable_from(&self, mut open: Vec<SourceRef>) -> BTreeSet<SourceRef> {
        let mut found = BTreeSet::new();
        while let Some(reference) = open.pop() {
            if !found.insert(reference) {
                continue;
            }
            if let SourceRef::Stage(index) = reference {
                let stage = &self.list[index];
                open.extend(stage.parent.map(SourceRef::Stage));
                if stage.replacement.is_none() {
                    open.extend(stage.sources());
                }
            }
        }
        found
    }
}

impl<'a> Stage<'a> {
    fn push(&mut self, instruction: &'a Instruction) {
        self.total += usize::from(matches!(
            instruction.kind,
            InstructionKind::Add(_)
                | InstructionKind::Copy(_)
                | InstructionKind::Run(_)
                | InstructionKind::Workdir(_)
        ));
        self.commands.push(Command {
            instruction: Cow::Borrowed(instruction),
            lines: instruction.lines,
            trigger: None,
            sources: Vec::new(),
        });
    }

    /// What its instructions take their files from.
    pub(super) fn sources(&self) -> impl Iterator<Item = SourceRef> {
        self.commands
            .iter()
            .flat_map(|command| command.sources.iter().copied().flatten())
    }

    /// The triggers that it leaves to stages that start from it.
    pub(super) fn own_triggers(&self) -> Vec<String> {
        self.commands
            .iter()
            .filter_map(|command| {
                if let InstructionKind::Onbuild(onbuild) = &command.instruction.kind {
                    return Some(onbuild.text.clone());
                }
                None
            })
            .collect()
    }
}

fn parse_platform(
    written: &str,
    options: &LowerOptions,
    lexer: &Lexer,
    globals: &Scope,
) -> Result<Platform, StageError> {
    let text = lexer
        .expand(written, globals)
        .map_err(|reason| StageError::PlatformArguments {
            platform: written.to_owned(),
            reason,
        })?;
    if text.is_empty() {
        return Err(StageError::BlankPlatform {
            platform: written.to_owned(),
            suggestion: suggest_argument(*lexer, written, globals),
        });
    }
    Platform::parse(&text, &options.build_platform.architecture).map_err(|reason| {
        StageError::Platform {
            platform: written.to_owned(),
            reason: reason.to_string(),
            suggestion: suggest_argument(*lexer, written, globals),
        }
    })
}

/// The variable that was meant by the first that is not set.
fn suggest_argument(lexer: Lexer, word: &str, globals: &Scope) -> Suggestion {
    let missing = watch(lexer, word, globals).missing.into_iter();
    let mut meant = missing.map(|name| suggest(&name, globals.names()));
    meant.find(|meant| meant.0.is_some()).unwrap_or_default()
}
