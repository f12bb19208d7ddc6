//! Reads a layer blob as a tar, whatever it was compressed with: told by its first bytes, not by its media type, as
//! other tools do.

use std::io::{self, BufRead, BufReader, Read};

use super::Codec;

/// Read at once from the blob.
const BUFFER: usize = 256 * 1024;

/// What a blob is compressed with, told by its first bytes. Levels are the usual ones: they cannot be told.
pub fn sniff(start: &[u8]) -> Codec {
    match start {
        [0x1f, 0x8b, 8, ..] => Codec::GZIP,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::ZSTD,
        // A zstd skippable frame (RFC 8878, 3.1.2), as zstd:chunked and eStargz-like blobs may begin.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::ZSTD,
        _ => Codec::None,
    }
}

/// The uncompressed bytes of a blob. All members of a gzip and all frames of a zstd blob are read.
pub fn decompress<'a>(blob: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut buffered = BufReader::with_capacity(BUFFER, Filled { inner: blob });
    let codec = sniff(buffered.fill_buf()?);
    Ok(match codec {
        Codec::None => Box::new(buffered),
        Codec::Gzip(_) => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Codec::Zstd(_) => Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?),
    })
}

/// Reads as much as asked for, unless the input ends: a short first read must not hide the magic bytes.
struct Filled<R> {
    inner: R,
}

impl<R: Read> Read for Filled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len().min(4) {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
