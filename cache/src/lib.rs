//! Everything kept on disk between builds. Knows nothing of Dockerfiles, graphs or networks.
//!
//! # The state directory
//!
//! ```text
//! BUILD_ROOT/
//!   format                  format version
//!   lock                    the store lock: shared by every process that uses the store
//!   isolation               under what circumstances a step last worked here
//!   db.sqlite               keys, records, sizes, last use; can be rebuilt from the rest
//!   blobs/sha256/HEX        configs, manifests, pulled layer blobs, compressed layers
//!   tags/NAME               one file a tag: which image it names
//!   references/NAME         what a registry last said about a reference
//!   sources/HEX             by diff id: registries and repositories that have the layer
//!   layers/HEX/             one folder a diff id
//!     layer.json              size, blobs by codec, trees by format, implied directories
//!     index                   the entries of the layer, in order (layer::index)
//!   trees/ID/               frozen trees; short names, because they become mount options
//!   work/ID/                what a running build is making; gone with its lease
//!     trash/                  what is being deleted
//!   chunks/                 compressed chunks (layer::compress)
//!   cache-mounts/           directories of RUN --mount=type=cache
//!   contexts/               stat caches of build contexts
//!   git/HEX/                bare repositories by remote (mirror)
//!   gate                    lock between pinning and removing
//!   usage                   how big the store is at most (usage)
//!   claims/                 lock files of steps being run
//!   leases/                 lock files of running builds
//!   logs/N/                 output of the steps of a build (log)
//!   unsynced/               layers made since the disk was last waited for (durable)
//! ```

//!
//! # Writing
//!
//! Everything gets its name by rename, complete; only logs grow under theirs. Directories are made by the first who writes
//! into them. Names that start with `.tmp-` are files being written; what a killed process leaves of them goes with the
//! next collection.
//!
//! # Who locks what
//!
//! | lock (flock) | held by | while |
//! |---|---|---|
//! | `lock`, shared | every process | it has the store open |
//! | `lock`, exclusive | garbage collection | it deletes lock files |
//! | `gate`, shared | a build | it pins something, or looks up and pins an image |
//! | `gate`, shared | whoever names images | it looks an image up and gives or takes its name |
//! | `gate`, exclusive | garbage collection | it looks what is pinned and removes something else |
//! | `claims/KEY` | the process that runs a step, and its sandbox | the step runs |
//! | `leases/ID` | a build | it lasts; `work/ID` is its own |
//! | `layers/HEX` | a build, upkeep | it changes what is in there, or takes the layer's trees away |
//! | `trees` | garbage collection | it takes away what crashes left in there |
//! | `logs/N` | a build that ran commands | it lasts |
//! | `cache-mounts/ID/N.lock` | steps that use the directory | they run |
//! | `git/HEX.lock` | the build that fetches from the remote | it fetches and checks out |

pub mod blob;
pub mod checksum;
pub mod claim;
pub mod digest;
pub mod disk;
pub mod durable;
pub mod fsck;
pub mod gc;
pub mod io;
pub mod key;
pub mod layer;
pub mod lease;
pub mod lock;
pub mod log;
pub mod mirror;
pub mod mounts;
pub mod remove;
pub mod room;
pub mod root;
pub mod size;
pub mod snapshot;
pub mod tag;

mod summed;
mod sweep;
mod usage;
