//! The `registries.conf` format: containers-registries.conf(5), version 2, and of version 1 the lists of insecure and
//! blocked registries.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::ConfigError;

/// A `[[registry]]` table, checked.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) prefix: String,
    pub(crate) location: String,
    pub(crate) is_insecure: bool,
    pub(crate) is_blocked: bool,
    pub(crate) mirrors: Vec<Mirror>,
}

/// A `[[registry.mirror]]` table.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    pub(crate) location: String,
    pub(crate) is_insecure: bool,
    pub(crate) pulls: Pulls,
}

/// For which references a mirror is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pulls {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    registry: Vec<RegistryTable>,
    registries: Option<VersionOne>,
}

#[derive(Deserialize)]
struct RegistryTable {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default, rename = "mirror-by-digest-only")]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
struct MirrorTable {
    pub(crate) location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(rename = "pull-from-mirror")]
    pull_from_mirror: Option<Pulls>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VersionOne {
    insecure: List,
    block: List,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Vec<String>,
}

/// The entries of a document.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let document: Document = toml::from_str(text).map_err(|source| ConfigError::Registries {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let mut entries = Vec::new();
    for table in document.registry {
        entries.push(table.into_entry(path)?);
    }
    if let Some(lists) = document.registries {
        entries.extend(lists.into_entries(path));
    }
    Ok(entries)
}

impl RegistryTable {
    fn into_entry(self, path: &Path) -> Result<Entry, ConfigError> {
        let prefix = self.prefix.filter(|text| !text.is_empty());
        let location = trim(self.location.unwrap_or_default());
        let prefix = trim(prefix.unwrap_or_else(|| location.clone()));
        let wrong = |entry: &str, problem| ConfigError::Entry {
            path: path.to_owned(),
            entry: entry.to_owned(),
            problem,
        };
        if prefix.is_empty() {
            return Err(wrong("", "has neither prefix nor location"));
        }
        if let Some(domain) = prefix.strip_prefix('*')
            && (!domain.starts_with('.') || domain.contains(['*', '/']))
        {
            return Err(wrong(&prefix, "has a wildcard other than `*.` in front"));
        }
        let mut mirrors = Vec::new();
        for mirror in self.mirror {
            let location = trim(mirror.location);
            if location.is_empty() || location.contains("://") {
                return Err(wrong(
                    &prefix,
                    "has a mirror whose location is no host[/path]",
                ));
            }
            let fallback = match self.mirror_by_digest_only {
                true => Pulls::DigestOnly,
                false => Pulls::All,
            };
            mirrors.push(Mirror {
                location,
                is_insecure: mirror.insecure,
                pulls: mirror.pull_from_mirror.unwrap_or(fallback),
            });
        }
        if location.contains("://") {
            return Err(wrong(&prefix, "has a location that is no host[/path]"));
        }
        // A prefix with a wildcard and no location stands for the hosts themselves.
        let location = match location.is_empty() && !prefix.starts_with('*') {
            true => prefix.clone(),
            false => location,
        };
        Ok(Entry {
            path: path.to_owned(),
            prefix,
            location,
            is_insecure: self.insecure,
            is_blocked: self.blocked,
            mirrors,
        })
    }
}

impl VersionOne {
    fn into_entries(self, path: &Path) -> Vec<Entry> {
        let all = self
            .insecure
            .registries
            .iter()
            .chain(&self.block.registries);
        let mut names: Vec<&String> = all.collect();
        names.sort();
        names.dedup();
        let entry = |name: &String| Entry {
            path: path.to_owned(),
            prefix: name.clone(),
            location: name.clone(),
            is_insecure: self.insecure.registries.contains(name),
            is_blocked: self.block.registries.contains(name),
            mirrors: Vec::new(),
        };
        names.into_iter().map(entry).collect()
    }
}

fn trim(text: String) -> String {
    text.trim_end_matches('/').to_owned()
}
