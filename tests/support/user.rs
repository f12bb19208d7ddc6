//! The unprivileged user of the tests, made when first needed.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::{copy_program, finish, program};

/// Its name; useradd gives it ranges in /etc/subuid and /etc/subgid.
const NAME: &str = "build-test";

/// A user of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// The user of the tests.
    pub(crate) fn get() -> Self {
        static USER: OnceLock<User> = OnceLock::new();
        *USER.get_or_init(|| {
            program("newuidmap", "uidmap");
            if entry("/etc/passwd").is_none() {
                // Another process of tests may be faster: what counts is that it is there.
                let _made = finish(Command::new(program("useradd", "passwd")).args(["-m", NAME]));
            }
            for file in ["/etc/subuid", "/etc/subgid"] {
                assert!(entry(file).is_some(), "{NAME} has no range in {file}");
            }
            let fields = entry("/etc/passwd").expect("useradd makes the user");
            Self {
                uid: fields[2].parse().unwrap(),
                gid: fields[3].parse().unwrap(),
            }
        })
    }

    /// Makes a command run as this user, without root's other groups.
    pub(crate) fn becomes(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives it a file or directory.
    pub(crate) fn owns(self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).unwrap();
    }

    /// A copy of a file that it can read and run.
    pub(crate) fn gets(self, from: &Path, to: &Path) {
        copy_program(from, to);
        self.owns(to);
    }
}

fn entry(file: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{NAME}:")))?;
    Some(line.split(':').map(str::to_owned).collect())
}
