//! `builder install`: this program under the names `builder` and `build`.
//!
//! `build` is a link to `builder` beside it. A file that this program did not put there is never replaced; a `builder`
//! that has our link beside it is an older installation and is.

use std::io;
use std::path::{Path, PathBuf};

use crate::outcome::{Failure, FailureKind};

const PROGRAM: &str = "builder";
const LINK: &str = "build";

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot {what} `{}`: {error}", path.display());
    let failure = Failure::new(FailureKind::Environment, message);
    if error.kind() == io::ErrorKind::PermissionDenied {
        return failure.hint("name a directory of your own: builder install DIR");
    }
    failure
}

fn foreign(path: &Path) -> Failure {
    let message = format!("`{}` exists and is not ours", path.display());
    Failure::new(FailureKind::Environment, message).hint("remove it, or name another directory")
}

/// Installs `program` into `dir`: the paths that are there now.
pub(super) fn install(program: &Path, dir: &Path) -> Result<[PathBuf; 2], Failure> {
    std::fs::create_dir_all(dir).map_err(|error| failed("create", dir, &error))?;
    let (target, link) = (dir.join(PROGRAM), dir.join(LINK));
    let is_linked = match std::fs::symlink_metadata(&link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed("look at", &link, &error)),
        Ok(metadata) if metadata.is_symlink() => {
            let points_to = std::fs::read_link(&link);
            if points_to.map_err(|error| failed("read", &link, &error))? != Path::new(PROGRAM) {
                return Err(foreign(&link));
            }
            true
        }
        Ok(_) => return Err(foreign(&link)),
    };
    place(program, &target, is_linked)?;
    if !is_linked {
        std::os::unix::fs::symlink(PROGRAM, &link)
            .map_err(|error| failed("link", &link, &error))?;
    }
    Ok([target, link])
}

/// Copies the program to its place, unless it is there. `is_ours` says that what stands there may be replaced.
fn place(program: &Path, target: &Path, is_ours: bool) -> Result<(), Failure> {
    let current = match std::fs::symlink_metadata(target) {
        Ok(_) if is_same(program, target)? => return Ok(()),
        Ok(_) if !is_ours => return Err(foreign(target)),
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("look at", target, &error)),
    };
    if current.is_some_and(|metadata| metadata.is_dir()) {
        return Err(foreign(target));
    }
    let dir = target.parent().unwrap_or(Path::new("/"));
    // Renamed into place: a running program can't be overwritten, and nobody sees half of one.
    let temporary = tempfile::Builder::new()
        .prefix(".builder-")
        .tempfile_in(dir)
        .map_err(|error| failed("write to", dir, &error))?;
    let copied = std::fs::copy(program, temporary.path());
    copied.map_err(|error| failed("write", temporary.path(), &error))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(temporary.path(), mode)
        .map_err(|error| failed("make executable", temporary.path(), &error))?;
    temporary
        .persist(target)
        .map_err(|error| failed("write", target, &error.error))?;
    Ok(())
}

/// Whether two paths are one file, or two with equal bytes.
fn is_same(program: &Path, target: &Path) -> Result<bool, Failure> {
    use std::os::unix::fs::MetadataExt as _;

    let of = |path: &Path| std::fs::metadata(path).map_err(|error| failed("look at", path, &error));
    let ours = of(program)?;
    // A link to nowhere is not us.
    let Ok(theirs) = std::fs::metadata(target) else {
        return Ok(false);
    };
    if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) {
        return Ok(true);
    }
    if ours.len() != theirs.len() || !theirs.is_file() {
        return Ok(false);
    }
    let read = |path: &Path| std::fs::read(path).map_err(|error| failed("read", path, &error));
    Ok(read(program)? == read(target)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn program(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("program");
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn both_names_are_made_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("new/bin");
        for version in ["one", "one", "two"] {
            let [target, link] = install(&program(dir.path(), version), &bin).unwrap();
            assert_eq!(fs::read_to_string(&link).unwrap(), version);
            assert_eq!(fs::read_link(&link).unwrap(), Path::new("builder"));
            let mode = std::os::unix::fs::PermissionsExt::mode(
                &fs::metadata(&target).unwrap().permissions(),
            );
            assert_eq!(mode & 0o777, 0o755);
        }
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 2);
    }

    #[test]
    fn in_its_own_directory_only_the_link_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("builder");
        fs::write(&path, "x").unwrap();
        install(&path, dir.path()).unwrap();
        assert_eq!(
            fs::read_link(dir.path().join("build")).unwrap(),
            Path::new("builder")
        );
    }

    #[test]
    fn foreign_files_stay() {
        type Make = fn(&Path);
        let cases: [(&str, Make); 4] = [
            ("build", |path| fs::write(path, "other").unwrap()),
            ("build", |path| {
                std::os::unix::fs::symlink("/bin/true", path).unwrap();
            }),
            ("builder", |path| fs::write(path, "other").unwrap()),
            ("builder", |path| fs::create_dir(path).unwrap()),
        ];
        for (name, make) in cases {
            let dir = tempfile::tempdir().unwrap();
            let bin = dir.path().join("bin");
            fs::create_dir(&bin).unwrap();
            make(&bin.join(name));
            let failure = install(&program(dir.path(), "mine"), &bin).unwrap_err();
            assert_eq!(
                failure.to_string(),
                format!("`{}` exists and is not ours", bin.join(name).display())
            );
            assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
        }
    }
}
