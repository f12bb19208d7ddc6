//! Resolving: how many requests, which image, which error.

use std::time::Duration;

use frontend::platform::Platform;
use serde_json::json;

use crate::registry::config::{RegistryConfig, Secret};
use crate::registry::document::{DOCKER_MANIFEST, OCI_INDEX};
use crate::registry::error::RegistryError;
use crate::registry::resolve::{ResolvedImage, resolve_image};
use crate::registry::testing::faulty::{Answer, Faulty, Seen};
use crate::registry::testing::memory::Memory;
use crate::registry::testing::sample::Sample;
use crate::registry::testing::{chain, client, patient, reference, with_conf};

fn amd64() -> Platform {
    Platform::linux("amd64")
}

async fn resolve_on(
    registry: &Faulty,
    blobs: &Memory,
    name: &str,
) -> Result<ResolvedImage, RegistryError> {
    let client = client(RegistryConfig::default());
    resolve_image(
        &client,
        blobs,
        &reference(&registry.address, name),
        &amd64(),
    )
    .await
}

#[tokio::test]
async fn one_head_when_everything_is_there() {
    let image = Sample::image("amd64", &[b"one", b"two"]);
    let index = Sample::index(&[(
        Some(json!({"os": "linux", "architecture": "amd64"})),
        &image,
    )]);
    let (root, manifest) = (index.digest(), image.digest());
    let registry = Faulty::start(move |seen| index.answer(seen)).await;
    let blobs = Memory::default();
    let resolved = resolve_on(&registry, &blobs, "a/b").await.unwrap();
    assert_eq!(resolved.root.digest, root);
    assert_eq!(resolved.root.media_type, OCI_INDEX);
    assert_eq!(resolved.manifest.digest, manifest);
    assert_eq!(resolved.layers.len(), 2);
    assert_eq!(resolved.other_platform, None);
    let first = registry.lines();
    assert_eq!(first.len(), 4, "HEAD, index, manifest, config: {first:?}");
    assert_eq!(first[0], "HEAD /v2/a/b/manifests/latest");
    assert_eq!(first[1], format!("GET /v2/a/b/manifests/{root}"));

    let again = resolve_on(&registry, &blobs, "a/b").await.unwrap();
    assert_eq!(again, resolved);
    assert_eq!(registry.lines()[4..], ["HEAD /v2/a/b/manifests/latest"]);

    let pinned = format!("a/b:latest@{root}");
    resolve_on(&registry, &blobs, &pinned).await.unwrap();
    assert_eq!(
        registry.lines().len(),
        5,
        "a digest that is there asks nobody"
    );
}

#[tokio::test]
async fn registries_without_head_or_digest_header() {
    let image = Sample::image("amd64", &[b"x"]);
    let digest = image.digest();
    let cases: [fn(&Seen, Answer) -> Answer; 2] = [
        |seen, usual| match seen.method.as_str() {
            "HEAD" => Answer::new(405),
            _ => usual,
        },
        |seen, usual| match seen.method.as_str() {
            "HEAD" => Answer::new(200),
            _ => usual,
        },
    ];
    for change in cases {
        let image = image.clone();
        let registry = Faulty::start(move |seen| change(seen, image.answer(seen))).await;
        let resolved = resolve_on(&registry, &Memory::default(), "a")
            .await
            .unwrap();
        assert_eq!(resolved.root.digest, digest);
        let lines = registry.lines();
        assert_eq!(lines[1], "GET /v2/a/manifests/latest", "{lines:?}");
    }
}

#[tokio::test]
async fn platforms() {
    let amd64_image = Sample::image("amd64", &[b"amd64"]);
    let arm = Sample::image("arm", &[b"arm"]);
    let arm64 = Sample::image("arm64", &[b"arm64"]);
    let platform = |os: &str, architecture: &str, variant: &str| {
        Some(json!({"os": os, "architecture": architecture, "variant": variant}))
    };
    let index = Sample::index(&[
        (platform("unknown", "unknown", ""), &arm64),
        (platform("linux", "arm", "v6"), &arm),
        (platform("linux", "arm", "v7"), &arm64),
        (platform("linux", "amd64", ""), &amd64_image),
    ]);
    let unlabelled = Sample::index(&[(None, &arm64), (None, &amd64_image)]);
    let nested = Sample::index(&[(None, &index)]);
    let cases = [
        (&index, "linux/amd64", Some(&amd64_image)),
        (&index, "linux/arm/v7", Some(&arm64)),
        (&index, "linux/arm/v6", Some(&arm)),
        (&index, "linux/s390x", None),
        (&unlabelled, "linux/amd64", Some(&amd64_image)),
        (&unlabelled, "linux/riscv64", None),
        (&nested, "linux/amd64", Some(&amd64_image)),
    ];
    for (served, wanted, expected) in cases {
        let copy = served.clone();
        let registry = Faulty::start(move |seen| copy.answer(seen)).await;
        let client = client(RegistryConfig::default());
        let name = reference(&registry.address, "a");
        let wanted = Platform::parse(wanted, "amd64").unwrap();
        let resolved = resolve_image(&client, &Memory::default(), &name, &wanted).await;
        match (resolved, expected) {
            (Ok(resolved), Some(image)) => assert_eq!(resolved.manifest_bytes, image.root),
            (Err(error), None) => {
                let text = chain(&error);
                assert!(
                    text.contains("no match for platform in manifest: not found"),
                    "{text}"
                );
            }
            (resolved, _) => panic!("{wanted}: {resolved:?}"),
        }
    }
}

#[tokio::test]
async fn single_image_of_another_platform_is_a_warning() {
    let image = Sample::image("arm64", &[b"x"]);
    let registry = Faulty::start(move |seen| image.answer(seen)).await;
    let resolved = resolve_on(&registry, &Memory::default(), "a")
        .await
        .unwrap();
    assert_eq!(resolved.other_platform, Some(Platform::linux("arm64")));
}

#[tokio::test]
async fn refused_documents() {
    let image = Sample::image("amd64", &[b"x"]);
    let one_layer = serde_json::from_slice::<serde_json::Value>(&image.root).unwrap();
    let mut no_layers = one_layer.clone();
    no_layers["layers"] = json!(null);
    let schema1 = json!({"schemaVersion": 1, "name": "a"});
    let cases = [
        (schema1, "is a Docker schema 1 manifest"),
        (
            no_layers,
            "its config does not name as many layers as its manifest",
        ),
        (
            json!({"schemaVersion": 2}),
            "is neither an index nor an image manifest",
        ),
    ];
    for (document, message) in cases {
        let bytes = document.to_string().into_bytes();
        let blobs = image.all();
        let sample = Sample::document(bytes, DOCKER_MANIFEST, Vec::new(), blobs);
        let registry = Faulty::start(move |seen| sample.answer(seen)).await;
        let error = resolve_on(&registry, &Memory::default(), "a")
            .await
            .unwrap_err();
        let text = chain(&error);
        assert!(text.contains(message), "{text}");
    }
}

#[tokio::test]
async fn wrong_documents_do_not_enter_the_store() {
    let image = Sample::image("amd64", &[b"x"]);
    let registry = Faulty::start(move |seen| match seen.method.as_str() {
        "HEAD" => image.answer(seen),
        _ => Answer::new(200).body("{}"),
    })
    .await;
    let blobs = Memory::default();
    let error = resolve_on(&registry, &blobs, "a").await.unwrap_err();
    assert!(
        chain(&error).contains("content has digest"),
        "{}",
        chain(&error)
    );
    assert_eq!(blobs.len(), 0);
}

#[tokio::test]
async fn faults_are_survived_and_refusals_told() {
    let image = Sample::image("amd64", &[b"x"]);
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let registry =
        Faulty::start(
            move |seen| match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Answer::new(503),
                1 => Answer::reset(),
                2 => Answer::new(429).header("Retry-After", 3),
                4 => image.answer(seen).end_after(5),
                _ => image.answer(seen),
            },
        )
        .await;
    resolve_on(&registry, &Memory::default(), "a")
        .await
        .unwrap();
    let heads = registry
        .lines()
        .iter()
        .filter(|line| line.starts_with("HEAD"))
        .count();
    assert_eq!(heads, 4, "{:?}", registry.lines());

    let cases = [
        (404, "", "a:latest: not found", 1),
        (500, "", "unexpected status from HEAD request to http://", 5),
        (400, "", "400 Bad Request", 1),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"go away"}]}"#,
            "pull access denied, repository does not exist or may require authorization: server \
             message: denied: go away",
            2,
        ),
    ];
    for (status, body, message, requests) in cases {
        let registry = Faulty::start(move |_| Answer::new(status).body(body)).await;
        let error = resolve_on(&registry, &Memory::default(), "a")
            .await
            .unwrap_err();
        let text = chain(&error);
        let name = reference(&registry.address, "a");
        assert!(text.starts_with(&format!("failed to resolve source metadata for {name}: ")));
        assert!(text.contains(message), "{text}");
        assert_eq!(registry.seen().len(), requests, "{:?}", registry.lines());
    }
}

#[tokio::test]
async fn mirrors_in_order_then_the_registry() {
    let image = Sample::image("amd64", &[b"x"]);
    let copy = image.clone();
    let broken = Faulty::start(|_| Answer::new(500)).await;
    let without = Faulty::start(|_| Answer::new(404)).await;
    let wrong = Faulty::start(move |seen| match seen.method.as_str() {
        "HEAD" => copy.answer(seen),
        _ => Answer::new(200).body("not it"),
    })
    .await;
    let upstream = Faulty::start(move |seen| image.answer(seen)).await;
    let mirror = |registry: &Faulty, path: &str| {
        format!(
            "[[registry.mirror]]\nlocation = \"{}{path}\"\ninsecure = true\n",
            registry.address
        )
    };
    let text = format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"{}\"\n{}{}{}",
        upstream.address,
        mirror(&broken, ""),
        mirror(&without, "/proxy/hub"),
        mirror(&wrong, ""),
    );
    let (config, _dir) = with_conf(&text);
    let name = frontend::reference::Reference::parse("busybox").unwrap();
    let client = client(config);
    resolve_image(&client, &Memory::default(), &name, &amd64())
        .await
        .unwrap();
    assert_eq!(
        broken.lines()[0],
        "HEAD /v2/library/busybox/manifests/latest?ns=docker.io"
    );
    assert_eq!(
        without.lines()[0],
        "HEAD /v2/proxy/hub/library/busybox/manifests/latest?ns=docker.io"
    );
    let asked = upstream.lines();
    assert!(
        asked[0].starts_with("GET /v2/library/busybox/manifests/sha256:"),
        "{asked:?}"
    );
    assert!(asked.iter().all(|line| !line.contains("ns=")), "{asked:?}");
}

#[tokio::test]
async fn not_found_at_a_mirror_is_told_when_the_registry_is_away() {
    let without = Faulty::start(|_| Answer::new(404)).await;
    let text = format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:1\"\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        without.address
    );
    let (config, _dir) = with_conf(&text);
    let client = client(config);
    let name = frontend::reference::Reference::parse("nope").unwrap();
    let error = resolve_image(&client, &Memory::default(), &name, &amd64())
        .await
        .unwrap_err();
    assert_eq!(
        chain(&error),
        "failed to resolve source metadata for docker.io/library/nope:latest: \
         docker.io/library/nope:latest: not found"
    );
    assert_eq!(without.seen().len(), 1);
}

#[tokio::test]
async fn an_unreachable_registry_is_named() {
    let client = client(RegistryConfig::default());
    let name = reference("127.0.0.1:1", "a");
    let error = resolve_image(&client, &Memory::default(), &name, &amd64())
        .await
        .unwrap_err();
    let text = chain(&error);
    let expected = "failed to resolve source metadata for 127.0.0.1:1/a:latest: \
                    failed to do request: Head \"http://127.0.0.1:1/v2/a/manifests/latest\": ";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn a_silent_registry_is_given_up() {
    let registry = Faulty::start(|_| Answer::hang()).await;
    let client = patient(RegistryConfig::default(), Duration::from_millis(200));
    let name = reference(&registry.address, "a");
    let blobs = Memory::default();
    let error = client.resolve(&blobs, &name);
    // All five tries in far less than the registry's ten minutes.
    let error = tokio::time::timeout(Duration::from_secs(60), error).await;
    let text = chain(&error.unwrap().unwrap_err());
    assert!(text.starts_with("no data from http://"), "{text}");
}

#[tokio::test]
async fn a_reset_is_not_taken_for_another_protocol() {
    let image = Sample::image("amd64", &[b"x"]);
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let registry =
        Faulty::start(
            move |seen| match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Answer::reset(),
                _ => image.answer(seen),
            },
        )
        .await;
    let (config, _dir) = with_conf(&format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.address
    ));
    let name = reference(&registry.address, "a");
    let blobs = Memory::default();
    resolve_image(&client(config), &blobs, &name, &amd64())
        .await
        .unwrap();
}

#[tokio::test]
async fn proxies_are_used_and_loopback_is_not() {
    let image = Sample::image("amd64", &[b"x"]);
    let proxy = Faulty::start(move |seen| match seen.method.as_str() {
        "CONNECT" => Answer::new(403),
        _ => image.answer(seen),
    })
    .await;
    let (mut config, _dir) =
        with_conf("[[registry]]\nlocation = \"registry.example\"\ninsecure = true\n");
    let address = Secret::new(format!("http://u:p@{}", proxy.address));
    config.proxy.http = Some(address.clone());
    config.proxy.https = Some(address);
    let client = client(config);
    let blobs = Memory::default();
    let name = reference("registry.example", "a");
    resolve_image(&client, &blobs, &name, &amd64())
        .await
        .unwrap();
    let lines = proxy.lines();
    let connect = "CONNECT registry.example:443";
    let head = "HEAD http://registry.example/v2/a/manifests/latest";
    assert_eq!(lines[..2], [connect, head], "TLS first, then without");
    assert_eq!(
        proxy.seen()[1].header("proxy-authorization"),
        Some("Basic dTpw")
    );

    let direct = Faulty::start(|_| Answer::new(404)).await;
    let name = reference(&direct.address, "a");
    resolve_image(&client, &blobs, &name, &amd64())
        .await
        .unwrap_err();
    assert_eq!(direct.lines(), ["HEAD /v2/a/manifests/latest"]);
}
