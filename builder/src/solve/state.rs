//! The pure core of the solver: what to do next, given what has happened.
//!
//! No threads, no clock, no I/O: [`Solver::step`] takes an event and gives actions. The shell ([`super::scheduler`])
//! performs them and feeds their outcome back.
//!
//! # States of a vertex
//!
//! ```text
//! Idle ──inputs keyed──► Keying ──hit──────────────────────────► Done
//!                          │  ▲                                    ▲
//!                          │  └──needed inputs done── Blocked      │
//!                          ├──needs content of inputs──►┘          │
//!                          └──miss──► Missed ──wanted, inputs done──► Running ──ok──┘
//! ```
//!
//! Keys flow forward and never run anything; wants flow backward from the goal. A vertex that missed runs only when it is
//! wanted: because the goal missed, because somebody needs its content to compute a key, or because the cache must not be
//! used for it (then nobody below it has a key before it has run). So a hit further down makes everything above it
//! unnecessary, present or not.
//!
//! Once anything has to run, a vertex that missed is wanted as soon as one of its users is no hit for now, without waiting
//! until that user's other inputs are known: independent stages run at once.
//!
//! # Invariants
//!
//! (1) A vertex runs at most once. (2) It runs only after all its inputs are done. (3) After the first failure nothing
//! starts any more, and what is under way is cancelled exactly once. (4) The solve ends: whenever no work is under way it
//! is over, or an action has just been issued.

use std::collections::BTreeSet;

use frontend::graph::VertexId;

/// What the core must know of a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The vertices it reads.
    pub inputs: Vec<VertexId>,
    /// An input whose result, not only its key, the key of this vertex depends on unless it was a hit: the destination of
    /// a copy, which the copy looks into.
    pub looks_into: Option<VertexId>,
    /// Whether the cache must not be used for it.
    pub ignores_cache: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SolveEvent {
    /// The solve begins.
    Started,
    /// A vertex's key is known and the cache has its result.
    Hit(VertexId),
    /// A vertex's key is known and the cache has no result for it.
    Missed(VertexId),
    /// A vertex's key cannot be known before these inputs are done.
    Blocked(VertexId, Vec<VertexId>),
    /// A vertex ran, or its result appeared meanwhile.
    Finished(VertexId),
    /// Computing a vertex's key or running it failed, or was cancelled.
    Failed(VertexId),
    /// The user gave up.
    Interrupted,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Compute the vertex's key and look it up.
    ComputeKey(VertexId),
    /// Run the vertex.
    Run(VertexId),
    /// Cancel what is under way for the vertex; it answers with [`SolveEvent::Failed`].
    Cancel(VertexId),
    /// All is over; nothing is under way.
    End(Ending),
}

/// How a solve ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The goal is done.
    Succeeded,
    /// A vertex failed; this one was the first.
    Failed(VertexId),
    /// The user gave up.
    Interrupted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Keying,
    Blocked(Vec<VertexId>),
    Missed,
    Running,
    Done,
    Dropped,
}

/// The state of a solve.
#[derive(Debug)]
pub struct Solver {
    nodes: Vec<Node>,
    users: Vec<Vec<VertexId>>,
    phases: Vec<Phase>,
    wanted: Vec<bool>,
    /// Vertices that missed and that nobody wants yet.
    unwanted: BTreeSet<VertexId>,
    /// Whether something has to run, so that the goal cannot be had for nothing any more.
    must_run: bool,
    under_way: BTreeSet<VertexId>,
    goal: VertexId,
    ending: Option<Ending>,
    is_over: bool,
}

impl Solver {
    /// Takes the vertices in topological order and the one that is asked for. Every vertex must be reachable from it.
    pub fn new(nodes: Vec<Node>, goal: VertexId) -> Self {
        let mut users = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            for input in node.inputs.iter().collect::<BTreeSet<_>>() {
                users[input.0].push(VertexId(index));
            }
        }
        Self {
            phases: vec![Phase::Idle; nodes.len()],
            wanted: vec![false; nodes.len()],
            unwanted: BTreeSet::new(),
            must_run: false,
            under_way: BTreeSet::new(),
            ending: None,
            is_over: false,
            nodes,
            users,
            goal,
        }
    }

    /// Whether the vertex's result is known: it was a hit, or it ran.
    pub fn is_done(&self, vertex: VertexId) -> bool {
        self.phases[vertex.0] == Phase::Done
    }

    /// Vertices that neither hit nor ran, because nobody wanted them.
    pub fn unneeded(&self) -> impl Iterator<Item = VertexId> + '_ {
        let is_unneeded = |phase: &Phase| match phase {
            Phase::Idle | Phase::Keying | Phase::Blocked(_) | Phase::Missed => true,
            Phase::Running | Phase::Done | Phase::Dropped => false,
        };
        self.phases
            .iter()
            .enumerate()
            .filter(move |(_, p)| is_unneeded(p))
            .map(|(i, _)| VertexId(i))
    }

    /// Takes an event and gives what to do about it.
    pub fn step(&mut self, event: SolveEvent) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            SolveEvent::Started => {
                for index in 0..self.nodes.len() {
                    self.try_key(VertexId(index), &mut actions);
                }
            }
            SolveEvent::Hit(vertex) => self.done(vertex, &mut actions),
            SolveEvent::Finished(vertex) => self.done(vertex, &mut actions),
            SolveEvent::Missed(vertex) => self.missed(vertex, &mut actions),
            SolveEvent::Blocked(vertex, needs) => self.blocked(vertex, needs, &mut actions),
            SolveEvent::Failed(vertex) => self.failed(vertex, &mut actions),
            SolveEvent::Interrupted => self.give_up(Ending::Interrupted, &mut actions),
        }
        self.want_what_is_certain(&mut actions);
        self.end_if_over(&mut actions);
        actions
    }

    fn done(&mut self, vertex: VertexId, actions: &mut Vec<Action>) {
        self.under_way.remove(&vertex);
        if self.ending.is_some() {
            self.phases[vertex.0] = Phase::Dropped;
            return;
        }
        self.phases[vertex.0] = Phase::Done;
        if vertex == self.goal {
            self.give_up(Ending::Succeeded, actions);
            return;
        }
        self.advance_users(vertex, actions);
    }

    fn missed(&mut self, vertex: VertexId, actions: &mut Vec<Action>) {
        self.under_way.remove(&vertex);
        if self.ending.is_some() {
            self.phases[vertex.0] = Phase::Dropped;
            return;
        }
        self.phases[vertex.0] = Phase::Missed;
        if !self.wanted[vertex.0] {
            self.unwanted.insert(vertex);
        }
        if vertex == self.goal || self.nodes[vertex.0].ignores_cache {
            self.want(vertex, actions);
        } else if self.wanted[vertex.0] {
            self.pursue(vertex, actions);
        }
        self.advance_users(vertex, actions);
    }

    fn blocked(&mut self, vertex: VertexId, needs: Vec<VertexId>, actions: &mut Vec<Action>) {
        self.under_way.remove(&vertex);
        if self.ending.is_some() {
            self.phases[vertex.0] = Phase::Dropped;
            return;
        }
        self.phases[vertex.0] = Phase::Blocked(needs.clone());
        for need in needs {
            self.want(need, actions);
        }
        self.try_key(vertex, actions);
    }

    fn failed(&mut self, vertex: VertexId, actions: &mut Vec<Action>) {
        self.under_way.remove(&vertex);
        self.phases[vertex.0] = Phase::Dropped;
        self.give_up(Ending::Failed(vertex), actions);
    }

    /// Decides how the solve ends, unless that is decided, and cancels what is under way.
    fn give_up(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            actions.extend(self.under_way.iter().copied().map(Action::Cancel));
        }
    }

    fn end_if_over(&mut self, actions: &mut Vec<Action>) {
        if let (Some(ending), true, false) = (self.ending, self.under_way.is_empty(), self.is_over)
        {
            self.is_over = true;
            actions.push(Action::End(ending));
        }
    }

    /// Tells the users of a vertex that its key, and perhaps its result, is known.
    fn advance_users(&mut self, vertex: VertexId, actions: &mut Vec<Action>) {
        for user in self.users[vertex.0].clone() {
            self.try_key(user, actions);
            self.pursue(user, actions);
        }
    }

    /// Computes a vertex's key if everything it depends on is known.
    fn try_key(&mut self, vertex: VertexId, actions: &mut Vec<Action>) {
        let node = &self.nodes[vertex.0];
        let is_ready = match &self.phases[vertex.0] {
            Phase::Idle => node.inputs.iter().all(|input| self.is_keyed(*input)),
            Phase::Blocked(needs) => needs.iter().all(|need| self.is_done(*need)),
            Phase::Keying | Phase::Missed | Phase::Running | Phase::Done | Phase::Dropped => false,
        };
        if !is_ready || self.ending.is_some() {
            return;
        }
        match node.looks_into {
            Some(base) if !self.is_done(base) => {
                self.phases[vertex.0] = Phase::Blocked(vec![base]);
                self.want(base, actions);
            }
            _ => {
                self.phases[vertex.0] = Phase::Keying;
                self.under_way.insert(vertex);
                actions.push(Action::ComputeKey(vertex));
            }
        }
    }

    /// Whether a vertex has a key to pass on. One that ignores the cache has none before it has run: what it makes then
    /// must not be taken for what it made before.
    fn is_keyed(&self, vertex: VertexId) -> bool {
        match self.phases[vertex.0] {
            Phase::Missed | Phase::Running => !self.nodes[vertex.0].ignores_cache,
            Phase::Done => true,
            Phase::Idle | Phase::Keying | Phase::Blocked(_) | Phase::Dropped => false,
        }
    }

    /// Wants vertices that missed and whose users are no hits either, once something has to run anyway.
    fn want_what_is_certain(&mut self, actions: &mut Vec<Action>) {
        if !self.must_run || self.ending.is_some() {
            return;
        }
        let certain: Vec<VertexId> = self
            .unwanted
            .iter()
            .copied()
            .filter(|vertex| {
                self.users[vertex.0]
                    .iter()
                    .any(|user| self.is_no_hit(*user))
            })
            .collect();
        for vertex in certain {
            self.want(vertex, actions);
        }
    }

    /// Whether a vertex is known to have no result before something runs.
    fn is_no_hit(&self, vertex: VertexId) -> bool {
        match self.phases[vertex.0] {
            Phase::Idle | Phase::Blocked(_) | Phase::Missed | Phase::Running => true,
            Phase::Keying | Phase::Done | Phase::Dropped => false,
        }
    }

    /// Marks a vertex as wanted. Depth first over an explicit stack: a chain of steps may be thousands long.
    fn want(&mut self, vertex: VertexId, actions: &mut Vec<Action>) {
        let mut stack = vec![vertex];
        while let Some(vertex) = stack.pop() {
            self.must_run |= !self.is_done(vertex);
            self.unwanted.remove(&vertex);
            if !std::mem::replace(&mut self.wanted[vertex.0], true)
                && self.phases[vertex.0] == Phase::Missed
            {
                stack.extend(self.nodes[vertex.0].inputs.iter().rev());
                self.run_if_ready(vertex, actions);
            }
        }
    }

    /// Makes the inputs of a wanted vertex that missed wanted, and runs it once they are done.
    fn pursue(&mut self, vertex: VertexId, actions: &mut Vec<Action>) {
        if self.wanted[vertex.0] && self.phases[vertex.0] == Phase::Missed {
            for input in self.nodes[vertex.0].inputs.clone() {
                self.want(input, actions);
            }
            self.run_if_ready(vertex, actions);
        }
    }

    fn run_if_ready(&mut self, vertex: VertexId, actions: &mut Vec<Action>) {
        let has_inputs = self.nodes[vertex.0]
            .inputs
            .iter()
            .all(|input| self.is_done(*input));
        if has_inputs && self.phases[vertex.0] == Phase::Missed && self.ending.is_none() {
            self.phases[vertex.0] = Phase::Running;
            self.under_way.insert(vertex);
            actions.push(Action::Run(vertex));
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
