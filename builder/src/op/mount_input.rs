//! What RUN mounts of stages, images and contexts: its part of the key, and copies of it.

use std::path::Path;

use cache::key::builder::KeyBuilder;
use frontend::graph::{
    CopyAction, ExecMount, FileAction, InputIndex, MountKind, Op, Unpack, VertexId,
};

use super::copy::apply::apply;
use super::copy::place::plan as place;
use super::copy::select::select;
use super::error::StepError;
use super::exec_key::MountInput;
use super::file::{Trees, borrowed, tree_of};
use super::steps::Steps;

/// What a mount's input adds to the key of its command, or the input that must be done first.
pub(super) fn mount_input(
    steps: &Steps,
    inputs: &[VertexId],
    mount: &ExecMount,
) -> Result<Result<MountInput, VertexId>, StepError> {
    let (input, source) = match &mount.kind {
        MountKind::Bind {
            input: Some(input),
            source,
            ..
        }
        | MountKind::Cache {
            input: Some(input),
            source,
            ..
        } => (input, source),
        MountKind::Bind { input: None, .. }
        | MountKind::Cache { input: None, .. }
        | MountKind::Tmpfs { .. }
        | MountKind::Secret { .. }
        | MountKind::Ssh { .. } => return Ok(Ok(MountInput::None)),
    };
    let Some(input) = inputs.get(input.0) else {
        return Err(StepError::Internal {
            what: "a mount without its input",
        });
    };
    let memo = steps
        .key_of(*input)
        .filter(|_| !matches!(steps.vertex(*input).op, Op::Local(_)));
    let memo = memo.map(|state| {
        let mut memo = KeyBuilder::new("content of a mount");
        memo.key("state", &state);
        memo.text("source", source);
        memo.finish()
    });
    if let Some(memo) = &memo
        && let Some(content) = steps.remembered_key(memo)?
    {
        let files = Vec::new();
        return Ok(Ok(MountInput::Content {
            key: content,
            files,
        }));
    }
    let tree = match tree_of(steps, *input)? {
        Ok(tree) => tree,
        Err(need) => return Ok(Err(need)),
    };
    let trees = Trees::from([(MOUNTED, tree)]);
    let selection = select(
        &whole(source, "/"),
        &borrowed(&trees),
        steps.settings.threads,
    )?;
    let content = selection.key();
    if let Some(memo) = memo {
        steps.remember_key(&memo, &content)?;
    }
    Ok(Ok(MountInput::Content {
        key: content,
        files: selection.files(),
    }))
}

/// Which input the source of a mount is, for copies made of it.
const MOUNTED: InputIndex = InputIndex(0);

/// A copy of one path, as it is, whatever characters it has.
pub(super) fn whole(source: &str, destination: &str) -> [FileAction; 1] {
    [FileAction::Copy(CopyAction {
        input: Some(MOUNTED),
        sources: vec![literal(source)],
        destination: destination.to_owned(),
        owner: None,
        mode: None,
        keeps_parents: false,
        exclude: Vec::new(),
        unpack: Unpack::Never,
        keeps_owner: true,
    })]
}

/// A pattern that matches exactly this path.
fn literal(path: &str) -> String {
    path.chars().fold(String::new(), |mut pattern, c| {
        match c {
            '*' | '?' | '[' => pattern.extend(['[', c, ']']),
            '\\' => pattern.push_str("[\\\\]"),
            other => pattern.push(other),
        }
        pattern
    })
}

/// Copies a path of a vertex's result to a path below an empty directory.
pub(super) fn copy_out(
    steps: &Steps,
    vertex: VertexId,
    source: &str,
    destination: &str,
    directory: &Path,
) -> Result<(), StepError> {
    let not_done = |_| StepError::Internal {
        what: "a mount of an unknown result",
    };
    let tree = tree_of(steps, vertex)?.map_err(not_done)?;
    let trees = Trees::from([(MOUNTED, tree)]);
    let sources = borrowed(&trees);
    let selection = select(
        &whole(source, destination),
        &sources,
        steps.settings.threads,
    )?;
    let plan = place(selection, &sources, None)?;
    apply(plan, &sources, directory, steps.settings.threads)?;
    Ok(())
}
