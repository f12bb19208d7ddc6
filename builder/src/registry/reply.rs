//! An answer: status and headers at once, the body piece by piece.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::OwnedSemaphorePermit;

use super::error::TransportError;

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Response,
    pub(crate) method: Method,
    /// Without query: signed addresses are secrets.
    pub(crate) shown: String,
    pub(crate) url: Url,
    /// Whether it came from the origin and not from where that redirected to.
    pub(crate) is_from_origin: bool,
    pub(crate) stall: Duration,
    /// The connection's place among those to the registry.
    pub(crate) permits: Vec<OwnedSemaphorePermit>,
}

impl Reply {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next bytes of the body.
    pub(crate) async fn chunk(
        &mut self,
    ) -> Result<Option<impl AsRef<[u8]> + Send + use<> + 'static>, TransportError> {
        let next = tokio::time::timeout(self.stall, self.response.chunk()).await;
        let next = next.map_err(|_elapsed| TransportError::Stalled {
            url: self.shown.clone(),
            after: self.stall,
        })?;
        next.map_err(|source| TransportError::Body {
            url: self.shown.clone(),
            source: source.without_url(),
        })
    }

    /// The whole body of a document.
    pub(crate) async fn document(mut self, limit: usize) -> Result<Vec<u8>, TransportError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(chunk.as_ref());
            if bytes.len() > limit {
                return Err(TransportError::TooLong {
                    url: self.shown,
                    limit,
                });
            }
        }
        Ok(bytes)
    }
}
