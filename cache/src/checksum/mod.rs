//! Content digests of files, and the cache that saves reading them again.

pub mod file;
pub mod stat_cache;
