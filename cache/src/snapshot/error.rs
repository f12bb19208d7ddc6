//! Why a layer could not be stored, found or prepared for mounting.

use std::io;
use std::path::PathBuf;

use super::format::TreeFormat;
use crate::digest::DiffId;
use crate::io::IoError;
use crate::layer::error::LayerError;

/// Why a layer could not be stored, found or prepared for mounting.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Reading, making or indexing the layer did not work.
    #[error(transparent)]
    Layer(#[from] LayerError),
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
    /// A `layer.json` does not parse.
    #[error("`{}` is damaged", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A tar is not the one of its diff id.
    #[error("layer tar has digest {found}, expected {expected}")]
    Mismatch {
        /// What was promised.
        expected: DiffId,
        /// What came.
        found: DiffId,
    },
    /// A layer is to be mounted that has no tree of the format.
    #[error("layer {diff_id} has no tree of format `{format}`")]
    NoTree {
        /// The layer.
        diff_id: DiffId,
        /// The format.
        format: TreeFormat,
    },
    /// All names for a tree are taken by others.
    #[error("no free name for the tree of layer {0}")]
    NoName(DiffId),
}

impl From<IoError> for SnapshotError {
    fn from(error: IoError) -> Self {
        Self::io(error.attempt, error.path)(error.source)
    }
}

impl SnapshotError {
    /// Whether it says that a file or folder is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(super) fn io(
        attempt: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            attempt,
            path,
            source,
        }
    }

    pub(super) fn os(
        attempt: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Io {
            attempt,
            path,
            source: errno.into(),
        }
    }
}
