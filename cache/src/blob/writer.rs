//! Writes a blob into a file: hashes on the way, unless who writes does, verifies, then gives the file its name.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{BlobError, BlobWriter};
use crate::digest::Digest;
use crate::io::{IoError, Staged};

/// A blob being written into a directory, whose digest the writer of its bytes computes.
#[derive(Debug)]
pub struct UnhashedWriter {
    staged: Staged,
    size: u64,
    directory: PathBuf,
}

impl UnhashedWriter {
    /// Starts a blob; makes the directory if it is missing.
    pub(super) fn create(directory: &Path) -> Result<Self, BlobError> {
        Ok(Self {
            staged: Staged::create(directory)?,
            size: 0,
            directory: directory.to_owned(),
        })
    }

    /// Publishes the blob under the digest of all that was written; gives its size in bytes.
    pub fn commit(self, digest: &Digest) -> Result<u64, BlobError> {
        let target = self.directory.join(digest.hex());
        // A file of that name and size is that blob; one of another size lost its bytes in a power cut.
        let is_there = fs::symlink_metadata(&target).is_ok_and(|there| there.len() == self.size);
        // A collection must not take it for an old one that nobody wants.
        let is_fresh = is_there && touch(&target);
        if !is_fresh {
            self.staged.publish(&target)?;
        }
        Ok(self.size)
    }
}

impl Write for UnhashedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.staged.write(bytes)?;
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob being written into a directory, and hashed.
pub(super) struct FileWriter {
    file: UnhashedWriter,
    hash: Sha256,
}

impl FileWriter {
    /// Starts a blob; makes the directory if it is missing.
    pub(super) fn create(directory: &Path) -> Result<Self, BlobError> {
        Ok(Self {
            file: UnhashedWriter::create(directory)?,
            hash: Sha256::new(),
        })
    }

    /// The file as one to read at any place. Every byte is there once it is written.
    pub(super) fn another_handle(&self) -> Result<fs::File, BlobError> {
        Ok(self.file.staged.another_handle()?)
    }
}

impl From<IoError> for BlobError {
    fn from(error: IoError) -> Self {
        let IoError {
            attempt,
            path,
            source,
        } = error;
        Self::Io {
            attempt,
            path,
            source,
        }
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for FileWriter {
    fn commit(self: Box<Self>, expected: Option<&Digest>) -> Result<(Digest, u64), BlobError> {
        let found = Digest::from_hash(self.hash.finalize().into());
        if let Some(expected) = expected
            && *expected != found
        {
            let expected = expected.clone();
            return Err(BlobError::Mismatch { expected, found });
        }
        let size = self.file.commit(&found)?;
        Ok((found, size))
    }
}

/// Gives a file the time of now; tells whether it was there.
fn touch(path: &Path) -> bool {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let times = rustix::fs::Timestamps {
        last_access: now,
        last_modification: now,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).is_ok()
}
