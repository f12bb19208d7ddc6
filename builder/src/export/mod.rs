//! Exporters: a finished image to a destination.
//!
//! ```text
//! --output text ─► spec (what is wanted) ─► an Exporter ─► file, directory, stdout, daemon, registry, local store
//!                                             ▲
//!                       Source: image, LayerSource (blobs on demand), FlatTree (the file system)
//! ```
//!
//! An exporter does not know how a layer is stored: it asks [`LayerSource`] for a blob in an encoding, and that blob may be
//! made only then. All of this blocks; callers put it on threads of their own.
//!
//! # Invariants
//!
//! - Equal images give equal bytes: archives are sorted and have no times, owners or host names of their own.
//! - A destination file appears whole or not at all; what was there before stays on failure (`destination`).
//! - Nothing is sent that the receiver has; a manifest is sent after everything it names (`registry`).

pub mod activity;
pub mod annotation;
pub mod archive;
mod attributes;
pub mod csv;
pub mod daemon;
pub mod destination;
pub mod docker_archive;
pub mod error;
mod header;
mod http;
pub mod local_dir;
pub mod metadata;
pub mod oci_layout;
pub mod prepare;
pub mod registry;
pub mod spec;
pub mod store;
pub mod tar;

#[cfg(test)]
mod testing;

use std::io::Read;

use cache::digest::{Descriptor, DiffId, Digest};
use frontend::reference::Reference;

pub use self::error::{ExportError, Failure};
use self::prepare::{Form, Prepared};
use crate::image::Image;
use crate::progress::sink::EventSink;

/// How a layer's tar is compressed. `None` as level is the codec's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// One gzip member.
    Gzip {
        /// 0 to 9.
        level: Option<u8>,
    },
    /// zstd frames.
    Zstd {
        /// 0 to 22.
        level: Option<u8>,
    },
    /// The tar as it is.
    Uncompressed,
}

impl Codec {
    /// The OCI media type of a layer so compressed.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip { .. } => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd { .. } => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Uncompressed => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

/// What becomes of blobs that were pulled in another codec (`force-compression=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PulledBlobs {
    /// They are used as they came.
    Keep,
    /// They are made again.
    Recompress,
}

/// In which form blobs of layers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Encoding {
    /// For layers of our own, and for pulled ones without a blob to keep.
    pub codec: Codec,
    /// For pulled layers.
    pub pulled: PulledBlobs,
}

impl Encoding {
    /// gzip, pulled blobs as they came.
    pub const DEFAULT: Self = Self {
        codec: Codec::Gzip { level: None },
        pulled: PulledBlobs::Keep,
    };
}

/// A repository that is known to have a layer's blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobOrigin {
    /// `docker.io`, `localhost:5000`
    pub registry: String,
    /// `library/busybox`
    pub repository: String,
    /// The blob as it is there.
    pub digest: Digest,
}

/// A layer's blob could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} layer {layer}")]
pub struct LayerError {
    /// What was tried: `compress`, `read`, …
    pub attempt: &'static str,
    /// On which layer.
    pub layer: DiffId,
    /// Why.
    #[source]
    pub source: Failure,
}

/// Gives layers as blobs. A layer's blob exists only once somebody asks for it.
///
/// Invariants: (1) the same layer and encoding give the same descriptor, whenever and by whomever asked; (2) [`Self::open`]
/// gives exactly the bytes that [`Self::ensure`] describes; (3) any number of threads may call at once, equal calls share
/// their work; (4) a pulled layer whose blob is kept is described without being downloaded.
pub trait LayerSource: Send + Sync {
    /// Makes the blob if need be. May take as long as compressing it takes.
    fn ensure(&self, layer: &DiffId, encoding: Encoding) -> Result<Descriptor, LayerError>;
    /// The descriptor, if it is known without work.
    fn known(&self, layer: &DiffId, encoding: Encoding) -> Option<Descriptor>;
    /// Opens the blob; downloads it if need be.
    fn open(&self, layer: &DiffId, encoding: Encoding) -> Result<Box<dyn Read + Send>, LayerError>;
    /// Repositories where blobs of the layer are.
    fn origins(&self, layer: &DiffId) -> Vec<BlobOrigin>;
    /// The layer with every time after `epoch` (seconds) set to it (`rewrite-timestamp=`); itself if none is.
    fn clamp_times(&self, layer: &DiffId, epoch: i64) -> Result<DiffId, LayerError>;
}

/// An entry of a flattened image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatEntry {
    /// Relative to the root, no empty, `.` or `..` parts, no slash at either end; never empty.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FlatKind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in whole seconds.
    pub mtime: i64,
    /// `security.capability`
    pub capability: Option<Vec<u8>>,
}

/// What an entry of a flattened image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlatKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Size in bytes.
        size: u64,
    },
    /// Another name of a file that came before.
    HardLink {
        /// That name.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Entries of a tree, in its order; fails where reading the tree fails.
pub type FlatEntries<'a> = Box<dyn Iterator<Item = Result<FlatEntry, Failure>> + 'a>;

/// The file system of an image, all layers applied, no whiteouts left.
///
/// Invariants: (1) entries come depth first, siblings by name bytes, a directory before what is in it, and every parent is
/// an entry; (2) a file opens to as many bytes as its entry says.
pub trait FlatTree: Send + Sync {
    /// Lists it, without the root.
    fn entries(&self) -> Result<FlatEntries<'_>, Failure>;
    /// Opens a regular file of it.
    fn open(&self, path: &[u8]) -> Result<Box<dyn Read + Send>, Failure>;
}

/// What is exported.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its layers as blobs.
    pub layers: &'a dyn LayerSource,
    /// Its file system.
    pub tree: &'a dyn FlatTree,
    /// Which of the build's outputs this is, from 0: tells equal ones apart in progress.
    pub output: usize,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("image", &self.image.digest)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

/// What an export made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// The manifest, if one was made.
    pub manifest: Option<Descriptor>,
    /// Annotations of the manifest's descriptor.
    pub descriptor_annotations: crate::image::manifest::Annotations,
    /// Full names that the image got.
    pub names: Vec<String>,
}

impl ExportReport {
    /// Of an image that was written as a document with these names.
    fn of(prepared: Prepared, form: &Form, names: &[Reference]) -> Self {
        Self {
            manifest: Some(prepared.manifest.descriptor),
            descriptor_annotations: form.descriptor_annotations.clone(),
            names: names.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A destination for images.
pub trait Exporter {
    /// Exports an image. On failure nothing that was at the destination is changed, except in a directory, where some files
    /// may have been written, and in a registry, where blobs may have been.
    fn export(
        &self,
        source: &Source<'_>,
        events: &dyn EventSink,
    ) -> Result<ExportReport, ExportError>;
}
