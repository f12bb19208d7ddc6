//! Git repositories to build from.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The time of every commit.
pub(crate) const COMMIT_TIME: u64 = 1_577_836_800;

/// A repository with a working tree; servers read its `.git` under the name that [`Repository::publish`] gives.
pub(crate) struct Repository {
    dir: PathBuf,
}

impl Repository {
    /// An empty one in a directory that does not exist.
    pub(crate) fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let repository = Self {
            dir: dir.to_owned(),
        };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Runs git in it: standard output.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let date = format!("{COMMIT_TIME} +0000");
        let output = Command::new("git")
            .args(["-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "a")
            .env("GIT_AUTHOR_EMAIL", "a@example")
            .env("GIT_COMMITTER_NAME", "a")
            .env("GIT_COMMITTER_EMAIL", "a@example")
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout).trim().to_owned()
    }

    /// Writes a file, mode 0644.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        self
    }

    /// Commits everything: the commit.
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Copies it bare to a path, in place of what was published there.
    pub(crate) fn publish(&self, bare: &Path) {
        if bare.exists() {
            std::fs::remove_dir_all(bare).unwrap();
        }
        let bare = bare.to_str().unwrap();
        self.git(&["clone", "--quiet", "--mirror", ".", bare]);
    }
}

/// A running `git daemon`, stopped when dropped.
pub(crate) struct Daemon {
    child: Child,
    /// `127.0.0.1:port`
    pub(crate) address: String,
}

impl Daemon {
    /// Serves the repositories of a directory.
    pub(crate) fn start(root: &Path) -> Self {
        let output = Command::new("git").arg("--exec-path").output().unwrap();
        let programs = String::from_utf8(output.stdout).unwrap();
        let program = Path::new(programs.trim()).join("git-daemon");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = Command::new(program)
            .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", root.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self {
            child,
            address: format!("127.0.0.1:{port}"),
        };
        for _ in 0..200 {
            if super::answers(&daemon.address) {
                return daemon;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("git daemon does not start");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
