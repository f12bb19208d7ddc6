//! The Dockerfiles of the corpus, built here and by the BuildKit of Debian's docker.io: image config and files must agree.
//!
//! `testdata/corpus/DIFFERENCES` has what differs all the same, with the reason. What it does not have must not differ,
//! and what it has must.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use crate::support::docker::Docker;
use crate::support::image::{File, Image};
use crate::support::stand_ins::StandIns;
use crate::support::{Place, finish, testdata};

/// What is in a case's folder and not in its context.
const NOT_CONTEXT: [&str; 2] = ["args", "graph.txt"];

/// Builds must agree at least for so many Dockerfiles.
const AGREEING: usize = 60;

/// Cases under way: on two cores four are faster than two, since they wait for the daemon and its disk.
const AT_ONCE: usize = 4;

/// What differs between two builds of a case: what, and how.
type Differences = BTreeMap<String, String>;

#[test]
fn every_dockerfile_builds_here_and_as_with_buildkit() {
    let bases = StandIns::make();
    let docker = Docker::start();
    docker.load(&bases.archive());
    let cases = cases();
    let (queue, found) = (Mutex::new(cases.iter()), Mutex::new(BTreeMap::new()));
    let next = || queue.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = next() {
                    let differences = compare(case, &bases, &docker);
                    found.lock().unwrap().insert(name(case), differences);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert_eq!(found.len(), cases.len(), "a case was not built");
    check(&found);
    let both = found.values().filter(|found| !found.contains_key("builds"));
    let count = both.count();
    assert!(count >= AGREEING, "only {count} are built both ways");
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(testdata("corpus")).unwrap();
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    cases
}

fn name(case: &Path) -> String {
    case.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Holds what was found against the list.
fn check(found: &BTreeMap<String, Differences>) {
    let list = fs::read_to_string(testdata("corpus/DIFFERENCES")).unwrap();
    let mut wrong = String::new();
    let mut met = BTreeSet::new();
    let lines = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rules: Vec<Rule<'_>> = lines.map(Rule::parse).collect();
    for (case, differences) in found {
        for (what, how) in differences {
            let is_listed = |rule: &Rule<'_>| rule.allows(case, what, how);
            match rules.iter().position(is_listed) {
                Some(rule) => drop(met.insert(rule)),
                None => writeln!(wrong, "{case} {what}: {how}").unwrap(),
            }
        }
    }
    for (number, rule) in rules.iter().enumerate() {
        if !met.contains(&number) {
            writeln!(wrong, "{rule:?}: listed, but does not differ").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A line of the list: `CASE WHAT` and the reason, in which all quoted text must be in what was found.
#[derive(Debug)]
struct Rule<'a> {
    case: &'a str,
    what: &'a str,
    quoted: Vec<&'a str>,
}

impl<'a> Rule<'a> {
    fn parse(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        Self {
            case: words.next().unwrap(),
            what: words.next().unwrap(),
            quoted: line.split('`').skip(1).step_by(2).collect(),
        }
    }

    fn allows(&self, case: &str, what: &str, how: &str) -> bool {
        what != "fails"
            && (self.case == "*" || self.case == case)
            && self.what == what
            && self.quoted.iter().all(|text| how.contains(text))
    }
}

fn compare(case: &Path, bases: &StandIns, docker: &Docker) -> Differences {
    let place = bases.arguments().fold(Place::new(), Place::with_argument);
    place.copies(case);
    for file in NOT_CONTEXT {
        drop(fs::remove_file(place.context().join(file)));
    }
    let args = arguments(case, &place);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let file = place.path("image.tar");
    let output = format!("--output=type=oci,dest={}", file.display());
    let ours = place.build(&[args.as_slice(), &[&output]].concat());
    if ours.code != Some(0) {
        // No list can excuse this.
        return BTreeMap::from([("fails".to_owned(), ours.stderr)]);
    }
    match with_docker(&name(case), &place, docker, &args) {
        Ok(theirs) => differences(&Image::read(&file), &theirs),
        Err(message) => BTreeMap::from([("builds".to_owned(), message)]),
    }
}

/// The flags that a case is built with: those of its `args`, as a command line.
fn arguments(case: &Path, place: &Place) -> Vec<String> {
    let args = fs::read_to_string(case.join("args")).unwrap_or_default();
    let mut arguments = Vec::new();
    for line in args.lines() {
        let (flag, value) = line.split_once(' ').unwrap();
        let value = match (flag, value.split_once('=')) {
            ("secret", _) => {
                let secret = place.path(value);
                fs::write(&secret, "not so secret\n").unwrap();
                format!("id={value},src={}", secret.display())
            }
            ("build-context", Some((name, dir))) if !dir.contains("://") => {
                format!("{name}={}", place.context().join(dir).display())
            }
            _ => value.to_owned(),
        };
        arguments.push(format!("--{flag}={value}"));
    }
    arguments
}

/// The image that Debian's BuildKit makes of the same context, or why it does not.
fn with_docker(name: &str, place: &Place, docker: &Docker, args: &[&str]) -> Result<Image, String> {
    let dockerfile = fs::read_to_string(place.context().join("Dockerfile")).unwrap();
    let file = place.path("Dockerfile.docker");
    fs::write(&file, without_syntax(&dockerfile)).unwrap();
    let mut command = docker.command();
    command
        .env("DOCKER_BUILDKIT", "1")
        .args(["build", "--network=host", "--progress=plain", "--tag", name])
        .args(args)
        .arg("--file")
        .arg(&file)
        .arg(place.context());
    let outcome = finish(&mut command);
    if outcome.code != Some(0) {
        return Err(outcome.stderr);
    }
    let archive = place.path("docker.tar");
    let mut command = docker.command();
    command.args(["save", "--output"]).arg(&archive).arg(name);
    finish(&mut command).success();
    Ok(Image::read_docker(&archive))
}

/// The Dockerfile without the directive for which the daemon would go to the network.
fn without_syntax(dockerfile: &str) -> String {
    let is_syntax = |line: &str| {
        let words = line.strip_prefix('#').unwrap_or("").trim_start();
        let value = words.strip_prefix("syntax").unwrap_or("").trim_start();
        value.starts_with('=')
    };
    let lines = dockerfile.split_inclusive('\n');
    lines.filter(|line| !is_syntax(line)).collect()
}

fn differences(ours: &Image, theirs: &Image) -> Differences {
    let mut found = Differences::new();
    for member in ["architecture", "os", "variant", "author"] {
        note(
            &mut found,
            member,
            &ours.config[member],
            &theirs.config[member],
        );
    }
    let (a, b) = (&ours.config["config"], &theirs.config["config"]);
    let members: BTreeSet<&String> = [a, b]
        .into_iter()
        .flat_map(|config| config.as_object().unwrap().keys())
        .collect();
    for member in members {
        note(
            &mut found,
            &format!("config.{member}"),
            &a[member],
            &b[member],
        );
    }
    history(&mut found, ours, theirs);
    files(&mut found, &ours.files(), &theirs.files());
    found
}

/// Notes two unequal JSON values; what is empty is as good as nothing.
fn note(found: &mut Differences, what: &str, ours: &Value, theirs: &Value) {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(_) => false,
    };
    if ours != theirs && !(is_empty(ours) && is_empty(theirs)) {
        found.insert(what.to_owned(), format!("{ours} here, {theirs} there"));
    }
}

fn history(found: &mut Differences, ours: &Image, theirs: &Image) {
    let entries = |image: &Image| image.config["history"].as_array().unwrap().clone();
    let (a, b) = (entries(ours), entries(theirs));
    if a.len() != b.len() || ours.layers.len() != theirs.layers.len() {
        let lines = |image: &Image| image.history().join("\n    ");
        let how = format!("here\n    {}\n  there\n    {}", lines(ours), lines(theirs));
        found.insert("history".to_owned(), how);
        return;
    }
    for (a, b) in a.iter().zip(&b) {
        let created_by = |entry: &Value| entry["created_by"].as_str().unwrap().to_owned();
        let what = format!("history.{}", change(&created_by(a), &created_by(b)));
        note(found, &what, &a["created_by"], &b["created_by"]);
        note(found, "history.layer", &a["empty_layer"], &b["empty_layer"]);
    }
}

/// Which of the known changes of BuildKit's texts this is, else the instruction.
fn change<'a>(ours: &'a str, theirs: &str) -> &'a str {
    let (instruction, rest) = ours.split_once(' ').unwrap_or((ours, ""));
    let without_flags = |text: &str| {
        let flags = ["--chown=", "--chmod="];
        let words = text.split(' ');
        let kept: Vec<&str> = words
            .filter(|word| !flags.iter().any(|flag| word.starts_with(flag)))
            .collect();
        kept.join(" ")
    };
    let ports = || {
        let ports = rest
            .trim_start_matches('[')
            .trim_end_matches(']')
            .split(' ');
        let ports: Vec<String> = ports.map(|port| format!("{port}:{{}}")).collect();
        format!("EXPOSE map[{}]", ports.join(" "))
    };
    let argument = |text: &str| text.split('=').next().unwrap().to_owned();
    match instruction {
        "ADD" | "COPY" if without_flags(ours) == theirs => "flags",
        "EXPOSE" if ports() == theirs => "ports",
        "HEALTHCHECK" if rest.starts_with('{') && theirs.starts_with("HEALTHCHECK &{") => "check",
        "ARG" if argument(ours) == argument(theirs) => "argument",
        _ => instruction,
    }
}

/// Compares everything but times.
fn files(found: &mut Differences, ours: &BTreeMap<String, File>, theirs: &BTreeMap<String, File>) {
    let timeless = |file: Option<&File>| {
        file.map(|file| File {
            mtime: 0,
            mode: file.mode & 0o7777,
            ..file.clone()
        })
    };
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for path in paths {
        let (a, b) = (timeless(ours.get(path)), timeless(theirs.get(path)));
        if a != b {
            let how = format!("{} here, {} there", show(a.as_ref()), show(b.as_ref()));
            found.insert(format!("/{path}"), how);
        }
    }
}

fn show(file: Option<&File>) -> String {
    let Some(file) = file else {
        return "nothing".to_owned();
    };
    let mut text = format!("{:?} {:o} {}:{}", file.kind, file.mode, file.uid, file.gid);
    let content = String::from_utf8_lossy(&file.content);
    write!(
        text,
        " {:?} {:?} {:?} {:?} {:?}",
        content.chars().take(300).collect::<String>(),
        file.link,
        file.linked,
        file.device,
        file.xattrs
    )
    .unwrap();
    text
}
