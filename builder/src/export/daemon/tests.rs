//! Where daemons are reached, and what they answer.

use std::os::unix::net::UnixListener;

use super::super::testing::{
    self, FakeLayers, FakeTree, form, image, is_installed, layer_tar, name, run,
};
use super::*;
use crate::image::Image;
use crate::image::manifest::MediaTypes;

fn load(
    address: DaemonAddress,
    size: usize,
    torn_by: usize,
) -> (Result<ExportReport, ExportError>, Vec<String>, Image) {
    let mut layers = FakeLayers {
        torn_by,
        ..FakeLayers::default()
    };
    let layer = layers.add(layer_tar("hello", &vec![b'x'; size]));
    let image = image(&[layer.clone(), layer]);
    let exporter = DaemonLoad {
        names: vec![name("docker.io", "library/loaded", "1")],
        form: form(MediaTypes::Docker),
        address,
    };
    let (result, lines) = testing::export(&exporter, &image, &layers, &FakeTree::default());
    (result, lines, image)
}

/// A daemon that reads so many bytes of a request (or all), answers and is gone; gives what it read.
fn daemon(
    dir: &std::path::Path,
    bytes: Option<usize>,
    answer: &'static str,
) -> (DaemonAddress, std::thread::JoinHandle<Vec<u8>>) {
    let path = dir.join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _address) = listener.accept().unwrap();
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        while !read.ends_with(b"\r\n0\r\n\r\n") && bytes.is_none_or(|most| read.len() < most) {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                count => read.extend_from_slice(&buffer[..count]),
            }
        }
        // The client may be gone already.
        stream.write_all(answer.as_bytes()).unwrap_or_default();
        read
    });
    (DaemonAddress::Unix(path), thread)
}

const FINE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    1f\r\n{\"stream\":\"Loaded image: a:1\"}\n\r\n0\r\n\r\n";

#[test]
fn the_archive_is_streamed_and_the_names_told() {
    let dir = tempfile::tempdir().unwrap();
    let (address, thread) = daemon(dir.path(), None, FINE);
    let (result, lines, image) = load(address, 300_000, 0);
    assert_eq!(result.unwrap().names, ["docker.io/library/loaded:1"]);
    let request = thread.join().unwrap();
    let text = String::from_utf8_lossy(&request);
    assert!(text.starts_with("POST /images/load?quiet=1 HTTP/1.1\r\nHost: docker\r\n"));
    assert!(text.contains(&format!("blobs/sha256/{}", image.digest.hex())));
    assert!(text.contains(r#""RepoTags":["loaded:1"]"#));
    let naming = "naming to docker.io/library/loaded:1 0/0 done".to_owned();
    assert!(lines.contains(&naming), "{lines:?}");
}

#[test]
fn a_daemon_that_refuses_has_the_word() {
    let early = "HTTP/1.1 500 Internal\r\nContent-Type: application/json\r\n\r\n{\"message\":\"no space left\"}";
    let late = "HTTP/1.1 200 OK\r\n\r\n{\"stream\":\"…\"}\n{\"errorDetail\":{},\"error\":\"bad layer\\n\"}\n";
    for (bytes, answer, expected) in [
        (Some(1000), early, "no space left (status 500)"),
        (None, late, "bad layer"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (address, thread) = daemon(dir.path(), bytes, answer);
        let expected = format!("the Docker daemon at {address} did not load the image: {expected}");
        let message = load(address, 3_000_000, 0).0.unwrap_err().to_string();
        assert_eq!(message, expected);
        thread.join().unwrap();
    }
}

#[test]
fn our_own_failure_ends_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let (address, thread) = daemon(dir.path(), None, FINE);
    let error = load(address, 1000, 1).0.unwrap_err();
    assert!(matches!(error, ExportError::BlobSize { .. }), "{error}");
    assert!(!thread.join().unwrap().ends_with(b"0\r\n\r\n"));
}

#[test]
fn without_a_daemon_it_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.sock");
    let (result, lines, _image) = load(DaemonAddress::Unix(path.clone()), 1, 0);
    let expected = format!(
        "cannot connect to the Docker daemon at unix://{}; is it running? set DOCKER_HOST to where it listens, or \
         write a file with --output type=docker,dest=FILE",
        path.display()
    );
    assert_eq!(result.unwrap_err().to_string(), expected);
    assert!(
        !lines
            .iter()
            .any(|line| line.starts_with("exporting layers"))
    );
}

#[test]
fn addresses_are_dockers() {
    let parse = |text| DaemonAddress::from_environment(text, false).map(|a| a.to_string());
    for (text, expected) in [
        (None, "unix:///var/run/docker.sock"),
        (Some(""), "unix:///var/run/docker.sock"),
        (Some("unix:///run/x.sock"), "unix:///run/x.sock"),
        (Some("tcp://h:1/"), "tcp://h:1"),
        (Some("tcp://h"), "tcp://h:2375"),
    ] {
        assert_eq!(parse(text).unwrap(), expected);
    }
    for text in ["h:1", "unix://relative", "tcp://", "x://y"] {
        assert!(
            matches!(parse(Some(text)), Err(DaemonError::Address(_))),
            "{text}"
        );
    }
    for text in ["ssh://me@h", "npipe:////./pipe", "fd://"] {
        assert!(
            matches!(parse(Some(text)), Err(DaemonError::Unsupported(_))),
            "{text}"
        );
    }
    let tls = DaemonAddress::from_environment(Some("tcp://h:2376"), true);
    assert!(matches!(tls, Err(DaemonError::Unsupported(_))));
}

/// Ends the daemon that a test started.
struct Started(std::process::Child);

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap_or_default();
        }
        self.0.wait().ok();
    }
}

fn start_dockerd(dir: &std::path::Path) -> (Started, String) {
    let host = format!("unix://{}/docker.sock", dir.display());
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let child = std::process::Command::new("dockerd")
        .args([
            "--iptables=false",
            "--bridge=none",
            "--storage-driver=vfs",
            "-H",
            &host,
        ])
        .arg(format!("--data-root={}/data", dir.display()))
        .arg(format!("--exec-root={}/exec", dir.display()))
        .arg(format!("--pidfile={}/pid", dir.display()))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    for _ in 0..300 {
        if UnixStream::connect(dir.join("docker.sock")).is_ok() {
            return (Started(child), host);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let _started = Started(child);
    panic!("{}", std::fs::read_to_string(dir.join("log")).unwrap());
}

#[test]
#[ignore = "starts a Docker daemon, which needs root and seconds"]
fn a_real_daemon_loads_the_image() {
    assert!(is_installed("dockerd"), "install docker.io");
    let dir = tempfile::tempdir().unwrap();
    let (_started, host) = start_dockerd(dir.path());
    let address = DaemonAddress::from_environment(Some(&host), false).unwrap();
    let (result, _lines, image) = load(address.clone(), 3_000_000, 0);
    result.unwrap();
    let arguments = ["-H", &host, "image", "inspect", "-f", "{{.Id}}", "loaded:1"];
    assert_eq!(run("docker", &arguments).trim(), image.digest.as_str());
}
