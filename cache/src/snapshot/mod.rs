//! Which layers and trees the store has, trees being made, and how trees are mounted.
//!
//! Not here: mounting (the builder's sandbox does it from [`mount::OverlayMount`]), which layers are still needed (GC),
//! and what a layer consists of ([`crate::layer`]).
//!
//! # On disk
//!
//! ```text
//! layers/HEX/layer.json   size of the tar, trees by format, blobs by codec; the layer exists once this does
//! layers/HEX/index        its index
//! trees/ID                a frozen tree; ID is at most 8 characters
//! trees/ID.id             whose it is: format and diff id; written before the tree
//! work/NAME               a tree being made; NAME.work is the work directory of its overlay
//! ```
//!
//! # Concurrency and failure
//!
//! Any number of processes commit, register and read at once. Files are made under another name and renamed; trees are
//! renamed in whole; what exists already is success. `layer.json` is changed under a lock of its folder. A process that
//! dies leaves a folder without `layer.json`, a claimed name without a tree, or a tree without its line in
//! `layer.json`; each is used as it is by the next commit.

pub mod active;
pub mod contents;
pub mod error;
pub mod format;
pub mod layer;
pub mod mount;
pub mod mount_points;
pub mod store;

pub(crate) mod orphans;
mod record;
pub(crate) mod synced;

#[cfg(test)]
mod reboot_tests;
#[cfg(test)]
pub(crate) mod testing;
