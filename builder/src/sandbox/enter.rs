//! Enters a user namespace by replacing the process, in three starts of the same program.
//!
//! ```text
//! NAME ARGS ─exec─► builder sandbox-enter MAPS PROGRAM NAME ARGS ─unshare─exec─► NAME ARGS (root inside)
//!                     └─spawn─► builder sandbox-map PID MAPS ─► newuidmap, newgidmap
//! ```
//!
//! The first exec gets rid of threads, without which `unshare(CLONE_NEWUSER)` is not allowed. The mapping is done by a child
//! that stayed outside: a process has no rights to map itself.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use super::idmap::arguments;
use super::rung::{Entry, Inside, RungError};
use super::sys::{self, Namespace};

/// First argument of the process that enters.
pub(super) const ENTER_MARKER: &str = "sandbox-enter";

/// First argument of the process that maps.
pub(super) const MAP_MARKER: &str = "sandbox-map";

/// The set-user-id programs that check `/etc/subuid` and `/etc/subgid`.
pub(super) const MAPPERS: [&str; 2] = ["newuidmap", "newgidmap"];

/// This program, wherever it is.
pub(super) const SELF: &str = "/proc/self/exe";

/// Where set-user-id programs are; PATH is not asked for a program that is given rights.
const PROGRAM_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"];

pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    PROGRAM_DIRS
        .iter()
        .map(|dir| PathBuf::from(dir).join(name))
        .find(|path| {
            std::fs::metadata(path)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

fn failed(attempt: &'static str) -> impl Fn(io::Error) -> RungError {
    move |source| RungError::Enter { attempt, source }
}

/// What to do about a user namespace that the kernel does not give.
fn refused(source: io::Error) -> RungError {
    match rustix::io::Errno::from_io_error(&source) {
        // Too many of them, or too deep; `EUSERS` before Linux 4.9.
        Some(rustix::io::Errno::NOSPC | rustix::io::Errno::USERS) => RungError::NamespacesUsedUp,
        Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => RungError::NamespacesForbidden,
        _ => failed("unshare")(source),
    }
}

/// First start: becomes the process that enters.
pub(super) fn replace(entry: &Entry, inside: &Inside) -> RungError {
    let source = Command::new(&inside.starter)
        .arg(ENTER_MARKER)
        .arg(arguments(&entry.uid_map).join(","))
        .arg(arguments(&entry.gid_map).join(","))
        .arg(&inside.program)
        .args(&inside.words)
        .envs(inside.env.iter().map(|(key, value)| (key, value)))
        .exec();
    failed("starting again")(source)
}

/// Second start: enters, has itself mapped, becomes root and the program proper.
pub(super) fn enter(args: Vec<OsString>) -> Result<Infallible, RungError> {
    let mut args = args.into_iter();
    let (Some(uids), Some(gids), Some(program)) = (args.next(), args.next(), args.next()) else {
        return Err(failed("reading arguments")(
            io::ErrorKind::InvalidInput.into(),
        ));
    };
    let mut mapper = Command::new(SELF)
        .arg(MAP_MARKER)
        .arg(std::process::id().to_string())
        .args([uids, gids])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed("starting the helper that maps ids"))?;
    sys::unshare(Namespace::User).map_err(refused)?;
    let told = mapper.stdin.take().map(|mut pipe| pipe.write_all(b"m"));
    told.unwrap_or(Ok(()))
        .map_err(failed("telling the helper that maps ids"))?;
    let mut message = String::new();
    if let Some(mut pipe) = mapper.stdout.take() {
        drop(pipe.read_to_string(&mut message));
    }
    let status = mapper
        .wait()
        .map_err(failed("waiting for the helper that maps ids"))?;
    if !status.success() {
        return Err(mapper_error(&message));
    }
    become_root().map_err(|errno| failed("becoming root inside")(errno.into()))?;
    let mut command = Command::new(by_path(program.into())?);
    command.arg0(args.next().unwrap_or_default()).args(args);
    Err(failed("starting again inside")(command.exec()))
}

/// The link to this program leads to the mount namespace that was left, of which nothing can be mounted any more; its path
/// leads to the same file here.
fn by_path(program: PathBuf) -> Result<PathBuf, RungError> {
    if program != Path::new(SELF) {
        return Ok(program);
    }
    let file = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let path = std::fs::read_link(SELF).map_err(failed("finding this program's file"))?;
    let is_same = file(&path)
        .and_then(|found| Ok(found == file(Path::new(SELF))?))
        .map_err(failed("finding this program's file"))?;
    if is_same {
        Ok(path)
    } else {
        Err(failed("finding this program's file")(
            io::ErrorKind::NotFound.into(),
        ))
    }
}

fn become_root() -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    set_thread_res_gid(Some(gid), Some(gid), Some(gid))?;
    set_thread_res_uid(Some(uid), Some(uid), Some(uid))?;
    // The user's other groups stay: files and sockets may be open to them only. A step drops them.
    // Mounts of the builder itself stay its own.
    sys::unshare(Namespace::Mount)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
}

/// The helper's answer: the program that refused or nothing, newline, what went wrong.
fn mapper_error(message: &str) -> RungError {
    let (program, said) = message.split_once('\n').unwrap_or(("", message));
    let message = said.trim().to_owned();
    match MAPPERS.into_iter().find(|name| *name == program) {
        Some(program) => RungError::Mapper { program, message },
        None => RungError::Helper { message },
    }
}

/// The child that stays outside: maps its parent when told so. What goes wrong is written to standard output for the parent.
pub(super) fn write_maps(args: Vec<OsString>) -> Result<(), RungError> {
    let done = map_parent(args);
    if let Err(error) = &done {
        let told = match error {
            RungError::Mapper { program, message } => format!("{program}\n{message}"),
            other => format!("\n{}", crate::text::chain(other)),
        };
        // A parent that is gone needs no answer.
        drop(io::stdout().write_all(told.as_bytes()));
    }
    done
}

fn map_parent(args: Vec<OsString>) -> Result<(), RungError> {
    let mut go = [0];
    io::stdin()
        .read_exact(&mut go)
        .map_err(failed("waiting to be told to map ids"))?;
    let mut args = args.into_iter();
    let (Some(pid), Some(uids), Some(gids)) = (args.next(), args.next(), args.next()) else {
        return Err(failed("reading arguments")(
            io::ErrorKind::InvalidInput.into(),
        ));
    };
    for (program, map) in MAPPERS.into_iter().zip([uids, gids]) {
        let map = map.to_string_lossy().into_owned();
        let path = find_program(program).ok_or(RungError::NoMapper { program })?;
        let done = Command::new(path)
            .arg(&pid)
            .args(map.split(',').map(OsStr::new))
            .output()
            .map_err(failed("running the program that maps ids"))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            let message = said.trim().to_owned();
            return Err(RungError::Mapper { program, message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helpers_answer_names_the_program() {
        let text = mapper_error("newgidmap\nnewgidmap: gid range not allowed\n").to_string();
        assert_eq!(
            text,
            "`newgidmap` refused the ids of /etc/subuid and /etc/subgid: newgidmap: gid range not allowed"
        );
        let text = mapper_error("\ncannot do it").to_string();
        assert_eq!(text, "cannot map ids: cannot do it");
    }
}
