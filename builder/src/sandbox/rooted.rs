//! Finds and makes paths inside a root that may be hostile.
//!
//! A path is never given to the kernel as a whole unless the kernel keeps it inside the root (`RESOLVE_IN_ROOT`). Where
//! something must be made, the walk goes component by component from a descriptor, follows no symlink by itself and resolves
//! each against the root, also while another step writes to the same cache mount.
//!
//! What was made for a mount is noted as a stub, so that [`stubs`](super::stubs) can take it back.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, chownat,
    fstat, mkdirat, mknodat, openat, openat2, readlinkat, utimensat,
};
use rustix::io::Errno;

use super::stubs::{Parent, Stub, Stubs, Timestamp};

const EPOCH: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    },
    last_modification: Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    },
};

/// What to make where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Make {
    /// A directory.
    Directory,
    /// An empty file (its parents are directories).
    File,
}

/// What happens afterwards to what was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// It is taken back if still empty.
    TakeBack,
    /// It stays and belongs to this user.
    Keep(u32, u32),
}

/// A path in the root.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) fd: OwnedFd,
    pub(super) was_made: bool,
}

/// A directory that no path leads out of.
#[derive(Debug)]
pub(super) struct Rooted {
    root: OwnedFd,
    device: u64,
    stubs: Vec<Stub>,
    parents: BTreeMap<PathBuf, (OwnedFd, Timestamp)>,
}

/// As many symlinks as the kernel follows.
const MAX_LINKS: u32 = 40;

const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Rooted {
    pub(super) fn new(root: OwnedFd) -> Result<Self, Errno> {
        let device = fstat(&root)?.st_dev;
        Ok(Self {
            root,
            device,
            stubs: Vec::new(),
            parents: BTreeMap::new(),
        })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens (`O_PATH`) what is there, following symlinks inside the root.
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        open_inside(self.root(), path)
    }

    /// Opens a directory right below the root that is no symlink; makes it (0755) if nothing is there. It ends up in the
    /// layer, so it tells no time: nobody asked for it.
    pub(super) fn system_dir(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let name = path.strip_prefix("/").unwrap_or(path);
        let flags = LOOK | OFlags::NOFOLLOW | OFlags::DIRECTORY;
        match openat(&self.root, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                mkdirat(&self.root, name, Mode::from_raw_mode(0o755))?;
                utimensat(&self.root, name, &EPOCH, AtFlags::SYMLINK_NOFOLLOW)?;
                openat(&self.root, name, flags, Mode::empty())
            }
            other => other,
        }
    }

    /// Opens a path, or makes it and its parents (0755).
    pub(super) fn ensure(
        &mut self,
        path: &Path,
        make: Make,
        afterwards: Afterwards,
    ) -> Result<Found, Errno> {
        match self.open(path) {
            Ok(fd) => Ok(Found {
                fd,
                was_made: false,
            }),
            Err(Errno::NOENT) => self.walk(path, make, afterwards),
            Err(errno) => Err(errno),
        }
    }

    fn walk(&mut self, path: &Path, make: Make, afterwards: Afterwards) -> Result<Found, Errno> {
        let mut pending = components(path);
        let mut dirs: Vec<(OsString, OwnedFd)> = Vec::new();
        let mut links = 0;
        let mut was_made = false;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                drop(dirs.pop());
                continue;
            }
            let here = dirs.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let fd = match openat(here, &name, LOOK | OFlags::NOFOLLOW, Mode::empty()) {
                Err(Errno::NOENT) => {
                    let here = here.try_clone_to_owned().map_err(|_full| Errno::MFILE)?;
                    let kind = if pending.is_empty() {
                        make
                    } else {
                        Make::Directory
                    };
                    self.make(&here, &dirs, &name, kind, afterwards)?;
                    was_made = true;
                    openat(&here, &name, LOOK | OFlags::NOFOLLOW, Mode::empty())?
                }
                other => other?,
            };
            match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
                FileType::Directory => dirs.push((name, fd)),
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = readlinkat(&fd, "", Vec::new())?.into_bytes();
                    if target.first() == Some(&b'/') {
                        dirs.clear();
                    }
                    let mut rest = components(Path::new(&OsString::from_vec(target)));
                    rest.append(&mut pending);
                    pending = rest;
                }
                _ if pending.is_empty() => return Ok(Found { fd, was_made }),
                _ => return Err(Errno::NOTDIR),
            }
        }
        let fd = match dirs.pop() {
            Some((_, fd)) => fd,
            None => self.root.try_clone().map_err(|_full| Errno::MFILE)?,
        };
        Ok(Found { fd, was_made })
    }

    fn make(
        &mut self,
        here: &OwnedFd,
        dirs: &[(OsString, OwnedFd)],
        name: &OsStr,
        make: Make,
        afterwards: Afterwards,
    ) -> Result<(), Errno> {
        match afterwards {
            Afterwards::TakeBack => self.note(here, dirs, name, make)?,
            // What stays is a change, and its directory's time tells so.
            Afterwards::Keep(..) => drop(self.parents.remove(&joined(dirs))),
        }
        match make {
            Make::Directory => mkdirat(here, name, Mode::from_raw_mode(0o755))?,
            Make::File => mknodat(
                here,
                name,
                FileType::RegularFile,
                Mode::from_raw_mode(0o644),
                0,
            )?,
        }
        if let Afterwards::Keep(uid, gid) = afterwards
            && (uid, gid) != (0, 0)
        {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(here, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Notes what is about to be made, if it is on the root's own file system: what is made in a cache mount stays
    /// there, what is made in a tmpfs goes with it.
    fn note(
        &mut self,
        here: &OwnedFd,
        dirs: &[(OsString, OwnedFd)],
        name: &OsStr,
        make: Make,
    ) -> Result<(), Errno> {
        let stat = fstat(here)?;
        if stat.st_dev != self.device {
            return Ok(());
        }
        let parent = joined(dirs);
        self.stubs.push(Stub {
            path: parent.join(name),
            is_dir: make == Make::Directory,
        });
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.parents.entry(parent) {
            let fd = here.try_clone().map_err(|_full| Errno::MFILE)?;
            vacant.insert((fd, modified(&stat)));
        }
        Ok(())
    }

    /// Everything that was made to be taken back, with the times its parents have now. Parents that were themselves made
    /// have no time worth restoring.
    pub(super) fn into_stubs(self) -> Result<Stubs, Errno> {
        let Self { stubs, parents, .. } = self;
        let mut known = Vec::new();
        for (path, (fd, before)) in parents {
            if stubs.iter().any(|stub| stub.path == path) {
                continue;
            }
            known.push(Parent {
                path,
                before,
                after: modified(&fstat(&fd)?),
            });
        }
        Ok(Stubs {
            stubs,
            parents: known,
        })
    }
}

/// Opens (`O_PATH`) a path that symlinks cannot lead out of `root`.
pub(super) fn open_inside(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path, LOOK, Mode::empty(), resolve) {
            // The kernel could not rule out a race with a rename elsewhere.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn joined(dirs: &[(OsString, OwnedFd)]) -> PathBuf {
    dirs.iter().map(|(name, _)| name).collect()
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

pub(super) fn modified(stat: &Stat) -> Timestamp {
    Timestamp {
        seconds: stat.st_mtime,
        nanoseconds: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn rooted(dir: &Path) -> Rooted {
        Rooted::new(rustix::fs::open(dir, LOOK | OFlags::DIRECTORY, Mode::empty()).unwrap())
            .unwrap()
    }

    #[test]
    fn nothing_is_made_outside() {
        let temp = tempfile::tempdir().unwrap();
        let (root, outside) = (temp.path().join("root"), temp.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink("../../../x", root.join("dangling")).unwrap();
        let mut rooted = rooted(&root);
        for path in [
            "/absolute/a",
            "/relative/b",
            "/dangling",
            "/../../c",
            "/d/../../e",
        ] {
            let found = rooted.ensure(Path::new(path), Make::Directory, Afterwards::TakeBack);
            assert!(found.unwrap().was_made, "{path}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
        let stubs = rooted.into_stubs().unwrap();
        let made: Vec<_> = stubs
            .stubs
            .iter()
            .map(|stub| stub.path.display().to_string())
            .collect();
        let outside = outside.strip_prefix("/").unwrap().display().to_string();
        assert!(made.contains(&format!("{outside}/a")), "{made:?}");
        assert!(
            made.ends_with(&[
                "outside".into(),
                "outside/b".into(),
                "x".into(),
                "c".into(),
                "d".into(),
                "e".into()
            ]),
            "{made:?}"
        );
    }

    #[test]
    fn loops_and_files_in_the_way_are_errors() {
        let temp = tempfile::tempdir().unwrap();
        symlink("loop", temp.path().join("loop")).unwrap();
        fs::write(temp.path().join("file"), "").unwrap();
        let mut rooted = rooted(temp.path());
        let mut ensure = |path| {
            rooted
                .ensure(Path::new(path), Make::File, Afterwards::TakeBack)
                .map(drop)
        };
        assert_eq!(ensure("/loop/x"), Err(Errno::LOOP));
        assert_eq!(ensure("/file/x"), Err(Errno::NOTDIR));
        assert_eq!(ensure("/file"), Ok(()));
    }

    #[test]
    fn a_system_directory_is_no_symlink() {
        let temp = tempfile::tempdir().unwrap();
        symlink("/etc", temp.path().join("proc")).unwrap();
        let rooted = rooted(temp.path());
        assert!(rooted.system_dir(Path::new("/proc")).is_err());
        assert!(rooted.system_dir(Path::new("/sys")).is_ok());
        assert!(temp.path().join("sys").is_dir());
    }
}
