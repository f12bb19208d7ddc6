//! An image layout as a set of files, and writing it as a tar or into a directory (features.md 5.2).
//!
//! ```text
//! blobs/                  0755
//! blobs/sha256/           0755
//! blobs/sha256/HEX        0444   config, layers, manifest
//! index.json              0644   compact JSON
//! manifest.json           0644   docker archives only
//! oci-layout              0444
//! ```
//!
//! In a tar members are sorted by name and have time 0 and owner 0.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use cache::digest::{Descriptor, DiffId, Digest};

use super::activity::Activity;
use super::destination::{self, Destination, Output};
use super::error::Wanted;
use super::header::{self, Member, MemberKind};
use super::prepare::{self, Prepared};
use super::{Encoding, ExportError, LayerSource};
use crate::image::Image;

const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A file of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
enum File {
    Directory,
    Bytes { bytes: Vec<u8>, mode: u32 },
    Layer { layer: DiffId, blob: Descriptor },
}

/// The files of an image layout by path.
#[derive(Clone, Debug)]
pub struct Layout {
    files: BTreeMap<String, File>,
    encoding: Encoding,
}

/// Where a blob lies in a layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Layout {
    /// Blobs and documents of an image, with the given `index.json`.
    pub fn new(image: &Image, prepared: &Prepared, encoding: Encoding, index: Vec<u8>) -> Self {
        let mut files = BTreeMap::from([
            ("blobs".to_owned(), File::Directory),
            ("blobs/sha256".to_owned(), File::Directory),
        ]);
        for (layer, blob) in &prepared.blobs {
            let (layer, blob) = (layer.clone(), blob.clone());
            files.insert(blob_path(&blob.digest), File::Layer { layer, blob });
        }
        let manifest = &prepared.manifest;
        for (path, bytes, mode) in [
            (blob_path(&image.digest), image.config.clone(), 0o444),
            (
                blob_path(&manifest.descriptor.digest),
                manifest.bytes.clone(),
                0o444,
            ),
            ("index.json".to_owned(), index, 0o644),
            ("oci-layout".to_owned(), OCI_LAYOUT.to_vec(), 0o444),
        ] {
            files.insert(path, File::Bytes { bytes, mode });
        }
        Self { files, encoding }
    }

    /// Adds a document.
    #[must_use]
    pub fn with(mut self, path: &str, bytes: Vec<u8>) -> Self {
        self.files
            .insert(path.to_owned(), File::Bytes { bytes, mode: 0o644 });
        self
    }

    /// Writes it as a tar.
    ///
    /// # Errors
    ///
    /// A layer's or the destination's.
    pub fn write_tar(
        &self,
        layers: &dyn LayerSource,
        destination: &Destination,
        activity: &Activity<'_>,
    ) -> Result<(), ExportError> {
        activity.part("sending tarball", || {
            destination.write(|output| self.write_members(layers, output))
        })
    }

    /// Writes the tar's bytes.
    ///
    /// # Errors
    ///
    /// A layer's or the destination's.
    pub(super) fn write_members(
        &self,
        layers: &dyn LayerSource,
        output: &mut Output<'_>,
    ) -> Result<(), ExportError> {
        for (path, file) in &self.files {
            let (kind, mode) = match file {
                File::Directory => (MemberKind::Directory, 0o755),
                File::Bytes { bytes, mode } => {
                    let size = bytes.len() as u64;
                    (MemberKind::File { size }, *mode)
                }
                File::Layer { blob, .. } => (MemberKind::File { size: blob.size }, 0o444),
            };
            let path = path.as_bytes();
            output.put(&header::blocks(&Member {
                path,
                kind,
                mode,
                ..Member::NOTHING
            }))?;
            match file {
                File::Directory => {}
                File::Bytes { bytes, .. } => output.put(bytes)?,
                File::Layer { layer, blob } => {
                    prepare::copy_blob(layers, layer, self.encoding, blob, output)?;
                }
            }
            if let MemberKind::File { size } = kind {
                output.put(header::padding(size))?;
            }
        }
        output.put(&header::END)
    }

    /// Writes it into a directory, which is made if need be. A blob that is there is not written again; `merge` turns an
    /// `index.json` that is there and ours into the new one.
    ///
    /// # Errors
    ///
    /// A layer's or the destination's.
    pub fn write_directory(
        &self,
        layers: &dyn LayerSource,
        directory: &Path,
        merge: impl Fn(&[u8], &[u8]) -> Vec<u8>,
    ) -> Result<(), ExportError> {
        ensure_directory(directory)?;
        for (path, file) in &self.files {
            let target = directory.join(path);
            match file {
                File::Directory => ensure_directory(&target)?,
                File::Bytes { bytes, mode: 0o444 } if has_size(&target, bytes.len() as u64) => {}
                File::Bytes { bytes, .. } => match (path.as_str(), fs::read(&target)) {
                    ("index.json", Ok(old)) => {
                        destination::write_bytes(&target, &merge(&old, bytes))?;
                    }
                    (_, _) => destination::write_bytes(&target, bytes)?,
                },
                File::Layer { blob, .. } if has_size(&target, blob.size) => {}
                File::Layer { layer, blob } => {
                    Destination::File(target).write(|output| {
                        prepare::copy_blob(layers, layer, self.encoding, blob, output)
                    })?;
                }
            }
        }
        Ok(())
    }
}

fn has_size(path: &Path, size: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
}

/// Makes a directory and those above it; one that is there is fine.
pub(super) fn ensure_directory(path: &Path) -> Result<(), ExportError> {
    match fs::create_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(ExportError::WrongKind {
            path: path.to_owned(),
            wanted: Wanted::Directory,
        }),
        Err(error) => Err(ExportError::file("create directory", path)(error)),
    }
}
