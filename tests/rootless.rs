//! Builds by an ordinary user with subordinate ids: the same bytes as root's, and the ways in and out of its user namespace.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::process::{Running, assert_nothing_mounted, assert_nothing_runs};
use crate::support::user::User;
use crate::support::{Place, finish, layout, wait_until};

/// Projects whose layers show owners, modes, links, deletions and attributes. Each base is the small one.
const PROJECTS: [(&str, &str); 13] = [
    (
        "a user of its own",
        "RUN adduser -D -u 1500 app && mkdir /srv && chown app:app /srv && sed -i '/^app:/s/:[0-9]*:0:99999/:0:0:99999/' /etc/shadow || true
USER app
WORKDIR /srv/work
RUN id -u > id && mkdir sub && umask 077 && echo x > sub/private
COPY --chown=app:0 a mine",
    ),
    (
        "set-id bits and sticky directories",
        "RUN cp /bin/busybox /bin/su2 && chmod 4755 /bin/su2 && mkdir /g /s && chown 7:8 /g && chmod 2775 /g && chmod 1777 /s && touch /g/in
RUN chown 9:9 /bin/su2 && chmod 6711 /bin/su2",
    ),
    (
        "archives with owners",
        "RUN mkdir -p /t/d && echo 1 > /t/d/f && chown -R 33:44 /t && chmod 700 /t/d && touch -d @1000000000 /t/d/f /t/d && tar -C /t -cf /a.tar d && rm -r /t
RUN mkdir /u && tar -C /u -xpf /a.tar && rm /a.tar",
    ),
    (
        "a directory replaced by another",
        "RUN mkdir -p /d/one/two/three && echo deep > /d/one/two/three/f && echo top > /d/f && chown -R 5:6 /d
RUN rm -r /d && mkdir -p /d/one/two && echo new > /d/one/two/g
RUN rm -r /d/one && echo file > /d/one",
    ),
    (
        "hard links across directories",
        "RUN mkdir /x /y && echo 1 > /x/f && ln /x/f /y/f && ln /x/f /x/g && mkfifo /x/p && ln /x/p /y/p
RUN echo 2 >> /y/f
RUN rm /x/f && ln /y/f /z",
    ),
    (
        "deletions of the base",
        "RUN rm /bin/zcat /usr/bin/env && rm -r /home && mkdir /home && mv /tmp /tmp2",
    ),
    (
        "copies of all kinds",
        "COPY --chown=1:2 --chmod=0604 a /c/a
COPY dir /c/dir/
COPY --link a /l/a
COPY <<EOT /here
text
EOT
ADD packed.tar /unpacked/",
    ),
    (
        "mounts that leave nothing",
        "RUN --mount=type=cache,target=/cache,uid=5 --mount=type=tmpfs,target=/scratch --mount=type=bind,target=/ctx \
cp /ctx/a /cache/a && cp /cache/a /scratch/b && cp /scratch/b /made && stat -c %u:%g /cache > /owner
RUN --mount=type=cache,target=/cache,uid=5 cat /cache/a > /again",
    ),
    (
        "stages",
        "RUN mkdir /o && echo s > /o/s && chown 11:12 /o/s && ln -s s /o/l && chmod 2750 /o
FROM base
COPY --from=0 /o /copied
RUN --mount=from=base,target=/other ls /other/bin > /seen && touch /copied/new",
    ),
    (
        "from scratch",
        "RUN mkdir -p /r/bin && cp /bin/busybox /r/bin/sh
FROM scratch
COPY --from=0 /r /
RUN echo here > /x",
    ),
    (
        "names and sizes",
        "RUN echo 1 > '/a b' && echo 2 > /$(printf '\\303\\251') && truncate -s 1000000 /zeroes && : > /empty && i=0; \
while [ $i -lt 200 ]; do echo $i > /$(printf %0100d $i); i=$((i+1)); done",
    ),
    (
        "capabilities of files",
        "ADD packed.tar /p/
RUN chmod 0711 /p/capable
RUN chown 3:3 /p/plain",
    ),
    (
        "working directories and users by number",
        "WORKDIR /w/x
USER 2000:3000
WORKDIR y
RUN id -u > /tmp/u; id -g > /tmp/g; touch /tmp/t",
    ),
];

fn place(text: &str) -> Place {
    let place = Place::with_dockerfile(&format!("FROM busybox AS base\n{text}\n"));
    place.file("a", "a\n").file("dir/sub/b", "b\n");
    place.file("packed.tar", archive());
    place
}

/// Two files: one that belongs to a user, one with capabilities.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    // cap_net_raw+ep, as `setcap` writes it as root.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    for name in ["plain", "capable"] {
        if name == "capable" {
            let record = [("SCHILY.xattr.security.capability", &capability[..])];
            tar.append_pax_extensions(record).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        header.set_mode(0o755);
        header.set_uid(21);
        header.set_gid(22);
        header.set_mtime(1_000_000_000);
        tar.append_data(&mut header, name, &b"x\n"[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn root_and_an_ordinary_user_build_the_same_images() {
    for (name, text) in PROJECTS {
        let (root, user) = (place(text), place(text).unprivileged());
        let (by_root, by_user) = (root.clamped_image(&[]), user.clamped_image(&[]));
        assert_eq!(by_root.diff_ids(), by_user.diff_ids(), "{name}");
        assert_eq!(by_root.digest, by_user.digest, "{name}");
        if name.starts_with("capabilities") {
            let layer = by_user.layers.last().unwrap();
            assert!(!layer.is_empty());
            let changed = &by_user.layers[by_user.layers.len() - 2];
            let key = b"SCHILY.xattr.security.capability=\x01\0\0\x02\0 ";
            let has_it = changed.windows(key.len()).any(|bytes| bytes == key);
            assert!(has_it, "the changed file keeps its capabilities, version 2");
        }
    }
}

#[test]
fn devices_of_a_base_are_no_obstacle() {
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let devices = shared.path().join("devices.tar");
    let mut tar = tar::Builder::new(fs::File::create(&devices).unwrap());
    for (name, kind) in [
        ("n/null", tar::EntryType::Char),
        ("n/disk", tar::EntryType::Block),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_mtime(0);
        tar.append_data(&mut header, name, &b""[..]).unwrap();
    }
    drop(tar.into_inner().unwrap());
    let busybox = busybox_tar(shared.path());
    let base = shared.path().join("base");
    layout::write(&base, &[&busybox, &devices], &layout::config());
    let text = "FROM devices\nRUN echo 1 > /n/beside && chmod 711 /n\nRUN rm -r /n && mkdir /n\n";
    let build = |place: Place| place.with_base("devices", &base).clamped_image(&[]);
    let root = build(Place::with_dockerfile(text));
    let user = build(Place::with_dockerfile(text).unprivileged());
    assert_eq!(root.diff_ids(), user.diff_ids());
    let place = Place::with_dockerfile("FROM devices AS d\nFROM scratch\nCOPY --from=d /n /n\n");
    place
        .unprivileged()
        .with_base("devices", &base)
        .build(&[])
        .failure(1)
        .says("n/disk")
        .says("build as root");
}

/// The tar of the small base.
fn busybox_tar(dir: &Path) -> std::path::PathBuf {
    let blobs = crate::support::base::busybox().join("blobs/sha256");
    let largest = fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let tar = dir.join("busybox.tar");
    let mut plain = flate2::read::GzDecoder::new(fs::File::open(largest).unwrap());
    std::io::copy(&mut plain, &mut fs::File::create(&tar).unwrap()).unwrap();
    tar
}

#[test]
fn rung_and_network_are_told() {
    let place = place("RUN true");
    let title = "[internal] isolation: root, network: host";
    place.build(&[]).success().says(title);
    let place = self::place("RUN true").unprivileged();
    let title = "[internal] isolation: userns (user namespace, no root), network: host";
    place.build(&[]).success().says(title);
    place.build(&["--isolation=userns"]).success().says(title);
    place
        .build(&["--isolation=root"])
        .failure(3)
        .says("isolation `root` needs root");
    let kept = fs::read_to_string(place.root().join("isolation")).unwrap();
    assert!(kept.contains(" userns boot "), "{kept}");
}

#[test]
fn what_the_user_typed_arrives_inside() {
    let place = Place::new().unprivileged();
    let context = place.context();
    fs::write(context.join("a"), "a\n").unwrap();
    let link = place.path("build");
    std::os::unix::fs::symlink(place.path("builder"), &link).unwrap();
    let mut command = place.command();
    let base = format!(
        "--build-context=busybox=oci-layout://{}",
        place.path("busybox").display()
    );
    let _copied = place.build_command();
    let name = command.get_program().to_owned();
    assert_ne!(name, link);
    // By its short name, with the Dockerfile on standard input, the state directory from HOME and the context from the
    // working directory.
    let script = format!("exec {} -q -f - {base} --build-arg V .", link.display());
    command = shell(&command, &script);
    command
        .env_remove("BUILD_ROOT")
        .env("V", "from outside")
        .current_dir(&context)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let text = "FROM busybox\nARG V\nCOPY a /a\nRUN test \"$V\" = 'from outside' && id -u > /u\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(output.stdout.starts_with(b"sha256:"));
    let store = place.path("home/.local/share/build");
    let owner = fs::metadata(&store).unwrap();
    assert_eq!(
        (owner.uid(), owner.mode() & 0o777),
        (User::get().uid, 0o700)
    );
    assert!(!place.root().exists());
}

/// A shell that has a command's user, environment and directory.
fn shell(command: &Command, script: &str) -> Command {
    let user = User::get();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).env_clear();
    let set = |(name, value): (_, Option<_>)| Some((name, value?));
    shell.envs(command.get_envs().filter_map(set));
    user.becomes(&mut shell);
    shell
}

#[test]
fn files_of_the_users_other_groups_can_be_read() {
    const GROUP: u32 = 54_321;
    let place = place("COPY group /group").unprivileged();
    let file = place
        .file("group", "of the group\n")
        .context()
        .join("group");
    chown(&file, Some(0), Some(GROUP)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    place.build(&[]).failure(1).says("group");
    let build = place.build_command();
    let user = User::get();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &user.uid.to_string()])
        .args(["--regid", &user.gid.to_string()])
        .args(["--groups", &GROUP.to_string()])
        .arg(build.get_program())
        .args(build.get_args())
        .arg(place.context())
        .env_clear()
        .envs(
            build
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    finish(&mut command).success();
}

#[test]
fn interrupted_and_killed_builds_leave_nothing() {
    for signal in [Signal::INT, Signal::KILL] {
        let place = place("RUN echo begun && (sleep 98765 & sleep 98765)").unprivileged();
        let running = Running::start(place.build_command().arg(place.context()));
        running.wait_for(" begun");
        running.signal(signal);
        let outcome = running.end(Duration::from_secs(10));
        let expected = match signal {
            Signal::INT => Some(130),
            _ => None,
        };
        assert_eq!(outcome.code, expected, "{}", outcome.stderr);
        assert_nothing_runs(&place.word());
        assert_nothing_mounted(&place.root());
        place.file("Dockerfile", "FROM busybox\nRUN echo again\n");
        place.build(&[]).success();
    }
}

#[test]
fn images_are_managed_without_a_namespace() {
    let place = place("RUN true").unprivileged();
    place.build(&["-t", "one"]).success();
    // Nothing can be mapped any more: what still works has entered nothing.
    let in_a_jail = |words: &[&str]| {
        let user = User::get();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind /dev/null /usr/bin/newuidmap && exec \"$@\"")
            .args(["sh", "setpriv", "--clear-groups", "--reuid"])
            .arg(user.uid.to_string())
            .arg("--regid")
            .arg(user.gid.to_string())
            .arg(place.path("builder"))
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", place.path("home"))
            .env("BUILD_ROOT", place.root());
        finish(&mut command)
    };
    assert!(
        in_a_jail(&["images"])
            .success()
            .stdout
            .contains("one:latest")
    );
    in_a_jail(&["tag", "one", "two"]).success();
    assert!(
        in_a_jail(&["inspect", "two"])
            .success()
            .stdout
            .contains("two:latest")
    );
    in_a_jail(&["rm", "one"]).success();
    in_a_jail(&["--version"]).success();
    let context = place.context();
    in_a_jail(&["build", context.to_str().unwrap()])
        .failure(3)
        .says("not supported yet: building without `newuidmap`; install it");
}

#[test]
fn a_user_without_subordinate_ids_is_told_what_to_do() {
    let place = place("RUN true").unprivileged();
    let mut command = place.build_command();
    // Nobody has this id, so nobody gave it any; everything else is readable to all.
    command
        .uid(64_999)
        .gid(64_999)
        .env("BUILD_ROOT", place.path("none"));
    fs::create_dir(place.path("none")).unwrap();
    chown(place.path("none"), Some(64_999), Some(64_999)).unwrap();
    fs::set_permissions(place.path("none"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    finish(command.arg(place.context()))
        .failure(3)
        .says("building without subordinate ids; give user `64999` some: usermod --add-subuids");
    // Questions need none.
    finish(command.arg("--check")).success();
}

#[test]
fn user_namespaces_that_are_not_given_are_refused_with_the_remedy() {
    let place = place("RUN true").unprivileged();
    let user = User::get();
    let limited = |limit: &str, inner: &str| {
        let builder = place.path("builder");
        let as_user = format!(
            "setpriv --reuid {} --regid {} --clear-groups",
            user.uid, user.gid
        );
        let script = format!(
            "echo {limit} > /proc/sys/user/max_user_namespaces && exec {as_user} {inner} {} \"$@\"",
            builder.display()
        );
        let build = place.build_command();
        let namespace = Namespace::new();
        let mut command = Command::new("nsenter");
        command
            .args(["--user", "--setuid", "0", "--setgid", "0", "--target"])
            .arg(namespace.0.id().to_string())
            .args(["sh", "-c", &script, "sh"])
            .args(build.get_args())
            .arg("--isolation=userns")
            .arg(place.context())
            .env_clear();
        command.envs(
            build
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        finish(&mut command)
    };
    let remedy = "sysctl -w user.max_user_namespaces=15000";
    limited("0", "")
        .failure(3)
        .says("not supported yet: building without user namespaces, which are off here")
        .says(remedy)
        .does_not_say("os error");
    // The limit of the one around counts too, and is not to be seen from inside.
    let inner = format!(
        "unshare --user --map-user {} --map-group {}",
        user.uid, user.gid
    );
    limited("1", &inner)
        .failure(3)
        .says("of which no more may be made")
        .says(remedy)
        .does_not_say("os error");
}

/// A user namespace with the ids of this machine: its settings can be changed and are nobody else's.
struct Namespace(std::process::Child);

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        let child = command.args(["--user", "sleep", "60"]).spawn().unwrap();
        let link = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).ok();
        let process = child.id().to_string();
        let is_apart = || link(&process).is_some_and(|theirs| Some(theirs) != link("self"));
        assert!(wait_until(Duration::from_secs(10), is_apart));
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{process}/{map}"), "0 0 400000").unwrap();
        }
        Self(child)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn another_store_of_another_id_map_is_built_anew() {
    let place = place("RUN echo 1 > /one");
    place.build(&[]).success();
    place.build(&["--isolation=root"]).success().says("CACHED");
    let fresh = self::place("RUN echo 1 > /one").unprivileged();
    fresh.build(&[]).success();
    // What the step made is there under no map but the user's; a blob it has not.
    let record = |root: &Path| -> usize {
        let layers = fs::read_dir(root.join("layers")).unwrap();
        layers
            .map(|entry| fs::read_to_string(entry.unwrap().path().join("layer.json")).unwrap())
            .filter(|text| text.contains("\"u"))
            .count()
    };
    assert!(record(&fresh.root()) >= 2);
    assert_eq!(record(&place.root()), 0);
}
