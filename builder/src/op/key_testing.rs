//! What the tests of keys share: keys to put in, and the comparison with the recorded ones.

use std::collections::BTreeMap;

use cache::digest::CacheKey;

/// Some key.
pub(super) fn key(byte: u8) -> CacheKey {
    CacheKey([byte; 32])
}

/// Asserts that these keys are the ones of a file of `testdata/keys`, and that no two are equal.
///
/// Another key than the recorded one means that every store loses its records: raise the version of keys and say so.
pub(super) fn assert_recorded(recorded: &str, keys: &[(&str, CacheKey)]) {
    let mut names = BTreeMap::new();
    for (name, key) in keys {
        if let Some(other) = names.insert(key, name) {
            panic!("`{name}` and `{other}` have one key");
        }
    }
    let lines = keys
        .iter()
        .map(|(name, key)| format!("{} {name}\n", key.hex()));
    let found: String = lines.collect();
    assert_eq!(found, recorded, "keys are now:\n{found}");
}
