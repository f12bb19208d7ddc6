//! What a store that was damaged, pruned, or cut off from the world still does: the right thing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::registry::Registry;
use crate::support::world::Random;
use crate::support::{Place, store, testdata};

const APP: &str = "FROM busybox
WORKDIR /srv
COPY src src/
RUN cat src/a > /built
RUN --mount=type=cache,target=/c echo x >> /c/n && echo second > /second
";

/// Files have the time of the epoch, so that what is made again is the same image.
const SAME: [&str; 1] = ["--build-arg=SOURCE_DATE_EPOCH=1000000000"];

fn place() -> Place {
    let place = Place::with_dockerfile(APP);
    place.file("src/a", "one\n");
    place
}

fn digest(place: &Place) -> String {
    let file = place.path("image.tar");
    let output = format!("type=oci,rewrite-timestamp=true,dest={}", file.display());
    place
        .build(&[&SAME[..], &["--output", &output]].concat())
        .success();
    crate::support::image::Image::read(&file).digest
}

fn settled(place: &Place) {
    store::settled(&place.path("root"));
}

#[test]
fn whatever_is_deleted_the_next_build_gives_the_same_image() {
    let place = place();
    let root = place.path("root");
    let first = digest(&place);
    settled(&place);
    let folders = [
        "trees", "layers", "blobs", "work", "chunks", "claims", "contexts", "sources",
    ];
    for folder in folders {
        fs::remove_dir_all(root.join(folder)).ok();
        assert_eq!(digest(&place), first, "without {folder}");
        settled(&place);
    }
    for file in ["db.sqlite", "db.sqlite-wal", "usage", "gate"] {
        fs::remove_file(root.join(file)).ok();
        assert_eq!(digest(&place), first, "without {file}");
        settled(&place);
    }
    // One entry of each folder at a time: every layer, tree and blob is missed once.
    for folder in ["trees", "layers", "blobs/sha256"] {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        let entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        for entry in entries {
            match entry.is_dir() {
                true => fs::remove_dir_all(&entry).ok(),
                false => fs::remove_file(&entry).ok(),
            };
            assert_eq!(digest(&place), first, "without {}", entry.display());
            settled(&place);
        }
    }
    place.run(["fsck"]).success();
}

#[test]
fn a_tree_that_a_power_cut_tore_is_not_used_after_the_reboot() {
    let place = place();
    let first = digest(&place);
    settled(&place);
    let root = place.path("root");
    // As if the machine had stopped before the disk was waited for, and lost what was in flight.
    for entry in fs::read_dir(root.join("layers")).unwrap() {
        let path = entry.unwrap().path().join("layer.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("unsynced"), "{text}");
        let torn = text.replace(
            "\"trees\"",
            "\"unsynced\":{\"native\":\"an-earlier-boot\",\"index\":\"an-earlier-boot\"},\"trees\"",
        );
        fs::write(path, torn).unwrap();
    }
    let mut files = Vec::new();
    store::files_below(&root.join("trees"), &mut files);
    let built = files.iter().find(|path| path.ends_with("built")).unwrap();
    fs::write(built, "").unwrap();
    assert_eq!(digest(&place), first);
    settled(&place);
    let checked = place.run(["fsck"]).success();
    assert!(checked.stdout.contains("all well"), "{}", checked.stdout);
}

#[test]
fn a_build_that_ran_nothing_leaves_nothing_to_wait_for() {
    let place = place();
    place.build(&[]).success();
    settled(&place);
    let before = fs::metadata(place.path("root/unsynced"))
        .unwrap()
        .modified()
        .unwrap();
    place.build(&[]).success();
    let after = fs::metadata(place.path("root/unsynced"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_flipped_bit_is_found_and_what_was_built_on_it_dropped() {
    let place = place();
    place.build(&["-t", "app"]).success();
    settled(&place);
    let mut files = Vec::new();
    store::files_below(&place.path("root/trees"), &mut files);
    let built = files.iter().find(|path| path.ends_with("built")).unwrap();
    fs::write(built, "onf\n").unwrap();
    let mut blobs = Vec::new();
    store::files_below(&place.path("root/blobs"), &mut blobs);
    blobs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let blob = blobs.last().unwrap();
    let mut bytes = fs::read(blob).unwrap();
    bytes[100] ^= 1;
    fs::write(blob, bytes).unwrap();
    let checked = place.run(["fsck"]).success();
    for finding in [
        "has other bytes than its digest says: removed",
        "has a tree that is not what its diff id says: tree removed",
        "names a layer that is gone: removed",
        "image docker.io/library/app:latest lacks a layer; build it again",
    ] {
        assert!(
            checked.stdout.contains(finding),
            "{finding}\n{}",
            checked.stdout
        );
    }
    assert_eq!(place.image(&["-t", "app"]).text("built"), "one\n");
    settled(&place);
    let checked = place.run(["fsck"]).success();
    assert!(checked.stdout.contains("all well"), "{}", checked.stdout);
}

/// What a write that the disk did not finish leaves: a file that ends early, or one with zeros in it.
fn tear(random: &mut Random, file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let at = random.index(bytes.len());
    match random.below(3) {
        0 => bytes.truncate(at),
        1 => bytes[at..].fill(0),
        _ => {
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(0);
        }
    }
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_torn_file_of_the_store_is_found_and_never_misread() {
    const TEARS: u64 = 4;
    let first = u64::from(std::process::id()) << 20;
    println!("seed {first}");
    let mut random = Random(first);
    let place = place();
    let root = place.root();
    let image = digest(&place);
    for part in [
        "blobs",
        "layers",
        "trees",
        "db.sqlite",
        "db.sqlite-wal",
        "chunks",
        "contexts",
        "sources",
        "tags",
    ] {
        for _ in 0..TEARS {
            place.build(&[&SAME[..], &["-t", "app"]].concat()).success();
            settled(&place);
            let mut files = Vec::new();
            match root.join(part).is_dir() {
                true => store::files_below(&root.join(part), &mut files),
                false => files.push(root.join(part)),
            }
            files.retain(|file| {
                fs::symlink_metadata(file).is_ok_and(|file| file.is_file() && file.len() > 0)
            });
            files.sort();
            let Some(file) = (!files.is_empty()).then(|| &files[random.index(files.len())]) else {
                continue;
            };
            tear(&mut random, file);
            let torn = file.display();
            let checked = place.run(["fsck"]);
            assert_eq!(checked.code, Some(0), "{torn}: {}", checked.stderr);
            assert_eq!(digest(&place), image, "{torn}");
            place.build(&[&SAME[..], &["-t", "app"]].concat()).success();
            settled(&place);
            let checked = place.run(["fsck"]).success();
            assert!(
                checked.stdout.contains("all well"),
                "{torn}: {}",
                checked.stdout
            );
        }
    }
}

#[test]
fn a_moved_tag_is_seen_once_the_last_answer_is_too_old() {
    let registry = Registry::start();
    let base = registry.name("base:1");
    registry.fill(&testdata("images/busybox"), "base:1");
    let place = Place::with_dockerfile(&format!(
        "FROM {base}\nRUN if [ -e /moved ]; then cat /moved; else echo first; fi > /out\n"
    ));
    let out = |args: &[&str]| place.image(args).text("out");
    assert_eq!(out(&[]), "first\n");
    let other = Place::with_dockerfile("FROM busybox\nRUN echo second > /moved\n");
    other.build(&["--push", "-t", &base]).success();
    let asked = registry.requests().len();
    assert_eq!(out(&["--pull=age:24h"]), "first\n");
    assert_eq!(registry.requests().len(), asked, "nobody is asked");
    std::thread::sleep(Duration::from_millis(1_100));
    let moved = place.build(&["--pull=age:1s", "--explain"]).success();
    moved.says("tag moved");
    // What was learnt is young again, and the old result is still there for who asks for the old image.
    for policy in ["--pull=age:24h", "--pull=missing"] {
        assert_eq!(out(&[policy]), "second\n");
    }
}

#[test]
fn an_unchanged_build_needs_no_network() {
    let registry = Registry::start();
    let base = registry.name("base:1");
    registry.fill(&testdata("images/busybox"), "base:1");
    let place = Place::with_dockerfile(&format!("FROM {base}\nCOPY a /a\nRUN cat /a > /b\n"));
    place.file("a", "x");
    let cold = place.build(&["--offline"]).failure(1);
    let missing = format!("{base} is not in the store, and nobody may be asked for it");
    cold.says(&missing);
    place.build(&[]).success();
    drop(registry);
    let started = Instant::now();
    place.build(&["--offline"]).success().says("CACHED");
    assert!(started.elapsed() < Duration::from_secs(5));
    for policy in ["--pull=never", "--pull=missing", "--pull=age:24h"] {
        place
            .build(&[policy])
            .success()
            .does_not_say("cannot be reached");
    }
    place.build(&[]).success().says("cannot be reached");
    let push = format!("type=image,push=true,name={}", base.replace("base", "app"));
    place
        .build(&["--offline", "--output", &push])
        .failure(3)
        .says("nobody may be asked for it");
}

#[test]
fn only_named_stages_run_anew() {
    let place = Place::with_dockerfile(
        "FROM busybox AS one\nRUN echo one > /one\nFROM busybox\nRUN echo two > /two\nCOPY --from=one /one /\n",
    );
    place.build(&[]).success();
    let again = place.build(&["--no-cache-filter=one"]).success();
    let line_after = |text: &str| {
        let at = again.stderr.find(text).unwrap();
        let rest = &again.stderr[at..];
        rest.lines().nth(1).unwrap().to_owned()
    };
    assert!(
        line_after("RUN echo two").ends_with("CACHED"),
        "{}",
        again.stderr
    );
    assert!(
        !line_after("RUN echo one").ends_with("CACHED"),
        "{}",
        again.stderr
    );
}

#[test]
fn a_database_of_another_version_is_set_aside_with_a_word() {
    let place = place();
    place.build(&[]).success();
    settled(&place);
    // `user_version` is the big-endian number at byte 60 of the header.
    let path = place.path("root/db.sqlite");
    let set_version = |version: u8| {
        fs::remove_file(place.path("root/db.sqlite-wal")).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[63] = version;
        fs::write(&path, bytes).unwrap();
    };
    // Until it is folded into the database, the log has all of it.
    let folded = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('pragma wal_checkpoint(truncate)')";
    let mut fold = std::process::Command::new(crate::support::program("python3", "python3"));
    crate::support::finish(fold.args(["-c", folded]).arg(&path)).success();
    for version in [1, 99] {
        fs::write(place.path("root/db.sqlite-wal"), "").unwrap();
        set_version(version);
        let told = "the cache database was damaged or of another version: moved to `";
        let outcome = place.build(&[]).success().says(told);
        assert!(outcome.ran().contains(&"RUN cat src/a > /built".to_owned()));
        place.build(&[]).success().does_not_say(told);
        settled(&place);
        crate::support::finish(fold.args(["-c", folded]).arg(&path)).success();
    }
}

#[test]
fn a_result_made_without_the_cache_stays_when_memos_are_forgotten() {
    let place = Place::with_dockerfile(
        "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /id\nRUN cp /id /copy\nFROM busybox\nCOPY --from=one /id /copy /\n",
    );
    let ids = |args: &[&str]| {
        let image = place.image(args);
        assert_eq!(image.text("id"), image.text("copy"));
        image.text("id")
    };
    let first = ids(&[]);
    let second = ids(&["--no-cache"]);
    assert_ne!(first, second);
    let forget = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('delete from memo'); c.commit()";
    let mut command = std::process::Command::new(crate::support::program("python3", "python3"));
    command
        .args(["-c", forget])
        .arg(place.path("root/db.sqlite"));
    crate::support::finish(&mut command).success();
    assert_eq!(ids(&[]), second);
}

#[test]
fn a_flipped_bit_leaves_by_no_output_and_is_gone_after_one() {
    for kind in ["oci", "docker", "tar", "local"] {
        let place = place();
        place.build(&["-t", "app"]).success();
        settled(&place);
        let mut files = Vec::new();
        store::files_below(&place.path("root/trees"), &mut files);
        let built = files.iter().find(|path| path.ends_with("built")).unwrap();
        let before = fs::metadata(built).unwrap().modified().unwrap();
        fs::write(built, "onf\n").unwrap();
        let file = fs::File::options().write(true).open(built).unwrap();
        file.set_modified(before).unwrap();
        let output = format!("type={kind},dest={}", place.path("out").display());
        let outcome = place.build(&["--output", &output]).failure(3);
        outcome.says("damaged").says("build again");
        assert_eq!(place.image(&["-t", "app"]).text("built"), "one\n", "{kind}");
        let checked = place.run(["fsck"]).success();
        assert!(checked.stdout.contains("all well"), "{}", checked.stdout);
    }
}
