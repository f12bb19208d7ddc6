//! Compresses layer tars: parallel, the same bytes for any number of threads, and chunk by chunk, so that a small change
//! recompresses little.
//!
//! ```text
//! tar bytes ──cut──► chunks ──N threads──► encoded chunks ──in order──► blob
//!                                  ▲
//!                             chunk cache
//! ```
//!
//! # Chunks
//!
//! A chunk ends before an entry whose path hash is 0 mod 64 once it has 256 KiB, and at 4 MiB. An entry with more than
//! 4 MiB of content begins a chunk, so that it is cut at fixed offsets inside itself. Where chunks end depends on the
//! entries alone; changing this changes blob digests.
//!
//! # Formats
//!
//! - gzip: one member, because several real readers silently stop after the first. Each chunk is deflated by a fresh
//!   compressor without dictionary (a reused one gives other bytes) and ended by a sync flush, so chunks can be put
//!   one after the other; checksums are combined. What does not shrink is stored.
//! - zstd: a frame for each chunk.
//! - none: the tar itself.
//!
//! # Memory
//!
//! At most seven chunks are on their way at once, each with its input and output, and two more are written already but
//! not hashed: below 72 MiB.

pub mod cache;
pub mod decompress;

mod chunk;
mod hashed;
mod pool;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use self::cache::ChunkCache;
use self::chunk::Encoded;
use self::hashed::Hashed;
use self::pool::Pool;
use super::error::LayerError;
use super::index::LayerIndex;
use super::pack::{Packed, pack};
use super::sink::{Boundary, TarSink};
use crate::digest::Digest;

/// Chunks are not cut before they have this many bytes.
const LEAST_CHUNK: usize = 256 * 1024;

/// Chunks are cut at this many bytes.
const MOST_CHUNK: usize = 4 * 1024 * 1024;

/// One entry in so many ends a chunk: with the ten or so KiB of a usual entry, chunks have about 1 MiB.
const CUT_EVERY: u64 = 64;

/// gzip magic, deflate, no flags, no time, no extra flags, unknown system: what Go writes too.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// An empty last block: fixed codes, end of block.
const DEFLATE_END: [u8; 2] = [3, 0];

/// How a layer blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip at a level from 1 to 9.
    Gzip(u8),
    /// zstd at a level from 1 to 22.
    Zstd(u8),
}

impl Codec {
    /// gzip at level 4: within 2 % of BuildKit's size (level 6 of Go's compressor) at more than its speed.
    pub const GZIP: Self = Self::Gzip(4);

    /// zstd at its own default level.
    pub const ZSTD: Self = Self::Zstd(3);
}

/// What compressing needs besides the codec.
#[derive(Clone)]
pub struct CompressOptions {
    /// Threads that compress; at least one is used.
    pub threads: usize,
    /// Where compressed chunks are kept, if anywhere.
    pub cache: Option<Arc<dyn ChunkCache>>,
}

impl std::fmt::Debug for CompressOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompressOptions")
            .field("threads", &self.threads)
            .field("has_cache", &self.cache.is_some())
            .finish()
    }
}

/// A finished blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// How many chunks there were.
    pub chunks: u64,
    /// How many of them came from the chunk cache.
    pub reused: u64,
}

/// Packs a layer's tree and compresses the tar; gives both digests and the writer.
///
/// The caller compares the tar's digest with the layer's diff id.
pub fn compress_layer<W: Write>(
    index: &LayerIndex,
    tree_dir: &Path,
    out: W,
    codec: Codec,
    options: CompressOptions,
) -> Result<(Packed, Compressed, W), LayerError> {
    let mut compressor = Compressor::new(out, codec, options).map_err(LayerError::Write)?;
    let packed = pack(index, tree_dir, &mut compressor)?;
    let (compressed, out) = compressor.finish().map_err(LayerError::Write)?;
    Ok((packed, compressed, out))
}

/// Compresses what is written to it. Dropped without [`Compressor::finish`], it leaves an incomplete blob.
#[derive(Debug)]
pub struct Compressor<W> {
    out: Hashed<W>,
    codec: Codec,
    chunk: Vec<u8>,
    pool: Pool,
    crc: crc32fast::Hasher,
    tar_size: u64,
    chunks: u64,
    reused: u64,
}

impl<W: Write> Compressor<W> {
    /// Starts a blob.
    pub fn new(out: W, codec: Codec, options: CompressOptions) -> io::Result<Self> {
        let mut out = Hashed::new(out);
        if let Codec::Gzip(_) = codec {
            out.write(&GZIP_HEADER)?;
        }
        Ok(Self {
            out,
            codec,
            chunk: Vec::new(),
            pool: Pool::new(codec, options),
            crc: crc32fast::Hasher::new(),
            tar_size: 0,
            chunks: 0,
            reused: 0,
        })
    }

    /// Ends the blob; gives it and the writer. The writer is flushed.
    pub fn finish(mut self) -> io::Result<(Compressed, W)> {
        self.cut()?;
        while let Some(encoded) = self.pool.next()? {
            self.emit(encoded)?;
        }
        if let Codec::Gzip(_) = self.codec {
            self.out.write(&DEFLATE_END)?;
            self.out.write(&self.crc.finalize().to_le_bytes())?;
            // RFC 1952: the size modulo 2^32.
            let [a, b, c, d, ..] = self.tar_size.to_le_bytes();
            self.out.write(&[a, b, c, d])?;
        }
        let (digest, size, out) = self.out.finish()?;
        let (chunks, reused) = (self.chunks, self.reused);
        Ok((
            Compressed {
                digest,
                size,
                chunks,
                reused,
            },
            out,
        ))
    }

    /// Ends the current chunk.
    fn cut(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.chunk);
        self.chunks += 1;
        while self.pool.is_full() {
            match self.pool.next()? {
                Some(encoded) => self.emit(encoded)?,
                None => break,
            }
        }
        self.pool.submit(bytes)
    }

    fn emit(&mut self, encoded: Encoded) -> io::Result<()> {
        self.reused += u64::from(encoded.is_reused);
        if let Codec::Gzip(_) = self.codec {
            let part = crc32fast::Hasher::new_with_initial_len(encoded.crc, encoded.length);
            self.crc.combine(&part);
        }
        self.out.write_chunk(encoded.bytes)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.codec == Codec::None {
            self.out.write(bytes)?;
            return Ok(bytes.len());
        }
        let room = MOST_CHUNK - self.chunk.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.chunk.extend_from_slice(taken);
        self.tar_size += taken.len() as u64;
        if self.chunk.len() == MOST_CHUNK {
            self.cut()?;
        }
        Ok(taken.len())
    }

    /// Does nothing: a chunk that is cut early would change the blob.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> TarSink for Compressor<W> {
    fn boundary(&mut self, entry: Boundary) -> io::Result<()> {
        let is_large = entry.size > MOST_CHUNK as u64;
        let is_cut = self.chunk.len() >= LEAST_CHUNK && entry.path_hash.is_multiple_of(CUT_EVERY);
        if is_large || is_cut {
            self.cut()
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
