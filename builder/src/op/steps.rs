//! The steps of one build: what they share and what is known of each.
//!
//! Not here: keys and running (`performer`), the cache (`results`), how far contexts are read (`transfer`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use cache::digest::{CacheKey, DiffId};
use cache::key::index::Keys;
use cache::layer::sink::{TarSink, nowhere};
use cache::log::BuildLog;
use cache::root::StatePaths;
use frontend::graph::{Graph, InputIndex, Op, Vertex, VertexId};
use frontend::platform::Platform;

use super::agent::Agents;
use super::ahead::Ahead;
use super::cause::Cause;
use super::copy::stack_source::{StackSource, TreeOf};
use super::early_blob::{EarlyBlob, Packer};
use super::error::StepError;
use super::fetch::Progress;
use super::layers::Layers;
use super::local::Contexts;
use super::probe::Probed;
use super::remote::Remotes;
use super::results::Pending;
use super::runner::Runner;
use super::threads::Threads;
use super::transfer::Transfer;
use super::watch::{StepNews, Watcher};
use crate::clock::Clock;
use crate::lock::locked;
use crate::progress::event::{Event, VertexRef};
use crate::progress::sink::EventSink;
use crate::sandbox::spec::Resources;
use crate::solve::state::Node;

/// Gives the values of secrets.
pub trait Secrets: Send + Sync {
    /// The value, `None` if no such secret was given.
    ///
    /// # Errors
    ///
    /// One that was given but cannot be read.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, StepError>;
}

/// What holds for every step of a build.
pub struct StepSettings {
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// Values of secrets.
    pub secrets: Box<dyn Secrets>,
    /// Sockets of ssh agents and the like.
    pub agents: Box<dyn Agents>,
    /// Threads for hashing and copying.
    pub threads: usize,
    /// The platform built for, for telling what changed.
    pub platform: String,
    /// Identifies the Dockerfile among those of the store, for telling what changed since the last build.
    pub dockerfile: String,
    /// `--strict`
    pub strictness: frontend::lower::Strictness,
    /// Names that ARG declares, for telling what changed.
    pub args: BTreeSet<String>,
    /// The platform of this machine, whose commands can run.
    pub machine: Platform,
    /// What each command may use; not part of keys.
    pub resources: Resources,
}

impl std::fmt::Debug for StepSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepSettings").finish_non_exhaustive()
    }
}

/// The result of a vertex.
#[derive(Clone, Debug)]
pub struct Done {
    /// The state key: what users of the result put in their keys.
    pub key: CacheKey,
    /// The whole stack, bottom first; empty for contexts.
    pub layers: Vec<DiffId>,
    /// When it was made, in milliseconds since the epoch; 0 for sources.
    pub created_ms: u64,
}

/// The layers of an image, as resolved.
#[derive(Clone, Debug)]
pub struct ImageLayers {
    /// The diff ids, bottom first.
    pub diff_ids: Vec<DiffId>,
}

/// The steps of one build. Shared by all tasks; results are kept by vertex.
pub struct Steps {
    pub(super) graph: Graph,
    pub(super) paths: StatePaths,
    pub(super) layers: Arc<Layers>,
    pub(super) keys: Arc<Keys>,
    pub(super) contexts: Contexts,
    pub(super) remotes: Remotes,
    pub(super) sandbox: Arc<Runner>,
    pub(super) log: BuildLog,
    pub(super) events: Arc<dyn EventSink>,
    pub(super) settings: StepSettings,
    clock: Clock,
    pub(super) images: BTreeMap<String, ImageLayers>,
    pub(super) threads: Threads,
    done: Mutex<BTreeMap<VertexId, Arc<Done>>>,
    pub(super) pending: Mutex<BTreeMap<VertexId, Pending>>,
    /// The keys of vertices that missed, also while they run.
    pub(super) keys_of_missed: Mutex<BTreeMap<VertexId, CacheKey>>,
    /// The keys of vertices that have not been looked up.
    pub(super) probed: Mutex<BTreeMap<VertexId, Probed>>,
    /// For each context how many steps have not yet listed what they need of it.
    pub(super) transfers: Mutex<BTreeMap<VertexId, Transfer>>,
    /// Of each copy whose files may be hashed ahead, whether that, or computing its key, has begun.
    pub(super) ahead: Ahead,
    watcher: OnceLock<Watcher>,
    packer: OnceLock<Arc<dyn Packer>>,
    /// Why vertices are not what they were.
    causes: Mutex<BTreeMap<VertexId, Cause>>,
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps").finish_non_exhaustive()
    }
}

/// What [`Steps`] is made of.
pub struct StepsParts {
    /// The graph.
    pub graph: Graph,
    /// Names of files of the store.
    pub paths: StatePaths,
    /// The layers of the store and those that can be fetched.
    pub layers: Layers,
    /// The cache database.
    pub keys: Keys,
    /// The local directories.
    pub contexts: Contexts,
    /// Files and repositories elsewhere.
    pub remotes: Remotes,
    /// What runs commands.
    pub sandbox: Arc<Runner>,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// What holds for every step.
    pub settings: StepSettings,
    /// The clock.
    pub clock: Clock,
    /// The images of the graph by manifest digest.
    pub images: BTreeMap<String, ImageLayers>,
    /// Threads for what is to be done.
    pub threads: Threads,
}

impl std::fmt::Debug for StepsParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepsParts").finish_non_exhaustive()
    }
}

impl Steps {
    /// Takes what it is made of.
    pub fn new(parts: StepsParts) -> Self {
        Self {
            log: BuildLog::new(&parts.paths),
            graph: parts.graph,
            paths: parts.paths,
            layers: Arc::new(parts.layers),
            keys: Arc::new(parts.keys),
            contexts: parts.contexts,
            remotes: parts.remotes,
            sandbox: parts.sandbox,
            events: parts.events,
            settings: parts.settings,
            clock: parts.clock,
            images: parts.images,
            threads: parts.threads,
            done: Mutex::default(),
            pending: Mutex::default(),
            keys_of_missed: Mutex::default(),
            probed: Mutex::default(),
            transfers: Mutex::default(),
            ahead: Ahead::default(),
            watcher: OnceLock::new(),
            packer: OnceLock::new(),
            causes: Mutex::default(),
        }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Tells `watcher` of every vertex from now on. The first watcher counts.
    pub fn watch(&self, watcher: Watcher) {
        self.watcher.get_or_init(|| watcher);
    }

    /// Lets `packer` say which layers are compressed while they are made. The first one counts.
    pub fn pack_early(&self, packer: Arc<dyn Packer>) {
        self.packer.get_or_init(|| packer);
    }

    /// Makes the layer of a vertex, and its blob in the same pass if that is wanted.
    pub(super) fn with_early_blob(
        &self,
        vertex: VertexId,
        make: impl FnOnce(&mut dyn TarSink) -> Result<DiffId, StepError>,
    ) -> Result<DiffId, StepError> {
        let packer = self.packer.get();
        let Some(mut blob) =
            packer.and_then(|packer| EarlyBlob::of(&self.layers, &**packer, vertex))
        else {
            return make(&mut nowhere());
        };
        let layer = make(&mut blob)?;
        blob.keep(&layer);
        Ok(layer)
    }

    /// The layers of the store.
    pub fn layers(&self) -> &Arc<Layers> {
        &self.layers
    }

    /// The cache database.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Names of files of the store.
    pub fn paths(&self) -> &StatePaths {
        &self.paths
    }

    /// What runs commands.
    pub fn sandbox(&self) -> &Runner {
        &self.sandbox
    }

    /// The local directories.
    pub fn contexts(&self) -> &Contexts {
        &self.contexts
    }

    /// Writes what waits to be written to the database, if anything that a later build would miss does.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn flush(&self) -> Result<(), StepError> {
        Ok(self.keys.flush(self.now_ms())?)
    }

    /// When a vertex's result was made, in milliseconds since the epoch, if that is known: the record of one that nobody
    /// needed may be gone.
    pub fn created_ms(&self, vertex: VertexId) -> Option<u64> {
        match self.result(vertex) {
            Some(done) => Some(done.created_ms),
            None => self.probed_created_ms(vertex),
        }
    }

    /// What the solver must know of each vertex.
    pub fn nodes(&self) -> Vec<Node> {
        self.graph
            .vertices()
            .map(|(_, vertex)| node(vertex))
            .collect()
    }

    /// The result of a vertex, if it is known.
    pub fn result(&self, vertex: VertexId) -> Option<Arc<Done>> {
        locked(&self.done).get(&vertex).cloned()
    }

    /// Tells the vertices that nobody needed as cached: they neither ran nor will.
    pub fn close(&self, unneeded: &[VertexId]) {
        let hits = unneeded.iter().map(|vertex| Event::CacheHit {
            vertex: self.reference(*vertex),
        });
        self.events.emit_all(hits.collect());
        for (id, _) in self.graph.vertices() {
            self.close_transfer(id);
        }
        self.layers.finish_pulls();
    }

    pub(super) fn vertex(&self, vertex: VertexId) -> &Vertex {
        self.graph.vertex(vertex)
    }

    pub(super) fn reference(&self, vertex: VertexId) -> VertexRef {
        reference_of(self.vertex(vertex))
    }

    pub(super) fn ignores_cache(&self, vertex: VertexId) -> bool {
        self.vertex(vertex).ignores_cache
    }

    pub(super) fn inputs_of(&self, vertex: VertexId) -> Result<Vec<Arc<Done>>, StepError> {
        let done = locked(&self.done);
        let inputs = self.vertex(vertex).inputs.iter();
        inputs
            .map(|input| done.get(input).cloned())
            .collect::<Option<_>>()
            .ok_or(StepError::Internal {
                what: "an input without a result",
            })
    }

    /// Where progress of fetching layers for a vertex is shown.
    pub(super) fn progress_of(&self, vertex: VertexId) -> Progress {
        Progress {
            events: Arc::clone(&self.events),
            vertex: self.reference(vertex),
        }
    }

    /// Now, in milliseconds since the epoch.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a context serves as the file system below other steps, or is the result (a named context in FROM), and not
    /// only as a place that files are taken from.
    pub(super) fn is_file_system(&self, id: VertexId) -> bool {
        let users = self.graph.users(id);
        let is_below = |user: &VertexId| {
            let user = self.vertex(*user);
            let below = match &user.op {
                Op::Exec(op) => op.root,
                Op::File(op) => op.base,
                Op::Merge(op) => op.base,
                Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => None,
            };
            below.and_then(|index| user.inputs.get(index.0)) == Some(&id)
        };
        users.is_empty() || users.iter().any(is_below)
    }

    /// The key of an input, if it is known: whether it waits, runs, is done or was never looked for.
    pub(super) fn key_of(&self, vertex: VertexId) -> Option<CacheKey> {
        if let Some(done) = self.result(vertex) {
            return Some(done.key);
        }
        let missed = locked(&self.keys_of_missed).get(&vertex).copied();
        missed.or_else(|| self.probed_key(vertex))
    }

    /// The state key of what a step works on; `None` is scratch. A file system whose key is not known is never taken for
    /// scratch: every step that does the same to another one would have the same key.
    pub(super) fn state_below(
        &self,
        inputs: &[VertexId],
        below: Option<InputIndex>,
    ) -> Result<Option<CacheKey>, StepError> {
        let Some(below) = below else {
            return Ok(None);
        };
        let key = inputs.get(below.0).and_then(|input| self.key_of(*input));
        key.map(Some).ok_or(StepError::Internal {
            what: "a key on a file system without one",
        })
    }

    /// A key remembered under another.
    pub(super) fn remembered_key(&self, key: &CacheKey) -> Result<Option<CacheKey>, StepError> {
        let memo = self.keys.memo(key)?;
        Ok(memo
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(CacheKey))
    }

    /// Remembers a key under another.
    pub(super) fn remember_key(&self, key: &CacheKey, value: &CacheKey) -> Result<(), StepError> {
        Ok(self.keys.remember(key, &value.0, self.now_ms())?)
    }

    /// The file system of a vertex: what it is copied from, or onto.
    pub(super) fn stack_source(
        &self,
        vertex: VertexId,
        layers: &[DiffId],
    ) -> Result<StackSource, StepError> {
        let stack = self.layers.stack(layers)?;
        let of = Arc::clone(&self.layers);
        let diff_ids = layers.to_vec();
        let tree_of: TreeOf = Arc::new(move |number| {
            let layer = diff_ids.get(number).ok_or(io::ErrorKind::NotFound)?;
            of.tree(layer).map_err(io::Error::other)
        });
        Ok(StackSource::new(
            self.vertex(vertex).name.clone(),
            stack,
            tree_of,
        ))
    }

    pub(super) fn finish(&self, vertex: VertexId, done: Done) {
        let done = Arc::new(done);
        locked(&self.done).insert(vertex, Arc::clone(&done));
        self.tell(vertex, StepNews::Done(&done));
    }

    pub(super) fn tell(&self, vertex: VertexId, news: StepNews<'_>) {
        if let Some(watcher) = self.watcher.get() {
            watcher(vertex, news);
        }
    }

    pub(super) fn keep_cause(&self, vertex: VertexId, cause: Cause) {
        locked(&self.causes).insert(vertex, cause);
    }

    pub(super) fn kept_cause(&self, vertex: VertexId) -> Option<Cause> {
        locked(&self.causes).get(&vertex).cloned()
    }
}

/// How events name a vertex.
pub fn reference_of(vertex: &Vertex) -> VertexRef {
    VertexRef(format!("sha256:{}", cache::digest::hex(&vertex.digest.0)).into())
}

fn node(vertex: &Vertex) -> Node {
    let looks_into = match &vertex.op {
        Op::File(op) => op
            .base
            .and_then(|index| vertex.inputs.get(index.0).copied()),
        Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) | Op::Exec(_) | Op::Merge(_) => None,
    };
    Node {
        inputs: vertex.inputs.clone(),
        looks_into,
        ignores_cache: vertex.ignores_cache,
    }
}
