//! Debian bases, made once with mmdebstrap from this machine's own package sources and kept in Cargo's folder for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::layout;

/// Where this machine's Debian packages come from.
const SOURCES: &str = "/etc/apt/sources.list.d/debian.sources";

/// What the machine's package managers need to reach their registries; copied where it exists.
const HOST_FILES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pip.conf",
    "/etc/npmrc",
];

/// Build arguments that are passed on from the environment of the tests where they are set.
const HOST_ARGS: [&str; 8] = [
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "NPM_CONFIG_REGISTRY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
];

/// Those of [`HOST_ARGS`] that are set, with their values.
#[expect(
    clippy::disallowed_methods,
    reason = "how this machine reaches its registries"
)]
pub(crate) fn host_args() -> Vec<(&'static str, String)> {
    HOST_ARGS
        .iter()
        .filter_map(|name| Some((*name, std::env::var(name).ok()?)))
        .collect()
}

/// A minimal Debian with apt, as an OCI layout.
pub(crate) fn debian() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| made("debian", "ca-certificates"))
}

/// Debian with compilers and package managers of several languages, as an OCI layout.
pub(crate) fn toolchain() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    let packages = "ca-certificates,gcc,libc6-dev,python3-venv,nodejs,npm";
    BASE.get_or_init(|| made("toolchain", packages))
}

/// The base of the test data: one layer with busybox.
pub(crate) fn busybox() -> PathBuf {
    super::testdata("images/busybox")
}

fn made(name: &str, packages: &str) -> PathBuf {
    let args = arguments(packages);
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dest = parent.join(format!("{name}-{}", key(&args)));
    if dest.exists() {
        return dest;
    }
    let dir = tempfile::tempdir_in(parent).unwrap();
    let tar = dir.path().join("base.tar");
    let mut command = Command::new(super::program("mmdebstrap", "mmdebstrap"));
    super::finish(command.args(args).arg("bookworm").arg(&tar).arg(SOURCES)).success();
    layout::write(&dir.path().join("layout"), &[&tar], &layout::config());
    // Another process may have made it meanwhile: its layout is as good.
    let renamed = fs::rename(dir.path().join("layout"), &dest);
    assert!(renamed.is_ok() || dest.exists(), "{renamed:?}");
    dest
}

fn arguments(packages: &str) -> Vec<String> {
    let fixed = [
        "--quiet",
        "--variant=minbase",
        "--aptopt=Acquire::Check-Valid-Until \"false\"",
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Retries \"5\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
    ];
    let mut args: Vec<String> = fixed.map(str::to_owned).to_vec();
    args.push(format!("--include={packages}"));
    let present = HOST_FILES.iter().filter(|file| Path::new(file).exists());
    args.extend(present.map(|file| format!("--customize-hook=upload {file} {file}")));
    args
}

/// What the base depends on: how it is made, and the machine's files that get in.
fn key(args: &[String]) -> String {
    let mut hash = Sha256::new();
    args.iter().for_each(|arg| hash.update(arg));
    for file in [SOURCES].iter().chain(&HOST_FILES) {
        hash.update(fs::read(file).unwrap_or_default());
    }
    hash.finalize()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
