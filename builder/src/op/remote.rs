//! What is fetched from elsewhere: files over HTTP, git repositories. Their results are layers on nothing.
//!
//! A source has no key by definition: what it is, is asked of its server (or known from a checksum), and the answer is
//! the key. Fetching happens at most once for an answer; what was fetched to learn the key is kept for the layer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cache::digest::{CacheKey, DiffId};
use cache::key::builder::Parts;
use cache::key::index::Keys;
use cache::root::StatePaths;
use frontend::graph::{GitOp, HttpOp, VertexId};
use tokio::runtime::Handle;

use super::error::StepError;
use super::fetch::Progress;
use super::git::{self, GitSettings};
use super::http::{self, Fetched};
use super::layers::Layers;
use super::steps::{Secrets, Steps};
use crate::cancel::CancelFlag;
use crate::lock::locked;
use crate::progress::event::Event;
use crate::registry::client::Client;
use crate::registry::error::RegistryError;

/// How other machines are reached.
#[derive(Clone, Debug)]
pub struct Reach {
    /// HTTP connections.
    pub client: Client,
    /// Where waiting for them runs.
    pub handle: Handle,
    /// How `git` runs.
    pub git: GitSettings,
}

/// The remote sources of a build.
#[derive(Debug)]
pub struct Remotes {
    reach: Reach,
    /// What was fetched to learn a key, until its layer is made.
    fetched: Mutex<BTreeMap<VertexId, Fetched>>,
}

/// What fetching works with.
pub(crate) struct Fetching<'a> {
    /// How other machines are reached.
    pub(crate) reach: &'a Reach,
    /// Where results go.
    pub(crate) layers: &'a Layers,
    /// Where answers are remembered.
    pub(crate) keys: &'a Keys,
    /// Names of files of the store.
    pub(crate) paths: &'a StatePaths,
    /// Where credentials are.
    pub(crate) secrets: &'a dyn Secrets,
    /// Where it is shown.
    pub(crate) progress: &'a Progress,
    /// Set when nobody wants it any more.
    pub(crate) cancel: &'a CancelFlag,
    /// Now, in milliseconds since the epoch.
    pub(crate) now_ms: u64,
}

/// A source whose identity is known.
pub(crate) struct Identified {
    /// Its key.
    pub(crate) key: CacheKey,
    /// The parts of the key.
    pub(crate) parts: Parts,
}

impl Fetching<'_> {
    /// Whether another machine may be asked about something.
    pub(crate) fn may_ask(&self, name: &str) -> Result<(), StepError> {
        match self.reach.client.is_offline() {
            true => Err(StepError::Registry(RegistryError::Offline {
                name: name.to_owned(),
            })),
            false => Ok(()),
        }
    }

    /// Waits for something, unless the build is given up.
    pub(crate) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, StepError>>,
    ) -> Result<T, StepError> {
        self.reach.handle.block_on(async {
            tokio::select! {
                outcome = work => outcome,
                () = self.cancel.wait() => Err(StepError::Canceled),
            }
        })
    }

    /// The layer that was made under a key before, else the one that is made now.
    pub(crate) fn layer_of(
        &self,
        key: &CacheKey,
        make: impl FnOnce() -> Result<DiffId, StepError>,
    ) -> Result<DiffId, StepError> {
        let known = self.keys.memo(key)?;
        let known = known.and_then(|memo| String::from_utf8(memo).ok()?.parse().ok().map(DiffId));
        if let Some(layer) = known
            && self.layers.has_all(std::slice::from_ref(&layer))?
        {
            return Ok(layer);
        }
        let layer = make()?;
        let text = layer.to_string();
        self.keys.remember(key, text.as_bytes(), self.now_ms)?;
        Ok(layer)
    }
}

impl Remotes {
    /// Takes how other machines are reached.
    pub fn new(reach: Reach) -> Self {
        Self {
            reach,
            fetched: Mutex::default(),
        }
    }

    fn keep(&self, id: VertexId, fetched: Fetched) {
        let mut all = locked(&self.fetched);
        all.insert(id, fetched);
    }

    fn take(&self, id: VertexId) -> Option<Fetched> {
        let mut all = locked(&self.fetched);
        all.remove(&id)
    }
}

fn with<T>(
    steps: &Steps,
    id: VertexId,
    cancel: &CancelFlag,
    work: impl FnOnce(&Fetching<'_>) -> Result<T, StepError>,
) -> Result<T, StepError> {
    work(&Fetching {
        reach: &steps.remotes.reach,
        layers: &steps.layers,
        keys: &steps.keys,
        paths: &steps.paths,
        secrets: &*steps.settings.secrets,
        progress: &steps.progress_of(id),
        cancel,
        now_ms: steps.now_ms(),
    })
}

fn start(steps: &Steps, id: VertexId) {
    let vertex = steps.reference(id);
    steps.events.emit(Event::Started { vertex });
}

/// The key of a file.
pub(super) fn http_key(
    steps: &Steps,
    id: VertexId,
    op: &HttpOp,
    cancel: &CancelFlag,
) -> Result<Identified, StepError> {
    start(steps, id);
    with(steps, id, cancel, |fetching| {
        let (identified, fetched) = http::identify(fetching, op)?;
        if let Some(fetched) = fetched {
            steps.remotes.keep(id, fetched);
        }
        Ok(identified)
    })
}

/// The layer of a file.
pub(super) fn http_run(
    steps: &Arc<Steps>,
    id: VertexId,
    op: &HttpOp,
    key: &CacheKey,
    cancel: &CancelFlag,
) -> Result<DiffId, StepError> {
    let fetched = steps.remotes.take(id);
    with(steps, id, cancel, |fetching| {
        http::layer(fetching, op, key, fetched)
    })
}

/// The key of a repository.
pub(super) fn git_key(
    steps: &Steps,
    id: VertexId,
    op: &GitOp,
    cancel: &CancelFlag,
) -> Result<Identified, StepError> {
    start(steps, id);
    with(steps, id, cancel, |fetching| git::identify(fetching, op))
}

/// The layer of a repository.
pub(super) fn git_run(
    steps: &Arc<Steps>,
    id: VertexId,
    op: &GitOp,
    cancel: &CancelFlag,
) -> Result<DiffId, StepError> {
    with(steps, id, cancel, |fetching| git::layer(fetching, op))
}
