//! Where files are copied from, and what is seen of the file system they are copied onto.

use std::fs::File;
use std::io::Read as _;

use cache::checksum::stat_cache::FileStat;
use cache::digest::ContentDigest;

use super::error::{CopyError, SourceError, shown};
use super::resolve::{ResolveError, Resolved, Step, resolve};

/// What a source has at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEntry {
    /// Its type.
    pub kind: SourceKind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner; 0 in a context.
    pub uid: u32,
    /// Group; 0 in a context.
    pub gid: u32,
    /// Modification time in whole seconds since the Unix epoch.
    pub mtime: i64,
    /// `security.capability`; never set in a context.
    pub capability: Option<Vec<u8>>,
    /// Equal for the names of one file, if it may have several.
    pub link: Option<LinkIdentity>,
    /// Which version of a file of the client this is; once hashed, as [`Hashed::stamp`].
    pub stamp: Option<FileStat>,
}

/// Tells the files of a source that may have several names apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkIdentity(pub Vec<u8>);

/// The type of a source's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory.
    Directory,
    /// A regular file; its digest, where it is known: of layers without reading, of contexts once it was hashed.
    File {
        /// Size in bytes.
        size: u64,
        /// Digest of the bytes.
        content: Option<ContentDigest>,
    },
    /// A symbolic link with its text.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket, copied as an empty file.
    Socket,
}

/// Who owns what is copied, and how a missing path is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A directory of the client.
    Client,
    /// The file system of a stage, an image or a download.
    Layers,
}

/// A tree that files are copied from. Paths are relative to its root, without symlinks, `.` and `..`; the root is empty.
pub trait SourceTree: Send + Sync {
    /// A name for messages.
    fn name(&self) -> &str;

    /// What kind of tree it is.
    fn origin(&self) -> Origin;

    /// What is at a path, without following a symlink at its end.
    fn lookup(&self, path: &[u8]) -> Result<Option<SourceEntry>, SourceError>;

    /// What a directory holds, sorted by the bytes of the names.
    fn children(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, SourceEntry)>, SourceError>;

    /// Size, digest and version of a regular file. Called by several threads.
    fn digest(&self, path: &[u8], entry: &SourceEntry) -> Result<Hashed, SourceError>;

    /// Opens a regular file. Called by several threads.
    fn open(&self, path: &[u8]) -> Result<File, SourceError>;

    /// Which rule hides a path that does not exist here, if one does.
    fn why_missing(&self, path: &[u8]) -> Option<String>;
}

/// A hashed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Size in bytes.
    pub size: u64,
    /// Digest of the bytes.
    pub content: ContentDigest,
    /// The version that was hashed, where files can change; that of no file, if another version may look the same.
    pub stamp: Option<FileStat>,
}

/// The file system that is copied onto. Paths as in [`SourceTree`].
pub trait Destination {
    /// What is at a path, without following a symlink at its end.
    fn lookup(&self, path: &[u8]) -> Result<Option<DestinationEntry>, SourceError>;

    /// The regular file at a path, with everything that a copy of it needs. `None` for anything else.
    fn file(&self, path: &[u8]) -> Result<Option<SourceEntry>, SourceError>;

    /// The bytes of a regular file.
    fn read(&self, path: &[u8]) -> Result<Vec<u8>, SourceError>;
}

/// What the destination has at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationEntry {
    /// What it is, as far as copying cares.
    pub kind: Step,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in whole seconds since the Unix epoch.
    pub mtime: i64,
}

/// Where a source path leads.
pub(super) fn resolve_source(tree: &dyn SourceTree, path: &[u8]) -> Result<Resolved, CopyError> {
    let step = |path: &[u8]| {
        let entry = tree.lookup(path)?;
        Ok(entry.map(|entry| match entry.kind {
            SourceKind::Directory => Step::Directory,
            SourceKind::Symlink(target) => Step::Link(target),
            SourceKind::File { .. }
            | SourceKind::CharDevice(..)
            | SourceKind::BlockDevice(..)
            | SourceKind::Fifo
            | SourceKind::Socket => Step::Other,
        }))
    };
    resolved(path, resolve(path, step))
}

/// The first bytes of a regular file, links followed; `None` if there is none.
pub(crate) fn read_file(
    tree: &dyn SourceTree,
    path: &[u8],
    limit: u64,
) -> Result<Option<Vec<u8>>, CopyError> {
    let found = resolve_source(tree, path)?;
    let is_file = |entry: &SourceEntry| matches!(entry.kind, SourceKind::File { .. });
    if !found.is_there || !tree.lookup(&found.path)?.as_ref().is_some_and(is_file) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    tree.open(&found.path)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| SourceError::Layer {
            path: shown(path),
            source_name: tree.name().to_owned(),
            source,
        })?;
    Ok(Some(bytes))
}

/// The error of a path that leads nowhere.
pub(super) fn not_found(tree: &dyn SourceTree, path: &[u8]) -> CopyError {
    let source_name = tree.name().to_owned();
    match tree.origin() {
        Origin::Client => CopyError::NotFound {
            source_name,
            path: shown(path),
            excluded_by: tree.why_missing(path),
        },
        Origin::Layers => CopyError::NotInStage {
            source_name,
            path: shown(path),
        },
    }
}

/// Turns the outcome of a resolution into the errors of copying.
pub(super) fn resolved(
    path: &[u8],
    outcome: Result<Resolved, ResolveError<SourceError>>,
) -> Result<Resolved, CopyError> {
    outcome.map_err(|error| match error {
        ResolveError::Lookup(error) => CopyError::Source(error),
        ResolveError::TooManyLinks => CopyError::TooManyLinks { path: shown(path) },
        ResolveError::TooLong => CopyError::TooLong { path: shown(path) },
    })
}

/// The empty file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scratch;

impl SourceTree for Scratch {
    fn name(&self) -> &'static str {
        "scratch"
    }

    fn origin(&self) -> Origin {
        Origin::Layers
    }

    fn lookup(&self, path: &[u8]) -> Result<Option<SourceEntry>, SourceError> {
        Ok(path.is_empty().then_some(SourceEntry {
            kind: SourceKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            capability: None,
            link: None,
            stamp: None,
        }))
    }

    fn children(&self, _path: &[u8]) -> Result<Vec<(Vec<u8>, SourceEntry)>, SourceError> {
        Ok(Vec::new())
    }

    fn digest(&self, path: &[u8], _entry: &SourceEntry) -> Result<Hashed, SourceError> {
        Err(absent(path))
    }

    fn open(&self, path: &[u8]) -> Result<File, SourceError> {
        Err(absent(path))
    }

    fn why_missing(&self, _path: &[u8]) -> Option<String> {
        None
    }
}

fn absent(path: &[u8]) -> SourceError {
    SourceError::Layer {
        path: shown(path),
        source_name: "scratch".to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    }
}
