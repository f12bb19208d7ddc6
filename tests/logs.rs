//! `builder logs`: what steps wrote, whole and byte for byte, however much and whatever it is.

use std::fs;
use std::process::Stdio;

use crate::support::{Place, finish, testdata};

/// The bytes of a step's log.
fn log_of(place: &Place, args: &[&str]) -> Vec<u8> {
    let output = place.command().arg("logs").args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn the_last_builds_steps_are_listed_and_shown() {
    let place = Place::with_dockerfile(
        "FROM busybox\nRUN echo one; echo two >&2\nRUN printf partial\nRUN echo so far; exit 3\n",
    );
    place.build(&[]).failure(1);
    let list = String::from_utf8(log_of(&place, &[])).unwrap();
    let lines: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().take(3).collect())
        .collect();
    assert_eq!(
        lines,
        [
            vec!["build", "1"],
            vec!["1", "8", "done"],
            vec!["2", "7", "done"],
            vec!["3", "7", "exit"]
        ],
        "{list}"
    );
    assert!(list.contains("exit code: 3"), "{list}");
    assert!(list.contains("RUN echo one; echo two >&2"), "{list}");
    let one = log_of(&place, &["1"]);
    assert!(one == b"one\ntwo\n" || one == b"two\none\n");
    assert_eq!(log_of(&place, &["printf"]), b"partial");
    assert_eq!(log_of(&place, &["so far"]), b"so far\n");
    // What came from the cache did not run again; the list is that of the last build that ran something.
    place.file(
        "Dockerfile",
        "FROM busybox\nRUN echo one; echo two >&2\nRUN echo new\n",
    );
    place.build(&[]).success();
    place.build(&[]).success();
    let list = String::from_utf8(log_of(&place, &[])).unwrap();
    assert!(
        list.starts_with("build 2\n") && list.lines().count() == 2,
        "{list}"
    );
    assert_eq!(log_of(&place, &["new"]), b"new\n");
    assert_eq!(log_of(&place, &["--build=1", "partial"]), b"partial");
    let logs = |args: &[&str]| finish(place.command().arg("logs").args(args));
    logs(&["echo one"])
        .failure(2)
        .says("no step `echo one` ran in build 2");
    logs(&["--build=9"])
        .failure(2)
        .says("build 9 has no logs: those of 1 to 2 are kept");
    logs(&["--build=1", "echo"])
        .failure(2)
        .says("use a number:\nbuild 1\n");
}

#[test]
fn binary_output_and_endless_lines_survive() {
    let place = Place::with_dockerfile(
        "FROM busybox\nCOPY blob /blob\nRUN cat /blob\nRUN head -c 3000000 /dev/zero\n",
    );
    let blob: Vec<u8> = (0..=255_u8).cycle().take(1_000_003).collect();
    place.file("blob", &blob);
    for mode in ["plain", "rawjson", "quiet"] {
        let mut command = place.build_command();
        command
            .arg(format!("--progress={mode}"))
            .arg("--no-cache")
            .arg(place.context())
            .stdout(Stdio::null());
        finish(&mut command).success();
        assert!(log_of(&place, &["cat /blob"]) == blob, "{mode}");
        assert!(log_of(&place, &["zero"]) == vec![0; 3_000_000], "{mode}");
    }
}

#[test]
fn a_secret_is_nowhere_in_the_store_unless_a_command_prints_it() {
    let place = Place::with_dockerfile(
        "FROM busybox\nRUN --mount=type=secret,id=token,env=TOKEN test \"$(cat /run/secrets/token)\" = \"$TOKEN\" && echo same\n",
    );
    // The file and the variable are two mounts.
    place.file(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN \
         test \"$(cat /run/secrets/token)\" = \"$TOKEN\" && echo same\n",
    );
    fs::write(place.path("token"), "hunter2-very-secret").unwrap();
    let secret = format!("id=token,src={}", place.path("token").display());
    place.build(&["--secret", &secret]).success();
    assert_eq!(log_of(&place, &["1"]), b"same\n");
    let found = std::process::Command::new("grep")
        .args(["-r", "-l", "hunter2-very-secret"])
        .arg(place.path("root"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

#[test]
fn a_running_steps_log_can_be_read() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo first; sleep 3; echo last\n");
    let mut command = place.build_command();
    command.arg(place.context()).stderr(Stdio::null());
    let mut build = command.spawn().unwrap();
    let log = place.path("root/logs/1/1.log");
    let start = std::time::Instant::now();
    while fs::read(&log).unwrap_or_default() != b"first\n" {
        assert!(start.elapsed().as_secs() < 20, "no output");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(log_of(&place, &["1"]), b"first\n");
    let list = String::from_utf8(log_of(&place, &[])).unwrap();
    assert!(list.contains("not ended"), "{list}");
    assert!(build.wait().unwrap().success());
    assert_eq!(log_of(&place, &["1"]), b"first\nlast\n");
}

#[test]
fn a_full_disk_fails_the_build_and_says_so() {
    let place = Place::with_dockerfile("FROM busybox\nRUN yes | head -c 30000000; sleep 100\n");
    let root = place.path("small");
    fs::create_dir(&root).unwrap();
    let mounted = rustix::mount::mount(
        "tmpfs",
        &root,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"size=16m",
    );
    mounted.unwrap();
    let mut command = place.command();
    command.env("BUILD_ROOT", root.join("root"));
    let base = testdata("images/busybox");
    command
        .args(["build", "--progress=quiet", "--build-context"])
        .arg(format!("busybox=oci-layout://{}", base.display()))
        .arg(place.context());
    let start = std::time::Instant::now();
    let outcome = finish(&mut command);
    rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(start.elapsed().as_secs() < 60);
    outcome
        .failure(3)
        .says(".log`: ")
        .says("No space left on device");
}
