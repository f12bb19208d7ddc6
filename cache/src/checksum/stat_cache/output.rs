//! Writing the file of a stat cache.

use std::path::Path;

use super::MAGIC;
use crate::io::{Attempt, IoError, Staged};

/// Bytes of the file written at once.
const WRITTEN_AT_ONCE: usize = 256 * 1024;

/// The file being written, a part at a time: as a whole it takes as much memory as all entries do.
pub(super) struct Output<'a> {
    target: &'a Path,
    staged: Staged,
    hasher: blake3::Hasher,
    waiting: Vec<u8>,
}

impl<'a> Output<'a> {
    pub(super) fn create(target: &'a Path) -> Result<Self, IoError> {
        Ok(Self {
            target,
            staged: Staged::create(target.parent().unwrap_or(Path::new("/")))?,
            hasher: blake3::Hasher::new(),
            waiting: MAGIC.to_vec(),
        })
    }

    pub(super) fn add(&mut self, entry: &[u8]) -> Result<(), IoError> {
        self.waiting.extend_from_slice(entry);
        match self.waiting.len() {
            ..WRITTEN_AT_ONCE => Ok(()),
            _ => self.write(),
        }
    }

    fn write(&mut self) -> Result<(), IoError> {
        self.hasher.update(&self.waiting);
        let written = self.staged.write(&self.waiting);
        self.waiting.clear();
        written.attempt("write", self.target)
    }

    pub(super) fn finish(mut self) -> Result<(), IoError> {
        self.write()?;
        let check = self.hasher.finalize();
        let written = self.staged.write(check.as_bytes());
        written.attempt("write", self.target)?;
        self.staged.publish(self.target)
    }
}
