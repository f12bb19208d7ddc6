//! Layers into the store: streamed, resumed where they broke, verified over the whole.
//!
//! The bytes go through a bounded channel to a thread that hashes and writes them; only a blob with the right size and
//! digest is committed.

use std::io::Write as _;

use cache::blob::{BlobError, BlobStore, BlobWriter};
use cache::digest::Digest;
use frontend::reference::Reference;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::call::{Call, Resource};
use super::client::Client;
use super::error::{RegistryError, TransportError};
use super::hosts::Endpoint;
use super::refusal::Failure;
use super::reply::Reply;
use super::resolve::{LayerDescriptor, io_error};

/// Chunks on their way to the disk: about 16 KiB each.
const CHUNKS_IN_FLIGHT: usize = 64;
/// A try that got so far counts as progress: a registry that breaks now and then must not break a build, but one that
/// dribbles must not hold it up for ever.
const WORTHWHILE: u64 = 1 << 20;

/// Pulls a layer's blob unless it is there. `progress` gets bytes done and bytes in all.
///
/// # Errors
///
/// A blob with another size or digest than promised is an error and does not enter the store.
pub async fn pull_layer(
    client: &Client,
    blobs: &dyn BlobStore,
    reference: &Reference,
    layer: &LayerDescriptor,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), RegistryError> {
    let size = layer.descriptor.size;
    let digest = &layer.descriptor.digest;
    if blobs
        .contains(digest)
        .map_err(RegistryError::storing(digest))?
    {
        progress(size, size);
        return Ok(());
    }
    let sources = sources(client, reference, layer)?;
    let pull = Pull {
        client,
        blobs,
        layer,
        progress,
    };
    let mut attempts = client.attempts();
    let mut download = None;
    loop {
        let mut failure = Failure::default();
        for source in &sources {
            let before = received(download.as_ref());
            match pull.from(source, &mut download).await {
                Ok(()) => return Ok(()),
                Err(error) => failure.add(error),
            }
            if received(download.as_ref()) >= before.saturating_add(WORTHWHILE) {
                attempts.progressed();
            }
        }
        attempts.pause(failure.into_error(digest.as_str())).await?;
    }
}

/// Where a layer may come from.
enum Source<'a> {
    /// An address in the manifest: gets no credential.
    Foreign(&'a str),
    Registry(Endpoint),
}

/// Layers that registries may not distribute are had from their own addresses (containerd asks these first).
fn sources<'a>(
    client: &Client,
    reference: &Reference,
    layer: &'a LayerDescriptor,
) -> Result<Vec<Source<'a>>, RegistryError> {
    let foreign = layer.urls.iter().map(|url| Source::Foreign(url));
    let endpoints = client.endpoints(reference, true)?;
    Ok(foreign
        .chain(endpoints.into_iter().map(Source::Registry))
        .collect())
}

struct Pull<'a> {
    client: &'a Client,
    blobs: &'a dyn BlobStore,
    layer: &'a LayerDescriptor,
    progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// A blob of which some bytes have come. They are kept as long as the tries go on: when this is dropped, its file is gone.
struct Download {
    received: u64,
    /// Ends when dropped: comes before `ended`, which waits for that.
    chunks: mpsc::Sender<Message>,
    writing: JoinHandle<Result<(Digest, u64), BlobError>>,
    _ended: Ended,
}

/// Waits, when dropped, until the other end is dropped.
struct Ended(std::sync::mpsc::Receiver<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nothing is ever sent: this is the other end's going.
        let _gone = self.0.recv();
    }
}

enum Message {
    Chunk(Vec<u8>),
    /// Without this nothing is committed: a download that is given up leaves nothing.
    Commit,
}

fn received(download: Option<&Download>) -> u64 {
    download.map_or(0, |download| download.received)
}

impl Pull<'_> {
    /// Goes on with the download from one source; a download that turned out wrong is dropped.
    async fn from(
        &self,
        source: &Source<'_>,
        download: &mut Option<Download>,
    ) -> Result<(), RegistryError> {
        let offset = received(download.as_ref());
        let mut reply = self.open(source, offset).await?;
        let mut to_skip = match self.starts_at(&reply, offset) {
            Some(start) => offset - start,
            // Not the part that we asked for.
            None => return Err(self.broken_range(&reply)),
        };
        let digest = &self.layer.descriptor.digest;
        let mut current = match download.take() {
            Some(current) => current,
            None => Download::start(
                self.blobs
                    .writer()
                    .map_err(RegistryError::storing(digest))?,
                digest.clone(),
            ),
        };
        let size = self.layer.descriptor.size;
        loop {
            let chunk = match reply.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if current.received < size => {
                    *download = Some(current);
                    return Err(self.short(&reply));
                }
                Ok(None) => return current.finish(&self.layer.descriptor.digest).await,
                Err(error) => {
                    *download = Some(current);
                    return Err(error.into());
                }
            };
            let chunk = chunk.as_ref();
            let skipped = to_skip.min(super::resolve::length(chunk));
            to_skip -= skipped;
            let fresh = usize::try_from(skipped).ok().and_then(|at| chunk.get(at..));
            let fresh = fresh.unwrap_or_default();
            if fresh.is_empty() {
                continue;
            }
            current.received += super::resolve::length(fresh);
            if current.received > size {
                return Err(self.wrong_size(current.received));
            }
            if current
                .chunks
                .send(Message::Chunk(fresh.to_vec()))
                .await
                .is_err()
            {
                // The writer gave up: its result says why.
                return current.finish(&self.layer.descriptor.digest).await;
            }
            (self.progress)(current.received, size);
        }
    }

    async fn open(&self, source: &Source<'_>, offset: u64) -> Result<Reply, RegistryError> {
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        let digest = self.layer.descriptor.digest.as_str();
        match source {
            Source::Foreign(url) => self.client.fetch_foreign(url, headers).await,
            Source::Registry(endpoint) => {
                let mut call = Call::new(Method::GET, Resource::Blob(digest));
                call.headers = headers;
                self.client.read_from(endpoint, &call, digest).await
            }
        }
    }

    /// Where in the blob an answer starts: a registry may ignore the range, but not answer another one.
    fn starts_at(&self, reply: &Reply, offset: u64) -> Option<u64> {
        if reply.status() != StatusCode::PARTIAL_CONTENT {
            return Some(0);
        }
        let range = reply
            .header(CONTENT_RANGE.as_str())?
            .strip_prefix("bytes ")?;
        let start: u64 = range.split_once('-')?.0.trim().parse().ok()?;
        (start == offset).then_some(start)
    }

    fn broken_range(&self, reply: &Reply) -> RegistryError {
        TransportError::Range {
            url: reply.shown.clone(),
        }
        .into()
    }

    fn short(&self, reply: &Reply) -> RegistryError {
        TransportError::Short {
            url: reply.shown.clone(),
        }
        .into()
    }

    fn wrong_size(&self, found: u64) -> RegistryError {
        RegistryError::Size {
            digest: self.layer.descriptor.digest.clone(),
            expected: self.layer.descriptor.size,
            found,
        }
    }
}

impl Download {
    fn start(mut writer: Box<dyn BlobWriter>, digest: Digest) -> Self {
        let (chunks, mut incoming) = mpsc::channel::<Message>(CHUNKS_IN_FLIGHT);
        let (running, ended) = std::sync::mpsc::channel::<()>();
        let write = move || {
            while let Some(message) = incoming.blocking_recv() {
                match message {
                    Message::Chunk(chunk) => writer
                        .write_all(&chunk)
                        .map_err(|source| io_error("write", &digest, source))?,
                    Message::Commit => return writer.commit(Some(&digest)),
                }
            }
            let given_up = std::io::ErrorKind::Interrupted.into();
            Err(io_error("finish", &digest, given_up))
        };
        Self {
            received: 0,
            chunks,
            writing: tokio::task::spawn_blocking(move || {
                // The writer, and its file unless that was committed, are gone when this returns.
                let written = write();
                drop(running);
                written
            }),
            _ended: Ended(ended),
        }
    }

    /// Everything has come, or the writer has failed: its verdict.
    async fn finish(self, digest: &Digest) -> Result<(), RegistryError> {
        // If the writer is gone its result says why.
        self.chunks.send(Message::Commit).await.ok();
        drop(self.chunks);
        let written = self.writing.await;
        let written = written.unwrap_or_else(|join| {
            let stopped = std::io::Error::other(join);
            Err(io_error("write", digest, stopped))
        });
        written.map_err(RegistryError::storing(digest))?;
        Ok(())
    }
}
