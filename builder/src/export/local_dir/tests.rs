//! Directories of files as they are written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::super::testing::{self, FakeLayers, FakeTree, image};
use super::*;

fn export(directory: &Path, tree: &FakeTree) -> Result<Vec<String>, ExportError> {
    let exporter = LocalDir {
        directory: directory.to_owned(),
    };
    let (layers, image) = (FakeLayers::default(), image(&[]));
    let (report, lines) = testing::export(&exporter, &image, &layers, tree);
    report.map(|_report| lines)
}

/// Path, type, mode, time and text of everything, in order.
fn listing(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in walkdir::WalkDir::new(directory)
        .min_depth(1)
        .sort_by_file_name()
    {
        let entry = entry.unwrap();
        let found = entry.path().symlink_metadata().unwrap();
        let path = entry.path().strip_prefix(directory).unwrap().display();
        let mode = found.mode() & 0o7777;
        lines.push(if found.is_symlink() {
            format!(
                "{path} -> {} {}",
                fs::read_link(entry.path()).unwrap().display(),
                found.mtime()
            )
        } else if found.is_file() {
            let text = fs::read_to_string(entry.path()).unwrap();
            format!("{path} {mode:o} {} {} {text}", found.mtime(), found.nlink())
        } else {
            format!("{path} {mode:o} {}", found.mtime())
        });
    }
    lines
}

fn sample() -> FakeTree {
    let mut tree = FakeTree::default();
    tree.add("bin", FlatKind::Directory).mode = 0o555;
    tree.add_file("bin/sh", b"shell").mode = 0o4755;
    tree.add(
        "bin/su",
        FlatKind::HardLink {
            target: b"bin/sh".to_vec(),
        },
    );
    tree.add("etc", FlatKind::Directory);
    tree.add("etc/deep", FlatKind::Directory);
    tree.add(
        "etc/deep/link",
        FlatKind::Symlink {
            target: b"/etc/passwd".to_vec(),
        },
    );
    tree.add_file("file", b"text");
    tree.add("pipe", FlatKind::Fifo).mode = 0o622;
    tree
}

const EXPECTED: [&str; 8] = [
    "bin 555 1000000000",
    "bin/sh 4755 1000000000 2 shell",
    "bin/su 4755 1000000000 2 shell",
    "etc 755 1000000000",
    "etc/deep 755 1000000000",
    "etc/deep/link -> /etc/passwd 1000000000",
    "file 644 1000000000 1 text",
    "pipe 622 1000000000",
];

#[test]
fn a_tree_is_written_as_it_is_and_again_over_itself() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a/b");
    for _ in 0..2 {
        let lines = export(&out, &sample()).unwrap();
        assert_eq!(listing(&out), EXPECTED);
        assert_eq!(lines[0], "exporting to client directory");
        assert_eq!(lines[3], "copying files 9/9 done");
    }
    let found = fs::metadata(out.join("file")).unwrap();
    assert_eq!(found.uid(), rustix::process::geteuid().as_raw());
}

#[test]
fn what_is_in_the_way_is_replaced_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (outside, out) = (dir.path().join("outside"), dir.path().join("out"));
    for path in [
        &outside,
        &out,
        &out.join("file"),
        &out.join("file/sub"),
        &out.join("kept"),
    ] {
        fs::create_dir(path).unwrap();
    }
    fs::write(out.join("file/sub/x"), "").unwrap();
    symlink("..", out.join("file/up")).unwrap();
    // Where the image has directories: a link that leads outside, and a file.
    symlink(&outside, out.join("bin")).unwrap();
    fs::write(out.join("etc"), "a file").unwrap();
    // Where it has a file: a link to one outside.
    fs::write(outside.join("victim"), "precious").unwrap();
    export(&out, &sample()).unwrap();
    let listing = listing(&out);
    assert!(listing.iter().any(|line| line.starts_with("kept ")));
    let rest: Vec<_> = listing
        .into_iter()
        .filter(|l| !l.starts_with("kept "))
        .collect();
    assert_eq!(rest, EXPECTED);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn links_of_the_image_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut tree = FakeTree::default();
    tree.add(
        "a",
        FlatKind::Symlink {
            target: outside.to_str().unwrap().into(),
        },
    );
    tree.add_file("a/evil", b"evil");
    let message = export(&dir.path().join("out"), &tree)
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "cannot export `a/evil`: its directory does not come before it"
    );
    let mut tree = FakeTree::default();
    tree.add(
        "a",
        FlatKind::Symlink {
            target: outside.to_str().unwrap().into(),
        },
    );
    tree.add(
        "b",
        FlatKind::HardLink {
            target: b"a/x".to_vec(),
        },
    );
    fs::write(outside.join("x"), "").unwrap();
    let error = export(&dir.path().join("out"), &tree).unwrap_err();
    assert!(error.to_string().starts_with("cannot create `"), "{error}");
    for path in ["../x", "/x", "x/../y", "", "x//y", "x\0"] {
        let mut tree = FakeTree::default();
        tree.add_file(path, b"evil");
        let message = export(&dir.path().join("out"), &tree)
            .unwrap_err()
            .to_string();
        assert!(
            message.ends_with("it is no path below the root"),
            "{path}: {message}"
        );
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
}

#[test]
fn a_torn_file_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("file"), "old").unwrap();
    fs::set_permissions(out.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut tree = FakeTree::default();
    tree.add_file("file", b"text").kind = FlatKind::File { size: 5 };
    export(&out, &tree).unwrap_err();
    assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "old");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    let message = export(&out.join("file"), &tree).unwrap_err().to_string();
    let expected = format!(
        "destination directory \"{}\" is a file",
        out.join("file").display()
    );
    assert_eq!(message, expected);
}
