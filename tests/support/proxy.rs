//! Stands before a registry: notes every request, and can hold some back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long anybody waits here: longer than any build of a test, shorter than a test's patience.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The registry gets it.
    Passed,
    /// Nobody ever answers it.
    Held,
    /// It is answered with this status.
    Refused(u16),
}

/// A proxy before a registry. Its threads end with the test's process.
pub(crate) struct Proxy {
    /// `127.0.0.1:port`
    pub(crate) address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    fate: Box<dyn Fn(&str) -> Fate + Send + Sync>,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    /// `METHOD /path`, in order of their beginning.
    begun: Vec<String>,
    /// The same and the status, in order of their end.
    answered: Vec<String>,
}

impl Proxy {
    /// Passes everything on to the registry at this address.
    pub(crate) fn start(upstream: &str) -> Self {
        Self::with_fate(upstream, |_| Fate::Passed)
    }

    /// Treats requests (`METHOD /path`) as told. A request for `/wait/WORDS` is answered by the proxy itself: when a
    /// request whose line has all the words (joined by `+`) has been answered, or has begun if the first word is `begun`.
    pub(crate) fn with_fate(
        upstream: &str,
        fate: impl Fn(&str) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            fate: Box::new(fate),
            seen: Mutex::default(),
            changed: Condvar::new(),
        });
        let of_threads = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&of_threads);
                // A connection that breaks is what the client sees, too.
                std::thread::spawn(move || drop(shared.serve(&client)));
            }
        });
        Self { address, shared }
    }

    /// `address/name`
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// The requests since the last call, as `METHOD /path status`, sorted as they were answered.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.seen.lock().unwrap().answered)
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        let mut requests = BufReader::new(client.try_clone()?);
        loop {
            let head = head(&mut requests)?;
            let Some(line) = head.lines().next().and_then(line_of) else {
                return Ok(());
            };
            if let Some(words) = line.strip_prefix("GET /wait/") {
                let status = if self.wait(words) { 200 } else { 500 };
                answer(client, status)?;
                return client.shutdown(Shutdown::Both);
            }
            self.note(|seen| seen.begun.push(line.clone()));
            match (self.fate)(&line) {
                Fate::Passed => {}
                Fate::Held => {
                    std::thread::sleep(PATIENCE);
                    return Ok(());
                }
                Fate::Refused(status) => {
                    io::copy(&mut (&mut requests).take(length(&head)), &mut io::sink())?;
                    self.note(|seen| seen.answered.push(format!("{line} {status}")));
                    answer(client, status)?;
                    continue;
                }
            }
            // A connection for each request: nothing is left over of one for the next.
            let mut upstream = TcpStream::connect(&self.upstream)?;
            let closing = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            upstream.write_all(closing.as_bytes())?;
            io::copy(&mut (&mut requests).take(length(&head)), &mut upstream)?;
            let mut replies = BufReader::new(upstream);
            let reply = self::head(&mut replies)?;
            let status = reply.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut body = Vec::new();
            replies.read_to_end(&mut body)?;
            // Noted first: who has the answer may ask for the notes at once.
            self.note(|seen| seen.answered.push(format!("{line} {status}")));
            let mut client = client;
            client.write_all(reply.as_bytes())?;
            client.write_all(&body)?;
            return client.shutdown(Shutdown::Write);
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait(&self, words: &str) -> bool {
        let mut words: Vec<&str> = words.split('+').collect();
        let of_begun = words.first() == Some(&"begun");
        words.retain(|word| *word != "begun");
        let is_missing = |seen: &mut Seen| {
            let lines = if of_begun {
                &seen.begun
            } else {
                &seen.answered
            };
            let fits = |line: &String| words.iter().all(|word| line.contains(word));
            !lines.iter().any(fits)
        };
        let seen = self.seen.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(seen, PATIENCE, is_missing)
            .unwrap();
        !waited.1.timed_out()
    }
}

/// The lines until the empty one, inclusive.
fn head(stream: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// `METHOD /path` of `METHOD /path?query HTTP/1.1`; the query stays if it mounts.
fn line_of(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let is_mount = target.contains("mount=");
    let path = if is_mount {
        target
    } else {
        target.split('?').next()?
    };
    Some(format!("{method} {path}"))
}

fn length(head: &str) -> u64 {
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths
        .next()
        .map_or(0, |(_, length)| length.trim().parse().unwrap())
}

fn answer(mut client: &TcpStream, status: u16) -> io::Result<()> {
    client.write_all(format!("HTTP/1.1 {status} told\r\nContent-Length: 0\r\n\r\n").as_bytes())
}
