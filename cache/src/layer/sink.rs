//! Where layer tars are written to.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use crate::digest::{DiffId, Digest};

/// Takes the bytes of a layer tar and is told where entries start.
pub trait TarSink: Write {
    /// The next byte written starts an entry.
    fn boundary(&mut self, entry: Boundary) -> io::Result<()>;
}

/// The start of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// A hash of its path, the same wherever the entry is.
    pub path_hash: u64,
    /// How many bytes of content follow the header.
    pub size: u64,
}

impl Boundary {
    pub(super) fn new(path: &[u8], size: u64) -> Self {
        let hash = blake3::hash(path);
        let (first, _) = hash
            .as_bytes()
            .split_first_chunk::<8>()
            .unwrap_or((&[0; 8], &[]));
        Self {
            path_hash: u64::from_le_bytes(*first),
            size,
        }
    }
}

/// Writes on, without a use for boundaries.
#[derive(Debug)]
pub struct Plain<W>(pub W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> TarSink for Plain<W> {
    fn boundary(&mut self, _entry: Boundary) -> io::Result<()> {
        Ok(())
    }
}

/// Drops everything: for when only the digest is wanted.
pub fn nowhere() -> Plain<io::Sink> {
    Plain(io::sink())
}

/// A finished tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Size of the tar in bytes.
    pub size: u64,
}

/// Hashes and counts on the way to another sink.
pub(super) struct Hashing<'a> {
    sink: &'a mut dyn TarSink,
    hasher: Sha256,
    size: u64,
}

impl<'a> Hashing<'a> {
    pub(super) fn new(sink: &'a mut dyn TarSink) -> Self {
        Self {
            sink,
            hasher: Sha256::new(),
            size: 0,
        }
    }

    pub(super) fn boundary(&mut self, path: &[u8], size: u64) -> io::Result<()> {
        self.sink.boundary(Boundary::new(path, size))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.sink.write_all(bytes)
    }

    pub(super) fn finish(self) -> Packed {
        let diff_id = DiffId(Digest::from_hash(self.hasher.finalize().into()));
        Packed {
            diff_id,
            size: self.size,
        }
    }
}
