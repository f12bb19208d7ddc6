//! The threads that compress, and the order in which their results come back.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::chunk::{self, Encoded};
use super::{Codec, CompressOptions};

/// Chunks on their way: seven of at most 4 MiB with as much output, and the one being filled, are below 64 MiB.
const MOST_PENDING: usize = 7;

struct Job {
    bytes: Vec<u8>,
    reply: Sender<io::Result<Encoded>>,
}

/// Compresses chunks on threads; gives results in the order in which chunks were submitted.
#[derive(Debug)]
pub(super) struct Pool {
    codec: Codec,
    options: CompressOptions,
    jobs: Option<Sender<Job>>,
    queue: Arc<Mutex<Receiver<Job>>>,
    pending: VecDeque<Receiver<io::Result<Encoded>>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("length", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(codec: Codec, options: CompressOptions) -> Self {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        Self {
            codec,
            options,
            jobs: Some(jobs),
            queue,
            pending: VecDeque::new(),
            threads: Vec::new(),
        }
    }

    /// Whether [`Self::next`] must be called before [`Self::submit`].
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= MOST_PENDING
    }

    /// Hands a chunk to a thread. Threads start as chunks come, so a small layer has one.
    pub(super) fn submit(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let most = self.options.threads.clamp(1, MOST_PENDING);
        if self.threads.len() < most {
            let (queue, codec) = (Arc::clone(&self.queue), self.codec);
            let cache = self.options.cache.clone();
            let work = move || {
                while let Some(job) = take(&queue) {
                    // The receiver is gone if the layer was given up: nothing to tell anyone then.
                    drop(
                        job.reply
                            .send(chunk::encode(&job.bytes, codec, cache.as_deref())),
                    );
                }
            };
            // Where no more are to be had, those that run do its part.
            let thread = thread::Builder::new().name("compress".into()).spawn(work);
            self.threads.extend(thread);
        }
        let (reply, result) = mpsc::channel();
        self.pending.push_back(result);
        if self.threads.is_empty() {
            let encoded = chunk::encode(&bytes, self.codec, self.options.cache.as_deref());
            return reply
                .send(encoded)
                .map_err(|_never| io::ErrorKind::BrokenPipe.into());
        }
        let jobs = self.jobs.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        jobs.send(Job { bytes, reply })
            .map_err(|_all_threads_ended| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits for the oldest chunk; `None` if there is none.
    pub(super) fn next(&mut self) -> io::Result<Option<Encoded>> {
        let Some(result) = self.pending.pop_front() else {
            return Ok(None);
        };
        let encoded = result
            .recv()
            .map_err(|_thread_panicked| io::Error::from(io::ErrorKind::BrokenPipe))?;
        encoded.map(Some)
    }
}

/// The next job, or `None` once the pool is dropped.
fn take(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    let queue = queue.lock().ok()?;
    queue.recv().ok()
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic of a thread was told by the missing result.
            drop(thread.join());
        }
    }
}
