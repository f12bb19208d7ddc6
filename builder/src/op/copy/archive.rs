//! Local archives of ADD: told by content, and read member by member.
//!
//! A tar, plain or compressed with gzip, bzip2, xz or zstd. What has no member that can be read is no archive and copied as it is.
//!
//! Not here: where members go ([`super::unpacking`]).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use bzip2::bufread::BzDecoder;
use cache::layer::compress::Codec;
use cache::layer::compress::decompress::sniff;
use cache::layer::error::{LayerError, TarProblem};
use cache::layer::reader::TarReader;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::error::CopyError;
use super::selection::Pick;
use super::source::{SourceKind, SourceTree};

/// What a plan may hold in memory, some two million members; up to twice that while its lists grow.
pub(super) const MAX_HELD_BYTES: usize = 384 << 20;

/// What decoding xz may take: the dictionary of `xz -9` has 64 MiB, the largest of all 4 GiB.
const MAX_XZ_BYTES: u64 = 260 << 20;

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It ends too early.
    #[error("unexpected EOF")]
    Truncated,
    /// It is malformed.
    #[error(transparent)]
    Malformed(LayerError),
    /// It could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// A hard link to nothing.
    #[error("link {target} {path}: no such file or directory")]
    LinkTarget {
        /// What it links to, in the destination.
        target: String,
        /// The link, in the destination.
        path: String,
    },
    /// It holds no members.
    #[error("it is no tar with members, plain or compressed")]
    Empty,
    /// It unpacks to more than there is room for.
    #[error("it unpacks to more bytes than the file system of the store has free")]
    TooLarge,
    /// It has more members, or longer names, than can be kept in mind.
    #[error("its names take more than {} MiB", MAX_HELD_BYTES >> 20)]
    TooMany,
    /// It cannot be decompressed in the memory that there is for it.
    #[error(
        "it is compressed with an xz dictionary of more than 256 MiB; compress it with a smaller one, such as that of `xz -9`"
    )]
    Dictionary,
    /// A hard link to something of the base that is no file.
    #[error("not supported yet: the hard link {path} to {target}, which is no file of the archive")]
    LinkToBase {
        /// What it links to, in the destination.
        target: String,
        /// The link, in the destination.
        path: String,
    },
    /// A member that layers cannot have.
    #[error("member {path}: {problem}")]
    Member {
        /// Which.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl From<LayerError> for ArchiveError {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Tar {
                problem: TarProblem::Truncated,
                ..
            } => Self::Truncated,
            LayerError::Read(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Truncated
            }
            LayerError::Read(source) if is_memory_limit(&source) => Self::Dictionary,
            LayerError::Read(source) => Self::Read(source),
            other => Self::Malformed(other),
        }
    }
}

/// Whether decoding xz would have taken more than [`MAX_XZ_BYTES`].
fn is_memory_limit(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(liblzma::stream::Error::MemLimit))
}

/// An archive opened for reading its members.
pub(super) type Members = TarReader<Box<dyn Read>>;

/// Opens an archive.
pub(super) fn open(mut file: File) -> Result<Members, ArchiveError> {
    let mut magic = Vec::with_capacity(6);
    (&file)
        .take(6)
        .read_to_end(&mut magic)
        .and_then(|_| file.seek(SeekFrom::Start(0)))
        .map_err(ArchiveError::Read)?;
    let input = BufReader::with_capacity(256 * 1024, file);
    let plain: Box<dyn Read> = match (sniff(&magic), magic.as_slice()) {
        (Codec::Gzip(_), _) => Box::new(Streams::<GzDecoder<_>>::begin(input)),
        (Codec::Zstd(_), _) => {
            let decoder = zstd::Decoder::with_buffer(input).map_err(ArchiveError::Read)?;
            Box::new(decoder)
        }
        (Codec::None, [b'B', b'Z', b'h', ..]) => Box::new(Streams::<BzDecoder<_>>::begin(input)),
        (Codec::None, [0xfd, b'7', b'z', b'X', b'Z', 0]) => Box::new(xz(input)?),
        (Codec::None, _) => Box::new(input),
    };
    Ok(TarReader::new(plain).with_sparse_files())
}

/// A decoder of one stream of a file.
trait StreamDecoder: Read + Sized {
    /// What a stream begins with.
    const MAGIC: &'static [u8];

    fn begin(input: BufReader<File>) -> Self;

    /// The input behind the stream, which was read to its end.
    fn end(self) -> BufReader<File>;
}

impl StreamDecoder for GzDecoder<BufReader<File>> {
    const MAGIC: &'static [u8] = &[0x1f, 0x8b];

    fn begin(input: BufReader<File>) -> Self {
        Self::new(input)
    }

    fn end(self) -> BufReader<File> {
        self.into_inner()
    }
}

impl StreamDecoder for BzDecoder<BufReader<File>> {
    const MAGIC: &'static [u8] = b"BZh";

    fn begin(input: BufReader<File>) -> Self {
        Self::new(input)
    }

    fn end(self) -> BufReader<File> {
        self.into_inner()
    }
}

/// A compressed file, one stream after the other as gzip(1) and bzip2(1) read them: what follows them and is none (zeros of
/// a tape, a signature) is passed over.
struct Streams<D>(Option<D>);

impl<D: StreamDecoder> Streams<D> {
    fn begin(input: BufReader<File>) -> Self {
        Self(Some(D::begin(input)))
    }

    /// The decoder of the stream that comes next, if one does.
    fn next(mut input: BufReader<File>) -> io::Result<Option<D>> {
        let start = input.stream_position()?;
        let mut magic = Vec::with_capacity(D::MAGIC.len());
        let longest = u64::try_from(D::MAGIC.len()).unwrap_or(u64::MAX);
        input.by_ref().take(longest).read_to_end(&mut magic)?;
        if magic != D::MAGIC {
            return Ok(None);
        }
        let end = input.stream_position()?;
        input.seek_relative(start.cast_signed() - end.cast_signed())?;
        Ok(Some(D::begin(input)))
    }
}

impl<D: StreamDecoder> Read for Streams<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            if let Some(ended) = self.0.take() {
                self.0 = Self::next(ended.end())?;
            }
        }
        Ok(0)
    }
}

/// A decoder of xz, one stream after the other as `xz -d` reads them. It takes its dictionary's size from the data.
fn xz(input: BufReader<File>) -> Result<XzDecoder<BufReader<File>>, ArchiveError> {
    let stream = Stream::new_stream_decoder(MAX_XZ_BYTES, CONCATENATED);
    let stream = stream.map_err(|error| ArchiveError::Read(error.into()))?;
    Ok(XzDecoder::new_stream(input, stream))
}

/// Tells why a file is no archive, if it is none.
pub(crate) fn check(file: File) -> Result<(), ArchiveError> {
    match open(file)?.next_member()? {
        Some(_) => Ok(()),
        None => Err(ArchiveError::Empty),
    }
}

/// Whether a file is an archive: its first member can be read, or is one that BuildKit takes and we do not.
pub(crate) fn has_members(file: File) -> bool {
    match check(file) {
        Ok(()) => true,
        Err(ArchiveError::Malformed(LayerError::Tar { problem, .. })) => matches!(
            problem,
            TarProblem::Sparse
                | TarProblem::SparseMap
                | TarProblem::Type(_)
                | TarProblem::UnexpectedContent
        ),
        Err(ArchiveError::Dictionary) => true,
        Err(_) => false,
    }
}

/// Whether a picked source is an archive.
pub(super) fn is_archive(tree: &dyn SourceTree, pick: &Pick) -> Result<bool, CopyError> {
    let is_file = pick
        .nodes
        .first()
        .is_some_and(|node| matches!(node.entry.kind, SourceKind::File { .. }));
    if !is_file {
        return Ok(false);
    }
    Ok(has_members(tree.open(&pick.path)?))
}
