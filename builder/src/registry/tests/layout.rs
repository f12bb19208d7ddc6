//! OCI layouts as a source.

use std::path::Path;

use cache::digest::Digest;
use frontend::platform::Platform;
use serde_json::json;

use crate::registry::document::OCI_MANIFEST;
use crate::registry::layout::{Layout, LayoutImage, parse};
use crate::registry::testing::chain;
use crate::registry::testing::memory::Memory;
use crate::registry::testing::sample::Sample;

fn write(dir: &Path, images: &[(&str, &Sample)]) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let entries = images.iter().map(|(name, image)| {
        for bytes in image.all() {
            std::fs::write(blobs.join(Digest::of(&bytes).hex()), bytes).unwrap();
        }
        json!({
            "mediaType": OCI_MANIFEST, "digest": image.digest().to_string(), "size": image.root.len(),
            "annotations": { "org.opencontainers.image.ref.name": name }
        })
    });
    let index = json!({ "schemaVersion": 2, "manifests": entries.collect::<Vec<_>>() });
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn names() {
    let digest = Digest::of(b"x");
    let cases = [
        ("oci-layout:///a/b", "/a/b", LayoutImage::Only),
        ("oci-layout://a/b:v1", "a/b", LayoutImage::Tag("v1".into())),
        ("a:5/b", "a:5/b", LayoutImage::Only),
        (
            &format!("oci-layout:///a@{digest}"),
            "/a",
            LayoutImage::Digest(digest.clone()),
        ),
        (
            &format!("/a:v@{digest}"),
            "/a",
            LayoutImage::Digest(digest.clone()),
        ),
    ];
    for (text, dir, image) in cases {
        assert_eq!(parse(text).unwrap(), (Layout::new(dir), image), "{text}");
    }
    assert!(
        parse("a@sha512:00")
            .unwrap_err()
            .to_string()
            .contains("not supported yet")
    );
}

#[tokio::test]
async fn resolves_and_pulls() {
    let dir = tempfile::tempdir().unwrap();
    let one = Sample::image("amd64", &[b"one"]);
    let two = Sample::image("arm64", &[b"two"]);
    write(
        dir.path(),
        &[("latest", &one), ("docker.io/library/x:v2", &two)],
    );
    let layout = Layout::new(dir.path());
    let amd64 = Platform::linux("amd64");
    let cases = [
        (LayoutImage::Only, &one),
        (LayoutImage::Tag("v2".into()), &two),
        (LayoutImage::Digest(two.digest()), &two),
    ];
    for (image, expected) in cases {
        let blobs = Memory::default();
        let resolved = layout.resolve_image(&blobs, &image, &amd64).await.unwrap();
        assert_eq!(resolved.manifest_bytes, expected.root);
        assert_eq!(
            resolved.other_platform.is_some(),
            expected.digest() == two.digest()
        );
        assert_eq!(blobs.len(), 2, "manifest and config");
        layout
            .pull_layer(&blobs, &resolved.layers[0], &|_, _| {})
            .await
            .unwrap();
        assert_eq!(blobs.len(), 3);
    }
}

#[tokio::test]
async fn damaged_layouts() {
    let dir = tempfile::tempdir().unwrap();
    let image = Sample::image("amd64", &[b"layer"]);
    write(dir.path(), &[("v1", &image), ("v2", &image)]);
    let layout = Layout::new(dir.path());
    let amd64 = Platform::linux("amd64");
    let blobs = Memory::default();
    let error = layout
        .resolve_image(&blobs, &LayoutImage::Only, &amd64)
        .await
        .unwrap_err();
    assert!(chain(&error).ends_with(": not found"), "{}", chain(&error));

    let tag = LayoutImage::Tag("v1".into());
    let resolved = layout.resolve_image(&blobs, &tag, &amd64).await.unwrap();
    let layer = &resolved.layers[0];
    let path = dir
        .path()
        .join("blobs/sha256")
        .join(layer.descriptor.digest.hex());
    for (bytes, message) in [
        (&b"Layer"[..], "content has digest"),
        (b"layers", "has 6 bytes"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = layout
            .pull_layer(&blobs, layer, &|_, _| {})
            .await
            .unwrap_err();
        assert!(chain(&error).contains(message), "{}", chain(&error));
        assert!(blobs.bytes(&layer.descriptor.digest).is_none());
    }
    std::fs::remove_file(&path).unwrap();
    let error = layout
        .pull_layer(&blobs, layer, &|_, _| {})
        .await
        .unwrap_err();
    assert!(chain(&error).ends_with(": not found"), "{}", chain(&error));
    std::fs::remove_file(dir.path().join("oci-layout")).unwrap();
    let error = layout
        .resolve_image(&blobs, &tag, &amd64)
        .await
        .unwrap_err();
    assert!(
        chain(&error).contains("oci-layout`: No such file"),
        "{}",
        chain(&error)
    );
}
