//! OCI layouts written from tars: bases for tests, well-formed or not.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A config with a shell's `PATH` and nothing else; the layers are filled in by [`write`].
pub(crate) fn config() -> Value {
    json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "created": "1970-01-01T00:00:00Z",
    })
}

/// Writes an image of these tars, bottom first, as a layout with the tag `latest`.
pub(crate) fn write(layout: &Path, tars: &[&Path], config: &Value) {
    write_all(layout, tars, &[("latest".to_owned(), config.clone())]);
}

/// Writes images of the same tars with different tags and configs as one layout.
pub(crate) fn write_all(layout: &Path, tars: &[&Path], images: &[(String, Value)]) {
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let (layers, diff_ids): (Vec<Value>, Vec<String>) = tars
        .iter()
        .map(|tar| put_layer(layout, &mut fs::File::open(tar).unwrap()))
        .unzip();
    let mut manifests = Vec::new();
    for (tag, config) in images {
        let mut config = config.clone();
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let config = put(layout, "application/vnd.oci.image.config.v1+json", &config);
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut entry = put(layout, media_type, &manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        manifests.push(entry);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

/// Writes images of the same tars with different names and configs as an archive for `docker load`.
pub(crate) fn write_docker(archive: &Path, tars: &[&Path], images: &[(String, Value)]) {
    let mut out = tar::Builder::new(fs::File::create(archive).unwrap());
    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for (number, tar) in tars.iter().enumerate() {
        diff_ids.push(super::image::sha256(&fs::read(tar).unwrap()));
        layers.push(format!("{number}/layer.tar"));
        out.append_path_with_name(tar, &layers[number]).unwrap();
    }
    let mut manifest = Vec::new();
    for (number, (name, config)) in images.iter().enumerate() {
        let mut config = config.clone();
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let file = format!("{number}.json");
        append(&mut out, &file, config.to_string().as_bytes());
        manifest.push(json!({"Config": file, "RepoTags": [name], "Layers": layers}));
    }
    append(
        &mut out,
        "manifest.json",
        Value::from(manifest).to_string().as_bytes(),
    );
    out.finish().unwrap();
}

fn append(out: &mut tar::Builder<fs::File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    out.append_data(&mut header, name, bytes).unwrap();
}

/// Writes a JSON document as a blob and gives its descriptor.
pub(crate) fn put(layout: &Path, media_type: &str, document: &Value) -> Value {
    let bytes = document.to_string();
    let digest = super::image::sha256(bytes.as_bytes());
    fs::write(layout.join("blobs").join(digest.replace(':', "/")), &bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

/// Compresses a tar into a blob; gives its descriptor and its diff id.
fn put_layer(layout: &Path, tar: &mut impl Read) -> (Value, String) {
    let file = tempfile::NamedTempFile::new_in(layout).unwrap();
    let blob = Hashed {
        inner: file,
        hash: Sha256::new(),
        size: 0,
    };
    let gzip = GzBuilder::new().write(blob, Compression::fast());
    let mut plain = Hashed {
        inner: gzip,
        hash: Sha256::new(),
        size: 0,
    };
    io::copy(tar, &mut plain).unwrap();
    let diff_id = text(plain.hash);
    let blob = plain.inner.finish().unwrap();
    let digest = text(blob.hash);
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    blob.inner.persist(&path).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    (
        json!({"mediaType": media_type, "digest": digest, "size": blob.size}),
        diff_id,
    )
}

fn text(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .fold("sha256:".to_owned(), |text, byte| {
            format!("{text}{byte:02x}")
        })
}

/// A writer that hashes what passes.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
