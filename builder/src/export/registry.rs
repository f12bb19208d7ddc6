//! Pushing to registries (features.md 7.5).
//!
//! # Concurrency
//!
//! Layers may be uploaded one by one while the build still runs ([`Pusher::upload_layer`], from any thread); a layer is
//! handled once whoever asks. [`Pusher::finish`] sends what is missing, several at once, and the manifests last.
//!
//! # Invariants
//!
//! A blob is sent only if the repository does not have it and no repository of the same registry can lend it; a small one that
//! this build made is sent without asking. If all blobs are described already and a tag names our manifest already, asking
//! for that tag is all that happens.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cache::digest::{Descriptor, DiffId, Digest};
use frontend::reference::Reference;

use super::activity::Activity;
use super::prepare::{self, Form, Prepared};
use super::spec::PushUnder;
use super::{BlobOrigin, ExportError, Failure, LayerSource};
use crate::image::Image;
use crate::image::manifest::Annotations;
use crate::once::OncePerKey;
use crate::parallel;
use crate::registry::push::Freshness;

/// New blobs up to this size are sent without asking for them: bytes of one more packet or two, against a round trip.
const SENT_UNASKED: u64 = 64 << 10;

/// Blobs sent at once to one repository.
const UPLOADS_AT_ONCE: usize = 8;

/// A blob's bytes, as often as a retry needs them.
pub type Content<'a> = &'a (dyn Fn() -> Result<Box<dyn Read + Send>, Failure> + Sync);

/// A repository to push to. Calls block; any number of threads may call.
pub trait PushTarget: Send + Sync {
    /// Brings a blob into the repository by the cheapest way: it is there (`HEAD`, unless it is new), the registry takes it
    /// from its other repository `from`, it is sent. Tells how many of its bytes are sent; a mount that is refused is no error.
    fn push_blob(
        &self,
        blob: &Descriptor,
        freshness: Freshness,
        from: Option<&str>,
        content: Content<'_>,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Failure>;
    /// Digest of the manifest under a tag or digest, if there is one (`HEAD`).
    fn manifest_digest(&self, reference: &str) -> Result<Option<Digest>, Failure>;
    /// Puts a manifest under a tag or digest, unless it is there; whether it is is not asked of a new one.
    fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        manifest: &[u8],
        freshness: Freshness,
    ) -> Result<(), Failure>;
}

/// A repository and the names in it that an image gets.
pub struct Repository {
    /// The names; not empty, of one repository.
    pub names: Vec<Reference>,
    /// How to reach it.
    pub target: Box<dyn PushTarget>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Repository").field(&self.names).finish()
    }
}

impl Repository {
    fn name(&self) -> String {
        self.names.first().map_or_else(String::new, |name| {
            format!("{}/{}", name.registry, name.repository)
        })
    }

    fn failed(&self) -> impl FnOnce(Failure) -> ExportError {
        let name = self.name();
        move |source| ExportError::Push { name, source }
    }
}

/// Names by repository, both in the order given; equal names count once.
pub fn by_repository(names: &[Reference]) -> Vec<Vec<Reference>> {
    let mut repositories: Vec<Vec<Reference>> = Vec::new();
    for name in names {
        let is_same = |other: &&mut Vec<Reference>| {
            other.first().is_some_and(|first| {
                (&first.registry, &first.repository) == (&name.registry, &name.repository)
            })
        };
        match repositories.iter_mut().find(is_same) {
            Some(repository) if repository.contains(name) => {}
            Some(repository) => repository.push(name.clone()),
            None => repositories.push(vec![name.clone()]),
        }
    }
    repositories
}

/// A push that may begin before the image is complete.
pub struct Pusher {
    repositories: Vec<Repository>,
    layers: Arc<dyn LayerSource>,
    form: Form,
    under: PushUnder,
    sent: OncePerKey<DiffId, Descriptor>,
}

impl std::fmt::Debug for Pusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pusher")
            .field("repositories", &self.repositories)
            .finish_non_exhaustive()
    }
}

impl Pusher {
    /// Sends nothing yet.
    pub fn new(
        repositories: Vec<Repository>,
        layers: Arc<dyn LayerSource>,
        form: Form,
        under: PushUnder,
    ) -> Self {
        Self {
            repositories,
            layers,
            form,
            under,
            sent: OncePerKey::default(),
        }
    }

    /// Annotations for the manifest's descriptor.
    pub fn descriptor_annotations(&self) -> &Annotations {
        &self.form.descriptor_annotations
    }

    /// Brings a layer to every repository; returns when it is there. Asked again, it answers at once.
    ///
    /// # Errors
    ///
    /// The layer's or a registry's; then the next call tries again.
    pub fn upload_layer(
        &self,
        layer: &DiffId,
        activity: &Activity<'_>,
    ) -> Result<Descriptor, ExportError> {
        self.sent
            .get(layer.clone(), || self.send_layer(layer, activity))
    }

    fn send_layer(
        &self,
        layer: &DiffId,
        activity: &Activity<'_>,
    ) -> Result<Descriptor, ExportError> {
        let is_known = self.layers.known(layer, self.form.encoding).is_some();
        let blob = self.layers.ensure(layer, self.form.encoding)?;
        let freshness = match is_known || blob.size > SENT_UNASKED {
            true => Freshness::MayExist,
            false => Freshness::New,
        };
        for repository in &self.repositories {
            let open = || {
                let opened = self.layers.open(layer, self.form.encoding);
                opened.map_err(|error| Box::new(error) as Failure)
            };
            let origins = self.layers.origins(layer);
            let id = format!("pushing layer {}", blob.digest);
            let sending = Sending {
                blob: &blob,
                freshness,
                origins,
                content: &open,
            };
            sending.to(repository, &|bytes, is_completed| {
                activity.status(&id, bytes, blob.size, is_completed);
            })?;
        }
        Ok(blob)
    }

    /// Sends what is missing, then the manifest under every name.
    ///
    /// # Errors
    ///
    /// A layer's or a registry's. No name points to an image that is not complete.
    pub fn finish(&self, image: &Image, activity: &Activity<'_>) -> Result<Prepared, ExportError> {
        // What began early is new: it need not be asked for.
        if self.sent.has_begun() {
            return self.send_all(image, Freshness::New, activity);
        }
        if let Some(prepared) = prepare::known(image, &*self.layers, &self.form)?
            && self.is_there(&prepared)?
        {
            activity.status("exporting layers", 0, 0, true);
            prepare::announce(&prepared.manifest, activity);
            activity.status("pushing layers", 0, 0, true);
            for repository in &self.repositories {
                for name in &repository.names {
                    activity.status(&manifest_status(name, &prepared), 0, 0, true);
                }
            }
            return Ok(prepared);
        }
        self.send_all(image, Freshness::MayExist, activity)
    }

    /// Sends everything; `freshness` is that of the image itself.
    fn send_all(
        &self,
        image: &Image,
        freshness: Freshness,
        activity: &Activity<'_>,
    ) -> Result<Prepared, ExportError> {
        // The config needs nothing of the layers, so it goes beside them.
        let parts: Vec<_> = image.layers.iter().map(Some).chain([None]).collect();
        let sent = activity.part("pushing layers", || {
            parallel::map(&parts, UPLOADS_AT_ONCE, |part| match part {
                Some(layer) => self.upload_layer(layer, activity).map(Some),
                None => self
                    .upload_config(image, freshness, activity)
                    .map(|()| None),
            })
        })?;
        let blobs: Vec<_> = sent.into_iter().flatten().collect();
        activity.status("exporting layers", 0, 0, true);
        let prepared = prepare::assemble(image, &blobs, &self.form)?;
        prepare::announce(&prepared.manifest, activity);
        for repository in &self.repositories {
            for name in &repository.names {
                activity.part(&manifest_status(name, &prepared), || {
                    self.put(repository, name, &prepared, freshness)
                })?;
            }
        }
        Ok(prepared)
    }

    fn upload_config(
        &self,
        image: &Image,
        freshness: Freshness,
        activity: &Activity<'_>,
    ) -> Result<(), ExportError> {
        let config = image.config_descriptor(self.form.media_types.config());
        let open = || Ok(Box::new(Cursor::new(image.config.clone())) as Box<_>);
        let id = format!("pushing config {}", config.digest);
        for repository in &self.repositories {
            let sending = Sending {
                blob: &config,
                freshness,
                origins: Vec::new(),
                content: &open,
            };
            sending.to(repository, &|bytes, is_completed| {
                activity.status(&id, bytes, config.size, is_completed);
            })?;
        }
        Ok(())
    }

    /// The tag or digest that a name is pushed under.
    fn reference<'a>(&self, name: &'a Reference, prepared: &'a Prepared) -> &'a str {
        let digest = prepared.manifest.descriptor.digest.as_str();
        match self.under {
            PushUnder::Tags => name.tag.as_deref().unwrap_or(digest),
            PushUnder::Digest => digest,
        }
    }

    /// Whether every name has this manifest; a registry takes a manifest only when it has what it names.
    fn is_there(&self, prepared: &Prepared) -> Result<bool, ExportError> {
        for repository in &self.repositories {
            for name in &repository.names {
                let reference = self.reference(name, prepared);
                let found = repository.target.manifest_digest(reference);
                let found = found.map_err(repository.failed())?;
                if found.as_ref() != Some(&prepared.manifest.descriptor.digest) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn put(
        &self,
        repository: &Repository,
        name: &Reference,
        prepared: &Prepared,
        freshness: Freshness,
    ) -> Result<(), ExportError> {
        let target = &repository.target;
        let reference = self.reference(name, prepared);
        let manifest = &prepared.manifest;
        target
            .put_manifest(
                reference,
                &manifest.descriptor.media_type,
                &manifest.bytes,
                freshness,
            )
            .map_err(|source| ExportError::Push {
                name: name.to_string(),
                source,
            })
    }
}

/// BuildKit's words.
fn manifest_status(name: &Reference, prepared: &Prepared) -> String {
    let digest = &prepared.manifest.descriptor.digest;
    format!("pushing manifest for {name}@{digest}")
}

/// A blob on its way.
struct Sending<'a> {
    blob: &'a Descriptor,
    freshness: Freshness,
    /// Where it can be had from.
    origins: Vec<BlobOrigin>,
    content: Content<'a>,
}

impl Sending<'_> {
    /// Brings it to a repository. Tells how many bytes are sent and whether that is all, if any are.
    fn to(
        self,
        repository: &Repository,
        told: &(dyn Fn(u64, bool) + Sync),
    ) -> Result<(), ExportError> {
        let from = lender(repository, self.blob, self.origins);
        let is_sent = AtomicBool::new(false);
        let sent = |bytes| {
            is_sent.store(true, Ordering::Relaxed);
            told(bytes, false);
        };
        repository
            .target
            .push_blob(
                self.blob,
                self.freshness,
                from.as_deref(),
                self.content,
                &sent,
            )
            .map_err(repository.failed())?;
        // What was there or mounted has no line of its own.
        if is_sent.into_inner() {
            told(self.blob.size, true);
        }
        Ok(())
    }
}

/// The repository of the same registry to mount from: of several the one whose path has most in common with ours, because
/// credentials are likeliest to reach it.
fn lender(repository: &Repository, blob: &Descriptor, origins: Vec<BlobOrigin>) -> Option<String> {
    let ours = repository.names.first()?;
    let common = |other: &str| {
        let pairs = ours.repository.split('/').zip(other.split('/'));
        pairs.take_while(|(a, b)| a == b).count()
    };
    origins
        .into_iter()
        .filter(|origin| {
            origin.registry == ours.registry
                && origin.repository != ours.repository
                && origin.digest == blob.digest
        })
        .map(|origin| origin.repository)
        .max_by(|a, b| common(a).cmp(&common(b)).then_with(|| b.cmp(a)))
}

#[cfg(test)]
mod tests;
