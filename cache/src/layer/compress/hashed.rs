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
    There {
        chunks: SyncSender<Vec<u8>>,
        thread: JoinHandle<Sha256>,
    },
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
            Hashing::There { chunks, .. } => send(chunks, bytes.to_vec())?,
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
            Hashing::Here(hasher) => match start(hasher.clone()) {
                Ok((chunks, thread)) => {
                    send(&chunks, bytes)?;
                    self.hashing = Hashing::There { chunks, thread };
                }
                // No thread is to be had, perhaps with the next chunk.
                Err(_) => hasher.update(bytes),
            },
            Hashing::There { chunks, .. } => send(chunks, bytes)?,
        }
        Ok(())
    }

    /// The digest and the size of the blob, and the writer, flushed.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64, W)> {
        self.out.flush()?;
        let hasher = match self.hashing {
            Hashing::Here(hasher) => hasher,
            Hashing::There { chunks, thread } => {
                drop(chunks);
                thread.join().map_err(|_panic| broken())?
            }
        };
        let digest = Digest::from_hash(hasher.finalize().into());
        Ok((digest, self.size, self.out))
    }
}

/// Starts the thread, which goes on with a hash until there are no more chunks.
fn start(mut hasher: Sha256) -> io::Result<(SyncSender<Vec<u8>>, JoinHandle<Sha256>)> {
    let (chunks, waiting) = sync_channel::<Vec<u8>>(WAITING);
    let hash = move || {
        waiting.into_iter().for_each(|chunk| hasher.update(chunk));
        hasher
    };
    let thread = thread::Builder::new().name("hash".into()).spawn(hash)?;
    Ok((chunks, thread))
}

fn send(chunks: &SyncSender<Vec<u8>>, bytes: Vec<u8>) -> io::Result<()> {
    chunks.send(bytes).map_err(|_thread_panicked| broken())
}

fn broken() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
