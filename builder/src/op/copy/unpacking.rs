//! Where the members of an archive go.
//!
//! Paths and links of members are resolved with the destination as root. Names that start with `.wh.` are ordinary files
//! here; in the image they delete, as they do in BuildKit.
//!
//! The archive is read twice: to plan, hashing the members, and to write them.

use std::io;
use std::sync::Arc;

use cache::checksum::file::hash_reader;
use cache::layer::reader::{Member, MemberKind};
use frontend::graph::InputIndex;

use super::archive::{ArchiveError, MAX_HELD_BYTES, Members, open};
use super::error::{CopyError, shown};
use super::member::{self, checked};
use super::owner::Ids;
use super::plan::{Bytes, CopyPlan, Place, PlannedEntry, PlannedKind};
use super::resolve::{Step, clean, join, resolve, split};
use super::selection::Pick;
use super::source::{SourceKind, SourceTree, resolved};
use super::target::Target;

/// Refuses names that delete files where the layer is used.
pub(crate) fn refuse_deletions(plan: &CopyPlan) -> Result<(), CopyError> {
    let is_reserved = |path: &[u8]| {
        path.split(|byte| *byte == b'/')
            .any(|name| name.starts_with(b".wh."))
    };
    match plan.entries().find(|entry| is_reserved(&entry.path)) {
        Some(entry) => Err(CopyError::Reserved {
            path: shown(&entry.path),
            problem: "its name starts with `.wh.`",
        }),
        None => Ok(()),
    }
}

/// What is wrong where links lead nowhere.
const BROKEN_WAY: &str = "a link on the way to it leads nowhere";
const BROKEN_TARGET: &str = "a link on the way to what it is another name of leads nowhere";

/// How many bytes may fill the last block of an archive: of 10 KiB for most, of what `tar --blocking-factor` says.
const LONGEST_FILLING: u64 = 1 << 20;

/// An archive on its way into a destination.
pub(super) struct Unpacking<'a> {
    pub(super) tree: &'a dyn SourceTree,
    pub(super) pick: &'a Pick,
    pub(super) input: Option<InputIndex>,
    /// `--chown`
    pub(super) owner: Option<Ids>,
    /// The destination, resolved.
    pub(super) at: Vec<u8>,
}

/// Plans all members of an archive.
pub(super) fn plan_members(
    target: &mut Target<'_>,
    unpacking: &Unpacking<'_>,
    groups: &mut u32,
) -> Result<(), CopyError> {
    let fail = |source: ArchiveError| CopyError::Archive {
        path: shown(&unpacking.pick.path),
        source,
    };
    target.make_directories(&unpacking.at, 0o755, unpacking.owner)?;
    let mut members = open(unpacking.tree.open(&unpacking.pick.path)?).map_err(fail)?;
    let archive = Arc::new(Place {
        input: unpacking.input,
        path: unpacking.pick.path.clone(),
    });
    let mut number = 0;
    while let Some(member) = members.next_member().map_err(|e| fail(e.into()))? {
        if !target.take_room(member.size) {
            return Err(fail(ArchiveError::TooLarge));
        }
        if target.held_bytes() > MAX_HELD_BYTES {
            return Err(fail(ArchiveError::TooMany));
        }
        let mut planning = MemberPlan {
            target,
            unpacking,
            groups,
            archive: &archive,
            number,
        };
        let place = planning.place(&member)?;
        if let Some(relative) = place {
            let kind = planning.kind(&member, &relative, &mut members)?;
            planning.put(&member, relative, kind)?;
        }
        number += 1;
    }
    // What compressed it has its checksum behind what fills the archive's last block.
    members
        .finish_within(LONGEST_FILLING)
        .map_err(|e| fail(e.into()))
}

/// One member being planned.
struct MemberPlan<'m, 't, 'u> {
    target: &'m mut Target<'t>,
    unpacking: &'m Unpacking<'u>,
    groups: &'m mut u32,
    archive: &'m Arc<Place>,
    number: u64,
}

impl MemberPlan<'_, '_, '_> {
    fn fail(&self, source: ArchiveError) -> CopyError {
        CopyError::Archive {
            path: shown(&self.unpacking.pick.path),
            source,
        }
    }

    /// Where a path inside the archive leads, relative to the destination; links followed but for the last name. `broken`
    /// is the problem with a member where one of these links leads nowhere.
    fn resolve_parent(
        &self,
        member: &Member,
        path: &[u8],
        broken: &'static str,
    ) -> Result<Option<Vec<u8>>, CopyError> {
        // A member that leaves its name out means the destination.
        if !path.is_empty() {
            member::check_path(path).map_err(|problem| {
                let path = shown(&member.path);
                self.fail(ArchiveError::Member { path, problem })
            })?;
        }
        let path = clean(path);
        let Some((parent, name)) = split(&path) else {
            return Ok(None);
        };
        let step = |path: &[u8]| {
            let found = self.target.lookup(&join(&self.unpacking.at, path))?;
            Ok(found.map(|entry| entry.kind))
        };
        let found = resolved(parent, resolve(parent, step))?;
        if found.is_dangling {
            return Err(self.fail(ArchiveError::Member {
                path: shown(&member.path),
                problem: broken,
            }));
        }
        Ok(Some(join(&found.path, name)))
    }

    /// The member's place relative to the destination, with parents made. `None` for the destination itself, which an
    /// archive does not change.
    fn place(&mut self, member: &Member) -> Result<Option<Vec<u8>>, CopyError> {
        let relative = self.resolve_parent(member, &member.path, BROKEN_WAY)?;
        let Some(relative) = relative else {
            return Ok(None);
        };
        if let Some((parent, _)) = split(&relative) {
            let owner = self.unpacking.owner.unwrap_or(Ids { uid: 0, gid: 0 });
            let parent = join(&self.unpacking.at, parent);
            // Those that an archive leaves out are root's, whatever they are in.
            self.target.make_directories(&parent, 0o755, Some(owner))?;
        }
        Ok(Some(relative))
    }

    fn kind(
        &mut self,
        member: &Member,
        relative: &[u8],
        content: &mut Members,
    ) -> Result<PlannedKind, CopyError> {
        let wrong = |problem| ArchiveError::Member {
            path: shown(&member.path),
            problem,
        };
        let kind = match &member.kind {
            MemberKind::Directory => Ok(PlannedKind::Directory),
            MemberKind::Fifo => Ok(PlannedKind::Fifo),
            MemberKind::Symlink(target) => member::check_path(target)
                .map(|()| PlannedKind::Symlink(target.clone()))
                .map_err(wrong),
            MemberKind::CharDevice(0, 0) => Err(wrong(
                "a character device 0/0 would hide files of the image",
            )),
            MemberKind::CharDevice(major, minor) => member::device(*major, *minor)
                .map(|(major, minor)| PlannedKind::CharDevice(major, minor))
                .map_err(wrong),
            MemberKind::BlockDevice(major, minor) => member::device(*major, *minor)
                .map(|(major, minor)| PlannedKind::BlockDevice(major, minor))
                .map_err(wrong),
            MemberKind::HardLink(target) => return self.link(member, target, relative),
            MemberKind::File => self.file(member, content),
        };
        kind.map_err(|source| self.fail(source))
    }

    fn file(&self, member: &Member, content: &mut Members) -> Result<PlannedKind, ArchiveError> {
        let hashed = hash_reader(content, member.size).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
            _ => ArchiveError::Read(source),
        })?;
        Ok(PlannedKind::File {
            size: member.size,
            content: hashed,
            bytes: Bytes::Archive {
                archive: Arc::clone(self.archive),
                member: self.number,
            },
            group: 0,
        })
    }

    /// A hard link becomes a member of its target's group.
    fn link(
        &mut self,
        member: &Member,
        target: &[u8],
        relative: &[u8],
    ) -> Result<PlannedKind, CopyError> {
        let found = self
            .resolve_parent(member, target, BROKEN_TARGET)?
            .unwrap_or_default();
        let path = join(&self.unpacking.at, &found);
        let names = || (shown(&found), shown(relative));
        let Some(mut entry) = self.target.planned(&path) else {
            return self.link_to_base(member, path, names());
        };
        match &mut entry.kind {
            PlannedKind::File { group, .. } => {
                if *group == 0 {
                    *self.groups += 1;
                    *group = *self.groups;
                }
                let kind = entry.kind.clone();
                self.target.put(entry);
                Ok(kind)
            }
            // A second name of a link or device is a second link or device.
            PlannedKind::Symlink(_)
            | PlannedKind::CharDevice(..)
            | PlannedKind::BlockDevice(..)
            | PlannedKind::Fifo => Ok(entry.kind),
            PlannedKind::Directory => Err(self.fail(ArchiveError::Member {
                path: names().1,
                problem: "hard link to a directory",
            })),
        }
    }

    /// A hard link to a file of the base takes that file into the layer, as linking on an overlay does. Both names have
    /// the link's metadata.
    fn link_to_base(
        &mut self,
        member: &Member,
        path: Vec<u8>,
        (target, link): (String, String),
    ) -> Result<PlannedKind, CopyError> {
        let Some((input, entry)) = self.target.file_of_base(&path)? else {
            let is_there = self.target.lookup(&path)?.is_some();
            let path = link;
            return Err(self.fail(if is_there {
                ArchiveError::LinkToBase { target, path }
            } else {
                ArchiveError::LinkTarget { target, path }
            }));
        };
        let SourceKind::File {
            size,
            content: Some(content),
        } = entry.kind
        else {
            let path = link;
            return Err(self.fail(ArchiveError::LinkToBase { target, path }));
        };
        // It is not seen any more if something of the archive came in place of a folder above it.
        if self.target.lookup(&path)?.is_none() {
            let path = link;
            return Err(self.fail(ArchiveError::LinkTarget { target, path }));
        }
        *self.groups += 1;
        let kind = PlannedKind::File {
            size,
            content,
            bytes: Bytes::Source {
                root: Arc::new(Place {
                    input: Some(input),
                    path: path.clone(),
                }),
                below: 0,
                version: None,
            },
            group: *self.groups,
        };
        let (own, capability) = checked(member, &kind).map_err(|source| self.fail(source))?;
        let owner = self.unpacking.owner.unwrap_or(own);
        self.target.put(PlannedEntry {
            path,
            kind: kind.clone(),
            mode: member.mode & 0o7777,
            uid: owner.uid,
            gid: owner.gid,
            mtime: member::mtime(member),
            capability,
        });
        Ok(kind)
    }

    fn put(
        &mut self,
        member: &Member,
        relative: Vec<u8>,
        kind: PlannedKind,
    ) -> Result<(), CopyError> {
        let path = join(&self.unpacking.at, &relative);
        let found = self.target.lookup(&path)?;
        let is_directory = found.map(|found| found.kind == Step::Directory);
        let stays_directory = is_directory == Some(true) && kind == PlannedKind::Directory;
        // A directory comes in place of anything else, and anything else in place of a directory.
        if is_directory.is_some() && !stays_directory {
            self.target.replace(&path);
        }
        let (own, capability) = checked(member, &kind).map_err(|source| self.fail(source))?;
        let owner = self.unpacking.owner.unwrap_or(own);
        let mode = match kind {
            PlannedKind::Symlink(_) => 0o777,
            PlannedKind::Directory
            | PlannedKind::File { .. }
            | PlannedKind::CharDevice(..)
            | PlannedKind::BlockDevice(..)
            | PlannedKind::Fifo => member.mode & 0o7777,
        };
        self.target.put(PlannedEntry {
            path,
            kind,
            mode,
            uid: owner.uid,
            gid: owner.gid,
            mtime: member::mtime(member),
            capability,
        });
        Ok(())
    }
}
