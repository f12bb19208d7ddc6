//! What can be wrong with a Dockerfile's text, in BuildKit's words.
//!
//! Errors have a phase because BuildKit reads the whole file once for its lines and words, and only then instruction by
//! instruction: the error it reports is the first of the earliest phase.

use thiserror::Error;

use crate::source::{Diagnostic, LineRange, Suggestion};

use super::duration::DurationError;
use super::flags::FlagError;
use super::hint::hint;
use super::instruction::mount::MountError;
use super::lines::MAX_LINE_BYTES;

/// Errors in lines, words and heredocs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum SyntaxError {
    #[error("the Dockerfile cannot be empty")]
    Empty,
    #[error("file with no instructions")]
    NoInstructions,
    #[error("dockerfile line greater than max allowed size of {MAX_LINE_BYTES}")]
    LineTooLong,
    #[error("only one {name} parser directive can be used")]
    RepeatedDirective { name: String },
    #[error("invalid escape token '{token}' does not match ` or \\")]
    EscapeToken { token: String },
    #[error("unterminated heredoc")]
    UnterminatedHeredoc { name: String },
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    #[error("{keyword} must have two arguments")]
    TwoArguments { keyword: &'static str },
    #[error("Syntax error - can't find = in {word:?}. Must be of the form: name=value")]
    MissingEquals { word: String },
}

/// Errors in what an instruction says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum InstructionError {
    #[error("unknown instruction: {keyword}{suggestion}")]
    Unknown {
        keyword: String,
        suggestion: Suggestion,
    },
    #[error(transparent)]
    Flag(#[from] FlagError),
    #[error("{keyword} requires at least one argument")]
    AtLeastOne { keyword: &'static str },
    #[error("{keyword} requires exactly one argument")]
    ExactlyOne { keyword: &'static str },
    #[error(
        "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination { keyword: &'static str },
    #[error("{keyword} cannot accept a heredoc as a destination")]
    HeredocDestination { keyword: &'static str },
    #[error("{keyword} names can not be blank")]
    BlankName { keyword: &'static str },
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    #[error(
        "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
    )]
    StageName { name: String },
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("SHELL requires the arguments to be in JSON form")]
    ShellForm,
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    ChainedOnbuild,
    #[error("{keyword} isn't allowed as an ONBUILD trigger")]
    ForbiddenTrigger { keyword: &'static str },
    #[error(transparent)]
    Health(#[from] HealthError),
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Errors in HEALTHCHECK.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum HealthError {
    #[error("HEALTHCHECK NONE takes no arguments")]
    NoneArguments,
    #[error("Unknown type {word:?} in HEALTHCHECK (try CMD)")]
    UnknownType { word: String },
    #[error("Missing command after HEALTHCHECK CMD")]
    MissingCommand,
    #[error(transparent)]
    Duration(#[from] DurationError),
    #[error("Interval {name:?} cannot be less than 1ms")]
    TooShort { name: &'static str },
    #[error("invalid value for --retries: {value:?} is not a number of 32 bits")]
    Retries { value: String },
    #[error("--retries cannot be negative ({value})")]
    NegativeRetries { value: i32 },
}

/// Errors in the flags of RUN.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum RunError {
    #[error("invalid network mode {value:?}")]
    Network { value: String },
    #[error("security {value:?} is not valid")]
    Security { value: String },
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Errors in the order of instructions, and of triggers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum StructureError {
    #[error("no build stage in current context")]
    NoStage,
    #[error("dockerfile contains no stages to build")]
    NoStages,
    #[error("onbuild trigger should be a single expression")]
    SeveralTriggers,
}

/// Any of them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum ParseError {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error(transparent)]
    Instruction(#[from] InstructionError),
    #[error(transparent)]
    Structure(#[from] StructureError),
    /// A mount whose error BuildKit reports when it comes to the step, after everything else.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// When BuildKit would have found an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Lines,
    Instructions,
    Steps,
}

/// An error and the lines it is about.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: ParseError,
    pub(super) lines: Option<LineRange>,
}

impl Failure {
    pub(super) fn at(error: impl Into<ParseError>, lines: LineRange) -> Self {
        Self {
            error: error.into(),
            lines: Some(lines),
        }
    }

    /// An error that BuildKit reports at a single line, or without a place for line 0.
    pub(super) fn at_line(error: impl Into<ParseError>, line: usize) -> Self {
        let lines = LineRange {
            first: line,
            last: line,
        };
        Self {
            error: error.into(),
            lines: (line > 0).then_some(lines),
        }
    }

    fn phase(&self) -> Phase {
        match &self.error {
            ParseError::Syntax(_) => Phase::Lines,
            ParseError::Instruction(_) | ParseError::Structure(_) => Phase::Instructions,
            ParseError::Mount(_) => Phase::Steps,
        }
    }

    /// As an error of a file.
    fn diagnostic(&self) -> Diagnostic {
        let message = match (&self.error, self.lines) {
            (ParseError::Instruction(error), Some(lines)) => {
                format!("dockerfile parse error on line {}: {error}", lines.first)
            }
            (error, _) => error.to_string(),
        };
        Diagnostic {
            message,
            lines: self.lines,
            hint: hint(&self.error),
        }
    }

    /// As an error of a trigger, whose lines are not in any file.
    pub(super) fn into_trigger_diagnostic(self) -> Diagnostic {
        Diagnostic {
            message: self.error.to_string(),
            lines: None,
            hint: hint(&self.error),
        }
    }
}

/// Sorts errors by phase, then as they were found, which is the order of the file.
pub(super) fn in_order(failures: &mut [Failure]) {
    failures.sort_by_key(Failure::phase);
}

/// The diagnostics of a file's errors.
pub(super) fn diagnostics(mut failures: Vec<Failure>) -> Vec<Diagnostic> {
    in_order(&mut failures);
    failures.iter().map(Failure::diagnostic).collect()
}
