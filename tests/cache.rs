//! What reruns after which change, and nothing else.

use crate::support::process::Running;
use crate::support::{Outcome, Place};

const CHAIN: &str = "FROM busybox
RUN echo first > /first
COPY a b /src/
RUN cat /src/a > /third
COPY c /src/
ARG V=1
RUN echo $V > /fourth
";

fn chain() -> Place {
    let place = Place::with_dockerfile(CHAIN);
    place
        .file("a", "a\n")
        .file("b", "b\n")
        .file("c", "c\n")
        .file("unused", "u\n");
    place.build(&[]).success();
    place
}

/// Names of the steps that ran when it was built again.
fn ran(place: &Place, args: &[&str]) -> Vec<String> {
    place.build(args).success().ran()
}

#[test]
fn nothing_changed_runs_nothing() {
    let place = chain();
    let outcome = place.build(&[]).success();
    assert_eq!(outcome.ran(), [""; 0]);
    assert_eq!(outcome.cached().len(), 5);
}

#[test]
fn a_file_that_nothing_copies_reruns_nothing() {
    let place = chain();
    place.file("unused", "changed").file("new", "new");
    assert_eq!(ran(&place, &[]), [""; 0]);
}

#[test]
fn a_changed_file_reruns_the_copy_and_what_follows() {
    let place = chain();
    place.file("c", "changed\n");
    assert_eq!(ran(&place, &[]), ["COPY c /src/", "RUN echo 1 > /fourth"]);
    place.file("b", "changed\n");
    let steps = [
        "COPY a b /src/",
        "RUN cat /src/a > /third",
        "COPY c /src/",
        "RUN echo 1 > /fourth",
    ];
    let rerun = ran(&place, &[]);
    // A copy's layer does not depend on what it is stacked on, so the second copy need not run again.
    assert!(
        rerun == steps || rerun == [steps[0], steps[1], steps[3]],
        "{rerun:?}"
    );
}

#[test]
fn a_change_taken_back_runs_nothing() {
    let place = chain();
    place.file("c", "changed\n").build(&[]).success();
    place.file("c", "c\n");
    assert_eq!(ran(&place, &[]), [""; 0]);
}

#[test]
fn a_new_time_is_no_change_and_a_new_mode_is() {
    let place = chain();
    let path = place.context().join("c");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(ran(&place, &[]), [""; 0]);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(ran(&place, &[]), ["COPY c /src/", "RUN echo 1 > /fourth"]);
}

#[test]
fn an_argument_reruns_what_follows_its_declaration() {
    let place = chain();
    assert_eq!(ran(&place, &["--build-arg=V=2"]), ["RUN echo 2 > /fourth"]);
    assert_eq!(ran(&place, &["--build-arg=V=1"]), [""; 0]);
    assert_eq!(ran(&place, &["--build-arg=V=1", "--label=x=y"]), [""; 0]);
}

#[test]
fn ignored_files_are_no_input() {
    let place = Place::with_dockerfile("FROM busybox\nCOPY . /all/\nRUN ls /all > /list\n");
    place
        .file(".dockerignore", "*.log\nDockerfile\n")
        .file("a", "a")
        .file("x.log", "1");
    let list = place.image(&[]).text("list");
    assert_eq!(list, "a\n");
    place.file("x.log", "2").file("y.log", "3");
    assert_eq!(ran(&place, &[]), [""; 0]);
    place.file("b", "b");
    assert_eq!(ran(&place, &[]), ["COPY . /all/", "RUN ls /all > /list"]);
}

#[test]
fn a_changed_base_reruns_commands_and_keeps_copies() {
    let old = Place::with_dockerfile("FROM busybox\nRUN echo 1 > /etc/version\n");
    let new = Place::with_dockerfile("FROM busybox\nRUN echo 2 > /etc/version\n");
    let text = "FROM base\nCOPY a /src/a\nRUN cat /etc/version /src/a > /out\n";
    let place = Place::with_dockerfile(text);
    place.file("a", "a\n");
    let on = |layout: &std::path::Path| {
        format!("--build-context=base=oci-layout://{}", layout.display())
    };
    place.build(&[&on(&old.layout(&[]))]).success();
    let outcome = place.build(&[&on(&new.layout(&[]))]).success();
    assert_eq!(outcome.ran(), ["RUN cat /etc/version /src/a > /out"]);
    assert_eq!(outcome.cached(), ["COPY a /src/a"]);
    assert_eq!(
        place.image(&[&on(&new.path("layout"))]).text("out"),
        "2\na\n"
    );
}

#[test]
fn without_cache_everything_runs_and_gives_the_same_layers() {
    let place = chain();
    let steps = ran(&place, &["--no-cache"]);
    assert_eq!(steps.len(), 5, "{steps:?}");
    assert_eq!(ran(&place, &[]), [""; 0]);
}

#[test]
fn one_stage_runs_without_cache() {
    let place = Place::with_dockerfile(
        "FROM busybox AS one\nRUN echo 1 > /one\nFROM busybox AS two\nRUN echo 2 > /two\nFROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
    );
    place.build(&[]).success();
    assert_eq!(
        ran(&place, &["--no-cache-filter=two"]),
        ["RUN echo 2 > /two"]
    );
}

#[test]
fn a_stage_that_nothing_needs_does_not_run() {
    let place = Place::with_dockerfile(
        "FROM busybox AS unused\nRUN exit 1\nFROM busybox AS used\nRUN echo 1 > /one\nFROM busybox\nCOPY --from=used /one /\n",
    );
    place.build(&[]).success();
    place.build(&["--target=unused"]).failure(1);
}

#[test]
fn a_mounted_file_is_an_input_and_a_cache_mount_is_not() {
    let place = Place::with_dockerfile(
        "FROM busybox\nRUN --mount=target=/in,source=dir --mount=type=cache,target=/kept cat /in/a > /out; echo x >> /kept/log; wc -l < /kept/log > /count\n",
    );
    place.file("dir/a", "1").file("other", "1");
    assert_eq!(place.image(&[]).text("count").trim(), "1");
    place.file("other", "2");
    assert_eq!(ran(&place, &[]), [""; 0]);
    place.file("dir/a", "2");
    assert_eq!(place.image(&[]).text("count").trim(), "2");
    assert_eq!(place.image(&[]).text("out"), "2");
}

#[test]
fn a_failed_step_is_not_kept_and_what_came_before_is() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo 1 > /one\nRUN test -e /no\n");
    place.build(&[]).failure(1);
    let outcome = place.build(&[]).failure(1);
    assert_eq!(outcome.cached(), ["RUN echo 1 > /one"]);
    outcome.says("RUN test -e /no");
}

#[test]
fn an_equal_step_of_another_dockerfile_is_shared() {
    let place =
        Place::with_dockerfile("FROM busybox\nRUN echo shared > /shared\nRUN echo a > /a\n");
    place.build(&[]).success();
    place.file(
        "Dockerfile",
        "# other\nFROM busybox AS x\nRUN echo shared > /shared\nRUN echo b > /b\n",
    );
    assert_eq!(ran(&place, &[]), ["RUN echo b > /b"]);
}

#[test]
fn a_miss_tells_which_file_changed() {
    let place = chain();
    place.file("c", "changed\n");
    let mut command = place.command();
    let base = crate::support::base::busybox();
    command
        .args(["build", "--progress=rawjson"])
        .arg(place.context());
    command.arg(format!(
        "--build-context=busybox=oci-layout://{}",
        base.display()
    ));
    let outcome = crate::support::finish(&mut command).success();
    let miss = outcome
        .stderr
        .lines()
        .find(|line| line.contains("\"miss\""))
        .unwrap_or_default();
    assert!(
        miss.contains('c') && outcome.stderr.contains("changed"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn eight_builds_at_once_run_each_step_once() {
    let place = Place::with_dockerfile(
        "FROM busybox AS one\nRUN sleep 0.3; echo mark-one-$((1+1))\nRUN echo mark-two-$((1+1)) | tee /two\nFROM busybox AS other\nRUN sleep 0.3; echo mark-three-$((1+1)) | tee /three\nFROM one\nCOPY --from=other /three /\nCOPY a /a\n",
    );
    place.file("a", "a\n");
    let start = || {
        Running::start(
            place
                .build_command()
                .arg("--quiet=false")
                .arg(place.context()),
        )
    };
    let builds: Vec<Running> = (0..8).map(|_| start()).collect();
    let limit = std::time::Duration::from_secs(60);
    let outcomes: Vec<Outcome> = builds
        .into_iter()
        .map(|build| build.end(limit).success())
        .collect();
    for mark in ["mark-one-2", "mark-two-2", "mark-three-2"] {
        let count = outcomes
            .iter()
            .filter(|outcome| outcome.stderr.contains(mark))
            .count();
        assert_eq!(count, 1, "{mark}");
    }
    crate::support::store::assert_sound(&place.root());
    crate::support::store::assert_tidy(&place.root());
}

#[test]
fn different_builds_at_once_share_a_store() {
    let places: Vec<Place> = (0..6)
        .map(|n| {
            let text =
                format!("FROM busybox\nRUN echo common > /common\nRUN echo {n} > /n\nCOPY a /a\n");
            let place = Place::with_dockerfile(&text);
            place.file("a", format!("{n}"));
            place
        })
        .collect();
    let root = places[0].root();
    let places: Vec<Place> = places
        .into_iter()
        .map(|place| place.with_root(&root))
        .collect();
    std::thread::scope(|scope| {
        let builds: Vec<_> = places
            .iter()
            .map(|place| scope.spawn(|| place.image(&[])))
            .collect();
        for (n, build) in builds.into_iter().enumerate() {
            let image = build.join().unwrap();
            assert_eq!(
                (image.text("n"), image.text("a")),
                (format!("{n}\n"), format!("{n}"))
            );
        }
    });
    crate::support::store::assert_sound(&root);
}

#[test]
fn a_key_made_while_the_step_below_runs_is_on_that_step() {
    let text = |word: &str| {
        format!(
            "FROM busybox AS other\nRUN sleep 0.3; : {word}; echo other > /other\nFROM busybox\nRUN sleep 1; echo {word} > /word\n\
             RUN --mount=from=other,source=/other,target=/m cat /m /word > /out\nCOPY --from=other /other /copied\n"
        )
    };
    let place = Place::with_dockerfile(&text("one"));
    assert_eq!(place.image(&[]).text("out"), "other\none\n");
    place.file("Dockerfile", text("two"));
    assert_eq!(place.image(&[]).text("out"), "other\ntwo\n");
    let copy = |word: &str| {
        text(word).replace(
            "RUN --mount=from=other,source=/other,target=/m cat /m /word > /out\n",
            "",
        )
    };
    for word in ["three", "four"] {
        place.file("Dockerfile", copy(word));
        assert_eq!(place.image(&[]).text("word"), format!("{word}\n"));
    }
}
