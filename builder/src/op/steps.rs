//! The steps of one build: what the solver's decisions come to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use cache::claim::{Claim, Wait};
use cache::digest::{CacheKey, ChainId, DiffId};
use cache::key::builder::{KeyBuilder, Parts};
use cache::key::index::Keys;
use cache::key::record::Record;
use cache::log::BuildLog;
use cache::root::StatePaths;
use frontend::graph::{ExecOp, Graph, Op, Vertex, VertexId};
use tokio::sync::Semaphore;

use super::agent::Agents;
use super::cause::Cause;
use super::copy::stack_source::{StackSource, TreeOf};
use super::error::StepError;
use super::fetch::Progress;
use super::layers::Layers;
use super::local::Contexts;
use super::remote::{self, Remotes};
use super::runner::Runner;
use super::watch::{StepNews, Watcher};
use super::{exec, exec_key, file};
use crate::cancel::CancelFlag;
use crate::clock::Clock;
use crate::lock::locked;
use crate::progress::event::{Event, VertexRef};
use crate::progress::sink::EventSink;
use crate::sandbox::spec::Resources;
use crate::solve::scheduler::{KeyAnswer, Performer, Task};
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
    /// Time of directories that no source gives one, in seconds.
    pub created_mtime: i64,
    /// Threads for hashing and copying.
    pub threads: usize,
    /// The platform of RUN steps, for their keys.
    pub platform: String,
    /// Identifies the Dockerfile among those of the store, for telling what changed since the last build.
    pub dockerfile: String,
    /// `--strict`
    pub strictness: frontend::lower::Strictness,
    /// Names that ARG declares, for telling what changed.
    pub args: BTreeSet<String>,
    /// Whether commands of the platform can run on this machine.
    pub can_run: bool,
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

/// What was found out about a vertex that must run.
struct Pending {
    key: CacheKey,
    parts: Parts,
    plan: Option<Arc<file::Planned>>,
}

/// The right to run a step.
struct Right {
    pending: Pending,
    /// Held until the result is stored; none for a step that ignores the cache.
    claim: Option<Claim>,
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
    pub(super) sandbox: Runner,
    pub(super) log: BuildLog,
    pub(super) events: Arc<dyn EventSink>,
    pub(super) settings: StepSettings,
    clock: Clock,
    images: BTreeMap<String, ImageLayers>,
    slots: Semaphore,
    done: Mutex<BTreeMap<VertexId, Arc<Done>>>,
    pending: Mutex<BTreeMap<VertexId, Pending>>,
    /// For each context how many steps have not yet listed what they need of it.
    transfers: Mutex<BTreeMap<VertexId, Transfer>>,
    watcher: OnceLock<Watcher>,
    /// Why vertices are not what they were.
    causes: Mutex<BTreeMap<VertexId, Cause>>,
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps").finish_non_exhaustive()
    }
}

/// How far reading a context is.
#[derive(Default)]
struct Transfer {
    begun: usize,
    ended: usize,
    bytes: u64,
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
    pub sandbox: Runner,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// What holds for every step.
    pub settings: StepSettings,
    /// The clock.
    pub clock: Clock,
    /// The images of the graph by manifest digest.
    pub images: BTreeMap<String, ImageLayers>,
    /// How many commands may run at once.
    pub jobs: usize,
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
            slots: Semaphore::new(parts.jobs),
            done: Mutex::default(),
            pending: Mutex::default(),
            transfers: Mutex::default(),
            watcher: OnceLock::new(),
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
        if self.keys.has_pending_memos() {
            self.keys.flush(self.now_ms())?;
        }
        Ok(())
    }

    /// When a vertex's result was made, in milliseconds since the epoch.
    pub fn created_ms(&self, vertex: VertexId) -> u64 {
        self.result(vertex).map_or(0, |done| done.created_ms)
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
        for vertex in unneeded {
            self.events.emit(Event::CacheHit {
                vertex: self.reference(*vertex),
            });
        }
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
    fn is_file_system(&self, id: VertexId) -> bool {
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

    /// The key of an input, if it has one: contexts that files are only taken from have none.
    pub(super) fn key_of(&self, vertex: VertexId) -> Option<CacheKey> {
        if let Some(done) = self.result(vertex) {
            return Some(done.key);
        }
        locked(&self.pending)
            .get(&vertex)
            .map(|pending| pending.key)
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

    /// Begins listing what a step needs of a context.
    pub(super) fn begin_transfer(&self, context: VertexId) {
        let mut transfers = locked(&self.transfers);
        let transfer = transfers.entry(context).or_default();
        transfer.begun += 1;
        if transfer.begun == 1 {
            self.events.emit(Event::Started {
                vertex: self.reference(context),
            });
        }
    }

    /// Ends it: so many bytes were looked at.
    pub(super) fn end_transfer(&self, context: VertexId, bytes: u64) {
        let mut transfers = locked(&self.transfers);
        let transfer = transfers.entry(context).or_default();
        transfer.ended += 1;
        transfer.bytes += bytes;
        self.events.emit(Event::Status {
            vertex: self.reference(context),
            id: "transferring context:".to_owned(),
            current: transfer.bytes,
            total: 0,
            is_completed: transfer.ended == transfer.begun,
        });
    }

    fn close_transfer(&self, vertex: VertexId) {
        if locked(&self.transfers).remove(&vertex).is_some() {
            self.events.emit(Event::Completed {
                vertex: self.reference(vertex),
            });
        }
    }

    fn finish(&self, vertex: VertexId, done: Done) {
        let done = Arc::new(done);
        locked(&self.done).insert(vertex, Arc::clone(&done));
        self.tell(vertex, StepNews::Done(&done));
    }

    fn tell(&self, vertex: VertexId, news: StepNews<'_>) {
        if let Some(watcher) = self.watcher.get() {
            watcher(vertex, news);
        }
    }

    /// Looks a key up; a hit is the vertex's result.
    fn look_up(&self, vertex: VertexId, key: CacheKey) -> Result<bool, StepError> {
        let Some(record) = self.keys.lookup(&key)? else {
            return Ok(false);
        };
        if !self.layers.has_all(&record.layers)? {
            self.keys.forget(&key)?;
            return Ok(false);
        }
        let key = self.output_key(key)?;
        let done = Done {
            key,
            layers: record.layers,
            created_ms: record.created_ms,
        };
        self.finish(vertex, done);
        Ok(true)
    }

    /// The key that users of a result see: its own, unless it was made with the cache ignored.
    fn output_key(&self, key: CacheKey) -> Result<CacheKey, StepError> {
        let memo = self.keys.memo(&output_memo(&key))?;
        let bytes = memo.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        Ok(bytes.map_or(key, CacheKey))
    }

    /// Keeps a result for later builds and for the users of the vertex.
    fn store(
        &self,
        vertex: VertexId,
        pending: &Pending,
        layers: Vec<DiffId>,
        started_ms: u64,
    ) -> Result<(), StepError> {
        let created_ms = self.now_ms();
        let mut key = pending.key;
        if self.ignores_cache(vertex) && matches!(self.vertex(vertex).op, Op::Exec(_)) {
            // What ran again may have made something else: its users must not find what was built on the old result.
            let mut fresh = KeyBuilder::new("rerun");
            fresh.key("key", &key);
            if let Some(layer) = layers.last() {
                fresh.text("layer", layer.0.as_str());
            }
            key = fresh.finish();
            self.keys
                .remember(&output_memo(&pending.key), &key.0, created_ms)?;
        } else if self.output_key(key)? != key {
            self.keys.remember(&output_memo(&key), &key.0, created_ms)?;
        }
        let record = Record {
            layers: layers.clone(),
            step: self.step_identity(vertex),
            name: self.vertex(vertex).name.clone(),
            created_ms,
            cost_ms: created_ms.saturating_sub(started_ms),
            parts: pending.parts.clone(),
        };
        self.remember_step(vertex, &pending.key)?;
        self.keys.record(&pending.key, &record)?;
        self.finish(
            vertex,
            Done {
                key,
                layers,
                created_ms,
            },
        );
        Ok(())
    }

    /// The same step of the same Dockerfile, whatever its inputs.
    fn step_identity(&self, vertex: VertexId) -> String {
        let vertex = self.vertex(vertex);
        let stage = vertex
            .origin
            .as_ref()
            .and_then(|origin| origin.stage.as_deref());
        let number = vertex.name.split(']').next().unwrap_or_default();
        format!(
            "{}\n{}\n{number}",
            self.settings.dockerfile,
            stage.unwrap_or_default()
        )
    }

    pub(super) fn keep_cause(&self, vertex: VertexId, cause: Cause) {
        locked(&self.causes).insert(vertex, cause);
    }

    pub(super) fn kept_cause(&self, vertex: VertexId) -> Option<Cause> {
        locked(&self.causes).get(&vertex).cloned()
    }

    /// Computes the key of a vertex and looks it up; what is found, or must be made, is kept.
    pub(crate) fn compute_key(
        &self,
        id: VertexId,
        cancel: &CancelFlag,
    ) -> Result<KeyAnswer, StepError> {
        match &self.vertex(id).op {
            Op::Image(op) => self.image(id, &op.manifest),
            Op::Local(_) if self.is_file_system(id) => {
                let file::Keyed::Known { key, parts, plan } = file::context_key(self, id)? else {
                    return Err(StepError::Internal {
                        what: "a context that waits",
                    });
                };
                self.answer(id, key, parts, plan)
            }
            Op::Local(_) => {
                let key = KeyBuilder::new("local").finish();
                self.finish(
                    id,
                    Done {
                        key,
                        layers: Vec::new(),
                        created_ms: 0,
                    },
                );
                Ok(KeyAnswer::Hit)
            }
            Op::Exec(op) => self.exec(id, op),
            Op::File(op) => {
                let keyed = file::key(self, id, op)?;
                match keyed {
                    file::Keyed::Blocked(needs) => Ok(KeyAnswer::Blocked(needs)),
                    file::Keyed::Known { key, parts, plan } => self.answer(id, key, parts, plan),
                }
            }
            Op::Merge(op) => {
                let inputs = &self.vertex(id).inputs;
                let mut key = KeyBuilder::new("merge");
                for input in op.base.iter().chain([&op.upper]) {
                    match inputs.get(input.0).and_then(|input| self.key_of(*input)) {
                        Some(input) => key.key("input", &input),
                        None => key.absent("input"),
                    };
                }
                self.answer(id, key.finish(), key.into_parts(), None)
            }
            Op::Git(op) => {
                let remote::Identified { key, parts } = remote::git_key(self, id, op, cancel)?;
                self.answer(id, key, parts, None)
            }
            Op::Http(op) => {
                let remote::Identified { key, parts } = remote::http_key(self, id, op, cancel)?;
                self.answer(id, key, parts, None)
            }
        }
    }

    fn answer(
        &self,
        id: VertexId,
        key: CacheKey,
        parts: Parts,
        plan: Option<Arc<file::Planned>>,
    ) -> Result<KeyAnswer, StepError> {
        if !self.ignores_cache(id) && self.look_up(id, key)? {
            self.events.emit(Event::CacheHit {
                vertex: self.reference(id),
            });
            return Ok(KeyAnswer::Hit);
        }
        if let (Some(plan), false) = (&plan, self.ignores_cache(id))
            && let Some(done) = file::from_layer_key(self, id, key, plan)?
        {
            let pending = Pending {
                key,
                parts,
                plan: None,
            };
            self.store_found(id, &pending, done)?;
            self.events.emit(Event::CacheHit {
                vertex: self.reference(id),
            });
            return Ok(KeyAnswer::Hit);
        }
        self.explain_miss(id, &key, &parts)?;
        locked(&self.pending).insert(id, Pending { key, parts, plan });
        Ok(KeyAnswer::Miss)
    }

    /// Keeps the result of a step whose layer was there already, on another base.
    fn store_found(&self, id: VertexId, pending: &Pending, done: Done) -> Result<(), StepError> {
        let record = Record {
            layers: done.layers.clone(),
            step: self.step_identity(id),
            name: self.vertex(id).name.clone(),
            created_ms: done.created_ms,
            cost_ms: 0,
            parts: pending.parts.clone(),
        };
        self.remember_step(id, &pending.key)?;
        self.keys.record(&pending.key, &record)?;
        self.finish(id, done);
        Ok(())
    }

    fn image(&self, id: VertexId, manifest: &str) -> Result<KeyAnswer, StepError> {
        let image = self.images.get(manifest).ok_or(StepError::Internal {
            what: "an image that was not resolved",
        })?;
        let mut key = KeyBuilder::new("image");
        match ChainId::of(&image.diff_ids) {
            Some(chain) => key.text("chain", chain.0.as_str()),
            None => key.absent("chain"),
        };
        let done = Done {
            key: key.finish(),
            layers: image.diff_ids.clone(),
            created_ms: 0,
        };
        self.layers
            .announce(&image.diff_ids, &self.progress_of(id))?;
        self.explain_image(id)?;
        self.finish(id, done);
        Ok(KeyAnswer::Hit)
    }

    fn exec(&self, id: VertexId, op: &ExecOp) -> Result<KeyAnswer, StepError> {
        let inputs = &self.vertex(id).inputs;
        let mut mount_inputs = Vec::new();
        let mut needs = Vec::new();
        for mount in &op.mounts {
            let input =
                file::mount_input(self, inputs, mount).map_err(|e| exec::unstarted(op, e))?;
            match input {
                Ok(input) => mount_inputs.push(input),
                Err(need) => needs.push(need),
            }
        }
        if !needs.is_empty() {
            return Ok(KeyAnswer::Blocked(needs));
        }
        let root = op.root.and_then(|index| inputs.get(index.0));
        let root = root.and_then(|root| self.key_of(*root));
        let platform = &self.settings.platform;
        let (key, parts) = exec_key::exec_key(op, root.as_ref(), platform, &mount_inputs);
        self.answer(id, key, parts, None)
    }

    /// Waits for the right to run a vertex, then looks again: somebody else may just have run it. `None` if so.
    fn claim(&self, id: VertexId, cancel: &CancelFlag) -> Result<Option<Right>, StepError> {
        let pending = locked(&self.pending).remove(&id);
        let pending = pending.ok_or(StepError::Internal {
            what: "a step without a key",
        })?;
        if self.ignores_cache(id) {
            return Ok(Some(Right {
                pending,
                claim: None,
            }));
        }
        let wait = Wait::UntilCanceled(cancel.as_atomic());
        let claim = Claim::acquire(&self.paths, &pending.key, wait)?.ok_or(StepError::Canceled)?;
        if self.look_up(id, pending.key)? {
            self.events.emit(Event::CacheHit {
                vertex: self.reference(id),
            });
            return Ok(None);
        }
        Ok(Some(Right {
            pending,
            claim: Some(claim),
        }))
    }

    /// Runs a vertex.
    fn perform(
        self: &Arc<Self>,
        id: VertexId,
        right: &Right,
        cancel: &CancelFlag,
    ) -> Result<(), StepError> {
        if cancel.is_set() {
            return Err(StepError::Canceled);
        }
        let reference = self.reference(id);
        self.events.emit(Event::Started {
            vertex: reference.clone(),
        });
        self.tell(id, StepNews::Runs);
        let started_ms = self.now_ms();
        let inputs = self.inputs_of(id)?;
        let layers = match &self.vertex(id).op {
            Op::Exec(op) => {
                let layer = exec::run(self, id, op, right.claim.as_ref(), cancel)?;
                stacked(op.root.and_then(|index| inputs.get(index.0)), [layer])
            }
            Op::File(op) => {
                let layer = file::run(self, id, op, right.pending.plan.as_deref())?;
                stacked(op.base.and_then(|index| inputs.get(index.0)), [layer])
            }
            Op::Merge(op) => {
                let upper = inputs.get(op.upper.0).ok_or(StepError::Internal {
                    what: "a merge without layers",
                })?;
                let base = op.base.and_then(|index| inputs.get(index.0));
                stacked(base, upper.layers.iter().cloned())
            }
            Op::Local(_) => vec![file::run_context(self, id, right.pending.plan.as_deref())?],
            Op::Git(op) => vec![remote::git_run(self, id, op, cancel)?],
            Op::Http(op) => {
                let key = &right.pending.key;
                vec![remote::http_run(self, id, op, key, cancel)?]
            }
            Op::Image(_) => {
                return Err(StepError::Internal {
                    what: "a source that was to run",
                });
            }
        };
        self.store(id, &right.pending, layers, started_ms)?;
        self.events.emit(Event::Completed { vertex: reference });
        Ok(())
    }

    /// Tells a failure, or that the vertex was given up, and passes it on.
    fn told(&self, id: VertexId, error: StepError) -> StepError {
        let vertex = self.reference(id);
        let event = match &error {
            StepError::Canceled => Event::Canceled { vertex },
            other => Event::Failed {
                vertex,
                message: crate::text::chain(other),
            },
        };
        self.events.emit(event);
        error
    }
}

fn stacked(base: Option<&Arc<Done>>, layers: impl IntoIterator<Item = DiffId>) -> Vec<DiffId> {
    let mut stack = base.map(|base| base.layers.clone()).unwrap_or_default();
    stack.extend(layers);
    stack
}

fn output_memo(key: &CacheKey) -> CacheKey {
    let mut memo = KeyBuilder::new("output of a rerun");
    memo.key("key", key);
    memo.finish()
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

/// Whether computing the key of an op may read files or ask servers, and so must not be done on a thread that others wait for.
fn may_read_files(op: &Op) -> bool {
    match op {
        Op::File(_) | Op::Git(_) | Op::Http(_) => true,
        Op::Exec(exec) => !exec.mounts.is_empty(),
        Op::Image(_) | Op::Local(_) | Op::Merge(_) => false,
    }
}

impl Performer for Steps {
    type Error = StepError;

    fn key(
        self: Arc<Self>,
        id: VertexId,
        cancel: CancelFlag,
    ) -> Task<Result<KeyAnswer, StepError>> {
        Box::pin(async move {
            if cancel.is_set() {
                return Err(self.told(id, StepError::Canceled));
            }
            let answer = if may_read_files(&self.vertex(id).op) {
                let steps = Arc::clone(&self);
                let cancel = cancel.clone();
                blocking(move || steps.compute_key(id, &cancel)).await
            } else {
                self.compute_key(id, &cancel)
            };
            answer.map_err(|error| self.told(id, error))
        })
    }

    fn run(self: Arc<Self>, id: VertexId, cancel: CancelFlag) -> Task<Result<(), StepError>> {
        Box::pin(async move {
            let steps = Arc::clone(&self);
            let flag = cancel.clone();
            // Who waits for another process's step must not keep one of our own from running.
            let right = blocking(move || steps.claim(id, &flag)).await;
            let right = match right {
                Ok(Some(right)) => right,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.told(id, error)),
            };
            let slot = match &self.vertex(id).op {
                Op::Exec(_) => tokio::select! {
                    slot = self.slots.acquire() => slot.ok(),
                    () = cancel.wait() => return Err(self.told(id, StepError::Canceled)),
                },
                Op::Image(_)
                | Op::Local(_)
                | Op::Git(_)
                | Op::Http(_)
                | Op::File(_)
                | Op::Merge(_) => None,
            };
            let steps = Arc::clone(&self);
            let outcome = blocking(move || steps.perform(id, &right, &cancel)).await;
            drop(slot);
            outcome.map_err(|error| self.told(id, error))
        })
    }
}

/// Does work that may block on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StepError::Canceled),
        },
    }
}
