//! Pushing while the build runs, pushing what is in the store, and the verbs for the store's images.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::image::Image;
use crate::support::proxy::{Fate, Proxy};
use crate::support::registry::Registry;
use crate::support::{Outcome, Place, finish, program, testdata};

/// A registry with the small base as `base/busybox`, and a proxy before it.
fn registry() -> (Registry, Proxy) {
    let registry = Registry::start();
    registry.fill(&testdata("images/busybox"), "base/busybox");
    let proxy = Proxy::start(&registry.address);
    (registry, proxy)
}

/// What `skopeo inspect` says about an image in a registry.
fn inspected(name: &str) -> serde_json::Value {
    let mut command = Command::new(program("skopeo", "skopeo"));
    command
        .args(["inspect", "--tls-verify=false"])
        .arg(format!("docker://{name}"));
    serde_json::from_str(&finish(&mut command).success().stdout).unwrap()
}

/// Requests that begin so.
fn those<'a>(requests: &'a [String], begin: &str) -> Vec<&'a str> {
    let lines = requests.iter().map(String::as_str);
    lines.filter(|line| line.starts_with(begin)).collect()
}

/// A command that asks the proxy something and fails with its answer.
fn ask(proxy: &Proxy, question: &str) -> String {
    format!(
        "RUN wget -q -O /dev/null http://{}/wait/{question}",
        proxy.address
    )
}

#[test]
fn layers_are_sent_while_later_steps_run() {
    let (_registry, proxy) = registry();
    // The second command ends when the first one's layer and the base's are there; the other stage's never is.
    let place = Place::with_dockerfile(&format!(
        "FROM {base} AS other\nRUN echo other > /other\nFROM {base}\nRUN echo 1 > /one\n{}\n{}\n{}\nCOPY --from=other /other /\n",
        ask(&proxy, "PUT+/v2/app/blobs+201"),
        ask(&proxy, "POST+/v2/app/blobs+mount+201"),
        "RUN echo 2 > /two",
        base = proxy.name("base/busybox"),
    ));
    place
        .build(&["--push", "--tag", &proxy.name("app:1")])
        .success();
    let requests = proxy.take();
    let layers = inspected(&proxy.name("app:1"))["Layers"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(layers, 6, "the base and five steps");
    // Two of the commands change nothing: their layer is one blob.
    let blobs = those(&requests, "PUT /v2/app/blobs/");
    assert_eq!(blobs.len(), 5, "four layers and the config: {requests:?}");
    assert_eq!(
        those(&requests, "PUT /v2/app/manifests/"),
        ["PUT /v2/app/manifests/1 201"]
    );
    assert_eq!(requests.last().unwrap(), "PUT /v2/app/manifests/1 201");
}

#[test]
fn an_unchanged_build_asks_for_two_tags_and_nothing_else() {
    let (_registry, proxy) = registry();
    let place = Place::with_dockerfile(&format!(
        "FROM {}\nRUN echo 1 > /one\nCOPY a /a\n",
        proxy.name("base/busybox")
    ));
    place.file("a", "a\n");
    let name = proxy.name("app:1");
    place.build(&["--push", "--tag", &name]).success();
    proxy.take();
    place.build(&["--push", "--tag", &name]).success();
    let wanted = [
        "HEAD /v2/base/busybox/manifests/latest 200",
        "HEAD /v2/app/manifests/1 200",
    ];
    assert_eq!(proxy.take(), wanted);
}

#[test]
fn a_failed_build_stops_what_it_was_sending_and_names_nothing() {
    let (registry, _) = registry();
    let proxy = Proxy::with_fate(&registry.address, |line| {
        match line.starts_with("PUT /v2/app/blobs/") {
            true => Fate::Held,
            false => Fate::Passed,
        }
    });
    let place = Place::with_dockerfile(&format!(
        "FROM {}\nRUN head -c 3000000 /dev/urandom > /one\n{}\nRUN exit 3\n",
        proxy.name("base/busybox"),
        ask(&proxy, "begun+PUT+/v2/app/blobs"),
    ));
    let begun = Instant::now();
    let outcome = place
        .build(&["--push", "--tag", &proxy.name("app:1")])
        .failure(1);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    let outcome = outcome.says("exit code: 3").does_not_say("failed to push");
    assert!(outcome.stderr.contains("CANCELED"), "{}", outcome.stderr);
    let requests = proxy.take();
    assert!(
        those(&requests, "PUT /v2/app/manifests/").is_empty(),
        "{requests:?}"
    );
}

#[test]
fn a_registry_that_takes_nothing_is_told_once_and_at_the_end() {
    let (registry, _) = registry();
    let proxy = Proxy::with_fate(&registry.address, |line| {
        match line.starts_with("POST /v2/app/") {
            true => Fate::Refused(403),
            false => Fate::Passed,
        }
    });
    let place = Place::with_dockerfile(&format!(
        "FROM {}\nRUN echo 1 > /one\n{}\nRUN echo last > /last\n",
        proxy.name("base/busybox"),
        ask(&proxy, "POST+/v2/app/+403"),
    ));
    let outcome = place
        .build(&["--push", "--tag", &proxy.name("app:1")])
        .failure(3);
    let outcome = outcome.says("RUN echo last");
    let errors = outcome
        .stderr
        .lines()
        .filter(|line| line.starts_with("ERROR: "));
    assert_eq!(errors.count(), 1, "{}", outcome.stderr);
    let requests = proxy.take();
    assert!(those(&requests, "PUT /v2/app/").is_empty(), "{requests:?}");
}

#[test]
fn an_interrupted_push_ends_at_once() {
    let (registry, _) = registry();
    let proxy = Proxy::with_fate(&registry.address, |line| {
        match line.starts_with("PUT /v2/app/blobs/") {
            true => Fate::Held,
            false => Fate::Passed,
        }
    });
    let place = Place::with_dockerfile("FROM busybox\nRUN head -c 3000000 /dev/urandom > /one\n");
    let mut command = place.build_command();
    command
        .args(["--push", "--tag", &proxy.name("app:1")])
        .arg(place.context());
    let build = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    finish(
        Command::new("wget")
            .args(["-q", "-O", "/dev/null"])
            .arg(format!(
                "http://{}/wait/begun+PUT+/v2/app/blobs",
                proxy.address
            )),
    )
    .success();
    let begun = Instant::now();
    let id = rustix::process::Pid::from_child(&build);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = build.wait_with_output().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.ends_with("ERROR: canceled\n"), "{stderr}");
}

#[test]
fn times_that_are_clamped_are_clamped_in_what_is_pushed() {
    let (_registry, proxy) = registry();
    let place = Place::with_dockerfile(&format!(
        "FROM {}\nRUN echo 1 > /one\nRUN echo 2 > /two\n",
        proxy.name("base/busybox")
    ));
    let output = format!(
        "type=image,push=true,rewrite-timestamp=true,name={}",
        proxy.name("app:1")
    );
    place
        .build(&["--build-arg=SOURCE_DATE_EPOCH=1000", "--output", &output])
        .success();
    let blobs = those(&proxy.take(), "PUT /v2/app/blobs/").len();
    assert_eq!(blobs, 3, "two layers and the config");
    let copy = place.path("copy.tar");
    let mut skopeo = Command::new(program("skopeo", "skopeo"));
    skopeo.args(["copy", "--quiet", "--src-tls-verify=false"]);
    skopeo.arg(format!("docker://{}", proxy.name("app:1")));
    finish(skopeo.arg(format!("oci-archive:{}", copy.display()))).success();
    assert_eq!(Image::read(&copy).files()["one"].mtime, 1000);
}

#[test]
fn an_image_of_the_store_is_pushed() {
    let (registry, proxy) = registry();
    let place = Place::with_dockerfile("FROM busybox\nRUN echo 1 > /one\nLABEL a=b\n");
    let image = place.image(&[]);
    let name = proxy.name("team/app:1");
    place.build(&["--tag", "local", "--tag", &name]).success();
    let pushed = place.run(["push", &name]).success();
    assert_eq!(pushed.stdout, format!("{name}@{}\n", image.digest));
    assert!(
        pushed.stderr.contains(&format!("pushing {name}")),
        "{}",
        pushed.stderr
    );
    assert_eq!(inspected(&name)["Digest"], image.digest);
    assert_eq!(inspected(&name)["Labels"]["a"], "b");
    // Again: it is there. Into another repository: every blob, once.
    proxy.take();
    let again = place.run(["push", "--quiet", &name]).success();
    assert_eq!((again.stdout, again.stderr.as_str()), (pushed.stdout, ""));
    assert_eq!(proxy.take(), ["HEAD /v2/team/app/manifests/1 200"]);
    let other = registry.name("other:2");
    place.run(["tag", "local", &other]).success();
    place.run(["push", &other]).success();
    assert_eq!(inspected(&other)["Digest"], image.digest);
}

#[test]
fn a_base_that_was_never_fetched_is_pushed_too() {
    let (registry, proxy) = registry();
    let layout = Place::with_dockerfile("FROM busybox\nLABEL a=b\n");
    layout.build(&["--tag", &registry.name("one:1")]).success();
    layout.run(["push", &registry.name("one:1")]).success();
    assert_eq!(
        inspected(&registry.name("one:1"))["Layers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // Also below an image that is built on the one in the store.
    layout.file(
        "Dockerfile",
        format!("FROM {}\nRUN echo 1 > /one\n", registry.name("one:1")),
    );
    layout
        .build(&["--push", "--tag", &registry.name("next:1")])
        .success();
    let layers = |name: &str| {
        inspected(&registry.name(name))["Layers"]
            .as_array()
            .unwrap()
            .clone()
    };
    assert_eq!(layers("next:1")[..1], layers("one:1"));
    // From a registry: its blob is mounted and not even downloaded.
    let place =
        Place::with_dockerfile(&format!("FROM {}\nLABEL a=b\n", proxy.name("base/busybox")));
    let name = proxy.name("two:1");
    place.build(&["--tag", &name]).success();
    proxy.take();
    place.run(["push", &name]).success();
    let requests = proxy.take();
    assert_eq!(those(&requests, "GET "), [""; 0]);
    assert_eq!(
        those(&requests, "PUT /v2/two/blobs/").len(),
        1,
        "the config: {requests:?}"
    );
    assert_eq!(inspected(&name)["Layers"].as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_pushed_is_named() {
    let (registry, _) = registry();
    let place = Place::with_dockerfile("FROM busybox\nLABEL a=b\n");
    let gone = registry.name("app:1");
    place.build(&["--tag", &gone]).success();
    place
        .run(["push", "never/built"])
        .failure(2)
        .says("no such image: never/built");
    let digest = format!("{gone}@sha256:{}", "a".repeat(64));
    place
        .run(["push", &digest])
        .failure(2)
        .says("names a digest");
    place.run(["push", "UPPER"]).failure(2).says("UPPER");
    drop(registry);
    let outcome = place.run(["push", "--progress=plain", &gone]).failure(3);
    assert_eq!(outcome.stdout, "");
    outcome
        .says("failed to push")
        .says(gone.trim_end_matches(":1"));
}

#[test]
fn images_are_meant_by_name_by_id_and_by_the_beginning_of_one() {
    let place = Place::with_dockerfile("FROM busybox\nLABEL a=b\n");
    let quiet = |args: &[&str]| {
        let outcome = place.build(&[&["--progress=quiet", "--quiet"], args].concat());
        outcome.success().stdout.trim().to_owned()
    };
    let id = quiet(&[]);
    let hex = id.strip_prefix("sha256:").unwrap();
    let fails = |args: &[&str]| -> Outcome { place.run(args).failure(2) };
    // Without a name it is found by its whole id only, and there is no name to remove.
    fails(&["tag", &hex[..12], "one"]).says("no such image");
    fails(&["rm", &id]).says("has no name");
    place.run(["tag", &id, "one"]).success();
    place.run(["tag", &hex[..12], "team/two:2"]).success();
    place
        .run(["tag", &hex.to_ascii_uppercase(), "three"])
        .success();
    let shown = |name: &str| -> serde_json::Value {
        serde_json::from_str(&place.run(["inspect", name]).success().stdout).unwrap()
    };
    let names = [
        "docker.io/library/one:latest",
        "docker.io/library/three:latest",
        "docker.io/team/two:2",
    ];
    for name in ["one", "docker.io/library/one:latest", &id, hex, &hex[..4]] {
        assert_eq!(shown(name)[0]["Id"], id);
        assert_eq!(shown(name)[0]["RepoTags"], serde_json::json!(names));
        assert_eq!(shown(name)[0]["Config"]["config"]["Labels"]["a"], "b");
    }
    assert_eq!(
        place.run(["images", "-q"]).success().stdout,
        format!("{id}\n")
    );
    // A name is the name before it is the beginning of an id.
    place.file("Dockerfile", "FROM busybox\nLABEL a=c\n");
    let other = quiet(&["--tag", &hex[..6]]);
    assert_eq!(shown(&hex[..6])[0]["Id"], other);
    assert_eq!(shown(&hex[..7])[0]["Id"], id);
    // One unknown name, and nothing is removed.
    fails(&["rm", "one", "nobody"]).says("no such image: nobody");
    assert!(place.run(["images"]).stdout.contains(names[0]));
    let removed = place.run(["rm", "one", "one"]).success().stdout;
    assert_eq!(removed, format!("untagged: {}\n", names[0]));
    let removed = place.run(["rm", &hex[..12]]).success().stdout;
    assert_eq!(
        removed,
        format!("untagged: {}\nuntagged: {}\n", names[1], names[2])
    );
    fails(&["inspect", "one"]).says("no such image: one");
    for target in ["UPPER", "a@sha256:00", &format!("a@{id}")] {
        fails(&["tag", &id, target]).says("invalid name");
    }
    // What is neither a config nor an id is no image.
    let layer = shown(&id)[0]["Config"]["rootfs"]["diff_ids"][0]
        .as_str()
        .unwrap()
        .to_owned();
    for name in ["abc", "sha256:", &layer] {
        fails(&["inspect", name]).says("no such image");
    }
}

#[test]
fn every_output_of_a_build_is_the_same_image() {
    let (_registry, proxy) = registry();
    let place = Place::with_dockerfile("FROM busybox\nRUN echo 1 > /one\n");
    let at = |name: &str| place.path(name).display().to_string();
    let names = ["app:1", "app:2", "other:3"].map(|name| proxy.name(name));
    let mut command = place.build_command();
    for output in [
        "type=oci,dest=-".to_owned(),
        format!("type=docker,dest={}", at("docker.tar")),
        format!("type=local,dest={}", at("dir")),
    ] {
        command.args(["--output", &output]);
    }
    command.args(names.iter().map(|name| format!("--tag={name}")));
    command.args([
        "--push",
        "--iidfile",
        &at("id"),
        "--metadata-file",
        &at("metadata"),
    ]);
    let done = command.arg(place.context()).output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{stderr}");
    assert!(
        stderr.contains("exporting to oci image format") && stderr.contains("exporting to image"),
        "{stderr}"
    );
    fs::write(place.path("oci.tar"), &done.stdout).unwrap();
    let image = Image::read(&place.path("oci.tar"));
    assert_eq!(image.text("one"), "1\n");
    assert_eq!(
        image.manifest["config"]["digest"],
        fs::read_to_string(at("id")).unwrap()
    );
    for name in &names {
        assert_eq!(inspected(name)["Digest"], image.digest);
    }
    assert_eq!(
        fs::read_to_string(place.path("dir").join("one")).unwrap(),
        "1\n"
    );
    assert!(has_member(&place.path("docker.tar"), "manifest.json"));
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs::read(at("metadata")).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], image.digest);
    assert_eq!(metadata["image.name"], names.join(","));
}

fn has_member(archive: &Path, name: &str) -> bool {
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    let mut entries = archive.entries().unwrap();
    entries.any(|entry| entry.unwrap().path().unwrap() == Path::new(name))
}

#[test]
fn a_name_that_is_none_is_refused_before_anything_runs() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo ran\n");
    let outcome = place.build(&["--tag", "UPPER"]).failure(2);
    outcome
        .says("invalid tag \"UPPER\"")
        .does_not_say("RUN echo ran");
}

#[test]
fn a_daemon_that_is_not_there_is_told_before_anything_runs() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo ran\n");
    let load = |host: &str| {
        let mut command = place.build_command();
        command.args(["--load", "--tag", "a"]).arg(place.context());
        finish(command.env("DOCKER_HOST", host))
            .failure(3)
            .does_not_say("RUN echo ran")
    };
    let absent = format!("unix://{}", place.path("none").display());
    for host in [absent.as_str(), "tcp://127.0.0.1:1"] {
        load(host).says(&format!("cannot connect to the Docker daemon at {host}"));
    }
    load("127.0.0.1:2375").says("invalid DOCKER_HOST `127.0.0.1:2375`");
    load("ssh://user@host").says("not supported yet: DOCKER_HOST");
}

#[test]
fn a_registry_without_a_trusted_certificate_is_taken_if_told_so() {
    let registry = Registry::start_with_tls();
    let place = Place::with_dockerfile("FROM busybox\nRUN echo 1 > /one\n");
    let name = registry.name("app:1");
    let output = format!("type=image,push=true,name={name}");
    place
        .build(&["--output", &output])
        .failure(3)
        .says("failed to push");
    let insecure = format!("{output},registry.insecure=true");
    place.build(&["--output", &insecure]).success();
    assert_eq!(inspected(&name)["Layers"].as_array().unwrap().len(), 2);
    // Only for that output.
    place
        .build(&["--push", "--tag", &name])
        .failure(3)
        .says("failed to push");
}
