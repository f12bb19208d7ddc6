//! Blobs and manifests to a registry.
//!
//! A blob is sent whole, by one POST and one PUT: what every registry understands and few do slowly. What the registry has
//! is not sent; what another repository of the same registry has is mounted. All calls may run at once on one client.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cache::digest::Digest;
use frontend::reference::Reference;
use reqwest::header::{ACCEPT, HeaderValue, LOCATION};
use reqwest::{Body, Method, StatusCode, Url};
use tokio::sync::mpsc;

use super::call::{Call, Resource};
use super::client::{CONTENT_DIGEST, Client};
use super::document;
use super::error::RegistryError;
use super::hosts::Endpoint;
use super::reply::Reply;
use super::transport::{Payload, keep_tls};
use crate::lock::locked;

/// Bytes read at a time: enough to keep reading cheap, small beside the memory that a build may use.
const CHUNK: usize = 256 << 10;
/// Chunks read ahead of the connection.
const CHUNKS_IN_FLIGHT: usize = 4;

/// Bytes that can be read again, because an upload may have to start over.
pub trait BodySource: Send + Sync {
    /// Opens them at the start.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
}

impl<F> BodySource for F
where
    F: Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync,
{
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self()
    }
}

/// Whether a registry may have what is pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// It may: it is asked first.
    #[default]
    MayExist,
    /// It was made just now, and sending it again by chance costs less than asking each time.
    New,
}

/// A blob to send.
pub struct Upload<'a> {
    /// Its digest.
    pub digest: &'a Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the registry is asked for it first.
    pub freshness: Freshness,
    /// Its bytes.
    pub source: &'a dyn BodySource,
    /// Told bytes sent and bytes in all; nothing of a blob that need not be sent.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

impl std::fmt::Debug for Upload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry took it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// What a registry says to a mount.
#[derive(Debug)]
pub enum Mount {
    /// It is done.
    Mounted,
    /// It wants the bytes, and has opened an upload for them.
    Refused(UploadSession),
}

/// An upload that the registry has opened.
#[derive(Clone, Debug)]
pub struct UploadSession {
    location: Url,
}

impl Client {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    ///
    /// If the registry does not say.
    pub async fn blob_exists(
        &self,
        repository: &Reference,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let endpoint = self.upstream(repository)?;
        self.exists_at(&endpoint, digest).await
    }

    async fn exists_at(&self, endpoint: &Endpoint, digest: &Digest) -> Result<bool, RegistryError> {
        let call = Call {
            is_push: true,
            ..Call::new(Method::HEAD, Resource::Blob(digest.as_str()))
        };
        match self.write(endpoint, &call, digest.as_str()).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the registry to take a blob from another of its repositories.
    ///
    /// # Errors
    ///
    /// If the registry gives neither the mount nor an upload.
    pub async fn mount(
        &self,
        repository: &Reference,
        digest: &Digest,
        from_repository: &str,
    ) -> Result<Mount, RegistryError> {
        let endpoint = self.upstream(repository)?;
        let mut call = Call::new(Method::POST, Resource::Uploads);
        call.also_pull = Some(from_repository);
        call.query = vec![
            ("mount", digest.to_string()),
            ("from", from_repository.to_owned()),
        ];
        let reply = self.write(&endpoint, &call, digest.as_str()).await?;
        match reply.status() {
            StatusCode::CREATED => Ok(Mount::Mounted),
            _ => Ok(Mount::Refused(session(&reply, digest)?)),
        }
    }

    /// Sends a blob, into `session` if a mount opened one.
    ///
    /// # Errors
    ///
    /// If the registry does not take it.
    pub async fn upload(
        &self,
        repository: &Reference,
        upload: &Upload<'_>,
        session: Option<UploadSession>,
    ) -> Result<(), RegistryError> {
        let endpoint = self.upstream(repository)?;
        let mut session = session;
        let mut attempts = self.attempts();
        loop {
            match self.upload_once(&endpoint, upload, session.take()).await {
                Ok(()) => break,
                Err(error) => attempts.pause(error).await?,
            }
            // The answer may have been lost after the registry had everything.
            if self.exists_at(&endpoint, upload.digest).await? {
                break;
            }
        }
        (upload.progress)(upload.size, upload.size);
        Ok(())
    }

    async fn upload_once(
        &self,
        endpoint: &Endpoint,
        upload: &Upload<'_>,
        opened: Option<UploadSession>,
    ) -> Result<(), RegistryError> {
        let name = upload.digest.as_str();
        let opened = match opened {
            Some(opened) => opened,
            None => {
                let call = Call::new(Method::POST, Resource::Uploads);
                let reply = self.write_once(endpoint, &call, name).await?;
                session(&reply, upload.digest)?
            }
        };
        let mut call = Call::new(Method::PUT, Resource::At(opened.location));
        call.query = vec![("digest", name.to_owned())];
        call.payload = Payload::Upload(upload);
        let reply = self.write_once(endpoint, &call, name).await?;
        created(&reply, upload.digest)
    }

    /// Brings a blob into a repository by the cheapest way: it is there, it is mounted from `from_repository`, it is sent.
    /// A new one is not asked for.
    ///
    /// # Errors
    ///
    /// If the registry does not take it.
    pub async fn push_blob(
        &self,
        repository: &Reference,
        upload: &Upload<'_>,
        from_repository: Option<&str>,
    ) -> Result<Pushed, RegistryError> {
        if upload.freshness == Freshness::MayExist
            && self.blob_exists(repository, upload.digest).await?
        {
            return Ok(Pushed::Existed);
        }
        let mut session = None;
        if let Some(from) = from_repository {
            match self.mount(repository, upload.digest, from).await {
                Ok(Mount::Mounted) => return Ok(Pushed::Mounted),
                Ok(Mount::Refused(opened)) => session = Some(opened),
                // Mounting saves work, that is all: who may not read there may still push here.
                Err(
                    RegistryError::Denied { .. }
                    | RegistryError::NotFound { .. }
                    | RegistryError::Status { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        self.upload(repository, upload, session).await?;
        Ok(Pushed::Uploaded)
    }

    /// Puts a manifest or index under the reference's digest if it has one, else its tag; skips one that is there, unless it
    /// is new.
    ///
    /// # Errors
    ///
    /// If the registry does not take it, or stores another one.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
        freshness: Freshness,
    ) -> Result<Digest, RegistryError> {
        let endpoint = self.upstream(reference)?;
        let digest = Digest::of(bytes);
        let target = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag.as_str(),
            (None, None) => digest.as_str(),
        };
        let name = reference.to_string();
        if freshness == Freshness::MayExist
            && self.manifest_at(&endpoint, target, &name).await? == Some(digest.clone())
        {
            return Ok(digest);
        }
        let mut call = Call::new(Method::PUT, Resource::Manifest(target));
        call.payload = Payload::Bytes { media_type, bytes };
        let reply = self.write(&endpoint, &call, &name).await?;
        created(&reply, &digest)?;
        Ok(digest)
    }

    /// The digest of the manifest under a reference's digest or tag, if there is one.
    ///
    /// # Errors
    ///
    /// If the registry does not say.
    pub async fn manifest_digest(
        &self,
        reference: &Reference,
    ) -> Result<Option<Digest>, RegistryError> {
        let endpoint = self.upstream(reference)?;
        let target = reference.digest.as_deref().or(reference.tag.as_deref());
        let target = target.unwrap_or("latest");
        self.manifest_at(&endpoint, target, &reference.to_string())
            .await
    }

    /// The digest of the manifest that a name has now.
    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        target: &str,
        name: &str,
    ) -> Result<Option<Digest>, RegistryError> {
        let accept = HeaderValue::from_static(document::ACCEPT);
        let call = Call {
            is_push: true,
            ..Call::new(Method::HEAD, Resource::Manifest(target)).header(ACCEPT, accept)
        };
        match self.write(endpoint, &call, name).await {
            Ok(reply) => Ok(reply
                .header(CONTENT_DIGEST)
                .and_then(|text| text.parse().ok())),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            // Some registries know no HEAD here. Then it is put.
            Err(RegistryError::Status {
                status: StatusCode::METHOD_NOT_ALLOWED,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where an upload goes on.
fn session(reply: &Reply, digest: &Digest) -> Result<UploadSession, RegistryError> {
    let location = reply.header(LOCATION.as_str());
    let location = location.and_then(|text| reply.url.join(text).ok());
    let location = location.filter(|url| matches!(url.scheme(), "http" | "https"));
    match location {
        Some(location) if reply.status() == StatusCode::ACCEPTED => Ok(UploadSession {
            location: keep_tls(&reply.url, location),
        }),
        Some(_) | None => Err(RegistryError::Contradiction {
            name: digest.to_string(),
            problem: "the registry does not say where to send it",
        }),
    }
}

/// Whether the registry has stored what we sent.
fn created(reply: &Reply, digest: &Digest) -> Result<(), RegistryError> {
    let stored = reply.header(CONTENT_DIGEST);
    let problem = match reply.status() {
        StatusCode::CREATED if stored.is_none_or(|text| text == digest.as_str()) => return Ok(()),
        StatusCode::CREATED => "the registry has stored it under another digest",
        _ => "the registry does not confirm that it has stored it",
    };
    Err(RegistryError::Contradiction {
        name: digest.to_string(),
        problem,
    })
}

/// How far the reading of an upload's bytes is.
#[derive(Clone, Debug)]
pub(crate) struct UploadState {
    sent: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl UploadState {
    /// Bytes given to the connection.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Why the bytes could not be read, if that is why the request failed.
    pub(crate) fn take_failure(&self) -> Option<io::Error> {
        let mut failure = locked(&self.failure);
        failure.take()
    }
}

/// A request body that is read on a thread of its own.
pub(crate) fn body_stream(upload: &Upload<'_>) -> (Body, UploadState) {
    let state = UploadState {
        sent: Arc::default(),
        failure: Arc::default(),
    };
    let (chunks, incoming) = mpsc::channel::<io::Result<Vec<u8>>>(CHUNKS_IN_FLIGHT);
    let (opened, size) = (upload.source.open(), upload.size);
    let failure = Arc::clone(&state.failure);
    let reading = tokio::task::spawn_blocking(move || {
        let result = opened.and_then(|reader| read_all(reader, size, &chunks));
        if let Err(error) = result {
            let broken = io::Error::from(error.kind());
            *locked(&failure) = Some(error);
            // The connection may be gone already.
            chunks.blocking_send(Err(broken)).ok();
        }
    });
    // The thread ends by itself when the other end of the channel is dropped.
    drop(reading);
    let sent = Arc::clone(&state.sent);
    let stream = futures_util::stream::unfold(incoming, move |mut incoming| {
        let sent = Arc::clone(&sent);
        async move {
            let chunk = incoming.recv().await?;
            if let Ok(bytes) = &chunk {
                sent.fetch_add(super::resolve::length(bytes), Ordering::Relaxed);
            }
            Some((chunk, incoming))
        }
    });
    (Body::wrap_stream(stream), state)
}

fn read_all(
    reader: Box<dyn Read + Send>,
    size: u64,
    chunks: &mpsc::Sender<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    let mut reader = reader.take(size);
    let mut left = size;
    while left > 0 {
        let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        let mut filled = 0;
        while filled < chunk.len() {
            match reader.read(&mut chunk[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        left -= super::resolve::length(&chunk);
        if chunks.blocking_send(Ok(chunk)).is_err() {
            // The request is over; its answer says why.
            return Ok(());
        }
    }
    Ok(())
}
