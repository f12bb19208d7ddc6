//! The context and the Dockerfile, brought here: what standard input, git and HTTP give becomes a layer.
//!
//! A layer, because then nothing is fetched or unpacked again while it is the same: a commit, a body with the same entity
//! tag, a tar with the same bytes. It belongs to no image, and goes with the next collection.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::digest::{CacheKey, DiffId};
use cache::key::builder::KeyBuilder;
use cache::key::index::Keys;
use cache::lease::Lease;
use cache::root::StatePaths;
use frontend::graph::{GitOp, HttpOp};
use frontend::source::SourceFile;

use super::input::{self, RequestSecrets};
use super::ready::Begun;
use super::{Engine, failure};
use crate::cancel::CancelFlag;
use crate::cli::request::{BuildRequest, ContextSpec, DockerfileSpec};
use crate::cli::stream::ClientStream;
use crate::op::copy::archive::has_members;
use crate::op::copy::source::{SourceTree, read_file};
use crate::op::copy::stack_source::{StackSource, TreeOf};
use crate::op::error::StepError;
use crate::op::fetch::Progress;
use crate::op::layers::{LayerParts, Layers};
use crate::op::remote::{Fetching, Reach};
use crate::op::{git, http, unpack};
use crate::outcome::{Failure, FailureKind};
use crate::progress::event::{Event, VertexRef};

/// What the context is called in messages.
const NAME: &str = "context";
/// The Dockerfile of a context that is one.
const DOCKERFILE: &str = "Dockerfile";
/// A Dockerfile larger than this is something else.
const DOCKERFILE_LIMIT_BYTES: u64 = 16 << 20;
/// Keeps `.git` of a context (features.md 1.7).
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// What a build starts from.
pub(super) struct Prepared {
    pub(super) dockerfile: Arc<SourceFile>,
    pub(super) context: Files,
}

/// The files of the context.
pub(super) enum Files {
    /// Where they lie.
    Directory(PathBuf),
    /// In the store.
    Tree(Arc<dyn SourceTree>),
}

/// Brings the context and the Dockerfile here, as far as they are not.
pub(super) async fn prepare(
    engine: &Engine,
    request: &BuildRequest,
    begun: &Begun,
) -> Result<Prepared, Failure> {
    if let (ContextSpec::Directory(path), DockerfileSpec::Read(source)) =
        (&request.input.context, &request.input.dockerfile)
    {
        return Ok(Prepared {
            dockerfile: Arc::new(source.clone()),
            context: Files::Directory(path.clone()),
        });
    }
    let bringing = Bringing {
        reach: input::reach(request, &begun.client),
        secrets: RequestSecrets::new(request),
        keys: Keys::new(begun.root.paths()),
        paths: begun.root.paths().clone(),
        lease: Arc::clone(&begun.lease),
        stop: begun.stop.flag.clone(),
        engine: engine.clone(),
        request: request.clone(),
    };
    let interrupt = engine.interrupt.clone();
    // Reading standard input cannot be interrupted; the thread that does it is left behind then.
    tokio::select! {
        prepared = tokio::task::spawn_blocking(move || bringing.run()) => match prepared {
            Ok(prepared) => prepared,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        },
        () = interrupt.wait() => Err(failure::interrupted()),
    }
}

/// What bringing works with.
struct Bringing {
    reach: Reach,
    secrets: RequestSecrets,
    keys: Keys,
    paths: StatePaths,
    lease: Arc<Lease>,
    stop: CancelFlag,
    engine: Engine,
    request: BuildRequest,
}

/// A context, and the Dockerfile that it is if it is one.
struct Brought {
    files: Files,
    dockerfile: Option<SourceFile>,
}

impl Bringing {
    fn run(self) -> Result<Prepared, Failure> {
        let input = &self.request.input;
        let brought = self.vertex(&self.name(), |progress| self.bring(progress));
        let brought = brought.map_err(told)?;
        let dockerfile = match (&input.dockerfile, brought.dockerfile) {
            (DockerfileSpec::Read(source), _) => source.clone(),
            (DockerfileSpec::Url(url), _) => {
                let name = format!("[internal] load build definition from {}", http::shown(url));
                let fetched = self.vertex(&name, |progress| self.dockerfile_of(url, progress));
                fetched.map_err(told)?
            }
            (DockerfileSpec::InContext(_), Some(source)) => source,
            (DockerfileSpec::InContext(path), None) => in_context(&brought.files, path)?,
        };
        let flushed = self.keys.flush(self.now_ms());
        flushed.map_err(|error| told(error.into()))?;
        Ok(Prepared {
            dockerfile: Arc::new(dockerfile),
            context: brought.files,
        })
    }

    fn name(&self) -> String {
        match &self.request.input.context {
            ContextSpec::Directory(_) | ContextSpec::Empty => {
                "[internal] load build context".to_owned()
            }
            ContextSpec::Archive(_) => {
                "[internal] load build context from standard input".to_owned()
            }
            ContextSpec::Git(op) => {
                format!("[internal] load git source {}", http::shown(&op.remote))
            }
            ContextSpec::Http(url) => {
                format!("[internal] load remote build context {}", http::shown(url))
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.engine.clock.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does some work as a vertex of its own.
    fn vertex<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Progress) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let digest = cache::digest::Digest::of(name.as_bytes()).to_string();
        let vertex = VertexRef(digest.into());
        let events = &self.engine.events;
        events.emit(Event::VertexAdded {
            vertex: vertex.clone(),
            name: name.to_owned(),
            inputs: Vec::new(),
        });
        let started = vertex.clone();
        events.emit(Event::Started { vertex: started });
        let outcome = work(&Progress {
            events: Arc::clone(events),
            vertex: vertex.clone(),
        });
        events.emit(match &outcome {
            Ok(_) => Event::Completed { vertex },
            Err(error) => Event::Failed {
                vertex,
                message: crate::text::chain(error),
            },
        });
        outcome
    }

    fn bring(&self, progress: &Progress) -> Result<Brought, StepError> {
        let files = |files| Brought {
            files,
            dockerfile: None,
        };
        match &self.request.input.context {
            ContextSpec::Directory(path) => Ok(files(Files::Directory(path.clone()))),
            ContextSpec::Empty => Ok(files(self.nothing()?)),
            ContextSpec::Archive(stream) => {
                let layers = self.layers()?;
                let layer = self.with(&layers, progress, |f| self.archive(f, stream))?;
                Ok(files(tree(layers, layer)?))
            }
            ContextSpec::Git(op) => {
                let layers = self.layers()?;
                let layer = self.with(&layers, progress, |fetching| self.git(fetching, op))?;
                Ok(files(tree(layers, layer)?))
            }
            ContextSpec::Http(url) => self.http(url, progress),
        }
    }

    /// The layers of the store, without those of images.
    fn layers(&self) -> Result<Arc<Layers>, StepError> {
        let layers = Layers::open(LayerParts {
            paths: &self.paths,
            client: self.reach.client.clone(),
            handle: self.reach.handle.clone(),
            lease: Arc::clone(&self.lease),
            images: &std::collections::BTreeMap::new(),
            format: crate::machine::tree_format(self.engine.surroundings.rung),
            stop: self.stop.clone(),
            boot: self.engine.surroundings.boot.clone(),
            room: self.engine.room(&self.paths, self.request.execution.cap),
        })?;
        Ok(Arc::new(layers))
    }

    fn with<T>(
        &self,
        layers: &Layers,
        progress: &Progress,
        work: impl FnOnce(&Fetching<'_>) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        work(&Fetching {
            reach: &self.reach,
            layers,
            keys: &self.keys,
            paths: &self.paths,
            secrets: &self.secrets,
            progress,
            cancel: &self.stop,
            now_ms: self.now_ms(),
        })
    }

    /// A directory of the build's own.
    fn work_dir(&self, name: &str) -> Result<PathBuf, StepError> {
        let path = self.lease.work()?.join(name);
        std::fs::create_dir(&path).map_err(io_error("make directory", &path))?;
        Ok(path)
    }

    fn nothing(&self) -> Result<Files, StepError> {
        let path = self.work_dir("empty-context")?;
        Ok(Files::Tree(unpack::directory(NAME, &path)?))
    }

    /// Spools an archive, since its members are read twice, and unpacks it unless that was done with the same bytes.
    fn archive(&self, fetching: &Fetching<'_>, stream: &ClientStream) -> Result<DiffId, StepError> {
        let bytes = stream.take().ok_or(StepError::Internal {
            what: "standard input read twice",
        })?;
        let dir = self.work_dir("archive")?;
        let content = spool(bytes, &dir.join(unpack::ARCHIVE), fetching)?;
        let mut key = KeyBuilder::new("archive context");
        key.bytes("content", &content);
        let layer = fetching.layer_of(&key.finish(), || self.unpacked(fetching.layers, &dir))?;
        std::fs::remove_dir_all(&dir).map_err(io_error("remove", &dir))?;
        Ok(layer)
    }

    fn unpacked(&self, layers: &Layers, dir: &Path) -> Result<DiffId, StepError> {
        let source = unpack::directory(NAME, dir)?;
        unpack::unpack(layers, &*source, self.engine.surroundings.threads)
    }

    fn git(&self, fetching: &Fetching<'_>, op: &GitOp) -> Result<DiffId, StepError> {
        let arg = self.request.options.build_args.get(KEEP_GIT_DIR);
        let keep = arg.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "true"));
        let op = GitOp {
            keep_git_dir: op.keep_git_dir || keep,
            ..op.clone()
        };
        let identified = git::identify(fetching, &op)?;
        let memo = context_memo("git", &identified.key);
        fetching.layer_of(&memo, || git::layer(fetching, &op))
    }

    /// A tar, or else a Dockerfile.
    fn http(&self, url: &str, progress: &Progress) -> Result<Brought, StepError> {
        let layers = self.layers()?;
        let op = HttpOp {
            url: url.to_owned(),
            checksum: None,
            filename: unpack::ARCHIVE.to_owned(),
        };
        let (file, key) = self.with(&layers, progress, |fetching| {
            let (identified, fetched) = http::identify(fetching, &op)?;
            let key = identified.key;
            let make = || http::layer(fetching, &op, &key, fetched);
            let layer = fetching.layer_of(&context_memo("http", &key), make)?;
            Ok((layer, key))
        })?;
        let path = layers.tree(&file)?.join(unpack::ARCHIVE);
        let opened = File::open(&path).map_err(io_error("open", &path))?;
        if has_members(opened) {
            let layer = self.with(&layers, progress, |fetching| {
                let memo = context_memo("http unpacked", &key);
                fetching.layer_of(&memo, || {
                    let source = stack(fetching.layers, &layers, &file)?;
                    unpack::unpack(&layers, &source, self.engine.surroundings.threads)
                })
            })?;
            return Ok(Brought {
                files: tree(layers, layer)?,
                dockerfile: None,
            });
        }
        Ok(Brought {
            files: self.nothing()?,
            dockerfile: Some(read(&path)?),
        })
    }

    fn dockerfile_of(&self, url: &str, progress: &Progress) -> Result<SourceFile, StepError> {
        let layers = self.layers()?;
        let op = HttpOp {
            url: url.to_owned(),
            checksum: None,
            filename: DOCKERFILE.to_owned(),
        };
        let fetched = self.with(&layers, progress, |fetching| http::download(fetching, &op))?;
        read(&fetched.path(&op))
    }
}

fn told(error: StepError) -> Failure {
    let failure = failure::step_environment(error);
    match failure.kind() {
        FailureKind::Interrupted => failure::interrupted(),
        FailureKind::Dockerfile
        | FailureKind::Step
        | FailureKind::Usage
        | FailureKind::Environment
        | FailureKind::Internal => failure,
    }
}

fn io_error(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StepError {
    let path = path.to_owned();
    move |source| StepError::Io {
        attempt,
        path,
        source,
    }
}

fn context_memo(kind: &str, key: &CacheKey) -> CacheKey {
    let mut memo = KeyBuilder::new("remote context");
    memo.text("kind", kind);
    memo.key("source", key);
    memo.finish()
}

fn stack(layers: &Layers, held: &Arc<Layers>, layer: &DiffId) -> Result<StackSource, StepError> {
    let layer = layer.clone();
    let stack = layers.stack(std::slice::from_ref(&layer))?;
    let held = Arc::clone(held);
    let tree_of: TreeOf = Arc::new(move |_number| held.tree(&layer).map_err(io::Error::other));
    Ok(StackSource::new(NAME, stack, tree_of))
}

fn tree(layers: Arc<Layers>, layer: DiffId) -> Result<Files, StepError> {
    Ok(Files::Tree(Arc::new(stack(&layers, &layers, &layer)?)))
}

/// Writes a stream to a file: the BLAKE3 of its bytes.
fn spool(
    mut bytes: Box<dyn Read + Send>,
    path: &Path,
    fetching: &Fetching<'_>,
) -> Result<[u8; 32], StepError> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io_error("create", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut current = 0;
    loop {
        if fetching.cancel.is_set() {
            return Err(StepError::Canceled);
        }
        let length = match bytes.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io_error("read", Path::new("standard input"))(error)),
        };
        hasher.update(&buffer[..length]);
        file.write_all(&buffer[..length])
            .map_err(io_error("write", path))?;
        current += length as u64;
    }
    fetching.progress.events.emit(Event::Status {
        vertex: fetching.progress.vertex.clone(),
        id: "transferring context:".to_owned(),
        current,
        total: 0,
        is_completed: true,
    });
    Ok(*hasher.finalize().as_bytes())
}

/// Reads a Dockerfile that was fetched.
fn read(path: &Path) -> Result<SourceFile, StepError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(DOCKERFILE_LIMIT_BYTES + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(io_error("read", path))?;
    if bytes.len() as u64 > DOCKERFILE_LIMIT_BYTES {
        return Err(io_error("read", path)(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(SourceFile::new(DOCKERFILE, bytes))
}

/// Reads the Dockerfile of a context, or `dockerfile` where `Dockerfile` is meant and missing.
fn in_context(files: &Files, path: &str) -> Result<SourceFile, Failure> {
    let Files::Tree(tree) = files else {
        let message = "internal: a Dockerfile to be looked for in a directory";
        return Err(Failure::new(FailureKind::Internal, message));
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    let lower = (name == DOCKERFILE).then(|| {
        let start = path.len() - name.len();
        format!("{}{}", &path[..start], name.to_ascii_lowercase())
    });
    for path in std::iter::once(path).chain(lower.as_deref()) {
        let found = read_file(&**tree, path.as_bytes(), DOCKERFILE_LIMIT_BYTES + 1);
        let name = path.rsplit('/').next().unwrap_or(path);
        let refused = |why: &str| {
            let message = format!("failed to read dockerfile: {why}");
            Failure::new(FailureKind::Dockerfile, message)
        };
        match found.map_err(|error| told(error.into()))? {
            Some(bytes) if bytes.len() as u64 > DOCKERFILE_LIMIT_BYTES => {
                return Err(refused(&format!("{name} is larger than 16 MiB")));
            }
            Some(bytes) => return Ok(SourceFile::new(name, bytes)),
            None => {}
        }
    }
    let message =
        format!("failed to read dockerfile: open {name}: no such file or directory in the context");
    Err(Failure::new(FailureKind::Dockerfile, message))
}
