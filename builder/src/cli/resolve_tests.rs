//! Tests of resolving: words in, requests or refusals out.

use super::super::args::{Verb, parse};
use super::*;

struct Case {
    dir: tempfile::TempDir,
    environment: Vec<(&'static str, &'static str)>,
    has_terminal: bool,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        Self {
            dir,
            environment: vec![("HOME", "/home/u")],
            has_terminal: false,
        }
    }

    fn resolve(&self, flags: &[&str]) -> Result<(BuildRequest, Presentation), String> {
        let words = ["builder", "build"].iter().chain(flags).chain(&["."]);
        let verb = parse(words.map(std::ffi::OsString::from)).map_err(|error| error.to_string())?;
        let Verb::Build(args) = verb else {
            panic!("not a build")
        };
        let host = Host {
            environment: self.environment.iter().copied().collect(),
            cwd: self.dir.path().to_owned(),
            is_root: false,
            has_terminal: self.has_terminal,
        };
        super::refuse_unsupported(&args)
            .and_then(|()| resolve(&args, &host, Box::new(std::io::empty())))
            .map_err(|failure| failure.to_string())
    }
}

/// What becomes of a flag.
enum Treatment {
    /// Taken, without a word.
    Taken,
    /// Taken with this warning.
    Warned(&'static str),
    /// Refused with this message.
    Refused(&'static str),
}

use Treatment::{Refused, Taken, Warned};

/// Every flag of `docker buildx build`, hidden ones included, and ours.
const FLAGS: &[(&str, Treatment)] = &[
    ("--add-host=a:1.2.3.4", Taken),
    ("--allow=network.host", Taken),
    (
        "--allow=device",
        Refused("not supported yet: --allow device"),
    ),
    ("--annotation=a=b", Taken),
    ("--attest=type=provenance,disabled=true", Taken),
    ("--attest=type=sbom", Refused("not supported yet: --attest")),
    ("--build-arg=A=1", Taken),
    ("--build-context=x=docker-image://a", Taken),
    ("--build-context=x=https://a/b.git", Taken),
    ("--builder=default", Taken),
    (
        "--cache-from=type=gha",
        Warned("--cache-from is ignored: importing cache is not supported yet"),
    ),
    (
        "--cache-to=type=inline",
        Warned("--cache-to is ignored: exporting cache is not supported yet"),
    ),
    ("--call=build", Taken),
    ("--call=check,format=json", Taken),
    ("--call=outline", Taken),
    ("--print=targets", Taken),
    ("--cgroup-parent=/x", Taken),
    ("--check", Taken),
    ("--check=false", Taken),
    ("--compress", Taken),
    ("--cpu-period=1", Taken),
    ("--cpu-quota=1", Taken),
    ("--cpu-shares=1", Taken),
    ("-c=1", Taken),
    ("--cpuset-cpus=0", Taken),
    ("--cpuset-mems=0", Taken),
    ("--debug", Taken),
    ("-D", Taken),
    ("--file=Dockerfile", Taken),
    ("-fDockerfile", Taken),
    ("--force-rm", Taken),
    ("--iidfile=x", Taken),
    (
        "--iidfile-raw=x",
        Refused("not supported yet: --iidfile-raw"),
    ),
    ("--isolation=default", Taken),
    ("--isolation=userns", Taken),
    (
        "--isolation=hyperv",
        Refused("invalid isolation `hyperv`: use auto, root or userns"),
    ),
    ("--jobs=3", Taken),
    ("-j3", Taken),
    ("--label=a=b", Taken),
    ("--load", Taken),
    ("--memory=1g", Taken),
    ("-m1g", Taken),
    ("--memory-swap=-1", Taken),
    (
        "--memory-swap=1g",
        Refused("a memory-swap limit needs a memory limit as well"),
    ),
    ("--metadata-file=x", Taken),
    ("--network=none", Taken),
    (
        "--network=x",
        Refused("network mode \"x\" is not supported: use default, none or host"),
    ),
    ("--no-cache", Taken),
    ("--no-cache-filter=a,b", Taken),
    ("--offline", Taken),
    ("--explain", Taken),
    ("--explain=json", Taken),
    ("--output=type=oci,dest=x", Taken),
    ("-o.", Taken),
    ("--platform=linux/arm64", Taken),
    (
        "--platform=linux/amd64,linux/arm64",
        Refused("not supported yet: --platform with several platforms"),
    ),
    ("--policy=x", Refused("not supported yet: --policy")),
    ("--progress=plain", Taken),
    ("--progress=x", Refused("invalid progress mode x")),
    ("--provenance=false", Taken),
    ("--provenance", Refused("not supported yet: --provenance")),
    (
        "--provenance=mode=max",
        Refused("not supported yet: --provenance"),
    ),
    ("--pull", Taken),
    ("--pull=false", Taken),
    ("--pull=missing", Taken),
    ("--pull=age:24h", Taken),
    ("--push", Taken),
    ("--quiet", Taken),
    ("-q", Taken),
    ("--resource=memory=1g", Taken),
    ("--rm", Taken),
    ("--rm=false", Taken),
    ("--sbom=false", Taken),
    ("--sbom=true", Refused("not supported yet: --sbom")),
    ("--secret=id=HOME", Taken),
    (
        "--security-opt=x",
        Warned("--security-opt is ignored: use `RUN --security=insecure`"),
    ),
    ("--shm-size=8m", Taken),
    (
        "--squash",
        Warned("--squash is ignored: squash inside the build with a multi-stage Dockerfile"),
    ),
    (
        "--ssh=default=/no/agent",
        Refused("cannot use `/no/agent` for --ssh: No such file or directory (os error 2)"),
    ),
    ("--strict", Taken),
    ("--tag=a:b", Taken),
    ("-ta:b", Taken),
    ("-t=a:b", Taken),
    ("--target=x", Taken),
    ("--ulimit=nofile=1", Taken),
];

#[test]
fn every_flag_has_its_treatment() {
    let case = Case::new();
    for (flag, treatment) in FLAGS {
        let got = case
            .resolve(&[flag])
            .map(|(_, presentation)| presentation.warnings);
        match treatment {
            Taken => assert_eq!(got, Ok(vec![]), "{flag}"),
            Warned(text) => {
                let warnings = got.unwrap();
                assert!(
                    warnings.len() == 1 && warnings[0].ends_with(text),
                    "{flag}: {warnings:?}"
                );
            }
            Refused(text) => assert_eq!(got, Err((*text).to_owned()), "{flag}"),
        }
    }
}

#[test]
fn every_known_flag_is_in_the_table() {
    let command = super::super::args::command();
    let build = command.find_subcommand("build").unwrap();
    for arg in build.get_arguments().filter_map(clap::Arg::get_long) {
        let is_listed = FLAGS.iter().any(|(flag, _)| {
            flag.strip_prefix("--")
                .is_some_and(|rest| rest.split('=').next() == Some(arg))
        });
        assert!(is_listed || arg == "help", "--{arg}");
    }
}

#[test]
fn values_reach_the_request() {
    let mut case = Case::new();
    case.environment.extend([
        ("FROM_ENV", "e"),
        ("SOURCE_DATE_EPOCH", "7"),
        ("DOCKER_DEFAULT_PLATFORM", "linux/arm64"),
    ]);
    let flags = [
        "--build-arg",
        "A=1=2",
        "--build-arg",
        "FROM_ENV",
        "--build-arg",
        "UNSET",
        "--label",
        "l",
        "--label",
        "k=v",
        "--network",
        "host",
        "--shm-size",
        "8m",
        "--no-cache-filter",
        "x,y",
        "-qt",
        "one",
        "-t",
        "two",
        "--target",
        "b",
        "--target",
        "c",
        "-j",
        "2",
        "--pull",
        "--push",
        "--iidfile",
        "id",
    ];
    let (request, presentation) = case.resolve(&flags).unwrap();
    let arg = |name: &str| request.options.build_args.get(name).map(String::as_str);
    assert_eq!(
        (
            arg("A"),
            arg("FROM_ENV"),
            arg("UNSET"),
            arg("SOURCE_DATE_EPOCH")
        ),
        (Some("1=2"), Some("e"), None, Some("7"))
    );
    assert_eq!(
        request.options.labels,
        [("k", "v"), ("l", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    );
    assert_eq!(request.options.platform.as_deref(), Some("linux/arm64"));
    assert_eq!(request.options.target.as_deref(), Some("c"));
    assert_eq!(
        request.options.no_cache,
        NoCache::Stages(["x".to_owned(), "y".to_owned()].into())
    );
    assert_eq!(request.options.run.network, Some(NetworkMode::Host));
    assert!(request.options.run.entitlements.contains("network.host"));
    assert_eq!(request.options.run.shm_size, Some(8 << 20));
    assert_eq!(request.output.tags, ["one", "two"]);
    assert!(request.output.push && !request.output.load);
    assert_eq!(request.execution.jobs.get(), 2);
    assert_eq!(
        request.registries.pull,
        crate::cli::request::PullPolicy::Always
    );
    assert_eq!(request.state_root, Path::new("/home/u/.local/share/build"));
    assert_eq!(presentation.iidfile, Some(case.dir.path().join("id")));
    assert_eq!(
        (presentation.mode, presentation.is_quiet),
        (Mode::Quiet, true)
    );
}

#[test]
fn progress_depends_on_flag_environment_and_terminal() {
    let cases = [
        (&[][..], None, false, Ok(Mode::Plain)),
        (&[], None, true, Ok(Mode::Tty)),
        (&[], Some("rawjson"), true, Ok(Mode::RawJson)),
        (
            &["--progress=plain"],
            Some("rawjson"),
            true,
            Ok(Mode::Plain),
        ),
        (&["--progress=none"], None, true, Ok(Mode::Quiet)),
        (&["--progress=tty"], None, true, Ok(Mode::Tty)),
        (
            &["--progress=tty"],
            None,
            false,
            Err("progress=tty needs a terminal on standard error"),
        ),
        (
            &["-q", "--progress=plain"],
            None,
            true,
            Err("progress=plain and quiet cannot be used together"),
        ),
        (&[], Some("x"), true, Err("invalid progress mode x")),
    ];
    for (flags, variable, has_terminal, want) in cases {
        let mut case = Case::new();
        case.has_terminal = has_terminal;
        case.environment
            .extend(variable.map(|mode| ("BUILDKIT_PROGRESS", mode)));
        let got = case
            .resolve(flags)
            .map(|(_, presentation)| presentation.mode);
        assert_eq!(got, want.map_err(str::to_owned), "{flags:?}");
    }
}

#[test]
fn contradictions_and_nonsense_are_refused() {
    let case = Case::new();
    let cases = [
        (
            &["--no-cache", "--no-cache-filter=a"][..],
            "cannot specify both --no-cache and --no-cache-filter",
        ),
        (
            &["--build-arg", "=x"],
            "invalid key-value pair \"=x\" for --build-arg: empty key",
        ),
        (
            &["--label", "=x"],
            "invalid key-value pair \"=x\" for --label: empty key",
        ),
    ];
    for (flags, want) in cases {
        assert_eq!(case.resolve(flags).unwrap_err(), want);
    }
    assert!(
        case.resolve(&["--pull=maybe"])
            .unwrap_err()
            .contains("use always, missing, never or age:DURATION")
    );
    assert!(
        case.resolve(&["--tags", "x"])
            .unwrap_err()
            .contains("--tag")
    );
    assert!(
        case.resolve(&["another"])
            .unwrap_err()
            .contains("unexpected argument")
    );
}

#[test]
fn the_state_directory_follows_the_environment() {
    type Case<'a> = (&'a [(&'a str, &'a str)], bool, Option<&'a str>);
    let cases: [Case<'_>; 7] = [
        (&[("BUILD_ROOT", "/b"), ("HOME", "/h")], true, Some("/b")),
        (&[("BUILD_ROOT", "b")], true, None),
        (&[("HOME", "/h")], true, Some("/var/lib/build")),
        (&[("HOME", "/h")], false, Some("/h/.local/share/build")),
        (
            &[("HOME", "/h"), ("XDG_DATA_HOME", "/x")],
            false,
            Some("/x/build"),
        ),
        (
            &[("HOME", "/h"), ("XDG_DATA_HOME", "x")],
            false,
            Some("/h/.local/share/build"),
        ),
        (&[], false, None),
    ];
    for (variables, is_root, want) in cases {
        let environment = variables.iter().copied().collect();
        let got = state_root(&environment, is_root);
        assert_eq!(got.ok(), want.map(PathBuf::from), "{variables:?}");
    }
}
