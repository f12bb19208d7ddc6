//! A repository of a registry as a place to push to.

use std::io;

use cache::digest::{Descriptor, Digest};
use frontend::reference::Reference;
use tokio::runtime::Handle;

use crate::export::Failure;
use crate::export::registry::{Content, PushTarget};
use crate::registry::client::Client;
use crate::registry::push::Upload;

/// A repository reached by the registry client. Calls block the thread they are made on.
pub(super) struct ClientTarget {
    pub(super) client: Client,
    /// Any name of the repository.
    pub(super) repository: Reference,
    pub(super) handle: Handle,
}

impl ClientTarget {
    fn under(&self, reference: &str) -> Reference {
        let mut name = Reference {
            tag: None,
            digest: None,
            ..self.repository.clone()
        };
        if reference.contains(':') {
            name.digest = Some(reference.to_owned());
        } else {
            name.tag = Some(reference.to_owned());
        }
        name
    }
}

impl PushTarget for ClientTarget {
    fn push_blob(
        &self,
        blob: &Descriptor,
        from: Option<&str>,
        content: Content<'_>,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Failure> {
        // The client may read the blob on a thread of its own; what it reads is given once and may be asked for again.
        let source = || content().map_err(io::Error::other);
        let progress = |current: u64, _total: u64| sent(current);
        let source = ScopedSource(&source);
        let upload = Upload {
            digest: &blob.digest,
            size: blob.size,
            source: &source,
            progress: &progress,
        };
        let pushing = self.client.push_blob(&self.repository, &upload, from);
        self.handle.block_on(pushing)?;
        Ok(())
    }

    fn manifest_digest(&self, reference: &str) -> Result<Option<Digest>, Failure> {
        Ok(self
            .handle
            .block_on(self.client.manifest_digest(&self.under(reference)))?)
    }

    fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        manifest: &[u8],
    ) -> Result<(), Failure> {
        let name = self.under(reference);
        self.handle
            .block_on(self.client.put_manifest(&name, media_type, manifest))?;
        Ok(())
    }
}

/// Borrowed bytes as the client's source.
struct ScopedSource<'a>(&'a (dyn Fn() -> io::Result<Box<dyn io::Read + Send>> + Sync));

// The closure is only called through a shared reference, from whichever thread reads.
impl crate::registry::push::BodySource for ScopedSource<'_> {
    fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        (self.0)()
    }
}
