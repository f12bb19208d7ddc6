//! Forwards ssh agents, and other sockets, to commands.
//!
//! A command never gets the socket of the host, only one that was made for its mount, with the owner and mode the mount asks
//! for. What goes through one that is an agent's is read: a command may list keys and have things signed, and nothing else;
//! adding, removing and locking keys and extensions (which can bind or forward an agent further) are answered with a failure, as
//! BuildKit does. A raw one passes all bytes.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::error::StepError;
use super::key_agent::KeyAgent;

/// The largest message of an agent: OpenSSH's `AGENT_MAX_LEN`.
const MAX_MESSAGE: usize = 256 * 1024;

/// Connections that are served at once; more wait. Each costs two descriptors of this process.
const MAX_CONNECTIONS: usize = 64;

/// `SSH_AGENTC_REQUEST_IDENTITIES`
const LIST: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST`
const SIGN: u8 = 13;
/// A message with nothing but `SSH_AGENT_FAILURE`.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// Gives the sockets that `--ssh` names.
pub trait Agents: Send + Sync {
    /// The socket, `None` if no such one was given.
    fn agent(&self, id: &str) -> Option<Agent>;
}

/// What answers a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// An ssh agent's.
    Ssh(PathBuf),
    /// Any; all bytes are passed.
    Raw(PathBuf),
    /// None: an agent for the keys in these files.
    Keys(Vec<PathBuf>),
}

/// Who may connect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// A socket for one mount; dropped, its connections end.
#[derive(Debug)]
pub(super) struct Forward {
    path: PathBuf,
    serving: JoinHandle<()>,
    _keys: Option<KeyAgent>,
}

/// A socket of the host.
#[derive(Clone, Debug)]
struct Server {
    path: PathBuf,
    is_raw: bool,
}

impl Forward {
    /// Makes a socket in `dir`, a directory that nobody else can enter, and serves it.
    pub(super) fn start(
        handle: &Handle,
        agent: Agent,
        dir: &Path,
        owner: Owner,
    ) -> Result<Self, StepError> {
        let path = dir.join("agent");
        let failed = |attempt| {
            let path = path.clone();
            move |source| StepError::Io {
                attempt,
                path,
                source,
            }
        };
        let (server, keys) = match agent {
            Agent::Ssh(path) => (
                Server {
                    path,
                    is_raw: false,
                },
                None,
            ),
            Agent::Raw(path) => (Server { path, is_raw: true }, None),
            Agent::Keys(files) => {
                let started = KeyAgent::start(dir, &files)?;
                let path = started.socket().to_owned();
                (
                    Server {
                        path,
                        is_raw: false,
                    },
                    Some(started),
                )
            }
        };
        let listener = listen(dir).map_err(failed("listen on"))?;
        std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid))
            .map_err(failed("change the owner of"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(owner.mode))
            .map_err(failed("change the mode of"))?;
        let inside = handle.enter();
        let listener = UnixListener::from_std(listener).map_err(failed("listen on"))?;
        drop(inside);
        let serving = handle.spawn(serve(listener, server));
        Ok(Self {
            path,
            serving,
            _keys: keys,
        })
    }

    /// Where the socket is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // Its connections go with it: they are tasks of its own set.
        self.serving.abort();
    }
}

/// The name of a socket has at most 107 bytes, which a store's path may exceed: it is named through a descriptor.
fn listen(dir: &Path) -> io::Result<StdListener> {
    let dir = std::fs::File::open(dir)?;
    let listener = StdListener::bind(format!("/proc/self/fd/{}/agent", dir.as_raw_fd()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The same for connecting.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = std::fs::File::open(dir)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
    UnixStream::connect(short.join(name)).await
}

async fn serve(listener: UnixListener, server: Server) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        let server = server.clone();
        connections.spawn(async move {
            if let Err(error) = forward(client, &server).await {
                tracing::debug!(%error, server = %server.path.display(), "a forwarded connection ended");
            }
            drop(slot);
        });
    }
}

async fn forward(mut client: UnixStream, to: &Server) -> io::Result<()> {
    let mut server = connect(&to.path).await?;
    match to.is_raw {
        true => copy_bidirectional(&mut client, &mut server)
            .await
            .map(|_| ()),
        false => forward_requests(&mut client, &mut server).await,
    }
}

async fn forward_requests(client: &mut UnixStream, server: &mut UnixStream) -> io::Result<()> {
    while let Some(request) = read_message(client).await? {
        if !matches!(request.get(4), Some(&(LIST | SIGN))) {
            client.write_all(&FAILURE).await?;
            continue;
        }
        server.write_all(&request).await?;
        let reply = read_message(server)
            .await?
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        client.write_all(&reply).await?;
    }
    Ok(())
}

/// A message with its length; `None` at the end.
async fn read_message(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length == 0 || length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; 4 + length];
    message[..4].copy_from_slice(&head);
    stream.read_exact(&mut message[4..]).await?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream as StdStream;

    use super::*;

    const OWNER: Owner = Owner {
        uid: 0,
        gid: 0,
        mode: 0o600,
    };

    /// A server that answers everything with what it got, behind a type byte of 99.
    fn echo_server(dir: &Path) -> PathBuf {
        let path = dir.join("host");
        let listener = StdListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            }
        });
        path
    }

    fn message(kind: u8, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(rest.len() + 1).unwrap().to_be_bytes();
        [&length, [kind].as_slice(), rest].concat()
    }

    fn ask(stream: &mut StdStream, request: &[u8], length: usize) -> Vec<u8> {
        stream.write_all(request).unwrap();
        let mut reply = vec![0; length];
        stream.read_exact(&mut reply).unwrap();
        reply
    }

    #[test]
    fn an_agent_may_list_and_sign_only() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let agent = Agent::Ssh(echo_server(dir.path()));
        let forward = Forward::start(runtime.handle(), agent, dir.path(), OWNER).unwrap();
        let found = std::fs::symlink_metadata(forward.path()).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o600);
        let mut stream = StdStream::connect(forward.path()).unwrap();
        for kind in [LIST, SIGN] {
            let request = message(kind, b"data");
            assert_eq!(ask(&mut stream, &request, request.len()), request);
        }
        // Add, remove, remove all, lock, extension.
        for kind in [17, 18, 19, 22, 27] {
            assert_eq!(ask(&mut stream, &message(kind, b"x"), 5), FAILURE);
        }
        let request = message(LIST, b"");
        assert_eq!(ask(&mut stream, &request, 5), request);
        stream.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_raw_socket_passes_everything_and_ends_with_its_mount() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // Longer than a socket's name may be.
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let agent = Agent::Raw(echo_server(dir.path()));
        let forward = Forward::start(runtime.handle(), agent, &deep, OWNER).unwrap();
        let short = std::fs::File::open(&deep).unwrap();
        let name = format!("/proc/self/fd/{}/agent", short.as_raw_fd());
        let mut stream = StdStream::connect(&name).unwrap();
        let request = b"GET / HTTP/1.1\r\n";
        assert_eq!(ask(&mut stream, request, request.len()), request);
        drop(forward);
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        assert!(StdStream::connect(&name).is_err());
    }
}
