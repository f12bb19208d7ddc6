//! The thread that owns the terminal while a build runs.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::channel::{Batch, Queue};
pub use super::frame::Size;
use super::json::Json;
use super::plain::{self, Plain};
use super::sink::EventSink;
use super::tracker::Tracker;
use super::tty::Tty;
use crate::clock::Clock;

/// Asks a terminal for its size; `None` if it does not tell.
pub type SizeFn = Box<dyn Fn() -> Option<Size> + Send + Sync>;

/// How a build is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A live view.
    Tty,
    /// BuildKit's lines.
    Plain,
    /// BuildKit's `SolveStatus` as JSON lines.
    RawJson,
    /// Nothing.
    Quiet,
}

/// Where a build is shown.
pub struct Terminal {
    /// Usually standard error. Should be unbuffered: every write is a whole update.
    pub writer: Box<dyn Write + Send>,
    /// Its size, asked before every frame.
    pub size: SizeFn,
    /// Whether it shows colours.
    pub is_colored: bool,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("is_colored", &self.is_colored)
            .finish_non_exhaustive()
    }
}

/// A running display. Dropped, it shows what it has and ends.
#[derive(Debug)]
pub struct Display {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<Tracker>>,
}

impl Display {
    /// Starts a display.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(mode: Mode, clock: Clock, terminal: Terminal) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(clock.clone()));
        let taken = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("display".to_owned())
            .spawn(move || run(&taken, Renderer::new(mode, terminal), &clock))?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Where the engine's events go. Events that come after [`Display::finish`] are forgotten.
    pub fn events(&self) -> Arc<dyn EventSink> {
        Arc::clone(&self.queue) as Arc<dyn EventSink>
    }

    /// Shows what is left and gives the terminal back: what is known of the build.
    pub fn finish(mut self) -> Tracker {
        self.end()
    }

    fn end(&mut self) -> Tracker {
        self.queue.close();
        // A display that panicked knows nothing; the build's outcome does not depend on it.
        let thread = self.thread.take();
        thread
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

fn run(queue: &Queue, mut renderer: Renderer, clock: &Clock) -> Tracker {
    let mut tracker = Tracker::default();
    loop {
        let batch = queue.take(renderer.timeout(clock.now()));
        let is_last = batch.is_last;
        renderer.update(batch, &mut tracker, clock.now());
        if is_last {
            return tracker;
        }
    }
}

enum Renderer {
    Tty(Tty),
    Plain {
        plain: Plain,
        next_print: Duration,
        out: Output,
    },
    RawJson {
        json: Json,
        out: Output,
    },
    Quiet,
}

impl Renderer {
    fn new(mode: Mode, terminal: Terminal) -> Self {
        match mode {
            Mode::Tty => Self::Tty(Tty::new(
                terminal.writer,
                terminal.size,
                terminal.is_colored,
            )),
            Mode::Plain => Self::Plain {
                plain: Plain::default(),
                next_print: Duration::ZERO,
                out: Output::new(terminal.writer),
            },
            Mode::RawJson => Self::RawJson {
                json: Json::default(),
                out: Output::new(terminal.writer),
            },
            Mode::Quiet => Self::Quiet,
        }
    }

    /// How long it can wait for events; `None` for ever.
    fn timeout(&self, now: Duration) -> Option<Duration> {
        match self {
            Self::Tty(tty) => tty.timeout(now),
            Self::Plain {
                plain, next_print, ..
            } => plain.is_due().then(|| next_print.saturating_sub(now)),
            Self::RawJson { .. } => None,
            // It shows nothing, so nothing is urgent: it is woken by news, the end, and a lot of output.
            Self::Quiet => Some(Duration::MAX),
        }
    }

    fn update(&mut self, batch: Batch, tracker: &mut Tracker, now: Duration) {
        match self {
            Self::Tty(tty) => {
                for event in &batch.events {
                    tracker.apply(event);
                }
                if batch.is_last {
                    tty.finish(tracker, now);
                } else {
                    tty.update(tracker, now);
                }
            }
            Self::Plain {
                plain,
                next_print,
                out,
            } => {
                for event in batch.events {
                    let index = tracker.apply(&event);
                    plain.observe(event, index, tracker);
                    if plain.is_full() {
                        out.write(|text| plain.print(tracker, now, text));
                    }
                }
                if batch.is_last || now >= *next_print {
                    *next_print = now + plain::INTERVAL;
                    out.write(|text| plain.print(tracker, now, text));
                }
            }
            Self::RawJson { json, out } => {
                for event in &batch.events {
                    tracker.apply(event);
                }
                out.write(|text| json.write(&batch.events, tracker, text));
            }
            Self::Quiet => {
                for event in &batch.events {
                    tracker.apply(event);
                }
            }
        }
    }
}

/// A writer that is left alone once it has failed.
struct Output {
    writer: Option<Box<dyn Write + Send>>,
    buffer: Vec<u8>,
}

impl Output {
    fn new(writer: Box<dyn Write + Send>) -> Self {
        Self {
            writer: Some(writer),
            buffer: Vec::new(),
        }
    }

    fn write(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.buffer.clear();
        fill(&mut self.buffer);
        let Some(writer) = &mut self.writer else {
            return;
        };
        if self.buffer.is_empty() {
            return;
        }
        let written = writer.write_all(&self.buffer).and_then(|()| writer.flush());
        if let Err(error) = written {
            tracing::debug!(%error, "progress ends: cannot write to the terminal");
            self.writer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::tracker::tests::{added, completed, failed, output, started, vertex};
    use super::*;
    use crate::lock::locked;
    use crate::progress::event::Event;

    /// A terminal's other end: keeps what is written, or is gone.
    #[derive(Clone, Default)]
    struct Wire {
        written: Arc<Mutex<Vec<u8>>>,
        is_gone: bool,
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // Short, as a pipe may be.
            let taken = bytes.len().min(7);
            locked(&self.written).extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(mode: Mode, wire: &Wire, events: Vec<Event>) -> (Tracker, String) {
        let terminal = Terminal {
            writer: Box::new(wire.clone()),
            size: Box::new(|| None),
            is_colored: false,
        };
        let display = Display::start(mode, Clock::system(), terminal).unwrap();
        let sink = display.events();
        for event in events {
            sink.emit(event);
        }
        let tracker = display.finish();
        sink.emit(started("late"));
        let written = wire.written.lock().unwrap().clone();
        (tracker, String::from_utf8(written).unwrap())
    }

    fn a_build() -> Vec<Event> {
        vec![
            added("a", "[1/1] RUN x"),
            started("a"),
            output("a", "hi\n"),
            completed("a"),
        ]
    }

    #[test]
    fn every_mode_shows_its_own() {
        let cases = [
            (Mode::Plain, " hi\n#1 DONE 0.0s\n"),
            (Mode::RawJson, "\"data\":\"aGkK\""),
            (Mode::Tty, "\n[+] Building 0.0s (1/1) FINISHED\n"),
            (Mode::Quiet, ""),
        ];
        for (mode, want) in cases {
            let (tracker, text) = shown(mode, &Wire::default(), a_build());
            assert!(text.contains(want), "{mode:?}: {text}");
            assert_eq!(tracker.ended_count(), 1);
            assert_eq!(text.is_empty(), mode == Mode::Quiet);
        }
    }

    #[test]
    fn a_terminal_that_is_gone_breaks_nothing() {
        for mode in [Mode::Plain, Mode::RawJson, Mode::Tty, Mode::Quiet] {
            let wire = Wire {
                is_gone: true,
                ..Wire::default()
            };
            let mut events = a_build();
            for _ in 0..2_000 {
                events.push(output("a", &"x".repeat(4096)));
            }
            events.push(failed("b", "exit code: 1"));
            let (tracker, _) = shown(mode, &wire, events);
            assert!(tracker.vertex(&vertex("b")).is_some());
        }
    }

    #[test]
    fn a_display_that_is_dropped_shows_what_it_has() {
        let wire = Wire::default();
        let terminal = Terminal {
            writer: Box::new(wire.clone()),
            size: Box::new(|| None),
            is_colored: false,
        };
        let display = Display::start(Mode::Plain, Clock::system(), terminal).unwrap();
        display.events().emit(started("a"));
        drop(display);
        assert_eq!(&*wire.written.lock().unwrap(), b"#1 sha256:a\n");
    }
}
