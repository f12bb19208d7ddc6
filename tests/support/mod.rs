//! The harness: a directory of its own for each test, the program with a clean environment, images read back.

pub(crate) mod base;
pub(crate) mod docker;
pub(crate) mod faulty;
pub(crate) mod git;
pub(crate) mod image;
pub(crate) mod layout;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod registry;
pub(crate) mod stand_ins;
pub(crate) mod store;
pub(crate) mod tools;
pub(crate) mod tree;
pub(crate) mod user;
pub(crate) mod web;
pub(crate) mod world;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use user::User;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_builder");

/// What times are clamped to where they are: 2020-09-13T12:26:40Z.
pub(crate) const EPOCH: u64 = 1_600_000_000;

/// A folder of the repository's test data.
pub(crate) fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testdata")
        .join(path)
}

/// A place for one test: `context/`, the store and a home, removed with it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    user: Option<User>,
    /// State directory, if not `root` of this place.
    root: Option<PathBuf>,
    /// Arguments of every build.
    arguments: Vec<String>,
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

    /// The steps that ran, in order of their end, without their place in the stage: `RUN make`.
    pub(crate) fn ran(&self) -> Vec<String> {
        self.steps_ending(" DONE ")
    }

    /// The steps that were taken from the cache.
    pub(crate) fn cached(&self) -> Vec<String> {
        self.steps_ending(" CACHED")
    }

    fn steps_ending(&self, mark: &str) -> Vec<String> {
        let name = |number: &str| {
            let prefix = format!("{number} [");
            let line = self
                .stderr
                .lines()
                .find_map(|line| line.strip_prefix(prefix.as_str()))?;
            let (place, name) = line.split_once("] ")?;
            (place.ends_with(|last: char| last.is_ascii_digit()) && !name.starts_with("FROM "))
                .then(|| name.to_owned())
        };
        let ends = self
            .stderr
            .lines()
            .filter_map(|line| line.split_once(mark)?.0.strip_prefix('#'));
        let numbers = ends.filter(|number| number.parse::<u32>().is_ok());
        numbers
            .filter_map(|number| name(&format!("#{number}")))
            .collect()
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
        let dir = named_dir();
        for name in ["context", "home", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self {
            dir,
            user: None,
            root: None,
            arguments: Vec::new(),
        }
    }

    /// A place with a Dockerfile.
    pub(crate) fn with_dockerfile(text: &str) -> Self {
        let place = Self::new();
        place.file("Dockerfile", text);
        place
    }

    /// A place whose context is a copy of a real project of the test data.
    pub(crate) fn with_app(name: &str) -> Self {
        let place = Self::new();
        place.copies(&testdata("apps").join(name));
        place
    }

    /// Copies a project into the context, its symbolic links and executable files as such.
    pub(crate) fn copies(&self, project: &Path) -> &Self {
        self.copies_to("", project)
    }

    fn copies_to(&self, below: &str, project: &Path) -> &Self {
        for entry in std::fs::read_dir(project).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().to_str().unwrap());
            let (kind, from) = (entry.file_type().unwrap(), entry.path());
            let to = self.context().join(&name);
            if kind.is_dir() {
                std::fs::create_dir_all(to).unwrap();
                self.copies_to(&format!("{name}/"), &from);
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(std::fs::read_link(from).unwrap(), to).unwrap();
            } else {
                self.file(&name, std::fs::read(&from).unwrap());
                let mode = entry.metadata().unwrap().permissions().mode();
                let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
                std::fs::set_permissions(to, PermissionsExt::from_mode(mode)).unwrap();
            }
        }
        self
    }

    /// The same place with the program being run by an unprivileged user.
    pub(crate) fn unprivileged(mut self) -> Self {
        let user = User::get();
        user.gets(Path::new(PROGRAM), &self.path("builder"));
        for path in [
            self.dir.path().to_owned(),
            self.path("home"),
            self.path("tmp"),
        ] {
            user.owns(&path);
        }
        self.user = Some(user);
        self
    }

    /// The same place with one more argument for every build.
    pub(crate) fn with_argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// The same place with a named context, which a `FROM` can name.
    pub(crate) fn with_base(self, name: &str, layout: &Path) -> Self {
        self.with_argument(format!(
            "--build-context={name}=oci-layout://{}",
            layout.display()
        ))
    }

    /// The same place with its state directory elsewhere.
    pub(crate) fn with_root(mut self, root: &Path) -> Self {
        self.root = Some(root.to_owned());
        self
    }

    /// The state directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(|| self.path("root"))
    }

    /// A word that is in every path of this place and nowhere else.
    pub(crate) fn word(&self) -> String {
        self.dir
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// A path in it.
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
        let mut command = match self.user {
            None => Command::new(PROGRAM),
            Some(_) => Command::new(self.path("builder")),
        };
        if let Some(user) = self.user {
            user.becomes(&mut command);
        }
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("BUILD_ROOT", self.root())
            .env("BUILDKIT_PROGRESS", "plain")
            .stdin(Stdio::null())
            .current_dir(self.dir.path());
        command
    }

    /// Runs a verb.
    #[must_use]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        finish(self.command().args(args))
    }

    /// Builds the context with `FROM busybox` being the base of the test data.
    #[must_use]
    pub(crate) fn build(&self, args: &[&str]) -> Outcome {
        finish(self.build_command().args(args).arg(self.context()))
    }

    /// `builder build` with the base, without the context.
    pub(crate) fn build_command(&self) -> Command {
        let mut command = self.command();
        let base = self.busybox();
        command
            .args(["build", "--build-context"])
            .arg(format!("busybox=oci-layout://{}", base.display()))
            .args(&self.arguments);
        command
    }

    /// The small base, where this place's user can read it.
    fn busybox(&self) -> PathBuf {
        let Some(user) = self.user else {
            return base::busybox();
        };
        let copy = self.path("busybox");
        if !copy.exists() {
            let mut command = Command::new("cp");
            finish(command.arg("-r").arg(base::busybox()).arg(&copy)).success();
            let all = format!("{}:{}", user.uid, user.gid);
            finish(Command::new("chown").args(["-R", &all]).arg(&copy)).success();
        }
        copy
    }

    /// Builds the context into an OCI layout that is a directory, tag `latest`; gives its path.
    pub(crate) fn layout(&self, args: &[&str]) -> PathBuf {
        let dest = self.path("layout");
        let output = format!("type=oci,tar=false,dest={}", dest.display());
        let args = [args, &["--tag", "tested:latest", "--output", &output]].concat();
        self.build(&args).success();
        dest
    }

    /// Builds the context into an archive that `docker load` reads; gives its path.
    pub(crate) fn docker_archive(&self, args: &[&str]) -> PathBuf {
        let dest = self.path("docker.tar");
        let output = format!("type=docker,dest={}", dest.display());
        self.build(&[args, &["--output", &output]].concat())
            .success();
        dest
    }

    /// Builds the context into a directory of files; gives its path.
    pub(crate) fn tree(&self, args: &[&str]) -> PathBuf {
        let dest = self.path("tree");
        let output = format!("type=local,dest={}", dest.display());
        self.build(&[args, &["--output", &output]].concat())
            .success();
        dest
    }

    /// Builds and reads the image back.
    pub(crate) fn image(&self, args: &[&str]) -> image::Image {
        self.archived(args, "")
    }

    /// Builds with every time clamped to [`EPOCH`] and reads the image back.
    pub(crate) fn clamped_image(&self, args: &[&str]) -> image::Image {
        let epoch = format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}");
        let args = [args, &[epoch.as_str()]].concat();
        self.archived(&args, ",rewrite-timestamp=true")
    }

    fn archived(&self, args: &[&str], attributes: &str) -> image::Image {
        let file = self.path("image.tar");
        let output = format!("type=oci,dest={}{attributes}", file.display());
        let args: Vec<&str> = [args, &["--output", &output]].concat();
        self.build(&args).success();
        image::Image::read(&file)
    }
}

/// The same command started by a shell script that ends with `exec "$@"`.
pub(crate) fn through_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", script, "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    shell.env_clear().stdin(Stdio::null());
    shell.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    shell.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
    shell
}

/// A directory whose name has no capitals, because image names are made from it, and is no part of another's.
fn named_dir() -> tempfile::TempDir {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("build-test-{}-{count}x", std::process::id());
        match tempfile::Builder::new()
            .prefix(&name)
            .rand_bytes(0)
            .tempdir()
        {
            Ok(dir) => return dir,
            // Left by a killed process of the same id.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists),
        }
    }
}

/// Runs a command to its end.
#[must_use]
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

/// Copies a program, by another process: had this one the copy open for writing while another test starts a process, that one
/// had it open as well for a moment, and the copy could not be run (`ETXTBSY`).
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let mut install = Command::new("install");
    finish(install.args(["-m", "0755"]).arg(from).arg(to)).success();
}

/// Unmounts what the process that a build leaves to wait for the disk may still have open.
pub(crate) fn unmount(path: &Path) {
    let unmounts = || finish(Command::new("umount").arg(path)).code == Some(0);
    let unmounted = wait_until(Duration::from_secs(10), unmounts);
    // A test that has failed already has said why.
    assert!(
        unmounted || std::thread::panicking(),
        "{} stays in use",
        path.display()
    );
}

/// Waits until something holds, not longer than `limit`; tells whether it does.
pub(crate) fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Sets a flag when it is dropped: threads that go on until then end also if the test fails.
pub(crate) struct SetAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether a server listens at `127.0.0.1:port`. A connection to a free port can be its own other end: that is no server.
pub(crate) fn answers(address: &str) -> bool {
    let stream = std::net::TcpStream::connect(address);
    stream.is_ok_and(|stream| stream.local_addr().ok() != stream.peer_addr().ok())
}

/// Sends a signal to one process.
pub(crate) fn signal(id: u32, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    // It may have ended in this moment.
    let _sent = kill_process(id, signal);
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
