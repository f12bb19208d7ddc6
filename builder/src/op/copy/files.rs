//! The order in which a plan's files are written: on several threads, and shown in the layer's order meanwhile.
//!
//! Whoever packs the layer gets each file when it is written, the bytes with it where they are still in memory, and so need
//! not read the tree again. What may wait to be packed is bounded, and with it the memory.

use std::io;
use std::ops::Range;

use cache::layer::entry::{Entry, EntryKind};
use cache::layer::error::LayerError;
use cache::layer::pack::AtHand;

use super::error::CopyError;
use super::plan::{Bytes, CopyPlan};
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
type WrittenFile<'p> = (&'p Entry, Option<Vec<u8>>);

/// The nodes of the plan in blocks, one for each turn of a thread, and how many files of their own they have.
fn blocks(plan: &CopyPlan) -> (Vec<Range<usize>>, usize) {
    let (mut blocks, mut count): (Vec<Range<usize>>, _) = (Vec::new(), 0);
    let (mut files_left, mut bytes_left) = (0, 0);
    for (at, (entry, bytes)) in plan.nodes().enumerate() {
        let EntryKind::File { size, .. } = entry.kind else {
            continue;
        };
        if !is_own_file(bytes) {
            continue;
        }
        count += 1;
        match blocks.last_mut() {
            Some(block) if files_left > 0 && size <= bytes_left => {
                files_left -= 1;
                bytes_left -= size;
                block.end = at + 1;
            }
            Some(_) | None => {
                files_left = BLOCK_FILES - 1;
                bytes_left = BLOCK_BYTES.saturating_sub(size);
                blocks.push(at..at + 1);
            }
        }
    }
    (blocks, count)
}

/// Whether a file has bytes of its own, outside of archives.
fn is_own_file(bytes: Option<&Bytes>) -> bool {
    match bytes {
        Some(Bytes::Inline(_) | Bytes::Source { .. }) => true,
        Some(Bytes::Archive { .. }) | None => false,
    }
}

/// Writes the files with bytes of their own by `write`, which gives the bytes it has at hand, while `see` asks for them. What
/// is not asked for is not written.
pub(super) fn write<T, E: From<CopyError>>(
    plan: &CopyPlan,
    threads: usize,
    write: impl Fn(&Entry, &Bytes) -> Result<Option<Vec<u8>>, CopyError> + Sync,
    see: impl FnOnce(AtHand<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let (blocks, count) = blocks(plan);
    let how = Ahead {
        threads: match count {
            ..WORTH_A_THREAD => 0,
            _ => threads,
        },
        most: BLOCKS_AHEAD,
    };
    let write_block = |block: &Range<usize>| {
        let nodes = plan.nodes_in(block.clone());
        let own = nodes.filter(|(_, bytes)| is_own_file(*bytes));
        let written = own.filter_map(|(entry, bytes)| {
            Some(write(entry, bytes?).map(|at_hand| (entry, at_hand)))
        });
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
