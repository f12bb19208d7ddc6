//! Writes a blob and hashes it on a thread of its own: who writes here is busy with the hash of the tar.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Chunks that were written and wait to be hashed.
const WAITING: usize = 1;

/// A blob shorter than this is hashed where it is written: in less time than a thread starts.
const WORTH_A_THREAD: u64 = 256 * 1024;

/// Hashes and counts what is written.
#[derive(Debug)]
pub(super) struct Hashed<W> {
    out: W,
    size: u64,
    hashing: Hashing,
}

#[derive(Debug)]
enum Hashing {
    Here(Sha256),
    There(HashingThread),
}

/// A thread that goes on with a hash.
#[derive(Debug)]
struct HashingThread {
    /// What it waits for: without it, it ends.
    chunks: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<Sha256>>,
}

impl<W: Write> Hashed<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            size: 0,
            hashing: Hashing::Here(Sha256::new()),
        }
    }

    /// Writes a few bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.hashing {
            Hashing::Here(hasher) => hasher.update(bytes),
            Hashing::There(thread) => thread.send(bytes.to_vec())?,
        }
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Writes a chunk.
    pub(super) fn write_chunk(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.out.write_all(&bytes)?;
        self.size += bytes.len() as u64;
        match &mut self.hashing {
            Hashing::Here(hasher) if self.size < WORTH_A_THREAD => hasher.update(bytes),
            Hashing::Here(hasher) => match HashingThread::start(hasher.clone()) {
                Ok(thread) => {
                    thread.send(bytes)?;
                    self.hashing = Hashing::There(thread);
                }
                // No thread is to be had, perhaps with the next chunk.
                Err(_) => hasher.update(bytes),
            },
            Hashing::There(thread) => thread.send(bytes)?,
        }
        Ok(())
    }

    /// The digest and the size of the blob, and the writer, flushed.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64, W)> {
        self.out.flush()?;
        let hasher = match self.hashing {
            Hashing::Here(hasher) => hasher,
            Hashing::There(mut thread) => thread.end()?,
        };
        let digest = Digest::from_hash(hasher.finalize().into());
        Ok((digest, self.size, self.out))
    }
}

impl HashingThread {
    fn start(mut hasher: Sha256) -> io::Result<Self> {
        let (chunks, waiting) = sync_channel::<Vec<u8>>(WAITING);
        let hash = move || {
            waiting.into_iter().for_each(|chunk| hasher.update(chunk));
            hasher
        };
        let thread = thread::Builder::new().name("hash".into()).spawn(hash)?;
        Ok(Self {
            chunks: Some(chunks),
            thread: Some(thread),
        })
    }

    fn send(&self, bytes: Vec<u8>) -> io::Result<()> {
        let chunks = self.chunks.as_ref().ok_or_else(broken)?;
        chunks.send(bytes).map_err(|_thread_panicked| broken())
    }

    /// Waits until all chunks are hashed.
    fn end(&mut self) -> io::Result<Sha256> {
        self.chunks = None;
        let thread = self.thread.take().ok_or_else(broken)?;
        thread.join().map_err(|_panic| broken())
    }
}

impl Drop for HashingThread {
    fn drop(&mut self) {
        // Of a blob that was given up: nobody wants the hash. Not dropped: a thread that ends while it is detached ends the
        // process (glibc bug 19951).
        self.end().ok();
    }
}

fn broken() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
