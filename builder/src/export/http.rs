//! Just enough HTTP/1.1 to send a Docker daemon one body of unknown length over a socket and read its answer.
//!
//! Our registry client speaks HTTP over TCP and TLS; a daemon's socket is a file, its only request is this one, and its
//! body is produced by a blocking writer.

use std::io::{self, BufRead, Read, Write};

/// Longest head of a response that we read; Go's default is 1 MiB.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

/// Writes the head of a request with a chunked body.
pub(super) fn write_head(writer: &mut dyn Write, host: &str, path: &str) -> io::Result<()> {
    write!(
        writer,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: build\r\nContent-Type: application/x-tar\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
}

/// Frames what is written as chunks of a body.
pub(super) struct ChunkedWriter<W>(pub(super) W);

impl<W: Write> ChunkedWriter<W> {
    /// Ends the body.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.0.write_all(b"0\r\n\r\n")?;
        self.0.flush()
    }
}

impl<W: Write> Write for ChunkedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An empty chunk would end the body.
        if !bytes.is_empty() {
            write!(self.0, "{:x}\r\n", bytes.len())?;
            self.0.write_all(bytes)?;
            self.0.write_all(b"\r\n")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Reads a response: its status and a reader of its body. Interim responses are skipped.
pub(super) fn read_response<R: BufRead>(mut reader: R) -> io::Result<(u16, Body<R>)> {
    loop {
        let (status, is_chunked) = read_head(&mut reader)?;
        if status >= 200 {
            let left = if is_chunked {
                Left::Chunks
            } else {
                Left::ToEnd
            };
            return Ok((status, Body { reader, left }));
        }
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, bool)> {
    let mut head = reader.take(MAX_HEAD_BYTES);
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        head.read_line(line)?;
        if line.ends_with('\n') {
            Ok(())
        } else {
            Err(invalid("the response ends in its head"))
        }
    };
    next(&mut line)?;
    let mut words = line.split_whitespace();
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.parse().ok());
    let status = status
        .filter(|_| is_http)
        .ok_or_else(|| invalid("the response is not HTTP"))?;
    let mut is_chunked = false;
    loop {
        next(&mut line)?;
        if line.trim().is_empty() {
            return Ok((status, is_chunked));
        }
        if let Some((name, value)) = line.split_once(':') {
            is_chunked |= name.eq_ignore_ascii_case("transfer-encoding")
                && value.trim().eq_ignore_ascii_case("chunked");
        }
    }
}

/// A response's body.
#[derive(Debug)]
pub(super) struct Body<R> {
    reader: R,
    left: Left,
}

/// What is left of a body.
#[derive(Debug)]
enum Left {
    /// All until the connection ends.
    ToEnd,
    /// Chunks, the next with its size line.
    Chunks,
    /// So much of a chunk.
    InChunk(u64),
    /// Nothing.
    Nothing,
}

impl<R: BufRead> Body<R> {
    fn chunk_size(&mut self) -> io::Result<u64> {
        let mut line = String::new();
        self.reader.by_ref().take(1024).read_line(&mut line)?;
        let digits = line.trim().split(';').next().unwrap_or_default();
        u64::from_str_radix(digits, 16)
            .map_err(|_not_hex| invalid("a chunk of the response has no size"))
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.left {
                Left::ToEnd => return self.reader.read(buffer),
                Left::Nothing => return Ok(0),
                Left::Chunks => {
                    self.left = match self.chunk_size()? {
                        0 => Left::Nothing,
                        size => Left::InChunk(size),
                    };
                }
                Left::InChunk(size) => {
                    let read = self.reader.by_ref().take(size).read(buffer)?;
                    if read == 0 && !buffer.is_empty() {
                        return Err(invalid("the response ends in a chunk"));
                    }
                    self.left = match size - read as u64 {
                        0 => {
                            let mut line_end = [0; 2];
                            self.reader.read_exact(&mut line_end)?;
                            Left::Chunks
                        }
                        rest => Left::InChunk(rest),
                    };
                    return Ok(read);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(text: &str) -> io::Result<(u16, String)> {
        let (status, mut body) = read_response(text.as_bytes())?;
        let mut read = String::new();
        body.read_to_string(&mut read)?;
        Ok((status, read))
    }

    #[test]
    fn reads_chunked_and_plain_bodies() {
        let chunked = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-Encoding: Chunked\r\n\r\n\
                       3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(response(chunked).unwrap(), (200, "abc0123456789".into()));
        let plain = "HTTP/1.0 500 No\r\n\r\nsorry";
        assert_eq!(response(plain).unwrap(), (500, "sorry".into()));
        for bad in [
            "",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            assert!(response(bad).is_err(), "{bad}");
        }
        let torn = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc";
        assert!(response(torn).is_err());
    }

    #[test]
    fn chunks_are_framed() {
        let mut bytes = Vec::new();
        let mut writer = ChunkedWriter(&mut bytes);
        writer.write_all(&[b'x'; 17]).unwrap();
        writer.write_all(b"").unwrap();
        writer.finish().unwrap();
        assert_eq!(bytes, b"11\r\nxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n");
    }
}
