//! Layers: changesets as an index, as a frozen directory tree, as a tar and as a compressed blob.
//!
//! Every layer has a [`LayerIndex`](index::LayerIndex): its entries in layer-format order. The index answers all
//! look-ups; the tree on disk is only for bytes; the tar is made on demand from index and tree.
//!
//! ```text
//!  tar ──scan──► index                 nothing unpacked
//!  tar ──apply─► tree + index          a pulled layer
//!  upper ─freeze► tree + index + tar   a step's overlay upper directory, normalised in place
//!  index + tree ──pack──► tar ──compress──► blob
//! ```
//!
//! Not here: where layers lie and which exist (`snapshot`), blobs by digest (`blob`).
//!
//! # Layer format v1
//!
//! Changing any of this changes diff ids and breaks stored state.
//!
//! - Order: depth first, siblings by the bytes of their names; a deletion stands where the deleted name would.
//! - Ustar headers; a PAX header before an entry only for what does not fit: a name or link target over 100 bytes (no
//!   prefix splitting), ids above 2 097 151, sizes from 8 GiB, negative or very late times, and
//!   `SCHILY.xattr.security.capability`. Keys sorted by their bytes. Names are written as the bytes they are.
//! - Whole seconds; no user or group names. Modes are the twelve permission bits.
//! - Directories end in a slash; the root, present only if its mode or owner changed, is `./`.
//! - A deletion is an empty regular file `.wh.NAME`, mode 0, owner 0:0, time 0. An opaque directory (only in layers that
//!   were not frozen here) is followed by `.wh..wh..opq`.
//! - The first path of a hard-link group in this order is the file; the others are links with size 0 and no capability.
//! - 1024 zero bytes at the end and no blocking factor, so an empty layer is 1024 zero bytes.

pub mod apply;
pub mod compress;
pub mod entry;
pub mod error;
pub mod freeze;
pub mod index;
pub mod pack;
pub mod path;
pub mod reader;
pub mod scan;
pub mod sink;
pub mod stack;
pub mod tree;
pub mod verify;
pub mod view;

mod attributes;
mod draft;
mod header;
mod index_file;
mod numeric;
mod pax;
mod sparse;

#[cfg(test)]
pub(crate) mod tests_support;

#[cfg(test)]
mod freeze_random_tests;
#[cfg(test)]
mod freeze_tests;

#[cfg(test)]
pub(crate) use tests_support::require_root as require_root_in_tests;

#[cfg(test)]
mod sparse_tests;
#[cfg(test)]
mod tar_malformed_tests;
#[cfg(test)]
mod tar_tests;
