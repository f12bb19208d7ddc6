//! What becomes of the result: every output that was asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use cache::blob::BlobStore;
use cache::blob::dir::DirStore;
use cache::digest::{Descriptor, Digest};
use cache::tag::{Images, Tag};
use frontend::lower::Lowered;
use frontend::reference::Reference;

use super::early::EarlyPush;
use super::flat::Flat;
use super::{Engine, failure};
use crate::cli::environment::Environment;
use crate::cli::request::BuildRequest;
use crate::export::daemon::{DaemonAddress, DaemonLoad};
use crate::export::destination::Destination;
use crate::export::docker_archive::DockerArchive;
use crate::export::local_dir::LocalDir;
use crate::export::metadata;
use crate::export::oci_layout::{LayoutDestination, OciLayout};
use crate::export::prepare::{Form, clamp_times};
use crate::export::registry::Pusher;
use crate::export::spec::{FileTimes, ImageForm, ImageSpec, LayoutPlace, OutputSpec, Place};
use crate::export::store::{ImageExport, ImageStore};
use crate::export::tar::PlainTar;
use crate::export::{ExportError, ExportReport, Exporter, LayerSource, Source};
use crate::image::Image;
use crate::op::layers::Layers;
use crate::op::steps::Steps;
use crate::outcome::{Failure, FailureKind, Outcome};

/// The outputs of one build.
pub(super) struct Outputs<'a> {
    pub(super) engine: &'a Engine,
    pub(super) request: &'a BuildRequest,
    pub(super) steps: &'a Arc<Steps>,
    pub(super) lowered: &'a Lowered,
    pub(super) image: &'a Image,
    pub(super) blobs: &'a Arc<dyn LayerSource>,
    /// By number of their outputs.
    pub(super) pushers: &'a BTreeMap<usize, Arc<Pusher>>,
    pub(super) early: &'a EarlyPush,
}

impl Outputs<'_> {
    /// Exports the image everywhere it shall go.
    pub(super) async fn export(&self, specs: &[OutputSpec]) -> Result<Outcome, Failure> {
        let exported = tokio::task::block_in_place(|| self.export_all(specs))?;
        let id = self.image_id(&exported);
        let reports: Vec<_> = exported.into_iter().map(|(_, report)| report).collect();
        let metadata = metadata::metadata(&self.build_reference(), Some(&id), &reports);
        self.steps.flush().map_err(failure::step_environment)?;
        Ok(Outcome {
            image_id: Some(id.to_string()),
            metadata: metadata.into_iter().collect(),
        })
    }

    fn build_reference(&self) -> String {
        let now = self.engine.clock.now().as_nanos();
        Digest::of(format!("{now}").as_bytes()).hex()[..25].to_owned()
    }

    /// The digest of the config that was exported: of several outputs that of the first that made a manifest counts, because
    /// each may have rewritten times in its own way.
    fn image_id(&self, exported: &[(Digest, ExportReport)]) -> Digest {
        let with_manifest = exported
            .iter()
            .find(|(_, report)| report.manifest.is_some());
        let counts = with_manifest.or(exported.first());
        counts.map_or_else(|| self.image.digest.clone(), |(id, _)| id.clone())
    }

    /// Each output's digest of the config, and what came of it.
    fn export_all(&self, specs: &[OutputSpec]) -> Result<Vec<(Digest, ExportReport)>, Failure> {
        let mut exported = Vec::new();
        for (number, spec) in specs.iter().enumerate() {
            if self.engine.interrupt.is_set() {
                return Err(failure::interrupted());
            }
            let image = self.image_for(spec)?;
            let tree = Flat {
                steps: Arc::clone(self.steps),
                layers: image.layers.clone(),
            };
            let source = Source {
                image: &image,
                layers: &**self.blobs,
                tree: &tree,
                output: number,
            };
            let report = self.export_one(spec, &source).map_err(|failure| {
                match self.engine.interrupt.is_set() {
                    true => failure::interrupted(),
                    false => failure,
                }
            })?;
            exported.push((image.digest.clone(), report));
        }
        Ok(exported)
    }

    /// The image as an output wants it: with another epoch, or with file times clamped.
    fn image_for(&self, spec: &OutputSpec) -> Result<Image, Failure> {
        let Some(form) = spec.form() else {
            return Ok(self.image.clone());
        };
        let clamps_at = clamps_at(form, self.request);
        if form.epoch.is_none() && clamps_at.is_none() {
            return Ok(self.image.clone());
        }
        let epoch = form.epoch.or_else(|| super::epoch_of(self.request));
        let mut layers = super::build::image_layers(self.steps, self.lowered);
        if let Some(epoch) = clamps_at {
            layers = clamp_times(&layers, &**self.blobs, epoch)
                .map_err(|error| export_failure(&ExportError::Layer(error)))?;
        }
        crate::image::config::assemble(&self.lowered.image, &layers, epoch)
            .map_err(|error| Failure::new(FailureKind::Internal, crate::text::chain(&error)))
    }

    fn export_one(&self, spec: &OutputSpec, source: &Source<'_>) -> Result<ExportReport, Failure> {
        let events = &*self.engine.events;
        let result = match spec {
            OutputSpec::Image(spec) => return self.image_output(spec, source),
            OutputSpec::Oci(form, place) => OciLayout {
                names: names(form)?,
                form: self.form(form)?,
                destination: layout_destination(place),
            }
            .export(source, events),
            OutputSpec::Docker(form, place) => DockerArchive {
                names: names(form)?,
                form: self.form(form)?,
                destination: layout_destination(place),
            }
            .export(source, events),
            OutputSpec::Load(form) => DaemonLoad {
                names: names(form)?,
                form: self.form(form)?,
                address: daemon_address(&self.request.registries.environment)?,
            }
            .export(source, events),
            OutputSpec::Tar(place) => PlainTar {
                destination: destination(place),
            }
            .export(source, events),
            OutputSpec::Local(directory) => LocalDir {
                directory: directory.clone(),
            }
            .export(source, events),
            OutputSpec::CacheOnly => Ok(ExportReport::default()),
        };
        result.map_err(|error| export_failure(&error))
    }

    fn image_output(&self, spec: &ImageSpec, source: &Source<'_>) -> Result<ExportReport, Failure> {
        let names = names(&spec.form)?;
        let store = LocalStore {
            layers: Arc::clone(self.steps.layers()),
            blobs: DirStore::new(self.steps.paths()),
            tags: Images::new(self.steps.paths()),
            now_ms: self.steps.now_ms(),
        };
        let export = ImageExport {
            names,
            store: spec.is_stored.then_some(&store as &dyn ImageStore),
            pusher: self.pushers.get(&source.output).map(|pusher| &**pusher),
            beginning: self.early.beginning(source.output),
        };
        export
            .export(source, &*self.engine.events)
            .map_err(|error| export_failure(&error))
    }

    fn form(&self, form: &ImageForm) -> Result<Form, Failure> {
        resolved_form(form, self.lowered)
    }
}

/// The epoch in seconds to which an output clamps the times of files, if it does.
pub(super) fn clamps_at(form: &ImageForm, request: &BuildRequest) -> Option<i64> {
    match form.file_times {
        FileTimes::Keep => None,
        FileTimes::ClampToEpoch => form.epoch.or_else(|| super::epoch_of(request)),
    }
}

/// Refuses, before any work is done, names that are none and a Docker daemon that is not there.
pub(super) fn check(specs: &[OutputSpec], environment: &Environment) -> Result<(), Failure> {
    for form in specs.iter().filter_map(OutputSpec::form) {
        names(form)?;
    }
    match specs.iter().any(|spec| matches!(spec, OutputSpec::Load(_))) {
        true => daemon_address(environment)?
            .check()
            .map_err(|error| export_failure(&ExportError::Daemon(error))),
        false => Ok(()),
    }
}

fn daemon_address(environment: &Environment) -> Result<DaemonAddress, Failure> {
    let host = environment.non_empty("DOCKER_HOST");
    let is_tls = environment.non_empty("DOCKER_TLS_VERIFY").is_some();
    DaemonAddress::from_environment(host.as_deref(), is_tls)
        .map_err(|error| export_failure(&ExportError::Daemon(error)))
}

/// The form of an output of this build.
pub(super) fn resolved_form(form: &ImageForm, lowered: &Lowered) -> Result<Form, Failure> {
    Form::resolve(form, &lowered.image.platform)
        .map_err(|error| Failure::new(FailureKind::Usage, crate::text::chain(&error)))
}

pub(super) fn export_failure(error: &ExportError) -> Failure {
    Failure::new(FailureKind::Environment, crate::text::chain(error))
}

/// The names of an output.
pub(super) fn names(form: &ImageForm) -> Result<Vec<Reference>, Failure> {
    let parse = |name: &String| {
        Reference::parse(name).map_err(|error| {
            let message = format!("invalid tag {name:?}: {error}");
            Failure::new(FailureKind::Usage, message)
        })
    };
    form.names.iter().map(parse).collect()
}

fn destination(place: &Place) -> Destination {
    match place {
        Place::File(path) => Destination::File(path.clone()),
        Place::Stdout => Destination::stream(std::io::stdout()),
    }
}

fn layout_destination(place: &LayoutPlace) -> LayoutDestination {
    match place {
        LayoutPlace::Tar(place) => LayoutDestination::Tar(destination(place)),
        LayoutPlace::Directory(path) => LayoutDestination::Directory(path.clone()),
    }
}

/// The store's blobs and tags.
struct LocalStore {
    layers: Arc<Layers>,
    blobs: DirStore,
    tags: Images,
    now_ms: u64,
}

impl ImageStore for LocalStore {
    fn put_image(&self, image: &Image) -> Result<(), crate::export::Failure> {
        use std::io::Write as _;
        self.layers.keep(&image.layers)?;
        // Pinned, whether it is there or not, until it has its names.
        if self.layers.has_blob(&image.digest)? {
            return Ok(());
        }
        let mut writer = self.blobs.writer()?;
        writer.write_all(&image.config)?;
        writer.commit(Some(&image.digest))?;
        Ok(())
    }

    fn tag(&self, name: &Reference, image: &Image) -> Result<(), crate::export::Failure> {
        let name = name.to_string();
        if self
            .tags
            .resolve(&name)?
            .is_some_and(|tag| tag.config == image.digest)
        {
            return Ok(());
        }
        let tag = Tag {
            name,
            config: image.digest.clone(),
            manifest: None::<Descriptor>,
            tagged_ms: self.now_ms,
        };
        Ok(self.tags.tag(&tag)?)
    }
}

#[cfg(test)]
mod tests {
    use cache::durable::BootId;
    use cache::lease::{Lease, pinned};
    use cache::room::{Cap, Room};
    use cache::root::StatePaths;
    use cache::snapshot::format::TreeFormat;

    use super::*;
    use crate::cancel::CancelFlag;
    use crate::op::layers::LayerParts;
    use crate::op::stored::testing::put_config;
    use crate::registry::client::Client;
    use crate::registry::config::RegistryConfig;

    #[test]
    fn an_image_that_was_there_before_stays_until_it_has_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let digest = put_config(&paths, &[]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let layers = Layers::open(LayerParts {
            paths: &paths,
            client: Client::new(RegistryConfig::from_env(&|_| None)),
            handle: runtime.handle().clone(),
            lease: Arc::new(Lease::acquire(&paths).unwrap()),
            images: &BTreeMap::new(),
            format: TreeFormat::Native,
            stop: CancelFlag::default(),
            boot: BootId::default(),
            room: Room::new(&paths, Cap::Usual, 0),
        });
        let store = LocalStore {
            layers: Arc::new(layers.unwrap()),
            blobs: DirStore::new(&paths),
            tags: Images::new(&paths),
            now_ms: 0,
        };
        let image = Image {
            config: Vec::new(),
            digest: digest.clone(),
            layers: Vec::new(),
            created: None,
        };
        store.put_image(&image).unwrap();
        assert_eq!(pinned(&paths, None).unwrap().blobs, [digest].into());
    }
}
