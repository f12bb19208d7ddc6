//! Pushing while steps still run.
//!
//! Followed are the vertices whose layers the result has: its own chain, not the stages it copies from. Nothing is sent
//! before one of them runs; until then everything may be in the registry already, and a look at the tag tells
//! ([`Pusher::finish`]). From then on, and once it is known that commands can be run, each layer is compressed and sent as
//! soon as it is known, on a few threads that yield to the steps.
//!
//! What goes wrong here is not told: [`Pusher::finish`] tries again when all else is done, and tells then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use cache::digest::DiffId;
use frontend::graph::{Graph, Op, VertexId};

use crate::export::activity::Activity;
use crate::export::registry::Pusher;
use crate::export::store::{ACTIVITY, Beginning};
use crate::lock::locked;
use crate::op::watch::{StepNews, Watcher};
use crate::progress::sink::EventSink;

/// Layers that are compressed or sent at once: as many as one registry gets at once.
const WORKERS: usize = crate::registry::client::MAX_TRANSFERS;
/// How much the threads yield (see `nice(2)`): a command that wants the processor gets three quarters of it.
const NICENESS: i32 = 5;

/// The early part of a build's pushes.
pub(super) struct EarlyPush {
    shared: Arc<Shared>,
}

struct Shared {
    /// By number of their outputs.
    pushers: BTreeMap<usize, Arc<Pusher>>,
    chain: BTreeSet<VertexId>,
    events: Arc<dyn EventSink>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Whether layers may be sent.
    is_released: bool,
    known: BTreeSet<DiffId>,
    waiting: VecDeque<DiffId>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// No step of the chain has run.
    #[default]
    Idle,
    /// Layers are sent as they become known.
    Sending,
    /// Nothing further is begun; something has been.
    Over,
    /// Nothing was begun, and nothing will be.
    Unused,
}

impl EarlyPush {
    /// For pushes of what `goal` gives, by number of their outputs. Sends nothing before [`Self::release`].
    pub(super) fn new(
        pushers: BTreeMap<usize, Arc<Pusher>>,
        graph: &Graph,
        goal: Option<VertexId>,
        events: Arc<dyn EventSink>,
    ) -> Self {
        let shared = Shared {
            pushers,
            chain: goal.map_or_else(BTreeSet::new, |goal| chain(graph, goal)),
            events,
            state: Mutex::default(),
            wake: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What has to be told how far the steps are; `None` if there is nothing to push.
    pub(super) fn watcher(&self) -> Option<Watcher> {
        if self.shared.pushers.is_empty() {
            return None;
        }
        let shared = Arc::clone(&self.shared);
        Some(Box::new(move |vertex, news| {
            if !shared.chain.contains(&vertex) {
                return;
            }
            match news {
                StepNews::Runs => shared.begin(),
                StepNews::Done(done) => shared.add(&done.layers),
            }
        }))
    }

    /// Lets layers be sent; until then they are only gathered.
    pub(super) fn release(&self) {
        self.shared.state().is_released = true;
        self.shared.wake.notify_all();
    }

    /// Begins nothing further; what is under way goes on, and `Pusher::finish` waits for it.
    pub(super) fn close(&self) {
        let mut state = self.shared.state();
        state.waiting.clear();
        state.phase = match state.phase {
            Phase::Idle | Phase::Unused => Phase::Unused,
            Phase::Sending | Phase::Over => Phase::Over,
        };
        self.shared.wake.notify_all();
    }

    /// Whether the vertex of an output was begun here.
    pub(super) fn beginning(&self, output: usize) -> Beginning {
        match self.shared.state().phase {
            Phase::Sending | Phase::Over if self.shared.pushers.contains_key(&output) => {
                Beginning::Early
            }
            Phase::Idle | Phase::Unused | Phase::Sending | Phase::Over => Beginning::Now,
        }
    }

    /// Waits until nothing is under way.
    pub(super) fn end(&self) {
        self.close();
        let workers = std::mem::take(&mut self.shared.state().workers);
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// Tells that the build has failed: vertices that were begun here and did not end are given up.
    pub(super) fn cancel(&self) {
        for output in self.shared.pushers.keys() {
            if self.beginning(*output) == Beginning::Early {
                Activity::of(&*self.shared.events, ACTIVITY, *output).cancel();
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Layers of the result are known.
    fn add(&self, layers: &[DiffId]) {
        let mut state = self.state();
        match state.phase {
            Phase::Idle | Phase::Sending => {}
            Phase::Over | Phase::Unused => return,
        }
        for layer in layers {
            if state.known.insert(layer.clone()) {
                state.waiting.push_back(layer.clone());
            }
        }
        self.wake.notify_all();
    }

    /// A step of the chain runs: there will be something to send.
    fn begin(self: &Arc<Self>) {
        let mut state = self.state();
        if state.phase != Phase::Idle {
            return;
        }
        state.phase = Phase::Sending;
        for output in self.pushers.keys() {
            Activity::begin(&*self.events, ACTIVITY, *output);
        }
        for number in 0..WORKERS {
            let shared = Arc::clone(self);
            let worker = std::thread::Builder::new()
                .name(format!("push {number}"))
                .spawn(move || shared.work());
            match worker {
                Ok(worker) => state.workers.push(worker),
                // Then it is pushed by fewer, or at the end.
                Err(error) => tracing::debug!(%error, "cannot start a thread to push early"),
            }
        }
    }

    fn work(&self) {
        // Of this thread, and of those that it starts to compress.
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "cannot lower the priority of early pushes");
        }
        while let Some(layer) = self.next() {
            for (output, pusher) in &self.pushers {
                let activity = Activity::of(&*self.events, ACTIVITY, *output);
                if let Err(error) = pusher.upload_layer(&layer, &activity) {
                    tracing::debug!(%layer, %error, "cannot push a layer early");
                    self.give_up();
                    return;
                }
            }
        }
    }

    fn next(&self) -> Option<DiffId> {
        let mut state = self.state();
        loop {
            if state.phase != Phase::Sending {
                return None;
            }
            if state.is_released
                && let Some(layer) = state.waiting.pop_front()
            {
                return Some(layer);
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_up(&self) {
        self.state().phase = Phase::Over;
        self.wake.notify_all();
    }
}

/// The vertices whose layers are among those of `goal`.
pub(super) fn chain(graph: &Graph, goal: VertexId) -> BTreeSet<VertexId> {
    let mut chain = BTreeSet::new();
    let mut open = vec![goal];
    while let Some(id) = open.pop() {
        if !chain.insert(id) {
            continue;
        }
        let vertex = graph.vertex(id);
        let below = match &vertex.op {
            Op::Exec(op) => [op.root, None],
            Op::File(op) => [op.base, None],
            Op::Merge(op) => [op.base, Some(op.upper)],
            Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => [None, None],
        };
        let inputs = below.into_iter().flatten();
        open.extend(inputs.filter_map(|index| vertex.inputs.get(index.0)));
    }
    chain
}
