//! Finds the program a command names, in the root it will run in.
//!
//! The rules and texts are those of Go's `exec.LookPath`, which runc uses and scripts match on.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::Errno;

/// A program that cannot be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotFound {
    name: String,
    reason: Reason,
}

#[derive(Debug, PartialEq, Eq)]
enum Reason {
    /// Not in any directory of PATH.
    NotInPath,
    /// The path cannot be looked at.
    Stat(Errno),
    /// It is not executable.
    Permission,
    /// It is a directory.
    Directory,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        write!(
            f,
            "runc run failed: unable to start container process: exec: {name:?}: "
        )?;
        match &self.reason {
            Reason::NotInPath => f.write_str("executable file not found in $PATH"),
            Reason::Stat(errno) => write!(f, "stat {name}: {errno}"),
            Reason::Permission => f.write_str("permission denied"),
            Reason::Directory => f.write_str("is a directory"),
        }
    }
}

/// Looks `name` up; `look` tells the mode of a path.
pub(super) fn find(
    name: &str,
    env: &[(String, String)],
    look: impl Fn(&Path) -> io::Result<u32>,
) -> Result<PathBuf, NotFound> {
    let not_found = |reason| NotFound {
        name: name.to_owned(),
        reason,
    };
    if name.contains('/') {
        return match look(Path::new(name)) {
            Err(error) => Err(not_found(Reason::Stat(error.into()))),
            Ok(mode) => executable(mode)
                .map(|()| PathBuf::from(name))
                .map_err(not_found),
        };
    }
    let path = env
        .iter()
        .rev()
        .find(|(key, _)| key == "PATH")
        .map_or("", |(_, value)| value.as_str());
    path.split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name))
        .find(|candidate| look(candidate).is_ok_and(|mode| executable(mode).is_ok()))
        .ok_or_else(|| not_found(Reason::NotInPath))
}

fn executable(mode: u32) -> Result<(), Reason> {
    const TYPE: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    if mode & TYPE == DIRECTORY {
        return Err(Reason::Directory);
    }
    if mode & 0o111 == 0 {
        return Err(Reason::Permission);
    }
    Ok(())
}

/// The mode of a path below the current root.
pub(super) fn mode(path: &Path) -> io::Result<u32> {
    std::fs::metadata(path).map(|found| found.mode())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &Path) -> io::Result<u32> {
        match path.to_str() {
            Some("/bin/sh" | "/usr/bin/tool" | "./here") => Ok(0o100_755),
            Some("/bin/data" | "/usr/bin/sh") => Ok(0o100_644),
            Some("/bin" | "/bin/dir") => Ok(0o040_755),
            Some(_) | None => Err(io::Error::from_raw_os_error(2)),
        }
    }

    #[test]
    fn lookups() {
        let env = vec![("PATH".to_owned(), "/usr/bin::/bin".to_owned())];
        let found = |name| {
            find(name, &env, look)
                .map(|path| path.display().to_string())
                .map_err(|error| error.to_string())
        };
        let failure = |rest: &str| {
            Err(format!(
                "runc run failed: unable to start container process: exec: {rest}"
            ))
        };
        assert_eq!(found("sh"), Ok("/bin/sh".to_owned()));
        assert_eq!(found("tool"), Ok("/usr/bin/tool".to_owned()));
        assert_eq!(found("here"), Ok("./here".to_owned()));
        assert_eq!(
            found("x"),
            failure("\"x\": executable file not found in $PATH")
        );
        assert_eq!(
            found("dir"),
            failure("\"dir\": executable file not found in $PATH")
        );
        assert_eq!(
            found("/no/such"),
            failure("\"/no/such\": stat /no/such: no such file or directory")
        );
        assert_eq!(
            found("/bin/data"),
            failure("\"/bin/data\": permission denied")
        );
        assert_eq!(found("/bin"), failure("\"/bin\": is a directory"));
        assert!(find("sh", &[], look).is_err());
    }
}
