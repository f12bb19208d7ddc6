//! What the machine is like, as far as builds depend on it.

use cache::durable::BootId;
use frontend::platform::Platform;

use crate::sandbox::rung::Rung;

/// What the machine is like.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The machine's architecture by any usual name.
    pub architecture: String,
    /// Processors to use.
    pub threads: usize,
    /// Content of `/etc/resolv.conf` for steps.
    pub resolv_conf: Vec<u8>,
    /// The running boot of the machine.
    pub boot: BootId,
    /// How steps are isolated.
    pub rung: Rung,
}

impl Surroundings {
    /// The platform that builds run on.
    pub fn platform(&self) -> Platform {
        Platform::linux(&self.architecture)
    }
}
