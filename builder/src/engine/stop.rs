//! The end of what is under way when nobody wants it any more.

use crate::cancel::CancelFlag;

/// A flag that is set when the user gives up, or when the build has failed.
pub(super) struct StopOnInterrupt {
    pub(super) flag: CancelFlag,
    forward: tokio::task::JoinHandle<()>,
}

impl StopOnInterrupt {
    pub(super) fn new(interrupt: &CancelFlag) -> Self {
        let flag = CancelFlag::default();
        let (interrupt, forwarded) = (interrupt.clone(), flag.clone());
        let forward = tokio::spawn(async move {
            interrupt.wait().await;
            forwarded.set();
        });
        Self { flag, forward }
    }
}

impl Drop for StopOnInterrupt {
    fn drop(&mut self) {
        self.forward.abort();
    }
}
