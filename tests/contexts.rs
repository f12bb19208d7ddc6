//! Every way to give a context and a Dockerfile.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::git::{COMMIT_TIME, Daemon, Repository};
use crate::support::image::Image;
use crate::support::web::{Page, Web};
use crate::support::{Outcome, Place, finish, store, testdata};

const DOCKERFILE: &str = "FROM scratch\nCOPY . /all/\nCOPY d/link /link\n";

/// A context of some files, all of the time of a commit.
fn tree(place: &Place) {
    place.file("Dockerfile", DOCKERFILE);
    place.file("a", "one\n").file("d/run", "#!/bin/sh\n");
    let run = place.context().join("d/run");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(run, executable).unwrap();
    std::os::unix::fs::symlink("../a", place.context().join("d/link")).unwrap();
    let time = format!("@{COMMIT_TIME}");
    finish(
        Command::new("find")
            .arg(place.context())
            .args(["-exec", "touch", "-h", "-d", &time, "{}", "+"]),
    )
    .success();
}

/// Packs a directory as `tar` does, compressed by a flag.
fn packed(place: &Place, compression: Option<&str>) -> PathBuf {
    let file = place.path("packed");
    let mut command = Command::new("tar");
    command.args(compression);
    command.arg("-cf").arg(&file).arg("-C").arg(place.context());
    finish(command.arg(".")).success();
    file
}

/// Builds what a context argument and flags say, with a file on standard input.
fn build(place: &Place, stdin: Option<&Path>, args: &[&str]) -> Outcome {
    let mut command = place.build_command();
    if let Some(stdin) = stdin {
        command.stdin(Stdio::from(File::open(stdin).unwrap()));
    }
    finish(command.args(args))
}

/// The same, and reads the image back.
fn image(place: &Place, stdin: Option<&Path>, args: &[&str]) -> Image {
    let file = place.path("image.tar");
    let output = format!("--output=type=oci,dest={}", file.display());
    let all = [&["--build-arg=SOURCE_DATE_EPOCH=0", &output], args].concat();
    build(place, stdin, &all).success();
    Image::read(&file)
}

#[test]
fn the_same_files_give_the_same_image_from_everywhere() {
    let place = Place::new();
    tree(&place);
    let directory = image(&place, None, &["context"]).digest;
    for flag in [None, Some("-z"), Some("-j"), Some("-J"), Some("--zstd")] {
        let stdin = packed(&place, flag);
        let got = image(&place, Some(&stdin), &["-"]).digest;
        assert_eq!(got, directory, "tar {flag:?}");
    }
    let web = Web::start();
    let tgz = std::fs::read(packed(&place, Some("-z"))).unwrap();
    let page = Page {
        etag: Some("\"1\"".to_owned()),
        ..Page::new(tgz)
    };
    web.put("/c.tgz", page);
    let url = web.url("/c.tgz");
    assert_eq!(image(&place, None, &[&url]).digest, directory);
    assert_eq!(image(&place, None, &[&url]).digest, directory);
    assert_eq!(web.take_lines(), ["GET /c.tgz 200", "GET /c.tgz 304"]);

    let repository = Repository::new(&place.path("repository"));
    let copy = "cp -a context/. repository/";
    finish(
        Command::new("sh")
            .args(["-c", copy])
            .current_dir(place.path("")),
    )
    .success();
    let commit = repository.commit();
    repository.publish(&place.path("served/r.git"));
    let daemon = Daemon::start(&place.path("served"));
    web.serve_git(&place.path("served"), None);
    for url in [
        format!("git://{}/r.git", daemon.address),
        format!("git://{}/r.git#main", daemon.address),
        format!("{}#{commit}", web.url("/git/r.git")),
    ] {
        assert_eq!(image(&place, None, &[&url]).digest, directory, "{url}");
    }
    store::assert_sound(&place.root());
    store::assert_tidy(&place.root());
}

#[test]
fn a_dockerfile_may_come_alone() {
    let place = Place::new();
    let web = Web::start();
    let text = "FROM busybox\nRUN echo made > /file\n";
    web.put("/Dockerfile", Page::new(text));
    let file = place.path("df");
    std::fs::write(&file, text).unwrap();
    let url = web.url("/Dockerfile");
    for (stdin, context) in [(Some(&*file), "-"), (None, url.as_str())] {
        assert_eq!(image(&place, stdin, &[context]).text("file"), "made\n");
    }
    // Its context is empty, and a mistake in it is shown.
    std::fs::write(&file, "FROM scratch\nCOPY a /\n").unwrap();
    build(&place, Some(&file), &["-"])
        .failure(1)
        .says("\"/a\": not found")
        .says(">>> COPY a /");
    web.put("/Dockerfile", Page::new("FROM scratch\nCOPI a /\n"));
    build(&place, None, &[&url])
        .failure(1)
        .says("   2 | >>> COPI a /");
}

#[test]
fn the_dockerfile_and_the_context_may_come_from_two_places() {
    let place = Place::new();
    tree(&place);
    place.file("sub/other.df", "FROM scratch\nCOPY a /other\n");
    let stdin = packed(&place, None);
    let web = Web::start();
    web.put("/df", Page::new("FROM scratch\nCOPY a /fetched\n"));
    let url = web.url("/df");
    let here = place.path("here.df");
    std::fs::write(&here, "FROM scratch\nCOPY a /here\n").unwrap();
    let repository = Repository::new(&place.path("repository"));
    repository.file("a", "git\n");
    repository.file("ctx/a", "below\n");
    repository.file("ctx/Dockerfile", "FROM scratch\nCOPY a /git\n");
    repository.commit();
    repository.publish(&place.path("served/r.git"));
    let daemon = Daemon::start(&place.path("served"));
    let git = format!("git://{}/r.git", daemon.address);
    let below = format!("{git}#:ctx");
    let here_text = here.to_str().unwrap();
    let cases: [(Option<&Path>, &[&str], &str, &str); 8] = [
        (Some(&stdin), &["-f", "sub/other.df", "-"], "other", "one\n"),
        (Some(&stdin), &["-f", &url, "-"], "fetched", "one\n"),
        (Some(&stdin), &["-f", here_text, "-"], "here", "one\n"),
        (None, &["-f", &url, "context"], "fetched", "one\n"),
        (Some(&here), &["-f", "-", "context"], "here", "one\n"),
        (Some(&here), &["-f", "-", &git], "here", "git\n"),
        (None, &["-f", "ctx/Dockerfile", &git], "git", "git\n"),
        (None, &[&below], "git", "below\n"),
    ];
    for (stdin, args, path, want) in cases {
        assert_eq!(image(&place, stdin, args).text(path), want, "{args:?}");
    }
    build(&place, Some(&here), &["-f", "-", "-"])
        .failure(2)
        .says("can't use stdin for both");
    build(&place, None, &[&git])
        .failure(1)
        .says("failed to read dockerfile: open Dockerfile: no such file or directory");
}

#[test]
fn ignore_files_are_for_directories() {
    let place = Place::new();
    place.file("Dockerfile", "FROM scratch\nCOPY . /\n");
    place.file("a", "").file(".dockerignore", "a\n");
    assert!(!image(&place, None, &["context"]).files().contains_key("a"));
    let stdin = packed(&place, None);
    assert!(
        image(&place, Some(&stdin), &["-"])
            .files()
            .contains_key("a")
    );
}

#[test]
fn named_contexts_come_from_everywhere() {
    let place = Place::new();
    place.file(
        "Dockerfile",
        "FROM base\nCOPY --from=repo d/b /b\nCOPY --from=file f.txt /f\nRUN --mount=from=repo,target=/m cp /m/a /a\n",
    );
    let repository = Repository::new(&place.path("repository"));
    repository.file("a", "git\n").file("d/b", "deep\n").commit();
    repository.publish(&place.path("served/r.git"));
    let daemon = Daemon::start(&place.path("served"));
    let web = Web::start();
    web.put("/x/f.txt", Page::new("fetched\n"));
    let layout = testdata("images/busybox").display().to_string();
    let index = std::fs::read_to_string(Path::new(&layout).join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let repo = format!("--build-context=repo=git://{}/r.git#main", daemon.address);
    let file = format!("--build-context=file={}", web.url("/x/f.txt"));
    for base in [layout.clone(), format!("{layout}@{digest}")] {
        let base = format!("--build-context=base=oci-layout://{base}");
        let image = image(&place, None, &[&repo, &file, &base, "context"]);
        for (path, want) in [("b", "deep\n"), ("f", "fetched\n"), ("a", "git\n")] {
            assert_eq!(image.text(path), want, "{path}");
        }
    }
    place.file("Dockerfile", "FROM repo\nCOPY Dockerfile /\n");
    let files = image(&place, None, &[&repo, "context"]).files();
    assert_eq!(files["d/b"].content, b"deep\n");
}

/// A tar of members as told, with a Dockerfile.
fn hostile(members: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    let all = [(
        "Dockerfile",
        tar::EntryType::Regular,
        "FROM scratch\nCOPY . /\n",
    )];
    for (path, kind, content) in all.iter().chain(members) {
        let mut header = tar::Header::new_ustar();
        // Around the checks of the library.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        if is_link {
            header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
        }
        let content = if is_link { "" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        out.append(&header, content.as_bytes()).unwrap();
    }
    out.into_inner().unwrap()
}

fn given(place: &Place, bytes: &[u8]) -> PathBuf {
    let file = place.path("hostile.tar");
    File::create(&file).unwrap().write_all(bytes).unwrap();
    file
}

#[test]
fn archives_cannot_reach_outside() {
    use tar::EntryType::{Link, Regular, Symlink};
    let place = Place::new();
    let outside = place.path("outside");
    std::fs::write(&outside, "untouched").unwrap();
    let outside = outside.to_str().unwrap();
    let bytes = hostile(&[
        ("../../up", Regular, "1"),
        ("/absolute", Regular, "2"),
        ("out", Symlink, outside),
        ("out", Regular, "replaced"),
        ("dir", Symlink, "/"),
        ("dir/through", Regular, "3"),
        ("chain", Symlink, "dir/../.."),
        ("chain/again", Regular, "4"),
        ("hard", Link, "../../../Dockerfile"),
    ]);
    let stdin = given(&place, &bytes);
    let image = image(&place, Some(&stdin), &["-"]);
    for (path, want) in [
        ("up", "1"),
        ("absolute", "2"),
        ("out", "replaced"),
        ("through", "3"),
        ("again", "4"),
        ("hard", "FROM scratch\nCOPY . /\n"),
    ] {
        assert_eq!(image.text(path), want, "{path}");
    }
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "untouched");
}

#[test]
fn hostile_archives_end_in_errors_and_leave_nothing() {
    use tar::EntryType::{Char, Link, Regular, Symlink};
    let place = Place::new();
    place.file("Dockerfile", "FROM scratch\n");
    let whole = hostile(&[("f", Regular, "content")]);
    let cut = whole[..2000].to_vec();
    let mut huge = hostile(&[("f", Regular, "")]);
    // 2^62 bytes, in the notation for large numbers.
    let at = 1024;
    huge[at + 124..at + 136].copy_from_slice(&[0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]);
    let sum: u32 = (0..512)
        .map(|i| match i {
            148..156 => 32,
            i => u32::from(huge[at + i]),
        })
        .sum();
    huge[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&huge).unwrap();
    gzip.write_all(&vec![0; 1 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    for (bytes, why) in [
        (cut, "unexpected EOF"),
        (huge, "unpacks to more bytes"),
        (bomb, "unpacks to more bytes"),
        (hostile(&[("d/.wh.x", Regular, "")]), "starts with `.wh.`"),
        (hostile(&[("null", Char, "")]), "character device 0/0"),
        (
            hostile(&[("l", Link, "later"), ("later", Regular, "")]),
            "no such file",
        ),
        (
            hostile(&[
                ("a", Symlink, "b"),
                ("b", Symlink, "a"),
                ("a/f", Regular, ""),
            ]),
            "too many levels of symbolic links",
        ),
        (b"BZh9 but not really".to_vec(), "cannot unpack `/context`"),
    ] {
        let stdin = given(&place, &bytes);
        let failed = build(&place, Some(&stdin), &["-"]);
        assert_ne!(failed.code, Some(0), "{why}");
        drop(failed.says(why));
        store::assert_tidy(&place.root());
        let trees = place.root().join("trees");
        let kept = std::fs::read_dir(trees).map_or(0, Iterator::count);
        assert_eq!(kept, 0, "{why}");
    }
}

#[test]
fn a_member_may_be_a_hard_link_to_a_file_below() {
    let place = Place::new();
    place.file("t.tar", hostile(&[("new", tar::EntryType::Link, "old")]));
    place.file("old", "from below\n");
    place.file(
        "Dockerfile",
        "FROM scratch AS below\nCOPY old /d/old\nFROM below\nADD t.tar /d/\n",
    );
    let image = image(&place, None, &["context"]);
    let mut layer = tar::Archive::new(image.layers[1].as_slice());
    let listed: Vec<(String, tar::EntryType)> = layer
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            (path, entry.header().entry_type())
        })
        .filter(|(path, _)| path.starts_with("d/") && !path.ends_with('/'))
        .collect();
    let names = ["d/Dockerfile", "d/new", "d/old"].map(str::to_owned);
    let kinds = [
        tar::EntryType::Regular,
        tar::EntryType::Regular,
        tar::EntryType::Link,
    ];
    assert_eq!(listed, names.into_iter().zip(kinds).collect::<Vec<_>>());
    for path in ["d/new", "d/old"] {
        assert_eq!(image.text(path), "from below\n");
    }
}

#[test]
fn sparse_files_of_archives_have_their_holes() {
    let place = Place::new();
    // More extents than a header of GNU's own format has room for, and than the block after it.
    let islands: Vec<_> = (1..=40).map(|number| number * 20_000).collect();
    let mut text = "\0".repeat(900_000);
    let file = File::create(place.path("sparse")).unwrap();
    for at in islands {
        text.replace_range(at..at + 4, "some");
        std::os::unix::fs::FileExt::write_all_at(&file, b"some", at as u64).unwrap();
    }
    file.set_len(900_000).unwrap();
    std::fs::write(place.path("next"), "next\n").unwrap();
    let mut dockerfile = "FROM scratch\n".to_owned();
    let formats = ["gnu", "oldgnu", "pax=0.0", "pax=0.1", "pax=1.0"];
    for name in formats {
        let (format, version) = name.split_once('=').unwrap_or((name, "1.0"));
        let archive = place.path(&format!("context/{name}.tar"));
        let format = format!("--format={format}");
        let mut tar = Command::new("tar");
        tar.args([&format, "-S", "--sparse-version", version, "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(place.path(""))
            .args(["sparse", "next"]);
        finish(&mut tar).success();
        assert!(archive.metadata().unwrap().len() < 300_000);
        dockerfile.push_str(&format!("ADD {name}.tar /{name}/\n"));
    }
    place.file("Dockerfile", dockerfile);
    let image = place.image(&[]);
    for name in formats {
        assert!(image.text(&format!("{name}/sparse")) == text, "{name}");
        assert_eq!(image.text(&format!("{name}/next")), "next\n", "{name}");
    }
}

#[test]
fn ignored_tells_the_rule() {
    let place = Place::new();
    place.file(".dockerignore", "dist\n!dist/keep\n");
    let told = place.run(["ignored", "--context=context", "dist/a", "dist/keep", "src"]);
    assert_eq!(
        told.success().stdout,
        "dist/a\tignored\t.dockerignore:1 (`dist`)\n\
         dist/keep\tkept\t.dockerignore:2 (`!dist/keep`)\n\
         src\tkept\tno rule of .dockerignore matches\n"
    );
}
