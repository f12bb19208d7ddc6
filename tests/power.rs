//! A machine that loses its power, or runs out of descriptors: the store goes on without repair, and gives what is right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::image::Image;
use crate::support::process::Running;
use crate::support::world::{Luck, Random, World};
use crate::support::{Place, finish, program, store, through_shell};

const ROUNDS: u64 = 3;

/// A file system in a file, mounted.
struct Disk {
    file: PathBuf,
    on: PathBuf,
}

impl Disk {
    fn make(file: PathBuf, on: PathBuf) -> Self {
        fs::File::create(&file).unwrap().set_len(128 << 20).unwrap();
        let mut command = Command::new(program("mkfs.ext4", "e2fsprogs"));
        // Nothing is left for the kernel to write later, in its own time.
        let eager = ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        finish(command.args(eager).arg(&file)).success();
        fs::create_dir_all(&on).unwrap();
        let disk = Self { file, on };
        disk.mount();
        // mkfs makes one.
        fs::remove_dir(disk.on.join("lost+found")).unwrap();
        fs::set_permissions(
            &disk.on,
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .unwrap();
        disk
    }

    /// What is written goes to the file within a second.
    fn mount(&self) {
        let mut command = Command::new("mount");
        command
            .args(["-o", "loop,noatime,commit=1"])
            .arg(&self.file)
            .arg(&self.on);
        finish(&mut command).success();
    }

    /// Cuts the power: what has not reached the file by now never does.
    fn cut(&self) {
        let after = self.file.with_extension("cut");
        let mut copy = Command::new("cp");
        finish(copy.arg("--sparse=always").arg(&self.file).arg(&after)).success();
        self.unmount();
        fs::rename(after, &self.file).unwrap();
        self.mount();
    }

    fn unmount(&self) {
        finish(Command::new("umount").arg("--lazy").arg(&self.on)).success();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.on).status());
    }
}

/// The command on a machine of this boot.
fn booted(command: &Command, boot: &Path) -> Command {
    let script = format!(
        "exec unshare -m sh -c 'mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"' sh \"$@\"",
        boot.display()
    );
    through_shell(&script, command)
}

#[test]
fn a_power_cut_at_any_instant_costs_no_more_than_time() {
    let first = u64::from(std::process::id()) << 20;
    for seed in first..first + ROUNDS {
        println!("seed {seed}");
        let mut random = Random(seed);
        let world = World::draw(&mut random, Luck::Good);
        let place = Place::with_dockerfile(&world.dockerfile());
        for (name, text) in World::files() {
            place.file(&name, text);
        }
        let disk = Disk::make(place.path("disk"), place.root());
        let boot = place.path("boot");
        let build = |stage: usize, tag: &str| {
            let mut command = place.build_command();
            let output = format!("--output=type=oci,dest={}", place.path("out.tar").display());
            command
                .arg(format!("--target=s{stage}"))
                .args(["-t", tag, &output]);
            booted(command.arg(place.context()), &boot)
        };
        for life in 0..3 {
            fs::write(&boot, format!("{life:08}-0000-4000-8000-000000000000\n")).unwrap();
            let whole = random.index(world.stages());
            finish(&mut build(whole, "kept")).success();
            let image = Image::read(&place.path("out.tar"));
            assert_eq!(
                Some(image.text("v")),
                world.result(whole),
                "seed {seed}, life {life}"
            );
            if random.once_in(2) {
                std::thread::sleep(Duration::from_millis(random.below(1500)));
            }
            let cut_short = Running::start(&mut build(random.index(world.stages()), "other"));
            std::thread::sleep(Duration::from_millis(random.below(600)));
            cut_short.signal(Signal::KILL);
            let _killed = cut_short.end(Duration::from_secs(60));
            disk.cut();
        }
        fs::write(&boot, "00000009-0000-4000-8000-000000000000\n").unwrap();
        let goal = world.stages() - 1;
        finish(&mut build(goal, "last")).success();
        let image = Image::read(&place.path("out.tar"));
        assert_eq!(Some(image.text("v")), world.result(goal), "seed {seed}");
        let checked = finish(&mut booted(place.command().arg("fsck"), &boot)).success();
        // A tag that was written may have outlived what it names, and is told then; nothing is wrong without a word.
        let again = finish(&mut booted(place.command().arg("fsck"), &boot)).success();
        let is_well = |line: &str| line.contains("all well") || line.starts_with("image ");
        let mut lines = again
            .stdout
            .lines()
            .filter(|line| !line.contains("checked:"));
        let only_images = lines.all(is_well);
        assert!(
            only_images,
            "seed {seed}: {}\n{}",
            checked.stdout, again.stdout
        );
    }
}

/// Where the bytes of a file begin on the disk that it is on.
fn place_on_disk(file: &Path) -> Option<u64> {
    let mut command = Command::new(program("filefrag", "e2fsprogs"));
    let told = finish(command.args(["-v", "-b1"]).arg(file))
        .success()
        .stdout;
    // `   0:        0..    4095:   34603008..  34607103:   4096:  last,eof`
    let extent = told
        .lines()
        .find(|line| line.trim_start().starts_with("0:"))?;
    let physical = extent.split(':').nth(2)?.split("..").next()?;
    physical.trim().parse().ok()
}

#[test]
fn what_a_disk_cannot_read_is_made_again() {
    let first = u64::from(std::process::id()) << 20;
    for seed in first..first + ROUNDS {
        println!("seed {seed}");
        let mut random = Random(seed);
        let place = Place::with_dockerfile("FROM busybox\nCOPY a /a\nRUN cat /a /a > /b\n");
        place.file("a", "one\n".repeat(20_000));
        let disk = Disk::make(place.path("disk"), place.root());
        let output = format!("--output=type=oci,dest={}", place.path("out.tar").display());
        place.build(&["-t", "app", &output]).success();
        store::settled(&place.root());
        let mut files = Vec::new();
        for part in ["blobs", "trees", "layers"] {
            store::files_below(&place.root().join(part), &mut files);
        }
        files.sort();
        files.retain(|file| fs::symlink_metadata(file).is_ok_and(|f| f.is_file() && f.len() > 0));
        let victim = files[random.index(files.len())].clone();
        // A write that is still due, behind the cut, would make a hole of the lost part: zeros instead of an error.
        finish(Command::new("sync").arg("-f").arg(&disk.on)).success();
        let Some(at) = place_on_disk(&victim) else {
            continue;
        };
        // Nothing of it stays in memory. To mount the disk anew does not see to that: namespaces of other tests may have the
        // mount too.
        let in_memory = fs::File::open(&victim).unwrap();
        rustix::fs::fadvise(&in_memory, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let file = fs::File::options().write(true).open(&disk.file).unwrap();
        file.set_len(at).unwrap();
        let is_lost = fs::read(&victim).is_err();
        assert!(is_lost, "seed {seed}: {} can be read", victim.display());
        // Without it the directory is no store any more, and nobody takes it for one.
        if fs::read(place.root().join("format")).is_err() {
            continue;
        }
        let outcome = place
            .build(&["-t", "app", &output])
            .does_not_say("panicked");
        assert!(
            matches!(outcome.code, Some(0 | 1 | 3)),
            "seed {seed}: {outcome:?}"
        );
        place.run(["fsck"]).success();
        let image = place.image(&["-t", "app"]);
        assert_eq!(image.text("b"), "one\n".repeat(40_000), "seed {seed}");
        let checked = place.run(["fsck"]).success();
        let is_well = checked.stdout.contains("all well");
        assert!(is_well, "seed {seed}: {}", checked.stdout);
    }
}

#[test]
fn few_descriptors_fail_a_build_at_most() {
    let text = "FROM busybox AS one\nCOPY a /a\nRUN cat /a > /b\nFROM busybox\nCOPY --from=one /b /b\nRUN cat /b > /c\n";
    let mut failed = 0;
    for limit in [9, 12, 15, 18, 24, 32, 48, 64] {
        let place = Place::with_dockerfile(text);
        place.file("a", "a\n");
        let mut command = place.build_command();
        let script = format!("ulimit -n {limit} && exec \"$@\"");
        let outcome = finish(&mut through_shell(&script, command.arg(place.context())));
        assert!(!outcome.stderr.contains("panicked"), "{limit}: {outcome:?}");
        if outcome.code != Some(0) {
            failed += 1;
            assert!(!outcome.stderr.is_empty(), "{limit}");
        }
        assert_eq!(place.image(&[]).text("c"), "a\n", "{limit}");
        let checked = place.run(["fsck"]).success();
        assert!(
            checked.stdout.contains("all well"),
            "{limit}: {}",
            checked.stdout
        );
    }
    assert!(failed > 0, "the limits are too wide");
}
