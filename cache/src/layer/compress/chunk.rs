//! One chunk: its bytes in, its encoded bytes out. The same for the same input, on every machine.

use std::io;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::Codec;
use super::cache::{ChunkCache, ChunkKey};

/// Names the code that encodes. Whoever changes it, or updates zlib-rs or zstd, counts this up: cached chunks of other
/// bytes would make the digest depend on what was built before.
const ENCODER_VERSION: &str = "1 zlib-rs-0.6 zstd-1.5.7";

/// The longest stored block of deflate.
const MOST_STORED: usize = 0xffff;

/// Samples tell whether compressing is worth the time: four of 16 KiB.
const SAMPLES: usize = 4;
const SAMPLE: usize = 16 * 1024;

/// From so many bytes on, hashing a chunk to look for it takes longer than deflating the samples. Below that it is looked
/// for first: what is in the cache was worth it.
const HASHED_LATE: usize = 2 * 1024 * 1024;

/// An encoded chunk.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    /// CRC-32 of the input.
    pub(super) crc: u32,
    /// Length of the input.
    pub(super) length: u64,
    pub(super) is_reused: bool,
}

/// Encodes a chunk, or takes it from the cache.
pub(super) fn encode(
    input: &[u8],
    codec: Codec,
    cache: Option<&dyn ChunkCache>,
) -> io::Result<Encoded> {
    let crc = if matches!(codec, Codec::Gzip(_)) {
        crc32fast::hash(input)
    } else {
        0
    };
    let encoded = |bytes, is_reused| Encoded {
        bytes,
        crc,
        length: input.len() as u64,
        is_reused,
    };
    if codec == Codec::None {
        return Ok(encoded(input.to_vec(), false));
    }
    // Keeping what was not made smaller would write it to disk twice to save next to nothing.
    let is_worth_trying = || match codec {
        Codec::Gzip(_) => is_compressible(input),
        Codec::None | Codec::Zstd(_) => Ok(true),
    };
    let tries_first = input.len() >= HASHED_LATE;
    if tries_first && !is_worth_trying()? {
        return Ok(encoded(stored(input), false));
    }
    let key = cache.map(|cache| (cache, key(input, codec)));
    if let Some((cache, key)) = &key
        && let Some(bytes) = cache.get(key)
    {
        return Ok(encoded(bytes, true));
    }
    if !tries_first && !is_worth_trying()? {
        return Ok(encoded(stored(input), false));
    }
    let bytes = match codec {
        Codec::None => input.to_vec(),
        Codec::Gzip(level) => gzip(input, level)?,
        Codec::Zstd(level) => zstd::bulk::compress(input, i32::from(level))?,
    };
    if let Some((cache, key)) = &key {
        cache.put(key, &bytes);
    }
    Ok(encoded(bytes, false))
}

fn key(input: &[u8], codec: Codec) -> ChunkKey {
    let mut hasher = blake3::Hasher::new();
    let (name, level) = match codec {
        Codec::None => ("none", 0),
        Codec::Gzip(level) => ("gzip", level),
        Codec::Zstd(level) => ("zstd", level),
    };
    hasher.update(format!("chunk {ENCODER_VERSION} {name} {level}\n").as_bytes());
    hasher.update(input);
    ChunkKey(*hasher.finalize().as_bytes())
}

/// Deflate blocks that end at a byte boundary and are not the last, of an input that is worth trying.
fn gzip(input: &[u8], level: u8) -> io::Result<Vec<u8>> {
    let bytes = deflate(input, level)?;
    let plain = stored_length(input.len());
    Ok(if bytes.len() < plain {
        bytes
    } else {
        stored(input)
    })
}

/// Whether samples shrink by 3 % at least. Random and compressed bytes do not shrink at all.
fn is_compressible(input: &[u8]) -> io::Result<bool> {
    if input.len() < SAMPLES * SAMPLE {
        return Ok(true);
    }
    let mut shrunk = 0;
    for number in 0..SAMPLES {
        let start = (input.len() - SAMPLE) * number / (SAMPLES - 1);
        shrunk += deflate(&input[start..start + SAMPLE], 1)?.len();
    }
    Ok(shrunk * 100 < SAMPLES * SAMPLE * 97)
}

fn deflate(input: &[u8], level: u8) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(Compression::new(u32::from(level)), false);
    // More than any output, so that one call does all: how often it is called must not reach the bytes. What is not
    // used stays untouched memory.
    let mut out = Vec::with_capacity(input.len() + input.len() / 8 + 1024);
    let mut rest = input;
    loop {
        let before = compress.total_in();
        let status = compress
            .compress_vec(rest, &mut out, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        let taken = usize::try_from(compress.total_in() - before).unwrap_or(rest.len());
        rest = &rest[taken..];
        // A sync flush is complete once there is room left behind it.
        if rest.is_empty() && out.len() < out.capacity() {
            return Ok(out);
        }
        match status {
            Status::Ok | Status::BufError => out.reserve(out.capacity()),
            Status::StreamEnd => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn stored_length(length: usize) -> usize {
    length + 5 * length.div_ceil(MOST_STORED)
}

fn stored(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stored_length(input.len()));
    for block in input.chunks(MOST_STORED) {
        // `chunks` keeps the length below 2^16.
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out
}
