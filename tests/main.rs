//! End-to-end suite: the program as users run it, on real input and against tools we did not write.
//!
//! Every test has a directory of its own with a context, a store and a home; nothing of the caller's environment gets in.
//! Tests need root, because they make base images and start daemons; the unprivileged ones change their user themselves.

#![expect(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod support;

mod add_remote;
mod apps;
mod bad_input;
mod base_images;
mod build;
mod cache;
mod cancel;
mod checks;
mod concurrency;
mod contexts;
mod copy_model;
mod corpus;
mod destinations;
mod disk;
mod doctor;
mod durability;
mod early_blobs;
mod escape;
mod explain;
mod figures;
mod hostile;
mod interop;
mod isolation;
mod killing;
mod likeness;
mod limits;
mod logs;
mod look_ahead;
mod mounts;
mod output;
mod power;
mod progress;
mod push;
mod push_verbs;
mod racing;
mod rootless;
mod rungs;
mod sandbox;
mod ssh;
mod stability;
mod store;
mod strict;
mod threads;
mod unchanged;

/// A file that nobody lists here would be a test that never runs.
#[test]
fn every_file_is_a_module() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let this = include_str!("main.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap_or(&name);
        assert!(
            module == "main" || this.lines().any(|line| line == format!("mod {module};")),
            "tests/{name} is not listed in tests/main.rs"
        );
    }
}
