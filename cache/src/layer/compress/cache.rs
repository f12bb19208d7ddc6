//! Compressed chunks kept between builds.
//!
//! A cache only saves time: what cannot be read, or is damaged, is compressed again; what cannot be written is not kept.
//! In a directory a chunk is a file `HEX` of its key: BLAKE3 of the bytes (32), then the bytes. After a crash files may
//! be empty or torn; the digest tells.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::hex;

/// BLAKE3 of a chunk's bytes, codec, level and the compressor's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkKey(pub [u8; 32]);

/// Compressed chunks by key. Used by several threads at once.
///
/// 1. `get` gives exactly what was `put` under the key, or nothing.
/// 2. Neither fails: a cache that cannot be used is one that is empty.
pub trait ChunkCache: Send + Sync {
    /// A chunk that was put.
    fn get(&self, key: &ChunkKey) -> Option<Vec<u8>>;
    /// Keeps a chunk.
    fn put(&self, key: &ChunkKey, bytes: &[u8]);
}

/// Chunks as files of a directory (`StatePaths::chunks`), which may be shared by processes.
#[derive(Debug)]
pub struct DirChunkCache {
    dir: PathBuf,
    counter: AtomicU64,
}

impl DirChunkCache {
    /// Takes the directory; it is made with the first chunk.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            counter: AtomicU64::new(0),
        }
    }

    fn write(&self, key: &ChunkKey, bytes: &[u8]) -> std::io::Result<()> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .dir
            .join(format!(".{}-{}-{number}", hex(&key.0), std::process::id()));
        let open = || fs::File::create(&temporary);
        let mut file = match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.dir)?;
                open()?
            }
            opened => opened?,
        };
        let written = file
            .write_all(blake3::hash(bytes).as_bytes())
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| fs::rename(&temporary, self.dir.join(hex(&key.0))));
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}

impl ChunkCache for DirChunkCache {
    fn get(&self, key: &ChunkKey) -> Option<Vec<u8>> {
        let mut stored = fs::read(self.dir.join(hex(&key.0))).ok()?;
        let (digest, bytes) = stored.split_first_chunk::<32>()?;
        if blake3::hash(bytes).as_bytes() != digest {
            tracing::debug!(chunk = %hex(&key.0), "damaged chunk is compressed again");
            return None;
        }
        stored.drain(..32);
        Some(stored)
    }

    fn put(&self, key: &ChunkKey, bytes: &[u8]) {
        if let Err(error) = self.write(key, bytes) {
            tracing::debug!(%error, "chunk is not kept");
        }
    }
}
