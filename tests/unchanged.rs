//! Builds of what has been built before: nothing runs, and the image is the one that was made last.

use crate::support::image::Image;
use crate::support::{Place, finish, program};

const STAGES: &str = "FROM busybox AS one
RUN cat /proc/sys/kernel/random/uuid > /one
FROM busybox AS two
COPY --from=one /one /one
RUN cat /proc/sys/kernel/random/uuid > /two
FROM two
COPY file /
RUN --mount=from=one,target=/mnt cat /mnt/one > /mounted
";

#[test]
fn the_image_is_the_same_down_to_its_times() {
    let place = Place::with_dockerfile(STAGES);
    place.file("file", "1");
    let first = place.image(&[]);
    for _ in 0..2 {
        let again = place.image(&[]);
        assert_eq!(again.config, first.config);
        assert_eq!(again.digest, first.digest);
    }
    let cached = place.build(&[]).success();
    assert!(cached.ran().is_empty(), "{}", cached.stderr);
    assert_eq!(cached.cached().len(), 5, "{}", cached.stderr);
}

#[test]
fn what_was_made_last_with_the_cache_ignored_is_what_later_builds_have() {
    let place = Place::with_dockerfile(STAGES);
    place.file("file", "1");
    let texts = |args: &[&str]| {
        let image = place.image(args);
        assert_eq!(image.text("one"), image.text("mounted"));
        [image.text("one"), image.text("two")]
    };
    let first = texts(&[]);
    assert_eq!(texts(&[]), first);
    // A stage in the middle: what was built on its earlier result is not found again.
    let second = texts(&["--no-cache-filter=one"]);
    assert_ne!(second[0], first[0]);
    assert_ne!(second[1], first[1]);
    assert_eq!(texts(&[]), second);
    assert_eq!(texts(&[]), second);
    let third = texts(&["--no-cache"]);
    assert_ne!(third[1], second[1]);
    assert_eq!(texts(&[]), third);
}

#[test]
fn what_changed_is_seen_and_what_came_back_is_found() {
    let place = Place::with_dockerfile(STAGES);
    place.file("file", "1");
    let text = |text: &str| {
        place.file("file", text);
        let image = place.image(&[]);
        assert_eq!(image.text("file"), text);
        [image.text("one"), image.text("two")]
    };
    let first = text("1");
    assert_eq!(text("2"), first);
    assert_eq!(text("1"), first);
    let outcome = place.build(&[]).success();
    assert!(outcome.ran().is_empty(), "{}", outcome.stderr);
    place.run(["prune", "--all"]).success();
    let outcome = place.build(&[]).success();
    assert_eq!(outcome.ran().len(), 5, "{}", outcome.stderr);
}

#[test]
fn a_step_whose_record_is_lost_was_made_before_those_on_it() {
    let place = Place::with_dockerfile("FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\n");
    let created = |image: &Image| -> Vec<String> {
        let history = image.config["history"].as_array().unwrap();
        let times = history.iter().rev().take(2);
        times
            .map(|entry| entry["created"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = created(&place.image(&[]));
    let forget = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('delete from record where name like ?', ('%echo 1%',)); c.commit()";
    let mut command = std::process::Command::new(program("python3", "python3"));
    let database = place.path("root/db.sqlite");
    finish(command.args(["-c", forget]).arg(database)).success();
    for _ in 0..2 {
        let image = place.image(&[]);
        assert_eq!(created(&image), [first[0].clone(), first[0].clone()]);
    }
}
