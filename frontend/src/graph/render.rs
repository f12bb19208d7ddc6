//! A graph as stable text and as DOT.
//!
//! The text has a paragraph for each vertex: `ID KIND`, its name, then a line for each member that is not at its default.
//! Inputs are written `#ID`, scratch is `scratch`. Golden tests compare it, so it has no digests of definitions in it.

use std::fmt::Write as _;

use super::{
    CacheSharing, Chmod, CopyAction, ExecMount, ExecOp, FileAction, FileOp, GitOp, Graph, HttpOp,
    ImageOp, ImageSource, InputIndex, LocalOp, MergeOp, MountKind, NetworkMode, Op, Owner,
    SecurityMode, Unpack, Vertex, VertexId,
};
use crate::gofmt::{quote, quote_list};
use crate::platform::Platform;

impl Graph {
    /// The graph as stable text.
    pub fn to_text(&self) -> String {
        let paragraphs: Vec<String> = self
            .vertices()
            .map(|(id, vertex)| paragraph(id, vertex))
            .collect();
        paragraphs.join("\n")
    }

    /// The graph for `dot`.
    pub fn to_dot(&self) -> String {
        let mut out = String::from("digraph build {\n");
        for (id, vertex) in self.vertices() {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "  v{} [label={}];", id.0, quote(&vertex.name));
            for (index, input) in vertex.inputs.iter().enumerate() {
                let _ = writeln!(out, "  v{} -> v{} [label=\"{index}\"];", input.0, id.0);
            }
        }
        out.push_str("}\n");
        out
    }
}

struct Lines<'a> {
    out: String,
    vertex: &'a Vertex,
}

impl Lines<'_> {
    fn line(&mut self, text: &str) {
        self.out.push_str("  ");
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn optional(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.line(&format!("{name} {}", quote(value)));
        }
    }

    fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            self.line(name);
        }
    }

    fn input(&self, input: Option<&InputIndex>) -> String {
        input
            .and_then(|index| self.vertex.inputs.get(index.0))
            .map_or_else(|| "scratch".to_owned(), |id| format!("#{}", id.0))
    }
}

fn paragraph(id: VertexId, vertex: &Vertex) -> String {
    let mut lines = Lines {
        out: format!("{} {}\n", id.0, vertex.op.kind()),
        vertex,
    };
    lines.line(&format!("name {}", quote(&vertex.name)));
    if let Some(origin) = &vertex.origin {
        let stage = origin.stage.as_deref().unwrap_or("-");
        lines.line(&format!(
            "lines {}-{} stage {stage}",
            origin.lines.first, origin.lines.last
        ));
    }
    lines.flag("no-cache", vertex.ignores_cache);
    match &vertex.op {
        Op::Image(op) => image(&mut lines, op),
        Op::Local(LocalOp { name }) => lines.line(&format!("directory {}", quote(name))),
        Op::Git(op) => git(&mut lines, op),
        Op::Http(op) => http(&mut lines, op),
        Op::Exec(op) => exec(&mut lines, op),
        Op::File(op) => file(&mut lines, op),
        Op::Merge(MergeOp { base, upper }) => {
            let line = format!(
                "base {} upper {}",
                lines.input(base.as_ref()),
                lines.input(Some(upper))
            );
            lines.line(&line);
        }
    }
    lines.out
}

fn image(lines: &mut Lines<'_>, op: &ImageOp) {
    lines.line(&format!("reference {}", op.reference));
    lines.line(&format!("platform {}", platform(&op.platform)));
    lines.line(&format!("manifest {}", op.manifest));
    match &op.source {
        ImageSource::Registry => {}
        ImageSource::Local => lines.line("source local"),
        ImageSource::OciLayout(name) => lines.line(&format!("source oci-layout {}", quote(name))),
    }
}

fn platform(platform: &Platform) -> String {
    let parts = [&platform.os, &platform.architecture, &platform.variant];
    let parts: Vec<&str> = parts
        .map(String::as_str)
        .into_iter()
        .filter(|p| !p.is_empty())
        .collect();
    parts.join("/")
}

fn git(lines: &mut Lines<'_>, op: &GitOp) {
    lines.line(&format!("remote {}", quote(&op.remote)));
    lines.optional("ref", op.reference.as_ref());
    lines.optional("subdir", op.subdir.as_ref());
    lines.optional("checksum", op.checksum.as_ref());
    lines.flag("keep-git-dir", op.keep_git_dir);
    lines.flag("skip-submodules", op.skip_submodules);
}

fn http(lines: &mut Lines<'_>, op: &HttpOp) {
    lines.line(&format!("url {}", quote(&op.url)));
    lines.optional("checksum", op.checksum.as_ref());
    lines.line(&format!("filename {}", quote(&op.filename)));
}

fn exec(lines: &mut Lines<'_>, op: &ExecOp) {
    let root = lines.input(op.root.as_ref());
    lines.line(&format!("root {root}"));
    lines.line(&format!("args {}", quote_list(&op.args)));
    for (name, value) in &op.env {
        lines.line(&format!("env {}", quote(&format!("{name}={value}"))));
    }
    lines.line(&format!("cwd {}", quote(&op.cwd)));
    if !op.user.is_empty() {
        lines.line(&format!("user {}", quote(&op.user)));
    }
    lines.line(&format!("platform {}", platform(&op.platform)));
    for mount in &op.mounts {
        let text = mount_line(lines, mount);
        lines.line(&format!("mount {} {text}", quote(&mount.target)));
    }
    match op.network {
        NetworkMode::Default => {}
        NetworkMode::None => lines.line("network none"),
        NetworkMode::Host => lines.line("network host"),
    }
    match op.security {
        SecurityMode::Sandbox => {}
        SecurityMode::Insecure => lines.line("security insecure"),
    }
    lines.optional("hostname", op.hostname.as_ref());
    for (host, address) in &op.extra_hosts {
        lines.line(&format!("host {host} {address}"));
    }
    if let Some(size) = op.shm_size {
        lines.line(&format!("shm-size {size}"));
    }
    for limit in &op.ulimits {
        lines.line(&format!(
            "ulimit {}={}:{}",
            limit.name, limit.soft, limit.hard
        ));
    }
    lines.optional("cgroup-parent", op.cgroup_parent.as_ref());
    for (name, value) in &op.proxy_env {
        lines.line(&format!("proxy {}", quote(&format!("{name}={value}"))));
    }
    for device in &op.devices {
        lines.line(&format!("device {}", quote(device)));
    }
}

fn mount_line(lines: &Lines<'_>, mount: &ExecMount) -> String {
    let access = |is_readonly: bool| if is_readonly { "ro" } else { "rw" };
    let required = |is_required: bool| if is_required { " required" } else { "" };
    match &mount.kind {
        MountKind::Bind {
            input,
            source,
            is_readonly,
        } => format!(
            "bind {} {} {}",
            lines.input(input.as_ref()),
            quote(source),
            access(*is_readonly)
        ),
        MountKind::Cache { .. } => cache_line(lines, &mount.kind),
        MountKind::Tmpfs { size } => {
            size.map_or("tmpfs".to_owned(), |size| format!("tmpfs {size}"))
        }
        MountKind::Secret {
            id,
            env,
            mode,
            uid,
            gid,
            is_required,
        } => format!(
            "secret {}{} {mode:o} {uid}:{gid}{}",
            quote(id),
            env.as_ref()
                .map_or(String::new(), |env| format!(" env={env}")),
            required(*is_required)
        ),
        MountKind::Ssh {
            id,
            mode,
            uid,
            gid,
            is_required,
        } => format!(
            "ssh {} {mode:o} {uid}:{gid}{}",
            quote(id),
            required(*is_required)
        ),
    }
}

fn cache_line(lines: &Lines<'_>, kind: &MountKind) -> String {
    let MountKind::Cache {
        id,
        sharing,
        input,
        source,
        is_readonly,
        mode,
        uid,
        gid,
    } = kind
    else {
        return String::new();
    };
    let sharing = match sharing {
        CacheSharing::Shared => "shared",
        CacheSharing::Private => "private",
        CacheSharing::Locked => "locked",
    };
    let mut text = format!(
        "cache {} {sharing} {} {} {}",
        quote(id),
        lines.input(input.as_ref()),
        quote(source),
        if *is_readonly { "ro" } else { "rw" }
    );
    for (name, value) in [
        ("mode", mode.map(|mode| format!("{mode:o}"))),
        ("uid", uid.map(|uid| uid.to_string())),
        ("gid", gid.map(|gid| gid.to_string())),
    ] {
        if let Some(value) = value {
            let _ = write!(text, " {name}={value}");
        }
    }
    text
}

fn file(lines: &mut Lines<'_>, op: &FileOp) {
    let base = lines.input(op.base.as_ref());
    lines.line(&format!("base {base}"));
    for action in &op.actions {
        match action {
            FileAction::Copy(action) => copy(lines, action),
            FileAction::Mkdir { path, mode, owner } => {
                let owner = owner.as_ref().map_or(String::new(), owner_text);
                lines.line(&format!("mkdir {} {mode:o}{owner}", quote(path)));
            }
            FileAction::Mkfile { path, mode, data } => {
                let text = quote(&String::from_utf8_lossy(data));
                lines.line(&format!("mkfile {} {mode:o} {text}", quote(path)));
            }
        }
    }
}

fn owner_text(owner: &Owner) -> String {
    let group = owner
        .group
        .as_ref()
        .map_or(String::new(), |group| format!(":{group}"));
    format!(" chown={}{group}", owner.user)
}

fn copy(lines: &mut Lines<'_>, action: &CopyAction) {
    let mut text = format!(
        "copy {} {} {}",
        lines.input(action.input.as_ref()),
        quote_list(&action.sources),
        quote(&action.destination)
    );
    text.push_str(&action.owner.as_ref().map_or(String::new(), owner_text));
    match &action.mode {
        None => {}
        Some(Chmod::Octal(bits)) => {
            let _ = write!(text, " chmod={bits:o}");
        }
        Some(Chmod::Symbolic(mode)) => {
            let _ = write!(text, " chmod={mode}");
        }
    }
    if action.keeps_parents {
        text.push_str(" parents");
    }
    if !action.exclude.is_empty() {
        let _ = write!(text, " exclude={}", quote_list(&action.exclude));
    }
    match action.unpack {
        Unpack::Never => {}
        Unpack::Archives => text.push_str(" unpack"),
    }
    if action.keeps_owner {
        text.push_str(" keep-owner");
    }
    lines.line(&text);
}
