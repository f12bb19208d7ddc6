//! The context, the Dockerfile and the named contexts: which files and directories are meant.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use frontend::lower::git_context;
use frontend::source::SourceFile;

use super::build_args::InputArgs;
use super::request::{ContextSpec, DockerfileSpec, Input, NamedSource};
use super::stream::{Sniffed, sniff};
use crate::outcome::{Failure, FailureKind};

/// A Dockerfile larger than this is something else.
const DOCKERFILE_LIMIT_BYTES: u64 = 16 << 20;

const DEFAULT_NAME: &str = "Dockerfile";

fn usage(message: String) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

/// Finds what is built from; reads the Dockerfile if it is on this machine.
pub(super) fn resolve(
    args: &InputArgs,
    cwd: &Path,
    stdin: Box<dyn Read + Send>,
) -> Result<Input, Failure> {
    let file = args.file.as_deref().filter(|file| !file.is_empty());
    let (context, dockerfile, ignore_files) = match context(&args.context, cwd)? {
        Place::Stdin => {
            let (context, dockerfile) = from_stdin(file, cwd, stdin)?;
            (context, dockerfile, Vec::new())
        }
        Place::At(ContextSpec::Directory(path)) => {
            let (dockerfile, ignore_files) = beside(&path, file, cwd, stdin)?;
            (ContextSpec::Directory(path), dockerfile, ignore_files)
        }
        Place::At(remote) => {
            let dockerfile = match file {
                Some("-") => DockerfileSpec::Read(read(DEFAULT_NAME, stdin)?),
                file => elsewhere(file, cwd)?,
            };
            (remote, dockerfile, Vec::new())
        }
    };
    Ok(Input {
        context,
        dockerfile,
        ignore_files,
        named_contexts: args
            .build_context
            .iter()
            .map(|text| named(text, cwd))
            .collect::<Result<BTreeMap<_, _>, _>>()?,
    })
}

/// The Dockerfile and the ignore files of a context that is a directory.
fn beside(
    context: &Path,
    file: Option<&str>,
    cwd: &Path,
    stdin: Box<dyn Read + Send>,
) -> Result<(DockerfileSpec, Vec<PathBuf>), Failure> {
    let ignore = context.join(".dockerignore");
    Ok(match file {
        Some("-") => {
            let dockerfile = read(DEFAULT_NAME, stdin)?;
            (DockerfileSpec::Read(dockerfile), vec![ignore])
        }
        Some(url) if is_http(url) => (DockerfileSpec::Url(url.to_owned()), vec![ignore]),
        file => {
            let path = file.map_or_else(|| context.join(DEFAULT_NAME), |file| cwd.join(file));
            let (path, dockerfile) = open(&path)?;
            let mut own = path.into_os_string();
            own.push(".dockerignore");
            let ignore_files = vec![PathBuf::from(own), ignore];
            (DockerfileSpec::Read(dockerfile), ignore_files)
        }
    })
}

/// The Dockerfile of a context that is fetched: in it, unless a URL or an absolute path says otherwise.
fn elsewhere(file: Option<&str>, cwd: &Path) -> Result<DockerfileSpec, Failure> {
    Ok(match file {
        None => DockerfileSpec::InContext(DEFAULT_NAME.to_owned()),
        Some(url) if is_http(url) => DockerfileSpec::Url(url.to_owned()),
        Some(path) if Path::new(path).is_absolute() => {
            DockerfileSpec::Read(open(&cwd.join(path))?.1)
        }
        Some(path) => DockerfileSpec::InContext(path.to_owned()),
    })
}

/// Standard input as context: an archive, or a Dockerfile alone.
fn from_stdin(
    file: Option<&str>,
    cwd: &Path,
    stdin: Box<dyn Read + Send>,
) -> Result<(ContextSpec, DockerfileSpec), Failure> {
    if file == Some("-") {
        return Err(usage(
            "can't use stdin for both build context and dockerfile".to_owned(),
        ));
    }
    let sniffed = sniff(stdin).map_err(|error| unreadable("read", "standard input", &error))?;
    match (sniffed, file) {
        (Sniffed::Archive(stream), file) => {
            Ok((ContextSpec::Archive(stream), elsewhere(file, cwd)?))
        }
        (Sniffed::Text(text), None) => {
            let dockerfile = DockerfileSpec::Read(read(DEFAULT_NAME, text)?);
            Ok((ContextSpec::Empty, dockerfile))
        }
        (Sniffed::Text(_), Some(_)) => Err(usage(
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles".to_owned(),
        )),
    }
}

/// Reads the Dockerfile at a path, or `dockerfile` where `Dockerfile` is meant and missing.
pub(super) fn read_dockerfile(path: &Path) -> Result<SourceFile, Failure> {
    open(path).map(|(_, source)| source)
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Where a context is.
enum Place {
    Stdin,
    At(ContextSpec),
}

fn context(text: &str, cwd: &Path) -> Result<Place, Failure> {
    if text == "-" {
        return Ok(Place::Stdin);
    }
    if text.is_empty() {
        return Err(usage(
            "unable to prepare context: the path is empty".to_owned(),
        ));
    }
    // A directory of that name goes first.
    let found = directory(&cwd.join(text));
    if found.is_err()
        && let Some(git) = git_context(text)
    {
        let git = git.map_err(|error| usage(format!("unable to prepare context: {error}")))?;
        return Ok(Place::At(ContextSpec::Git(git)));
    }
    match found {
        Ok(path) => Ok(Place::At(ContextSpec::Directory(path))),
        Err(_) if is_http(text) => Ok(Place::At(ContextSpec::Http(text.to_owned()))),
        Err(why) => Err(usage(format!("unable to prepare context: {why}"))),
    }
}

/// A directory that exists, or why it is none.
fn directory(path: &Path) -> Result<PathBuf, String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(path.to_owned()),
        Ok(_) => Err(format!("path \"{}\" is not a directory", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("path \"{}\" not found", path.display()))
        }
        Err(error) => Err(format!("path \"{}\": {}", path.display(), reason(&error))),
    }
}

fn open(path: &Path) -> Result<(PathBuf, SourceFile), Failure> {
    let mut path = path.to_owned();
    let mut file = std::fs::File::open(&path);
    let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    if file.as_ref().is_err_and(is_missing) && path.file_name().is_some_and(|n| n == DEFAULT_NAME) {
        let lower = path.with_file_name("dockerfile");
        if let Ok(found) = std::fs::File::open(&lower) {
            (path, file) = (lower, Ok(found));
        }
    }
    let name = path
        .file_name()
        .map_or_else(|| DEFAULT_NAME.into(), |name| name.to_string_lossy());
    let mut file = file.map_err(|error| unreadable("open", &name, &error))?;
    let source = read(&name, &mut file)?;
    Ok((path, source))
}

fn read(name: &str, from: impl Read) -> Result<SourceFile, Failure> {
    let mut bytes = Vec::new();
    from.take(DOCKERFILE_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable("read", name, &error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > DOCKERFILE_LIMIT_BYTES) {
        let message = format!("failed to read dockerfile: {name} is larger than 16 MiB");
        return Err(Failure::new(FailureKind::Dockerfile, message));
    }
    Ok(SourceFile::new(name, bytes))
}

// BuildKit's words, that scripts match on.
fn unreadable(verb: &str, name: &str, error: &io::Error) -> Failure {
    let why = reason(error);
    let message = format!("failed to read dockerfile: {verb} {name}: {why}");
    Failure::new(FailureKind::Dockerfile, message)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    }
}

fn named(text: &str, cwd: &Path) -> Result<(String, NamedSource), Failure> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| usage(format!("invalid context value: {text}, expected key=value")))?;
    let source = if let Some(reference) = value.strip_prefix("docker-image://") {
        NamedSource::Image(reference.to_owned())
    } else if let Some(location) = value.strip_prefix("oci-layout://") {
        let (path, selector) = split_layout(location);
        let path = directory(&cwd.join(path));
        NamedSource::OciLayout {
            path: path
                .map_err(|why| usage(format!("failed to get build context {name}: {why}")))?,
            selector: selector.to_owned(),
        }
    } else if let Some(git) = git_context(value) {
        git.map_err(|error| usage(format!("failed to get build context {name}: {error}")))?;
        NamedSource::Git(value.to_owned())
    } else if is_http(value) {
        NamedSource::Http(value.to_owned())
    } else {
        let path = directory(&cwd.join(value));
        NamedSource::Directory(
            path.map_err(|why| usage(format!("failed to get build context {name}: {why}")))?,
        )
    };
    Ok((name.to_owned(), source))
}

/// `path[@digest|:tag]`: path and the rest.
fn split_layout(location: &str) -> (&str, &str) {
    let at = location.find('@').or_else(|| {
        let colon = location.rfind(':')?;
        (!location[colon..].contains('/')).then_some(colon)
    });
    location.split_at(at.unwrap_or(location.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(context: &str, file: Option<&str>) -> InputArgs {
        InputArgs {
            context: context.to_owned(),
            file: file.map(str::to_owned),
            build_arg: Vec::new(),
            build_context: Vec::new(),
            target: None,
            platform: Vec::new(),
            secret: Vec::new(),
            ssh: Vec::new(),
            pull: "false".to_owned(),
            offline: super::super::args::Switch(false),
            policy: Vec::new(),
        }
    }

    #[test]
    fn dockerfiles_are_found_and_named_as_buildkit_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("ctx/sub")).unwrap();
        std::fs::create_dir_all(at("lower")).unwrap();
        std::fs::write(at("ctx/Dockerfile"), "FROM a").unwrap();
        std::fs::write(at("ctx/sub/x.df"), "FROM b").unwrap();
        std::fs::write(at("lower/dockerfile"), "FROM c").unwrap();
        let absolute = at("ctx/sub/x.df").display().to_string();
        let cases = [
            ("ctx", None, Ok(("Dockerfile", "FROM a"))),
            ("ctx", Some("ctx/sub/x.df"), Ok(("x.df", "FROM b"))),
            ("ctx", Some(absolute.as_str()), Ok(("x.df", "FROM b"))),
            ("lower", None, Ok(("dockerfile", "FROM c"))),
            ("ctx", Some("-"), Ok(("Dockerfile", "FROM stdin"))),
            (
                "ctx/sub",
                None,
                Err("failed to read dockerfile: open Dockerfile: no such file or directory"),
            ),
            (
                "ctx",
                Some("Nope.dockerfile"),
                Err("failed to read dockerfile: open Nope.dockerfile: no such file or directory"),
            ),
            (
                "ctx",
                Some("ctx"),
                Err("failed to read dockerfile: read ctx: is a directory"),
            ),
            ("-", None, Ok(("Dockerfile", "FROM stdin"))),
            (
                "-",
                Some("-"),
                Err("can't use stdin for both build context and dockerfile"),
            ),
            (
                "-",
                Some("x"),
                Err("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles"),
            ),
            (
                "https://x/y.git",
                Some("-"),
                Ok(("Dockerfile", "FROM stdin")),
            ),
            (
                "https://x/y.git",
                Some(absolute.as_str()),
                Ok(("x.df", "FROM b")),
            ),
            (
                "https://x/y.git?x=1",
                None,
                Err("unable to prepare context: unexpected query \"x\""),
            ),
            (
                "ctx",
                Some("https://x/Dockerfile"),
                Ok(("url", "https://x/Dockerfile")),
            ),
            ("git://x/y", None, Ok(("context", "Dockerfile"))),
            ("http://x/y.tar", Some("a/b"), Ok(("context", "a/b"))),
        ];
        for (context, file, want) in cases {
            let got = resolve(
                &args(context, file),
                dir.path(),
                Box::new("FROM stdin".as_bytes()),
            );
            let got = got.map(|input| match input.dockerfile {
                DockerfileSpec::Read(source) => {
                    (source.name().to_owned(), source.text().to_owned())
                }
                DockerfileSpec::InContext(path) => ("context".to_owned(), path),
                DockerfileSpec::Url(url) => ("url".to_owned(), url),
            });
            let want = want.map(|(name, text)| (name.to_owned(), text.to_owned()));
            assert_eq!(
                got.map_err(|failure| failure.to_string()),
                want.map_err(str::to_owned)
            );
        }
        let failure = resolve(&args("nope", None), dir.path(), Box::new(io::empty())).unwrap_err();
        let path = at("nope");
        assert_eq!(
            failure.to_string(),
            format!(
                "unable to prepare context: path \"{}\" not found",
                path.display()
            )
        );
        assert_eq!(failure.kind(), FailureKind::Usage);
    }

    #[test]
    fn the_dockerfiles_own_ignore_file_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.df"), "FROM a").unwrap();
        let at = |name: &str| dir.path().join(name);
        let input = resolve(&args(".", Some("x.df")), dir.path(), Box::new(io::empty())).unwrap();
        assert_eq!(
            input.ignore_files,
            [at("x.df.dockerignore"), at(".").join(".dockerignore")]
        );
        let input = resolve(&args(".", Some("-")), dir.path(), Box::new(io::empty())).unwrap();
        assert_eq!(input.ignore_files, [at(".").join(".dockerignore")]);
    }

    #[test]
    fn named_contexts_are_told_apart_by_form() {
        let dir = tempfile::tempdir().unwrap();
        let cwd = dir.path();
        let layout = |selector: &str| NamedSource::OciLayout {
            path: cwd.to_owned().join("."),
            selector: selector.to_owned(),
        };
        let cases = [
            ("a=docker-image://b:1", Ok(NamedSource::Image("b:1".into()))),
            ("a=.", Ok(NamedSource::Directory(cwd.join(".")))),
            ("a=oci-layout://.", Ok(layout(""))),
            ("a=oci-layout://.:v1", Ok(layout(":v1"))),
            ("a=oci-layout://.@sha256:00", Ok(layout("@sha256:00"))),
            (
                "a=https://x/y.tar",
                Ok(NamedSource::Http("https://x/y.tar".into())),
            ),
            (
                "a=https://x/y.git#v1",
                Ok(NamedSource::Git("https://x/y.git#v1".into())),
            ),
            (
                "a=github.com/x/y",
                Ok(NamedSource::Git("github.com/x/y".into())),
            ),
            ("a", Err("invalid context value: a, expected key=value")),
            ("=x", Err("invalid context value: =x, expected key=value")),
        ];
        for (text, want) in cases {
            let got = named(text, cwd).map(|(_, source)| source);
            assert_eq!(
                got.map_err(|failure| failure.to_string()),
                want.map_err(str::to_owned),
                "{text}"
            );
        }
        assert!(
            named("a=nope", cwd)
                .unwrap_err()
                .to_string()
                .starts_with("failed to get build context a: path")
        );
        assert_eq!(split_layout("/a:b/c"), ("/a:b/c", ""));
    }
}
