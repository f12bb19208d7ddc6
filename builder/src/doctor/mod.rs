//! Examines what builds need of this machine: each prerequisite of each rung, what the kernel answered, the smallest change
//! that helps.
//!
//! Prerequisites can all be there and steps still fail, for reasons nobody thought of; so the last check of each rung is a
//! whole step in the state directory. The one in a user namespace needs a process of its own: this program again, with a hidden
//! flag.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cache::root::{RootOptions, StateRoot};
use rustix::fs::statfs;

use self::checks::{Facts, Store, Trial};
use self::report::Report;
use crate::outcome::{Failure, FailureKind};
use crate::sandbox::rung::{self, Choice, Inside, Rung};
use crate::sandbox::{HostOptions, SandboxHost, examine};

mod checks;
pub mod report;

/// The flag by which this program starts itself for a trial in a user namespace.
pub const TRY_FLAG: &str = "--try-userns";

/// Examines this machine for builds with their state in `state_root`.
pub fn examine(state_root: &Path) -> Report {
    let kernel = examine::kernel();
    let store = store(state_root);
    let (mut trial_root, mut trial_user_namespace) = (Trial::Untried, Trial::Untried);
    if store.problem.is_none() {
        trial_root = match rung::detect(Some(Rung::Root)) {
            Ok(Choice::Ready(rung)) => try_here(rung, state_root),
            Ok(Choice::Enter(_)) | Err(_) => Trial::Untried,
        };
        trial_user_namespace = match rung::detect(Some(Rung::UserNamespace)) {
            Ok(Choice::Ready(rung)) => try_here(rung, state_root),
            Ok(Choice::Enter(_)) => try_in_namespace(state_root),
            Err(_) => Trial::Untried,
        };
    }
    let facts = Facts {
        kernel,
        store,
        trial_root,
        trial_user_namespace,
    };
    Report::new(vec![checks::root(&facts), checks::user_namespace(&facts)])
}

/// Runs a whole step in a user namespace, entering one first: what [`fn@examine`] starts a process for.
///
/// # Errors
///
/// It did not work.
pub fn try_user_namespace(state_root: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::new(FailureKind::Environment, crate::text::chain(error))
    };
    match rung::detect(Some(Rung::UserNamespace)).map_err(|error| failed(&error))? {
        Choice::Ready(rung) => match try_here(rung, state_root) {
            Trial::Failed(why) => Err(Failure::new(FailureKind::Environment, why)),
            Trial::Worked | Trial::Untried => Ok(()),
        },
        Choice::Enter(entry) => {
            let words = vec!["builder".into(), "doctor".into(), TRY_FLAG.into()];
            let variables = vec![("BUILD_ROOT".into(), state_root.into())];
            Err(failed(&entry.enter(&Inside::new(words, variables))))
        }
    }
}

fn try_here(rung: Rung, state_root: &Path) -> Trial {
    let outcome = SandboxHost::start(&HostOptions::new(rung))
        .map_err(|error| crate::text::chain(&error))
        .and_then(|host| {
            rung::probe(&host, state_root).map_err(|error| crate::text::chain(&error))
        });
    match outcome {
        Ok(()) => Trial::Worked,
        Err(why) => Trial::Failed(why),
    }
}

fn try_in_namespace(state_root: &Path) -> Trial {
    let output = Command::new("/proc/self/exe")
        .args(["doctor", TRY_FLAG])
        .env("BUILD_ROOT", state_root)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Trial::Worked,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.trim().trim_start_matches("ERROR: ");
            Trial::Failed(
                line.lines()
                    .next()
                    .unwrap_or("it ended without a word")
                    .to_owned(),
            )
        }
        Err(error) => Trial::Failed(format!("cannot start builder again: {error}")),
    }
}

/// What the state directory is on and whether it can be used; it is made if it is missing, as a build would do.
fn store(state_root: &Path) -> Store {
    let opened = StateRoot::open(state_root, &RootOptions::default());
    Store {
        path: state_root.display().to_string(),
        file_system: file_system(state_root),
        problem: opened.err().map(|error| crate::text::chain(&error)),
    }
}

/// The kind of file system that a path, or what there is of it, is on.
fn file_system(path: &Path) -> String {
    let mut place = PathBuf::from(path);
    while !place.exists() && place.pop() {}
    // Numbers of <linux/magic.h>.
    match statfs(&place).map(|found| found.f_type) {
        Ok(0x794c_7630) => "overlay".to_owned(),
        Ok(0xef53) => "ext4".to_owned(),
        Ok(0x5846_5342) => "xfs".to_owned(),
        Ok(0x9123_683e) => "btrfs".to_owned(),
        Ok(0x0102_1994) => "tmpfs".to_owned(),
        Ok(0x2fc1_2fc1) => "zfs".to_owned(),
        Ok(0x6969) => "nfs".to_owned(),
        Ok(0xf2f5_2010) => "f2fs".to_owned(),
        Ok(0x6573_5546) => "fuse".to_owned(),
        Ok(number) => format!("a file system of type {number:#x}"),
        Err(error) => format!("an unknown file system ({error})"),
    }
}
