//! Which files an instruction means, with their digests: all that can be known without the destination.
//!
//! A source with wildcards is matched component by component with Go's `filepath.Match`; no match is no error, but what
//! comes before the first wildcard must exist, as a literal source must. A symlink named as a source is followed and its
//! own name kept; links found below a directory are taken as links. Only what is asked for is listed and read.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cache::checksum::file::in_parallel;
use frontend::graph::{CopyAction, FileAction, InputIndex, Unpack};
use frontend::ignore::{ExcludeMatcher, ParentsSource, has_wildcards, match_path};

use super::archive;
use super::chmod::ModeChange;
use super::error::{CopyError, SourceError, shown};
use super::nodes::{Nodes, Unread};
use super::resolve::{clean, components, join, split};
use super::selection::{Pick, Reason, SelectedAction, SelectedCopy, Selection, Treatment};
use super::source::{SourceEntry, SourceKind, SourceTree, not_found, resolve_source};
use crate::machine::STACK_BYTES;

/// Files listed to be hashed at once.
const HASHED_AT_ONCE: usize = 1 << 16;

/// The trees that the inputs of an op are; an input that is not there is empty.
pub type Sources<'a> = BTreeMap<InputIndex, &'a dyn SourceTree>;

/// Finds the files and hashes them, both on at most `threads` threads.
pub fn select(
    actions: &[FileAction],
    sources: &Sources<'_>,
    threads: usize,
) -> Result<Selection, CopyError> {
    let mut selected = Vec::new();
    for action in actions {
        selected.push(match action {
            FileAction::Mkdir { path, mode, owner } => SelectedAction::Mkdir {
                path: path.clone(),
                mode: *mode,
                owner: owner.clone(),
            },
            FileAction::Mkfile { path, mode, data } => SelectedAction::Mkfile {
                path: path.clone(),
                mode: *mode,
                data: data.clone(),
            },
            FileAction::Copy(copy) => {
                let tree = tree_of(copy.input, sources);
                SelectedAction::Copy(select_copy(copy, tree, threads)?)
            }
        });
    }
    Ok(Selection { actions: selected })
}

/// The tree of an input.
pub(super) fn tree_of<'a>(input: Option<InputIndex>, sources: &Sources<'a>) -> &'a dyn SourceTree {
    input
        .and_then(|input| sources.get(&input).copied())
        .unwrap_or(&super::source::Scratch)
}

fn select_copy(
    copy: &CopyAction,
    tree: &dyn SourceTree,
    threads: usize,
) -> Result<SelectedCopy, CopyError> {
    let exclude = exclude_of(copy)?;
    let mut picks = Vec::new();
    for source in &copy.sources {
        let filter = filter(copy, source, &exclude)?;
        pick(tree, source, &filter, threads, &mut picks)?;
    }
    hash(tree, &mut picks, threads)?;
    if copy.unpack == Unpack::Archives {
        for pick in &mut picks {
            if archive::is_archive(tree, pick)? {
                pick.treatment = Treatment::Unpacked;
            }
        }
    }
    Ok(SelectedCopy {
        input: copy.input,
        destination: copy.destination.clone(),
        owner: copy.owner.clone(),
        chmod: copy.mode.clone(),
        mode: copy.mode.as_ref().map(ModeChange::of).transpose()?,
        keeps_parents: copy.keeps_parents,
        keeps_owner: copy.keeps_owner,
        picks,
    })
}

/// How many files and directories a source with wildcards matches, excluded ones too: with `--parents` what it names
/// below its root, else what it names.
pub(super) fn matched(
    copy: &CopyAction,
    source: &str,
    tree: &dyn SourceTree,
) -> Result<usize, CopyError> {
    let filter = Filter {
        parents: parents_of(copy, source)?,
        exclude: None,
        has_exceptions: false,
    };
    let mut picks = Vec::new();
    pick(tree, source, &filter, 1, &mut picks)?;
    if filter.parents.is_none() {
        return Ok(picks.len());
    }
    let nodes = picks.iter().flat_map(|pick| pick.nodes.iter());
    Ok(nodes.filter(|node| !node.relative.is_empty()).count())
}

fn exclude_of(copy: &CopyAction) -> Result<ExcludeMatcher, CopyError> {
    ExcludeMatcher::new(&copy.exclude).map_err(|reason| CopyError::Pattern {
        pattern: copy.exclude.join(", "),
        reason,
    })
}

fn filter<'a>(
    copy: &CopyAction,
    source: &str,
    exclude: &'a ExcludeMatcher,
) -> Result<Filter<'a>, CopyError> {
    Ok(Filter {
        parents: parents_of(copy, source)?,
        exclude: (!copy.exclude.is_empty()).then_some(exclude),
        has_exceptions: copy.exclude.iter().any(|p| p.trim().starts_with('!')),
    })
}

fn parents_of(copy: &CopyAction, source: &str) -> Result<Option<ParentsSource>, CopyError> {
    if !copy.keeps_parents {
        return Ok(None);
    }
    let parents = ParentsSource::new(source).map_err(|reason| CopyError::Pattern {
        pattern: source.to_owned(),
        reason,
    })?;
    Ok(Some(parents))
}

/// What of a directory is meant.
struct Filter<'a> {
    parents: Option<ParentsSource>,
    exclude: Option<&'a ExcludeMatcher>,
    has_exceptions: bool,
}

impl Filter<'_> {
    fn is_meant(&self, relative: &[u8]) -> bool {
        let path = String::from_utf8_lossy(relative);
        self.parents.as_ref().is_none_or(|p| p.is_included(&path))
            && !self.exclude.is_some_and(|e| e.is_excluded(&path))
    }

    /// Whether something below a directory that is not meant itself may be.
    fn may_be_meant_below(&self, relative: &[u8]) -> bool {
        let path = String::from_utf8_lossy(relative);
        let is_included = |p: &ParentsSource| p.is_included(&path) || leads_to(p.pattern(), &path);
        self.parents.as_ref().is_none_or(is_included)
            && (self.has_exceptions || !self.exclude.is_some_and(|e| e.is_excluded(&path)))
    }
}

/// Whether paths below a directory may match a pattern.
fn leads_to(pattern: &str, directory: &str) -> bool {
    let mut parts = pattern.split('/');
    for name in directory.split('/') {
        match parts.next() {
            None => return false,
            Some(part) if part.contains("**") => return true,
            // A malformed pattern matches nothing in the end; here doubt means looking.
            Some(part) if match_path(part, name).unwrap_or(true) => {}
            Some(_) => return false,
        }
    }
    parts.next().is_some()
}

/// Adds what one source means.
fn pick(
    tree: &dyn SourceTree,
    source: &str,
    filter: &Filter<'_>,
    threads: usize,
    picks: &mut Vec<Pick>,
) -> Result<(), CopyError> {
    let root = match &filter.parents {
        None => source,
        Some(parents) => {
            if let Some(required) = parents.required() {
                let required = clean(required.as_bytes());
                if !resolve_source(tree, &required)?.is_there {
                    return Err(not_found(tree, &required));
                }
            }
            parents.root()
        }
    };
    let root = clean(root.as_bytes());
    let found = if has_wildcards(&String::from_utf8_lossy(&root)) {
        matches(tree, &root)?
    } else {
        vec![root]
    };
    for named in found {
        let followed = resolve_source(tree, &named)?;
        let entry = if followed.is_there {
            tree.lookup(&followed.path)?
        } else {
            None
        };
        let Some(entry) = entry else {
            return Err(not_found(tree, &named));
        };
        let mut walk = Walk {
            tree,
            filter,
            root: &followed.path,
            spare: &AtomicUsize::new(threads.saturating_sub(1)),
            nodes: Nodes::default(),
            waiting: Vec::new(),
        };
        walk.add(Vec::new(), entry)?;
        let nodes = walk.nodes;
        picks.push(Pick {
            name: split(&named).map_or_else(Vec::new, |(_, name)| name.to_vec()),
            path: followed.path,
            treatment: Treatment::Copied,
            nodes,
        });
    }
    Ok(())
}

/// The paths that a pattern matches, in the order of a walk. Links on the way of the wildcard part are not followed.
fn matches(tree: &dyn SourceTree, pattern: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
    let parts: Vec<&[u8]> = components(pattern).collect();
    let is_literal = |part: &&&[u8]| !has_wildcards(&String::from_utf8_lossy(part));
    let literal = parts.iter().take_while(is_literal).count();
    for part in &parts[literal..] {
        // A malformed pattern is one for every name.
        match_path(&String::from_utf8_lossy(part), "").map_err(|reason| CopyError::Pattern {
            pattern: shown(pattern),
            reason,
        })?;
    }
    let before = parts[..literal].join(&b'/');
    let start = resolve_source(tree, &before)?;
    if !start.is_there {
        return Err(not_found(tree, &before));
    }
    let mut directories = vec![start.path];
    let mut found = Vec::new();
    for (at, part) in parts.iter().enumerate().skip(literal) {
        let part = String::from_utf8_lossy(part);
        let is_last = at + 1 == parts.len();
        for directory in std::mem::take(&mut directories) {
            let is_directory = tree
                .lookup(&directory)?
                .is_some_and(|entry| entry.kind == SourceKind::Directory);
            if !is_directory {
                continue;
            }
            for (name, _) in tree.children(&directory)? {
                if match_path(&part, &String::from_utf8_lossy(&name)).unwrap_or(false) {
                    let path = join(&directory, &name);
                    if is_last {
                        found.push(path);
                    } else {
                        directories.push(path);
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Collects what is selected below a pick.
///
/// A thread that finds several directories in one hands half of them to another while fewer than wanted are at work, each
/// half again as soon as one ends; the halves are put together in order.
struct Walk<'a> {
    tree: &'a dyn SourceTree,
    filter: &'a Filter<'a>,
    root: &'a [u8],
    /// How many more threads may be started.
    spare: &'a AtomicUsize,
    nodes: Nodes,
    /// Directories that are selected as soon as something below them is.
    waiting: Vec<(Vec<u8>, SourceEntry)>,
}

impl Walk<'_> {
    fn add(&mut self, relative: Vec<u8>, entry: SourceEntry) -> Result<(), CopyError> {
        // The source itself is always meant: patterns are for what is below it.
        let is_meant = relative.is_empty() || self.filter.is_meant(&relative);
        let is_directory = entry.kind == SourceKind::Directory;
        let below = is_directory.then(|| relative.clone());
        if is_meant {
            self.check_reserved(&relative, &entry)?;
            self.take_waiting();
            self.nodes.push(&relative, entry, Reason::Meant);
        } else if is_directory && self.filter.may_be_meant_below(&relative) {
            self.waiting.push((relative, entry));
        } else {
            return Ok(());
        }
        if let Some(relative) = below {
            let depth = self.waiting.len();
            let children = self.tree.children(&join(self.root, &relative))?;
            self.add_below(&relative, children)?;
            if !is_meant && self.waiting.len() == depth {
                // Nothing below took it along.
                self.waiting.pop();
            }
        }
        Ok(())
    }

    fn take_waiting(&mut self) {
        for (relative, entry) in self.waiting.drain(..) {
            self.nodes.push(&relative, entry, Reason::OnTheWay);
        }
    }

    fn add_below(
        &mut self,
        directory: &[u8],
        mut children: Vec<(Vec<u8>, SourceEntry)>,
    ) -> Result<(), CopyError> {
        let is_directory = |child: &(Vec<u8>, SourceEntry)| child.1.kind == SourceKind::Directory;
        let directories = children.iter().filter(|child| is_directory(child)).count();
        if directories < 2 || !self.takes_thread() {
            let mut children = children.into_iter();
            return children.try_for_each(|(name, child)| self.add(join(directory, &name), child));
        }
        let all = children.iter().enumerate();
        let middle = all
            .filter(|(_, child)| is_directory(child))
            .nth(directories / 2);
        let second = children.split_off(middle.map_or(0, |(at, _)| at));
        let mut other = Walk {
            nodes: Nodes::default(),
            waiting: Vec::new(),
            ..*self
        };
        let spare = self.spare;
        let has_one_ended = AtomicBool::new(false);
        // Whichever half ends first leaves its thread to others; one goes on.
        let end = || match has_one_ended.swap(true, Ordering::Relaxed) {
            true => {}
            false => drop(spare.fetch_add(1, Ordering::Relaxed)),
        };
        let unread = |source| SourceError::Layer {
            path: shown(&join(self.root, directory)),
            source_name: self.tree.name().to_owned(),
            source,
        };
        let (first, second) = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let second = thread.spawn_scoped(scope, || {
                let added = other.add_below(directory, second);
                end();
                added.map(|()| other.nodes)
            });
            let first = self.add_below(directory, children);
            end();
            let second = match second {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(error) => Err(unread(error).into()),
            };
            (first, second)
        });
        first?;
        let second = second?;
        if second.len() > 0 {
            self.take_waiting();
            self.nodes.append(second);
        }
        Ok(())
    }

    fn takes_thread(&self) -> bool {
        let less = |spare: usize| spare.checked_sub(1);
        self.spare
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    fn check_reserved(&self, relative: &[u8], entry: &SourceEntry) -> Result<(), CopyError> {
        let name = split(relative).map_or(relative, |(_, name)| name);
        let problem = if name.starts_with(b".wh.") {
            "its name starts with `.wh.`"
        } else if entry.kind == SourceKind::CharDevice(0, 0) {
            "it is a character device 0/0"
        } else {
            return Ok(());
        };
        Err(CopyError::Reserved {
            path: shown(&join(self.root, relative)),
            problem,
        })
    }
}

/// Finds the digests of all files, each kept where the file's entry is: there may be very many.
fn hash(tree: &dyn SourceTree, picks: &mut [Pick], threads: usize) -> Result<(), CopyError> {
    let hash = |(root, file): &mut (&[u8], Unread<'_>)| {
        let hashed = tree.digest(&join(root, file.relative), &file.entry())?;
        file.set_hashed(hashed);
        Ok(())
    };
    let mut files = Vec::new();
    for pick in picks {
        let root = pick.path.as_slice();
        for file in pick.nodes.unread() {
            files.push((root, file));
            if files.len() == HASHED_AT_ONCE {
                in_parallel(&mut files, threads, hash)?;
                files.clear();
            }
        }
    }
    in_parallel(&mut files, threads, hash)
}
