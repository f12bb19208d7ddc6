//! Which hosts answer for a name: `registries.conf`, mirrors, and what is trusted without TLS.
//!
//! Short names are not looked up here: references are normalised as Docker does before they come.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use frontend::reference::Reference;

use super::config::{ConfigError, RegistriesSource};
use super::registries_conf::{self, Entry, Pulls};
use super::tls::list;

/// The registry of Docker Hub by the name in references, and the host that serves it.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS with a verified certificate.
    Verified,
    /// TLS without verification, or none.
    Insecure,
    /// On the loopback interface: plain HTTP, unless certificates are configured for it.
    Loopback,
}

/// A host that answers for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host[:port]`
    pub host: String,
    /// The repository's name there.
    pub repository: String,
    /// How it is spoken to.
    pub security: Security,
    /// Of a mirror: the registry that it mirrors, sent as `?ns=` as containerd does.
    pub mirror_of: Option<String>,
}

/// What `registries.conf` says.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    entries: Vec<Entry>,
    insecure: Vec<String>,
}

impl Hosts {
    /// Reads the files. Missing ones are passed over, unless somebody named them.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the file.
    pub fn load(sources: &[RegistriesSource]) -> Result<Self, ConfigError> {
        let mut hosts = Self::default();
        for source in sources {
            match source {
                RegistriesSource::Named(path) => match read(path)? {
                    Some(text) => hosts.add(path, &text)?,
                    None => return Err(missing(path)),
                },
                RegistriesSource::FirstOf(paths) => {
                    for path in paths {
                        if let Some(text) = read(path)? {
                            hosts.add(path, &text)?;
                            break;
                        }
                    }
                }
                RegistriesSource::Dir(dir) => {
                    for path in drop_ins(dir)? {
                        if let Some(text) = read(&path)? {
                            hosts.add(&path, &text)?;
                        }
                    }
                }
            }
        }
        Ok(hosts)
    }

    /// Takes these registries for insecure too.
    #[must_use]
    pub fn with_insecure(mut self, registries: Vec<String>) -> Self {
        self.insecure = registries;
        self
    }

    /// Adds a document; its entries replace earlier ones of the same prefix.
    fn add(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let new = registries_conf::parse(path, text)?;
        self.entries
            .retain(|old| new.iter().all(|entry| entry.prefix != old.prefix));
        self.entries.extend(new);
        Ok(())
    }

    /// Who is asked for a reference, in order: mirrors, then the registry itself.
    ///
    /// # Errors
    ///
    /// If the registry is blocked.
    pub fn endpoints(
        &self,
        reference: &Reference,
        by_digest: bool,
    ) -> Result<Vec<Endpoint>, ConfigError> {
        let mut endpoints = Vec::new();
        if let Some(entry) = self.entry(reference) {
            let wanted = entry.mirrors.iter().filter(|mirror| match mirror.pulls {
                Pulls::All => true,
                Pulls::DigestOnly => by_digest,
                Pulls::TagOnly => !by_digest,
            });
            for mirror in wanted {
                let (host, repository) = entry.rewrite(reference, &mirror.location)?;
                endpoints.push(Endpoint {
                    security: self.mirror_security(&host, mirror.is_insecure),
                    host,
                    repository,
                    mirror_of: Some(reference.registry.clone()),
                });
            }
        }
        endpoints.push(self.upstream(reference)?);
        Ok(endpoints)
    }

    /// The registry itself: who is pushed to.
    ///
    /// # Errors
    ///
    /// If the registry is blocked.
    pub fn upstream(&self, reference: &Reference) -> Result<Endpoint, ConfigError> {
        let (host, repository, is_insecure) = match self.entry(reference) {
            Some(entry) if entry.is_blocked => {
                return Err(ConfigError::Blocked {
                    prefix: entry.prefix.clone(),
                    path: entry.path.clone(),
                });
            }
            Some(entry) => {
                let (host, repository) = entry.rewrite(reference, &entry.location)?;
                (host, repository, entry.is_insecure)
            }
            None => (
                reference.registry.clone(),
                reference.repository.clone(),
                false,
            ),
        };
        let is_insecure = is_insecure || self.insecure.contains(&reference.registry);
        let host = match host.as_str() {
            DOCKER_HUB => DOCKER_HUB_HOST.to_owned(),
            _ => host,
        };
        Ok(Endpoint {
            security: self.mirror_security(&host, is_insecure),
            host,
            repository,
            mirror_of: None,
        })
    }

    /// How a host that is no registry of a reference, such as a token service, is spoken to.
    pub fn security(&self, host: &str) -> Security {
        self.mirror_security(host, false)
    }

    fn mirror_security(&self, host: &str, is_insecure: bool) -> Security {
        let is_listed = |entry: &Entry| entry.is_insecure && entry.location == host;
        let is_mirror = |entry: &Entry| {
            let mut mirrors = entry.mirrors.iter();
            mirrors.any(|mirror| mirror.is_insecure && host_of(&mirror.location) == host)
        };
        let listed = || {
            let is_told = self.insecure.iter().any(|told| told == host);
            is_told || self.entries.iter().any(|e| is_listed(e) || is_mirror(e))
        };
        if is_insecure || listed() {
            Security::Insecure
        } else if is_loopback(host) {
            Security::Loopback
        } else {
            Security::Verified
        }
    }

    /// The entry with the longest prefix that fits.
    fn entry(&self, reference: &Reference) -> Option<&Entry> {
        let name = format!("{}/{}", reference.registry, reference.repository);
        let fitting = self
            .entries
            .iter()
            .filter(|entry| entry.fits(&name, reference));
        fitting.max_by_key(|entry| entry.prefix.len())
    }
}

impl Entry {
    /// `*.example.com` stands for any host below it; other prefixes end where a part of the name ends.
    fn fits(&self, name: &str, reference: &Reference) -> bool {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            return reference.registry.ends_with(domain);
        }
        let rest = match name.strip_prefix(self.prefix.as_str()) {
            Some("") => return true,
            Some(rest) => rest,
            None => return false,
        };
        rest.starts_with('/')
    }

    /// Host and repository after the prefix has been replaced.
    fn rewrite(
        &self,
        reference: &Reference,
        location: &str,
    ) -> Result<(String, String), ConfigError> {
        let name = format!("{}/{}", reference.registry, reference.repository);
        let rewritten = if location.is_empty() {
            name
        } else if self.prefix.starts_with('*') {
            format!("{location}/{}", reference.repository)
        } else {
            let rest = name.strip_prefix(self.prefix.as_str()).unwrap_or_default();
            format!("{location}{rest}")
        };
        match rewritten.split_once('/') {
            Some((host, repository)) if !host.is_empty() && !repository.is_empty() => {
                Ok((host.to_owned(), repository.to_owned()))
            }
            Some(_) | None => Err(ConfigError::Entry {
                path: self.path.clone(),
                entry: location.to_owned(),
                problem: "leaves no repository name",
            }),
        }
    }
}

fn host_of(location: &str) -> &str {
    location.split('/').next().unwrap_or_default()
}

/// Whether `host[:port]` is on the loopback interface (containerd's `MatchLocalhost`).
pub fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    let is_address = |name: &str| {
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    };
    name == "localhost" || is_address(name)
}

/// `host` of `host[:port]`; an IPv6 address keeps its brackets.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        Some(_) | None => host,
    }
}

fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn missing(path: &Path) -> ConfigError {
    ConfigError::Read {
        path: path.to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    }
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let is_conf = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "conf")
    };
    Ok(list(dir)?.into_iter().filter(is_conf).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Hosts {
        let mut hosts = Hosts::default();
        hosts.add(Path::new("/r.conf"), text).unwrap();
        hosts
    }

    fn shown(hosts: &Hosts, reference: &str) -> Vec<String> {
        let reference = Reference::parse(reference).unwrap();
        let by_digest = reference.digest.is_some();
        let endpoints = hosts.endpoints(&reference, by_digest).unwrap();
        let show = |e: Endpoint| {
            let ns = e.mirror_of.map(|ns| format!(" ns={ns}"));
            let ns = ns.unwrap_or_default();
            format!("{} {} {:?}{ns}", e.host, e.repository, e.security)
        };
        endpoints.into_iter().map(show).collect()
    }

    #[test]
    fn registries_can_be_told_to_be_insecure() {
        let insecure = || vec!["r.example".to_owned()];
        let moved = "[[registry]]\nprefix = \"r.example\"\nlocation = \"s.example/b\"\n";
        for (text, name, expected) in [
            ("", "r.example/a", "r.example a Insecure"),
            ("", "other.example/a", "other.example a Verified"),
            (moved, "r.example/a", "s.example b/a Insecure"),
        ] {
            let hosts = hosts(text).with_insecure(insecure());
            assert_eq!(shown(&hosts, name), [expected]);
        }
        let hosts = Hosts::default().with_insecure(insecure());
        assert_eq!(hosts.security("r.example"), Security::Insecure);
    }

    #[test]
    fn endpoints() {
        let none = "";
        let mirror = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\
             [[registry.mirror]]\nlocation = \"127.0.0.1:5001\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"m.example/hub\"\n";
        let moved = "[[registry]]\nprefix = \"old.example/a\"\nlocation = \"new.example:5000/b\"\n\
             [[registry]]\nlocation = \"old.example\"\ninsecure = true\n";
        let wildcard = "[[registry]]\nprefix = \"*.example.com\"\ninsecure = true\n";
        let digest = "unqualified-search-registries = [\"x\"]\n\
             [[registry]]\nlocation = \"r.example\"\nmirror-by-digest-only = true\n\
             [[registry.mirror]]\nlocation = \"d.example\"\n\
             [[registry.mirror]]\nlocation = \"t.example\"\npull-from-mirror = \"tag-only\"\n";
        let v1 = "[registries.insecure]\nregistries = [\"i.example:80\"]\n";
        let sha = format!("r.example/x@sha256:{}", "a".repeat(64));
        let cases: &[(&str, &str, &[&str])] = &[
            (
                none,
                "busybox",
                &["registry-1.docker.io library/busybox Verified"],
            ),
            (none, "localhost:5000/a", &["localhost:5000 a Loopback"]),
            (none, "127.0.0.9/a", &["127.0.0.9 a Loopback"]),
            (none, "ghcr.io/a/b", &["ghcr.io a/b Verified"]),
            (
                mirror,
                "busybox",
                &[
                    "127.0.0.1:5001 library/busybox Insecure ns=docker.io",
                    "m.example hub/library/busybox Verified ns=docker.io",
                    "registry-1.docker.io library/busybox Verified",
                ],
            ),
            (mirror, "ghcr.io/a", &["ghcr.io a Verified"]),
            (mirror, "127.0.0.1:5001/a", &["127.0.0.1:5001 a Insecure"]),
            (moved, "old.example/a/c", &["new.example:5000 b/c Verified"]),
            (moved, "old.example/ab", &["old.example ab Insecure"]),
            (wildcard, "r.example.com/a", &["r.example.com a Insecure"]),
            (wildcard, "example.com/a", &["example.com a Verified"]),
            (
                digest,
                "r.example/x",
                &["t.example x Verified ns=r.example", "r.example x Verified"],
            ),
            (
                digest,
                &sha,
                &["d.example x Verified ns=r.example", "r.example x Verified"],
            ),
            (v1, "i.example:80/a", &["i.example:80 a Insecure"]),
        ];
        for (conf, reference, expected) in cases {
            assert_eq!(shown(&hosts(conf), reference), *expected, "{reference}");
        }
    }

    #[test]
    fn blocked_and_wrong_entries() {
        let blocked = hosts("[[registry]]\nlocation = \"b.example\"\nblocked = true\n");
        let reference = Reference::parse("b.example/x").unwrap();
        let error = blocked.endpoints(&reference, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "registry `b.example` is blocked in `/r.conf`"
        );
        let wrong = [
            ("[[registry]]\n", "has neither prefix nor location"),
            (
                "[[registry]]\nprefix = \"a.*\"\nlocation = \"http://x\"\n",
                "has a location that",
            ),
            (
                "[[registry]]\nprefix = \"*x\"\n",
                "has a wildcard other than",
            ),
            ("[[registry]]\nlocation = 1\n", "is not understood"),
        ];
        for (text, message) in wrong {
            let error = Hosts::default().add(Path::new("/r.conf"), text);
            let text = error.unwrap_err().to_string();
            assert!(text.contains(message), "{text}");
        }
    }

    #[test]
    fn files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let entry =
            |insecure| format!("[[registry]]\nlocation = \"r.example\"\ninsecure = {insecure}\n");
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("main"), entry(true)).unwrap();
        std::fs::write(at("d/20.conf"), entry(true)).unwrap();
        std::fs::write(at("d/10.conf"), entry(false)).unwrap();
        std::fs::write(at("d/30.other"), "not toml").unwrap();
        let main = RegistriesSource::FirstOf(vec![at("none"), at("main")]);
        let sources = [
            main,
            RegistriesSource::Dir(at("d")),
            RegistriesSource::Dir(at("no")),
        ];
        let loaded = Hosts::load(&sources).unwrap();
        assert_eq!(shown(&loaded, "r.example/x"), ["r.example x Insecure"]);
        assert_eq!(loaded.entries.len(), 1);
        let error = Hosts::load(&[RegistriesSource::Named(at("none"))]).unwrap_err();
        assert!(error.to_string().starts_with("cannot read `"), "{error}");
    }
}
