//! Pushing to a registry with faults.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use cache::digest::Digest;

use crate::registry::config::RegistryConfig;
use crate::registry::document::OCI_MANIFEST;
use crate::registry::push::{BodySource, Freshness, Pushed, Upload};
use crate::registry::testing::faulty::{Answer, Faulty, Seen};
use crate::registry::testing::sample::noise;
use crate::registry::testing::{chain, client, reference};

struct Bytes(Vec<u8>);

impl BodySource for Bytes {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.0.clone())))
    }
}

fn upload<'a>(digest: &'a Digest, source: &'a Bytes) -> Upload<'a> {
    Upload {
        digest,
        size: source.0.len() as u64,
        freshness: Freshness::MayExist,
        source,
        progress: &|_, _| {},
    }
}

/// What a registry without any blob says; `put` answers the bytes.
fn empty(put: impl Fn(&Seen) -> Answer + Send + Sync) -> impl Fn(&Seen) -> Answer + Send + Sync {
    move |seen| match seen.method.as_str() {
        "HEAD" => Answer::new(404),
        "POST" => Answer::new(202).header("Location", "/v2/a/blobs/uploads/7?_state=x"),
        _ => put(seen),
    }
}

#[tokio::test]
async fn one_post_one_put() {
    let source = Bytes(noise(700_000));
    let digest = Digest::of(&source.0);
    let registry = Faulty::start(empty(|_| Answer::new(201))).await;
    let client = client(RegistryConfig::default());
    let name = reference(&registry.address, "a");
    let last = AtomicUsize::new(0);
    let progress = |done: u64, _| last.store(usize::try_from(done).unwrap(), Ordering::SeqCst);
    let upload = Upload {
        progress: &progress,
        ..upload(&digest, &source)
    };
    let pushed = client.push_blob(&name, &upload, None).await.unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    assert_eq!(
        registry.lines(),
        [
            format!("HEAD /v2/a/blobs/{digest}"),
            "POST /v2/a/blobs/uploads/".to_owned(),
            format!(
                "PUT /v2/a/blobs/uploads/7?_state=x&digest={}",
                digest.as_str().replace(':', "%3A")
            ),
        ]
    );
    assert_eq!(registry.seen()[2].body, source.0);
    assert_eq!(last.load(Ordering::SeqCst), 700_000);
}

#[tokio::test]
async fn broken_uploads_start_over() {
    let source = Bytes(noise(300_000));
    let digest = Digest::of(&source.0);
    let tries = AtomicUsize::new(0);
    let registry = Faulty::start(empty(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::reset(),
        1 => Answer::new(500),
        2 => Answer::new(429).header("Retry-After", 1),
        _ => Answer::new(201),
    }))
    .await;
    let client = client(RegistryConfig::default());
    let name = reference(&registry.address, "a");
    client
        .upload(&name, &upload(&digest, &source), None)
        .await
        .unwrap();
    let puts: Vec<Seen> = registry
        .seen()
        .into_iter()
        .filter(|seen| seen.method == "PUT")
        .collect();
    assert_eq!(puts.len(), 4);
    assert!(
        puts.iter().all(|put| put.body == source.0),
        "each has all bytes"
    );
}

#[tokio::test]
async fn refused_mounts_become_uploads() {
    let source = Bytes(noise(10));
    let digest = Digest::of(&source.0);
    let client = client(RegistryConfig::default());
    let registry = Faulty::start(empty(|_| Answer::new(201))).await;
    let name = reference(&registry.address, "a");
    let pushed = client
        .push_blob(&name, &upload(&digest, &source), Some("base"))
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    assert_eq!(
        registry.lines().len(),
        3,
        "the mount's session is used: {:?}",
        registry.lines()
    );
    let mount = &registry.lines()[1];
    assert!(
        mount.ends_with("&from=base") && mount.contains("?mount=sha256%3A"),
        "{mount}"
    );

    let registry =
        Faulty::start(
            |seen| match (seen.method.as_str(), seen.target.contains("mount=")) {
                ("HEAD", _) => Answer::new(404),
                ("POST", true) => Answer::new(403),
                ("POST", false) => Answer::new(202).header("Location", "up"),
                _ => Answer::new(201),
            },
        )
        .await;
    let name = reference(&registry.address, "a");
    let pushed = client
        .push_blob(&name, &upload(&digest, &source), Some("base"))
        .await
        .unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
}

#[tokio::test]
async fn failures_are_told() {
    let source = Bytes(noise(10));
    let digest = Digest::of(&source.0);
    let wrong = Digest::of(b"other");
    let denied = r#"{"errors":[{"code":"DENIED","message":"quota"}]}"#;
    let cases = [
        (
            Answer::new(401).body(denied),
            "push access denied, repository does not exist or may require authorization: server message: denied: quota",
        ),
        (
            Answer::new(413),
            "unexpected status from PUT request to http://",
        ),
        (
            Answer::new(202),
            "the registry does not confirm that it has stored it",
        ),
        (
            Answer::new(201).header("Docker-Content-Digest", &wrong),
            "the registry has stored it under another digest",
        ),
    ];
    for (answer, message) in cases {
        let answer = match message.starts_with("push") {
            true => answer.header("WWW-Authenticate", "Basic realm=\"r\""),
            false => answer,
        };
        let registry = Faulty::start(empty(move |_| answer.clone())).await;
        let client = client(RegistryConfig::default());
        let name = reference(&registry.address, "a");
        let error = client
            .upload(&name, &upload(&digest, &source), None)
            .await
            .unwrap_err();
        assert!(chain(&error).contains(message), "{}", chain(&error));
    }
}

#[tokio::test]
async fn unreadable_bytes_are_our_fault() {
    let digest = Digest::of(b"x");
    let short = Bytes(noise(10));
    let broken =
        || -> io::Result<Box<dyn Read + Send>> { Err(io::ErrorKind::PermissionDenied.into()) };
    let sources: [(&dyn BodySource, &str); 2] = [
        (&short, "unexpected end of file"),
        (&broken, "permission denied"),
    ];
    for (source, message) in sources {
        let registry = Faulty::start(empty(|_| Answer::new(201))).await;
        let client = client(RegistryConfig::default());
        let name = reference(&registry.address, "a");
        let upload = Upload {
            digest: &digest,
            size: 20,
            freshness: Freshness::MayExist,
            source,
            progress: &|_, _| {},
        };
        let error = client.upload(&name, &upload, None).await.unwrap_err();
        let text = chain(&error);
        assert!(
            text.starts_with("cannot read what is to be sent to http://"),
            "{text}"
        );
        assert!(text.contains(message), "{text}");
    }
}

#[tokio::test]
async fn what_is_new_is_not_asked_for() {
    let source = Bytes(noise(100));
    let digest = Digest::of(&source.0);
    let registry = Faulty::start(empty(|_| Answer::new(201))).await;
    let client = client(RegistryConfig::default());
    let name = reference(&registry.address, "a:1");
    let upload = Upload {
        freshness: Freshness::New,
        ..upload(&digest, &source)
    };
    let pushed = client.push_blob(&name, &upload, None).await.unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    client
        .put_manifest(&name, OCI_MANIFEST, b"{}", Freshness::New)
        .await
        .unwrap();
    let methods: Vec<String> = registry
        .seen()
        .iter()
        .map(|seen| seen.method.clone())
        .collect();
    assert_eq!(methods, ["POST", "PUT", "PUT"]);
}

#[tokio::test]
async fn manifests_that_are_there_are_not_put() {
    let bytes = br#"{"schemaVersion":2}"#;
    let digest = Digest::of(bytes);
    let copy = digest.clone();
    let registry = Faulty::start(
        move |seen| match (seen.method.as_str(), seen.target.as_str()) {
            ("HEAD", "/v2/a/manifests/there") => {
                Answer::new(200).header("Docker-Content-Digest", &copy)
            }
            ("HEAD", _) => Answer::new(404),
            _ => Answer::new(201).header("Docker-Content-Digest", &copy),
        },
    )
    .await;
    let client = client(RegistryConfig::default());
    for (name, puts) in [("a:there", 0), ("a:new", 1), (&format!("a@{digest}"), 2)] {
        let name = reference(&registry.address, name);
        let stored = client
            .put_manifest(&name, OCI_MANIFEST, bytes, Freshness::MayExist)
            .await
            .unwrap();
        assert_eq!(stored, digest);
        let seen = registry.seen();
        let sent: Vec<&Seen> = seen.iter().filter(|seen| seen.method == "PUT").collect();
        assert_eq!(sent.len(), puts, "{name}");
        if let Some(last) = sent.last() {
            assert_eq!(last.header("content-type"), Some(OCI_MANIFEST));
            assert_eq!(last.body, bytes);
        }
    }
}
