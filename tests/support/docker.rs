//! A Docker daemon of its own for each test, with containers on the host's network.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Outcome, finish, program, wait_until};

/// A running `dockerd`, stopped when dropped.
pub(crate) struct Docker {
    child: Child,
    dir: tempfile::TempDir,
}

impl Docker {
    /// Starts one with nothing in it.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("docker-test-")
            .tempdir()
            .unwrap();
        let path = |name: &str| dir.path().join(name);
        let child = Command::new(program("dockerd", "docker.io"))
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--bridge=none",
                "--host",
            ])
            .arg(format!("unix://{}", path("socket").display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let docker = Self { child, dir };
        let answers = wait_until(Duration::from_secs(60), || {
            docker.run(["version"]).code == Some(0)
        });
        let log = std::fs::read_to_string(docker.dir.path().join("log")).unwrap_or_default();
        assert!(answers, "dockerd does not start:\n{log}");
        docker
    }

    /// What `DOCKER_HOST` is for it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("socket").display())
    }

    /// The command line's program, not yet run.
    pub(crate) fn command(&self) -> Command {
        // Debian's, whatever else is first in PATH: the daemon is Debian's too.
        let mut command = Command::new("/usr/bin/docker");
        command
            .env("DOCKER_HOST", self.host())
            .env("HOME", self.dir.path());
        command
    }

    /// Runs a command of it.
    #[must_use]
    pub(crate) fn run<const N: usize>(&self, args: [&str; N]) -> Outcome {
        finish(self.command().args(args))
    }

    /// `docker load`
    pub(crate) fn load(&self, archive: &Path) {
        finish(self.command().args(["load", "--input"]).arg(archive)).success();
    }

    /// `docker build` with BuildKit, on the host's network.
    pub(crate) fn build(&self, tag: &str, context: &Path) {
        let mut command = self.command();
        command
            .env("DOCKER_BUILDKIT", "1")
            .args(["build", "--network", "host", "--tag", tag])
            .arg(context);
        finish(&mut command).success();
    }

    /// Standard output of a container that runs to its end.
    pub(crate) fn output(&self, args: &[&str]) -> String {
        let mut command = self.command();
        command
            .args(["run", "--rm", "--network", "host"])
            .args(args);
        finish(&mut command).success().stdout
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // SIGTERM lets it unmount what it mounted; SIGKILL is for a daemon that hangs.
        super::signal(self.child.id(), rustix::process::Signal::TERM);
        let child = &mut self.child;
        if !wait_until(Duration::from_secs(20), || {
            matches!(child.try_wait(), Ok(Some(_)))
        }) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        // The network namespace of `--network host` stays mounted, and with it the directory.
        let namespace = self.dir.path().join("exec/netns/default");
        drop(Command::new("umount").arg(namespace).status());
    }
}
