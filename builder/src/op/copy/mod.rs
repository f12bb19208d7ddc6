//! COPY, ADD, mkdir and mkfile: from sources and a destination to a layer.
//!
//! Three values, each made from the one before:
//!
//! ```text
//!  actions + sources ──select──► Selection   which files, with digests; knows nothing of the destination
//!  Selection + base ───plan────► CopyPlan    the layer entry by entry; nothing is written
//!  CopyPlan + sources ─apply───► a tree on disk and its LayerIndex
//! ```
//!
//! [`selection::Selection::key`] identifies what was asked for by content; with the state key of the base it finds a memo
//! of the layer key without looking at the base. [`plan::CopyPlan::key`] is the layer key: everything the copy looked up in
//! its destination (what is there, links followed, owners by name) has become part of the plan, so a copy onto a new base
//! is found again exactly if the resulting layer is the same.
//!
//! Not here: fetching, git, whose layers the base has, when to run.
//!
//! # Rules
//!
//! Those of BuildKit's file operations. Symlinks in the destination's path are followed inside its root, those in the
//! copied tree are not; a copied directory's contents are merged into an existing one, whose own metadata stays, while
//! nested existing directories take the source's. What has no source, such as directories made on the way,
//! has time 0, because output is a function of input.

pub mod apply;
pub mod archive;
mod chmod;
mod content;
pub mod context_source;
pub mod error;
mod files;
mod hashed_list;
mod member;
mod nodes;
mod owner;
pub mod place;
pub mod plan;
mod planned;
pub mod resolve;
pub mod select;
pub mod selection;
pub mod source;
pub mod stack_source;
pub mod strict;
mod target;
pub mod unpacking;

#[cfg(test)]
mod tests;
