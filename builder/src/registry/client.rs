//! The client: one request to a registry, with authentication, mirrors and repetition around it.
//!
//! # Concurrency
//!
//! A client is cheap to clone and serves any number of tasks. At most [`MAX_TRANSFERS`] blobs move to or from one host at a
//! time, and one more connection is left for documents, so that a manifest never waits behind layers (features.md 7.1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use frontend::reference::Reference;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::Authorizer;
use super::call::Call;
use super::config::{ConfigError, RegistryConfig};
use super::credentials::{ConfiguredCredentials, Credentials};
use super::error::{RegistryError, TransportError};
use super::hosts::Endpoint;
use super::refusal::{Failure, MAX_ERROR, refusal};
use super::reply::Reply;
use super::retry::{Attempts, Backoff, Retry};
use super::transport::{Origin, Outgoing, Payload, Redirects, Scheme, Timeouts, Transport};
use crate::lock::locked;

/// Blobs that move to or from one host at a time: BuildKit's `maxRegistryConcurrency`.
pub const MAX_TRANSFERS: usize = 4;
/// The header that tells a manifest's digest.
pub(crate) const CONTENT_DIGEST: &str = "docker-content-digest";
/// The header by which registries are known.
const API_VERSION: &str = "docker-distribution-api-version";
/// The longest manifest or config that is read: registries take manifests of 4 MiB, configs have a history and may be longer.
const MAX_DOCUMENT: usize = 16 << 20;

/// Speaks to registries.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    config: RegistryConfig,
    credentials: Arc<dyn Credentials>,
    backoff: Backoff,
    timeouts: Timeouts,
    /// Made on first use: a build that contacts no registry reads no configuration.
    engine: OnceLock<Engine>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Engine {
    transport: Transport,
    authorizer: Authorizer,
    lanes: Mutex<BTreeMap<String, Lanes>>,
    /// What answered at hosts that may speak TLS or not.
    schemes: Mutex<BTreeMap<String, Scheme>>,
}

/// The connections to one host.
#[derive(Clone, Debug)]
struct Lanes {
    transfers: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// Looks at a document and at what the registry says its digest is.
pub(crate) type Accept<'a, T> =
    dyn Fn(Option<&str>, Vec<u8>) -> Result<T, RegistryError> + Sync + 'a;

impl Client {
    /// A client with the credentials that the configuration names. Reads nothing yet.
    pub fn new(config: RegistryConfig) -> Self {
        let credentials = ConfiguredCredentials::new(config.credentials.clone());
        Self::with_credentials(config, Arc::new(credentials))
    }

    /// A client with other credentials.
    pub fn with_credentials(config: RegistryConfig, credentials: Arc<dyn Credentials>) -> Self {
        Self::with_patience(config, credentials, Backoff::default(), Timeouts::default())
    }

    /// A client that repeats and gives up as told.
    pub fn with_patience(
        config: RegistryConfig,
        credentials: Arc<dyn Credentials>,
        backoff: Backoff,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                credentials,
                backoff,
                timeouts,
                engine: OnceLock::new(),
            }),
        }
    }

    fn engine(&self) -> Result<&Engine, ConfigError> {
        let shared = &self.shared;
        if let Some(engine) = shared.engine.get() {
            return Ok(engine);
        }
        let engine = Engine {
            transport: Transport::new(&shared.config, shared.timeouts)?,
            authorizer: Authorizer::new(Arc::clone(&shared.credentials)),
            lanes: Mutex::default(),
            schemes: Mutex::default(),
        };
        Ok(shared.engine.get_or_init(|| engine))
    }

    /// The connections, for what is no registry.
    pub(crate) fn transport(&self) -> Result<&Transport, ConfigError> {
        Ok(&self.engine()?.transport)
    }

    /// Counts the tries of one thing.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.shared.backoff)
    }

    /// Who is asked for a reference, in order.
    pub(crate) fn endpoints(
        &self,
        reference: &Reference,
        by_digest: bool,
    ) -> Result<Vec<Endpoint>, RegistryError> {
        self.may_contact(reference)?;
        Ok(self
            .engine()?
            .transport
            .hosts
            .endpoints(reference, by_digest)?)
    }

    /// Who is pushed to.
    pub(crate) fn upstream(&self, reference: &Reference) -> Result<Endpoint, RegistryError> {
        self.may_contact(reference)?;
        Ok(self.engine()?.transport.hosts.upstream(reference)?)
    }

    /// Whether nobody may be contacted.
    pub fn is_offline(&self) -> bool {
        self.shared.config.is_offline
    }

    fn may_contact(&self, reference: &Reference) -> Result<(), RegistryError> {
        match self.is_offline() {
            true => Err(RegistryError::Offline {
                name: reference.to_string(),
            }),
            false => Ok(()),
        }
    }

    /// Asks for headers: each endpoint in turn until one gives a usable answer, repeating if that may help.
    pub(crate) async fn head(
        &self,
        reference: &Reference,
        call: &Call<'_>,
        name: &str,
    ) -> Result<Reply, RegistryError> {
        let endpoints = self.endpoints(reference, call.is_by_digest())?;
        let mut attempts = self.attempts();
        loop {
            let mut failure = Failure::default();
            for endpoint in &endpoints {
                match self.read_from(endpoint, call, name).await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => failure.add(error),
                }
            }
            attempts.pause(failure.into_error(name)).await?;
        }
    }

    /// Fetches a document, from the first endpoint that gives one that `accept` takes.
    pub(crate) async fn document<T>(
        &self,
        reference: &Reference,
        call: &Call<'_>,
        name: &str,
        accept: &Accept<'_, T>,
    ) -> Result<T, RegistryError> {
        let endpoints = self.endpoints(reference, call.is_by_digest())?;
        let mut attempts = self.attempts();
        loop {
            let mut failure = Failure::default();
            for endpoint in &endpoints {
                match self.document_from(endpoint, call, name).await {
                    Ok((digest, bytes)) => match accept(digest.as_deref(), bytes) {
                        Ok(accepted) => return Ok(accepted),
                        Err(error) => failure.add(error),
                    },
                    Err(error) => failure.add(error),
                }
            }
            attempts.pause(failure.into_error(name)).await?;
        }
    }

    /// A document and what the registry says its digest is.
    async fn document_from(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        name: &str,
    ) -> Result<(Option<String>, Vec<u8>), RegistryError> {
        let reply = self.read_from(endpoint, call, name).await?;
        let digest = reply.header(CONTENT_DIGEST).map(str::to_owned);
        Ok((digest, reply.document(MAX_DOCUMENT).await?))
    }

    /// Sends a read to one endpoint; what is no success is an error.
    pub(crate) async fn read_from(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        name: &str,
    ) -> Result<Reply, RegistryError> {
        let reply = self.send(endpoint, call).await?;
        match reply.status().is_success() {
            true => Ok(reply),
            false => Err(refusal(reply, name, "pull").await),
        }
    }

    /// Sends a write, repeating if that may help; gives the answer with any status below 400.
    pub(crate) async fn write(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        name: &str,
    ) -> Result<Reply, RegistryError> {
        let mut attempts = self.attempts();
        loop {
            match self.write_once(endpoint, call, name).await {
                Ok(reply) => return Ok(reply),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    /// [`Self::write`] without repetition.
    pub(crate) async fn write_once(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        name: &str,
    ) -> Result<Reply, RegistryError> {
        let reply = self.send(endpoint, call).await?;
        match reply.status().as_u16() {
            200..400 => Ok(reply),
            _ => Err(refusal(reply, name, "push").await),
        }
    }

    /// Sends a request to one host, by TLS or without, and answers its challenge.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
    ) -> Result<Reply, RegistryError> {
        let engine = self.engine()?;
        let permits = engine.permits(&endpoint.host, call.is_transfer()).await;
        let schemes = engine.schemes(endpoint)?;
        let (last, first) = match schemes.split_last() {
            Some((last, first)) => (*last, first),
            None => {
                return Err(ConfigError::Host {
                    host: endpoint.host.clone(),
                }
                .into());
            }
        };
        let mut first_failure = None;
        for scheme in first {
            let answer = engine.authorized(endpoint, call, *scheme).await;
            if !is_other_protocol(&answer, *scheme) {
                if answer.is_ok() {
                    engine.remember(endpoint, *scheme);
                }
                return answer.map(|reply| reply.holding(permits));
            }
            first_failure = answer.err();
        }
        match (engine.authorized(endpoint, call, last).await, first_failure) {
            (Ok(reply), _) => {
                engine.remember(endpoint, last);
                Ok(reply.holding(permits))
            }
            // A connection that broke was no other protocol after all: it is worth another try.
            (Err(_), Some(first)) if Retry::of(&first) != Retry::No => Err(first),
            (Err(error), _) => Err(error),
        }
    }

    /// Fetches an address that no registry vouches for, without any credential.
    pub(crate) async fn fetch_foreign(
        &self,
        address: &str,
        headers: HeaderMap,
    ) -> Result<Reply, RegistryError> {
        let engine = self.engine()?;
        let url = Url::parse(address).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| RegistryError::Unsupported {
            what: format!("layer address `{address}`"),
        })?;
        let origin = engine.transport.origin_of(&url)?;
        let permits = engine.permits(&origin.host, true).await;
        let request = Outgoing {
            origin: &origin,
            method: Method::GET,
            url,
            headers,
            authorization: None,
            payload: Payload::Empty,
            redirects: Redirects::Anywhere,
        };
        let reply = engine.transport.execute(&request).await?.holding(permits);
        match reply.status().is_success() {
            true => Ok(reply),
            false => {
                let name = reply.shown.clone();
                Err(refusal(reply, &name, "pull").await)
            }
        }
    }
}

impl Engine {
    async fn permits(&self, host: &str, is_transfer: bool) -> Vec<OwnedSemaphorePermit> {
        let lanes = {
            let mut lanes = locked(&self.lanes);
            let new = || Lanes {
                transfers: Arc::new(Semaphore::new(MAX_TRANSFERS)),
                all: Arc::new(Semaphore::new(MAX_TRANSFERS + 1)),
            };
            lanes.entry(host.to_owned()).or_insert_with(new).clone()
        };
        let mut permits = Vec::new();
        if is_transfer {
            // Acquiring fails only when a semaphore is closed, which nobody does.
            permits.extend(lanes.transfers.acquire_owned().await);
        }
        permits.extend(lanes.all.acquire_owned().await);
        permits
    }

    fn schemes(&self, endpoint: &Endpoint) -> Result<Vec<Scheme>, ConfigError> {
        let known = {
            let schemes = locked(&self.schemes);
            schemes.get(&endpoint.host).copied()
        };
        match known {
            Some(scheme) => Ok(vec![scheme]),
            None => self.transport.schemes(&endpoint.host, endpoint.security),
        }
    }

    fn remember(&self, endpoint: &Endpoint, scheme: Scheme) {
        let mut schemes = locked(&self.schemes);
        schemes.insert(endpoint.host.clone(), scheme);
    }

    async fn authorized(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        scheme: Scheme,
    ) -> Result<Reply, RegistryError> {
        let origin = Origin {
            host: endpoint.host.clone(),
            scheme,
        };
        let url = call.url(endpoint, &origin)?;
        // An upload may continue elsewhere; what the registry demands does not count there.
        let is_own = origin.url("/")?.origin() == url.origin();
        let elsewhere = match is_own {
            true => origin.clone(),
            false => self.transport.origin_of(&url)?,
        };
        let scopes = call.scopes(endpoint);
        let mut authorization = match is_own {
            true => {
                self.authorizer
                    .prepare(&self.transport, endpoint, &scopes)
                    .await?
            }
            false => None,
        };
        let mut is_asked = false;
        loop {
            let request = Outgoing {
                origin: &elsewhere,
                method: call.method.clone(),
                url: url.clone(),
                headers: call.headers.clone(),
                authorization: authorization.clone(),
                payload: call.payload,
                redirects: Redirects::Anywhere,
            };
            let reply = self.transport.execute(&request).await?;
            let is_challenge = reply.status() == StatusCode::UNAUTHORIZED;
            if !is_challenge || is_asked || !is_own || !reply.is_from_origin {
                return Ok(reply);
            }
            is_asked = true;
            let refused = authorization.as_ref();
            let answer =
                self.authorizer
                    .answer(&self.transport, endpoint, &scopes, &reply, refused);
            match answer.await? {
                Some(header) => {
                    authorization = Some(header);
                    // A connection is used again only when its answer has been read.
                    reply.document(MAX_ERROR).await.ok();
                }
                None => return Ok(reply),
            }
        }
    }
}

impl Reply {
    fn holding(mut self, permits: Vec<OwnedSemaphorePermit>) -> Self {
        self.permits = permits;
        self
    }
}

/// Whether a host that may speak TLS or not seems to speak the other.
fn is_other_protocol(answer: &Result<Reply, RegistryError>, scheme: Scheme) -> bool {
    match (answer, scheme) {
        // Go's servers tell who speaks HTTP to their TLS port so, with a bare answer.
        (Ok(reply), Scheme::Http) => {
            let is_bare = reply.header("server").is_none() && reply.header(API_VERSION).is_none();
            reply.status() == StatusCode::BAD_REQUEST && is_bare
        }
        (Err(RegistryError::Transport(TransportError::Request { source, .. })), _) => {
            source.is_connect() || (scheme == Scheme::Http && is_gibberish(source))
        }
        (Ok(_) | Err(_), _) => false,
    }
}

/// Whether what came was no HTTP: a TLS alert. The library tells that in words only; if they change, a TLS server on the
/// loopback interface that is configured as insecure is not found.
fn is_gibberish(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.to_string().contains("invalid HTTP") {
            return true;
        }
        cause = error.source();
    }
    false
}
