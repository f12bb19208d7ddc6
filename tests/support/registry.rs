//! The reference registry on a loopback port.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running `docker-registry`, stopped when dropped.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:port`
    pub(crate) address: String,
    dir: tempfile::TempDir,
}

impl Registry {
    /// Starts an empty registry that lets everybody in.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// Starts an empty registry that lets in whoever has this line of an htpasswd file.
    pub(crate) fn start_with_users(htpasswd: &str) -> Self {
        Self::start_with(|dir| {
            let file = dir.join("htpasswd");
            std::fs::write(&file, htpasswd).unwrap();
            format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                file.display()
            )
        })
    }

    /// Starts an empty registry that speaks TLS, with a certificate that nobody trusts.
    pub(crate) fn start_with_tls() -> Self {
        Self::start_with(|dir| {
            let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
            let mut openssl = Command::new(super::program("openssl", "openssl"));
            openssl
                .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test".split(' '))
                .arg("-keyout")
                .arg(&key)
                .arg("-out")
                .arg(&certificate);
            super::finish(&mut openssl).success();
            format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.display(),
                key.display()
            )
        })
    }

    /// Starts one whose configuration ends so, below `http:`.
    fn start_with(end: impl FnOnce(&Path) -> String) -> Self {
        let program = super::program("docker-registry", "docker-registry");
        let dir = tempfile::tempdir().unwrap();
        let end = end(dir.path());
        for _ in 0..5 {
            // The port is free now; if somebody else takes it before the registry does, another one is tried.
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let address = format!("127.0.0.1:{port}");
            let config = dir.path().join("config.yml");
            let storage = dir.path().join("storage");
            let text = format!(
                "version: 0.1\nlog:\n  accesslog:\n    disabled: false\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{end}",
                storage.display()
            );
            std::fs::write(&config, text).unwrap();
            let mut child = Command::new(&program)
                .arg("serve")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(File::create(dir.path().join("access.log")).unwrap())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            for _ in 0..200 {
                if super::answers(&address) {
                    return Self {
                        child,
                        address,
                        dir,
                    };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(25));
            }
            drop(child.kill());
            drop(child.wait());
        }
        panic!("docker-registry does not start");
    }

    /// `address/name`
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Its requests until now, as `PUT /v2/app/manifests/latest 201`, without the query except for what is mounted.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap();
        log.lines().filter_map(request).collect()
    }

    /// Its requests until now that upload something or mount it: blobs and manifests.
    pub(crate) fn uploads(&self) -> Vec<String> {
        let requests = self.requests().into_iter();
        requests
            .filter(|line| !line.starts_with("GET ") && !line.starts_with("HEAD "))
            .collect()
    }

    /// Copies an OCI layout into it.
    pub(crate) fn fill(&self, layout: &Path, name: &str) {
        let status = Command::new(super::program("skopeo", "skopeo"))
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{}", self.name(name)))
            .status()
            .unwrap();
        assert!(status.success(), "skopeo cannot copy {}", layout.display());
    }
}

/// `METHOD path status` of a line of the access log, in Apache's format.
fn request(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('"')?;
    let (request, rest) = rest.split_once("\" ")?;
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = if target.contains("mount=") {
        target
    } else {
        target.split('?').next()?
    };
    Some(format!("{method} {path} {}", rest.split(' ').next()?))
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
