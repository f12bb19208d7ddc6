//! Images of the store: read, and kept from being collected.
//!
//! A name may be given to another image at any time, and the one that had it be collected then. So an image is looked up
//! and pinned while no collection removes anything: what it lacks then, the store has lost.
//!
//! Not here: which image a user means (`engine::store`), and images of registries and OCI layouts (`image`).

use std::io::Read as _;

use cache::blob::dir::DirStore;
use cache::blob::{BlobError, BlobStore as _};
use cache::digest::{DiffId, Digest};
use cache::io::IoError;
use cache::lease::{Lease, pass_gate};
use cache::root::StatePaths;
use cache::snapshot::contents;
use cache::snapshot::error::SnapshotError;
use cache::tag::{Images, Sources};
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
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] IoError),
    /// The store cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The layers cannot be looked at.
    #[error(transparent)]
    Layer(#[from] SnapshotError),
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

impl StoredImage {
    /// Whether every layer is in the store, or a registry is known to have it.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(crate) fn has_layers(&self, paths: &StatePaths) -> Result<bool, StoredImageError> {
        let sources = Sources::new(paths);
        for layer in &self.layers {
            if contents::of(paths, layer)?.is_none() && sources.of(layer)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
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

/// The image that has a name, with its layers pinned, whether they are there or not: what is there stays until the lease
/// ends.
///
/// # Errors
///
/// There is one, but its config is gone or damaged; or the store cannot be used.
pub(crate) fn hold(
    paths: &StatePaths,
    lease: &Lease,
    name: &str,
) -> Result<Option<StoredImage>, StoredImageError> {
    let _gate = pass_gate(&paths.gate())?;
    let Some(tag) = Images::new(paths).resolve(name)? else {
        return Ok(None);
    };
    let image = read(paths, &tag.config)?;
    lease.pin_blob(&image.id)?;
    for layer in &image.layers {
        lease.pin(layer)?;
    }
    Ok(Some(image))
}

/// Reads the image with this id. Unless it has been pinned, a collection may remove it at the same time.
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

/// Images that tests put into a store, and collections that they stand in for.
#[cfg(test)]
pub(crate) mod testing {
    use std::io::Write as _;
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::time::Duration;

    use cache::tag::Tag;

    use super::*;

    /// Puts a blob into a store.
    pub(crate) fn put(paths: &StatePaths, text: &str) -> Digest {
        let mut writer = DirStore::new(paths).writer().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        writer.commit(None).unwrap().0
    }

    /// Puts the config of an image of these layers into a store.
    pub(crate) fn put_config(paths: &StatePaths, layers: &[DiffId]) -> Digest {
        let config = serde_json::json!({
            "os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": layers},
        });
        put(paths, &config.to_string())
    }

    /// Gives an image a name, in full.
    pub(crate) fn name(paths: &StatePaths, name: &str, image: &Digest) {
        let tag = Tag {
            name: name.to_owned(),
            config: image.clone(),
            manifest: None,
            tagged_ms: 0,
        };
        Images::new(paths).tag(&tag).unwrap();
    }

    /// What work comes to that begins while a collection is removing something. It must not end before that.
    pub(crate) fn beside_a_collection<T: Send>(
        paths: &StatePaths,
        work: impl FnOnce() -> T + Send,
        collection: impl FnOnce(),
    ) -> T {
        let gate = pass_gate(&paths.gate()).unwrap();
        gate.lock().unwrap();
        let (sender, done) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || drop(sender.send(work())));
            let early = done.recv_timeout(Duration::from_millis(200));
            collection();
            gate.unlock().unwrap();
            let is_waiting = matches!(early, Err(RecvTimeoutError::Timeout));
            assert!(is_waiting, "it has not waited for the collection");
            done.recv().unwrap()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{put, put_config};
    use super::*;

    #[test]
    fn only_a_config_is_an_image() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let layer = DiffId(Digest::of(b"layer"));
        let id = put_config(&paths, std::slice::from_ref(&layer));
        let image = read(&paths, &id).unwrap();
        assert_eq!(Digest::of(&image.config), id);
        assert_eq!((image.id, image.layers), (id, vec![layer]));
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
