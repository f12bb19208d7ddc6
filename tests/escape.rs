//! Attacks on the host by steps and by Dockerfiles. Where it can be shown, each is first shown to work without the guard: outside
//! of a sandbox, or in a step that was allowed everything.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::{PROGRAM, Place, copy_program, finish, program, testdata};

/// What the host has and no step may see.
const MARKER: &str = "host-marker";

/// The compiled attacks.
fn attack() -> &'static Path {
    static ATTACK: OnceLock<tempfile::TempDir> = OnceLock::new();
    static NAME: OnceLock<PathBuf> = OnceLock::new();
    let dir = ATTACK.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new(program("gcc", "gcc libc6-dev"))
            .args(["-static", "-O1", "-o"])
            .arg(dir.path().join("attack"))
            .arg(testdata("escape/attack.c"))
            .status();
        assert!(made.unwrap().success());
        dir
    });
    NAME.get_or_init(|| dir.path().join("attack"))
}

/// What an attack says outside of any sandbox.
fn outside(args: &[&str]) -> String {
    let output = Command::new(attack()).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A place whose context has the attacks.
fn armed(dockerfile: &str) -> Place {
    let place = Place::with_dockerfile(&format!("FROM busybox\nCOPY attack /\n{dockerfile}"));
    fs::copy(attack(), place.context().join("attack")).unwrap();
    place
}

/// What the only command of a build says.
fn said(place: &Place, flags: &[&str]) -> String {
    place.build(flags).success();
    place.run(["logs", "1"]).success().stdout
}

/// What an attack says in a step.
fn inside(args: &[&str], run_flags: &str, flags: &[&str]) -> String {
    let argv = serde_json::to_string(&[&["/attack"], args].concat()).unwrap();
    said(&armed(&format!("RUN {run_flags} {argv}\n")), flags)
}

const EVERYTHING: (&str, &[&str]) = ("--security=insecure", &["--allow=security.insecure"]);

/// A block device of the host with the marker; detached when dropped.
struct LoopDevice {
    path: String,
    _file: tempfile::NamedTempFile,
}

impl LoopDevice {
    fn attach() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut content = MARKER.as_bytes().to_vec();
        content.resize(1 << 20, 0);
        fs::write(file.path(), content).unwrap();
        let output = Command::new(program("losetup", "mount"))
            .args(["--find", "--show"])
            .arg(file.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self {
            path: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            _file: file,
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new(program("losetup", "mount"))
            .arg("--detach")
            .arg(&self.path)
            .status();
        assert!(detached.unwrap().success());
    }
}

#[test]
fn a_block_device_of_the_host_cannot_be_read() {
    let device = LoopDevice::attach();
    let number = fs::metadata(&device.path).unwrap().rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let (major, minor) = (major.to_string(), minor.to_string());
    let args = ["device", &major, &minor, "/node"];
    let reached = "REACHED host-marker\n";
    assert_eq!(inside(&args, EVERYTHING.0, EVERYTHING.1), reached);
    assert_eq!(
        inside(&args, "", &[]),
        "refused open: Operation not permitted\n"
    );
    // A node that an image brings, or one on a mount, is no better.
    let argv = "[\"/attack\", \"device\", \"MAJOR\", \"MINOR\", \"/m/node\"]"
        .replace("MAJOR", &major)
        .replace("MINOR", &minor);
    for kind in ["cache", "tmpfs"] {
        let place = armed(&format!("RUN --mount=type={kind},target=/m {argv}\n"));
        let said = said(&place, &[]);
        assert!(said.starts_with("refused open: "), "{kind}: {said}");
    }
}

#[test]
fn processes_of_the_host_are_out_of_reach() {
    let mut victim = Command::new("sleep")
        .arg("1000")
        .env_clear()
        .env("SECRET", MARKER)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let id = victim.id().to_string();
    let args = ["trace", id.as_str()];
    let without_guard = outside(&args);
    let with_guard = inside(&args, "", &[]);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(without_guard, "REACHED SECRET=host-\n");
    assert_eq!(with_guard, "refused ptrace: No such process\n");
}

#[test]
fn the_builders_keyring_is_not_a_steps() {
    let with_key = |words: &[&str]| {
        let mut command = Command::new(attack());
        command
            .args(["with-key", "escape-test", MARKER])
            .args(words);
        command
    };
    let attack_name = attack().to_str().unwrap();
    let outside = finish(&mut with_key(&[attack_name, "keyring", "escape-test"]));
    assert_eq!(outside.stdout, "REACHED host-marker\n");
    // Without the filter of system calls it is the keyring of its own that helps.
    for (run_flags, flags) in [("", &[][..]), EVERYTHING] {
        let place = armed(&format!(
            "RUN {run_flags} [\"/attack\", \"keyring\", \"escape-test\"]\n"
        ));
        let build = place.build_command();
        let mut command = with_key(&[PROGRAM]);
        command.args(build.get_args()).args(flags);
        command.arg(place.context()).env_clear();
        for (name, value) in build.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        finish(&mut command).success();
        let said = place.run(["logs", "1"]).success().stdout;
        assert!(said.starts_with("refused keyctl search: "), "{said}");
    }
}

#[test]
fn user_namespaces_cannot_be_nested() {
    let args = ["user-namespace"];
    assert_eq!(outside(&args), "REACHED a user namespace\n");
    assert_eq!(
        inside(&args, "", &[]),
        "refused unshare: Operation not permitted\n"
    );
}

#[test]
fn nothing_can_be_mounted_remounted_or_unmasked() {
    let args = ["mounts"];
    let without_guard = inside(&args, EVERYTHING.0, EVERYTHING.1);
    assert!(
        without_guard.starts_with("REACHED mount\n"),
        "{without_guard}"
    );
    let said = inside(&args, "", &[]);
    let lines: Vec<&str> = said.lines().collect();
    let refused = ["mount", "remount", "unmask"]
        .map(|what| format!("refused {what}: Operation not permitted"));
    assert_eq!(lines, refused);
}

#[test]
fn files_cannot_be_opened_by_handle() {
    let marker = tempfile::NamedTempFile::new().unwrap();
    let path = marker.path().to_str().unwrap();
    assert_eq!(outside(&["handle", path]), "REACHED a file by its handle\n");
    let said = inside(&["handle", "/etc/hosts"], "", &[]);
    assert!(said.starts_with("refused "), "{said}");
}

// CVE-2024-21626: a working directory that is a leaked descriptor of the host.
#[test]
fn no_descriptor_of_the_builder_reaches_a_step() {
    let host = tempfile::tempdir().unwrap();
    let marker = host.path().join("marker");
    fs::write(&marker, MARKER).unwrap();
    let marker = marker.to_str().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let leaked = outside(&["leak", empty.path().to_str().unwrap(), marker]);
    assert_eq!(leaked, "REACHED host-marker\n");
    assert!(inside(&["descriptors"], "", &[]).starts_with("refused "));
    for fd in 3..10 {
        for dir in ["/proc/self/fd", "/proc/1/fd"] {
            let place = armed(&format!(
                "WORKDIR {dir}/{fd}\nRUN [\"/attack\", \"climb\", \"{marker}\"]\n"
            ));
            let outcome = place.build(&[]);
            let logs = place.run(["logs", "1"]);
            assert!(!logs.stdout.contains("REACHED"), "{dir}/{fd}: {logs:?}");
            outcome.does_not_say(MARKER);
        }
    }
}

// CVE-2019-5736: an image makes the builder run itself, and writes to it.
#[test]
fn the_builders_own_program_cannot_be_changed() {
    let place = Place::with_dockerfile(
        "FROM busybox\nCOPY --chmod=755 evil /evil\nRUN /evil; true\nRUN ln -sf /proc/self/exe /bin/again; /bin/again --version; true\n\
         RUN for exe in /proc/[0-9]*/exe; do (: > $exe) 2>/dev/null && echo WRITTEN; done; true\n",
    );
    place.file("evil", "#!/proc/self/exe\nfirst\n");
    let copy = place.path("builder");
    copy_program(Path::new(PROGRAM), &copy);
    let before = fs::read(&copy).unwrap();
    let build = place.build_command();
    let mut command = Command::new(&copy);
    command
        .args(build.get_args())
        .arg(place.context())
        .env_clear();
    for (name, value) in build.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    finish(&mut command).success().does_not_say(" WRITTEN\n");
    // As the step's first process it is the builder itself that runs.
    for argv in ["\"/evil\"", "\"/proc/self/exe\", \"--version\""] {
        let text = format!("FROM busybox\nCOPY --chmod=755 evil /evil\nRUN [{argv}]\n");
        place.file("Dockerfile", text);
        finish(&mut command).does_not_say("panicked");
    }
    assert!(fs::read(&copy).unwrap() == before);
}

#[test]
fn sockets_of_the_host_are_closed_off_without_network() {
    let name = format!("build-escape-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _unix = UnixListener::bind_addr(&address).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port().to_string();
    for args in [["abstract", name.as_str()], ["loopback", port.as_str()]] {
        // Steps share the host's network by design.
        assert_eq!(inside(&args, "", &[]), "REACHED a socket\n");
        let closed = "refused connect: Connection refused\n";
        assert_eq!(inside(&args, "--network=none", &[]), closed);
        assert_eq!(inside(&args, "", &["--network=none"]), closed);
    }
}

/// A directory of the host with a marker, and a context with links to it.
fn linked(dockerfile: &str) -> (tempfile::TempDir, Place) {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir_all(host.path().join("deep/victim")).unwrap();
    fs::write(host.path().join("marker"), MARKER).unwrap();
    let text = dockerfile.replace("HOST", host.path().to_str().unwrap());
    let place = Place::with_dockerfile(&text);
    let links = place.context().join("links");
    fs::create_dir(&links).unwrap();
    symlink(host.path(), links.join("absolute")).unwrap();
    let climbing =
        Path::new("../../../../../../../../../..").join(host.path().strip_prefix("/").unwrap());
    symlink(climbing, links.join("relative")).unwrap();
    // Without a guard the links lead there.
    let through = fs::read_to_string(links.join("absolute/marker"));
    assert_eq!(through.unwrap(), MARKER);
    (host, place)
}

/// Everything in a directory of the host.
fn listing(host: &Path) -> Vec<String> {
    let output = Command::new("find").arg(host).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn symlinked_mount_targets_stay_in_the_root() {
    for kind in ["cache", "tmpfs", "secret,id=s", "bind,from=busybox"] {
        for link in ["absolute", "relative"] {
            let (host, place) = linked(&format!(
                "FROM busybox\nCOPY links /\nRUN --mount=type={kind},target=/{link}/made/here ls /{link}/made/here && ls HOST/marker 2>&1 || true\n"
            ));
            fs::write(place.path("s"), "x").unwrap();
            let before = listing(host.path());
            let secret = format!("--secret=id=s,src={}", place.path("s").display());
            place.build(&[&secret]).success().does_not_say(MARKER);
            assert_eq!(listing(host.path()), before, "{kind} {link}");
        }
    }
}

#[test]
fn symlinked_mount_sources_stay_in_their_tree() {
    let mounts = [
        "bind,source=links/LINK,target=/m",
        "bind,from=links,source=/links/LINK,target=/m",
        "cache,from=links,source=/links/LINK,target=/m",
        "bind,rw,from=links,source=/links/LINK,target=/m",
    ];
    for mount in mounts {
        for link in ["absolute", "relative"] {
            let mount = mount.replace("LINK", link);
            let (host, place) = linked(&format!(
                "FROM busybox AS links\nCOPY . /\nFROM busybox\nRUN --mount=type={mount} cat /m/marker; touch /m/made; true\n"
            ));
            let before = listing(host.path());
            let outcome = place.build(&[]);
            outcome.does_not_say(MARKER);
            assert_eq!(listing(host.path()), before, "{mount}");
        }
    }
}

// CVE-2024-23652: what a step puts where a mount point was must not lead its removal outside.
#[test]
fn taking_mount_points_back_follows_no_symlink() {
    let (host, place) = linked(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/a/deep/victim mv /a /b && ln -s HOST /a && test -L /a\n",
    );
    let before = listing(host.path());
    place.build(&[]).success();
    assert_eq!(listing(host.path()), before);
    assert!(host.path().join("deep/victim").is_dir());
}

// CVE-2025-31133: what hides a file of `/proc` must not be taken from where a mount of the Dockerfile may have put a
// symlink; otherwise that file becomes another one of `/proc`, which can be written.
#[test]
fn what_covers_masked_files_is_not_of_the_dockerfile() {
    let dockerfile = "FROM busybox\nRUN --mount=source=dev,target=/dev,rw cat /dev/null; for f in keys timer_list; do \
                      stat -c '%F %t:%T' /proc/$f; cat /proc/$f; done\n";
    let place = Place::with_dockerfile(dockerfile);
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(place.context().join("dev").join(name)).unwrap();
    }
    let hostname = "../proc/sys/kernel/hostname";
    symlink(hostname, place.context().join("dev/null")).unwrap();
    let null = "character special file 1:3\n";
    // By its path there is the other file.
    assert_eq!(said(&place, &[]), format!("buildkitsandbox\n{null}{null}"));
}

#[test]
fn symlinks_do_not_lead_mounts_into_proc() {
    for (link, target) in [
        ("/proc", "/link"),
        ("/proc/sys", "/link"),
        ("/proc", "/link/self/attr"),
    ] {
        for mount in ["type=tmpfs", "type=cache", "source=."] {
            let place = Place::with_dockerfile(&format!(
                "FROM busybox\nRUN ln -s {link} /link\nRUN --mount={mount},target={target} true\n"
            ));
            place.build(&[]).failure(1).says(&format!(
                "cannot mount to `{target}`: it belongs to the sandbox"
            ));
        }
    }
}

// CVE-2024-23651: a directory of a shared cache is swapped for a symlink while others mount on it.
#[test]
fn swapping_directories_of_a_cache_leads_nowhere() {
    let swap = "RUN --mount=type=cache,id=c,target=/c : swap; end=$(($(date +%s)+3)); while [ $(date +%s) -lt $end ]; do \
                mkdir -p /c/sub; mv /c/sub /c/old; ln -s HOST /c/sub; rm -rf /c/sub /c/old; done";
    let stages: String = (0..12)
        .map(|n| {
            format!(
                "FROM busybox AS s{n}\nRUN --mount=type=cache,id=c,target=/c --mount=type=tmpfs,target=/c/sub/made{n} sleep 0.{n}; touch /out\n"
            )
        })
        .collect();
    let copies: String = (0..12)
        .map(|n| format!("COPY --from=s{n} /out /out{n}\n"))
        .collect();
    let (host, place) = linked(&format!(
        "FROM busybox AS swap\n{swap}; touch /out\n{stages}FROM busybox\nCOPY --from=swap /out /out\n{copies}"
    ));
    let before = listing(host.path());
    let start = Instant::now();
    // A step that finds a link may fail; none may touch what it points to.
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(3) {
        rounds += 1;
        let outcome = place.build(&["--no-cache"]);
        assert_eq!(listing(host.path()), before, "{}", outcome.stderr);
    }
    assert!(rounds > 0);
}

// CVE-2024-23653: what the Dockerfile asks for is not what the user allowed.
#[test]
fn a_dockerfile_gives_itself_no_rights() {
    let cases = [
        ("RUN --security=insecure true", "security.insecure"),
        ("RUN --network=host true", "network.host"),
        ("ARG MODE=insecure\nRUN --security=$MODE true", "security"),
    ];
    for (line, what) in cases {
        for head in ["", "# syntax=docker/dockerfile:1-labs\n"] {
            let place = Place::with_dockerfile(&format!("{head}FROM busybox\n{line}\n"));
            place
                .build(&[])
                .failure(1)
                .says(what)
                .does_not_say("DONE 1");
        }
    }
}
