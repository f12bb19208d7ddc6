//! Pushing to registries (features.md 7.5).
//!
//! # Concurrency
//!
//! Layers may be uploaded one by one while the build still runs ([`Pusher::upload_layer`], from any thread); a layer is
//! handled once whoever asks. [`Pusher::finish`] sends what is missing, several at once, and the manifests last.
//!
//! # Invariants
//!
//! A blob is sent only if the repository does not have it and no repository of the same registry can lend it. If all blobs
//! are described already and a tag names our manifest already, asking for that tag is all that happens.

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

/// Blobs sent at once to one repository.
const UPLOADS_AT_ONCE: usize = 8;

/// A blob's bytes, as often as a retry needs them.
pub type Content<'a> = &'a (dyn Fn() -> Result<Box<dyn Read + Send>, Failure> + Sync);

/// A repository to push to. Calls block; any number of threads may call.
pub trait PushTarget: Send + Sync {
    /// Brings a blob into the repository by the cheapest way: it is there (`HEAD`), the registry takes it from its other
    /// repository `from`, it is sent. Tells how many of its bytes are sent; a mount that is refused is no error.
    fn push_blob(
        &self,
        blob: &Descriptor,
        from: Option<&str>,
        content: Content<'_>,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Failure>;
    /// Digest of the manifest under a tag or digest, if there is one (`HEAD`).
    fn manifest_digest(&self, reference: &str) -> Result<Option<Digest>, Failure>;
    /// Puts a manifest under a tag or digest, unless it is there.
    fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        manifest: &[u8],
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
        let blob = self.layers.ensure(layer, self.form.encoding)?;
        for repository in &self.repositories {
            let open = || {
                let opened = self.layers.open(layer, self.form.encoding);
                opened.map_err(|error| Box::new(error) as Failure)
            };
            let origins = self.layers.origins(layer);
            let id = format!("pushing layer {}", blob.digest);
            send(repository, &blob, origins, &open, &|bytes, is_completed| {
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
            return self.send_all(image, activity);
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
        self.send_all(image, activity)
    }

    fn send_all(&self, image: &Image, activity: &Activity<'_>) -> Result<Prepared, ExportError> {
        // The config needs nothing of the layers, so it goes beside them.
        let parts: Vec<_> = image.layers.iter().map(Some).chain([None]).collect();
        let sent = activity.part("pushing layers", || {
            parallel::map(&parts, UPLOADS_AT_ONCE, |part| match part {
                Some(layer) => self.upload_layer(layer, activity).map(Some),
                None => self.upload_config(image, activity).map(|()| None),
            })
        })?;
        let blobs: Vec<_> = sent.into_iter().flatten().collect();
        activity.status("exporting layers", 0, 0, true);
        let prepared = prepare::assemble(image, &blobs, &self.form)?;
        prepare::announce(&prepared.manifest, activity);
        for repository in &self.repositories {
            for name in &repository.names {
                activity.part(&manifest_status(name, &prepared), || {
                    self.put(repository, name, &prepared)
                })?;
            }
        }
        Ok(prepared)
    }

    fn upload_config(&self, image: &Image, activity: &Activity<'_>) -> Result<(), ExportError> {
        let config = image.config_descriptor(self.form.media_types.config());
        let open = || Ok(Box::new(Cursor::new(image.config.clone())) as Box<_>);
        let id = format!("pushing config {}", config.digest);
        for repository in &self.repositories {
            send(
                repository,
                &config,
                Vec::new(),
                &open,
                &|bytes, is_completed| {
                    activity.status(&id, bytes, config.size, is_completed);
                },
            )?;
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
    ) -> Result<(), ExportError> {
        let target = &repository.target;
        let reference = self.reference(name, prepared);
        let manifest = &prepared.manifest;
        target
            .put_manifest(reference, &manifest.descriptor.media_type, &manifest.bytes)
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

/// Brings a blob to a repository. Tells how many bytes are sent and whether that is all, if any are.
fn send(
    repository: &Repository,
    blob: &Descriptor,
    origins: Vec<BlobOrigin>,
    content: Content<'_>,
    told: &(dyn Fn(u64, bool) + Sync),
) -> Result<(), ExportError> {
    let from = lender(repository, blob, origins);
    let is_sent = AtomicBool::new(false);
    let sent = |bytes| {
        is_sent.store(true, Ordering::Relaxed);
        told(bytes, false);
    };
    repository
        .target
        .push_blob(blob, from.as_deref(), content, &sent)
        .map_err(repository.failed())?;
    // What was there or mounted has no line of its own.
    if is_sent.into_inner() {
        told(blob.size, true);
    }
    Ok(())
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
mod tests {
    use super::super::ExportReport;
    use super::super::store::{Beginning, ImageExport};
    use super::super::testing::{
        self, FakeLayers, FakeRegistry, FakeTree, Recorder, form, image, layer_tar, name,
    };
    use super::*;
    use crate::image::manifest::MediaTypes;

    struct Fixture {
        layers: Arc<FakeLayers>,
        image: Image,
        registry: FakeRegistry,
    }

    impl Fixture {
        fn new() -> Self {
            let mut layers = FakeLayers::default();
            let a = layers.add(layer_tar("a", b"a"));
            let b = layers.add(layer_tar("b", b"b"));
            let image = image(&[a.clone(), b, a]);
            Self {
                layers: Arc::new(layers),
                image,
                registry: FakeRegistry::default(),
            }
        }

        fn pusher(&self, names: &[Reference], under: PushUnder) -> Pusher {
            let target = || Box::new(self.registry.clone());
            let repositories = by_repository(names)
                .into_iter()
                .map(|names| Repository {
                    names,
                    target: target(),
                })
                .collect();
            let form = form(MediaTypes::Oci);
            Pusher::new(repositories, self.layers.clone(), form, under)
        }

        fn push(&self, pusher: &Pusher) -> (Result<ExportReport, ExportError>, Vec<String>) {
            let exporter = ImageExport {
                names: Vec::new(),
                store: None,
                pusher: Some(pusher),
                beginning: Beginning::Now,
            };
            testing::export(&exporter, &self.image, &*self.layers, &FakeTree::default())
        }

        /// What was asked since the last call, sorted but for manifests.
        fn asked(&self) -> Vec<String> {
            let mut asked = std::mem::take(&mut self.registry.0.lock().unwrap().asked);
            let blobs = asked
                .iter()
                .take_while(|line| !line.starts_with("put"))
                .count();
            asked[..blobs].sort();
            asked
        }

        fn hex(&self, layer: usize) -> String {
            self.image.layers[layer].0.hex()[..4].to_owned()
        }
    }

    fn app(tag: &str) -> Reference {
        name("h:5", "team/app", tag)
    }

    #[test]
    fn what_is_missing_is_sent_once_and_the_manifest_last() {
        let fixture = Fixture::new();
        let names = [app("1"), app("2"), app("1")];
        let (report, lines) = fixture.push(&fixture.pusher(&names, PushUnder::Tags));
        let manifest = report.unwrap().manifest.unwrap();
        let (a, b, config) = (
            fixture.hex(0),
            fixture.hex(1),
            &fixture.image.digest.hex()[..4],
        );
        let mut expected: Vec<String> = [&a[..], &b, config]
            .iter()
            .flat_map(|blob| [format!("head {blob}"), format!("upload {blob}")])
            .collect();
        expected.sort();
        expected.extend(["put 1", "put 2"].map(str::to_owned));
        assert_eq!(fixture.asked(), expected);

        let state = fixture.registry.0.lock().unwrap();
        let (media_type, bytes) = &state.manifests["1"];
        assert_eq!(media_type, crate::image::OCI_MANIFEST);
        assert_eq!(Digest::of(bytes), manifest.digest);
        assert_eq!(state.manifests["1"], state.manifests["2"]);
        drop(state);
        assert_eq!(lines[0], "exporting to image");
        for part in [
            "pushing layers 0/0 done".to_owned(),
            format!("pushing layer {} 2048/2048 done", fixture.image.layers[1]),
            format!("exporting config {} 0/0 done", fixture.image.digest),
            format!(
                "pushing manifest for h:5/team/app:2@{} 0/0 done",
                manifest.digest
            ),
        ] {
            assert!(lines.contains(&part), "{part}: {lines:?}");
        }

        // Again: a look at each tag is all.
        let (report, again) = fixture.push(&fixture.pusher(&names, PushUnder::Tags));
        assert_eq!(report.unwrap().manifest.unwrap(), manifest);
        assert_eq!(fixture.asked(), ["manifest 1", "manifest 2"]);
        assert!(again.contains(&"pushing layers 0/0 done".to_owned()));
        // Under a new tag: nothing but the manifest is sent.
        let names = [app("3")];
        fixture
            .push(&fixture.pusher(&names, PushUnder::Tags))
            .0
            .unwrap();
        let asked = fixture.asked();
        assert!(
            !asked.iter().any(|line| line.starts_with("upload")),
            "{asked:?}"
        );
        assert_eq!(asked.last().unwrap(), "put 3");
    }

    #[test]
    fn layers_that_were_uploaded_early_are_not_asked_for_again() {
        let fixture = Fixture::new();
        let pusher = fixture.pusher(&[app("1")], PushUnder::Digest);
        let recorder = Recorder::default();
        let early: Result<_, ExportError> = Activity::run(&recorder, "early", 0, |activity| {
            for _ in 0..2 {
                pusher.upload_layer(&fixture.image.layers[0], activity)?;
            }
            Ok(())
        });
        early.unwrap();
        let a = fixture.hex(0);
        assert_eq!(
            fixture.asked(),
            [format!("head {a}"), format!("upload {a}")]
        );
        let manifest = fixture.push(&pusher).0.unwrap().manifest.unwrap();
        let asked = fixture.asked();
        assert!(!asked.iter().any(|line| line.ends_with(&a)), "{asked:?}");
        let state = fixture.registry.0.lock().unwrap();
        let references: Vec<_> = state.manifests.keys().collect();
        assert_eq!(references, [manifest.digest.as_str()]);
    }

    #[test]
    fn blobs_are_mounted_from_the_nearest_repository_of_the_registry() {
        let mut fixture = Fixture::new();
        let digest = fixture.image.layers[0].0.clone();
        let origin = |registry: &str, repository: &str| BlobOrigin {
            registry: registry.into(),
            repository: repository.into(),
            digest: digest.clone(),
        };
        Arc::get_mut(&mut fixture.layers).unwrap().origins = vec![
            origin("h:5", "a/base"),
            origin("other", "team/app2"),
            origin("h:5", "team/base"),
            origin("h:5", "team/app"),
        ];
        let pusher = fixture.pusher(&[app("1")], PushUnder::Tags);
        let elsewhere = ("team/base".to_owned(), digest);
        fixture
            .registry
            .0
            .lock()
            .unwrap()
            .elsewhere
            .extend([elsewhere]);
        fixture.push(&pusher).0.unwrap();
        let (asked, a) = (fixture.asked(), fixture.hex(0));
        assert!(
            asked.contains(&format!("mount {a} from team/base")),
            "{asked:?}"
        );
        assert!(!asked.contains(&format!("upload {a}")));
        assert!(asked.contains(&format!("upload {}", fixture.hex(1))));
    }

    #[test]
    fn a_failed_push_names_the_repository_and_puts_no_manifest() {
        let fixture = Fixture::new();
        fixture.registry.0.lock().unwrap().fail_uploads = true;
        let (result, lines) = fixture.push(&fixture.pusher(&[app("1")], PushUnder::Tags));
        assert_eq!(
            result.unwrap_err().to_string(),
            "failed to push h:5/team/app"
        );
        assert_eq!(
            lines.last().unwrap(),
            "fail failed to push h:5/team/app: connection reset"
        );
        let state = fixture.registry.0.lock().unwrap();
        assert!(state.manifests.is_empty());
    }

    #[test]
    fn names_are_grouped_by_repository() {
        let other = name("h:6", "team/app", "1");
        let names = [app("1"), other.clone(), app("2"), app("1")];
        assert_eq!(
            by_repository(&names),
            [vec![app("1"), app("2")], vec![other]]
        );
    }
}
