//! Pushing to a registry: what is sent, what is not, and as whom.

use std::fs;

use base64::Engine as _;

use crate::support::registry::Registry;
use crate::support::{Place, base, faulty, tools};

/// `user` with the password `secret`, as `htpasswd -B` writes it.
const USERS: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

const SMALL: &str = "FROM busybox\nRUN echo 1 > /one\nCOPY a /a\n";

fn small() -> Place {
    let place = Place::with_dockerfile(SMALL);
    place.file("a", "a\n");
    place
}

/// A registry that has the small base as `base/busybox`, and a place that builds on it.
fn on_registry() -> (Registry, Place) {
    let registry = Registry::start();
    registry.fill(&base::busybox(), "base/busybox");
    let from = registry.name("base/busybox");
    let place = Place::with_dockerfile(&SMALL.replace("busybox", &from));
    place.file("a", "a\n");
    (registry, place)
}

#[test]
fn what_was_pushed_is_what_was_built() {
    let (place, registry) = (small(), Registry::start());
    let name = registry.name("team/app:1");
    let image = place.image(&[]);
    place.build(&["--push", "--tag", &name]).success();
    let inspected = tools::skopeo_inspect(&format!("docker://{name}"));
    assert_eq!(inspected["Digest"], image.digest);
    let layers: Vec<_> = image.manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["digest"])
        .collect();
    assert_eq!(
        inspected["Layers"]
            .as_array()
            .unwrap()
            .iter()
            .collect::<Vec<_>>(),
        layers
    );
}

#[test]
fn a_second_push_sends_nothing_again() {
    let (place, registry) = (small(), Registry::start());
    let name = registry.name("app:1");
    place.build(&["--push", "--tag", &name]).success();
    let before = registry.uploads();
    assert!(
        before
            .iter()
            .any(|line| line == "PUT /v2/app/manifests/1 201"),
        "{before:?}"
    );
    place.build(&["--push", "--tag", &name]).success();
    let again = registry.uploads().split_off(before.len());
    // Naming the manifest again costs nothing and is allowed; blobs are not.
    assert!(
        again
            .iter()
            .all(|line| line.starts_with("PUT /v2/app/manifests/")),
        "{again:?}"
    );
}

#[test]
fn one_changed_layer_is_one_layer_sent() {
    let (place, registry) = (small(), Registry::start());
    let name = registry.name("app:1");
    place.build(&["--push", "--tag", &name]).success();
    let before = registry.uploads().len();
    place
        .file("a", "changed\n")
        .build(&["--push", "--tag", &name])
        .success();
    let again = registry.uploads().split_off(before);
    let puts = again
        .iter()
        .filter(|line| line.starts_with("PUT /v2/app/blobs/"))
        .count();
    assert_eq!(puts, 2, "the layer and the config: {again:?}");
}

#[test]
fn layers_of_a_base_in_the_same_registry_are_mounted() {
    let (registry, place) = on_registry();
    let before = registry.uploads().len();
    place
        .build(&["--push", "--tag", &registry.name("app:1")])
        .success();
    let sent = registry.uploads().split_off(before);
    let mounted = sent
        .iter()
        .filter(|line| line.contains("mount=") && line.ends_with(" 201"));
    let mounted: Vec<_> = mounted
        .filter(|line| line.contains("base%2Fbusybox") || line.contains("base/busybox"))
        .collect();
    assert_eq!(mounted.len(), 1, "{sent:?}");
    let puts = sent
        .iter()
        .filter(|line| line.starts_with("PUT /v2/app/blobs/"))
        .count();
    assert_eq!(puts, 3, "two layers and the config: {sent:?}");
}

#[test]
fn a_build_that_needs_no_file_of_its_base_downloads_none() {
    let (registry, place) = on_registry();
    place.file(
        "Dockerfile",
        format!("FROM {}\nLABEL a=b\n", registry.name("base/busybox")),
    );
    let before = registry.requests().len();
    place
        .build(&["--push", "--tag", &registry.name("labelled:1")])
        .success();
    let layer = layer_of_busybox();
    let gets = registry.requests().split_off(before);
    assert!(
        !gets
            .iter()
            .any(|line| line.starts_with("GET") && line.contains(&layer)),
        "{gets:?}"
    );
    let inspected = tools::skopeo_inspect(&format!("docker://{}", registry.name("labelled:1")));
    assert_eq!(inspected["Labels"]["a"], "b");
}

fn layer_of_busybox() -> String {
    let layout = base::busybox();
    let manifest = layout
        .join("blobs")
        .join(faulty::root(&layout).replace(':', "/"));
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn every_tag_is_pushed() {
    let (place, registry) = (small(), Registry::start());
    let names = ["app:1", "app:latest", "other/app:2"].map(|name| registry.name(name));
    let tags = names.each_ref().map(|name| format!("--tag={name}"));
    place
        .build(&["--push", &tags[0], &tags[1], &tags[2]])
        .success();
    let digests =
        names.map(|name| tools::skopeo_inspect(&format!("docker://{name}"))["Digest"].clone());
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:?}"
    );
}

#[test]
fn the_registry_output_takes_names_and_pushes_by_digest() {
    let (place, registry) = (small(), Registry::start());
    let output = format!("type=registry,name={}", registry.name("named:1"));
    place.build(&["--output", &output]).success();
    let digest =
        tools::skopeo_inspect(&format!("docker://{}", registry.name("named:1")))["Digest"].clone();
    let output = format!(
        "type=image,name={},push=true,push-by-digest=true",
        registry.name("bare")
    );
    place.build(&["--output", &output]).success();
    let name = registry.name(&format!("bare@{}", digest.as_str().unwrap()));
    assert_eq!(
        tools::skopeo_inspect(&format!("docker://{name}"))["Digest"],
        digest
    );
}

#[test]
fn a_private_registry_is_entered_with_the_docker_config() {
    let registry = Registry::start_with_users(USERS);
    let (place, name) = (small(), registry.name("private/app:1"));
    let refused = place.build(&["--push", "--tag", &name]).failure(3);
    refused.says("authorization").does_not_say("secret");
    log_in(&place, &registry, "user", "wrong");
    place
        .build(&["--push", "--tag", &name])
        .failure(3)
        .does_not_say("wrong");
    log_in(&place, &registry, "user", "secret");
    place
        .build(&["--push", "--tag", &name])
        .success()
        .does_not_say("secret");
    let again = Place::with_dockerfile(&format!("FROM {name}\nRUN cat /a > /b\n"));
    again.build(&[]).failure(1);
    log_in(&again, &registry, "user", "secret");
    assert_eq!(again.image(&[]).text("b"), "a\n");
}

/// Writes `~/.docker/config.json` as `docker login` does without a credential store.
fn log_in(place: &Place, registry: &Registry, user: &str, password: &str) {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let dir = place.path("home/.docker");
    fs::create_dir_all(&dir).unwrap();
    let config = serde_json::json!({"auths": {&registry.address: {"auth": auth}}});
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn a_push_that_fails_is_a_failed_build() {
    let place = small();
    let (registry, name) = {
        let registry = Registry::start();
        let name = registry.name("gone:1");
        (registry, name)
    };
    drop(registry);
    place
        .build(&["--push", "--tag", &name])
        .failure(3)
        .says(name.trim_end_matches(":1"));
    place
        .build(&["--push"])
        .failure(2)
        .says("tag is needed when pushing to registry");
}
