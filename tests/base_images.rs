//! Bases that are not there, not for us, or not what they claim to be.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::faulty::{Fault, Faulty, root};
use crate::support::process::Running;
use crate::support::registry::Registry;
use crate::support::{Place, base, finish, store, wait_until};

/// How long a build may take to come to a point, or to its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A build on the small base of this registry.
fn on(address: &str) -> Place {
    Place::with_dockerfile(&format!("FROM {address}/busybox\nRUN echo 1 > /one\n"))
}

/// The small base's manifest.
fn manifest() -> Value {
    let layout = base::busybox();
    let path = layout.join("blobs").join(root(&layout).replace(':', "/"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_base_that_does_not_exist_is_named_with_its_line() {
    let registry = Registry::start();
    let outcome = on(&registry.address).build(&[]).failure(1);
    outcome
        .says(&format!("{}/busybox:latest: not found", registry.address))
        .says(&format!("   1 | >>> FROM {}/busybox\n", registry.address));
}

#[test]
fn a_registry_that_is_down_is_named() {
    let registry = Registry::start();
    let place = on(&registry.address);
    let address = registry.address.clone();
    drop(registry);
    let start = Instant::now();
    place
        .build(&[])
        .failure(1)
        .says("failed to do request: Head")
        .says(&address);
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_registry_that_fails_is_asked_again_and_then_given_up() {
    let faulty = Faulty::start(&base::busybox(), Fault::StatusFirst(503, 2));
    assert_eq!(on(&faulty.address).image(&[]).text("one"), "1\n");
    assert!(faulty.requests().len() > 3, "{:?}", faulty.requests());
    let faulty = Faulty::start(&base::busybox(), Fault::Status(500));
    on(&faulty.address).build(&[]).failure(1).says("500");
}

#[test]
fn a_layer_is_unpacked_while_it_arrives() {
    let held = Faulty::start(&base::busybox(), Fault::Held);
    let place = on(&held.address);
    let build = Running::start(place.build_command().arg(place.context()));
    // `work/LEASE/tN-N` is a tree that is being made.
    let is_begun = || {
        let trees = fs::read_dir(place.root().join("work"))
            .into_iter()
            .flatten();
        let mut trees =
            trees.flat_map(|lease| fs::read_dir(lease.unwrap().path()).into_iter().flatten());
        trees.any(|tree| {
            let tree = tree.unwrap();
            tree.file_name().as_encoded_bytes().starts_with(b"t")
                && fs::read_dir(tree.path()).is_ok_and(|mut inside| inside.next().is_some())
        })
    };
    assert!(wait_until(PATIENCE, is_begun), "nothing was unpacked");
    let root = place.root();
    for layer in manifest()["layers"].as_array().unwrap() {
        assert!(!store::has_blob(&root, layer["digest"].as_str().unwrap()));
    }
    assert!(fs::read_dir(root.join("trees")).unwrap().next().is_none());
    held.let_go();
    build.end(PATIENCE).success().says("RUN echo 1 > /one");
    store::assert_sound(&root);
    store::assert_tidy(&root);
}

#[test]
fn a_layer_of_which_only_part_has_come_is_not_known() {
    let held = Faulty::start(&base::busybox(), Fault::Held);
    let place = Place::with_dockerfile(&format!(
        "FROM {}/busybox\nCOPY Dockerfile /x\n",
        held.address
    ));
    let build = Running::start(place.build_command().arg(place.context()));
    let is_asked_for = || held.requests().len() > 3;
    assert!(wait_until(PATIENCE, is_asked_for), "{:?}", held.requests());
    let root = place.root();
    // Its index is being read.
    std::thread::sleep(Duration::from_millis(200));
    let known = fs::read_dir(root.join("layers")).unwrap().count();
    assert_eq!(known, 0, "a layer that is not here");
    held.let_go();
    drop(build.end(PATIENCE).success());
    store::assert_sound(&root);
    store::assert_tidy(&root);
}

#[test]
fn a_truncated_layer_never_enters_the_store() {
    damaged(Fault::Truncated);
}

#[test]
fn a_corrupt_layer_never_enters_the_store() {
    damaged(Fault::Corrupt);
}

/// Builds on a damaged base, which must fail, and then on a sound one with the same digests in the same store.
fn damaged(fault: Fault) {
    let faulty = Faulty::start(&base::busybox(), fault);
    let place = on(&faulty.address);
    let digest = manifest()["layers"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let outcome = place.build(&[]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome:?}");
    outcome.says(&digest[7..]).does_not_say("panicked");
    store::assert_sound(&place.root());
    store::assert_tidy(&place.root());
    assert!(!store::has_blob(&place.root(), &digest));
    let sound = Registry::start();
    sound.fill(&base::busybox(), "busybox");
    place.file(
        "Dockerfile",
        format!("FROM {}/busybox\nRUN echo 1 > /one\n", sound.address),
    );
    assert_eq!(place.image(&[]).text("one"), "1\n");
}

#[test]
fn a_manifest_of_another_digest_is_refused() {
    let faulty = Faulty::start(&base::busybox(), Fault::WrongManifest);
    let digest = root(&base::busybox());
    let place = Place::with_dockerfile(&format!(
        "FROM {}/busybox@{digest}\nRUN true\n",
        faulty.address
    ));
    place.build(&[]).failure(1).says(&digest);
    store::assert_sound(&place.root());
    assert!(!store::has_blob(&place.root(), &digest));
}

#[test]
fn a_layer_that_is_not_its_diff_id_is_refused() {
    let layout = with_wrong_diff_id();
    let place =
        Place::with_dockerfile("FROM wrong\nRUN echo 1 > /one\n").with_base("wrong", layout.path());
    let outcome = place.build(&[]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome:?}");
    outcome
        .says(&format!("sha256:{}", "0".repeat(64)))
        .does_not_say("panicked");
    store::assert_sound(&place.root());
}

/// The small base with a config that tells another diff id.
fn with_wrong_diff_id() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("layer.tar");
    fs::write(&tar, [0; 1024]).unwrap();
    let layout = dir.path();
    crate::support::layout::write(layout, &[&tar], &crate::support::layout::config());
    let index: Value = read(&layout.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let mut manifest: Value = read(&layout.join("blobs").join(digest.replace(':', "/")));
    let config = manifest["config"]["digest"].as_str().unwrap();
    let mut config: Value = read(&layout.join("blobs").join(config.replace(':', "/")));
    config["rootfs"]["diff_ids"][0] = format!("sha256:{}", "0".repeat(64)).into();
    manifest["config"] =
        crate::support::layout::put(layout, "application/vnd.oci.image.config.v1+json", &config);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let entry = crate::support::layout::put(layout, media_type, &manifest);
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    dir
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_layout_that_is_not_there_is_named() {
    let place = Place::with_dockerfile("FROM gone\n").with_base("gone", Path::new("/nonexistent"));
    let outcome = place.build(&[]);
    assert!(matches!(outcome.code, Some(1..=3)), "{outcome:?}");
    outcome.says("/nonexistent").does_not_say("panicked");
}

#[test]
fn the_base_is_not_asked_for_again_when_it_is_named_by_digest() {
    let registry = Registry::start();
    registry.fill(&base::busybox(), "busybox");
    let digest = root(&base::busybox());
    let place = Place::with_dockerfile(&format!(
        "FROM {}/busybox@{digest}\nRUN true\n",
        registry.address
    ));
    place.build(&[]).success();
    let before = registry.requests().len();
    place.build(&[]).success();
    assert_eq!(registry.requests().split_off(before), [""; 0]);
}

/// The way to cross-compile: commands run here, what they made goes into an image for another machine.
#[test]
fn commands_run_on_the_platform_of_their_base() {
    let machine = json!({"amd64": "arm64", "arm64": "amd64"});
    let here = crate::support::layout::config()["architecture"].clone();
    let other = machine[here.as_str().unwrap()].as_str().unwrap();
    let platform = format!("--platform=linux/{other}");
    let place = Place::with_dockerfile(
        "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN echo made > /made\n\
         FROM build AS more\nARG TARGETARCH\nRUN echo $TARGETARCH >> /made\n\
         FROM scratch\nCOPY --from=more /made /\n",
    );
    let image = place.image(&[&platform]);
    assert_eq!(image.text("made"), format!("made\n{other}\n"));
    assert_eq!(image.config["architecture"], other);
    place.file("Dockerfile", "FROM busybox\nRUN true\n");
    place
        .build(&[&platform])
        .failure(1)
        .says(&format!("another platform (linux/{other})"));
}

/// The small base as a layout whose `index.json` is a named pipe: who resolves it waits.
fn waiting(place: &Place) -> PathBuf {
    let layout = place.path("waiting");
    let mut copy = Command::new("cp");
    finish(copy.arg("-r").arg(base::busybox()).arg(&layout)).success();
    fs::remove_file(layout.join("index.json")).unwrap();
    finish(Command::new("mkfifo").arg(layout.join("index.json"))).success();
    layout
}

/// The other end of a named pipe, once somebody reads it.
fn writer(pipe: &Path) -> File {
    let mut options = File::options();
    // Opened so, it has to be read already.
    options
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let mut opened = None;
    let is_read = wait_until(PATIENCE, || {
        opened = options.open(pipe).ok();
        opened.is_some()
    });
    assert!(is_read, "nobody resolves `{}`", pipe.display());
    opened.unwrap()
}

#[test]
fn a_local_base_that_was_looked_up_stays_until_the_build_ends() {
    let place = Place::with_dockerfile(
        "FROM base:1 AS a\nRUN cat /one > /x\nFROM waiting\nCOPY --from=a /x /\n",
    );
    let rebuild = |place: &Place, text: &str| {
        place.file("one", text);
        let dir = place.context().join("base");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("Dockerfile"), "FROM busybox\nCOPY one /one\n").unwrap();
        let file = format!("--file={}", dir.join("Dockerfile").display());
        place.build(&["-t", "base:1", &file]).success();
    };
    rebuild(&place, "first");
    let layout = waiting(&place);
    let place = place.with_base("waiting", &layout);
    let dest = place.path("tree");
    let mut build = place.build_command();
    build.arg(format!("--output=type=local,dest={}", dest.display()));
    let build = Running::start(build.arg(place.context()));
    let mut index = writer(&layout.join("index.json"));
    // Its first base is known by now, and the second is asked for: the name moves, and what it meant is removed.
    rebuild(&place, "second");
    place.run(["prune", "--all"]).success();
    let text = fs::read(base::busybox().join("index.json")).unwrap();
    index.write_all(&text).unwrap();
    drop(index);
    let _told = build.end(PATIENCE).success();
    assert_eq!(fs::read_to_string(dest.join("x")).unwrap(), "first");
}

#[test]
fn an_interrupt_while_a_base_is_looked_up_leaves_nothing() {
    let place = Place::with_dockerfile("FROM waiting\n");
    let layout = waiting(&place);
    let place = place.with_base("waiting", &layout);
    let build = Running::start(place.build_command().arg(place.context()));
    let _index = writer(&layout.join("index.json"));
    build.signal(Signal::INT);
    assert_eq!(build.end(PATIENCE).code, Some(130));
    store::assert_tidy(&place.root());
    assert_eq!(
        fs::read_dir(place.root().join("leases")).unwrap().count(),
        0
    );
}

#[test]
fn an_interrupt_while_commands_are_on_trial_leaves_nothing() {
    for _ in 0..10 {
        let place = Place::with_dockerfile("FROM waiting\n");
        let layout = waiting(&place);
        let place = place.with_base("waiting", &layout);
        let build = Running::start(place.build_command().arg(place.context()));
        let leases = place.root().join("leases");
        let is_begun = || fs::read_dir(&leases).is_ok_and(|mut leases| leases.next().is_some());
        let begun = Instant::now();
        // Not slept: the trial takes some milliseconds.
        while !is_begun() {
            assert!(begun.elapsed() < PATIENCE, "it does not begin");
            std::thread::yield_now();
        }
        build.signal(Signal::INT);
        assert_eq!(build.end(PATIENCE).code, Some(130));
        store::assert_tidy(&place.root());
        assert_eq!(fs::read_dir(&leases).unwrap().count(), 0);
    }
}

#[test]
fn a_damaged_local_base_is_told_and_not_looked_for_elsewhere() {
    let registry = Registry::start();
    registry.fill(&base::busybox(), "base");
    let name = registry.name("base:latest");
    let place = Place::with_dockerfile("FROM busybox\nLABEL a=b\n");
    let id = place.build(&["--quiet", "-t", &name]).success().stdout;
    let config = place.root().join("blobs").join(id.trim().replace(':', "/"));
    fs::remove_file(config).unwrap();
    let before = registry.requests().len();
    place.file("Dockerfile", format!("FROM {name}\nRUN true\n"));
    for args in [&[][..], &["--pull=missing"]] {
        place
            .build(args)
            .failure(1)
            .says(&format!("the config {} is gone", id.trim()))
            .says(&format!("builder rm {name}"));
    }
    assert_eq!(registry.requests().split_off(before), [""; 0]);
    // Who says that the registry counts, or has no such image any more, gets the registry's.
    place.build(&["--pull"]).success();
    place.run(["rm", &name]).success();
    place.build(&["--no-cache"]).success();
}
