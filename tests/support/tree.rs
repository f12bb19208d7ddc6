//! File trees in memory: made at random from a seed, written to disk, read back from images.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, utimensat,
};

/// What has one inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Device(FileType, u32, u32),
    Fifo,
    Socket,
}

/// Paths, relative to the root, and the inodes that they name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    pub(crate) paths: BTreeMap<Vec<u8>, usize>,
    pub(crate) nodes: Vec<Node>,
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => dir.to_vec(),
        (false, false) => [dir, b"/", name].concat(),
    }
}

/// The directory that a path lies in; the root for names.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.unwrap_or(0)]
}

pub(crate) fn is_below(dir: &[u8], path: &[u8]) -> bool {
    let rest = path.strip_prefix(dir);
    rest.is_some_and(|rest| !rest.is_empty() && (dir.is_empty() || rest[0] == b'/'))
}

impl Tree {
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Node> {
        self.paths.get(path).map(|number| &self.nodes[*number])
    }

    pub(crate) fn is_dir(&self, path: &[u8]) -> bool {
        path.is_empty()
            || self
                .get(path)
                .is_some_and(|node| node.kind == Kind::Directory)
    }

    /// Puts a new inode at a path, in place of what was there; two directories are one.
    pub(crate) fn put(&mut self, path: &[u8], node: Node) -> usize {
        if node.kind != Kind::Directory {
            self.remove(path);
        }
        self.nodes.push(node);
        self.paths.insert(path.to_vec(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    pub(crate) fn remove(&mut self, path: &[u8]) {
        self.paths.remove(path);
        // The slash, and the byte after it.
        let below = [path, b"/"].concat()..[path, b"0"].concat();
        let gone: Vec<Vec<u8>> = self
            .paths
            .range(below)
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.paths.remove(&path);
        }
    }

    /// One line for each path, but for the root: all that two trees may differ in. Hard links are told by the first of their names.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut firsts: BTreeMap<usize, &[u8]> = BTreeMap::new();
        let mut lines = Vec::new();
        for (path, number) in self.paths.iter().filter(|(path, _)| !path.is_empty()) {
            let node = &self.nodes[*number];
            let first = firsts.entry(*number).or_insert(path);
            let what = match &node.kind {
                Kind::File(content) => {
                    format!("file {} {}", content.len(), super::image::sha256(content))
                }
                Kind::Symlink(text) => format!("link {}", text.escape_ascii()),
                other => format!("{other:?}"),
            };
            let Node {
                mode,
                uid,
                gid,
                mtime,
                ..
            } = node;
            let name = path.escape_ascii();
            let first = first.escape_ascii();
            lines.push(format!(
                "{name} {what} {mode:04o} {uid}:{gid} @{mtime} ={first}"
            ));
        }
        lines
    }

    /// What the layers of an image flatten to.
    pub(crate) fn of_layers(layers: &[Vec<u8>]) -> Self {
        let mut tree = Self::default();
        for layer in layers {
            let mut archive = tar::Archive::new(layer.as_slice());
            for entry in archive.entries().unwrap() {
                tree.apply(&mut entry.unwrap());
            }
        }
        tree
    }

    fn apply(&mut self, entry: &mut tar::Entry<'_, &[u8]>) {
        let path = entry.path_bytes().into_owned();
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        let path = if path == b"." { b"" } else { path };
        let name = &path[parent(path).len()..];
        let name = name.strip_prefix(b"/").unwrap_or(name);
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.remove(&join(parent(path), hidden));
        }
        let records: Vec<(String, Vec<u8>)> = entry
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .map(|record| record.unwrap())
            .map(|record| {
                (
                    record.key().unwrap().to_owned(),
                    record.value_bytes().to_vec(),
                )
            })
            .collect();
        let extended = |key: &str| {
            let record = records.iter().find(|(found, _)| found == key)?;
            Some(
                String::from_utf8(record.1.clone())
                    .unwrap()
                    .parse::<i64>()
                    .unwrap(),
            )
        };
        assert!(
            records.iter().all(|(key, _)| !key.contains("xattr")),
            "{records:?}"
        );
        let link = entry.link_name_bytes().map(|link| link.into_owned());
        let header = entry.header();
        let device = |kind| {
            let number = |found: std::io::Result<Option<u32>>| found.unwrap().unwrap();
            Kind::Device(
                kind,
                number(header.device_major()),
                number(header.device_minor()),
            )
        };
        let kind = match header.entry_type() {
            tar::EntryType::Link => {
                let number = self.paths[&link.unwrap()];
                self.remove(path);
                self.paths.insert(path.to_vec(), number);
                return;
            }
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Symlink => Kind::Symlink(link.unwrap()),
            tar::EntryType::Char => device(FileType::CharacterDevice),
            tar::EntryType::Block => device(FileType::BlockDevice),
            tar::EntryType::Fifo => Kind::Fifo,
            _ => Kind::File(Vec::new()),
        };
        let number = |id: u64| u32::try_from(id).unwrap();
        let mut node = Node {
            kind,
            mode: header.mode().unwrap(),
            uid: extended("uid").map_or_else(
                || number(header.uid().unwrap()),
                |id| number(id.unsigned_abs()),
            ),
            gid: extended("gid").map_or_else(
                || number(header.gid().unwrap()),
                |id| number(id.unsigned_abs()),
            ),
            mtime: extended("mtime").unwrap_or_else(|| header.mtime().unwrap().cast_signed()),
        };
        if let Kind::File(content) = &mut node.kind {
            entry.read_to_end(content).unwrap();
        }
        self.put(path, node);
    }

    /// Makes it on disk, below a directory that exists; its nodes have attributes of users too.
    pub(crate) fn write(&self, dir: &Path) {
        let place = |path: &[u8]| -> PathBuf { dir.join(OsStr::from_bytes(path)) };
        let mut made: BTreeMap<usize, PathBuf> = BTreeMap::new();
        for (path, number) in &self.paths {
            let at = place(path);
            if let Some(first) = made.get(number) {
                std::fs::hard_link(first, &at).unwrap();
                continue;
            }
            self.nodes[*number].make(&at);
            made.insert(*number, at);
        }
        // Innermost first: making entries has changed the times of directories.
        for (number, at) in made.iter().rev() {
            self.nodes[*number].set_metadata(at);
        }
        for (path, number) in self.paths.iter().rev() {
            self.nodes[*number].set_time(&place(path));
        }
    }
}

impl Node {
    fn make(&self, at: &Path) {
        let node = |kind, device| mknodat(CWD, at, kind, Mode::RUSR, device).unwrap();
        match &self.kind {
            Kind::Directory => std::fs::create_dir(at).unwrap(),
            Kind::File(content) => std::fs::write(at, content).unwrap(),
            Kind::Symlink(text) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(text), at).unwrap();
            }
            Kind::Device(kind, major, minor) => node(*kind, makedev(*major, *minor)),
            Kind::Fifo => node(FileType::Fifo, 0),
            Kind::Socket => {
                // Paths of sockets are short.
                let short = tempfile::tempdir_in("/tmp").unwrap();
                drop(UnixListener::bind(short.path().join("s")).unwrap());
                std::fs::rename(short.path().join("s"), at).unwrap();
            }
        }
    }

    fn set_metadata(&self, at: &Path) {
        std::os::unix::fs::lchown(at, Some(self.uid), Some(self.gid)).unwrap();
        if matches!(self.kind, Kind::Symlink(_)) {
            return;
        }
        let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(self.mode);
        std::fs::set_permissions(at, mode).unwrap();
        if matches!(self.kind, Kind::Directory | Kind::File(_)) {
            rustix::fs::setxattr(at, "user.note", b"lost", XattrFlags::empty()).unwrap();
        }
    }

    fn set_time(&self, at: &Path) {
        let time = Timespec {
            tv_sec: self.mtime,
            tv_nsec: 999_999_999,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// A small generator: the same numbers from the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }

    pub(crate) fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }

    fn number(&mut self, limit: usize) -> u32 {
        u32::try_from(self.below(limit)).unwrap()
    }

    fn name(&mut self, pool: &[&str]) -> Vec<u8> {
        let plain = self.one_of(pool).as_bytes().to_vec();
        let number = format!("{:x}", self.below(1 << 20)).into_bytes();
        match self.below(12) {
            0..6 => plain,
            6 => [b"\xc3\xa9\xe6\xbc\xa2 ".as_slice(), &number].concat(),
            7 => [b"-*?[\\]!#\r\t".as_slice(), &number].concat(),
            8 => [b"\xff\xfe\x80".as_slice(), &number].concat(),
            9 => {
                let mut long = number;
                long.resize(255, b'n');
                long
            }
            10 => [b".".as_slice(), &number].concat(),
            _ => number,
        }
    }

    fn content(&mut self) -> Vec<u8> {
        let size = match self.below(40) {
            0..10 => 0,
            10..30 => 1 + self.below(3000),
            // The edges of buffers, of blocks of tars, and of the chunks that are compressed.
            30..39 => {
                let edge = self.one_of(&[512, 4096, 65_536, 262_144]);
                edge - 1 + self.below(3)
            }
            _ => (1 << 20) - 1 + self.below(3),
        };
        let some: Vec<u8> = (0..=u8::MAX).map(|byte| byte.wrapping_mul(97)).collect();
        let mut content = some.repeat(size / some.len() + 2);
        let start = self.below(some.len());
        content.drain(..start);
        content.truncate(size);
        content
    }

    /// A tree of about so many entries. Names come from the pool more often than not, so that two trees meet.
    pub(crate) fn tree(&mut self, entries: usize, pool: &[&str]) -> Tree {
        let mut tree = Tree::default();
        let mut dirs: Vec<Vec<u8>> = vec![Vec::new()];
        let mut files: Vec<usize> = Vec::new();
        for _ in 0..entries {
            let dir = self.one_of(&dirs);
            let path = join(&dir, &self.name(pool));
            if tree.paths.contains_key(&path) || path.len() > 3000 {
                continue;
            }
            let node = self.node();
            let is_dir = node.kind == Kind::Directory;
            let is_file = matches!(node.kind, Kind::File(_));
            if is_file && !files.is_empty() && self.below(6) == 0 {
                let number = self.one_of(&files);
                tree.paths.insert(path, number);
                continue;
            }
            let number = tree.put(&path, node);
            if is_dir {
                dirs.push(path);
            } else if is_file {
                files.push(number);
            }
        }
        tree
    }

    fn node(&mut self) -> Node {
        let kind = match self.below(20) {
            0..5 => Kind::Directory,
            5..14 => Kind::File(self.content()),
            14..17 => Kind::Symlink(self.one_of(&[
                b"a".to_vec(),
                b"../b".to_vec(),
                b"/c/d".to_vec(),
                b"/".to_vec(),
                b"../../../../../../etc/passwd".to_vec(),
                b"\xff gone".to_vec(),
                vec![b't'; 250],
            ])),
            17 => Kind::Device(
                self.one_of(&[FileType::CharacterDevice, FileType::BlockDevice]),
                1 + self.number(4000),
                self.number(1 << 20),
            ),
            18 => Kind::Fifo,
            _ => Kind::Socket,
        };
        let is_link = matches!(kind, Kind::Symlink(_));
        let mode = match self.below(4) {
            _ if is_link => 0o777,
            0 => self.number(0o10000),
            1 => 0o755,
            _ => 0o644,
        };
        Node {
            kind,
            mode,
            uid: self.one_of(&[0, 1000, 70_000, 4_000_000]),
            gid: self.one_of(&[0, 50, 3_000_000]),
            mtime: self.one_of(&[0, 1, 1_000_000_000, 1_700_000_000, -5, 5_000_000_000]),
        }
    }
}
