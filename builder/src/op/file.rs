//! COPY, ADD, WORKDIR and inline files: keys before anything is written, then the layer.
//!
//! The key of a copy is looked for in three places, the cheapest first: by definition, where every source is a stage whose
//! state is known; by what is copied, found by listing and digesting the sources; by the plan, which needs the
//! destination's file system listed too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cache::digest::{CacheKey, DiffId, Digest};
use cache::key::builder::{KeyBuilder, Part, Parts};
use frontend::graph::{CopyAction, FileAction, FileOp, InputIndex, Op, VertexId};
use frontend::lower::Strictness;

use super::copy::apply::apply_packed;
use super::copy::place::{Ground, plan_on as place_on};
use super::copy::plan::CopyPlan;
use super::copy::select::{Sources, select};
use super::copy::selection::Selection;
use super::copy::source::{Destination, SourceTree};
use super::copy::strict;
use super::error::StepError;
use super::file_key::{add_actions, content_key, definition_key, input_of};
use super::mount_input::whole;
use super::steps::{Done, Steps};
use crate::lock::locked;

/// The trees that the inputs of an op are, held.
pub(super) type Trees = BTreeMap<InputIndex, Arc<dyn SourceTree>>;

/// A layer of files whose key is known, and the plan for it if one had to be made.
pub(super) struct Planned {
    layer_key: CacheKey,
    /// Until it is run.
    plan: Mutex<Option<(CopyPlan, Trees)>>,
}

/// What computing a key came to.
pub(super) enum Keyed {
    /// These inputs must be done first.
    Blocked(Vec<VertexId>),
    /// The key is known.
    Known {
        /// The state key.
        key: CacheKey,
        /// Its parts.
        parts: Parts,
        /// What was found out on the way.
        plan: Option<Arc<Planned>>,
    },
}

impl Keyed {
    /// A key with its parts.
    pub(super) fn new(key: CacheKey, parts: Parts) -> Self {
        Self::Known {
            key,
            parts,
            plan: None,
        }
    }
}

/// Computes the key of a file op.
pub(super) fn key(steps: &Steps, id: VertexId, op: &FileOp) -> Result<Keyed, StepError> {
    let turn = steps.ahead.turn(id);
    let _turn = turn.take();
    key_of_inputs(steps, &steps.vertex(id).inputs, op)
}

fn key_of_inputs(steps: &Steps, inputs: &[VertexId], op: &FileOp) -> Result<Keyed, StepError> {
    if let Err(needs) = check_strictly(steps, inputs, op)? {
        return Ok(Keyed::Blocked(needs));
    }
    let base = steps.state_below(inputs, op.base)?;
    let definition = definition_key(steps, op, inputs, base.as_ref());
    if let Some(definition) = &definition
        && let Some(layer_key) = steps.remembered_key(definition)?
    {
        let plan = Planned {
            layer_key,
            plan: Mutex::default(),
        };
        return Ok(known(op, base.as_ref(), plan, &[]));
    }
    let mut trees = match trees_of(steps, inputs, op)? {
        Ok(trees) => trees,
        Err(needs) => return Ok(Keyed::Blocked(needs)),
    };
    let selection = select_all(steps, inputs, op, &trees)?;
    let by_content = content_key(&selection, base.as_ref());
    if let Some(layer_key) = steps.remembered_key(&by_content)? {
        if let Some(definition) = definition {
            steps.remember_key(&definition, &layer_key)?;
        }
        let plan = Planned {
            layer_key,
            plan: Mutex::default(),
        };
        return Ok(known(op, base.as_ref(), plan, &selection.files()));
    }
    let files = selection.files();
    let plan = place_all(steps, op, inputs, selection, &mut trees)?;
    let layer_key = plan.key();
    steps.remember_key(&by_content, &layer_key)?;
    if let Some(definition) = definition {
        steps.remember_key(&definition, &layer_key)?;
    }
    let plan = Planned {
        layer_key,
        plan: Mutex::new(Some((plan, trees))),
    };
    Ok(known(op, base.as_ref(), plan, &files))
}

/// What is copied in readable form, as far as it shows without the results of other steps.
pub(super) fn preview(steps: &Steps, id: VertexId, op: &FileOp) -> Result<Parts, StepError> {
    let inputs = &steps.vertex(id).inputs;
    let mut shown = KeyBuilder::new("file");
    add_actions(&mut shown, op);
    if let Ok(trees) = trees_of(steps, inputs, op)? {
        for file in select_all(steps, inputs, op, &trees)?.files() {
            shown.note(&file.name, &file.value);
        }
    }
    Ok(shown.into_parts())
}

/// `--strict`: no part of any key, so it is checked before one is looked for. The inputs that must be done first, if
/// there are any.
fn check_strictly(
    steps: &Steps,
    inputs: &[VertexId],
    op: &FileOp,
) -> Result<Result<(), Vec<VertexId>>, StepError> {
    match steps.settings.strictness {
        Strictness::Strict if strict::is_needed(&op.actions) => {}
        Strictness::Strict | Strictness::Lenient => return Ok(Ok(())),
    }
    let trees = match trees_of(steps, inputs, op)? {
        Ok(trees) => trees,
        Err(needs) => return Ok(Err(needs)),
    };
    let base = match op.base.and_then(|index| inputs.get(index.0)) {
        None => None,
        Some(base) => match steps.result(*base) {
            Some(done) => Some(steps.stack_source(*base, &done.layers)?),
            None => return Ok(Err(vec![*base])),
        },
    };
    let base = base.as_ref().map(|base| base as &dyn Destination);
    strict::check(&op.actions, &borrowed(&trees), base)?;
    Ok(Ok(()))
}

/// All of a context as a layer on scratch.
fn context_op() -> FileOp {
    let actions = whole("/", "/").into_iter().map(|action| match action {
        FileAction::Copy(copy) => FileAction::Copy(CopyAction {
            keeps_owner: false,
            ..copy
        }),
        other @ (FileAction::Mkdir { .. } | FileAction::Mkfile { .. }) => other,
    });
    FileOp {
        base: None,
        actions: actions.collect(),
    }
}

/// Computes the key of a context that is a file system.
pub(super) fn context_key(steps: &Steps, id: VertexId) -> Result<Keyed, StepError> {
    key_of_inputs(steps, &[id], &context_op())
}

/// Writes the layer of a context that is a file system.
pub(super) fn run_context(
    steps: &Steps,
    id: VertexId,
    planned: Option<&Planned>,
) -> Result<DiffId, StepError> {
    run_on(steps, id, &[id], &context_op(), planned)
}

fn known(op: &FileOp, base: Option<&CacheKey>, planned: Planned, files: &[Part]) -> Keyed {
    let mut key = KeyBuilder::new("file");
    match base {
        Some(base) => key.key("base", base),
        None => key.absent("base"),
    };
    key.key("layer", &planned.layer_key);
    let finished = key.finish();
    // What is shown is what was asked for and the files that this meant, not the plan.
    let mut shown = KeyBuilder::new("file");
    add_actions(&mut shown, op);
    for file in files {
        shown.note(&file.name, &file.value);
    }
    let parts = shown.into_parts();
    Keyed::Known {
        key: finished,
        parts,
        plan: Some(Arc::new(planned)),
    }
}

/// The trees that the actions copy from, or the inputs that must be done first.
fn trees_of(
    steps: &Steps,
    inputs: &[VertexId],
    op: &FileOp,
) -> Result<Result<Trees, Vec<VertexId>>, StepError> {
    let mut trees = Trees::new();
    let mut needs = Vec::new();
    for index in op.actions.iter().filter_map(input_of) {
        let Some(input) = inputs.get(index.0) else {
            return Err(StepError::Internal {
                what: "a copy without its source",
            });
        };
        match tree_of(steps, *input)? {
            Ok(tree) => drop(trees.insert(index, tree)),
            Err(need) => needs.push(need),
        }
    }
    Ok(if needs.is_empty() {
        Ok(trees)
    } else {
        Err(needs)
    })
}

pub(super) fn tree_of(
    steps: &Steps,
    input: VertexId,
) -> Result<Result<Arc<dyn SourceTree>, VertexId>, StepError> {
    if let Op::Local(local) = &steps.vertex(input).op {
        return Ok(Ok(steps.contexts.tree(&local.name)?));
    }
    match steps.result(input) {
        Some(done) => Ok(Ok(Arc::new(steps.stack_source(input, &done.layers)?))),
        None => Ok(Err(input)),
    }
}

pub(super) fn borrowed(trees: &Trees) -> Sources<'_> {
    trees
        .iter()
        .map(|(index, tree)| (*index, &**tree))
        .collect()
}

/// Lists and digests what is copied; contexts are told to be read meanwhile.
fn select_all(
    steps: &Steps,
    inputs: &[VertexId],
    op: &FileOp,
    trees: &Trees,
) -> Result<Selection, StepError> {
    let is_context = |input: &&VertexId| matches!(steps.vertex(**input).op, Op::Local(_));
    let contexts: Vec<VertexId> = trees
        .keys()
        .filter_map(|index| inputs.get(index.0))
        .filter(is_context)
        .copied()
        .collect();
    for context in &contexts {
        steps.begin_transfer(*context);
    }
    let selection = select(&op.actions, &borrowed(trees), steps.settings.threads)?;
    for context in &contexts {
        steps.end_transfer(*context, selection.bytes());
    }
    Ok(selection)
}

/// Plans the layer. The base becomes one of the trees, because archives may link to its files.
fn place_all(
    steps: &Steps,
    op: &FileOp,
    inputs: &[VertexId],
    selection: Selection,
    trees: &mut Trees,
) -> Result<CopyPlan, StepError> {
    let base = match op.base.and_then(|index| inputs.get(index.0)) {
        None => None,
        Some(base) => {
            let done = steps.result(*base);
            let done = done.ok_or(StepError::Internal {
                what: "a copy onto an unknown base",
            })?;
            Some(Arc::new(steps.stack_source(*base, &done.layers)?))
        }
    };
    let ground = Ground {
        base: base.as_deref().map(|base| base as &dyn Destination),
        base_input: op.base,
        room_bytes: steps.layers.free_bytes(),
    };
    let plan = place_on(selection, &borrowed(trees), &ground)?;
    if let (Some(index), Some(base)) = (op.base, base) {
        trees.entry(index).or_insert(base);
    }
    Ok(plan)
}

/// The result, if the same layer was made before, on whatever base.
pub(super) fn from_layer_key(
    steps: &Steps,
    id: VertexId,
    key: CacheKey,
    planned: &Planned,
) -> Result<Option<Done>, StepError> {
    let Some(memo) = steps.keys.memo(&layer_memo(&planned.layer_key))? else {
        return Ok(None);
    };
    let Some((diff_id, created_ms)) = read_layer_memo(&memo) else {
        return Ok(None);
    };
    if !steps.layers.has_all(std::slice::from_ref(&diff_id))? {
        return Ok(None);
    }
    let base = match &steps.vertex(id).op {
        Op::File(op) => op
            .base
            .and_then(|index| steps.vertex(id).inputs.get(index.0)),
        Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) | Op::Exec(_) | Op::Merge(_) => None,
    };
    let mut layers = match base {
        None => Vec::new(),
        Some(base) => match steps.result(*base) {
            Some(base) => base.layers.clone(),
            None => return Ok(None),
        },
    };
    layers.push(diff_id);
    Ok(Some(Done {
        key,
        layers,
        created_ms,
    }))
}

fn layer_memo(layer_key: &CacheKey) -> CacheKey {
    let mut memo = KeyBuilder::new("layer of a copy");
    memo.key("layer", layer_key);
    memo.finish()
}

/// `sha256:HEX` and the time in milliseconds, separated by a blank.
fn read_layer_memo(memo: &[u8]) -> Option<(DiffId, u64)> {
    let (digest, created) = std::str::from_utf8(memo).ok()?.split_once(' ')?;
    Some((
        DiffId(digest.parse::<Digest>().ok()?),
        created.parse().ok()?,
    ))
}

/// Writes the layer.
pub(super) fn run(
    steps: &Steps,
    id: VertexId,
    op: &FileOp,
    planned: Option<&Planned>,
) -> Result<DiffId, StepError> {
    run_on(steps, id, &steps.vertex(id).inputs, op, planned)
}

fn run_on(
    steps: &Steps,
    id: VertexId,
    inputs: &[VertexId],
    op: &FileOp,
    planned: Option<&Planned>,
) -> Result<DiffId, StepError> {
    let (plan, trees) = match planned.and_then(|planned| locked(&planned.plan).take()) {
        Some(known) => known,
        None => {
            let not_done = |_| StepError::Internal {
                what: "a copy from an unknown source",
            };
            let mut trees = trees_of(steps, inputs, op)?.map_err(not_done)?;
            let selection = select_all(steps, inputs, op, &trees)?;
            let plan = place_all(steps, op, inputs, selection, &mut trees)?;
            (plan, trees)
        }
    };
    let layer_key = plan.key();
    steps.layers.room.reserve(plan.bytes())?;
    let tree = steps.layers.new_tree()?;
    let diff_id = steps.with_early_blob(id, |sink| {
        let threads = steps.settings.threads;
        let (index, packed) =
            apply_packed::<StepError>(plan, &borrowed(&trees), tree.upper(), threads, sink)?;
        steps.layers.publish(tree, index, packed)
    })?;
    let value = format!("{diff_id} {}", steps.now_ms());
    steps
        .keys
        .remember(&layer_memo(&layer_key), value.as_bytes(), steps.now_ms())?;
    Ok(diff_id)
}
