//! The same input gives the same bytes, whoever builds it, where and when.

use std::collections::BTreeMap;

use crate::support::image::{File, Image};
use crate::support::{EPOCH, Place};

/// Copies only: nothing of it is made at the time of the build.
const COPIES: &str = "FROM busybox
COPY --chown=1:2 --chmod=0640 a /srv/a
COPY dir /srv/dir/
ADD a /added
ENV A=b
LABEL x=y
";

/// Commands, which leave their own times behind.
const COMMANDS: &str = "FROM busybox
WORKDIR /srv
COPY a .
RUN echo 1 > one && mkdir -p two/three && ln one two/link && ln -s ../one two/soft && chmod 0711 two
RUN rm one && echo 4 > two/four && chown 5:6 two/four
RUN find / -xdev -type f -not -path /list -not -path '/proc/*' -not -path '/sys/*' | sort > /list
";

fn place(dockerfile: &str) -> Place {
    let place = Place::with_dockerfile(dockerfile);
    place
        .file("a", "a\n")
        .file("dir/b", "b\n")
        .file("dir/sub/c", "c\n");
    place
}

/// The same project built from an empty store, as root and without privilege.
fn twice(dockerfile: &str, args: &[&str]) -> [Image; 2] {
    let root = place(dockerfile).image(args);
    // A second later, so that a time that leaks shows.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    [root, place(dockerfile).unprivileged().image(args)]
}

/// The files of a layer without their times, and the layer's members in order.
fn without_times(image: &Image) -> (BTreeMap<String, File>, Vec<Vec<String>>) {
    let untimed = image
        .files()
        .into_iter()
        .map(|(path, file)| (path, File { mtime: 0, ..file }));
    (
        untimed.collect(),
        image.layers.iter().map(|layer| members(layer)).collect(),
    )
}

fn members(layer: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(layer);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries
        .map(|entry| String::from_utf8_lossy(&entry.path_bytes()).into_owned())
        .collect()
}

#[test]
fn copies_have_the_same_layers_as_root_and_without_privilege() {
    // The times of copied files are those of the context, which differ between two contexts made one after the other.
    let [root, user] = twice(COPIES, &[]);
    assert_eq!(without_times(&root), without_times(&user));
    let shared = place(COPIES);
    let first = shared.image(&[]);
    let second = shared
        .with_root(&tempfile::tempdir().unwrap().path().join("other"))
        .image(&[]);
    assert_eq!(first.diff_ids(), second.diff_ids());
    assert_eq!(first.manifest["layers"], second.manifest["layers"]);
}

#[test]
fn commands_differ_in_nothing_but_their_times() {
    let [root, user] = twice(COMMANDS, &[]);
    let (root, user) = (without_times(&root), without_times(&user));
    assert_eq!(root.1, user.1);
    assert_eq!(root.0, user.0);
}

#[test]
fn commands_that_set_their_times_give_the_same_layers() {
    let text = "FROM busybox
RUN mkdir /d && echo 1 > /d/one && mkfifo /d/pipe && ln -s one /d/soft && touch -h -d @1000000000 /d/soft /d/one /d/pipe /d
RUN rm /d/one && ln /d/pipe /d/hard && touch -d @1100000000 /d/pipe /d
";
    let [root, user] = twice(text, &[]);
    assert_eq!(root.diff_ids(), user.diff_ids());
    assert_eq!(root.manifest["layers"], user.manifest["layers"]);
}

#[test]
fn with_an_epoch_and_rewritten_times_the_image_is_the_same() {
    let digests = [place(COMMANDS), place(COMMANDS).unprivileged()].map(|place| {
        let image = place.clamped_image(&[]);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(image.config["created"], "2020-09-13T12:26:40Z");
        let newest = image.files().values().map(|file| file.mtime).max();
        assert_eq!(newest, Some(EPOCH));
        image.digest
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn rewritten_times_can_be_had_again() {
    // More than a pipe holds.
    let place = place("FROM busybox\nRUN head -c 3000000 /dev/urandom > /large\n");
    let first = place.clamped_image(&[]).digest;
    assert_eq!(place.clamped_image(&[]).digest, first);
}

#[test]
fn the_epoch_of_the_environment_counts_like_the_argument() {
    let place = place("FROM busybox\nENV a=b\n");
    let argument = place.image(&["--build-arg=SOURCE_DATE_EPOCH=1600000000"]);
    let file = place.path("other.tar");
    let mut command = place.build_command();
    command
        .env("SOURCE_DATE_EPOCH", "1600000000")
        .arg(place.context());
    command.arg(format!("--output=type=oci,dest={}", file.display()));
    crate::support::finish(&mut command).success();
    assert_eq!(Image::read(&file).digest, argument.digest);
}

#[test]
fn the_number_of_jobs_does_not_matter() {
    let stages: String = (0..6)
        .map(|n| format!("FROM busybox AS s{n}\nCOPY dir /d{n}/\n"))
        .collect();
    let copies: String = (0..6)
        .map(|n| format!("COPY --from=s{n} /d{n} /d{n}/\n"))
        .collect();
    let place = place(&format!("{stages}FROM busybox\n{copies}"));
    let one = place.image(&["--jobs=1"]);
    let many = place.with_root(&tempfile::tempdir().unwrap().path().join("other"));
    assert_eq!(many.image(&["--jobs=16"]).diff_ids(), one.diff_ids());
}

#[test]
fn an_image_is_the_same_from_every_base_with_the_same_layers() {
    let place = place(COPIES);
    let registry = crate::support::registry::Registry::start();
    registry.fill(&crate::support::base::busybox(), "busybox");
    let layout = place.image(&[]);
    let pulled = Place::with_dockerfile(&COPIES.replace("busybox", &registry.name("busybox")));
    let mut command = pulled.build_command();
    command.arg(format!(
        "--output=type=oci,dest={}",
        pulled.path("image.tar").display()
    ));
    command
        .args(["--file"])
        .arg(pulled.context().join("Dockerfile"))
        .arg(place.context());
    crate::support::finish(&mut command).success();
    let pulled = Image::read(&pulled.path("image.tar"));
    assert_eq!(pulled.manifest["layers"], layout.manifest["layers"]);
}

#[test]
fn an_epoch_changes_no_layer_that_an_earlier_one_made() {
    let text = "FROM busybox\nWORKDIR /made\nCOPY a new/sub/\nCOPY <<EOF /text\nhello\nEOF\n";
    let args = [1_000, 2_000].map(|epoch| format!("--build-arg=SOURCE_DATE_EPOCH={epoch}"));
    let shared = place(text);
    let first = shared.image(&[&args[0]]);
    let second = shared.image(&[&args[1]]);
    assert_eq!(first.diff_ids(), second.diff_ids());
    let fresh = shared.with_root(&tempfile::tempdir().unwrap().path().join("other"));
    assert_eq!(fresh.image(&[&args[1]]).digest, second.digest);
}
