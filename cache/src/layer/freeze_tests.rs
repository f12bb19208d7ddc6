//! Freezing real overlays, and what layers are made of then.
//!
//! Not here: random trees (`freeze_random_tests`).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::MountFlags;

use super::apply::apply;
use super::entry::EntryKind;
use super::freeze::{FreezeOptions, Frozen, freeze};
use super::index::LayerIndex;
use super::pack::pack;
use super::scan::scan;
use super::sink::{Plain, nowhere};
use super::stack::LayerStack;
use super::tests_support::*;
use super::tree::OverlayXattrs;
use crate::claim::starting::start;

pub(super) const OPTIONS: FreezeOptions = FreezeOptions {
    xattrs: OverlayXattrs::Trusted,
    clamp_mtime: None,
};

/// What a step sees of a path: all but inode numbers and sub-second times.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: i64,
    pub(super) device: u64,
    pub(super) links: u64,
    pub(super) content: Vec<u8>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything below a directory. Times of the root are left out.
pub(super) fn see(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() {
            fs::read(&path).unwrap()
        } else if meta.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec()
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|child| child.unwrap().path()),
            );
        }
        let names = super::tree::link_xattr_names(&path).unwrap();
        let xattrs = names.into_iter().map(|name| {
            let mut value = vec![0_u8; 1024];
            let length = rustix::fs::lgetxattr(&path, name.as_slice(), &mut value[..]).unwrap();
            value.truncate(length);
            (name, value)
        });
        let is_whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
        let relative = path.strip_prefix(dir).unwrap().to_owned();
        let is_root = relative.as_os_str().is_empty();
        let item = Seen {
            mode: if is_whiteout { 0 } else { meta.mode() },
            owner: if is_whiteout {
                (0, 0)
            } else {
                (meta.uid(), meta.gid())
            },
            mtime: if is_root || is_whiteout {
                0
            } else {
                meta.mtime()
            },
            device: meta.rdev(),
            links: if meta.is_dir() || is_whiteout {
                0
            } else {
                meta.nlink()
            },
            content,
            xattrs: xattrs.collect(),
        };
        seen.insert(relative, item);
    }
    seen
}

pub(super) struct Overlay {
    pub(super) merged: PathBuf,
}

impl Overlay {
    pub(super) fn mount(dir: &Path, lowers: &[PathBuf], upper: &Path) -> Self {
        let (merged, work) = (dir.join("merged"), dir.join("work"));
        fs::create_dir_all(&merged).unwrap();
        fs::create_dir_all(&work).unwrap();
        let lowers: Vec<&str> = lowers.iter().map(|lower| lower.to_str().unwrap()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},index=off,metacopy=off,redirect_dir=nofollow,volatile",
            lowers.join(":"),
            upper.display(),
            work.display()
        );
        let options = CString::new(options).unwrap();
        rustix::mount::mount(
            "overlay",
            &merged,
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .expect("these tests mount overlays: run `sudo -E cargo test -p cache`");
        Self { merged }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let unmounted = unmount(&self.merged);
        assert!(unmounted.is_ok() || std::thread::panicking());
        drop(fs::remove_dir_all(self.merged.with_file_name("work")));
    }
}

fn shell(dir: &Path, script: &str) {
    let mut command = std::process::Command::new("sh");
    command.args(["-euc", script]).current_dir(dir);
    let status = start(&mut command).wait().unwrap();
    assert!(status.success(), "{script}");
}

fn tar_of(index: &LayerIndex, tree: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    pack(index, tree, &mut Plain(&mut out)).unwrap();
    out
}

/// Makes a layer of what a script does in an empty directory.
fn base(dir: &Path, script: &str) -> (Arc<LayerIndex>, PathBuf) {
    let tree = dir.join("base");
    fs::create_dir(&tree).unwrap();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
    shell(&tree, script);
    let frozen = freeze(&tree, &LayerStack::default(), &mut nowhere(), OPTIONS).unwrap();
    (Arc::new(frozen.index), tree)
}

/// Runs a script on an overlay over a base, freezes it, and checks that the layer shows the same and survives its tar.
/// Gives what the layer has, one line an entry.
fn changes(base_script: &str, script: &str) -> Vec<String> {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    let (index, tree) = base(dir.path(), base_script);
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).unwrap();
    let overlay = Overlay::mount(dir.path(), std::slice::from_ref(&tree), &upper);
    shell(&overlay.merged, script);
    let mut before = see(&overlay.merged);
    // What a layer does not keep: sockets, other attributes, sub-second times (not seen at all).
    before.retain(|_, seen| seen.mode & 0o170_000 != 0o140_000);
    for seen in before.values_mut() {
        seen.xattrs
            .retain(|(name, _)| name == b"security.capability");
    }
    drop(overlay);

    let lower = LayerStack::new(vec![index.clone()]);
    let mut tar = Vec::new();
    let frozen = freeze(&upper, &lower, &mut Plain(&mut tar), OPTIONS).unwrap();
    check_identity(dir.path(), &frozen, &upper, &tar);

    let second_upper = dir.path().join("upper2");
    fs::create_dir(&second_upper).unwrap();
    fs::set_permissions(&second_upper, fs::metadata(&upper).unwrap().permissions()).unwrap();
    let overlay = Overlay::mount(dir.path(), &[upper, tree], &second_upper);
    assert_eq!(see(&overlay.merged), before, "{script}");
    drop(overlay);

    frozen.index.entries().map(line).collect()
}

fn line(entry: &super::entry::Entry) -> String {
    let path = text(&entry.path);
    match &entry.kind {
        EntryKind::Directory { .. } => format!("d {path}"),
        EntryKind::File { .. } => format!("f {path}"),
        EntryKind::HardLink { target } => format!("h {path} {}", text(target)),
        EntryKind::Symlink { .. } => format!("l {path}"),
        EntryKind::CharDevice { .. } => format!("c {path}"),
        EntryKind::BlockDevice { .. } => format!("b {path}"),
        EntryKind::Fifo => format!("p {path}"),
        EntryKind::Whiteout => format!("w {path}"),
    }
}

/// pack(tree) = tar; scan(tar) = index; apply(tar) = tree.
pub(super) fn check_identity(dir: &Path, frozen: &Frozen, tree: &Path, tar: &[u8]) {
    assert_eq!(tar.len() as u64, frozen.size);
    assert_eq!(crate::digest::Digest::of(tar), frozen.diff_id.0);
    assert!(
        tar == tar_of(&frozen.index, tree),
        "pack gives the tar that freeze wrote"
    );
    let entries = |index: &LayerIndex| index.entries().cloned().collect::<Vec<_>>();
    let scanned = scan(tar).unwrap();
    assert_eq!(entries(&scanned), entries(&frozen.index));
    let again = dir.join("again");
    fs::create_dir(&again).unwrap();
    let applied = apply(tar, &again, OverlayXattrs::Trusted).unwrap();
    assert_eq!(applied, scanned);
    let (mut left, mut right) = (see(tree), see(&again));
    for implied in frozen.index.implied() {
        let path = Path::new(std::ffi::OsStr::from_bytes(&implied.path));
        left.remove(path);
        right.remove(path);
    }
    assert_same(&left, &right);
}

/// Compares and tells only what differs.
pub(super) fn assert_same(left: &BTreeMap<PathBuf, Seen>, right: &BTreeMap<PathBuf, Seen>) {
    let differs = |path: &&PathBuf| left.get(*path) != right.get(*path);
    for path in left.keys().chain(right.keys()).filter(differs) {
        assert_eq!(left.get(path), right.get(path), "{}", path.display());
    }
}

const BASE: &str = "
    mkdir -p d/sub e; echo one > d/a; echo two > d/b; echo deep > d/sub/x; ln -s a d/l; echo top > f
    touch -d @1000000000.5 d/a d/b d/sub/x f; touch -h -d @1000000000 d/l; touch -d @1000000000 d/sub d e .";

#[test]
fn steps_become_layers() {
    let cases: [(&str, &[&str]); 25] = [
        ("true", &[]),
        ("echo three > d/a; touch -d @1000000000 d/a", &["f d/a"]),
        ("echo one > d/a; touch -d @1000000000 d/a d", &[]),
        (
            "echo eno > d/a; touch -d @1000000000.9 d/a; touch -d @1000000000 d",
            &["f d/a"],
        ),
        ("chmod 600 d/a; chmod 644 d/a", &[]),
        ("chmod 600 d/a", &["f d/a"]),
        ("mv d/a d/b; touch -d @1000000000 d", &["w d/a", "f d/b"]),
        ("mv f g; touch -d @1000000000 .", &["w f", "f g"]),
        ("rm d/a; touch -d @1000000000 d", &["w d/a"]),
        ("echo x > n; rm n", &[]),
        ("rm -r d", &["w d"]),
        (
            "rm -r d; mkdir d; echo one > d/a; touch -d @1000000000 d/a d",
            &["d d", "w d/b", "w d/l", "w d/sub"],
        ),
        (
            "rm -r d; mkdir -p d/sub; echo new > d/sub/y; touch -d @1000000000 d/sub d",
            &[
                "d d",
                "w d/a",
                "w d/b",
                "w d/l",
                "d d/sub",
                "w d/sub/x",
                "f d/sub/y",
            ],
        ),
        // Another directory of the same time takes its place: a change, as it would be with another time.
        (
            "rm -r e; mkdir new; touch -d @1000000000 new; mv new e; touch -d @1000000000 .",
            &["d e"],
        ),
        ("rm -r d; echo file > d", &["f d"]),
        (
            "rm f; mkdir f; echo in > f/i; touch -d @5 f/i f",
            &["d f", "f f/i"],
        ),
        (
            "ln d/a d/c; touch -d @1000000000 d",
            &["f d/a", "h d/c d/a"],
        ),
        (
            "ln -sfn b d/l; touch -h -d @1000000000 d/l; touch -d @1000000000 d",
            &["l d/l"],
        ),
        (
            "mkfifo p; mknod c c 1 3; mknod b b 7 1; chmod 660 c; chown 7:8 p",
            &["b b", "c c", "p p"],
        ),
        ("chmod 700 .", &["d "]),
        ("chown 5:6 e; chown -h 5:6 d/l", &["l d/l", "d e"]),
        ("touch -d @1700000000.7 e", &["d e"]),
        // Written within the same second: a change, as it would be a second later.
        ("touch -d @1000000000.7 e", &["d e"]),
        (
            "echo one > d/a; touch -d @1000000000.7 d/a; touch -d @1000000000 d",
            &["f d/a"],
        ),
        ("mkdir -p n/o; rm -r e; ln -s n e", &["l e", "d n", "d n/o"]),
    ];
    for (script, expected) in cases {
        assert_eq!(changes(BASE, script), expected, "{script}");
    }
}

#[test]
fn names_in_their_order_and_sockets() {
    let python = "
        rm d/a
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"d/a\"); socket.socket(socket.AF_UNIX).bind(\"s\")'
        touch -d @1000000000 d
        mkdir a a.b; echo > a/z; echo > a-b";
    assert_eq!(
        changes(BASE, python),
        ["d a", "f a/z", "f a-b", "d a.b", "w d/a"]
    );
}

#[test]
fn capabilities_survive_and_other_attributes_do_not() {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    fs::write(upper.join("tool"), b"#!").unwrap();
    // CAP_DAC_OVERRIDE and CAP_FOWNER: the value holds a newline byte.
    let mut capability = vec![1, 0, 0, 2, 0x0a, 0, 0, 0, 0x0a, 0, 0, 0];
    capability.resize(20, 0);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(
        upper.join("tool"),
        "security.capability",
        &capability,
        flags,
    )
    .unwrap();
    rustix::fs::setxattr(upper.join("tool"), "user.note", b"x", flags).unwrap();
    rustix::fs::setxattr(upper.join("tool"), "trusted.overlay.origin", b"x", flags).unwrap();
    let mut tar = Vec::new();
    let frozen = freeze(
        &upper,
        &LayerStack::default(),
        &mut Plain(&mut tar),
        OPTIONS,
    )
    .unwrap();
    check_identity(dir.path(), &frozen, &upper, &tar);
    assert_eq!(
        frozen.index.lookup(b"tool").unwrap().capability,
        Some(capability.clone())
    );
    let seen = see(&dir.path().join("again"));
    assert_eq!(
        seen[Path::new("tool")].xattrs,
        [(b"security.capability".to_vec(), capability)]
    );
}

#[test]
fn reserved_names_and_references_are_refused() {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.x"), b"").unwrap();
    let error = freeze(dir.path(), &LayerStack::default(), &mut nowhere(), OPTIONS).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("layer entry `/.wh.x`: names that start"),
        "{error}"
    );
    fs::rename(dir.path().join(".wh.x"), dir.path().join("x")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(dir.path().join("x"), "trusted.overlay.metacopy", b"", flags).unwrap();
    let error = freeze(dir.path(), &LayerStack::default(), &mut nowhere(), OPTIONS).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("layer entry `/x`: overlay metadata"),
        "{error}"
    );
}

#[test]
fn clamped_times() {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    shell(
        &upper,
        "echo > new; echo > old; touch -d @2000000000 new; touch -d @5 old",
    );
    let options = FreezeOptions {
        clamp_mtime: Some(1_000_000_000),
        ..OPTIONS
    };
    let mut tar = Vec::new();
    let frozen = freeze(
        &upper,
        &LayerStack::default(),
        &mut Plain(&mut tar),
        options,
    )
    .unwrap();
    check_identity(dir.path(), &frozen, &upper, &tar);
    assert_eq!(frozen.index.lookup(b"new").unwrap().mtime, 1_000_000_000);
    assert_eq!(frozen.index.lookup(b"old").unwrap().mtime, 5);
}

#[test]
fn an_empty_layer() {
    require_root();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let frozen = freeze(dir.path(), &LayerStack::default(), &mut nowhere(), OPTIONS);
    let entries: Vec<String> = frozen.unwrap().index.entries().map(line).collect();
    assert_eq!(entries, ["d "]);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let frozen = freeze(dir.path(), &LayerStack::default(), &mut nowhere(), OPTIONS).unwrap();
    let known = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!((frozen.diff_id.0.as_str(), frozen.size), (known, 1024));
    assert!(frozen.index.is_empty());
}
