//! The same work on many items, on a few threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
        for _ in 1..threads.min(items.len()) {
            scope.spawn(turn);
        }
        turn();
    });
    let mut done = done
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
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
}
