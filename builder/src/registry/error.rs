//! Why something could not be had from, or given to, a registry.
//!
//! Wording is BuildKit's and containerd's where users know it (`failed to resolve source metadata for …`, `…: not
//! found`, `pull access denied, …`). Each text states its own level; causes hang below.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cache::blob::BlobError;
use cache::digest::Digest;
use reqwest::{Method, StatusCode};

use super::auth::AuthError;
use super::config::ConfigError;

/// Why a registry or a layout did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A registry would have had to be asked, and nobody may be.
    #[error("{name} is not in the store, and nobody may be asked for it (--offline, --pull=never)")]
    Offline {
        /// What of: the image.
        name: String,
    },
    /// An image could not be resolved.
    #[error("failed to resolve source metadata for {reference}")]
    Resolve {
        /// Which.
        reference: String,
        /// Why.
        #[source]
        source: Box<Self>,
    },
    /// The registry does not have it.
    #[error("{name}: not found")]
    NotFound {
        /// What.
        name: String,
    },
    /// The registry wants other credentials, or hides that it does not have it.
    #[error("{action} access denied, repository does not exist or may require authorization{}", after_colon("server message: ", .message))]
    Denied {
        /// `pull` or `push`
        action: &'static str,
        /// What the registry says about it; may be empty.
        message: String,
    },
    /// The registry answered with a status that we cannot use.
    #[error("unexpected status from {method} request to {url}: {status}{}", after_colon("", .message))]
    Status {
        /// The request.
        method: Method,
        /// Where.
        url: String,
        /// The answer.
        status: StatusCode,
        /// What the registry says about it; may be empty.
        message: String,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The request did not get an answer, or its answer broke off.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No token could be had.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A blob has not the size that its descriptor says.
    #[error("{digest} has {found} bytes, its descriptor says {expected}")]
    Size {
        /// Which.
        digest: Digest,
        /// What was promised.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A blob could not be stored or is not what its digest says.
    #[error("cannot store {digest}")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// A file or a pipe failed.
    #[error("cannot {attempt} `{path}`")]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A manifest, index or config is no valid JSON of its kind.
    #[error("{name} is not understood")]
    Document {
        /// Which.
        name: String,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// The document is valid, but contradicts itself or the protocol.
    #[error("{name}: {problem}")]
    Contradiction {
        /// Which.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// It is something that we do not read.
    #[error("not supported yet: {what}")]
    Unsupported {
        /// What.
        what: String,
    },
    /// The image exists, but not for the platform.
    #[error(
        "no match for platform in manifest: not found (wanted {wanted}, the image has {available})"
    )]
    NoPlatform {
        /// What was wanted.
        wanted: String,
        /// What there is, comma separated.
        available: String,
    },
}

/// Why a request has no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// It could not be sent, or no answer came.
    #[error("failed to do request: {} {url:?}", title(.method))]
    Request {
        /// The request.
        method: Method,
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer broke off.
    #[error("broken answer from {url}")]
    Body {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing moved for too long.
    #[error("no data from {url} for {} seconds", .after.as_secs())]
    Stalled {
        /// Where.
        url: String,
        /// For how long.
        after: Duration,
    },
    /// A document that should be small is not.
    #[error("the answer of {url} is longer than {limit} bytes")]
    TooLong {
        /// Where.
        url: String,
        /// How much we take.
        limit: usize,
    },
    /// A redirect that is not followed.
    #[error("redirect from {url}: {problem}")]
    Redirect {
        /// Where it came from.
        url: String,
        /// Why not.
        problem: &'static str,
    },
    /// The answer ended before its end.
    #[error("the answer of {url} ended early: unexpected EOF")]
    Short {
        /// Where.
        url: String,
    },
    /// Another part of a blob than the one that was asked for.
    #[error("{url} answers with another part of the blob than was asked for")]
    Range {
        /// Where.
        url: String,
    },
    /// The bytes to send could not be read.
    #[error("cannot read what is to be sent to {url}")]
    Source {
        /// Where it should have gone.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn after_colon(prefix: &str, message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {prefix}{message}"),
    }
}

/// `Head` for `HEAD`: the way Go's client, and so every tool around it, names a request in errors.
fn title(method: &Method) -> String {
    let text = method.as_str();
    let (first, rest) = text.split_at(text.len().min(1));
    format!("{first}{}", rest.to_ascii_lowercase())
}

impl RegistryError {
    /// Whether no registry could be reached, as against one that answered something else.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Resolve { source, .. } => source.is_unreachable(),
            Self::Offline { .. } => true,
            Self::Transport(
                TransportError::Request { .. }
                | TransportError::Stalled { .. }
                | TransportError::Body { .. },
            ) => true,
            _ => false,
        }
    }

    /// Wraps the cause that an image was not resolved.
    pub(crate) fn resolving(reference: &impl ToString) -> impl FnOnce(Self) -> Self {
        let reference = reference.to_string();
        move |source| Self::Resolve {
            reference,
            source: Box::new(source),
        }
    }

    /// Wraps the store's answer.
    pub(crate) fn storing(digest: &Digest) -> impl FnOnce(BlobError) -> Self {
        let digest = digest.clone();
        move |source| Self::Blob { digest, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wording() {
        let cases = [
            (
                RegistryError::resolving(&"docker.io/library/nope:latest")(
                    RegistryError::NotFound {
                        name: "docker.io/library/nope:latest".into(),
                    },
                ),
                "failed to resolve source metadata for docker.io/library/nope:latest: \
                 docker.io/library/nope:latest: not found",
            ),
            (
                RegistryError::Denied {
                    action: "pull",
                    message: String::new(),
                },
                "pull access denied, repository does not exist or may require authorization",
            ),
            (
                RegistryError::Denied {
                    action: "pull",
                    message: "insufficient_scope: authorization failed".into(),
                },
                "pull access denied, repository does not exist or may require authorization: \
                 server message: insufficient_scope: authorization failed",
            ),
            (
                RegistryError::Status {
                    method: Method::HEAD,
                    url: "http://h/v2/a/manifests/b".into(),
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    message: String::new(),
                    retry_after: None,
                },
                "unexpected status from HEAD request to http://h/v2/a/manifests/b: \
                 500 Internal Server Error",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(super::super::testing::chain(&error), text);
        }
        assert_eq!(title(&Method::HEAD), "Head");
    }
}
