//! The engine: decides what must be done for a Dockerfile and does it.
//!
//! A library without globals. Nothing below `cli` reads flags, environment, terminal or home directory.

