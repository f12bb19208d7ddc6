//! Unpacks a layer's tar into a fresh tree with overlayfs's marks for deletions.
//!
//! `draft` decides where everything goes; here it is made, below directories that are opened one by one without
//! following links. The tree must be fresh and private to this call, so what is in it is what was made here.
//!
//! Owners, modes, times and `security.capability` are set; nothing else. Deletions, opaque marks and directories'
//! metadata come last, so that making entries does not spoil times.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};

use super::draft::{Content, Replaced};
use super::entry::{Entry, EntryKind};
use super::error::LayerError;
use super::index::LayerIndex;
use super::scan::{self, Target, Written};
use super::tree::{self, OverlayXattrs, Tree};
use crate::remove::remove_at;

/// Copied at once.
const BUFFER: usize = 256 * 1024;

/// Unpacks an uncompressed tar into an empty directory that exists; gives the same index as [`scan::scan`].
///
/// Reads the input to its end. After an error the directory holds a part and must be discarded. In trees for user
/// namespaces device nodes and their hard links are left out.
pub fn apply(
    input: impl Read,
    dir: &Path,
    xattrs: OverlayXattrs,
) -> Result<LayerIndex, LayerError> {
    let mut writer = TreeWriter {
        tree: Tree::open(dir)?,
        buffer: vec![0; BUFFER],
        xattrs,
        left_out: BTreeSet::new(),
    };
    let index = scan::run(input, &mut writer)?;
    writer.tree.forget();
    finish(&mut writer.tree, &index, xattrs)?;
    Ok(index)
}

/// Makes a directory tree of the directories given alone (which must be in order, with parents), with their metadata.
pub fn make_directories(dir: &Path, directories: &[Entry]) -> Result<(), LayerError> {
    let mut tree = Tree::open(dir)?;
    for entry in directories.iter().filter(|entry| !entry.path.is_empty()) {
        make_directory(&mut tree, &entry.path)?;
    }
    for entry in directories.iter().rev() {
        set_directory(&mut tree, entry, None)?;
    }
    Ok(())
}

/// Gives directories that a tree has the metadata told, in any order.
pub fn set_directories<'a>(
    dir: &Path,
    directories: impl IntoIterator<Item = &'a Entry>,
) -> Result<(), LayerError> {
    let mut tree = Tree::open(dir)?;
    for entry in directories {
        set_directory(&mut tree, entry, None)?;
    }
    Ok(())
}

struct TreeWriter {
    tree: Tree,
    buffer: Vec<u8>,
    xattrs: OverlayXattrs,
    /// Where the tar has something that this tree is without.
    left_out: BTreeSet<Vec<u8>>,
}

impl Target for TreeWriter {
    fn make_parent(&mut self, at: &[u8]) -> Result<(), LayerError> {
        make_directory(&mut self.tree, at)
    }

    fn make(&mut self, content: &Content) -> Result<(), LayerError> {
        let entry = &content.entry;
        if entry.is_directory() && content.replaced == Replaced::Directory {
            return Ok(());
        }
        self.make_room(content)?;
        match &entry.kind {
            EntryKind::Directory { .. } => return make_directory(&mut self.tree, &entry.path),
            EntryKind::HardLink { target } if self.left_out.contains(target) => {
                self.left_out.insert(entry.path.clone());
                return Ok(());
            }
            EntryKind::HardLink { target } => return self.link(&entry.path, target),
            // The kernel makes no device nodes in user namespaces. Nobody could open one there either, so the tree is
            // without, as everywhere; the index and the tar keep it.
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. }
                if self.xattrs == OverlayXattrs::User =>
            {
                self.left_out.insert(entry.path.clone());
                return Ok(());
            }
            EntryKind::Symlink { .. }
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. }
            | EntryKind::Fifo
            | EntryKind::File { .. }
            | EntryKind::Whiteout => {}
        }
        let shown = self.tree.shown(&entry.path);
        let (dir, name) = self.tree.parent(&entry.path)?;
        make_special(dir, name, entry).map_err(LayerError::os("make", shown))
    }

    fn make_file(
        &mut self,
        content: &Content,
        bytes: &mut dyn Read,
    ) -> Result<Written, LayerError> {
        self.make_room(content)?;
        let entry = &content.entry;
        let shown = self.tree.shown(&entry.path);
        let (dir, name) = self.tree.parent(&entry.path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(LayerError::os("create", shown.as_path()))?;
        let mut file = File::from(file);
        let written = scan::copy(bytes, entry, &mut self.buffer, &mut |part| {
            file.write_all(part)
                .map_err(LayerError::io("write", shown.as_path()))
        })?;
        set_file(file.as_fd(), entry).map_err(LayerError::os("set metadata of", shown))?;
        Ok(written)
    }
}

impl TreeWriter {
    /// Removes what the entry replaces.
    fn make_room(&mut self, content: &Content) -> Result<(), LayerError> {
        let was_left_out = self.left_out.remove(&content.entry.path);
        match content.replaced {
            Replaced::Nothing => return Ok(()),
            Replaced::Leaf if was_left_out => return Ok(()),
            Replaced::Leaf => {}
            Replaced::Directory => self.tree.forget(),
        }
        let shown = self.tree.shown(&content.entry.path);
        let (dir, name) = self.tree.parent(&content.entry.path)?;
        remove_at(dir, name).map_err(LayerError::os("remove", shown))
    }

    fn link(&mut self, at: &[u8], target: &[u8]) -> Result<(), LayerError> {
        let shown = self.tree.shown(at);
        let (source_dir, source) = self.tree.parent(target)?;
        let source_dir = source_dir
            .try_clone_to_owned()
            .map_err(LayerError::io("open", shown.as_path()))?;
        let (dir, name) = self.tree.parent(at)?;
        fs::linkat(source_dir, source, dir, name, AtFlags::empty())
            .map_err(LayerError::os("link", shown))
    }
}

fn make_directory(tree: &mut Tree, at: &[u8]) -> Result<(), LayerError> {
    let shown = tree.shown(at);
    let (dir, name) = tree.parent(at)?;
    fs::mkdirat(dir, name, Mode::RWXU).map_err(LayerError::os("make directory", shown))
}

/// Makes a symlink, device or pipe with its metadata.
fn make_special(dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> rustix::io::Result<()> {
    let (file_type, device) = match &entry.kind {
        EntryKind::Symlink { target } => {
            fs::symlinkat(target.as_slice(), dir, name)?;
            chown(dir, name, entry)?;
            let times = tree::both_times(entry.mtime);
            return fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        }
        EntryKind::CharDevice { major, minor } => {
            (FileType::CharacterDevice, fs::makedev(*major, *minor))
        }
        EntryKind::BlockDevice { major, minor } => {
            (FileType::BlockDevice, fs::makedev(*major, *minor))
        }
        EntryKind::Fifo => (FileType::Fifo, 0),
        // Made elsewhere.
        EntryKind::Directory { .. }
        | EntryKind::File { .. }
        | EntryKind::HardLink { .. }
        | EntryKind::Whiteout => return Err(rustix::io::Errno::INVAL),
    };
    fs::mknodat(dir, name, file_type, Mode::RUSR, device)?;
    chown(dir, name, entry)?;
    // Made just now and no symlink, so nothing is followed; `fchmodat` cannot be told not to before Linux 6.6.
    fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    fs::utimensat(
        dir,
        name,
        &tree::both_times(entry.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

fn chown(dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

/// Owner first: changing it clears set-id bits and capabilities.
fn set_file(file: BorrowedFd<'_>, entry: &Entry) -> rustix::io::Result<()> {
    fs::fchown(
        file,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )?;
    fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    if let Some(capability) = &entry.capability {
        fs::fsetxattr(file, tree::CAPABILITY, capability, XattrFlags::empty())?;
    }
    fs::futimens(file, &tree::both_times(entry.mtime))
}

fn set_directory(
    tree: &mut Tree,
    entry: &Entry,
    opaque: Option<OverlayXattrs>,
) -> Result<(), LayerError> {
    let shown = tree.shown(&entry.path);
    let (dir, name) = tree.parent(&entry.path)?;
    let set = |opened: BorrowedFd<'_>| {
        fs::fchown(
            opened,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )?;
        fs::fchmod(opened, Mode::from_raw_mode(entry.mode))?;
        if let Some(xattrs) = opaque {
            fs::fsetxattr(opened, xattrs.opaque(), b"y", XattrFlags::empty())?;
        }
        fs::futimens(opened, &tree::both_times(entry.mtime))
    };
    tree::open_dir(dir, name)
        .and_then(|opened| set(opened.as_fd()))
        .map_err(LayerError::os("set metadata of", shown))
}

/// Makes deletions, then sets the metadata of directories, innermost first.
fn finish(tree: &mut Tree, index: &LayerIndex, xattrs: OverlayXattrs) -> Result<(), LayerError> {
    for entry in index
        .entries()
        .filter(|entry| entry.kind == EntryKind::Whiteout)
    {
        let shown = tree.shown(&entry.path);
        let (dir, name) = tree.parent(&entry.path)?;
        tree::make_whiteout(dir, name).map_err(LayerError::os("make whiteout", shown))?;
    }
    for node in index.nodes().iter().rev() {
        if let EntryKind::Directory { is_opaque } = node.entry.kind {
            set_directory(tree, &node.entry, is_opaque.then_some(xattrs))?;
        }
    }
    Ok(())
}
