//! Directories of the client: the build context and named contexts.

pub mod ignore_file;
pub mod walk;
