//! Manifests, indexes and configs as far as pulling needs them; the bytes themselves are kept as they came.

use cache::digest::{Descriptor, DiffId, Digest};
use frontend::platform::Platform;
use serde::Deserialize;

use super::error::RegistryError;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a manifest request accepts: containerd's list.
pub(crate) const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Image(ImageManifest),
    Index(Vec<IndexEntry>),
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ImageManifest {
    pub(crate) config: Entry,
    #[serde(default, deserialize_with = "null_is_none")]
    pub(crate) layers: Vec<Entry>,
}

/// A descriptor with what may come along.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) descriptor: Descriptor,
    #[serde(default, deserialize_with = "null_is_none")]
    pub(crate) urls: Vec<String>,
}

/// One image of an index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct IndexEntry {
    #[serde(flatten)]
    pub(crate) descriptor: Descriptor,
    pub(crate) platform: Option<PlatformMember>,
    #[serde(default)]
    pub(crate) annotations: serde_json::Map<String, serde_json::Value>,
}

/// `platform` of an index entry; a config has the same members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PlatformMember {
    os: String,
    architecture: String,
    variant: String,
    #[serde(rename = "os.version")]
    os_version: String,
}

/// What pulling wants of a config.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(flatten)]
    pub(crate) platform: PlatformMember,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
}

/// `rootfs` of a config.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "null_is_none")]
    pub(crate) diff_ids: Vec<DiffId>,
}

/// Go writes `null` for a list without elements.
fn null_is_none<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The members that tell what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Option<Vec<IndexEntry>>,
    #[serde(default)]
    layers: serde_json::Value,
    #[serde(default)]
    config: serde_json::Value,
}

impl PlatformMember {
    pub(crate) fn platform(&self) -> Platform {
        Platform::normalised(
            &self.os,
            &self.architecture,
            &self.variant,
            &self.os_version,
        )
    }

    /// Whether it says anything: attestations are `unknown/unknown`, and a config may be empty.
    pub(crate) fn is_known(&self) -> bool {
        !self.os.is_empty() && self.os != "unknown"
    }
}

impl IndexEntry {
    /// Whether it describes another entry and is no image (BuildKit's attestation storage).
    pub(crate) fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
    }
}

impl Document {
    /// Reads a document; `name` is for errors. Gives its media type too: the one it states, else the one it has.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<(Self, String), RegistryError> {
        let not_understood = |source| RegistryError::Document {
            name: name.to_owned(),
            source,
        };
        let shape: Shape = serde_json::from_slice(bytes).map_err(not_understood)?;
        if shape.schema_version == 1 {
            return Err(RegistryError::Unsupported {
                what: format!(
                    "{name} is a Docker schema 1 manifest, an old form that registries no longer \
                     serve; push the image again with a current tool"
                ),
            });
        }
        let stated = |default: &str| match shape.media_type.is_empty() {
            true => default.to_owned(),
            false => shape.media_type.clone(),
        };
        match shape.manifests {
            Some(_) if !shape.layers.is_null() || !shape.config.is_null() => {
                // Whoever sees one half must not be shown another image than who sees the other (CVE-2021-41190).
                Err(RegistryError::Contradiction {
                    name: name.to_owned(),
                    problem: "is an index and an image manifest at once",
                })
            }
            Some(entries) => Ok((Self::Index(entries), stated(OCI_INDEX))),
            None if shape.config.is_null() => Err(RegistryError::Contradiction {
                name: name.to_owned(),
                problem: "is neither an index nor an image manifest",
            }),
            None => {
                let manifest = serde_json::from_slice(bytes).map_err(not_understood)?;
                Ok((Self::Image(manifest), stated(OCI_MANIFEST)))
            }
        }
    }
}

/// Verifies a small blob.
pub(crate) fn verified(descriptor: &Descriptor, bytes: Vec<u8>) -> Result<Vec<u8>, RegistryError> {
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if found != descriptor.size {
        return Err(RegistryError::Size {
            digest: descriptor.digest.clone(),
            expected: descriptor.size,
            found,
        });
    }
    let digest = Digest::of(&bytes);
    match digest == descriptor.digest {
        true => Ok(bytes),
        false => Err(RegistryError::storing(&descriptor.digest)(
            cache::blob::BlobError::Mismatch {
                expected: descriptor.digest.clone(),
                found: digest,
            },
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let digest = Digest::of(b"x");
        let entry = format!(r#"{{"mediaType":"m","digest":"{digest}","size":1}}"#);
        let image = format!(r#"{{"schemaVersion":2,"config":{entry},"layers":[{entry}]}}"#);
        let (document, media_type) = Document::parse("n", image.as_bytes()).unwrap();
        assert_eq!(media_type, OCI_MANIFEST);
        let Document::Image(manifest) = document else {
            panic!("no image: {document:?}");
        };
        assert_eq!(manifest.layers[0].descriptor.digest, digest);
        let index = format!(r#"{{"mediaType":"{DOCKER_LIST}","manifests":[{entry}]}}"#);
        let (document, media_type) = Document::parse("n", index.as_bytes()).unwrap();
        assert_eq!(media_type, DOCKER_LIST);
        assert!(matches!(document, Document::Index(entries) if entries.len() == 1));
    }

    #[test]
    fn refused() {
        let digest = Digest::of(b"x");
        let entry = format!(r#"{{"mediaType":"m","digest":"{digest}","size":1}}"#);
        let both = format!(r#"{{"manifests":[],"config":{entry},"layers":[]}}"#);
        let negative = r#"{"config":{"mediaType":"m","digest":"sha256:1","size":-1}}"#;
        let cases = [
            (r#"{"schemaVersion":1}"#, "n is a Docker schema 1 manifest"),
            (both.as_str(), "is an index and an image manifest at once"),
            ("{}", "is neither"),
            ("[]", "not understood"),
            ("", "not understood"),
            (negative, "not understood"),
        ];
        for (text, message) in cases {
            let error = Document::parse("n", text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
