//! The hash of a long list that is never in memory as a whole.

/// Hashed at once: enough for BLAKE3 to use wide registers.
const BUFFER: usize = 64 * 1024;

/// Hashes encoded items one behind the other.
#[derive(Debug, Default)]
pub(super) struct HashedList {
    hasher: blake3::Hasher,
    waiting: Vec<u8>,
}

impl HashedList {
    /// Hashes what `encode` appends.
    pub(super) fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.waiting);
        if self.waiting.len() >= BUFFER {
            self.hasher.update(&self.waiting);
            self.waiting.clear();
        }
    }

    /// The hash of all items.
    pub(super) fn finish(mut self) -> blake3::Hash {
        self.hasher.update(&self.waiting);
        self.hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_items_together() {
        for count in [0_u32, 1, 20_000, 40_000] {
            let (mut list, mut whole) = (HashedList::default(), Vec::new());
            for number in 0..count {
                list.add(|bytes| bytes.extend_from_slice(&number.to_le_bytes()));
                whole.extend_from_slice(&number.to_le_bytes());
            }
            assert_eq!(list.finish(), blake3::hash(&whole), "{count}");
        }
    }
}
