//! The harness: a directory of its own for each test, the program with a clean environment, images read back.

pub(crate) mod image;
pub(crate) mod registry;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_builder");

/// A folder of the repository's test data.
pub(crate) fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testdata")
        .join(path)
}

/// A place for one test: `context/`, the store and a home, removed with it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Asserts success and gives itself back.
    pub(crate) fn success(self) -> Self {
        assert_eq!(
            self.code,
            Some(0),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Asserts failure with this exit code.
    pub(crate) fn failure(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Asserts that standard error has this text.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "`{text}` is not in:\n{}",
            self.stderr
        );
        self
    }

    /// Asserts that standard error does not have this text.
    pub(crate) fn does_not_say(self, text: &str) -> Self {
        assert!(
            !self.stderr.contains(text),
            "`{text}` is in:\n{}",
            self.stderr
        );
        self
    }
}

impl Place {
    /// An empty place.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("build-test-")
            .tempdir()
            .unwrap();
        for name in ["context", "home", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    /// A place with a Dockerfile.
    pub(crate) fn with_dockerfile(text: &str) -> Self {
        let place = Self::new();
        place.file("Dockerfile", text);
        place
    }

    /// The directory itself.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The context.
    pub(crate) fn context(&self) -> PathBuf {
        self.path("context")
    }

    /// Writes a file of the context, mode 0644.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.context().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        self
    }

    /// The program with nothing of the caller's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("BUILD_ROOT", self.path("root"))
            .stdin(Stdio::null())
            .current_dir(self.dir.path());
        command
    }

    /// Runs a verb.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        finish(self.command().args(args))
    }

    /// Builds the context with `FROM busybox` being the base of the test data.
    pub(crate) fn build(&self, args: &[&str]) -> Outcome {
        finish(self.build_command().args(args).arg(self.context()))
    }

    /// `builder build` with the base and plain progress, without the context.
    pub(crate) fn build_command(&self) -> Command {
        let mut command = self.command();
        let base = testdata("images/busybox");
        command
            .args(["build", "--progress=plain", "--build-context"])
            .arg(format!("busybox=oci-layout://{}", base.display()));
        command
    }

    /// Builds and reads the image back.
    pub(crate) fn image(&self, args: &[&str]) -> image::Image {
        let file = self.path("image.tar");
        let output = format!("type=oci,dest={}", file.display());
        let args: Vec<&str> = [args, &["--output", &output]].concat();
        self.build(&args).success();
        image::Image::read(&file)
    }
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Outcome {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program from a Debian package; says how to get it when it is missing.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .rev()
    .map(|dir| Path::new(dir).join(name))
    .find(|path| path.exists())
    .unwrap_or_else(|| panic!("this test needs `{name}`: apt-get install {package}"))
}
