//! Entries of a stat cache made since it was loaded: there may be very many.

use std::collections::BTreeMap;

use super::ENTRY;

/// The entries, in the order they were made, with their places: a map of entries would be half empty.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    entries: Vec<[u8; ENTRY]>,
    /// Where the entry of a file is, by device and inode.
    places: BTreeMap<u64, BTreeMap<u64, u32>>,
}

impl Fresh {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, device: u64, inode: u64) -> Option<&[u8; ENTRY]> {
        let place = self.places.get(&device)?.get(&inode)?;
        self.entries.get(usize::try_from(*place).ok()?)
    }

    pub(super) fn put(&mut self, device: u64, inode: u64, entry: [u8; ENTRY]) {
        // More files than that are not remembered.
        let Ok(next) = u32::try_from(self.entries.len()) else {
            return;
        };
        let places = self.places.entry(device).or_default();
        let place = *places.entry(inode).or_insert(next);
        match usize::try_from(place).map(|place| self.entries.get_mut(place)) {
            Ok(Some(known)) => *known = entry,
            Ok(None) | Err(_) => self.entries.push(entry),
        }
    }

    /// The entries sorted by device and inode.
    pub(super) fn sorted(&self) -> impl Iterator<Item = &[u8]> {
        let places = self.places.values().flat_map(BTreeMap::values);
        places.filter_map(|place| {
            let entry = self.entries.get(usize::try_from(*place).ok()?)?;
            Some(entry.as_slice())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_a_file_counts_and_the_order_is_that_of_the_file() {
        let mut fresh = Fresh::default();
        for (device, inode, byte) in [(2, 1, 1), (1, 9, 2), (1, 3, 3), (2, 1, 4)] {
            fresh.put(device, inode, [byte; ENTRY]);
        }
        assert_eq!(fresh.len(), 3);
        assert_eq!(fresh.get(2, 1), Some(&[4; ENTRY]));
        assert_eq!(fresh.get(2, 3), None);
        assert_eq!(fresh.get(3, 1), None);
        let sorted: Vec<u8> = fresh.sorted().map(|entry| entry[0]).collect();
        assert_eq!(sorted, [3, 2, 4]);
    }
}
