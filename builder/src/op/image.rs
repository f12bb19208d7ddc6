//! Where images come from: tags of the store, registries, OCI layouts.
//!
//! A name is a tag of the local store first, else what the registry says in one request a build. If no registry can be
//! reached, what it last said counts, with a warning. A tag whose image is damaged is an error: what a registry has under
//! the name may be somebody else's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cache::blob::dir::DirStore;
use cache::digest::{DiffId, Digest};
use cache::lease::Lease;
use cache::root::StatePaths;
use cache::tag::{References, Seen};
use frontend::graph::ImageSource;
use frontend::lower::{ImageName, ImageResolver, ResolveError, ResolvedImage};
use frontend::platform::Platform;
use frontend::reference::Reference;
use tokio::runtime::Handle;

use super::stored::{self, StoredImageError};
use crate::cli::request::PullPolicy;
use crate::clock::Clock;
use crate::lock::locked;
use crate::progress::event::{Event, VertexRef};
use crate::progress::sink::EventSink;
use crate::registry::client::Client;
use crate::registry::error::RegistryError;
use crate::registry::layout::{self, Layout};
use crate::registry::resolve::{self, LayerDescriptor};

/// Where the layers of a resolved image can be had.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Only in the store.
    Store,
    /// In a registry, under this reference.
    Registry(Reference),
    /// In an OCI layout.
    Layout(Layout),
}

/// A resolved image.
#[derive(Clone, Debug)]
pub struct KnownImage {
    /// Diff ids, bottom first.
    pub diff_ids: Vec<DiffId>,
    /// The blobs, where they are known.
    pub layers: Vec<LayerDescriptor>,
    /// Where the blobs are.
    pub origin: Origin,
}

/// What a [`Resolver`] is made of.
pub struct ResolverParts<'a> {
    /// The registries; offline if the policy is never to ask.
    pub client: Client,
    /// Names of files of the store.
    pub paths: &'a StatePaths,
    /// The build's hold on the store: pins the images that are found there.
    pub lease: &'a Arc<Lease>,
    /// Where requests run.
    pub handle: Handle,
    /// Where they are shown.
    pub events: Arc<dyn EventSink>,
    /// The clock.
    pub clock: Clock,
    /// When registries are asked.
    pub policy: PullPolicy,
}

impl std::fmt::Debug for ResolverParts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResolverParts").finish_non_exhaustive()
    }
}

/// Resolves images for one build; every question is asked once.
pub struct Resolver {
    client: Client,
    paths: StatePaths,
    /// Not what keeps it: a registry that is still being asked when the user gives up must not.
    lease: Weak<Lease>,
    blobs: DirStore,
    references: References,
    handle: Handle,
    events: Arc<dyn EventSink>,
    clock: Clock,
    policy: PullPolicy,
    answers: Mutex<BTreeMap<String, Result<ResolvedImage, ResolveError>>>,
    images: Mutex<BTreeMap<String, KnownImage>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

fn refused(message: String) -> ResolveError {
    ResolveError {
        message,
        hint: None,
    }
}

/// A tag names what is no image any more.
fn damaged(name: &str, error: &StoredImageError) -> ResolveError {
    let problem = crate::text::chain(error);
    let hint = match error {
        StoredImageError::Gone(_) | StoredImageError::NoConfig { .. } => Some(format!(
            "build it again, or `builder rm {name}` to have the registry asked"
        )),
        StoredImageError::Store(_) | StoredImageError::Blob(_) | StoredImageError::Layer(_) => None,
    };
    ResolveError {
        message: format!("cannot read the image of the local store: {problem}"),
        hint,
    }
}

impl Resolver {
    /// Touches nothing.
    pub fn new(parts: ResolverParts<'_>) -> Self {
        Self {
            client: parts.client,
            paths: parts.paths.clone(),
            lease: Arc::downgrade(parts.lease),
            blobs: DirStore::new(parts.paths),
            references: References::new(parts.paths),
            handle: parts.handle,
            events: parts.events,
            clock: parts.clock,
            policy: parts.policy,
            answers: Mutex::default(),
            images: Mutex::default(),
        }
    }

    /// The images that were resolved, by the digest that their vertices have.
    pub fn into_images(self) -> BTreeMap<String, KnownImage> {
        self.images
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn local(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<ResolvedImage>, ResolveError> {
        if reference.digest.is_some() {
            return Ok(None);
        }
        let Some(lease) = self.lease.upgrade() else {
            return Err(refused("canceled".to_owned()));
        };
        let name = reference.to_string();
        let held = stored::hold(&self.paths, &lease, &name);
        let Some(image) = held.map_err(|error| damaged(&name, &error))? else {
            return Ok(None);
        };
        if platform.rank(&image.platform).is_none() {
            return Ok(None);
        }
        let id = image.id.to_string();
        let known = KnownImage {
            diff_ids: image.layers,
            layers: Vec::new(),
            origin: Origin::Store,
        };
        locked(&self.images).insert(id.clone(), known);
        Ok(Some(ResolvedImage {
            reference: name,
            manifest: id,
            config: image.config,
            source: ImageSource::Local,
        }))
    }

    fn remote(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        let image = match self.remembered(reference, platform) {
            Some(image) => image,
            None => self.ask(reference, platform)?,
        };
        Ok(self.keep(
            image,
            reference.to_string(),
            Origin::Registry(reference.clone()),
            ImageSource::Registry,
        ))
    }

    /// Asks the registry; if nobody answers, what it said before counts.
    fn ask(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<resolve::ResolvedImage, RegistryError> {
        let resolving = resolve::resolve_image(&self.client, &self.blobs, reference, platform);
        let image = match self.handle.block_on(resolving) {
            Ok(image) => image,
            Err(error) if error.is_unreachable() && !self.client.is_offline() => {
                return self.last_seen(reference, platform, error);
            }
            Err(error) => return Err(error),
        };
        let seen = Seen {
            name: reference.to_string(),
            manifest: image.root.digest.clone(),
            seen_ms: self.now_ms(),
        };
        // Only a later build without network would miss it.
        self.references.note(&seen).ok();
        Ok(image)
    }

    /// What the registry said earlier, if the policy is content with that.
    fn remembered(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Option<resolve::ResolvedImage> {
        let oldest = match self.policy {
            PullPolicy::Default | PullPolicy::Always => return None,
            PullPolicy::Missing | PullPolicy::Never => 0,
            PullPolicy::Age(age) => {
                let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                self.now_ms().saturating_sub(age)
            }
        };
        let seen = self.references.last(&reference.to_string()).ok()??;
        if seen.seen_ms < oldest {
            return None;
        }
        let pinned = reference.with_digest(seen.manifest.as_str());
        let resolving = resolve::resolve_image(&self.client, &self.blobs, &pinned, platform);
        self.handle.block_on(resolving).ok()
    }

    /// What the registry said the last time it could be reached.
    fn last_seen(
        &self,
        reference: &Reference,
        platform: &Platform,
        error: RegistryError,
    ) -> Result<resolve::ResolvedImage, RegistryError> {
        let Ok(Some(seen)) = self.references.last(&reference.to_string()) else {
            return Err(error);
        };
        let pinned = reference.with_digest(seen.manifest.as_str());
        let resolving = resolve::resolve_image(&self.client, &self.blobs, &pinned, platform);
        let Ok(image) = self.handle.block_on(resolving) else {
            return Err(error);
        };
        let age = age(self.now_ms().saturating_sub(seen.seen_ms));
        let message = format!(
            "{reference}: the registry cannot be reached, using {} as it was {age} ago ({})",
            seen.manifest,
            crate::text::chain(&error)
        );
        self.events.emit(Event::Warning {
            vertex: None,
            message,
        });
        Ok(image)
    }

    fn layout(
        &self,
        context: &str,
        location: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        let (layout, image) = layout::parse(location)?;
        let resolving = layout.resolve_image(&self.blobs, &image, platform);
        let image = self.handle.block_on(resolving)?;
        let name = format!("oci-layout://{location}");
        let source = ImageSource::OciLayout(context.to_owned());
        Ok(self.keep(image, name, Origin::Layout(layout), source))
    }

    fn keep(
        &self,
        image: resolve::ResolvedImage,
        reference: String,
        origin: Origin,
        source: ImageSource,
    ) -> ResolvedImage {
        if let Some(other) = &image.other_platform {
            let message =
                format!("{reference} is for {other}, which is not the platform asked for");
            self.events.emit(Event::Warning {
                vertex: None,
                message,
            });
        }
        let known = KnownImage {
            diff_ids: image
                .layers
                .iter()
                .map(|layer| layer.diff_id.clone())
                .collect(),
            layers: image.layers,
            origin,
        };
        let manifest = image.manifest.digest.to_string();
        locked(&self.images).insert(manifest.clone(), known);
        ResolvedImage {
            reference,
            manifest,
            config: image.config_bytes,
            source,
        }
    }

    fn answer(
        &self,
        image: &ImageName<'_>,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        let told = |error: RegistryError| refused(crate::text::chain(&error));
        match image {
            ImageName::Reference(reference) => {
                if self.policy != PullPolicy::Always
                    && let Some(found) = self.local(reference, platform)?
                {
                    return Ok(found);
                }
                self.remote(reference, platform).map_err(told)
            }
            ImageName::OciLayout { context, location } => {
                self.layout(context, location, platform).map_err(told)
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX)
    }
}

impl ImageResolver for Resolver {
    fn resolve(
        &self,
        image: &ImageName<'_>,
        platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        let name = match image {
            ImageName::Reference(reference) => reference.to_string(),
            ImageName::OciLayout {
                context: _,
                location,
            } => format!("oci-layout://{location}"),
        };
        let question = format!("{name} {platform}");
        if let Some(answer) = locked(&self.answers).get(&question) {
            return answer.clone();
        }
        let shown = format!("[internal] load metadata for {name}");
        let vertex = VertexRef(Digest::of(question.as_bytes()).to_string().into());
        self.events.emit(Event::VertexAdded {
            vertex: vertex.clone(),
            name: shown,
            inputs: Vec::new(),
        });
        self.events.emit(Event::Started {
            vertex: vertex.clone(),
        });
        let answer = self.answer(image, platform);
        self.events.emit(match &answer {
            Ok(_) => Event::Completed { vertex },
            Err(error) => Event::Failed {
                vertex,
                message: error.message.clone(),
            },
        });
        locked(&self.answers).insert(question, answer.clone());
        answer
    }
}

/// A time span in one unit.
pub(crate) fn age(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use cache::lease::pinned;

    use super::super::stored::testing::{beside_a_collection, name, put_config};
    use super::*;
    use crate::progress::sink::Discard;
    use crate::registry::config::RegistryConfig;

    const BASE: &str = "docker.io/library/base:1";

    #[test]
    fn a_collection_under_way_is_waited_for_and_what_it_left_is_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let layers = [b"one", b"two"].map(|text| DiffId(Digest::of(text)));
        let [old, new] = layers.clone().map(|layer| put_config(&paths, &[layer]));
        name(&paths, BASE, &old);
        let lease = Arc::new(Lease::acquire(&paths).unwrap());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut config = RegistryConfig::from_env(&|_| None);
        config.is_offline = true;
        let resolver = Resolver::new(ResolverParts {
            client: Client::new(config),
            paths: &paths,
            lease: &lease,
            handle: runtime.handle().clone(),
            events: Arc::new(Discard),
            clock: Clock::system(),
            policy: PullPolicy::Default,
        });
        let reference = Reference::parse(BASE).unwrap();
        let platform = Platform::parse("linux/arm64", "arm64").unwrap();
        let resolve = || resolver.resolve(&ImageName::Reference(&reference), &platform);
        let answer = beside_a_collection(&paths, resolve, || {
            // Another build gives the name away, and what it meant goes.
            name(&paths, BASE, &new);
            std::fs::remove_file(paths.blob(&old)).unwrap();
        });
        assert_eq!(answer.unwrap().manifest, new.to_string());
        let pinned = pinned(&paths, None).unwrap();
        assert_eq!(pinned.blobs, [new].into());
        assert_eq!(pinned.layers, [layers[1].clone()].into());
    }

    #[test]
    fn ages_have_one_unit() {
        let cases = [
            (900, "0 seconds"),
            (61_000, "1 minute"),
            (7_200_000, "2 hours"),
            (200_000_000, "2 days"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(age(milliseconds), text);
        }
    }
}
