//! The queue between the engine and the display.
//!
//! One queue, so that events keep their order. Command output counts against a limit and waits when it is reached;
//! every other event is taken at once. After [`Queue::close`] events are forgotten.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::event::{Event, Timed};
use super::sink::EventSink;
use crate::clock::Clock;
use crate::lock::locked;

/// Memory that command output may take while it waits to be shown. Large enough that a display that draws 10 times a second takes a
/// 10 MB/s log without stopping it, small against the memory budget.
const OUTPUT_LIMIT_BYTES: usize = 1 << 20;

/// Command output for which a display is woken before its time: to be woken for every chunk costs as much as to show it.
const PRESSING_BYTES: usize = OUTPUT_LIMIT_BYTES / 4;

/// What was waiting.
#[derive(Debug)]
pub(super) struct Batch {
    /// The events in order.
    pub(super) events: Vec<Timed>,
    /// Nothing will follow.
    pub(super) is_last: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    clock: Clock,
    inner: Mutex<Inner>,
    /// Signalled when there is something to take.
    filled: Condvar,
    /// Signalled when output was taken.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Timed>,
    output_bytes: usize,
    /// Whether something other than output waits.
    has_news: bool,
    /// Whether who waits comes back by itself.
    is_timed: bool,
    is_closed: bool,
}

impl Inner {
    /// Whether there is something for which a display that comes back by itself is woken.
    fn is_pressing(&self) -> bool {
        self.is_closed || self.has_news || self.output_bytes >= PRESSING_BYTES
    }
}

impl Queue {
    /// An empty queue whose events are timed by `clock`.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            inner: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
        }
    }

    /// Forgets what comes from now on and wakes whoever waits.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Takes all that waits; if nothing does, waits for something, the end, or `timeout`. Little output waits for
    /// `timeout` too.
    pub(super) fn take(&self, timeout: Option<Duration>) -> Batch {
        let mut inner = self.lock();
        inner.is_timed = timeout.is_some();
        inner = match timeout {
            None => {
                let is_idle = |inner: &mut Inner| inner.events.is_empty() && !inner.is_closed;
                self.filled
                    .wait_while(inner, is_idle)
                    .unwrap_or_else(PoisonError::into_inner)
            }
            Some(timeout) => {
                let is_idle = |inner: &mut Inner| !inner.is_pressing();
                self.filled
                    .wait_timeout_while(inner, timeout, is_idle)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        inner.output_bytes = 0;
        inner.has_news = false;
        self.drained.notify_all();
        Batch {
            events: std::mem::take(&mut inner.events).into(),
            is_last: inner.is_closed,
        }
    }

    fn add(&self, mut inner: MutexGuard<'_, Inner>, events: impl IntoIterator<Item = Event>) {
        // Read under the lock, so that times in the queue never run backwards.
        let at = self.clock.now();
        let timed = events.into_iter().map(|event| Timed { at, event });
        inner.events.extend(timed);
        let is_woken = !inner.is_timed || inner.is_pressing();
        drop(inner);
        if is_woken {
            self.filled.notify_one();
        }
    }

    // A panic of another thread while it held the lock leaves a queue that is still a queue.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        locked(&self.inner)
    }
}

impl EventSink for Queue {
    fn emit(&self, event: Event) {
        let mut inner = self.lock();
        if let Event::Output { bytes, .. } = &event {
            let size = bytes.len() + size_of::<Timed>();
            let is_full = |inner: &mut Inner| {
                inner.output_bytes > 0
                    && inner.output_bytes + size > OUTPUT_LIMIT_BYTES
                    && !inner.is_closed
            };
            inner = self
                .drained
                .wait_while(inner, is_full)
                .unwrap_or_else(PoisonError::into_inner);
            inner.output_bytes += size;
        } else {
            inner.has_news = true;
        }
        if inner.is_closed {
            return;
        }
        self.add(inner, [event]);
    }

    fn emit_all(&self, events: Vec<Event>) {
        let mut inner = self.lock();
        if !inner.is_closed && !events.is_empty() {
            inner.has_news = true;
            self.add(inner, events);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::progress::event::{Stream, VertexRef};

    fn output(length: usize) -> Event {
        Event::Output {
            vertex: VertexRef("sha256:a".into()),
            stream: Stream::Stdout,
            bytes: vec![b'x'; length],
        }
    }

    fn started() -> Event {
        Event::Started {
            vertex: VertexRef("sha256:a".into()),
        }
    }

    #[test]
    fn order_is_kept_and_times_do_not_run_backwards() {
        let queue = Queue::new(Clock::system());
        queue.emit(started());
        queue.emit(output(3));
        queue.emit(started());
        let batch = queue.take(None);
        let kinds: Vec<bool> = batch
            .events
            .iter()
            .map(|timed| matches!(timed.event, Event::Output { .. }))
            .collect();
        assert_eq!(kinds, [false, true, false]);
        assert!(batch.events.is_sorted_by_key(|timed| timed.at));
        assert!(!batch.is_last);
    }

    #[test]
    fn many_at_once_come_together() {
        let queue = Queue::new(Clock::system());
        queue.emit(started());
        queue.emit_all(vec![started(), started()]);
        queue.emit_all(Vec::new());
        assert_eq!(queue.take(None).events.len(), 3);
        let hour = Some(Duration::from_secs(3_600));
        queue.emit_all(vec![started()]);
        assert_eq!(queue.take(hour).events.len(), 1);
        queue.close();
        queue.emit_all(vec![started()]);
        assert!(queue.take(None).events.is_empty());
    }

    #[test]
    fn waiting_ends_by_timeout_and_by_close() {
        let queue = Queue::new(Clock::system());
        assert!(queue.take(Some(Duration::from_millis(1))).events.is_empty());
        queue.close();
        assert!(queue.take(None).is_last);
        queue.emit(started());
        assert!(queue.take(None).events.is_empty());
    }

    #[test]
    fn little_output_wakes_nobody_before_the_time() {
        let hour = Some(Duration::from_secs(3_600));
        let short = Duration::from_millis(20);
        let queue = Arc::new(Queue::new(Clock::system()));
        queue.emit(output(1));
        let begun = std::time::Instant::now();
        assert_eq!(queue.take(Some(short)).events.len(), 1);
        assert!(begun.elapsed() >= short);
        for pressing in [started(), output(PRESSING_BYTES)] {
            let writer = std::thread::spawn({
                let queue = Arc::clone(&queue);
                move || {
                    queue.emit(output(1));
                    std::thread::sleep(short);
                    queue.emit(pressing);
                }
            });
            assert_eq!(queue.take(hour).events.len(), 2);
            writer.join().unwrap();
        }
        // Who does not come back by itself is told of everything.
        let writer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.emit(output(1))
        });
        assert_eq!(queue.take(None).events.len(), 1);
        writer.join().unwrap();
    }

    #[test]
    fn output_waits_for_room_and_nothing_else_does() {
        let queue = Arc::new(Queue::new(Clock::system()));
        // An oversized chunk is taken when nothing else waits: it must go through some time.
        queue.emit(output(OUTPUT_LIMIT_BYTES * 2));
        queue.emit(started());
        let emitted = Arc::new(AtomicUsize::new(0));
        let writer = std::thread::spawn({
            let (queue, emitted) = (Arc::clone(&queue), Arc::clone(&emitted));
            move || {
                queue.emit(output(1));
                emitted.fetch_add(1, Ordering::SeqCst);
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(emitted.load(Ordering::SeqCst), 0);
        assert_eq!(queue.take(None).events.len(), 2);
        writer.join().unwrap();
        assert_eq!(queue.take(None).events.len(), 1);
    }

    #[test]
    fn close_frees_a_writer_that_waits() {
        let queue = Arc::new(Queue::new(Clock::system()));
        queue.emit(output(OUTPUT_LIMIT_BYTES));
        let writer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.emit(output(1))
        });
        queue.close();
        writer.join().unwrap();
        assert_eq!(queue.take(None).events.len(), 1);
    }
}
