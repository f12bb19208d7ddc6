//! Builds that a test watches, interrupts and kills; and what they must not leave behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use super::{Outcome, Place, wait_until};

/// A build at work; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a command and reads its standard error.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (lines, text) = (
            BufReader::new(child.stderr.take().unwrap()),
            Arc::clone(&stderr),
        );
        let reader = std::thread::spawn(move || {
            for line in lines.split(b'\n').map_while(Result::ok) {
                let mut text = text.lock().unwrap();
                text.push_str(&String::from_utf8_lossy(&line));
                text.push('\n');
            }
        });
        Self {
            child,
            stderr,
            reader: Some(reader),
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until this text is in its standard error.
    pub(crate) fn wait_for(&self, text: &str) -> &Self {
        let seen = || self.stderr.lock().unwrap().contains(text);
        let stderr = || self.stderr.lock().unwrap().clone();
        assert!(
            wait_until(Duration::from_secs(60), seen),
            "no `{text}` in:\n{}",
            stderr()
        );
        self
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> &Self {
        super::signal(self.child.id(), signal);
        self
    }

    /// Waits for its end, not longer than `limit`.
    #[must_use]
    pub(crate) fn end(mut self, limit: Duration) -> Outcome {
        let child = &mut self.child;
        let ended = wait_until(limit, || matches!(child.try_wait(), Ok(Some(_))));
        let stderr = || self.stderr.lock().unwrap().clone();
        assert!(ended, "still running after {limit:?}:\n{}", stderr());
        let code = self.child.wait().unwrap().code();
        self.reader.take().unwrap().join().unwrap();
        let mut stdout = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut stdout)
            .unwrap();
        Outcome {
            code,
            stdout,
            stderr: stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asserts that soon no process has `word` in its command line, environment, current directory or mounts.
pub(crate) fn assert_nothing_runs(word: &str) {
    let mut left = Vec::new();
    let gone = wait_until(Duration::from_secs(5), || {
        left = processes_with(word);
        left.is_empty()
    });
    assert!(gone, "left behind:\n{}", left.join("\n"));
}

fn processes_with(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| *id != std::process::id())
        .filter_map(|id| traces(id, word))
        .collect()
}

/// Which traces of `word` a process has. The mounts of the test's own namespace are no process's trace.
fn traces(id: u32, word: &str) -> Option<String> {
    let dir = Path::new("/proc").join(id.to_string());
    let link = |name: &str| fs::read_link(dir.join(name)).unwrap_or_default();
    let has = |name: &str| {
        let bytes = fs::read(dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(word)
    };
    let own_mounts = link("ns/mnt") == fs::read_link("/proc/self/ns/mnt").unwrap();
    let cwd = link("cwd").to_string_lossy().contains(word);
    let found = has("cmdline") || has("environ") || cwd || (!own_mounts && has("mountinfo"));
    let cmdline = fs::read_to_string(dir.join("cmdline")).unwrap_or_default();
    found.then(|| format!("{id} {}", cmdline.replace('\0', " ")))
}

/// Asserts that nothing is mounted at or below `path`.
pub(crate) fn assert_nothing_mounted(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = path.to_str().unwrap();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(path)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Kilobytes of memory that a command took at most, with its outcome.
pub(crate) fn measured(place: &Place, dir: &Path, flags: &[&str]) -> (Outcome, u64) {
    let mut command = place.build_command();
    command.args(flags).arg(dir);
    let mut timed = Command::new("/bin/sh");
    // The shell's own limit on what may be mapped ends a build that takes too much.
    timed
        .args(["-c", "ulimit -n 1024; exec \"$@\"", "sh"])
        .arg(command.get_program());
    timed
        .args(command.get_args())
        .env_clear()
        .stdin(Stdio::null());
    timed.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let child = timed.stderr(Stdio::piped()).spawn().unwrap();
    let spent = spent_by(&child);
    let output = child.wait_with_output().unwrap();
    let outcome = Outcome {
        code: output.status.code(),
        stdout: String::new(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    (outcome, spent.most_memory)
}

/// What a process took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// Kilobytes of memory at most.
    pub(crate) most_memory: u64,
    /// Time of processors, that of its children left out.
    pub(crate) processor: Duration,
}

/// Watches a process until it ends; it still has to be waited for.
pub(crate) fn spent_by(child: &Child) -> Spent {
    let dir = PathBuf::from(format!("/proc/{}", child.id()));
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let id = WaitId::Pid(Pid::from_child(child));
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let mut most_memory = 0;
    while waitid(id.clone(), ended).unwrap().is_none() {
        let text = read("status");
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        most_memory = most_memory.max(now.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The fields behind the name, which may have blanks: utime and stime are the twelfth and thirteenth.
    let stat = read("stat");
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    let processor = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    Spent {
        most_memory,
        processor,
    }
}
