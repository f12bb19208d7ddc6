//! Files over HTTP (features.md 1.12): one request a build, and no download of what has not changed.
//!
//! What a server said about an address (entity tag, time, digest of the body) is remembered. The next build asks with
//! these validators; a `304`, or the same entity tag, means the file of then. A time says so only if the answer that gave it
//! was seconds younger: a file may change again within the second that it bears. With `--checksum` nobody is asked: the
//! checksum is the key, and the file is fetched only if the layer is not there.
//!
//! The layer has one file: mode 0600, owner 0:0, time of `Last-Modified` or 0.

use std::fs::{File, FileTimes};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use cache::digest::{CacheKey, ContentDigest, DiffId, hex};
use cache::key::builder::KeyBuilder;
use cache::layer::sink::nowhere;
use cache::layer::stack::LayerStack;
use cache::snapshot::active::ActiveTree;
use frontend::graph::HttpOp;
use frontend::shown_url::without_secrets;
use reqwest::header::HeaderValue;
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::error::StepError;
use super::remote::{Fetching, Identified};
use crate::progress::event::Event;
use crate::registry::download::Wanted;
use crate::registry::error::RegistryError;
use crate::registry::reply::Reply;
use crate::registry::transport::authority;

/// How often the progress of a download is told.
const TICK: Duration = Duration::from_millis(100);

/// A file that was downloaded, in the tree that will be its layer.
#[derive(Debug)]
pub(crate) struct Fetched {
    tree: ActiveTree,
    answer: Answer,
}

impl Fetched {
    /// Where the file is.
    pub(crate) fn path(&self, op: &HttpOp) -> PathBuf {
        self.tree.upper().join(&op.filename)
    }
}

/// How much older than its answer a file must be for its time to tell it from a later one, in seconds: times of HTTP are
/// whole seconds, and some file systems keep every other one.
const SETTLED_SECONDS: i64 = 2;

/// What a server said about an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    etag: Option<String>,
    modified: Option<String>,
    /// When it said so, by its own clock.
    #[serde(default)]
    date: Option<String>,
    /// BLAKE3 of the body.
    content: [u8; 32],
    /// `algorithm:hex`, where a checksum was to be verified.
    #[serde(skip)]
    checksum: Option<String>,
}

/// What came of asking.
enum Asked {
    /// The file is that of the answer we have.
    Unchanged,
    Downloaded(Box<Fetched>),
}

impl Answer {
    /// Whole seconds since the epoch.
    fn mtime(&self) -> i64 {
        seconds(self.modified.as_deref()).map_or(0, |time| time.max(0))
    }

    /// The time of the file, if a later file cannot have the same.
    fn settled(&self) -> Option<&str> {
        let modified = self.modified.as_deref();
        let age = seconds(self.date.as_deref())? - seconds(modified)?;
        modified.filter(|_| age >= SETTLED_SECONDS)
    }
}

/// Seconds since the epoch of a time as headers give it.
fn seconds(header: Option<&str>) -> Option<i64> {
    let parsed = jiff::fmt::rfc2822::parse(header?).ok()?;
    Some(parsed.timestamp().as_second())
}

/// Finds out which file an address has, downloading it if that is not known.
pub(crate) fn identify(
    fetching: &Fetching<'_>,
    op: &HttpOp,
) -> Result<(Identified, Option<Fetched>), StepError> {
    if let Some(checksum) = &op.checksum {
        let mut key = KeyBuilder::new("http by checksum");
        key.text("file name", &op.filename);
        key.text("checksum", checksum);
        let identified = Identified {
            key: key.finish(),
            parts: key.into_parts(),
        };
        return Ok((identified, None));
    }
    let memo = memo(&op.url);
    let known = fetching.keys.memo(&memo)?;
    let known: Option<Answer> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (answer, fetched) = match (ask(fetching, op, known.as_ref())?, known) {
        (Asked::Downloaded(fetched), _) => (fetched.answer.clone(), Some(*fetched)),
        (Asked::Unchanged, Some(known)) => (known, None),
        (Asked::Unchanged, None) => {
            return Err(StepError::HttpStatus {
                url: shown(&op.url),
                status: StatusCode::NOT_MODIFIED.as_u16(),
            });
        }
    };
    if fetched.is_some()
        && let Ok(bytes) = serde_json::to_vec(&answer)
    {
        fetching.keys.remember(&memo, &bytes, fetching.now_ms)?;
    }
    Ok((identified_by(op, &answer), fetched))
}

fn identified_by(op: &HttpOp, answer: &Answer) -> Identified {
    let mut key = KeyBuilder::new("http");
    key.text("file name", &op.filename);
    key.content("content", &ContentDigest(answer.content));
    key.number("last modified", i128::from(answer.mtime()));
    Identified {
        key: key.finish(),
        parts: key.into_parts(),
    }
}

/// Makes the layer of a key, downloading the file if that was not done to identify it.
pub(crate) fn layer(
    fetching: &Fetching<'_>,
    op: &HttpOp,
    key: &CacheKey,
    fetched: Option<Fetched>,
) -> Result<DiffId, StepError> {
    let fetched = match fetched {
        Some(fetched) => fetched,
        None => download(fetching, op)?,
    };
    if op.checksum.is_none() && identified_by(op, &fetched.answer).key != *key {
        return Err(StepError::Moved {
            what: shown(&op.url),
        });
    }
    if let (Some(expected), Some(found)) = (&op.checksum, &fetched.answer.checksum)
        && expected != found
    {
        return Err(StepError::Checksum {
            what: shown(&op.url),
            expected: expected.clone(),
            found: found.clone(),
        });
    }
    let path = fetched.path(op);
    finish(&path, fetched.answer.mtime()).map_err(|source| StepError::Io {
        attempt: "finish",
        path,
        source,
    })?;
    let nothing = LayerStack::new(Vec::new());
    fetching
        .layers
        .freeze(fetched.tree, &nothing, &mut nowhere())
}

/// Downloads a file, whatever is known of it.
pub(crate) fn download(fetching: &Fetching<'_>, op: &HttpOp) -> Result<Fetched, StepError> {
    match ask(fetching, op, None)? {
        Asked::Downloaded(fetched) => Ok(*fetched),
        Asked::Unchanged => Err(StepError::HttpStatus {
            url: shown(&op.url),
            status: StatusCode::NOT_MODIFIED.as_u16(),
        }),
    }
}

fn finish(path: &Path, mtime: i64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_permissions(PermissionsExt::from_mode(0o600))?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(mtime.unsigned_abs());
    file.set_times(FileTimes::new().set_accessed(time).set_modified(time))
}

fn memo(url: &str) -> CacheKey {
    let mut memo = KeyBuilder::new("answer to an http request");
    memo.text("url", url);
    memo.finish()
}

/// An address without password and query.
pub(crate) fn shown(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        return url.to_owned();
    };
    let is_clean = url.set_username("").is_ok() && url.set_password(None).is_ok();
    url.set_query(None);
    url.set_fragment(None);
    if is_clean {
        url.to_string()
    } else {
        String::new()
    }
}

fn ask(fetching: &Fetching<'_>, op: &HttpOp, known: Option<&Answer>) -> Result<Asked, StepError> {
    // Nobody can say that it changed.
    if known.is_some() && fetching.reach.client.is_offline() {
        return Ok(Asked::Unchanged);
    }
    fetching.may_ask(&op.url)?;
    let mut url = Url::parse(&op.url).map_err(|source| StepError::Url {
        url: without_secrets(&op.url),
        source,
    })?;
    url.set_fragment(None);
    let wanted = Wanted {
        url: &url,
        etag: known.and_then(|known| known.etag.as_deref()),
        modified: known.and_then(Answer::settled),
        authorization: authorization(fetching, &url)?,
    };
    fetching.wait(async {
        let reply = fetching.reach.client.download(&wanted).await;
        let reply = reply.map_err(|error| status_of(error, &op.url))?;
        let is_same = known.is_some_and(|known| is_unchanged(&reply, known));
        if is_same {
            return Ok(Asked::Unchanged);
        }
        if !reply.status().is_success() {
            return Err(StepError::HttpStatus {
                url: shown(&op.url),
                status: reply.status().as_u16(),
            });
        }
        let fetched = receive(fetching, op, reply).await?;
        Ok(Asked::Downloaded(Box::new(fetched)))
    })
}

fn status_of(error: RegistryError, url: &str) -> StepError {
    match error {
        RegistryError::Status { status, .. } => StepError::HttpStatus {
            url: shown(url),
            status: status.as_u16(),
        },
        other => StepError::Registry(other),
    }
}

/// Some servers know entity tags and answer in full all the same: then the body is not read.
fn is_unchanged(reply: &Reply, known: &Answer) -> bool {
    reply.status() == StatusCode::NOT_MODIFIED
        || reply.status() == StatusCode::OK
            && known.etag.is_some()
            && reply.header("etag") == known.etag.as_deref()
            && reply.header("last-modified") == known.modified.as_deref()
}

/// `HTTP_AUTH_HEADER_<host>` as it is, `HTTP_AUTH_TOKEN_<host>` as a bearer token; the host with its port goes first.
fn authorization(fetching: &Fetching<'_>, url: &Url) -> Result<Option<HeaderValue>, StepError> {
    let hosts = [
        authority(url),
        url.host_str().unwrap_or_default().to_owned(),
    ];
    for host in hosts {
        for (name, scheme) in [("HEADER", ""), ("TOKEN", "Bearer ")] {
            let id = format!("HTTP_AUTH_{name}_{host}");
            let Some(secret) = fetching.secrets.secret(&id)? else {
                continue;
            };
            let value = [scheme.as_bytes(), secret.trim_ascii()].concat();
            let value = HeaderValue::from_bytes(&value);
            let mut value = value.map_err(|_not_a_header| StepError::BadCredential { id })?;
            value.set_sensitive(true);
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Hashes that a body goes through.
struct Hashes {
    content: blake3::Hasher,
    checksum: Option<Checksum>,
}

enum Checksum {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hashes {
    fn new(checksum: Option<&str>) -> Self {
        let algorithm = checksum.and_then(|text| text.split_once(':'));
        Self {
            content: blake3::Hasher::new(),
            checksum: match algorithm.map(|(algorithm, _)| algorithm) {
                Some("sha256") => Some(Checksum::Sha256(sha2::Sha256::new())),
                Some("sha384") => Some(Checksum::Sha384(sha2::Sha384::new())),
                Some("sha512") => Some(Checksum::Sha512(sha2::Sha512::new())),
                Some(_) | None => None,
            },
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.content.update(bytes);
        match &mut self.checksum {
            Some(Checksum::Sha256(hasher)) => hasher.update(bytes),
            Some(Checksum::Sha384(hasher)) => hasher.update(bytes),
            Some(Checksum::Sha512(hasher)) => hasher.update(bytes),
            None => {}
        }
    }

    fn finish(self) -> ([u8; 32], Option<String>) {
        let checksum = self.checksum.map(|checksum| match checksum {
            Checksum::Sha256(hasher) => format!("sha256:{}", hex(&hasher.finalize())),
            Checksum::Sha384(hasher) => format!("sha384:{}", hex(&hasher.finalize())),
            Checksum::Sha512(hasher) => format!("sha512:{}", hex(&hasher.finalize())),
        });
        (*self.content.finalize().as_bytes(), checksum)
    }
}

/// Writes a body into a fresh tree.
async fn receive(
    fetching: &Fetching<'_>,
    op: &HttpOp,
    mut reply: Reply,
) -> Result<Fetched, StepError> {
    let tree = fetching.layers.new_tree()?;
    let path = tree.upper().join(&op.filename);
    let failed = |source| StepError::Io {
        attempt: "write",
        path: path.clone(),
        source,
    };
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let mut file = BufWriter::with_capacity(256 * 1024, file);
    let mut hashes = Hashes::new(op.checksum.as_deref());
    let (mut received, mut told_at) = (0, Instant::now());
    let total = reply.header("content-length").and_then(|n| n.parse().ok());
    let total: u64 = total.unwrap_or(0);
    let tell = |current, is_completed| {
        fetching.progress.events.emit(Event::Status {
            vertex: fetching.progress.vertex.clone(),
            id: format!("downloading {}", op.filename),
            current,
            total,
            is_completed,
        });
    };
    while let Some(chunk) = reply.chunk().await.map_err(RegistryError::from)? {
        let bytes: &[u8] = chunk.as_ref();
        hashes.update(bytes);
        file.write_all(bytes).map_err(failed)?;
        received += bytes.len() as u64;
        if told_at.elapsed() > TICK {
            tell(received, false);
            told_at = Instant::now();
        }
    }
    file.flush().map_err(failed)?;
    tell(received, true);
    let (content, checksum) = hashes.finish();
    let answer = Answer {
        etag: reply.header("etag").map(str::to_owned),
        modified: reply.header("last-modified").map(str::to_owned),
        date: reply.header("date").map(str::to_owned),
        content,
        checksum,
    };
    Ok(Fetched { tree, answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_header_or_zero() {
        let answer = |modified: Option<&str>| Answer {
            etag: None,
            modified: modified.map(str::to_owned),
            date: None,
            content: [0; 32],
            checksum: None,
        };
        for (modified, want) in [
            (Some("Tue, 15 Nov 1994 12:45:26 GMT"), 784_903_526),
            (Some("Thu, 01 Jan 1960 00:00:00 GMT"), 0),
            (Some("yesterday"), 0),
            (None, 0),
        ] {
            assert_eq!(answer(modified).mtime(), want, "{modified:?}");
        }
    }

    #[test]
    fn a_time_tells_files_apart_only_once_it_is_past() {
        let modified = "Tue, 15 Nov 1994 12:45:26 GMT";
        let settled = |date: Option<&str>| {
            let answer = Answer {
                etag: None,
                modified: Some(modified.to_owned()),
                date: date.map(str::to_owned),
                content: [0; 32],
                checksum: None,
            };
            answer.settled().is_some()
        };
        for (date, want) in [
            (Some(modified), false),
            (Some("Tue, 15 Nov 1994 12:45:27 GMT"), false),
            (Some("Tue, 15 Nov 1994 12:45:28 GMT"), true),
            (Some("Tue, 15 Nov 1994 12:45:00 GMT"), false),
            (Some("now"), false),
            (None, false),
        ] {
            assert_eq!(settled(date), want, "{date:?}");
        }
    }

    #[test]
    fn secrets_of_addresses_are_not_shown() {
        assert_eq!(shown("https://u:p@h/a?sig=1#x"), "https://h/a");
        assert_eq!(shown("nonsense"), "nonsense");
    }

    #[test]
    fn a_body_has_the_checksum_that_was_asked_for() {
        let mut hashes = Hashes::new(Some("sha256:00"));
        hashes.update(b"hello\n");
        let (content, checksum) = hashes.finish();
        assert_eq!(content, *blake3::hash(b"hello\n").as_bytes());
        let want = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(checksum.as_deref(), Some(want));
        assert_eq!(Hashes::new(None).finish().1, None);
    }
}
