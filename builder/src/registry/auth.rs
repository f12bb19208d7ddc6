//! Challenges and tokens (the distribution spec's token authentication, RFC 6750 and 7617 in what registries use).
//!
//! A registry is first asked without a credential. What it demands is remembered, so later requests come prepared. A token
//! service gets a POST (`grant_type=password` or `refresh_token`) and, where it knows none, a GET with Basic; nobody asks
//! anonymously by GET.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::config::Secret;
use super::credentials::{Credential, CredentialError, Credentials};
use super::error::RegistryError;
use super::hosts::{Endpoint, Security};
use super::reply::Reply;
use super::scopes::Scopes;
use super::transport::{Outgoing, Payload, Redirects, Transport, authority, shown};
use crate::lock::locked;

/// What we call ourselves at token services.
const CLIENT_ID: &str = "build";
/// A token without a time lives this long (token spec).
const DEFAULT_LIFETIME: u64 = 60;
/// Answers of token services are a few KiB.
const MAX_ANSWER: usize = 1 << 20;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Credentials could not be read.
    #[error("cannot get credentials for {host}")]
    Credentials {
        /// Of which registry.
        host: String,
        /// Why.
        #[source]
        source: CredentialError,
    },
    /// The registry asks for something that we do not know.
    #[error("{host} asks for authentication of an unknown kind")]
    Challenge {
        /// Which registry.
        host: String,
    },
    /// The registry names a token service that must not see credentials.
    #[error(
        "{host} names the token service {realm}, which {problem}: no credentials are sent there"
    )]
    Realm {
        /// Which registry.
        host: String,
        /// The service.
        realm: String,
        /// Why not.
        problem: &'static str,
    },
    /// The token service did not give one.
    #[error("failed to authorize: failed to fetch {kind} token")]
    Token {
        /// `anonymous` or `oauth`
        kind: &'static str,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// The token service's answer has no token.
    #[error("the answer of {realm} has no token")]
    NoToken {
        /// The service.
        realm: String,
    },
    /// The credential cannot be sent.
    #[error("the credential for {host} has characters that cannot be sent")]
    Unsendable {
        /// Of which registry.
        host: String,
    },
}

impl AuthError {
    /// The failure of the request for a token, if that was it.
    pub(crate) fn transport(&self) -> Option<&RegistryError> {
        match self {
            Self::Token { source, .. } => Some(source),
            Self::Credentials { .. }
            | Self::Challenge { .. }
            | Self::Realm { .. }
            | Self::NoToken { .. }
            | Self::Unsendable { .. } => None,
        }
    }
}

struct Token {
    value: Secret,
    scopes: Scopes,
    expires: Instant,
}

#[derive(Default)]
struct HostState {
    challenge: Option<Challenge>,
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

/// Keeps what registries demand and the tokens that they accept.
pub(crate) struct Authorizer {
    credentials: Arc<dyn Credentials>,
    /// By host; the inner lock is held while a token is fetched, so that it is fetched once.
    hosts: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<HostState>>>>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorizer")
    }
}

impl Authorizer {
    pub(crate) fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self {
            credentials,
            hosts: Mutex::default(),
        }
    }

    /// What to send with a request right away; nothing as long as the registry has not asked.
    pub(crate) async fn prepare(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let state = self.state(&endpoint.host);
        let mut state = state.lock().await;
        match state.challenge.clone() {
            None => Ok(None),
            Some(challenge) => {
                let wanted = Wanted {
                    transport,
                    endpoint,
                    scopes,
                };
                self.satisfy(&wanted, &mut state, &challenge).await
            }
        }
    }

    /// What to send after a 401; `None` if we have nothing better than `refused`.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &Scopes,
        reply: &Reply,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let Some(challenge) = Challenge::choose(reply.headers()) else {
            return Err(AuthError::Challenge {
                host: endpoint.host.clone(),
            }
            .into());
        };
        let mut scopes = scopes.clone();
        if let Challenge::Bearer { scope, .. } = &challenge {
            scopes.add(scope);
        }
        let state = self.state(&endpoint.host);
        let mut state = state.lock().await;
        if let Some(refused) = refused {
            let is_refused = |token: &Token| bearer(&token.value).as_ref() == Some(refused);
            state.tokens.retain(|token| !is_refused(token));
        }
        let wanted = Wanted {
            transport,
            endpoint,
            scopes: &scopes,
        };
        let header = self.satisfy(&wanted, &mut state, &challenge).await?;
        state.challenge = Some(challenge);
        Ok(header.filter(|header| refused != Some(header)))
    }

    fn state(&self, host: &str) -> Arc<tokio::sync::Mutex<HostState>> {
        let mut hosts = locked(&self.hosts);
        Arc::clone(hosts.entry(host.to_owned()).or_default())
    }

    async fn satisfy(
        &self,
        wanted: &Wanted<'_>,
        state: &mut HostState,
        challenge: &Challenge,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        if let Challenge::Bearer { .. } = challenge {
            let now = Instant::now();
            state.tokens.retain(|token| token.expires > now);
            let usable = state
                .tokens
                .iter()
                .find(|token| token.scopes.covers(wanted.scopes));
            if let Some(token) = usable {
                return Ok(bearer(&token.value));
            }
        }
        let endpoint = wanted.endpoint;
        let asked = self
            .credentials
            .credential(&endpoint.host, &endpoint.repository);
        let credential = asked.await.map_err(|source| AuthError::Credentials {
            host: endpoint.host.clone(),
            source,
        })?;
        let unsendable = || AuthError::Unsendable {
            host: endpoint.host.clone(),
        };
        match (challenge, &credential) {
            (_, Credential::RegistryToken(token)) => {
                Ok(Some(bearer(token).ok_or_else(unsendable)?))
            }
            (Challenge::Basic, Credential::Basic { username, password }) => {
                Ok(Some(basic(username, password).ok_or_else(unsendable)?))
            }
            (Challenge::Basic, Credential::Anonymous | Credential::IdentityToken(_)) => Ok(None),
            (Challenge::Bearer { realm, service, .. }, _) => {
                let service = Service::new(wanted, realm, service.as_deref())?;
                let token = service.fetch(wanted, &credential).await?;
                let header = bearer(&token.value).ok_or_else(unsendable)?;
                state.tokens.push(token);
                Ok(Some(header))
            }
        }
    }
}

/// For what a token is wanted.
struct Wanted<'a> {
    transport: &'a Transport,
    endpoint: &'a Endpoint,
    scopes: &'a Scopes,
}

/// A token service.
struct Service {
    realm: Url,
    name: Option<String>,
}

impl Service {
    /// Credentials go over TLS, or to a host that is trusted without.
    fn new(wanted: &Wanted<'_>, realm: &str, name: Option<&str>) -> Result<Self, AuthError> {
        let refuse = |problem| AuthError::Realm {
            host: wanted.endpoint.host.clone(),
            realm: Url::parse(realm).map_or_else(|_| realm.to_owned(), |url| shown(&url)),
            problem,
        };
        let url = Url::parse(realm).ok().filter(Url::has_host);
        let url = url.ok_or_else(|| refuse("is no address"))?;
        let host = authority(&url);
        let is_own_host = host == wanted.endpoint.host;
        let security = match is_own_host {
            true => wanted.endpoint.security,
            false => wanted.transport.hosts.security(&host),
        };
        // A registry elsewhere has no business with token services of this machine.
        let is_trusted = match security {
            Security::Insecure => true,
            Security::Loopback => wanted.endpoint.security != Security::Verified,
            Security::Verified => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if is_trusted => {}
            "http" => return Err(refuse("is reached without TLS")),
            _ => return Err(refuse("is neither http nor https")),
        }
        Ok(Self {
            realm: url,
            name: name.map(str::to_owned),
        })
    }

    async fn fetch(
        &self,
        wanted: &Wanted<'_>,
        credential: &Credential,
    ) -> Result<Token, RegistryError> {
        let failed = |kind| {
            move |source| AuthError::Token {
                kind,
                source: Box::new(source),
            }
        };
        let reply = match credential {
            Credential::Anonymous => {
                let reply = self.get(wanted, None).await.and_then(usable);
                reply.map_err(failed("anonymous"))?
            }
            Credential::RegistryToken(token) => {
                // Handled before; such a token is never exchanged.
                return Ok(Token::new(token.clone(), wanted.scopes.clone(), None));
            }
            Credential::IdentityToken(token) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token.reveal()),
                ];
                let reply = self.post(wanted, &form).await.and_then(usable);
                reply.map_err(failed("oauth"))?
            }
            Credential::Basic { username, password } => {
                let form = [
                    ("grant_type", "password"),
                    ("username", username),
                    ("password", password.reveal()),
                ];
                let reply = self.post(wanted, &form).await.map_err(failed("oauth"))?;
                // Services without POST answer with any of these.
                match reply.status() {
                    StatusCode::BAD_REQUEST
                    | StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::NOT_FOUND
                    | StatusCode::METHOD_NOT_ALLOWED => {
                        let header = basic(username, password);
                        let reply = self.get(wanted, header).await.and_then(usable);
                        reply.map_err(failed("oauth"))?
                    }
                    _ => usable(reply).map_err(failed("oauth"))?,
                }
            }
        };
        self.read(wanted, reply).await
    }

    async fn read(&self, wanted: &Wanted<'_>, reply: Reply) -> Result<Token, RegistryError> {
        let bytes = reply.document(MAX_ANSWER).await?;
        let realm = || shown(&self.realm);
        let parsed = serde_json::from_slice::<TokenAnswer>(&bytes).ok();
        let answer = parsed.ok_or_else(|| AuthError::NoToken { realm: realm() })?;
        let value = match (answer.token, answer.access_token) {
            (token, _) if !token.is_empty() => token,
            (_, token) if !token.is_empty() => token,
            _ => return Err(AuthError::NoToken { realm: realm() }.into()),
        };
        Ok(Token::new(
            Secret::new(value),
            wanted.scopes.clone(),
            answer.expires_in,
        ))
    }

    async fn get(
        &self,
        wanted: &Wanted<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, RegistryError> {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(name) = &self.name {
                query.append_pair("service", name);
            }
            for scope in wanted.scopes.texts() {
                query.append_pair("scope", &scope);
            }
        }
        self.send(wanted, Method::GET, url, authorization, Payload::Empty)
            .await
    }

    async fn post(
        &self,
        wanted: &Wanted<'_>,
        secret: &[(&str, &str)],
    ) -> Result<Reply, RegistryError> {
        let scopes = wanted.scopes.texts().join(" ");
        let mut form = self.realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .extend_pairs(secret)
            .append_pair("client_id", CLIENT_ID)
            .append_pair("service", self.name.as_deref().unwrap_or_default())
            .append_pair("scope", &scopes);
        let payload = Payload::Bytes {
            media_type: "application/x-www-form-urlencoded",
            bytes: form.query().unwrap_or_default().as_bytes(),
        };
        self.send(wanted, Method::POST, self.realm.clone(), None, payload)
            .await
    }

    async fn send(
        &self,
        wanted: &Wanted<'_>,
        method: Method,
        url: Url,
        authorization: Option<HeaderValue>,
        payload: Payload<'_>,
    ) -> Result<Reply, RegistryError> {
        let origin = wanted.transport.origin_of(&url)?;
        let redirects = match payload {
            Payload::Empty => Redirects::Anywhere,
            Payload::Bytes { .. } | Payload::Upload(_) => Redirects::Nowhere,
        };
        let request = Outgoing {
            origin: &origin,
            method,
            url,
            headers: HeaderMap::new(),
            authorization,
            payload,
            redirects,
        };
        wanted.transport.execute(&request).await
    }
}

/// A token service's refusal is an error; its text is not shown, it may repeat what it was sent.
fn usable(reply: Reply) -> Result<Reply, RegistryError> {
    if reply.status().is_success() {
        return Ok(reply);
    }
    Err(RegistryError::Status {
        method: reply.method.clone(),
        url: reply.shown.clone(),
        status: reply.status(),
        message: String::new(),
        retry_after: super::refusal::retry_after(&reply),
    })
}

impl Token {
    /// A token is used for 0.9 of its life: it shall not end on the way.
    fn new(value: Secret, scopes: Scopes, expires_in: Option<u64>) -> Self {
        const DAY: u64 = 24 * 3600;
        let seconds = expires_in.filter(|seconds| *seconds > 0);
        let life = Duration::from_secs(seconds.unwrap_or(DEFAULT_LIFETIME).min(DAY));
        Self {
            value,
            scopes,
            expires: Instant::now() + life * 9 / 10,
        }
    }
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.reveal()))
}

fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = format!("{username}:{}", password.reveal());
    sensitive(&format!("Basic {}", STANDARD.encode(pair)))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
