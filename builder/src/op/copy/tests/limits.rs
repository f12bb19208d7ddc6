//! Members and paths that no layer can have, and copies of nothing.

use std::error::Error as _;
use std::fs;

use cache::layer::tree::OverlayXattrs;
use cache::layer::verify::is_intact;
use frontend::graph::Owner;

use super::super::apply::apply;
use super::archives::{add, with_archive};
use super::{World, changed, copy};

/// A tar of one member of a kind: its PAX records, and what else is to be done to its header.
fn member(
    kind: tar::EntryType,
    records: &[(&str, &[u8])],
    edit: impl FnOnce(&mut tar::Header),
) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_pax_extensions(records.iter().copied())
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.as_old_mut().name[0] = b'x';
    header.as_old_mut().linkname[0] = b'y';
    header.set_mode(0o640);
    header.set_size(0);
    header.set_mtime(77);
    edit(&mut header);
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn members_that_layers_cannot_have_are_named() {
    use tar::EntryType::{Block, Char, Regular, Symlink};
    let deep = b"a/".repeat(50_000);
    let nothing = |_: &mut tar::Header| {};
    let device = |major, minor| {
        move |header: &mut tar::Header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        }
    };
    let cases: [(Vec<u8>, &str); 8] = [
        // The kernel takes it as "leave the owner as it is".
        (
            member(Regular, &[("uid", b"4294967295")], nothing),
            "owner out of range",
        ),
        (
            member(Regular, &[("gid", b"99999999999")], nothing),
            "owner out of range",
        ),
        (
            member(Char, &[], device(4096, 0)),
            "device number out of range",
        ),
        (
            member(Block, &[], device(1, 1 << 20)),
            "device number out of range",
        ),
        (
            member(Regular, &[("path", &deep)], nothing),
            "longer than 4095 bytes",
        ),
        (
            member(Regular, &[("path", b"a\0b")], nothing),
            "holds a NUL byte",
        ),
        (
            member(Symlink, &[("linkpath", b"a\0b")], nothing),
            "holds a NUL byte",
        ),
        (
            member(Symlink, &[], |header| header.as_old_mut().linkname[0] = 0),
            "a link to nothing",
        ),
    ];
    for (bytes, why) in cases {
        let world = with_archive(&[], &bytes);
        let error = world.plan(&add(&["t"], "/dst/")).unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(
            cause.starts_with("member /") && cause.contains(why),
            "{why}: {cause}"
        );
        assert!(cause.len() < 5000);
    }
}

#[test]
fn an_archive_that_cannot_be_unpacked_is_not_copied_instead() {
    use tar::EntryType;
    let cases = [
        (member(EntryType::GNUSparse, &[], |_| {}), "sparse files"),
        (
            member(EntryType::Regular, &[("GNU.sparse.major", b"1")], |_| {}),
            "sparse files",
        ),
        (
            member(EntryType::Regular, &[("GNU.sparse.map", b"0,9")], |_| {}),
            "the map of a sparse file",
        ),
        (member(EntryType::new(b'V'), &[], |_| {}), "entry type V"),
        (
            member(EntryType::Directory, &[], |header| header.set_size(5)),
            "has a size",
        ),
    ];
    for (bytes, why) in cases {
        let world = with_archive(&[], &bytes);
        let error = world.plan(&add(&["t"], "/dst/")).unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains(why), "{why}: {cause}");
    }
}

#[test]
fn times_that_file_systems_cannot_keep_are_the_epoch() {
    for (written, time) in [
        ("9223372036", 9_223_372_036),
        ("9223372037", 0),
        ("9223372036854775807", 0),
        ("-1", 0),
        ("-9223372036854775808", 0),
    ] {
        let bytes = member(
            tar::EntryType::Regular,
            &[("mtime", written.as_bytes())],
            |_| {},
        );
        let plan = with_archive(&[], &bytes).plan(&add(&["t"], "/")).unwrap();
        assert_eq!(plan.entries().next().unwrap().mtime, time, "{written}");
    }
}

#[test]
fn paths_are_not_longer_than_the_kernel_takes() {
    // What a link leads to counts, not how it is written.
    let long = "d/".repeat(2040);
    let mut builder = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "l", &long).unwrap();
    let mut file = tar::Header::new_gnu();
    file.set_size(0);
    let below = format!("l/{}f", "e/".repeat(100));
    builder
        .append_data(&mut file, below, std::io::empty())
        .unwrap();
    let world = with_archive(&[], &builder.into_inner().unwrap());
    let error = world.error(&add(&["t"], "/"));
    assert!(
        error.ends_with("more than 4095 bytes: file name too long"),
        "{error}"
    );
    let error = World::new(&[]).error(&copy(&["a.txt"], &format!("/{}", "x/".repeat(3000))));
    assert!(
        error.ends_with("more than 4095 bytes: file name too long"),
        "{error}"
    );
}

#[test]
fn a_path_as_deep_as_can_be_is_planned_in_time() {
    // Two bytes a level: the planning of each must not look at all above it.
    let deep = b"d/".repeat(2000);
    let bytes = member(tar::EntryType::Directory, &[("path", &deep)], |_| {});
    let world = with_archive(&[], &bytes);
    let begun = std::time::Instant::now();
    let plan = world.plan(&add(&["t"], "/")).unwrap();
    assert_eq!(plan.entries().count(), 2000);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[test]
fn an_owner_that_chown_takes_as_none_is_unknown() {
    let with = |user: &str, group: Option<&str>| {
        let owner = Owner {
            user: user.to_owned(),
            group: group.map(str::to_owned),
        };
        changed(&["a.txt"], "/a", |action| action.owner = Some(owner))
    };
    let world = World::new(&["d /etc"]);
    assert_eq!(
        world.list(&with("4294967294", None)),
        ["f 0644 4294967294:4294967294 a"]
    );
    assert_eq!(world.list(&with("4294967295", None)), ["f 0644 0:0 a"]);
    assert_eq!(world.list(&with("7", Some("4294967295"))), ["f 0644 7:7 a"]);
}

#[test]
fn a_copy_of_nothing_is_a_layer_that_verifies() {
    let world = World::new(&[]);
    let tree = world.dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    world
        .with_plan(&copy(&["none*"], "/dst/"), |plan, sources| {
            assert!(plan.entries().next().is_none());
            let index = apply(plan, sources, &tree, 1).unwrap();
            assert!(is_intact(&index, &tree, OverlayXattrs::Trusted));
        })
        .unwrap();
}
