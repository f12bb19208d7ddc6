//! What a store holds, and what may go of it.

use std::os::unix::fs::MetadataExt;

use crate::support::git::{Daemon, Repository};
use crate::support::{Outcome, Place, finish, store};

fn place() -> Place {
    let place = Place::with_dockerfile(
        "FROM busybox\nCOPY big /big\nRUN --mount=type=cache,target=/c head -c 300000 /dev/zero > /c/f && echo x > /x\n",
    );
    place.file("big", vec![7; 2_000_000]);
    place
}

fn usage(place: &Place) -> serde_json::Value {
    let told = place.run(["du", "--format=json"]).success();
    serde_json::from_str(&told.stdout).unwrap()
}

#[test]
fn every_byte_is_accounted_for() {
    let place = place();
    let file = place.path("image.tar");
    let output = format!("type=oci,dest={}", file.display());
    place.build(&["-t", "app", "--output", &output]).success();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let ours = usage(&place)["bytes"].as_u64().unwrap();
    let counted = std::process::Command::new("du")
        .args(["-s", "-B1"])
        .arg(place.path("root"))
        .output()
        .unwrap();
    let counted = String::from_utf8(counted.stdout).unwrap();
    let counted: u64 = counted.split_whitespace().next().unwrap().parse().unwrap();
    assert!(ours.abs_diff(counted) * 100 <= counted, "{ours} {counted}");
    let told = place.run(["du", "--verbose"]).success().stdout;
    for text in ["1/3] COPY big /big", "cache-mounts", "total"] {
        assert!(told.contains(text), "{text}\n{told}");
    }
}

#[test]
fn pruning_keeps_tagged_images_and_takes_the_rest() {
    let place = place();
    place.build(&["-t", "app"]).success();
    place.run(["prune"]).success();
    let kinds = |value: &serde_json::Value| -> Vec<String> {
        let items = value["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        kinds(&usage(&place))
            .iter()
            .filter(|kind| *kind == "layer")
            .count(),
        3
    );
    place.build(&[]).success().says("CACHED");
    place.run(["rm", "app"]).success();
    place
        .run(["prune", "--filter", "type=cache-mount"])
        .success();
    assert_eq!(
        kinds(&usage(&place))
            .iter()
            .filter(|kind| *kind == "layer")
            .count(),
        3
    );
    place.run(["prune", "--keep-duration", "1h"]).success();
    assert_eq!(
        kinds(&usage(&place))
            .iter()
            .filter(|kind| *kind == "layer")
            .count(),
        3
    );
    let pruned = place.run(["prune", "--force"]).success();
    assert!(pruned.stdout.contains("freed "), "{}", pruned.stdout);
    assert_eq!(
        kinds(&usage(&place))
            .iter()
            .filter(|kind| *kind == "layer")
            .count(),
        0
    );
    assert_eq!(place.image(&[]).text("x"), "x\n");
}

/// Bytes of what `prune` said that it freed: `freed 21.3MB, 1.2MB left`.
fn freed(told: &str) -> f64 {
    let (_, rest) = told.rsplit_once("freed ").unwrap();
    let (size, _) = rest.split_once(',').unwrap();
    let at = size.find(|c: char| c.is_ascii_alphabetic()).unwrap();
    let scale = match &size[at..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        other => panic!("{other}"),
    };
    size[..at].parse::<f64>().unwrap() * scale
}

#[test]
fn pruning_all_frees_what_it_says_and_leaves_nothing_reclaimable() {
    let place = Place::with_dockerfile(
        "FROM busybox\nCOPY big /big\nRUN --mount=type=cache,target=/c head -c 20000000 /dev/urandom > /c/f && echo x > /x\n",
    );
    place.file("big", vec![7; 20_000_000]);
    // Pulled blobs, made blobs, chunks, a cache mount, logs, a context; and an image without a name.
    let output = format!("type=oci,dest={}", place.path("image.tar").display());
    place.build(&["--output", &output]).success();
    place.build(&["-t", "app"]).success();
    store::settled(&place.root());
    let reclaimable = |usage: &serde_json::Value| -> Vec<serde_json::Value> {
        let items = usage["items"].as_array().unwrap().iter();
        items
            .filter(|item| item["reclaimable"] == true)
            .cloned()
            .collect()
    };
    for verb in [&["prune", "--all"][..], &["rm", "app"], &["prune", "--all"]] {
        let before = usage(&place)["bytes"].as_f64().unwrap();
        let told = place.run(verb).success().stdout;
        let after = usage(&place);
        if verb[0] == "prune" {
            let difference = before - after["bytes"].as_f64().unwrap();
            let error = (freed(&told) - difference).abs();
            assert!(error <= difference / 100.0, "{told}{before} {after}");
            assert_eq!(reclaimable(&after), Vec::<serde_json::Value>::new());
        }
    }
    let left = usage(&place)["bytes"].as_u64().unwrap();
    assert!(left < 2_000_000, "{left}");
    assert_eq!(place.image(&[]).text("x"), "x\n");
}

/// Builds with a cap.
fn capped(place: &Place, cap: &str, args: &[&str]) -> Outcome {
    let mut command = place.build_command();
    command.env("BUILD_MAX_USED_SPACE", cap);
    finish(command.args(args).arg(place.context()))
}

fn layers(place: &Place) -> Vec<u64> {
    let items = usage(place)["items"].as_array().unwrap().clone();
    let layers = items.iter().filter(|item| item["kind"] == "layer");
    layers.map(|item| item["bytes"].as_u64().unwrap()).collect()
}

#[test]
fn a_store_above_its_cap_shrinks_by_itself() {
    let place = place();
    place.build(&[]).success();
    store::settled(&place.root());
    // Too little to be asked for before.
    place.file("big", "small");
    capped(&place, "1m", &[]).success();
    let is_small = || layers(&place).iter().all(|bytes| *bytes < 2_000_000);
    let shrinks = crate::support::wait_until(std::time::Duration::from_secs(30), is_small);
    assert!(shrinks, "{:?}", layers(&place));
    assert_eq!(place.image(&[]).text("x"), "x\n");
}

#[test]
fn room_below_the_cap_is_made_before_it_is_used() {
    let place = Place::with_dockerfile("FROM busybox\nCOPY big /big\n");
    for number in 0..4_u8 {
        place.file("big", vec![number; 8_000_000]);
        capped(&place, "20m", &["-o", "type=oci,dest=image.tar"]).success();
        // Not after it has settled: it never was above.
        let bytes = usage(&place)["bytes"].as_u64().unwrap();
        assert!(bytes <= 20 << 20, "{bytes}");
    }
    assert_eq!(place.image(&[]).files()["big"].content, [3; 8_000_000]);
}

#[test]
fn a_cap_that_cannot_hold_a_build_fails_it_and_says_why() {
    let place = Place::with_dockerfile("FROM busybox\nCOPY big /big\n");
    place.file("big", vec![1; 8_000_000]);
    let outcome = capped(&place, "6m", &[]).failure(3);
    outcome
        .says("Dockerfile:2")
        .says("the store may have 6.2MB, and has ")
        .says("where 8.0MB more are needed")
        .says("hint: remove images with `builder rm`, or set BUILD_MAX_USED_SPACE to more than ");
    assert!(layers(&place).iter().all(|bytes| *bytes < 8_000_000));
    capped(&place, "20m", &["-t", "app"]).success();
    place.file("big", vec![2; 8_000_000]);
    let outcome = capped(&place, "14m", &[]).failure(3);
    outcome.says("for image docker.io/library/app:latest");
    place.run(["rm", "app"]).success();
    capped(&place, "14m", &[]).success();
    // A command's output is there when its size is known.
    place.file(
        "Dockerfile",
        "FROM busybox\nRUN head -c 8000000 /dev/zero > /big\n",
    );
    let outcome = capped(&place, "6m", &[]).failure(3);
    outcome.says("the store may have 6.2MB, and has ");
    capped(&place, "0", &[]).success();
    assert!(place.run(["fsck"]).success().stdout.contains("all well"));
}

#[test]
fn a_cap_below_the_tagged_images_says_who_holds_them() {
    let place = place();
    place.build(&["-t", "app"]).success();
    let pruned = place.run(["prune", "--max-used-space", "100k"]).success();
    let holder = "needed by image docker.io/library/app:latest";
    assert!(pruned.stdout.contains(holder), "{}", pruned.stdout);
    place.build(&[]).success().says("CACHED");
}

#[test]
fn what_was_fetched_of_repositories_is_told_and_goes() {
    let place = Place::new();
    let repository = Repository::new(&place.path("work"));
    repository.file("a", "one\n").commit();
    repository.publish(&place.path("served/r.git"));
    let daemon = Daemon::start(&place.path("served"));
    let url = format!("git://{}/r.git#main", daemon.address);
    place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
    place.build(&["-t", "app"]).success();
    let mirrors = || -> Vec<(bool, u64)> {
        let usage = usage(&place);
        let items = usage["items"].as_array().unwrap().iter();
        let mirrors = items.filter(|item| item["kind"] == "git");
        mirrors
            .map(|item| {
                let is_free = item["reclaimable"].as_bool().unwrap();
                (is_free, item["bytes"].as_u64().unwrap())
            })
            .collect()
    };
    let [(is_free, bytes)] = mirrors()[..] else {
        panic!("{:?}", mirrors());
    };
    assert!(is_free && bytes > 10_000);
    let told = place
        .run(["prune", "--filter", "type=git"])
        .success()
        .stdout;
    assert!(
        told.starts_with("freed ") && !told.starts_with("freed 0B"),
        "{told}"
    );
    assert_eq!(mirrors(), []);
    repository.file("a", "two\n").commit();
    repository.publish(&place.path("served/r.git"));
    assert_eq!(place.image(&[]).text("to/a"), "two\n");
    assert_eq!(mirrors().len(), 1);
}

#[test]
fn wrong_filters_are_refused() {
    let place = Place::new();
    place
        .run(["prune", "--filter", "colour=red"])
        .failure(2)
        .says("--filter");
    place
        .run(["du", "--format", "xml"])
        .failure(2)
        .says("use table or json");
}

#[test]
fn an_ordinary_user_looks_after_trees_of_other_ids() {
    let place = Place::with_dockerfile(
        "FROM busybox\nRUN mkdir /d && head -c 2000000 /dev/zero > /d/f && chown -R 33:44 /d && chmod 700 /d && chmod 400 /d/f\n\
         RUN --mount=type=cache,target=/c,uid=5,mode=0700 echo x > /c/x && chown 6:6 /c/x && chmod 000 /c/x\n",
    )
    .unprivileged();
    place.build(&[]).success();
    store::settled(&place.root());
    let items = usage(&place)["items"].as_array().unwrap().clone();
    let large = |kind: &str| {
        let mut items = items.iter().filter(|item| item["kind"] == kind);
        items.any(|item| item["bytes"].as_u64().unwrap() >= 2_000_000)
    };
    assert!(large("layer"), "{items:?}");
    let checked = place.run(["fsck"]).success().stdout;
    assert!(checked.contains("all well"), "{checked}");
    place.run(["prune", "--all"]).success();
    let user = place.root().metadata().unwrap().uid();
    let others = std::process::Command::new("find")
        .arg(place.root())
        .args(["!", "-uid", &user.to_string()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(others.stdout).unwrap(), "");
    assert!(
        !usage(&place)["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|item| item["kind"] == "layer")
    );
}
