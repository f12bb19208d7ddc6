//! Ordinary files over HTTP, with the connections, proxies and certificates that registries are reached with.
//!
//! A credential is sent to the address it was given for and follows no redirect to another host.

use reqwest::header::{HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use reqwest::{Method, StatusCode, Url};

use super::client::Client;
use super::error::RegistryError;
use super::reply::Reply;
use super::transport::{Outgoing, Payload, Redirects};

/// A file, and what is known of it.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Where it is.
    pub(crate) url: &'a Url,
    /// The entity tag of the version that we have.
    pub(crate) etag: Option<&'a str>,
    /// When the version that we have was last modified, in the server's words.
    pub(crate) modified: Option<&'a str>,
    /// Sent to the address itself and nowhere else.
    pub(crate) authorization: Option<HeaderValue>,
}

impl Client {
    /// Asks for a file. The answer may have any status but those that are worth another try.
    ///
    /// # Errors
    ///
    /// No answer, or a server that cannot serve now ([`RegistryError::Status`]), after several tries.
    pub(crate) async fn download(&self, wanted: &Wanted<'_>) -> Result<Reply, RegistryError> {
        let transport = self.transport()?;
        let origin = transport.origin_of(wanted.url)?;
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (IF_NONE_MATCH, wanted.etag),
            (IF_MODIFIED_SINCE, wanted.modified),
        ] {
            // What a server gave us and is no header value is not given back.
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
        let request = Outgoing {
            origin: &origin,
            method: Method::GET,
            url: wanted.url.clone(),
            headers,
            authorization: wanted.authorization.clone(),
            payload: Payload::Empty,
            redirects: Redirects::Anywhere,
        };
        let mut attempts = self.attempts();
        loop {
            let error = match transport.execute(&request).await {
                Ok(reply) if !may_pass(reply.status()) => return Ok(reply),
                Ok(reply) => RegistryError::Status {
                    method: Method::GET,
                    status: reply.status(),
                    url: reply.shown,
                    message: String::new(),
                    retry_after: None,
                },
                Err(error) => error,
            };
            attempts.pause(error).await?;
        }
    }
}

fn may_pass(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
