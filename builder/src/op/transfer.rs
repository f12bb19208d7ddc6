//! Progress of reading contexts: a context is read by the steps that need something of it, a part each.

use frontend::graph::VertexId;

use super::steps::Steps;
use crate::lock::locked;
use crate::progress::event::Event;

/// How far reading a context is.
#[derive(Default)]
pub(super) struct Transfer {
    begun: usize,
    ended: usize,
    bytes: u64,
}

impl Steps {
    /// Begins listing what a step needs of a context.
    pub(super) fn begin_transfer(&self, context: VertexId) {
        let mut transfers = locked(&self.transfers);
        let transfer = transfers.entry(context).or_default();
        transfer.begun += 1;
        if transfer.begun == 1 {
            self.events.emit(Event::Started {
                vertex: self.reference(context),
            });
        }
    }

    /// Ends it: so many bytes were looked at.
    pub(super) fn end_transfer(&self, context: VertexId, bytes: u64) {
        let mut transfers = locked(&self.transfers);
        let transfer = transfers.entry(context).or_default();
        transfer.ended += 1;
        transfer.bytes += bytes;
        self.events.emit(Event::Status {
            vertex: self.reference(context),
            id: "transferring context:".to_owned(),
            current: transfer.bytes,
            total: 0,
            is_completed: transfer.ended == transfer.begun,
        });
    }

    pub(super) fn close_transfer(&self, vertex: VertexId) {
        if locked(&self.transfers).remove(&vertex).is_some() {
            self.events.emit(Event::Completed {
                vertex: self.reference(vertex),
            });
        }
    }
}
