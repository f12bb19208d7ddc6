//! Programs that we did not write, as readers of what we make.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{finish, program};

/// `skopeo inspect`, decoded.
pub(crate) fn skopeo_inspect(image: &str) -> Value {
    let mut command = Command::new(program("skopeo", "skopeo"));
    let outcome =
        finish(command.args(["inspect", "--no-tags", "--tls-verify=false", image])).success();
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// `skopeo copy`, which verifies digests and diff ids as it goes.
pub(crate) fn skopeo_copy(from: &str, to: &str) {
    let mut command = Command::new(program("skopeo", "skopeo"));
    command.args([
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ]);
    finish(&mut command).success();
}

/// `umoci unpack`; gives the root file system.
pub(crate) fn umoci_unpack(layout: &Path, tag: &str, bundle: &Path) -> PathBuf {
    let mut command = Command::new(program("umoci", "umoci"));
    command
        .args(["unpack", "--image", &format!("{}:{tag}", layout.display())])
        .arg(bundle);
    finish(&mut command).success();
    bundle.join("rootfs")
}

/// `buildah from` and `buildah run` with its own storage; gives the command's output.
pub(crate) fn buildah_run(image: &str, storage: &Path, command_line: &[&str]) -> String {
    let buildah = |args: &[&str]| {
        let mut command = Command::new(program("buildah", "buildah"));
        command
            .args(["--storage-driver", "vfs", "--root"])
            .arg(storage.join("root"));
        command.arg("--runroot").arg(storage.join("run")).args(args);
        finish(&mut command).success().stdout
    };
    buildah(&["from", "--tls-verify=false", "--name", "tested", image]);
    let run = [
        "run",
        "--runtime",
        "runc",
        "--network",
        "host",
        "tested",
        "--",
    ];
    let output = buildah(&[&run, command_line].concat());
    buildah(&["rm", "tested"]);
    output
}

/// What Python's `tarfile` reads from each layer of an OCI layout, bottom first, in stream mode: the members' names.
pub(crate) fn python_layers(layout: &Path) -> Vec<Vec<String>> {
    let mut command = Command::new(program("python3", "python3"));
    command
        .arg("-c")
        .arg(include_str!("read_layers.py"))
        .arg(layout);
    serde_json::from_str(&finish(&mut command).success().stdout).unwrap()
}
