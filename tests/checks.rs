//! Build checks: warnings of a build, `--check` and `--call`, and what shows a Dockerfile without building it.

use crate::support::{Outcome, Place, finish, testdata};

const SHABBY: &str = "# check=skip=MaintainerDeprecated
ARG V=latest
# base is what all start from
FROM busybox as base
MAINTAINER me
# NAME is who is greeted
ARG NAME=world
RUN --mount=type=secret,id=token,required=true true
FROM base
COPY app.log /
LABEL greets=$NAMES
";

fn shabby() -> Place {
    let place = Place::with_dockerfile(SHABBY);
    place.file("app.log", "x").file(".dockerignore", "*.log\n");
    place
}

fn json(outcome: &Outcome) -> serde_json::Value {
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[test]
fn a_build_warns_where_it_loads_the_definition_and_at_the_end() {
    let place = Place::with_dockerfile("FROM busybox as base\nLABEL greets=$NAME\n");
    let outcome = place.build(&[]).success();
    outcome
        .says("WARN: FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n")
        .says("WARN: UndefinedVar: Usage of undefined variable '$NAME' (line 2)\n")
        .says(
            "\n 2 warnings found:\n - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n \
             - UndefinedVar: Usage of undefined variable '$NAME' (line 2)\n",
        );
    place
        .build(&["--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=all"])
        .success()
        .does_not_say("WARN");
}

#[test]
fn warnings_can_be_an_error() {
    let place = Place::with_dockerfile("# check=error=true\nFROM busybox as base\nWORKDIR app\n");
    let message = "ERROR: failed to build: failed to solve: lint violation found for rules: FromAsCasing, \
                   WorkdirRelativePath\n";
    place.build(&[]).failure(1).says(message);
    let check = place.build(&["--check"]).failure(1).says(message);
    assert!(check.stdout.contains("2 warnings have been found!"));
    place
        .build(&["--build-arg=BUILDKIT_DOCKERFILE_CHECK=error=false"])
        .success();
    place
        .build(&["--build-arg=BUILDKIT_DOCKERFILE_CHECK=error=maybe"])
        .failure(1)
        .says("failed to parse check options: failed to parse check option \"error=maybe\"");
}

#[test]
fn a_check_runs_nothing_and_tells_with_excerpts() {
    let place = shabby();
    let outcome = place.build(&["--check"]).failure(1);
    assert_eq!(
        outcome.stdout,
        "Check complete, 3 warnings have been found!\n\n\
         WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n\
         'as' and 'FROM' keywords' casing do not match\nDockerfile:4\n--------------------\n   \
         2 |     ARG V=latest\n   3 |     # base is what all start from\n   \
         4 | >>> FROM busybox as base\n   5 |     MAINTAINER me\n   6 |     # NAME is who is greeted\n\
         --------------------\n\n\
         WARNING: CopyIgnoredFile - https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/\n\
         Attempting to Copy file \"app.log\" that is excluded by .dockerignore\nDockerfile:10\n--------------------\n   \
         8 |     RUN --mount=type=secret,id=token,required=true true\n   9 |     FROM base\n  \
         10 | >>> COPY app.log /\n  11 |     LABEL greets=$NAMES\n  12 |     \n--------------------\n\n\
         WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/\n\
         Usage of undefined variable '$NAMES' (did you mean $NAME?)\nDockerfile:11\n--------------------\n   \
         9 |     FROM base\n  10 |     COPY app.log /\n  11 | >>> LABEL greets=$NAMES\n  12 |     \n\
         --------------------\n"
    );
    outcome.does_not_say("RUN").does_not_say("WARN");
    let clean = Place::with_dockerfile("FROM busybox\n");
    let outcome = clean.build(&["--call=check"]).success();
    assert_eq!(outcome.stdout, "Check complete, no warnings found.\n");
    place
        .build(&["--call=check,ignorestatus=true", "-q"])
        .success();
}

#[test]
fn a_check_as_json_is_buildkits_document() {
    let outcome = shabby().build(&["--call=check,format=json"]).failure(1);
    let value = json(&outcome);
    let first = &value["warnings"][0];
    assert_eq!(first["ruleName"], "FromAsCasing");
    assert_eq!(
        first["location"],
        serde_json::json!({"ranges": [{"start": {"line": 4, "character": 0}, "end": {"line": 4, "character": 0}}]})
    );
    assert_eq!(value["warnings"].as_array().unwrap().len(), 3);
    assert_eq!(value["sources"][0]["filename"], "Dockerfile");
    assert_eq!(value.get("buildError"), None);
}

#[test]
fn an_error_is_part_of_a_check() {
    let place = Place::with_dockerfile("FROM busybox as a\nRUN true\nCOPPY a b\nLABLE x=y\n");
    let outcome = place.build(&["--call=check,format=json"]).failure(1);
    let error = &json(&outcome)["buildError"];
    assert_eq!(
        error["message"],
        "dockerfile parse error on line 3: unknown instruction: COPPY (did you mean COPY?)"
    );
    assert_eq!(error["location"]["ranges"][0]["start"]["line"], 3);
    outcome
        .says("unknown instruction: COPPY (did you mean COPY?)")
        .says("unknown instruction: LABLE (did you mean LABEL?)");
}

#[test]
fn outline_and_targets_tell_what_can_be_built() {
    let place = shabby();
    let outcome = place.build(&["--call=outline", "--target=base"]).success();
    assert_eq!(
        outcome.stdout,
        "TARGET:      base\nDESCRIPTION: is what all start from\n\nBUILD ARG   VALUE   DESCRIPTION\n\
         NAME        world   is who is greeted\n\nSECRET   REQUIRED\ntoken    true\n\n"
    );
    let outcome = place
        .build(&["--call=outline,format=json", "--build-arg=NAME=you"])
        .success();
    assert_eq!(json(&outcome)["args"][0]["value"], "you");
    let outcome = place.build(&["--call=targets"]).success();
    assert_eq!(
        outcome.stdout,
        "TARGET    DESCRIPTION\nbase      is what all start from\n(default) \n"
    );
    let outcome = place.build(&["--call=targets,format=json"]).success();
    assert_eq!(json(&outcome)["targets"][0]["base"], "busybox");
}

#[test]
fn dockerfiles_can_be_looked_at() {
    let place = Place::new();
    let file = testdata("hello").join("Dockerfile");
    let file = file.to_str().unwrap();
    let run = |args: &[&str]| finish(place.command().args(args)).success().stdout;
    let objects = run(&["debug", "parse", file, "--format=json"]);
    let first: serde_json::Value = serde_json::from_str(objects.lines().next().unwrap()).unwrap();
    assert_eq!(first["name"], "from");
    assert!(run(&["debug", "parse", file]).contains(" from\n    arg busybox\n"));
    let graph: serde_json::Value =
        serde_json::from_str(&run(&["debug", "graph", file, "--format", "json"])).unwrap();
    assert!(!graph["vertices"].as_array().unwrap().is_empty());
    assert!(run(&["debug", "graph", file, "--format=dot"]).starts_with("digraph"));
    assert_eq!(run(&["debug", "rules"]).lines().count(), 22);
    let page = run(&["debug", "rules", "stagenamecasing"]);
    assert!(page.starts_with("# StageNameCasing\n"));
    finish(place.command().args(["debug", "rules", "nope"]))
        .failure(2)
        .says("there is no build check `nope`");
}
