//! Why a step failed.

use std::io;
use std::path::PathBuf;

use super::copy::error::CopyError;
use super::key_agent::KeyAgentError;

/// Why a text is no URL.
pub type UrlError = <reqwest::Url as std::str::FromStr>::Err;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A command exited with a status other than 0, or was killed.
    #[error("process {command} did not complete successfully: {how}")]
    Command {
        /// The command in Go's quoting.
        command: String,
        /// `exit code: 3`
        how: String,
        /// What to do about it, if that is known.
        hint: Option<String>,
    },
    /// A command could not be started.
    #[error("process {command} did not complete successfully")]
    Start {
        /// The command in Go's quoting.
        command: String,
        /// Why not.
        #[source]
        source: Box<Self>,
    },
    /// Copying files failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A layer could not be made, read or packed.
    #[error(transparent)]
    Layer(#[from] cache::layer::error::LayerError),
    /// A layer could not be stored or mounted.
    #[error(transparent)]
    Snapshot(#[from] cache::snapshot::error::SnapshotError),
    /// A blob could not be read or written.
    #[error(transparent)]
    Blob(#[from] cache::blob::BlobError),
    /// A layer's bytes are not those that its image promised.
    #[error("the layer has diff id {found}, its image says {expected}")]
    WrongDiffId {
        /// What was promised.
        expected: String,
        /// What came.
        found: String,
    },
    /// A layer of an image could not be unpacked.
    #[error("cannot unpack layer {digest} of {image}")]
    Unpack {
        /// The digest of its blob.
        digest: String,
        /// Which image, as far as that is known.
        image: String,
        /// Why not.
        #[source]
        source: Box<Self>,
    },
    /// A layer's tree in the store was damaged, and is not there any more.
    #[error(
        "its files in the store were damaged; they were removed, and so will be what was built on them: build again"
    )]
    Damaged,
    /// A layer could not be fetched.
    #[error(transparent)]
    Registry(#[from] crate::registry::error::RegistryError),
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::SandboxError),
    /// The cache database could not be used.
    #[error(transparent)]
    Keys(#[from] cache::key::index::KeyError),
    /// The context could not be read.
    #[error(transparent)]
    Context(#[from] crate::context::walk::ContextError),
    /// A file of the store could not be used.
    #[error(transparent)]
    Store(#[from] cache::io::IoError),
    /// There is no room below the store's cap.
    #[error(transparent)]
    Room(#[from] cache::room::RoomError),
    /// A required secret was not given.
    #[error("secret {id}: not found")]
    NoSecret {
        /// Its id.
        id: String,
    },
    /// A secret that no variable can have for a value.
    #[error("secret {id}: not a text, which the variable {name} needs")]
    SecretNotText {
        /// Its id.
        id: String,
        /// The variable.
        name: String,
    },
    /// A required socket was not given.
    #[error("no SSH key {} forwarded from the client", frontend::gofmt::quote(id))]
    NoAgent {
        /// Its id.
        id: String,
    },
    /// There is no agent for the keys that were given.
    #[error(transparent)]
    KeyAgent(#[from] KeyAgentError),
    /// A layer that a record names is neither here nor to be had.
    #[error("layer {diff_id} is not in the store, and no registry is known to have it")]
    LayerGone {
        /// Which.
        diff_id: String,
    },
    /// The file system said no.
    #[error("cannot {attempt} `{path}`")]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something that cannot be done yet.
    #[error("not supported yet: {what}")]
    Unsupported {
        /// What, and what to do instead.
        what: String,
    },
    /// An address that is none.
    #[error("`{url}` is not a URL")]
    Url {
        /// As written.
        url: String,
        /// What is wrong.
        #[source]
        source: UrlError,
    },
    /// A server has no file for us.
    #[error("invalid response status {status} from {url}")]
    HttpStatus {
        /// Where, without password and query.
        url: String,
        /// What it answered.
        status: u16,
    },
    /// What was fetched is not what was to be fetched.
    #[error("digest mismatch: {what} is {found}, expected {expected}")]
    Checksum {
        /// Where it came from.
        what: String,
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
    },
    /// Something was replaced between asking and fetching.
    #[error("{what} changed while it was being fetched; build again")]
    Moved {
        /// Where it comes from.
        what: String,
    },
    /// A secret that is to be sent to a server is no text of one line.
    #[error("secret {id} cannot be sent: it is not a single line of printable text")]
    BadCredential {
        /// Its id.
        id: String,
    },
    /// A git repository.
    #[error(transparent)]
    Git(#[from] super::git::GitError),
    /// The step was given up because another failed or the user said so.
    #[error("canceled")]
    Canceled,
    /// A task ended without an answer: a defect of this program.
    #[error("internal: {what}")]
    Internal {
        /// Which.
        what: &'static str,
    },
}
