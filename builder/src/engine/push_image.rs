//! Pushing an image of the store without building anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use cache::key::index::Keys;
use cache::lease::Lease;
use cache::room::Cap;
use cache::root::StatePaths;
use frontend::reference::Reference;

use super::blobs::{Blobs, BlobsParts};
use super::push::Pushing;
use super::stop::StopOnInterrupt;
use super::{Engine, failure, outputs};
use crate::cli::push::PushRequest;
use crate::export::activity::Activity;
use crate::export::prepare::Form;
use crate::export::spec::{PushSpec, PushUnder};
use crate::export::{Encoding, LayerSource};
use crate::image::Image;
use crate::image::manifest::{Annotations, MediaTypes};
use crate::op::layers::{LayerParts, Layers};
use crate::op::stored;
use crate::outcome::{Failure, FailureKind};

impl Engine {
    /// Pushes an image of the store: the name it can be had by from then on, with the manifest's digest.
    ///
    /// # Errors
    ///
    /// There is no such image, or the registry does not take it. Nothing is under way then.
    pub async fn push(&self, request: &PushRequest) -> Result<String, Failure> {
        let stop = StopOnInterrupt::new(&self.interrupt);
        let root = super::open_root(&request.state_root)?;
        let lease = Arc::new(Lease::acquire(root.paths()).map_err(failure::store)?);
        let (name, image) = find(&request.name, root.paths(), &lease)?;
        let client = super::client(&request.registries.environment);
        let handle = tokio::runtime::Handle::current();
        let layers = Layers::open(LayerParts {
            paths: root.paths(),
            client: client.clone(),
            handle: handle.clone(),
            lease,
            images: &BTreeMap::new(),
            format: crate::machine::tree_format(self.surroundings.rung),
            stop: stop.flag.clone(),
            boot: self.surroundings.boot.clone(),
            room: self.room(root.paths(), Cap::Usual),
        })
        .map_err(failure::step_environment)?;
        let has_all = layers.has_all(&image.layers);
        if !has_all.map_err(failure::step_environment)? {
            return Err(super::store::without_layers(&request.name));
        }
        let layers = Arc::new(layers);
        let keys = Arc::new(Keys::new(root.paths()));
        let blobs: Arc<dyn LayerSource> = Arc::new(Blobs::new(BlobsParts {
            layers,
            keys: Arc::clone(&keys),
            paths: root.paths().clone(),
            clock: self.clock.clone(),
            threads: self.surroundings.threads,
            stop: stop.flag.clone(),
        }));
        let pushing = Pushing {
            client: &client,
            environment: &request.registries.environment,
            handle: &handle,
            stop: &stop.flag,
            blobs: &blobs,
        };
        let spec = PushSpec {
            under: PushUnder::Tags,
            is_insecure: false,
        };
        let form = Form {
            encoding: Encoding::DEFAULT,
            media_types: MediaTypes::Oci,
            annotations: Annotations::new(),
            descriptor_annotations: Annotations::new(),
        };
        let pusher = pushing.pusher(std::slice::from_ref(&name), &spec, form);
        let prepared = tokio::task::block_in_place(|| {
            let shown = format!("pushing {name}");
            Activity::run(&*self.events, &shown, 0, |activity| {
                pusher.finish(&image, activity)
            })
        });
        // What was compressed is remembered, also when the registry then refused it.
        let now_ms = u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX);
        let kept = keys.flush(now_ms);
        let prepared = prepared.map_err(|error| match self.interrupt.is_set() {
            true => failure::interrupted(),
            false => outputs::export_failure(&error),
        })?;
        kept.map_err(|error| failure::step_environment(error.into()))?;
        Ok(format!("{name}@{}", prepared.manifest.descriptor.digest))
    }
}

/// The image of a name, which stays until the lease ends.
fn find(typed: &str, paths: &StatePaths, lease: &Lease) -> Result<(Reference, Image), Failure> {
    let name = Reference::parse(typed).map_err(|error| {
        let message = format!("invalid name {typed:?}: {error}");
        Failure::new(FailureKind::Usage, message)
    })?;
    if name.digest.is_some() {
        let message = format!("an image is pushed under a tag, and {typed:?} names a digest");
        return Err(Failure::new(FailureKind::Usage, message));
    }
    let held = stored::hold(paths, lease, &name.to_string());
    let Some(image) = held.map_err(|error| super::store::unreadable(typed, &error))? else {
        return Err(super::store::no_such_image(typed)
            .hint("`builder tag ID NAME` gives an image the name to push it under"));
    };
    let image = Image {
        config: image.config,
        digest: image.id,
        layers: image.layers,
        created: None,
    };
    Ok((name, image))
}
