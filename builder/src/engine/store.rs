//! The images of the store: listing, naming, removing, pushing.

use std::io::Read as _;

use cache::blob::BlobStore as _;
use cache::blob::dir::DirStore;
use cache::digest::Digest;
use cache::root::{RootOptions, StateRoot};
use cache::tag::{Images, Tag};
use frontend::reference::Reference;

use crate::cli::{StoreCommand, StoreRequest};
use crate::outcome::{Failure, FailureKind};

/// Does what is asked; gives what goes to standard output.
pub(crate) fn perform(request: &StoreRequest) -> Result<String, Failure> {
    let root = StateRoot::open(&request.state_root, &RootOptions::default())
        .map_err(|error| environment(crate::text::chain(&error)))?;
    let store = Store {
        tags: Images::new(root.paths()),
        blobs: DirStore::new(root.paths()),
    };
    match &request.command {
        StoreCommand::Images { is_quiet } => store.list(*is_quiet),
        StoreCommand::Tag { source, target } => store.tag(source, target),
        StoreCommand::Inspect { name } => store.inspect(name),
        StoreCommand::Remove { names } => store.remove(names),
        StoreCommand::Push { name } => {
            let what = format!(
                "push {name}; build it again with --push, which sends only what is missing"
            );
            Err(Failure::not_supported(what))
        }
    }
}

fn environment(message: String) -> Failure {
    Failure::new(FailureKind::Environment, message)
}

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

struct Store {
    tags: Images,
    blobs: DirStore,
}

impl Store {
    fn all(&self) -> Result<Vec<Tag>, Failure> {
        self.tags
            .list()
            .map_err(|error| environment(crate::text::chain(&error)))
    }

    fn list(&self, is_quiet: bool) -> Result<String, Failure> {
        let tags = self.all()?;
        if is_quiet {
            let ids: std::collections::BTreeSet<String> =
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

    /// The tag of a name, or any tag of an image by its id or the beginning of it.
    fn find(&self, name: &str) -> Result<Tag, Failure> {
        if let Ok(reference) = Reference::parse(name)
            && let Some(tag) = self
                .tags
                .resolve(&crate::export::names::full(&reference))
                .map_err(|error| environment(crate::text::chain(&error)))?
        {
            return Ok(tag);
        }
        let id = name.strip_prefix("sha256:").unwrap_or(name);
        let is_id = id.len() >= 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut found: Vec<Tag> = Vec::new();
        for tag in self.all()? {
            let is_new = found.iter().all(|other| other.config != tag.config);
            if is_id && tag.config.hex().starts_with(id) && is_new {
                found.push(tag);
            }
        }
        match (found.pop(), found.is_empty()) {
            (Some(tag), true) => Ok(tag),
            (Some(_), false) => Err(usage(format!(
                "several images have an id that begins with {id}"
            ))),
            (None, _) => Err(usage(format!(
                "no such image: {name}; `builder images` lists them"
            ))),
        }
    }

    fn tag(&self, source: &str, target: &str) -> Result<String, Failure> {
        let image = self.find(source)?;
        let reference = Reference::parse(target)
            .map_err(|error| usage(format!("invalid name `{target}`: {error}")))?;
        let tag = Tag {
            name: crate::export::names::full(&reference),
            ..image
        };
        self.tags
            .tag(&tag)
            .map_err(|error| environment(crate::text::chain(&error)))?;
        Ok(String::new())
    }

    fn inspect(&self, name: &str) -> Result<String, Failure> {
        let tag = self.find(name)?;
        let broken = |error: &dyn std::error::Error| {
            environment(format!(
                "cannot read the image {}: {}",
                tag.config,
                crate::text::chain(error)
            ))
        };
        let bytes = self.read(&tag.config).map_err(|error| broken(&*error))?;
        let config: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| broken(&e))?;
        let names = self
            .all()?
            .into_iter()
            .filter(|other| other.config == tag.config);
        let shown = serde_json::json!({
            "Id": tag.config,
            "RepoTags": names.map(|tag| tag.name).collect::<Vec<_>>(),
            "Config": config,
        });
        let text = serde_json::to_string_pretty(&[shown]).map_err(|e| broken(&e))?;
        Ok(text + "\n")
    }

    fn read(&self, digest: &Digest) -> Result<Vec<u8>, crate::export::Failure> {
        let mut blob = self
            .blobs
            .open(digest)?
            .ok_or("it is gone from the store")?;
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn remove(&self, names: &[String]) -> Result<String, Failure> {
        let mut text = String::new();
        for name in names {
            let tag = self.find(name)?;
            self.tags
                .untag(&tag.name)
                .map_err(|error| environment(crate::text::chain(&error)))?;
            text.push_str(&format!("untagged: {}\n", tag.name));
        }
        Ok(text)
    }
}
