//! Paths of entries on their way through what the layer has so far.

use std::collections::BTreeMap;

use super::{Slot, WHITEOUT_PREFIX};
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::error::EntryProblem;
use crate::layer::path::{self, LONGEST_NAME, LONGEST_PATH};

/// Symlinks followed before a path counts as a loop, as in the kernel.
const MOST_LINKS: u32 = 40;

/// A walk from the root along parts and through symlinks, up to the next thing that is missing.
pub(super) struct Walk {
    todo: Vec<Vec<u8>>,
    /// Where it is.
    pub(super) current: Vec<u8>,
    links: u32,
}

impl Walk {
    pub(super) fn new(parts: &[&[u8]]) -> Self {
        let todo = parts.iter().rev().map(|part| part.to_vec()).collect();
        Self {
            todo,
            current: Vec::new(),
            links: 0,
        }
    }

    /// Goes on; `Some` is a directory that is missing and where the walk goes on as if it were there.
    pub(super) fn advance(
        &mut self,
        slots: &BTreeMap<Vec<u8>, Slot>,
        inodes: &[Entry],
    ) -> Result<Option<Vec<u8>>, EntryProblem> {
        while let Some(part) = self.todo.pop() {
            if part == b".." {
                let parent = path::split(&self.current).map(|(parent, _)| parent.to_vec());
                self.current = parent.unwrap_or_default();
                continue;
            }
            let next = path::join(&self.current, &part);
            match slots.get(&path::sort_key(&next)) {
                Some(Slot::Directory(_)) => self.current = next,
                Some(Slot::Leaf(number)) => self.follow(&inodes[*number])?,
                Some(Slot::Whiteout) | None => {
                    if part.starts_with(WHITEOUT_PREFIX) {
                        return Err(EntryProblem::ReservedName);
                    }
                    if part.len() > LONGEST_NAME || next.len() > LONGEST_PATH {
                        return Err(EntryProblem::Path);
                    }
                    self.current.clone_from(&next);
                    return Ok(Some(next));
                }
            }
        }
        Ok(None)
    }

    fn follow(&mut self, inode: &Entry) -> Result<(), EntryProblem> {
        let EntryKind::Symlink { target } = &inode.kind else {
            return Err(EntryProblem::NotBelowDirectory);
        };
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(EntryProblem::TooManyLinks);
        }
        if target.starts_with(b"/") {
            self.current.clear();
        }
        self.todo
            .extend(path::components(target).rev().map(<[u8]>::to_vec));
        Ok(())
    }
}
