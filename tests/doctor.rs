//! `builder doctor`: what it says of this machine, and of ones that lack something.

use std::process::Command;

use crate::support::{Place, finish, program};

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

#[test]
fn what_a_weak_container_lacks_is_named() {
    let place = Place::new();
    let plain = place.command();
    let with = |dropped: &str, verb: &[&str]| {
        let mut command = Command::new(program("setpriv", "util-linux"));
        command
            .arg(format!("--bounding-set=-{dropped}"))
            .arg("--")
            .arg(plain.get_program())
            .args(verb)
            .env_clear();
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        finish(&mut command)
    };
    let outcome = with("sys_admin", &["doctor"]);
    let text = &outcome.stdout;
    assert!(
        text.contains("without CAP_SYS_ADMIN (mounts and namespaces)"),
        "{text}"
    );
    assert!(text.contains("--privileged"), "{text}");
    // A build says what to do as well, in one line and without a bare error number.
    place.file("Dockerfile", "FROM busybox\nRUN true\n");
    let base = crate::support::testdata("images/busybox");
    let base = format!("--build-context=busybox=oci-layout://{}", base.display());
    let context = place.context().display().to_string();
    with("sys_admin", &["build", &base, &context])
        .failure(3)
        .says("without CAP_SYS_ADMIN; start the container with --privileged");
}
