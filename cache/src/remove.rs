//! Removes trees of any depth, with few descriptors and little stack.
//!
//! Commands can make directories deeper than any path can name. The standard library has a descriptor open and a frame on
//! the stack for each level; here, what lies deeper than 64 levels moves up to the top and is removed from there.
//! Symlinks are not followed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

/// How many levels are gone down: two descriptors each, far from the usual limit of 1 024.
const DEEPEST: u32 = 64;

/// Removes a path and everything below it.
///
/// # Errors
///
/// Of kind `NotFound` if there is nothing; what others remove meanwhile is no error.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    Ok(remove_at(CWD, path.as_os_str().as_bytes())?)
}

/// As [`remove_tree`], of a name in a directory.
pub(crate) fn remove_at(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return done,
    }
    let top = open(dir, name)?;
    let mut removal = Removal {
        top: top.as_fd(),
        moved: 0,
    };
    loop {
        let before = removal.moved;
        removal.empty(top.as_fd(), 0)?;
        if removal.moved == before {
            break;
        }
    }
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    /// How many directories have moved up.
    moved: u64,
}

impl Removal<'_> {
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: u32) -> rustix::io::Result<()> {
        for item in Dir::read_from(dir)? {
            let item = item?;
            let name = item.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            match self.remove(dir, name, depth) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn remove(&mut self, dir: BorrowedFd<'_>, name: &[u8], depth: u32) -> rustix::io::Result<()> {
        match fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            done => return done,
        }
        if depth == DEEPEST {
            return self.move_up(dir, name);
        }
        let opened = open(dir, name)?;
        self.empty(opened.as_fd(), depth + 1)?;
        fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        loop {
            self.moved += 1;
            let to = format!(".removed-{}", self.moved);
            match fs::renameat(dir, name, self.top, to.as_str()) {
                // The tree has that name.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                done => return done,
            }
        }
    }
}

fn open(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories `d`, one in the other, each with a file; deeper than any path can name.
    fn make_deep(top: &Path, levels: u32) {
        let mut dir = std::os::fd::OwnedFd::from(std::fs::File::open(top).unwrap());
        for _ in 0..levels {
            fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            let flags = OFlags::CREATE | OFlags::WRONLY;
            fs::openat(&dir, "file", flags, Mode::RUSR).unwrap();
            dir = open(dir.as_fd(), b"d").unwrap();
        }
    }

    #[test]
    fn the_deepest_trees_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, kept) = (dir.path().join("tree"), dir.path().join("kept"));
        std::fs::create_dir_all(tree.join("wide/empty")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        // Names that get in the way of what moves up.
        std::fs::create_dir_all(tree.join(".removed-1/full")).unwrap();
        std::fs::write(tree.join(".removed-2"), "").unwrap();
        make_deep(&tree, 5_000);
        make_deep(&tree.join("wide"), 200);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(std::fs::read_to_string(kept.join("file")).unwrap(), "kept");
    }

    #[test]
    fn a_file_a_link_and_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        for make in [
            |path: &Path, _: &Path| std::fs::write(path, "").unwrap(),
            |path: &Path, kept: &Path| std::os::unix::fs::symlink(kept, path).unwrap(),
        ] {
            let path = dir.path().join("x");
            make(&path, &kept);
            remove_tree(&path).unwrap();
            assert!(!path.exists() && kept.exists());
        }
        let missing = remove_tree(&dir.path().join("none"));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
