//! Why a layer could not be read, made or written.

use std::io;
use std::path::PathBuf;

use super::path;
use crate::io::IoError;

/// Why a layer could not be read, made or written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The tar is not well formed.
    #[error("the tar is malformed at byte {offset}: {problem}")]
    Tar {
        /// Where the header starts, in bytes.
        offset: u64,
        /// What is wrong.
        problem: TarProblem,
    },
    /// An entry cannot be part of a layer.
    #[error("layer entry `{}`: {problem}", path::display(entry))]
    Entry {
        /// Its path as it was given.
        entry: Vec<u8>,
        /// What is wrong.
        problem: EntryProblem,
    },
    /// The tar could not be read.
    #[error("cannot read the layer tar")]
    Read(#[source] io::Error),
    /// The tar could not be written.
    #[error("cannot write the layer tar")]
    Write(#[source] io::Error),
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
    /// A stored index does not read back.
    #[error("layer index `{}` is damaged: {problem}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// The entries of an index contradict each other.
    #[error("layer index: `{}` {problem}", path::display(entry))]
    Inconsistent {
        /// Which entry.
        entry: Vec<u8>,
        /// What is wrong.
        problem: &'static str,
    },
    /// A tree has not the bytes that the layer's index tells.
    #[error("`{}` is not what the layer's index says: {problem}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What differs.
        problem: &'static str,
    },
}

/// What is wrong with a tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TarProblem {
    /// It ends inside a header or inside an entry's bytes.
    #[error("unexpected end")]
    Truncated,
    /// A header's checksum does not fit its bytes.
    #[error("wrong header checksum")]
    Checksum,
    /// A numeric field holds no number, or one that is out of range.
    #[error("the {0} is not a number in range")]
    Number(&'static str),
    /// A PAX header does not parse.
    #[error("malformed PAX record")]
    Pax,
    /// An extension header is larger than any real one.
    #[error("an extension header has more than 1 MiB")]
    Extension,
    /// An entry that has no content has a size.
    #[error("an entry that cannot have content has a size")]
    UnexpectedContent,
    /// Extension headers at the end describe nothing.
    #[error("extension headers without an entry")]
    Dangling,
    /// A sparse file where none is taken, or in a format that is not known.
    #[error(
        "not supported yet: sparse files in layers, or in another format than those of GNU tar"
    )]
    Sparse,
    /// A sparse file whose map is none, or not of what is stored.
    #[error("the map of a sparse file does not fit what is stored")]
    SparseMap,
    /// An entry type that layers do not have.
    #[error("not supported yet: entry type {}", char::from(*.0).escape_default())]
    Type(u8),
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// Its path or a part of it is too long, or holds a NUL byte.
    #[error("the path is too long or holds a NUL byte")]
    Path,
    /// With it the layer has more entries, or longer names, than can be kept in mind.
    #[error("the names up to here take more than 512 MiB")]
    TooMany,
    /// It is a character device 0/0.
    #[error("a character device 0/0 is overlay's own mark for a deletion and may not be content")]
    OverlayWhiteout,
    /// It has a name that layers reserve.
    #[error("names that start with `.wh.` mean deletions in a layer and may not be used otherwise")]
    ReservedName,
    /// It lies below something that is no directory.
    #[error("lies below something that is not a directory")]
    NotBelowDirectory,
    /// It resolves through too many symlinks.
    #[error("too many levels of symbolic links")]
    TooManyLinks,
    /// A hard link to nothing.
    #[error("hard link to an entry that this layer does not have before it")]
    LinkTarget,
    /// The root as something other than a directory.
    #[error("the root can only be a directory")]
    Root,
    /// An owner or device number that Linux does not have.
    #[error("owner or device number out of range")]
    Number,
    /// A `security.capability` that is none.
    #[error("malformed security.capability")]
    Capability,
    /// An upper directory that redirects to another or has only metadata.
    #[error("overlay metadata that refers to a lower layer (redirect or metacopy)")]
    OverlayRedirect,
    /// A kind of file that Linux layers do not have.
    #[error("unknown kind of file")]
    Kind,
}

impl From<IoError> for LayerError {
    fn from(error: IoError) -> Self {
        Self::io(error.attempt, error.path)(error.source)
    }
}

impl LayerError {
    pub(crate) fn entry(entry: &[u8], problem: EntryProblem) -> Self {
        Self::Entry {
            entry: entry.to_vec(),
            problem,
        }
    }

    /// Wraps an error of the file system.
    pub(crate) fn io(
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

    /// As [`Self::io`], for an error of a direct system call.
    pub(crate) fn os(
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
