//! Blobs in memory, for tests. Stricter than a directory: reads are short, and a writer remembers whether it failed.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use super::{BlobError, BlobStore, BlobWriter, ReadSeek};
use crate::digest::Digest;
use crate::lock::locked;

/// Most bytes a read gives at once: odd, so that callers who expect full buffers fail.
const SHORT_READ: usize = 7;

/// A store that forgets everything when it goes.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    blobs: Arc<Mutex<BTreeMap<Digest, Arc<[u8]>>>>,
}

impl MemoryStore {
    /// The digests it has.
    pub fn digests(&self) -> Vec<Digest> {
        let blobs = locked(&self.blobs);
        blobs.keys().cloned().collect()
    }
}

struct ShortReader(Cursor<Arc<[u8]>>);

impl Read for ShortReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(SHORT_READ);
        self.0.read(&mut buffer[..length])
    }
}

impl Seek for ShortReader {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

struct MemoryWriter {
    bytes: Vec<u8>,
    store: MemoryStore,
}

impl Write for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(SHORT_READ);
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for MemoryWriter {
    fn commit(self: Box<Self>, expected: Option<&Digest>) -> Result<(Digest, u64), BlobError> {
        let found = Digest::of(&self.bytes);
        if let Some(expected) = expected
            && *expected != found
        {
            let expected = expected.clone();
            return Err(BlobError::Mismatch { expected, found });
        }
        let Self { bytes, store } = *self;
        let size = bytes.len() as u64;
        let mut blobs = locked(&store.blobs);
        blobs.entry(found.clone()).or_insert_with(|| bytes.into());
        Ok((found, size))
    }
}

impl BlobStore for MemoryStore {
    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        let blobs = locked(&self.blobs);
        Ok(blobs.contains_key(digest))
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn ReadSeek>>, BlobError> {
        let blobs = locked(&self.blobs);
        let bytes = blobs.get(digest).cloned();
        Ok(bytes.map(|bytes| Box::new(ShortReader(Cursor::new(bytes))) as Box<dyn ReadSeek>))
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        let store = self.clone();
        let bytes = Vec::new();
        Ok(Box::new(MemoryWriter { bytes, store }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[test]
    fn keeps_the_contract() {
        let store = MemoryStore::default();
        contract::all(&store);
        assert_eq!(store.digests().len(), 3);
    }
}
