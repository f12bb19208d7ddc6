//! Running `git`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::GitError;
use super::settings::Configuration;
use crate::op::error::StepError;
use crate::op::remote::Fetching;

/// More than any list of one reference's matches; a server that sends more is up to something.
const MAX_OUTPUT: usize = 16 << 20;
/// As much of what git says on standard error as we keep.
const MAX_MESSAGE: usize = 64 * 1024;
/// What other machines may be spoken to by.
const PROTOCOLS: &str = "https:http:ssh:git";

/// `git` for one remote.
pub(super) struct Git<'a> {
    fetching: &'a Fetching<'a>,
    configuration: Configuration,
    /// The remote without password, for messages.
    pub(super) shown: String,
    remote: String,
}

/// Which repositories a run may read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Other machines.
    Network,
    /// Our own on this machine.
    Store,
}

/// One run.
pub(super) struct Run<'r> {
    /// What is attempted, for the message if it fails.
    pub(super) attempt: &'static str,
    /// Where.
    pub(super) dir: &'r Path,
    pub(super) from: From,
    /// Further variables.
    pub(super) env: &'r [(&'r str, &'r OsStr)],
}

impl<'a> Git<'a> {
    pub(super) fn new(fetching: &'a Fetching<'a>, remote: &str) -> Result<Self, StepError> {
        Ok(Self {
            configuration: Configuration::new(remote, fetching.secrets)?,
            shown: without_password(remote),
            remote: remote.to_owned(),
            fetching,
        })
    }

    /// Runs `git` with arguments: what it wrote to standard output.
    pub(super) fn run<S: AsRef<OsStr>>(
        &self,
        run: &Run<'_>,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Vec<u8>, StepError> {
        let mut command = self.command(run);
        command.args(args);
        tracing::debug!(?command, "git");
        self.fetching.wait(async {
            let mut child = command.spawn().map_err(|source| self.not_run(source))?;
            // Programs that git starts are in its group, and end with it.
            let mut group = Group(child.id());
            let stdout = child.stdout.take();
            let stderr = child.stderr.take();
            let (stdout, stderr) =
                tokio::join!(read(stdout, MAX_OUTPUT), read(stderr, MAX_MESSAGE));
            let status = child.wait().await.map_err(|source| self.not_run(source))?;
            group.0 = None;
            if status.success() {
                return stdout.map_err(|source| self.not_run(source));
            }
            let said = stderr.unwrap_or_default();
            Err(StepError::Git(GitError::Failed {
                attempt: run.attempt,
                remote: self.shown.clone(),
                message: self.summary(&String::from_utf8_lossy(&said)),
            }))
        })
    }

    fn command(&self, run: &Run<'_>) -> Command {
        let settings = &self.fetching.reach.git;
        let remembered = self.fetching.paths.git().join("known_hosts");
        let protocols = match run.from {
            From::Network => PROTOCOLS,
            From::Store => "file",
        };
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", self.path())
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.configuration.path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", protocols)
            .env("GIT_SSH_COMMAND", settings.ssh_command(&remembered))
            .env("GIT_SSH_VARIANT", "ssh")
            .envs(settings.proxies.iter().map(|(name, value)| (name, value)))
            .envs(run.env.iter().copied())
            .current_dir(run.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(agent) = settings.agent() {
            command.env("SSH_AUTH_SOCK", agent);
        }
        if let Some(authorities) = &settings.authorities {
            command.env("GIT_SSL_CAINFO", authorities);
        }
        command
    }

    fn path(&self) -> OsString {
        let path = &self.fetching.reach.git.path;
        match path.is_empty() {
            true => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            false => path.clone(),
        }
    }

    fn not_run(&self, source: io::Error) -> StepError {
        let remote = self.shown.clone();
        StepError::Git(match source.kind() {
            io::ErrorKind::NotFound => GitError::NoProgram {
                remote,
                path: self.path().to_string_lossy().into_owned(),
            },
            _ => GitError::Run { remote, source },
        })
    }

    /// The end of what git said, on one line.
    fn summary(&self, said: &str) -> String {
        let lines: Vec<&str> = said
            .lines()
            .map(|line| line.rsplit('\r').next().unwrap_or(line).trim())
            .filter(|line| !line.is_empty())
            .collect();
        let end = lines.len().saturating_sub(4);
        lines[end..].join("; ").replace(&self.remote, &self.shown)
    }
}

/// Ends the processes of a run that was given up.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && let Err(error) = kill_process_group(pid, Signal::KILL)
        {
            tracing::trace!(%error, "the group of git has ended");
        }
    }
}

/// Reads to the end and keeps at most `limit` bytes.
async fn read(from: Option<impl AsyncRead + Unpin>, limit: usize) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut from) = from else {
        return Ok(kept);
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(kept);
        }
        let room = limit.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
}

/// `scheme://user:password@host/…` without what stands before the host.
pub(super) fn without_password(remote: &str) -> String {
    let Some((scheme, rest)) = remote.split_once("://") else {
        return remote.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') || scheme.starts_with("http") => {
            format!("{scheme}://{host}{path}")
        }
        Some(_) | None => remote.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (remote, want) in [
            ("https://u:p@h/r.git", "https://h/r.git"),
            ("https://token@h/r.git", "https://h/r.git"),
            ("ssh://git@h/r@x", "ssh://git@h/r@x"),
            ("git@h:o/r", "git@h:o/r"),
            ("https://h", "https://h"),
        ] {
            assert_eq!(without_password(remote), want);
        }
    }
}
