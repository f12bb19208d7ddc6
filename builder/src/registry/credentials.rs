//! Which credential belongs to a repository: Docker configs, containers-auth.json(5) files, credential helpers.
//!
//! Files are read when a registry first asks who we are. Keys of a file are tried from the most specific
//! (`quay.io/org/image`) to the host. A source that knows the registry ends the search.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::config::{CredentialSources, Secret};
use super::helper;

/// The key of Docker Hub in Docker's own files.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Names under which people log in to Docker Hub.
const DOCKER_HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Who we are for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nobody.
    Anonymous,
    /// User and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, exchanged at the token service.
    IdentityToken(Secret),
    /// A token that the registry itself takes.
    RegistryToken(Secret),
}

/// Gives credentials.
pub trait Credentials: Send + Sync {
    /// The credential for a repository of a registry (`host[:port]`). Only that registry, and the token service that it
    /// names, will see it.
    fn credential<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Credential, CredentialError>>;
}

/// Nobody, anywhere.
#[derive(Clone, Copy, Debug)]
pub struct NoCredentials;

impl Credentials for NoCredentials {
    fn credential<'a>(
        &'a self,
        _host: &'a str,
        _repository: &'a str,
    ) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        async { Ok(Credential::Anonymous) }.boxed()
    }
}

/// Why credentials could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is no JSON of the right form. The cause's text may show a value, so only its place is told.
    #[error("`{origin}` is not understood: line {line}, column {column}")]
    Format {
        /// The file, or the variable.
        origin: String,
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
    /// An entry's `auth` is not base64 of `user:password`.
    #[error("`{origin}`: the entry `{key}` has an `auth` that is not base64 of user:password")]
    Entry {
        /// The file, or the variable.
        origin: String,
        /// Which entry.
        key: String,
    },
    /// A helper has an impossible name.
    #[error("`{program}` cannot be the name of a credential helper")]
    HelperName {
        /// Which.
        program: String,
    },
    /// A helper is not installed.
    #[error(
        "credential helper `{program}` not found in $PATH; install it or remove it from the Docker config"
    )]
    HelperMissing {
        /// Which.
        program: String,
    },
    /// A helper could not be run.
    #[error("cannot run credential helper `{program}`")]
    HelperStart {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A helper said no.
    #[error("credential helper `{program}` failed: {message}")]
    HelperFailed {
        /// Which.
        program: String,
        /// What it says.
        message: String,
    },
    /// A helper did not end.
    #[error("credential helper `{program}` gave no answer for {} seconds", .after.as_secs())]
    HelperStalled {
        /// Which.
        program: String,
        /// For how long.
        after: Duration,
    },
    /// A helper's answer is not understood.
    #[error("credential helper `{program}` gave an answer that is not understood")]
    HelperAnswer {
        /// Which.
        program: String,
    },
}

/// Credentials as Docker and podman keep them.
#[derive(Debug)]
pub struct ConfiguredCredentials {
    sources: CredentialSources,
    files: OnceCell<Vec<File>>,
}

#[derive(Debug)]
struct File {
    origin: String,
    document: Document,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    auths: BTreeMap<String, AuthEntry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl std::fmt::Debug for AuthEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthEntry")
    }
}

impl ConfiguredCredentials {
    /// Takes the sources; reads nothing yet.
    pub fn new(sources: CredentialSources) -> Self {
        Self {
            sources,
            files: OnceCell::new(),
        }
    }

    async fn files(&self) -> Result<&[File], CredentialError> {
        let load = async || {
            let mut files = Vec::new();
            if let Some(text) = &self.sources.inline {
                files.push(File::parse("DOCKER_AUTH_CONFIG", text.reveal().as_bytes())?);
            }
            for path in &self.sources.files {
                if let Some(bytes) = read(path)? {
                    files.push(File::parse(&path.display().to_string(), &bytes)?);
                }
            }
            Ok(files)
        };
        self.files.get_or_try_init(load).await.map(Vec::as_slice)
    }

    async fn find(&self, host: &str, repository: &str) -> Result<Credential, CredentialError> {
        let keys = keys(host, repository);
        for file in self.files().await? {
            if let Some(found) = file.find(host, &keys).await? {
                return Ok(found);
            }
        }
        Ok(Credential::Anonymous)
    }
}

impl Credentials for ConfiguredCredentials {
    fn credential<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        self.find(host, repository).boxed()
    }
}

impl File {
    fn parse(origin: &str, bytes: &[u8]) -> Result<Self, CredentialError> {
        let document = match bytes.trim_ascii().is_empty() {
            true => Document::default(),
            false => serde_json::from_slice(bytes).map_err(|error| CredentialError::Format {
                origin: origin.to_owned(),
                line: error.line(),
                column: error.column(),
            })?,
        };
        Ok(Self {
            origin: origin.to_owned(),
            document,
        })
    }

    /// As Docker: the registry's own helper, else the store for all, else the file's entries.
    async fn find(
        &self,
        host: &str,
        keys: &[String],
    ) -> Result<Option<Credential>, CredentialError> {
        let helpers = &self.document.cred_helpers;
        let own = keys.iter().find_map(|key| Some((key, helpers.get(key)?)));
        let asked = match own {
            Some((key, name)) => Some((name.as_str(), key.as_str())),
            None if self.document.creds_store.is_empty() => None,
            None => Some((self.document.creds_store.as_str(), server(host))),
        };
        if let Some((name, server)) = asked
            && let Some(found) = helper::ask(name, server).await?
        {
            return Ok(Some(found));
        }
        for key in keys {
            for (written, entry) in &self.document.auths {
                if normalised(written) == *key
                    && let Some(found) = entry.credential(&self.origin, written)?
                {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

impl AuthEntry {
    /// `None` for the empty entry that Docker leaves when a helper has the secret.
    fn credential(&self, origin: &str, key: &str) -> Result<Option<Credential>, CredentialError> {
        if !self.registrytoken.is_empty() {
            let token = Secret::new(&self.registrytoken);
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if !self.identitytoken.is_empty() {
            let token = Secret::new(&self.identitytoken);
            return Ok(Some(Credential::IdentityToken(token)));
        }
        let basic = |username: &str, password: &str| Credential::Basic {
            username: username.to_owned(),
            password: Secret::new(password),
        };
        if !self.username.is_empty() {
            return Ok(Some(basic(&self.username, &self.password)));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let text = self.auth.trim();
        let decoded = STANDARD
            .decode(text)
            .or_else(|_| STANDARD_NO_PAD.decode(text));
        let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_deref().and_then(|text| text.split_once(':'));
        match pair {
            Some((username, password)) if !username.is_empty() => {
                Ok(Some(basic(username, password.trim_end_matches('\0'))))
            }
            Some(_) | None => Err(CredentialError::Entry {
                origin: origin.to_owned(),
                key: key.to_owned(),
            }),
        }
    }
}

/// The name that helpers know a host by.
fn server(host: &str) -> &str {
    match DOCKER_HUB_HOSTS.contains(&host) {
        true => DOCKER_HUB_KEY,
        false => host,
    }
}

/// Keys to try, the most specific first.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let hosts: &[&str] = match DOCKER_HUB_HOSTS.contains(&host) {
        true => &DOCKER_HUB_HOSTS,
        false => &[host],
    };
    let mut keys = Vec::new();
    for host in hosts {
        let mut name = format!("{host}/{repository}");
        while let Some(at) = name.rfind('/') {
            keys.push(name.clone());
            name.truncate(at);
        }
    }
    keys.extend(hosts.iter().map(|host| (*host).to_owned()));
    if hosts.len() > 1 {
        keys.push(DOCKER_HUB_KEY.to_owned());
    }
    keys
}

/// A key as it is compared: `https://host/v1/` means the host.
fn normalised(key: &str) -> &str {
    if key == DOCKER_HUB_KEY {
        return key;
    }
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
        .trim_end_matches('/');
    bare.strip_suffix("/v1")
        .or_else(|| bare.strip_suffix("/v2"))
        .unwrap_or(bare)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CredentialError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CredentialError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic {
            username: username.into(),
            password: Secret::new(password),
        }
    }

    async fn find(document: &str, host: &str, repository: &str) -> Credential {
        let credentials = ConfiguredCredentials::new(CredentialSources {
            inline: Some(Secret::new(document)),
            files: Vec::new(),
        });
        credentials.credential(host, repository).await.unwrap()
    }

    #[tokio::test]
    async fn entries() {
        let auth = STANDARD.encode("u:p:q");
        let document = format!(
            r#"{{"auths": {{
                "https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "a.example": {{"username": "a", "password": "b"}},
                "https://legacy.example/v2/": {{"username": "l", "password": "m"}},
                "quay.io": {{"username": "host", "password": "1"}},
                "quay.io/org": {{"username": "org", "password": "2"}},
                "quay.io/org/image": {{"username": "image", "password": "3"}},
                "only.example/org": {{"username": "o", "password": "4"}},
                "id.example": {{"auth": "{auth}", "identitytoken": "T"}},
                "reg.example": {{"registrytoken": "R"}},
                "empty.example": {{}}
            }}}}"#
        );
        let cases = [
            ("docker.io", "library/x", basic("u", "p:q")),
            ("registry-1.docker.io", "library/x", basic("u", "p:q")),
            ("a.example", "x", basic("a", "b")),
            ("a.example:5000", "x", Credential::Anonymous),
            ("legacy.example", "x", basic("l", "m")),
            ("quay.io", "x", basic("host", "1")),
            ("quay.io", "org/other", basic("org", "2")),
            ("quay.io", "org/image", basic("image", "3")),
            ("quay.io", "organisation", basic("host", "1")),
            ("only.example", "other/x", Credential::Anonymous),
            (
                "id.example",
                "x",
                Credential::IdentityToken(Secret::new("T")),
            ),
            (
                "reg.example",
                "x",
                Credential::RegistryToken(Secret::new("R")),
            ),
            ("empty.example", "x", Credential::Anonymous),
            ("unknown.example", "x", Credential::Anonymous),
        ];
        for (host, repository, expected) in cases {
            let found = find(&document, host, repository).await;
            assert_eq!(found, expected, "{host}/{repository}");
        }
    }

    #[tokio::test]
    async fn sources_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, user: &str| {
            let path = dir.path().join(name);
            let text = format!(r#"{{"auths": {{"a.example": {{"username": "{user}"}}}}}}"#);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = vec![
            dir.path().join("none"),
            file("1", "first"),
            file("2", "second"),
        ];
        let credentials = ConfiguredCredentials::new(CredentialSources {
            inline: Some(Secret::new(
                r#"{"auths": {"b.example": {"username": "b"}}}"#,
            )),
            files,
        });
        for (host, user) in [("a.example", "first"), ("b.example", "b")] {
            let found = credentials.credential(host, "x").await.unwrap();
            assert_eq!(found, basic(user, ""));
        }
    }

    #[tokio::test]
    async fn errors_name_the_culprit_and_no_secret() {
        let cases = [
            (
                r#"{"auths": 1}"#,
                "`DOCKER_AUTH_CONFIG` is not understood: line 1",
            ),
            (
                r#"{"auths": {"a": {"auth": "s3cret!"}}}"#,
                "the entry `a` has an `auth`",
            ),
            (
                r#"{"credsStore": "none-such"}"#,
                "credential helper `docker-credential-none-such` not found in $PATH",
            ),
            (
                r#"{"credHelpers": {"a": "../x"}}"#,
                "`docker-credential-../x` cannot be",
            ),
        ];
        for (document, message) in cases {
            let credentials = ConfiguredCredentials::new(CredentialSources {
                inline: Some(Secret::new(document)),
                files: Vec::new(),
            });
            let error = credentials.credential("a", "x").await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(message), "{text}");
            assert!(!format!("{error:?} {text}").contains("s3cret"), "{text}");
        }
    }
}
