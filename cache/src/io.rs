//! Errors of the file system with what was tried on what, and files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    CWD, IFlags, Mode, OFlags, RenameFlags, ioctl_getflags, ioctl_setflags, renameat_with,
};
use rustix::io::Errno;

use crate::claim::names_same_file;

/// The file system said no.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} `{path}`")]
pub struct IoError {
    /// What was tried.
    pub attempt: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Names attempt and path of a failed call.
pub(crate) trait Attempt<T> {
    /// Turns a bare error into one that a person can act on.
    fn attempt(self, attempt: &'static str, path: &Path) -> Result<T, IoError>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, attempt: &'static str, path: &Path) -> Result<T, IoError> {
        self.map_err(|error| IoError {
            attempt,
            path: path.to_owned(),
            source: error.into(),
        })
    }
}

/// Makes a directory and its parents, for the owner alone. Existing ones are left as they are.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), IoError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .attempt("create directory", path)
}

/// Asks that what each directory made in this one will hold is kept apart from what is around it (`FS_TOPDIR_FL`, the
/// attribute T of `chattr(1)`).
///
/// For the inodes of files ext4 takes the group of their directory, and it gives none again in the minutes after it was
/// deleted: each file made there looks at all of those first (`recently_deleted` in `fs/ext4/ialloc.c`). Where somebody
/// has removed some ten thousands of files just now, making a file takes milliseconds. A directory made in one with this
/// flag goes into the group that has fewest directories.
///
/// A file system that knows no such thing does as it likes.
pub(crate) fn keep_apart(directory: &Path) {
    let marked = || -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(directory, flags, Mode::empty())?;
        let flags = ioctl_getflags(&handle)?;
        match flags.contains(IFlags::TOPDIR) {
            true => Ok(()),
            false => ioctl_setflags(&handle, flags | IFlags::TOPDIR),
        }
    };
    if let Err(error) = marked() {
        tracing::debug!(path = %directory.display(), %error, "cannot say where inodes go");
    }
}

/// A file under a temporary name in the directory it will be published in. Dropped without [`Staged::publish`], it is
/// removed.
#[derive(Debug)]
pub(crate) struct Staged {
    file: Option<File>,
    path: PathBuf,
}

/// Prefix of temporary names: never the name of anything published.
pub(crate) const STAGED_PREFIX: &str = ".tmp-";

impl Staged {
    /// Makes the file; the directory too, if it is missing.
    pub(crate) fn create(directory: &Path) -> Result<Self, IoError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let mut is_made = false;
        loop {
            // Process ids repeat across pid namespaces that share a store, hence `create_new` and another try.
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{STAGED_PREFIX}{}-{count}", std::process::id()));
            let opened = OpenOptions::new()
                .write(true)
                .read(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match opened {
                Ok(file) => {
                    let file = Some(file);
                    return Ok(Self { file, path });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // Another process may make the directory at this moment, so it is not asked whether it is there.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_made => {
                    make_private_dir(directory)?;
                    is_made = true;
                }
                Err(error) => return Err(error).attempt("create", &path),
            }
        }
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
    }

    /// Another handle of the file.
    pub(crate) fn another_handle(&self) -> Result<File, IoError> {
        let cloned = match &self.file {
            Some(file) => file.try_clone(),
            None => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        };
        cloned.attempt("read", &self.path)
    }

    /// Gives the file its name, in place of what had it.
    pub(crate) fn publish(mut self, target: &Path) -> Result<(), IoError> {
        drop(self.file.take());
        fs::rename(&self.path, target).attempt("rename to", target)?;
        self.path.clear();
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Writes a file whole under its name, in place of what had it. Not synced: durability is once per build.
pub(crate) fn write_whole(target: &Path, bytes: &[u8]) -> Result<(), IoError> {
    let directory = target.parent().unwrap_or(Path::new("/"));
    let mut staged = Staged::create(directory)?;
    staged.write(bytes).attempt("write", target)?;
    staged.publish(target)
}

/// Removes a file if its name still means the one that is open; tells whether it did.
pub(crate) fn remove_same(path: &Path, file: &File) -> Result<bool, IoError> {
    Ok(names_same_file(path, file)? && take_away(path, file)?)
}

/// As [`remove_same`], of a name that meant the file a moment ago: if another has it by now, that one keeps it.
fn take_away(path: &Path, file: &File) -> Result<bool, IoError> {
    // In place of the staged one, and removed as that is.
    let mut taken = Staged::create(path.parent().unwrap_or(Path::new("/")))?;
    match fs::rename(path, &taken.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        renamed => renamed.attempt("remove", path)?,
    }
    if names_same_file(&taken.path, file)? {
        return Ok(true);
    }
    match renameat_with(CWD, &taken.path, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => taken.path.clear(),
        // Yet another was published in its place.
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).attempt("rename to", path),
    }
    Ok(false)
}

/// Reads a file if it is there.
pub(crate) fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, IoError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).attempt("read", path),
    }
}

/// The names in a directory, sorted by bytes; none if it is missing. Temporary names are left out.
pub(crate) fn names_in(directory: &Path) -> Result<Vec<std::ffi::OsString>, IoError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).attempt("list", directory),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = match entry {
            // Removed while it was being read: what was in it is gone, too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entry => entry.attempt("list", directory)?.file_name(),
        };
        if !name
            .as_encoded_bytes()
            .starts_with(STAGED_PREFIX.as_bytes())
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_file_is_published_whole_or_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("sub/name");
        write_whole(&target, b"one").unwrap();
        write_whole(&target, b"two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"two");

        let mut staged = Staged::create(&dir.path().join("sub")).unwrap();
        staged.write(b"half").unwrap();
        assert!(staged.path.exists());
        assert_eq!(names_in(&dir.path().join("sub")).unwrap(), ["name"]);
        drop(staged);
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
        assert_eq!(read_if_present(&dir.path().join("none")).unwrap(), None);
    }

    #[test]
    fn only_the_file_that_is_meant_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("name");
        let begin = || {
            write_whole(&path, b"bad").unwrap();
            File::open(&path).unwrap()
        };
        assert!(remove_same(&path, &begin()).unwrap());
        assert!(!path.exists());
        let gone = begin();
        fs::remove_file(&path).unwrap();
        assert!(!remove_same(&path, &gone).unwrap());
        for remove in [remove_same, take_away] {
            let bad = begin();
            write_whole(&path, b"good").unwrap();
            assert!(!remove(&path, &bad).unwrap());
            assert_eq!(fs::read(&path).unwrap(), b"good");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_attempt_and_the_path() {
        let error = names_in(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.to_string(), "cannot list `/dev/null`");
    }
}
