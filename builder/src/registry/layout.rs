//! `oci-layout://DIR[:tag|@digest]`: images from an OCI image layout on disk.
//!
//! Blobs are read from the layout and verified like those of a registry; documents and layers enter the store alike.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cache::blob::BlobStore;
use cache::digest::{Descriptor, Digest};
use frontend::platform::Platform;
use serde::Deserialize;

use super::document::{self, Document, IndexEntry};
use super::error::RegistryError;
use super::resolve::{
    Documents, LayerDescriptor, Manifest, ResolvedImage, choose, io_error, sha256, store_blob,
};

/// The annotation that names an image of a layout (OCI image spec, `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What containerd writes beside it: the full reference.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// Bytes copied at a time.
const CHUNK: usize = 256 << 10;
/// The longest document that is read.
const MAX_DOCUMENT: u64 = 16 << 20;

/// A layout on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

/// Which image of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutImage {
    /// The one that has this name.
    Tag(String),
    /// The one with this digest.
    Digest(Digest),
    /// The only one, or the one with the name `latest`.
    Only,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<IndexEntry>,
}

/// Splits `DIR[:tag|@digest]`.
///
/// # Errors
///
/// If the digest is none that we read.
pub fn parse(text: &str) -> Result<(Layout, LayoutImage), RegistryError> {
    let text = text.strip_prefix("oci-layout://").unwrap_or(text);
    let (rest, image) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(LayoutImage::Digest(sha256(digest)?))),
        None => (text, None),
    };
    let (dir, tag) = match rest.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') && !tag.is_empty() => (dir, Some(tag)),
        Some(_) | None => (rest, None),
    };
    let by_tag = tag.map(|tag| LayoutImage::Tag(tag.to_owned()));
    Ok((
        Layout::new(dir),
        image.or(by_tag).unwrap_or(LayoutImage::Only),
    ))
}

impl Layout {
    /// Takes the folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Resolves an image of the layout for a platform. Manifests and config enter the store, layers don't.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Resolve`], with the reason below it.
    pub async fn resolve_image(
        &self,
        blobs: &dyn BlobStore,
        image: &LayoutImage,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        let name = self.name_of(image);
        let source = Source {
            layout: self,
            blobs,
            name: &name,
        };
        let resolving = async {
            let descriptor = self.entry(image)?;
            let bytes = source.manifest(&descriptor).await?;
            let root = Manifest::new(&name, descriptor.digest, bytes)?;
            choose(&source, root, platform).await
        };
        resolving.await.map_err(RegistryError::resolving(&name))
    }

    /// Copies a layer into the store unless it is there. `progress` gets bytes done and bytes in all.
    ///
    /// # Errors
    ///
    /// A blob with another size or digest than promised is an error and does not enter the store.
    pub async fn pull_layer(
        &self,
        blobs: &dyn BlobStore,
        layer: &LayerDescriptor,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<(), RegistryError> {
        let Descriptor { digest, size, .. } = &layer.descriptor;
        if blobs
            .contains(digest)
            .map_err(RegistryError::storing(digest))?
        {
            progress(*size, *size);
            return Ok(());
        }
        let mut file = self.open(&layer.descriptor)?;
        let mut writer = blobs.writer().map_err(RegistryError::storing(digest))?;
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(failed("read", &self.blob(digest), source)),
            };
            let written = writer.write_all(&buffer[..count]);
            written.map_err(|source| {
                RegistryError::storing(digest)(io_error("write", digest, source))
            })?;
            done += super::resolve::length(&buffer[..count]);
            progress(done, *size);
            // Disk reads are short; others shall get their turn between them.
            tokio::task::yield_now().await;
        }
        writer
            .commit(Some(digest))
            .map_err(RegistryError::storing(digest))?;
        Ok(())
    }

    fn name_of(&self, image: &LayoutImage) -> String {
        let dir = self.dir.display();
        match image {
            LayoutImage::Tag(tag) => format!("oci-layout://{dir}:{tag}"),
            LayoutImage::Digest(digest) => format!("oci-layout://{dir}@{digest}"),
            LayoutImage::Only => format!("oci-layout://{dir}"),
        }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// The entry of `index.json`; a digest may also be of a blob that it does not list.
    fn entry(&self, image: &LayoutImage) -> Result<Descriptor, RegistryError> {
        let marker = self.dir.join("oci-layout");
        std::fs::metadata(&marker).map_err(|source| failed("open", &marker, source))?;
        let path = self.dir.join("index.json");
        let bytes = std::fs::read(&path).map_err(|source| failed("read", &path, source))?;
        let index = serde_json::from_slice(&bytes);
        let Index { manifests } = index.map_err(|source| RegistryError::Document {
            name: path.display().to_string(),
            source,
        })?;
        let named = |tag: &str| {
            let mut entries = manifests.iter();
            entries.find(|entry| has_name(entry, tag))
        };
        let found = match image {
            LayoutImage::Tag(tag) => named(tag),
            LayoutImage::Digest(digest) => {
                let listed = manifests
                    .iter()
                    .find(|entry| entry.descriptor.digest == *digest);
                if listed.is_none() {
                    return self.unlisted(digest);
                }
                listed
            }
            LayoutImage::Only => match manifests.as_slice() {
                [only] => Some(only),
                _ => named("latest"),
            },
        };
        match found {
            Some(entry) => Ok(entry.descriptor.clone()),
            None => Err(RegistryError::NotFound {
                name: self.name_of(image),
            }),
        }
    }

    fn unlisted(&self, digest: &Digest) -> Result<Descriptor, RegistryError> {
        match std::fs::metadata(self.blob(digest)) {
            Ok(metadata) => Ok(Descriptor {
                media_type: document::OCI_MANIFEST.to_owned(),
                digest: digest.clone(),
                size: metadata.len(),
            }),
            Err(_) => Err(RegistryError::NotFound {
                name: self.name_of(&LayoutImage::Digest(digest.clone())),
            }),
        }
    }

    /// Opens a blob that has the promised size.
    fn open(&self, descriptor: &Descriptor) -> Result<File, RegistryError> {
        let path = self.blob(&descriptor.digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RegistryError::NotFound {
                    name: path.display().to_string(),
                });
            }
            Err(source) => return Err(failed("open", &path, source)),
        };
        let metadata = file
            .metadata()
            .map_err(|source| failed("open", &path, source))?;
        match metadata.len() == descriptor.size {
            true => Ok(file),
            false => Err(RegistryError::Size {
                digest: descriptor.digest.clone(),
                expected: descriptor.size,
                found: metadata.len(),
            }),
        }
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let file = self.open(descriptor)?;
        if descriptor.size > MAX_DOCUMENT {
            return Err(RegistryError::Unsupported {
                what: format!(
                    "{} has {} bytes for a document",
                    descriptor.digest, descriptor.size
                ),
            });
        }
        let read = file.take(MAX_DOCUMENT).read_to_end(&mut bytes);
        read.map_err(|source| failed("read", &self.blob(&descriptor.digest), source))?;
        document::verified(descriptor, bytes)
    }
}

/// Names are a tag, or a whole reference that ends with it.
fn has_name(entry: &IndexEntry, tag: &str) -> bool {
    [REF_NAME, IMAGE_NAME].iter().any(|key| {
        let name = entry.annotations.get(*key).and_then(|value| value.as_str());
        name.is_some_and(|name| {
            let end = name.strip_suffix(tag);
            end.is_some_and(|front| front.is_empty() || front.ends_with(':'))
        })
    })
}

fn failed(attempt: &'static str, path: &Path, source: io::Error) -> RegistryError {
    RegistryError::Io {
        attempt,
        path: path.to_owned(),
        source,
    }
}

/// Documents of a layout, into the store.
struct Source<'a> {
    layout: &'a Layout,
    blobs: &'a dyn BlobStore,
    name: &'a str,
}

impl Documents for Source<'_> {
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let bytes = self.layout.document(descriptor)?;
        // What is no manifest does not enter the store.
        Document::parse(self.name, &bytes)?;
        store_blob(self.blobs, &descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let bytes = self.layout.document(descriptor)?;
        store_blob(self.blobs, &descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    fn name(&self) -> String {
        self.name.to_owned()
    }
}
