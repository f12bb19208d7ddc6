//! A test that the Dockerfile's context leaves in or out. Not here: anything to run, the tool chain of the corpus is a stand-in.

#[test] fn it() {}
