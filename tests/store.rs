//! The state directory: where it may be, and what happens when it is full.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Place, finish, store};

const SMALL: &str = "FROM busybox\nRUN echo 1 > /one\n";

/// A mounted tmpfs.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let mut command = Command::new("mount");
        command
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("mode=0700,{options}"),
                "tmpfs",
            ])
            .arg(path);
        finish(&mut command).success();
        Self(path.to_owned())
    }

    fn remount(&self, options: &str) {
        let mut command = Command::new("mount");
        command
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0);
        finish(&mut command).success();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_fails_the_build_and_spares_the_store() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo 1 > /one\nCOPY big /big\n");
    let _disk = Tmpfs::mount(&place.root(), "size=24m");
    place.file("big", vec![7_u8; 40 << 20]);
    let outcome = place.build(&[]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome:?}");
    outcome
        .says("o space left on device")
        .does_not_say("panicked");
    store::assert_sound(&place.root());
    store::assert_tidy(&place.root());
    let outcome = place.file("big", "small").build(&[]).success();
    assert_eq!(outcome.cached(), ["RUN echo 1 > /one"]);
    assert_eq!(place.image(&[]).text("big"), "small");
}

#[test]
fn a_command_that_fills_the_disk_fails() {
    let place =
        Place::with_dockerfile("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=64\n");
    let _disk = Tmpfs::mount(&place.root(), "size=24m");
    let outcome = place.build(&[]).says("No space left on device");
    // The command fails, or its output cannot be kept any more: whichever meets the full disk first.
    assert!(matches!(outcome.code, Some(1 | 3)), "{:?}", outcome.code);
    store::assert_tidy(&place.root());
    place.file("Dockerfile", SMALL).build(&[]).success();
}

#[test]
fn a_disk_that_fills_while_a_layer_is_packed_fails_the_export() {
    let text = "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=20\n";
    let place = Place::with_dockerfile(text);
    let disk = Tmpfs::mount(&place.root(), "size=64m");
    place.build(&[]).success();
    disk.remount("size=28m");
    let (file, output) = (place.path("image.tar"), "--output=type=oci,dest=image.tar");
    let outcome = place.build(&[output]);
    if outcome.code != Some(0) {
        outcome
            .says("o space left on device")
            .does_not_say("panicked");
        assert!(!file.exists());
        store::assert_sound(&place.root());
    }
    disk.remount("size=200m");
    place.image(&[]);
}

#[test]
fn a_destination_on_a_full_disk_is_left_as_it_was() {
    let place =
        Place::with_dockerfile("FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=8\n");
    let disk = Tmpfs::mount(&place.path("out"), "size=4m");
    let file = disk.0.join("image.tar");
    fs::write(&file, "precious").unwrap();
    let output = format!("--output=type=oci,dest={}", file.display());
    place
        .build(&[&output])
        .failure(3)
        .says("o space left on device");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 1);
}

#[test]
fn a_read_only_state_directory_is_refused() {
    let place = Place::with_dockerfile(SMALL);
    let disk = Tmpfs::mount(&place.root(), "size=24m");
    disk.remount("ro");
    let outcome = place.build(&[]).failure(3);
    outcome
        .says(place.root().to_str().unwrap())
        .says("BUILD_ROOT");
}

#[test]
fn a_foreign_state_directory_is_refused() {
    let place = Place::with_dockerfile(SMALL);
    fs::create_dir(place.root()).unwrap();
    std::os::unix::fs::chown(place.root(), Some(12345), Some(12345)).unwrap();
    place
        .build(&[])
        .failure(3)
        .says("belongs to user 12345")
        .says("BUILD_ROOT");
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
}

#[test]
fn a_state_directory_that_others_can_write_is_refused() {
    let place = Place::with_dockerfile(SMALL);
    fs::create_dir(place.root()).unwrap();
    for mode in [0o777, 0o775] {
        fs::set_permissions(place.root(), fs::Permissions::from_mode(mode)).unwrap();
        place
            .build(&[])
            .failure(3)
            .says("can be written by others")
            .says("chmod go-w");
    }
    fs::set_permissions(place.root(), fs::Permissions::from_mode(0o700)).unwrap();
    place.build(&[]).success();
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let place = Place::with_dockerfile(SMALL);
    fs::create_dir(place.root()).unwrap();
    fs::set_permissions(place.root(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(place.root().join("thesis"), "precious").unwrap();
    place
        .build(&[])
        .failure(3)
        .says("thesis")
        .says("BUILD_ROOT");
    assert_eq!(
        fs::read_to_string(place.root().join("thesis")).unwrap(),
        "precious"
    );
}

#[test]
fn a_state_directory_of_another_user_is_refused_to_the_unprivileged() {
    let place = Place::with_dockerfile(SMALL).unprivileged();
    fs::create_dir(place.root()).unwrap();
    fs::set_permissions(place.root(), fs::Permissions::from_mode(0o755)).unwrap();
    place.build(&[]).failure(3).says("belongs to user 0");
}

#[test]
fn a_new_state_directory_is_private() {
    let place = Place::with_dockerfile(SMALL);
    let root = place.path("deep/er/root");
    let place = place.with_root(&root);
    place.build(&[]).success();
    assert_eq!(
        fs::metadata(root).unwrap().permissions().mode() & 0o7777,
        0o700
    );
}

#[test]
fn losing_the_database_costs_cache_hits_and_no_image() {
    let place = Place::with_dockerfile(SMALL);
    let id = place.build(&["--quiet", "--tag=kept"]).success().stdout;
    for name in ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"] {
        drop(fs::remove_file(place.root().join(name)));
    }
    assert!(place.run(["images"]).success().stdout.contains("kept"));
    place.build(&[]).success();
    assert!(
        place
            .run(["images", "--quiet"])
            .success()
            .stdout
            .contains(id.trim())
    );
}
