//! The OCI image layout as a tar or a directory (`--output type=oci`), and the index that both layouts share.

use std::path::PathBuf;

use cache::digest::Descriptor;
use frontend::reference::Reference;
use serde::Serialize;
use serde_json::{Value, json};

use super::activity::Activity;
use super::archive::Layout;
use super::destination::Destination;
use super::prepare::{self, Form};
use super::{ExportError, ExportReport, Exporter, Source};
use crate::image::manifest::Annotations;
use crate::image::{Image, OCI_INDEX, json as go_json};
use crate::progress::sink::EventSink;

const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";

/// Where a layout goes.
#[derive(Debug)]
pub enum LayoutDestination {
    /// A tar.
    Tar(Destination),
    /// A directory (`tar=false`).
    Directory(PathBuf),
}

/// Exports an OCI layout.
#[derive(Debug)]
pub struct OciLayout {
    /// Names for the index; none is fine.
    pub names: Vec<Reference>,
    /// Of documents and blobs.
    pub form: Form,
    /// Where to.
    pub destination: LayoutDestination,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'a str,
    manifests: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    descriptor: &'a Descriptor,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: Annotations,
}

/// `index.json`: the manifest once for each name, or once without. Its `created` annotation is the image's time, so that
/// equal images give equal bytes.
///
/// # Errors
///
/// JSON's, of which we know none.
pub(super) fn index(
    image: &Image,
    manifest: &Descriptor,
    names: &[Reference],
    form: &Form,
) -> Result<Vec<u8>, ExportError> {
    let mut shared = form.descriptor_annotations.clone();
    if let Some(created) = &image.created {
        shared
            .entry(CREATED.to_owned())
            .or_insert_with(|| created.to_seconds_text());
    }
    let entry = |own: Vec<(&str, String)>| {
        let mut annotations = shared.clone();
        annotations.extend(
            own.into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        Entry {
            descriptor: manifest,
            annotations,
        }
    };
    let mut manifests: Vec<_> = names
        .iter()
        .map(|name| {
            let tag = name.tag.clone().unwrap_or_default();
            entry(vec![(IMAGE_NAME, name.to_string()), (REF_NAME, tag)])
        })
        .collect();
    if manifests.is_empty() {
        manifests.push(entry(Vec::new()));
    }
    let index = Index {
        schema_version: 2,
        media_type: OCI_INDEX,
        manifests,
    };
    go_json::compact(&index).map_err(|source| ExportError::Json {
        document: "index.json",
        source,
    })
}

/// Adds the entries of `ours` to `old`, whose entries of the same name (or, unnamed, of the same manifest) they replace. An
/// `old` that is no index is replaced.
fn merge(old: &[u8], ours: &[u8]) -> Vec<u8> {
    let parse = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    let (Some(mut old), Some(ours_parsed)) = (parse(old), parse(ours)) else {
        return ours.to_vec();
    };
    let identity = |entry: &Value| {
        let annotations = &entry["annotations"];
        match (&annotations[IMAGE_NAME], &annotations[REF_NAME]) {
            (Value::String(name), _) | (_, Value::String(name)) => json!(name),
            (_, _) => json!({"digest": entry["digest"]}),
        }
    };
    let new = ours_parsed["manifests"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let replaced: Vec<_> = new.iter().map(identity).collect();
    let Some(entries) = old.get_mut("manifests").and_then(Value::as_array_mut) else {
        return ours.to_vec();
    };
    entries.retain(|entry| !replaced.contains(&identity(entry)));
    entries.extend(new);
    go_json::compact(&old).unwrap_or_else(|_| ours.to_vec())
}

impl LayoutDestination {
    pub(super) fn write(
        &self,
        layout: &Layout,
        source: &Source<'_>,
        activity: &Activity<'_>,
    ) -> Result<(), ExportError> {
        match self {
            Self::Tar(destination) => layout.write_tar(source.layers, destination, activity),
            Self::Directory(directory) => activity.part("copying files", || {
                layout.write_directory(source.layers, directory, merge)
            }),
        }
    }
}

impl Exporter for OciLayout {
    fn export(
        &self,
        source: &Source<'_>,
        events: &dyn EventSink,
    ) -> Result<ExportReport, ExportError> {
        let name = "exporting to oci image format";
        Activity::run(events, name, source.output, |activity| {
            let prepared = prepare::prepare(source.image, source.layers, &self.form, activity)?;
            let manifest = &prepared.manifest.descriptor;
            let index = index(source.image, manifest, &self.names, &self.form)?;
            let layout = Layout::new(source.image, &prepared, self.form.encoding, index);
            self.destination.write(&layout, source, activity)?;
            Ok(ExportReport::of(prepared, &self.form, &self.names))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::{
        self, FakeLayers, FakeTree, form, image, is_installed, layer_tar, name, run,
    };
    use super::*;
    use crate::image::manifest::MediaTypes;

    fn export(layers: &FakeLayers, image: &Image, exporter: &OciLayout) -> Vec<String> {
        let (report, lines) = testing::export(exporter, image, layers, &FakeTree::default());
        assert!(report.unwrap().manifest.is_some());
        lines
    }

    fn sample() -> (FakeLayers, Image) {
        let mut layers = FakeLayers::default();
        let first = layers.add(layer_tar("hello", b"hi"));
        let second = layers.add(layer_tar("b", &[b'b'; 1000]));
        let image = image(&[first.clone(), second, first]);
        (layers, image)
    }

    #[test]
    fn a_tar_is_sorted_and_the_same_every_time() {
        let (layers, image) = sample();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let exporter = OciLayout {
            names: vec![name("docker.io", "library/a", "1"), name("h:5", "b/c", "2")],
            form: form(MediaTypes::Oci),
            destination: LayoutDestination::Tar(Destination::File(path.clone())),
        };
        let lines = export(&layers, &image, &exporter);
        let bytes = std::fs::read(&path).unwrap();
        export(&layers, &image, &exporter);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(bytes.len() % 512, 0);

        let index: Value = serde_json::from_slice(&member(&bytes, "index.json")).unwrap();
        let manifest = index["manifests"][0]["digest"].as_str().unwrap();
        let mut expected: Vec<String> = ["blobs/ 755 0", "blobs/sha256/ 755 0"]
            .map(str::to_owned)
            .into();
        let mut blobs: Vec<String> = image.layers[1..].iter().map(|l| l.0.hex().into()).collect();
        blobs.extend([image.digest.hex().to_owned(), manifest[7..].to_owned()]);
        blobs.sort();
        for blob in blobs {
            let size = member(&bytes, &format!("blobs/sha256/{blob}")).len();
            expected.push(format!("blobs/sha256/{blob} 444 {size}"));
        }
        let size = member(&bytes, "index.json").len();
        expected.push(format!("index.json 644 {size}"));
        expected.push("oci-layout 444 30".to_owned());
        assert_eq!(members(&bytes), expected);

        let annotations = &index["manifests"][1]["annotations"];
        let expected = json!({
            "io.containerd.image.name": "h:5/b/c:2",
            "org.opencontainers.image.created": "2020-01-01T00:00:00Z",
            "org.opencontainers.image.ref.name": "2",
        });
        assert_eq!(*annotations, expected);
        let expected = [
            "exporting to oci image format".to_owned(),
            "start".to_owned(),
            "exporting layers 0/0".to_owned(),
            "exporting layers 0/0 done".to_owned(),
            format!("exporting manifest {manifest} 0/0 done"),
            format!("exporting config {} 0/0 done", image.digest),
            "sending tarball 0/0".to_owned(),
            "sending tarball 0/0 done".to_owned(),
            "complete".to_owned(),
        ];
        assert_eq!(lines, expected);
    }

    /// Name, mode and size of each member; owner and time must be zero.
    fn members(tar: &[u8]) -> Vec<String> {
        let mut archive = ::tar::Archive::new(tar);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let owner = (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap(),
                );
                assert_eq!(owner, (0, 0, 0));
                let path = entry.path().unwrap().display().to_string();
                format!("{path} {:o} {}", header.mode().unwrap(), entry.size())
            })
            .collect()
    }

    fn member(tar: &[u8], name: &str) -> Vec<u8> {
        let mut archive = ::tar::Archive::new(tar);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap().to_str() == Some(name) {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                return bytes;
            }
        }
        panic!("no {name}");
    }

    #[test]
    fn other_programs_read_the_tar() {
        let (layers, image) = sample();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let exporter = OciLayout {
            names: vec![name("docker.io", "library/a", "1")],
            form: form(MediaTypes::Oci),
            destination: LayoutDestination::Tar(Destination::File(path.clone())),
        };
        export(&layers, &image, &exporter);
        let path = path.to_str().unwrap();
        if is_installed("python3") {
            let script = "import sys, tarfile\nfor m in tarfile.open(sys.argv[1], 'r|'): print(m.name, m.isfile() and len(m.tobuf()))";
            let listing = run("python3", &["-c", script, path]);
            assert!(
                listing.ends_with("index.json 512\noci-layout 512\n"),
                "{listing}"
            );
        }
        if is_installed("skopeo") {
            let inspected = run("skopeo", &["inspect", &format!("oci-archive:{path}:1")]);
            let inspected: Value = serde_json::from_str(&inspected).unwrap();
            assert_eq!(inspected["Layers"].as_array().unwrap().len(), 3);
            assert_eq!(inspected["Architecture"], "amd64");
        }
    }

    #[test]
    fn a_directory_keeps_other_images_and_blobs() {
        let (layers, first) = sample();
        let second = image(&first.layers[..1]);
        let dir = tempfile::tempdir().unwrap();
        let exporter = |tag: &str| OciLayout {
            names: vec![name("docker.io", "library/a", tag)],
            form: form(MediaTypes::Oci),
            destination: LayoutDestination::Directory(dir.path().join("out")),
        };
        export(&layers, &first, &exporter("1"));
        export(&layers, &first, &exporter("2"));
        export(&layers, &second, &exporter("1"));
        let out = dir.path().join("out");
        let index: Value =
            serde_json::from_slice(&std::fs::read(out.join("index.json")).unwrap()).unwrap();
        let names: Vec<_> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["annotations"][REF_NAME].as_str().unwrap())
            .collect();
        assert_eq!(names, ["2", "1"]);
        assert_eq!(
            std::fs::read_dir(out.join("blobs/sha256")).unwrap().count(),
            6
        );
        let config = out.join("blobs/sha256").join(second.digest.hex());
        let mode = std::fs::metadata(&config).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(std::fs::read(config).unwrap(), second.config);
        if is_installed("skopeo") {
            let inspected = run("skopeo", &["inspect", &format!("oci:{}:1", out.display())]);
            let inspected: Value = serde_json::from_str(&inspected).unwrap();
            assert_eq!(inspected["Layers"].as_array().unwrap().len(), 1);
        }
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let (mut layers, image) = sample();
        layers.torn_by = 1;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, "old").unwrap();
        let exporter = OciLayout {
            names: Vec::new(),
            form: form(MediaTypes::Oci),
            destination: LayoutDestination::Tar(Destination::File(path.clone())),
        };
        let (report, lines) = testing::export(&exporter, &image, &layers, &FakeTree::default());
        let message = report.unwrap_err().to_string();
        assert!(
            message.ends_with("bytes, its descriptor says 2048") || message.ends_with("says 2560"),
            "{message}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(lines.last().unwrap(), &format!("fail {message}"));
    }

    #[test]
    fn an_index_that_is_none_is_replaced() {
        let ours = br#"{"manifests":[]}"#;
        for old in [&b"no json"[..], b"[]", br#"{"manifests":1}"#] {
            assert_eq!(merge(old, ours), ours);
        }
        let old = br#"{"x":1,"manifests":[{"digest":"a"},{"digest":"b"}]}"#;
        let merged = merge(old, br#"{"manifests":[{"digest":"a","size":1}]}"#);
        let expected = r#"{"x":1,"manifests":[{"digest":"b"},{"digest":"a","size":1}]}"#;
        assert_eq!(String::from_utf8(merged).unwrap(), expected);
    }
}
