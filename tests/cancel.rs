//! Builds that are interrupted or killed leave nothing running, mounted or half-written.

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::process::{Running, assert_nothing_mounted, assert_nothing_runs};
use crate::support::{Place, store};

/// Three stages that never end, each with a background process, joined by the last stage.
fn endless(word: &str) -> String {
    let stages: String = (0..3)
        .map(|n| {
            format!("FROM busybox AS s{n}\nRUN : {word}; (while :; do sleep 1; done) & echo up-$(({n}+10)); while :; do sleep 1; done\n")
        })
        .collect();
    let copies: String = (0..3)
        .map(|n| format!("COPY --from=s{n} /etc/passwd /p{n}\n"))
        .collect();
    format!("{stages}FROM busybox\n{copies}")
}

/// A build whose three commands are running.
fn at_work() -> (Place, Running) {
    let place = Place::new();
    place.file("Dockerfile", endless(&place.word()));
    // Without cache, so that what the last stage copies is not waited for one by one.
    let mut command = place.build_command();
    let build = Running::start(command.arg("--no-cache").arg(place.context()));
    build.wait_for("up-10").wait_for("up-11").wait_for("up-12");
    (place, build)
}

fn assert_nothing_left(place: &Place) {
    assert_nothing_runs(&place.word());
    assert_nothing_mounted(&place.path(""));
    store::assert_sound(&place.root());
}

#[test]
fn an_interrupt_ends_every_step() {
    for signal in [Signal::INT, Signal::TERM] {
        let (place, build) = at_work();
        build.signal(signal);
        let outcome = build.end(Duration::from_secs(5)).failure(130);
        outcome.says("CANCELED").does_not_say("panicked");
        assert_nothing_left(&place);
        store::assert_tidy(&place.root());
    }
}

#[test]
fn the_interrupt_of_a_terminal_reaches_the_whole_group() {
    let place = Place::new();
    place.file("Dockerfile", endless(&place.word()));
    let mut command = place.build_command();
    command
        .arg("--no-cache")
        .arg(place.context())
        .process_group(0);
    let build = Running::start(&mut command);
    build.wait_for("up-10").wait_for("up-11").wait_for("up-12");
    let group = rustix::process::Pid::from_raw(i32::try_from(build.id()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    let outcome = build.end(Duration::from_secs(5)).failure(130);
    outcome.does_not_say("panicked");
    assert_nothing_left(&place);
    store::assert_tidy(&place.root());
}

#[test]
fn a_second_interrupt_kills_at_once() {
    let (place, build) = at_work();
    build.signal(Signal::INT).signal(Signal::INT);
    let outcome = build.end(Duration::from_secs(2));
    assert_ne!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_nothing_left(&place);
}

#[test]
fn a_build_that_waits_for_a_reader_can_be_interrupted() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo 1 > /one\n");
    let fifo = place.path("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let output = format!("--output=type=oci,dest={}", fifo.display());
    let build = Running::start(place.build_command().arg(output).arg(place.context()));
    build.wait_for("exporting");
    build.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    build.signal(Signal::INT);
    let outcome = build.end(Duration::from_secs(2));
    assert_ne!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_nothing_left(&place);
}

#[test]
fn an_interrupted_export_leaves_no_file() {
    let text =
        "FROM busybox\nRUN for i in 1 2 3 4; do dd if=/dev/urandom of=/r$i bs=1M count=64; done\n";
    let place = Place::with_dockerfile(text);
    place.build(&[]).success();
    let file = place.path("image.tar");
    fs::write(&file, "precious").unwrap();
    let output = format!("--output=type=oci,dest={}", file.display());
    let build = Running::start(place.build_command().arg(output).arg(place.context()));
    build.wait_for("exporting").signal(Signal::INT);
    build.end(Duration::from_secs(10)).failure(130);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let names = fs::read_dir(place.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["context", "home", "image.tar", "root", "tmp"]);
    store::assert_sound(&place.root());
}

#[test]
fn a_killed_build_leaves_nothing_running_and_a_store_to_go_on_with() {
    let place = Place::new();
    let text = format!(
        "FROM busybox\nRUN echo 1 > /one\nRUN : {}; echo u\"\"p; sleep 1000\n",
        place.word()
    );
    place.file("Dockerfile", text);
    let build = Running::start(place.build_command().arg(place.context()));
    build.wait_for(" up\n").signal(Signal::KILL);
    assert_eq!(build.end(Duration::from_secs(5)).code, None);
    assert_nothing_left(&place);
    place.file(
        "Dockerfile",
        "FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\n",
    );
    let outcome = place.build(&[]).success();
    assert_eq!(outcome.cached(), ["RUN echo 1 > /one"]);
    assert_eq!(place.image(&[]).text("two"), "2\n");
}

#[test]
fn killed_at_any_instant_the_store_serves_the_next_build() {
    let steps: String = (0..12)
        .map(|n| format!("RUN echo {n} > /n{n}\nCOPY f{n} /f{n}\n"))
        .collect();
    let place = Place::with_dockerfile(&format!("FROM busybox\n{steps}"));
    for n in 0..12 {
        place.file(&format!("f{n}"), vec![b'x'; 100_000 * n]);
    }
    for delay in [15, 40, 70, 110, 160, 220, 300, 400] {
        let output = format!(
            "--output=type=oci,dest={}",
            place.path("image.tar").display()
        );
        let build = Running::start(place.build_command().arg(output).arg(place.context()));
        std::thread::sleep(Duration::from_millis(delay));
        build.signal(Signal::KILL);
        let _killed = build.end(Duration::from_secs(5));
        assert_nothing_left(&place);
    }
    let image = place.image(&[]);
    let files = image.files();
    for n in 0..12 {
        assert_eq!(files[&format!("n{n}")].content, format!("{n}\n").as_bytes());
        assert_eq!(files[&format!("f{n}")].content.len(), 100_000 * n);
    }
}

#[test]
fn a_step_waiting_for_a_killed_builds_step_goes_on() {
    let place = Place::new();
    let text = format!(
        "FROM busybox\nRUN : {}; echo up-$((1+1)); sleep 3; echo done > /done\n",
        place.word()
    );
    place.file("Dockerfile", text);
    let first = Running::start(place.build_command().arg(place.context()));
    first.wait_for("up-2");
    let second = Running::start(place.build_command().arg(place.context()));
    std::thread::sleep(Duration::from_millis(300));
    first.signal(Signal::KILL);
    let _killed = first.end(Duration::from_secs(5));
    second.wait_for("up-2");
    second.end(Duration::from_secs(20)).success();
    assert_nothing_left(&place);
}
