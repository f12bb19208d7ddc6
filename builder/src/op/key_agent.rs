//! An ssh agent for keys that are given as files: OpenSSH's own, which reads every kind of key, for as long as a mount needs
//! it. No key is ever in the memory of this program for longer than it takes to pass it on.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Why no agent could be had for keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyAgentError {
    /// A program of OpenSSH is missing.
    #[error("keys given by --ssh need the program `{0}`, which is not installed")]
    NoProgram(&'static str),
    /// A program could not be run.
    #[error("cannot run `{program}`")]
    Run {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A key cannot be read.
    #[error("cannot read the key `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The agent does not take a key.
    #[error("cannot use the key `{}` for --ssh: ssh-add: {message}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The last line of what `ssh-add` said.
        message: String,
    },
}

/// An agent with keys. Dropped, it ends; if this process is killed, too.
#[derive(Debug)]
pub(super) struct KeyAgent {
    socket: PathBuf,
    companion: Child,
}

/// What the agent is started with: tells that it listens, and ends it with the end of the input; also where nobody is there
/// any more who could be told.
const COMPANION: &str = "trap '' PIPE; echo; cat; kill $SSH_AGENT_PID";

/// The name of the socket, in a directory whose own name may be longer than a socket's may be.
const SOCKET: &str = "keys";

impl KeyAgent {
    /// Starts an agent with these keys, its socket in `dir`, a directory that nobody else can enter.
    pub(super) fn start(dir: &Path, keys: &[PathBuf]) -> Result<Self, KeyAgentError> {
        let companion = program("ssh-agent", dir)
            .args(["-a", SOCKET, "sh", "-c", COMPANION])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| not_run("ssh-agent", source))?;
        let mut started = Self {
            socket: dir.join(SOCKET),
            companion,
        };
        started.wait()?;
        for key in keys {
            started.add(dir, key)?;
        }
        Ok(started)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until it listens.
    fn wait(&mut self) -> Result<(), KeyAgentError> {
        let mut byte = [0];
        let said = match &mut self.companion.stdout {
            Some(output) => output.read(&mut byte),
            None => Ok(0),
        };
        let said = said.map_err(|source| not_run("ssh-agent", source))?;
        match said {
            0 => Err(not_run("ssh-agent", io::Error::other("it does not start"))),
            _ => Ok(()),
        }
    }

    /// Passes a key on by a pipe: by its name it would be refused if others can read the file, which nobody minds of one
    /// that a build system has put there.
    fn add(&self, dir: &Path, key: &Path) -> Result<(), KeyAgentError> {
        let bytes = fs::read(key).map_err(|source| KeyAgentError::Read {
            path: key.to_owned(),
            source,
        })?;
        let failed = |source| not_run("ssh-add", source);
        let mut adding = program("ssh-add", dir)
            .args(["-q", "-"])
            .env("SSH_AUTH_SOCK", SOCKET)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = adding.stdin.take() {
            // One that ends without reading says why.
            drop(input.write_all(&bytes));
        }
        let ended = adding.wait_with_output().map_err(failed)?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let message = said.trim().lines().last().unwrap_or("it failed").to_owned();
        Err(KeyAgentError::Refused {
            path: key.to_owned(),
            message,
        })
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        drop(self.companion.stdin.take());
        drop(self.companion.wait());
    }
}

/// A program of OpenSSH, which asks nobody for anything.
fn program(name: &'static str, dir: &Path) -> Command {
    let mut command = Command::new(name);
    command
        .current_dir(dir)
        // What a terminal sends to this program is not for them.
        .process_group(0)
        // Who would be asked for a passphrase says nothing.
        .env("SSH_ASKPASS_REQUIRE", "force")
        .env("SSH_ASKPASS", "false")
        .env("LC_ALL", "C")
        .env_remove("SSH_AUTH_SOCK");
    command
}

fn not_run(program: &'static str, source: io::Error) -> KeyAgentError {
    match source.kind() {
        io::ErrorKind::NotFound => KeyAgentError::NoProgram(program),
        _ => KeyAgentError::Run { program, source },
    }
}
