//! Contexts that change while they are built: the image has what was there at some time, and never anything from outside.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::image::Image;
use crate::support::{Place, SetAtEnd, finish, store};

/// A build that never gets through by then never does.
const LIMIT: Duration = Duration::from_secs(120);

/// Builds what COPY takes from the context: the image.
fn copied(place: &Place) -> Image {
    place.image(&[])
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn an_edit_shows_whatever_the_times_say() {
    let place = Place::with_dockerfile("FROM scratch\nCOPY f d /\n");
    place.file("f", "one").file("d/g", "one");
    let f = place.context().join("f");
    // Old enough that the digest is remembered.
    std::thread::sleep(Duration::from_millis(2_200));
    assert_eq!(copied(&place).text("f"), "one");
    let cached = place.build(&[]).success();
    assert_eq!(cached.ran(), Vec::<String>::new());

    // As long as before, with the time of before.
    let before = modified(&f);
    fs::write(&f, "two").unwrap();
    File::options()
        .write(true)
        .open(&f)
        .unwrap()
        .set_modified(before)
        .unwrap();
    assert_eq!(modified(&f), before);
    assert_eq!(copied(&place).text("f"), "two");
    // Another file under its name, with its size and time; and back again.
    for text in ["tri", "two"] {
        let other = place.context().join("other");
        fs::write(&other, text).unwrap();
        File::options()
            .write(true)
            .open(&other)
            .unwrap()
            .set_modified(before)
            .unwrap();
        fs::rename(&other, &f).unwrap();
        assert_eq!(copied(&place).text("f"), text);
    }
    // Twice, as fast as can be, with a build right after each.
    for round in 0..10 {
        for text in ["abc", "xyz"] {
            fs::write(place.context().join("d/g"), format!("{text}{round}")).unwrap();
            assert_eq!(copied(&place).text("g"), format!("{text}{round}"));
        }
    }
    // Through another name of its inode.
    let alias = place.path("alias");
    fs::hard_link(&f, &alias).unwrap();
    std::thread::sleep(Duration::from_millis(2_200));
    assert_eq!(copied(&place).text("f"), "two");
    fs::write(&alias, "six").unwrap();
    assert_eq!(copied(&place).text("f"), "six");
}

#[test]
fn the_time_of_a_directory_hides_nothing() {
    let place = Place::with_dockerfile("FROM scratch\nCOPY d /\n");
    place.file("d/a", "a").file("d/b", "b");
    let d = place.context().join("d");
    std::thread::sleep(Duration::from_millis(2_200));
    assert!(copied(&place).files().contains_key("b"));
    let before = modified(&d);
    fs::rename(d.join("b"), d.join("c")).unwrap();
    File::open(&d).unwrap().set_modified(before).unwrap();
    let files = copied(&place).files();
    assert!(files.contains_key("c") && !files.contains_key("b"));
}

/// What an attacker with the context in hand does, over and over.
fn swap(context: &Path, outside: &Path, stop: &AtomicBool) {
    let path = |name: &str| context.join(name);
    while !stop.load(Ordering::Relaxed) {
        // Each by rename, so that there is always something.
        symlink(outside.join("secret"), path("link")).unwrap();
        fs::rename(path("link"), path("tree/f")).unwrap();
        fs::write(path("file"), "inside").unwrap();
        fs::rename(path("file"), path("tree/f")).unwrap();
        fs::rename(path("tree/d"), path("aside")).unwrap();
        symlink(outside, path("tree/d")).unwrap();
        fs::remove_file(path("tree/d")).unwrap();
        fs::rename(path("aside"), path("tree/d")).unwrap();
        let mut grown = File::options()
            .append(true)
            .open(path("tree/grows"))
            .unwrap();
        std::io::Write::write_all(&mut grown, b"more").unwrap();
        drop(File::create(path("tree/grows")).unwrap());
        fs::remove_file(path("tree/comes")).ok();
        fs::write(path("tree/comes"), "and goes").unwrap();
    }
}

#[test]
fn whoever_swaps_files_of_a_context_gets_nothing_in_from_outside() {
    const SECRET: &str = "never-in-any-image";
    let place =
        Place::with_dockerfile("FROM scratch\nCOPY tree /t\nCOPY tree/d /u\nCOPY tree/f /v\n");
    place
        .file("tree/f", "inside")
        .file("tree/d/secret", "inside");
    place.file("tree/grows", "").file("tree/comes", "");
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), SECRET).unwrap();
    let stop = AtomicBool::new(false);
    let output = format!(
        "--output=type=oci,dest={}",
        place.path("image.tar").display()
    );
    // One build in ten gets through, or fewer on a busy machine.
    let (mut built, since) = (0, Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&place.context(), &outside, &stop));
        let _ending = SetAtEnd(&stop);
        for tried in 0.. {
            if tried >= 60 && (built > 0 || since.elapsed() > LIMIT) {
                break;
            }
            let outcome = place.build(&[&output]);
            if outcome.code == Some(0) {
                built += 1;
                for (path, file) in Image::read(&place.path("image.tar")).files() {
                    let text = String::from_utf8_lossy(&file.content);
                    assert!(!text.contains(SECRET), "{path}");
                }
            } else {
                assert!(matches!(outcome.code, Some(1 | 3)), "{}", outcome.stderr);
            }
        }
    });
    assert!(built > 0, "no build got through");
    let mut grep = Command::new("grep");
    let found = finish(grep.args(["-rlF", SECRET]).arg(place.root()));
    assert_eq!(found.stdout, "");
    store::assert_tidy(&place.root());
    let checked = place.run(["fsck"]).success();
    assert!(checked.stdout.contains("all well"), "{}", checked.stdout);
    assert!(fs::metadata(outside.join("secret")).unwrap().size() > 0);
}
