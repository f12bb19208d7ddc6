//! What the tests of copying share: a real context, and a base that is an index.

mod archives;
mod created;
mod keys;
mod limits;
mod outcome;
mod races;
mod rules;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::checksum::stat_cache::StatCache;
use cache::digest::ContentDigest;
use cache::layer::entry::{Entry, EntryKind};
use cache::layer::index::LayerIndex;
use cache::layer::stack::LayerStack;
use frontend::graph::{CopyAction, FileAction, InputIndex, Unpack};

use super::context_source::ContextSource;
use super::error::CopyError;
use super::place::plan;
use super::plan::CopyPlan;
use super::select::{Sources, select};
use super::source::Destination;
use super::stack_source::StackSource;
use crate::context::walk::{ContextDir, Excludes};

/// A context directory and a base.
struct World {
    dir: tempfile::TempDir,
    base: Option<LayerStack>,
    excluded: &'static str,
}

struct Rule(&'static str);

impl Excludes for Rule {
    fn is_excluded(&self, path: &str) -> bool {
        path == self.0
    }

    fn can_skip_directory(&self, path: &str) -> bool {
        path == self.0
    }

    fn why(&self, path: &str) -> Option<String> {
        (path == self.0).then(|| format!(".dockerignore:3 (`{}`)", self.0))
    }
}

/// Entries written as `d /path mode uid`, `f /path text`, `l /path target`, `h /path target`.
fn index(lines: &[&str]) -> LayerIndex {
    let entry = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let path = words[1].trim_start_matches('/').as_bytes().to_vec();
        let rest = words.get(2).copied().unwrap_or_default();
        let mut entry = Entry::default_directory(path);
        match words[0] {
            "d" => {
                entry.mode =
                    u32::from_str_radix(if rest.is_empty() { "755" } else { rest }, 8).unwrap();
                let owner = words.get(3).map_or(0, |id| id.parse().unwrap());
                (entry.uid, entry.gid) = (owner, owner);
            }
            "f" => {
                entry.mode = 0o644;
                entry.kind = EntryKind::File {
                    size: rest.len() as u64,
                    content: ContentDigest(*blake3::hash(rest.as_bytes()).as_bytes()),
                };
            }
            "l" => {
                entry.mode = 0o777;
                entry.kind = EntryKind::Symlink {
                    target: rest.as_bytes().to_vec(),
                };
            }
            "h" => {
                entry.kind = EntryKind::HardLink {
                    target: rest.as_bytes().to_vec(),
                };
            }
            other => panic!("{other}"),
        }
        entry
    };
    LayerIndex::new(lines.iter().map(entry).collect(), Vec::new()).unwrap()
}

fn stack(lines: &[&str]) -> LayerStack {
    LayerStack::new(vec![Arc::new(index(lines))])
}

/// A stack of one layer whose tree is there.
fn stack_source(name: &str, stack: LayerStack, tree: std::path::PathBuf) -> StackSource {
    StackSource::new(name, stack, Arc::new(move |_| Ok(tree.clone())))
}

impl World {
    /// The context: `a.txt`, `b.txt`, `c.md`, `d/one.txt`, `d/sub/two.txt`, `d/sub/deep/three.txt`.
    fn new(base: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Self {
            base: Some(stack(base)),
            dir,
            excluded: "",
        };
        for path in [
            "a.txt",
            "b.txt",
            "c.md",
            "d/one.txt",
            "d/sub/two.txt",
            "d/sub/deep/three.txt",
        ] {
            world.file(path, path);
        }
        world
    }

    fn scratch() -> Self {
        let mut world = Self::new(&[]);
        world.base = None;
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("ctx").join(path)
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.chmod_path(&path, 0o644);
        let mut above = path.parent().unwrap();
        while above != self.dir.path() {
            self.chmod_path(above, 0o755);
            above = above.parent().unwrap();
        }
    }

    fn chmod_path(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn chmod(&self, path: &str, mode: u32) {
        self.chmod_path(&self.path(path), mode);
    }

    fn context(&self) -> ContextDir {
        ContextDir::open(
            &self.path(""),
            Box::new(Rule(self.excluded)),
            StatCache::in_memory(),
        )
        .unwrap()
    }

    fn with_plan<T>(
        &self,
        actions: &[FileAction],
        then: impl FnOnce(CopyPlan, &Sources<'_>) -> T,
    ) -> Result<T, CopyError> {
        let context = self.context();
        let source = ContextSource::new("context", Arc::new(context));
        let sources = Sources::from([(InputIndex(1), &source as _)]);
        let base = self
            .base
            .as_ref()
            .map(|stack| stack_source("base", stack.clone(), self.path("../tree")));
        let base = base.as_ref().map(|base| base as &dyn Destination);
        let selection = select(actions, &sources, 2)?;
        Ok(then(plan(selection, &sources, base)?, &sources))
    }

    fn plan(&self, actions: &[FileAction]) -> Result<CopyPlan, CopyError> {
        self.with_plan(actions, |plan, _| plan)
    }

    /// Lines like `d 0755 0:0 dst`.
    fn list(&self, actions: &[FileAction]) -> Vec<String> {
        listing(&self.plan(actions).unwrap())
    }

    fn error(&self, actions: &[FileAction]) -> String {
        self.plan(actions).unwrap_err().to_string()
    }
}

fn listing(plan: &CopyPlan) -> Vec<String> {
    let line = |entry: &Entry| {
        let path = String::from_utf8_lossy(&entry.path);
        let rest = format!("{:04o} {}:{} {path}", entry.mode, entry.uid, entry.gid);
        match &entry.kind {
            EntryKind::Directory { .. } => format!("d {rest}"),
            EntryKind::HardLink { target } => {
                format!("h {rest} {}", String::from_utf8_lossy(target))
            }
            EntryKind::File { .. } => format!("f {rest}"),
            EntryKind::Symlink { target } => {
                format!("l {rest} {}", String::from_utf8_lossy(target))
            }
            EntryKind::CharDevice { major, minor } => format!("c {rest} {major}:{minor}"),
            EntryKind::BlockDevice { major, minor } => format!("b {rest} {major}:{minor}"),
            EntryKind::Fifo => format!("p {rest}"),
            EntryKind::Whiteout => format!("w {rest}"),
        }
    };
    plan.entries().map(line).collect()
}

fn action(sources: &[&str], destination: &str) -> CopyAction {
    CopyAction {
        input: Some(InputIndex(1)),
        sources: sources.iter().map(|s| (*s).to_owned()).collect(),
        destination: destination.to_owned(),
        owner: None,
        mode: None,
        keeps_parents: false,
        exclude: Vec::new(),
        unpack: Unpack::Never,
        keeps_owner: false,
    }
}

fn copy(sources: &[&str], destination: &str) -> Vec<FileAction> {
    vec![FileAction::Copy(action(sources, destination))]
}

fn changed(
    sources: &[&str],
    destination: &str,
    change: impl FnOnce(&mut CopyAction),
) -> Vec<FileAction> {
    let mut action = action(sources, destination);
    change(&mut action);
    vec![FileAction::Copy(action)]
}
