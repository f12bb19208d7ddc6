//! Leases: what a running build uses stays, and what a dead one was making goes.
//!
//! A build holds an flock on `leases/ID` for its life; the lines of that file are the layers it pins. Its unfinished
//! work lies in `work/ID`. A lease that can be locked belongs to nobody any more: its work is deleted with it.
//!
//! What is being deleted lies in `work/ID/trash`. That takes seconds for gigabytes, and nothing can stop it: it does not
//! count as what the store still has.
//!
//! Names are never used twice by living builds, so a dead lease may be unlinked while its lock is held; a build that
//! finds its new lease gone before it got the lock takes another name.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::FlockOperation;

use crate::claim::{LockMode, Wait, lock, names_same_file, open_lock_file};
use crate::digest::{DiffId, Digest};
use crate::io::{Attempt, IoError, keep_apart, make_private_dir, names_in};
use crate::lock::locked;
use crate::remove::remove_tree;
use crate::root::StatePaths;

/// A running build's hold on the store. Dropped, it removes its work and itself.
#[derive(Debug)]
pub struct Lease {
    file: File,
    path: PathBuf,
    work: PathBuf,
    gate: PathBuf,
    pins: Mutex<Pins>,
}

/// What a build has pinned.
#[derive(Debug, Default)]
struct Pins {
    lines: BTreeSet<String>,
    /// The gate, opened by the first pin; locked only while something is being pinned.
    gate: Option<File>,
}

/// What running builds pin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// Layers.
    pub layers: BTreeSet<DiffId>,
    /// Blobs.
    pub blobs: BTreeSet<Digest>,
    /// When the first of them began, in milliseconds since the Unix epoch: what was written since then may be pinned next.
    pub since_ms: Option<u64>,
}

/// What is being deleted, in a work directory.
const TRASH: &str = "trash";

/// What the line of a pinned blob begins with.
const BLOB: &str = "blob ";

/// What the line of the time begins with when the build began.
const BEGAN: &str = "began ";

impl Lease {
    /// Takes a new lease, after removing what dead builds left. A collection that is removing something at this moment, and
    /// may have seen no build, is waited for.
    pub fn acquire(paths: &StatePaths) -> Result<Self, IoError> {
        let lease = Self::create(paths)?;
        // By the file system's clock, as the times of what the build will write.
        let began_ms = written_ms(&lease.file.metadata().attempt("examine", &lease.path)?);
        lease.pin_line(format!("{BEGAN}{began_ms}\n"))?;
        Ok(lease)
    }

    /// A lease of who looks after the store, and makes no blobs: those that others write while it lasts are not kept for
    /// it.
    pub(crate) fn for_upkeep(paths: &StatePaths) -> Result<Self, IoError> {
        let lease = Self::create(paths)?;
        lease.pin_line(format!("{BEGAN}{}\n", u64::MAX))?;
        Ok(lease)
    }

    fn create(paths: &StatePaths) -> Result<Self, IoError> {
        sweep(paths)?;
        let directory = paths.leases();
        let mut count = 0u64;
        let mut is_made = false;
        loop {
            let id = format!("{}-{count}", std::process::id());
            count += 1;
            let path = directory.join(&id);
            let opened = OpenOptions::new()
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_made => {
                    make_private_dir(&directory)?;
                    is_made = true;
                    continue;
                }
                Err(error) => return Err(error).attempt("create", &path),
            };
            let is_ours = lock(&file, &path, LockMode::Exclusive, Wait::Never)?
                && names_same_file(&path, &file)?;
            if is_ours {
                let work = paths.work().join(&id);
                let gate = paths.gate();
                return Ok(Self {
                    gate,
                    file,
                    path,
                    work,
                    pins: Mutex::default(),
                });
            }
        }
    }

    /// Its name: no other living build has it.
    pub fn name(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.unwrap_or_default()
    }

    /// The directory for unfinished work, made when first asked for. Its place on the disk is apart from that of other
    /// builds, and what is made here keeps it.
    pub fn work(&self) -> Result<PathBuf, IoError> {
        if !self.work.exists() {
            if let Some(parent) = self.work.parent() {
                make_private_dir(parent)?;
                keep_apart(parent);
            }
            make_private_dir(&self.work)?;
        }
        Ok(self.work.clone())
    }

    /// The directory for what is to be deleted, made when first asked for.
    pub(crate) fn trash(&self) -> Result<PathBuf, IoError> {
        let trash = self.work.join(TRASH);
        make_private_dir(&trash)?;
        Ok(trash)
    }

    /// Deletes what is in its trash. What cannot be deleted now goes with the lease.
    pub(crate) fn empty_trash(&self) {
        remove_tree(&self.work.join(TRASH)).ok();
    }

    /// Keeps a layer from being collected while this build runs.
    ///
    /// Whoever pins first and then finds it there has it until the build ends: a collection that is removing it at this
    /// moment is waited for.
    pub fn pin(&self, diff_id: &DiffId) -> Result<(), IoError> {
        self.pin_line(format!("{diff_id}\n"))
    }

    /// As [`Self::pin`], for a blob.
    pub fn pin_blob(&self, digest: &Digest) -> Result<(), IoError> {
        self.pin_line(format!("{BLOB}{digest}\n"))
    }

    fn pin_line(&self, line: String) -> Result<(), IoError> {
        // One at a time: the lock is the open file's, whoever takes it.
        let mut pins = locked(&self.pins);
        let Pins { lines, gate } = &mut *pins;
        if lines.contains(&line) {
            return Ok(());
        }
        let gate = match gate {
            Some(gate) => gate,
            None => gate.insert(open_lock_file(&self.gate)?),
        };
        pass(gate, &self.gate)?;
        let written = (&self.file).write_all(line.as_bytes());
        rustix::fs::flock(&*gate, FlockOperation::Unlock).attempt("unlock", &self.gate)?;
        written.attempt("write", &self.path)?;
        lines.insert(line);
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if discard(&self.work).is_ok() {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Deletes a work directory, if there is one. All of it is trash first.
fn discard(work: &Path) -> io::Result<()> {
    // What cannot be moved is deleted where it is.
    throw_away(work).ok();
    match remove_tree(work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn throw_away(work: &Path) -> io::Result<()> {
    let trash = work.join(TRASH);
    for (number, entry) in fs::read_dir(work)?.enumerate() {
        let path = entry?.path();
        if path != trash {
            fs::create_dir_all(&trash)?;
            fs::rename(path, trash.join(format!("work-{number}")))?;
        }
    }
    Ok(())
}

/// The directories of what is being deleted now.
pub(crate) fn trashes(paths: &StatePaths) -> Result<Vec<PathBuf>, IoError> {
    let work = paths.work();
    let names = names_in(&work)?.into_iter();
    Ok(names.map(|name| work.join(name).join(TRASH)).collect())
}

/// Waits until no collection is removing anything; none begins while the file is open: what is found meanwhile is there
/// until then, and longer if it is pinned or gets a name.
pub fn pass_gate(path: &Path) -> Result<File, IoError> {
    let gate = open_lock_file(path)?;
    pass(&gate, path)?;
    Ok(gate)
}

/// Waits for the gate, and keeps it open while the lock is held.
fn pass(gate: &File, path: &Path) -> Result<(), IoError> {
    rustix::fs::flock(gate, FlockOperation::LockShared).attempt("lock", path)
}

/// When a file was last written, in milliseconds since the Unix epoch, in whole seconds.
pub(crate) fn written_ms(file: &fs::Metadata) -> u64 {
    u64::try_from(file.mtime()).unwrap_or_default() * 1000
}

/// What running builds pin, but for the one that asks.
pub fn pinned(paths: &StatePaths, asking: Option<&Lease>) -> Result<Pinned, IoError> {
    let directory = paths.leases();
    let mut pinned = Pinned::default();
    for name in names_in(&directory)? {
        let path = directory.join(name);
        if asking.is_some_and(|lease| lease.path == path) {
            continue;
        }
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if lock(&file, &path, LockMode::Shared, Wait::Never)? {
            continue;
        }
        let lines = crate::io::read_if_present(&path)?.unwrap_or_default();
        let lines = String::from_utf8_lossy(&lines).into_owned();
        let began = lines.lines().find_map(|line| line.strip_prefix(BEGAN));
        // One that has not said so may have begun at any time.
        let began_ms = began.and_then(|text| text.parse().ok()).unwrap_or(0);
        pinned.since_ms = Some(pinned.since_ms.unwrap_or(u64::MAX).min(began_ms));
        for line in lines.lines() {
            match (line.strip_prefix(BLOB), line.parse::<Digest>()) {
                (Some(blob), _) => pinned.blobs.extend(blob.parse::<Digest>().ok()),
                (None, Ok(layer)) => drop(pinned.layers.insert(DiffId(layer))),
                (None, Err(_)) => {}
            }
        }
    }
    Ok(pinned)
}

/// Removes leases of dead builds and their work. What cannot be removed now stays for the next time.
pub fn sweep(paths: &StatePaths) -> Result<(), IoError> {
    let directory = paths.leases();
    for name in names_in(&directory)? {
        let path = directory.join(&name);
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if !lock(&file, &path, LockMode::Exclusive, Wait::Never)? || !names_same_file(&path, &file)?
        {
            continue;
        }
        let work = paths.work().join(&name);
        match discard(&work) {
            Err(error) => {
                tracing::debug!(path = %work.display(), %error, "left over work stays");
            }
            Ok(()) => fs::remove_file(&path).attempt("remove", &path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_pins_while_it_lives_and_takes_its_work_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let lease = Lease::acquire(&paths).unwrap();
        let second = Lease::acquire(&paths).unwrap();
        let layer = DiffId(Digest::of(b"layer"));
        lease.pin(&layer).unwrap();
        lease.pin(&layer).unwrap();
        second.pin(&DiffId(Digest::of(b"other"))).unwrap();
        second.pin_blob(&Digest::of(b"blob")).unwrap();
        let found = pinned(&paths, None).unwrap();
        let counts = (found.layers.len(), found.blobs.len());
        assert_eq!(counts, (2, 1));
        let others = pinned(&paths, Some(&lease)).unwrap();
        let counts = (others.layers.len(), others.blobs.len());
        assert_eq!(counts, (1, 1));
        let began = fs::metadata(&second.path).unwrap().mtime();
        let began = u64::try_from(began).unwrap() * 1000;
        let since = others.since_ms.unwrap();
        assert!(since <= began && since + 10_000 > began);

        let work = lease.work().unwrap();
        fs::create_dir(work.join("half")).unwrap();
        drop(lease);
        assert!(!work.exists());
        drop(second);
        assert_eq!(pinned(&paths, None).unwrap(), Pinned::default());
        assert!(names_in(&paths.leases()).unwrap().is_empty());
    }

    #[test]
    fn the_work_of_a_dead_build_goes_with_the_next_build() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        fs::create_dir_all(paths.leases()).unwrap();
        fs::create_dir_all(paths.work().join("77-0/x")).unwrap();
        let dead = DiffId(Digest::of(b"layer"));
        fs::write(paths.leases().join("77-0"), format!("{dead}\n")).unwrap();
        assert_eq!(
            pinned(&paths, None).unwrap(),
            Pinned::default(),
            "the dead pin nothing"
        );
        let living = Lease::acquire(&paths).unwrap();
        let work = living.work().unwrap();
        sweep(&paths).unwrap();
        assert!(work.exists(), "the living keep their work");
        assert!(!paths.work().join("77-0").exists());
        assert_eq!(names_in(&paths.leases()).unwrap().len(), 1);
    }

    #[test]
    fn work_is_trash_before_it_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let lease = Lease::acquire(&paths).unwrap();
        let (work, trash) = (lease.work().unwrap(), lease.trash().unwrap());
        assert_eq!(trashes(&paths).unwrap(), std::slice::from_ref(&trash));
        fs::create_dir_all(work.join("half/x")).unwrap();
        fs::write(work.join("half.id"), "x").unwrap();
        throw_away(&work).unwrap();
        assert_eq!(names_in(&work).unwrap(), [TRASH]);
        assert_eq!(names_in(&trash).unwrap().len(), 2);
        lease.empty_trash();
        assert!(work.exists() && !trash.exists());
        drop(lease);
        assert!(!work.exists());
    }
}
