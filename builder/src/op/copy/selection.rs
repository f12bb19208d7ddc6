//! What an op's actions mean, as a value: its key and its explanation.

use std::collections::BTreeMap;

use cache::digest::CacheKey;
use cache::key::builder::{KeyBuilder, Part};
use frontend::graph::{Chmod, InputIndex, Owner};

use super::chmod::ModeChange;
use super::error::shown;
use super::hashed_list::HashedList;
use super::nodes::{Node, Nodes};
use super::resolve::join;
use super::source::{LinkIdentity, SourceKind};

/// Parts of an explanation: beyond this many files, they are told by the first name below each source.
const EXPLAINED_FILES: usize = 200;

/// The files that the actions of an op mean.
#[derive(Clone, Debug)]
pub struct Selection {
    pub(super) actions: Vec<SelectedAction>,
}

/// One action with its files.
#[derive(Clone, Debug)]
pub(super) enum SelectedAction {
    Mkdir {
        path: String,
        mode: u32,
        owner: Option<Owner>,
    },
    Mkfile {
        path: String,
        mode: u32,
        data: Vec<u8>,
    },
    Copy(SelectedCopy),
}

/// A COPY or ADD with its files.
#[derive(Clone, Debug)]
pub(super) struct SelectedCopy {
    pub(super) input: Option<InputIndex>,
    pub(super) destination: String,
    pub(super) owner: Option<Owner>,
    pub(super) chmod: Option<Chmod>,
    pub(super) mode: Option<ModeChange>,
    pub(super) keeps_parents: bool,
    pub(super) keeps_owner: bool,
    pub(super) picks: Vec<Pick>,
}

/// One source, or one match of a wildcard.
#[derive(Clone, Debug)]
pub(super) struct Pick {
    /// The name it was found by.
    pub(super) name: Vec<u8>,
    /// Where it is, links followed.
    pub(super) path: Vec<u8>,
    /// Whether it is copied or unpacked.
    pub(super) treatment: Treatment,
    /// It and everything selected below it, depth first by name bytes.
    pub(super) nodes: Nodes,
}

/// What happens to a pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    Copied,
    Unpacked,
}

/// Why a node was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It matches.
    Meant,
    /// It is a directory on the way to something that matches.
    OnTheWay,
}

impl Selection {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let copies = self.actions.iter().filter_map(|action| match action {
            SelectedAction::Copy(copy) => Some(copy),
            SelectedAction::Mkdir { .. } | SelectedAction::Mkfile { .. } => None,
        });
        let picks = copies.flat_map(|copy| &copy.picks);
        picks.map(|pick| pick.nodes.bytes()).sum()
    }

    /// Identifies what was asked for: the actions and the content of the files, not where either came from. Two
    /// selections of one key give one plan on one base.
    pub fn key(&self) -> CacheKey {
        let mut key = KeyBuilder::new("file selection");
        for action in &self.actions {
            match action {
                SelectedAction::Mkdir { path, mode, owner } => {
                    key.text("mkdir", path).number("mode", (*mode).into());
                    add_owner(&mut key, owner.as_ref());
                }
                SelectedAction::Mkfile { path, mode, data } => {
                    key.text("mkfile", path)
                        .number("mode", (*mode).into())
                        .bytes("data", data);
                }
                SelectedAction::Copy(copy) => {
                    add_options(&mut key, copy);
                    for pick in &copy.picks {
                        let mut links = BTreeMap::new();
                        let mut content = HashedList::default();
                        for (at, node) in pick.nodes.iter().enumerate() {
                            content.add(|bytes| encode(&node, at, &mut links, bytes));
                        }
                        key.bytes("source", &pick.name)
                            .number("unpacked", (pick.treatment == Treatment::Unpacked).into())
                            .bytes("content", content.finish().as_bytes());
                    }
                }
            }
        }
        key.finish()
    }

    /// The files in a form a person can read, to tell later which of them changed.
    pub fn files(&self) -> Vec<Part> {
        let mut files = Vec::new();
        for action in &self.actions {
            match action {
                SelectedAction::Mkdir { .. } | SelectedAction::Mkfile { .. } => {}
                SelectedAction::Copy(copy) => {
                    copy.picks.iter().for_each(|pick| explain(pick, &mut files));
                }
            }
        }
        files
    }
}

/// One part a file (type, mode, owner, digest), or one for each first name below a large source.
fn explain(pick: &Pick, parts: &mut Vec<Part>) {
    if pick.nodes.len() > EXPLAINED_FILES {
        return explain_groups(pick, parts);
    }
    let mut links = BTreeMap::new();
    for (at, node) in pick.nodes.iter().enumerate() {
        let first = match &node.entry.link {
            Some(identity) => *links.entry(identity.clone()).or_insert(at),
            None => at,
        };
        let first = pick.nodes.iter().nth(first).filter(|_| first != at);
        // A directory whose files changed has not.
        parts.push(Part {
            name: format!("file {}", shown(&join(&pick.path, node.relative))),
            value: match first {
                Some(first) => format!("{} {}", described(&node), shown(first.relative)),
                None => described(&node),
            },
        });
    }
}

fn explain_groups(pick: &Pick, parts: &mut Vec<Part>) {
    let mut links = BTreeMap::new();
    let mut nodes = pick.nodes.iter().enumerate().peekable();
    while let Some((_, first)) = nodes.peek() {
        let name = first_name(first).to_vec();
        let mut group = HashedList::default();
        while let Some((at, node)) = nodes.next_if(|(_, node)| first_name(node) == name) {
            group.add(|bytes| encode(&node, at, &mut links, bytes));
        }
        parts.push(Part {
            name: format!("file {}", shown(&join(&pick.path, &name))),
            value: cache::digest::hex(&group.finish().as_bytes()[..8]),
        });
    }
}

/// The first name of a node's path below its pick.
fn first_name<'a>(node: &Node<'a>) -> &'a [u8] {
    let mut names = node.relative.split(|byte| *byte == b'/');
    names.next().unwrap_or_default()
}

/// Type, mode, owner and digest of a node, separated by blanks.
fn described(node: &Node<'_>) -> String {
    let entry = &node.entry;
    let digest = |bytes: &[u8]| cache::digest::hex(&blake3::hash(bytes).as_bytes()[..8]);
    let (kind, content) = match &entry.kind {
        SourceKind::Directory => ("directory", String::new()),
        SourceKind::File { content, .. } => {
            let content = content.as_ref().map_or(&[][..], |content| &content.0[..8]);
            ("file", cache::digest::hex(content))
        }
        SourceKind::Symlink(target) => ("link", digest(target)),
        SourceKind::CharDevice(..) | SourceKind::BlockDevice(..) => ("device", String::new()),
        SourceKind::Fifo => ("pipe", String::new()),
        SourceKind::Socket => ("socket", String::new()),
    };
    let (mode, uid, gid) = (entry.mode, entry.uid, entry.gid);
    format!("{kind} {mode:04o} {uid}:{gid} {content}")
}

fn add_options(key: &mut KeyBuilder, copy: &SelectedCopy) {
    key.text("copy", &copy.destination);
    add_owner(key, copy.owner.as_ref());
    match &copy.chmod {
        None => key.absent("--chmod"),
        Some(Chmod::Octal(mode)) => key.number("--chmod", (*mode).into()),
        Some(Chmod::Symbolic(text)) => key.text("--chmod", text),
    };
    key.number("--parents", copy.keeps_parents.into())
        .number("keeps owner", copy.keeps_owner.into());
}

fn add_owner(key: &mut KeyBuilder, owner: Option<&Owner>) {
    let Some(owner) = owner else {
        key.absent("--chown");
        return;
    };
    key.text("--chown", &owner.user);
    match &owner.group {
        Some(group) => key.text("group", group),
        None => key.absent("group"),
    };
}

/// Everything of a node that may reach a layer but times: in a fixed form, lengths in front.
fn encode(
    node: &Node<'_>,
    at: usize,
    links: &mut BTreeMap<LinkIdentity, usize>,
    out: &mut Vec<u8>,
) {
    let mut framed = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    let entry = &node.entry;
    framed(node.relative);
    let device = |major: u32, minor: u32| [major.to_le_bytes(), minor.to_le_bytes()].concat();
    let (tag, detail): (u8, Vec<u8>) = match &entry.kind {
        SourceKind::Directory => (b'd', Vec::new()),
        SourceKind::File { content, .. } => {
            let content = content.map(|content| content.0.to_vec());
            (b'f', content.unwrap_or_default())
        }
        SourceKind::Symlink(target) => (b'l', target.clone()),
        SourceKind::CharDevice(major, minor) => (b'c', device(*major, *minor)),
        SourceKind::BlockDevice(major, minor) => (b'b', device(*major, *minor)),
        SourceKind::Fifo => (b'p', Vec::new()),
        SourceKind::Socket => (b's', Vec::new()),
    };
    framed(&[tag]);
    framed(&detail);
    let numbers = [
        entry.mode,
        entry.uid,
        entry.gid,
        u32::from(node.reason == Reason::OnTheWay),
    ];
    framed(&numbers.map(u32::to_le_bytes).concat());
    framed(entry.capability.as_deref().unwrap_or_default());
    // A link is told by the first of its names here; a file without others is its own first.
    let first = match &entry.link {
        Some(identity) => *links.entry(identity.clone()).or_insert(at),
        None => at,
    };
    framed(&(first as u64).to_le_bytes());
}
