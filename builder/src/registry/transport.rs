//! One request: connection, TLS, proxy, redirects, time limits.
//!
//! Redirects are followed here and not by the HTTP library, because each hop may need another TLS configuration and must
//! lose the credential when it leaves the host that the credential is for.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::config::{ConfigError, RegistryConfig};
use super::error::{RegistryError, TransportError};
use super::hosts::{Hosts, Security};
use super::proxy::Proxies;
use super::push::{Upload, body_stream};
use super::reply::Reply;
use super::tls::{Tls, Verification};
use crate::lock::locked;

/// As many as Go's client follows.
const MAX_REDIRECTS: usize = 10;
/// How often the progress of an upload is told.
const TICK: Duration = Duration::from_millis(100);
/// The name that registries see in their logs.
const USER_AGENT: &str = concat!("build/", env!("CARGO_PKG_VERSION"));

/// How long we wait for others.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the next bytes.
    pub stall: Duration,
    /// For the answer after a blob was sent whole: registries copy it to its place then.
    pub commit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            commit: Duration::from_secs(900),
        }
    }
}

/// How a host is spoken to in one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scheme {
    Http,
    Https(Verification),
}

/// Where a request goes, and so where its credential may go.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// `host[:port]` as configured
    pub(crate) host: String,
    pub(crate) scheme: Scheme,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Sent to the origin only.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) payload: Payload<'a>,
    pub(crate) redirects: Redirects,
}

/// What a request carries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    Empty,
    Bytes {
        media_type: &'a str,
        bytes: &'a [u8],
    },
    Upload(&'a Upload<'a>),
}

/// Whither redirects are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redirects {
    Anywhere,
    /// The payload is a secret.
    Nowhere,
}

/// Connections to everywhere.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) hosts: Hosts,
    tls: Arc<Tls>,
    proxies: Proxies,
    timeouts: Timeouts,
    clients: Mutex<BTreeMap<ClientKey, Client>>,
}

/// Requests with equal keys may share connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClientKey {
    /// `None`: plain HTTP.
    tls: Option<(String, Verification)>,
    proxy: Option<String>,
}

impl Transport {
    pub(crate) fn new(config: &RegistryConfig, timeouts: Timeouts) -> Result<Self, ConfigError> {
        Ok(Self {
            hosts: Hosts::load(&config.registries)?.with_insecure(config.insecure.clone()),
            tls: Arc::new(Tls::new(config.roots.clone(), config.certs_dirs.clone())),
            proxies: Proxies::new(&config.proxy)?,
            timeouts,
            clients: Mutex::default(),
        })
    }

    /// The ways to speak to a host, the preferred first.
    pub(crate) fn schemes(
        &self,
        host: &str,
        security: Security,
    ) -> Result<Vec<Scheme>, ConfigError> {
        const UNVERIFIED: Scheme = Scheme::Https(Verification::None);
        Ok(match security {
            Security::Verified => vec![Scheme::Https(Verification::Full)],
            // Trying TLS first would cost a handshake where there is most often none.
            Security::Insecure if super::hosts::is_loopback(host) => vec![Scheme::Http, UNVERIFIED],
            Security::Insecure => vec![UNVERIFIED, Scheme::Http],
            Security::Loopback if self.tls.host_files(host)?.is_empty() => vec![Scheme::Http],
            Security::Loopback => vec![Scheme::Https(Verification::Full)],
        })
    }

    /// Sends a request and follows redirects.
    pub(crate) async fn execute(&self, request: &Outgoing<'_>) -> Result<Reply, RegistryError> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(request, &url).await?;
            match next_hop(request, &url, &response)? {
                Some(next) => url = self.allowed(request, &url, next)?,
                None => {
                    return Ok(Reply {
                        method: request.method.clone(),
                        shown: shown(&url),
                        is_from_origin: is_same_origin(&request.url, &url),
                        url,
                        stall: self.timeouts.stall,
                        permits: Vec::new(),
                        response,
                    });
                }
            }
        }
        Err(refused(&url, "more than 10 redirects"))
    }

    async fn once(&self, request: &Outgoing<'_>, url: &Url) -> Result<Response, RegistryError> {
        let is_at_origin = is_same_origin(&request.url, url);
        let client = match is_at_origin {
            true => self.client(request.origin, url).await?,
            false => self.client(&self.origin_of(url)?, url).await?,
        };
        let mut building = client
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone());
        if let (true, Some(authorization)) = (is_at_origin, &request.authorization) {
            building = building.header(AUTHORIZATION, authorization.clone());
        }
        match request.payload {
            Payload::Empty if matches!(request.method, Method::POST | Method::PUT) => {
                building = building.header(CONTENT_LENGTH, 0);
            }
            Payload::Empty => {}
            Payload::Bytes { media_type, bytes } => {
                building = building
                    .header(CONTENT_TYPE, media_type)
                    .body(bytes.to_vec());
            }
            Payload::Upload(upload) => {
                return self.send_upload(building, request, url, upload).await;
            }
        }
        let sent = tokio::time::timeout(self.timeouts.stall, building.send()).await;
        let answer = sent.map_err(|_elapsed| self.stalled(url, self.timeouts.stall))?;
        answer.map_err(|error| not_done(request, url, error))
    }

    /// Sends a blob, watching that it moves.
    async fn send_upload(
        &self,
        building: reqwest::RequestBuilder,
        request: &Outgoing<'_>,
        url: &Url,
        upload: &Upload<'_>,
    ) -> Result<Response, RegistryError> {
        let (body, state) = body_stream(upload);
        let sending = building
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, upload.size)
            .body(body)
            .send();
        let mut sending = pin!(sending);
        let (mut last_sent, mut moved_at) = (0, Instant::now());
        loop {
            let answer = tokio::time::timeout(TICK, &mut sending).await;
            let sent = state.sent();
            if sent > last_sent {
                (last_sent, moved_at) = (sent, Instant::now());
                (upload.progress)(sent, upload.size);
            }
            if let Ok(answer) = answer {
                return answer.map_err(|error| match state.take_failure() {
                    Some(source) => source_failed(url, source),
                    None => not_done(request, url, error),
                });
            }
            let patience = match sent == upload.size {
                true => self.timeouts.commit,
                false => self.timeouts.stall,
            };
            if moved_at.elapsed() > patience {
                return Err(self.stalled(url, patience));
            }
        }
    }

    fn stalled(&self, url: &Url, after: Duration) -> RegistryError {
        TransportError::Stalled {
            url: shown(url),
            after,
        }
        .into()
    }

    /// Whether a redirect may be followed: TLS is given up only for a host that is configured as insecure.
    fn allowed(&self, request: &Outgoing<'_>, from: &Url, to: Url) -> Result<Url, RegistryError> {
        if request.redirects == Redirects::Nowhere && !is_same_origin(from, &to) {
            return Err(refused(
                from,
                "a request that carries a secret does not go to another host",
            ));
        }
        let to = keep_tls(from, to);
        let is_downgrade = from.scheme() == "https" && to.scheme() == "http";
        match to.scheme() {
            "http"
                if is_downgrade && self.hosts.security(&authority(&to)) != Security::Insecure =>
            {
                Err(refused(from, "it leads from https to http"))
            }
            "http" | "https" => Ok(to),
            _ => Err(refused(from, "it leads to neither http nor https")),
        }
    }

    /// How a host that we were sent to is spoken to.
    pub(crate) fn origin_of(&self, url: &Url) -> Result<Origin, ConfigError> {
        let host = authority(url);
        let security = self.hosts.security(&host);
        let scheme = match (url.scheme(), security) {
            ("https", Security::Insecure) => Scheme::Https(Verification::None),
            ("https", Security::Verified | Security::Loopback) => Scheme::Https(Verification::Full),
            _ => Scheme::Http,
        };
        Ok(Origin { host, scheme })
    }

    async fn client(&self, origin: &Origin, url: &Url) -> Result<Client, ConfigError> {
        let host = origin.host.clone();
        let proxy = self.proxies.of(url).cloned();
        let key = ClientKey {
            tls: match origin.scheme {
                Scheme::Http => None,
                Scheme::Https(verification) => Some((host.clone(), verification)),
            },
            proxy: proxy.as_ref().map(Url::to_string),
        };
        if let Some(client) = self.cached(&key) {
            return Ok(client);
        }
        let tls = Arc::clone(&self.tls);
        let scheme = origin.scheme;
        let timeouts = self.timeouts;
        let make = move || {
            let config = match scheme {
                Scheme::Http => tls.never().map_err(|source| ConfigError::Tls {
                    host: host.clone(),
                    source,
                })?,
                Scheme::Https(verification) => {
                    tls.config(&host, &tls.host_files(&host)?, verification)?
                }
            };
            new_client(&host, config, proxy, timeouts)
        };
        let client = match scheme {
            Scheme::Http => make()?,
            // Reading certificates takes long enough to hold up others.
            Scheme::Https(_) => match tokio::task::spawn_blocking(make).await {
                Ok(made) => made?,
                Err(_) => {
                    return Err(ConfigError::Host {
                        host: origin.host.clone(),
                    });
                }
            },
        };
        let mut clients = locked(&self.clients);
        Ok(clients.entry(key).or_insert(client).clone())
    }

    fn cached(&self, key: &ClientKey) -> Option<Client> {
        let clients = locked(&self.clients);
        clients.get(key).cloned()
    }
}

fn new_client(
    host: &str,
    tls: rustls::ClientConfig,
    proxy: Option<Url>,
    timeouts: Timeouts,
) -> Result<Client, ConfigError> {
    let failed = |source| ConfigError::Client {
        host: host.to_owned(),
        source,
    };
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        // One connection for all transfers would make them wait for each other.
        .http1_only()
        .pool_max_idle_per_host(super::client::MAX_TRANSFERS)
        .connect_timeout(timeouts.connect)
        .tcp_nodelay(true);
    if let Some(proxy) = proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(failed)?);
    }
    builder.build().map_err(failed)
}

/// Where an answer sends us, if it is a redirect that we follow.
fn next_hop(
    request: &Outgoing<'_>,
    url: &Url,
    response: &Response,
) -> Result<Option<Url>, RegistryError> {
    let is_read = matches!(request.method, Method::GET | Method::HEAD);
    let is_followed = match response.status() {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => is_read,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => false,
    };
    if !is_followed {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| url.join(location).ok());
    match target {
        Some(target) => Ok(Some(target)),
        None => Err(refused(url, "it has no usable Location")),
    }
}

/// Proxies that end TLS often let a registry name itself with `http:`; the same host is still asked with TLS.
pub(crate) fn keep_tls(from: &Url, mut to: Url) -> Url {
    let is_same = from.host_str() == to.host_str() && matches!(to.port(), None | Some(443));
    if is_same && from.scheme() == "https" && to.scheme() == "http" {
        let port = from.port();
        // Both calls succeed: the address has a host, and https is as special a scheme as http.
        if to.set_scheme("https").is_ok() && to.set_port(port).is_ok() {
            return to;
        }
    }
    to
}

impl Origin {
    /// The address of a path at this origin.
    pub(crate) fn url(&self, path: &str) -> Result<Url, ConfigError> {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https(_) => "https",
        };
        Url::parse(&format!("{scheme}://{}{path}", self.host)).map_err(|_unparsable| {
            ConfigError::Host {
                host: self.host.clone(),
            }
        })
    }
}

/// `host[:port]` of an address.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn is_same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// An address without what may be secret in it.
pub(crate) fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), authority(url), url.path())
}

fn not_done(request: &Outgoing<'_>, url: &Url, source: reqwest::Error) -> RegistryError {
    TransportError::Request {
        method: request.method.clone(),
        url: shown(url),
        source: source.without_url(),
    }
    .into()
}

fn source_failed(url: &Url, source: io::Error) -> RegistryError {
    TransportError::Source {
        url: shown(url),
        source,
    }
    .into()
}

fn refused(url: &Url, problem: &'static str) -> RegistryError {
    TransportError::Redirect {
        url: shown(url),
        problem,
    }
    .into()
}

#[cfg(test)]
mod tests;
