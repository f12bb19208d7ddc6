//! What a build may cost, as far as that does not depend on how busy the machine is: memory, and what is not looked at.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::support::Place;
use crate::support::process::measured;

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

#[test]
fn a_file_larger_than_memory_may_be_takes_little() {
    let place = Place::with_dockerfile("FROM scratch\nCOPY big /\n");
    let big = File::create(place.context().join("big")).unwrap();
    big.set_len(1 << 30).unwrap();
    assert_small(&place, "one file");
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
