//! The images of the corpus: one file system under many names and configs, for our program and for a Docker daemon.
//!
//! What is in them: `testdata/stand-ins/README`.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{base, layout, testdata};

/// The images as an OCI layout and as an archive, removed when dropped.
pub(crate) struct StandIns {
    dir: tempfile::TempDir,
    /// The names that Dockerfiles have for them.
    names: Vec<String>,
}

impl StandIns {
    /// Makes all of them.
    pub(crate) fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (busybox, tools) = (dir.path().join("busybox.tar"), dir.path().join("tools.tar"));
        base_layer(&busybox);
        tools_layer(&tools);
        let images = fs::read(testdata("stand-ins/images.json")).unwrap();
        let images: Value = serde_json::from_slice(&images).unwrap();
        let images: Vec<(String, Value)> = images
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, config)| (name.clone(), image(config)))
            .collect();
        let tars = [busybox.as_path(), tools.as_path()];
        let named: Vec<(String, Value)> = images
            .iter()
            .map(|(name, config)| (with_tag(name), config.clone()))
            .collect();
        layout::write_docker(&dir.path().join("images.tar"), &tars, &named);
        let tagged: Vec<(String, Value)> = images
            .iter()
            .map(|(name, config)| (tag(name), config.clone()))
            .collect();
        layout::write_all(&dir.path().join("layout"), &tars, &tagged);
        let names = images.into_iter().map(|(name, _)| name).collect();
        Self { dir, names }
    }

    /// What `docker load` reads.
    pub(crate) fn archive(&self) -> PathBuf {
        self.dir.path().join("images.tar")
    }

    /// The same images as named contexts.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
        let layout = self.dir.path().join("layout");
        self.names.iter().map(move |name| {
            format!(
                "--build-context={name}=oci-layout://{}:{}",
                layout.display(),
                tag(name)
            )
        })
    }
}

/// A name as a daemon wants it.
fn with_tag(name: &str) -> String {
    if name.rsplit('/').next().unwrap().contains(':') {
        return name.to_owned();
    }
    format!("{name}:latest")
}

/// A name as a layout can have it.
fn tag(name: &str) -> String {
    name.replace(['/', ':'], "-")
}

fn image(config: &Value) -> Value {
    let mut image = layout::config();
    image["config"] = config.clone();
    image["history"] = json!([
        {"created": "1970-01-01T00:00:00Z", "created_by": "busybox-static"},
        {"created": "1970-01-01T00:00:00Z", "created_by": "stand-ins"},
    ]);
    image
}

/// Applets of busybox that have a stand-in. Its shell runs an applet whatever is in `PATH`, so they lose their names.
const HIDDEN: [&str; 3] = ["dpkg", "unzip", "wget"];

/// The only layer of the base of the test data, without some applets.
fn base_layer(to: &Path) {
    let blobs = base::busybox().join("blobs/sha256");
    let largest = fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut layer = Vec::new();
    let mut file = flate2::read::GzDecoder::new(fs::File::open(largest).unwrap());
    file.read_to_end(&mut layer).unwrap();
    for applet in HIDDEN {
        let name = format!("\0{applet}\0");
        let found: Vec<usize> = (0..layer.len() - name.len())
            .filter(|start| layer[*start..].starts_with(name.as_bytes()))
            .collect();
        let [start] = found[..] else {
            panic!("{applet} is {} times in the base", found.len());
        };
        // The list is sorted for lookup; this keeps the order.
        layer[start + applet.len()] -= 1;
    }
    fs::write(to, layer).unwrap();
}

fn tools_layer(to: &Path) {
    let mut out = tar::Builder::new(fs::File::create(to).unwrap());
    for (from, below) in [("etc", "etc"), ("bin", "usr/bin"), ("lib", "usr/lib")] {
        append(&mut out, &testdata("stand-ins").join(from), below);
    }
    for dir in ["opt", "srv", "usr/local", "usr/local/bin", "usr/src"] {
        append_dir(&mut out, dir, 0o755);
    }
    append_dir(&mut out, "var/tmp", 0o1777);
    let mut home = header(tar::EntryType::Directory, 0o755);
    home.set_uid(1000);
    home.set_gid(1000);
    out.append_data(&mut home, "home/node/", std::io::empty())
        .unwrap();
    let mut bash = header(tar::EntryType::Symlink, 0o777);
    out.append_link(&mut bash, "bin/bash", "../usr/bin/bash")
        .unwrap();
    out.finish().unwrap();
}

/// Appends a tree, owned by root, with the modes that a checkout may have lost.
fn append(out: &mut tar::Builder<fs::File>, from: &Path, to: &str) {
    append_dir(out, to, 0o755);
    let mut entries: Vec<PathBuf> = fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = format!("{to}/{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_symlink() {
            let mut header = header(tar::EntryType::Symlink, 0o777);
            let target = fs::read_link(&path).unwrap();
            out.append_link(&mut header, name, target).unwrap();
        } else if path.is_dir() {
            append(out, &path, &name);
        } else {
            let is_executable = path.metadata().unwrap().permissions().mode() & 0o100 != 0;
            let mode = if is_executable { 0o755 } else { 0o644 };
            let content = fs::read(&path).unwrap();
            let mut header = header(tar::EntryType::Regular, mode);
            header.set_size(content.len() as u64);
            out.append_data(&mut header, name, content.as_slice())
                .unwrap();
        }
    }
}

fn append_dir(out: &mut tar::Builder<fs::File>, name: &str, mode: u32) {
    let mut header = header(tar::EntryType::Directory, mode);
    out.append_data(&mut header, format!("{name}/"), std::io::empty())
        .unwrap();
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}
