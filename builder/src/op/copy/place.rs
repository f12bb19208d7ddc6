//! Puts selected files into a destination: the rules of where things go and what they become.

use std::collections::BTreeMap;
use std::sync::Arc;

use cache::digest::ContentDigest;
use frontend::graph::{InputIndex, Owner};

use super::chmod::ModeChange;
use super::error::{CopyError, shown};
use super::nodes::{Node, Nodes};
use super::owner::{Ids, resolve_owner};
use super::plan::{Bytes, CopyPlan, Place, PlannedEntry, PlannedKind};
use super::resolve::{Step, clean, join, split};
use super::select::{Sources, tree_of};
use super::selection::{Pick, Reason, SelectedAction, SelectedCopy, Selection, Treatment};
use super::source::{Destination, LinkIdentity, SourceKind};
use super::target::{CREATED_MTIME, Target};
use super::unpacking::{self, Unpacking};

/// What a layer is planned for, beside what goes into it.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The file system below; `None` is scratch.
    pub base: Option<&'a dyn Destination>,
    /// Under which number the base will be among the sources when the layer is written, for archives with hard links to
    /// its files.
    pub base_input: Option<InputIndex>,
    /// How many bytes archives may unpack to.
    pub room_bytes: u64,
}

impl std::fmt::Debug for Ground<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").finish_non_exhaustive()
    }
}

/// Plans the layer of a selection on a base; `None` is scratch.
pub fn plan(
    selection: Selection,
    sources: &Sources<'_>,
    base: Option<&dyn Destination>,
) -> Result<CopyPlan, CopyError> {
    let ground = Ground {
        base,
        base_input: None,
        room_bytes: u64::MAX,
    };
    plan_on(selection, sources, &ground)
}

/// Plans the layer of a selection, which goes as the plan grows: of very many files there is no room for both.
pub fn plan_on(
    selection: Selection,
    sources: &Sources<'_>,
    ground: &Ground<'_>,
) -> Result<CopyPlan, CopyError> {
    let mut placing = Placing {
        target: Target::new(ground),
        groups: 0,
    };
    let archives = unpacked(&selection);
    for action in selection.actions {
        match action {
            SelectedAction::Mkdir { path, mode, owner } => {
                placing.mkdir(&path, mode, owner.as_ref())?;
            }
            SelectedAction::Mkfile { path, mode, data } => placing.mkfile(&path, mode, &data)?,
            SelectedAction::Copy(copy) => placing.copy(copy, sources)?,
        }
    }
    Ok(placing.target.finish()?.of_archives(&archives))
}

/// The digests of the archives that are unpacked.
fn unpacked(selection: &Selection) -> Vec<ContentDigest> {
    let copies = selection.actions.iter().filter_map(|action| match action {
        SelectedAction::Copy(copy) => Some(copy),
        SelectedAction::Mkdir { .. } | SelectedAction::Mkfile { .. } => None,
    });
    let picks = copies.flat_map(|copy| &copy.picks);
    let archives = picks.filter(|pick| pick.treatment == Treatment::Unpacked);
    let content = |pick: &Pick| match pick.nodes.first()?.entry.kind {
        SourceKind::File { content, .. } => content,
        _ => None,
    };
    archives.filter_map(content).collect()
}

struct Placing<'a> {
    target: Target<'a>,
    groups: u32,
}

/// A destination being filled by one pick.
struct Placement<'p> {
    copy: &'p SelectedCopy,
    owner: Option<Ids>,
    /// Where the pick itself goes.
    at: Vec<u8>,
    /// Where the pick itself is.
    root: Arc<Place>,
}

impl Placing<'_> {
    fn mkdir(&mut self, path: &str, mode: u32, owner: Option<&Owner>) -> Result<(), CopyError> {
        let owner = self.owner(owner)?;
        let path = self.target.resolve(path.as_bytes())?;
        self.target.make_directories(&path, mode & 0o777, owner)
    }

    fn mkfile(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<(), CopyError> {
        let path = self.target.resolve(path.as_bytes())?;
        if let Some((parent, _)) = split(&path) {
            self.target.make_directories(parent, 0o755, None)?;
        }
        self.refuse_directory(&path)?;
        let mtime = CREATED_MTIME;
        self.target.put(PlannedEntry {
            path,
            kind: inline(data),
            mode: mode & 0o777,
            uid: 0,
            gid: 0,
            mtime,
            capability: None,
        });
        Ok(())
    }

    fn owner(&self, owner: Option<&Owner>) -> Result<Option<Ids>, CopyError> {
        owner
            .map(|owner| resolve_owner(owner, self.target.base()))
            .transpose()
    }

    fn copy(&mut self, mut copy: SelectedCopy, sources: &Sources<'_>) -> Result<(), CopyError> {
        let owner = self.owner(copy.owner.as_ref())?;
        for pick in std::mem::take(&mut copy.picks) {
            match pick.treatment {
                Treatment::Copied => self.copy_pick(&copy, pick, owner)?,
                Treatment::Unpacked => {
                    let tree = tree_of(copy.input, sources);
                    let at = self.target.resolve(copy.destination.as_bytes())?;
                    let unpacking = Unpacking {
                        tree,
                        pick: &pick,
                        input: copy.input,
                        owner,
                        at,
                    };
                    unpacking::plan_members(&mut self.target, &unpacking, &mut self.groups)?;
                }
            }
        }
        Ok(())
    }

    fn copy_pick(
        &mut self,
        copy: &SelectedCopy,
        pick: Pick,
        owner: Option<Ids>,
    ) -> Result<(), CopyError> {
        let Some(root) = pick.nodes.first() else {
            return Ok(());
        };
        let is_directory = root.entry.kind == SourceKind::Directory;
        let created_mode = ModeChange::of_created_directory(copy.mode.as_ref());
        // The folder that the destination's text names, even if the copy then goes elsewhere.
        let text = copy.destination.as_bytes();
        let folder = match text.iter().rposition(|byte| *byte == b'/') {
            Some(slash) if slash + 1 < text.len() => &text[..slash],
            Some(_) => text,
            None => b"",
        };
        let folder = self.target.resolve(folder)?;
        self.target.make_directories(&folder, created_mode, owner)?;

        let mut at = self.target.resolve(&clean(text))?;
        let found = self.target.lookup(&at)?;
        let goes_into = !is_directory
            && found
                .as_ref()
                .is_some_and(|found| found.kind == Step::Directory);
        if goes_into {
            at = join(&at, &pick.name);
        }
        let parent = if is_directory && found.is_none() {
            at.clone()
        } else {
            split(&at).map_or_else(Vec::new, |(parent, _)| parent.to_vec())
        };
        self.target.make_directories(&parent, created_mode, owner)?;
        let placement = Placement {
            copy,
            owner,
            at,
            root: Arc::new(Place {
                input: copy.input,
                path: pick.path,
            }),
        };
        self.place(&placement, pick.nodes)
    }

    fn place(&mut self, placement: &Placement<'_>, nodes: Nodes) -> Result<(), CopyError> {
        let mut links: BTreeMap<LinkIdentity, u32> = BTreeMap::new();
        for block in nodes.into_blocks() {
            for node in block.iter() {
                self.place_node(placement, &node, &mut links)?;
            }
        }
        Ok(())
    }

    fn place_node(
        &mut self,
        placement: &Placement<'_>,
        node: &Node<'_>,
        links: &mut BTreeMap<LinkIdentity, u32>,
    ) -> Result<(), CopyError> {
        let path = join(&placement.at, node.relative);
        if node.entry.kind == SourceKind::Directory {
            return self.place_directory(placement, node, path);
        }
        self.refuse_directory(&path)?;
        let group = node.entry.link.clone().map(|identity| {
            let groups = &mut self.groups;
            *links.entry(identity).or_insert_with(|| {
                *groups += 1;
                *groups
            })
        });
        let kind = kind_of(placement, node, group.unwrap_or(0));
        self.target.put(planned(placement, node, path, kind));
        Ok(())
    }

    /// An existing top directory stays as it is; existing ones below it take the source's metadata, or only its mode
    /// where patterns choose.
    fn place_directory(
        &mut self,
        placement: &Placement<'_>,
        node: &Node<'_>,
        path: Vec<u8>,
    ) -> Result<(), CopyError> {
        let found = self.target.lookup(&path)?;
        if let Some(found) = &found
            && found.kind != Step::Directory
        {
            let path = shown(&path);
            return Err(CopyError::NotADirectory { path });
        }
        if node.relative.is_empty() {
            return Ok(());
        }
        let mut entry = planned(placement, node, path, PlannedKind::Directory);
        let only_mode = placement.copy.keeps_parents || node.reason == Reason::OnTheWay;
        if let Some(found) = found
            && only_mode
        {
            entry.mode = node.entry.mode;
            (entry.uid, entry.gid, entry.mtime) = (found.uid, found.gid, found.mtime);
        }
        self.target.put(entry);
        Ok(())
    }

    fn refuse_directory(&self, path: &[u8]) -> Result<(), CopyError> {
        match self.target.lookup(path)? {
            Some(found) if found.kind == Step::Directory => {
                Err(CopyError::IsADirectory { path: shown(path) })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn inline(data: &[u8]) -> PlannedKind {
    PlannedKind::File {
        size: data.len() as u64,
        content: ContentDigest(*blake3::hash(data).as_bytes()),
        bytes: Bytes::Inline(data.into()),
        group: 0,
    }
}

fn kind_of(placement: &Placement<'_>, node: &Node<'_>, group: u32) -> PlannedKind {
    match &node.entry.kind {
        SourceKind::Directory => PlannedKind::Directory,
        SourceKind::File {
            size,
            content: Some(content),
        } => PlannedKind::File {
            size: *size,
            content: *content,
            bytes: Bytes::Source {
                root: Arc::clone(&placement.root),
                below: node.relative.len(),
                version: node.version,
            },
            group,
        },
        // Selecting hashes every file.
        SourceKind::File { content: None, .. } => inline(b""),
        SourceKind::Symlink(target) => PlannedKind::Symlink(target.clone()),
        SourceKind::CharDevice(major, minor) => PlannedKind::CharDevice(*major, *minor),
        SourceKind::BlockDevice(major, minor) => PlannedKind::BlockDevice(*major, *minor),
        SourceKind::Fifo => PlannedKind::Fifo,
        SourceKind::Socket => inline(b""),
    }
}

fn planned(
    placement: &Placement<'_>,
    node: &Node<'_>,
    path: Vec<u8>,
    kind: PlannedKind,
) -> PlannedEntry {
    let entry = &node.entry;
    let kept = if placement.copy.keeps_owner {
        Ids {
            uid: entry.uid,
            gid: entry.gid,
        }
    } else {
        Ids { uid: 0, gid: 0 }
    };
    let owner = placement.owner.unwrap_or(kept);
    let mode = match (&kind, &placement.copy.mode) {
        (PlannedKind::Symlink(_), _) => 0o777,
        (PlannedKind::Directory, Some(change)) => change.apply(entry.mode, true),
        (
            PlannedKind::File { .. }
            | PlannedKind::CharDevice(..)
            | PlannedKind::BlockDevice(..)
            | PlannedKind::Fifo,
            Some(change),
        ) => change.apply(entry.mode, false),
        (_, None) => entry.mode,
    };
    PlannedEntry {
        path,
        kind,
        mode,
        uid: owner.uid,
        gid: owner.gid,
        mtime: entry.mtime,
        capability: entry.capability.clone(),
    }
}
