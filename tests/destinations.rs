//! Destinations that cannot be written: the build says which, and what was there stays as it was.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Place, finish, unmount};

const SMALL: &str = "FROM busybox\nRUN echo 1 > /one\n";

/// A file that not even root can write or replace, until this is dropped: a read-only mount of itself.
struct Immutable<'a>(&'a Path);

impl<'a> Immutable<'a> {
    fn new(path: &'a Path) -> Self {
        finish(Command::new("mount").arg("--bind").args([path, path])).success();
        let guard = Self(path);
        let mut command = Command::new("mount");
        finish(command.args(["-o", "remount,bind,ro"]).arg(path)).success();
        guard
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        unmount(self.0);
    }
}

#[test]
fn a_failed_export_leaves_the_old_file() {
    let place = Place::with_dockerfile(SMALL);
    let file = place.path("image.tar");
    fs::write(&file, "precious").unwrap();
    let _guard = Immutable::new(&file);
    for kind in ["oci", "docker", "tar"] {
        let output = format!("type={kind},dest={}", file.display());
        let outcome = place.build(&["--output", &output]).failure(3);
        outcome.says(file.to_str().unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
    assert_eq!(leftovers(&place), [""; 0]);
}

#[test]
fn a_failed_build_leaves_the_old_file() {
    let place = Place::with_dockerfile("FROM busybox\nRUN exit 3\n");
    let (file, iidfile, metadata) = (
        place.path("image.tar"),
        place.path("iid"),
        place.path("meta"),
    );
    for path in [&file, &iidfile, &metadata] {
        fs::write(path, "precious").unwrap();
    }
    let output = format!("--output=type=oci,dest={}", file.display());
    let told = [
        format!("--iidfile={}", iidfile.display()),
        format!("--metadata-file={}", metadata.display()),
    ];
    place.build(&[&output, &told[0], &told[1]]).failure(1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    // A script that finds an id after a failed build would use the wrong image.
    for path in [&iidfile, &metadata] {
        let text = fs::read_to_string(path).unwrap_or_default();
        assert!(!text.contains("sha256"), "{text}");
    }
    assert_eq!(leftovers(&place), [""; 0]);
}

#[test]
fn a_destination_of_the_wrong_kind_is_named() {
    let place = Place::with_dockerfile(SMALL);
    let dir = place.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("kept"), "kept").unwrap();
    let output = format!("type=oci,dest={}", dir.display());
    place
        .build(&["--output", &output])
        .failure(3)
        .says(dir.to_str().unwrap());
    assert_eq!(fs::read_to_string(dir.join("kept")).unwrap(), "kept");
    let file = place.path("file");
    fs::write(&file, "precious").unwrap();
    let output = format!("type=local,dest={}", file.display());
    place
        .build(&["--output", &output])
        .failure(3)
        .says(file.to_str().unwrap());
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let missing = place.path("none/such.tar");
    let output = format!("type=oci,dest={}", missing.display());
    let outcome = place.build(&["--output", &output]);
    assert!(
        outcome.code == Some(0) || outcome.stderr.contains("none"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn files_told_to_scripts_that_cannot_be_written_are_named() {
    let place = Place::with_dockerfile(SMALL);
    for flag in ["--iidfile", "--metadata-file"] {
        let file = place.path("told");
        fs::write(&file, "precious").unwrap();
        let _guard = Immutable::new(&file);
        place
            .build(&[flag, file.to_str().unwrap()])
            .failure(3)
            .says("told");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}

#[test]
fn a_closed_standard_output_is_an_error_not_a_crash() {
    let place = Place::with_dockerfile(SMALL);
    let mut command = place.build_command();
    command
        .args(["--output=type=oci,dest=-"])
        .arg(place.context());
    let mut shell = crate::support::through_shell("\"$@\" > /dev/full", &command);
    let outcome = finish(&mut shell).failure(3);
    outcome.says("standard output").does_not_say("panicked");
}

/// Names in the place that are neither its folders nor what the test made.
fn leftovers(place: &Place) -> Vec<String> {
    let known = ["context", "home", "tmp", "root", "image.tar", "iid", "meta"];
    let entries = fs::read_dir(place.path("")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !known.contains(&name.as_str()))
        .collect()
}
