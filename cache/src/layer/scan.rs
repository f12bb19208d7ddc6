//! The index of a layer from one pass over its tar: nothing is unpacked.

use std::io::{BufReader, Read};

use super::draft::{Content, Draft, Placed};
use super::entry::{Entry, EntryKind};
use super::error::LayerError;
use super::index::LayerIndex;
use super::reader::{TarReader, read_error};
use crate::digest::ContentDigest;

/// Header by header, reads from a pipe or file would be 512 bytes each: four times slower (measured).
const BUFFER: usize = 256 * 1024;

/// Where members go while a tar is read.
pub(super) trait Target {
    /// Makes a directory that the tar leaves out, 0755.
    fn make_parent(&mut self, at: &[u8]) -> Result<(), LayerError>;
    /// Makes anything but a regular file, in place of what was there.
    fn make(&mut self, content: &Content) -> Result<(), LayerError>;
    /// Makes a regular file, in place of what was there.
    fn make_file(&mut self, content: &Content, bytes: &mut dyn Read)
    -> Result<Written, LayerError>;
}

/// What was read of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) size: u64,
    pub(super) content: ContentDigest,
}

/// Indexes a layer's tar, uncompressed. Reads the input to its end.
///
/// # Errors
///
/// [`LayerError::Tar`] for a malformed tar, [`LayerError::Entry`] for an entry that cannot be part of a layer.
pub fn scan(input: impl Read) -> Result<LayerIndex, LayerError> {
    run(
        input,
        &mut Nowhere {
            buffer: vec![0; BUFFER],
        },
    )
}

pub(super) fn run(input: impl Read, target: &mut dyn Target) -> Result<LayerIndex, LayerError> {
    let mut reader = TarReader::new(BufReader::with_capacity(BUFFER, input));
    let mut draft = Draft::default();
    let mut made = Vec::new();
    while let Some(member) = reader.next_member()? {
        let placed = draft.place(&member, &mut made)?;
        for parent in made.drain(..) {
            target.make_parent(&parent)?;
        }
        let Placed::Content(mut content) = placed else {
            continue;
        };
        if let EntryKind::File { .. } = content.entry.kind {
            let Written {
                size,
                content: digest,
            } = target.make_file(&content, &mut reader)?;
            content.entry.kind = EntryKind::File {
                size,
                content: digest,
            };
        } else {
            target.make(&content)?;
        }
        draft.insert(content);
    }
    reader.finish()?;
    draft.finish()
}

/// Only hashes.
struct Nowhere {
    buffer: Vec<u8>,
}

impl Target for Nowhere {
    fn make_parent(&mut self, _at: &[u8]) -> Result<(), LayerError> {
        Ok(())
    }

    fn make(&mut self, _content: &Content) -> Result<(), LayerError> {
        Ok(())
    }

    fn make_file(
        &mut self,
        content: &Content,
        bytes: &mut dyn Read,
    ) -> Result<Written, LayerError> {
        copy(bytes, &content.entry, &mut self.buffer, &mut |_| Ok(()))
    }
}

/// Reads a file's bytes to the end, hashes them and hands them on.
pub(super) fn copy(
    from: &mut dyn Read,
    entry: &Entry,
    buffer: &mut [u8],
    to: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
) -> Result<Written, LayerError> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0_u64;
    loop {
        let count = match from.read(buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(size)(error)),
        };
        hasher.update(&buffer[..count]);
        size += count as u64;
        to(&buffer[..count])?;
    }
    // The reader gives exactly what the header promised, or an error.
    debug_assert!(matches!(entry.kind, EntryKind::File { size: promised, .. } if promised == size));
    Ok(Written {
        size,
        content: ContentDigest(*hasher.finalize().as_bytes()),
    })
}
