//! A tree being made: a private directory that becomes a frozen tree or vanishes.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use super::error::SnapshotError;
use crate::layer::stack::LayerStack;
use crate::layer::tree;
use crate::remove::remove_tree;

/// A fresh directory on the store's file system, and beside it the work directory of an overlay if there is to be one.
///
/// Dropping it removes everything. The overlay must be unmounted before.
#[derive(Debug)]
#[must_use = "dropping a tree being made discards it"]
pub struct ActiveTree {
    upper: PathBuf,
    work: PathBuf,
}

impl ActiveTree {
    /// Makes the directory, which must not exist. `None` if it does.
    pub(super) fn create(upper: PathBuf) -> Result<Option<Self>, SnapshotError> {
        match fs::create_dir(&upper) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(SnapshotError::io("make directory", upper)(error)),
        }
        let work = upper.with_extension("work");
        let active = Self { upper, work };
        // Whatever the umask is: the root of a tree is seen in the image.
        fs::set_permissions(&active.upper, fs::Permissions::from_mode(0o755))
            .map_err(SnapshotError::io("set mode of", &active.upper))?;
        Ok(Some(active))
    }

    /// The directory that becomes the tree: an overlay's upper directory, or where files are put.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Makes the work directory of an overlay; once, at most.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn make_work(&self) -> Result<&Path, SnapshotError> {
        fs::create_dir(&self.work).map_err(SnapshotError::io("make directory", &self.work))?;
        Ok(&self.work)
    }

    /// A name beside it for a file that is being written.
    pub(super) fn temporary(&self) -> PathBuf {
        self.upper.with_extension("id")
    }

    /// Gives the tree's root the mode, owner and time of a stack's: overlayfs shows the upper directory's own.
    pub fn take_root_of(&self, stack: &LayerStack) -> Result<(), SnapshotError> {
        let Some(root) = stack.lookup(b"").map(|found| found.entry) else {
            return Ok(());
        };
        let set = || -> io::Result<()> {
            let now = fs::metadata(&self.upper)?;
            if (now.uid(), now.gid()) != (root.uid, root.gid) {
                chown(&self.upper, Some(root.uid), Some(root.gid))?;
            }
            fs::set_permissions(&self.upper, fs::Permissions::from_mode(root.mode))?;
            let times = tree::both_times(root.mtime);
            rustix::fs::utimensat(
                CWD,
                &self.upper,
                &times,
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )?;
            Ok(())
        };
        set().map_err(SnapshotError::io("set metadata of", &self.upper))
    }

    /// Removes it and tells if that did not work.
    pub fn discard(self) -> Result<(), SnapshotError> {
        self.remove()
    }

    fn remove(&self) -> Result<(), SnapshotError> {
        let [upper, work] = [&self.upper, &self.work].map(|path| match remove_tree(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SnapshotError::io("remove", path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        });
        upper.and(work)
    }
}

impl Drop for ActiveTree {
    fn drop(&mut self) {
        // What is left goes with the lease of the build.
        drop(self.remove());
    }
}
