//! The same work on many items, on a few threads.
//!
//! Threads are joined, here as everywhere, unless the program panics: to drop a thread's handle detaches it, and glibc reads
//! what a thread that ends at that moment has given back already (glibc bug 19951, `pthread_detach`), which ends the process.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, ScopedJoinHandle};

use crate::lock::locked;

/// Does `work` on each item on at most `threads` threads; results in the order of the items. After a failure no further
/// item is begun, and the failure of the first such item is returned.
pub(crate) fn map<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let has_failed = AtomicBool::new(false);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let turn = || {
        while !has_failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = work(item);
            has_failed.fetch_or(result.is_err(), Ordering::Relaxed);
            locked(&done).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        // Where one is not to be had the others do its part.
        let begin = |_| Builder::new().spawn_scoped(scope, turn).ok();
        let others: Vec<_> = (1..threads.min(items.len())).map_while(begin).collect();
        turn();
        others.into_iter().for_each(join);
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// How far [`ahead`] works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    /// Threads that work beside the one that takes; without any that one works itself.
    pub(crate) threads: usize,
    /// Results that may wait to be taken or are being made.
    pub(crate) most: usize,
}

/// Does `work` on each item on threads, while `take` takes the results in the order of the items, each when it asks for it.
/// When it returns, no further item is begun.
pub(crate) fn ahead<T: Sync, R: Send, O>(
    items: &[T],
    how: Ahead,
    work: impl Fn(&T) -> R + Sync,
    take: impl FnOnce(&mut dyn FnMut() -> Option<R>) -> O,
) -> O {
    if how.threads == 0 {
        return one_by_one(items, &work, take);
    }
    let queue = Queue {
        count: items.len(),
        most: how.most.max(1),
        state: Mutex::new(State {
            begun: 0,
            taken: 0,
            done: BTreeMap::new(),
            is_over: false,
        }),
        changed: Condvar::new(),
    };
    let turn = || {
        let _ended = EndOnPanic(&queue);
        while let Some(number) = queue.begin() {
            queue.done(number, work(&items[number]));
        }
    };
    std::thread::scope(|scope| {
        let wanted = how.threads.min(items.len());
        let begin = |_| Builder::new().spawn_scoped(scope, turn).ok();
        let workers: Vec<_> = (0..wanted).filter_map(begin).collect();
        if workers.is_empty() {
            return one_by_one(items, &work, take);
        }
        let _ended = EndOnPanic(&queue);
        let outcome = take(&mut || queue.take());
        queue.end();
        workers.into_iter().for_each(join);
        outcome
    })
}

/// Waits for the end of a thread; its panic goes on here.
fn join(thread: ScopedJoinHandle<'_, ()>) {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic));
}

/// Works when a result is asked for.
fn one_by_one<T, R, O>(
    items: &[T],
    work: impl Fn(&T) -> R,
    take: impl FnOnce(&mut dyn FnMut() -> Option<R>) -> O,
) -> O {
    let mut left = items.iter();
    take(&mut || left.next().map(&work))
}

/// Results that are made ahead.
struct Queue<R> {
    count: usize,
    most: usize,
    state: Mutex<State<R>>,
    changed: Condvar,
}

struct State<R> {
    /// How many items were begun, the first ones.
    begun: usize,
    /// How many results were taken, the first ones.
    taken: usize,
    done: BTreeMap<usize, R>,
    is_over: bool,
}

impl<R> Queue<R> {
    /// Waits until the state has changed.
    fn wait<'a>(&self, state: MutexGuard<'a, State<R>>) -> MutexGuard<'a, State<R>> {
        let waited = self.changed.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item to work on, when it is not too far ahead; `None` if there is none.
    fn begin(&self) -> Option<usize> {
        let mut state = locked(&self.state);
        loop {
            if state.is_over || state.begun == self.count {
                return None;
            }
            if state.begun - state.taken < self.most {
                state.begun += 1;
                return Some(state.begun - 1);
            }
            state = self.wait(state);
        }
    }

    fn done(&self, number: usize, result: R) {
        locked(&self.state).done.insert(number, result);
        self.changed.notify_all();
    }

    /// The next result, when it is there; `None` if there is none.
    fn take(&self) -> Option<R> {
        let mut state = locked(&self.state);
        loop {
            if state.is_over || state.taken == self.count {
                return None;
            }
            let next = state.taken;
            if let Some(result) = state.done.remove(&next) {
                state.taken += 1;
                self.changed.notify_all();
                return Some(result);
            }
            state = self.wait(state);
        }
    }

    fn end(&self) {
        locked(&self.state).is_over = true;
        self.changed.notify_all();
    }
}

/// Nobody waits for a thread that panics.
struct EndOnPanic<'a, R>(&'a Queue<R>);

impl<R> Drop for EndOnPanic<'_, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_stops_after_a_failure() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = map(&items, 7, |n| Ok::<_, ()>(n * 2)).unwrap();
        assert_eq!(doubled, items.iter().map(|n| n * 2).collect::<Vec<_>>());
        let begun = AtomicUsize::new(0);
        let failed = map(&items, 1, |n| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *n < 5 { Ok(()) } else { Err(*n) }
        });
        assert_eq!(failed, Err(5));
        assert_eq!(begun.into_inner(), 6);
        assert_eq!(map(&[] as &[u32], 4, |_| Ok::<(), ()>(())), Ok(vec![]));
    }

    #[test]
    fn results_come_in_order_and_not_too_early() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [0, 1, 7] {
            let (begun, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |n: &usize| {
                let most = taken.load(Ordering::SeqCst) + 5;
                assert!(begun.fetch_add(1, Ordering::SeqCst) < most);
                n * 2
            };
            let how = Ahead { threads, most: 4 };
            let all = ahead(&items, how, work, |next| {
                let mut all = Vec::new();
                while let Some(result) = next() {
                    taken.fetch_add(1, Ordering::SeqCst);
                    all.push(result);
                }
                all
            });
            assert_eq!(all, items.iter().map(|n| n * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn who_takes_no_more_ends_the_work() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [0, 3] {
            let begun = AtomicUsize::new(0);
            let work = |n: &usize| {
                begun.fetch_add(1, Ordering::SeqCst);
                *n
            };
            let how = Ahead { threads, most: 4 };
            assert_eq!(
                ahead(&items, how, work, |next| (next(), next())),
                (Some(0), Some(1))
            );
            assert!(begun.into_inner() <= 6);
        }
    }

    #[test]
    #[should_panic(expected = "as it should")]
    fn a_panic_is_not_waited_for() {
        let work = |n: &usize| assert!(*n < 2, "as it should");
        let how = Ahead {
            threads: 2,
            most: 4,
        };
        ahead(&[0, 1, 2, 3], how, work, |next| while next().is_some() {});
    }
}
