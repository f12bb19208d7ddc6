//! Assembling the result: config, history and manifest of an image.
//!
//! Pure: draft config and solved layers in, bytes out. Writing them anywhere is `export`'s work. The bytes are those that
//! BuildKit writes for the same image, so the JSON is Go's (`json`) and so are the times (`time`).

pub mod config;
pub mod history;
pub mod json;
pub mod manifest;
pub mod time;

use cache::digest::{Descriptor, DiffId, Digest};

/// Media type of an OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Media type of a Docker manifest (schema 2).
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A finished image: everything of it that does not depend on where it goes. Its identity is the config's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The config document.
    pub config: Vec<u8>,
    /// Digest of the config document.
    pub digest: Digest,
    /// All layers, bottom first, the base image's included.
    pub layers: Vec<DiffId>,
    /// The config's `created`, if it has one.
    pub created: Option<time::Timestamp>,
}

impl Image {
    /// Descriptor of the config under a media type.
    pub fn config_descriptor(&self, media_type: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: self.digest.clone(),
            size: self.config.len() as u64,
        }
    }
}
