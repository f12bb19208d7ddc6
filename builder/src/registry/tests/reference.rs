//! Push and pull with the reference registry.

use std::io::{self, Cursor, Read};

use cache::digest::Digest;
use frontend::platform::Platform;
use frontend::reference::Reference;

use crate::registry::client::Client;
use crate::registry::config::RegistryConfig;
use crate::registry::document::OCI_MANIFEST;
use crate::registry::error::RegistryError;
use crate::registry::pull::pull_layer;
use crate::registry::push::{Freshness, Mount, Pushed, Upload};
use crate::registry::resolve::resolve_image;
use crate::registry::testing::daemon::Daemon;
use crate::registry::testing::memory::Memory;
use crate::registry::testing::sample::{Sample, noise};
use crate::registry::testing::{chain, client, logged_in, reference};

async fn push_blob(
    client: &Client,
    name: &Reference,
    bytes: &[u8],
    from: Option<&str>,
) -> Result<Pushed, RegistryError> {
    let digest = Digest::of(bytes);
    let source =
        || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(bytes.to_vec()))) };
    let upload = Upload {
        digest: &digest,
        size: bytes.len() as u64,
        freshness: Freshness::MayExist,
        source: &source,
        progress: &|_, _| {},
    };
    client.push_blob(name, &upload, from).await
}

/// Pushes an image and pulls it again into an empty store.
pub(super) async fn round_trip(client: &Client, name: &Reference) -> Result<(), RegistryError> {
    let layers = [noise(3_000_000), Vec::new(), b"small".to_vec()];
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let image = Sample::image("amd64", &layers);
    for bytes in image.all() {
        push_blob(client, name, &bytes, None).await?;
    }
    let stored = client
        .put_manifest(name, OCI_MANIFEST, &image.root, Freshness::MayExist)
        .await?;
    assert_eq!(stored, image.digest());
    let blobs = Memory::default();
    let resolved = resolve_image(client, &blobs, name, &Platform::linux("amd64")).await?;
    assert_eq!(resolved.manifest_bytes, image.root);
    for layer in &resolved.layers {
        pull_layer(client, &blobs, name, layer, &|_, _| {}).await?;
    }
    for bytes in image.all() {
        assert_eq!(blobs.bytes(&Digest::of(&bytes)), Some(bytes));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_images_come_back() {
    let registry = Daemon::plain().await;
    let client = client(RegistryConfig::default());
    let name = reference(&registry.address, "org/app:v1");
    // On another task: all futures must be able to move between threads.
    let (copy, at) = (client.clone(), name.clone());
    tokio::spawn(async move { round_trip(&copy, &at).await.unwrap() })
        .await
        .unwrap();

    let small = Digest::of(b"small");
    assert!(client.blob_exists(&name, &small).await.unwrap());
    assert!(
        !client
            .blob_exists(&name, &Digest::of(b"none"))
            .await
            .unwrap()
    );
    let again = push_blob(&client, &name, b"small", None).await.unwrap();
    assert_eq!(again, Pushed::Existed);

    let other = reference(&registry.address, "other:v1");
    let mounted = push_blob(&client, &other, b"small", Some("org/app"))
        .await
        .unwrap();
    assert_eq!(mounted, Pushed::Mounted);
    let refused = client
        .mount(&other, &Digest::of(b"none"), "org/app")
        .await
        .unwrap();
    assert!(matches!(refused, Mount::Refused(_)));
    let sent = push_blob(&client, &other, b"none", Some("org/app"))
        .await
        .unwrap();
    assert_eq!(sent, Pushed::Uploaded);

    let missing = reference(&registry.address, "org/app:v2");
    let platform = Platform::linux("amd64");
    let error = resolve_image(&client, &Memory::default(), &missing, &platform)
        .await
        .unwrap_err();
    assert_eq!(
        chain(&error),
        format!("failed to resolve source metadata for {missing}: {missing}: not found")
    );
    assert!(registry.dir().join("storage").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_blobs_at_once() {
    let registry = Daemon::plain().await;
    let client = client(RegistryConfig::default());
    let mut pushes = tokio::task::JoinSet::new();
    for number in 0..16_u8 {
        let (client, name) = (client.clone(), reference(&registry.address, "a"));
        pushes.spawn(async move {
            let mut bytes = noise(400_000);
            bytes[0] = number;
            push_blob(&client, &name, &bytes, None).await
        });
    }
    while let Some(pushed) = pushes.join_next().await {
        assert_eq!(pushed.unwrap().unwrap(), Pushed::Uploaded);
    }
}

#[tokio::test]
async fn a_wrong_digest_is_refused_by_the_registry() {
    let registry = Daemon::plain().await;
    let client = client(RegistryConfig::default());
    let name = reference(&registry.address, "a");
    let digest = Digest::of(b"promised");
    let source =
        || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(b"given".to_vec()))) };
    let upload = Upload {
        digest: &digest,
        size: 5,
        freshness: Freshness::MayExist,
        source: &source,
        progress: &|_, _| {},
    };
    let error = client.upload(&name, &upload, None).await.unwrap_err();
    assert!(
        chain(&error).contains("400 Bad Request: digest invalid"),
        "{}",
        chain(&error)
    );
}

/// `user:password`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu\n";

#[tokio::test(flavor = "multi_thread")]
async fn basic_login() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    std::fs::write(&file, HTPASSWD).unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        file.display()
    );
    let registry = Daemon::start("", &auth).await;
    let name = reference(&registry.address, "a:v1");
    round_trip(
        &client(logged_in(&registry.address, "user", "password")),
        &name,
    )
    .await
    .unwrap();
    for config in [
        RegistryConfig::default(),
        logged_in(&registry.address, "user", "wrong"),
    ] {
        let error = push_blob(&client(config), &name, b"more", None)
            .await
            .unwrap_err();
        assert!(
            chain(&error).starts_with("push access denied"),
            "{}",
            chain(&error)
        );
    }
}
