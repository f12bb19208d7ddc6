//! The splitting of files into instructions, against two parsers that we did not write.
//!
//! They are asked about every Dockerfile of the test data. Both reject some that BuildKit builds, which says nothing; what
//! they accept they must split where we do, but for files with heredocs.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shows where it stopped"
)]

use std::fs;
use std::path::{Path, PathBuf};

use frontend::source::SourceFile;
use parse_dockerfile::Instruction;

/// Where an instruction starts, and its name in upper case.
type Split = Vec<(usize, String)>;

fn files() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
    let mut files = Vec::new();
    for folder in ["apps", "corpus", "dockerfiles"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        for entry in entries {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().into_string().unwrap());
            let path = entry.path().join("Dockerfile");
            if path.exists() {
                files.push((name, path));
            }
        }
    }
    files.sort();
    files
}

fn name_at(text: &str, start: usize) -> String {
    let word = text[start..].split_whitespace().next();
    word.unwrap_or_default().to_uppercase()
}

fn ours(text: &str) -> Option<Split> {
    let file = frontend::parse::parse(&SourceFile::new("Dockerfile", text)).ok()?;
    let starts = file.instructions.iter().map(|i| i.span.start);
    Some(starts.map(|start| (start, name_at(text, start))).collect())
}

fn of_dockerfile_parser(text: &str) -> Option<Split> {
    let file = dockerfile_parser::Dockerfile::parse(text).ok()?;
    let starts = file.instructions.iter().map(|i| i.span().start);
    Some(starts.map(|start| (start, name_at(text, start))).collect())
}

fn of_parse_dockerfile(text: &str) -> Option<Split> {
    let file = parse_dockerfile::parse(text).ok()?;
    let starts = file.instructions.iter().map(keyword_start);
    Some(starts.map(|start| (start, name_at(text, start))).collect())
}

fn keyword_start(instruction: &Instruction<'_>) -> usize {
    match instruction {
        Instruction::Add(i) => i.add.span.start,
        Instruction::Arg(i) => i.arg.span.start,
        Instruction::Cmd(i) => i.cmd.span.start,
        Instruction::Copy(i) => i.copy.span.start,
        Instruction::Entrypoint(i) => i.entrypoint.span.start,
        Instruction::Env(i) => i.env.span.start,
        Instruction::Expose(i) => i.expose.span.start,
        Instruction::From(i) => i.from.span.start,
        Instruction::Healthcheck(i) => i.healthcheck.span.start,
        Instruction::Label(i) => i.label.span.start,
        Instruction::Maintainer(i) => i.maintainer.span.start,
        Instruction::Onbuild(i) => i.onbuild.span.start,
        Instruction::Run(i) => i.run.span.start,
        Instruction::Shell(i) => i.shell.span.start,
        Instruction::Stopsignal(i) => i.stopsignal.span.start,
        Instruction::User(i) => i.user.span.start,
        Instruction::Volume(i) => i.volume.span.start,
        Instruction::Workdir(i) => i.workdir.span.start,
        _ => usize::MAX,
    }
}

/// What neither of them understands everywhere: they take bodies for instructions.
fn has_heredoc(text: &str) -> bool {
    text.contains("<<")
}

/// Compares all files that both accept, and that are within what the other one is right about. Gives how many these are.
fn compare(theirs: fn(&str) -> Option<Split>) -> usize {
    let mut agreeing = 0;
    for (name, path) in files() {
        let text = fs::read_to_string(path).unwrap();
        let (Some(ours), Some(theirs)) = (ours(&text), theirs(&text)) else {
            continue;
        };
        if has_heredoc(&text) && ours != theirs {
            continue;
        }
        assert_eq!(ours, theirs, "{name}");
        agreeing += 1;
    }
    agreeing
}

/// It rejects heredocs that do not come first in a RUN.
#[test]
fn parse_dockerfile_agrees() {
    let agreeing = compare(of_parse_dockerfile);
    assert!(agreeing >= 45, "only {agreeing} files");
}

/// It rejects heredocs, several names of one ARG, lists in JSON, `${x:?…}` and blank continuation lines, and does not
/// know `# escape=`.
#[test]
fn dockerfile_parser_agrees() {
    let agreeing = compare(of_dockerfile_parser);
    assert!(agreeing >= 40, "only {agreeing} files");
}
