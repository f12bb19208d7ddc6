//! Random trees and random steps: packing and applying are inverse, and a layer shows what was done.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::freeze::freeze;
use super::freeze_tests::{OPTIONS, Overlay, assert_same, check_identity, see};
use super::sink::{Plain, nowhere};
use super::stack::LayerStack;
use super::tests_support::*;

/// A small generator, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn random_name(random: &mut Random) -> Vec<u8> {
    match random.below(12) {
        0 => vec![b'n'; 100 + usize::try_from(random.below(155)).unwrap()],
        1 => vec![0xff, 0xfe, b'0' + u8::try_from(random.below(10)).unwrap()],
        2 => b"line\nbreak".to_vec(),
        3 => "ünï".as_bytes().to_vec(),
        _ => format!(
            "{}{}",
            ["a", "b-", "c."][usize::try_from(random.below(3)).unwrap()],
            random.below(20)
        )
        .into_bytes(),
    }
}

fn random_tree(root: &Path, random: &mut Random) {
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for _ in 0..60 {
        let parent = dirs[usize::try_from(random.below(dirs.len() as u64)).unwrap()].clone();
        let path = parent.join(std::ffi::OsStr::from_bytes(&random_name(random)));
        if path.as_os_str().len() > 1500 || fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        let at = path.to_str().map(str::to_owned);
        match random.below(10) {
            0..=2 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            3 => std::os::unix::fs::symlink(
                format!(
                    "t/{}",
                    "x".repeat(usize::try_from(random.below(200)).unwrap())
                ),
                &path,
            )
            .unwrap(),
            4 if !files.is_empty() => {
                let source = &files[usize::try_from(random.below(files.len() as u64)).unwrap()];
                fs::hard_link(source, &path).unwrap();
                continue;
            }
            5 => rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap(),
            6 if at.is_some() => drop(std::os::unix::net::UnixListener::bind(&path)),
            7 => {
                let file = fs::File::create(&path).unwrap();
                file.set_len(random.below(3_000_000)).unwrap();
                files.push(path.clone());
            }
            _ => {
                let size = usize::try_from(random.below(2000)).unwrap();
                fs::write(&path, vec![u8::try_from(random.below(256)).unwrap(); size]).unwrap();
                files.push(path.clone());
            }
        }
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        let owner = [0, 1000, 2_097_152, 4_000_000_000][usize::try_from(random.below(4)).unwrap()];
        std::os::unix::fs::lchown(&path, Some(owner), Some(owner / 2)).unwrap();
        if !meta.is_symlink() {
            let mode = u32::try_from(random.below(0o10000)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

#[test]
fn packing_and_applying_are_inverse() {
    require_root();
    for seed in 1..=12 {
        let dir = tempfile::tempdir().unwrap();
        let upper = dir.path().join("upper");
        fs::create_dir(&upper).unwrap();
        random_tree(
            &upper,
            &mut Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)),
        );
        let mut tar = Vec::new();
        let frozen = freeze(
            &upper,
            &LayerStack::default(),
            &mut Plain(&mut tar),
            OPTIONS,
        )
        .unwrap();
        check_identity(dir.path(), &frozen, &upper, &tar);
        // Freezing what was unpacked changes nothing.
        let again = freeze(
            &dir.path().join("again"),
            &LayerStack::default(),
            &mut nowhere(),
            OPTIONS,
        )
        .unwrap();
        assert_eq!(again.diff_id, frozen.diff_id, "seed {seed}");
    }
}

/// One thing that a step may do to what it sees.
fn random_change(root: &Path, random: &mut Random) {
    let mut paths: Vec<PathBuf> = see(root).into_keys().map(|path| root.join(path)).collect();
    paths.retain(|path| path != root);
    let mut pick = || -> PathBuf {
        let number = random.below(paths.len().max(1) as u64);
        let at = usize::try_from(number).unwrap();
        paths.get(at).cloned().unwrap_or_else(|| root.join("first"))
    };
    let (path, other) = (pick(), pick());
    let is_dir = path.is_dir() && !path.is_symlink();
    let remove = |path: &Path| match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            fs::remove_file(path).unwrap();
        }
        done => drop(done),
    };
    // What cannot be done here (a directory below itself, a rename across layers) is left undone.
    match random.below(9) {
        0 => remove(&path),
        1 => {
            remove(&path);
            drop(fs::create_dir(&path));
            drop(fs::write(path.join("a1"), b"new"));
        }
        2 => {
            remove(&path);
            drop(fs::write(&path, b"now a file"));
        }
        3 if is_dir => drop(fs::write(path.join("b-2"), b"in")),
        4 if !path.is_symlink() => {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        5 => drop(fs::rename(&path, &other)),
        6 => drop(fs::hard_link(&path, other.with_extension("linked"))),
        7 => {
            remove(&path);
            drop(std::os::unix::fs::symlink("a1", &path));
        }
        _ if path.is_file() && !path.is_symlink() => {
            let times =
                fs::FileTimes::new().set_modified(fs::metadata(&path).unwrap().modified().unwrap());
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            fs::write(&path, bytes).unwrap();
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_times(times)
                .unwrap();
        }
        _ => {}
    }
}

#[test]
fn whatever_a_step_does_the_layer_shows_it() {
    require_root();
    for seed in 1..=10 {
        let random = &mut Random(0x2545_f491_4f6c_dd1d_u64.wrapping_mul(seed));
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        fs::create_dir(&base).unwrap();
        random_tree(&base, random);
        let index = freeze(&base, &LayerStack::default(), &mut nowhere(), OPTIONS)
            .unwrap()
            .index;
        let upper = dir.path().join("upper");
        fs::create_dir(&upper).unwrap();
        let overlay = Overlay::mount(dir.path(), std::slice::from_ref(&base), &upper);
        for _ in 0..12 {
            random_change(&overlay.merged, random);
        }
        let mut before = see(&overlay.merged);
        drop(overlay);
        let mut tar = Vec::new();
        let lower = LayerStack::new(vec![Arc::new(index)]);
        let frozen = freeze(&upper, &lower, &mut Plain(&mut tar), OPTIONS).unwrap();
        check_identity(dir.path(), &frozen, &upper, &tar);

        let second = dir.path().join("upper2");
        fs::create_dir(&second).unwrap();
        let overlay = Overlay::mount(dir.path(), &[upper, base], &second);
        let mut after = see(&overlay.merged);
        drop(overlay);
        for seen in before.values_mut().chain(after.values_mut()) {
            // A copy that turned out equal shows the lower file's links again.
            seen.links = 0;
        }
        assert_same(&before, &after);
        // The indexes alone tell the same names.
        let mut layers = lower.layers().to_vec();
        layers.push(Arc::new(frozen.index));
        let stack = LayerStack::new(layers);
        for (path, seen) in &after {
            let found = stack.lookup(path.as_os_str().as_bytes()).unwrap();
            let is_directory = seen.mode & 0o170_000 == 0o040_000;
            assert_eq!(
                found.entry.is_directory(),
                is_directory,
                "seed {seed} {}",
                path.display()
            );
            if is_directory {
                let children = stack.children(path.as_os_str().as_bytes());
                let shown = after
                    .keys()
                    .filter(|other| other.parent() == Some(path))
                    .count();
                assert_eq!(children.len(), shown, "seed {seed} {}", path.display());
            }
        }
    }
}
