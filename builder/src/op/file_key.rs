//! What the keys of COPY, ADD and WORKDIR are made of, before any destination is looked at.

use cache::digest::CacheKey;
use cache::key::builder::KeyBuilder;
use frontend::graph::{
    Chmod, CopyAction, FileAction, FileOp, InputIndex, Op, Owner, Unpack, VertexId,
};

use super::copy::selection::Selection;
use super::steps::Steps;

// What a key stands for in a store is the layer that the rules of copying gave when it was made. A change of those rules
// that gives other layers changes the number in the names of the two kinds of keys here.

/// The key by definition: there is none if a source is a context, which only its content can tell.
pub(super) fn definition_key(
    steps: &Steps,
    op: &FileOp,
    inputs: &[VertexId],
    base: Option<&CacheKey>,
) -> Option<CacheKey> {
    let mut sources = Vec::new();
    for action in &op.actions {
        sources.push(
            match input_of(action).and_then(|index| inputs.get(index.0)) {
                None => None,
                Some(input) => match &steps.vertex(*input).op {
                    Op::Local(_) => return None,
                    Op::Image(_)
                    | Op::Git(_)
                    | Op::Http(_)
                    | Op::Exec(_)
                    | Op::File(_)
                    | Op::Merge(_) => Some(steps.key_of(*input)?),
                },
            },
        );
    }
    Some(key_by_definition(op, base, &sources))
}

/// The actions as they are written, and for each of them the state key of where it copies from.
fn key_by_definition(
    op: &FileOp,
    base: Option<&CacheKey>,
    sources: &[Option<CacheKey>],
) -> CacheKey {
    let mut key = KeyBuilder::new("file by definition, 2");
    match base {
        Some(base) => key.key("base", base),
        None => key.absent("base"),
    };
    add_actions(&mut key, op);
    for source in sources {
        match source {
            Some(source) => key.key("input", source),
            None => key.absent("input"),
        };
    }
    key.finish()
}

/// What is copied, and onto which state.
pub(super) fn content_key(selection: &Selection, base: Option<&CacheKey>) -> CacheKey {
    let mut key = KeyBuilder::new("file by content, 2");
    match base {
        Some(base) => key.key("base", base),
        None => key.absent("base"),
    };
    key.key("selection", &selection.key());
    key.finish()
}

pub(super) fn add_actions(key: &mut KeyBuilder, op: &FileOp) {
    key.number("actions", op.actions.len() as i128);
    for action in &op.actions {
        match action {
            FileAction::Copy(copy) => add_copy(key, copy),
            FileAction::Mkdir { path, mode, owner } => {
                key.text("make directory", path);
                key.number("mode", i128::from(*mode));
                add_owner(key, owner.as_ref());
            }
            FileAction::Mkfile { path, mode, data } => {
                key.text("make file", path);
                key.number("mode", i128::from(*mode));
                key.bytes("data", data);
            }
        }
    }
}

fn add_copy(key: &mut KeyBuilder, copy: &CopyAction) {
    for source in &copy.sources {
        key.text("source", source);
    }
    key.text("destination", &copy.destination);
    add_owner(key, copy.owner.as_ref());
    match &copy.mode {
        None => key.absent("chmod"),
        Some(Chmod::Octal(mode)) => key.number("chmod", i128::from(*mode)),
        Some(Chmod::Symbolic(mode)) => key.text("chmod", mode),
    };
    for pattern in &copy.exclude {
        key.text("exclude", pattern);
    }
    key.number("parents", i128::from(copy.keeps_parents));
    key.number("unpack", i128::from(copy.unpack == Unpack::Archives));
    key.number("keeps owner", i128::from(copy.keeps_owner));
}

fn add_owner(key: &mut KeyBuilder, owner: Option<&Owner>) {
    let Some(owner) = owner else {
        key.absent("chown");
        return;
    };
    key.text("chown", &owner.user);
    match &owner.group {
        Some(group) => key.text("group", group),
        None => key.absent("group"),
    };
}

pub(super) fn input_of(action: &FileAction) -> Option<InputIndex> {
    match action {
        FileAction::Copy(copy) => copy.input,
        FileAction::Mkdir { .. } | FileAction::Mkfile { .. } => None,
    }
}

#[cfg(test)]
#[path = "file_key_tests.rs"]
mod tests;
