//! Layers that are read and unpacked while their blobs arrive.
//!
//! What is read has not been verified yet. So what is made of it stays among the unfinished work until all of it was read,
//! which ends only when the blob is in the store, verified, and until the tar has the diff id of the image's config. If
//! anything but the transfer goes wrong it is done again with the whole blob, which also tells what.

use std::io::Read;
use std::panic::resume_unwind;
use std::thread;

use cache::digest::{Descriptor, DiffId};

use super::error::StepError;
use super::fetch::{decompressed, unreadable};
use super::image::Origin;
use super::layers::Layers;
use crate::machine::STACK_BYTES;

impl Layers {
    /// The blob that will be transferred when the layer is wanted; `None` if it is here, is made here, or cannot be had.
    pub(super) fn awaited(&self, diff_id: &DiffId) -> Result<Option<Descriptor>, StepError> {
        let Some(fetchable) = self.find(diff_id)? else {
            return Ok(None);
        };
        let blob = fetchable.layer.descriptor;
        let is_transferred = match fetchable.origin {
            Origin::Store => false,
            Origin::Registry(_) => !self.client.is_offline(),
            Origin::Layout(_) => true,
        };
        Ok((is_transferred && !self.has_blob(&blob.digest)?).then_some(blob))
    }

    /// Transfers a layer's blob and does `work` on its uncompressed bytes meanwhile; `None` if that did not work out. It is to
    /// be done with the whole blob then, which tells why if that fails too. If the transfer fails, that is an error.
    pub(super) fn while_it_arrives<T: Send>(
        &self,
        diff_id: &DiffId,
        blob: &Descriptor,
        work: impl FnOnce(Box<dyn Read + Send>) -> Result<T, StepError> + Send,
    ) -> Result<Option<T>, StepError> {
        let (store, follower) = self.blobs.followed();
        let work = || {
            let plain = decompressed(follower, blob.size);
            work(plain.map_err(|source| unreadable(blob, source))?)
        };
        thread::scope(|scope| {
            // Gone when this ends, however it does: then the follower ends as well.
            let store = store;
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            let Ok(working) = thread.spawn_scoped(scope, work) else {
                return Ok(None);
            };
            let fetched = self.fetch_into(diff_id, &store);
            drop(store);
            let worked = working.join().unwrap_or_else(|panic| resume_unwind(panic));
            fetched?;
            match worked {
                Ok(made) => Ok(Some(made)),
                Err(error) => {
                    tracing::debug!(digest = %blob.digest, %error, "not done while it arrived");
                    Ok(None)
                }
            }
        })
    }
}
