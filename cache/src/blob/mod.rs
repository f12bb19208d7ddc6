//! Digest to bytes, verified on the way in.
//!
//! Invariants of every store: (1) a digest that is contained opens to exactly the bytes it names; (2) a writer that is
//! dropped without commit leaves nothing; (3) committing what is there already succeeds; (4) readers never see a part.

#[cfg(test)]
mod contract;
pub mod dir;
pub mod follow;
pub mod memory;
pub mod writer;

use std::io::{Read, Seek, Write};

use crate::digest::Digest;

/// Something that reads and seeks.
pub trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

/// A store of blobs.
pub trait BlobStore: Send + Sync {
    /// Whether the blob is there.
    fn contains(&self, digest: &Digest) -> Result<bool, BlobError>;
    /// Opens the blob if it is there.
    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn ReadSeek>>, BlobError>;
    /// Starts a new blob.
    fn writer(&self) -> Result<Box<dyn BlobWriter>, BlobError>;
}

/// A blob being written.
pub trait BlobWriter: Write + Send {
    /// Verifies and publishes the blob; gives its digest and size in bytes.
    ///
    /// # Errors
    ///
    /// [`BlobError::Mismatch`] if it is not what was expected; nothing enters the store then.
    fn commit(self: Box<Self>, expected: Option<&Digest>) -> Result<(Digest, u64), BlobError>;
}

/// Why a blob could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The bytes are not those of the digest.
    #[error("content has digest {found}, expected {expected}")]
    Mismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The file system said no.
    #[error("cannot {attempt} `{path}`")]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}
