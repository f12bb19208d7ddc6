//! A web server on a loopback port: files with entity tags, redirects, passwords, and repositories by `git http-backend`.
//!
//! It keeps a list of all requests, so that tests can tell what was not asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// A file to serve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
    /// When it is answered, by the server's clock.
    pub(crate) date: Option<String>,
    /// The status of the answer, 200 if 0.
    pub(crate) status: u16,
    /// Where to go instead.
    pub(crate) location: Option<String>,
    /// What `Authorization` must say.
    pub(crate) authorization: Option<String>,
    /// Answers in full even to who has the file.
    pub(crate) ignores_validators: bool,
}

impl Page {
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `GET /path`
    pub(crate) line: String,
    pub(crate) status: u16,
    pub(crate) authorization: Option<String>,
}

#[derive(Default)]
struct Shared {
    pages: BTreeMap<String, Page>,
    /// What `Authorization` must say for everything below `/git/`.
    git_authorization: Option<String>,
    git_root: Option<PathBuf>,
    seen: Vec<Seen>,
}

/// A running server. Its thread ends with the tests.
pub(crate) struct Web {
    /// `127.0.0.1:port`
    pub(crate) address: String,
    shared: Arc<Mutex<Shared>>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Web {
    /// Starts a server without pages.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&of_thread);
                std::thread::spawn(move || drop(serve(connection, &shared)));
            }
        });
        Self { address, shared }
    }

    /// Serves a page in place of what was there.
    pub(crate) fn put(&self, path: &str, page: Page) {
        let mut shared = self.shared.lock().unwrap();
        shared.pages.insert(path.to_owned(), page);
    }

    /// Serves the repositories of a directory below `/git/`.
    pub(crate) fn serve_git(&self, root: &Path, authorization: Option<&str>) {
        let mut shared = self.shared.lock().unwrap();
        shared.git_root = Some(root.to_owned());
        shared.git_authorization = authorization.map(str::to_owned);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.lock().unwrap().seen)
    }

    /// The requests since the last call, with their statuses: `GET /path 200`.
    pub(crate) fn take_lines(&self) -> Vec<String> {
        let seen = self.take_seen().into_iter();
        seen.map(|seen| format!("{} {}", seen.line, seen.status))
            .collect()
    }
}

fn read_request(connection: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length");
    let length = length.map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Request {
        method,
        path,
        query,
        headers,
        body,
    })
}

fn serve(mut connection: TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let request = read_request(&connection)?;
    let (status, headers, body) = answer(&request, shared);
    shared.lock().unwrap().seen.push(Seen {
        line: format!("{} {}", request.method, request.path),
        status,
        authorization: request.headers.get("authorization").cloned(),
    });
    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 304 {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes())?;
    connection.write_all(&body)
}

type Answer = (u16, Vec<(String, String)>, Vec<u8>);

fn answer(request: &Request, shared: &Mutex<Shared>) -> Answer {
    let refused = || {
        let challenge = ("WWW-Authenticate".to_owned(), "Basic realm=x".to_owned());
        (401, vec![challenge], Vec::new())
    };
    let given = request.headers.get("authorization");
    if let Some(below) = request.path.strip_prefix("/git/") {
        let (root, wanted) = {
            let shared = shared.lock().unwrap();
            (shared.git_root.clone(), shared.git_authorization.clone())
        };
        if wanted.is_some() && wanted.as_ref() != given {
            return refused();
        }
        return match root {
            Some(root) => git_backend(request, &root, below),
            None => (404, Vec::new(), Vec::new()),
        };
    }
    let page = shared.lock().unwrap().pages.get(&request.path).cloned();
    let Some(page) = page else {
        return (404, Vec::new(), Vec::new());
    };
    if page.authorization.is_some() && page.authorization.as_ref() != given {
        return refused();
    }
    let mut headers = Vec::new();
    for (name, value) in [
        ("ETag", &page.etag),
        ("Last-Modified", &page.modified),
        ("Date", &page.date),
        ("Location", &page.location),
    ] {
        headers.extend(value.clone().map(|value| (name.to_owned(), value)));
    }
    let has = |name: &str, value: &Option<String>| {
        value.is_some() && request.headers.get(name) == value.as_ref()
    };
    let is_known = has("if-none-match", &page.etag)
        || page.etag.is_none() && has("if-modified-since", &page.modified);
    if is_known && !page.ignores_validators {
        return (304, headers, Vec::new());
    }
    let status = if page.status == 0 { 200 } else { page.status };
    (status, headers, page.body)
}

/// The CGI program of git.
fn git_backend(request: &Request, root: &Path, below: &str) -> Answer {
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{below}"))
        .env("QUERY_STRING", &request.query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&request.body)
        .unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut status = 200;
    let mut headers = Vec::new();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        match name {
            "Status" => status = value[..3].parse().unwrap(),
            _ => headers.push((name.to_owned(), value.to_owned())),
        }
    }
    let body = output.get(end + 4..).unwrap_or_default().to_vec();
    (status, headers, body)
}
