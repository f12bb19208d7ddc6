//! A whole build: what a user sees, what lands in the image, what a second build does.

use crate::support::{Place, testdata};

const APP: &str = "FROM busybox
WORKDIR /srv
COPY src src/
RUN cat src/a > /built && echo done
ENV MODE=test
CMD [\"cat\", \"/built\"]
";

#[test]
fn builds_an_image_with_a_real_step() {
    let place = Place::with_dockerfile(APP);
    place.file("src/a", "one\n");
    let image = place.image(&[]);
    assert_eq!(image.text("built"), "one\n");
    assert_eq!(image.text("srv/src/a"), "one\n");
    assert_eq!(
        image.config["config"]["Cmd"],
        serde_json::json!(["cat", "/built"])
    );
    assert_eq!(image.config["config"]["WorkingDir"], "/srv");
    assert_eq!(
        image.history()[1..],
        [
            "WORKDIR /srv",
            "COPY src src/ # buildkit",
            "RUN /bin/sh -c cat src/a > /built && echo done # buildkit",
            "ENV MODE=test",
            "CMD [\"cat\" \"/built\"]",
        ]
    );
}

#[test]
fn a_second_build_runs_nothing_and_gives_the_same_image() {
    let place = Place::with_dockerfile(APP);
    place.file("src/a", "one\n");
    let first = place.image(&[]);
    let second = place.build(&["--quiet"]).success();
    assert!(second.stdout.starts_with("sha256:"), "{}", second.stdout);
    let outcome = place.build(&[]).success();
    let outcome = outcome.says("[3/4] RUN cat src/a").says("CACHED");
    assert_eq!(outcome.ran(), [""; 0]);
    assert_eq!(place.image(&[]).digest, first.digest);
}

#[test]
fn a_changed_file_reruns_what_depends_on_it() {
    let place = Place::with_dockerfile(
        "FROM busybox\nRUN echo before > /before\nCOPY a /a\nRUN cat /a > /after\n",
    );
    place.file("a", "one\n").file("unrelated", "x");
    let first = place.image(&[]);
    place.file("unrelated", "y");
    assert_eq!(place.image(&[]).digest, first.digest);
    place.file("a", "two\n");
    let second = place.image(&[]);
    assert_eq!(second.text("after"), "two\n");
    assert_eq!(second.diff_ids()[..2], first.diff_ids()[..2]);
    assert_ne!(second.diff_ids()[2..], first.diff_ids()[2..]);
}

#[test]
fn the_example_of_the_readme_builds() {
    let place = Place::new();
    let outcome = crate::support::finish(
        place
            .build_command()
            .args(["-t", "hello"])
            .arg(testdata("hello")),
    )
    .success();
    outcome
        .says("[3/4] RUN cat greeting > /hello")
        .does_not_say("ERROR");
    let listed = place.run(["images"]).success();
    assert!(
        listed.stdout.contains("docker.io/library/hello:latest"),
        "{}",
        listed.stdout
    );
}

#[test]
fn a_failing_step_ends_with_its_last_lines_the_excerpt_and_one_error() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo so far; exit 7\n");
    let outcome = place.build(&[]).failure(1);
    let end = outcome
        .stderr
        .split_once("------\n > [1/2] RUN echo so far; exit 7:\n")
        .unwrap()
        .1;
    let (_, end) = end.split_once(" so far\n------\n").unwrap();
    assert_eq!(
        end,
        "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN echo so far; exit 7\n   3 |     \n--------------------\nERROR: failed to build: failed to solve: process \"/bin/sh -c echo so far; exit 7\" did not complete successfully: exit code: 7\n"
    );
}

#[test]
fn a_missing_dockerfile_is_named() {
    let place = Place::new();
    place
        .build(&[])
        .failure(1)
        .says("failed to read dockerfile: open Dockerfile: no such file or directory");
}

#[test]
fn independent_stages_run_at_once() {
    let stages: String = (0..4)
        .map(|n| format!("FROM busybox AS s{n}\nRUN sleep 1 && echo {n} > /o{n}\n"))
        .collect();
    let copies: String = (0..4)
        .map(|n| format!("COPY --from=s{n} /o{n} /\n"))
        .collect();
    let place = Place::with_dockerfile(&format!("{stages}FROM busybox\n{copies}"));
    let start = std::time::Instant::now();
    let image = place.image(&[]);
    assert!(
        start.elapsed() < std::time::Duration::from_millis(3500),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(image.text("o3"), "3\n");
}

#[test]
fn proxies_given_to_the_build_win_over_variables_of_the_file() {
    let place = Place::with_dockerfile(
        "FROM busybox\nENV http_proxy=env NO_PROXY=env\nARG HTTPS_PROXY=arg\nRUN env | grep -i proxy | sort > /env\n",
    );
    let image = place.image(&[
        "--build-arg=HTTP_PROXY=given",
        "--build-arg=https_proxy=given",
        "--build-arg=no_proxy=",
    ]);
    assert_eq!(
        image.text("env"),
        "HTTPS_PROXY=given\nHTTP_PROXY=given\nNO_PROXY=env\nhttp_proxy=given\nhttps_proxy=given\n"
    );
    assert_eq!(
        image.config["config"]["Env"]
            .as_array()
            .map(|env| env[1..].to_vec()),
        Some(vec!["http_proxy=env".into(), "NO_PROXY=env".into()])
    );
}
