//! `builder doctor`: what it says of this machine, and of ones that lack something.

use crate::support::user::User;
use crate::support::{Outcome, Place, finish, program, through_shell};

fn report(place: &Place) -> serde_json::Value {
    let outcome = place.run(["doctor", "--format=json"]);
    assert!(matches!(outcome.code, Some(0 | 3)), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn check<'a>(report: &'a serde_json::Value, rung: &str, name: &str) -> &'a serde_json::Value {
    let rungs = report["rungs"].as_array().unwrap();
    let rung = rungs.iter().find(|found| found["rung"] == rung).unwrap();
    let checks = rung["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap()
}

#[test]
fn every_rung_is_told_with_its_prerequisites() {
    let place = Place::new();
    let report = report(&place);
    assert_eq!(report["version"], 1);
    assert_eq!(report["chosen"], "root");
    assert_eq!(check(&report, "root", "user")["state"], "ok");
    assert_eq!(check(&report, "root", "a whole step")["state"], "ok");
    let store = check(&report, "root", "state directory");
    let root = place.path("root").display().to_string();
    assert!(
        store["found"].as_str().unwrap().starts_with(&root),
        "{store}"
    );
    let text = place.run(["doctor"]).success().stdout;
    assert!(text.starts_with("isolation root: works\n"), "{text}");
    assert!(text.contains("\nisolation userns: "), "{text}");
    // Whatever is wrong has a remedy, or the words of the step that failed.
    for rung in report["rungs"].as_array().unwrap() {
        for check in rung["checks"].as_array().unwrap() {
            let is_told = check["state"] == "ok"
                || check["remedy"].is_string()
                || check["name"] == "a whole step";
            assert!(is_told, "{check}");
        }
    }
}

#[test]
fn an_unusable_state_directory_is_named() {
    let place = Place::new();
    std::fs::write(place.path("root"), "a file").unwrap();
    let outcome = place.run(["doctor"]).failure(3);
    assert!(
        outcome.stdout.contains("is not a directory"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("-> set BUILD_ROOT"),
        "{}",
        outcome.stdout
    );
    outcome.says("commands cannot be run here");
}

/// Runs a verb as a root who lacks a capability.
fn without(place: &Place, capability: &str, verb: &[&str]) -> Outcome {
    let mut command = place.command();
    command.args(verb);
    let setpriv = program("setpriv", "util-linux");
    let script = format!(
        "exec {} --bounding-set=-{capability} -- \"$@\"",
        setpriv.display()
    );
    finish(&mut through_shell(&script, &command))
}

fn build_without(place: &Place, capability: &str) -> Outcome {
    let base = crate::support::testdata("images/busybox");
    let base = format!("--build-context=busybox=oci-layout://{}", base.display());
    let context = place.context().display().to_string();
    without(place, capability, &["build", "--no-cache", &base, &context])
}

#[test]
fn a_capability_that_steps_can_do_without_costs_only_itself() {
    let place = Place::with_dockerfile(
        "FROM busybox\nRUN echo x > /dev/null && ! mknod /x c 1 3 2>/dev/null && grep CapEff /proc/self/status\n",
    );
    build_without(&place, "mknod")
        .success()
        .says("00000000a00425fb");
    build_without(&place, "net_raw").failure(1);
    place.file("Dockerfile", "FROM busybox\nRUN true\n");
    build_without(&place, "net_raw,-audit_write,-sys_resource").success();
    for (capability, refused) in [
        ("setpcap", "cannot set capabilities of `bounding set`"),
        ("setgid", "cannot switch to user `0`"),
    ] {
        let fresh = Place::with_dockerfile("FROM busybox\nRUN true\n");
        build_without(&fresh, capability)
            .failure(3)
            .says(refused)
            .says("hint: `builder doctor` says what this machine lacks");
        let report = without(&fresh, capability, &["doctor"]).failure(3).stdout;
        let add = format!("--cap-add={}", capability.to_uppercase());
        assert!(report.contains(&add), "{report}");
    }
}

#[test]
fn a_user_namespace_that_cannot_hold_an_image_is_refused_with_the_remedy() {
    let place = Place::with_dockerfile("FROM busybox\nRUN true\n").unprivileged();
    let inside = |flags: &str| {
        let mut command = place.build_command();
        command.arg(place.context());
        let user = User::get();
        let script = format!("exec unshare --user {flags} -- \"$@\"");
        let mut shell = through_shell(&script, &command);
        user.becomes(&mut shell);
        finish(&mut shell)
    };
    inside("--map-root-user --mount")
        .failure(3)
        .says("building with 1 user or group ids, where images need at least 1000; give the user more subordinate ids");
    inside("--map-root-user --map-auto")
        .failure(3)
        .says("whose mounts belong to another; enter a mount namespace as well");
    inside("--map-root-user --map-auto --mount").success();
}

#[test]
fn a_state_directory_on_a_read_only_file_system_is_refused_with_the_remedy() {
    let place = Place::with_dockerfile("FROM busybox\nRUN true\n");
    let dir = place.path("read-only");
    std::fs::create_dir(&dir).unwrap();
    let flags = rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount("tmpfs", &dir, "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
    let place = place.with_root(&dir.join("root"));
    let outcome = place.build(&[]);
    rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::DETACH).unwrap();
    outcome
        .failure(3)
        .says("cannot be written; make it writable or set BUILD_ROOT to another path");
}

#[test]
fn what_a_weak_container_lacks_is_named() {
    let place = Place::new();
    let outcome = without(&place, "sys_admin", &["doctor"]);
    let text = &outcome.stdout;
    assert!(
        text.contains("without CAP_SYS_ADMIN (mounts and namespaces)"),
        "{text}"
    );
    assert!(text.contains("--privileged"), "{text}");
    // A build says what to do as well, in one line and without a bare error number.
    place.file("Dockerfile", "FROM busybox\nRUN true\n");
    build_without(&place, "sys_admin")
        .failure(3)
        .says("without CAP_SYS_ADMIN; start the container with --privileged");
}
