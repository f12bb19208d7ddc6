//! The reference registry, as a process of the test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A `docker-registry` on a loopback port. Ends with the test.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    process: Child,
    dir: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Daemon {
    /// Starts it with more configuration: `extra` is YAML below `http:`, `more` is YAML at the top level.
    pub(crate) async fn start(extra: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The port is free now; the few others who want one get another.
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let address = format!("127.0.0.1:{port}");
        let storage = dir.path().join("storage");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{extra}{more}",
            storage.display()
        );
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = process.unwrap_or_else(|error| {
            panic!("cannot run docker-registry ({error}): apt-get install docker-registry")
        });
        let daemon = Self {
            address,
            process,
            dir,
        };
        daemon.wait().await;
        daemon
    }

    /// Starts it as it comes.
    pub(crate) async fn plain() -> Self {
        Self::start("", "").await
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    async fn wait(&self) {
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(&self.address).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("docker-registry does not listen at {}", self.address);
    }
}
