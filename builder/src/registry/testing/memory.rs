//! A store in memory, as strict as the real one.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache::blob::{BlobError, BlobStore, BlobWriter, ReadSeek};
use cache::digest::Digest;

type Blobs = Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>;

/// Blobs in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    blobs: Blobs,
    writers: Arc<AtomicUsize>,
}

struct Writer {
    blobs: Blobs,
    bytes: Vec<u8>,
    writers: Arc<AtomicUsize>,
}

impl Memory {
    pub(crate) fn bytes(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.blobs.lock().unwrap().get(digest).cloned()
    }

    /// How many blobs are being written: of a real store's, each has a file.
    pub(crate) fn writers(&self) -> usize {
        self.writers.load(Ordering::SeqCst)
    }

    pub(crate) fn len(&self) -> usize {
        self.blobs.lock().unwrap().len()
    }
}

impl BlobStore for Memory {
    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.blobs.lock().unwrap().contains_key(digest))
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn ReadSeek>>, BlobError> {
        let bytes = self.bytes(digest);
        Ok(bytes.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn ReadSeek>))
    }

    fn writer(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        self.writers.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Writer {
            blobs: Arc::clone(&self.blobs),
            bytes: Vec::new(),
            writers: Arc::clone(&self.writers),
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
    fn commit(mut self: Box<Self>, expected: Option<&Digest>) -> Result<(Digest, u64), BlobError> {
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
        let bytes = std::mem::take(&mut self.bytes);
        self.blobs.lock().unwrap().insert(found.clone(), bytes);
        Ok((found, size))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A disk takes its time, too.
        std::thread::sleep(Duration::from_millis(20));
        self.writers.fetch_sub(1, Ordering::SeqCst);
    }
}
