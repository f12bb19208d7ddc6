//! The program that the Dockerfile beside it builds. Not here: anything to run, the tool chain of the corpus is a stand-in.

fn main() {}
