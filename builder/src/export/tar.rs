//! The image's file system as one plain tar (`--output type=tar`).

use super::activity::Activity;
use super::destination::{Destination, Output};
use super::header::{self, Member, MemberKind};
use super::{ExportError, ExportReport, Exporter, FlatEntry, FlatKind, FlatTree, Source};
use crate::progress::sink::EventSink;

/// Exports a tar.
#[derive(Debug)]
pub struct PlainTar {
    /// Where to.
    pub destination: Destination,
}

impl Exporter for PlainTar {
    fn export(
        &self,
        source: &Source<'_>,
        events: &dyn EventSink,
    ) -> Result<ExportReport, ExportError> {
        let name = "exporting to client tarball";
        Activity::run(events, name, source.output, |activity| {
            activity.part("sending tarball", || {
                self.destination
                    .write(|output| write_tree(source.tree, output))
            })?;
            Ok(ExportReport::default())
        })
    }
}

fn write_tree(tree: &dyn FlatTree, output: &mut Output<'_>) -> Result<(), ExportError> {
    for entry in tree.entries().map_err(ExportError::Tree)? {
        let entry = entry.map_err(ExportError::Tree)?;
        output.put(&header::blocks(&member(&entry)))?;
        if let FlatKind::File { size } = entry.kind {
            copy_file(tree, &entry, size, output)?;
            output.put(header::padding(size))?;
        }
    }
    output.put(&header::END)
}

/// Copies a file's bytes and checks that they are as many as its entry says.
pub(super) fn copy_file(
    tree: &dyn FlatTree,
    entry: &FlatEntry,
    size: u64,
    output: &mut Output<'_>,
) -> Result<(), ExportError> {
    let mut reader = tree.open(&entry.path).map_err(ExportError::Tree)?;
    if output.copy(&mut *reader, size, ExportError::Tree)? == size {
        Ok(())
    } else {
        Err(ExportError::Entry {
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            problem: "its content is not as long as its entry says",
        })
    }
}

fn member(entry: &FlatEntry) -> Member<'_> {
    let kind = match &entry.kind {
        FlatKind::Directory => MemberKind::Directory,
        FlatKind::File { size } => MemberKind::File { size: *size },
        FlatKind::HardLink { target } => MemberKind::HardLink { target },
        FlatKind::Symlink { target } => MemberKind::Symlink { target },
        FlatKind::CharDevice { major, minor } => MemberKind::CharDevice {
            major: *major,
            minor: *minor,
        },
        FlatKind::BlockDevice { major, minor } => MemberKind::BlockDevice {
            major: *major,
            minor: *minor,
        },
        FlatKind::Fifo => MemberKind::Fifo,
    };
    Member {
        path: &entry.path,
        kind,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        capability: entry.capability.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::super::testing::{self, FakeLayers, FakeTree, image, is_installed, run};
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn export(tree: &FakeTree) -> Result<Vec<u8>, ExportError> {
        let written = Shared::default();
        let exporter = PlainTar {
            destination: Destination::stream(written.clone()),
        };
        let (layers, image) = (FakeLayers::default(), image(&[]));
        testing::export(&exporter, &image, &layers, tree).0?;
        let bytes = written.0.lock().unwrap().clone();
        Ok(bytes)
    }

    fn sample() -> FakeTree {
        let mut tree = FakeTree::default();
        let long = format!("d/{}", "x".repeat(120));
        tree.add("d", FlatKind::Directory).mode = 0o1777;
        let odd = tree.add_file(&long, b"content");
        (odd.mtime, odd.uid, odd.gid) = (-5, 3_000_000, 4_000_000);
        odd.capability = Some(b"\x01\0\0\x02=\n".to_vec());
        tree.add(
            "e",
            FlatKind::HardLink {
                target: long.clone().into_bytes(),
            },
        );
        tree.add(
            "f",
            FlatKind::Symlink {
                target: "é/x".into(),
            },
        );
        tree.add(
            "g",
            FlatKind::CharDevice {
                major: 1,
                minor: 300,
            },
        );
        tree.add("h", FlatKind::Fifo);
        tree.add(
            "i",
            FlatKind::BlockDevice {
                major: 4095,
                minor: 1_048_575,
            },
        );
        tree.add_file("z", b"").mode = 0o4755;
        tree
    }

    #[test]
    fn what_goes_in_comes_out() {
        let tree = sample();
        let bytes = export(&tree).unwrap();
        assert_eq!(bytes, export(&tree).unwrap());
        let script = "
import sys, tarfile
for m in tarfile.open(fileobj=sys.stdin.buffer, mode='r|'):
    print(m.name[:3], len(m.name), m.type.decode(), oct(m.mode), m.uid, m.gid, int(m.mtime), m.linkname[:3], m.devmajor, m.devminor, m.size, repr(m.uname), sorted(m.pax_headers))";
        if !is_installed("python3") {
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let command = format!("python3 -c \"$0\" < {}", file.path().display());
        let listing = run("sh", &["-c", &command, script]);
        let expected = "\
d 1 5 0o1777 1 2 1000000000  0 0 0 '' []
d/x 122 0 0o644 3000000 4000000 -5  0 0 7 '' ['SCHILY.xattr.security.capability', 'gid', 'mtime', 'path', 'uid']
e 1 1 0o644 1 2 1000000000 d/x 0 0 0 '' ['linkpath']
f 1 2 0o644 1 2 1000000000 é/x 0 0 0 '' ['linkpath']
g 1 3 0o644 1 2 1000000000  1 300 0 '' []
h 1 6 0o644 1 2 1000000000  0 0 0 '' []
i 1 4 0o644 1 2 1000000000  4095 1048575 0 '' []
z 1 0 0o4755 1 2 1000000000  0 0 0 '' []
";
        assert_eq!(listing, expected);
    }

    #[test]
    fn a_file_that_is_not_as_long_as_it_says_is_an_error() {
        for size in [6, 8] {
            let mut tree = FakeTree::default();
            tree.add_file("f", b"content").kind = FlatKind::File { size };
            let message = export(&tree).unwrap_err().to_string();
            assert_eq!(
                message,
                "cannot export `f`: its content is not as long as its entry says"
            );
        }
    }
}
