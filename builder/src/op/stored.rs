//! Images of the store: their configs, read.
//!
//! Not here: which image a user means (`engine::store`), and images of registries and OCI layouts (`image`).

use std::io::Read as _;

use cache::blob::dir::DirStore;
use cache::blob::{BlobError, BlobStore as _};
use cache::digest::{DiffId, Digest};
use cache::root::StatePaths;
use frontend::platform::Platform;

/// An image of the store.
#[derive(Debug)]
pub(crate) struct StoredImage {
    /// Its id: the digest of its config.
    pub(crate) id: Digest,
    /// The bytes of its config.
    pub(crate) config: Vec<u8>,
    /// What it is for.
    pub(crate) platform: Platform,
    /// Its layers, bottom first.
    pub(crate) layers: Vec<DiffId>,
}

/// Why an image of the store cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredImageError {
    /// The store cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// There is no config.
    #[error("the config {0} is gone from the store")]
    Gone(Digest),
    /// What is there is none.
    #[error("{id} is not the config of an image")]
    NoConfig {
        /// The digest.
        id: Digest,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The members of a config that are looked at. Other documents have no `rootfs`.
#[derive(serde::Deserialize)]
struct Head {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    rootfs: Rootfs,
}

#[derive(serde::Deserialize)]
struct Rootfs {
    #[serde(default)]
    diff_ids: Vec<DiffId>,
}

/// Reads the image with this id.
///
/// # Errors
///
/// There is none, or it cannot be read.
pub(crate) fn read(paths: &StatePaths, id: &Digest) -> Result<StoredImage, StoredImageError> {
    let blob = DirStore::new(paths).open(id)?;
    let mut blob = blob.ok_or_else(|| StoredImageError::Gone(id.clone()))?;
    let mut config = Vec::new();
    blob.read_to_end(&mut config)
        .map_err(|source| BlobError::Io {
            attempt: "read",
            path: paths.blob(id),
            source,
        })?;
    let head: Head =
        serde_json::from_slice(&config).map_err(|source| StoredImageError::NoConfig {
            id: id.clone(),
            source,
        })?;
    Ok(StoredImage {
        id: id.clone(),
        config,
        platform: Platform::normalised(&head.os, &head.architecture, &head.variant, ""),
        layers: head.rootfs.diff_ids,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn put(paths: &StatePaths, text: &str) -> Digest {
        let mut writer = DirStore::new(paths).writer().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        writer.commit(None).unwrap().0
    }

    #[test]
    fn only_a_config_is_an_image() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let layer = DiffId(Digest::of(b"layer"));
        let text = format!(
            r#"{{"os":"linux","architecture":"arm64","rootfs":{{"diff_ids":["{layer}"]}}}}"#
        );
        let id = put(&paths, &text);
        let image = read(&paths, &id).unwrap();
        assert_eq!((image.id, image.config), (id, text.into_bytes()));
        assert_eq!(image.layers, [layer]);
        assert_eq!(image.platform.to_string(), "linux/arm64");
        for other in ["no document", r#"{"layers":[]}"#] {
            let error = read(&paths, &put(&paths, other)).unwrap_err();
            assert!(
                matches!(error, StoredImageError::NoConfig { .. }),
                "{error}"
            );
        }
        let error = read(&paths, &Digest::of(b"never written")).unwrap_err();
        assert!(matches!(error, StoredImageError::Gone(_)), "{error}");
    }
}
