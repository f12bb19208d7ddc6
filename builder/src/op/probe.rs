//! The short way to a result that is there: the keys of all vertices, and a look for the goal alone.
//!
//! The keys of steps follow from one another and need no results, but for what copies and mounts contain, which is
//! remembered. So a build in which nothing changed looks up one record instead of one for each vertex. It is tried where
//! this very graph has been built before: where it has not, a step is likely to miss, and should run while the files for
//! others are still being read.
//!
//! What was found out on the way is not found out again: if the goal is not there, the solver takes the keys from here
//! as it comes to their vertices, provided that the keys they were made of still are the same.

use std::collections::BTreeMap;

use cache::digest::CacheKey;
use cache::key::builder::KeyBuilder;
use frontend::graph::{Op, VertexId};

use super::error::StepError;
use super::file::Keyed;
use super::performer::may_read_files;
use super::steps::{Done, Steps};
use crate::cancel::CancelFlag;
use crate::lock::locked;
use crate::progress::event::Event;

/// A key that was computed and not looked up.
pub(super) struct Probed {
    /// What was found out, if files had to be read for it; taken by the solver.
    keyed: Option<Keyed>,
    /// The keys of the inputs then.
    inputs: Vec<Option<CacheKey>>,
    /// Under which the result is recorded.
    record: CacheKey,
    /// What users of the vertex put in their keys.
    state: CacheKey,
}

impl Steps {
    /// Looks for the result of `goal` without looking for any other; gives the vertices that nobody needed, or `None` if
    /// it has to be solved for.
    ///
    /// # Errors
    ///
    /// Those of computing a key. The solver comes upon the same, and tells them with their vertex.
    pub(crate) fn probe(
        &self,
        goal: VertexId,
        interrupt: &CancelFlag,
    ) -> Result<Option<Vec<VertexId>>, StepError> {
        if !self.may_be_probed() || self.keys.memo(&self.built_memo(goal))?.is_none() {
            return Ok(None);
        }
        let outputs = self.keys.outputs()?;
        for (id, _) in self.graph.vertices() {
            if interrupt.is_set() || !self.probe_vertex(id, &outputs, interrupt)? {
                return Ok(None);
            }
        }
        if self.result(goal).is_none() && !self.find_probed(goal)? {
            return Ok(None);
        }
        let vertices = self.graph.vertices().map(|(id, _)| id);
        Ok(Some(
            vertices.filter(|id| self.result(*id).is_none()).collect(),
        ))
    }

    /// Remembers that the graph of `goal` has been built.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub(crate) fn note_built(&self, goal: VertexId) -> Result<(), StepError> {
        let memo = self.built_memo(goal);
        if self.keys.memo(&memo)?.is_none() {
            self.keys.remember(&memo, b"", self.now_ms())?;
        }
        Ok(())
    }

    fn built_memo(&self, goal: VertexId) -> CacheKey {
        let mut memo = KeyBuilder::new("graph that was built");
        memo.bytes("goal", &self.vertex(goal).digest.0);
        memo.finish()
    }

    /// Not where the cache is to be ignored, nor where servers have to be asked, which is done at once with other work.
    fn may_be_probed(&self) -> bool {
        self.graph.vertices().all(|(_, vertex)| {
            let asks_servers = matches!(vertex.op, Op::Git(_) | Op::Http(_));
            !vertex.ignores_cache && !asks_servers
        })
    }

    /// Computes the key of a vertex; whether that was possible without results.
    fn probe_vertex(
        &self,
        id: VertexId,
        outputs: &BTreeMap<CacheKey, CacheKey>,
        interrupt: &CancelFlag,
    ) -> Result<bool, StepError> {
        if self.is_known_at_once(id) {
            self.know(id)?;
            return Ok(true);
        }
        let keyed = self.keyed(id, interrupt)?;
        let Keyed::Known { key, .. } = &keyed else {
            return Ok(false);
        };
        let probed = Probed {
            record: *key,
            state: outputs.get(key).copied().unwrap_or(*key),
            inputs: self.keys_of_inputs(id),
            keyed: may_read_files(&self.vertex(id).op).then_some(keyed),
        };
        locked(&self.probed).insert(id, probed);
        Ok(true)
    }

    fn keys_of_inputs(&self, id: VertexId) -> Vec<Option<CacheKey>> {
        let inputs = self.vertex(id).inputs.iter();
        inputs.map(|input| self.key_of(*input)).collect()
    }

    /// Looks up a vertex whose key is known; a hit is its result.
    fn find_probed(&self, goal: VertexId) -> Result<bool, StepError> {
        let records: BTreeMap<VertexId, CacheKey> = {
            let probed = locked(&self.probed);
            let records = probed.iter().map(|(id, probed)| (*id, probed.record));
            records.collect()
        };
        let Some(key) = records.get(&goal) else {
            return Ok(false);
        };
        let Some(record) = self.keys.lookup_over(key, records.values().copied())? else {
            return Ok(false);
        };
        if !self.layers.has_all(&record.layers)? {
            return Ok(false);
        }
        let done = Done {
            key: record.output.unwrap_or(*key),
            layers: record.layers,
            created_ms: record.created_ms,
        };
        self.finish(goal, done);
        self.events.emit(Event::CacheHit {
            vertex: self.reference(goal),
        });
        Ok(true)
    }

    /// What users of a vertex put in their keys, if its key was computed here.
    pub(super) fn probed_key(&self, id: VertexId) -> Option<CacheKey> {
        locked(&self.probed).get(&id).map(|probed| probed.state)
    }

    /// When the result of a vertex was made that was not looked up, in milliseconds since the epoch, if its record tells.
    pub(super) fn probed_created_ms(&self, id: VertexId) -> Option<u64> {
        let key = locked(&self.probed).get(&id).map(|probed| probed.record)?;
        // What cannot be read is as good as not recorded.
        let record = self.keys.peek(&key).ok().flatten()?;
        Some(record.created_ms)
    }

    /// What was found out of a vertex here, if it still holds.
    pub(super) fn take_probed(&self, id: VertexId) -> Result<Option<Keyed>, StepError> {
        let Some(mut probed) = locked(&self.probed).remove(&id) else {
            return Ok(None);
        };
        let holds = probed.inputs == self.keys_of_inputs(id);
        Ok(probed.keyed.take().filter(|_| holds))
    }
}
