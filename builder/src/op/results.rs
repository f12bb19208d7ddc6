//! Results of steps: finding them in the cache, the right to make them, and keeping them.

use std::sync::Arc;

use cache::claim::{Claim, Wait};
use cache::digest::{CacheKey, DiffId};
use cache::key::builder::{KeyBuilder, Parts};
use cache::key::record::Record;
use frontend::graph::{Op, VertexId};

use super::error::StepError;
use super::file;
use super::steps::{Done, Steps};
use crate::cancel::CancelFlag;
use crate::lock::locked;
use crate::progress::event::Event;

/// What was found out about a vertex that must run.
pub(super) struct Pending {
    pub(super) key: CacheKey,
    pub(super) parts: Parts,
    pub(super) plan: Option<Arc<file::Planned>>,
}

/// The right to run a step.
pub(super) struct Right {
    pub(super) pending: Pending,
    /// Held until the result is stored; none for a step that ignores the cache.
    pub(super) claim: Option<Claim>,
}

impl Steps {
    /// Looks a key up; a hit is the vertex's result.
    pub(super) fn look_up(&self, vertex: VertexId, key: CacheKey) -> Result<bool, StepError> {
        let Some(record) = self.keys.lookup(&key)? else {
            return Ok(false);
        };
        let seen = self.seen_below(vertex, &record.layers);
        if !self
            .layers
            .has_all(record.layers.get(seen..).unwrap_or_default())?
        {
            self.keys.forget(&key)?;
            return Ok(false);
        }
        let done = Done {
            key: record.output.unwrap_or(key),
            layers: record.layers,
            created_ms: record.created_ms,
        };
        self.finish(vertex, done);
        Ok(true)
    }

    /// How many of these layers, from the bottom, are those of an input: they were looked for with it, and are pinned.
    fn seen_below(&self, vertex: VertexId, layers: &[DiffId]) -> usize {
        // A vertex can be known while an input is still to be made.
        let inputs = self.inputs_of(vertex).unwrap_or_default();
        let common = inputs.iter().map(|input| {
            let pairs = input.layers.iter().zip(layers);
            pairs.take_while(|(below, layer)| below == layer).count()
        });
        common.max().unwrap_or(0)
    }

    /// Keeps a result for later builds and for the users of the vertex.
    pub(super) fn store(
        &self,
        vertex: VertexId,
        pending: &Pending,
        layers: Vec<DiffId>,
        started_ms: u64,
    ) -> Result<(), StepError> {
        let created_ms = self.now_ms();
        let is_rerun = self.ignores_cache(vertex) && matches!(self.vertex(vertex).op, Op::Exec(_));
        let output = is_rerun.then(|| rerun_key(&pending.key, layers.last()));
        let record = Record {
            layers: layers.clone(),
            output,
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
                key: output.unwrap_or(pending.key),
                layers,
                created_ms,
            },
        );
        Ok(())
    }

    /// Keeps the result of a step whose layer was there already, on another base.
    pub(super) fn store_found(
        &self,
        id: VertexId,
        pending: &Pending,
        done: Done,
    ) -> Result<(), StepError> {
        let record = Record {
            layers: done.layers.clone(),
            output: None,
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

    /// Waits for the right to run a vertex, then looks again: somebody else may just have run it. `None` if so.
    pub(super) fn claim(
        &self,
        id: VertexId,
        cancel: &CancelFlag,
    ) -> Result<Option<Right>, StepError> {
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
}

/// What users of a result that was made with the cache ignored see: it may be another than before, so they must not find
/// what was built on the old one.
fn rerun_key(key: &CacheKey, layer: Option<&DiffId>) -> CacheKey {
    let mut rerun = KeyBuilder::new("rerun");
    rerun.key("key", key);
    if let Some(layer) = layer {
        rerun.text("layer", layer.0.as_str());
    }
    rerun.finish()
}
