//! Writes a planned layer into a fresh tree.
//!
//! The bytes of small files are shown to whoever packs the layer, who need not read them from the tree.
//! Everything is made relative to the tree's descriptor. The tree is private to this call until it returns; what an error
//! leaves in it is the caller's to remove.
//!
//! # Files that change meanwhile
//!
//! The plan holds the digest of each file. A file of the client must have the very stat it was hashed with, before and
//! after copying; if not, or if that stat was too young to tell anything, the copy's bytes are hashed, and only if they are
//! the planned ones it stays. Of what grew, or is no regular file any more, no more is read than was planned.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cache::checksum::file::hash_reader;
use cache::digest::ContentDigest;
use cache::layer::entry::{Entry, EntryKind};
use cache::layer::error::LayerError;
use cache::layer::index::LayerIndex;
use cache::layer::pack::{AtHand, Packed, pack_at_hand};
use cache::layer::sink::TarSink;
use cache::layer::tree::both_times;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, fstat, futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat, utimensat,
};

use super::archive::{self, ArchiveError};
use super::content::Copier;
use super::error::{CREATE_DEVICE, CopyError, WriteError, shown};
use super::files;
use super::plan::{Bytes, CopyPlan, Place, Version};
use super::select::{Sources, tree_of};

/// Writes the layer into an empty directory that exists, with at most `threads` threads, and gives its index.
pub fn apply(
    plan: CopyPlan,
    sources: &Sources<'_>,
    tree: &Path,
    threads: usize,
) -> Result<LayerIndex, CopyError> {
    let ask = |at_hand: AtHand<'_>| -> Result<(), CopyError> {
        for entry in plan.entries() {
            if let EntryKind::File { .. } = entry.kind {
                at_hand(entry).map_err(WriteError::Index)?;
            }
        }
        Ok(())
    };
    write(&plan, sources, tree, threads, ask)?;
    Ok(plan.index)
}

/// As [`apply`]; writes the layer's tar to `sink` in the same pass.
pub fn apply_packed<E: From<CopyError> + From<LayerError>>(
    plan: CopyPlan,
    sources: &Sources<'_>,
    tree: &Path,
    threads: usize,
    sink: &mut dyn TarSink,
) -> Result<(LayerIndex, Packed), E> {
    let packed = write(&plan, sources, tree, threads, |at_hand| {
        pack_at_hand(&plan.index, tree, sink, at_hand).map_err(E::from)
    })?;
    Ok((plan.index, packed))
}

/// Writes the layer. `see` is shown the files meanwhile and must ask for all of them, in order.
fn write<T, E: From<CopyError>>(
    plan: &CopyPlan,
    sources: &Sources<'_>,
    tree: &Path,
    threads: usize,
    see: impl FnOnce(AtHand<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let writer = Writer::open(tree).map_err(CopyError::from)?;
    writer.make_directories(plan).map_err(CopyError::from)?;
    writer.unpack(plan, sources)?;
    let write = |entry: &Entry, bytes: &Bytes| writer.write_file(entry, bytes, sources);
    let seen = files::write(plan, threads, write, see)?;
    for entry in plan.entries() {
        writer.make_other(entry).map_err(CopyError::from)?;
    }
    writer.finish_directories(plan).map_err(CopyError::from)?;
    Ok(seen)
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

struct Writer {
    root: OwnedFd,
    path: PathBuf,
    copier: Copier,
}

impl Writer {
    fn open(tree: &Path) -> Result<Self, WriteError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = openat(rustix::fs::CWD, tree, flags, Mode::empty()).map_err(|errno| {
            WriteError::Io {
                attempt: "open",
                path: tree.to_owned(),
                source: errno.into(),
            }
        })?;
        Ok(Self {
            root,
            path: tree.to_owned(),
            copier: Copier::default(),
        })
    }

    fn fail<E: Into<io::Error>>(
        &self,
        attempt: &'static str,
        path: &[u8],
    ) -> impl Fn(E) -> WriteError {
        move |error| WriteError::Io {
            attempt,
            path: self.path.join(OsStr::from_bytes(path)),
            source: error.into(),
        }
    }

    /// Makes all directories, parents first, for this process alone as yet.
    fn make_directories(&self, plan: &CopyPlan) -> Result<(), WriteError> {
        for (entry, _) in plan.nodes() {
            let path = entry.path.as_slice();
            if !entry.is_directory() || path.is_empty() {
                continue;
            }
            mkdirat(&self.root, OsStr::from_bytes(path), Mode::RWXU)
                .map_err(self.fail("create directory", path))?;
        }
        Ok(())
    }

    /// Sets the directories' metadata, children first: making entries has changed their times.
    fn finish_directories(&self, plan: &CopyPlan) -> Result<(), WriteError> {
        let nodes = plan.index.nodes().iter().rev();
        for entry in nodes.map(|node| &node.entry) {
            if entry.is_directory() {
                let owner = (entry.uid, entry.gid);
                self.set_metadata(&entry.path, Some(entry.mode), owner, entry.mtime)?;
            }
        }
        Ok(())
    }

    /// Owner before mode: changing the owner clears set-id bits.
    fn set_metadata(
        &self,
        path: &[u8],
        mode: Option<u32>,
        (uid, gid): (u32, u32),
        mtime: i64,
    ) -> Result<(), WriteError> {
        let name = OsStr::from_bytes(if path.is_empty() { b"." } else { path });
        chownat(
            &self.root,
            name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(self.fail("set the owner of", path))?;
        if let Some(mode) = mode {
            chmodat(
                &self.root,
                name,
                Mode::from_raw_mode(mode),
                AtFlags::empty(),
            )
            .map_err(self.fail("set the mode of", path))?;
        }
        utimensat(
            &self.root,
            name,
            &both_times(mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(self.fail("set the time of", path))
    }

    fn create(&self, entry: &Entry) -> Result<File, WriteError> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // With what of its mode the process's mask lets through; set-id bits come when the bytes are there.
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        openat(&self.root, OsStr::from_bytes(&entry.path), flags, mode)
            .map(File::from)
            .map_err(self.fail("create", &entry.path))
    }

    fn finish_file(&self, entry: &Entry, file: &File) -> Result<(), WriteError> {
        let path = &entry.path;
        // Looking costs a tenth of setting what is set already, which goes through the journal.
        let made = fstat(file).map_err(self.fail("stat", path))?;
        if (made.st_uid, made.st_gid) != (entry.uid, entry.gid) {
            fchown(
                file,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            )
            .map_err(self.fail("set the owner of", path))?;
        }
        // Changing the owner has cleared set-id bits, with which nothing is made.
        if made.st_mode & 0o7777 != entry.mode {
            fchmod(file, Mode::from_raw_mode(entry.mode))
                .map_err(self.fail("set the mode of", path))?;
        }
        if let Some(value) = &entry.capability {
            fsetxattr(file, "security.capability", value, XattrFlags::empty())
                .map_err(self.fail("set the capabilities of", path))?;
        }
        futimens(file, &both_times(entry.mtime)).map_err(self.fail("set the time of", path))
    }

    /// Writes a file; gives its bytes if they are at hand.
    fn write_file(
        &self,
        entry: &Entry,
        bytes: &Bytes,
        sources: &Sources<'_>,
    ) -> Result<Option<Vec<u8>>, CopyError> {
        let EntryKind::File { content, size } = &entry.kind else {
            return Ok(None);
        };
        let mut file = self.create(entry)?;
        let mut at_hand = None;
        match bytes {
            Bytes::Inline(data) => file
                .write_all(data)
                .map_err(self.fail("write", &entry.path))?,
            Bytes::Source {
                root,
                below,
                version,
            } => {
                let path = root.below(&entry.path, *below);
                let source = tree_of(root.input, sources).open(&path)?;
                let changed = || CopyError::from(WriteError::Changed(shown(&path)));
                let Some(found) = fstat(&source).ok().filter(is_regular) else {
                    return Err(changed());
                };
                let is_the_hashed = |found: &Stat| {
                    version.is_none_or(|version| Version::from(&found.into()) == version)
                };
                let copied = self
                    .copier
                    .copy(&source, &mut file, *size, &mut at_hand)
                    .map_err(self.fail("write", &entry.path))?;
                let is_sure = is_the_hashed(&found)
                    && copied == *size
                    && (version.is_none() || fstat(&source).is_ok_and(|now| is_the_hashed(&now)));
                if !is_sure && self.digest_of(&mut file, entry)? != *content {
                    return Err(changed());
                }
            }
            Bytes::Archive { .. } => return Ok(None),
        }
        self.finish_file(entry, &file)?;
        Ok(at_hand)
    }

    fn digest_of(&self, file: &mut File, entry: &Entry) -> Result<ContentDigest, WriteError> {
        file.seek(SeekFrom::Start(0))
            .and_then(|_| hash_reader(&*file, file.metadata()?.len()))
            .map_err(self.fail("read", &entry.path))
    }

    /// Writes the files that come from archives, reading each archive once.
    fn unpack(&self, plan: &CopyPlan, sources: &Sources<'_>) -> Result<(), CopyError> {
        type Wanted<'p> = Vec<(u64, &'p Entry)>;
        let mut archives: BTreeMap<&Place, Wanted<'_>> = BTreeMap::new();
        for (entry, bytes) in plan.nodes() {
            if let Some(Bytes::Archive { archive, member }) = bytes {
                archives.entry(archive).or_default().push((*member, entry));
            }
        }
        for (Place { input, path }, mut wanted) in archives {
            let fail = |source: ArchiveError| CopyError::Archive {
                path: shown(path),
                source,
            };
            wanted.sort_by_key(|(member, _)| *member);
            let file = tree_of(*input, sources).open(path)?;
            let mut members = archive::open(file).map_err(fail)?;
            let mut number = 0;
            for entries in wanted.chunk_by(|left, right| left.0 == right.0) {
                let wanted = entries.first().map_or(number, |(member, _)| *member);
                loop {
                    let found = members.next_member().map_err(|e| fail(e.into()))?;
                    if found.is_none() {
                        return Err(WriteError::Changed(shown(path)).into());
                    }
                    number += 1;
                    if number > wanted {
                        break;
                    }
                }
                self.write_member(entries, &mut members, path)?;
            }
        }
        Ok(())
    }

    fn write_member(
        &self,
        entries: &[(u64, &Entry)],
        content: &mut impl Read,
        archive: &[u8],
    ) -> Result<(), WriteError> {
        let mut first: Option<File> = None;
        for (_, entry) in entries {
            let mut file = self.create(entry)?;
            match &mut first {
                None => io::copy(content, &mut file).map_err(self.fail("write", &entry.path))?,
                Some(first) => first
                    .seek(SeekFrom::Start(0))
                    .and_then(|_| io::copy(first, &mut file))
                    .map_err(self.fail("write", &entry.path))?,
            };
            let digest = self.digest_of(&mut file, entry)?;
            if !matches!(&entry.kind, EntryKind::File { content, .. } if *content == digest) {
                return Err(WriteError::Changed(shown(archive)));
            }
            self.finish_file(entry, &file)?;
            first.get_or_insert(file);
        }
        Ok(())
    }

    /// Makes what is neither directory nor file with bytes.
    fn make_other(&self, entry: &Entry) -> Result<(), WriteError> {
        let name = OsStr::from_bytes(&entry.path);
        let node = |kind, major, minor| {
            let attempt = match kind {
                FileType::Fifo => "create",
                _ => CREATE_DEVICE,
            };
            mknodat(&self.root, name, kind, Mode::RUSR, makedev(major, minor))
                .map_err(self.fail(attempt, &entry.path))
        };
        let mode = match &entry.kind {
            EntryKind::Directory { .. } | EntryKind::File { .. } | EntryKind::Whiteout => {
                return Ok(());
            }
            EntryKind::HardLink { target } => {
                let first = OsStr::from_bytes(target);
                return linkat(&self.root, first, &self.root, name, AtFlags::empty())
                    .map_err(self.fail("link", &entry.path));
            }
            EntryKind::Symlink { target } => {
                symlinkat(OsStr::from_bytes(target), &self.root, name)
                    .map_err(self.fail("create the link", &entry.path))?;
                None
            }
            EntryKind::CharDevice { major, minor } => {
                node(FileType::CharacterDevice, *major, *minor)?;
                Some(entry.mode)
            }
            EntryKind::BlockDevice { major, minor } => {
                node(FileType::BlockDevice, *major, *minor)?;
                Some(entry.mode)
            }
            EntryKind::Fifo => {
                node(FileType::Fifo, 0, 0)?;
                Some(entry.mode)
            }
        };
        self.set_metadata(&entry.path, mode, (entry.uid, entry.gid), entry.mtime)
    }
}
