//! Golden tests: a Dockerfile, the flags of its build, and the graph, image and errors that come of it.
//!
//! Each folder of `testdata/dockerfiles` and of `testdata/corpus` has a `Dockerfile`, perhaps `args` (a flag and its value
//! a line), and either `graph.txt` or `error.txt`. `UPDATE_GOLDEN=1 cargo test -p frontend --test golden` writes the
//! latter two anew.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shows where it stopped"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use frontend::config::DraftImage;
use frontend::graph::{ImageSource, NetworkMode, Ulimit};
use frontend::lower::{
    ImageName, ImageResolver, LowerOptions, Lowered, NamedContext, NoCache, ResolveError,
    ResolvedImage, Strictness, lower,
};
use frontend::platform::Platform;
use frontend::source::{Diagnostic, SourceFile};

/// A registry with four images of its own and those of the corpus. Any platform will do.
struct Registry;

impl ImageResolver for Registry {
    fn resolve(
        &self,
        image: &ImageName<'_>,
        _platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        let (name, source) = match image {
            ImageName::Reference(reference) => (reference.to_string(), ImageSource::Registry),
            ImageName::OciLayout { context, location } => (
                format!("docker.io/library/{context}@{location}"),
                ImageSource::OciLayout((*context).to_owned()),
            ),
        };
        let config = match name.as_str() {
            "docker.io/library/busybox:latest" => include_str!("images/busybox.json").to_owned(),
            "docker.io/library/trigger:latest" => include_str!("images/trigger.json").to_owned(),
            "docker.io/library/empty:latest" => include_str!("images/empty.json").to_owned(),
            name if name.contains("layout") => include_str!("images/busybox.json").to_owned(),
            name => stand_in(name).ok_or_else(|| ResolveError {
                message: format!("failed to resolve source metadata for {name}: not found"),
                hint: None,
            })?,
        };
        Ok(ResolvedImage {
            reference: name,
            manifest: "sha256:0123".to_owned(),
            config: config.into_bytes(),
            source,
        })
    }
}

/// The config of a base of the corpus.
fn stand_in(name: &str) -> Option<String> {
    let images = include_str!("../../testdata/stand-ins/images.json");
    let images: serde_json::Value = serde_json::from_str(images).unwrap();
    let familiar = name.strip_prefix("docker.io/").unwrap_or(name);
    let familiar = familiar.strip_prefix("library/").unwrap_or(familiar);
    let familiar = familiar.strip_suffix(":latest").unwrap_or(familiar);
    let config = images.get(familiar)?;
    let rootfs = serde_json::json!({"type": "layers", "diff_ids": ["sha256:cc"]});
    let image = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": config, "rootfs": rootfs,
        "history": [{"created_by": "stand-in"}],
    });
    Some(image.to_string())
}

fn options(args: &str) -> LowerOptions {
    let mut options = LowerOptions::new(Platform::linux("amd64"));
    for line in args.lines() {
        let (flag, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.to_owned();
        let pair = || {
            let (name, value) = value.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        match flag {
            "target" => options.target = Some(value),
            "build-arg" => options.build_args.extend([pair()]),
            "label" => options.labels.push(pair()),
            "platform" => options.target_platform = Platform::parse(&value, "amd64").unwrap(),
            "build-context" => options.named_contexts.extend([context(pair())]),
            "no-cache" => options.no_cache = NoCache::Always,
            "no-cache-filter" => options.no_cache = NoCache::Stages([value].into()),
            "network" => {
                options.network = Some(match value.as_str() {
                    "none" => NetworkMode::None,
                    "host" => NetworkMode::Host,
                    other => panic!("network {other}"),
                });
            }
            "add-host" => options.extra_hosts.push(pair()),
            "shm-size" => options.shm_size = Some(value.parse().unwrap()),
            "ulimit" => options.ulimits.push(Ulimit {
                name: value,
                soft: 512,
                hard: 1024,
            }),
            "strict" => options.strictness = Strictness::Strict,
            "allow" => drop(options.entitlements.insert(value)),
            // Only the builders need it.
            "secret" => {}
            other => panic!("unknown flag {other}"),
        }
    }
    options
}

fn context((name, value): (String, String)) -> (String, NamedContext) {
    let context = match value.split_once("://") {
        Some(("docker-image", image)) => NamedContext::Image(image.to_owned()),
        Some(("oci-layout", location)) => NamedContext::OciLayout(location.to_owned()),
        Some(("git" | "ssh", _)) => NamedContext::Git(value),
        Some(_) => NamedContext::Http(value),
        None => NamedContext::Directory,
    };
    (name, context)
}

fn build(text: &[u8], args: &str) -> Result<Lowered, Vec<Diagnostic>> {
    let source = SourceFile::new("Dockerfile", text);
    let dockerfile = frontend::parse::parse(&source)?;
    lower(&source, &dockerfile, &options(args), &Registry)
}

fn show(lowered: &Lowered) -> String {
    let mut out = lowered.graph.to_text();
    let output = lowered
        .output
        .map_or("scratch".to_owned(), |id| format!("#{}", id.0));
    write!(out, "\noutput {output}\ntarget {:?}\n", lowered.target).unwrap();
    if let Some(epoch) = &lowered.source_date_epoch {
        writeln!(out, "epoch {epoch}").unwrap();
    }
    show_image(&mut out, &lowered.image);
    out
}

fn show_image(out: &mut String, image: &DraftImage) {
    writeln!(out, "image {}", image.platform).unwrap();
    if let Some(author) = &image.author {
        writeln!(out, "author {author:?}").unwrap();
    }
    let config = serde_json::to_value(&image.config).unwrap();
    for (name, value) in config.as_object().unwrap() {
        writeln!(out, "config {name} {value}").unwrap();
    }
    for entry in &image.history {
        let layer = entry
            .vertex
            .map_or("-".to_owned(), |id| format!("#{}", id.0));
        writeln!(out, "history {layer} {:?}", entry.created_by).unwrap();
    }
}

fn show_errors(errors: &[Diagnostic]) -> String {
    let mut out = String::new();
    for error in errors {
        let lines = error.lines.map_or("-".to_owned(), |lines| {
            format!("{}-{}", lines.first, lines.last)
        });
        writeln!(out, "{lines}: {}", error.message).unwrap();
        if let Some(hint) = &error.hint {
            writeln!(out, "  hint: {hint}").unwrap();
        }
    }
    out
}

#[expect(
    clippy::disallowed_methods,
    reason = "how a developer asks for new expectations; no product code runs on it"
)]
fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn cases(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testdata")
        .join(folder);
    let mut cases: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    cases
}

#[test]
fn dockerfiles_lower_to_what_is_recorded() {
    lower_to_what_is_recorded("dockerfiles", 25);
}

#[test]
fn the_corpus_lowers_to_what_is_recorded() {
    lower_to_what_is_recorded("corpus", 60);
}

fn lower_to_what_is_recorded(folder: &str, least: usize) {
    let cases = cases(folder);
    assert!(cases.len() >= least, "only {} cases found", cases.len());
    let mut differing = Vec::new();
    for case in cases {
        let text = fs::read(case.join("Dockerfile")).unwrap();
        let args = fs::read_to_string(case.join("args")).unwrap_or_default();
        let (got, name, other) = match build(&text, &args) {
            Ok(lowered) => (show(&lowered), "graph.txt", "error.txt"),
            Err(errors) => (show_errors(&errors), "error.txt", "graph.txt"),
        };
        if is_update() {
            fs::write(case.join(name), got).unwrap();
            fs::remove_file(case.join(other)).unwrap_or_default();
            continue;
        }
        let want = fs::read_to_string(case.join(name)).unwrap_or_default();
        if got != want || case.join(other).exists() {
            differing.push(format!("== {}\n{got}", case.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn graphs_print_as_json_and_dot() {
    let text = b"FROM busybox\nCOPY a \"/b\"\nRUN true\n";
    let lowered = build(text, "").unwrap();
    let json = lowered.graph.to_json();
    let vertices = json["vertices"].as_array().unwrap();
    assert_eq!(vertices.len(), 4);
    assert_eq!(vertices[0]["kind"], "image");
    assert_eq!(vertices[2]["inputs"], serde_json::json!([0, 1]));
    assert_eq!(vertices[3]["name"], "[3/3] RUN true");
    assert_eq!(vertices[3]["definition"][0], "root #2");
    let dot = lowered.graph.to_dot();
    assert!(dot.starts_with("digraph build {\n"));
    assert!(dot.contains("  v0 -> v2 [label=\"0\"];\n"));
}

/// Words that mean something in many places.
const WORDS: [&str; 40] = [
    "FROM",
    "RUN",
    "COPY",
    "ADD",
    "ENV",
    "ARG",
    "LABEL",
    "WORKDIR",
    "USER",
    "EXPOSE",
    "VOLUME",
    "ONBUILD",
    "CMD",
    "SHELL",
    "HEALTHCHECK",
    "STOPSIGNAL",
    "AS",
    "a",
    "b",
    "busybox",
    "trigger",
    "scratch",
    "--from=a",
    "--from=0",
    "--link",
    "--chmod=9",
    "--mount=from=b,target=x",
    "<<E",
    "E",
    "\n",
    "\n",
    "\n",
    "$A",
    "${A:-",
    "}",
    "\"",
    "[\"x\"]",
    "A=1",
    "80-82/udp",
    "https://h/r.git?tag=",
];

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    })]

    /// Errors are fine, panics are bugs; and a graph keeps its promises.
    #[test]
    fn no_dockerfile_panics(picks in proptest::collection::vec(0..WORDS.len(), 0..40)) {
        let words: Vec<&str> = picks.into_iter().map(|pick| WORDS[pick]).collect();
        let text = format!("FROM busybox AS a\n{}\n", words.join(" "));
        match build(text.as_bytes(), "") {
            Err(errors) => proptest::prop_assert!(!errors.is_empty()),
            Ok(lowered) => {
                let known = lowered.graph.len();
                for (id, vertex) in lowered.graph.vertices() {
                    let is_sorted = vertex.inputs.iter().all(|input| input.0 < id.0);
                    proptest::prop_assert!(is_sorted);
                    let is_used = !lowered.graph.users(id).is_empty();
                    proptest::prop_assert!(is_used || lowered.output == Some(id));
                }
                let history = lowered.image.history.iter();
                let mut layers = history.filter_map(|entry| entry.vertex);
                proptest::prop_assert!(layers.all(|layer| layer.0 < known));
            }
        }
    }
}
