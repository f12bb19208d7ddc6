//! Sparse files: the same content whichever format stores them, and no lies.

use std::io::Read;

use super::error::{LayerError, TarProblem};
use super::reader::{Member, TarReader};
use super::tar_tests::{member, raw, records, tar};

type Pairs<'a> = &'a [(&'a str, &'a [u8])];

/// `aaa`, a hole of two, `bb`, a hole of three.
const PLAIN: &[u8] = b"aaa\0\0bb\0\0\0";

const V0_0: Pairs<'_> = &[
    ("GNU.sparse.size", b"10"),
    ("GNU.sparse.numblocks", b"2"),
    ("GNU.sparse.offset", b"0"),
    ("GNU.sparse.numbytes", b"3"),
    ("GNU.sparse.offset", b"5"),
    ("GNU.sparse.numbytes", b"2"),
];
const V0_1: Pairs<'_> = &[
    ("GNU.sparse.size", b"10"),
    ("GNU.sparse.numblocks", b"2"),
    ("GNU.sparse.map", b"0,3,5,2"),
    ("GNU.sparse.name", b"name"),
];
const V1_0: Pairs<'_> = &[
    ("GNU.sparse.major", b"1"),
    ("GNU.sparse.minor", b"0"),
    ("GNU.sparse.name", b"name"),
    ("GNU.sparse.realsize", b"10"),
];

fn block(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A member in GNU's own format. The content begins with the blocks that continue the header, `more` of them.
fn gnu(size: &str, map: &[u8], more: usize, content: &[u8]) -> Vec<u8> {
    let size = size.as_bytes();
    let stored = content.len() - more * 512;
    raw(b'S', b"stored", content, |header| {
        header[257..265].copy_from_slice(b"ustar  \0");
        header[124..135].copy_from_slice(format!("{stored:011o}").as_bytes());
        header[386..386 + map.len()].copy_from_slice(map);
        header[482] = u8::from(more > 0);
        header[483..483 + size.len()].copy_from_slice(size);
    })
}

/// Extents in GNU's own format.
fn entries(numbers: &[u64]) -> Vec<u8> {
    let number = |number: &u64| format!("{number:011o}\0").into_bytes();
    numbers.iter().flat_map(number).collect()
}

/// The first member with its content, and the path of the second one.
fn read(pairs: Pairs<'_>, content: &[u8]) -> Result<(Member, Vec<u8>, Vec<u8>), LayerError> {
    read_from(&[records(pairs), member(b'0', b"stored", content)])
}

fn read_from(members: &[Vec<u8>]) -> Result<(Member, Vec<u8>, Vec<u8>), LayerError> {
    let bytes = tar(&[members.concat(), member(b'0', b"next", b"n")]);
    let mut reader = TarReader::new(bytes.as_slice()).with_sparse_files();
    let first = reader.next_member()?.unwrap();
    let mut read = Vec::new();
    // Small pieces, so that extents and holes end inside and between them.
    let mut piece = [1; 4];
    loop {
        match reader.read(&mut piece).unwrap() {
            0 => break,
            count => read.extend_from_slice(&piece[..count]),
        }
    }
    let next = reader.next_member()?.unwrap();
    Ok((first, read, next.path))
}

#[test]
fn every_format_gives_the_file() {
    let map = |map: &str, content: &str| [block(map), content.as_bytes().to_vec()].concat();
    let empty: Pairs<'_> = &[
        ("GNU.sparse.size", b"10"),
        ("GNU.sparse.numblocks", b"1"),
        ("GNU.sparse.map", b"10,0"),
    ];
    let long = format!("1000\n{}9,1\n", "0\n0\n".repeat(999)).replace(',', "\n");
    let cases: [(Pairs<'_>, Vec<u8>, &str, &[u8]); 6] = [
        (V0_0, b"aaabb".to_vec(), "stored", PLAIN),
        (V0_1, b"aaabb".to_vec(), "name", PLAIN),
        (V1_0, map("2\n0\n3\n5\n2\n", "aaabb"), "name", PLAIN),
        (V1_0, map("0\n", ""), "name", &[0; 10]),
        (V1_0, map(&long, "x"), "name", b"\0\0\0\0\0\0\0\0\0x"),
        (empty, Vec::new(), "stored", &[0; 10]),
    ];
    for (pairs, content, name, plain) in cases {
        let (first, read, next) = read(pairs, &content).unwrap();
        assert_eq!(first.path, name.as_bytes());
        assert_eq!((first.size, read.as_slice()), (10, plain), "{pairs:?}");
        assert_eq!(next, b"next");
    }
}

#[test]
fn what_is_not_read_is_passed_over() {
    let content = [block("2\n0\n3\n5\n2\n"), b"aaabb".to_vec()].concat();
    let bytes = tar(&[
        records(V1_0),
        member(b'0', b"stored", &content),
        member(b'0', b"next", b"n"),
    ]);
    let mut reader = TarReader::new(bytes.as_slice()).with_sparse_files();
    assert_eq!(reader.next_member().unwrap().unwrap().path, b"name");
    assert_eq!(reader.next_member().unwrap().unwrap().path, b"next");
    let mut content = String::new();
    reader.read_to_string(&mut content).unwrap();
    assert_eq!(content, "n");
}

#[test]
fn lies() {
    let with = |key: &'static str, value: &'static [u8]| {
        let replaced = V0_1.iter().filter(|(other, _)| *other != key).copied();
        replaced.chain([(key, value)]).collect::<Vec<_>>()
    };
    let old: [(&str, &[u8]); 12] = [
        ("GNU.sparse.map", b"0,3,2,2"),
        ("GNU.sparse.map", b"5,2,0,3"),
        ("GNU.sparse.map", b"0,3,9,2"),
        ("GNU.sparse.map", b"0,3,5,1"),
        ("GNU.sparse.map", b"0,3,5,2,7,1"),
        ("GNU.sparse.map", b"0,3,5"),
        ("GNU.sparse.map", b"0,3,-5,2"),
        (
            "GNU.sparse.map",
            b"0,3,9223372036854775807,9223372036854775807",
        ),
        ("GNU.sparse.map", b"0,3,x,2"),
        ("GNU.sparse.size", b"6"),
        ("GNU.sparse.size", b"-1"),
        ("GNU.sparse.numblocks", b"3"),
    ];
    for (key, value) in old {
        is_refused(&with(key, value), b"aaabb", TarProblem::SparseMap);
    }
    let turned = [V0_0[0], V0_0[1], V0_0[3], V0_0[2], V0_0[4], V0_0[5]];
    is_refused(&turned, b"aaabb", TarProblem::SparseMap);
    for map in ["-1\n", "x\n", "2\n0\n3\n5\n\n"] {
        let content = [block(map), b"aaabb".to_vec()].concat();
        let mut pairs = V1_0.to_vec();
        is_refused(&pairs, &content, TarProblem::SparseMap);
        pairs[1].1 = b"1";
        is_refused(&pairs, &content, TarProblem::Sparse);
    }
    let endless = vec![b'1'; 2 << 20];
    is_refused(V1_0, &endless, TarProblem::Extension);
    for map in ["3\n0\n3\n5\n2\n", "9223372036854775807\n"] {
        let content = [block(map), b"aaabb".to_vec()].concat();
        is_refused(V1_0, &content, TarProblem::Truncated);
    }
}

fn is_refused(pairs: Pairs<'_>, content: &[u8], expected: TarProblem) {
    is_problem(&read(pairs, content), &expected);
}

fn is_problem(read: &Result<(Member, Vec<u8>, Vec<u8>), LayerError>, expected: &TarProblem) {
    match read {
        Err(LayerError::Tar { problem, .. }) => assert_eq!(problem, expected),
        other => panic!("{expected:?}: {other:?}"),
    }
}

#[test]
fn gnus_own_format_goes_on_in_blocks() {
    let two = entries(&[0, 3, 5, 2]);
    let (found, content, next) = read_from(&[gnu("12", &two, 0, b"aaabb")]).unwrap();
    assert_eq!((found.size, content.as_slice()), (10, PLAIN));
    assert_eq!(next, b"next");

    // Of each block the extents up to the first without an offset.
    let mut more = entries(&[5, 2, 10, 0]);
    more.resize(504, 0);
    more.resize(512, 1);
    let empty = vec![0; 512];
    let content = [more, empty, b"aaabb".to_vec()].concat();
    let one = entries(&[0, 3]);
    let (_, content, next) = read_from(&[gnu("12", &one, 2, &content)]).unwrap();
    assert_eq!((content.as_slice(), next.as_slice()), (PLAIN, &b"next"[..]));
}

#[test]
fn lies_in_gnus_own_format() {
    let two = entries(&[0, 3, 5, 2]);
    let cases: [(&str, &[u8], TarProblem); 5] = [
        ("6", &two, TarProblem::SparseMap),
        ("x", &two, TarProblem::SparseMap),
        ("12", &entries(&[0, 3, 2, 2]), TarProblem::SparseMap),
        ("12", &entries(&[0, 3, 5, 3]), TarProblem::SparseMap),
        ("12", &[0xff; 24], TarProblem::SparseMap),
    ];
    for (size, map, problem) in cases {
        is_problem(&read_from(&[gnu(size, map, 0, b"aaabb")]), &problem);
    }
    let endless = vec![b'0'; (1 << 20) + 1024];
    let endless = gnu("12", &two, endless.len() / 512, &endless);
    is_problem(&read_from(&[endless]), &TarProblem::Extension);
    let cut = gnu("12", &two, 1, &[0; 512]);
    let mut reader = TarReader::new(&cut[..512]).with_sparse_files();
    let cut = reader.next_member().unwrap_err();
    assert!(matches!(
        cut,
        LayerError::Tar {
            problem: TarProblem::Truncated,
            ..
        }
    ));

    let elsewhere = raw(b'S', b"stored", b"", |_| {});
    is_problem(&read_from(&[elsewhere]), &TarProblem::Sparse);
    let layer = tar(&[gnu("12", &two, 0, b"aaabb")]);
    let refused = TarReader::new(layer.as_slice()).next_member();
    assert!(matches!(
        refused,
        Err(LayerError::Tar {
            problem: TarProblem::Sparse,
            ..
        })
    ));
}

#[test]
fn layers_and_members_without_content_have_none() {
    let bytes = tar(&[records(V0_1), member(b'0', b"stored", b"aaabb")]);
    let refused = TarReader::new(bytes.as_slice()).next_member();
    let as_link = tar(&[records(V0_1), member(b'2', b"stored", b"target")]);
    let link = TarReader::new(as_link.as_slice())
        .with_sparse_files()
        .next_member();
    for refused in [refused, link] {
        match refused {
            Err(LayerError::Tar { problem, .. }) => assert_eq!(problem, TarProblem::Sparse),
            other => panic!("{other:?}"),
        }
    }
}
