//! A layer's blob: scanned and, as root, unpacked. Both must agree; the tree must be what the index says, packs to a tar
//! that unpacks to the same, and nothing is made outside of it. The first byte tells whether the rest is taken as tar
//! headers to be repaired, since few inputs have a checksum that is right.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use cache::layer::apply::apply;
use cache::layer::compress::decompress::decompress;
use cache::layer::index::LayerIndex;
use cache::layer::pack::pack;
use cache::layer::scan::scan;
use cache::layer::sink::Plain;
use cache::layer::tree::OverlayXattrs;
use cache::layer::verify::is_intact;
use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let tar = if mode & 1 == 0 {
        rest.to_vec()
    } else {
        repaired(rest)
    };
    let Ok(plain) = decompress(tar.as_slice()) else {
        return;
    };
    // A bomb is not what is looked for here.
    let scanned = scan(std::io::Read::take(plain, 16 << 20));
    if tar.len() > 1 << 20 || !rustix::process::geteuid().is_root() {
        return;
    }
    let (tree, again) = (DIR.path().join("tree"), DIR.path().join("again"));
    for dir in [&tree, &again] {
        drop(cache::remove::remove_tree(dir));
        fs::create_dir(dir).unwrap();
    }
    fs::write(DIR.path().join("outside"), "outside").unwrap();
    let plain = decompress(tar.as_slice()).unwrap();
    let applied = apply(
        std::io::Read::take(plain, 16 << 20),
        &tree,
        OverlayXattrs::Trusted,
    );
    match (&scanned, &applied) {
        (Ok(scanned), Ok(applied)) => {
            assert_eq!(scanned, applied);
            assert_whole(applied, &tree, &again);
        }
        (Err(_), Err(_)) => {}
        // The file system may refuse what the index allows, such as a name that is too long for it.
        (Ok(_), Err(cache::layer::error::LayerError::Io { .. })) => {}
        (scanned, applied) => panic!("{scanned:?} but {applied:?}"),
    }
    assert_eq!(
        fs::read_to_string(DIR.path().join("outside")).unwrap(),
        "outside"
    );
    assert_eq!(fs::read_dir(DIR.path()).unwrap().count(), 3);
});

fn assert_whole(index: &LayerIndex, tree: &std::path::Path, again: &std::path::Path) {
    assert!(is_intact(index, tree, OverlayXattrs::Trusted));
    let mut tar = Vec::new();
    let packed = pack(index, tree, &mut Plain(&mut tar)).unwrap();
    let unpacked = apply(tar.as_slice(), again, OverlayXattrs::Trusted).unwrap();
    assert!(is_intact(&unpacked, again, OverlayXattrs::Trusted));
    let mut second = Vec::new();
    let repacked = pack(&unpacked, again, &mut Plain(&mut second)).unwrap();
    assert_eq!(packed.diff_id, repacked.diff_id);
}

/// Blocks of the input as headers whose checksums and magic are right, each followed by its content.
fn repaired(mut rest: &[u8]) -> Vec<u8> {
    const KINDS: &[u8] = b"0123456xgLK";
    let mut out = Vec::new();
    while let [kind, name, link, size, tail @ ..] = rest {
        let mut header = [0_u8; 512];
        let (taken, left) = tail.split_at(tail.len().min(usize::from(name % 40)));
        header[..taken.len()].copy_from_slice(taken);
        let (taken, left) = left.split_at(left.len().min(usize::from(link % 40)));
        header[157..157 + taken.len()].copy_from_slice(taken);
        let (content, left) = left.split_at(left.len().min(usize::from(*size)));
        header[156] = KINDS[usize::from(*kind) % KINDS.len()];
        let has_content = matches!(header[156], b'0' | b'x' | b'g' | b'L' | b'K');
        let content = if has_content { content } else { b"" };
        header[100..107].copy_from_slice(b"0000755");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        // Devices other than the mark of a deletion.
        header[329..336].copy_from_slice(format!("{:07o}", kind / 16).as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend(header);
        out.extend(content);
        out.resize(out.len().next_multiple_of(512), 0);
        rest = left;
    }
    out.extend([0; 1024]);
    out
}
