//! A registry in this process that answers whatever a test wants, and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `GET /v2/a`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    fault: Fault,
}

/// What goes wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fault {
    #[default]
    None,
    /// The connection is reset after so many bytes of the body.
    ResetAfter(usize),
    /// The connection ends after so many bytes of the body.
    EndAfter(usize),
    /// The connection is reset before anything is said.
    ResetAtOnce,
    /// Nothing is said for long.
    Hang,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub(crate) fn reset_after(mut self, bytes: usize) -> Self {
        self.fault = Fault::ResetAfter(bytes);
        self
    }

    pub(crate) fn end_after(mut self, bytes: usize) -> Self {
        self.fault = Fault::EndAfter(bytes);
        self
    }

    pub(crate) fn reset() -> Self {
        Self {
            fault: Fault::ResetAtOnce,
            ..Self::default()
        }
    }

    pub(crate) fn hang() -> Self {
        Self {
            fault: Fault::Hang,
            ..Self::default()
        }
    }
}

/// The registry. Its connections end with it.
#[derive(Debug)]
pub(crate) struct Faulty {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    log: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Handler = dyn Fn(&Seen) -> Answer + Send + Sync;

impl Faulty {
    /// Starts it with what it answers.
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", answer).await
    }

    pub(crate) async fn start_at(
        host: &str,
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = format!("{host}:{}", listener.local_addr().unwrap().port());
        let log: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let handler: Arc<Handler> = Arc::new(answer);
        let shared = Arc::clone(&log);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handler), Arc::clone(&shared)));
            }
        });
        Self {
            address,
            log,
            serving,
        }
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// `METHOD TARGET` of all requests so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

async fn serve(mut stream: TcpStream, handler: Arc<Handler>, log: Arc<Mutex<Vec<Seen>>>) {
    stream.set_nodelay(true).ok();
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut buffer).await {
        log.lock().unwrap().push(seen.clone());
        let answer = handler(&seen);
        if send(&mut stream, &seen, &answer).await.is_none() {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    assert!(
        !headers.contains_key("transfer-encoding"),
        "registries want a length"
    );
    let length = headers
        .get("content-length")
        .map_or(0, |text| text.parse().unwrap());
    while buffer.len() < end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some(Seen {
        method,
        target,
        headers,
        body,
    })
}

/// `None` if the connection is over.
async fn send(stream: &mut TcpStream, seen: &Seen, answer: &Answer) -> Option<()> {
    let part = match answer.fault {
        Fault::None => answer.body.len(),
        Fault::ResetAfter(bytes) | Fault::EndAfter(bytes) => bytes.min(answer.body.len()),
        Fault::ResetAtOnce => {
            stream.set_zero_linger().ok()?;
            return None;
        }
        Fault::Hang => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            return None;
        }
    };
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", answer.status);
    let has_length = answer
        .headers
        .iter()
        .any(|(name, _)| name == "Content-Length");
    if !has_length {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    if seen.method != "HEAD" {
        stream.write_all(&answer.body[..part]).await.ok()?;
    }
    stream.flush().await.ok()?;
    match answer.fault {
        Fault::None => Some(()),
        Fault::ResetAfter(_) => {
            // What was sent shall arrive before the reset overtakes it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.set_zero_linger().ok()?;
            None
        }
        Fault::EndAfter(_) | Fault::ResetAtOnce | Fault::Hang => None,
    }
}
