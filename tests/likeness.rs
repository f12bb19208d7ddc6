//! What a step sees and what the kernel answers it, beside a step of a live BuildKit.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::support::docker::Docker;
use crate::support::{Place, base, finish, program, testdata, tools};

/// What two steps of one Dockerfile saw.
struct Seen {
    probe: Sections,
    answers: Vec<String>,
}

type Sections = BTreeMap<String, Vec<String>>;

fn compiled(place: Place) -> Place {
    place.copies(&testdata("likeness"));
    let mut gcc = Command::new(program("gcc", "gcc libc6-dev"));
    gcc.args(["-static", "-O1", "-o"])
        .arg(place.context().join("syscalls"))
        .arg(testdata("likeness/syscalls.c"));
    finish(&mut gcc).success();
    place
}

fn seen(probe: &str, answers: &str) -> Seen {
    let mut sections = Sections::new();
    let mut lines: &mut Vec<String> = &mut Vec::new();
    for line in probe.lines() {
        match line.strip_prefix("== ") {
            Some(name) => lines = sections.entry(name.to_owned()).or_default(),
            None => lines.push(line.to_owned()),
        }
    }
    Seen {
        probe: sections,
        answers: answers.lines().map(str::to_owned).collect(),
    }
}

fn ours(place: &Place) -> Seen {
    let image = place.image(&[]);
    seen(&image.text("seen"), &image.text("answers"))
}

fn buildkits(place: &Place, docker: &Docker) -> Seen {
    let archive = place.path("busybox.tar");
    tools::skopeo_copy(
        &format!("oci:{}", base::busybox().display()),
        &format!("docker-archive:{}:busybox:latest", archive.display()),
    );
    docker.load(&archive);
    docker.build("probed", &place.context());
    let read = |path| docker.output(&["probed", "cat", path]);
    seen(&read("/seen"), &read("/answers"))
}

/// A mount without what differs for a reason: BuildKit's two files lie on the daemon's disk and ours nowhere, its runc tells of access
/// times only where the mount is old, and what is below `/sys/fs/cgroup` is the machine's.
fn without_reasons(mount: &str) -> Option<String> {
    let mount = mount.replace(",relatime", "");
    let (target, rest) = mount.split_once(' ').unwrap();
    let (kind, options) = rest.split_once(' ').unwrap();
    let kind = if target == "/etc/hosts" || target == "/etc/resolv.conf" {
        "a file"
    } else {
        kind
    };
    (!target.starts_with("/sys/fs/cgroup")).then(|| format!("{target} {kind} {options}"))
}

/// Answers that differ because Debian's daemon has an older profile, and a library that knows fewer calls.
fn has_changed_since(answer: &str) -> bool {
    let words: Vec<&str> = answer.split(' ').collect();
    match words[..] {
        // Only known families are let through, since that of the kernel's ciphers let containers write to others' files.
        ["41", _] => true,
        ["family", family, _] => {
            ["12", "19", "20", "23", "25", "34", "37", "38", "40"].contains(&family)
                || family.parse::<u32>().unwrap() > 45
        }
        // name_to_handle_at, process_vm_*, pkey_* are allowed now; io_uring_* no longer.
        [
            "303" | "310" | "311" | "329" | "330" | "331" | "425" | "426" | "427",
            _,
        ] => true,
        [number, _] => (450..=466).contains(&number.parse::<u32>().unwrap()),
        _ => false,
    }
}

fn differing<'a>(one: &'a Seen, other: &'a Seen) -> Vec<(&'a str, &'a str)> {
    assert_eq!(one.answers.len(), other.answers.len());
    let pairs = one.answers.iter().zip(&other.answers);
    pairs
        .filter(|(one, other)| one != other)
        .map(|(one, other)| (one.as_str(), other.as_str()))
        .collect()
}

#[test]
fn a_step_sees_what_it_sees_in_buildkit() {
    let place = compiled(Place::new());
    let (ours, theirs) = (ours(&place), buildkits(&place, &Docker::start()));
    let mounts = |seen: &Seen| -> BTreeSet<String> {
        let mounts = seen.probe["mounts"].iter();
        mounts.filter_map(|line| without_reasons(line)).collect()
    };
    assert_eq!(mounts(&ours), mounts(&theirs));
    assert_eq!(ours.probe.len(), theirs.probe.len());
    // The signals that a C library keeps to itself are ignored in whatever a test starts, and so the daemon's steps ignore them.
    let without_ignored = |lines: &[String]| -> Vec<String> {
        let lines = lines.iter();
        lines
            .filter(|line| !line.starts_with("SigIgn"))
            .cloned()
            .collect()
    };
    for (name, lines) in ours.probe.iter().filter(|(name, _)| *name != "mounts") {
        let theirs = &theirs.probe[name];
        assert_eq!(without_ignored(lines), without_ignored(theirs), "{name}");
    }
    let ignored = ours.probe["status"]
        .iter()
        .find(|line| line.starts_with("SigIgn"));
    // The shell's own, of SIGQUIT.
    assert_eq!(ignored.unwrap(), "SigIgn:\t0000000000000004");
    assert!(ours.answers.len() > 600);
    let mut differing = differing(&ours, &theirs);
    differing.retain(|(ours, _)| !has_changed_since(ours));
    assert_eq!(differing, []);
    // EPERM for the kernel's ciphers, ENOSYS for what nobody knows.
    for answer in ["family 38 1", "467 38", "599 38", "438 1"] {
        assert!(ours.answers.iter().any(|line| line == answer), "{answer}");
    }
}

#[test]
fn both_rungs_are_alike_but_for_ids_and_devices() {
    let root = ours(&compiled(Place::new()));
    let user = ours(&compiled(Place::new()).unprivileged());
    let mut differing = differing(&root, &user);
    // Sockets that need a right over the network, which is the host's: packets, and SMC.
    differing.retain(|(_, user)| !["family 17 1", "family 44 1"].contains(user));
    assert_eq!(differing, []);
    let differ = ["mounts", "devices", "ids", "root"];
    for (name, lines) in &root.probe {
        if !differ.contains(&name.as_str()) {
            assert_eq!(lines, &user.probe[name], "{name}");
        }
    }
    let targets = |seen: &Seen| -> BTreeSet<String> {
        let targets = seen.probe["mounts"].iter();
        targets
            .filter_map(|line| line.split(' ').next())
            .filter(|target| !target.starts_with("/dev/") && !target.starts_with("/sys/fs/cgroup/"))
            // A user's /sys is the host's, with what that has mounted there.
            .filter(|target| !target.starts_with("/sys/kernel/"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(targets(&root), targets(&user));
}
