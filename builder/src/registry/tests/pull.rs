//! Layers: resumed, verified, never half.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::registry::config::RegistryConfig;
use crate::registry::error::RegistryError;
use crate::registry::pull::pull_layer;
use crate::registry::resolve::LayerDescriptor;
use crate::registry::testing::faulty::{Answer, Faulty, Seen};
use crate::registry::testing::memory::Memory;
use crate::registry::testing::sample::{layer, noise, ranged};
use crate::registry::testing::{chain, client, logged_in, reference, with_conf};

async fn pull(
    registry: &Faulty,
    blobs: &Memory,
    layer: &LayerDescriptor,
) -> Result<(), RegistryError> {
    let client = client(RegistryConfig::default());
    let name = reference(&registry.address, "a");
    pull_layer(&client, blobs, &name, layer, &|_, _| {}).await
}

#[tokio::test]
async fn goes_on_where_it_broke() {
    let bytes = noise(3 << 20);
    let wanted = layer(&bytes);
    let copy = bytes.clone();
    let tries = AtomicUsize::new(0);
    let registry = Faulty::start(move |seen| {
        let usual = ranged(seen, &copy);
        match tries.fetch_add(1, Ordering::Relaxed) {
            0 => usual.reset_after(1 << 20),
            1 => Answer::reset(),
            2 => usual.end_after(1000),
            3 => Answer::new(502),
            // Ignores the range.
            4 => Answer::new(200).body(&copy).end_after(5 << 19),
            _ => usual,
        }
    })
    .await;
    let blobs = Memory::default();
    let steps = Mutex::new(Vec::new());
    let client = client(RegistryConfig::default());
    let name = reference(&registry.address, "a");
    let progress = |done, all| steps.lock().unwrap().push((done, all));
    pull_layer(&client, &blobs, &name, &wanted, &progress)
        .await
        .unwrap();
    assert_eq!(blobs.bytes(&wanted.descriptor.digest), Some(bytes.clone()));
    let ranges: Vec<Option<String>> = registry
        .seen()
        .iter()
        .map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 6);
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[5], Some(format!("bytes={}-", 5 << 19)));
    let steps = steps.into_inner().unwrap();
    assert!(steps.is_sorted(), "goes back");
    assert_eq!(steps.last(), Some(&(3 << 20, 3 << 20)));

    pull_layer(&client, &blobs, &name, &wanted, &|_, _| {})
        .await
        .unwrap();
    assert_eq!(registry.seen().len(), 6, "what is there is not fetched");
}

#[tokio::test]
async fn wrong_blobs_do_not_enter_the_store() {
    let bytes = noise(100_000);
    let mut flipped = bytes.clone();
    flipped[77_777] ^= 1;
    let longer = [bytes.as_slice(), b"x"].concat();
    let shorter = bytes[..99_999].to_vec();
    let cases = [
        (flipped, "content has digest sha256:"),
        (longer, "has 100001 bytes, its descriptor says 100000"),
        (shorter, "ended early: unexpected EOF"),
    ];
    for (served, message) in cases {
        let registry = Faulty::start(move |seen| match seen.header("range") {
            // The shorter one ends where the rest should begin.
            Some(_) => Answer::new(200).body(&served),
            None => ranged(seen, &served),
        })
        .await;
        let blobs = Memory::default();
        let error = pull(&registry, &blobs, &layer(&bytes)).await.unwrap_err();
        assert!(chain(&error).contains(message), "{}", chain(&error));
        assert_eq!(blobs.len(), 0);
    }
}

#[tokio::test]
async fn another_part_than_asked_for_is_refused() {
    let bytes = noise(200_000);
    let wanted = layer(&bytes);
    let registry = Faulty::start(move |seen| match seen.header("range") {
        Some(_) => Answer::new(206)
            .header("Content-Range", "bytes 5-199999/200000")
            .body(&bytes[5..]),
        None => Answer::new(200).body(&bytes).reset_after(100_000),
    })
    .await;
    let blobs = Memory::default();
    let error = pull(&registry, &blobs, &wanted).await.unwrap_err();
    assert!(
        chain(&error).contains("another part of the blob"),
        "{}",
        chain(&error)
    );
    assert_eq!(blobs.len(), 0);
}

#[tokio::test]
async fn gives_up_after_five_tries_without_progress() {
    let bytes = noise(5000);
    let wanted = layer(&bytes);
    let registry = Faulty::start(move |seen| ranged(seen, &bytes).end_after(10)).await;
    let blobs = Memory::default();
    pull(&registry, &blobs, &wanted).await.unwrap_err();
    assert_eq!(registry.seen().len(), 5);
    assert_eq!(blobs.writers(), 0, "leaves a file");
}

#[tokio::test]
async fn what_is_given_up_in_the_middle_leaves_no_file() {
    let bytes = noise(200_000);
    let wanted = layer(&bytes);
    let registry = Faulty::start(move |seen| ranged(seen, &bytes).end_after(100_000)).await;
    let blobs = Memory::default();
    let client = client(RegistryConfig::default());
    let name = reference(&registry.address, "a");
    let begun = tokio::sync::Notify::new();
    let progress = |_, _| {
        assert_eq!(blobs.writers(), 1);
        begun.notify_one();
    };
    tokio::select! {
        ended = pull_layer(&client, &blobs, &name, &wanted, &progress) => panic!("{ended:?}"),
        () = begun.notified() => {}
    }
    assert_eq!(blobs.writers(), 0);
}

#[tokio::test]
async fn a_mirror_with_a_wrong_blob_is_passed_over() {
    let bytes = noise(5000);
    let wanted = layer(&bytes);
    let mirror = Faulty::start(|_| Answer::new(200).body(vec![0; 5000])).await;
    let upstream = Faulty::start(move |seen| ranged(seen, &bytes)).await;
    let (config, _dir) = with_conf(&format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\n",
        upstream.address, mirror.address
    ));
    let blobs = Memory::default();
    let name = reference(&upstream.address, "a");
    pull_layer(&client(config), &blobs, &name, &wanted, &|_, _| {})
        .await
        .unwrap();
    assert_eq!(blobs.len(), 1);
    assert_eq!((mirror.seen().len(), upstream.seen().len()), (1, 1));
}

/// Asks for a login, then sends everybody to `elsewhere`.
async fn redirecting(elsewhere: String) -> Faulty {
    Faulty::start(move |seen: &Seen| match seen.header("authorization") {
        None => Answer::new(401).header("WWW-Authenticate", "Basic realm=\"r\""),
        Some(_) => {
            Answer::new(307).header("Location", format!("http://{elsewhere}/signed?key=s3cret"))
        }
    })
    .await
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect() {
    let bytes = noise(5000);
    let wanted = layer(&bytes);
    let bucket = Faulty::start(move |seen| ranged(seen, &bytes)).await;
    let registry = redirecting(bucket.address.clone()).await;
    let client = client(logged_in(&registry.address, "u", "p"));
    let blobs = Memory::default();
    let name = reference(&registry.address, "a");
    pull_layer(&client, &blobs, &name, &wanted, &|_, _| {})
        .await
        .unwrap();
    assert_eq!(blobs.len(), 1);
    let asked = bucket.seen();
    assert_eq!(asked[0].target, "/signed?key=s3cret");
    assert_eq!(asked[0].header("authorization"), None);
}

#[tokio::test]
async fn a_challenge_from_elsewhere_is_not_answered() {
    let challenge = || Answer::new(401).header("WWW-Authenticate", "Basic realm=\"evil\"");
    for asks_itself in [true, false] {
        let bucket = Faulty::start(move |_| challenge()).await;
        let registry = match asks_itself {
            true => redirecting(bucket.address.clone()).await,
            false => {
                let location = format!("http://{}/signed?key=s3cret", bucket.address);
                Faulty::start(move |_| Answer::new(307).header("Location", &location)).await
            }
        };
        let client = client(logged_in(&registry.address, "u", "p"));
        let (name, wanted) = (reference(&registry.address, "a"), layer(b"x"));
        let error = pull_layer(&client, &Memory::default(), &name, &wanted, &|_, _| {}).await;
        let text = chain(&error.unwrap_err());
        assert!(text.starts_with("pull access denied"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        assert_eq!(bucket.seen().len(), 1);
        assert_eq!(bucket.seen()[0].header("authorization"), None);
        let shown = registry.seen();
        let credentials = shown
            .iter()
            .filter(|seen| seen.header("authorization").is_some());
        assert_eq!(credentials.count(), usize::from(asks_itself));
    }
}

#[tokio::test]
async fn redirects_end() {
    let registry = Faulty::start(|_| Answer::new(302).header("Location", "/again")).await;
    let error = pull(&registry, &Memory::default(), &layer(b"x"))
        .await
        .unwrap_err();
    assert!(
        chain(&error).contains("more than 10 redirects"),
        "{}",
        chain(&error)
    );
    assert_eq!(registry.seen().len(), 11);
    let registry =
        Faulty::start(|_| Answer::new(302).header("Location", "file:///etc/passwd")).await;
    let error = pull(&registry, &Memory::default(), &layer(b"x"))
        .await
        .unwrap_err();
    assert!(
        chain(&error).contains("neither http nor https"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn foreign_layers_get_no_credential() {
    let bytes = noise(5000);
    let copy = bytes.clone();
    let foreign = Faulty::start(move |seen| ranged(seen, &copy)).await;
    let registry = Faulty::start(|_| Answer::new(404)).await;
    let mut config = logged_in(&registry.address, "u", "p");
    let auths = format!(
        r#"{{"auths":{{"{}":{{"username":"u","password":"p"}}}}}}"#,
        foreign.address
    );
    config.credentials.inline = Some(crate::registry::config::Secret::new(auths));
    let mut wanted = layer(&bytes);
    wanted.urls = vec![format!("http://{}/layer", foreign.address)];
    let blobs = Memory::default();
    let name = reference(&registry.address, "a");
    pull_layer(&client(config), &blobs, &name, &wanted, &|_, _| {})
        .await
        .unwrap();
    assert_eq!(blobs.len(), 1);
    assert_eq!(foreign.lines(), ["GET /layer"]);
    assert_eq!(foreign.seen()[0].header("authorization"), None);
    assert!(registry.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn four_transfers_at_a_time() {
    let bytes = noise(50_000);
    let copy = bytes.clone();
    let open = std::sync::Arc::new(AtomicUsize::new(0));
    let most = std::sync::Arc::new(AtomicUsize::new(0));
    let (count, peak) = (std::sync::Arc::clone(&open), std::sync::Arc::clone(&most));
    let registry = Faulty::start(move |seen| {
        let now = count.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(30));
        count.fetch_sub(1, Ordering::SeqCst);
        ranged(seen, &copy)
    })
    .await;
    let client = client(RegistryConfig::default());
    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (client, wanted) = (client.clone(), layer(&bytes));
        let name = reference(&registry.address, "a");
        pulls.spawn(async move {
            let blobs = Memory::default();
            pull_layer(&client, &blobs, &name, &wanted, &|_, _| {})
                .await
                .unwrap();
        });
    }
    while let Some(done) = pulls.join_next().await {
        done.unwrap();
    }
    assert_eq!(registry.seen().len(), 12);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} at once");
}
