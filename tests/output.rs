//! What a build gives: every kind of output, and what it tells scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;

use crate::support::image::{Image, sha256};
use crate::support::{Place, finish};

const SMALL: &str = "FROM busybox\nCOPY a /srv/a\nRUN chmod 0751 /srv && ln -s a /srv/b\n";
const FILES_ONLY: &str = "FROM scratch\nCOPY a /srv/a\nCOPY --chmod=0750 a /bin/run\n";

fn place(dockerfile: &str) -> Place {
    let place = Place::with_dockerfile(dockerfile);
    place.file("a", "content\n");
    place
}

/// Names of the members of a tar.
fn members(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// Builds with this output and gives the bytes of standard output.
fn stdout(place: &Place, output: &str) -> Vec<u8> {
    let mut command = place.build_command();
    command.args(["--output", output]).arg(place.context());
    let done = command.stderr(Stdio::piped()).output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    done.stdout
}

#[test]
fn an_oci_archive_is_the_same_in_a_file_and_on_standard_output() {
    let place = place(SMALL);
    let image = place.image(&[]);
    let bytes = stdout(&place, "type=oci,dest=-");
    assert_eq!(
        sha256(&bytes),
        sha256(&fs::read(place.path("image.tar")).unwrap())
    );
    assert_eq!(stdout(&place, "type=oci"), bytes);
    assert_eq!(image.text("srv/a"), "content\n");
    assert_eq!(image.files()["srv"].mode & 0o7777, 0o751);
}

#[test]
fn an_oci_layout_has_the_members_of_the_archive() {
    let place = place(SMALL);
    let image = place.image(&["--tag", "tested:latest"]);
    let layout = place.layout(&[]);
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], image.digest);
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "latest");
    assert_eq!(
        annotations["io.containerd.image.name"],
        "docker.io/library/tested:latest"
    );
    let digests = image.manifest["layers"].as_array().unwrap().iter();
    for digest in digests.map(|layer| layer["digest"].as_str().unwrap()) {
        let blob = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
        assert_eq!(sha256(&blob), digest);
    }
}

#[test]
fn a_docker_archive_has_the_list_that_docker_reads() {
    let place = place(SMALL);
    let bytes = fs::read(place.docker_archive(&["--tag", "one", "--tag", "two:2"])).unwrap();
    let names = members(&bytes);
    assert!(names.contains(&"manifest.json".to_owned()), "{names:?}");
    assert_eq!(members(&stdout(&place, "type=docker,dest=-")), names);
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let manifest = entries
        .find(|entry| entry.path().unwrap().ends_with("manifest.json"))
        .unwrap();
    let manifest: Value = serde_json::from_reader(manifest).unwrap();
    let tags = serde_json::json!(["one:latest", "two:2"]);
    assert_eq!(manifest[0]["RepoTags"], tags);
}

#[test]
fn a_directory_gets_the_files() {
    let place = place(FILES_ONLY);
    let tree = place.tree(&[]);
    assert_eq!(fs::read_to_string(tree.join("srv/a")).unwrap(), "content\n");
    let mode = fs::metadata(tree.join("bin/run"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o750);
    fs::write(tree.join("other"), "kept").unwrap();
    place.file("a", "changed\n").tree(&[]);
    assert_eq!(fs::read_to_string(tree.join("srv/a")).unwrap(), "changed\n");
    assert_eq!(fs::read_to_string(tree.join("other")).unwrap(), "kept");
    let short = place.path("short");
    place
        .build(&["--output", short.to_str().unwrap()])
        .success();
    assert_eq!(
        fs::read_to_string(short.join("srv/a")).unwrap(),
        "changed\n"
    );
}

#[test]
fn a_tar_of_the_files_goes_to_a_file_and_to_standard_output() {
    let place = place(FILES_ONLY);
    let file = place.path("files.tar");
    let output = format!("type=tar,dest={}", file.display());
    place.build(&["--output", &output]).success();
    let bytes = fs::read(&file).unwrap();
    let names: Vec<String> = members(&bytes)
        .iter()
        .map(|name| name.trim_end_matches('/').to_owned())
        .collect();
    assert_eq!(names, ["bin", "bin/run", "srv", "srv/a"]);
    assert_eq!(stdout(&place, "-"), bytes);
    assert_eq!(stdout(&place, "type=tar"), bytes);
}

#[test]
fn nothing_is_given_if_only_the_cache_counts() {
    let place = place(SMALL);
    place
        .build(&["--output=type=cacheonly", "--tag=none"])
        .success();
    assert!(!place.run(["images"]).success().stdout.contains("none"));
    assert_eq!(place.build(&[]).success().ran(), [""; 0]);
}

#[test]
fn the_image_id_and_the_metadata_are_told() {
    let place = place(SMALL);
    let (iidfile, metadata) = (place.path("iid"), place.path("metadata"));
    let files = [
        "--iidfile",
        iidfile.to_str().unwrap(),
        "--metadata-file",
        metadata.to_str().unwrap(),
    ];
    let image = place.image(&[&files[..], &["--tag", "told:1"]].concat());
    let outcome = place.build(&["--quiet"]).success();
    let id = fs::read_to_string(iidfile).unwrap();
    assert_eq!(outcome.stdout, format!("{id}\n"));
    assert_eq!(outcome.stderr, "");
    assert_eq!(image.manifest["config"]["digest"], id);
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id);
    assert_eq!(metadata["containerimage.digest"], image.digest);
    assert_eq!(
        metadata["containerimage.descriptor"]["digest"],
        image.digest
    );
    assert_eq!(metadata["image.name"], "docker.io/library/told:1");
}

#[test]
fn the_image_id_is_that_of_the_exported_image_when_times_are_rewritten() {
    let place = place(SMALL);
    let [iidfile, metadata, file] = ["iid", "metadata", "image.tar"].map(|name| place.path(name));
    place
        .build(&[
            "--build-arg=SOURCE_DATE_EPOCH=1000000000",
            &format!("--iidfile={}", iidfile.display()),
            &format!("--metadata-file={}", metadata.display()),
            &format!(
                "--output=type=oci,rewrite-timestamp=true,dest={}",
                file.display()
            ),
        ])
        .success();
    let config = &Image::read(&file).manifest["config"]["digest"];
    assert_eq!(*config, fs::read_to_string(iidfile).unwrap());
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], *config);
}

#[test]
fn several_outputs_come_from_one_build() {
    let place = place(SMALL);
    let (oci, docker, dir) = (place.path("o.tar"), place.path("d.tar"), place.path("dir"));
    let outputs = [
        format!("--output=type=oci,dest={}", oci.display()),
        format!("--output=type=docker,dest={}", docker.display()),
        format!("--output=type=local,dest={}", dir.display()),
    ];
    let outcome = place
        .build(&outputs.each_ref().map(String::as_str))
        .success();
    assert_eq!(outcome.ran().len(), 2, "{}", outcome.stderr);
    assert_eq!(Image::read(&oci).text("srv/a"), "content\n");
    assert!(members(&fs::read(docker).unwrap()).contains(&"manifest.json".to_owned()));
    assert_eq!(
        fs::read_link(dir.join("srv/b")).unwrap().to_str(),
        Some("a")
    );
}

#[test]
fn annotations_and_labels_are_in_the_image() {
    let place = place(SMALL);
    let image = place.image(&["--annotation", "org.example.note=x", "--label", "l=v"]);
    assert_eq!(image.manifest["annotations"]["org.example.note"], "x");
    assert_eq!(image.config["config"]["Labels"]["l"], "v");
}

#[test]
fn tags_are_listed_inspected_moved_and_removed() {
    let place = place(SMALL);
    place
        .build(&["--tag", "one", "--tag", "other/two:2"])
        .success();
    let id = place.build(&["--quiet"]).success().stdout;
    let listed = place.run(["images"]).success().stdout;
    for name in ["docker.io/library/one:latest", "docker.io/other/two:2"] {
        assert!(listed.contains(name), "{listed}");
    }
    place.run(["tag", "one", "three:3"]).success();
    let inspected = place.run(["inspect", "three:3"]).success().stdout;
    assert!(inspected.contains("diff_ids"), "{inspected}");
    place.run(["rm", "one"]).success();
    assert!(
        !place
            .run(["images"])
            .success()
            .stdout
            .contains("library/one")
    );
    assert!(
        place
            .run(["images", "--quiet"])
            .success()
            .stdout
            .contains(id.trim())
    );
}

#[test]
fn an_unknown_output_is_refused_before_anything_runs() {
    let place = place(SMALL);
    for (output, message) in [
        ("type=floppy", "unknown output type `floppy`"),
        ("type=oci,colour=red", "unknown attribute `colour`"),
        ("dest=x,tar=false", "type is required"),
    ] {
        let outcome = place.build(&["--output", output]).failure(2).says(message);
        assert_eq!(outcome.ran(), [""; 0]);
    }
    let mut command = place.command();
    finish(command.args(["build", "--no-such-flag", "."]))
        .failure(2)
        .says("--no-such-flag");
}
