//! From a reference to one image: manifest, platform, config, layers.
//!
//! A tag costs one HEAD; what the store has is not fetched again, so a build whose documents are all there sends nothing
//! else. A reference with a digest that is there sends nothing at all.

use std::io::{Read, Write};

use cache::blob::{BlobError, BlobStore};
use cache::digest::{Descriptor, DiffId, Digest};
use frontend::platform::Platform;
use frontend::reference::Reference;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, HeaderValue};
use reqwest::{Method, StatusCode};

use super::call::{Call, Resource};
use super::client::{CONTENT_DIGEST, Client};
use super::document::{self, Document, ImageConfig, ImageManifest, IndexEntry};
use super::error::RegistryError;

/// Entries of an index that we look into to learn their platform: more is no image that people make.
const MAX_UNLABELLED: usize = 64;

/// A manifest or an index as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The document.
    pub bytes: Vec<u8>,
}

/// A layer to pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDescriptor {
    /// The blob.
    pub descriptor: Descriptor,
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// Where else it can be had; not trusted with anything.
    pub urls: Vec<String>,
}

/// An image of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// What the reference names: an index, or the manifest itself. Shown as the image's digest.
    pub root: Descriptor,
    /// The manifest of the platform.
    pub manifest: Descriptor,
    /// Its bytes.
    pub manifest_bytes: Vec<u8>,
    /// The config.
    pub config: Descriptor,
    /// Its bytes.
    pub config_bytes: Vec<u8>,
    /// The layers, bottom first.
    pub layers: Vec<LayerDescriptor>,
    /// The platform that the image has, if there was no choice and it is not the wanted one: worth a warning.
    pub other_platform: Option<Platform>,
}

/// Where documents come from.
pub(crate) trait Documents: Sync {
    /// The bytes of a manifest or index, verified.
    fn manifest(
        &self,
        descriptor: &Descriptor,
    ) -> impl Future<Output = Result<Vec<u8>, RegistryError>> + Send;

    /// The bytes of a config, verified.
    fn config(
        &self,
        descriptor: &Descriptor,
    ) -> impl Future<Output = Result<Vec<u8>, RegistryError>> + Send;

    /// What errors call it.
    fn name(&self) -> String;
}

/// Documents of a registry, through the store.
struct Remote<'a> {
    client: &'a Client,
    blobs: &'a dyn BlobStore,
    reference: &'a Reference,
}

/// Resolves a reference for a platform. Manifests and config enter the store, layers don't.
///
/// # Errors
///
/// [`RegistryError::Resolve`], with the reason below it.
pub async fn resolve_image(
    client: &Client,
    blobs: &dyn BlobStore,
    reference: &Reference,
    platform: &Platform,
) -> Result<ResolvedImage, RegistryError> {
    let remote = Remote {
        client,
        blobs,
        reference,
    };
    let resolving = async {
        let root = client.resolve(blobs, reference).await?;
        choose(&remote, root, platform).await
    };
    resolving.await.map_err(RegistryError::resolving(reference))
}

impl Client {
    /// The manifest or index that a reference names.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`] if the registry does not have it.
    pub async fn resolve(
        &self,
        blobs: &dyn BlobStore,
        reference: &Reference,
    ) -> Result<Manifest, RegistryError> {
        let digest = match &reference.digest {
            Some(text) => sha256(text)?,
            None => match self.head_manifest(reference).await? {
                Some(digest) => digest,
                None => return self.manifest_by_tag(blobs, reference).await,
            },
        };
        let bytes = match read_blob(blobs, &digest)? {
            Some(bytes) => bytes,
            None => self.manifest_by_digest(blobs, reference, &digest).await?,
        };
        Manifest::new(&reference.to_string(), digest, bytes)
    }

    /// What a tag points to; `None` if the registry tells that only together with the manifest.
    async fn head_manifest(&self, reference: &Reference) -> Result<Option<Digest>, RegistryError> {
        let tag = reference.tag.as_deref().unwrap_or("latest");
        let call = manifest_call(Method::HEAD, tag);
        let reply = match self.head(reference, &call, &reference.to_string()).await {
            Ok(reply) => reply,
            // An answer to HEAD has no body: the GET will tell why.
            Err(RegistryError::Denied { .. }) => return Ok(None),
            Err(RegistryError::Status {
                status: StatusCode::METHOD_NOT_ALLOWED,
                ..
            }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let has_length = reply.header(CONTENT_LENGTH.as_str()).is_some();
        let digest = reply
            .header(CONTENT_DIGEST)
            .and_then(|text| text.parse().ok());
        Ok(digest.filter(|_| has_length))
    }

    async fn manifest_by_tag(
        &self,
        blobs: &dyn BlobStore,
        reference: &Reference,
    ) -> Result<Manifest, RegistryError> {
        let tag = reference.tag.as_deref().unwrap_or("latest");
        let call = manifest_call(Method::GET, tag);
        let name = reference.to_string();
        let accept = |stated: Option<&str>, bytes: Vec<u8>| {
            let digest = Digest::of(&bytes);
            match stated.is_none_or(|stated| stated == digest.as_str()) {
                true => Ok((digest, bytes)),
                false => Err(RegistryError::Contradiction {
                    name: name.clone(),
                    problem: "the registry sent a manifest that has not the digest it states",
                }),
            }
        };
        let (digest, bytes) = self.document(reference, &call, &name, &accept).await?;
        store_blob(blobs, &digest, &bytes)?;
        Manifest::new(&name, digest, bytes)
    }

    async fn manifest_by_digest(
        &self,
        blobs: &dyn BlobStore,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Vec<u8>, RegistryError> {
        let call = manifest_call(Method::GET, digest.as_str());
        let name = reference.to_string();
        let accept = |_: Option<&str>, bytes: Vec<u8>| {
            let expected = Descriptor {
                media_type: String::new(),
                digest: digest.clone(),
                size: length(&bytes),
            };
            document::verified(&expected, bytes)
        };
        let bytes = self.document(reference, &call, &name, &accept).await?;
        store_blob(blobs, digest, &bytes)?;
        Ok(bytes)
    }
}

fn manifest_call(method: Method, name: &str) -> Call<'_> {
    let accept = HeaderValue::from_static(document::ACCEPT);
    Call::new(method, Resource::Manifest(name)).header(ACCEPT, accept)
}

impl Manifest {
    pub(crate) fn new(name: &str, digest: Digest, bytes: Vec<u8>) -> Result<Self, RegistryError> {
        let (_, media_type) = Document::parse(name, &bytes)?;
        Ok(Self {
            descriptor: Descriptor {
                media_type,
                digest,
                size: length(&bytes),
            },
            bytes,
        })
    }
}

impl Documents for Remote<'_> {
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        match read_blob(self.blobs, &descriptor.digest)? {
            Some(bytes) => Ok(bytes),
            None => {
                let Self {
                    client,
                    blobs,
                    reference,
                } = self;
                let digest = &descriptor.digest;
                client.manifest_by_digest(*blobs, reference, digest).await
            }
        }
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        if let Some(bytes) = read_blob(self.blobs, &descriptor.digest)? {
            return Ok(bytes);
        }
        let call = Call::new(Method::GET, Resource::Blob(descriptor.digest.as_str()));
        let name = descriptor.digest.to_string();
        let accept = |_: Option<&str>, bytes| document::verified(descriptor, bytes);
        let bytes = self
            .client
            .document(self.reference, &call, &name, &accept)
            .await?;
        store_blob(self.blobs, &descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    fn name(&self) -> String {
        self.reference.to_string()
    }
}

/// Finds the image of a platform in what a name stands for.
pub(crate) async fn choose(
    source: &impl Documents,
    root: Manifest,
    platform: &Platform,
) -> Result<ResolvedImage, RegistryError> {
    let name = source.name();
    match Document::parse(&name, &root.bytes)?.0 {
        Document::Image(image) => {
            let descriptor = root.descriptor.clone();
            let mut resolved = with_config(source, root, image).await?;
            let own = config(&name, &resolved.config_bytes)?.platform;
            let is_other = own.is_known() && platform.rank(&own.platform()).is_none();
            resolved.other_platform = is_other.then(|| own.platform());
            resolved.root = descriptor;
            Ok(resolved)
        }
        Document::Index(entries) => {
            let (manifest, image) = choose_entry(source, entries, platform).await?;
            let resolved = with_config(source, manifest, image).await?;
            Ok(ResolvedImage {
                root: root.descriptor,
                ..resolved
            })
        }
    }
}

/// The best entry by containerd's order; entries that do not tell their platform are looked into, last.
async fn choose_entry(
    source: &impl Documents,
    mut entries: Vec<IndexEntry>,
    platform: &Platform,
) -> Result<(Manifest, ImageManifest), RegistryError> {
    let name = source.name();
    let offered = names_of(&entries);
    for _ in 0..MAX_UNLABELLED {
        let at = match best_labelled(&entries, platform) {
            Some(at) => Some(at),
            None => entries
                .iter()
                .position(|entry| entry.platform.is_none() && !entry.is_attestation()),
        };
        let Some(at) = at else {
            break;
        };
        let entry = entries.remove(at);
        let bytes = source.manifest(&entry.descriptor).await?;
        match Document::parse(&name, &bytes)?.0 {
            Document::Index(nested) if entry.platform.is_some() => entries = nested,
            Document::Index(nested) => entries.extend(nested),
            Document::Image(image) => {
                let manifest = Manifest {
                    descriptor: entry.descriptor,
                    bytes,
                };
                if entry.platform.is_some() {
                    return Ok((manifest, image));
                }
                let bytes = source.config(&image.config.descriptor).await?;
                let own = config(&name, &bytes)?.platform;
                if platform.rank(&own.platform()).is_some() {
                    return Ok((manifest, image));
                }
            }
        }
    }
    Err(RegistryError::NoPlatform {
        wanted: platform.to_string(),
        available: offered,
    })
}

fn best_labelled(entries: &[IndexEntry], platform: &Platform) -> Option<usize> {
    let ranked = entries.iter().enumerate().filter_map(|(at, entry)| {
        let offered = entry.platform.as_ref().filter(|p| p.is_known())?;
        let rank = platform.rank(&offered.platform())?;
        (!entry.is_attestation()).then_some((rank, at))
    });
    ranked.min().map(|(_, at)| at)
}

fn names_of(entries: &[IndexEntry]) -> String {
    let known = entries.iter().filter_map(|entry| {
        let platform = entry.platform.as_ref().filter(|p| p.is_known())?;
        Some(platform.platform().to_string())
    });
    let names: Vec<String> = known.collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

async fn with_config(
    source: &impl Documents,
    manifest: Manifest,
    image: ImageManifest,
) -> Result<ResolvedImage, RegistryError> {
    let name = source.name();
    let config_bytes = source.config(&image.config.descriptor).await?;
    let diff_ids = config(&name, &config_bytes)?.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() {
        return Err(RegistryError::Contradiction {
            name,
            problem: "is no image: its config does not name as many layers as its manifest",
        });
    }
    let layers = image.layers.into_iter().zip(diff_ids);
    let layers = layers.map(|(layer, diff_id)| LayerDescriptor {
        descriptor: layer.descriptor,
        diff_id,
        urls: layer.urls,
    });
    Ok(ResolvedImage {
        root: manifest.descriptor.clone(),
        manifest: manifest.descriptor,
        manifest_bytes: manifest.bytes,
        config: image.config.descriptor,
        config_bytes,
        layers: layers.collect(),
        other_platform: None,
    })
}

fn config(name: &str, bytes: &[u8]) -> Result<ImageConfig, RegistryError> {
    serde_json::from_slice(bytes).map_err(|source| RegistryError::Document {
        name: format!("the config of {name}"),
        source,
    })
}

/// A digest of a reference; registries have others too, we do not.
pub(crate) fn sha256(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|_invalid| RegistryError::Unsupported {
        what: format!("digest `{text}`, only sha256 is"),
    })
}

pub(crate) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn read_blob(blobs: &dyn BlobStore, digest: &Digest) -> Result<Option<Vec<u8>>, RegistryError> {
    let Some(mut reader) = blobs.open(digest).map_err(RegistryError::storing(digest))? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(Some(bytes)),
        Err(source) => Err(RegistryError::storing(digest)(io_error(
            "read", digest, source,
        ))),
    }
}

pub(crate) fn store_blob(
    blobs: &dyn BlobStore,
    digest: &Digest,
    bytes: &[u8],
) -> Result<(), RegistryError> {
    let store = || {
        let mut writer = blobs.writer()?;
        let written = writer.write_all(bytes);
        written.map_err(|source| io_error("write", digest, source))?;
        writer.commit(Some(digest))
    };
    store().map_err(RegistryError::storing(digest))?;
    Ok(())
}

/// The store's streams do not name their file.
pub(crate) fn io_error(
    attempt: &'static str,
    digest: &Digest,
    source: std::io::Error,
) -> BlobError {
    BlobError::Io {
        attempt,
        path: digest.as_str().into(),
        source,
    }
}
