//! What can be done for the steps of a build while the images that they stand on are being pulled.
//!
//! The key of a copy waits for the layers that it goes onto. What it copies out of a context does not depend on them: its
//! files are hashed meanwhile. Nothing else is done with what is found, so that files which are edited before their turn
//! comes are seen as they are then.
//!
//! A layer that commands stand on is needed twice: its index to look things up in, its files to run on. One that was never
//! here is unpacked when its index is wanted, so that it is inflated once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use cache::digest::DiffId;
use frontend::graph::{FileAction, InputIndex, Op, VertexId};
use tokio::task::JoinHandle;

use super::copy::context_source::ReadAhead;
use super::copy::select::{Sources, select};
use super::copy::source::SourceTree;
use super::error::StepError;
use super::file_key::input_of;
use super::steps::Steps;
use crate::cancel::CancelFlag;
use crate::lock::locked;

/// Whose turn it is with the files of a copy: they are not hashed by two at once.
#[derive(Default)]
pub(super) struct Ahead {
    turns: Mutex<BTreeMap<VertexId, Arc<Turn>>>,
}

/// A turn with the files of one copy.
#[derive(Default)]
pub(super) struct Turn {
    has_begun: Mutex<bool>,
}

impl Turn {
    /// Waits until nobody hashes ahead, and keeps anybody from it who has not begun.
    pub(super) fn take(&self) -> MutexGuard<'_, bool> {
        let mut has_begun = locked(&self.has_begun);
        *has_begun = true;
        has_begun
    }

    /// As [`Self::take`], if nobody was here before.
    fn take_first(&self) -> Option<MutexGuard<'_, bool>> {
        let mut has_begun = self.has_begun.try_lock().ok()?;
        let is_first = !std::mem::replace(&mut *has_begun, true);
        is_first.then_some(has_begun)
    }
}

impl Ahead {
    /// The turn with the files of a vertex.
    pub(super) fn turn(&self, vertex: VertexId) -> Arc<Turn> {
        Arc::clone(locked(&self.turns).entry(vertex).or_default())
    }
}

/// What goes on beside the solver.
#[must_use = "it goes on until it is ended"]
pub(crate) struct LookAhead {
    stop: CancelFlag,
    task: Option<JoinHandle<()>>,
}

impl LookAhead {
    /// Ends it, done or not: nobody needs it any more.
    pub(crate) async fn end(self) {
        self.stop.set();
        if let Some(task) = self.task
            && let Err(error) = task.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Steps {
    /// Begins to look ahead, while the solver goes its way.
    pub(crate) fn look_ahead(self: &Arc<Self>) -> LookAhead {
        self.layers.expect_commands_on(self.layers_for_commands());
        let stop = CancelFlag::default();
        let copies = self.copies_that_wait();
        let task = (!copies.is_empty()).then(|| {
            let (steps, stop) = (Arc::clone(self), stop.clone());
            tokio::task::spawn_blocking(move || {
                for copy in copies {
                    // Whoever computes the key comes upon the same, and tells it.
                    if let Err(error) = steps.hash_ahead(copy, &stop) {
                        tracing::debug!(%error, "cannot hash ahead");
                    }
                }
            })
        });
        LookAhead { stop, task }
    }

    /// The layers of the images that commands stand on, and of those that they mount.
    fn layers_for_commands(&self) -> BTreeSet<DiffId> {
        let mut layers = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut below: Vec<VertexId> = Vec::new();
        for (_, vertex) in self.graph.vertices() {
            if matches!(vertex.op, Op::Exec(_)) {
                below.extend(&vertex.inputs);
            }
        }
        while let Some(id) = below.pop() {
            if !seen.insert(id) {
                continue;
            }
            let vertex = self.vertex(id);
            let input = |index: InputIndex| vertex.inputs.get(index.0).copied();
            match &vertex.op {
                Op::Image(op) => {
                    let image = self.images.get(&op.manifest);
                    layers.extend(image.into_iter().flat_map(|image| &image.diff_ids).cloned());
                }
                Op::File(op) => below.extend(op.base.and_then(input)),
                Op::Merge(op) => {
                    below.extend(op.base.into_iter().chain([op.upper]).filter_map(input));
                }
                // Those below a command are below it in their own right.
                Op::Exec(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => {}
            }
        }
        layers
    }

    /// The vertices of files with nothing but other files between them and an image that is not here.
    fn copies_that_wait(&self) -> Vec<VertexId> {
        let mut waiting = BTreeSet::new();
        let mut copies = Vec::new();
        let is_here = |layer: &DiffId| matches!(self.layers.store.layer(layer), Ok(Some(_)));
        for (id, vertex) in self.graph.vertices() {
            match &vertex.op {
                Op::Image(op) => {
                    let image = self.images.get(&op.manifest);
                    if image.is_some_and(|image| !image.diff_ids.iter().all(is_here)) {
                        waiting.insert(id);
                    }
                }
                Op::File(op) => {
                    let base = op.base.and_then(|index| vertex.inputs.get(index.0));
                    if base.is_some_and(|base| waiting.contains(base)) {
                        waiting.insert(id);
                        copies.push(id);
                    }
                }
                Op::Exec(_) | Op::Merge(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => {}
            }
        }
        copies
    }

    /// Hashes what a vertex copies out of contexts, unless its key is being computed.
    fn hash_ahead(&self, id: VertexId, stop: &CancelFlag) -> Result<(), StepError> {
        let vertex = self.vertex(id);
        let Op::File(op) = &vertex.op else {
            return Ok(());
        };
        let turn = self.ahead.turn(id);
        let Some(_turn) = turn.take_first() else {
            return Ok(());
        };
        let mut contexts: BTreeMap<InputIndex, ReadAhead> = BTreeMap::new();
        for index in op.actions.iter().filter_map(input_of) {
            if let Some(input) = vertex.inputs.get(index.0)
                && let Op::Local(local) = &self.vertex(*input).op
                && let Some(tree) = self.contexts.directory(&local.name)?
            {
                contexts.insert(index, ReadAhead::new(tree, stop.clone()));
            }
        }
        let is_from_context = |action: &&FileAction| {
            input_of(action).is_some_and(|index| contexts.contains_key(&index))
        };
        let actions: Vec<FileAction> = op.actions.iter().filter(is_from_context).cloned().collect();
        let sources: Sources<'_> = contexts
            .iter()
            .map(|(index, tree)| (*index, tree as &dyn SourceTree))
            .collect();
        select(&actions, &sources, self.settings.threads)?;
        Ok(())
    }
}
