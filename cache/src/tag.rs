//! Small files beside the blobs: tags, what registries last said, and where layers can be had.
//!
//! A local image is its config; a tag names one. Each fact is one small JSON file, replaced whole, so the newest writer
//! wins and readers need no lock. Times are given by the caller, in milliseconds since the Unix epoch.
//!
//! # File names
//!
//! Bytes other than ASCII letters, digits, `-`, `_` and (not first) `.` are written `%XX`; a name that gets too long for
//! a file is the hash of the name instead. The file says the name in full.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::{Descriptor, DiffId, Digest, hex};
use crate::io::{Attempt, IoError, names_in, read_if_present, write_whole};
use crate::root::StatePaths;

/// Longest escaped name; file names end at 255 bytes.
const LONGEST_NAME: usize = 200;

/// A tag and the image it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The full reference, such as `docker.io/library/app:latest`.
    pub name: String,
    /// The image: the digest of its config.
    pub config: Digest,
    /// The manifest it was pulled or last exported as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Descriptor>,
    /// When the tag was set.
    pub tagged_ms: u64,
}

/// The tags of a store.
#[derive(Clone, Debug)]
pub struct Images {
    directory: PathBuf,
}

/// What a registry last said about a reference, for builds without network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The full reference; the caller may add the platform.
    pub name: String,
    /// The manifest or index it named.
    pub manifest: Digest,
    /// When.
    pub seen_ms: u64,
}

/// What registries last said.
#[derive(Clone, Debug)]
pub struct References {
    directory: PathBuf,
}

/// A place that has a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `registry/repository`, as in references.
    pub repository: String,
    /// The blob there.
    pub blob: Descriptor,
}

/// Where layers can be had or mounted from.
#[derive(Clone, Debug)]
pub struct Sources {
    directory: PathBuf,
}

impl Images {
    /// The tags of a state directory. Touches nothing.
    pub fn new(paths: &StatePaths) -> Self {
        Self {
            directory: paths.tags(),
        }
    }

    /// Sets a tag, in place of an older one of its name.
    pub fn tag(&self, tag: &Tag) -> Result<(), IoError> {
        write_fact(&self.directory.join(file_name(&tag.name)), tag)
    }

    /// Removes a tag; false if there was none.
    pub fn untag(&self, name: &str) -> Result<bool, IoError> {
        let path = self.directory.join(file_name(name));
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).attempt("remove", &path),
        }
    }

    /// The tag of a name.
    pub fn resolve(&self, name: &str) -> Result<Option<Tag>, IoError> {
        let tag: Option<Tag> = read_fact(&self.directory.join(file_name(name)))?;
        Ok(tag.filter(|tag| tag.name == name))
    }

    /// All tags, by name.
    pub fn list(&self) -> Result<Vec<Tag>, IoError> {
        let mut tags = Vec::new();
        for name in names_in(&self.directory)? {
            tags.extend(read_fact::<Tag>(&self.directory.join(name))?);
        }
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tags)
    }
}

impl References {
    /// Those of a state directory. Touches nothing.
    pub fn new(paths: &StatePaths) -> Self {
        Self {
            directory: paths.references(),
        }
    }

    /// Notes what a registry said. Writes nothing if it said the same less than an hour before.
    pub fn note(&self, seen: &Seen) -> Result<(), IoError> {
        const HOUR_MS: u64 = 3_600_000;
        let is_known = self.last(&seen.name)?.is_some_and(|known| {
            known.manifest == seen.manifest
                && seen.seen_ms >= known.seen_ms
                && seen.seen_ms - known.seen_ms < HOUR_MS
        });
        if is_known {
            return Ok(());
        }
        write_fact(&self.directory.join(file_name(&seen.name)), seen)
    }

    /// What was last said.
    pub fn last(&self, name: &str) -> Result<Option<Seen>, IoError> {
        let seen: Option<Seen> = read_fact(&self.directory.join(file_name(name)))?;
        Ok(seen.filter(|seen| seen.name == name))
    }
}

impl Sources {
    /// Those of a state directory. Touches nothing.
    pub fn new(paths: &StatePaths) -> Self {
        Self {
            directory: paths.sources(),
        }
    }

    /// Notes that a repository has a layer. Of two who note at once one may be lost: sources are hints.
    pub fn add(&self, layer: &DiffId, source: &Source) -> Result<(), IoError> {
        let mut known = self.of(layer)?;
        if known.contains(source) {
            return Ok(());
        }
        known.push(source.clone());
        known.sort_by(|a, b| (&a.repository, &a.blob.digest).cmp(&(&b.repository, &b.blob.digest)));
        write_fact(&self.directory.join(layer.0.hex()), &known)
    }

    /// The places that have a layer, by repository.
    pub fn of(&self, layer: &DiffId) -> Result<Vec<Source>, IoError> {
        Ok(read_fact(&self.directory.join(layer.0.hex()))?.unwrap_or_default())
    }
}

/// Reads a fact. One that cannot be understood (cut short by a power failure) counts as none.
fn read_fact<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, IoError> {
    let Some(bytes) = read_if_present(path)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(fact) => Ok(Some(fact)),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "unreadable fact");
            Ok(None)
        }
    }
}

fn write_fact<T: Serialize>(path: &Path, fact: &T) -> Result<(), IoError> {
    let bytes = serde_json::to_vec(fact)
        .map_err(std::io::Error::other)
        .attempt("encode", path)?;
    write_whole(path, &bytes)
}

fn file_name(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(byte.into()),
            b'.' if at > 0 => escaped.push('.'),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    if escaped.is_empty() || escaped.len() > LONGEST_NAME {
        return format!("~{}", hex(blake3::hash(name.as_bytes()).as_bytes()));
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str, config: &str) -> Tag {
        Tag {
            name: name.into(),
            config: Digest::of(config.as_bytes()),
            manifest: None,
            tagged_ms: 7,
        }
    }

    #[test]
    fn tags_are_set_replaced_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::new(&StatePaths::new(dir.path()));
        assert_eq!(images.list().unwrap(), []);
        let long = format!("host:5000/{}:t", "x/".repeat(120));
        for name in ["docker.io/library/a:1", "../../etc/passwd", ".", "%", &long] {
            images.tag(&tag(name, "old")).unwrap();
            images.tag(&tag(name, "new")).unwrap();
            assert_eq!(images.resolve(name).unwrap(), Some(tag(name, "new")));
        }
        assert_eq!(images.resolve("docker.io/library/a:2").unwrap(), None);
        let names: Vec<_> = images.list().unwrap().into_iter().map(|t| t.name).collect();
        let expected = ["%", ".", "../../etc/passwd", "docker.io/library/a:1", &long];
        assert_eq!(names, expected);
        assert_eq!(names_in(dir.path()).unwrap(), ["tags"]);
        assert!(images.untag(".").unwrap());
        assert!(!images.untag(".").unwrap());
        assert_eq!(images.resolve(".").unwrap(), None);
    }

    #[test]
    fn file_names_are_unambiguous() {
        assert_eq!(file_name("a.b/c:d"), "a.b%2Fc%3Ad");
        assert_eq!(file_name("a%2Fb"), "a%252Fb");
        assert_eq!(file_name(".."), "%2E.");
        assert_eq!(file_name("").len(), 65);
    }

    #[test]
    fn a_torn_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let images = Images::new(&paths);
        images.tag(&tag("a", "x")).unwrap();
        std::fs::write(paths.tags().join("a"), b"{\"name\":").unwrap();
        assert_eq!(images.resolve("a").unwrap(), None);
        assert_eq!(images.list().unwrap(), []);
    }

    #[test]
    fn references_are_noted_once_an_hour_or_when_they_move() {
        let dir = tempfile::tempdir().unwrap();
        let references = References::new(&StatePaths::new(dir.path()));
        let seen = |text: &str, seen_ms| Seen {
            name: "docker.io/library/a:1 linux/amd64".into(),
            manifest: Digest::of(text.as_bytes()),
            seen_ms,
        };
        let cases = [
            (seen("x", 1_000), 1_000),
            (seen("x", 2_000), 1_000),
            (seen("y", 3_000), 3_000),
            (seen("y", 3_603_000), 3_603_000),
        ];
        for (noted, expected_ms) in cases {
            references.note(&noted).unwrap();
            let last = references.last(&noted.name).unwrap().unwrap();
            assert_eq!((last.manifest, last.seen_ms), (noted.manifest, expected_ms));
        }
    }

    #[test]
    fn sources_of_a_layer_are_collected() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::new(&StatePaths::new(dir.path()));
        let layer = DiffId(Digest::of(b"layer"));
        let source = |repository: &str| Source {
            repository: repository.into(),
            blob: Descriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
                digest: Digest::of(b"blob"),
                size: 4,
            },
        };
        assert_eq!(sources.of(&layer).unwrap(), []);
        for repository in [
            "docker.io/library/b",
            "docker.io/library/a",
            "docker.io/library/b",
        ] {
            sources.add(&layer, &source(repository)).unwrap();
        }
        let expected = [source("docker.io/library/a"), source("docker.io/library/b")];
        assert_eq!(sources.of(&layer).unwrap(), expected);
    }
}
