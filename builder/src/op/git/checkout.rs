//! From a commit to a layer.
//!
//! Objects are fetched into a bare repository of the store that all builds with this remote share, under a lock; what is
//! there is not fetched again. As little history as the server gives is taken.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cache::claim::Wait;
use cache::digest::DiffId;
use cache::layer::sink::nowhere;
use cache::layer::stack::LayerStack;
use cache::mirror::Mirror;
use frontend::graph::GitOp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::GitError;
use super::program::{From, Git, Run};
use super::revision::{Revision, revision};
use crate::op::copy::resolve::{Step, resolve};
use crate::op::error::StepError;
use crate::op::remote::Fetching;

/// Names in `.git` that tell of the checkout and not of the commit.
const TRANSIENT: [&str; 4] = ["FETCH_HEAD", "ORIG_HEAD", "logs", "description"];

/// Makes the layer of a repository.
pub(crate) fn layer(fetching: &Fetching<'_>, op: &GitOp) -> Result<DiffId, StepError> {
    let git = Git::new(fetching, &op.remote)?;
    let revision = revision(&git, fetching, op)?;
    let store = Store::open(fetching, &git, &op.remote)?;
    store.fetch(fetching, &revision, &op.remote)?;
    let tree = fetching.layers.new_tree()?;
    let files = tree.make_work()?.join("checkout");
    make_dir(&files)?;
    store.check_out(op, &revision.commit, &files)?;
    let root = subdirectory(&git, op, &revision.commit, &files)?;
    let time = store.commit_time(&revision.commit)?;
    normalise(&root, time)?;
    for entry in fs::read_dir(&root).map_err(GitError::io("list", &root))? {
        let entry = entry.map_err(GitError::io("list", &root))?;
        let to = tree.upper().join(entry.file_name());
        fs::rename(entry.path(), &to).map_err(GitError::io("move", entry.path()))?;
    }
    fs::remove_dir_all(&files).map_err(GitError::io("remove", &files))?;
    let nothing = LayerStack::new(Vec::new());
    fetching.layers.freeze(tree, &nothing, &mut nowhere())
}

fn make_dir(path: &Path) -> Result<(), GitError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(GitError::io("make directory", path))
}

/// The repository of a remote in the store, locked.
struct Store<'a> {
    git: &'a Git<'a>,
    dir: PathBuf,
    _mirror: Mirror,
}

impl<'a> Store<'a> {
    fn open(fetching: &Fetching<'_>, git: &'a Git<'a>, remote: &str) -> Result<Self, StepError> {
        let wait = Wait::UntilCanceled(fetching.cancel.as_atomic());
        let mirror = Mirror::acquire(fetching.paths, remote, wait)?.ok_or(StepError::Canceled)?;
        let store = Self {
            git,
            dir: mirror.path().to_owned(),
            _mirror: mirror,
        };
        if !store.dir.join("HEAD").exists() {
            make_dir(&store.dir)?;
            store.own("prepare", ["init", "--quiet", "--bare"])?;
        }
        Ok(store)
    }

    /// Runs `git` on the repository itself.
    fn own<'s, A: IntoIterator<Item = &'s str>>(
        &self,
        attempt: &'static str,
        args: A,
    ) -> Result<Vec<u8>, StepError> {
        let dir = self.dir.as_os_str();
        let run = Run {
            attempt,
            dir: &self.dir,
            from: From::Network,
            env: &[("GIT_DIR", dir)],
        };
        self.git.run(&run, args)
    }

    /// Fetches a commit under `refs/build/ID`, unless it is here.
    fn fetch(
        &self,
        fetching: &Fetching<'_>,
        revision: &Revision,
        remote: &str,
    ) -> Result<(), StepError> {
        let commit = &revision.commit;
        let kept = format!("refs/build/{commit}");
        if self.resolves(&kept, commit) {
            return Ok(());
        }
        fetching.may_ask(&format!("{commit} of {}", self.git.shown))?;
        let shallow = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--force",
            "--",
        ];
        // Older servers give what has a name only; younger ones any commit. A name may have moved on meanwhile.
        let by_name = revision.name.as_ref().map(|name| format!("+{name}:{kept}"));
        for spec in by_name.into_iter().chain([format!("+{commit}:{kept}")]) {
            let args = shallow.iter().copied().chain([remote, spec.as_str()]);
            match self.own("fetch remote", args) {
                Ok(_) if self.resolves(&kept, commit) => return Ok(()),
                Err(StepError::Canceled) => return Err(StepError::Canceled),
                Ok(_) | Err(_) => {}
            }
        }
        let mut full = vec!["fetch", "--quiet", "--tags", "--force"];
        if self.dir.join("shallow").exists() {
            full.push("--unshallow");
        }
        full.extend(["--", remote, "+refs/*:refs/remote/*"]);
        self.own("fetch remote", full)?;
        let peeled = format!("{commit}^{{commit}}");
        match self.own("find the commit in", ["update-ref", &kept, &peeled]) {
            Ok(_) => Ok(()),
            Err(StepError::Canceled) => Err(StepError::Canceled),
            Err(_) => Err(GitError::NoReference {
                remote: self.git.shown.clone(),
                reference: commit.clone(),
            }
            .into()),
        }
    }

    /// Whether a name leads to a commit that is here.
    fn resolves(&self, name: &str, commit: &str) -> bool {
        let peeled = format!("{name}^{{commit}}");
        let args = [
            "rev-parse",
            "--quiet",
            "--verify",
            "--end-of-options",
            &peeled,
        ];
        let found = self.own("look into", args);
        found.is_ok_and(|found| found.trim_ascii() == commit.as_bytes())
    }

    /// Whole seconds since the epoch.
    fn commit_time(&self, commit: &str) -> Result<i64, StepError> {
        let args = ["show", "--no-patch", "--format=%ct", commit, "--"];
        let shown = self.own("read the commit of", args)?;
        let text = String::from_utf8_lossy(&shown);
        Ok(text.trim().parse().unwrap_or(0))
    }

    fn has_submodules(&self, commit: &str) -> bool {
        let path = format!("{commit}:.gitmodules");
        self.own("look into", ["cat-file", "-e", &path]).is_ok()
    }

    /// Puts the files of a commit into an empty directory.
    fn check_out(&self, op: &GitOp, commit: &str, files: &Path) -> Result<(), StepError> {
        let with_submodules = !op.skip_submodules && self.has_submodules(commit);
        if with_submodules || op.keep_git_dir {
            return self.clone_into(op, commit, files, with_submodules);
        }
        let index = files.with_extension("index");
        let env = [
            ("GIT_DIR", self.dir.as_os_str()),
            ("GIT_WORK_TREE", files.as_os_str()),
            ("GIT_INDEX_FILE", index.as_os_str()),
        ];
        let run = Run {
            attempt: "check out",
            dir: files,
            from: From::Network,
            env: &env,
        };
        self.git.run(&run, ["read-tree", commit])?;
        self.git
            .run(&run, ["checkout-index", "--all", "--force", "--quiet"])?;
        Ok(())
    }

    /// Makes a repository with one commit, checks it out with its submodules, and removes what is not to stay.
    fn clone_into(
        &self,
        op: &GitOp,
        commit: &str,
        files: &Path,
        with_submodules: bool,
    ) -> Result<(), StepError> {
        let run = |from| Run {
            attempt: "check out",
            dir: files,
            from,
            env: &[],
        };
        let network = run(From::Network);
        self.git.run(&network, ["init", "--quiet"])?;
        let origin = self.git.shown.as_str();
        self.git
            .run(&network, ["remote", "add", "origin", origin])?;
        let spec = format!("refs/build/{commit}");
        let args: [&OsStr; 8] = [
            "fetch".as_ref(),
            "--quiet".as_ref(),
            "--depth=1".as_ref(),
            "--no-tags".as_ref(),
            "--update-shallow".as_ref(),
            "--".as_ref(),
            self.dir.as_os_str(),
            spec.as_ref(),
        ];
        self.git.run(&run(From::Store), args)?;
        self.git.run(
            &network,
            ["checkout", "--quiet", "--force", "--detach", commit],
        )?;
        if with_submodules {
            let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
            let shallow = update.iter().copied().chain(["--depth=1"]);
            match self.git.run(&network, shallow) {
                Ok(_) => {}
                Err(StepError::Canceled) => return Err(StepError::Canceled),
                // A server that gives no single commits.
                Err(_) => drop(self.git.run(&network, update)?),
            }
        }
        if op.keep_git_dir {
            // An index that knows nothing of this checkout's inodes and times.
            self.git.run(&network, ["read-tree", commit])?;
            for name in TRANSIENT {
                remove(&files.join(".git").join(name))?;
            }
            return Ok(());
        }
        remove_git_dirs(files)
    }
}

/// Removes a file or a directory, if it is there.
fn remove(path: &Path) -> Result<(), StepError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    Ok(removed.map_err(GitError::io("remove", path))?)
}

/// Removes `.git` of a checkout and of the submodules in it.
fn remove_git_dirs(files: &Path) -> Result<(), StepError> {
    remove(&files.join(".git"))?;
    let walk = walkdir::WalkDir::new(files).follow_links(false);
    for entry in walk {
        let entry = entry.map_err(|error| GitError::io("list", files)(error.into()))?;
        if entry.file_name() == ".git" && entry.file_type().is_file() {
            remove(entry.path())?;
        }
    }
    Ok(())
}

/// The directory that becomes the root; links lead to it as if the checkout were `/`.
fn subdirectory(
    git: &Git<'_>,
    op: &GitOp,
    commit: &str,
    files: &Path,
) -> Result<PathBuf, StepError> {
    let Some(subdir) = &op.subdir else {
        return Ok(files.to_owned());
    };
    let resolved = resolve(subdir.as_bytes(), |path| look(&below(files, path)));
    let path = resolved.map(|resolved| below(files, &resolved.path));
    match path {
        Ok(path) if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) => Ok(path),
        Ok(_) | Err(_) => Err(GitError::NoSubdirectory {
            remote: git.shown.clone(),
            subdir: subdir.clone(),
            commit: commit.to_owned(),
        }
        .into()),
    }
}

fn below(files: &Path, path: &[u8]) -> PathBuf {
    files.join(OsStr::from_bytes(path))
}

/// What a checkout that nobody else writes has at a path.
fn look(path: &Path) -> io::Result<Option<Step>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(if metadata.is_dir() {
        Step::Directory
    } else if metadata.is_symlink() {
        Step::Link(fs::read_link(path)?.into_os_string().into_vec())
    } else {
        Step::Other
    }))
}

/// Gives everything the modes that git knows of and the time of the commit.
fn normalise(root: &Path, time: i64) -> Result<(), StepError> {
    let time = Timespec {
        tv_sec: time.max(0),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    // Contents first: a directory's time changes with what is in it.
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let entry = entry.map_err(|error| GitError::io("list", root)(error.into()))?;
        let path = entry.path();
        let metadata = fs::symlink_metadata(path).map_err(GitError::io("read", path))?;
        if !metadata.is_symlink() {
            let is_executable = metadata.is_dir() || metadata.permissions().mode() & 0o100 != 0;
            let mode = if is_executable { 0o755 } else { 0o644 };
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(path, permissions).map_err(GitError::io("set mode of", path))?;
        }
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| GitError::io("set time of", path)(errno.into()))?;
    }
    Ok(())
}
