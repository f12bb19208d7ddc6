//! Takes mount points back after a step, so that they don't end up in its layer.
//!
//! Those of [`SYSTEM_FILES`](super::SYSTEM_FILES) are usually there: whoever runs many steps stacks them below the root, as a
//! directory copied up and two files made and removed are felt in a step of a few milliseconds.
//!
//! Runs when every process of the step is gone, on the overlay's upper directory, from a descriptor and without following
//! symlinks: whatever the step left there, nothing outside is touched.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fstat, openat, statat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::rooted::modified;

/// What was made for mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stubs {
    /// In the order made: parents first.
    pub(super) stubs: Vec<Stub>,
    /// Directories that were there before and got entries.
    pub(super) parents: Vec<Parent>,
}

/// A file or directory that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stub {
    /// Relative to the root, no symlink in it.
    pub(super) path: PathBuf,
    pub(super) is_dir: bool,
}

/// A directory something was made in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parent {
    /// Relative to the root, no symlink in it; empty for the root.
    pub(super) path: PathBuf,
    /// Its modification time before.
    pub(super) before: Timestamp,
    /// Its modification time when the command started.
    pub(super) after: Timestamp,
}

/// A modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timestamp {
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
}

/// Removes what is still empty and gives parents their times back, unless the command changed them itself. Returns what
/// stays.
pub(super) fn take_back(upper: &Path, stubs: &Stubs) -> Result<Vec<PathBuf>, Errno> {
    if stubs.stubs.is_empty() {
        return Ok(Vec::new());
    }
    let upper = openat(
        CWD,
        upper,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut parents = Vec::new();
    for parent in &stubs.parents {
        if let Some(dir) = open_dir(&upper, &parent.path)? {
            let now = modified(&fstat(&dir)?);
            let wanted = if now == parent.after {
                parent.before
            } else {
                now
            };
            parents.push((dir, wanted));
        }
    }
    let mut kept = Vec::new();
    for stub in stubs.stubs.iter().rev() {
        if !remove(&upper, stub)? {
            kept.push(Path::new("/").join(&stub.path));
        }
    }
    for (dir, time) in parents {
        restore(&dir, time)?;
    }
    kept.reverse();
    Ok(kept)
}

/// Whether the stub is gone.
fn remove(upper: &OwnedFd, stub: &Stub) -> Result<bool, Errno> {
    let parent = stub.path.parent().unwrap_or(Path::new(""));
    let (Some(dir), Some(name)) = (open_dir(upper, parent)?, stub.path.file_name()) else {
        return Ok(true);
    };
    let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(true),
        other => other?,
    };
    let flags = match (FileType::from_raw_mode(stat.st_mode), stub.is_dir) {
        (FileType::Directory, true) => AtFlags::REMOVEDIR,
        (FileType::RegularFile, false) if stat.st_size == 0 => AtFlags::empty(),
        _ => return Ok(false),
    };
    match unlinkat(&dir, name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A directory below `upper`, if it is one and no component is a symlink.
fn open_dir(upper: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = openat(upper, ".", flags, Mode::empty())?;
    for name in path {
        dir = match openat(&dir, name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno),
        };
    }
    Ok(Some(dir))
}

fn restore(dir: &OwnedFd, time: Timestamp) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds,
        },
    };
    // An O_PATH descriptor cannot be given alone; its own "." can.
    utimensat(dir, ".", &times, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn time(path: &Path) -> Timestamp {
        let found = fs::metadata(path).unwrap();
        Timestamp {
            seconds: found.mtime(),
            nanoseconds: found.mtime_nsec(),
        }
    }

    fn stub(path: &str, is_dir: bool) -> Stub {
        Stub {
            path: path.into(),
            is_dir,
        }
    }

    const BEFORE: Timestamp = Timestamp {
        seconds: 1000,
        nanoseconds: 7,
    };

    #[test]
    fn empty_ones_go_and_used_ones_stay() {
        let temp = tempfile::tempdir().unwrap();
        let upper = temp.path();
        fs::create_dir_all(upper.join("etc/made/deep")).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("etc/used"), "x").unwrap();
        let stubs = Stubs {
            stubs: vec![
                stub("etc/hosts", false),
                stub("etc/made", true),
                stub("etc/made/deep", true),
                stub("etc/used", false),
                stub("gone", true),
            ],
            parents: vec![Parent {
                path: "etc".into(),
                before: BEFORE,
                after: time(&upper.join("etc")),
            }],
        };
        assert_eq!(take_back(upper, &stubs).unwrap(), [Path::new("/etc/used")]);
        let left: Vec<_> = fs::read_dir(upper.join("etc")).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(time(&upper.join("etc")), BEFORE);
    }

    #[test]
    fn a_time_the_command_changed_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("hosts"), "").unwrap();
        let now = time(temp.path());
        let stubs = Stubs {
            stubs: vec![stub("hosts", false)],
            parents: vec![Parent {
                path: PathBuf::new(),
                before: BEFORE,
                after: BEFORE,
            }],
        };
        assert_eq!(
            take_back(temp.path(), &stubs).unwrap(),
            Vec::<PathBuf>::new()
        );
        assert_eq!(time(temp.path()), now);
    }

    #[test]
    fn symlinks_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (upper, outside) = (temp.path().join("upper"), temp.path().join("outside"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir_all(outside.join("victim")).unwrap();
        symlink(&outside, upper.join("etc")).unwrap();
        symlink("outside", upper.join("link")).unwrap();
        let stubs = Stubs {
            stubs: vec![stub("etc/victim", true), stub("link", true)],
            parents: vec![Parent {
                path: "etc".into(),
                before: BEFORE,
                after: time(&outside),
            }],
        };
        assert_eq!(take_back(&upper, &stubs).unwrap(), [Path::new("/link")]);
        assert!(outside.join("victim").is_dir());
        assert_ne!(time(&outside), BEFORE);
    }
}
