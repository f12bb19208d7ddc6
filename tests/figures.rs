//! What a build may cost, as far as that does not depend on how busy the machine is: memory, and what is not looked at.

use std::fs::{self, File};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::support::Place;
use crate::support::process::{Spent, measured, spent_by};

/// The most memory that a build may take at once, in KB.
const MOST_MEMORY: u64 = 256 << 10;

/// Builds with the image exported, so that layers are compressed too.
#[track_caller]
fn assert_small(place: &Place, what: &str) {
    let output = format!("--output=type=oci,dest={}", place.path("out.tar").display());
    let (outcome, most) = measured(place, &place.context(), &[&output]);
    drop(outcome.success());
    assert!(most > 0 && most < MOST_MEMORY, "{most} KB for {what}");
}

#[test]
fn a_tree_of_many_files_takes_little_memory() {
    let place = Place::with_dockerfile("FROM scratch\nCOPY . /\n");
    for number in 0..20_000 {
        let path = format!("s/p{}/q{}/f{number}", number % 97, number % 13);
        place.file(&path, format!("{number}\n").repeat(200));
    }
    assert_small(&place, "20 000 files");
    assert_small(&place, "20 000 files, unchanged");
    place.file("s/p1/q1/f1", "edited\n");
    assert_small(&place, "20 000 files, one edited");
}

/// Bytes of memory that a file more of a context may take. A build from nothing takes twice to three times that, as it
/// holds what was selected, what is planned and what is learnt for the next build, of which an unchanged one holds half.
const BYTES_A_FILE: u64 = 256;

/// What a build of one file takes, in KB, with something to spare: the program itself, the stacks of its threads, buffers.
const ONE_FILE: u64 = 14 << 10;

#[test]
fn memory_grows_by_few_bytes_a_file() {
    const FILES: u64 = 20_000;
    let place = Place::with_dockerfile("FROM scratch\nCOPY . /x\n");
    for number in 0..FILES {
        place.file(&format!("d{:03}/file-{number:05}", number / 200), "text");
    }
    for (what, times) in [("anew", 3), ("unchanged", 2)] {
        let (outcome, most) = measured(&place, &place.context(), &[]);
        drop(outcome.success());
        let limit = ONE_FILE + ((FILES * BYTES_A_FILE * times) >> 10);
        assert!(most > 0 && most < limit, "{most} KB of {limit}, {what}");
    }
}

#[test]
fn files_of_a_stage_take_little_memory_too() {
    const FILES: u64 = 20_000;
    let place =
        Place::with_dockerfile("FROM scratch AS a\nCOPY . /x\nFROM scratch\nCOPY --from=a /x /y\n");
    for number in 0..FILES {
        place.file(&format!("d{:03}/file-{number:05}", number / 200), "text");
    }
    place.build(&["--target=a"]).success();
    let (outcome, most) = measured(&place, &place.context(), &[]);
    drop(outcome.success());
    // The index of the stage's layer, what is selected, and what is planned.
    let limit = ONE_FILE + ((FILES * BYTES_A_FILE * 3) >> 10);
    assert!(most > 0 && most < limit, "{most} KB of {limit}");
}

#[test]
fn a_file_larger_than_memory_may_be_takes_little() {
    let place = Place::with_dockerfile("FROM scratch\nCOPY big /\n");
    let big = File::create(place.context().join("big")).unwrap();
    big.set_len(1 << 30).unwrap();
    assert_small(&place, "one file");
}

/// Bytes that each of the commands below writes, in pieces of 4 KB.
const OUTPUT_BYTES: usize = 64 << 20;

/// What the same bytes cost when they go through a pipe into a file by hand: time of processors.
fn by_hand(place: &Place, input: &str) -> Duration {
    let script = format!("{} | cat > \"$2\"; times", writing("\"$1\""));
    let output = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(place.context().join(input))
        .arg(place.path("by-hand"))
        .output()
        .unwrap();
    // The last line is about children: `0m0.03s 0m0.11s`.
    let text = String::from_utf8(output.stdout).unwrap();
    let times = text.lines().last().unwrap().split(' ').map(|time| {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
        60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
    });
    Duration::from_secs_f64(times.sum())
}

/// A command that writes a file of 1 MB again and again.
fn writing(file: &str) -> String {
    let times = OUTPUT_BYTES >> 20;
    format!("for i in $(seq {times}); do dd if={file} bs=4k 2>/dev/null; done")
}

#[test]
fn much_output_is_kept_whole_and_costs_little() {
    let binary = (0..=255_u8).cycle().map(|byte| byte.wrapping_mul(7));
    let line = "0123456789abcdef".repeat(5).replace("f0", "\n0");
    let inputs: [(&str, Vec<u8>); 3] = [
        ("lines", line.bytes().cycle().take(1 << 20).collect()),
        ("endless", vec![b'x'; 1 << 20]),
        ("binary", binary.take(1 << 20).collect()),
    ];
    for (name, content) in inputs {
        let command = writing(&format!("/{name}"));
        let text = format!("FROM busybox\nCOPY {name} /\nRUN {command}\n");
        let place = Place::with_dockerfile(&text);
        place.file(name, &content);
        let by_hand = by_hand(&place, name);
        for mode in ["plain", "quiet"] {
            let spent = spent_showing(&place, mode);
            assert!(spent.most_memory < 64 << 10, "{name} {mode}: {spent:?}");
            assert!(
                spent.processor < 6 * by_hand + Duration::from_millis(300),
                "{name} {mode}: {spent:?}, {by_hand:?} by hand"
            );
            assert_log_repeats(&place, &content);
        }
    }
}

/// Builds anew, with what is shown going nowhere.
fn spent_showing(place: &Place, mode: &str) -> Spent {
    let mut command = place.build_command();
    command.args(["--no-cache", "--progress", mode]);
    command
        .arg(place.context())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut build = command.spawn().unwrap();
    let spent = spent_by(&build);
    assert!(build.wait().unwrap().success(), "{mode}");
    spent
}

/// The log of the last build has what [`writing`] writes, and is removed.
fn assert_log_repeats(place: &Place, content: &[u8]) {
    let logs = place.root().join("logs");
    let last = fs::read_dir(&logs)
        .unwrap()
        .map(|log| log.unwrap().path())
        .max()
        .unwrap();
    let mut log = File::open(last.join("1.log")).unwrap();
    assert_eq!(log.metadata().unwrap().len(), OUTPUT_BYTES as u64);
    let mut piece = vec![0; content.len()];
    for at in (0..OUTPUT_BYTES).step_by(content.len()) {
        log.read_exact(&mut piece).unwrap();
        assert!(piece == content, "differs in the MB from {at}");
    }
    fs::remove_dir_all(last).unwrap();
}

/// Watches what is opened: a directory, and the files in it.
fn watch(path: &Path) -> OwnedFd {
    let watched = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    let _number = inotify::add_watch(&watched, path, WatchFlags::OPEN).unwrap();
    watched
}

/// What was opened, by name; the directory itself has none.
fn opened(watched: &OwnedFd) -> Vec<String> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watched, &mut buffer);
    let mut names = Vec::new();
    loop {
        match events.next() {
            Ok(event) => {
                assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
                let name = event.file_name().map(|name| name.to_str().unwrap());
                names.push(name.unwrap_or_default().to_owned());
            }
            Err(Errno::WOULDBLOCK) => return names,
            Err(errno) => panic!("cannot read events: {errno}"),
        }
    }
}

#[test]
fn an_ignored_directory_is_never_opened() {
    let place = Place::with_dockerfile("FROM scratch\nCOPY . /\nCOPY kep* /again/\n");
    place.file(".dockerignore", "node_modules\n**/*.log\n!kept/a.log\n");
    for name in [
        "node_modules/a",
        "node_modules/sub/b",
        "kept/f",
        "kept/a.log",
    ] {
        place.file(name, name);
    }
    let big = File::create(place.context().join("node_modules/big")).unwrap();
    big.set_len(10 << 30).unwrap();
    let folders = ["node_modules", "node_modules/sub", "kept"];
    let watched = folders.map(|name| watch(&place.context().join(name)));
    let image = place.image(&[]);
    assert_eq!(image.text("again/f"), "kept/f");
    let [ignored, below, kept] = watched.each_ref().map(opened);
    assert_eq!((ignored, below), (Vec::new(), Vec::new()));
    for name in ["", "f", "a.log"] {
        assert!(
            kept.iter().any(|seen| seen == name),
            "`{name}` was not seen"
        );
    }
    // Neither is it when something else has changed.
    fs::write(place.context().join("kept/f"), "changed").unwrap();
    drop(place.build(&[]).success());
    let [ignored, below, _] = watched.each_ref().map(opened);
    assert_eq!((ignored, below), (Vec::new(), Vec::new()));
}
