//! What can be wrong with an instruction once its stage and variables are known.

use crate::expand::{Exhausted, ExpandError};
use crate::reference::{DigestError, ReferenceError};
use crate::source::{Diagnostic, LineRange, Suggestion, did_you_mean};

use super::ResolveError;
use super::chmod::ChmodError;
use super::expose::PortError;
use super::git::GitError;
use super::mount_option::MountError;
use super::strict::StrictError;

/// Why an instruction cannot be lowered. The texts are BuildKit's.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstructionError {
    #[error(transparent)]
    Expand(#[from] ExpandError),
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Strict(#[from] StrictError),
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("invalid signal: {0}")]
    InvalidSignal(String),
    #[error("parsing produced an invalid run command: exec form with heredocs")]
    ExecWithHeredoc,
}

/// Why a COPY or ADD cannot be lowered.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error(transparent)]
    Chmod(#[from] ChmodError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error("source can't be a URL for COPY")]
    UrlInCopy,
    #[error("source can't be a git ref for COPY")]
    GitInCopy,
    #[error("checksum can't be specified for multiple sources")]
    ChecksumForSeveral,
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumForLocal,
    #[error("checksum mismatch {given} != {in_url}")]
    ChecksumMismatch { given: String, in_url: String },
    #[error("inconsistent keep-git-dir configuration")]
    KeepGitDir,
}

/// Why stages do not fit together.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    #[error(transparent)]
    Expand(#[from] ExpandError),
    #[error("dockerfile contains no stages to build")]
    NoStages,
    #[error("base name ({base}) should not be blank{suggestion}")]
    BlankBase {
        base: String,
        suggestion: Suggestion,
    },
    #[error("empty platform value from expression {platform}{suggestion}")]
    BlankPlatform {
        platform: String,
        suggestion: Suggestion,
    },
    #[error("failed to process arguments for platform {platform}: {reason}")]
    PlatformArguments {
        platform: String,
        reason: ExpandError,
    },
    #[error("failed to parse platform {platform}: {reason}{suggestion}")]
    Platform {
        platform: String,
        reason: String,
        suggestion: Suggestion,
    },
    #[error("target stage {} could not be found{suggestion}", crate::gofmt::quote(.name))]
    NoTarget {
        name: String,
        suggestion: Suggestion,
    },
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from \
         global scope as a workaround"
    )]
    VariableInFrom,
    #[error("invalid stage index {0}")]
    NoIndex(String),
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    #[error(
        "cannot copy from stage {}, it needs to be defined before current stage {}",
        crate::gofmt::quote(.from), crate::gofmt::quote(.current)
    )]
    CopyFromLater { from: String, current: String },
    #[error(
        "cannot mount from stage {} to {}, stage needs to be defined before current command",
        crate::gofmt::quote(.from), crate::gofmt::quote(.target)
    )]
    MountFromLater { from: String, target: String },
}

/// Why a base image or a named context cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BaseError {
    #[error("failed to parse stage name {}: {reason}", crate::gofmt::quote(.name))]
    Reference {
        name: String,
        reason: ReferenceError,
    },
    #[error("invalid context {name}: {reason}")]
    ContextReference {
        name: String,
        reason: ReferenceError,
    },
    #[error("{name}: {message}{suggestion}")]
    Resolve {
        name: String,
        message: String,
        suggestion: Suggestion,
        hint: Option<String>,
    },
    #[error("{}", .0.message)]
    Context(ResolveError),
    #[error("invalid git context {0}")]
    NoGit(String),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("failed to parse image config: {0}")]
    Config(#[from] serde_json::Error),
}

impl BaseError {
    /// Points at lines of the file, if there are any.
    pub(super) fn at(self, lines: Option<LineRange>) -> Diagnostic {
        let message = self.to_string();
        let hint = match self {
            Self::Resolve { hint, .. } => hint,
            Self::Context(error) => error.hint,
            Self::Reference { .. }
            | Self::ContextReference { .. }
            | Self::NoGit(_)
            | Self::Git(_)
            | Self::Config(_) => None,
        };
        Diagnostic {
            message,
            lines,
            hint,
        }
    }
}

/// An error without a hint, pointing at lines if there are any.
pub(super) fn diagnostic(error: &dyn std::error::Error, lines: Option<LineRange>) -> Diagnostic {
    Diagnostic {
        message: error.to_string(),
        lines,
        hint: None,
    }
}

/// The nearest of a few known words.
pub(super) fn suggest<'o>(word: &str, options: impl IntoIterator<Item = &'o str>) -> Suggestion {
    Suggestion(did_you_mean(word, options).map(str::to_owned))
}
