//! Images to serve, and a registry's usual answers.

use cache::digest::{Descriptor, Digest};
use serde_json::{Value, json};

use super::faulty::{Answer, Seen};
use crate::registry::document::{OCI_INDEX, OCI_MANIFEST};
use crate::registry::resolve::LayerDescriptor;

/// An image, or an index of images.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// The document that tags point to.
    pub(crate) root: Vec<u8>,
    media_type: String,
    manifests: Vec<(Vec<u8>, String)>,
    blobs: Vec<Vec<u8>>,
}

impl Sample {
    /// An image of `linux/ARCHITECTURE`. Its layers are no tars: nobody here looks into them.
    pub(crate) fn image(architecture: &str, layers: &[&[u8]]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| diff_id(layer)).collect();
        let config = json!({
            "os": "linux", "architecture": architecture,
            "rootfs": { "type": "layers", "diff_ids": diff_ids }
        });
        let config = config.to_string().into_bytes();
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| descriptor(tar, layer)).collect::<Vec<_>>(),
        });
        let mut blobs = vec![config];
        blobs.extend(layers.iter().map(|layer| layer.to_vec()));
        Self::document(
            manifest.to_string().into_bytes(),
            OCI_MANIFEST,
            Vec::new(),
            blobs,
        )
    }

    /// An index of images, each with its `platform` member, if any.
    pub(crate) fn index(images: &[(Option<Value>, &Self)]) -> Self {
        let entries = images.iter().map(|(platform, image)| {
            let mut entry = descriptor(&image.media_type, &image.root);
            if let Some(platform) = platform {
                entry["platform"] = platform.clone();
            }
            entry
        });
        let entries: Vec<Value> = entries.collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        let manifests = images.iter().flat_map(|(_, image)| image.manifests.clone());
        let blobs = images.iter().flat_map(|(_, image)| image.blobs.clone());
        let (manifests, blobs) = (manifests.collect(), blobs.collect());
        Self::document(index.to_string().into_bytes(), OCI_INDEX, manifests, blobs)
    }

    /// Any document.
    pub(crate) fn document(
        root: Vec<u8>,
        media_type: &str,
        mut manifests: Vec<(Vec<u8>, String)>,
        blobs: Vec<Vec<u8>>,
    ) -> Self {
        manifests.push((root.clone(), media_type.to_owned()));
        Self {
            root,
            media_type: media_type.to_owned(),
            manifests,
            blobs,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.root)
    }

    /// All documents and blobs.
    pub(crate) fn all(&self) -> Vec<Vec<u8>> {
        let manifests = self.manifests.iter().map(|(bytes, _)| bytes.clone());
        manifests.chain(self.blobs.clone()).collect()
    }

    /// What a registry says that has this image as `NAME:latest`, whatever the name.
    pub(crate) fn answer(&self, seen: &Seen) -> Answer {
        let path = seen.target.split('?').next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        if path.contains("/manifests/") {
            let by_digest = |(bytes, _): &&(Vec<u8>, String)| Digest::of(bytes).as_str() == name;
            let found = match name {
                "latest" => self.manifests.last(),
                digest => self
                    .manifests
                    .iter()
                    .find(|entry| by_digest(entry) && !digest.is_empty()),
            };
            if let Some((bytes, media_type)) = found {
                return Answer::new(200)
                    .header("Content-Type", media_type)
                    .header("Docker-Content-Digest", Digest::of(bytes))
                    .body(bytes);
            }
        }
        let blob = self
            .blobs
            .iter()
            .find(|bytes| Digest::of(bytes).as_str() == name);
        match blob {
            Some(bytes) if path.contains("/blobs/") => ranged(seen, bytes),
            Some(_) | None => Answer::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        }
    }
}

/// A blob, or the part of it that was asked for.
pub(crate) fn ranged(seen: &Seen, bytes: &[u8]) -> Answer {
    let range = seen
        .header("range")
        .and_then(|text| text.strip_prefix("bytes="));
    match range.and_then(|text| text.strip_suffix('-')) {
        Some(start) => {
            let start: usize = start.parse().unwrap();
            let total = bytes.len();
            Answer::new(206)
                .header(
                    "Content-Range",
                    format!("bytes {start}-{}/{total}", total - 1),
                )
                .body(&bytes[start..])
        }
        None => Answer::new(200).body(bytes),
    }
}

/// A layer that lies in no manifest.
pub(crate) fn layer(bytes: &[u8]) -> LayerDescriptor {
    LayerDescriptor {
        descriptor: Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        },
        diff_id: cache::digest::DiffId(Digest::of(bytes)),
        urls: Vec::new(),
    }
}

/// Bytes that no two places have in common.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn diff_id(layer: &[u8]) -> String {
    Digest::of(&[layer, b"diff"].concat()).to_string()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
}
