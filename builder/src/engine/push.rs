//! Repositories of registries as places to push to.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cache::digest::{Descriptor, Digest};
use frontend::reference::Reference;
use tokio::runtime::Handle;

use super::outputs;
use crate::cancel::CancelFlag;
use crate::cli::environment::Environment;
use crate::export::prepare::Form;
use crate::export::registry::{Content, PushTarget, Pusher, Repository, by_repository};
use crate::export::spec::{ImageSpec, OutputSpec, PushSpec};
use crate::export::{Failure, LayerSource};
use crate::registry::client::Client;
use crate::registry::config::RegistryConfig;
use crate::registry::error::RegistryError;
use crate::registry::push::{Freshness, Upload};

/// What every push of a build shares.
pub(super) struct Pushing<'a> {
    /// The registries.
    pub(super) client: &'a Client,
    /// What the client was configured from.
    pub(super) environment: &'a Environment,
    /// Where requests run.
    pub(super) handle: &'a Handle,
    /// Ends requests when it is set.
    pub(super) stop: &'a CancelFlag,
    /// The layers.
    pub(super) blobs: &'a Arc<dyn LayerSource>,
}

impl Pushing<'_> {
    /// A push for each output that asks for one, by number of the output. Nothing is sent.
    pub(super) fn of_outputs(
        &self,
        specs: &[OutputSpec],
        form: impl Fn(&ImageSpec) -> Result<Form, crate::outcome::Failure>,
    ) -> Result<BTreeMap<usize, Arc<Pusher>>, crate::outcome::Failure> {
        let mut pushers = BTreeMap::new();
        for (number, spec) in specs.iter().enumerate() {
            if let OutputSpec::Image(spec) = spec
                && let Some(push) = &spec.push
            {
                let names = outputs::names(&spec.form)?;
                let pusher = self.pusher(&names, push, form(spec)?);
                pushers.insert(number, Arc::new(pusher));
            }
        }
        Ok(pushers)
    }

    /// A push under these names.
    pub(super) fn pusher(&self, names: &[Reference], push: &PushSpec, form: Form) -> Pusher {
        let client = match push.is_insecure {
            true => insecure_client(self.environment, names, self.client.is_offline()),
            false => self.client.clone(),
        };
        let repositories = by_repository(names).into_iter().filter_map(|names| {
            let target = Box::new(ClientTarget {
                client: client.clone(),
                repository: names.first()?.clone(),
                handle: self.handle.clone(),
                stop: self.stop.clone(),
            });
            Some(Repository { names, target })
        });
        let repositories = repositories.collect();
        Pusher::new(repositories, Arc::clone(self.blobs), form, push.under)
    }
}

/// A client that takes the names' registries for insecure (`registry.insecure=true`).
fn insecure_client(environment: &Environment, names: &[Reference], is_offline: bool) -> Client {
    let mut config = RegistryConfig::from_env(&|name| environment.text(name));
    config.is_offline = is_offline;
    config.insecure = names.iter().map(|name| name.registry.clone()).collect();
    Client::new(config)
}

/// A push was given up.
#[derive(Debug, thiserror::Error)]
#[error("canceled")]
struct Canceled;

/// A repository reached by the registry client. Calls block the thread they are made on.
struct ClientTarget {
    client: Client,
    /// Any name of the repository.
    repository: Reference,
    handle: Handle,
    /// Ends requests when it is set.
    stop: CancelFlag,
}

impl ClientTarget {
    /// Waits for a request, unless it is no longer wanted.
    fn wait<T>(
        &self,
        request: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, Failure> {
        self.handle.block_on(async {
            tokio::select! {
                answer = request => Ok(answer?),
                () = self.stop.wait() => Err(Canceled.into()),
            }
        })
    }

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
        freshness: Freshness,
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
            freshness,
            source: &source,
            progress: &progress,
        };
        let pushing = self.client.push_blob(&self.repository, &upload, from);
        self.wait(pushing)?;
        Ok(())
    }

    fn manifest_digest(&self, reference: &str) -> Result<Option<Digest>, Failure> {
        self.wait(self.client.manifest_digest(&self.under(reference)))
    }

    fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        manifest: &[u8],
        freshness: Freshness,
    ) -> Result<(), Failure> {
        let name = self.under(reference);
        let putting = self
            .client
            .put_manifest(&name, media_type, manifest, freshness);
        self.wait(putting)?;
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
