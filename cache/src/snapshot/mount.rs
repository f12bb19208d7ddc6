//! How a stack of trees is mounted, as data.
//!
//! # Skeletons
//!
//! A tree has directories that its layer does not mention (implied ones), with the metadata they had where the tree was
//! made. Overlayfs shows a merged directory with its topmost metadata, so stacked on another base such a tree would
//! change owners and modes. Above each layer whose implied directories differ from what the stack shows, a skeleton is
//! stacked: just those directories, with the right metadata.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::active::ActiveTree;
use super::error::SnapshotError;
use super::format::TreeFormat;
use super::layer::Layer;
use super::store::LayerStore;
use crate::layer::apply::make_directories;
use crate::layer::entry::{Entry, EntryKind};
use crate::layer::path as layer_path;
use crate::layer::stack::LayerStack;
use crate::layer::tree::OverlayXattrs;

/// An overlay to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayMount {
    /// The working directory of the mount: where relative lower directories are.
    pub dir: PathBuf,
    /// Lower directories, top first, relative to `dir` where they can be.
    pub lowers: Vec<PathBuf>,
    /// The upper directory; absent if read-only.
    pub upper: Option<PathBuf>,
    /// The work directory; present if `upper` is.
    pub work: Option<PathBuf>,
    /// Whether overlayfs keeps its attributes as `user.overlay.*`.
    pub userxattr: bool,
}

impl OverlayMount {
    /// The options other than lower directories, in order, for `fsconfig` or a mount's data. A flag has no value.
    ///
    /// `volatile`: unmounting a plain overlay syncs the whole file system (54–144 ms against 0.4–3.5 ms, measured). The
    /// others keep upper directories self-contained: no references to lower files.
    pub fn options(&self) -> Vec<(&'static str, Option<OsString>)> {
        let mut options = vec![
            ("index", Some("off".into())),
            ("metacopy", Some("off".into())),
            ("redirect_dir", Some("nofollow".into())),
        ];
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            options.push(("upperdir", Some(upper.clone().into_os_string())));
            options.push(("workdir", Some(work.clone().into_os_string())));
            options.push(("volatile", None));
        }
        if self.userxattr {
            options.push(("userxattr", None));
        }
        options
    }
}

/// How a stack becomes a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountPlan {
    /// By an overlay.
    Overlay(OverlayMount),
    /// By a read-only bind mount of one tree.
    Bind {
        /// The tree.
        source: PathBuf,
    },
}

/// A plan with the directories made for it.
#[derive(Debug)]
#[must_use = "skeletons vanish with it"]
pub struct Planned {
    /// What to mount.
    pub plan: MountPlan,
    /// Skeletons, to be kept until after unmounting.
    pub skeletons: Vec<ActiveTree>,
}

/// Directories to be stacked above a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skeleton {
    /// The number of the layer, counted from the bottom.
    pub above: usize,
    /// The directories in order, with all parents, as the stack shows them.
    pub directories: Vec<Entry>,
}

/// What a stack is mounted for.
#[derive(Clone, Copy, Debug)]
pub enum Access<'a> {
    /// Reading.
    ReadOnly,
    /// Writing into a tree being made.
    Writable(&'a ActiveTree),
}

/// The skeletons a stack needs, bottom first. The root's time does not matter: it changes with every name in it.
pub fn skeletons(stack: &LayerStack) -> Vec<Skeleton> {
    let mut needed = Vec::new();
    for (above, index) in stack.layers().iter().enumerate() {
        let mut lower = None;
        let mut directories: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        for implied in index.implied() {
            let stack = lower.get_or_insert_with(|| stack.lower(above + 1));
            let Some(shown) = stack.lookup(&implied.path).map(|found| found.entry) else {
                continue;
            };
            let is_same = if implied.path.is_empty() {
                shown.has_owner_of(implied)
            } else {
                shown.has_metadata_of(implied)
            };
            if is_same || !shown.is_directory() {
                continue;
            }
            for path in layer_path::ancestors(&implied.path).chain([implied.path.as_slice()]) {
                if let Some(found) = stack.lookup(path) {
                    let kind = EntryKind::Directory { is_opaque: false };
                    let entry = Entry {
                        kind,
                        ..found.entry.clone()
                    };
                    directories.insert(layer_path::sort_key(path), entry);
                }
            }
        }
        if !directories.is_empty() {
            needed.push(Skeleton {
                above,
                directories: directories.into_values().collect(),
            });
        }
    }
    needed
}

/// Plans the mount of layers, bottom first, and makes the skeletons it needs.
///
/// For a writable mount the root of the tree being made should have been given the stack's metadata before
/// ([`ActiveTree::take_root_of`]).
///
/// # Errors
///
/// [`SnapshotError::NoTree`] if a layer has no tree of the format; see [`LayerStore::ensure_tree`].
pub fn plan(
    store: &LayerStore,
    layers: &[Arc<Layer>],
    format: &TreeFormat,
    access: Access<'_>,
) -> Result<Planned, SnapshotError> {
    let mut lowers: Vec<PathBuf> = Vec::with_capacity(layers.len());
    let mut indexes = Vec::with_capacity(layers.len());
    for layer in layers {
        let no_tree = || SnapshotError::NoTree {
            diff_id: layer.diff_id().clone(),
            format: format.clone(),
        };
        let tree = layer.tree(format).ok_or_else(no_tree)?;
        lowers.push(PathBuf::from(tree.as_str()));
        indexes.push(layer.index()?);
    }
    let has_marks = indexes.iter().any(|index| {
        let is_mark = |entry: &Entry| entry.kind == EntryKind::Whiteout;
        index.has_opaque() || index.entries().any(is_mark)
    });
    let mut made = Vec::new();
    let trees = store.trees();
    // From the top, so that the numbers below stay right.
    for skeleton in skeletons(&LayerStack::new(indexes)).iter().rev() {
        let active = store.new_tree()?;
        make_directories(active.upper(), &skeleton.directories)?;
        lowers.insert(skeleton.above + 1, relative(&trees, active.upper()));
        made.push(active);
    }
    let is_writable = matches!(access, Access::Writable(_));
    let is_alone = lowers.len() == 1;
    if lowers.is_empty() || (is_alone && has_marks && !is_writable) {
        // An overlay needs a lower directory, and two of them without an upper one; a bind mount of a single tree would
        // show its whiteouts.
        let empty = store.new_tree()?;
        lowers.insert(0, relative(&trees, empty.upper()));
        made.push(empty);
    }
    lowers.reverse();
    let plan = assemble(trees, lowers, format.xattrs(), access)?;
    Ok(Planned {
        plan,
        skeletons: made,
    })
}

/// The mount of lower directories, top first.
fn assemble(
    dir: PathBuf,
    lowers: Vec<PathBuf>,
    xattrs: OverlayXattrs,
    access: Access<'_>,
) -> Result<MountPlan, SnapshotError> {
    let (upper, work) = match (access, lowers.as_slice()) {
        (Access::ReadOnly, [single]) => {
            return Ok(MountPlan::Bind {
                source: dir.join(single),
            });
        }
        (Access::ReadOnly, _) => (None, None),
        (Access::Writable(active), _) => (
            Some(active.upper().to_owned()),
            Some(active.make_work()?.to_owned()),
        ),
    };
    let userxattr = xattrs == OverlayXattrs::User;
    Ok(MountPlan::Overlay(OverlayMount {
        dir,
        lowers,
        upper,
        work,
        userxattr,
    }))
}

/// A path seen from the trees' directory (the working directory of mounts), shorter than the whole one. Both lie in the
/// state directory.
pub fn relative(trees: &Path, path: &Path) -> PathBuf {
    let below = trees.parent().and_then(|root| path.strip_prefix(root).ok());
    below.map_or_else(|| path.to_owned(), |below| Path::new("..").join(below))
}

#[cfg(test)]
mod tests;
