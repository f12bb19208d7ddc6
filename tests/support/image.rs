//! An exported image read back, with everything in it verified.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// An image from an OCI archive.
pub(crate) struct Image {
    /// Digest of the manifest.
    pub(crate) digest: String,
    /// The manifest.
    pub(crate) manifest: Value,
    /// The config.
    pub(crate) config: Value,
    /// The layers, uncompressed, bottom first.
    pub(crate) layers: Vec<Vec<u8>>,
}

/// A file of the flattened image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) kind: tar::EntryType,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) content: Vec<u8>,
    pub(crate) link: Option<String>,
}

/// `sha256:…` of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| {
        format!("{text}{byte:02x}")
    })
}

impl Image {
    /// Reads an OCI archive of one image; digests and sizes of every blob and all diff ids must be right.
    pub(crate) fn read(path: &Path) -> Self {
        let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(name, bytes);
        }
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let bytes = files[&format!("blobs/{}", digest.replace(':', "/"))].clone();
            assert_eq!(sha256(&bytes), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = &index["manifests"][0];
        let manifest: Value = serde_json::from_slice(&blob(entry)).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let mut layers = Vec::new();
        for (number, layer) in manifest["layers"].as_array().unwrap().iter().enumerate() {
            let bytes = blob(layer);
            let mut plain = Vec::new();
            // A single member: several readers stop after the first.
            flate2::read::GzDecoder::new(bytes.as_slice())
                .read_to_end(&mut plain)
                .unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][number], sha256(&plain));
            layers.push(plain);
        }
        Self {
            digest: entry["digest"].as_str().unwrap().to_owned(),
            manifest,
            config,
            layers,
        }
    }

    /// Digests of the uncompressed layers.
    pub(crate) fn diff_ids(&self) -> Vec<String> {
        let ids = self.config["rootfs"]["diff_ids"].as_array().unwrap();
        ids.iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect()
    }

    /// The flattened file system, paths without leading slash.
    pub(crate) fn files(&self) -> BTreeMap<String, File> {
        let mut tree = BTreeMap::new();
        for layer in &self.layers {
            apply(&mut tree, layer);
        }
        tree
    }

    /// A regular file's content as text.
    pub(crate) fn text(&self, path: &str) -> String {
        let files = self.files();
        let file = files
            .get(path)
            .unwrap_or_else(|| panic!("{path} is not in the image"));
        String::from_utf8(file.content.clone()).unwrap()
    }

    /// `created_by` of all history entries.
    pub(crate) fn history(&self) -> Vec<String> {
        let entries = self.config["history"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| entry["created_by"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn apply(tree: &mut BTreeMap<String, File>, layer: &[u8]) {
    for entry in tar::Archive::new(layer).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry
            .path()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let hidden = if parent.is_empty() {
                hidden.to_owned()
            } else {
                format!("{parent}/{hidden}")
            };
            tree.retain(|path, _| *path != hidden && !path.starts_with(&format!("{hidden}/")));
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let link = entry
            .link_name()
            .unwrap()
            .map(|link| link.to_str().unwrap().to_owned());
        let header = entry.header();
        let file = match (header.entry_type(), &link) {
            (tar::EntryType::Link, Some(target)) => tree[target].clone(),
            (kind, _) => File {
                kind,
                mode: header.mode().unwrap(),
                uid: header.uid().unwrap(),
                gid: header.gid().unwrap(),
                mtime: header.mtime().unwrap(),
                content,
                link,
            },
        };
        if file.kind != tar::EntryType::Directory {
            tree.retain(|below, _| !below.starts_with(&format!("{path}/")));
        }
        tree.insert(path, file);
    }
}
