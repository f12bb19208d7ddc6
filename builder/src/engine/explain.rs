//! What a build would do, without running anything: which steps are cached, which would run and why, what would be
//! pulled.
//!
//! Keys are computed as a build computes them. Registries are asked what names mean, as `--pull` says, and nothing is
//! fetched: where a key depends on content that only fetching or running would show, the answer is that it depends.

use std::collections::BTreeMap;
use std::sync::Arc;

use frontend::graph::{Op, VertexId};

use crate::cancel::CancelFlag;
use crate::cli::{PlanState, PlannedStep};
use crate::op::error::StepError;
use crate::op::steps::Steps;
use crate::outcome::Failure;
use crate::registry::error::RegistryError;
use crate::solve::scheduler::KeyAnswer;

/// What is known of a vertex without running anything.
enum Known {
    /// It is a source, or its result is there.
    Here,
    /// It would run.
    Misses,
    /// It would run, for a reason of its own, and its key is not known.
    Runs(String),
    /// Its key depends on others' results.
    Depends(String),
}

/// Plans for a goal: what is needed, inputs first.
pub(super) async fn plan(steps: &Arc<Steps>, goal: VertexId) -> Result<Vec<PlannedStep>, Failure> {
    let steps = Arc::clone(steps);
    let planned = tokio::task::spawn_blocking(move || plan_blocking(&steps, goal));
    match planned.await {
        Ok(planned) => planned,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn plan_blocking(steps: &Steps, goal: VertexId) -> Result<Vec<PlannedStep>, Failure> {
    let ids: Vec<VertexId> = steps.graph().vertices().map(|(id, _)| id).collect();
    let mut known: BTreeMap<VertexId, Known> = BTreeMap::new();
    for id in &ids {
        let state = look_at(steps, *id, &known)
            .map_err(|error| super::failure::of_step(steps.graph().vertex(*id), &error))?;
        known.insert(*id, state);
    }
    let mut needed = vec![false; ids.len()];
    let mut to_visit = vec![goal];
    while let Some(id) = to_visit.pop() {
        if std::mem::replace(&mut needed[id.0], true) {
            continue;
        }
        match known.get(&id) {
            Some(Known::Here) | None => {}
            Some(Known::Misses | Known::Runs(_) | Known::Depends(_)) => {
                to_visit.extend(&steps.graph().vertex(id).inputs);
            }
        }
    }
    let told = ids
        .into_iter()
        .filter_map(|id| told(steps, id, &known, needed[id.0]));
    Ok(told.collect())
}

fn look_at(
    steps: &Steps,
    id: VertexId,
    known: &BTreeMap<VertexId, Known>,
) -> Result<Known, StepError> {
    let vertex = steps.graph().vertex(id);
    let name_of = |input: &VertexId| steps.graph().vertex(*input).name.clone();
    let is_open =
        |input: &&VertexId| matches!(known.get(input), Some(Known::Depends(_) | Known::Runs(_)));
    let depends = |why: String| -> Result<Known, StepError> {
        Ok(match steps.preview(id)? {
            Some(reason) => Known::Runs(reason),
            None => Known::Depends(why),
        })
    };
    if let Some(input) = vertex.inputs.iter().find(is_open) {
        return depends(format!("depends on what {} makes", name_of(input)));
    }
    // A copy looks into what it is copied onto.
    let looks_into = match &vertex.op {
        Op::File(op) => op.base.and_then(|index| vertex.inputs.get(index.0)),
        Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) | Op::Exec(_) | Op::Merge(_) => None,
    };
    if let Some(base) = looks_into.filter(|base| matches!(known.get(base), Some(Known::Misses))) {
        return depends(format!("is copied onto what {} makes", name_of(base)));
    }
    match steps.compute_key(id, &CancelFlag::default()) {
        Ok(KeyAnswer::Hit) => Ok(Known::Here),
        Ok(KeyAnswer::Miss) => Ok(Known::Misses),
        Ok(KeyAnswer::Blocked(needs)) => {
            let names: Vec<String> = needs.iter().map(name_of).collect();
            Ok(Known::Depends(format!(
                "depends on what {} makes",
                names.join(", ")
            )))
        }
        Err(StepError::Registry(RegistryError::Offline { name })) => {
            Ok(Known::Depends(format!("depends on {name}")))
        }
        Err(error) => Err(error),
    }
}

fn told(
    steps: &Steps,
    id: VertexId,
    known: &BTreeMap<VertexId, Known>,
    is_needed: bool,
) -> Option<PlannedStep> {
    let vertex = steps.graph().vertex(id);
    let reason = steps.reason(id);
    let (state, reason) = match (&vertex.op, known.get(&id)?) {
        (Op::Local(_), Known::Here) => return None,
        (Op::Image(_), Known::Here) => {
            let layers = steps.result(id).map(|done| done.layers.clone());
            let missing = steps.layers().absent(&layers.unwrap_or_default());
            let state = match missing {
                (0, _) => PlanState::Present,
                (layers, bytes) if is_needed => PlanState::Pulled { layers, bytes },
                (_, _) => PlanState::Unneeded,
            };
            (state, reason)
        }
        (_, Known::Here) => (PlanState::Cached, None),
        (_, Known::Misses | Known::Runs(_) | Known::Depends(_)) if !is_needed => {
            (PlanState::Unneeded, None)
        }
        (_, Known::Misses) => (PlanState::Runs, reason),
        (_, Known::Runs(why)) => (PlanState::Runs, Some(why.clone())),
        (_, Known::Depends(why)) => (PlanState::Depends, Some(why.clone())),
    };
    Some(PlannedStep {
        name: vertex.name.clone(),
        state,
        reason,
    })
}
