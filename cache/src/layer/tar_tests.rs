//! Tars of others: what they mean, and that scan and apply agree about it.
//!
//! Not here: what no tar may be (`tar_malformed_tests`).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::apply::apply;
use super::entry::{Entry, EntryKind};
use super::error::LayerError;
use super::index::LayerIndex;
use super::pax;
use super::scan::scan;
use super::tests_support::*;
use super::tree::OverlayXattrs;
use super::verify::is_intact;

/// A member as text: kind, path, and content or target.
pub(super) fn member(kind: u8, path: &[u8], content: &[u8]) -> Vec<u8> {
    raw(kind, path, content, |_| {})
}

pub(super) fn raw(
    kind: u8,
    path: &[u8],
    content: &[u8],
    change: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut block = vec![0; 512];
    let is_link = matches!(kind, b'1' | b'2');
    let size = if is_link { 0 } else { content.len() };
    block[..path.len().min(100)].copy_from_slice(&path[..path.len().min(100)]);
    block[100..107].copy_from_slice(if kind == b'5' { b"0000755" } else { b"0000644" });
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000144");
    block[156] = kind;
    if is_link {
        block[157..157 + content.len()].copy_from_slice(content);
    }
    block[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    if !is_link {
        block.extend_from_slice(content);
        block.resize(block.len().next_multiple_of(512), 0);
    }
    block
}

pub(super) fn records(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in pairs {
        pax::write(&mut data, key.as_bytes(), value);
    }
    member(b'x', b"pax", &data)
}

pub(super) fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = members.concat();
    tar.extend_from_slice(&[0; 1024]);
    tar
}

/// Scans and applies; both must agree, and the tree must be what the index says.
pub(super) fn both(members: &[Vec<u8>]) -> Result<LayerIndex, LayerError> {
    require_root();
    let tar = tar(members);
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(dir.path().join("outside"), "outside").unwrap();
    let applied = apply(tar.as_slice(), &tree, OverlayXattrs::Trusted);
    assert_eq!(
        fs::read_to_string(dir.path().join("outside")).unwrap(),
        "outside"
    );
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "nothing is made outside"
    );
    let scanned = scan(tar.as_slice());
    match (applied, scanned) {
        (Ok(applied), Ok(scanned)) => {
            assert_eq!(applied, scanned);
            let on_disk = walk(&tree);
            let in_index: Vec<String> = applied
                .nodes()
                .iter()
                .map(|n| shown(&applied, &n.entry))
                .collect();
            assert_eq!(on_disk, in_index);
            Ok(applied)
        }
        (Err(applied), Err(scanned)) => {
            assert_eq!(applied.to_string(), scanned.to_string());
            Err(scanned)
        }
        (applied, scanned) => panic!("{applied:?} but {scanned:?}"),
    }
}

fn shown(index: &LayerIndex, entry: &Entry) -> String {
    let kind = match &index.inode(entry).kind {
        EntryKind::Directory { is_opaque: true } => "opaque".to_owned(),
        EntryKind::Directory { is_opaque: false } => "dir".to_owned(),
        EntryKind::File { size, .. } => format!("file {size}"),
        EntryKind::Symlink { target } => format!("link {}", text(target)),
        EntryKind::CharDevice { major, minor } => format!("char {major} {minor}"),
        EntryKind::BlockDevice { major, minor } => format!("block {major} {minor}"),
        EntryKind::Fifo => "fifo".to_owned(),
        EntryKind::Whiteout => return format!("{} whiteout", text(&entry.path)),
        EntryKind::HardLink { .. } => "unresolved".to_owned(),
    };
    format!(
        "{} {kind} {:o} {}:{} {}",
        text(&entry.path),
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime
    )
}

fn walk(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let at = root.join(std::ffi::OsStr::from_bytes(&path));
        let meta = fs::symlink_metadata(&at).unwrap();
        let (major, minor) = (
            rustix::fs::major(meta.rdev()),
            rustix::fs::minor(meta.rdev()),
        );
        let kind = meta.file_type();
        let kind = if kind.is_dir() {
            for child in fs::read_dir(&at).unwrap() {
                todo.push(super::path::join(
                    &path,
                    child.unwrap().file_name().as_bytes(),
                ));
            }
            let opaque = super::tree::link_xattr_names(&at).unwrap();
            if opaque.is_empty() {
                "dir".to_owned()
            } else {
                "opaque".to_owned()
            }
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(&at).unwrap().display())
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else if kind.is_block_device() {
            format!("block {major} {minor}")
        } else if kind.is_char_device() && meta.rdev() != 0 {
            format!("char {major} {minor}")
        } else if kind.is_char_device() {
            "whiteout".to_owned()
        } else {
            format!("file {}", meta.len())
        };
        let line = if kind == "whiteout" {
            format!("{} whiteout", text(&path))
        } else {
            let (mode, mtime) = (meta.mode() & 0o7777, meta.mtime());
            format!(
                "{} {kind} {mode:o} {}:{} {mtime}",
                text(&path),
                meta.uid(),
                meta.gid()
            )
        };
        found.push((path, line));
    }
    found.sort_by(|l, r| super::path::compare(&l.0, &r.0));
    found.into_iter().map(|(_, line)| line).collect()
}

fn lines(members: &[Vec<u8>]) -> Vec<String> {
    let index = both(members).unwrap();
    index.entries().map(|entry| shown(&index, entry)).collect()
}

#[test]
fn paths_stay_inside_and_links_are_followed_inside() {
    let cases: [(Vec<Vec<u8>>, &[&str]); 9] = [
        (
            vec![
                member(b'0', b"../../outside", b"x"),
                member(b'0', b"/abs/./f", b"y"),
            ],
            &["abs/f file 1 644 0:0 100", "outside file 1 644 0:0 100"],
        ),
        (
            vec![
                member(b'2', b"bin", b"/usr/bin"),
                member(b'0', b"bin/tool", b"t"),
            ],
            &[
                "bin link /usr/bin 777 0:0 100",
                "usr/bin/tool file 1 644 0:0 100",
            ],
        ),
        (
            vec![
                member(b'2', b"up", b"../../.."),
                member(b'0', b"up/outside", b"t"),
            ],
            &["outside file 1 644 0:0 100", "up link ../../.. 777 0:0 100"],
        ),
        (
            vec![member(b'2', b"l", b"outside"), member(b'0', b"l", b"new")],
            &["l file 3 644 0:0 100"],
        ),
        (
            vec![
                member(b'0', b"f", b"1"),
                member(b'1', b"a", b"./f"),
                member(b'0', b"f", b"22"),
            ],
            &["a file 1 644 0:0 100", "f file 2 644 0:0 100"],
        ),
        (
            vec![
                member(b'5', b"d/", b""),
                member(b'0', b"d/f", b"1"),
                member(b'0', b"d", b"22"),
            ],
            &["d file 2 644 0:0 100"],
        ),
        (
            vec![
                member(b'0', b"d", b"22"),
                member(b'5', b"d", b""),
                member(b'0', b"d/f", b"1"),
            ],
            &["d dir 755 0:0 100", "d/f file 1 644 0:0 100"],
        ),
        (
            vec![
                member(b'5', b"./", b""),
                member(b'g', b"global", b"13 comment=x\n"),
            ],
            &[" dir 755 0:0 100"],
        ),
        (vec![], &[]),
    ];
    for (members, expected) in cases {
        assert_eq!(lines(&members), expected);
    }
}

#[test]
fn deletions() {
    let cases: [(Vec<Vec<u8>>, &[&str]); 6] = [
        (vec![member(b'0', b"d/.wh.x", b"")], &["d/x whiteout"]),
        (
            vec![member(b'0', b"d/.wh..wh..opq", b"")],
            &["d opaque 755 0:0 0"],
        ),
        (
            vec![member(b'0', b".wh.x", b""), member(b'0', b"x", b"1")],
            &["x file 1 644 0:0 100"],
        ),
        (
            vec![member(b'5', b"x", b""), member(b'0', b".wh.x", b"")],
            &["x opaque 755 0:0 100"],
        ),
        (
            vec![member(b'0', b".wh.x", b""), member(b'0', b"x/y", b"1")],
            &["x opaque 755 0:0 0", "x/y file 1 644 0:0 100"],
        ),
        (
            vec![
                member(b'0', b".wh..wh.aufs", b""),
                member(b'0', b".wh..wh.plnk/1", b""),
            ],
            &[],
        ),
    ];
    for (members, expected) in cases {
        assert_eq!(lines(&members), expected);
    }
    let longest = vec![b'n'; 255];
    let name = [b".wh.", &longest[..]].concat();
    let index = both(&[records(&[("path", &name)]), member(b'0', b"x", b"")]).unwrap();
    assert_eq!(index.lookup(&longest).unwrap().kind, EntryKind::Whiteout);
}

#[test]
fn extension_headers() {
    let long = format!("dir/{}", "n".repeat(200));
    let mut capability = vec![1, 0, 0, 2, 0x0a, 0, 0, 0];
    capability.resize(20, 0);
    let index = both(&[
        records(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("mtime", b"-1.5"),
            ("path", long.as_bytes()),
            ("uid", b"3000000"),
        ]),
        member(b'0', b"short", b"content"),
    ])
    .unwrap();
    let entry = index.lookup(long.as_bytes()).unwrap();
    assert_eq!((entry.mtime, entry.uid), (-2, 3_000_000));
    assert_eq!(entry.capability, Some(capability));

    let gnu = |kind, text: &str| {
        raw(
            kind,
            b"././@LongLink",
            format!("{text}\0").as_bytes(),
            |_| {},
        )
    };
    let index = both(&[gnu(b'K', &long), gnu(b'L', &long), member(b'2', b"n", b"t")]).unwrap();
    let target = EntryKind::Symlink {
        target: long.clone().into_bytes(),
    };
    assert_eq!(index.lookup(long.as_bytes()).unwrap().kind, target);

    let prefixed = raw(b'0', b"name", b"", |block| {
        block[345..348].copy_from_slice(b"a/b");
    });
    assert!(both(&[prefixed]).unwrap().lookup(b"a/b/name").is_some());
    // GNU keeps times where POSIX keeps the prefix.
    let gnu_times = raw(b'0', b"name", b"", |block| {
        block[257..265].copy_from_slice(b"ustar  \0");
        block[345..356].copy_from_slice(b"00000000000");
        block[136..148].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    });
    assert_eq!(
        both(&[gnu_times]).unwrap().lookup(b"name").unwrap().mtime,
        -1
    );
}

#[test]
fn our_tars_are_read_by_the_tar_crate() {
    let mut entries = vec![
        directory("dir", 0o1777),
        file("dir/a", b"content"),
        link("dir/b", "dir/a"),
        symlink("dir/l", &"t".repeat(150)),
        whiteout("gone"),
        opaque("opaque"),
    ];
    let mut far = file(&format!("far/{}", "x".repeat(240)), b"");
    (far.uid, far.gid, far.mtime) = (3_000_000, 4_000_000, -5);
    entries.push(far);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    fs::create_dir(dir.path().join("far")).unwrap();
    fs::write(dir.path().join("dir/a"), "content").unwrap();
    fs::write(dir.path().join(format!("far/{}", "x".repeat(240))), "").unwrap();
    let index = LayerIndex::new(entries, vec![]).unwrap();
    let mut bytes = Vec::new();
    super::pack::pack(&index, dir.path(), &mut super::sink::Plain(&mut bytes)).unwrap();
    let mut read = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        let kind = char::from(entry.header().entry_type().as_byte());
        let target = entry.link_name_bytes().map_or(0, |target| target.len());
        let owner = (entry.header().uid().unwrap(), entry.header().gid().unwrap());
        read.push((text(&entry.path_bytes()), kind, target, owner));
    }
    let expected = [
        ("dir/".to_owned(), '5', 0, (0, 0)),
        ("dir/a".to_owned(), '0', 0, (0, 0)),
        ("dir/b".to_owned(), '1', 5, (0, 0)),
        ("dir/l".to_owned(), '2', 150, (0, 0)),
        (
            format!("far/{}", "x".repeat(240)),
            '0',
            0,
            (3_000_000, 4_000_000),
        ),
        (".wh.gone".to_owned(), '0', 0, (0, 0)),
        ("opaque/".to_owned(), '5', 0, (0, 0)),
        ("opaque/.wh..wh..opq".to_owned(), '0', 0, (0, 0)),
    ];
    assert_eq!(read, expected);
    let scanned: Vec<Entry> = scan(bytes.as_slice()).unwrap().entries().cloned().collect();
    assert_eq!(scanned, index.entries().cloned().collect::<Vec<_>>());
    // Pinned: other bytes would be another format.
    let digest = crate::digest::Digest::of(&bytes);
    assert_eq!(
        (bytes.len(), digest.as_str()),
        (
            7680,
            "sha256:cdc7a93e2b8a08450615c9ac65cec414c80796c9f753c8bfe53fe2280c7a2679"
        )
    );
}

#[test]
fn trees_for_user_namespaces_are_whole_without_devices() {
    require_root();
    let device = |path: &[u8]| {
        raw(b'3', path, b"", |block| {
            block[329..336].copy_from_slice(b"0000001");
            block[337..344].copy_from_slice(b"0000003");
        })
    };
    let cases: [(Vec<Vec<u8>>, &[&str]); 3] = [
        (
            vec![
                device(b"null"),
                member(b'1', b"same", b"null"),
                member(b'0', b"x", b""),
            ],
            &["x"],
        ),
        (
            vec![
                device(b"f"),
                member(b'0', b"f", b"1"),
                member(b'1', b"g", b"f"),
            ],
            &["f", "g"],
        ),
        (
            vec![
                device(b"d/f"),
                member(b'0', b"d", b"1"),
                member(b'5', b"d", b""),
                member(b'0', b"d/f", b"1"),
                member(b'1', b"g", b"d/f"),
            ],
            &["d", "g"],
        ),
    ];
    for (members, expected) in cases {
        let tar = tar(&members);
        let dir = tempfile::tempdir().unwrap();
        let index = apply(tar.as_slice(), dir.path(), OverlayXattrs::User).unwrap();
        assert_eq!(index, scan(tar.as_slice()).unwrap());
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, expected);
        let is_whole = || is_intact(&index, dir.path(), OverlayXattrs::User);
        assert!(is_whole(), "{expected:?}");
        fs::remove_file(dir.path().join(expected.last().unwrap())).unwrap();
        assert!(!is_whole(), "{expected:?}");
    }
}
