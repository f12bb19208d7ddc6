//! The images of the store: listing, naming, inspecting, removing names.
//!
//! A name means the image that has it; else a digest of a config, or at least four digits of one that has a name, means
//! that image.
//!
//! A collection looks which images have names, and takes the others. So what is looked up and named here is so while none
//! removes anything (`gate`): it finds either the names of before or those of afterwards, and what gets a name is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use cache::blob::dir::DirStore;
use cache::digest::Digest;
use cache::lease::pass_gate;
use cache::root::{RootOptions, StatePaths, StateRoot};
use cache::tag::{Images, Tag};
use frontend::reference::Reference;

use super::failure;
use super::upkeep::Upkeep;
use crate::cli::{StoreCommand, StoreRequest};
use crate::clock::Clock;
use crate::op::stored::{self, StoredImageError};
use crate::outcome::{Failure, FailureKind};

/// Digits that an id must have at least: fewer may as well be a name.
const SHORTEST_ID: usize = 4;

/// No config has more bytes: registries' clients refuse longer ones.
const LONGEST_CONFIG: u64 = 16 << 20;

/// Does what is asked; gives what goes to standard output.
pub(crate) fn perform(request: &StoreRequest, upkeep: &Upkeep) -> Result<String, Failure> {
    let root = StateRoot::open(&request.state_root, &RootOptions::default())
        .map_err(|error| environment(crate::text::chain(&error)))?;
    let store = Store {
        tags: Images::new(root.paths()),
        blobs: DirStore::new(root.paths()),
        paths: root.paths().clone(),
    };
    match &request.command {
        StoreCommand::Images { is_quiet } => store.list(*is_quiet),
        StoreCommand::Tag { source, target } => {
            let now = Clock::system().now().as_millis();
            store.tag(source, target, u64::try_from(now).unwrap_or(u64::MAX))
        }
        StoreCommand::Inspect { name } => store.inspect(name),
        StoreCommand::Remove { names } => store.remove(names),
        StoreCommand::Upkeep(command) => upkeep.perform(root.paths(), command),
    }
}

fn environment(message: String) -> Failure {
    Failure::new(FailureKind::Environment, message)
}

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

/// There is none that is called so.
pub(super) fn no_such_image(name: &str) -> Failure {
    usage(format!(
        "no such image: {name}; `builder images` lists them"
    ))
}

/// An image of the store is damaged.
pub(super) fn unreadable(name: &str, error: &StoredImageError) -> Failure {
    let problem = crate::text::chain(error);
    environment(format!("cannot read the image {name}: {problem}"))
}

/// An image of the store is only its config.
pub(super) fn without_layers(name: &str) -> Failure {
    environment(format!("layers of {name} are gone from the store")).hint("build it again")
}

/// An image, and those of its names that were meant.
struct Found {
    config: Digest,
    names: Vec<String>,
}

struct Store {
    tags: Images,
    blobs: DirStore,
    paths: StatePaths,
}

impl Store {
    /// Nothing is collected while this is open.
    fn gate(&self) -> Result<File, Failure> {
        pass_gate(&self.paths.gate()).map_err(failure::store)
    }

    fn all(&self) -> Result<Vec<Tag>, Failure> {
        self.tags
            .list()
            .map_err(|error| environment(crate::text::chain(&error)))
    }

    fn list(&self, is_quiet: bool) -> Result<String, Failure> {
        let tags = self.all()?;
        if is_quiet {
            let ids: BTreeSet<String> =
                tags.iter().map(|tag| format!("{}\n", tag.config)).collect();
            return Ok(ids.into_iter().collect());
        }
        let width = tags
            .iter()
            .map(|tag| tag.name.len())
            .max()
            .unwrap_or(0)
            .max("NAME".len());
        let mut text = format!("{:width$}  {}\n", "NAME", "ID");
        for tag in tags {
            text.push_str(&format!("{:width$}  {}\n", tag.name, tag.config));
        }
        Ok(text)
    }

    /// The image that has a name, or that is meant by an id.
    fn find(&self, name: &str) -> Result<Found, Failure> {
        if let Ok(reference) = Reference::parse(name)
            && let Some(tag) = self
                .tags
                .resolve(&reference.to_string())
                .map_err(|error| environment(crate::text::chain(&error)))?
        {
            return Ok(Found {
                config: tag.config,
                names: vec![tag.name],
            });
        }
        let id = name.strip_prefix("sha256:").unwrap_or(name);
        let is_id = id.len() >= SHORTEST_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Err(no_such_image(name));
        }
        let mut found: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for tag in self.all()? {
            if tag.config.hex().starts_with(&id.to_ascii_lowercase()) {
                found.entry(tag.config).or_default().push(tag.name);
            }
        }
        let is_ambiguous = found.len() > 1;
        match found.pop_first() {
            Some(_) if is_ambiguous => Err(usage(format!(
                "several images have an id that begins with {id}"
            ))),
            Some((config, names)) => Ok(Found { config, names }),
            None => self.without_name(id).ok_or_else(|| no_such_image(name)),
        }
    }

    /// The image without a name that has this whole id: what `builder build --quiet` told.
    fn without_name(&self, id: &str) -> Option<Found> {
        let config: Digest = format!("sha256:{id}").parse().ok()?;
        // Layers and manifests are blobs too.
        let size = self.blobs.size(&config).ok()??;
        let image = (size <= LONGEST_CONFIG).then(|| stored::read(&self.paths, &config).ok())??;
        Some(Found {
            config: image.id,
            names: Vec::new(),
        })
    }

    fn tag(&self, source: &str, target: &str, now_ms: u64) -> Result<String, Failure> {
        let reference = Reference::parse(target)
            .map_err(|error| usage(format!("invalid name {target:?}: {error}")))?;
        if reference.digest.is_some() {
            let message = format!("invalid name {target:?}: a name that is given has no digest");
            return Err(usage(message));
        }
        let _gate = self.gate()?;
        let image = self.find(source)?;
        let read = stored::read(&self.paths, &image.config);
        let is_whole = read.and_then(|read| read.has_layers(&self.paths));
        if !is_whole.map_err(|error| unreadable(source, &error))? {
            return Err(without_layers(source));
        }
        let tag = Tag {
            name: reference.to_string(),
            config: image.config,
            manifest: None,
            tagged_ms: now_ms,
        };
        self.tags
            .tag(&tag)
            .map_err(|error| environment(crate::text::chain(&error)))?;
        Ok(String::new())
    }

    fn inspect(&self, name: &str) -> Result<String, Failure> {
        let _gate = self.gate()?;
        let image = self.find(name)?;
        let read = stored::read(&self.paths, &image.config);
        let read = read.map_err(|error| unreadable(name, &error))?;
        let config: serde_json::Value = serde_json::from_slice(&read.config)
            .map_err(|error| environment(crate::text::chain(&error)))?;
        let names = self
            .all()?
            .into_iter()
            .filter(|other| other.config == image.config);
        let shown = serde_json::json!({
            "Id": image.config,
            "RepoTags": names.map(|tag| tag.name).collect::<Vec<_>>(),
            "Config": config,
        });
        let text = serde_json::to_string_pretty(&[shown])
            .map_err(|error| environment(crate::text::chain(&error)))?;
        Ok(text + "\n")
    }

    /// Removes names; all of them are found before the first is removed.
    fn remove(&self, names: &[String]) -> Result<String, Failure> {
        let _gate = self.gate()?;
        let mut doomed = BTreeSet::new();
        for name in names {
            let found = self.find(name)?;
            if found.names.is_empty() {
                return Err(usage(format!("the image {name} has no name to remove")));
            }
            doomed.extend(found.names);
        }
        let mut text = String::new();
        for name in doomed {
            self.tags
                .untag(&name)
                .map_err(|error| environment(crate::text::chain(&error)))?;
            text.push_str(&format!("untagged: {name}\n"));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cache::digest::{Descriptor, DiffId};
    use cache::tag::{Source, Sources};

    use super::*;
    use crate::op::stored::testing::{beside_a_collection, name, put_config};

    const ONE: &str = "docker.io/library/one:latest";
    const TWO: &str = "docker.io/library/two:latest";

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let store = Store {
            tags: Images::new(&paths),
            blobs: DirStore::new(&paths),
            paths,
        };
        (dir, store)
    }

    fn names(store: &Store) -> Vec<String> {
        let tags = store.all().unwrap().into_iter();
        tags.map(|tag| tag.name).collect()
    }

    #[test]
    fn what_a_collection_takes_gets_no_name() {
        let (_dir, store) = store();
        let paths = &store.paths;
        let image = put_config(paths, &[]);
        let config = paths.blob(&image);
        let tag_beside = |source: &str, collection: &dyn Fn()| {
            let tag = || store.tag(source, "two", 0);
            let told = beside_a_collection(paths, tag, collection).unwrap_err();
            told.to_string()
        };
        let told = tag_beside(image.hex(), &|| fs::remove_file(&config).unwrap());
        assert!(told.contains("no such image"), "{told}");
        name(paths, ONE, &put_config(paths, &[]));
        let told = tag_beside("one", &|| {
            assert!(store.tags.untag(ONE).unwrap());
            fs::remove_file(&config).unwrap();
        });
        assert!(told.contains("no such image: one"), "{told}");
        assert_eq!(names(&store), [""; 0]);
        // One that has been damaged gets no other name.
        name(paths, ONE, &image);
        let told = store.tag("one", "two", 0).unwrap_err().to_string();
        assert!(told.contains("is gone from the store"), "{told}");
        assert_eq!(names(&store), [ONE]);
    }

    #[test]
    fn a_collection_finds_the_names_of_before_or_of_afterwards() {
        let (_dir, store) = store();
        let paths = &store.paths;
        name(paths, ONE, &put_config(paths, &[]));
        let before = || assert_eq!(names(&store), [ONE]);
        beside_a_collection(paths, || store.tag("one", "two", 0), before).unwrap();
        let both = || assert_eq!(names(&store), [ONE, TWO]);
        let remove = || store.remove(&["one".to_owned()]);
        beside_a_collection(paths, remove, both).unwrap();
        assert_eq!(names(&store), [TWO]);
    }

    #[test]
    fn an_image_whose_layers_are_gone_gets_no_name() {
        let (_dir, store) = store();
        let layer = DiffId(Digest::of(b"layer"));
        let image = put_config(&store.paths, std::slice::from_ref(&layer));
        let tag = || store.tag(image.hex(), "two", 0);
        let told = tag().unwrap_err().to_string();
        assert!(
            told.contains("layers of") && told.contains("gone"),
            "{told}"
        );
        assert_eq!(names(&store), [""; 0]);
        // A registry that has them will do.
        let source = Source {
            repository: "docker.io/library/base".to_owned(),
            blob: Descriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
                digest: Digest::of(b"blob"),
                size: 4,
            },
        };
        Sources::new(&store.paths).add(&layer, &source).unwrap();
        tag().unwrap();
        assert_eq!(names(&store), [TWO]);
    }
}
