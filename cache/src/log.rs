//! What steps wrote, whole and byte for byte.
//!
//! # Layout
//!
//! ```text
//! logs/N/          one folder a build that ran a command, counted up
//!   M.json           the heading of its M-th command: name, vertex, that it has not ended; behind it the same with how it
//!                    ended, where it has
//!   M.log            all it wrote to both streams, in the order in which it came
//! ```
//!
//! A build holds a flock on its folder. Folders beyond [`KEPT_BUILDS`] that nobody holds go when a new one is
//! made, any that nobody holds by a collection: it may find one between its being made and its being held, so a build
//! looks whether the folder it holds still has its name, and makes another if not. Nothing is synced: a log is worth no
//! wait, and after a power cut it may be short.
//!
//! Not here: what is shown while a build runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::claim::{LockMode, Wait, lock, names_same_file};
use crate::io::{Attempt, IoError, make_private_dir, names_in, read_if_present};
use crate::lock::locked;
use crate::root::StatePaths;

/// Builds whose logs stay: enough to look at yesterday's, few enough to list.
pub const KEPT_BUILDS: usize = 32;

/// The logs of one build. Nothing is made before its first step writes.
#[derive(Debug)]
pub struct BuildLog {
    paths: StatePaths,
    dir: Mutex<Option<Dir>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Dir {
    path: PathBuf,
    /// Its lock keeps the folder.
    _held: File,
}

/// What a step is and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// Its name, such as `[2/3] RUN make`.
    pub name: String,
    /// The digest by which events name it.
    pub vertex: String,
    /// How it ended.
    pub ending: Ending,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Not yet; or the build was killed.
    Open,
    /// With success.
    Done,
    /// Not so, in one line.
    Failed(String),
}

/// The log of a running step.
#[derive(Debug)]
pub struct StepLog {
    file: File,
    path: PathBuf,
    heading: Heading,
    headings: File,
}

impl BuildLog {
    /// A log that has no folder yet.
    pub fn new(paths: &StatePaths) -> Self {
        Self {
            paths: paths.clone(),
            dir: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    /// Begins the log of a step.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn step(&self, name: &str, vertex: &str) -> Result<StepLog, IoError> {
        let dir = self.dir()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let heading = Heading {
            name: name.to_owned(),
            vertex: vertex.to_owned(),
            ending: Ending::Open,
        };
        let path = dir.join(format!("{number}.log"));
        let mut headings = create(&path.with_extension("json"))?;
        write_heading(&mut headings, &path, &heading)?;
        Ok(StepLog {
            file: create(&path)?,
            path,
            heading,
            headings,
        })
    }

    fn dir(&self) -> Result<PathBuf, IoError> {
        let mut dir = locked(&self.dir);
        if let Some(dir) = &*dir {
            return Ok(dir.path.clone());
        }
        let made = make_dir(&self.paths)?;
        let path = made.path.clone();
        *dir = Some(made);
        Ok(path)
    }
}

impl StepLog {
    /// Adds what the step wrote.
    ///
    /// # Errors
    ///
    /// The disk is full, say.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), IoError> {
        self.file.write_all(bytes).attempt("write", &self.path)
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub fn end(mut self, ending: Ending) -> Result<(), IoError> {
        self.heading.ending = ending;
        write_heading(&mut self.headings, &self.path, &self.heading)
    }
}

fn create(path: &Path) -> Result<File, IoError> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(0o600);
    options.open(path).attempt("create", path)
}

/// Adds a heading to those that the step has. What was not written whole is none, so it needs no other name meanwhile.
fn write_heading(headings: &mut File, log: &Path, heading: &Heading) -> Result<(), IoError> {
    let text = serde_json::to_vec(heading).map_err(io::Error::from);
    text.and_then(|text| headings.write_all(&text))
        .attempt("write", &log.with_extension("json"))
}

/// The last heading of those that were written.
fn last_heading(text: &[u8]) -> Option<Heading> {
    let headings = serde_json::Deserializer::from_slice(text).into_iter();
    headings.map_while(Result::ok).last()
}

/// A log that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Which of its build.
    pub number: u64,
    /// What it is.
    pub heading: Heading,
    /// Bytes so far.
    pub size: u64,
    path: PathBuf,
}

impl Logged {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// It is gone: newer builds took its place.
    pub fn open(&self) -> Result<File, IoError> {
        File::open(&self.path).attempt("open", &self.path)
    }
}

/// The builds whose logs are kept, oldest first.
///
/// # Errors
///
/// The store cannot be read.
pub fn builds(paths: &StatePaths) -> Result<Vec<u64>, IoError> {
    let mut numbers: Vec<u64> = names_in(&paths.logs())?
        .iter()
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The steps of a build in the order they started.
///
/// # Errors
///
/// The store cannot be read.
pub fn steps(paths: &StatePaths, build: u64) -> Result<Vec<Logged>, IoError> {
    let dir = paths.logs().join(build.to_string());
    let mut steps = Vec::new();
    for name in names_in(&dir)? {
        let path = dir.join(&name);
        let number = name.to_str().and_then(|name| name.strip_suffix(".log"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        let heading = read_if_present(&path.with_extension("json"))?;
        let heading = heading.and_then(|text| last_heading(&text));
        if let (Some(heading), Ok(metadata)) = (heading, fs::metadata(&path)) {
            steps.push(Logged {
                number,
                heading,
                size: metadata.len(),
                path,
            });
        }
    }
    steps.sort_by_key(|step| step.number);
    Ok(steps)
}

fn make_dir(paths: &StatePaths) -> Result<Dir, IoError> {
    let logs = paths.logs();
    make_private_dir(&logs)?;
    loop {
        let known = builds(paths)?;
        remove_old(&logs, &known);
        let path = logs.join((known.last().unwrap_or(&0) + 1).to_string());
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                if let Some(held) = hold(&path)? {
                    return Ok(Dir { path, _held: held });
                }
            }
            // Another build was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).attempt("create directory", &path),
        }
    }
}

/// Holds a folder that was just made; `None` if a collection found it before that, and another build perhaps made one of
/// the same name since, which holds it, or had it for its logs.
fn hold(path: &Path) -> Result<Option<File>, IoError> {
    let dir = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.attempt("open", path)?,
    };
    let is_ours = lock(&dir, path, LockMode::Exclusive, Wait::Never)?
        && names_same_file(path, &dir)?
        && names_in(path)?.is_empty();
    Ok(is_ours.then_some(dir))
}

/// Best effort: what cannot be removed now goes another time.
fn remove_old(logs: &Path, known: &[u64]) {
    let Some(count) = known.len().checked_sub(KEPT_BUILDS - 1) else {
        return;
    };
    for number in &known[..count] {
        discard(&logs.join(number.to_string())).ok();
    }
}

/// Removes the logs of one build, unless it still runs. What has its name is looked at, whichever build it was of when the
/// name was found.
pub(crate) fn discard(path: &Path) -> Result<(), IoError> {
    let dir = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.attempt("open", path)?,
    };
    let is_ours = lock(&dir, path, LockMode::Exclusive, Wait::Never)?;
    if !is_ours || !names_same_file(path, &dir)? {
        return Ok(());
    }
    // While it is locked, so that nobody holds what is half gone.
    fs::remove_dir_all(path).attempt("remove", path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn text(step: &Logged) -> Vec<u8> {
        let mut bytes = Vec::new();
        step.open().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_byte_is_kept_under_its_step() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        assert!(builds(&paths).unwrap().is_empty());
        let build = BuildLog::new(&paths);
        assert!(!paths.logs().exists());
        let mut one = build.step("[1/2] RUN a", "sha256:1").unwrap();
        let mut two = build.step("[2/2] RUN b", "sha256:2").unwrap();
        one.write(b"partial").unwrap();
        two.write(b"\0\xff\r\n").unwrap();
        one.write(b" line").unwrap();
        one.end(Ending::Done).unwrap();
        two.end(Ending::Failed("exit code: 3".into())).unwrap();
        build.step("[3/3] RUN c", "sha256:3").unwrap();
        assert_eq!(builds(&paths).unwrap(), [1]);
        let steps = steps(&paths, 1).unwrap();
        let shown: Vec<_> = steps
            .iter()
            .map(|step| (step.number, step.heading.name.as_str(), step.size))
            .collect();
        assert_eq!(
            shown,
            [
                (1, "[1/2] RUN a", 12),
                (2, "[2/2] RUN b", 4),
                (3, "[3/3] RUN c", 0)
            ]
        );
        assert_eq!(text(&steps[0]), b"partial line");
        assert_eq!(text(&steps[1]), b"\0\xff\r\n");
        assert_eq!(
            steps[1].heading.ending,
            Ending::Failed("exit code: 3".into())
        );
        assert_eq!(steps[2].heading.ending, Ending::Open);
    }

    #[test]
    fn a_heading_that_was_not_written_whole_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let step = BuildLog::new(&paths).step("RUN a", "v").unwrap();
        step.end(Ending::Failed("exit code: 1".into())).unwrap();
        let path = paths.logs().join("1/1.json");
        let whole = fs::read(&path).unwrap();
        let endings = (0..=whole.len()).map(|length| {
            fs::write(&path, &whole[..length]).unwrap();
            let found = steps(&paths, 1).unwrap();
            found.first().map(|step| step.heading.ending.clone())
        });
        let mut endings: Vec<_> = endings.collect();
        endings.dedup();
        let failed = Ending::Failed("exit code: 1".into());
        assert_eq!(endings, [None, Some(Ending::Open), Some(failed)]);
    }

    #[test]
    fn collections_take_no_folder_from_under_a_build() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    for number in builds(&paths).unwrap() {
                        discard(&paths.logs().join(number.to_string())).unwrap();
                    }
                }
            });
            let build = || {
                for _ in 0..300 {
                    let build = BuildLog::new(&paths);
                    let mut step = build.step("RUN a", "v").unwrap();
                    step.write(b"text").unwrap();
                    let number = build.dir().unwrap();
                    let number = number.file_name().unwrap().to_str().unwrap();
                    let steps = steps(&paths, number.parse().unwrap()).unwrap();
                    assert_eq!(text(&steps[0]), b"text");
                    step.end(Ending::Done).unwrap();
                }
            };
            let builds = [scope.spawn(build), scope.spawn(build)];
            let ended = builds.map(|build| build.join().is_ok());
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(ended, [true, true]);
        });
    }

    #[test]
    fn what_a_collection_removes_at_this_moment_is_not_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        assert!(hold(&path).unwrap().is_none());
        fs::create_dir(&path).unwrap();
        let other = hold(&path).unwrap();
        assert!(other.is_some());
        assert!(hold(&path).unwrap().is_none(), "somebody has it");
        fs::remove_dir(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("1.log"), "").unwrap();
        assert!(hold(&path).unwrap().is_none(), "somebody had it");
        fs::remove_file(path.join("1.log")).unwrap();
        let held = hold(&path).unwrap();
        assert!(held.is_some());
        discard(&path).unwrap();
        assert!(path.exists(), "held");
        drop(held);
        discard(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn old_builds_go_unless_they_still_run() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let running = BuildLog::new(&paths);
        running.step("a", "v").unwrap();
        for _ in 0..KEPT_BUILDS + 3 {
            BuildLog::new(&paths).step("b", "v").unwrap();
        }
        let kept = builds(&paths).unwrap();
        assert_eq!(kept.first(), Some(&1));
        assert_eq!(kept.len(), KEPT_BUILDS + 1);
        drop(running);
        BuildLog::new(&paths).step("c", "v").unwrap();
        let kept = builds(&paths).unwrap();
        assert!(!kept.contains(&1) && kept.len() == KEPT_BUILDS, "{kept:?}");
    }
}
