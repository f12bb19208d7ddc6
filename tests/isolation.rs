//! Where no step can be run: a store on an overlay, whose file system cannot hold a step's changes. Every build ends with that
//! reason, whatever else it does meanwhile, and nothing comes of it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::registry::Registry;
use crate::support::{Outcome, Place, finish, program, unmount};

/// A place whose store is on an overlay.
struct Unusable {
    place: Place,
    merged: PathBuf,
}

impl Unusable {
    fn new(dockerfile: &str) -> Self {
        let place = Place::with_dockerfile(dockerfile);
        let dir = place.path("layers");
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let merged = dir.join("merged");
        let options = format!(
            "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
            dir.display()
        );
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "overlay", "-o", &options, "overlay"])
            .arg(&merged);
        finish(&mut mount).success();
        Self { place, merged }
    }

    /// A build with a store of its own, without the context.
    fn command(&self) -> Command {
        let store = tempfile::tempdir_in(&self.merged).unwrap().keep();
        let mut command = self.place.build_command();
        command.env("BUILD_ROOT", store.join("root"));
        command
    }

    fn build(&self, args: &[&str]) -> Outcome {
        finish(self.command().args(args).arg(self.place.context()))
    }
}

impl Drop for Unusable {
    fn drop(&mut self) {
        unmount(&self.merged);
    }
}

/// The build was refused, with the remedy.
#[track_caller]
fn refused(outcome: Outcome) {
    let outcome = outcome
        .failure(3)
        .says("whose file system cannot hold a step's changes")
        .says("mount a volume there or set BUILD_ROOT");
    drop(outcome);
}

#[test]
fn the_reason_and_the_remedy_are_told() {
    let unusable = Unusable::new("FROM busybox\nRUN true\n");
    refused(unusable.build(&[]));
}

#[test]
fn a_command_that_waits_for_the_answer_tells_no_other_reason() {
    let unusable = Unusable::new("FROM scratch\nRUN [\"/x\"]\n");
    let taskset = program("taskset", "util-linux");
    for turn in 0..30 {
        let build = unusable.command();
        let mut command = Command::new(&taskset);
        // On one processor, who waits is often the first to run.
        command.args(["-c", ["0", "0,1"][turn % 2]]);
        command.arg(build.get_program()).args(build.get_args());
        let environment = build.get_envs();
        command.env_clear().stdin(Stdio::null());
        command.envs(environment.filter_map(|(name, value)| Some((name, value?))));
        refused(finish(command.arg(unusable.place.context())));
    }
}

#[test]
fn no_image_comes_of_a_build_that_needs_no_command() {
    let unusable = Unusable::new("FROM busybox\nCOPY Dockerfile /\n");
    let dest = unusable.place.path("image.tar");
    let output = format!("type=oci,dest={}", dest.display());
    refused(unusable.build(&["--output", &output]));
    assert!(!dest.exists(), "an image was written");
}

#[test]
fn nothing_is_sent_to_a_registry() {
    let registry = Registry::start();
    let unusable = Unusable::new("FROM scratch\nCOPY Dockerfile /f\nRUN [\"/x\"]\n");
    let name = registry.name("app:1");
    for _ in 0..10 {
        refused(unusable.build(&["--push", "--tag", &name]));
    }
    assert_eq!(registry.uploads(), Vec::<String>::new());
    // Nor is anything else told that is wrong.
    let wrong = ["--push", "--tag", &name, "--annotation=index:a=b"];
    refused(unusable.build(&wrong));
}

#[test]
fn the_rest_of_a_context_is_not_waited_for() {
    let unusable = Unusable::new("FROM busybox\nRUN true\n");
    let (context, mut producer) = std::io::pipe().unwrap();
    producer.write_all(b"\x1f\x8b\x08\x00").unwrap();
    producer.write_all(&[0; 1020]).unwrap();
    let begun = Instant::now();
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let ends = std::thread::spawn(move || {
        is_over.recv_timeout(Duration::from_secs(10)).ok();
        drop(producer);
    });
    let outcome = finish(unusable.command().arg("-").stdin(context));
    let waited = begun.elapsed();
    drop(over);
    ends.join().unwrap();
    refused(outcome);
    assert!(waited < Duration::from_secs(9), "{waited:?}");
}
