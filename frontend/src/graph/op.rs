//! What a vertex does. A closed set: adding an op makes the compiler list every place to update.

use std::collections::BTreeMap;

use crate::platform::Platform;

/// What a vertex does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The file system of an image.
    Image(ImageOp),
    /// A directory of the client: the build context or a named context.
    Local(LocalOp),
    /// A git repository.
    Git(GitOp),
    /// A file fetched over HTTP.
    Http(HttpOp),
    /// A command run in a sandbox.
    Exec(Box<ExecOp>),
    /// Files made, copied or unpacked onto a file system.
    File(FileOp),
    /// Layers stacked onto a file system without looking at it (`COPY --link`).
    Merge(MergeOp),
}

impl Op {
    /// Its kind in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Image(_) => "image",
            Self::Local(_) => "local",
            Self::Git(_) => "git",
            Self::Http(_) => "http",
            Self::Exec(_) => "exec",
            Self::File(_) => "file",
            Self::Merge(_) => "merge",
        }
    }
}

/// The file system of an image. No inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOp {
    /// The full reference, normalised (`docker.io/library/busybox:latest`), or what a named context gave instead.
    pub reference: String,
    /// The platform asked for.
    pub platform: Platform,
    /// Digest of the image manifest of that platform (`sha256:…`), as resolved.
    pub manifest: String,
    /// Opaque to the frontend: which resolved source this is, so that the builder finds it again.
    pub source: ImageSource,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageSource {
    /// A registry.
    Registry,
    /// The local store.
    Local,
    /// An OCI layout given by `--build-context NAME=oci-layout://…`; the value is the named context's name.
    OciLayout(String),
}

/// A directory of the client. No inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalOp {
    /// `context` for the build context, else the name of the named context.
    pub name: String,
}

/// A git repository. No inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitOp {
    /// The remote without fragment and query.
    pub remote: String,
    /// Branch, tag or commit; the remote's default branch if absent.
    pub reference: Option<String>,
    /// Subdirectory that becomes the root.
    pub subdir: Option<String>,
    /// Commit (prefix) that must be checked out.
    pub checksum: Option<String>,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// Do not fetch submodules.
    pub skip_submodules: bool,
}

/// A file fetched over HTTP. No inputs; the output holds one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOp {
    /// The URL.
    pub url: String,
    /// `algorithm:hex` that the body must have.
    pub checksum: Option<String>,
    /// Name of the file in the output.
    pub filename: String,
}

/// A command run in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOp {
    /// The root file system; `None` is scratch.
    pub root: Option<super::InputIndex>,
    /// The argument vector.
    pub args: Vec<String>,
    /// The environment in order, without duplicates.
    pub env: Vec<(String, String)>,
    /// The working directory, absolute.
    pub cwd: String,
    /// USER as written, empty if unset.
    pub user: String,
    /// Mounts in the order written.
    pub mounts: Vec<ExecMount>,
    /// The platform that the command is for: that of the image it runs in.
    pub platform: Platform,
    /// The network.
    pub network: NetworkMode,
    /// The security mode.
    pub security: SecurityMode,
    /// Host name, if not the default `buildkitsandbox`.
    pub hostname: Option<String>,
    /// `--add-host`: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`
    pub ulimits: Vec<Ulimit>,
    /// `--cgroup-parent`
    pub cgroup_parent: Option<String>,
    /// Proxy variables given as build args, by lower-case name; set in both cases at run time only, where they win over
    /// ENV and ARG; never in a key or a digest.
    pub proxy_env: BTreeMap<String, String>,
    /// `--device`, as written.
    pub devices: Vec<String>,
}

/// The network a command sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkMode {
    /// What the sandbox gives by default.
    Default,
    /// A namespace with loopback only.
    None,
    /// The host's.
    Host,
}

/// How far a command is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecurityMode {
    /// The default.
    Sandbox,
    /// All capabilities, no filters, all devices.
    Insecure,
}

/// `--ulimit name=soft:hard`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ulimit {
    /// Such as `nofile`.
    pub name: String,
    /// Soft limit, -1 for none.
    pub soft: i64,
    /// Hard limit, -1 for none.
    pub hard: i64,
}

/// A mount of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecMount {
    /// Where, absolute and clean. Empty for a secret that is only an environment variable.
    pub target: String,
    /// What.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Part of another file system.
    Bind {
        /// The input, `None` for scratch.
        input: Option<super::InputIndex>,
        /// The path in it, absolute and clean.
        source: String,
        /// Writes go to a throw-away layer if false.
        is_readonly: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Its id, with the namespace of `BUILDKIT_CACHE_MOUNT_NS` in front (`ns/id`).
        id: String,
        /// What two users at once get.
        sharing: CacheSharing,
        /// The input its first content is taken from.
        input: Option<super::InputIndex>,
        /// The path in the input.
        source: String,
        /// Whether the command may not write.
        is_readonly: bool,
        /// Mode of the root directory, if given.
        mode: Option<u32>,
        /// Owner of the root directory.
        uid: Option<u32>,
        /// Group of the root directory.
        gid: Option<u32>,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// A secret, as a file at the target, an environment variable, or both.
    Secret {
        /// Its id.
        id: String,
        /// The variable.
        env: Option<String>,
        /// Mode of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
        /// Whether the build fails without it.
        is_required: bool,
    },
    /// A forwarded ssh agent.
    Ssh {
        /// Its id.
        id: String,
        /// Mode of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
        /// Whether the build fails without it.
        is_required: bool,
    },
}

/// What two concurrent users of a cache mount get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheSharing {
    /// The same directory.
    Shared,
    /// The second gets a new one.
    Private,
    /// The second waits.
    Locked,
}

/// Files made, copied or unpacked onto a file system: one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOp {
    /// The file system written onto; `None` is scratch.
    pub base: Option<super::InputIndex>,
    /// The actions in order; at least one.
    pub actions: Vec<FileAction>,
}

/// One thing done to files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileAction {
    /// Copies or unpacks sources.
    Copy(CopyAction),
    /// Makes a directory and its parents; an existing one is left alone.
    Mkdir {
        /// Absolute, clean.
        path: String,
        /// Permission bits.
        mode: u32,
        /// The owner of what is made.
        owner: Option<Owner>,
    },
    /// Makes a regular file.
    Mkfile {
        /// Absolute, clean.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Content.
        data: Vec<u8>,
    },
}

/// COPY and ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyAction {
    /// Where the sources are; `None` is scratch (`COPY --from=scratch`).
    pub input: Option<super::InputIndex>,
    /// Paths or Go `filepath.Match` patterns in the input, expanded, in order, as written (not yet rooted or cleaned).
    pub sources: Vec<String>,
    /// Where to, absolute; a trailing `/` (or `/.`) is kept as a trailing `/` and means a directory.
    pub destination: String,
    /// `--chown`; `None` keeps the source's owner, which for the build context is 0:0.
    pub owner: Option<Owner>,
    /// `--chmod`
    pub mode: Option<Chmod>,
    /// `--parents`
    pub keeps_parents: bool,
    /// `--exclude`, unexpanded.
    pub exclude: Vec<String>,
    /// Whether archives are unpacked.
    pub unpack: Unpack,
    /// Whether the sources' owners count: true for stages and images, false for contexts.
    pub keeps_owner: bool,
}

/// Whether ADD unpacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unpack {
    /// Never: COPY, and `ADD --unpack=false`.
    Never,
    /// Files that are archives are unpacked (ADD of local files).
    Archives,
}

/// `--chown user[:group]`, unresolved: names are looked up in the destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// A user name or number, empty for 0.
    pub user: String,
    /// A group name or number.
    pub group: Option<String>,
}

/// `--chmod`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chmod {
    /// Octal digits.
    Octal(u32),
    /// Symbolic, as written and known to be valid (`u=rwX,go=rX`).
    Symbolic(String),
}

/// Layers stacked onto a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeOp {
    /// The file system below; `None` is scratch.
    pub base: Option<super::InputIndex>,
    /// The file system whose layers are put on top.
    pub upper: super::InputIndex,
}
