//! What a step sees and what it leaves, in real sandboxes.
//!
//! Needs root and a static busybox (`apt-get install busybox-static`).
#![expect(clippy::unwrap_used, reason = "a test stops at its first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use builder::sandbox::rung::{self, Choice, Inside};
use builder::sandbox::spec::{
    Access, Content, MountSource, Network, Process, Rootfs, Scratch, Security, SpecMount, Ulimit,
};
use builder::sandbox::{
    Cancel, Exit, ExitStatus, HostOptions, Rung, SandboxError, SandboxHost, SandboxSpec, Stream,
};

use crate::support::copy_program;

const PROGRAM: &str = env!("CARGO_BIN_EXE_builder");
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "true", "false", "id", "ls", "stat", "mount", "hostname", "grep", "sleep",
    "mkdir", "rm", "touch", "mknod", "head", "wc", "pwd", "env", "kill", "readlink", "awk", "test",
    "df", "find", "sort", "chmod", "cut", "ip", "ps", "yes", "dd", "tail", "rmdir", "unshare",
    "date", "ln", "setsid",
];

/// A base layer: busybox, passwd, group.
fn base() -> &'static Path {
    static BASE: OnceLock<tempfile::TempDir> = OnceLock::new();
    BASE.get_or_init(|| {
        assert!(
            Path::new(BUSYBOX).exists(),
            "these tests need a static busybox: apt-get install busybox-static"
        );
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["bin", "etc", "tmp", "root", "home", "dev", "proc", "sys"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        copy_program(Path::new(BUSYBOX), &root.join("bin/busybox"));
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/home:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        let group = "root:x:0:\nwww:x:33:\ng1:x:801:www\ng2:x:802:\n";
        fs::write(root.join("etc/group"), group).unwrap();
        temp
    })
    .path()
}

/// A host and a fresh upper directory.
struct Bench {
    runs: AtomicU32,
    host: SandboxHost,
    dir: tempfile::TempDir,
    spec: SandboxSpec,
}

/// What came of a command.
#[derive(Debug)]
struct Ran {
    exit: Exit,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.exit.status, ExitStatus::Code(0), "{self:?}");
        self.stdout
    }
}

impl Bench {
    fn new() -> Self {
        Self::with_lowers(vec![base().to_owned()])
    }

    fn with_lowers(lowers: Vec<PathBuf>) -> Self {
        Self::at(Rung::Root, lowers)
    }

    fn at(rung: Rung, lowers: Vec<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["u", "w"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::set_permissions(dir.path().join("u"), fs::Permissions::from_mode(0o755)).unwrap();
        let rootfs = Rootfs {
            dir: dir.path().to_owned(),
            lowers,
            upper: "u".into(),
            work: "w".into(),
        };
        let process = Process {
            args: Vec::new(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: "/".into(),
            user: String::new(),
        };
        let host = SandboxHost::start(&HostOptions {
            program: PROGRAM.into(),
            rung,
        });
        Self {
            runs: AtomicU32::new(0),
            host: host.unwrap(),
            dir,
            spec: SandboxSpec::new(rootfs, process),
        }
    }

    fn upper(&self) -> PathBuf {
        self.dir.path().join("u")
    }

    fn try_run(&self) -> Result<Ran, SandboxError> {
        self.run_with(&Cancel::new().unwrap())
    }

    fn run_with(&self, cancel: &Cancel) -> Result<Ran, SandboxError> {
        // A volatile overlay may not be mounted again; a step never reuses one.
        let mut spec = self.spec.clone();
        let runs = self.runs.fetch_add(1, Ordering::Relaxed);
        spec.rootfs.work = self.dir.path().join(format!("w{runs}"));
        fs::create_dir(&spec.rootfs.work).unwrap();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let exit = self.host.run(&spec, &[], cancel, &mut |stream, bytes| {
            match stream {
                Stream::Stdout => &mut stdout,
                Stream::Stderr => &mut stderr,
            }
            .extend_from_slice(bytes);
        })?;
        Ok(Ran {
            exit,
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        })
    }

    #[track_caller]
    fn args(&mut self, args: &[&str]) -> Ran {
        self.spec.process.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.try_run().unwrap()
    }

    #[track_caller]
    fn sh(&mut self, script: &str) -> Ran {
        self.args(&["sh", "-c", script])
    }

    fn mount(&mut self, target: &str, source: MountSource) -> &mut Self {
        self.spec.mounts.push(SpecMount {
            target: target.into(),
            source,
        });
        self
    }

    /// Everything in the upper directory, with its type.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut pending = vec![self.upper()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.symlink_metadata().unwrap().is_dir() {
                    pending.push(path.clone());
                }
                let relative = path.strip_prefix(self.upper()).unwrap().to_owned();
                left.push(relative.display().to_string());
            }
        }
        left.sort();
        left
    }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn privileges() {
    let mut bench = Bench::new();
    let status = bench
        .sh("grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Groups)' /proc/self/status")
        .ok();
    let expected = "Uid:\t0\t0\t0\t0\nGroups:\t0 \nCapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\n\
        CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n";
    assert_eq!(status, expected);
    bench.spec.process.user = "www".into();
    let status = bench
        .sh("grep -E '^(CapPrm|CapBnd|Uid|Gid|Groups)' /proc/self/status")
        .ok();
    let expected = "Uid:\t33\t33\t33\t33\nGid:\t33\t33\t33\t33\nGroups:\t33 801 \nCapPrm:\t0000000000000000\n\
        CapBnd:\t00000000a80425fb\n";
    assert_eq!(status, expected);
}

#[test]
fn what_is_denied_and_what_is_not() {
    let mut bench = Bench::new();
    let out = bench
        .sh(
            "mkdir /m; mount -t tmpfs none /m 2>/dev/null && echo mounted || echo no mount
            unshare -m true 2>/dev/null && echo unshared || echo no unshare
            hostname zzz 2>/dev/null && echo named || echo no name
            mknod /tmp/z c 1 5 && head -c 3 /tmp/z | wc -c
            mknod /tmp/mem c 1 1 && { head -c 1 /tmp/mem 2>/dev/null | wc -c; }
            echo 1 2>/dev/null > /proc/sys/kernel/panic || echo ro proc
            echo 1 2>/dev/null > /sys/kernel/mm/x || echo ro sys",
        )
        .ok();
    assert_eq!(
        out,
        "no mount\nno unshare\nno name\n3\n0\nro proc\nro sys\n"
    );
}

#[test]
fn an_insecure_step_may_mount() {
    let mut bench = Bench::new();
    bench.spec.security = Security::Insecure;
    let out = bench
        .sh("mkdir /m; mount -t tmpfs none /m && echo mounted; grep Seccomp: /proc/self/status
            mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem 2>/dev/null >/dev/null; test -e /dev/null && echo null")
        .ok();
    assert_eq!(out, "mounted\nSeccomp:\t0\nnull\n");
}

#[test]
fn names_and_files_of_the_system() {
    let mut bench = Bench::new();
    bench.spec.extra_hosts = vec![("db".into(), "10.1.2.3".into())];
    bench.spec.resolv_conf = b"nameserver 192.0.2.1\n".to_vec();
    let out = bench
        .sh("hostname; cat /etc/hosts /etc/resolv.conf; umask; echo x 2>/dev/null > /etc/hosts || echo ro
            awk '{print $1==$6, $7}' /proc/$$/stat; (: < /dev/tty) 2>/dev/null || echo notty
            echo $$; cat; ls /proc/self/fd | grep -v 3 | sort | tail -n 1; cat /proc/self/oom_score_adj")
        .ok();
    let expected = "buildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n\
        10.1.2.3\tdb\nnameserver 192.0.2.1\n0022\nro\n1 0\nnotty\n1\n2\n0\n";
    assert_eq!(out, expected);
    assert_eq!(bench.left(), ["etc"]);
    let (ours, theirs) = (bench.upper().join("etc"), base().join("etc"));
    let time = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.mtime(), found.mtime_nsec())
    };
    assert_eq!(time(&ours), time(&theirs));
}

#[test]
fn devices() {
    let mut bench = Bench::new();
    let out = bench
        .sh("for d in null zero full random urandom tty; do stat -c '%n %F %a %t:%T %u:%g' /dev/$d; done
            for l in fd stdin stdout stderr ptmx core; do echo \"$l $(readlink /dev/$l)\"; done
            df -k /dev/shm | awk 'NR==2{print $2}'; stat -c %a /dev/shm; test -d /dev/mqueue && echo mqueue; ls /dev/pts; echo x > /dev/null")
        .ok();
    let expected = "/dev/null character special file 666 1:3 0:0\n/dev/zero character special file 666 1:5 0:0\n\
        /dev/full character special file 666 1:7 0:0\n/dev/random character special file 666 1:8 0:0\n\
        /dev/urandom character special file 666 1:9 0:0\n/dev/tty character special file 666 5:0 0:0\n\
        fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\nptmx pts/ptmx\ncore \n\
        65536\n1777\nmqueue\nptmx\n";
    assert_eq!(out, expected);
}

#[test]
fn mounts_as_the_step_sees_them() {
    let mut bench = Bench::new();
    let out = bench.sh("cat /proc/self/mountinfo").ok();
    let mut mounts = BTreeMap::new();
    for line in out.lines() {
        let mut fields = line.split(' ').skip(4);
        let target = fields.next().unwrap().to_owned();
        let options = fields.next().unwrap().to_owned();
        let kind = line
            .split(" - ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        mounts.insert(target, (kind, options));
    }
    let cases = [
        ("/", "overlay", "rw,relatime"),
        ("/proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
        ("/dev", "tmpfs", "rw,nosuid,relatime"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec,relatime"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec,relatime"),
        ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec,relatime"),
        ("/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime"),
        ("/etc/hosts", "tmpfs", "ro,nosuid,nodev,noexec,relatime"),
        (
            "/etc/resolv.conf",
            "tmpfs",
            "ro,nosuid,nodev,noexec,relatime",
        ),
        ("/proc/sys", "proc", "ro,nosuid,nodev,noexec,relatime"),
    ];
    for (target, kind, options) in cases {
        let found = mounts
            .get(target)
            .map(|(kind, options)| (kind.as_str(), options.as_str()));
        assert_eq!(found, Some((kind, options)), "{target}");
    }
    if let Some((_, options)) = mounts.get("/sys/fs/cgroup") {
        assert!(options.starts_with("ro,"), "{options}");
    }
    let out = bench
        .sh("wc -c < /proc/keys; ls /sys/firmware | wc -l; wc -c < /proc/timer_list")
        .ok();
    assert_eq!(out, "0\n0\n0\n");
    assert!(!mounts.keys().any(|target| target.contains("work")));
}

#[test]
fn environment_and_home() {
    let mut bench = Bench::new();
    bench.spec.process.env = env(&[("PATH", "/bin"), ("B", "2"), ("A", "1")]);
    assert_eq!(
        bench.args(&["env"]).ok(),
        "PATH=/bin\nB=2\nA=1\nHOME=/root\n"
    );
    for (user, home) in [
        ("33", "/home"),
        ("999", "/"),
        ("1234:5", "/"),
        ("", "/root"),
    ] {
        bench.spec.process.user = user.into();
        assert_eq!(bench.sh("echo $HOME").ok(), format!("{home}\n"), "{user}");
    }
    bench.spec.process.env = env(&[("PATH", "/bin"), ("HOME", "/set")]);
    assert_eq!(bench.sh("echo $HOME").ok(), "/set\n");
}

#[test]
fn users() {
    let mut bench = Bench::new();
    let cases = [
        ("", "0 0"),
        ("www", "33 33 801"),
        ("33", "33 33 801"),
        ("www:g2", "33 802"),
        (":50", "0 50"),
        ("1234:2345", "1234 2345"),
    ];
    for (user, expected) in cases {
        bench.spec.process.user = user.into();
        let out = bench.sh("echo $(id -u) $(id -G)").ok();
        assert_eq!(out.trim(), expected, "{user}");
    }
    bench.spec.process.user = "ghost".into();
    let error = bench.try_run().unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to find user ghost: no matching entries in passwd file"
    );
    bench.spec.process.user = "www".into();
    assert_eq!(
        bench
            .sh("echo out > /dev/stdout; echo x > /dev/stderr")
            .ok(),
        "out\n"
    );
}

#[test]
fn working_directories() {
    let mut bench = Bench::new();
    bench.spec.process.cwd = "/made/deep".into();
    bench.spec.process.user = "1234:2345".into();
    assert_eq!(
        bench.sh("pwd; stat -c '%a %u:%g' /made /made/deep").ok(),
        "/made/deep\n755 1234:2345\n755 1234:2345\n"
    );
    assert_eq!(bench.left(), ["etc", "made", "made/deep"]);
    bench.spec.process.user = String::new();
    bench.spec.process.cwd = "/".into();
    bench.sh("mkdir /real && ln -s /real /link").ok();
    bench.spec.process.cwd = "/link/sub".into();
    assert_eq!(bench.sh("pwd -P").ok(), "/real/sub\n");
}

#[test]
fn exit_codes_and_signals() {
    let mut bench = Bench::new();
    assert_eq!(bench.sh("exit 42").exit.status, ExitStatus::Code(42));
    assert_eq!(bench.sh("kill -9 $$; echo alive").ok(), "alive\n");
    assert_eq!(
        bench.sh("sh -c 'kill -11 $$'; exit $?").exit.status,
        ExitStatus::Code(139)
    );
    assert_eq!(
        bench.sh("yes | head -n 1; echo ${PIPESTATUS:-}").ok(),
        "y\n\n"
    );
}

#[test]
fn programs_that_cannot_be_started() {
    let mut bench = Bench::new();
    fs::write(bench.upper().join("data"), "text").unwrap();
    let prefix = "runc run failed: unable to start container process: exec: ";
    let cases = [
        ("x", "\"x\": executable file not found in $PATH\n"),
        (
            "/no/such",
            "\"/no/such\": stat /no/such: no such file or directory\n",
        ),
        ("/data", "\"/data\": permission denied\n"),
    ];
    for (name, text) in cases {
        let ran = bench.args(&[name, "arg"]);
        assert_eq!(ran.exit.status, ExitStatus::Code(1));
        assert_eq!(ran.stderr, format!("{prefix}{text}"));
    }
    fs::set_permissions(
        bench.upper().join("data"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let ran = bench.args(&["/data"]);
    assert_eq!(ran.exit.status, ExitStatus::Code(255));
    assert_eq!(ran.stderr, "exec /data: exec format error\n");
}

#[test]
fn a_bare_root_keeps_its_system_directories_only() {
    let mut bench = Bench::with_lowers(Vec::new());
    copy_program(Path::new(BUSYBOX), &bench.upper().join("sh"));
    bench.mount("/run/secrets/x", secret(b"s", 0o400));
    assert_eq!(
        bench.args(&["/sh", "-c", "exit 0"]).exit.status,
        ExitStatus::Code(0)
    );
    assert_eq!(bench.left(), ["dev", "proc", "sh", "sys"]);
    for name in ["dev", "proc", "sys"] {
        let mode = fs::metadata(bench.upper().join(name)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }
}

fn secret(data: &[u8], mode: u32) -> MountSource {
    MountSource::File {
        data: Content(data.to_vec()),
        mode,
        uid: 33,
        gid: 7,
    }
}

fn bind(path: &Path, subpath: &str, access: Access) -> MountSource {
    MountSource::Bind {
        path: path.to_owned(),
        subpath: subpath.into(),
        access,
    }
}

#[test]
fn binds_secrets_and_tmpfs() {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir_all(host.path().join("d/in")).unwrap();
    fs::write(host.path().join("d/f"), "file").unwrap();
    symlink("/d", host.path().join("l")).unwrap();
    let mut bench = Bench::new();
    bench
        .mount("/n/in", bind(host.path(), "/l", Access::ReadOnly))
        .mount(
            "/n",
            MountSource::Tmpfs {
                size: Some(1 << 20),
                mode: None,
            },
        )
        .mount("/file/deep", bind(host.path(), "d/f", Access::ReadOnly))
        .mount(
            "/cache",
            bind(&host.path().join("d"), "", Access::ReadWrite),
        )
        .mount("/run/secrets/tok", secret(b"s\xffcret", 0o440))
        .mount(
            "/tmp",
            MountSource::Tmpfs {
                size: None,
                mode: None,
            },
        )
        .mount(
            "/root",
            MountSource::Tmpfs {
                size: None,
                mode: Some(0o711),
            },
        );
    let out = bench
        .sh("cat /n/in/f; echo; cat /file/deep; echo; touch /n/in/x 2>/dev/null || echo ro; touch /cache/new
            stat -c '%a %u:%g %s' /run/secrets/tok; stat -c '%a %u:%g' /run /run/secrets
            stat -c %a /n /tmp /root; df -k /n | awk 'NR==2{print $2}'; rm /run/secrets/tok 2>/dev/null || echo busy")
        .ok();
    assert_eq!(
        out,
        "file\nfile\nro\n440 33:7 6\n755 0:0\n755 0:0\n1777\n1777\n711\n1024\nbusy\n"
    );
    assert_eq!(bench.left(), ["etc"]);
    assert!(host.path().join("d/new").exists());
    let what = bench.sh("echo x > /n/f; mkdir -p /run/kept").exit;
    assert_eq!(what.kept_stubs, [Path::new("/run")]);
    assert_eq!(bench.left(), ["etc", "run", "run/kept"]);
}

#[test]
fn a_missing_source_is_named() {
    let host = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    bench.mount("/m", bind(host.path(), "/no/such", Access::ReadOnly));
    bench.spec.process.args = vec!["true".into()];
    let error = bench.try_run().unwrap_err().to_string();
    assert!(
        error.contains("/no/such: no such file or directory"),
        "{error}"
    );
}

#[test]
fn layers_as_mounts() {
    let host = tempfile::tempdir().unwrap();
    for (dir, file) in [("a", "one"), ("b", "two")] {
        fs::create_dir_all(host.path().join(dir).join("sub")).unwrap();
        fs::write(host.path().join(dir).join("sub").join(file), dir).unwrap();
    }
    for name in ["su", "sw"] {
        fs::create_dir(host.path().join(name)).unwrap();
    }
    let layers = |lowers: &[&str], scratch: Option<Scratch>, subpath: &str| MountSource::Overlay {
        dir: host.path().to_owned(),
        lowers: lowers.iter().map(PathBuf::from).collect(),
        scratch,
        subpath: subpath.into(),
    };
    let scratch = Scratch {
        upper: "su".into(),
        work: "sw".into(),
    };
    let mut bench = Bench::new();
    bench
        .mount("/both", layers(&["a", "b"], None, "sub"))
        .mount("/one", layers(&["a"], None, ""))
        .mount("/none", layers(&[], None, ""))
        .mount("/rw", layers(&["b"], Some(scratch), "/sub"));
    let out = bench
        .sh("ls /both /one /none /rw; echo new > /rw/new && cat /rw/new; touch /both/x 2>/dev/null || echo ro")
        .ok();
    assert_eq!(
        out,
        "/both:\none\ntwo\n\n/none:\n\n/one:\nsub\n\n/rw:\ntwo\nnew\nro\n"
    );
    assert!(host.path().join("su/sub/new").exists());
    assert!(!host.path().join("b/sub/new").exists());
}

#[test]
fn two_hundred_layers() {
    let store = tempfile::tempdir().unwrap();
    let mut lowers = Vec::new();
    for index in 0..200 {
        let name = format!("{index:064}");
        fs::create_dir(store.path().join(&name)).unwrap();
        fs::write(store.path().join(&name).join(format!("f{index}")), "").unwrap();
        lowers.push(PathBuf::from(name));
    }
    lowers.push(base().to_owned());
    let mut bench = Bench::with_lowers(lowers);
    bench.spec.rootfs.dir = store.path().to_owned();
    bench.spec.rootfs.upper = bench.upper();
    bench.spec.rootfs.work = bench.dir.path().join("w");
    assert_eq!(bench.sh("ls -d /f* | wc -l").ok(), "200\n");
}

#[test]
fn limits() {
    let mut bench = Bench::new();
    bench.spec.limits.ulimits = vec![
        Ulimit {
            name: "nofile".into(),
            soft: 512,
            hard: 1024,
        },
        Ulimit {
            name: "core".into(),
            soft: 0,
            hard: 0,
        },
        Ulimit {
            name: "cpu".into(),
            soft: -1,
            hard: -1,
        },
    ];
    bench.spec.limits.shm_size = Some(8 << 20);
    let out = bench
        .sh("ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -St; df -k /dev/shm | awk 'NR==2{print $2}'")
        .ok();
    assert_eq!(out, "512\n1024\n0\nunlimited\n8192\n");
    bench.spec.limits.ulimits = vec![Ulimit {
        name: "nonsense".into(),
        soft: 1,
        hard: 1,
    }];
    assert_eq!(
        bench.try_run().unwrap_err().to_string(),
        "unknown ulimit `nonsense`"
    );
}

#[test]
fn out_of_memory() {
    let mut bench = Bench::new();
    bench.spec.limits.resources.memory = Some(16 << 20);
    let exit = bench
        .sh("dd if=/dev/zero of=/dev/null bs=200M count=1; echo survived; sleep 0")
        .exit;
    assert!(exit.is_oom_killed, "{exit:?}");
    bench.spec.limits.resources.memory = Some(512 << 20);
    assert!(!bench.sh("true").exit.is_oom_killed);
}

#[test]
fn networks() {
    let mut bench = Bench::new();
    let host = fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(
        bench.sh("ls /sys/class/net | wc -l").ok().trim(),
        host.to_string()
    );
    bench.spec.network = Network::None;
    let out = bench
        .sh("tail -n +3 /proc/net/dev | cut -d: -f1; ip -o link show lo | grep -c LOOPBACK,UP")
        .ok();
    assert_eq!(out, "    lo\n1\n");
}

#[test]
fn hostile_images() {
    for (name, target) in [("proc", "/etc"), ("dev", "/etc"), ("sys", "/etc")] {
        let mut bench = Bench::with_lowers(Vec::new());
        symlink(target, bench.upper().join(name)).unwrap();
        bench.spec.process.args = vec!["/x".into()];
        let error = bench.try_run().unwrap_err().to_string();
        assert!(
            error.ends_with(&format!(
                "`/{name}` of the image is not an ordinary directory"
            )),
            "{error}"
        );
    }
    let outside = tempfile::tempdir_in("/tmp").unwrap();
    let mut bench = Bench::new();
    symlink(outside.path(), bench.upper().join("out")).unwrap();
    symlink("../../../../../..", bench.upper().join("up")).unwrap();
    fs::create_dir(bench.upper().join("etc")).unwrap();
    symlink("/real/hosts", bench.upper().join("etc/hosts")).unwrap();
    symlink(
        "../../../../../run/resolv",
        bench.upper().join("etc/resolv.conf"),
    )
    .unwrap();
    let empty = || MountSource::Tmpfs {
        size: None,
        mode: None,
    };
    bench.mount("/out/m", empty()).mount("/up/n", empty());
    let out = bench
        .sh("test -d /n && echo n; grep -c localhost /real/hosts; test -e /run/resolv && echo r")
        .ok();
    assert_eq!(out, "n\n2\nr\n");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!Path::new("/real").exists() && !Path::new("/n").exists());
    assert_eq!(
        bench.left(),
        ["etc", "etc/hosts", "etc/resolv.conf", "out", "tmp", "up"]
    );
}

#[test]
fn a_passwd_that_never_ends_is_refused() {
    let mut bench = Bench::with_lowers(vec![base().to_owned()]);
    fs::create_dir(bench.upper().join("etc")).unwrap();
    let made = Command::new("mkfifo")
        .arg(bench.upper().join("etc/passwd"))
        .status();
    assert!(made.unwrap().success());
    bench.spec.process.args = vec!["true".into()];
    let error = bench.try_run().unwrap_err().to_string();
    assert_eq!(error, "cannot read `/etc/passwd`: invalid argument");
}

/// Whether a process with this word in its command line runs.
fn runs(word: &str) -> bool {
    fs::read_dir("/proc").unwrap().any(|entry| {
        let path = entry.unwrap().path().join("cmdline");
        fs::read(path).is_ok_and(|line| {
            line.split(|byte| *byte == 0)
                .any(|arg| arg == word.as_bytes())
        })
    })
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(2), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn cancelling_kills_everything() {
    let mut bench = Bench::new();
    bench.spec.process.args = ["sh", "-c", "setsid sleep 76543 & sleep 76543"]
        .map(String::from)
        .to_vec();
    let cancel = Cancel::new().unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| bench.run_with(&cancel).unwrap_err());
        eventually("starts", || runs("76543"));
        cancel.cancel();
        assert!(matches!(running.join().unwrap(), SandboxError::Cancelled));
    });
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(!runs("76543"));
    assert!(matches!(
        bench.run_with(&cancel),
        Err(SandboxError::Cancelled)
    ));
}

#[test]
fn background_processes_die_with_the_command() {
    let mut bench = Bench::new();
    let start = Instant::now();
    assert_eq!(bench.sh("sleep 65432 & echo started").ok(), "started\n");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!runs("65432"));
}

#[test]
fn locks_end_with_the_step_and_never_reach_it() {
    let mut bench = Bench::new();
    let lock = tempfile::tempfile().unwrap();
    bench.spec.process.args = ["sh", "-c", "ls /proc/self/fd | wc -l"]
        .map(String::from)
        .to_vec();
    let mut out = Vec::new();
    bench
        .host
        .run(
            &bench.spec,
            &[lock.as_fd()],
            &Cancel::new().unwrap(),
            &mut |_, bytes| out.extend_from_slice(bytes),
        )
        .unwrap();
    assert_eq!(out, b"4\n");
}

#[test]
fn the_program_itself_cannot_be_written_through_proc() {
    let temp = tempfile::tempdir().unwrap();
    let program = temp.path().join("builder");
    copy_program(Path::new(PROGRAM), &program);
    let host = SandboxHost::start(&HostOptions {
        program: program.clone(),
        rung: Rung::Root,
    });
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut exes = processes.map(|entry| entry.path().join("exe"));
    let wanted = fs::metadata(&program).unwrap().ino();
    let exe = exes.find(|exe| fs::metadata(exe).is_ok_and(|found| found.ino() == wanted));
    let opened = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(exe.unwrap());
    assert_eq!(
        opened.unwrap_err().kind(),
        std::io::ErrorKind::ReadOnlyFilesystem
    );
    drop(host.unwrap());
}

#[test]
fn many_at_once() {
    let host = SandboxHost::start(&HostOptions {
        program: PROGRAM.into(),
        rung: Rung::Root,
    })
    .unwrap();
    std::thread::scope(|scope| {
        for index in 0..16 {
            let host = &host;
            scope.spawn(move || {
                let mut bench = Bench::new();
                let script = format!("echo {index}; touch /made; head -c 300000 /dev/zero | wc -c");
                bench.spec.process.args = vec!["sh".into(), "-c".into(), script];
                let mut out = Vec::new();
                let exit = host.run(
                    &bench.spec,
                    &[],
                    &Cancel::new().unwrap(),
                    &mut |_, bytes| {
                        out.extend_from_slice(bytes);
                    },
                );
                assert_eq!(exit.unwrap().status, ExitStatus::Code(0));
                assert_eq!(out, format!("{index}\n300000\n").as_bytes());
                assert_eq!(bench.left(), ["etc", "made"]);
            });
        }
    });
}

/// Does what a builder does that is killed: run by a child process of the tests below.
#[test]
#[ignore = "run by other tests"]
fn as_child_run_until_killed() {
    let mut bench = Bench::new();
    let exit = bench.sh("setsid sleep 54321 & sleep 54321").exit;
    panic!("the step ended: {exit:?}");
}

/// Enters a user namespace and runs [`as_child_inside`] there: run by an unprivileged user.
#[test]
#[ignore = "run by other tests"]
fn as_child_enter() {
    let Choice::Enter(entry) = rung::detect(None).unwrap() else {
        panic!("runs as root");
    };
    let args = [
        "suite",
        "--ignored",
        "--exact",
        "sandbox::as_child_inside",
        "--nocapture",
    ];
    let mut inside = Inside::new(args.map(Into::into).to_vec(), Vec::new());
    inside.starter = PROGRAM.into();
    inside.program = std::env::current_exe().unwrap();
    panic!("{}", entry.enter(&inside));
}

/// What holds for a step at the second rung.
#[test]
#[ignore = "run by other tests"]
fn as_child_inside() {
    let choice = rung::detect(None).unwrap();
    assert_eq!(choice, Choice::Ready(Rung::UserNamespace));
    let mut bench = Bench::at(Rung::UserNamespace, vec![base().to_owned()]);
    rung::probe(&bench.host, bench.dir.path()).unwrap();
    bench.mount("/run/secrets/tok", secret(b"s", 0o400));
    let out = bench
        .sh("grep -E '^(CapBnd|NoNewPrivs|Seccomp:)' /proc/self/status
            touch /own && chmod 640 /own; echo 1 > /dev/null; head -c 2 /dev/zero | wc -c; ls /dev/pts
            mknod /tmp/z c 1 5 2>/dev/null || echo no mknod; test -d /sys/kernel && echo sys; touch /sys/x 2>/dev/null || echo ro
            stat -c '%a %u:%g' /run/secrets/tok; hostname; test -c /dev/tty && echo tty; rm -rf /home; ls /home 2>/dev/null || echo gone
            ls /sys/fs/cgroup | wc -l")
        .ok();
    let expected = "CapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n2\nptmx\nno mknod\nsys\nro\n400 33:7\n\
        buildkitsandbox\ntty\ngone\n0\n";
    assert_eq!(out, expected);
    bench.spec.process.user = "www".into();
    assert_eq!(
        bench
            .sh("id -u; id -G; touch /tmp/x && stat -c %u /tmp/x")
            .ok(),
        "33\n33 801\n33\n"
    );
    bench.spec.network = Network::None;
    assert_eq!(
        bench
            .sh("tail -n +3 /proc/net/dev | wc -l; ls /sys/class/net")
            .ok(),
        "1\nlo\n"
    );
    bench.spec.limits.resources.memory = Some(1 << 30);
    let error = bench.try_run().unwrap_err().to_string();
    assert!(
        error.starts_with("not supported yet: limiting memory"),
        "{error}"
    );
}

const UNPRIVILEGED: &str = "build-sandbox-test";

#[test]
fn an_unprivileged_user_with_subordinate_ids() {
    let id = |flag| {
        let out = Command::new("id")
            .args([flag, UNPRIVILEGED])
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    if id("-u").is_empty() {
        let made = Command::new("useradd")
            .args(["--no-create-home", UNPRIVILEGED])
            .status();
        assert!(made.unwrap().success(), "useradd");
    }
    let subordinate = fs::read_to_string("/etc/subuid").unwrap_or_default();
    if !subordinate
        .lines()
        .any(|line| line.starts_with(UNPRIVILEGED))
    {
        let ranges = [
            "--add-subuids",
            "700000-765535",
            "--add-subgids",
            "700000-765535",
        ];
        let made = Command::new("usermod")
            .args(ranges)
            .arg(UNPRIVILEGED)
            .status();
        assert!(made.unwrap().success(), "usermod");
    }
    let temp = tempfile::tempdir_in("/tmp").unwrap();
    let (uid, gid) = (id("-u"), id("-g"));
    std::os::unix::fs::chown(temp.path(), uid.parse().ok(), gid.parse().ok()).unwrap();
    let ran = Command::new("setpriv")
        .args(["--reuid", &uid, "--regid", &gid, "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "sandbox::as_child_enter",
            "--nocapture",
        ])
        .env("TMPDIR", temp.path())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(
        ran.status.success() && out.contains("1 passed"),
        "{out}\n{err}"
    );
    // What it left belongs to subordinate ids.
    drop(fs::remove_dir_all(temp.path()));
}

#[test]
fn a_store_that_cannot_hold_changes_is_named() {
    let bench = Bench::new();
    rung::probe(&bench.host, bench.dir.path()).unwrap();
    let error = rung::probe(&bench.host, Path::new("/proc")).unwrap_err();
    assert_eq!(error.to_string(), "cannot try a step in `/proc`");
}

#[test]
fn a_step_does_not_outlive_the_builder() {
    let mut builder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "sandbox::as_child_run_until_killed"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("starts", || runs("54321"));
    builder.kill().unwrap();
    builder.wait().unwrap();
    let start = Instant::now();
    eventually("step gone", || !runs("54321"));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_trivial_step_is_fast() {
    const ROUNDS: u32 = 50;
    let second = tempfile::tempdir().unwrap();
    let mut bench = Bench::with_lowers(vec![second.path().to_owned(), base().to_owned()]);
    bench.args(&["true"]).ok();
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            bench.args(&["true"]).ok();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "a trivial step: median {:?}, best {:?}, worst {:?}",
        times[25], times[0], times[49]
    );
    assert!(times[25] < Duration::from_millis(100), "{:?}", times[25]);
}

#[test]
fn nothing_is_left_in_the_cgroup_hierarchy() {
    let mut bench = Bench::new();
    let parent = format!("build-test-{}", std::process::id());
    bench.spec.limits.cgroup_parent = Some(parent.clone());
    bench.sh("true").ok();
    drop(bench);
    let hierarchies = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    for hierarchy in hierarchies {
        let dir = Path::new(hierarchy).join(&parent);
        if dir.exists() {
            let groups = fs::read_dir(&dir).unwrap().filter_map(Result::ok);
            let groups: Vec<_> = groups.filter(|entry| entry.path().is_dir()).collect();
            assert!(groups.is_empty(), "{groups:?}");
            fs::remove_dir(&dir).unwrap();
        }
    }
}
