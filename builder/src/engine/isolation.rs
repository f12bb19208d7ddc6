//! Whether steps can be run here: found out by running one, and remembered.
//!
//! That takes as long as a few requests to a registry. Everything else is done beside it, but for commands, which wait while
//! one is on trial, and for what leaves the store: where no step can be run, no image comes of a build that needed none.
//!
//! Only success is remembered, in a file of the store: whoever mends the machine wants the next build to notice. The
//! file names what the answer depends on; if any of that has changed, a step is tried again.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;

use cache::digest::hex;
use cache::lease::Lease;
use cache::root::StatePaths;
use tokio::task::JoinHandle;

use super::failure;
use crate::cancel::CancelFlag;
use crate::op::runner::Runner;
use crate::outcome::{Failure, FailureKind};
use crate::sandbox::rung::{Rung, RungError};

/// What of this process's status decides what the kernel lets it do.
const STATUS: [&str; 5] = ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Groups"];

/// The name of the vertex that tells how steps are isolated.
pub(super) fn title(rung: Rung) -> String {
    let rung = match rung {
        Rung::Root => "root",
        Rung::UserNamespace => "userns (user namespace, no root)",
    };
    format!("[internal] isolation: {rung}, network: host")
}

/// Whether a step has worked on this machine, kernel and store since it started.
pub(super) struct Question {
    paths: StatePaths,
    circumstances: String,
}

impl Question {
    /// Asks nothing yet.
    pub(super) fn new(rung: Rung, paths: &StatePaths) -> Self {
        Self {
            paths: paths.clone(),
            circumstances: circumstances(rung, paths),
        }
    }

    /// Whether the store says that one has worked.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(super) fn is_settled(&self) -> Result<bool, Failure> {
        let known = self.paths.read_isolation().map_err(failure::store)?;
        Ok(known.as_deref() == Some(self.circumstances.as_bytes()))
    }

    /// Tries one, and notes it if it has worked.
    ///
    /// # Errors
    ///
    /// Steps cannot be run; the text says what to do.
    pub(super) fn settle(&self, lease: &Lease, sandbox: &Runner) -> Result<(), Failure> {
        let told = |error: &dyn std::error::Error| {
            Failure::new(FailureKind::Environment, crate::text::chain(error))
        };
        let work = lease.work().map_err(failure::store)?;
        sandbox.probe(&work).map_err(|error| match error {
            RungError::Probe { .. } => {
                told(&error).hint("`builder doctor` says what this machine lacks")
            }
            error => told(&error),
        })?;
        self.paths
            .write_isolation(self.circumstances.as_bytes())
            .map_err(failure::store)
    }
}

/// The answer to a [`Question`], which somebody may still be looking for.
pub(super) struct Verdict {
    task: Option<JoinHandle<Result<(), Failure>>>,
    /// The user gives up.
    interrupt: CancelFlag,
}

impl Verdict {
    /// Steps can be run.
    pub(super) fn known() -> Self {
        Self {
            task: None,
            interrupt: CancelFlag::default(),
        }
    }

    /// What a task gives.
    pub(super) fn of(task: JoinHandle<Result<(), Failure>>, interrupt: &CancelFlag) -> Self {
        Self {
            task: Some(task),
            interrupt: interrupt.clone(),
        }
    }

    /// Waits for it.
    ///
    /// # Errors
    ///
    /// Steps cannot be run; the text says what to do. It is said once.
    pub(super) async fn get(&mut self) -> Result<(), Failure> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        let answer = task.await;
        self.task = None;
        answer.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))
    }

    /// Waits for it; what a build is told that has failed.
    pub(super) async fn or(&mut self, first: Failure) -> Failure {
        match self.get().await {
            Ok(()) => first,
            Err(failure) => self.before(failure, first),
        }
    }

    /// Which of two failures is told: that no step can be run comes before what else is wrong, and before what has only
    /// ended because of it. That the user has given up comes before both: the step on trial may have got the same signal.
    pub(super) fn before(&self, failure: Failure, first: Failure) -> Failure {
        match self.interrupt.is_set() {
            true => first,
            false => failure,
        }
    }

    /// Does work and waits for the answer; if steps can be run, and the work goes on when that is known, `is_good` is called.
    /// If not, `stop` is set, and the end of the work waited for.
    ///
    /// # Errors
    ///
    /// That of the answer; that of the work.
    pub(super) async fn beside<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
        is_good: impl FnOnce(),
        stop: &CancelFlag,
    ) -> Result<T, Failure> {
        tokio::pin!(work);
        let done = tokio::select! {
            biased;
            answer = self.get() => {
                match &answer {
                    Ok(()) => is_good(),
                    Err(_) => stop.set(),
                }
                let done = work.await;
                return match (answer, done) {
                    (Ok(()), done) => done,
                    (Err(failure), Ok(_)) => Err(failure),
                    (Err(failure), Err(first)) => Err(self.before(failure, first)),
                };
            }
            done = &mut work => done,
        };
        match done {
            Ok(done) => self.get().await.map(|()| done),
            Err(first) => Err(self.or(first).await),
        }
    }
}

/// All that the answer depends on, as the one line of text that the store keeps.
fn circumstances(rung: Rung, paths: &StatePaths) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let privileges: Vec<&str> = status
        .lines()
        .filter(|line| STATUS.iter().any(|name| line.starts_with(name)))
        .collect();
    let privileges = [
        privileges.join("\n"),
        read("/proc/self/uid_map"),
        read("/proc/self/gid_map"),
        read("/proc/self/attr/current"),
    ];
    let mut text = format!(
        "{} {} boot {} kernel {}",
        env!("CARGO_PKG_VERSION"),
        rung.name(),
        read("/proc/sys/kernel/random/boot_id").trim(),
        read("/proc/sys/kernel/osrelease").trim(),
    );
    // The store may have been moved to another file system.
    if let Ok(store) = std::fs::metadata(paths.root()) {
        write!(text, " store {}:{}", store.dev(), store.ino()).ok();
    }
    let privileges = blake3::hash(privileges.join("\n").as_bytes());
    writeln!(text, " privileges {}", &hex(privileges.as_bytes())[..16]).ok();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_rung_or_store_is_another_question() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let text =
            |rung, dir: &tempfile::TempDir| circumstances(rung, &StatePaths::new(dir.path()));
        let first = text(Rung::Root, &one);
        assert_eq!(first, text(Rung::Root, &one));
        assert_ne!(first, text(Rung::UserNamespace, &one));
        assert_ne!(first, text(Rung::Root, &two));
        assert!(first.contains(" boot ") && first.contains(" privileges "));
        assert_eq!(first.lines().count(), 1);
    }

    #[test]
    fn the_title_tells_the_network() {
        assert_eq!(
            title(Rung::Root),
            "[internal] isolation: root, network: host"
        );
        assert!(title(Rung::UserNamespace).contains("userns"));
    }
}
