//! Into a Docker daemon (`--load`): a Docker archive streamed to `POST /images/load`.
//!
//! # Concurrency
//!
//! The answer is read on another thread while the archive is written: a daemon that fails early stops reading and answers,
//! and that answer says more than our broken pipe.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use frontend::reference::Reference;

use super::activity::Activity;
use super::archive::Layout;
use super::destination::Output;
use super::http::{self, ChunkedWriter};
use super::prepare::{self, Form};
use super::{ExportError, ExportReport, Exporter, LayerSource, Source, docker_archive};
use crate::progress::sink::EventSink;

/// Docker's own default (`docker(1)`, `DOCKER_HOST`).
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Every daemon since Docker 1.7 has this request; without a version in its path it takes its newest.
const LOAD: &str = "/images/load?quiet=1";

/// Bytes of an answer that we keep for a message.
const MAX_MESSAGE_BYTES: u64 = 64 * 1024;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonAddress {
    /// `unix:///path`
    Unix(PathBuf),
    /// `tcp://host:port`, without TLS.
    Tcp(String),
}

/// Why a daemon did not take an image.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Not an address.
    #[error("invalid DOCKER_HOST `{0}`: it is unix:///path or tcp://host:port")]
    Address(String),
    /// One that we cannot reach.
    #[error(
        "not supported yet: DOCKER_HOST `{0}`; use a unix:// or tcp:// address, or --output type=docker,dest=FILE and `docker load -i FILE`"
    )]
    Unsupported(String),
    /// Nobody answers there.
    #[error(
        "cannot connect to the Docker daemon at {address}; is it running? set DOCKER_HOST to where it listens, or write a file with --output type=docker,dest=FILE"
    )]
    Connect {
        /// Where.
        address: DaemonAddress,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("cannot {attempt} the Docker daemon at {address}")]
    Io {
        /// `send the image to` or `read the answer of`
        attempt: &'static str,
        /// Where.
        address: DaemonAddress,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("the Docker daemon at {address} did not load the image: {message}")]
    Refused {
        /// Where.
        address: DaemonAddress,
        /// Its words.
        message: String,
    },
}

impl std::fmt::Display for DaemonAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

/// A connection for two threads.
struct Connection {
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    /// Ends both directions, whoever holds them.
    close: Box<dyn Fn() -> io::Result<()> + Send>,
}

impl DaemonAddress {
    /// From the value of `DOCKER_HOST`; Docker's default if there is none. `is_tls` is whether `DOCKER_TLS_VERIFY` is set.
    ///
    /// # Errors
    ///
    /// If it is no address, or one with ssh or TLS.
    pub fn from_environment(docker_host: Option<&str>, is_tls: bool) -> Result<Self, DaemonError> {
        let Some(text) = docker_host.filter(|text| !text.is_empty()) else {
            return Ok(Self::Unix(PathBuf::from(DEFAULT_SOCKET)));
        };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(("tcp" | "http", _)) if is_tls => {
                Err(DaemonError::Unsupported(format!("{text} with TLS")))
            }
            Some(("tcp" | "http", host)) if !host.trim_end_matches('/').is_empty() => {
                let host = host.trim_end_matches('/');
                let has_port = host
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                let port = if has_port { "" } else { ":2375" };
                Ok(Self::Tcp(format!("{host}{port}")))
            }
            Some(("ssh" | "npipe" | "fd" | "https", _)) => {
                Err(DaemonError::Unsupported(text.to_owned()))
            }
            Some(_) | None => Err(DaemonError::Address(text.to_owned())),
        }
    }

    /// Whether somebody listens there.
    ///
    /// # Errors
    ///
    /// Nobody does.
    pub fn check(&self) -> Result<(), DaemonError> {
        self.connect().map(drop)
    }

    fn connect(&self) -> Result<Connection, DaemonError> {
        let connection = || -> io::Result<Connection> {
            match self {
                Self::Unix(path) => {
                    let stream = UnixStream::connect(path)?;
                    Ok(Connection {
                        reader: Box::new(stream.try_clone()?),
                        writer: Box::new(stream.try_clone()?),
                        close: Box::new(move || stream.shutdown(Shutdown::Both)),
                    })
                }
                Self::Tcp(host) => {
                    let stream = TcpStream::connect(host)?;
                    Ok(Connection {
                        reader: Box::new(stream.try_clone()?),
                        writer: Box::new(stream.try_clone()?),
                        close: Box::new(move || stream.shutdown(Shutdown::Both)),
                    })
                }
            }
        };
        connection().map_err(|source| DaemonError::Connect {
            address: self.clone(),
            source,
        })
    }

    /// `Host` of a request.
    fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "docker",
            Self::Tcp(host) => host,
        }
    }
}

/// Loads an image into a daemon.
#[derive(Debug)]
pub struct DaemonLoad {
    /// Tags it gets; none is fine.
    pub names: Vec<Reference>,
    /// Of documents and blobs.
    pub form: Form,
    /// Where the daemon listens.
    pub address: DaemonAddress,
}

impl Exporter for DaemonLoad {
    fn export(
        &self,
        source: &Source<'_>,
        events: &dyn EventSink,
    ) -> Result<ExportReport, ExportError> {
        let name = "exporting to docker image format";
        Activity::run(events, name, source.output, |activity| {
            // First of all, so that nothing is compressed for a daemon that is not there.
            let connection = self.address.connect()?;
            let prepared = prepare::prepare(source.image, source.layers, &self.form, activity)?;
            let layout = docker_archive::layout(source.image, &prepared, &self.names, &self.form)?;
            activity.part("sending tarball", || {
                self.send(connection, &layout, source.layers)
            })?;
            for name in &self.names {
                activity.status(&format!("naming to {name}"), 0, 0, true);
            }
            Ok(ExportReport::of(prepared, &self.form, &self.names))
        })
    }
}

impl DaemonLoad {
    fn send(
        &self,
        connection: Connection,
        layout: &Layout,
        layers: &dyn LayerSource,
    ) -> Result<(), ExportError> {
        let Connection {
            reader,
            writer,
            close,
        } = connection;
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| self.read_answer(reader));
            let sent = self.write_request(writer, layout, layers);
            // Of our own failures the cause is here; of the connection's, the daemon may know better.
            if let Err(error) = &sent
                && !is_broken_connection(error)
            {
                // Ends the other thread too; that the connection may be gone already changes nothing.
                close().unwrap_or_default();
                return sent;
            }
            match answer.join() {
                Ok(Ok(())) => sent,
                Ok(Err(refused @ DaemonError::Refused { .. })) => Err(refused.into()),
                Ok(Err(unreadable)) => sent.and(Err(unreadable.into())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn write_request(
        &self,
        mut writer: Box<dyn Write + Send>,
        layout: &Layout,
        layers: &dyn LayerSource,
    ) -> Result<(), ExportError> {
        let failed = |source| {
            ExportError::from(DaemonError::Io {
                attempt: "send the image to",
                address: self.address.clone(),
                source,
            })
        };
        http::write_head(&mut writer, self.address.host(), LOAD).map_err(failed)?;
        let mut body = BufWriter::with_capacity(256 * 1024, ChunkedWriter(writer));
        let result = layout
            .write_members(layers, &mut Output::stream(&mut body))
            .map_err(|error| match error {
                ExportError::Stdout(source) => failed(source),
                other => other,
            });
        // Not by dropping the buffer: that would write the rest of a request that we gave up.
        let (body, rest) = body.into_parts();
        result?;
        let mut body = body;
        let rest = rest.map_err(|panicked| failed(io::Error::other(panicked)))?;
        body.write_all(&rest).map_err(failed)?;
        body.finish().map_err(failed)
    }

    /// Reads the stream of progress to its end; the last error in it counts.
    fn read_answer(&self, reader: Box<dyn Read + Send>) -> Result<(), DaemonError> {
        let failed = |source| DaemonError::Io {
            attempt: "read the answer of",
            address: self.address.clone(),
            source,
        };
        let refused = |message| DaemonError::Refused {
            address: self.address.clone(),
            message,
        };
        let (status, body) = http::read_response(BufReader::new(reader)).map_err(failed)?;
        if status != 200 {
            let mut bytes = Vec::new();
            // A daemon that closes without having read all of our request resets the connection after its answer.
            body.take(MAX_MESSAGE_BYTES)
                .read_to_end(&mut bytes)
                .unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let message = message(&text, "message").unwrap_or(text);
            return Err(refused(format!("{message} (status {status})")));
        }
        for line in BufReader::new(body).lines() {
            if let Some(error) = message(&line.map_err(failed)?, "error") {
                return Err(refused(error));
            }
        }
        Ok(())
    }
}

fn message(json: &str, member: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    Some(value.get(member)?.as_str()?.trim().to_owned())
}

fn is_broken_connection(error: &ExportError) -> bool {
    matches!(error, ExportError::Daemon(DaemonError::Io { .. }))
}

#[cfg(test)]
mod tests {
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
            let expected =
                format!("the Docker daemon at {address} did not load the image: {expected}");
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
                rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                    .unwrap_or_default();
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
}
