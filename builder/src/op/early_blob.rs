//! The blob of a layer, made in the pass that makes the layer.
//!
//! Where an output will want the blob, the tar goes to the compressor as it is written: the tree is not read and hashed a
//! second time. The blob is the one that would be made of the tree later, byte for byte.
//!
//! Nothing depends on it. What goes wrong here is not told: whoever asks for the blob makes it then, and tells. A small layer
//! is left to them too, as it costs little and the next step waits for this pass.
//!
//! # Integrity
//!
//! The bytes that are compressed are those that the diff id is computed of, so there is nothing to compare.

use std::io::{self, Write};

use cache::blob::writer::UnhashedWriter;
use cache::digest::{DiffId, Digest};
use cache::layer::compress::Compressor;
use cache::layer::sink::{Boundary, TarSink};
use frontend::graph::VertexId;
use tokio::sync::SemaphorePermit;

use super::blob::Packing;
use super::error::StepError;
use super::layers::Layers;
use crate::cancel::CancelFlag;

/// Layers with smaller tars are left to who asks for the blob.
const WORTH_BYTES: usize = 1 << 20;

/// Blobs that are made at once in this way, each with the memory of a compressor. Of further layers the blobs come later.
pub(super) const MOST_AT_ONCE: usize = 2;

/// Knows which layers are wanted as blobs.
pub trait Packer: Send + Sync {
    /// How to pack the layer that a vertex makes, if an output will want that.
    fn packing(&self, vertex: VertexId) -> Option<Packing>;
    /// Keeps in mind what blob was made of a layer.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    fn packed(&self, layer: &DiffId, digest: Digest, size: u64) -> Result<(), StepError>;
}

/// Takes the tar of a layer that is being made.
pub(super) struct EarlyBlob<'a> {
    layers: &'a Layers,
    packer: &'a dyn Packer,
    state: State<'a>,
}

enum State<'a> {
    /// Nobody wants the blob, or it is left to them.
    Off,
    /// Whether it is worth it shows later.
    Waiting { packing: Packing, start: Start },
    On {
        compressor: Box<Compressor<UnhashedWriter>>,
        stop: CancelFlag,
        _turn: SemaphorePermit<'a>,
    },
}

/// The first bytes of a tar, and where entries start in them.
#[derive(Debug, Default)]
struct Start {
    bytes: Vec<u8>,
    boundaries: Vec<(usize, Boundary)>,
}

impl Start {
    /// Writes all of it.
    fn replay(&self, sink: &mut dyn TarSink) -> io::Result<()> {
        let mut written = 0;
        for (at, boundary) in &self.boundaries {
            sink.write_all(&self.bytes[written..*at])?;
            sink.boundary(*boundary)?;
            written = *at;
        }
        sink.write_all(&self.bytes[written..])
    }
}

impl Write for Start {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TarSink for Start {
    fn boundary(&mut self, entry: Boundary) -> io::Result<()> {
        self.boundaries.push((self.bytes.len(), entry));
        Ok(())
    }
}

impl<'a> EarlyBlob<'a> {
    /// For the layer that a vertex is about to make; `None` if nobody wants its blob.
    pub(super) fn of(layers: &'a Layers, packer: &'a dyn Packer, vertex: VertexId) -> Option<Self> {
        let packing = packer.packing(vertex)?;
        let start = Start::default();
        Some(Self {
            layers,
            packer,
            state: State::Waiting { packing, start },
        })
    }

    /// Goes on with the tar, unless something is wrong.
    fn take(&mut self, act: impl FnOnce(&mut dyn TarSink) -> io::Result<()>) {
        let is_enough = match &mut self.state {
            State::Off => return,
            State::Waiting { start, .. } => act(start).map(|()| start.bytes.len() >= WORTH_BYTES),
            State::On { stop, .. } if stop.is_set() => Err(io::Error::other("no longer wanted")),
            State::On { compressor, .. } => act(&mut **compressor).map(|()| false),
        };
        let gone_on = match is_enough {
            Ok(true) => self.begin(),
            Ok(false) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = gone_on {
            self.give_up(&*error);
        }
    }

    /// Begins to compress, unless enough others are.
    fn begin(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let State::Waiting { packing, start } = std::mem::replace(&mut self.state, State::Off)
        else {
            return Ok(());
        };
        let Ok(turn) = self.layers.early_blobs.try_acquire() else {
            return Ok(());
        };
        let writer = self.layers.blobs.unhashed_writer()?;
        let mut compressor = Compressor::new(writer, packing.codec, packing.options)?;
        start.replay(&mut compressor)?;
        self.state = State::On {
            compressor: Box::new(compressor),
            stop: packing.stop,
            _turn: turn,
        };
        Ok(())
    }

    fn give_up(&mut self, error: &(dyn std::error::Error + 'static)) {
        tracing::debug!(error, "a layer is not compressed while it is made");
        self.state = State::Off;
    }

    /// The layer is in the store: its blob comes there too, if there is one.
    pub(super) fn keep(mut self, layer: &DiffId) {
        let State::On { compressor, .. } = std::mem::replace(&mut self.state, State::Off) else {
            return;
        };
        let finished = self.layers.finish_blob(layer, *compressor);
        let kept = finished.and_then(|(digest, size)| self.packer.packed(layer, digest, size));
        if let Err(error) = kept {
            self.give_up(&error);
        }
    }
}

/// Nothing fails here: the layer is made whatever becomes of the blob.
impl Write for EarlyBlob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(|sink| sink.write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TarSink for EarlyBlob<'_> {
    fn boundary(&mut self, entry: Boundary) -> io::Result<()> {
        self.take(|sink| sink.boundary(entry));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cache::layer::compress::{Codec, CompressOptions};

    use super::*;

    /// Writes entries of one KiB, some of which end chunks.
    fn write(sink: &mut dyn TarSink) -> io::Result<()> {
        for number in 0..4096_u32 {
            let path_hash = u64::from(number % 100);
            sink.boundary(Boundary {
                path_hash,
                size: 512,
            })?;
            sink.write_all(&[0; 512])?;
            sink.write_all(&number.to_le_bytes().repeat(128))?;
        }
        Ok(())
    }

    fn compressor() -> Compressor<Vec<u8>> {
        let options = CompressOptions {
            threads: 2,
            cache: None,
        };
        Compressor::new(Vec::new(), Codec::GZIP, options).unwrap()
    }

    #[test]
    fn what_waited_is_compressed_as_if_it_had_not() {
        let mut direct = compressor();
        write(&mut direct).unwrap();
        let (direct, _) = direct.finish().unwrap();
        assert!(direct.chunks > 3, "entries decide where chunks end");
        let (mut start, mut waited) = (Start::default(), compressor());
        write(&mut start).unwrap();
        start.replay(&mut waited).unwrap();
        assert_eq!(waited.finish().unwrap().0, direct);
    }
}
