//! Work that is done once for each key, by whoever comes first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::lock::locked;

/// The results so far. Who asks for one that is being worked on waits for it.
pub(crate) struct OncePerKey<K, T> {
    turns: Mutex<BTreeMap<K, Arc<Mutex<Option<T>>>>>,
}

impl<K, T> Default for OncePerKey<K, T> {
    fn default() -> Self {
        Self {
            turns: Mutex::default(),
        }
    }
}

impl<K: Ord, T: Clone> OncePerKey<K, T> {
    /// The result for a key. After a failure, which is passed on, the next one who asks tries again.
    pub(crate) fn get<E>(&self, key: K, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let turn = Arc::clone(locked(&self.turns).entry(key).or_default());
        let mut done = locked(&turn);
        if let Some(result) = &*done {
            return Ok(result.clone());
        }
        let result = work()?;
        *done = Some(result.clone());
        Ok(result)
    }

    /// Whether anybody ever asked.
    pub(crate) fn has_begun(&self) -> bool {
        !locked(&self.turns).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn work_is_done_once_for_each_key_and_again_after_a_failure() {
        let (once, calls) = (OncePerKey::default(), AtomicU32::new(0));
        assert!(!once.has_begun());
        let work = || {
            std::thread::yield_now();
            match calls.fetch_add(1, Ordering::Relaxed) {
                0 => Err("first"),
                call => Ok(call),
            }
        };
        assert_eq!(once.get("a", work), Err("first"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(once.get("a", work), Ok(1)));
            }
        });
        assert_eq!(once.get("b", work), Ok(2));
        assert!(once.has_begun());
    }
}
