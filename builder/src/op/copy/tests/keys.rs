//! Every part of a selection and of a plan changes its key, nothing else does, and the keys are those recorded.

use std::sync::Arc;

use cache::checksum::stat_cache::FileStat;
use cache::digest::{CacheKey, ContentDigest};
use cache::layer::entry::{Entry, EntryKind};
use frontend::graph::{Chmod, InputIndex, Owner};

use super::super::nodes::Nodes;
use super::super::place::Ground;
use super::super::plan::{Bytes, Place, PlannedEntry, PlannedKind, Version, layer_key};
use super::super::selection::{Pick, Reason, SelectedAction, SelectedCopy, Selection, Treatment};
use super::super::source::{LinkIdentity, SourceEntry, SourceKind};
use super::super::target::Target;
use crate::op::file_key::content_key;
use crate::op::key_testing::{assert_recorded, key};

fn entry(kind: SourceKind) -> SourceEntry {
    SourceEntry {
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: 3,
        capability: None,
        link: None,
        stamp: None,
    }
}

/// Something that is selected.
struct Node {
    relative: Vec<u8>,
    entry: SourceEntry,
    reason: Reason,
}

fn listed(nodes: Vec<Node>) -> Nodes {
    let mut list = Nodes::default();
    for node in nodes {
        list.push(&node.relative, node.entry, node.reason);
    }
    list
}

fn node(relative: &str, kind: SourceKind) -> Node {
    Node {
        relative: relative.as_bytes().to_vec(),
        entry: entry(kind),
        reason: Reason::Meant,
    }
}

fn file(relative: &str) -> Node {
    node(relative, with_first_byte(5))
}

fn owner(group: Option<&str>) -> Option<Owner> {
    Some(Owner {
        user: "app".to_owned(),
        group: group.map(str::to_owned),
    })
}

/// The key of a COPY of a directory with two files, onto a base, with one thing changed.
fn selected(change: impl FnOnce(&mut SelectedCopy)) -> CacheKey {
    selected_nodes(|_| {}, change)
}

fn selected_nodes(
    change_nodes: impl FnOnce(&mut Vec<Node>),
    change: impl FnOnce(&mut SelectedCopy),
) -> CacheKey {
    let mut nodes = vec![node("", SourceKind::Directory), file("a"), file("b")];
    change_nodes(&mut nodes);
    let mut copy = SelectedCopy {
        input: Some(InputIndex(1)),
        destination: "/dst/".to_owned(),
        owner: owner(Some("web")),
        chmod: Some(Chmod::Octal(0o755)),
        mode: None,
        keeps_parents: false,
        keeps_owner: true,
        picks: vec![Pick {
            name: b"d".to_vec(),
            path: b"/d".to_vec(),
            treatment: Treatment::Copied,
            nodes: listed(nodes),
        }],
    };
    change(&mut copy);
    let actions = vec![SelectedAction::Copy(copy)];
    content_key(&Selection { actions }, Some(&key(1)))
}

/// With one thing of its first file changed.
fn with_file(change: impl FnOnce(&mut Node)) -> CacheKey {
    selected_nodes(|nodes| change(&mut nodes[1]), |_| {})
}

/// With its first file being something else.
fn with_kind(kind: SourceKind) -> CacheKey {
    with_file(|file| *file = node("a", kind))
}

fn made(actions: Vec<SelectedAction>, base: Option<CacheKey>) -> CacheKey {
    content_key(&Selection { actions }, base.as_ref())
}

fn mkdir(path: &str, mode: u32, owner: Option<Owner>) -> SelectedAction {
    let path = path.to_owned();
    SelectedAction::Mkdir { path, mode, owner }
}

fn mkfile(path: &str, mode: u32, data: &[u8]) -> SelectedAction {
    let (path, data) = (path.to_owned(), data.to_vec());
    SelectedAction::Mkfile { path, mode, data }
}

/// The first two files are one.
fn linked(nodes: &mut [Node]) {
    for node in &mut nodes[1..] {
        node.entry.link = Some(LinkIdentity(b"inode".to_vec()));
    }
}

/// A file whose digest begins with this byte.
fn with_first_byte(first: u8) -> SourceKind {
    let mut digest = [5; 32];
    digest[0] = first;
    SourceKind::File {
        size: 5,
        content: Some(ContentDigest(digest)),
    }
}

#[test]
fn keys_of_selections_are_those_recorded() {
    let chmod = |mode| selected(|copy| copy.chmod = mode);
    let keys = [
        ("copy", selected(|_| {})),
        ("destination", selected(|copy| copy.destination.push('2'))),
        ("group", selected(|copy| copy.owner = owner(None))),
        ("no owner", selected(|copy| copy.owner = None)),
        ("octal chmod", chmod(Some(Chmod::Octal(0o700)))),
        (
            "symbolic chmod",
            chmod(Some(Chmod::Symbolic("u=rwx".to_owned()))),
        ),
        ("no chmod", chmod(None)),
        ("parents", selected(|copy| copy.keeps_parents = true)),
        (
            "owners do not count",
            selected(|copy| copy.keeps_owner = false),
        ),
        (
            "source's name",
            selected(|copy| copy.picks[0].name.push(b'2')),
        ),
        (
            "unpacked",
            selected(|copy| copy.picks[0].treatment = Treatment::Unpacked),
        ),
        ("nothing found", selected(|copy| copy.picks.clear())),
        (
            "file less",
            selected_nodes(|nodes| drop(nodes.pop()), |_| {}),
        ),
        ("hard links", selected_nodes(|nodes| linked(nodes), |_| {})),
        ("file's name", with_file(|file| file.relative.push(b'2'))),
        (
            "file's content",
            with_file(|file| file.entry.kind = with_first_byte(6)),
        ),
        ("file's mode", with_file(|file| file.entry.mode = 0o755)),
        ("file's user", with_file(|file| file.entry.uid = 9)),
        ("file's group", with_file(|file| file.entry.gid = 9)),
        (
            "file's capability",
            with_file(|file| file.entry.capability = Some(vec![1])),
        ),
        (
            "only on the way",
            with_file(|file| file.reason = Reason::OnTheWay),
        ),
        ("directory", with_kind(SourceKind::Directory)),
        ("link", with_kind(SourceKind::Symlink(b"x".to_vec()))),
        (
            "link's target",
            with_kind(SourceKind::Symlink(b"y".to_vec())),
        ),
        ("character device", with_kind(SourceKind::CharDevice(1, 3))),
        ("device's number", with_kind(SourceKind::CharDevice(1, 5))),
        ("block device", with_kind(SourceKind::BlockDevice(1, 3))),
        ("pipe", with_kind(SourceKind::Fifo)),
        ("socket", with_kind(SourceKind::Socket)),
        (
            "mkdir",
            made(vec![mkdir("/d", 0o755, owner(None))], Some(key(1))),
        ),
        (
            "mkdir on another base",
            made(vec![mkdir("/d", 0o755, owner(None))], Some(key(2))),
        ),
        (
            "mkdir on scratch",
            made(vec![mkdir("/d", 0o755, owner(None))], None),
        ),
        (
            "mkdir elsewhere",
            made(vec![mkdir("/e", 0o755, owner(None))], Some(key(1))),
        ),
        (
            "mkdir of a mode",
            made(vec![mkdir("/d", 0o700, owner(None))], Some(key(1))),
        ),
        (
            "mkdir without owner",
            made(vec![mkdir("/d", 0o755, None)], Some(key(1))),
        ),
        ("mkfile", made(vec![mkfile("/d", 0o755, b"")], Some(key(1)))),
        (
            "mkfile elsewhere",
            made(vec![mkfile("/e", 0o755, b"")], Some(key(1))),
        ),
        (
            "mkfile of a mode",
            made(vec![mkfile("/d", 0o700, b"")], Some(key(1))),
        ),
        (
            "mkfile with data",
            made(vec![mkfile("/d", 0o755, b"x")], Some(key(1))),
        ),
    ];
    assert_recorded(
        include_str!("../../../../../testdata/keys/selection.txt"),
        &keys,
    );
}

fn stamp() -> FileStat {
    FileStat {
        device: 1,
        inode: 2,
        mode: 3,
        size: 4,
        mtime: (5, 6),
        ctime: (7, 8),
    }
}

#[test]
fn where_and_when_files_were_is_in_no_key_of_a_selection() {
    let original = selected(|_| {});
    let others = [
        selected(|copy| copy.input = None),
        selected(|copy| copy.picks[0].path.push(b'2')),
        with_file(|file| file.entry.mtime = 9),
        with_file(|file| file.entry.stamp = Some(stamp())),
        with_file(|file| file.entry.link = Some(LinkIdentity(b"inode".to_vec()))),
    ];
    for (number, other) in others.into_iter().enumerate() {
        assert_eq!(other, original, "case {number}");
    }
}

fn planned(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: 3,
        capability: None,
    }
}

fn planned_file(content: u8) -> EntryKind {
    EntryKind::File {
        size: 5,
        content: ContentDigest([content; 32]),
    }
}

fn planned_link(first: &str) -> EntryKind {
    EntryKind::HardLink {
        target: first.as_bytes().to_vec(),
    }
}

/// The key of a layer with a directory and a file, with one thing of the file changed.
fn layer(change: impl FnOnce(&mut Entry)) -> CacheKey {
    let mut file = planned("d/a", planned_file(5));
    change(&mut file);
    let directory = planned("d", EntryKind::Directory { is_opaque: false });
    layer_key([directory, file].iter())
}

fn layer_of(kind: EntryKind) -> CacheKey {
    layer(|file| file.kind = kind)
}

#[test]
fn keys_of_layers_are_those_recorded() {
    let target = |text: &str| EntryKind::Symlink {
        target: text.as_bytes().to_vec(),
    };
    let device = |minor| EntryKind::CharDevice { major: 1, minor };
    let block_device = EntryKind::BlockDevice { major: 1, minor: 3 };
    let keys = [
        ("layer", layer(|_| {})),
        ("nothing", layer_key([].iter())),
        ("path", layer(|file| file.path.push(b'2'))),
        ("mode", layer(|file| file.mode = 0o600)),
        ("user", layer(|file| file.uid = 9)),
        ("group", layer(|file| file.gid = 9)),
        ("capability", layer(|file| file.capability = Some(vec![1]))),
        ("content", layer_of(planned_file(6))),
        ("hard link", layer_of(planned_link("d/0"))),
        ("hard link to another", layer_of(planned_link("d/1"))),
        (
            "directory",
            layer_of(EntryKind::Directory { is_opaque: false }),
        ),
        ("link", layer_of(target("x"))),
        ("link's target", layer_of(target("y"))),
        ("character device", layer_of(device(3))),
        ("device's number", layer_of(device(5))),
        ("block device", layer_of(block_device)),
        ("pipe", layer_of(EntryKind::Fifo)),
    ];
    assert_recorded(
        include_str!("../../../../../testdata/keys/layer.txt"),
        &keys,
    );
}

/// The key of a plan of a directory and a file with these bytes.
fn plan_with(bytes: Bytes) -> CacheKey {
    let ground = Ground {
        base: None,
        base_input: None,
        room_bytes: 0,
    };
    let mut target = Target::new(&ground);
    let file = PlannedKind::File {
        size: 5,
        content: ContentDigest([5; 32]),
        bytes,
        group: 0,
    };
    for (path, kind) in [("d/a", file), ("d", PlannedKind::Directory)] {
        target.put(PlannedEntry {
            path: path.as_bytes().to_vec(),
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime: 4,
            capability: None,
        });
    }
    target.finish().unwrap().key()
}

#[test]
fn times_and_where_bytes_lie_are_in_no_key_of_a_layer() {
    let original = layer(|_| {});
    let place = |path: &str| {
        Arc::new(Place {
            input: Some(InputIndex(1)),
            path: path.as_bytes().to_vec(),
        })
    };
    let source = Bytes::Source {
        root: place("/a"),
        below: 1,
        version: Some(Version::from(&stamp())),
    };
    let archive = Bytes::Archive {
        archive: place("/a.tar"),
        member: 1,
    };
    assert_eq!(plan_with(Bytes::Inline(Box::default())), original);
    assert_eq!(plan_with(source), original);
    assert_eq!(plan_with(archive), original);
    assert_eq!(layer(|file| file.mtime = 9), original);
}

#[test]
fn every_part_of_a_stat_tells_versions_apart() {
    type Change = fn(&mut FileStat);
    let changes: [Change; 9] = [
        |_| {},
        |s| s.device += 1,
        |s| s.inode += 1,
        |s| s.mode += 1,
        |s| s.size += 1,
        |s| s.mtime.0 += 1,
        |s| s.mtime.1 += 1,
        |s| s.ctime.0 += 1,
        |s| s.ctime.1 += 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut changed = stamp();
        change(&mut changed);
        let is_same = Version::from(&changed) == Version::from(&stamp());
        assert_eq!(is_same, at == 0, "change {at}");
    }
}
