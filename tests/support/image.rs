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
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path of its hard links, if there are several.
    pub(crate) linked: Option<String>,
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
        let files = members(path);
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

    /// Reads an archive that `docker save` wrote.
    pub(crate) fn read_docker(path: &Path) -> Self {
        let files = members(path);
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let manifest = manifest[0].clone();
        let file = |name: &Value| files[name.as_str().unwrap()].clone();
        let config = file(&manifest["Config"]);
        Self {
            digest: sha256(&config),
            config: serde_json::from_slice(&config).unwrap(),
            layers: manifest["Layers"]
                .as_array()
                .unwrap()
                .iter()
                .map(file)
                .collect(),
            manifest,
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
        let mut tree = Tree::default();
        for layer in &self.layers {
            tree.apply(layer);
        }
        tree.finish()
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

/// The members of an archive.
fn members(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(name, bytes);
    }
    files
}

/// Layers laid over each other: what each path is, and the number of its inode.
#[derive(Default)]
struct Tree {
    files: BTreeMap<String, (u64, File)>,
    inodes: u64,
}

impl Tree {
    fn apply(&mut self, layer: &[u8]) {
        // A whiteout hides what lower layers have, wherever it stands among the members.
        for entry in tar::Archive::new(layer).entries().unwrap() {
            let path = path(&entry.unwrap());
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let Some(hidden) = name.strip_prefix(".wh.") else {
                continue;
            };
            if hidden == ".wh..opq" {
                self.remove_below(parent);
            } else {
                let hidden = format!("{parent}/{hidden}");
                let hidden = hidden.trim_start_matches('/');
                self.files.remove(hidden);
                self.remove_below(hidden);
            }
        }
        for entry in tar::Archive::new(layer).entries().unwrap() {
            self.add(&mut entry.unwrap());
        }
    }

    fn remove_below(&mut self, dir: &str) {
        let prefix = format!("{dir}/");
        self.files.retain(|path, _| !path.starts_with(&prefix));
    }

    fn add<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) {
        let path = path(entry);
        if path.rsplit('/').next().unwrap().starts_with(".wh.") {
            return;
        }
        let link = entry
            .link_name()
            .unwrap()
            .map(|link| link.to_str().unwrap().to_owned());
        let kind = entry.header().entry_type();
        let file = match &link {
            Some(target) if kind == tar::EntryType::Link => self.files[target].clone(),
            _ => {
                self.inodes += 1;
                (self.inodes, read_file(entry, link))
            }
        };
        if kind != tar::EntryType::Directory {
            self.remove_below(&path);
        }
        self.files.insert(path, file);
    }

    fn finish(self) -> BTreeMap<String, File> {
        let mut paths: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for (path, (inode, _)) in &self.files {
            paths.entry(*inode).or_default().push(path.clone());
        }
        let files = self.files.into_iter().map(|(path, (inode, file))| {
            let group = &paths[&inode];
            let linked = (group.len() > 1).then(|| group[0].clone());
            (path, File { linked, ..file })
        });
        files.collect()
    }
}

fn path<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    let path = entry.path().unwrap().to_str().unwrap().to_owned();
    path.trim_end_matches('/').to_owned()
}

fn read_file<R: Read>(entry: &mut tar::Entry<'_, R>, link: Option<String>) -> File {
    let mut xattrs = BTreeMap::new();
    for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
        let extension = extension.unwrap();
        if let Some(name) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
            xattrs.insert(name.to_owned(), extension.value_bytes().to_owned());
        }
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    let header = entry.header();
    let number = |number: std::io::Result<Option<u32>>| number.unwrap_or_default().unwrap_or(0);
    File {
        kind: header.entry_type(),
        mode: header.mode().unwrap(),
        uid: header.uid().unwrap(),
        gid: header.gid().unwrap(),
        mtime: header.mtime().unwrap(),
        content,
        link,
        device: (number(header.device_major()), number(header.device_minor())),
        xattrs,
        linked: None,
    }
}
