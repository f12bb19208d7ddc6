//! A request before it is known which host gets it.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::config::ConfigError;
use super::hosts::Endpoint;
use super::scopes::Scopes;
use super::transport::{Origin, Payload};

/// What a request is about.
#[derive(Clone, Debug)]
pub(crate) enum Resource<'a> {
    Manifest(&'a str),
    Blob(&'a str),
    Uploads,
    /// An address that the registry gave us.
    At(Url),
}

/// A request before it is known which host gets it.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) resource: Resource<'a>,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload<'a>,
    /// Whether it is part of a push, so that one token serves for all of it.
    pub(crate) is_push: bool,
    /// Besides the endpoint's own repository: repositories to read from.
    pub(crate) also_pull: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, resource: Resource<'a>) -> Self {
        Self {
            is_push: !matches!(method, Method::GET | Method::HEAD),
            method,
            resource,
            query: Vec::new(),
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            also_pull: None,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    pub(crate) fn is_by_digest(&self) -> bool {
        match &self.resource {
            Resource::Manifest(name) => name.contains(':'),
            Resource::Blob(_) | Resource::Uploads | Resource::At(_) => true,
        }
    }

    pub(crate) fn is_transfer(&self) -> bool {
        let is_blob = matches!(self.resource, Resource::Blob(_)) && self.method == Method::GET;
        is_blob || matches!(self.payload, Payload::Upload(_))
    }

    pub(crate) fn scopes(&self, endpoint: &Endpoint) -> Scopes {
        let scopes = match self.is_push {
            true => Scopes::push(&endpoint.repository),
            false => Scopes::pull(&endpoint.repository),
        };
        match self.also_pull {
            Some(repository) => scopes.with(repository, &["pull"]),
            None => scopes,
        }
    }

    pub(crate) fn url(&self, endpoint: &Endpoint, origin: &Origin) -> Result<Url, ConfigError> {
        let repository = &endpoint.repository;
        let mut url = match &self.resource {
            Resource::Manifest(name) => {
                origin.url(&format!("/v2/{repository}/manifests/{name}"))?
            }
            Resource::Blob(digest) => origin.url(&format!("/v2/{repository}/blobs/{digest}"))?,
            Resource::Uploads => origin.url(&format!("/v2/{repository}/blobs/uploads/"))?,
            Resource::At(url) => url.clone(),
        };
        let namespace = endpoint.mirror_of.iter().map(|name| ("ns", name));
        let query = self.query.iter().map(|(key, value)| (*key, value));
        for (key, value) in query.chain(namespace) {
            url.query_pairs_mut().append_pair(key, value);
        }
        Ok(url)
    }
}
