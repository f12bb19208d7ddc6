//! Reads a layer blob as a tar, whatever it was compressed with: told by its first bytes, not by its media type, as
//! other tools do.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::Codec;

/// Read at once from the blob.
const BUFFER: usize = 256 * 1024;

/// How many parts of [`BUFFER`] bytes may wait for the reader of [`decompress_ahead`].
const PARTS_AHEAD: usize = 4;

/// What a blob is compressed with, told by its first bytes. Levels are the usual ones: they cannot be told.
pub fn sniff(start: &[u8]) -> Codec {
    match start {
        [0x1f, 0x8b, 8, ..] => Codec::GZIP,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::ZSTD,
        // A zstd skippable frame (RFC 8878, 3.1.2), as zstd:chunked and eStargz-like blobs may begin.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::ZSTD,
        _ => Codec::None,
    }
}

/// The uncompressed bytes of a blob. All members of a gzip and all frames of a zstd blob are read.
pub fn decompress<'a>(blob: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut buffered = BufReader::with_capacity(BUFFER, Filled { inner: blob });
    let codec = sniff(buffered.fill_buf()?);
    Ok(match codec {
        Codec::None => Box::new(buffered),
        Codec::Gzip(_) => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Codec::Zstd(_) => Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?),
    })
}

/// As [`decompress`], on a thread of its own, a little ahead of the reader.
pub fn decompress_ahead(blob: impl Read + Send + 'static) -> io::Result<impl Read + Send> {
    let (sender, receiver) = sync_channel(PARTS_AHEAD);
    let (back, used) = sync_channel(PARTS_AHEAD + 2);
    let thread = std::thread::Builder::new()
        .name("decompress".to_owned())
        .spawn(move || {
            let told = match decompress(blob) {
                Ok(plain) => read_parts(plain, &sender, &used),
                Err(error) => Err(error),
            };
            // Who has gone does not need to know.
            sender.send(told.map(|()| Vec::new())).ok();
        })?;
    Ok(ReadAhead {
        receiver: Some(receiver),
        back,
        part: Vec::new(),
        at: 0,
        is_over: false,
        thread: Some(thread),
    })
}

/// Sends what a reader gives in parts, until it ends or nobody wants more.
fn read_parts(
    mut plain: impl Read,
    sender: &SyncSender<io::Result<Vec<u8>>>,
    used: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut part = used.try_recv().unwrap_or_default();
        part.resize(BUFFER, 0);
        let mut filled = 0;
        while filled < BUFFER {
            match plain.read(&mut part[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        part.truncate(filled);
        if filled == 0 || sender.send(Ok(part)).is_err() {
            return Ok(());
        }
    }
}

/// Reads what a thread has read ahead.
struct ReadAhead {
    /// Parts in order, an empty one at the end; `None` once nothing is wanted any more.
    receiver: Option<Receiver<io::Result<Vec<u8>>>>,
    /// Takes parts that were read, to be used again.
    back: SyncSender<Vec<u8>>,
    part: Vec<u8>,
    /// How much of the part was read.
    at: usize,
    is_over: bool,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Takes the next part; an empty one at the end, and after an error.
    fn next_part(&mut self) -> io::Result<()> {
        self.at = 0;
        self.back.try_send(std::mem::take(&mut self.part)).ok();
        let next = self.receiver.as_ref().map(Receiver::recv);
        match next {
            Some(Ok(Ok(part))) => {
                self.is_over = part.is_empty();
                self.part = part;
                Ok(())
            }
            Some(Ok(Err(error))) => {
                self.is_over = true;
                Err(error)
            }
            // It panicked.
            Some(Err(_)) | None => {
                self.is_over = true;
                Err(io::Error::other("the thread that decompresses has ended"))
            }
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.part.len() && !self.is_over {
            self.next_part()?;
        }
        let count = buffer.len().min(self.part.len() - self.at);
        buffer[..count].copy_from_slice(&self.part[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // What it still wants to send has nowhere to go: it ends.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // That it panicked was told by what it sent, or rather did not send.
            thread.join().ok();
        }
    }
}

/// Reads as much as asked for, unless the input ends: a short first read must not hide the magic bytes.
struct Filled<R> {
    inner: R,
}

impl<R: Read> Read for Filled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len().min(4) {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
