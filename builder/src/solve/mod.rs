//! Evaluates a step graph for a goal.
//!
//! [`state`] is the pure core, a state machine without threads; [`scheduler`] performs its actions on tokio tasks and
//! feeds the outcomes back. What a key is made of and how an op runs is [`crate::op`]'s business, reached through
//! [`scheduler::Performer`].
//!
//! # Who blocks on what
//!
//! The loop of the scheduler is the only owner of the state and waits on nothing but events. A task that computes a key
//! may read files and the cache database. A task that runs a vertex first waits for the claim on its key (another
//! process may be at it), looks again, then for one of the `-j` slots, then runs. Cancelling is a flag that every task
//! watches; the loop ends only when every task has answered, so nothing is left running.

pub mod scheduler;
pub mod state;
