//! Definition digests: what makes two vertices the same.
//!
//! BLAKE3 over a versioned, unambiguous encoding: every text and list is preceded by its length, every choice by a number.
//! Names, places and proxy variables are left out. Structs are taken apart field by field, so that a new field does not
//! compile until it is decided here.

use super::{
    CacheSharing, Chmod, CopyAction, ExecMount, ExecOp, FileAction, FileOp, GitOp, HttpOp, ImageOp,
    ImageSource, InputIndex, LocalOp, MergeOp, MountKind, NetworkMode, Op, Owner, SecurityMode,
    Ulimit, Unpack,
};

/// Digest of a vertex's definition (BLAKE3): its op and its inputs' digests, nothing presentational.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexDigest(pub [u8; 32]);

/// Names the encoding below. Changing the encoding means changing this.
const VERSION: &str = "vertex v1";

impl VertexDigest {
    /// The digest of an op over inputs.
    pub(super) fn of(op: &Op, inputs: &[Self]) -> Self {
        let mut encoder = Encoder(blake3::Hasher::new());
        encoder.text(VERSION);
        encoder.op(op);
        encoder.number(count(inputs.len()));
        for input in inputs {
            encoder.0.update(&input.0);
        }
        Self(*encoder.0.finalize().as_bytes())
    }

    /// Lower-case hexadecimal.
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

/// Lengths are far below 2⁶⁴ on every machine there is.
fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

struct Encoder(blake3::Hasher);

impl Encoder {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(count(bytes.len()));
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.number(u64::from(flag));
    }

    fn option<T>(&mut self, option: Option<&T>, encode: impl FnOnce(&mut Self, &T)) {
        self.flag(option.is_some());
        if let Some(value) = option {
            encode(self, value);
        }
    }

    fn list<T>(&mut self, list: &[T], encode: impl Fn(&mut Self, &T)) {
        self.number(count(list.len()));
        for item in list {
            encode(self, item);
        }
    }

    fn texts(&mut self, list: &[String]) {
        self.list(list, |e, text| e.text(text));
    }

    fn input(&mut self, input: &InputIndex) {
        self.number(count(input.0));
    }

    fn optional_text(&mut self, text: Option<&String>) {
        self.option(text, |e, text| e.text(text));
    }

    fn optional_number(&mut self, number: Option<u64>) {
        self.option(number.as_ref(), |e, number| e.number(*number));
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Image(op) => self.image(op),
            Op::Local(LocalOp { name }) => {
                self.number(1);
                self.text(name);
            }
            Op::Git(op) => self.git(op),
            Op::Http(HttpOp {
                url,
                checksum,
                filename,
            }) => {
                self.number(3);
                self.text(url);
                self.optional_text(checksum.as_ref());
                self.text(filename);
            }
            Op::Exec(op) => self.exec(op),
            Op::File(FileOp { base, actions }) => {
                self.number(5);
                self.option(base.as_ref(), Self::input);
                self.list(actions, Self::file_action);
            }
            Op::Merge(MergeOp { base, upper }) => {
                self.number(6);
                self.option(base.as_ref(), Self::input);
                self.input(upper);
            }
        }
    }

    fn image(&mut self, op: &ImageOp) {
        let ImageOp {
            reference,
            platform,
            manifest,
            source,
        } = op;
        self.number(0);
        self.text(reference);
        for part in [
            &platform.os,
            &platform.architecture,
            &platform.variant,
            &platform.os_version,
        ] {
            self.text(part);
        }
        self.text(manifest);
        match source {
            ImageSource::Registry => self.number(0),
            ImageSource::Local => self.number(1),
            ImageSource::OciLayout(name) => {
                self.number(2);
                self.text(name);
            }
        }
    }

    fn git(&mut self, op: &GitOp) {
        let GitOp {
            remote,
            reference,
            subdir,
            checksum,
            keep_git_dir,
            skip_submodules,
        } = op;
        self.number(2);
        self.text(remote);
        for text in [reference, subdir, checksum] {
            self.optional_text(text.as_ref());
        }
        self.flag(*keep_git_dir);
        self.flag(*skip_submodules);
    }

    fn exec(&mut self, op: &ExecOp) {
        let ExecOp {
            root,
            args,
            env,
            cwd,
            user,
            mounts,
            platform,
            network,
            security,
            hostname,
            extra_hosts,
            shm_size,
            ulimits,
            cgroup_parent,
            proxy_env: _,
            devices,
        } = op;
        self.number(4);
        self.option(root.as_ref(), Self::input);
        self.texts(args);
        self.list(env, Self::pair);
        self.text(cwd);
        self.text(user);
        self.list(mounts, Self::mount);
        self.text(&platform.to_string());
        self.number(match network {
            NetworkMode::Default => 0,
            NetworkMode::None => 1,
            NetworkMode::Host => 2,
        });
        self.number(match security {
            SecurityMode::Sandbox => 0,
            SecurityMode::Insecure => 1,
        });
        self.optional_text(hostname.as_ref());
        self.list(extra_hosts, Self::pair);
        self.optional_number(*shm_size);
        self.list(ulimits, Self::ulimit);
        self.optional_text(cgroup_parent.as_ref());
        self.texts(devices);
    }

    fn pair(&mut self, (name, value): &(String, String)) {
        self.text(name);
        self.text(value);
    }

    fn ulimit(&mut self, Ulimit { name, soft, hard }: &Ulimit) {
        self.text(name);
        self.0.update(&soft.to_le_bytes());
        self.0.update(&hard.to_le_bytes());
    }

    fn mount(&mut self, ExecMount { target, kind }: &ExecMount) {
        self.text(target);
        match kind {
            MountKind::Bind {
                input,
                source,
                is_readonly,
            } => {
                self.number(0);
                self.option(input.as_ref(), Self::input);
                self.text(source);
                self.flag(*is_readonly);
            }
            MountKind::Cache { .. } => self.cache_mount(kind),
            MountKind::Tmpfs { size } => {
                self.number(2);
                self.optional_number(*size);
            }
            MountKind::Secret {
                id,
                env,
                mode,
                uid,
                gid,
                is_required,
            } => {
                self.number(3);
                self.text(id);
                self.optional_text(env.as_ref());
                self.attributes([*mode, *uid, *gid], *is_required);
            }
            MountKind::Ssh {
                id,
                mode,
                uid,
                gid,
                is_required,
            } => {
                self.number(4);
                self.text(id);
                self.attributes([*mode, *uid, *gid], *is_required);
            }
        }
    }

    fn cache_mount(&mut self, kind: &MountKind) {
        if let MountKind::Cache {
            id,
            sharing,
            input,
            source,
            is_readonly,
            mode,
            uid,
            gid,
        } = kind
        {
            self.number(1);
            self.text(id);
            self.number(match sharing {
                CacheSharing::Shared => 0,
                CacheSharing::Private => 1,
                CacheSharing::Locked => 2,
            });
            self.option(input.as_ref(), Self::input);
            self.text(source);
            self.flag(*is_readonly);
            for number in [mode, uid, gid] {
                self.optional_number(number.map(u64::from));
            }
        }
    }

    fn attributes(&mut self, numbers: [u32; 3], is_required: bool) {
        for number in numbers {
            self.number(u64::from(number));
        }
        self.flag(is_required);
    }

    fn file_action(&mut self, action: &FileAction) {
        match action {
            FileAction::Copy(copy) => self.copy(copy),
            FileAction::Mkdir { path, mode, owner } => {
                self.number(1);
                self.text(path);
                self.number(u64::from(*mode));
                self.option(owner.as_ref(), Self::owner);
            }
            FileAction::Mkfile { path, mode, data } => {
                self.number(2);
                self.text(path);
                self.number(u64::from(*mode));
                self.bytes(data);
            }
        }
    }

    fn copy(&mut self, copy: &CopyAction) {
        let CopyAction {
            input,
            sources,
            destination,
            owner,
            mode,
            keeps_parents,
            exclude,
            unpack,
            keeps_owner,
        } = copy;
        self.number(0);
        self.option(input.as_ref(), Self::input);
        self.texts(sources);
        self.text(destination);
        self.option(owner.as_ref(), Self::owner);
        self.option(mode.as_ref(), |e, mode| match mode {
            Chmod::Octal(bits) => {
                e.number(0);
                e.number(u64::from(*bits));
            }
            Chmod::Symbolic(text) => {
                e.number(1);
                e.text(text);
            }
        });
        self.flag(*keeps_parents);
        self.texts(exclude);
        self.number(match unpack {
            Unpack::Never => 0,
            Unpack::Archives => 1,
        });
        self.flag(*keeps_owner);
    }

    fn owner(&mut self, Owner { user, group }: &Owner) {
        self.text(user);
        self.optional_text(group.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;

    fn exec() -> ExecOp {
        ExecOp {
            root: Some(InputIndex(0)),
            args: vec!["sh".into(), "-c".into(), "true".into()],
            env: vec![("A".into(), "1".into())],
            cwd: "/".into(),
            user: String::new(),
            mounts: Vec::new(),
            platform: Platform::linux("amd64"),
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            hostname: None,
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            cgroup_parent: None,
            proxy_env: std::collections::BTreeMap::new(),
            devices: Vec::new(),
        }
    }

    fn digest(op: ExecOp) -> VertexDigest {
        VertexDigest::of(&Op::Exec(Box::new(op)), &[VertexDigest([7; 32])])
    }

    #[test]
    fn proxy_variables_do_not_count_and_all_else_does() {
        let plain = digest(exec());
        let mut proxied = exec();
        proxied.proxy_env.insert("http_proxy".into(), "x".into());
        assert_eq!(digest(proxied), plain);

        let changes: [fn(&mut ExecOp); 9] = [
            |op| op.root = None,
            |op| op.args = vec!["sh".into(), "-ctrue".into()],
            |op| op.env = vec![("A1".into(), String::new())],
            |op| op.cwd = "/w".into(),
            |op| op.platform = Platform::linux("arm64"),
            |op| op.network = NetworkMode::None,
            |op| op.shm_size = Some(1),
            |op| op.devices = vec!["d".into()],
            |op| {
                op.mounts = vec![ExecMount {
                    target: "/t".into(),
                    kind: MountKind::Tmpfs { size: None },
                }];
            },
        ];
        let mut seen = vec![plain];
        for change in changes {
            let mut op = exec();
            change(&mut op);
            let changed = digest(op);
            assert!(!seen.contains(&changed));
            seen.push(changed);
        }
        let other_input = VertexDigest::of(&Op::Exec(Box::new(exec())), &[VertexDigest([8; 32])]);
        assert!(!seen.contains(&other_input));
    }

    #[test]
    fn the_encoding_is_pinned() {
        let op = Op::Local(LocalOp {
            name: "context".into(),
        });
        assert_eq!(
            VertexDigest::of(&op, &[]).to_hex(),
            "ff435828fd12a5abcda8012f775dcbcbcb33b5e8da1f1b2f90352c94e19bd96c"
        );
    }
}
