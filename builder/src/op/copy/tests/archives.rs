//! ADD of local archives.

use std::fs;
use std::io::Write;

use cache::layer::entry::EntryKind;
use cache::layer::pack::pack;
use cache::layer::sink::{Plain, nowhere};
use cache::layer::tree::OverlayXattrs;
use cache::layer::verify::is_intact;
use frontend::graph::{Chmod, FileAction, Owner, Unpack};

use super::super::apply::{apply, apply_packed};
use super::super::plan::CopyPlan;
use super::{World, changed, listing};
use crate::op::error::StepError;

/// Members written as `d path mode uid`, `f path text`, `l path target`, `h path target`.
pub(super) fn tar(members: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for line in members {
        let words: Vec<&str> = line.split(' ').collect();
        let rest = words.get(2).copied().unwrap_or_default();
        let mut header = tar::Header::new_ustar();
        // Written by hand: the crate refuses names that climb, which are what is tested.
        header.as_old_mut().name[..words[1].len()].copy_from_slice(words[1].as_bytes());
        header.set_mode(0o640);
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(77);
        let link = |header: &mut tar::Header, kind| {
            header.set_entry_type(kind);
            header.as_old_mut().linkname[..rest.len()].copy_from_slice(rest.as_bytes());
        };
        match words[0] {
            "d" => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(u32::from_str_radix(rest, 8).unwrap());
            }
            "f" => header.set_size(rest.len() as u64),
            "l" => link(&mut header, tar::EntryType::Symlink),
            "h" => link(&mut header, tar::EntryType::Link),
            other => panic!("{other}"),
        }
        header.set_cksum();
        let content = if words[0] == "f" { rest } else { "" };
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The tar of one member `x`, compressed with `xz`, in hex.
const XZ: &str = concat!(
    "fd377a585a000004e6d6b4460200210116000000742fe5a3e007ff003c5d003c00335018688982ed",
    "6205d95de7c80fc9f58b9536c1ed99fc43010d65c3080363bfacb0fba3bafabf344f400c42d8bf1c",
    "dcef096656908bd6d5fa000020f1a1afbaeb30c000015880100000004ab977c2b1c467fb02000000",
    "0004595a",
);

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

pub(super) fn add(sources: &[&str], destination: &str) -> Vec<FileAction> {
    changed(sources, destination, |action| {
        action.unpack = Unpack::Archives;
    })
}

pub(super) fn with_archive(base: &[&str], bytes: &[u8]) -> World {
    let world = World::new(base);
    world.file("t", "");
    fs::write(world.path("t"), bytes).unwrap();
    world
}

fn bytes_of(plan: &CopyPlan, path: &str) -> cache::digest::ContentDigest {
    let entry = plan.entries().find(|e| e.path == path.as_bytes()).unwrap();
    match &entry.kind {
        EntryKind::File { content, .. } => *content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn members() {
    let cases: [(&[&str], &[&str], &[&str]); 9] = [
        (
            &[],
            &["d top 750", "f top/one 1", "l top/ln one", "f two 2"],
            &[
                "d 0755 0:0 dst",
                "d 0750 3:4 dst/top",
                "l 0777 3:4 dst/top/ln one",
                "f 0640 3:4 dst/top/one",
                "f 0640 3:4 dst/two",
            ],
        ),
        (
            &[],
            &["f a/b/c x"],
            &[
                "d 0755 0:0 dst",
                "d 0755 0:0 dst/a",
                "d 0755 0:0 dst/a/b",
                "f 0640 3:4 dst/a/b/c",
            ],
        ),
        (
            &["d /dst 700 9"],
            &["d ./ 711", "f ./f x"],
            &["f 0640 3:4 dst/f"],
        ),
        (
            &["d /dst"],
            &["f ../../esc x", "f /abs y", "f a/../b z"],
            &[
                "f 0640 3:4 dst/abs",
                "f 0640 3:4 dst/b",
                "f 0640 3:4 dst/esc",
            ],
        ),
        (
            &["d /dst", "d /dst/etc", "d /etc"],
            &[
                "l out /etc",
                "f out/two 2",
                "l up ../../../etc",
                "f up/three 3",
            ],
            &[
                "f 0640 3:4 dst/etc/three",
                "f 0640 3:4 dst/etc/two",
                "l 0777 3:4 dst/out /etc",
                "l 0777 3:4 dst/up ../../../etc",
            ],
        ),
        (
            &["d /dst", "d /else", "l /dst/dir /else", "f /dst/x 1"],
            &["d dir 711", "f dir/in i", "d x 700"],
            &[
                "d 0711 3:4 dst/dir",
                "f 0640 3:4 dst/dir/in",
                "d 0700 3:4 dst/x",
            ],
        ),
        (
            &["d /dst", "d /dst/x", "f /dst/x/old o"],
            &["f x file"],
            &["f 0640 3:4 dst/x"],
        ),
        (
            &["d /dst"],
            &["f x 1", "f x 2", "d y 755", "d y 700"],
            &["f 0640 3:4 dst/x", "d 0700 3:4 dst/y"],
        ),
        (
            &["d /dst"],
            &["f z 1", "h a z", "f .wh.gone x"],
            &[
                "f 0640 3:4 dst/.wh.gone",
                "f 0640 3:4 dst/a",
                "h 0640 3:4 dst/z dst/a",
            ],
        ),
    ];
    for (base, members, expected) in cases {
        let world = with_archive(base, &tar(members));
        assert_eq!(world.list(&add(&["t"], "/dst")), expected, "{members:?}");
    }
}

#[test]
fn a_further_name_changes_the_file() {
    use tar::EntryType::{Link, Regular};
    let capability = {
        let mut value = [0; 20];
        (value[3], value[4]) = (2, 1);
        value
    };
    // The file's name, then the names that link to it: the first name in the layer's order is any of them. Which of them
    // brings the capability.
    let cases = [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]];
    for (names, with_capability) in cases.into_iter().flat_map(|names| [(names, 0), (names, 2)]) {
        let mut builder = tar::Builder::new(Vec::new());
        for (number, name) in names.into_iter().enumerate() {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(if number == 0 { Regular } else { Link });
            header.as_old_mut().name[0] = name.as_bytes()[0];
            header.as_old_mut().linkname[0] = names[0].as_bytes()[0];
            header.set_mode([0o644, 0o711, 0o4755][number]);
            header.set_uid(number as u64);
            header.set_gid(number as u64);
            header.set_mtime(1000 + number as u64);
            header.set_size(0);
            header.set_cksum();
            if number == with_capability {
                let key = "SCHILY.xattr.security.capability";
                let records = [(key, capability.as_slice())];
                builder.append_pax_extensions(records).unwrap();
            }
            builder.append(&header, std::io::empty()).unwrap();
        }
        let world = with_archive(&["d /dst"], &builder.into_inner().unwrap());
        let plan = world.plan(&add(&["t"], "/dst")).unwrap();
        assert_eq!(
            listing(&plan),
            [
                "f 4755 2:2 dst/a",
                "h 4755 2:2 dst/b dst/a",
                "h 4755 2:2 dst/c dst/a",
            ],
            "{names:?}"
        );
        for entry in plan.entries() {
            assert_eq!(entry.mtime, 1002, "{names:?}");
            let kept = entry.capability.as_deref();
            let expected = (with_capability == 2).then_some(&capability[..]);
            assert_eq!(kept, expected, "{names:?}");
        }
    }
}

#[test]
fn an_archive_with_other_times_is_another_layer_whatever_it_goes_onto() {
    let archive = |mtime| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_path("f").unwrap();
        header.set_mode(0o644);
        header.set_mtime(mtime);
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    };
    let key = |base: &[&str], mtime| {
        let world = with_archive(base, &archive(mtime));
        world.plan(&add(&["t"], "/dst/")).unwrap().key()
    };
    let original = key(&["d /dst"], 1000);
    assert_ne!(key(&["d /dst"], 2000), original);
    assert_eq!(key(&["d /dst", "f /dst/other o"], 1000), original);
}

#[test]
fn replaced_folders_do_not_shine_through() {
    let world = with_archive(
        &["d /dst", "d /dst/x", "f /dst/x/old o"],
        &tar(&["f x 1", "d x 700", "f x/new n"]),
    );
    let actions = [
        add(&["t"], "/dst"),
        super::copy(&["a.txt"], "/dst/x/old/below"),
    ]
    .concat();
    let list = world.list(&actions);
    assert_eq!(
        list[2], "d 0755 0:0 dst/x/old",
        "the old file is gone: {list:?}"
    );
}

#[test]
fn flags() {
    let world = with_archive(&[], &tar(&["f x 1"]));
    let both = changed(&["t"], "/dst/", |action| {
        action.unpack = Unpack::Archives;
        action.mode = Some(Chmod::Octal(0o700));
        action.owner = Some(Owner {
            user: "33".into(),
            group: Some("1".into()),
        });
    });
    assert_eq!(world.list(&both), ["d 0755 33:1 dst", "f 0640 33:1 dst/x"]);
    let kept = super::copy(&["t"], "/dst/");
    assert_eq!(world.list(&kept), ["d 0755 0:0 dst", "f 0644 0:0 dst/t"]);
}

#[test]
fn what_is_no_archive_is_copied() {
    let gz = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let archive = tar(&["f x 1"]);
    let two = [gz(&archive[..700]), gz(&archive[700..])].concat();
    let garbage = [&archive[..], b"garbage"].concat();
    let zstd = zstd::encode_all(&archive[..], 3).unwrap();
    // A skippable frame of four bytes first, as `pzstd` writes it.
    let pzstd = [b"\x50\x2a\x4d\x18\x04\0\0\0size", &zstd[..]].concat();
    let bz2 = |bytes: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let xz = unhex(XZ);
    for bytes in [
        &archive,
        &gz(&archive),
        &two,
        &garbage,
        &zstd,
        &pzstd,
        &bz2(&archive),
        &xz,
    ] {
        let world = with_archive(&[], bytes);
        assert_eq!(world.list(&add(&["t"], "/dst/"))[1], "f 0640 3:4 dst/x");
    }
    let note = gz(b"no tar");
    let note_bz2 = bz2(b"no tar");
    for bytes in [
        &[][..],
        &[0; 1024],
        b"text",
        &note,
        &note[..5],
        &note_bz2,
        &xz[..40],
        b"BZh",
    ] {
        let world = with_archive(&[], bytes);
        assert_eq!(world.list(&add(&["t"], "/dst/"))[1], "f 0644 0:0 dst/t");
    }
}

#[test]
fn broken_archives() {
    let whole = tar(&["f x 1", "f y 2"]);
    let cases: [(&[u8], &str); 7] = [
        (&whole[..1030], "unexpected EOF"),
        (
            &tar(&["f link/y 1"]),
            "member /link/y: a link on the way to it leads nowhere",
        ),
        (
            &tar(&["h a link/y"]),
            "member /a: a link on the way to what it is another name of leads nowhere",
        ),
        (
            &tar(&["l b missing/a", "f b/c/y 1"]),
            "member /b/c/y: a link on the way to it leads nowhere",
        ),
        (
            &tar(&["h a later", "f later 1"]),
            "link /later /a: no such file or directory",
        ),
        (
            &tar(&["h stolen ../etc/passwd"]),
            "link /etc/passwd /stolen: no such file or directory",
        ),
        (
            &tar(&["h stolen link"]),
            "not supported yet: the hard link /stolen to /link",
        ),
    ];
    for (bytes, expected) in cases {
        let world = with_archive(&["d /dst", "l /dst/link x"], bytes);
        let error = world.plan(&add(&["t"], "/dst/")).unwrap_err();
        assert_eq!(error.to_string(), "cannot unpack `/t`");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with(expected), "{cause}");
    }
    let world = with_archive(&["f /dst x"], &whole);
    assert_eq!(
        world.error(&add(&["t"], "/dst")),
        "mkdir /dst: not a directory"
    );
}

#[test]
fn streams_follow_each_other_and_the_rest_is_passed_over() {
    let whole = tar(&["f x 1", "f y 2"]);
    let gzip = |part: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    let bzip2 = |part: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    type Compress = fn(&[u8]) -> Vec<u8>;
    for compress in [gzip as Compress, bzip2 as Compress] {
        let (first, second) = whole.split_at(700);
        let streams = [compress(first), compress(second)].concat();
        for rest in [&b""[..], &[0; 600], b"signature", &streams[..1]] {
            let world = with_archive(&[], &[&streams, rest].concat());
            let listed = world.list(&add(&["t"], "/dst/"));
            assert!(
                listed.iter().any(|line| line.contains("dst/y")),
                "{listed:?}"
            );
        }
        let world = with_archive(&[], &streams[..streams.len() - 3]);
        assert!(world.plan(&add(&["t"], "/dst/")).is_err());
    }
    // What fills the last block is read as far as that may take, and no further.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&whole).unwrap();
    encoder.write_all(&vec![0; 8 << 20]).unwrap();
    let mut long = encoder.finish().unwrap();
    let last = long.len() - 2;
    long.truncate(last);
    let world = with_archive(&[], &long);
    assert!(world.plan(&add(&["t"], "/dst/")).is_ok());
}

#[test]
fn a_damaged_archive_is_an_error() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(&tar(&["f x text"])).unwrap();
    let gz = encoder.finish().unwrap();
    let mut changed = gz.clone();
    let text = gz.windows(4).position(|at| at == b"text").unwrap();
    changed[text] = b'T';
    let xz = unhex(XZ);
    for (bytes, expected) in [
        (&changed[..], "cannot read the archive"),
        (&gz[..gz.len() - 5], "unexpected EOF"),
        (&xz[..xz.len() - 5], "unexpected EOF"),
    ] {
        let world = with_archive(&[], bytes);
        let error = world.plan(&add(&["t"], "/dst/")).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, expected);
    }
}

/// An archive of xz whose block says that its dictionary has this size code (xz file format, 5.3.1).
fn xz_with_dictionary(code: u8) -> Vec<u8> {
    let mut xz = unhex(XZ);
    let end = 12 + (usize::from(xz[12]) + 1) * 4;
    let lzma2 = xz[12..end].windows(2).position(|at| at == [0x21, 1]);
    xz[12 + lzma2.unwrap() + 2] = code;
    let mut sum = flate2::Crc::new();
    sum.update(&xz[12..end - 4]);
    xz[end - 4..end].copy_from_slice(&sum.sum().to_le_bytes());
    xz
}

#[test]
fn the_memory_of_xz_is_bounded() {
    let world = with_archive(&[], &xz_with_dictionary(32));
    assert_eq!(world.list(&add(&["t"], "/dst/"))[1], "f 0640 3:4 dst/x");
    for code in [33, 40] {
        let world = with_archive(&[], &xz_with_dictionary(code));
        let error = world.plan(&add(&["t"], "/dst/")).unwrap_err();
        assert_eq!(error.to_string(), "cannot unpack `/t`");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("more than 256 MiB"), "{cause}");
    }
}

#[test]
fn members_are_written() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test changes owners; run `sudo -E cargo test -p builder`"
    );
    let world = with_archive(&[], &tar(&["f x one", "f y two", "h z y", "f x three"]));
    let tree = world.dir.path().join("out");
    fs::create_dir(&tree).unwrap();
    world
        .with_plan(&add(&["t", "t"], "/"), |plan, sources| {
            let index = apply(plan.clone(), sources, &tree, 2).unwrap();
            assert_eq!(index, plan.index);
            assert_eq!(listing(&plan).len(), 3);
            assert_eq!(bytes_of(&plan, "x").0, *blake3::hash(b"three").as_bytes());
        })
        .unwrap();
    let read = |path: &str| fs::read_to_string(tree.join(path)).unwrap();
    assert_eq!(
        (read("x"), read("y"), read("z")),
        ("three".into(), "two".into(), "two".into())
    );
}

#[test]
fn what_has_no_room_is_refused_before_it_is_written() {
    let bytes = tar(&["f x 12345", "f y 678"]);
    let world = with_archive(&[], &bytes);
    let context = super::ContextSource::new("context", std::sync::Arc::new(world.context()));
    let sources = super::Sources::from([(super::InputIndex(1), &context as _)]);
    let selection = super::select(&add(&["t"], "/"), &sources, 1).unwrap();
    for (room_bytes, fits) in [(8, true), (7, false), (0, false)] {
        let ground = super::super::place::Ground {
            base: None,
            base_input: None,
            room_bytes,
        };
        let planned = super::super::place::plan_on(selection.clone(), &sources, &ground);
        assert_eq!(planned.is_ok(), fits, "{room_bytes}");
    }
}

#[test]
fn what_is_packed_while_it_is_written_is_the_tar_of_the_tree() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test changes owners; run `sudo -E cargo test -p builder`"
    );
    let world = with_archive(&[], &tar(&["f m/b0 archived", "f m/z last", "h m/y m/b0"]));
    for number in 0..300_usize {
        let size = 40 * number * (number % 5);
        world.file(&format!("m/a{number}"), &"0123456789".repeat(size / 10));
    }
    // Too big to be at hand.
    world.file("m/big", &"big".repeat(1 << 20));
    std::fs::hard_link(world.path("m/a7"), world.path("m/linked")).unwrap();
    let actions = [add(&["t"], "/"), super::copy(&["m"], "/m")].concat();
    for threads in [1, 2, 5] {
        let tree = world.dir.path().join(format!("out{threads}"));
        fs::create_dir(&tree).unwrap();
        let packed = |plan: CopyPlan, sources: &super::Sources<'_>| {
            let mut seen = Vec::new();
            let mut sink = Plain(&mut seen);
            let packed =
                apply_packed::<StepError>(plan.clone(), sources, &tree, threads, &mut sink);
            let (index, packed) = packed.unwrap();
            assert_eq!(index, plan.index);
            let mut later = Vec::new();
            let again = pack(&index, &tree, &mut Plain(&mut later)).unwrap();
            assert_eq!((packed, seen.len()), (again, later.len()));
            assert!(seen == later && is_intact(&index, &tree, OverlayXattrs::Trusted));
        };
        world.with_plan(&actions, packed).unwrap();
    }
    // One file that cannot be copied ends it, with its own error.
    let tree = world.dir.path().join("out");
    fs::create_dir(&tree).unwrap();
    let failed = world.with_plan(&actions, |plan, sources| {
        world.file("m/a150", "changed");
        apply_packed::<StepError>(plan, sources, &tree, 2, &mut nowhere())
    });
    let error = failed.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("`/m/a150` changed while"), "{error}");
}
