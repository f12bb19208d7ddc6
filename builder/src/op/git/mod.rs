//! Git repositories (features.md 1.12), by the `git` program.
//!
//! ```text
//! GitOp ──identify──► commit (one `ls-remote`, none for a full commit id) ─► key: commit and flags
//!       ──layer─────► git/HEX (a bare repository for the remote, shared by builds) ─► checkout ─► layer
//! ```
//!
//! # Trust
//!
//! `git` sees neither the system's nor the user's configuration, runs no hooks, asks nobody for passwords, and speaks
//! https, http, ssh and git only. References never look like options. A token goes to its host alone: redirects are not
//! followed with one. It reaches `git` through a file in memory, never by arguments or environment.
//!
//! # Same commit, same layer
//!
//! Files are 0644 or 0755, directories 0755, all owned by 0:0; their time is that of the commit, not of the checkout.

mod checkout;
mod program;
mod revision;
mod settings;

use std::io;
use std::path::PathBuf;

pub(crate) use self::checkout::layer;
pub(crate) use self::revision::identify;
pub use self::settings::{GitSettings, SshAccess};

/// Why a repository could not be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no `git`.
    #[error(
        "`{remote}` needs the program `git`, which is not installed (looked for in PATH `{path}`)"
    )]
    NoProgram {
        /// The remote.
        remote: String,
        /// Where it was looked for.
        path: String,
    },
    /// The program could not be run.
    #[error("cannot run `git` for `{remote}`")]
    Run {
        /// The remote.
        remote: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("failed to {attempt} {remote}: git: {message}")]
    Failed {
        /// What was tried.
        attempt: &'static str,
        /// The remote, without password.
        remote: String,
        /// The end of what git said.
        message: String,
    },
    /// The remote has no such branch, tag or commit.
    #[error("repository {remote} does not contain ref {reference}")]
    NoReference {
        /// The remote.
        remote: String,
        /// What was asked for.
        reference: String,
    },
    /// A reference that git would misunderstand.
    #[error("invalid git ref `{0}`")]
    BadReference(String),
    /// Another commit than the one asked for.
    #[error("expected checksum to match {expected}, got {found}")]
    Checksum {
        /// What was asked for.
        expected: String,
        /// The commit of the reference.
        found: String,
    },
    /// There is no such directory.
    #[error("{remote} has no directory `{subdir}` at {commit}")]
    NoSubdirectory {
        /// The remote.
        remote: String,
        /// As asked for.
        subdir: String,
        /// The commit.
        commit: String,
    },
    /// The file system said no.
    #[error("cannot {attempt} `{path}`")]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl GitError {
    fn io(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            attempt,
            path,
            source,
        }
    }
}
