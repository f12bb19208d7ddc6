//! Why an export failed.

use std::io;
use std::path::PathBuf;

use super::LayerError;
use super::daemon::DaemonError;

/// An error of another part of the program, whose kind does not matter here.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A layer's blob could not be had.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A blob is not what its descriptor says.
    #[error("layer blob {digest} has {found} bytes, its descriptor says {expected}")]
    BlobSize {
        /// Which.
        digest: cache::digest::Digest,
        /// As described.
        expected: u64,
        /// As read.
        found: u64,
    },
    /// The image's file system could not be read.
    #[error("cannot read the image's file system")]
    Tree(#[source] Failure),
    /// An entry of the image's file system cannot be exported.
    #[error("cannot export `{path}`: {problem}")]
    Entry {
        /// Which.
        path: String,
        /// Why not.
        problem: &'static str,
    },
    /// A file at the destination could not be made.
    #[error("cannot {attempt} `{path}`")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The destination is of the wrong kind.
    #[error("{}", wrong_kind(.path, *.wanted))]
    WrongKind {
        /// Which.
        path: PathBuf,
        /// What was wanted there.
        wanted: Wanted,
    },
    /// Standard output could not be written.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// A document could not be written as JSON.
    #[error("cannot write {document}")]
    Json {
        /// Which.
        document: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest could not be assembled.
    #[error(transparent)]
    Manifest(#[from] crate::image::manifest::ManifestError),
    /// A registry did not do what was asked.
    #[error("failed to push {name}")]
    Push {
        /// The reference or repository.
        name: String,
        /// Why.
        #[source]
        source: Failure,
    },
    /// Nothing to push under.
    #[error("tag is needed when pushing to registry")]
    NoName,
    /// The local store did not take the image.
    #[error("cannot store the image")]
    Store(#[source] Failure),
    /// The Docker daemon did not take the image.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// What a destination has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// buildx's words.
fn wrong_kind(path: &std::path::Path, wanted: Wanted) -> String {
    match wanted {
        Wanted::File => format!("destination file \"{}\" is a directory", path.display()),
        Wanted::Directory => format!("destination directory \"{}\" is a file", path.display()),
    }
}

impl ExportError {
    /// Names a file operation.
    pub(super) fn file(
        attempt: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            attempt,
            path,
            source,
        }
    }
}
