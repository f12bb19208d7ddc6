//! Turns an overlay upper directory into a layer: a normalised tree, its index and its tar, in one pass.
//!
//! The overlay must be unmounted and the directory private to this call. Afterwards it is a frozen tree: unpacking the
//! tar gives the same tree again.
//!
//! # What is normalised
//!
//! - Times are whole seconds, rounded down; `clamp_mtime` limits them. Attributes other than `security.capability` (and
//!   the host's own `security.*` labels) are removed, overlayfs's among them; sockets are removed.
//! - A file, link or device equal to the lower one in type, mode, owner, time, capability and bytes is no change and is
//!   removed. Times and sizes only tell which files to compare: the bytes decide. A time with a fraction of a second was
//!   written by the step, so it is never the lower one. Members of a hard-link group stay: that they are linked may be
//!   the change.
//! - A directory equal to the lower one is implied if it has changes below, else removed. Of the root only mode and owner
//!   count, as its time changes with every name in it. One that the step made in place of the lower one is a change: it
//!   may have the time of a third (`mv`, `cp -a`), and only the clock would tell whether that is the lower one's.
//! - A deletion of what the lower layers don't have is removed.
//! - An opaque directory becomes a plain one with a deletion for each hidden name, and so do the directories below it
//!   that lower layers have too. What the mounted stack shows stays the same, and the layer says what it deletes.
//! - A socket in place of something leaves the deletion.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use rustix::fs::{self, AtFlags, FileType, Stat};

use super::attributes::Strip;
use super::draft::WHITEOUT_PREFIX;
use super::entry::{Entry, EntryKind};
use super::error::{EntryProblem, LayerError};
use super::index::{LayerIndex, Node, Role};
use super::pack::TarWriter;
use super::path as layer_path;
use super::sink::{Packed, TarSink};
use super::stack::LayerStack;
use super::tree::{self, OverlayXattrs};
use crate::digest::{ContentDigest, DiffId};

/// How to freeze.
#[derive(Clone, Copy, Debug)]
pub struct FreezeOptions {
    /// The names of overlayfs's attributes in the upper directory.
    pub xattrs: OverlayXattrs,
    /// Later times become this one (`rewrite-timestamp`).
    pub clamp_mtime: Option<i64>,
}

/// A frozen layer.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// Its index.
    pub index: LayerIndex,
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// Size of its tar in bytes.
    pub size: u64,
}

/// Freezes the upper directory of an overlay over `lower`; writes the tar to `sink`.
///
/// # Errors
///
/// [`LayerError::Entry`] for content that a layer cannot have: names starting with `.wh.`, and directories and files
/// that overlayfs made by reference to lower ones.
pub fn freeze(
    upper: &Path,
    lower: &LayerStack,
    sink: &mut dyn TarSink,
    options: FreezeOptions,
) -> Result<Frozen, LayerError> {
    let mut freezer = Freezer {
        lower,
        strip: Strip {
            upper,
            xattrs: options.xattrs,
        },
        clamp_mtime: options.clamp_mtime,
        upper,
        tar: TarWriter::new(sink),
        nodes: Vec::new(),
        links: BTreeMap::new(),
    };
    freezer.run()?;
    let Packed { diff_id, size } = freezer.tar.finish()?;
    Ok(Frozen {
        index: LayerIndex::from_sorted(freezer.nodes)?,
        diff_id,
        size,
    })
}

struct Freezer<'a> {
    lower: &'a LayerStack,
    strip: Strip<'a>,
    clamp_mtime: Option<i64>,
    upper: &'a Path,
    tar: TarWriter<'a>,
    nodes: Vec<Node>,
    /// The first path of each inode that has several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

/// A directory being walked.
struct Frame {
    fd: OwnedFd,
    path: Vec<u8>,
    names: IntoIter<Name>,
    /// Whether lower directories of the same path must not show through.
    is_opaque: bool,
    mtime: i64,
    /// The number of its own node.
    node: usize,
}

enum Name {
    Present(Vec<u8>),
    /// A lower name that an opaque directory hides.
    Hidden(Vec<u8>),
}

impl Freezer<'_> {
    /// Walks without recursion, as a step may have made directories deeper than a thread's stack.
    fn run(&mut self) -> Result<(), LayerError> {
        let flags = fs::OFlags::RDONLY | fs::OFlags::DIRECTORY | fs::OFlags::CLOEXEC;
        let root = fs::open(self.upper, flags, fs::Mode::empty())
            .map_err(LayerError::os("open", self.upper))?;
        let mut frames = vec![self.enter(root, Vec::new(), false)?];
        while let Some(frame) = frames.last_mut() {
            let entered = match frame.names.next() {
                Some(Name::Hidden(name)) => {
                    self.hide(frame, &name)?;
                    None
                }
                Some(Name::Present(name)) => self.present(frame, &name)?,
                None => {
                    self.leave(frame)?;
                    let left = frames.pop();
                    if let (Some(left), Some(parent)) = (left, frames.last()) {
                        self.drop_unchanged(parent, &left)?;
                    }
                    None
                }
            };
            frames.extend(entered);
        }
        Ok(())
    }

    /// A directory of the upper directory for messages.
    fn shown(&self, at: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.upper.join(std::ffi::OsStr::from_bytes(at))
    }

    fn enter(
        &mut self,
        fd: OwnedFd,
        at: Vec<u8>,
        is_below_opaque: bool,
    ) -> Result<Frame, LayerError> {
        let stat = fs::fstat(&fd).map_err(LayerError::os("stat", self.shown(&at)))?;
        let is_opaque = self.strip.directory(fd.as_fd(), &at)? || is_below_opaque;
        let mut entry = self.entry(at, EntryKind::Directory { is_opaque: false }, &stat);
        let below = self.lower.lookup(&entry.path).map(|found| found.entry);
        let is_unchanged = below
            .filter(|lower| lower.is_directory())
            .is_some_and(|lower| {
                if entry.path.is_empty() {
                    lower.has_owner_of(&entry)
                } else {
                    !is_opaque && is_frozen_time(&stat) && lower.has_metadata_of(&entry)
                }
            });
        let role = if is_unchanged {
            Role::Implied
        } else {
            Role::Entry
        };
        if let (Role::Implied, true, Some(lower)) = (role, entry.path.is_empty(), below) {
            entry.mtime = lower.mtime;
        }
        let present =
            tree::names(fd.as_fd()).map_err(LayerError::os("read", self.shown(&entry.path)))?;
        let names = self.with_hidden(present, is_opaque, &entry.path);
        let (path, mtime, node) = (entry.path.clone(), entry.mtime, self.nodes.len());
        if role == Role::Entry {
            self.tar.entry(&entry)?;
        }
        self.nodes.push(Node { entry, role });
        Ok(Frame {
            fd,
            path,
            names: names.into_iter(),
            is_opaque,
            mtime,
            node,
        })
    }

    /// Adds the lower names that an opaque directory hides, in order.
    fn with_hidden(&self, present: Vec<Vec<u8>>, is_opaque: bool, at: &[u8]) -> Vec<Name> {
        if !is_opaque {
            return present.into_iter().map(Name::Present).collect();
        }
        let lower = self.lower.children(at);
        let present: BTreeSet<Vec<u8>> = present.into_iter().collect();
        let hidden: BTreeSet<Vec<u8>> = lower
            .into_keys()
            .filter(|name| !present.contains(name))
            .collect();
        let mut names: Vec<Name> = present.into_iter().map(Name::Present).collect();
        names.extend(hidden.into_iter().map(Name::Hidden));
        names.sort_by(|l, r| l.bytes().cmp(r.bytes()));
        names
    }

    fn leave(&mut self, frame: &Frame) -> Result<(), LayerError> {
        tree::set_mtime(frame.fd.as_fd(), b".", frame.mtime)
            .map_err(LayerError::os("set time of", self.shown(&frame.path)))
    }

    /// Removes a directory that neither changed nor holds changes.
    fn drop_unchanged(&mut self, parent: &Frame, left: &Frame) -> Result<(), LayerError> {
        let is_last = left.node + 1 == self.nodes.len();
        if !is_last || self.nodes[left.node].role == Role::Entry {
            return Ok(());
        }
        self.nodes.pop();
        let (_, name) = layer_path::split(&left.path).unwrap_or((b"", b"."));
        fs::unlinkat(&parent.fd, name, AtFlags::REMOVEDIR)
            .map_err(LayerError::os("remove", self.shown(&left.path)))
    }

    fn hide(&mut self, frame: &Frame, name: &[u8]) -> Result<(), LayerError> {
        let at = layer_path::join(&frame.path, name);
        tree::make_whiteout(frame.fd.as_fd(), name)
            .map_err(LayerError::os("make whiteout", self.shown(&at)))?;
        self.push(Entry::whiteout(at))
    }

    /// Writes an entry without content.
    fn push(&mut self, entry: Entry) -> Result<(), LayerError> {
        self.tar.entry(&entry)?;
        self.nodes.push(Node {
            entry,
            role: Role::Entry,
        });
        Ok(())
    }

    /// Takes one name of a directory; gives the frame to go on with if it is a directory itself.
    fn present(&mut self, frame: &Frame, name: &[u8]) -> Result<Option<Frame>, LayerError> {
        let at = layer_path::join(&frame.path, name);
        if name.starts_with(WHITEOUT_PREFIX) {
            return Err(LayerError::entry(&at, EntryProblem::ReservedName));
        }
        if at.len() > layer_path::LONGEST_PATH {
            return Err(LayerError::entry(&at, EntryProblem::Path));
        }
        let dir = frame.fd.as_fd();
        let stat = tree::stat(dir, name).map_err(LayerError::os("stat", self.shown(&at)))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let opened = tree::open_dir(dir, name);
                let opened = opened.map_err(LayerError::os("open", self.shown(&at)))?;
                return self.enter(opened, at, frame.is_opaque).map(Some);
            }
            // Overlayfs links all its whiteouts to one inode, so they are told before hard links are.
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                self.whiteout(dir, name, at)?;
                return Ok(None);
            }
            FileType::Socket => {
                self.socket(dir, name, at)?;
                return Ok(None);
            }
            FileType::RegularFile => {
                self.regular(dir, name, at, &stat)?;
                return Ok(None);
            }
            FileType::Symlink => {
                let target = fs::readlinkat(dir, name, Vec::new());
                let target = target.map_err(LayerError::os("read link", self.shown(&at)))?;
                EntryKind::Symlink {
                    target: target.into_bytes(),
                }
            }
            FileType::CharacterDevice => EntryKind::CharDevice {
                major: fs::major(stat.st_rdev),
                minor: fs::minor(stat.st_rdev),
            },
            FileType::BlockDevice => EntryKind::BlockDevice {
                major: fs::major(stat.st_rdev),
                minor: fs::minor(stat.st_rdev),
            },
            FileType::Fifo => EntryKind::Fifo,
            FileType::Unknown => return Err(LayerError::entry(&at, EntryProblem::Kind)),
        };
        self.special(dir, name, self.entry(at, kind, &stat), &stat)?;
        Ok(None)
    }

    fn whiteout(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        at: Vec<u8>,
    ) -> Result<(), LayerError> {
        if self.lower.lookup(&at).is_some() {
            return self.push(Entry::whiteout(at));
        }
        self.remove(dir, name, &at)
    }

    fn socket(&mut self, dir: BorrowedFd<'_>, name: &[u8], at: Vec<u8>) -> Result<(), LayerError> {
        self.remove(dir, name, &at)?;
        if self.lower.lookup(&at).is_none() {
            return Ok(());
        }
        tree::make_whiteout(dir, name).map_err(LayerError::os("make whiteout", self.shown(&at)))?;
        self.push(Entry::whiteout(at))
    }

    fn remove(&self, dir: BorrowedFd<'_>, name: &[u8], at: &[u8]) -> Result<(), LayerError> {
        fs::unlinkat(dir, name, AtFlags::empty()).map_err(LayerError::os("remove", self.shown(at)))
    }

    /// The entry of something in the upper directory, times rounded and clamped.
    fn entry(&self, path: Vec<u8>, kind: EntryKind, stat: &Stat) -> Entry {
        let is_symlink = matches!(kind, EntryKind::Symlink { .. });
        let mtime = stat.st_mtime;
        Entry {
            path,
            kind,
            mode: if is_symlink {
                0o777
            } else {
                stat.st_mode & 0o7777
            },
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: self.clamp_mtime.map_or(mtime, |clamp| mtime.min(clamp)),
            capability: None,
        }
    }

    /// If this inode was met before: the link to it. Else notes it.
    fn as_link(&mut self, entry: &Entry, stat: &Stat) -> Option<Entry> {
        if stat.st_nlink < 2 {
            return None;
        }
        let known = self.links.entry((stat.st_dev, stat.st_ino));
        match known {
            std::collections::btree_map::Entry::Occupied(first) => {
                let kind = EntryKind::HardLink {
                    target: first.get().clone(),
                };
                Some(Entry {
                    kind,
                    ..entry.clone()
                })
            }
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(entry.path.clone());
                None
            }
        }
    }

    /// A symlink, device or pipe.
    fn special(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: Entry,
        stat: &Stat,
    ) -> Result<(), LayerError> {
        if let Some(link) = self.as_link(&entry, stat) {
            return self.push(link);
        }
        let is_unchanged = stat.st_nlink < 2
            && is_frozen_time(stat)
            && self.lower.lookup(&entry.path).is_some_and(|found| {
                found.inode.kind == entry.kind && found.inode.has_metadata_of(&entry)
            });
        if is_unchanged {
            return self.remove(dir, name, &entry.path);
        }
        self.strip.special(dir, name, &entry.path)?;
        self.set_time(dir, name, &entry, stat)?;
        self.push(entry)
    }

    fn regular(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        at: Vec<u8>,
        stat: &Stat,
    ) -> Result<(), LayerError> {
        let shown = self.shown(&at);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let kind = EntryKind::File {
            size,
            content: ContentDigest([0; 32]),
        };
        let mut entry = self.entry(at, kind, stat);
        if let Some(link) = self.as_link(&entry, stat) {
            return self.push(link);
        }
        let file =
            tree::open_regular(dir, name).map_err(LayerError::os("open", shown.as_path()))?;
        entry.capability = self.strip.file(file.as_fd(), &entry.path)?;
        let may_be_unchanged = stat.st_nlink < 2 && is_frozen_time(stat);
        if may_be_unchanged && self.is_unchanged(&entry, size, &file, &shown)? {
            return self.remove(dir, name, &entry.path);
        }
        self.set_time(dir, name, &entry, stat)?;
        let mut hasher = blake3::Hasher::new();
        let file = File::from(file);
        self.tar.file(&entry, file, &shown, &mut |bytes| {
            hasher.update(bytes);
        })?;
        let content = ContentDigest(*hasher.finalize().as_bytes());
        entry.kind = EntryKind::File { size, content };
        self.nodes.push(Node {
            entry,
            role: Role::Entry,
        });
        Ok(())
    }

    /// Whether the lower file has the same metadata and bytes.
    fn is_unchanged(
        &self,
        entry: &Entry,
        size: u64,
        file: &OwnedFd,
        shown: &Path,
    ) -> Result<bool, LayerError> {
        let Some(found) = self.lower.lookup(&entry.path) else {
            return Ok(false);
        };
        let EntryKind::File {
            size: lower_size,
            content,
        } = found.inode.kind
        else {
            return Ok(false);
        };
        if lower_size != size || !found.inode.has_metadata_of(entry) {
            return Ok(false);
        }
        let clone = file.try_clone().map_err(LayerError::io("read", shown))?;
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(File::from(clone))
            .map_err(LayerError::io("read", shown))?;
        fs::seek(file, fs::SeekFrom::Start(0)).map_err(LayerError::os("read", shown))?;
        Ok(*hasher.finalize().as_bytes() == content.0)
    }

    fn set_time(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        stat: &Stat,
    ) -> Result<(), LayerError> {
        if stat.st_mtime_nsec == 0 && stat.st_mtime == entry.mtime {
            return Ok(());
        }
        tree::set_mtime(dir, name, entry.mtime)
            .map_err(LayerError::os("set time of", self.shown(&entry.path)))
    }
}

/// Whether the time may be that of the lower layers, which have whole seconds: if not, the step wrote it. Otherwise it would
/// depend on the clock whether a second write within the same second is a change.
fn is_frozen_time(stat: &Stat) -> bool {
    stat.st_mtime_nsec == 0
}

impl Name {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Present(name) | Self::Hidden(name) => name,
        }
    }
}
