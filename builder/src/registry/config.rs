//! Where registry settings lie, as plain data.
//!
//! Nothing here reads the environment: the command line gives a look-up function. Files are read on first use, so a build
//! that contacts no registry reads none.

use std::fmt;
use std::path::PathBuf;

/// Everything the registry client wants to know.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Sources of `registries.conf` settings; later ones replace entries of earlier ones with the same prefix.
    pub registries: Vec<RegistriesSource>,
    /// Folders that have one folder per registry with `*.crt`, `*.cert` and `*.key` (Docker's `certs.d`).
    pub certs_dirs: Vec<PathBuf>,
    /// Where credentials are looked up.
    pub credentials: CredentialSources,
    /// Proxies.
    pub proxy: ProxyConfig,
    /// Trusted certificate authorities instead of the system's.
    pub roots: TlsRoots,
    /// Registries (`host[:port]`) that may go without TLS or with any certificate, whatever else is configured.
    pub insecure: Vec<String>,
    /// Whether nobody may be contacted: every request is an error then.
    pub is_offline: bool,
}

/// A place of `registries.conf` settings (containers-registries.conf(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistriesSource {
    /// A file that somebody named: must exist.
    Named(PathBuf),
    /// The first of these that exists.
    FirstOf(Vec<PathBuf>),
    /// The `*.conf` files of a folder in order of their names, if it exists.
    Dir(PathBuf),
}

/// Where credentials are looked up; the first source that knows the registry wins.
#[derive(Clone, Debug, Default)]
pub struct CredentialSources {
    /// The text of a Docker config (`DOCKER_AUTH_CONFIG`).
    pub inline: Option<Secret>,
    /// Docker configs and containers-auth.json(5) files; missing ones are passed over.
    pub files: Vec<PathBuf>,
}

/// Proxies as the environment names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// For `http:` addresses; may have a password in it.
    pub http: Option<Secret>,
    /// For `https:` addresses; may have a password in it.
    pub https: Option<Secret>,
    /// Comma-separated exceptions.
    pub exceptions: Option<String>,
}

/// Certificate authorities; unset means those of the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsRoots {
    /// One file with many certificates (`SSL_CERT_FILE`).
    pub file: Option<PathBuf>,
    /// Folders of certificate files (`SSL_CERT_DIR`).
    pub dirs: Vec<PathBuf>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text. Whoever calls this answers for where it goes.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A `registries.conf` is not understood.
    #[error("`{path}` is not understood")]
    Registries {
        /// Which.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// An entry of a `registries.conf` makes no sense.
    #[error("`{path}`: registry `{entry}` {problem}")]
    Entry {
        /// Which file.
        path: PathBuf,
        /// Its prefix or location.
        entry: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The configuration forbids the registry.
    #[error("registry `{prefix}` is blocked in `{path}`")]
    Blocked {
        /// The entry.
        prefix: String,
        /// Where it stands.
        path: PathBuf,
    },
    /// A certificate or key is not understood.
    #[error("no usable {what} in `{path}`")]
    Certificate {
        /// `certificate` or `private key`
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// No certificate authorities at all.
    #[error(
        "no trusted certificate authorities found; install ca-certificates or set SSL_CERT_FILE"
    )]
    NoRoots,
    /// A TLS connection cannot be set up.
    #[error("cannot set up TLS for {host}")]
    Tls {
        /// For which host.
        host: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A connection pool cannot be set up.
    #[error("cannot set up connections to {host}")]
    Client {
        /// For which host.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A proxy's address is not understood.
    #[error("proxy `{address}` is not an http or https address")]
    Proxy {
        /// The address without user and password.
        address: String,
    },
    /// A name that gives no address.
    #[error("`{host}` is no host that can be contacted")]
    Host {
        /// Which.
        host: String,
    },
}

impl RegistryConfig {
    /// What the environment says. `lookup` gives a variable's value; empty counts as unset.
    pub fn from_env(lookup: &dyn Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| lookup(name).filter(|text| !text.is_empty());
        let path = |name: &str| value(name).map(PathBuf::from);
        let either = |name: &str| value(name).or_else(|| value(&name.to_ascii_lowercase()));
        let home = path("HOME");
        let config_home = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let containers = config_home.map(|dir| dir.join("containers"));
        let docker = path("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));

        let registries = match path("CONTAINERS_REGISTRIES_CONF") {
            Some(named) => vec![RegistriesSource::Named(named)],
            None => default_registries(containers.as_ref()),
        };
        let mut certs_dirs = vec![
            PathBuf::from("/etc/docker/certs.d"),
            PathBuf::from("/etc/containers/certs.d"),
        ];
        certs_dirs.extend(containers.iter().map(|dir| dir.join("certs.d")));
        certs_dirs.extend(docker.iter().map(|dir| dir.join("certs.d")));
        let files = [
            path("REGISTRY_AUTH_FILE"),
            docker.map(|dir| dir.join("config.json")),
            path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            containers.map(|dir| dir.join("auth.json")),
        ];
        Self {
            registries,
            certs_dirs,
            is_offline: false,
            credentials: CredentialSources {
                inline: value("DOCKER_AUTH_CONFIG").map(Secret::new),
                files: files.into_iter().flatten().collect(),
            },
            proxy: ProxyConfig {
                http: either("HTTP_PROXY").map(Secret::new),
                https: either("HTTPS_PROXY").map(Secret::new),
                exceptions: either("NO_PROXY"),
            },
            roots: TlsRoots {
                file: path("SSL_CERT_FILE"),
                dirs: value("SSL_CERT_DIR")
                    .map(|dirs| dirs.split(':').map(PathBuf::from).collect())
                    .unwrap_or_default(),
            },
            insecure: Vec::new(),
        }
    }
}

/// The user's file replaces the system's; drop-in folders add to either (containers-registries.conf.d(5)).
fn default_registries(containers: Option<&PathBuf>) -> Vec<RegistriesSource> {
    let system = PathBuf::from("/etc/containers");
    let dirs: Vec<&PathBuf> = containers.into_iter().chain([&system]).collect();
    let files = dirs.iter().map(|dir| dir.join("registries.conf"));
    let drop_ins = dirs.iter().rev().map(|dir| dir.join("registries.conf.d"));
    std::iter::once(RegistriesSource::FirstOf(files.collect()))
        .chain(drop_ins.map(RegistriesSource::Dir))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> RegistryConfig {
        RegistryConfig::from_env(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_set() {
        let config = from(&[]);
        assert_eq!(
            config.registries,
            [
                RegistriesSource::FirstOf(vec!["/etc/containers/registries.conf".into()]),
                RegistriesSource::Dir("/etc/containers/registries.conf.d".into()),
            ]
        );
        assert!(config.credentials.files.is_empty());
        assert_eq!(config.proxy, ProxyConfig::default());
        assert_eq!(config.roots, TlsRoots::default());
    }

    #[test]
    fn home_and_named_files() {
        let config = from(&[
            ("HOME", "/h"),
            ("XDG_RUNTIME_DIR", "/run/u"),
            ("CONTAINERS_REGISTRIES_CONF", "/c"),
        ]);
        assert_eq!(config.registries, [RegistriesSource::Named("/c".into())]);
        let files = [
            "/h/.docker/config.json",
            "/run/u/containers/auth.json",
            "/h/.config/containers/auth.json",
        ];
        assert_eq!(config.credentials.files, files.map(PathBuf::from));
        assert!(config.certs_dirs.contains(&"/h/.docker/certs.d".into()));

        let config = from(&[
            ("HOME", "/h"),
            ("DOCKER_CONFIG", "/d"),
            ("REGISTRY_AUTH_FILE", "/a"),
            ("DOCKER_AUTH_CONFIG", "{}"),
        ]);
        let files = ["/a", "/d/config.json", "/h/.config/containers/auth.json"];
        assert_eq!(config.credentials.files, files.map(PathBuf::from));
        assert_eq!(config.credentials.inline, Some(Secret::new("{}")));
        assert!(!format!("{config:?}").contains("{}"), "shows a secret");
    }

    #[test]
    fn proxies_and_roots() {
        let config = from(&[
            ("HTTP_PROXY", "http://p"),
            ("https_proxy", "http://q"),
            ("NO_PROXY", ""),
            ("no_proxy", "x"),
            ("SSL_CERT_FILE", "/f"),
            ("SSL_CERT_DIR", "/a:/b"),
        ]);
        assert_eq!(config.proxy.http, Some(Secret::new("http://p")));
        assert_eq!(config.proxy.https, Some(Secret::new("http://q")));
        assert_eq!(config.proxy.exceptions.as_deref(), Some("x"));
        assert_eq!(config.roots.file, Some("/f".into()));
        assert_eq!(config.roots.dirs, ["/a", "/b"].map(PathBuf::from));
    }
}
