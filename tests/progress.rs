//! What is shown while a build runs.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde_json::Value;

use crate::support::{Outcome, Place, base, finish, program};

const STAGES: &str = "FROM busybox AS one
RUN echo from-one; echo to-stderr >&2
FROM busybox
COPY a /a
COPY --from=one /etc/passwd /p
RUN for i in 1 2 3; do echo line-$i; done
";

fn place() -> Place {
    let place = Place::with_dockerfile(STAGES);
    place.file("a", "a\n");
    place
}

/// A build with this kind of progress.
fn shown(place: &Place, mode: &str, args: &[&str]) -> Outcome {
    let mut command = place.command();
    command
        .args(["build", &format!("--progress={mode}")])
        .args(args)
        .arg(place.context());
    command.arg(format!(
        "--build-context=busybox=oci-layout://{}",
        base::busybox().display()
    ));
    finish(&mut command)
}

#[test]
fn plain_lines_have_their_form() {
    let place = place();
    let line = regex::Regex::new(
        r"^(#\d+ (\[.+|\d+\.\d+ .*|DONE \d+\.\d+s|CACHED|\.\.\.|exporting .*|naming to .*|writing .*|sha256:[0-9a-f]{64}.*|transferring .*|resolve .*|extracting .*))?$",
    )
    .unwrap();
    for outcome in [
        shown(&place, "plain", &[]).success(),
        shown(&place, "plain", &[]).success(),
    ] {
        assert_eq!(outcome.stdout, "");
        for text in outcome.stderr.lines().filter(|text| text.starts_with('#')) {
            assert!(line.is_match(text), "`{text}` in\n{}", outcome.stderr);
        }
    }
}

#[test]
fn plain_output_is_whole_and_in_order() {
    let outcome = shown(&place(), "plain", &[]).success();
    let number = step(&outcome, "RUN for i in");
    let prefix = format!("#{number} ");
    let lines = outcome
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix));
    let lines: Vec<&str> = lines
        .filter_map(|line| Some(line.split_once(' ')?.1))
        .collect();
    let output: Vec<&&str> = lines
        .iter()
        .filter(|line| line.starts_with("line-"))
        .collect();
    assert_eq!(output, [&"line-1", &"line-2", &"line-3"]);
    outcome.says(" from-one\n").says(" to-stderr\n");
}

/// The number of a step.
fn step(outcome: &Outcome, name: &str) -> u32 {
    let line = outcome
        .stderr
        .lines()
        .find(|line| line.contains(&format!("] {name}")))
        .unwrap();
    line[1..line.find(' ').unwrap()].parse().unwrap()
}

#[test]
fn long_output_is_not_clipped() {
    let place = Place::with_dockerfile("FROM busybox\nRUN seq 1 60000 && echo the-end\n");
    let outcome = shown(&place, "plain", &[]).success();
    let count = outcome
        .stderr
        .lines()
        .filter(|line| line.ends_with(" 60000"))
        .count();
    assert_eq!(count, 1);
    assert!(outcome.stderr.lines().count() > 60_000);
    outcome.says(" the-end\n").does_not_say("clipped");
}

/// The objects of a raw JSON stream.
fn objects(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stderr.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The last state of each vertex.
fn vertices(objects: &[Value]) -> BTreeMap<String, Value> {
    let lists = objects
        .iter()
        .filter_map(|object| object["vertexes"].as_array());
    lists
        .flatten()
        .map(|vertex| {
            (
                vertex["digest"].as_str().unwrap().to_owned(),
                vertex.clone(),
            )
        })
        .collect()
}

#[test]
fn raw_json_carries_every_vertex_and_its_output() {
    let objects = objects(&shown(&place(), "rawjson", &[]).success());
    let vertices = vertices(&objects);
    for name in [
        "RUN echo from-one",
        "COPY a /a",
        "COPY --from=one",
        "RUN for i in",
    ] {
        let vertex = vertices
            .values()
            .find(|vertex| vertex["name"].as_str().unwrap().contains(name));
        let vertex = vertex.unwrap_or_else(|| panic!("{name}: {vertices:#?}"));
        assert!(
            vertex["started"].is_string() && vertex["completed"].is_string(),
            "{vertex}"
        );
    }
    for vertex in vertices.values() {
        let inputs = vertex["inputs"].as_array().into_iter().flatten();
        let inputs: BTreeSet<&str> = inputs.map(|input| input.as_str().unwrap()).collect();
        assert!(
            inputs.iter().all(|input| vertices.contains_key(*input)),
            "{vertex}"
        );
    }
    let logs = objects
        .iter()
        .filter_map(|object| object["logs"].as_array())
        .flatten();
    let text: String = logs
        .map(|log| {
            assert!(vertices.contains_key(log["vertex"].as_str().unwrap()));
            let data = log["data"].as_str().unwrap();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(data)
                .unwrap();
            String::from_utf8(bytes).unwrap()
        })
        .collect();
    assert!(
        text.contains("line-1\nline-2\nline-3\n") && text.contains("to-stderr\n"),
        "{text}"
    );
}

#[test]
fn raw_json_tells_what_was_cached_and_what_failed() {
    let place = place();
    shown(&place, "rawjson", &[]).success();
    let again = vertices(&objects(&shown(&place, "rawjson", &[]).success()));
    let copy = again
        .values()
        .find(|vertex| vertex["name"].as_str().unwrap().contains("COPY a"))
        .unwrap();
    assert_eq!(copy["cached"], true);
    place.file("Dockerfile", "FROM busybox\nRUN exit 5\n");
    let outcome = shown(&place, "rawjson", &[]).failure(1);
    let lines = outcome.stderr.lines().filter(|line| line.starts_with('{'));
    let objects: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let failed = vertices(&objects);
    let failed = failed
        .values()
        .find(|vertex| vertex["error"].is_string())
        .unwrap();
    assert!(
        failed["error"].as_str().unwrap().contains("exit code: 5"),
        "{failed}"
    );
}

#[test]
fn quiet_says_nothing_but_the_error() {
    let place = place();
    let outcome = shown(&place, "quiet", &[]).success();
    assert_eq!(outcome.stderr, "");
    place.file("Dockerfile", "FROM busybox\nRUN echo said; exit 5\n");
    shown(&place, "quiet", &[])
        .failure(1)
        .says("exit code: 5")
        .says("ERROR: failed to build");
}

#[test]
fn a_terminal_gets_frames_and_its_cursor_back() {
    let place = Place::with_dockerfile("FROM busybox\nRUN sleep 1; echo done > /done\n");
    let mut build = place.command();
    build
        .env("TERM", "xterm")
        .args(["build", "--progress=tty"])
        .arg(place.context());
    build.arg(format!(
        "--build-context=busybox=oci-layout://{}",
        base::busybox().display()
    ));
    let script = program("script", "bsdutils");
    let line = format!("{} -qec \"$*\" /dev/null", script.display());
    let outcome = finish(&mut crate::support::through_shell(&line, &build)).success();
    assert!(
        outcome.stdout.contains("[+] Building"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("RUN sleep 1; echo done > /done"),
        "{}",
        outcome.stdout
    );
    let (hidden, shown) = (
        outcome.stdout.rfind("\x1b[?25l"),
        outcome.stdout.rfind("\x1b[?25h"),
    );
    assert!(
        hidden.is_none() || hidden < shown,
        "the cursor stays hidden"
    );
}

#[test]
fn progress_that_is_unknown_is_a_usage_error() {
    shown(&place(), "loud", &[])
        .failure(2)
        .says("invalid progress mode loud");
}
