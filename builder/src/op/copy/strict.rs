//! `--strict`: what copying passes over in silence, found before anything is copied.

use std::collections::BTreeMap;

use frontend::graph::{CopyAction, FileAction, InputIndex, Owner};
use frontend::ignore::has_wildcards;

use super::error::CopyError;
use super::owner::{is_group, is_user};
use super::select::{matched, tree_of};
use super::source::{Destination, SourceTree};

/// Whether an op has anything that the check needs files for: so that other copies cost nothing more.
pub fn is_needed(actions: &[FileAction]) -> bool {
    actions.iter().any(|action| match action {
        FileAction::Copy(copy) => {
            copy.sources.iter().any(|source| has_wildcards(source)) || copy.owner.is_some()
        }
        FileAction::Mkdir { .. } | FileAction::Mkfile { .. } => false,
    })
}

/// Refuses patterns that match nothing, patterns that match several files for one destination, and owners that are in
/// no passwd or group file.
///
/// # Errors
///
/// The first of these.
pub fn check(
    actions: &[FileAction],
    sources: &BTreeMap<InputIndex, &dyn SourceTree>,
    base: Option<&dyn Destination>,
) -> Result<(), CopyError> {
    for action in actions {
        match action {
            FileAction::Copy(copy) => {
                check_patterns(copy, tree_of(copy.input, sources))?;
                check_owner(copy.owner.as_ref(), base)?;
            }
            FileAction::Mkdir { .. } | FileAction::Mkfile { .. } => {}
        }
    }
    Ok(())
}

fn check_patterns(copy: &CopyAction, tree: &dyn SourceTree) -> Result<(), CopyError> {
    for source in copy.sources.iter().filter(|source| has_wildcards(source)) {
        let count = matched(copy, source, tree)?;
        if count == 0 {
            return Err(CopyError::NoMatch {
                pattern: source.clone(),
            });
        }
        let is_directory = copy.destination.ends_with('/') || copy.keeps_parents;
        if count > 1 && !is_directory {
            return Err(CopyError::SeveralOntoFile {
                pattern: source.clone(),
                count,
                destination: copy.destination.clone(),
            });
        }
    }
    Ok(())
}

/// Names where there are no files to look in are an error anyway.
fn check_owner(owner: Option<&Owner>, base: Option<&dyn Destination>) -> Result<(), CopyError> {
    let (Some(owner), Some(base)) = (owner, base) else {
        return Ok(());
    };
    if !is_user(base, &owner.user)? {
        return Err(CopyError::UnknownUser {
            name: owner.user.clone(),
        });
    }
    match &owner.group {
        Some(group) if !is_group(base, group)? => Err(CopyError::UnknownGroup {
            name: group.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}
