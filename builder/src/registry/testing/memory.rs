//! A store in memory, as strict as the real one.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex};

use cache::blob::{BlobError, BlobStore, BlobWriter, ReadSeek};
use cache::digest::Digest;

type Blobs = Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>;

/// Blobs in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Blobs);

struct Writer {
    blobs: Blobs,
    bytes: Vec<u8>,
}

impl Memory {
    pub(crate) fn bytes(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(digest).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl BlobStore for Memory {
    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.0.lock().unwrap().contains_key(digest))
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn ReadSeek>>, BlobError> {
        let bytes = self.bytes(digest);
        Ok(bytes.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn ReadSeek>))
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        Ok(Box::new(Writer {
            blobs: Arc::clone(&self.0),
            bytes: Vec::new(),
        }))
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Short writes: callers must not rely on whole ones.
        let count = bytes.len().min(1000);
        self.bytes.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWriter for Writer {
    fn commit(self: Box<Self>, expected: Option<&Digest>) -> Result<(Digest, u64), BlobError> {
        let found = Digest::of(&self.bytes);
        if let Some(expected) = expected
            && *expected != found
        {
            return Err(BlobError::Mismatch {
                expected: expected.clone(),
                found,
            });
        }
        let size = self.bytes.len() as u64;
        self.blobs.lock().unwrap().insert(found.clone(), self.bytes);
        Ok((found, size))
    }
}
