//! A registry that serves an OCI layout and fails in a chosen way.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Blobs end in the middle, and the connection with them.
    Truncated,
    /// Blobs have the right size and a wrong byte.
    Corrupt,
    /// The second half of a blob comes when it is let go.
    Held,
    /// Manifests are not those of the digest that the header says.
    WrongManifest,
    /// Every answer is this status.
    Status(u16),
    /// The first answers are this status, the later ones right.
    StatusFirst(u16, usize),
}

/// A running registry; its thread ends with the process of the tests.
pub(crate) struct Faulty {
    /// `127.0.0.1:port`
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<String>>>,
    is_let_go: Arc<AtomicBool>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    sent: usize,
}

impl Faulty {
    /// Serves the image of a layout under every name.
    pub(crate) fn start(layout: &Path, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let is_let_go = Arc::<AtomicBool>::default();
        let (layout, log) = (layout.to_owned(), Arc::clone(&requests));
        let let_go = Arc::clone(&is_let_go);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (layout, log, let_go) = (layout.clone(), Arc::clone(&log), Arc::clone(&let_go));
                std::thread::spawn(move || drop(serve(stream, &layout, fault, (&log, &let_go))));
            }
        });
        Self {
            address,
            requests,
            is_let_go,
        }
    }

    /// Sends what it holds back.
    pub(crate) fn let_go(&self) {
        self.is_let_go.store(true, Ordering::Relaxed);
    }

    /// `METHOD path` of all requests until now.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Answers one request and closes.
fn serve(
    mut stream: TcpStream,
    layout: &Path,
    fault: Fault,
    (log, is_let_go): (&Mutex<Vec<String>>, &AtomicBool),
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let count = {
        let mut log = log.lock().unwrap();
        log.push(format!("{method} {path}"));
        log.len()
    };
    let answer = answer(path, layout, fault, count);
    let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", answer.status);
    head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if method != "HEAD" {
        stream.write_all(&answer.body[..answer.sent])?;
        if fault == Fault::Held && answer.sent < answer.body.len() {
            let is_let_go = || is_let_go.load(Ordering::Relaxed);
            super::wait_until(Duration::from_secs(60), is_let_go);
            stream.write_all(&answer.body[answer.sent..])?;
        }
    }
    stream.shutdown(Shutdown::Write)
}

fn answer(path: &str, layout: &Path, fault: Fault, count: usize) -> Answer {
    match fault {
        Fault::Status(status) => return plain(status),
        Fault::StatusFirst(status, first) if count <= first => return plain(status),
        _ => {}
    }
    let Some((digest, is_manifest)) = asked(path, layout) else {
        return plain(if path == "/v2/" { 200 } else { 404 });
    };
    let Ok(mut body) = std::fs::read(blob(layout, &digest)) else {
        return plain(404);
    };
    let is_layer = !is_manifest && body.first() != Some(&b'{');
    if is_layer && fault == Fault::Corrupt || is_manifest && fault == Fault::WrongManifest {
        let middle = body.len() / 2;
        body[middle] ^= 1;
    }
    let sent = match fault {
        Fault::Truncated | Fault::Held if is_layer => body.len() / 2,
        _ => body.len(),
    };
    let media_type = if is_manifest {
        "application/vnd.oci.image.manifest.v1+json"
    } else {
        "application/octet-stream"
    };
    let headers = vec![
        ("Content-Type", media_type.to_owned()),
        ("Docker-Content-Digest", digest),
    ];
    Answer {
        status: 200,
        headers,
        body,
        sent,
    }
}

/// The digest that a path asks for, and whether it is a manifest's.
fn asked(path: &str, layout: &Path) -> Option<(String, bool)> {
    let path = path.split('?').next()?;
    if let Some((_, reference)) = path.rsplit_once("/manifests/") {
        let digest = reference
            .starts_with("sha256:")
            .then(|| reference.to_owned());
        return Some((digest.unwrap_or_else(|| root(layout)), true));
    }
    path.rsplit_once("/blobs/")
        .map(|(_, digest)| (digest.to_owned(), false))
}

/// Digest of the layout's only manifest.
pub(crate) fn root(layout: &Path) -> String {
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn plain(status: u16) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: Vec::new(),
        sent: 0,
    }
}
