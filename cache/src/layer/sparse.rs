//! Files of a tar that leave out their holes, in GNU's own format and in its formats for PAX: 0.0, 0.1 and 1.0 (GNU tar
//! manual, "Storing Sparse Files"), as Go's archive/tar reads them. A map that is not exactly what is stored is an error.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::error::TarProblem;
use super::numeric;

/// A map in the content comes in blocks of this size.
const BLOCK: usize = 512;

/// A stored map may be as large as one in a PAX header.
const MOST_MAP: usize = 1 << 20;

/// An extent in GNU's own format: offset and length.
const ENTRY: usize = 24;

/// Where stored bytes belong in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    offset: u64,
    length: u64,
}

/// What PAX records say about a sparse file.
#[derive(Debug, Default)]
pub(super) struct Records<'a> {
    major: Option<&'a [u8]>,
    minor: Option<&'a [u8]>,
    /// Its name: the member's own is another one, for readers that do not know the format.
    pub(super) name: Option<&'a [u8]>,
    size: Option<&'a [u8]>,
    real_size: Option<&'a [u8]>,
    blocks: Option<&'a [u8]>,
    map: Option<&'a [u8]>,
    /// Version 0.0: offset and length in turns, each in a record of its own.
    turns: Vec<&'a [u8]>,
}

/// How a file is stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Size of the file with its holes; `None`: the size of the content.
    pub(super) size: Option<u64>,
    /// `None`: the map is at the start of the content.
    pub(super) map: Option<Vec<Extent>>,
}

impl<'a> Records<'a> {
    /// Takes a record if it is about a sparse file; an empty value takes an earlier one back.
    pub(super) fn take(&mut self, key: &[u8], value: Option<&'a [u8]>) -> Result<(), TarProblem> {
        match key {
            b"GNU.sparse.major" => self.major = value,
            b"GNU.sparse.minor" => self.minor = value,
            b"GNU.sparse.name" => self.name = value,
            b"GNU.sparse.size" => self.size = value,
            b"GNU.sparse.realsize" => self.real_size = value,
            b"GNU.sparse.numblocks" => self.blocks = value,
            b"GNU.sparse.map" => self.map = value,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let is_its_turn = key.ends_with(b"offset") == self.turns.len().is_multiple_of(2);
                match value {
                    Some(value) if is_its_turn => self.turns.push(value),
                    _ => return Err(TarProblem::SparseMap),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What they say; `None` if it is no sparse file.
    pub(super) fn layout(&self) -> Result<Option<Layout>, TarProblem> {
        let is_map_stored = match (self.major, self.minor) {
            (Some(b"0"), Some(b"0" | b"1")) => false,
            (Some(b"1"), Some(b"0")) => true,
            (None, None) if self.map.is_some() || !self.turns.is_empty() => false,
            (None, None) => return Ok(None),
            _ => return Err(TarProblem::Sparse),
        };
        let size = self.size.or(self.real_size).map(number).transpose()?;
        let map = match is_map_stored {
            true => None,
            false => Some(self.map()?),
        };
        Ok(Some(Layout { size, map }))
    }

    /// The map of versions 0.0 and 0.1.
    fn map(&self) -> Result<Vec<Extent>, TarProblem> {
        let numbers = match self.map {
            Some(map) if self.turns.is_empty() => map.split(|byte| *byte == b',').collect(),
            _ => self.turns.clone(),
        };
        let map = extents(&numbers)?;
        let blocks = number(self.blocks.ok_or(TarProblem::SparseMap)?)?;
        match u64::try_from(map.len()) == Ok(blocks) {
            true => Ok(map),
            false => Err(TarProblem::SparseMap),
        }
    }
}

/// Reads the map of version 1.0 from the start of a content: lines with the number of extents, then offset and length of
/// each, filled up to whole blocks.
///
/// # Errors
///
/// Of the kind `InvalidData` with the problem inside if it is no map.
pub(super) fn read_map(content: &mut impl Read) -> io::Result<Vec<Extent>> {
    let mut text = Vec::new();
    let (mut lines, mut wanted) = (0, None);
    loop {
        if text.len() >= MOST_MAP {
            return Err(invalid(TarProblem::Extension));
        }
        let start = text.len();
        text.resize(start + BLOCK, 0);
        content.read_exact(&mut text[start..])?;
        lines += text[start..].iter().filter(|byte| **byte == b'\n').count();
        if wanted.is_none() && lines > 0 {
            wanted = Some(numbers_of(&text).map_err(invalid)?);
        }
        if let Some(wanted) = wanted.filter(|wanted| lines > *wanted) {
            let numbers = text.split(|byte| *byte == b'\n').skip(1).take(wanted);
            return extents(&numbers.collect::<Vec<_>>()).map_err(invalid);
        }
    }
}

/// Adds the extents of a header in GNU's own format; `fields` ends with the mark that another block of them follows, which
/// is the answer. The first one without an offset ends them.
pub(super) fn add_entries(fields: &[u8], map: &mut Vec<Extent>) -> Result<bool, TarProblem> {
    let (entries, mark) = fields.as_chunks::<ENTRY>();
    for entry in entries.iter().take_while(|entry| entry[0] != 0) {
        let (offset, length) = entry.split_at(ENTRY / 2);
        map.push(Extent {
            offset: field(offset)?,
            length: field(length)?,
        });
    }
    Ok(mark.iter().any(|byte| *byte != 0))
}

/// A number of a header that must not be negative.
pub(super) fn field(field: &[u8]) -> Result<u64, TarProblem> {
    let number = numeric::parse(field).and_then(|number| u64::try_from(number).ok());
    number.ok_or(TarProblem::SparseMap)
}

/// How many lines follow the first one, which tells the number of extents.
fn numbers_of(text: &[u8]) -> Result<usize, TarProblem> {
    let first = text.split(|byte| *byte == b'\n').next();
    let count = usize::try_from(number(first.unwrap_or_default())?).ok();
    count
        .and_then(|count| count.checked_mul(2))
        .ok_or(TarProblem::SparseMap)
}

fn invalid(problem: TarProblem) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn extents(numbers: &[&[u8]]) -> Result<Vec<Extent>, TarProblem> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(TarProblem::SparseMap);
    }
    let extent = |[offset, length]: &[&[u8]; 2]| {
        Ok(Extent {
            offset: number(offset)?,
            length: number(length)?,
        })
    };
    pairs.iter().map(extent).collect()
}

fn number(text: &[u8]) -> Result<u64, TarProblem> {
    let text = std::str::from_utf8(text).ok();
    let number = text.and_then(|text| text.parse::<i64>().ok());
    number
        .and_then(|number| u64::try_from(number).ok())
        .ok_or(TarProblem::SparseMap)
}

/// A sparse file on its way.
#[derive(Debug)]
pub(super) struct SparseFile {
    size: u64,
    position: u64,
    /// What is stored at or behind the position.
    map: VecDeque<Extent>,
}

/// What comes next: so many bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Hole(usize),
    Stored(usize),
}

impl SparseFile {
    /// A file of `size` bytes, of which `stored` follow, as the map tells.
    pub(super) fn new(size: u64, map: Vec<Extent>, stored: u64) -> Result<Self, TarProblem> {
        let (mut end, mut sum) = (0, 0);
        for extent in &map {
            let next = extent.offset.checked_add(extent.length);
            end = next
                .filter(|next| extent.offset >= end && *next <= size)
                .ok_or(TarProblem::SparseMap)?;
            sum += extent.length;
        }
        if sum != stored {
            return Err(TarProblem::SparseMap);
        }
        Ok(Self {
            size,
            position: 0,
            map: map.into(),
        })
    }

    /// What comes next, at most `most` bytes; none at the end.
    pub(super) fn next(&mut self, most: usize) -> Part {
        while self
            .map
            .front()
            .is_some_and(|extent| extent.offset + extent.length <= self.position)
        {
            self.map.pop_front();
        }
        let up_to = |end: u64| usize::try_from(end - self.position).map_or(most, |n| n.min(most));
        match self.map.front() {
            Some(extent) if extent.offset <= self.position => {
                Part::Stored(up_to(extent.offset + extent.length))
            }
            Some(extent) => Part::Hole(up_to(extent.offset)),
            None => Part::Hole(up_to(self.size)),
        }
    }

    /// So many bytes have been read.
    pub(super) fn advance(&mut self, count: usize) {
        self.position += count as u64;
    }
}
