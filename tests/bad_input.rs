//! Input that cannot be built, and commands that fail: what the user is told, and what stays as it was.

use std::time::Duration;

use crate::support::process::{Running, assert_nothing_runs};
use crate::support::registry::Registry;
use crate::support::{Place, base, store, through_shell, wait_until};

#[test]
fn no_dockerfile() {
    let place = Place::new();
    place
        .build(&[])
        .failure(1)
        .says("failed to read dockerfile: open Dockerfile: no such file or directory");
    place
        .build(&["--file=other/Dockerfile.x"])
        .failure(1)
        .says("Dockerfile.x");
    place
        .file("Dockerfile", "")
        .build(&[])
        .failure(1)
        .says("the Dockerfile cannot be empty");
}

#[test]
fn no_context() {
    let place = Place::new();
    let mut command = place.build_command();
    let outcome = crate::support::finish(command.arg(place.path("missing")));
    assert!(matches!(outcome.code, Some(1..=3)), "{outcome:?}");
    outcome.says("missing");
}

#[test]
fn an_unknown_instruction_is_shown_in_its_place() {
    let place = Place::with_dockerfile("FROM busybox\nRUM echo\n");
    place
        .build(&[])
        .failure(1)
        .says("unknown instruction: RUM")
        .says("   2 | >>> RUM echo\n")
        .says("did you mean RUN?");
}

#[test]
fn another_frontend_is_refused_before_its_language_is_read() {
    let place = Place::with_dockerfile("# syntax=example/frontend:1\n%% no Dockerfile %%\n");
    for flags in [&[][..], &["--check"], &["--call=outline"]] {
        place
            .build(flags)
            .failure(1)
            .says("   1 | >>> # syntax=example/frontend:1\n")
            .says("frontend `example/frontend:1` cannot be used")
            .does_not_say("unknown instruction");
    }
    let place = Place::with_dockerfile("# syntax=docker/dockerfile:1.7-labs\nFROM busybox\n");
    place.build(&[]).success();
    place
        .build(&["--build-arg=BUILDKIT_SYNTAX=example/frontend"])
        .failure(1)
        .says("frontend `example/frontend` cannot be used")
        .says("leave the build argument out");
}

#[test]
fn an_unreadable_file_is_named() {
    let place = Place::with_dockerfile("FROM busybox\nCOPY . /all/\n").unprivileged();
    place.file("dir/secret", "x");
    let path = place.context().join("dir/secret");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let outcome = place.build(&[]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome:?}");
    outcome.says("dir/secret").says("ermission denied");
    place.file(".dockerignore", "dir\n").build(&[]).success();
}

#[test]
fn a_missing_source_is_named_with_its_line() {
    let place = Place::with_dockerfile("FROM busybox\nCOPY nothing /\n");
    place
        .build(&[])
        .failure(1)
        .says("\"/nothing\": not found")
        .says("   2 | >>> COPY nothing /\n");
}

#[test]
fn a_command_that_fails_tells_its_exit_code() {
    for (command, how) in [
        ("exit 42", "exit code: 42"),
        ("no-such-command", "exit code: 127"),
        ("/etc/passwd", "exit code: 126"),
        ("sh -c 'kill -9 $$'; exit $?", "exit code: 137"),
    ] {
        let place = Place::with_dockerfile(&format!("FROM busybox\nRUN {command}\n"));
        place.build(&[]).failure(1).says(how);
        store::assert_tidy(&place.root());
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let place = Place::with_dockerfile("FROM busybox\nRUN [\"/no/such\", \"program\"]\n");
    place
        .build(&[])
        .failure(1)
        .says("/no/such")
        .says("did not complete successfully");
}

#[test]
fn a_command_killed_from_outside_is_a_failed_step() {
    let place = Place::new();
    let word = place.word();
    place.file(
        "Dockerfile",
        format!("FROM busybox\nRUN : {word}; echo up-$((1+1)); while :; do sleep 1; done\n"),
    );
    let build = Running::start(place.build_command().arg(place.context()));
    build.wait_for("up-2");
    let id = || find_shell(&word);
    assert!(wait_until(Duration::from_secs(5), || id().is_some()));
    crate::support::signal(id().unwrap(), rustix::process::Signal::KILL);
    build
        .end(Duration::from_secs(10))
        .failure(1)
        .says("exit code: 137");
    assert_nothing_runs(&word);
}

/// The process of the step that has `word` in its command line.
fn find_shell(word: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| {
        let cmdline = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        cmdline.starts_with("/bin/sh\0-c\0: ") && cmdline.contains(word)
    })
}

#[test]
fn a_command_that_runs_out_of_memory_fails_and_the_build_says_so() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo 1 > /one\nRUN tail /dev/zero\n");
    let group = Group::of("memory", "memory.limit_in_bytes", "memory.max", 96 << 20);
    let mut command = place.build_command();
    command.arg(place.context());
    let build = Running::start(&mut through_shell(&group.script(), &command));
    let outcome = build.end(Duration::from_secs(60)).failure(1);
    let says = ["cannot allocate memory", "exit code: 137"];
    assert!(
        says.iter().any(|text| outcome.stderr.contains(text)),
        "{}",
        outcome.stderr
    );
    place.file(
        "Dockerfile",
        "FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n",
    );
    assert_eq!(place.build(&[]).success().cached(), ["RUN echo 1 > /one"]);
}

#[test]
fn few_threads_are_enough() {
    const COPIES: usize = 100;
    let registry = Registry::start();
    registry.fill(&base::busybox(), "busybox");
    let from = registry.name("busybox");
    let mut text = String::new();
    let mut last = "FROM scratch\n".to_owned();
    let place = Place::new();
    for number in 0..COPIES {
        // Half of them are the same step, which waits for the one that runs it.
        text.push_str(&format!("FROM {from} AS s{number}\nCOPY f /f{number}\n"));
        text.push_str(&format!("FROM scratch AS t{number}\nCOPY g{number} /g\n"));
        last.push_str(&format!("COPY --from=s{number} /f{number} /\n"));
        last.push_str(&format!("COPY --from=t{number} /g /\n"));
        place.file(&format!("g{number}"), "g");
    }
    place.file("Dockerfile", text + &last).file("f", "f");
    let group = Group::of("pids", "pids.max", "pids.max", 24);
    let mut command = place.build_command();
    let output = format!("--output=type=oci,dest={}", place.path("out.tar").display());
    command.arg(output).arg(place.context());
    let build = Running::start(&mut through_shell(&group.script(), &command));
    build.end(Duration::from_secs(60)).success();
}

/// A cgroup with little of something, of whichever version this machine has.
struct Group(std::path::PathBuf);

impl Group {
    /// Takes the controller, the names of its limit in both versions, and the limit.
    fn of(controller: &str, legacy: &str, unified: &str, most: u64) -> Self {
        let name = format!("build-test-{controller}-{}", std::process::id());
        let old = std::path::Path::new("/sys/fs/cgroup").join(controller);
        let (parent, file) = match old.exists() {
            true => (old, legacy),
            false => ("/sys/fs/cgroup".into(), unified),
        };
        let path = parent.join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(file), most.to_string()).unwrap();
        Self(path)
    }

    /// A script that runs its arguments in the group.
    fn script(&self) -> String {
        let group = self.0.display();
        format!("echo $$ > {group}/cgroup.procs && exec \"$@\"")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        wait_until(Duration::from_secs(2), || {
            std::fs::remove_dir(&self.0).is_ok()
        });
    }
}

#[test]
fn two_hundred_steps_are_no_limit() {
    let steps: String = (0..200)
        .map(|n| format!("RUN echo {n} >> /log\n"))
        .collect();
    let place = Place::with_dockerfile(&format!("FROM busybox\n{steps}"));
    let image = place.image(&[]);
    assert_eq!(image.layers.len(), 201);
    let wanted: String = (0..200).map(|n| format!("{n}\n")).collect();
    assert_eq!(image.text("log"), wanted);
    assert_eq!(place.build(&[]).success().ran(), [""; 0]);
}

#[test]
fn two_hundred_steps_without_privilege() {
    let steps: String = (0..200)
        .map(|n| format!("RUN echo {n} >> /log\n"))
        .collect();
    let place = Place::with_dockerfile(&format!("FROM busybox\n{steps}")).unprivileged();
    let image = place.image(&[]);
    assert_eq!(image.layers.len(), 201);
    assert_eq!(image.text("log").lines().count(), 200);
}

#[test]
fn names_that_try_to_leave_the_context_stay_inside() {
    let place = Place::with_dockerfile("FROM busybox\nCOPY ../../etc/hostname /x\n");
    place.build(&[]).failure(1).says("not found");
    std::os::unix::fs::symlink("/etc", place.context().join("link")).unwrap();
    place.file("Dockerfile", "FROM busybox\nCOPY link/hostname /x\n");
    place.build(&[]).failure(1).says("not found");
}

#[test]
fn a_failure_cancels_the_other_stages() {
    let place = Place::new();
    let word = place.word();
    place.file(
        "Dockerfile",
        format!("FROM busybox AS slow\nRUN : {word}; sleep 60; echo x > /x\nFROM busybox AS bad\nRUN sleep 0.5; exit 9\nFROM busybox\nCOPY --from=slow /x /\nCOPY --from=bad /y /\n"),
    );
    let start = std::time::Instant::now();
    place
        .build(&[])
        .failure(1)
        .says("exit code: 9")
        .says("CANCELED");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_nothing_runs(&word);
}
