//! What parsing, checking and lowering cost: honest files, and files made to hurt.
//!
//! One test in a binary of its own, because the peak of memory is the process's. `cargo test -p frontend --release --test
//! figures -- --nocapture` prints the figures. What is asserted leaves room for busy machines; a build without
//! optimisation takes a tenth of each file.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shows where it stopped"
)]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::fs;
use std::time::Duration;

use frontend::ast::Dockerfile;
use frontend::lint::{Checks, Coverage, Levels, Report, check_file};
use frontend::lower::{
    ImageName, ImageResolver, LowerOptions, ResolveError, ResolvedImage, lower_checked,
};
use frontend::parse::parse;
use frontend::platform::Platform;
use frontend::source::SourceFile;

/// How many times smaller files are without optimisation.
const SHRINK: usize = if cfg!(debug_assertions) { 10 } else { 1 };

/// What is allowed beside the figures aimed at: other programs run at the same time.
const BUSY: u32 = if cfg!(debug_assertions) { 20 } else { 4 };

/// How often what is compared is measured.
const RUNS: usize = 3;

/// Has no image.
struct Nothing;

impl ImageResolver for Nothing {
    fn resolve(&self, _: &ImageName<'_>, _: &Platform) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError {
            message: "there is nothing".to_owned(),
            hint: None,
        })
    }
}

fn options() -> LowerOptions {
    LowerOptions::new(Platform::linux("amd64"))
}

/// The most memory that the process had since [`forget_peak`], in MB.
fn peak_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() / 1024
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Time on a processor, which other programs do not lengthen by waiting.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = now();
    let result = run();
    (now() - start, result)
}

fn lowered(source: &SourceFile, file: &Dockerfile, report: &mut Report) -> Result<(), String> {
    let checks = Checks {
        report,
        ignore: None,
        coverage: Coverage::AllStages,
    };
    let lowered = lower_checked(source, file, &options(), &Nothing, checks);
    lowered
        .map(drop)
        .map_err(|errors| errors[0].message.clone())
}

/// What one file took.
#[derive(Debug)]
struct Figures {
    parse: Duration,
    /// Those of the text and those of steps.
    checks: Duration,
    /// All stages, without checks.
    lowering: Duration,
    /// After parsing, and after all.
    peaks_mb: [u64; 2],
    error: Option<String>,
}

/// The least of a few runs.
fn least<T>(runs: usize, mut run: impl FnMut() -> T) -> (Duration, T) {
    let first = timed(&mut run);
    (1..runs).map(|_| timed(&mut run)).fold(
        first,
        |best, next| {
            if next.0 < best.0 { next } else { best }
        },
    )
}

/// Parses, checks and lowers all stages of a text.
fn measure(name: &str, text: String, runs: usize) -> Figures {
    let kilobytes = text.len() / 1000;
    forget_peak();
    let (parsing, (source, parsed)) = timed(|| {
        let source = SourceFile::new("Dockerfile", text);
        let parsed = parse(&source);
        (source, parsed)
    });
    let parsed_mb = peak_mb();
    let mut report = Report::silent();
    let (lowering, checks, error) = match &parsed {
        Err(errors) => (
            Duration::ZERO,
            Duration::ZERO,
            Some(errors[0].message.clone()),
        ),
        Ok(file) => {
            let (plain, _) = least(runs, || lowered(&source, file, &mut Report::silent()));
            let (checked, result) = least(runs, || {
                report = Report::new(Levels::default());
                check_file(&source, file, &mut report);
                lowered(&source, file, &mut report)
            });
            (plain, checked.saturating_sub(plain), result.err())
        }
    };
    let figures = Figures {
        parse: parsing,
        checks,
        lowering,
        peaks_mb: [parsed_mb, peak_mb()],
        error,
    };
    let Figures {
        parse,
        lowering,
        error,
        ..
    } = &figures;
    let [parsed_mb, all_mb] = figures.peaks_mb;
    let short = |text: &String| text.chars().take(60).collect::<String>();
    println!(
        "{name:37} {:6} KB  parse {parse:9.1?} {parsed_mb:4} MB  lower {lowering:9.1?} {all_mb:4} MB  checks \
         {checks:9.1?}  {} warnings, {}",
        kilobytes,
        report.warnings().len(),
        error.as_ref().map_or("no error".to_owned(), short),
    );
    figures
}

/// A stage as people write them: 33 lines, 12 instructions, about 90 bytes an instruction.
const STAGE: &str = r#"# the application
FROM scratch AS stage@
ARG VERSION
ENV PATH=/opt/app/bin:$PATH \
    APP_VERSION=${VERSION:-1.0} \
    APP_HOME=/opt/app
WORKDIR /src
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    set -eux; \
    apt-get update; \
    apt-get install -y --no-install-recommends \
        build-essential \
        ca-certificates \
        curl \
        git \
    ; \
    # what was fetched is not needed again
    rm -rf /var/lib/apt/lists/*
COPY --chown=1000:1000 go.mod go.sum ./
RUN <<EOF
set -eux
./configure --prefix=/opt/app --disable-static --enable-shared
make -j"$(nproc)"
make install
EOF
COPY --from=stage0 /opt/app /opt/app
LABEL org.opencontainers.image.title="app @" \
      org.opencontainers.image.version=$VERSION
USER 1000
EXPOSE 8080
CMD ["app", "--serve", "--port=8080"]

"#;

fn honest(is_enough: impl Fn(usize, usize) -> bool) -> String {
    let mut text =
        "# syntax=docker/dockerfile:1\nARG VERSION=1\nFROM scratch AS stage0\n".to_owned();
    let mut lines = 3;
    for number in 1.. {
        if is_enough(lines, text.len()) {
            break;
        }
        text.push_str(&STAGE.replace('@', &number.to_string()));
        lines += STAGE.lines().count();
    }
    text
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count / SHRINK).map(line).collect()
}

/// How many of most things there are.
const MANY: usize = 100_000;

type Case = (&'static str, String);

fn scratch(rest: impl std::fmt::Display) -> String {
    format!("FROM scratch\n{rest}")
}

/// The same line, so often.
fn same(count: usize, line: &str) -> String {
    line.repeat(count / SHRINK)
}

/// Lines without end, or what goes on over many of them.
fn long_lines() -> Vec<Case> {
    let million = 1_000_000;
    let one = |start: &str, line: &str, end: &str| {
        scratch(format!("{start}{}{end}\n", same(million, line)))
    };
    let mounts = lines(MANY, |i| format!("--mount=type=tmpfs,target=/{i} \\\n"));
    let flags = lines(MANY, |i| format!("--exclude={i} \\\n"));
    vec![
        (
            "one 10 MB line",
            scratch(format!("RUN {}\n", "x".repeat(10_000_000))),
        ),
        ("10 MB in continued lines", one("RUN ", "xxxxxxxx\\\n", "x")),
        ("10 MB in one ENV", one("ENV ", "A=xxxx \\\n", "A=1")),
        ("1 000 000 continuations", one("RUN ", "\\\n", "x")),
        (
            "1 000 000 blank continuations",
            one("RUN a \\\n", "\n", "x"),
        ),
        ("1 000 000 sources", one("COPY ", "a \\\n", "x")),
        (
            "1 000 000 comments",
            format!("{}FROM scratch\n", same(million, "# x\n")),
        ),
        (
            "100 000 mounts of one RUN",
            scratch(format!("RUN {mounts}x\n")),
        ),
        (
            "100 000 flags of one COPY",
            scratch(format!("COPY {flags}x y\n")),
        ),
        (
            "100 000 unknown instructions",
            scratch(lines(MANY, |i| format!("RNU{i} x\n"))),
        ),
        (
            "100 000 wrong signals",
            scratch(same(MANY, "STOPSIGNAL x\n")),
        ),
    ]
}

/// Things within things, and heredocs.
fn nested() -> Vec<Case> {
    let words = lines(MANY, |i| format!("<<E{i} \\\n"));
    let bodies = lines(MANY, |i| format!("x\nE{i}\n"));
    let closed = format!("ENV A={}{}\n", "${a:-".repeat(6_000), "}".repeat(6_000));
    let open = same(1_000_000, "${a:-\\\n");
    let quoted = same(500_000, "\"${a:-\\\n");
    vec![
        ("6 000 nested substitutions", scratch(closed)),
        (
            "1 000 000 open substitutions",
            scratch(format!("ENV A={open}\n")),
        ),
        (
            "the same beside a heredoc",
            scratch(format!("RUN <<E {open}\nE\n")),
        ),
        (
            "500 000 quotes in substitutions",
            scratch(format!("ENV A={quoted}\n")),
        ),
        (
            "100 000 RUN heredocs",
            scratch(lines(MANY, |i| format!("RUN <<E{i}\nx\nE{i}\n"))),
        ),
        (
            "100 000 COPY heredocs",
            scratch(lines(MANY, |i| format!("COPY <<E{i} /\nx\nE{i}\n"))),
        ),
        (
            "100 000 heredocs of one COPY",
            scratch(format!("COPY {words}/d/\n{bodies}")),
        ),
        (
            "100 000 unterminated heredocs",
            scratch(lines(MANY, |i| format!("RUN <<E{i}\n"))),
        ),
    ]
}

/// Stages, and what they hand on.
fn stages() -> Vec<Case> {
    let after = |rest: String| format!("FROM scratch AS s0\n{rest}");
    let half = MANY / 2;
    let chain = lines(MANY, |i| format!("FROM s{i} AS s{}\n", i + 1));
    let growing = lines(half, |i| format!("FROM s{i} AS s{}\nENV A{i}=1\n", i + 1));
    let copies = lines(half, |i| {
        format!("FROM scratch AS s{}\nCOPY --from=s{i} / /\n", i + 1)
    });
    let triggers = lines(MANY / 50, |i| format!("ONBUILD ENV e{i}=x\n"));
    let children = lines(MANY / 50, |i| format!("FROM s0 AS c{i}\n"));
    vec![
        (
            "100 000 stages",
            lines(MANY, |i| format!("FROM scratch AS s{i}\n")),
        ),
        (
            "100 000 stages of one name",
            same(MANY, "FROM scratch AS s\n"),
        ),
        ("100 000 stages in a chain", after(chain)),
        ("50 000 stages and ENV in a chain", after(growing)),
        ("50 000 stages that copy", after(copies)),
        (
            "2 000 triggers, 2 000 children",
            after(triggers + &children),
        ),
        (
            "20 000 images",
            scratch(lines(MANY / 5, |i| format!("COPY --from=i{i} / /\n"))),
        ),
    ]
}

/// Variables, and what they grow to.
fn variables() -> Vec<Case> {
    let doubling = lines(MANY, |i| format!("ARG A{}=$A{i}$A{i}\n", i + 1));
    let growing = lines(MANY, |i| format!("ARG A{}=${{A{i}}}x\n", i + 1));
    let sets = lines(MANY, |i| format!("ENV variable{i}=x\n"));
    let uses = lines(MANY, |i| format!("LABEL a=$variabel{i}\n"));
    let args = lines(MANY, |i| format!("ARG A{i}=x\n"));
    let runs = lines(MANY / 2, |i| format!("ARG A{i}=x\nRUN x\n"));
    let long = format!("ARG A={}\n", "a".repeat(60_000));
    let pattern = format!("{long}ENV B=${{A##{}b}}\n", "*a".repeat(5_000));
    vec![
        (
            "100 000 LABEL",
            scratch(lines(MANY, |i| format!("LABEL l{i}=x\n"))),
        ),
        ("100 000 ENV", scratch(&sets)),
        ("100 000 ARG", scratch(&args)),
        ("100 000 global ARG", format!("{args}FROM scratch\n")),
        ("50 000 ARG and RUN", scratch(runs)),
        (
            "100 000 ARG that double",
            scratch(format!("ARG A0=x\n{doubling}")),
        ),
        (
            "100 000 global ARG that double",
            format!("ARG A0=x\n{doubling}FROM scratch\n"),
        ),
        (
            "100 000 ARG that grow",
            scratch(format!("ARG A0=x\n{growing}")),
        ),
        (
            "100 000 undefined variables",
            scratch(format!("{sets}{uses}")),
        ),
        (
            "6 500 000 000 ports",
            scratch(same(MANY, "EXPOSE 1-65535\n")),
        ),
        ("a pattern of 10 000 parts", scratch(pattern)),
        (
            "3 600 000 000 bytes replaced",
            scratch(format!("{long}ENV B=${{A//a/$A}}\n")),
        ),
    ]
}

#[test]
fn the_figures_hold() {
    let milliseconds = |count: u64| Duration::from_millis(count) * BUSY;
    let text = honest(|lines, _| lines >= 10_000);
    let runs = (0..5).map(|_| measure("10 000 lines", text.clone(), RUNS));
    let best = runs
        .min_by_key(|figures| figures.parse + figures.checks)
        .unwrap();
    assert_eq!(best.error, None);
    assert!(best.parse <= milliseconds(10), "{best:?}");
    assert!(best.checks <= best.parse, "{best:?}");

    let text = honest(|_, bytes| bytes >= 10_000_000 / SHRINK);
    let figures = measure("10 MB", text, RUNS);
    assert_eq!(figures.error, None);
    assert!(figures.parse <= milliseconds(1000), "{figures:?}");
    // 100 MB are aimed at; the program itself is larger or smaller elsewhere.
    assert!(figures.peaks_mb[0] <= 110, "{figures:?}");

    let hostile = [long_lines(), nested(), stages(), variables()];
    for (name, text) in hostile.into_iter().flatten() {
        let figures = measure(name, text, 1);
        assert!(
            figures.parse + figures.lowering + figures.checks <= Duration::from_secs(60),
            "{name}: {figures:?}"
        );
        assert!(figures.peaks_mb[1] <= 3000, "{name}: {figures:?}");
    }
}
