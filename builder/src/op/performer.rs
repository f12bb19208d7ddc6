//! What the solver asks of the steps of a build: the key of each vertex, and running those that are not cached.

use std::sync::Arc;

use cache::digest::{CacheKey, DiffId};
use cache::key::builder::{KeyBuilder, Parts};
use frontend::graph::{ExecOp, Op, VertexId};

use super::error::StepError;
use super::file::Keyed;
use super::results::{Pending, Right};
use super::steps::{Done, Steps};
use super::threads::Kind;
use super::watch::StepNews;
use super::{exec, exec_key, file, mount_input, remote, stack_key};
use crate::cancel::CancelFlag;
use crate::lock::locked;
use crate::progress::event::Event;
use crate::solve::scheduler::{KeyAnswer, Performer, Task};

impl Steps {
    /// Computes the key of a vertex and looks it up; what is found, or must be made, is kept.
    pub(crate) fn compute_key(
        &self,
        id: VertexId,
        cancel: &CancelFlag,
    ) -> Result<KeyAnswer, StepError> {
        if self.is_known_at_once(id) {
            self.know(id)?;
            return Ok(KeyAnswer::Hit);
        }
        let keyed = match self.take_probed(id)? {
            Some(keyed) => keyed,
            None => self.keyed(id, cancel)?,
        };
        match keyed {
            Keyed::Blocked(needs) => Ok(KeyAnswer::Blocked(needs)),
            Keyed::Known { key, parts, plan } => self.answer(id, key, parts, plan),
        }
    }

    /// Whether a vertex is no more than its name: an image that was resolved, a context that steps take files from.
    pub(super) fn is_known_at_once(&self, id: VertexId) -> bool {
        match &self.vertex(id).op {
            Op::Image(_) => true,
            Op::Local(_) => !self.is_file_system(id),
            Op::Exec(_) | Op::File(_) | Op::Merge(_) | Op::Git(_) | Op::Http(_) => false,
        }
    }

    /// Keeps the result of a vertex that is known at once.
    pub(super) fn know(&self, id: VertexId) -> Result<(), StepError> {
        if self.result(id).is_some() {
            return Ok(());
        }
        if let Op::Image(op) = &self.vertex(id).op {
            return self.image(id, &op.manifest);
        }
        let done = Done {
            key: KeyBuilder::new("local").finish(),
            layers: Vec::new(),
            created_ms: 0,
        };
        self.finish(id, done);
        Ok(())
    }

    /// Computes the key of a vertex that is more than its name.
    pub(super) fn keyed(&self, id: VertexId, cancel: &CancelFlag) -> Result<Keyed, StepError> {
        match &self.vertex(id).op {
            Op::Image(_) => Err(StepError::Internal {
                what: "an image with a key to compute",
            }),
            Op::Local(_) => file::context_key(self, id),
            Op::Exec(op) => self.exec(id, op),
            Op::File(op) => file::key(self, id, op),
            Op::Merge(op) => {
                let inputs = &self.vertex(id).inputs;
                let base = self.state_below(inputs, op.base)?;
                let upper = self.state_below(inputs, Some(op.upper))?;
                let key = stack_key::merge_key(base.as_ref(), upper.as_ref());
                Ok(Keyed::new(key.finish(), key.into_parts()))
            }
            Op::Git(op) => {
                let remote::Identified { key, parts } = remote::git_key(self, id, op, cancel)?;
                Ok(Keyed::new(key, parts))
            }
            Op::Http(op) => {
                let remote::Identified { key, parts } = remote::http_key(self, id, op, cancel)?;
                Ok(Keyed::new(key, parts))
            }
        }
    }

    fn answer(
        &self,
        id: VertexId,
        key: CacheKey,
        mut parts: Parts,
        plan: Option<Arc<file::Planned>>,
    ) -> Result<KeyAnswer, StepError> {
        if !self.ignores_cache(id) && self.look_up(id, key)? {
            self.events.emit(Event::CacheHit {
                vertex: self.reference(id),
            });
            return Ok(KeyAnswer::Hit);
        }
        parts.0.extend(self.after(id));
        if let (Some(plan), false) = (&plan, self.ignores_cache(id))
            && let Some(done) = file::from_layer_key(self, id, key, plan)?
        {
            self.note_cause(id, &key, &parts)?;
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
        locked(&self.keys_of_missed).insert(id, key);
        locked(&self.pending).insert(id, Pending { key, parts, plan });
        Ok(KeyAnswer::Miss)
    }

    fn image(&self, id: VertexId, manifest: &str) -> Result<(), StepError> {
        let image = self.images.get(manifest).ok_or(StepError::Internal {
            what: "an image that was not resolved",
        })?;
        let done = Done {
            key: stack_key::image_key(&image.diff_ids),
            layers: image.diff_ids.clone(),
            created_ms: 0,
        };
        self.layers
            .announce(&image.diff_ids, &self.progress_of(id))?;
        self.explain_image(id)?;
        self.finish(id, done);
        Ok(())
    }

    fn exec(&self, id: VertexId, op: &ExecOp) -> Result<Keyed, StepError> {
        let inputs = &self.vertex(id).inputs;
        let mut mount_inputs = Vec::new();
        let mut needs = Vec::new();
        for mount in &op.mounts {
            let input = mount_input::mount_input(self, inputs, mount)
                .map_err(|e| exec::unstarted(op, e))?;
            match input {
                Ok(input) => mount_inputs.push(input),
                Err(need) => needs.push(need),
            }
        }
        if !needs.is_empty() {
            return Ok(Keyed::Blocked(needs));
        }
        let root = self.state_below(inputs, op.root)?;
        let (key, parts) = exec_key::exec_key(op, root.as_ref(), &mount_inputs);
        Ok(Keyed::new(key, parts))
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

/// Whether computing the key of an op may read files or ask servers, and so must not be done on a thread that others wait for.
pub(super) fn may_read_files(op: &Op) -> bool {
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
                let flag = cancel.clone();
                let work = move || steps.compute_key(id, &flag);
                self.threads.run(Kind::Key, &cancel, work).await
            } else {
                self.compute_key(id, &cancel)
            };
            answer.map_err(|error| self.told(id, error))
        })
    }

    fn run(self: Arc<Self>, id: VertexId, cancel: CancelFlag) -> Task<Result<(), StepError>> {
        Box::pin(async move {
            let (steps, flag) = (Arc::clone(&self), cancel.clone());
            // Who waits for another process's step must not keep one of our own from running.
            let work = move || steps.claim(id, &flag);
            let right = match self.threads.run(Kind::Claim, &cancel, work).await {
                Ok(Some(right)) => right,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.told(id, error)),
            };
            let kind = match &self.vertex(id).op {
                Op::Exec(_) => Kind::Command,
                Op::Image(_)
                | Op::Local(_)
                | Op::Git(_)
                | Op::Http(_)
                | Op::File(_)
                | Op::Merge(_) => Kind::Files,
            };
            let (steps, flag) = (Arc::clone(&self), cancel.clone());
            let work = move || steps.perform(id, &right, &flag);
            let outcome = self.threads.run(kind, &cancel, work).await;
            outcome.map_err(|error| self.told(id, error))
        })
    }
}
