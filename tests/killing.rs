//! What holds when a builder, or the process that forks its steps, is killed: nothing goes on, nothing is left, and locks last
//! exactly as long as what they protect.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::process::{Running, assert_nothing_mounted, assert_nothing_runs};
use crate::support::{Place, store, wait_until};

/// The process that forks the steps of a build.
fn init_of(build: &Running) -> u32 {
    let id = build.id();
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let children = tasks
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children: String = children.collect();
    let is_init = |id: &&str| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == b"sandbox-init")
    };
    let init = children.split_whitespace().find(is_init).unwrap();
    init.parse().unwrap()
}

/// A process that is stopped until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(id: u32) -> Self {
        crate::support::signal(id, Signal::STOP);
        Self(id)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        crate::support::signal(self.0, Signal::CONT);
    }
}

/// The cgroups that a forking process has made.
fn cgroups_of(init: u32) -> Vec<PathBuf> {
    let mut bases = vec![PathBuf::from("/sys/fs/cgroup")];
    let mounted = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    bases.extend(mounted.map(|entry| entry.path()));
    bases
        .iter()
        .map(|base| base.join("build").join(init.to_string()))
        .filter(|dir| dir.exists())
        .collect()
}

/// Whether a process has a word in its command line.
fn is_any_at_work(word: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        entry.file_name().to_string_lossy().parse().ok() != Some(std::process::id())
            && String::from_utf8_lossy(&line).contains(word)
    })
}

fn assert_gone_within_a_second(word: &str, since: Instant) {
    let gone = wait_until(Duration::from_secs(5), || !is_any_at_work(word));
    assert!(gone, "processes were left behind");
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
}

#[test]
fn a_killed_builders_steps_end_within_a_second_and_leave_nothing() {
    let flags: &[&str] = if Path::new("/sys/fs/cgroup/memory").exists() {
        &["--resource=memory=256m"]
    } else {
        &[]
    };
    kill_at_work(&Place::new(), flags, |init| {
        assert!(!cgroups_of(init).is_empty());
    });
}

#[test]
fn an_ordinary_users_steps_end_as_fast() {
    kill_at_work(&Place::new().unprivileged(), &[], |init| {
        assert_eq!(cgroups_of(init), Vec::<PathBuf>::new());
    });
}

/// Kills a builder with two steps at work, whose daemons don't want to end.
fn kill_at_work(place: &Place, flags: &[&str], while_at_work: impl Fn(u32)) {
    let word = place.word();
    // Daemons in sessions of their own, two forks away, that ignore what can be ignored.
    let stage = |n: usize, flags: &str| {
        format!(
            "FROM busybox AS s{n}\nRUN {flags} : {word}; trap '' TERM INT HUP; for i in 1 2 3 4 5 6 7 8; do \
             (setsid sh -c 'trap \"\" TERM; : {word}; while :; do sleep 1; done' &) & done; sleep 0.2; echo up-$((10+{n})); \
             while :; do sleep 1; done\n"
        )
    };
    let text = format!(
        "{}{}FROM busybox\nCOPY --from=s0 /etc/passwd /0\nCOPY --from=s1 /etc/passwd /1\n",
        stage(0, "--network=none"),
        stage(
            1,
            "--mount=type=cache,target=/c,sharing=locked --mount=type=tmpfs,target=/t"
        ),
    );
    place.file("Dockerfile", text);
    let mut command = place.build_command();
    let build = Running::start(command.args(flags).arg(place.context()));
    build.wait_for("up-10").wait_for("up-11");
    let init = init_of(&build);
    while_at_work(init);
    let since = Instant::now();
    build.signal(Signal::KILL);
    assert_gone_within_a_second(&word, since);
    let none_left = || cgroups_of(init).is_empty();
    assert!(wait_until(Duration::from_secs(1), none_left));
    assert_eq!(build.end(Duration::from_secs(1)).code, None);
    assert_nothing_runs(&word);
    assert_nothing_mounted(&place.path(""));
    store::assert_sound(&place.root());
}

#[test]
fn a_claim_lasts_as_long_as_the_step_of_a_killed_builder() {
    let place = Place::new();
    let word = place.word();
    let text = format!("FROM busybox\nRUN : {word}; echo up-$((10+1)); sleep 2; echo x > /x\n");
    place.file("Dockerfile", text);
    let build = Running::start(place.build_command().arg(place.context()));
    build.wait_for("up-11");
    let init = init_of(&build);
    // It cannot kill the step while it is stopped: the step outlives the builder, and so must the claim.
    let stopped = Stopped::new(init);
    build.signal(Signal::KILL);
    let second = Running::start(place.build_command().arg(place.context()));
    second.wait_for("[context busybox]");
    std::thread::sleep(Duration::from_secs(1));
    let log = place.root().join("logs/2");
    assert!(!log.exists(), "the second build ran the step as well");
    drop(stopped);
    // Only now: it holds the builder's standard error.
    assert_eq!(build.end(Duration::from_secs(5)).code, None);
    second.wait_for("up-11");
    second.end(Duration::from_secs(20)).success();
    assert_nothing_runs(&word);
}

#[test]
fn a_locked_cache_of_a_killed_builder_is_free_for_the_next() {
    let place = Place::new();
    let word = place.word();
    let step = |command: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked : {word}; {command}\n"
        )
    };
    place.file(
        "Dockerfile",
        step("echo kept > /c/f; echo up-$((10+1)); sleep 1000"),
    );
    let build = Running::start(place.build_command().arg(place.context()));
    build.wait_for("up-11").signal(Signal::KILL);
    assert_eq!(build.end(Duration::from_secs(1)).code, None);
    place.file("Dockerfile", step("cat /c/f > /out"));
    assert_eq!(place.image(&[]).text("out"), "kept\n");
}

#[test]
fn a_builder_whose_forking_process_is_killed_fails_and_does_not_hang() {
    let place = Place::new();
    let word = place.word();
    let text = format!("FROM busybox\nRUN : {word}; sleep 1000 & echo up-$((10+1)); sleep 1000\n");
    place.file("Dockerfile", text);
    let build = Running::start(place.build_command().arg(place.context()));
    build.wait_for("up-11");
    let since = Instant::now();
    let init = init_of(&build);
    crate::support::signal(init, Signal::KILL);
    build
        .end(Duration::from_secs(5))
        .failure(1)
        .says("lost the connection to sandbox-init")
        .does_not_say("panicked");
    assert_gone_within_a_second(&word, since);
    assert_nothing_mounted(&place.path(""));
    // Its cgroups are removed by the next build.
    place.file("Dockerfile", "FROM busybox\nRUN true\n");
    place.build(&[]).success();
    assert_eq!(cgroups_of(init), Vec::<PathBuf>::new());
}
