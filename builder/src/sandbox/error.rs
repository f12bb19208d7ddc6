//! What can go wrong with a sandbox.
//!
//! [`SetupError`] happens in `sandbox-init` or in the step before exec and crosses a socket, hence plain data;
//! [`SandboxError`] is what the builder gets.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::user::UserError;

/// A step could not be run. That the command itself failed is no error but an [`Exit`](super::Exit).
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// `sandbox-init` could not be started.
    #[error("cannot start `{program}`", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket to `sandbox-init` failed: it died.
    #[error("lost the connection to sandbox-init while {attempt}")]
    Channel {
        /// What was tried.
        attempt: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The step was killed because the caller asked for it.
    #[error("cancelled")]
    Cancelled,
    /// The step could not be prepared.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// A step could not be prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SetupError {
    /// The kernel refused something.
    #[error("cannot {action} `{path}`: {errno}", path = path.display())]
    Action {
        /// What.
        action: Action,
        /// On what: a path in the step's root where there is one.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The user is unknown in the root.
    #[error(transparent)]
    User(#[from] UserError),
    /// A mount's source is not there. The path stands without quotes before the reason, as scripts know it.
    #[error("cannot mount to `{target}`: {source_path}: {errno}", target = target.display(), source_path = source_path.display())]
    Source {
        /// Where it was to be mounted.
        target: PathBuf,
        /// The path inside the source.
        source_path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// A system mount's target is not an ordinary directory, which a hostile image uses to redirect it.
    #[error("cannot mount {filesystem}: `{path}` of the image is not an ordinary directory", path = path.display())]
    NotADirectory {
        /// Such as `proc`.
        filesystem: String,
        /// The path in the root.
        path: PathBuf,
    },
    /// A mount's target may not be mounted over.
    #[error("cannot mount to `{target}`: it belongs to the sandbox", target = target.display())]
    ForbiddenTarget {
        /// The target.
        target: PathBuf,
    },
    /// A directory was to be mounted over a file, or a file over a directory.
    #[error("cannot mount to `{target}`: it is {found}, and what is mounted is {mounted}", target = target.display())]
    OtherKind {
        /// The target.
        target: PathBuf,
        /// What the target is.
        found: Kind,
        /// What the source is.
        mounted: Kind,
    },
    /// An unknown resource name.
    #[error("unknown ulimit `{name}`")]
    Ulimit {
        /// The name.
        name: String,
    },
    /// A limit above what this process may set.
    #[error(
        "cannot raise the limit `{name}` to {wanted}: this process is allowed {allowed} and lacks CAP_SYS_RESOURCE; \
         ask for no more, or raise the limit where builder is started"
    )]
    UlimitRefused {
        /// The name.
        name: String,
        /// What was asked for.
        wanted: String,
        /// What is allowed.
        allowed: String,
    },
    /// A string of the command holds a NUL.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which.
        what: String,
    },
    /// Something this program cannot do yet.
    #[error("not supported yet: {what}")]
    Unsupported {
        /// What, and what to do instead.
        what: String,
    },
    /// The step's process ended before it reported anything.
    #[error("the sandbox ended before the command started")]
    Vanished,
}

/// What a mount or its target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file of any other type.
    File,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::File => "a file",
        })
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Receive the request.
    Receive,
    /// Make or set up a cgroup.
    Cgroup,
    /// Load or attach the device program.
    LimitDevices,
    /// Clone the step's process.
    Clone,
    /// Make or enter a namespace.
    Namespace,
    /// Detach from the host's mounts.
    Privatise,
    /// Set the host name.
    Hostname,
    /// Bring the loopback interface up.
    Loopback,
    /// Mount a file system.
    Mount,
    /// Set the options of a mount.
    Remount,
    /// Bind a path.
    Bind,
    /// Create a file or directory.
    Create,
    /// Open a path.
    Open,
    /// Read a file.
    Read,
    /// Hide a path.
    Mask,
    /// Make a path read-only.
    Protect,
    /// Make the root file system the root.
    Pivot,
    /// Make and enter the working directory.
    WorkDir,
    /// Set standard input, output or error.
    Stdio,
    /// Set a resource limit.
    Limit,
    /// Install the system call filter.
    Seccomp,
    /// Change user and groups.
    SwitchUser,
    /// Give up capabilities.
    Capabilities,
    /// Start a session, keyring or the like.
    Session,
    /// Take back a mount point.
    CleanUp,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receive => "receive",
            Self::Cgroup => "set up cgroup",
            Self::LimitDevices => "limit devices of",
            Self::Clone => "clone",
            Self::Namespace => "enter namespace",
            Self::Privatise => "make private",
            Self::Hostname => "set host name",
            Self::Loopback => "bring up",
            Self::Mount => "mount",
            Self::Remount => "set mount options of",
            Self::Bind => "bind",
            Self::Create => "create",
            Self::Open => "open",
            Self::Read => "read",
            Self::Mask => "mask",
            Self::Protect => "make read-only",
            Self::Pivot => "change the root to",
            Self::WorkDir => "change to working directory",
            Self::Stdio => "set up",
            Self::Limit => "set limit",
            Self::Seccomp => "install filter of",
            Self::SwitchUser => "switch to user",
            Self::Capabilities => "set capabilities of",
            Self::Session => "start",
            Self::CleanUp => "remove mount point",
        })
    }
}

/// A kernel error number, shown as its usual text in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        f.write_str(&text.to_lowercase())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({self})", self.0)
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        // An error without number comes from std's own checks of arguments.
        Self(
            error
                .raw_os_error()
                .unwrap_or(rustix::io::Errno::INVAL.raw_os_error()),
        )
    }
}

/// Names what was tried when a system call fails.
pub(super) trait Attempt<T> {
    fn attempt(self, action: Action, path: impl Into<PathBuf>) -> Result<T, SetupError>;
}

impl<T, E: Into<Errno>> Attempt<T> for Result<T, E> {
    fn attempt(self, action: Action, path: impl Into<PathBuf>) -> Result<T, SetupError> {
        self.map_err(|errno| SetupError::Action {
            action,
            path: path.into(),
            errno: errno.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_action_path_and_reason() {
        let error: Result<(), _> = Err(rustix::io::Errno::NOENT).attempt(Action::Bind, "/x");
        assert_eq!(
            error.unwrap_err().to_string(),
            "cannot bind `/x`: no such file or directory"
        );
        let missing = SetupError::Source {
            target: "/m".into(),
            source_path: "/no/such".into(),
            errno: Errno(2),
        };
        assert!(
            missing
                .to_string()
                .contains("/no/such: no such file or directory")
        );
    }
}
