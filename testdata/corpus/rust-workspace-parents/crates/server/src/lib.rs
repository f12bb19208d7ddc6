//! A library of the workspace that the Dockerfile builds. Not here: anything to run, the tool chain of the corpus is a stand-in.

pub fn server() {}
