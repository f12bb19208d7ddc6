//! Images and layers from registries and OCI layouts, and back to registries.
//!
//! ```text
//! config (plain data) ─► hosts (which host answers for a name) ─► client ─► resolve · pull · push
//!                        credentials ─► auth (challenges, tokens) ──┘
//!                        transport (connections, TLS, proxies, redirects) ──┘
//! ```
//!
//! `download` fetches ordinary files with the same connections.
//!
//! Knows bytes, digests and documents; the store behind [`cache::blob::BlobStore`] owns the files.
//!
//! # Trust
//!
//! A credential goes to the registry that it was configured for and, over TLS, to the token service that this registry
//! names; a token service without TLS must be configured as insecure or, for a registry on the loopback interface, be there
//! too. No credential follows a redirect to another host, and a layer's own `urls` are fetched without any. Everything
//! that has a digest is verified before it enters the store.
//!
//! # Failure
//!
//! Requests are repeated with growing pauses when that can help ([`retry`]); broken downloads go on where they broke.
//! Nothing waits for ever: a connection without data is given up after [`transport::Timeouts`].

pub mod auth;
mod call;
mod challenge;
pub mod client;
pub mod config;
pub mod credentials;
pub mod document;
pub(crate) mod download;
pub mod error;
mod helper;
pub mod hosts;
pub mod layout;
mod proxy;
pub mod pull;
pub mod push;
mod refusal;
mod registries_conf;
pub(crate) mod reply;
pub mod resolve;
pub mod retry;
mod scopes;
mod tls;
pub mod transport;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
