//! Images as programs see them that we did not write.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::support::docker::Docker;
use crate::support::registry::Registry;
use crate::support::{Place, tools};

/// Everything that layers can have: links, deletions, replaced directories, long and foreign names, modes, owners.
const ODD: &str = r#"FROM busybox
RUN mkdir -p /d/old && echo 1 > /d/old/a && echo 2 > /d/b && mkfifo /d/pipe
RUN rm -r /d/old && mkdir /d/old && echo 3 > /d/old/c && rm /d/b && ln /d/old/c /d/hard && ln -s nowhere /d/soft
RUN long=$(printf '%0120d' 7) && mkdir -p /l/$long/$long && echo deep > "/l/$long/$long/ü ∂"
RUN echo s > /d/suid && chown 12:34 /d/suid && chmod 4750 /d/suid
COPY --chown=56:78 --chmod=0640 data /data
LABEL odd="a \"quoted\" value"
ENTRYPOINT ["/bin/busybox"]
CMD ["cat", "/data"]
"#;

fn odd() -> Place {
    let place = Place::with_dockerfile(ODD);
    place.file("data", "the data\n");
    place
}

#[test]
fn python_reads_every_layer_as_a_stream() {
    let layers = tools::python_layers(&odd().layout(&[]));
    let has = |layer: usize, name: &str| layers[layer].iter().any(|member| member == name);
    assert_eq!(layers.len(), 6);
    assert!(
        has(1, "d/pipe") && has(2, "d/.wh.b") && has(2, "d/hard"),
        "{:?}",
        layers[2]
    );
    assert!(
        has(2, "d/old/.wh.a") || has(2, "d/old/.wh..wh..opq"),
        "{:?}",
        layers[2]
    );
    assert!(
        layers[3].iter().any(|name| name.ends_with("7/ü ∂")),
        "{:?}",
        layers[3]
    );
    assert_eq!(layers[5], ["data"]);
}

#[test]
fn skopeo_inspects_and_copies() {
    let place = odd();
    let layout = place.layout(&["--metadata-file", place.path("metadata").to_str().unwrap()]);
    let image = format!("oci:{}:latest", layout.display());
    let inspected = tools::skopeo_inspect(&image);
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("metadata")).unwrap()).unwrap();
    assert_eq!(inspected["Digest"], metadata["containerimage.digest"]);
    assert_eq!(inspected["Labels"]["odd"], "a \"quoted\" value");
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 6);
    tools::skopeo_copy(
        &image,
        &format!("docker-archive:{}", place.path("copy.tar").display()),
    );
    let copy = format!("oci:{}:latest", place.path("copy").display());
    tools::skopeo_copy(&image, &copy);
    assert_eq!(tools::skopeo_inspect(&copy)["Digest"], inspected["Digest"]);
    let archive = place.docker_archive(&["--tag", "odd"]);
    let archived = tools::skopeo_inspect(&format!("docker-archive:{}", archive.display()));
    assert_eq!(archived["Labels"], inspected["Labels"]);
}

#[test]
fn skopeo_copies_every_compression() {
    for compression in ["gzip", "zstd", "uncompressed"] {
        let place = odd();
        let file = place.path("image.tar");
        let output = format!(
            "type=oci,dest={},compression={compression},force-compression=true",
            file.display()
        );
        place.build(&["--output", &output]).success();
        let copy = place.path("copy");
        tools::skopeo_copy(
            &format!("oci-archive:{}", file.display()),
            &format!("dir:{}", copy.display()),
        );
        assert!(copy.join("manifest.json").exists(), "{compression}");
    }
}

#[test]
fn umoci_unpacks_what_was_built() {
    let place = odd();
    let root = tools::umoci_unpack(&place.layout(&[]), "latest", &place.path("bundle"));
    let stat = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(stat("d/hard").ino(), stat("d/old/c").ino());
    assert!(stat("d/pipe").file_type().is_fifo());
    assert_eq!(
        fs::read_link(root.join("d/soft")).unwrap().to_str(),
        Some("nowhere")
    );
    assert!(!root.join("d/b").exists() && !root.join("d/old/a").exists());
    let suid = stat("d/suid");
    assert_eq!(
        (suid.uid(), suid.gid(), suid.mode() & 0o7777),
        (12, 34, 0o4750)
    );
    let data = stat("data");
    assert_eq!(
        (data.uid(), data.gid(), data.mode() & 0o7777),
        (56, 78, 0o640)
    );
}

#[test]
fn buildah_runs_from_a_layout_and_from_a_registry() {
    let (place, registry) = (odd(), Registry::start());
    let layout = format!("oci:{}:latest", place.layout(&[]).display());
    let command = ["/bin/sh", "-c", "cat /data /d/hard; ls /d"];
    let wanted = "the data\n3\nhard\nold\npipe\nsoft\nsuid\n";
    assert_eq!(
        tools::buildah_run(&layout, &place.path("one"), &command),
        wanted
    );
    let name = registry.name("odd:1");
    place.build(&["--push", "--tag", &name]).success();
    let pushed = format!("docker://{name}");
    assert_eq!(
        tools::buildah_run(&pushed, &place.path("two"), &command),
        wanted
    );
}

#[test]
fn docker_loads_pulls_and_runs() {
    let (place, registry, docker) = (odd(), Registry::start(), Docker::start());
    docker.load(&place.docker_archive(&["--tag", "odd:archive"]));
    assert_eq!(docker.output(&["odd:archive"]), "the data\n");
    let id = place.build(&["--quiet"]).success().stdout;
    let format = "--format={{.Id}}";
    assert_eq!(
        docker
            .run(["inspect", format, "odd:archive"])
            .success()
            .stdout,
        id
    );
    let name = registry.name("odd:pulled");
    place.build(&["--push", "--tag", &name]).success();
    docker.run(["rmi", "--force", "odd:archive"]).success();
    docker.run(["pull", "--quiet", &name]).success();
    assert_eq!(docker.output(&[&name]), "the data\n");
    assert_eq!(docker.run(["inspect", format, &name]).success().stdout, id);
}

#[test]
fn docker_gets_what_load_sends() {
    let (place, docker) = (odd(), Docker::start());
    let mut command = place.build_command();
    command
        .args(["--load", "--tag", "odd:loaded"])
        .arg(place.context());
    crate::support::finish(command.env("DOCKER_HOST", docker.host())).success();
    assert_eq!(docker.output(&["odd:loaded"]), "the data\n");
    place.build(&["--load"]).failure(3).says("Docker daemon");
}

#[test]
fn an_image_made_by_others_is_a_base() {
    let place = odd();
    let copy = place.path("copy");
    tools::skopeo_copy(
        &format!("oci:{}:latest", place.layout(&[]).display()),
        &format!("oci:{}:latest", copy.display()),
    );
    let next = Place::with_dockerfile("FROM odd\nRUN cat /data > /copy && ls /d > /list\n")
        .with_base("odd", &copy);
    let image = next.image(&[]);
    assert_eq!(image.text("copy"), "the data\n");
    assert_eq!(image.text("list"), "hard\nold\npipe\nsoft\nsuid\n");
    assert_eq!(image.manifest["layers"].as_array().unwrap().len(), 7);
}
