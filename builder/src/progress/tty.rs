//! The live terminal view. [`super::frame`] says what is shown; here it is drawn, by indicatif.
//!
//! indicatif gets one bar whose message is the whole frame: given more bars than rows it would leave lines behind, and
//! a frame that fits never does. Finished vertices are printed above it once and belong to the scrollback.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::display::SizeFn;
use super::frame::{self, Line, Size, Tone};
use super::tracker::Tracker;
use crate::lock::locked;

/// Shortest time between two frames: 15 a second.
const INTERVAL: Duration = Duration::from_millis(67);

/// A build that ends sooner is shown once, at its end.
const FIRST_FRAME_AFTER: Duration = Duration::from_millis(250);

/// Assumed when the terminal does not tell.
const DEFAULT_SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

/// Draws the view.
#[derive(Debug)]
pub(super) struct Tty {
    screen: Screen,
    bar: ProgressBar,
    is_colored: bool,
    /// Vertices that stand in the scrollback.
    printed: BTreeSet<usize>,
    /// What stands on the terminal below it, and for which size it was made.
    drawn: Option<(Size, Vec<Line>)>,
    next_frame: Option<Duration>,
}

impl Tty {
    /// A view on a terminal, with nothing on it yet.
    pub(super) fn new(writer: Box<dyn Write + Send>, size: SizeFn, is_colored: bool) -> Self {
        let screen = Screen(Arc::new(Inner {
            writer: Mutex::new(writer),
            size,
        }));
        Self {
            bar: new_bar(&screen),
            screen,
            is_colored,
            printed: BTreeSet::new(),
            drawn: None,
            next_frame: None,
        }
    }

    /// How long nothing needs to be drawn.
    pub(super) fn timeout(&self, now: Duration) -> Option<Duration> {
        Some(self.next_frame?.saturating_sub(now))
    }

    /// Draws a frame if one is due. Called after every event and when the timeout has passed.
    pub(super) fn update(&mut self, tracker: &Tracker, now: Duration) {
        let Some(begun) = tracker.begun() else { return };
        let due = *self.next_frame.get_or_insert(begun + FIRST_FRAME_AFTER);
        if now < due {
            return;
        }
        self.next_frame = Some(now + INTERVAL);
        let size = self.screen.0.current_size();
        self.forget_resized(size);
        self.print_ended(tracker, size);
        let lines = frame::live(tracker, size, now);
        let text: Vec<String> = lines.iter().map(|line| self.painted(line)).collect();
        self.bar.set_message(text.join("\n"));
        self.drawn = Some((size, lines));
    }

    /// Takes the live part away and prints what ended and the final header.
    pub(super) fn finish(&mut self, tracker: &Tracker, now: Duration) {
        let size = self.screen.0.current_size();
        self.forget_resized(size);
        self.print_ended(tracker, size);
        self.bar.finish_and_clear();
        if tracker.begun().is_some() {
            let header = frame::header(tracker, size, now, true);
            self.screen.0.write(&format!("{}\n", header.text));
        }
    }

    fn print_ended(&mut self, tracker: &Tracker, size: Size) {
        let mut ended: Vec<(Option<Duration>, usize)> = (0..tracker.vertices().len())
            .filter(|index| !self.printed.contains(index))
            .map(|index| (tracker.vertices()[index].phase.ended(), index))
            .filter(|(ended, _)| ended.is_some())
            .collect();
        ended.sort_unstable();
        let mut text = Vec::new();
        for (_, index) in ended {
            self.printed.insert(index);
            let lines = frame::ended(&tracker.vertices()[index], size);
            text.extend(lines.iter().map(|line| self.painted(line)));
        }
        if text.is_empty() {
            return;
        }
        match self.drawn {
            Some(_) => self.bar.println(text.join("\n")),
            // indicatif prints above a bar only; there is none yet.
            None => self.screen.0.write(&(text.join("\n") + "\n")),
        }
    }

    /// Takes the old frame away if the terminal has another width now. indicatif fills its lines with blanks to the
    /// width, so a terminal that wraps anew takes them for one paragraph: the frame stands on other rows than indicatif
    /// believes.
    fn forget_resized(&mut self, size: Size) {
        let other = |drawn: &mut (Size, Vec<Line>)| drawn.0.columns != size.columns;
        let Some((old, lines)) = self.drawn.take_if(other) else {
            return;
        };
        let cells = lines.len() * usize::from(old.columns);
        let rows = cells.div_ceil(usize::from(size.columns).max(1));
        let up = rows.min(usize::from(size.rows)).saturating_sub(1);
        let up = if up == 0 {
            String::new()
        } else {
            format!("\x1b[{up}A")
        };
        self.screen.0.write(&format!("\r{up}\x1b[J"));
        // A bar that is dropped takes its frame away, which is gone already.
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
        self.bar = new_bar(&self.screen);
    }

    fn painted(&self, line: &Line) -> String {
        let code = match line.tone {
            Tone::Plain => return line.text.clone(),
            Tone::Done => "34",
            Tone::Failed => "31",
            Tone::Canceled => "33",
            Tone::Output => "2",
        };
        if !self.is_colored {
            return line.text.clone();
        }
        format!("\x1b[{code}m{}\x1b[0m", line.text)
    }
}

fn new_bar(screen: &Screen) -> ProgressBar {
    let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
    let style =
        ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// The terminal, as indicatif writes to it.
#[derive(Clone, Debug)]
struct Screen(Arc<Inner>);

struct Inner {
    writer: Mutex<Box<dyn Write + Send>>,
    size: SizeFn,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Inner {
    fn current_size(&self) -> Size {
        (self.size)().unwrap_or(DEFAULT_SIZE)
    }

    fn try_write(&self, text: &str) -> io::Result<()> {
        let mut writer = locked(&self.writer);
        writer.write_all(text.as_bytes())
    }

    /// Writes, and does not mind if the terminal is gone.
    fn write(&self, text: &str) {
        let written = self.try_write(text).and_then(|()| {
            let mut writer = locked(&self.writer);
            writer.flush()
        });
        if let Err(error) = written {
            tracing::debug!(%error, "cannot write to the terminal");
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.0.current_size().columns
    }

    fn height(&self) -> u16 {
        self.0.current_size().rows
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.0.try_write(&format!("{s}\n"))
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.0.try_write(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.try_write("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let mut writer = locked(&self.0.writer);
        writer.flush()
    }
}

impl Screen {
    // To move by 0 would move by 1.
    fn move_cursor(&self, n: usize, direction: char) -> io::Result<()> {
        if n == 0 {
            return Ok(());
        }
        self.0.try_write(&format!("\x1b[{n}{direction}"))
    }
}
