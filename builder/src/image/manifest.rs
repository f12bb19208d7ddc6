//! The manifest of an image for one platform (features.md 5.3): two-space indent, keys in the order of Go's structs.

use std::collections::BTreeMap;

use cache::digest::{Descriptor, Digest};
use serde::Serialize;

use super::{DOCKER_CONFIG, DOCKER_MANIFEST, Image, OCI_CONFIG, OCI_MANIFEST, json};

/// Annotations by name.
pub type Annotations = BTreeMap<String, String>;

/// Which family of media types a manifest speaks (`oci-mediatypes=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    /// `application/vnd.oci.image.…`
    Oci,
    /// `application/vnd.docker.…`, which knows neither zstd nor annotations of layers.
    Docker,
}

impl MediaTypes {
    /// The config's.
    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    /// The manifest's.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    /// A layer's type in this family; types of neither family, and those that the family lacks, stay as they are.
    pub fn layer(self, media_type: &str) -> &str {
        const PAIRS: &[(&str, &str)] = &[
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ),
            (
                "application/vnd.oci.image.layer.v1.tar",
                "application/vnd.docker.image.rootfs.diff.tar",
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+zstd",
                "application/vnd.docker.image.rootfs.diff.tar.zstd",
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            ),
        ];
        PAIRS
            .iter()
            .find(|(oci, docker)| [*oci, *docker].contains(&media_type))
            .map_or(media_type, |(oci, docker)| match self {
                Self::Oci => oci,
                Self::Docker => docker,
            })
    }
}

/// A finished manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The document.
    pub bytes: Vec<u8>,
    /// Its own descriptor.
    pub descriptor: Descriptor,
    /// The config's.
    pub config: Descriptor,
    /// The layers', bottom first.
    pub layers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    schema_version: u8,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a Annotations,
}

/// A manifest could not be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the manifest")]
pub struct ManifestError(#[from] serde_json::Error);

/// Assembles the manifest of an image from the descriptors of its layers' blobs, bottom first.
///
/// # Errors
///
/// None that we know; JSON's own are passed on.
pub fn assemble(
    image: &Image,
    layers: &[Descriptor],
    types: MediaTypes,
    annotations: &Annotations,
) -> Result<Manifest, ManifestError> {
    let config = image.config_descriptor(types.config());
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| Descriptor {
            media_type: types.layer(&layer.media_type).to_owned(),
            ..layer.clone()
        })
        .collect();
    let bytes = json::indented(&Document {
        schema_version: 2,
        media_type: types.manifest(),
        config: &config,
        layers: &layers,
        annotations,
    })?;
    let descriptor = Descriptor {
        media_type: types.manifest().to_owned(),
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
    };
    Ok(Manifest {
        bytes,
        descriptor,
        config,
        layers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image {
            config: b"{}".to_vec(),
            digest: Digest::of(b"{}"),
            layers: Vec::new(),
            created: None,
        }
    }

    fn layer(media_type: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(b"layer"),
            size: 5,
        }
    }

    #[test]
    fn an_oci_manifest_has_the_bytes_that_go_writes() {
        let annotations = [("org.x".to_owned(), "a<b".to_owned())].into();
        let layers = [layer("application/vnd.docker.image.rootfs.diff.tar.gzip")];
        let manifest = assemble(&image(), &layers, MediaTypes::Oci, &annotations).unwrap();
        let expected = r#"{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "size": 2
  },
  "layers": [
    {
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "sha256:b08eb3b2c4f9066b80a7a99057b3de5e1aea8a64d812a3d2d3ada22e31d40e1c",
      "size": 5
    }
  ],
  "annotations": {
    "org.x": "a\u003cb"
  }
}"#;
        let text = String::from_utf8(manifest.bytes.clone()).unwrap();
        let expected = expected.replace(
            "sha256:b08eb3b2c4f9066b80a7a99057b3de5e1aea8a64d812a3d2d3ada22e31d40e1c",
            Digest::of(b"layer").as_str(),
        );
        assert_eq!(text, expected);
        assert_eq!(manifest.descriptor.digest, Digest::of(text.as_bytes()));
        assert_eq!(manifest.descriptor.size, text.len() as u64);
    }

    #[test]
    fn a_docker_manifest_has_dockers_types() {
        let layers = [
            layer("application/vnd.oci.image.layer.v1.tar+gzip"),
            layer("x/y"),
        ];
        let annotations = Annotations::new();
        let manifest = assemble(&image(), &layers, MediaTypes::Docker, &annotations).unwrap();
        let types: Vec<_> = manifest
            .layers
            .iter()
            .map(|l| l.media_type.as_str())
            .collect();
        let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        assert_eq!(types, [gzip, "x/y"]);
        assert_eq!(manifest.config.media_type, DOCKER_CONFIG);
        assert_eq!(manifest.descriptor.media_type, DOCKER_MANIFEST);
        assert!(
            !String::from_utf8(manifest.bytes)
                .unwrap()
                .contains("annotations")
        );
    }
}
