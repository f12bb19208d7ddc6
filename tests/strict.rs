//! `--strict`: what is passed over in silence otherwise.

use crate::support::{Place, finish};

/// The same build passes without the flag and fails with it, also when all of it is in the cache.
fn fails_strictly(dockerfile: &str, args: &[&str], line: Option<usize>, message: &str) {
    let place = Place::with_dockerfile(dockerfile);
    place.file("a.txt", "a").file("b.txt", "b");
    place.build(args).success();
    let strictly = [args, &["--strict"]].concat();
    let mut outcome = place.build(&strictly).failure(1).says(message);
    if let Some(line) = line {
        outcome = outcome.says(&format!("Dockerfile:{line}\n--------------------\n"));
    }
    drop(outcome);
    let by_environment = finish(
        place
            .build_command()
            .env("BUILD_STRICT", "1")
            .args(args)
            .arg(place.context()),
    );
    by_environment.failure(1).says(message);
    place.build(&[args, &["--strict=false"]].concat()).success();
}

#[test]
fn a_pattern_must_match() {
    fails_strictly(
        "FROM busybox\nCOPY *.nope /d/\n",
        &[],
        Some(2),
        "`*.nope` matches no file",
    );
    fails_strictly(
        "FROM busybox\nCOPY --parents **/*.nope /d/\n",
        &[],
        Some(2),
        "`**/*.nope` matches no file",
    );
}

#[test]
fn several_files_need_a_directory() {
    fails_strictly(
        "FROM busybox\nCOPY *.txt /d\n",
        &[],
        Some(2),
        "`*.txt` matches 2 files, so the destination must end with a /",
    );
    fails_strictly(
        "FROM busybox\nCOPY a.txt b.txt /d\n",
        &[],
        Some(2),
        "COPY has several sources, so its destination must end with a /",
    );
}

#[test]
fn owners_must_be_known() {
    let dockerfile = "FROM busybox\nRUN echo joe:x:5:6:::/bin/sh > /etc/passwd && echo crew:x:7: > /etc/group\n\
                      COPY --chown=OWNER a.txt /a\n";
    let with = |owner: &str| dockerfile.replace("OWNER", owner);
    fails_strictly(
        &with("jo"),
        &[],
        Some(3),
        "unknown user `jo`: it is not in /etc/passwd",
    );
    fails_strictly(
        &with("joe:cru"),
        &[],
        Some(3),
        "unknown group `cru`: it is not in /etc/group",
    );
    let place = Place::with_dockerfile(&with("joe:crew"));
    place.file("a.txt", "a");
    place.build(&["--strict"]).success();
}

#[test]
fn what_is_asked_for_must_be_there() {
    fails_strictly(
        "FROM busybox\nARG VERSION\n",
        &["--build-arg=VERSON=1"],
        None,
        "--build-arg VERSON is declared by no ARG (did you mean VERSION?)",
    );
    fails_strictly(
        "FROM busybox AS base\nRUN true\n",
        &["--no-cache-filter=bass"],
        None,
        "--no-cache-filter bass names no stage (did you mean base?)",
    );
    fails_strictly(
        "FROM busybox\nCOPY --link --chmod=600 a.txt /a\n",
        &[],
        Some(2),
        "--link has no effect together with --chmod",
    );
}

#[test]
fn ordinary_builds_pass() {
    let place = Place::with_dockerfile(
        "ARG TAG=latest\nFROM busybox AS base\nARG VERSION\nCOPY *.txt /d/\nCOPY --chown=0:0 a.txt b.txt .\n\
         FROM scratch\nCOPY --from=base /d/*.txt /\nCOPY --link a.txt /linked/\n",
    );
    place.file("a.txt", "a").file("b.txt", "b");
    place
        .build(&[
            "--strict",
            "--build-arg=VERSION=1",
            "--build-arg=HTTP_PROXY=http://127.0.0.1:9",
            "--no-cache-filter=base",
        ])
        .success();
}
