//! Tars that are damaged or that no layer may be: an error that says why, and nothing made.

use super::error::{EntryProblem, LayerError, TarProblem};
use super::scan::scan;
use super::tar_tests::{both, member, raw, records, tar};

#[test]
fn entries_that_cannot_be() {
    let device = |major: &'static [u8]| {
        move |block: &mut [u8]| block[329..329 + major.len()].copy_from_slice(major)
    };
    let long_name = vec![b'n'; 256];
    let deep = b"d/".repeat(2100);
    let cases: Vec<(Vec<Vec<u8>>, EntryProblem)> = vec![
        (
            vec![raw(b'3', b"dev", b"", |_| {})],
            EntryProblem::OverlayWhiteout,
        ),
        (
            vec![raw(b'3', b"dev", b"", device(b"0777777"))],
            EntryProblem::Number,
        ),
        (vec![member(b'0', b".wh.", b"")], EntryProblem::ReservedName),
        (
            vec![member(b'0', b"a/.wh...", b"")],
            EntryProblem::ReservedName,
        ),
        (
            vec![member(b'0', b".wh.x/y", b"")],
            EntryProblem::ReservedName,
        ),
        (
            vec![member(b'2', b"l", b".wh.x"), member(b'0', b"l/y", b"")],
            EntryProblem::ReservedName,
        ),
        (
            vec![member(b'0', b"f", b""), member(b'0', b"f/x", b"")],
            EntryProblem::NotBelowDirectory,
        ),
        (
            vec![member(b'2', b"l", b"l"), member(b'0', b"l/x", b"")],
            EntryProblem::TooManyLinks,
        ),
        (
            vec![member(b'1', b"l", b"/etc/passwd")],
            EntryProblem::LinkTarget,
        ),
        (vec![member(b'1', b"l", b"l")], EntryProblem::LinkTarget),
        (
            vec![member(b'0', b"f", b""), member(b'1', b"f", b"f")],
            EntryProblem::LinkTarget,
        ),
        (
            vec![member(b'5', b"d", b""), member(b'1', b"l", b"d")],
            EntryProblem::LinkTarget,
        ),
        (
            vec![member(b'0', b"d/f", b""), member(b'1', b"d", b"d/f")],
            EntryProblem::LinkTarget,
        ),
        (vec![member(b'2', b"l", b"")], EntryProblem::Path),
        (vec![member(b'0', b"", b"x")], EntryProblem::Root),
        (
            vec![records(&[("path", b"a\0b")]), member(b'0', b"x", b"")],
            EntryProblem::Path,
        ),
        (
            vec![records(&[("path", &long_name)]), member(b'0', b"x", b"")],
            EntryProblem::Path,
        ),
        (
            vec![records(&[("path", &deep)]), member(b'0', b"x", b"")],
            EntryProblem::Path,
        ),
        (
            vec![records(&[("uid", b"-1")]), member(b'0', b"x", b"")],
            EntryProblem::Number,
        ),
        (
            vec![records(&[("gid", b"4294967295")]), member(b'0', b"x", b"")],
            EntryProblem::Number,
        ),
        (
            vec![
                records(&[("SCHILY.xattr.security.capability", b"root")]),
                member(b'0', b"x", b""),
            ],
            EntryProblem::Capability,
        ),
    ];
    for (members, expected) in cases {
        match both(&members) {
            Err(LayerError::Entry { problem, .. }) => assert_eq!(problem, expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    }
}

#[test]
fn malformed_tars() {
    let size = |text: &'static [u8]| {
        raw(b'0', b"f", b"", |block| {
            block[124..124 + text.len()].copy_from_slice(text);
        })
    };
    let mut broken = member(b'0', b"f", b"");
    broken[0] = b'g';
    let cases: Vec<(Vec<Vec<u8>>, TarProblem)> = vec![
        (vec![broken], TarProblem::Checksum),
        (vec![size(b"-0000000001")], TarProblem::Number("size")),
        (
            vec![size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")],
            TarProblem::Number("size"),
        ),
        (vec![size(b"77777777777")], TarProblem::Truncated),
        (
            vec![
                records(&[("size", b"9223372036854775807")]),
                member(b'0', b"f", b""),
            ],
            TarProblem::Truncated,
        ),
        (
            vec![records(&[("size", b"-1")]), member(b'0', b"f", b"")],
            TarProblem::Number("size"),
        ),
        (
            vec![member(b'x', b"pax", b"99 a=b\n"), member(b'0', b"f", b"")],
            TarProblem::Pax,
        ),
        (
            vec![member(b'L', b"l", &vec![b'x'; 1 << 21])],
            TarProblem::Extension,
        ),
        (vec![records(&[("path", b"x")])], TarProblem::Dangling),
        (
            vec![member(b'5', b"d", b"content")],
            TarProblem::UnexpectedContent,
        ),
        (
            vec![records(&[("size", b"512")]), member(b'2', b"l", b"t")],
            TarProblem::UnexpectedContent,
        ),
        (vec![member(b'S', b"f", b"")], TarProblem::Sparse),
        (
            vec![
                records(&[("GNU.sparse.major", b"1")]),
                member(b'0', b"f", b""),
            ],
            TarProblem::Sparse,
        ),
        (vec![member(b'M', b"f", b"")], TarProblem::Type(b'M')),
    ];
    for (members, expected) in cases {
        match both(&members) {
            Err(LayerError::Tar { problem, .. }) => assert_eq!(problem, expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    }
    let whole = tar(&[member(b'0', b"f", &[7; 700]), member(b'0', b"g", b"")]);
    for length in (1..2048).filter(|length| length % 512 != 0 || *length == 1024) {
        assert!(scan(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn any_bytes_are_an_error_or_an_index_but_no_panic() {
    let good = tar(&[
        records(&[("path", b"some/where"), ("mtime", b"1.5")]),
        member(b'0', b"f", b"content"),
        member(b'1', b"g", b"some/where"),
        member(b'2', b"l", b"some"),
        member(b'0', b"l/.wh.x", b""),
    ]);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..4000 {
        let mut bytes = good.clone();
        for _ in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = usize::try_from(random % bytes.len() as u64).unwrap();
            bytes[at] = random.to_le_bytes()[7];
            // Most changes would only break the checksum.
            let block = at / 512 * 512;
            bytes[block + 148..block + 156].fill(b' ');
            let sum: u32 = bytes[block..block + 512]
                .iter()
                .map(|b| u32::from(*b))
                .sum();
            bytes[block + 148..block + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        drop(scan(bytes.as_slice()));
    }
}
