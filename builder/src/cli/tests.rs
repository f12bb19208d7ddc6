//! Tests of the command as a whole, with an engine that does what it is told.

use std::sync::{Arc, Mutex};

use frontend::source::SourceFile;

use super::answer::Answer;
use super::push::PushRequest;
use super::request::{BuildRequest, Inquiry};
use super::*;
use crate::doctor::report::Report;
use crate::outcome::Outcome;
use crate::progress::event::{Event, VertexRef};
use crate::progress::sink::EventSink;

#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Wire {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends every build with what it holds.
struct Scripted(Result<Outcome, Failure>);

impl Engine for Scripted {
    fn build(
        &self,
        request: &BuildRequest,
        events: Arc<dyn EventSink>,
    ) -> Result<Outcome, Failure> {
        let vertex = VertexRef("sha256:v".into());
        let name = format!(
            "[1/1] {}",
            request.input.dockerfile.read().unwrap().text().trim()
        );
        events.emit(Event::VertexAdded {
            vertex: vertex.clone(),
            name,
            inputs: vec![],
        });
        events.emit(Event::Started {
            vertex: vertex.clone(),
        });
        events.emit(Event::Warning {
            vertex: None,
            message: "careful".into(),
        });
        events.emit(match &self.0 {
            Ok(_) => Event::Completed { vertex },
            Err(failure) => Event::Failed {
                vertex,
                message: failure.to_string(),
            },
        });
        self.0.clone()
    }

    fn inquire(
        &self,
        _request: &BuildRequest,
        _inquiry: Inquiry,
        _events: Arc<dyn EventSink>,
    ) -> Result<Answer, Failure> {
        self.0.clone().map(|_| Answer::Targets(Vec::new()))
    }

    fn explain(
        &self,
        _request: &BuildRequest,
        _events: Arc<dyn EventSink>,
    ) -> Result<Vec<PlannedStep>, Failure> {
        self.0.clone().map(|_| Vec::new())
    }

    fn store(&self, request: &StoreRequest) -> Result<String, Failure> {
        Ok(format!("{:?}\n", request.command))
    }

    fn push(&self, request: &PushRequest, _: Arc<dyn EventSink>) -> Result<String, Failure> {
        Ok(format!("{}@sha256:m", request.name))
    }

    fn logs(&self, request: &LogRequest, output: &mut dyn io::Write) -> Result<(), Failure> {
        writeln!(output, "{:?} {:?}", request.step, request.build).unwrap();
        Ok(())
    }

    fn doctor(&self, _state_root: &Path) -> Report {
        Report::new(Vec::new())
    }

    fn debug(&self, view: DebugView, source: &SourceFile) -> Result<String, Failure> {
        Ok(format!("{view:?} {}\n", source.name()))
    }
}

fn made() -> Outcome {
    let mut metadata = serde_json::Map::new();
    metadata.insert("containerimage.config.digest".into(), "sha256:c".into());
    Outcome {
        image_id: Some("sha256:c".to_owned()),
        metadata,
    }
}

fn ran(words: &[&str], result: Result<Outcome, Failure>) -> (u8, String, String) {
    let (out, err) = (Wire::default(), Wire::default());
    let streams = Streams {
        stdin: Box::new("FROM stdin\n".as_bytes()),
        stdout: Box::new(out.clone()),
        stderr: {
            let err = err.clone();
            Box::new(move || Box::new(err.clone()))
        },
    };
    let words = words.iter().map(OsString::from).collect();
    let code = run(words, streams, &Scripted(result));
    (code, out.text(), err.text())
}

#[test]
fn the_name_decides_the_verb() {
    let cases = [
        (
            &["builder", "build", "."][..],
            &["builder", "build", "."][..],
        ),
        (&["/usr/bin/build", "."], &["builder", "build", "."]),
        (&["build", "--version"], &["build", "--version"]),
        (&["builder"], &["builder"]),
    ];
    for (typed, want) in cases {
        assert_eq!(with_verb(typed.iter().map(OsString::from).collect()), want);
    }
}

#[test]
fn versions_help_and_mistakes_go_where_they_belong() {
    let version = (
        0,
        concat!("builder ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
        String::new(),
    );
    assert_eq!(ran(&["builder", "--version"], Ok(made())), version);
    assert_eq!(ran(&["/x/build", "-V"], Ok(made())), version);
    let (code, out, err) = ran(&["builder", "--help"], Ok(made()));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("Usage: builder <COMMAND>"));
    let (code, out, err) = ran(&["builder", "build", "--nope"], Ok(made()));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.starts_with("error: unexpected argument '--nope'"),
        "{err}"
    );
}

#[test]
fn the_help_of_build_is_pinned() {
    let mut command = args::command().term_width(110);
    let help = command.try_get_matches_from_mut(["builder", "build", "--help"]);
    let help = help.unwrap_err().render();
    insta::assert_snapshot!(help.to_string());
}

#[test]
fn a_build_prints_its_id_and_writes_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("id"), "stale, and longer than what replaces it").unwrap();
    let (context, id, metadata) = (at(""), at("id"), at("metadata"));
    let words = [
        "builder",
        "build",
        "-q",
        "-f-",
        "--iidfile",
        &id,
        "--metadata-file",
        &metadata,
        &context,
    ];
    assert_eq!(
        ran(&words, Ok(made())),
        (0, "sha256:c\n".to_owned(), String::new())
    );
    assert_eq!(std::fs::read_to_string(&id).unwrap(), "sha256:c");
    assert_eq!(
        std::fs::read_to_string(&metadata).unwrap(),
        "{\n  \"containerimage.config.digest\": \"sha256:c\"\n}\n"
    );
    let failed = ran(
        &words,
        Err(Failure::new(FailureKind::Environment, "no space left")),
    );
    assert_eq!(
        failed,
        (
            3,
            String::new(),
            "------\n > [1/1] FROM stdin:\n------\nERROR: no space left\n".to_owned()
        )
    );
    assert!(!Path::new(&id).exists());
}

#[test]
fn failures_end_the_output_of_every_mode() {
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().display().to_string();
    let failure = Failure::new(FailureKind::Step, "exit code: 3")
        .at(frontend::source::LineRange { first: 1, last: 1 });
    let listing = "Dockerfile:1\n--------------------\n   1 | >>> FROM stdin\n   2 |     \n--------------------\n\
                   ERROR: failed to build: failed to solve: exit code: 3\n";
    let plain = "#1 [1/1] FROM stdin\n#1 ERROR: exit code: 3\n\n 1 warning found:\n - careful\n\
                 ------\n > [1/1] FROM stdin:\n------\n";
    let (code, out, err) = ran(
        &["build", "--progress=plain", "-f-", &context],
        Err(failure.clone()),
    );
    assert_eq!(
        (code, out.as_str(), err),
        (1, "", format!("{plain}{listing}"))
    );
    let (code, _, err) = ran(
        &["build", "--progress=rawjson", "-f-", &context],
        Err(failure),
    );
    assert_eq!(code, 1);
    let text: Vec<&str> = err.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(text.join("\n") + "\n", listing);
    assert!(err.contains(r#""error":"exit code: 3""#));
}

#[test]
fn other_verbs_reach_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.df");
    std::fs::write(&file, "FROM a").unwrap();
    let file = file.display().to_string();
    let cases = [
        (
            &["builder", "images", "-q"][..],
            "Images { is_quiet: true }\n".to_owned(),
        ),
        (
            &["builder", "tag", "a", "b"],
            "Tag { source: \"a\", target: \"b\" }\n".to_owned(),
        ),
        (&["builder", "push", "a"], "a@sha256:m\n".to_owned()),
        (
            &["builder", "inspect", "a"],
            "Inspect { name: \"a\" }\n".to_owned(),
        ),
        (
            &["builder", "rm", "a", "b"],
            "Remove { names: [\"a\", \"b\"] }\n".to_owned(),
        ),
        (
            &["builder", "debug", "graph", &file],
            "Graph(Text) x.df\n".to_owned(),
        ),
        (
            &["builder", "debug", "parse", &file],
            "Parse(Text) x.df\n".to_owned(),
        ),
    ];
    for (words, want) in cases {
        assert_eq!(ran(words, Ok(made())), (0, want, String::new()));
    }
}
