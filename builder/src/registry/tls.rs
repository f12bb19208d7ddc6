//! Certificates: who is trusted, who we say we are.
//!
//! Reading the system's authorities takes about ten milliseconds, as long as a whole cached build; they are read when the
//! first TLS connection is made and never for plain HTTP.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::{ConfigError, TlsRoots};

/// Where distributions keep the system's authorities: Debian, Fedora, openSUSE, Alpine (the list of Go's `crypto/x509`).
const SYSTEM_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whether a server's certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verification {
    /// It must be signed by an authority that is trusted.
    Full,
    /// Anything goes: the host is configured as insecure.
    None,
}

/// Makes TLS configurations.
#[derive(Debug)]
pub(crate) struct Tls {
    roots: TlsRoots,
    certs_dirs: Vec<PathBuf>,
    provider: Arc<CryptoProvider>,
    system: OnceLock<RootCertStore>,
}

/// The files of a host in a `certs.d` folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct HostFiles {
    authorities: Vec<PathBuf>,
    /// Certificate and key.
    identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    pub(crate) fn new(roots: TlsRoots, certs_dirs: Vec<PathBuf>) -> Self {
        Self {
            roots,
            certs_dirs,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            system: OnceLock::new(),
        }
    }

    /// What is configured for `host[:port]`.
    pub(crate) fn host_files(&self, host: &str) -> Result<HostFiles, ConfigError> {
        let mut files = HostFiles::default();
        if host.contains('/') || host.starts_with('.') {
            return Ok(files);
        }
        for dir in &self.certs_dirs {
            for path in list(&dir.join(host))? {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => files.authorities.push(path),
                    Some("cert") => {
                        files.identity = Some((path.clone(), path.with_extension("key")));
                    }
                    Some(_) | None => {}
                }
            }
        }
        Ok(files)
    }

    /// A configuration that can do no TLS: for connections that use none.
    pub(crate) fn never(&self) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?;
        Ok(builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth())
    }

    /// The configuration for a host.
    pub(crate) fn config(
        &self,
        host: &str,
        files: &HostFiles,
        verification: Verification,
    ) -> Result<ClientConfig, ConfigError> {
        let failed = |source| ConfigError::Tls {
            host: host.to_owned(),
            source,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let builder = match verification {
            Verification::Full => builder.with_root_certificates(self.trusted(files)?),
            Verification::None => {
                let verifier = Arc::new(AcceptAny(Arc::clone(&self.provider)));
                let dangerous = builder.dangerous();
                dangerous.with_custom_certificate_verifier(verifier)
            }
        };
        let mut config = match &files.identity {
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                builder
                    .with_client_auth_cert(chain, private_key(key)?)
                    .map_err(failed)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The host's own authorities and those of everybody.
    fn trusted(&self, files: &HostFiles) -> Result<RootCertStore, ConfigError> {
        let mut store = match self.system.get() {
            Some(store) => store.clone(),
            None => {
                let store = self.system_roots()?;
                self.system.get_or_init(|| store).clone()
            }
        };
        for path in &files.authorities {
            store.add_parsable_certificates(certificates(path)?);
        }
        match store.is_empty() {
            true => Err(ConfigError::NoRoots),
            false => Ok(store),
        }
    }

    fn system_roots(&self) -> Result<RootCertStore, ConfigError> {
        let mut store = RootCertStore::empty();
        if let Some(path) = &self.roots.file {
            store.add_parsable_certificates(certificates(path)?);
        }
        for dir in &self.roots.dirs {
            // Such folders have links and other files beside certificates: what is none is passed over.
            for path in list(dir)? {
                store.add_parsable_certificates(certificates(&path).unwrap_or_default());
            }
        }
        if self.roots.file.is_none() && self.roots.dirs.is_empty() {
            let found = SYSTEM_FILES
                .iter()
                .map(Path::new)
                .find(|path| path.exists());
            if let Some(path) = found {
                store.add_parsable_certificates(certificates(path)?);
            }
        }
        Ok(store)
    }
}

impl HostFiles {
    /// Whether nothing is configured.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The files of a folder by name; none if it does not exist.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let bytes = read(path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(ConfigError::Certificate {
            what: "certificate",
            path: path.to_owned(),
        }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let parsed = PrivateKeyDer::from_pem_slice(&read(path)?).ok();
    parsed.ok_or_else(|| ConfigError::Certificate {
        what: "private key",
        path: path.to_owned(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Takes any certificate; signatures must still fit it.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
