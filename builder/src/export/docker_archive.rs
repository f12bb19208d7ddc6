//! The archive that `docker load` reads (`--output type=docker`): an OCI layout with Docker's `manifest.json` beside it.

use frontend::reference::Reference;
use serde::Serialize;

use super::activity::Activity;
use super::archive::{Layout, blob_path};
use super::oci_layout::{self, LayoutDestination};
use super::prepare::{self, Form, Prepared};
use super::{ExportError, ExportReport, Exporter, Source};
use crate::image::{Image, json};
use crate::progress::sink::EventSink;

/// Exports a Docker archive.
#[derive(Debug)]
pub struct DockerArchive {
    /// Tags it gets when it is loaded; none is fine.
    pub names: Vec<Reference>,
    /// Of documents and blobs.
    pub form: Form,
    /// Where to.
    pub destination: LayoutDestination,
}

/// An entry of `manifest.json`, in the order that Go writes it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The files of a Docker archive.
///
/// # Errors
///
/// JSON's, of which we know none.
pub(super) fn layout(
    image: &Image,
    prepared: &Prepared,
    names: &[Reference],
    form: &Form,
) -> Result<Layout, ExportError> {
    let layers = &prepared.manifest.layers;
    let tags: Vec<_> = names.iter().map(Reference::familiar).collect();
    let entry = Entry {
        config: blob_path(&image.digest),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: layers
            .iter()
            .map(|layer| blob_path(&layer.digest))
            .collect(),
    };
    let document = json::compact(&[entry]).map_err(|source| ExportError::Json {
        document: "manifest.json",
        source,
    })?;
    let index = oci_layout::index(image, &prepared.manifest.descriptor, names, form)?;
    Ok(Layout::new(image, prepared, form.encoding, index).with("manifest.json", document))
}

impl Exporter for DockerArchive {
    fn export(
        &self,
        source: &Source<'_>,
        events: &dyn EventSink,
    ) -> Result<ExportReport, ExportError> {
        let name = "exporting to docker image format";
        Activity::run(events, name, source.output, |activity| {
            let prepared = prepare::prepare(source.image, source.layers, &self.form, activity)?;
            let layout = layout(source.image, &prepared, &self.names, &self.form)?;
            self.destination.write(&layout, source, activity)?;
            Ok(ExportReport::of(prepared, &self.form, &self.names))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::destination::Destination;
    use super::super::testing::{
        self, FakeLayers, FakeTree, form, image, is_installed, layer_tar, name, run,
    };
    use super::*;
    use crate::image::manifest::MediaTypes;

    fn export(names: Vec<Reference>) -> (tempfile::TempDir, Image) {
        let mut layers = FakeLayers::default();
        let layer = layers.add(layer_tar("hello", b"hi"));
        let image = image(&[layer.clone(), layer]);
        let dir = tempfile::tempdir().unwrap();
        let exporter = DockerArchive {
            names,
            form: form(MediaTypes::Docker),
            destination: LayoutDestination::Tar(Destination::File(dir.path().join("a.tar"))),
        };
        let (report, _lines) = testing::export(&exporter, &image, &layers, &FakeTree::default());
        report.unwrap();
        (dir, image)
    }

    fn document(dir: &tempfile::TempDir) -> Value {
        let file = std::fs::File::open(dir.path().join("a.tar")).unwrap();
        let mut archive = ::tar::Archive::new(file);
        let is_it = |entry: &::tar::Entry<'_, _>| entry.path_bytes().as_ref() == b"manifest.json";
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        serde_json::from_reader(entries.find(is_it).unwrap()).unwrap()
    }

    #[test]
    fn manifest_json_names_config_tags_and_layers() {
        let (dir, image) = export(vec![
            name("docker.io", "library/a", "1"),
            name("h:5", "b", "2"),
        ]);
        let layer = format!("blobs/sha256/{}", image.layers[0].0.hex());
        let expected = json!([{
            "Config": format!("blobs/sha256/{}", image.digest.hex()),
            "RepoTags": ["a:1", "h:5/b:2"],
            "Layers": [layer.clone(), layer],
        }]);
        assert_eq!(document(&dir), expected);
        assert_eq!(document(&export(Vec::new()).0)[0]["RepoTags"], Value::Null);
    }

    #[test]
    fn skopeo_reads_the_archive() {
        if !is_installed("skopeo") {
            return;
        }
        let (dir, image) = export(vec![name("docker.io", "library/a", "1")]);
        let path = dir.path().join("a.tar");
        let reference = format!("docker-archive:{}:a:1", path.display());
        let config = run("skopeo", &["inspect", "--config", "--raw", &reference]);
        assert_eq!(config.as_bytes(), image.config);
    }
}
