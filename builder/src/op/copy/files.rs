//! The order in which a plan's files are written: on several threads, and shown in the layer's order meanwhile.
//!
//! Whoever packs the layer gets each file when it is written, the bytes with it where they are still in memory, and so need
//! not read the tree again. What may wait to be packed is bounded, and with it the memory.

use std::io;

use cache::layer::error::LayerError;
use cache::layer::pack::AtHand;

use super::error::CopyError;
use super::plan::{Bytes, CopyPlan, PlannedEntry, PlannedKind};
use crate::parallel::{Ahead, ahead};

/// Files that are written by one thread in turn: neighbours, as they often lie in one directory, whose lock two threads
/// would fight for; fewer if they are big.
const BLOCK_FILES: usize = 64;
const BLOCK_BYTES: u64 = 1 << 20;

/// Blocks of which the bytes may wait in memory: 8 MiB at most.
const BLOCKS_AHEAD: usize = 8;

/// Fewer files than this are not worth a thread: starting one costs as much as copying ten small files.
const WORTH_A_THREAD: usize = 16;

/// A file that was written, and its bytes if they are at hand.
type WrittenFile<'p> = (&'p PlannedEntry, Option<Vec<u8>>);

/// Files of their own in the order of the plan, a block for each turn of a thread.
fn blocks(plan: &CopyPlan) -> Vec<Vec<&PlannedEntry>> {
    let mut blocks: Vec<Vec<&PlannedEntry>> = Vec::new();
    let mut left = 0;
    for entry in plan.entries.iter().filter(|entry| is_own_file(entry)) {
        let size = match &entry.kind {
            PlannedKind::File { size, .. } => *size,
            _ => 0,
        };
        match blocks.last_mut() {
            Some(block) if block.len() < BLOCK_FILES && size <= left => {
                left -= size;
                block.push(entry);
            }
            Some(_) | None => {
                left = BLOCK_BYTES.saturating_sub(size);
                blocks.push(vec![entry]);
            }
        }
    }
    blocks
}

/// Whether an entry is a file with bytes of its own, outside of archives.
fn is_own_file(entry: &PlannedEntry) -> bool {
    match &entry.kind {
        PlannedKind::File {
            link_to: None,
            bytes,
            ..
        } => !matches!(bytes, Bytes::Archive { .. }),
        PlannedKind::File {
            link_to: Some(_), ..
        }
        | PlannedKind::Directory
        | PlannedKind::Symlink(_)
        | PlannedKind::CharDevice(..)
        | PlannedKind::BlockDevice(..)
        | PlannedKind::Fifo => false,
    }
}

/// Writes the files with bytes of their own by `write`, which gives the bytes it has at hand, while `see` asks for them. What
/// is not asked for is not written.
pub(super) fn write<T, E: From<CopyError>>(
    plan: &CopyPlan,
    threads: usize,
    write: impl Fn(&PlannedEntry) -> Result<Option<Vec<u8>>, CopyError> + Sync,
    see: impl FnOnce(AtHand<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let blocks = blocks(plan);
    let count: usize = blocks.iter().map(Vec::len).sum();
    let how = Ahead {
        threads: match count {
            ..WORTH_A_THREAD => 0,
            _ => threads,
        },
        most: BLOCKS_AHEAD,
    };
    let write_block = |block: &Vec<_>| {
        let written = block.iter().map(|entry: &&_| Ok((*entry, write(entry)?)));
        written.collect::<Result<Vec<WrittenFile<'_>>, CopyError>>()
    };
    let mut failed = None;
    let seen = ahead(&blocks, how, write_block, |next| {
        let mut block = Vec::new().into_iter().peekable();
        see(&mut |entry| {
            if block.peek().is_none() {
                match next() {
                    Some(Ok(written)) => block = written.into_iter().peekable(),
                    Some(Err(error)) => {
                        failed = Some(error);
                        return Err(LayerError::Read(io::Error::other("a file is missing")));
                    }
                    None => {}
                }
            }
            // Others come from archives, and are in the tree already.
            let written = block.next_if(|(written, _)| written.path == entry.path);
            Ok(written.and_then(|(_, bytes)| bytes))
        })
    });
    match failed {
        Some(error) => Err(error.into()),
        None => seen,
    }
}
