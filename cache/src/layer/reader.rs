//! Reads a tar member by member: ustar, PAX, GNU and v7 headers.
//!
//! Our own, because the tar crate misreads PAX values that hold a newline (see `pax`) and buffers extension headers of
//! any size. Follows Go's archive/tar, which other builders use, so that an archive means the same here as there; what
//! readers are known to disagree on (content of entries that have none, sparse files in layers) is an error.
//!
//! Memory is bounded: extension headers above 1 MiB are refused, content is streamed.

use std::io::{self, Read};

use super::error::{LayerError, TarProblem};
use super::sparse::{Layout, Part, Records, SparseFile, add_entries, field, read_map};
use super::{numeric, pax};

const BLOCK: usize = 512;

/// No real extension header comes near: names end at 4 KiB and attributes at 64 KiB.
const MOST_EXTENSION: u64 = 1 << 20;

/// Reads members; as [`Read`], the content of the current one.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    offset: u64,
    content: u64,
    padding: u64,
    takes_sparse: bool,
    sparse: Option<SparseFile>,
}

/// A member of a tar, but for its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The path as written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner; out of `u32`'s range in hostile archives.
    pub uid: i64,
    /// Group, likewise.
    pub gid: i64,
    /// Whole seconds since the Unix epoch.
    pub mtime: i64,
    /// Size of the content in bytes, with holes; 0 for all but files.
    pub size: u64,
    /// The value of `security.capability` as written.
    pub capability: Option<Vec<u8>>,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file.
    File,
    /// A hard link to the path given.
    HardLink(Vec<u8>),
    /// A symbolic link with its text.
    Symlink(Vec<u8>),
    /// A character device: major, minor.
    CharDevice(i64, i64),
    /// A block device: major, minor.
    BlockDevice(i64, i64),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// What extension headers say about the next member.
#[derive(Debug, Default)]
struct Extensions {
    pax: Vec<u8>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// The records of a PAX header that we use.
#[derive(Debug, Default)]
struct Overrides<'a> {
    path: Option<&'a [u8]>,
    link: Option<&'a [u8]>,
    size: Option<i64>,
    uid: Option<i64>,
    gid: Option<i64>,
    mtime: Option<i64>,
    capability: Option<&'a [u8]>,
    sparse: Records<'a>,
}

impl<R: Read> TarReader<R> {
    /// Reads from the start of an uncompressed tar. The input should be buffered (256 KiB or so).
    pub fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            content: 0,
            padding: 0,
            takes_sparse: false,
            sparse: None,
        }
    }

    /// Takes sparse files, too: their content has its holes as zeros.
    #[must_use]
    pub fn with_sparse_files(self) -> Self {
        Self {
            takes_sparse: true,
            ..self
        }
    }

    /// The next member, or `None` at the end. Skips what was not read of the last one's content.
    ///
    /// # Errors
    ///
    /// [`LayerError::Tar`] for malformed input, [`LayerError::Read`] if the input cannot be read.
    pub fn next_member(&mut self) -> Result<Option<Member>, LayerError> {
        let mut extensions = Extensions::default();
        let mut is_extended = false;
        loop {
            self.skip()?;
            let start = self.offset;
            let malformed = |problem| LayerError::Tar {
                offset: start,
                problem,
            };
            let Some(header) = self.header()? else {
                return if is_extended {
                    Err(malformed(TarProblem::Dangling))
                } else {
                    Ok(None)
                };
            };
            match header.kind() {
                b'x' => extensions.pax = self.extension(&header)?,
                b'L' => extensions.long_name = Some(self.extension(&header)?),
                b'K' => extensions.long_link = Some(self.extension(&header)?),
                b'g' => {
                    self.extension(&header)?;
                    continue;
                }
                _ => {
                    let overrides = Overrides::parse(&extensions.pax).map_err(malformed)?;
                    let member = header.member(&extensions, &overrides).map_err(malformed)?;
                    let layout = self.layout(&header, &overrides.sparse);
                    self.set_content(member.size);
                    let stored = layout.and_then(|layout| self.with_holes(member, layout));
                    return stored.map(Some).map_err(|error| match error.downcast() {
                        Ok(problem) => malformed(problem),
                        Err(error) => read_error(start)(error),
                    });
                }
            }
            is_extended = true;
        }
    }

    /// Reads the input to its end, so that a reader below that hashes or counts has seen everything.
    pub fn finish(self) -> Result<(), LayerError> {
        self.finish_within(u64::MAX)
    }

    /// As [`Self::finish`], but reads at most so many bytes: where the input is not trusted.
    pub fn finish_within(self, bytes: u64) -> Result<(), LayerError> {
        io::copy(&mut self.input.take(bytes), &mut io::sink()).map_err(LayerError::Read)?;
        Ok(())
    }

    /// How a member is stored, if it is a sparse file. What continues its header has been read.
    fn layout(&mut self, header: &Header, records: &Records<'_>) -> io::Result<Option<Layout>> {
        if header.kind() != b'S' {
            return records.layout().map_err(io::Error::other);
        }
        let mut map = Vec::new();
        let fields = header.sparse_fields().map_err(io::Error::other)?;
        let mut goes_on = add_entries(fields, &mut map).map_err(io::Error::other)?;
        let mut left = MOST_EXTENSION;
        while goes_on {
            left = left
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| io::Error::other(TarProblem::Extension))?;
            let mut block = [0; BLOCK];
            self.input.read_exact(&mut block)?;
            self.offset += BLOCK as u64;
            goes_on = add_entries(&block[..505], &mut map).map_err(io::Error::other)?;
        }
        let size = Some(field(&header.0[483..495]).map_err(io::Error::other)?);
        Ok(Some(Layout {
            size,
            map: Some(map),
        }))
    }

    /// The member as it is with its holes, if it has a layout.
    fn with_holes(&mut self, member: Member, layout: Option<Layout>) -> io::Result<Member> {
        let Some(layout) = layout else {
            return Ok(member);
        };
        if !self.takes_sparse || member.kind != MemberKind::File {
            return Err(io::Error::other(TarProblem::Sparse));
        }
        let map = match layout.map {
            Some(map) => map,
            None => read_map(self)?,
        };
        let size = layout.size.unwrap_or(member.size);
        let file = SparseFile::new(size, map, self.content).map_err(io::Error::other)?;
        self.sparse = Some(file);
        Ok(Member { size, ..member })
    }

    fn set_content(&mut self, size: u64) {
        self.content = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), LayerError> {
        let rest = self.content.saturating_add(self.padding);
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())
            .map_err(LayerError::Read)?;
        if skipped < rest {
            return Err(LayerError::Tar {
                offset: self.offset,
                problem: TarProblem::Truncated,
            });
        }
        self.offset += skipped;
        (self.content, self.padding, self.sparse) = (0, 0, None);
        Ok(())
    }

    /// The next header; `None` at a zero block or at the end of the input.
    fn header(&mut self) -> Result<Option<Header>, LayerError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => {
                    return Err(LayerError::Tar {
                        offset: self.offset,
                        problem: TarProblem::Truncated,
                    });
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header(block);
        if !header.has_valid_checksum() {
            return Err(LayerError::Tar {
                offset: self.offset,
                problem: TarProblem::Checksum,
            });
        }
        self.offset += BLOCK as u64;
        Ok(Some(header))
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, LayerError> {
        let offset = self.offset;
        let malformed = |problem| LayerError::Tar { offset, problem };
        let size = header.size().map_err(malformed)?;
        if size > MOST_EXTENSION {
            return Err(malformed(TarProblem::Extension));
        }
        self.set_content(size);
        let mut data = Vec::new();
        self.read_to_end(&mut data).map_err(read_error(offset))?;
        Ok(data)
    }
}

/// Tells an input that ended too early from one that could not be read.
pub(crate) fn read_error(offset: u64) -> impl Fn(io::Error) -> LayerError {
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof => LayerError::Tar {
            offset,
            problem: TarProblem::Truncated,
        },
        _ => LayerError::Read(error),
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.sparse.as_mut().map(|file| file.next(buffer.len()));
        let count = match part {
            None => return self.read_stored(buffer),
            Some(Part::Stored(most)) => self.read_stored(&mut buffer[..most])?,
            Some(Part::Hole(count)) => {
                buffer[..count].fill(0);
                count
            }
        };
        if let Some(file) = &mut self.sparse {
            file.advance(count);
        }
        Ok(count)
    }
}

impl<R: Read> TarReader<R> {
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.content)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn has_valid_checksum(&self) -> bool {
        let Some(wanted) = numeric::parse(&self.0[148..156]) else {
            return false;
        };
        let byte = |(at, byte): (usize, &u8)| {
            if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            }
        };
        let unsigned: i64 = self.0.iter().enumerate().map(byte).map(i64::from).sum();
        // Some old writers added signed characters.
        let signed: i64 = self
            .0
            .iter()
            .enumerate()
            .map(byte)
            .map(|b| i64::from(b.cast_signed()))
            .sum();
        wanted == unsigned || wanted == signed
    }

    fn number(&self, field: std::ops::Range<usize>, name: &'static str) -> Result<i64, TarProblem> {
        numeric::parse(&self.0[field]).ok_or(TarProblem::Number(name))
    }

    fn size(&self) -> Result<u64, TarProblem> {
        let size = self.number(124..136, "size")?;
        u64::try_from(size).map_err(|_negative| TarProblem::Number("size"))
    }

    fn text(&self, field: std::ops::Range<usize>) -> &[u8] {
        let field = &self.0[field];
        let end = field
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(field.len());
        &field[..end]
    }

    /// Name with prefix. Only POSIX archives have a prefix; star's is shorter, GNU keeps times there.
    fn name(&self) -> Vec<u8> {
        let prefix = match (&self.0[257..263], &self.0[508..512]) {
            (b"ustar\0", b"tar\0") => self.text(345..476),
            (b"ustar\0", _) => self.text(345..500),
            (_, _) => b"",
        };
        let name = self.text(0..100);
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    /// The first extents of a sparse file in GNU's own format, and the mark that more follow.
    fn sparse_fields(&self) -> Result<&[u8], TarProblem> {
        match &self.0[257..265] {
            b"ustar  \0" => Ok(&self.0[386..483]),
            _ => Err(TarProblem::Sparse),
        }
    }

    fn device(&self) -> Result<(i64, i64), TarProblem> {
        Ok((
            self.number(329..337, "device major")?,
            self.number(337..345, "device minor")?,
        ))
    }

    fn member(
        &self,
        extensions: &Extensions,
        overrides: &Overrides<'_>,
    ) -> Result<Member, TarProblem> {
        let path = match (overrides.sparse.name, &extensions.long_name, overrides.path) {
            (None, Some(name), _) => until_nul(name).to_vec(),
            (Some(path), _, _) | (None, None, Some(path)) => path.to_vec(),
            (None, None, None) => self.name(),
        };
        let link = || match (&extensions.long_link, overrides.link) {
            (Some(link), _) => until_nul(link).to_vec(),
            (None, Some(link)) => link.to_vec(),
            (None, None) => self.text(157..257).to_vec(),
        };
        let kind = match self.kind() {
            b'0' | 0 | b'7' if path.ends_with(b"/") && self.kind() != b'7' => MemberKind::Directory,
            b'0' | 0 | b'7' | b'S' => MemberKind::File,
            b'1' => MemberKind::HardLink(link()),
            b'2' => MemberKind::Symlink(link()),
            b'3' => self
                .device()
                .map(|(major, minor)| MemberKind::CharDevice(major, minor))?,
            b'4' => self
                .device()
                .map(|(major, minor)| MemberKind::BlockDevice(major, minor))?,
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            other => return Err(TarProblem::Type(other)),
        };
        let size = match overrides.size {
            Some(size) => u64::try_from(size).map_err(|_negative| TarProblem::Number("size"))?,
            None => self.size()?,
        };
        if size != 0 && kind != MemberKind::File {
            return Err(TarProblem::UnexpectedContent);
        }
        let or =
            |value: Option<i64>, field, name| value.map_or_else(|| self.number(field, name), Ok);
        let mode = self.number(100..108, "mode")? & 0o7777;
        Ok(Member {
            path,
            kind,
            mode: u32::try_from(mode).map_err(|_out_of_range| TarProblem::Number("mode"))?,
            uid: or(overrides.uid, 108..116, "uid")?,
            gid: or(overrides.gid, 116..124, "gid")?,
            mtime: or(overrides.mtime, 136..148, "mtime")?,
            size,
            capability: overrides.capability.map(<[u8]>::to_vec),
        })
    }
}

fn until_nul(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    &text[..end]
}

impl<'a> Overrides<'a> {
    fn parse(data: &'a [u8]) -> Result<Self, TarProblem> {
        let mut overrides = Self::default();
        for (key, value) in pax::parse(data).ok_or(TarProblem::Pax)? {
            // An empty value takes an earlier record back (POSIX pax, "Extended Header").
            let value = (!value.is_empty()).then_some(value);
            match key {
                b"path" => overrides.path = value,
                b"linkpath" => overrides.link = value,
                b"size" => overrides.size = value.map(|v| number(v, "size")).transpose()?,
                b"uid" => overrides.uid = value.map(|v| number(v, "uid")).transpose()?,
                b"gid" => overrides.gid = value.map(|v| number(v, "gid")).transpose()?,
                b"mtime" => {
                    let seconds = |v| pax::seconds(v).ok_or(TarProblem::Number("mtime"));
                    overrides.mtime = value.map(seconds).transpose()?;
                }
                b"SCHILY.xattr.security.capability" => overrides.capability = value,
                _ => overrides.sparse.take(key, value)?,
            }
        }
        Ok(overrides)
    }
}

fn number(value: &[u8], name: &'static str) -> Result<i64, TarProblem> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or(TarProblem::Number(name))
}
