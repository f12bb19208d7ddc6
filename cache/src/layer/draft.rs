//! The index of a layer while its tar is read: decides, with nothing on disk, where each member goes.
//!
//! Paths are cleaned by their text, `..` at the root stays there, and symlinks that the same layer made are followed
//! inside the root, as containerd does. So the path a member gets has only real directories above it, and whoever
//! unpacks it never has to follow a link.
//!
//! # What wins
//!
//! A later member replaces an earlier one; two directories merge, the later giving the metadata. Deletions concern
//! only lower layers, wherever they stand in the tar: content of the same name wins, and a directory both made and
//! deleted is opaque. aufs's own `.wh..wh.*` members are ignored. The header of a hard link tells nothing about its
//! file.

use std::collections::BTreeMap;

use super::entry::{Entry, EntryKind, normalise_capability};
use super::error::{EntryProblem, LayerError};
use super::index::{LayerIndex, Node, Role};
use super::path::{self, LONGEST_NAME, LONGEST_PATH};
use super::reader::{Member, MemberKind};
use walk::Walk;

mod walk;

/// What marks a deletion in a tar (OCI image spec, `layer.md`, "Whiteouts").
pub(super) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// What marks an opaque directory (the same, "Opaque Whiteout").
pub(super) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// aufs's own files, of which the opaque mark is one.
const META_PREFIX: &[u8] = b".wh..wh.";

/// What an index may take in memory while it is made: more than a million entries. An image of more is made to take all
/// memory there is, a few bytes of compressed names each.
const MOST_HELD_BYTES: usize = 512 << 20;

/// The largest major and minor numbers Linux has.
const MOST_MAJOR: i64 = (1 << 12) - 1;
const MOST_MINOR: i64 = (1 << 20) - 1;

/// An index being made.
#[derive(Debug, Default)]
pub(super) struct Draft {
    slots: BTreeMap<Vec<u8>, Slot>,
    /// What is no directory, by number, with an empty path: hard links share one.
    inodes: Vec<Entry>,
    /// A parent directory as written and where it led; valid while no directory is replaced.
    last_parent: Option<(Vec<u8>, Vec<u8>)>,
    /// About as many bytes as all that was put in takes in memory.
    held_bytes: usize,
}

#[derive(Clone, Debug)]
enum Slot {
    Directory(Node),
    Leaf(usize),
    Whiteout,
}

/// What a member means for the tree.
#[derive(Debug)]
pub(super) enum Placed {
    /// Nothing.
    Ignored,
    /// Only parents may have to be made.
    Deletion,
    /// An entry.
    Content(Content),
}

/// An entry to be made.
#[derive(Debug)]
pub(super) struct Content {
    /// The entry; a file's size and digest are not known yet, a hard link's target is where it led.
    pub(super) entry: Entry,
    /// What is at its path now.
    pub(super) replaced: Replaced,
    inode: Option<usize>,
}

/// What the tree has at a path that gets a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replaced {
    Nothing,
    Leaf,
    Directory,
}

impl Draft {
    /// Decides about a member. Directories that must be made first are added to `made`, outermost first.
    pub(super) fn place(
        &mut self,
        member: &Member,
        made: &mut Vec<Vec<u8>>,
    ) -> Result<Placed, LayerError> {
        let placed = match self.place_inner(member, made) {
            Ok(_) if self.held_bytes > MOST_HELD_BYTES => Err(EntryProblem::TooMany),
            placed => placed,
        };
        placed.map_err(|problem| LayerError::entry(&member.path, problem))
    }

    fn place_inner(
        &mut self,
        member: &Member,
        made: &mut Vec<Vec<u8>>,
    ) -> Result<Placed, EntryProblem> {
        let parts = clean(&member.path)?;
        let Some((name, parents)) = parts.split_last() else {
            if member.kind != MemberKind::Directory {
                return Err(EntryProblem::Root);
            }
            return self.content(member, Vec::new()).map(Placed::Content);
        };
        if parents.iter().any(|part| part.starts_with(WHITEOUT_PREFIX)) {
            // aufs kept its hard links in a directory `.wh..wh.plnk`.
            let is_meta = parents.iter().any(|part| part.starts_with(META_PREFIX));
            return if is_meta {
                Ok(Placed::Ignored)
            } else {
                Err(EntryProblem::ReservedName)
            };
        }
        if *name == OPAQUE_NAME {
            let dir = self.parent(parents, made)?;
            self.make_opaque(&dir);
            return Ok(Placed::Deletion);
        }
        if name.starts_with(META_PREFIX) {
            return Ok(Placed::Ignored);
        }
        if let Some(deleted) = name.strip_prefix(WHITEOUT_PREFIX) {
            if deleted.is_empty() || deleted == b"." || deleted == b".." {
                return Err(EntryProblem::ReservedName);
            }
            let dir = self.parent(parents, made)?;
            self.delete(&path::join(&dir, deleted));
            return Ok(Placed::Deletion);
        }
        let dir = self.parent(parents, made)?;
        let at = path::join(&dir, name);
        if at.len() > LONGEST_PATH {
            return Err(EntryProblem::Path);
        }
        self.content(member, at).map(Placed::Content)
    }

    /// The entry of a member that goes to `at`.
    fn content(&self, member: &Member, at: Vec<u8>) -> Result<Content, EntryProblem> {
        let replaced = match self.slots.get(&path::sort_key(&at)) {
            Some(Slot::Directory(_)) => Replaced::Directory,
            Some(Slot::Leaf(_)) => Replaced::Leaf,
            Some(Slot::Whiteout) | None if at.is_empty() => Replaced::Directory,
            Some(Slot::Whiteout) | None => Replaced::Nothing,
        };
        let (kind, inode) = self.kind(member, &at)?;
        let capability = member
            .capability
            .as_ref()
            .filter(|_| member.kind == MemberKind::File);
        let capability = capability
            .map(|value| normalise_capability(value).ok_or(EntryProblem::Capability))
            .transpose()?;
        let mode = if matches!(kind, EntryKind::Symlink { .. }) {
            0o777
        } else {
            member.mode
        };
        let entry = Entry {
            path: at,
            kind,
            mode,
            uid: owner(member.uid)?,
            gid: owner(member.gid)?,
            mtime: member.mtime,
            capability,
        };
        Ok(Content {
            entry,
            replaced,
            inode,
        })
    }

    /// What a member that goes to `at` is; for a hard link, with the number of its target.
    fn kind(&self, member: &Member, at: &[u8]) -> Result<(EntryKind, Option<usize>), EntryProblem> {
        let kind = match &member.kind {
            MemberKind::File => EntryKind::File {
                size: member.size,
                content: crate::digest::ContentDigest([0; 32]),
            },
            MemberKind::HardLink(target) => {
                let (target, number) = self.link_target(target, at)?;
                return Ok((EntryKind::HardLink { target }, Some(number)));
            }
            MemberKind::Symlink(target) => {
                if target.is_empty() || target.len() > LONGEST_PATH || target.contains(&0) {
                    return Err(EntryProblem::Path);
                }
                EntryKind::Symlink {
                    target: target.clone(),
                }
            }
            MemberKind::CharDevice(0, 0) => return Err(EntryProblem::OverlayWhiteout),
            MemberKind::CharDevice(major, minor) => {
                let (major, minor) = device(*major, *minor)?;
                EntryKind::CharDevice { major, minor }
            }
            MemberKind::BlockDevice(major, minor) => {
                let (major, minor) = device(*major, *minor)?;
                EntryKind::BlockDevice { major, minor }
            }
            MemberKind::Directory => EntryKind::Directory { is_opaque: false },
            MemberKind::Fifo => EntryKind::Fifo,
        };
        Ok((kind, None))
    }

    /// Takes in what was placed, now complete.
    pub(super) fn insert(&mut self, content: Content) {
        let Content {
            mut entry,
            replaced,
            inode,
        } = content;
        let key = path::sort_key(&entry.path);
        entry.path.clear();
        if let EntryKind::Directory { .. } = entry.kind {
            let is_opaque = match self.slots.get(&key) {
                Some(Slot::Directory(old)) => {
                    matches!(old.entry.kind, EntryKind::Directory { is_opaque: true })
                }
                Some(Slot::Whiteout) => true,
                Some(Slot::Leaf(_)) | None => false,
            };
            if replaced == Replaced::Leaf {
                self.last_parent = None;
            }
            entry.kind = EntryKind::Directory { is_opaque };
            self.put(
                key,
                Slot::Directory(Node {
                    entry,
                    role: Role::Entry,
                }),
            );
            return;
        }
        if replaced != Replaced::Nothing {
            self.remove_below(&key);
            self.last_parent = None;
        }
        let number = inode.unwrap_or(self.inodes.len());
        if inode.is_none() {
            self.held_bytes += size_of::<Entry>();
            if let EntryKind::Symlink { target } = &entry.kind {
                self.held_bytes += target.len();
            }
            self.inodes.push(entry);
        }
        self.put(key, Slot::Leaf(number));
    }

    fn put(&mut self, key: Vec<u8>, slot: Slot) {
        self.held_bytes += key.len() + size_of::<Slot>();
        self.slots.insert(key, slot);
    }

    fn remove_below(&mut self, key: &[u8]) {
        let mut low = key.to_vec();
        low.push(0);
        let mut high = key.to_vec();
        high.push(1);
        let below: Vec<Vec<u8>> = self
            .slots
            .range(low..high)
            .map(|(key, _)| key.clone())
            .collect();
        for key in below {
            self.slots.remove(&key);
        }
    }

    fn delete(&mut self, at: &[u8]) {
        match self.slots.get(&path::sort_key(at)) {
            Some(Slot::Directory(_)) => self.make_opaque(at),
            Some(Slot::Leaf(_) | Slot::Whiteout) => {}
            None => {
                self.put(path::sort_key(at), Slot::Whiteout);
            }
        }
    }

    fn make_opaque(&mut self, dir: &[u8]) {
        let mut entry = match self.slots.get(&path::sort_key(dir)) {
            Some(Slot::Directory(node)) => node.entry.clone(),
            Some(Slot::Leaf(_) | Slot::Whiteout) | None => Entry::default_directory(Vec::new()),
        };
        entry.kind = EntryKind::Directory { is_opaque: true };
        let node = Node {
            entry,
            role: Role::Entry,
        };
        self.put(path::sort_key(dir), Slot::Directory(node));
    }

    /// The real directory of some parents, made where missing.
    fn parent(
        &mut self,
        parts: &[&[u8]],
        made: &mut Vec<Vec<u8>>,
    ) -> Result<Vec<u8>, EntryProblem> {
        let written = parts.join(&b'/');
        if let Some((last, real)) = &self.last_parent
            && *last == written
        {
            return Ok(real.clone());
        }
        let mut walk = Walk::new(parts);
        while let Some(missing) = walk.advance(&self.slots, &self.inodes)? {
            let was_deleted = self.slots.contains_key(&path::sort_key(&missing));
            let kind = EntryKind::Directory {
                is_opaque: was_deleted,
            };
            let role = if was_deleted {
                Role::Entry
            } else {
                Role::Implied
            };
            let entry = Entry {
                kind,
                ..Entry::default_directory(Vec::new())
            };
            self.put(
                path::sort_key(&missing),
                Slot::Directory(Node { entry, role }),
            );
            made.push(missing);
        }
        self.last_parent = Some((written, walk.current.clone()));
        Ok(walk.current)
    }

    /// Where the target of a hard link at `at` is, and its number.
    fn link_target(&self, target: &[u8], at: &[u8]) -> Result<(Vec<u8>, usize), EntryProblem> {
        let parts = clean(target)?;
        let (name, parents) = parts.split_last().ok_or(EntryProblem::LinkTarget)?;
        let mut walk = Walk::new(parents);
        if walk.advance(&self.slots, &self.inodes)?.is_some() {
            return Err(EntryProblem::LinkTarget);
        }
        let target = path::join(&walk.current, name);
        if target == at || path::is_below(at, &target) {
            return Err(EntryProblem::LinkTarget);
        }
        match self.slots.get(&path::sort_key(&target)) {
            Some(Slot::Leaf(number)) => Ok((target, *number)),
            Some(Slot::Directory(_) | Slot::Whiteout) | None => Err(EntryProblem::LinkTarget),
        }
    }

    /// The index. Of each group of hard links the first path in order becomes the file.
    pub(super) fn finish(self) -> Result<LayerIndex, LayerError> {
        let mut first_paths: Vec<Option<Vec<u8>>> = vec![None; self.inodes.len()];
        let mut nodes = Vec::with_capacity(self.slots.len());
        for (key, slot) in self.slots {
            let at = path::from_sort_key(&key);
            nodes.push(match slot {
                Slot::Directory(node) => Node {
                    entry: Entry {
                        path: at,
                        ..node.entry
                    },
                    ..node
                },
                Slot::Whiteout => Node {
                    entry: Entry::whiteout(at),
                    role: Role::Entry,
                },
                Slot::Leaf(number) => {
                    let inode = self.inodes[number].clone();
                    let kind = match &first_paths[number] {
                        Some(first) => EntryKind::HardLink {
                            target: first.clone(),
                        },
                        None => inode.kind,
                    };
                    first_paths[number].get_or_insert_with(|| at.clone());
                    Node {
                        entry: Entry {
                            path: at,
                            kind,
                            ..inode
                        },
                        role: Role::Entry,
                    }
                }
            });
        }
        LayerIndex::from_sorted(nodes)
    }
}

/// The parts of a path, cleaned by its text: `..` takes back a part, and nothing at the root.
fn clean(written: &[u8]) -> Result<Vec<&[u8]>, EntryProblem> {
    // Some slack for `./`, a closing slash and the mark of a deletion; what comes of it is measured again.
    if written.len() > LONGEST_PATH + 16 || written.contains(&0) {
        return Err(EntryProblem::Path);
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path::components(written) {
        if part.strip_prefix(WHITEOUT_PREFIX).unwrap_or(part).len() > LONGEST_NAME {
            return Err(EntryProblem::Path);
        }
        if part == b".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    Ok(parts)
}

/// An id that `chown` can set: -1 would mean "as it is".
fn owner(id: i64) -> Result<u32, EntryProblem> {
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        Ok(_) | Err(_) => Err(EntryProblem::Number),
    }
}

fn device(major: i64, minor: i64) -> Result<(u32, u32), EntryProblem> {
    let number = |value: i64, most: i64| {
        let value = if value <= most {
            u32::try_from(value).ok()
        } else {
            None
        };
        value.ok_or(EntryProblem::Number)
    };
    Ok((number(major, MOST_MAJOR)?, number(minor, MOST_MINOR)?))
}
