//! What is said when a build has ended: texts and exit codes.
//!
//! The order is that of `docker buildx build`: the failed step's last lines, the listing of the Dockerfile, the error;
//! then, ours, the hint.

use frontend::source::SourceFile;

use crate::outcome::{Failure, FailureKind};
use crate::progress::text::printable;
use crate::progress::tracker::{Phase, Tracker, VertexState};

impl FailureKind {
    /// The program's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Dockerfile | Self::Step => 1,
            Self::Usage => 2,
            Self::Environment => 3,
            Self::Internal => 70,
            // 128 + SIGINT, as shells have it.
            Self::Interrupted => 130,
        }
    }

    /// What stands before the message.
    fn heading(self) -> &'static str {
        match self {
            Self::Dockerfile | Self::Step => "ERROR: failed to build: failed to solve: ",
            Self::Usage | Self::Environment | Self::Interrupted => "ERROR: ",
            Self::Internal => "ERROR: internal error: ",
        }
    }
}

/// The text of a failure: for each problem the listing, the error line and the hint.
pub fn failure_text(failure: &Failure, source: Option<&SourceFile>) -> String {
    let mut text = String::new();
    for problem in failure.problems() {
        if let Some((source, lines)) = source.zip(problem.lines) {
            text.push_str(&source.excerpt(lines));
        }
        text.push_str(failure.kind().heading());
        text.push_str(&problem.message);
        text.push('\n');
        if let Some(hint) = &problem.hint {
            text.push_str("hint: ");
            text.push_str(hint);
            text.push('\n');
        }
    }
    if failure.kind() == FailureKind::Internal {
        text.push_str(
            "hint: this is a fault of builder, not of the Dockerfile: please report it\n",
        );
    }
    text
}

/// The last lines of every step that failed, between rules (BuildKit `progressui/display.go`, `printErrorLogs`).
pub fn tail_text(failure: &Failure, tracker: &Tracker) -> String {
    let is_named = |vertex: &VertexState| Some(&vertex.vertex) == failure.vertex();
    let has_failed = |vertex: &VertexState| matches!(vertex.phase, Phase::Failed { .. });
    tracker
        .vertices()
        .iter()
        .filter(|vertex| is_named(vertex) || has_failed(vertex))
        .map(tail)
        .collect()
}

fn tail(vertex: &VertexState) -> String {
    let name = printable(vertex.name.replace('\n', " ").as_bytes());
    let mut text = format!("------\n > {name}:\n");
    for line in vertex.tail.lines() {
        text.push_str(&crate::progress::text::stamp(line.at));
        text.push(' ');
        text.push_str(&printable(&line.bytes));
        text.push('\n');
    }
    text.push_str("------\n");
    text
}

/// What was warned of, once more at the end.
pub fn warnings_text(warnings: &[String]) -> String {
    let head = match warnings {
        [] => return String::new(),
        [_] => "\n 1 warning found:\n".to_owned(),
        more => format!("\n {} warnings found:\n", more.len()),
    };
    let lines = warnings
        .iter()
        .map(|warning| format!(" - {}\n", printable(warning.as_bytes())));
    head + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use frontend::source::{Diagnostic, LineRange};

    use super::*;
    use crate::progress::event::{Event, Stream, Timed, VertexRef};

    fn source() -> SourceFile {
        SourceFile::new("Dockerfile", b"FROM a\nRUN exit 3\n")
    }

    #[test]
    fn a_failed_step_is_told_as_buildx_tells_it() {
        let vertex = VertexRef("sha256:v".into());
        let at = |millis, event| Timed {
            at: Duration::from_millis(millis),
            event,
        };
        let mut tracker = Tracker::default();
        for event in [
            at(
                0,
                Event::VertexAdded {
                    vertex: vertex.clone(),
                    name: "[2/2] RUN exit 3".into(),
                    inputs: vec![],
                },
            ),
            at(
                10,
                Event::Started {
                    vertex: vertex.clone(),
                },
            ),
            at(
                256,
                Event::Output {
                    vertex: vertex.clone(),
                    stream: Stream::Stderr,
                    bytes: b"\x1b[31mline\x1b[0m\n".into(),
                },
            ),
            at(
                300,
                Event::Failed {
                    vertex: vertex.clone(),
                    message: "exit code: 3".into(),
                },
            ),
        ] {
            tracker.apply(&event);
        }
        let message = "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3";
        let failure = Failure::new(FailureKind::Step, message)
            .at(LineRange { first: 2, last: 2 })
            .hint("look at the log")
            .of_vertex(vertex);
        assert_eq!(
            tail_text(&failure, &tracker),
            "------\n > [2/2] RUN exit 3:\n0.246 line\n------\n"
        );
        assert_eq!(
            failure_text(&failure, Some(&source())),
            "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> RUN exit 3\n   3 |     \n\
             --------------------\nERROR: failed to build: failed to solve: process \"/bin/sh -c exit 3\" did not \
             complete successfully: exit code: 3\nhint: look at the log\n"
        );
    }

    #[test]
    fn kinds_have_headings_and_codes() {
        let cases = [
            (
                FailureKind::Dockerfile,
                1,
                "ERROR: failed to build: failed to solve: m\n",
            ),
            (
                FailureKind::Step,
                1,
                "ERROR: failed to build: failed to solve: m\n",
            ),
            (FailureKind::Usage, 2, "ERROR: m\n"),
            (FailureKind::Environment, 3, "ERROR: m\n"),
            (
                FailureKind::Internal,
                70,
                "ERROR: internal error: m\nhint: this is a fault of builder, not of the Dockerfile: please report it\n",
            ),
            (FailureKind::Interrupted, 130, "ERROR: m\n"),
        ];
        for (kind, code, text) in cases {
            assert_eq!(kind.exit_code(), code);
            assert_eq!(
                failure_text(&Failure::new(kind, "m"), Some(&source())),
                text
            );
        }
    }

    #[test]
    fn every_problem_of_a_dockerfile_is_told() {
        let problem = |line, message: &str| Diagnostic {
            message: message.to_owned(),
            lines: Some(LineRange {
                first: line,
                last: line,
            }),
            hint: None,
        };
        let failure = Failure::of_dockerfile(vec![problem(1, "one"), problem(2, "two")]);
        let text = failure_text(&failure, Some(&source()));
        let at = |what: &str| text.find(what).unwrap();
        assert!(at("Dockerfile:1") < at("solve: one") && at("solve: one") < at("Dockerfile:2"));
        assert_eq!(failure.to_string(), "one; two");
        assert_eq!(Failure::of_dockerfile(vec![]).kind(), FailureKind::Internal);
    }

    #[test]
    fn warnings_are_counted() {
        assert_eq!(warnings_text(&[]), "");
        assert_eq!(warnings_text(&["a".into()]), "\n 1 warning found:\n - a\n");
        assert_eq!(
            warnings_text(&["a".into(), "b".into()]),
            "\n 2 warnings found:\n - a\n - b\n"
        );
    }
}
