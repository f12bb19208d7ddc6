//! Fakes of what exporters work with, stricter than the real ones: readers give little at a time, a registry refuses
//! whatever a real one might not, and everything that was asked is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cache::digest::{Descriptor, DiffId, Digest};
use frontend::reference::Reference;

use super::prepare::Form;
use super::registry::{Content, PushTarget};
use super::{
    BlobOrigin, Encoding, ExportError, ExportReport, Exporter, Failure, FlatEntries, FlatEntry,
    FlatKind, FlatTree, LayerError, LayerSource, Source,
};
use crate::image::Image;
use crate::image::manifest::{Annotations, MediaTypes};
use crate::image::time::Timestamp;
use crate::progress::event::Event;
use crate::progress::sink::EventSink;
use crate::registry::push::Freshness;

/// Keeps events as short lines.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<(Vec<String>, BTreeSet<String>)>);

impl Recorder {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }

    pub(crate) fn vertices(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().1.clone()
    }
}

impl EventSink for Recorder {
    fn emit(&self, event: Event) {
        let mut kept = self.0.lock().unwrap();
        let line = match event {
            Event::VertexAdded { vertex, name, .. } => {
                kept.1.insert(vertex.0.to_string());
                name
            }
            Event::Started { .. } => "start".into(),
            Event::Status {
                id,
                current,
                total,
                is_completed,
                ..
            } => {
                let done = if is_completed { " done" } else { "" };
                format!("{id} {current}/{total}{done}")
            }
            Event::Completed { .. } => "complete".into(),
            Event::Failed { message, .. } => format!("fail {message}"),
            other => format!("{other:?}"),
        };
        kept.0.push(line);
    }
}

/// Runs an export: what came of it, and what it told.
pub(crate) fn export(
    exporter: &dyn Exporter,
    image: &Image,
    layers: &dyn LayerSource,
    tree: &dyn FlatTree,
) -> (Result<ExportReport, ExportError>, Vec<String>) {
    let recorder = Recorder::default();
    let source = Source {
        image,
        layers,
        tree,
        output: 0,
    };
    (exporter.export(&source, &recorder), recorder.lines())
}

/// Gives a few bytes at a time.
struct Dribble(std::io::Cursor<Vec<u8>>);

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(7);
        self.0.read(&mut buffer[..length])
    }
}

/// Layers in memory. Their "compressed" blobs are the tar itself.
#[derive(Debug, Default)]
pub(crate) struct FakeLayers {
    pub(crate) tars: BTreeMap<DiffId, Vec<u8>>,
    pub(crate) origins: Vec<BlobOrigin>,
    /// Layers whose blobs are made already.
    pub(crate) made: Mutex<BTreeSet<DiffId>>,
    pub(crate) ensured: Mutex<Vec<DiffId>>,
    /// This many bytes are missing from the end of what is opened.
    pub(crate) torn_by: usize,
}

impl FakeLayers {
    pub(crate) fn add(&mut self, tar: Vec<u8>) -> DiffId {
        let layer = DiffId(Digest::of(&tar));
        self.tars.insert(layer.clone(), tar);
        layer
    }

    fn describe(&self, layer: &DiffId, encoding: Encoding) -> Descriptor {
        Descriptor {
            media_type: encoding.codec.media_type().to_owned(),
            digest: layer.0.clone(),
            size: self.tars[layer].len() as u64,
        }
    }
}

impl LayerSource for FakeLayers {
    fn ensure(&self, layer: &DiffId, encoding: Encoding) -> Result<Descriptor, LayerError> {
        if !self.tars.contains_key(layer) {
            return Err(LayerError {
                attempt: "compress",
                layer: layer.clone(),
                source: "it was never made".into(),
            });
        }
        self.ensured.lock().unwrap().push(layer.clone());
        self.made.lock().unwrap().insert(layer.clone());
        Ok(self.describe(layer, encoding))
    }

    fn known(&self, layer: &DiffId, encoding: Encoding) -> Option<Descriptor> {
        let is_made = self.made.lock().unwrap().contains(layer);
        is_made.then(|| self.describe(layer, encoding))
    }

    fn open(
        &self,
        layer: &DiffId,
        _encoding: Encoding,
    ) -> Result<Box<dyn Read + Send>, LayerError> {
        assert!(
            self.made.lock().unwrap().contains(layer),
            "opened before it was made"
        );
        let mut tar = self.tars[layer].clone();
        tar.truncate(tar.len() - self.torn_by);
        Ok(Box::new(Dribble(std::io::Cursor::new(tar))))
    }

    fn origins(&self, layer: &DiffId) -> Vec<BlobOrigin> {
        let is_its = |origin: &&BlobOrigin| origin.digest == layer.0;
        self.origins.iter().filter(is_its).cloned().collect()
    }

    fn clamp_times(&self, layer: &DiffId, _epoch: i64) -> Result<DiffId, LayerError> {
        Ok(DiffId(Digest::of(layer.0.as_str().as_bytes())))
    }
}

/// A tree in memory.
#[derive(Debug, Default)]
pub(crate) struct FakeTree {
    pub(crate) entries: Vec<FlatEntry>,
    pub(crate) files: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl FakeTree {
    pub(crate) fn add(&mut self, path: &str, kind: FlatKind) -> &mut FlatEntry {
        self.entries.push(FlatEntry {
            path: path.into(),
            mode: if kind == FlatKind::Directory {
                0o755
            } else {
                0o644
            },
            kind,
            uid: 1,
            gid: 2,
            mtime: 1_000_000_000,
            capability: None,
        });
        self.entries.last_mut().unwrap()
    }

    pub(crate) fn add_file(&mut self, path: &str, bytes: &[u8]) -> &mut FlatEntry {
        self.files.insert(path.into(), bytes.to_vec());
        let size = bytes.len() as u64;
        self.add(path, FlatKind::File { size })
    }
}

impl FlatTree for FakeTree {
    fn entries(&self) -> Result<FlatEntries<'_>, Failure> {
        Ok(Box::new(self.entries.iter().cloned().map(Ok)))
    }

    fn open(&self, path: &[u8]) -> Result<Box<dyn Read + Send>, Failure> {
        let bytes = self.files.get(path).ok_or("no such file")?;
        Ok(Box::new(Dribble(std::io::Cursor::new(bytes.clone()))))
    }
}

/// What a fake registry has and was asked.
#[derive(Debug, Default)]
pub(crate) struct RegistryState {
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// Blobs of other repositories.
    pub(crate) elsewhere: BTreeMap<String, Digest>,
    pub(crate) asked: Vec<String>,
    pub(crate) fail_uploads: bool,
}

/// One repository of a registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeRegistry(pub(crate) Arc<Mutex<RegistryState>>);

impl PushTarget for FakeRegistry {
    fn push_blob(
        &self,
        blob: &Descriptor,
        freshness: Freshness,
        from: Option<&str>,
        content: Content<'_>,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Failure> {
        let hex = &blob.digest.hex()[..4];
        {
            let mut state = self.0.lock().unwrap();
            if freshness == Freshness::MayExist {
                state.asked.push(format!("head {hex}"));
                if state.blobs.contains_key(&blob.digest) {
                    return Ok(());
                }
            }
            if let Some(from) = from {
                state.asked.push(format!("mount {hex} from {from}"));
                if state.elsewhere.get(from) == Some(&blob.digest) {
                    state.blobs.insert(blob.digest.clone(), Vec::new());
                    return Ok(());
                }
            }
        }
        // A retry reads it again from the start.
        let mut half = vec![0; usize::try_from(blob.size / 2)?];
        content()?.read_exact(&mut half)?;
        let mut bytes = Vec::new();
        content()?.read_to_end(&mut bytes)?;
        sent(bytes.len() as u64);
        assert_eq!(Digest::of(&bytes), blob.digest);
        assert_eq!(bytes.len() as u64, blob.size);
        let mut state = self.0.lock().unwrap();
        state.asked.push(format!("upload {hex}"));
        if state.fail_uploads {
            return Err("connection reset".into());
        }
        assert!(
            state.blobs.insert(blob.digest.clone(), bytes).is_none(),
            "sent twice"
        );
        Ok(())
    }

    fn manifest_digest(&self, reference: &str) -> Result<Option<Digest>, Failure> {
        let mut state = self.0.lock().unwrap();
        state.asked.push(format!("manifest {}", short(reference)));
        Ok(state
            .manifests
            .get(reference)
            .map(|(_, bytes)| Digest::of(bytes)))
    }

    fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        manifest: &[u8],
        _freshness: Freshness,
    ) -> Result<(), Failure> {
        let mut state = self.0.lock().unwrap();
        let document: serde_json::Value = serde_json::from_slice(manifest)?;
        assert_eq!(document["mediaType"], media_type);
        let layers = document["layers"].as_array().unwrap();
        for blob in layers.iter().chain([&document["config"]]) {
            let digest: Digest = blob["digest"].as_str().unwrap().parse()?;
            assert!(
                state.blobs.contains_key(&digest),
                "manifest before its blobs"
            );
        }
        state.asked.push(format!("put {}", short(reference)));
        let value = (media_type.to_owned(), manifest.to_vec());
        state.manifests.insert(reference.to_owned(), value);
        Ok(())
    }
}

fn short(reference: &str) -> &str {
    if reference.starts_with("sha256:") {
        "digest"
    } else {
        reference
    }
}

/// An image of some layers.
pub(crate) fn image(layers: &[DiffId]) -> Image {
    let diff_ids: Vec<_> = layers.iter().map(ToString::to_string).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/hello"]}, "created": "2020-01-01T00:00:00Z",
        "history": layers.iter().map(|_| serde_json::json!({"created_by": "x"})).collect::<Vec<_>>(),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    Image {
        digest: Digest::of(&config),
        config,
        layers: layers.to_vec(),
        created: Timestamp::parse("2020-01-01T00:00:00.5Z"),
    }
}

/// A form without annotations.
pub(crate) fn form(media_types: MediaTypes) -> Form {
    Form {
        encoding: Encoding {
            codec: super::Codec::Uncompressed,
            ..Encoding::DEFAULT
        },
        media_types,
        annotations: Annotations::new(),
        descriptor_annotations: Annotations::new(),
    }
}

/// `localhost:5000/repository:tag`, or Docker Hub's `library/repository` without a registry.
pub(crate) fn name(registry: &str, repository: &str, tag: &str) -> Reference {
    Reference {
        registry: registry.into(),
        repository: repository.into(),
        tag: Some(tag.into()),
        digest: None,
    }
}

/// A layer's tar with one file.
pub(crate) fn layer_tar(path: &str, bytes: &[u8]) -> Vec<u8> {
    use super::header::{self, Member, MemberKind};
    let size = bytes.len() as u64;
    let mut tar = header::blocks(&Member {
        path: path.as_bytes(),
        kind: MemberKind::File { size },
        mode: 0o755,
        ..Member::NOTHING
    });
    tar.extend_from_slice(bytes);
    tar.extend_from_slice(header::padding(size));
    tar.extend_from_slice(&header::END);
    tar
}

/// Runs a program of the machine and gives its standard output; it must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a program is installed where tests may use it.
pub(crate) fn is_installed(program: &str) -> bool {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).exists())
}
