//! Certificates made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An authority, a server's certificate for 127.0.0.1 and a client's.
#[derive(Debug)]
pub(crate) struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Self { dir };
        std::fs::write(certificates.path("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        certificates.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign \
             -keyout ca.key -out ca.crt",
        );
        for name in ["server", "client"] {
            certificates.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} \
                 -keyout {name}.key -out {name}.csr"
            ));
            certificates.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                 -extfile san -out {name}.crt"
            ));
        }
        certificates
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A `certs.d` folder for a host: its authority, and the client's certificate if wanted.
    pub(crate) fn certs_dir(&self, to: &Path, host: &str, with_client: bool) -> PathBuf {
        let dir = to.join("certs.d");
        let of_host = dir.join(host);
        std::fs::create_dir_all(&of_host).unwrap();
        std::fs::copy(self.path("ca.crt"), of_host.join("ca.crt")).unwrap();
        if with_client {
            std::fs::copy(self.path("client.crt"), of_host.join("client.cert")).unwrap();
            std::fs::copy(self.path("client.key"), of_host.join("client.key")).unwrap();
        }
        dir
    }

    /// The YAML below `http:` of a registry that uses them.
    pub(crate) fn yaml(&self, wants_client: bool) -> String {
        let show = |name: &str| self.path(name).display().to_string();
        let client = match wants_client {
            true => format!("    clientcas:\n      - {}\n", show("ca.crt")),
            false => String::new(),
        };
        format!(
            "  tls:\n    certificate: {}\n    key: {}\n{client}",
            show("server.crt"),
            show("server.key")
        )
    }

    fn openssl(&self, arguments: &str) {
        let status = Command::new("openssl")
            .args(arguments.split_ascii_whitespace())
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let status = status.unwrap_or_else(|error| {
            panic!("cannot run openssl ({error}): apt-get install openssl")
        });
        assert!(status.success(), "openssl {arguments}");
    }
}
