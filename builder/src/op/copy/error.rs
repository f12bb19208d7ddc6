//! Why files could not be copied.

use std::io;
use std::path::PathBuf;

use crate::context::walk::ContextError;

/// Why files could not be copied. Texts that scripts match on are BuildKit's.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A literal source is not in the context.
    #[error(
        "failed to calculate checksum of ref {source_name}: \"{path}\": not found{}",
        excluded_by.as_ref().map(|rule| format!(": excluded by {rule}")).unwrap_or_default()
    )]
    NotFound {
        /// The source's name.
        source_name: String,
        /// The path, absolute.
        path: String,
        /// The ignore rule that hides it.
        excluded_by: Option<String>,
    },
    /// A literal source is not in the stage or image.
    #[error(
        "failed to calculate checksum of ref {source_name}: \"{path}\": not found: lstat {path}: no such file or directory"
    )]
    NotInStage {
        /// The source's name.
        source_name: String,
        /// The path, absolute.
        path: String,
    },
    /// A directory would have to be made in something that is none.
    #[error("mkdir {path}: not a directory")]
    ParentNotDirectory {
        /// What is no directory.
        path: String,
    },
    /// A directory meets something else.
    #[error("cannot copy to non-directory: {path}")]
    NotADirectory {
        /// What is no directory.
        path: String,
    },
    /// A file meets a directory.
    #[error("cannot replace to directory {path} with file")]
    IsADirectory {
        /// The directory.
        path: String,
    },
    /// A path resolves through too many links.
    #[error("too many levels of symbolic links in `{path}`")]
    TooManyLinks {
        /// The path.
        path: String,
    },
    /// A path leads to one that is longer than the kernel takes.
    #[error("`{path}` leads to a path of more than 4095 bytes: file name too long")]
    TooLong {
        /// The path.
        path: String,
    },
    /// A user name where there are no users.
    #[error("invalid user index: -1: `{name}` cannot be looked up, there is no file system below")]
    NoUsers {
        /// The name.
        name: String,
    },
    /// A group name where there are no groups.
    #[error(
        "invalid user index: -1: group `{name}` cannot be looked up, there is no file system below"
    )]
    NoGroups {
        /// The name.
        name: String,
    },
    /// `--chmod` is not what the frontend promised.
    #[error("invalid chmod parameter: '{0}'")]
    Chmod(String),
    /// `--exclude` or a source with wildcards does not parse.
    #[error("invalid pattern `{pattern}`: {reason}")]
    Pattern {
        /// The pattern; of a source, from its root.
        pattern: String,
        /// What is wrong.
        reason: frontend::ignore::PatternError,
    },
    /// An entry that would be read as overlay's own metadata.
    #[error(
        "cannot copy `{path}`: {problem}; layers use it to mark deletions, so it would hide files of the image"
    )]
    Reserved {
        /// The path in the source.
        path: String,
        /// What is reserved.
        problem: &'static str,
    },
    /// A pattern that matches nothing (strict).
    #[error("`{pattern}` matches no file")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A pattern that matches several files for one (strict).
    #[error(
        "`{pattern}` matches {count} files, so the destination must end with a /, or each replaces the one before: \
         {destination}"
    )]
    SeveralOntoFile {
        /// The pattern.
        pattern: String,
        /// How many files.
        count: usize,
        /// Where to.
        destination: String,
    },
    /// A user that the destination does not know (strict).
    #[error("unknown user `{name}`: it is not in /etc/passwd")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// A group that the destination does not know (strict).
    #[error("unknown group `{name}`: it is not in /etc/group")]
    UnknownGroup {
        /// The name.
        name: String,
    },
    /// An archive could not be unpacked.
    #[error("cannot unpack `{path}`")]
    Archive {
        /// The archive.
        path: String,
        /// Why.
        #[source]
        source: super::archive::ArchiveError,
    },
    /// A source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The layer could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a source or a destination could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A context.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A tree of a layer.
    #[error("cannot open `{path}` of {source_name}")]
    Tree {
        /// The path, absolute.
        path: String,
        /// The stage or image.
        source_name: String,
        /// Why.
        #[source]
        source: cache::layer::error::LayerError,
    },
    /// A file of a layer.
    #[error("cannot read `{path}` of {source_name}")]
    Layer {
        /// The path, absolute.
        path: String,
        /// The stage or image.
        source_name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What is attempted in [`WriteError::Io`] when a device is made, which the kernel lets no user namespace do.
pub(super) const CREATE_DEVICE: &str = "create the device";

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file system said no.
    #[error("cannot {attempt} `{}`", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A source changed between hashing and copying.
    #[error("`{0}` changed while it was being copied; build again when nothing writes to it")]
    Changed(String),
    /// The plan and the index disagree.
    #[error("the planned layer is inconsistent")]
    Index(#[source] cache::layer::error::LayerError),
}

impl CopyError {
    /// What to do about it, if known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound {
                path,
                excluded_by: Some(_),
                ..
            } => Some(format!(
                "remove the pattern or add `!{}` after it",
                path.trim_start_matches('/')
            )),
            Self::NoUsers { .. } | Self::NoGroups { .. } => {
                Some("give numbers: --chown=UID:GID".to_owned())
            }
            Self::Write(WriteError::Io {
                attempt: CREATE_DEVICE,
                source,
                ..
            }) if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("only root may make devices: build as root".to_owned())
            }
            Self::NotFound { .. }
            | Self::NotInStage { .. }
            | Self::ParentNotDirectory { .. }
            | Self::NotADirectory { .. }
            | Self::IsADirectory { .. }
            | Self::TooManyLinks { .. }
            | Self::TooLong { .. }
            | Self::Chmod(_)
            | Self::Pattern { .. }
            | Self::Reserved { .. }
            | Self::NoMatch { .. }
            | Self::SeveralOntoFile { .. }
            | Self::UnknownUser { .. }
            | Self::UnknownGroup { .. }
            | Self::Archive { .. }
            | Self::Source(_)
            | Self::Write(_) => None,
        }
    }
}

/// A path as people read it: absolute, and cut off where it is longer than any real one.
pub(super) fn shown(path: &[u8]) -> String {
    const MOST_SHOWN: usize = 4096;
    let text = String::from_utf8_lossy(path.get(..MOST_SHOWN).unwrap_or(path));
    format!("/{}", text.trim_start_matches('/'))
}
