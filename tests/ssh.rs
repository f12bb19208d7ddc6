//! `RUN --mount=type=ssh` and repositories over ssh: a real agent and a real server of OpenSSH, raw sockets, and what is
//! refused.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::git::Repository;
use crate::support::process::Running;
use crate::support::user::User;
use crate::support::{Place, answers, program, wait_until};

/// An agent with one key.
struct SshAgent {
    process: Child,
    socket: PathBuf,
    fingerprint: String,
}

impl SshAgent {
    fn start(dir: &Path) -> Self {
        Self::start_for(dir, None)
    }

    /// An agent of a user, in a directory of theirs.
    fn start_for(dir: &Path, user: Option<User>) -> Self {
        let (socket, key) = (dir.join("host-agent"), dir.join("key"));
        let mut agent = Command::new(program("ssh-agent", "openssh-client"));
        agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
        if let Some(user) = user {
            user.becomes(&mut agent);
        }
        let process = agent.spawn().unwrap();
        let made = Command::new(program("ssh-keygen", "openssh-client"))
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        let mut agent = Self {
            process,
            socket,
            fingerprint: String::new(),
        };
        while !agent.socket.exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        agent.ssh_add(&[key.to_str().unwrap()]);
        agent.fingerprint = agent.ssh_add(&["-l"]);
        agent
    }

    fn ssh_add(&self, args: &[&str]) -> String {
        let output = Command::new(program("ssh-add", "openssh-client"))
            .args(args)
            .env("SSH_AUTH_SOCK", &self.socket)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn flag(&self, id: &str) -> String {
        format!("--ssh={id}={}", self.socket.display())
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Puts a program of this machine and what it needs into the context's `tools`.
fn bring(place: &Place, name: &str, package: &str) {
    let path = program(name, package);
    let listed = Command::new("ldd").arg(&path).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let libraries = text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from);
    for file in libraries.chain([path]) {
        let target = place
            .context()
            .join("tools")
            .join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
}

const WITH_TOOLS: &str = "FROM busybox\nCOPY tools /\n";

#[test]
fn a_command_uses_the_agents_keys_and_cannot_change_them() {
    let text = format!(
        "{WITH_TOOLS}RUN --mount=type=ssh echo $SSH_AUTH_SOCK > /where; stat -c '%a %u:%g' $SSH_AUTH_SOCK > /who; \
         ssh-add -l > /out; ssh-add -D 2> /refused || echo refused >> /refused\n\
         RUN ls /run/buildkit 2>/dev/null || echo gone > /after\n"
    );
    let place = Place::with_dockerfile(&text);
    bring(&place, "ssh-add", "openssh-client");
    let agent = SshAgent::start(&place.path(""));
    let image = place.image(&[&agent.flag("default")]);
    assert_eq!(image.text("where"), "/run/buildkit/ssh_agent.0\n");
    assert_eq!(image.text("who"), "600 0:0\n");
    assert_eq!(image.text("out"), agent.fingerprint);
    assert!(image.text("refused").ends_with("refused\n"));
    assert_eq!(agent.ssh_add(&["-l"]), agent.fingerprint);
    assert_eq!(image.text("after"), "gone\n");
    // Neither the socket nor its directory is in a layer.
    assert!(!image.files().keys().any(|name| name.starts_with("run/")));
}

#[test]
fn the_socket_has_the_owner_and_place_that_are_asked() {
    let text = format!(
        "{WITH_TOOLS}USER 1234\n\
         RUN --mount=type=ssh,id=work,target=/sock,uid=1234,gid=77,mode=0600 stat -c '%a %u:%g' /sock > /tmp/who; \
         SSH_AUTH_SOCK=/sock ssh-add -l > /tmp/out\n\
         RUN --mount=type=ssh,id=work,required ssh-add -l 2>&1 | grep -v socket > /tmp/denied\n"
    );
    let place = Place::with_dockerfile(&text);
    bring(&place, "ssh-add", "openssh-client");
    let agent = SshAgent::start(&place.path(""));
    let image = place.image(&[&agent.flag("work")]);
    assert_eq!(image.text("tmp/who"), "600 1234:77\n");
    assert_eq!(image.text("tmp/out"), agent.fingerprint);
    let denied = image.text("tmp/denied");
    assert!(denied.contains("Permission denied"), "{denied}");
}

#[test]
fn it_works_without_network() {
    let text = format!("{WITH_TOOLS}RUN --network=none --mount=type=ssh ssh-add -l > /out\n");
    let place = Place::with_dockerfile(&text);
    bring(&place, "ssh-add", "openssh-client");
    let agent = SshAgent::start(&place.path(""));
    let socket = agent.socket.display().to_string();
    let mut command = place.build_command();
    let file = place.path("image.tar");
    let output = format!("--output=type=oci,dest={}", file.display());
    command
        .args(["--ssh=default", &output])
        .arg(place.context())
        .env("SSH_AUTH_SOCK", socket);
    crate::support::finish(&mut command).success();
    let image = crate::support::image::Image::read(&file);
    assert_eq!(image.text("out"), agent.fingerprint);
}

#[test]
fn a_raw_socket_passes_any_protocol() {
    let text = format!(
        "{WITH_TOOLS}RUN --mount=type=ssh,id=web,target=/run/web.sock curl -s --unix-socket /run/web.sock http://x/path > /out\n"
    );
    let place = Place::with_dockerfile(&text);
    bring(&place, "curl", "curl");
    let socket = place.path("web.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nfrom the host")
            .unwrap();
        String::from_utf8(request).unwrap()
    });
    let flag = format!("--ssh=web={},raw=true", socket.display());
    let image = place.image(&[&flag]);
    assert_eq!(image.text("out"), "from the host");
    assert!(server.join().unwrap().starts_with("GET /path HTTP/1.1"));
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::with_dockerfile("FROM busybox\nRUN --mount=type=ssh,required true\n");
    place
        .build(&[])
        .failure(1)
        .says("no SSH key \"default\" forwarded from the client")
        .says("hint: start an agent (ssh-agent, ssh-add) and forward it with --ssh=default");
    place
        .build(&["--ssh=default"])
        .failure(2)
        .says("make sure SSH_AUTH_SOCK is set");
    let optional = Place::with_dockerfile(
        "FROM busybox\nRUN --mount=type=ssh test ! -e $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /out\n",
    );
    let image = optional.image(&[]);
    assert_eq!(image.text("out"), "/run/buildkit/ssh_agent.0\n");
    place.file("key", "secret");
    let key = format!("--ssh=default={}", place.context().join("key").display());
    place
        .build(&[&key])
        .failure(2)
        .says("for --ssh: it holds no private key");
    let locked = keygen(&place.path("locked"), &["-t", "ed25519", "-N", "secret"]);
    place
        .build(&[&format!("--ssh=default={}", locked.display())])
        .failure(2)
        .says("for --ssh: the key is protected by a passphrase")
        .says("hint: start an agent with `eval $(ssh-agent)`, add the key with `ssh-add");
    // The frame is right, what is in it is not.
    let damaged = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    place.file("key", damaged);
    place
        .build(&[&key])
        .failure(1)
        .says("/key` for --ssh: ssh-add: ");
}

/// Makes a key.
fn keygen(path: &Path, args: &[&str]) -> PathBuf {
    let made = Command::new(program("ssh-keygen", "openssh-client"))
        .args(["-q", "-C", "test", "-f"])
        .arg(path)
        .args(args)
        .status();
    assert!(made.unwrap().success());
    path.to_owned()
}

fn text_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn keys_in_files_are_used_by_commands_and_gone_afterwards() {
    let text = format!(
        "{WITH_TOOLS}COPY signers /\nRUN --mount=type=ssh,id=work ssh-add -l > /out; echo text > /text; \
         for key in /tools/*.pub; do ssh-keygen -q -Y sign -f $key -n file /text && \
         ssh-keygen -Y verify -f /signers -I me -n file -s /text.sig < /text >> /verified; rm /text.sig; done\n"
    );
    let place = Place::with_dockerfile(&text);
    bring(&place, "ssh-add", "openssh-client");
    bring(&place, "ssh-keygen", "openssh-client");
    let (mut flag, mut signers, mut listed) =
        ("--ssh=work=".to_owned(), String::new(), String::new());
    // OpenSSH's own format, that of OpenSSL before it, and PKCS #8.
    for (name, args) in [
        ("a", &["-t", "ed25519", "-N", ""][..]),
        ("b", &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"]),
        ("c", &["-t", "ecdsa", "-N", "", "-m", "PKCS8"]),
    ] {
        let key = keygen(&place.path(name), args);
        // As a build system may put it there: readable by all.
        fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        flag.push_str(&format!("{},", key.display()));
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        signers.push_str(&format!("me {public}"));
        place.file(&format!("tools/tools/{name}.pub"), public);
        let mut told = Command::new(program("ssh-keygen", "openssh-client"));
        let told = text_of(told.arg("-l").arg("-f").arg(key.with_extension("pub")));
        listed.push_str(told.split(' ').nth(1).unwrap());
        listed.push('\n');
    }
    place.file("signers", signers);
    let image = place.image(&[flag.trim_end_matches(',')]);
    let prints: Vec<String> = image
        .text("out")
        .lines()
        .map(|line| line.split(' ').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(prints.join("\n") + "\n", listed);
    let verified = image.text("verified");
    assert_eq!(
        verified.matches("Good \"file\" signature").count(),
        3,
        "{verified}"
    );
    let is_gone = wait_until(Duration::from_secs(8), || !has_key_agent(&place));
    assert!(is_gone, "they end with their mounts");
}

/// Whether an agent that was started for keys runs: it has the environment of the build.
fn has_key_agent(place: &Place) -> bool {
    let root = place.root();
    let root = root.as_os_str().as_encoded_bytes();
    let is_ours = |process: &Path| {
        let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
        let environment = read("environ");
        let mut parts = environment.windows(root.len());
        read("cmdline").starts_with(b"ssh-agent\0-a\0keys") && parts.any(|part| part == root)
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .into_iter()
        .any(|process| is_ours(&process.path()))
}

#[test]
fn an_agent_for_keys_ends_with_a_killed_build() {
    let place = Place::with_dockerfile("FROM busybox\nRUN --mount=type=ssh sleep 60\n");
    let key = keygen(&place.path("key"), &["-t", "ed25519", "-N", ""]);
    let flag = format!("--ssh=default={}", key.display());
    let mut command = place.build_command();
    let running = Running::start(command.arg(flag).arg(place.context()));
    let patience = Duration::from_secs(20);
    assert!(wait_until(patience, || has_key_agent(&place)));
    running.signal(Signal::KILL);
    let _killed = running.end(patience);
    // By itself it would see after ten seconds that nobody needs it.
    let is_gone = wait_until(Duration::from_secs(8), || !has_key_agent(&place));
    assert!(is_gone);
}

/// A server on a loopback port that lets in who has the agent's key; stopped when dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        let mut server = Self {
            process: Self::run(dir, port),
            port,
        };
        server.wait();
        server
    }

    /// The process, with a new key of its own.
    fn run(dir: &Path, port: u16) -> Child {
        let host_key = dir.join("host-key");
        drop(fs::remove_file(&host_key));
        let made = Command::new(program("ssh-keygen", "openssh-client"))
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&host_key)
            .status();
        assert!(made.unwrap().success());
        fs::create_dir_all("/run/sshd").unwrap();
        let option = |name: &str, value: &Path| format!("-o{name}={}", value.display());
        Command::new(program("sshd", "openssh-server"))
            .args([
                "-D",
                "-f",
                "/dev/null",
                "-oListenAddress=127.0.0.1",
                "-oPidFile=none",
            ])
            .args([
                "-oUsePAM=no",
                "-oStrictModes=no",
                "-oPermitRootLogin=prohibit-password",
            ])
            .arg(format!("-oPort={port}"))
            .arg(option("HostKey", &host_key))
            .arg(option("AuthorizedKeysFile", &dir.join("key.pub")))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait(&mut self) {
        let limit = std::time::Duration::from_secs(20);
        let address = format!("127.0.0.1:{}", self.port);
        let is_up = || answers(&address);
        assert!(wait_until(limit, is_up), "sshd does not start");
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn repositories_come_over_ssh_with_the_key_of_an_agent() {
    let place = Place::new();
    let agent = SshAgent::start(&place.path(""));
    repositories_come_over_ssh(&place, &agent);
}

#[test]
fn repositories_come_over_ssh_to_an_ordinary_user() {
    let place = Place::new().unprivileged();
    let place = place.with_argument("--isolation=userns");
    let agent = SshAgent::start_for(&place.path(""), Some(User::get()));
    repositories_come_over_ssh(&place, &agent);
}

fn repositories_come_over_ssh(place: &Place, agent: &SshAgent) {
    let mut server = Server::start(&place.path(""));
    let repository = Repository::new(&place.path("work"));
    repository
        .file("a", "one\n")
        .file("Dockerfile", "FROM scratch\nCOPY a /context\n");
    repository.commit();
    repository.publish(&place.path("r.git"));
    let served = place.path("r.git").display().to_string();
    let url = format!("ssh://root@127.0.0.1:{}{served}#main", server.port);
    place.file("Dockerfile", format!("FROM scratch\nADD {url} /to/\n"));
    let with_key = agent.flag("default");
    place.build(&[]).failure(1).says("Permission denied");
    assert_eq!(place.image(&[&with_key]).text("to/a"), "one\n");

    repository.file("a", "two\n").commit();
    repository.publish(&place.path("r.git"));
    assert_eq!(place.image(&[&with_key]).text("to/a"), "two\n");
    let tree = place.path("tree");
    let output = format!("type=local,dest={}", tree.display());
    let mut command = place.build_command();
    let command = command.args([&with_key, "--output", &output, &url]);
    drop(crate::support::finish(command).success());
    assert_eq!(fs::read_to_string(tree.join("context")).unwrap(), "two\n");

    // Somebody else under the same address.
    server.stop();
    server.process = Server::run(&place.path(""), server.port);
    server.wait();
    place
        .build(&[&with_key])
        .failure(1)
        .says("Host key verification failed");
}
