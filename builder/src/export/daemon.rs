//! Into a Docker daemon (`--load`): a Docker archive streamed to `POST /images/load`.
//!
//! # Concurrency
//!
//! The answer is read on another thread while the archive is written: a daemon that fails early stops reading and answers,
//! and that answer says more than our broken pipe.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
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
            let is_ours = sent
                .as_ref()
                .is_err_and(|error| !is_broken_connection(error));
            if is_ours {
                // Ends the other thread too; that the connection may be gone already changes nothing.
                close().unwrap_or_default();
            }
            let answer = answer.join().unwrap_or_else(|panic| resume_unwind(panic));
            if is_ours {
                return sent;
            }
            match answer {
                Ok(()) => sent,
                Err(refused @ DaemonError::Refused { .. }) => Err(refused.into()),
                Err(unreadable) => sent.and(Err(unreadable.into())),
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
mod tests;
