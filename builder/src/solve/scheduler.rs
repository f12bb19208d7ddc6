//! The thin shell around the solver's core: performs actions as tasks, feeds their outcomes back.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use frontend::graph::VertexId;
use futures_util::FutureExt as _;
use tokio::task::JoinSet;

use super::state::{Action, Ending, Node, SolveEvent, Solver};
use crate::cancel::CancelFlag;

/// A future of a performer.
pub type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What computing a key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAnswer {
    /// The cache has the result.
    Hit,
    /// It has not.
    Miss,
    /// The key depends on what these inputs contain; ask again when they are done.
    Blocked(Vec<VertexId>),
}

/// Does what the solver decides. Implementations keep results by vertex and emit the events that users see.
pub trait Performer: Send + Sync + 'static {
    /// Why something failed.
    type Error: Send + 'static;

    /// Computes the vertex's key and looks it up. With a hit the result is kept.
    fn key(
        self: Arc<Self>,
        vertex: VertexId,
        cancel: CancelFlag,
    ) -> Task<Result<KeyAnswer, Self::Error>>;

    /// Runs the vertex, or finds that somebody else just has. The result is kept.
    fn run(self: Arc<Self>, vertex: VertexId, cancel: CancelFlag) -> Task<Result<(), Self::Error>>;
}

/// How a solve failed.
#[derive(Debug)]
pub enum SolveFailure<E> {
    /// A vertex failed; all others were cancelled.
    Vertex(VertexId, E),
    /// The user gave up.
    Interrupted,
}

enum Outcome<E> {
    Key(Result<KeyAnswer, E>),
    Run(Result<(), E>),
}

/// Solves for `goal`; gives the vertices nobody needed. When it returns nothing is under way any more.
///
/// # Errors
///
/// The first failure, or that `interrupt` was set.
pub async fn solve<P: Performer>(
    nodes: Vec<Node>,
    goal: VertexId,
    performer: Arc<P>,
    interrupt: CancelFlag,
) -> Result<Vec<VertexId>, SolveFailure<P::Error>> {
    let mut solver = Solver::new(nodes, goal);
    let mut tasks = JoinSet::new();
    let mut flags: BTreeMap<VertexId, CancelFlag> = BTreeMap::new();
    let mut first_error = None;
    let mut actions = solver.step(SolveEvent::Started);
    let mut is_interrupted = false;
    let mut ready = VecDeque::new();
    loop {
        for action in std::mem::take(&mut actions) {
            match action {
                Action::ComputeKey(vertex) => {
                    let flag = flags.entry(vertex).or_default().clone();
                    let mut task = Arc::clone(&performer).key(vertex, flag);
                    // Most keys are there at once: another thread would only cost two wake-ups.
                    match task.as_mut().now_or_never() {
                        Some(answer) => ready.push_back((vertex, Outcome::Key(answer))),
                        None => {
                            tasks.spawn(async move { (vertex, Outcome::Key(task.await)) });
                        }
                    }
                }
                Action::Run(vertex) => {
                    let flag = flags.entry(vertex).or_default().clone();
                    let task = Arc::clone(&performer).run(vertex, flag);
                    tasks.spawn(async move { (vertex, Outcome::Run(task.await)) });
                }
                Action::Cancel(vertex) => flags.entry(vertex).or_default().set(),
                Action::End(ending) => return conclude(&solver, ending, first_error),
            }
        }
        if let Some((vertex, outcome)) = ready.pop_front() {
            actions = solver.step(event_of(vertex, outcome, &mut first_error));
            continue;
        }
        let event = tokio::select! {
            joined = tasks.join_next() => match joined {
                Some(Ok((vertex, outcome))) => event_of(vertex, outcome, &mut first_error),
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                // The core issues an action whenever nothing is under way (its fourth invariant).
                None => unreachable!("the solver waits for nothing"),
            },
            () = interrupt.wait(), if !is_interrupted => {
                is_interrupted = true;
                SolveEvent::Interrupted
            }
        };
        actions = solver.step(event);
    }
}

fn event_of<E>(vertex: VertexId, outcome: Outcome<E>, first_error: &mut Option<E>) -> SolveEvent {
    let error = match outcome {
        Outcome::Key(Ok(KeyAnswer::Hit)) => return SolveEvent::Hit(vertex),
        Outcome::Key(Ok(KeyAnswer::Miss)) => return SolveEvent::Missed(vertex),
        Outcome::Key(Ok(KeyAnswer::Blocked(needs))) => return SolveEvent::Blocked(vertex, needs),
        Outcome::Run(Ok(())) => return SolveEvent::Finished(vertex),
        Outcome::Key(Err(error)) | Outcome::Run(Err(error)) => error,
    };
    first_error.get_or_insert(error);
    SolveEvent::Failed(vertex)
}

fn conclude<E>(
    solver: &Solver,
    ending: Ending,
    first_error: Option<E>,
) -> Result<Vec<VertexId>, SolveFailure<E>> {
    match (ending, first_error) {
        (Ending::Succeeded, _) => Ok(solver.unneeded().collect()),
        (Ending::Failed(vertex), Some(error)) => Err(SolveFailure::Vertex(vertex, error)),
        // A failure always brings its error along.
        (Ending::Failed(_), None) | (Ending::Interrupted, _) => Err(SolveFailure::Interrupted),
    }
}
