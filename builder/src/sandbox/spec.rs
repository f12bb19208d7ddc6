//! What a caller asks for: plain data.
//!
//! Paths of the host are absolute, except overlay layers, which are relative to their `dir`: short names keep the
//! mount options within the kernel's limits. Paths in the step's root are absolute and resolved inside that root, whatever
//! symlinks an image has.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One command and everything it sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The root file system.
    pub rootfs: Rootfs,
    /// Mounts in the order written; applied outer ones first.
    pub mounts: Vec<SpecMount>,
    /// The command.
    pub process: Process,
    /// Host name; BuildKit's is `buildkitsandbox`.
    pub hostname: String,
    /// Lines for `/etc/hosts`: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// Content of `/etc/resolv.conf`.
    #[serde(with = "bytes")]
    pub resolv_conf: Vec<u8>,
    /// The network.
    pub network: Network,
    /// How far the command is confined.
    pub security: Security,
    /// Limits.
    pub limits: Limits,
}

impl SandboxSpec {
    /// A command with nothing but its root: no mounts, no limits, the host's network.
    pub fn new(rootfs: Rootfs, process: Process) -> Self {
        Self {
            rootfs,
            mounts: Vec::new(),
            process,
            hostname: DEFAULT_HOSTNAME.to_owned(),
            extra_hosts: Vec::new(),
            resolv_conf: Vec::new(),
            network: Network::Host,
            security: Security::Sandbox,
            limits: Limits::default(),
        }
    }
}

/// The host name scripts know from BuildKit.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// An overlay that becomes the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Where relative layers are looked up.
    #[serde(with = "path")]
    pub dir: PathBuf,
    /// Read-only directories, top first. May be empty: then the root is `upper` alone.
    #[serde(with = "paths")]
    pub lowers: Vec<PathBuf>,
    /// Where changes go.
    #[serde(with = "path")]
    pub upper: PathBuf,
    /// Overlay's work directory: empty, on the file system of `upper`.
    #[serde(with = "path")]
    pub work: PathBuf,
}

/// The command.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The argument vector; a first one without slash is looked up in `PATH` of `env`, in the root.
    pub args: Vec<String>,
    /// The environment in order. `HOME` is added if absent.
    pub env: Vec<(String, String)>,
    /// Working directory; made if missing (0755, the user's).
    #[serde(with = "path")]
    pub cwd: PathBuf,
    /// USER as written: empty, `name`, `uid`, `name:group`, `:gid`.
    pub user: String,
}

/// Without the variables' values: a secret may be among them.
impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Process")
            .field("args", &self.args)
            .field("env", &names)
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .finish()
    }
}

/// A mount in the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecMount {
    /// Where; made if missing, and taken back afterwards if still empty.
    #[serde(with = "path")]
    pub target: PathBuf,
    /// What.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory, file or socket of the host.
    Bind {
        /// The directory (or file) of the host.
        #[serde(with = "path")]
        path: PathBuf,
        /// A path in it, its symlinks resolved inside it; empty for all of it.
        #[serde(with = "path")]
        subpath: PathBuf,
        /// Whether the command may write.
        access: Access,
    },
    /// Layers stacked.
    Overlay {
        /// Where relative layers are looked up.
        #[serde(with = "path")]
        dir: PathBuf,
        /// Read-only directories, top first; may be empty.
        #[serde(with = "paths")]
        lowers: Vec<PathBuf>,
        /// Where writes go; read-only without.
        scratch: Option<Scratch>,
        /// A path in the result, resolved inside it; empty for all of it.
        #[serde(with = "path")]
        subpath: PathBuf,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
        /// Mode of its root; else that of the directory it covers, else 1777.
        mode: Option<u32>,
    },
    /// A read-only file that never touches a disk: a secret, a script.
    File {
        /// Content.
        data: Content,
        /// Permission bits; without any x bit the mount is `noexec`.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Bytes that don't show in logs: they may be a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content(#[serde(with = "bytes")] pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Directories that take writes and are thrown away by the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scratch {
    /// Where changes go.
    #[serde(with = "path")]
    pub upper: PathBuf,
    /// Overlay's work directory.
    #[serde(with = "path")]
    pub work: PathBuf,
}

/// Whether a mount can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// No.
    ReadOnly,
    /// Yes.
    ReadWrite,
}

/// The network a command sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The host's.
    Host,
    /// Loopback only.
    None,
}

/// How far a command is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// The default.
    Sandbox,
    /// All capabilities, no filters, all devices.
    Insecure,
}

/// Limits on a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Size of `/dev/shm` in bytes; 64 MiB if absent.
    pub shm_size: Option<u64>,
    /// `--ulimit`
    pub ulimits: Vec<Ulimit>,
    /// `--cgroup-parent`; relative to the mount of the hierarchy.
    pub cgroup_parent: Option<String>,
    /// Cgroup limits.
    pub resources: Resources,
}

/// `--ulimit name=soft:hard`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Such as `nofile`.
    pub name: String,
    /// Soft limit, negative for none.
    pub soft: i64,
    /// Hard limit, negative for none.
    pub hard: i64,
}

/// Cgroup limits; absent is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 for no limit on swap.
    pub memory_swap: Option<i64>,
    /// Relative weight, 1024 being normal.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds of each period.
    pub cpu_quota: Option<i64>,
    /// Such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Such as `0`.
    pub cpuset_mems: Option<String>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// Whether the kernel killed one of its processes for want of memory.
    pub is_oom_killed: bool,
    /// Mount points that had been made for it and could not be taken back: the command put something there.
    pub kept_stubs: Vec<PathBuf>,
}

/// The status of a command's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

/// Where output was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Bytes as text where they are UTF-8, else as numbers: paths and contents need not be text.
mod bytes {
    use std::fmt;

    use serde::de::{Deserializer, Error, SeqAccess, Visitor};
    use serde::ser::{SerializeSeq, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return serializer.serialize_str(text);
        }
        let mut numbers = serializer.serialize_seq(Some(bytes.len()))?;
        for byte in bytes {
            numbers.serialize_element(byte)?;
        }
        numbers.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }

    struct BytesVisitor;

    impl<'de> Visitor<'de> for BytesVisitor {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or a list of bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.as_bytes().to_vec())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::with_capacity(numbers.size_hint().unwrap_or(0));
            while let Some(byte) = numbers.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

/// A path as [`bytes`].
mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::de::Deserializer;
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        super::bytes::serialize(path.as_os_str().as_bytes(), serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        let bytes = super::bytes::deserialize(deserializer)?;
        Ok(OsString::from_vec(bytes).into())
    }
}

/// Several paths.
mod paths {
    use std::path::PathBuf;

    use serde::de::Deserializer;
    use serde::ser::Serializer;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct One(#[serde(with = "super::path")] PathBuf);

    pub(super) fn serialize<S: Serializer>(
        paths: &[PathBuf],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| One(path.clone())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        let paths = Vec::<One>::deserialize(deserializer)?;
        Ok(paths.into_iter().map(|One(path)| path).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_spec_survives_the_wire_with_bytes_that_are_no_text() {
        let odd = PathBuf::from(OsStr::from_bytes(b"/st\xffore"));
        let mut spec = SandboxSpec::new(
            Rootfs {
                dir: odd.clone(),
                lowers: vec![odd.clone(), "a".into()],
                upper: "u".into(),
                work: "w".into(),
            },
            Process {
                args: vec!["true".into()],
                env: vec![("A".into(), "ü".into())],
                cwd: "/".into(),
                user: String::new(),
            },
        );
        spec.mounts.push(SpecMount {
            target: "/run/secrets/x".into(),
            source: MountSource::File {
                data: Content(vec![0, 255, 10]),
                mode: 0o400,
                uid: 0,
                gid: 0,
            },
        });
        spec.process.env.push(("TOKEN".into(), "s3cret".into()));
        let shown = format!("{spec:?}");
        assert!(shown.contains("TOKEN") && shown.contains("3 bytes"));
        assert!(!shown.contains("s3cret"));
        let text = serde_json::to_vec(&spec).unwrap();
        assert_eq!(serde_json::from_slice::<SandboxSpec>(&text).unwrap(), spec);
    }
}
