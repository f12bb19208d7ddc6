//! The keys of what is no more than layers on each other: images and merges (the table is in `cache::key`).

use cache::digest::{CacheKey, ChainId, DiffId};
use cache::key::builder::KeyBuilder;

/// The state key of an image: its file system, whatever it is called.
pub(super) fn image_key(diff_ids: &[DiffId]) -> CacheKey {
    let mut key = KeyBuilder::new("image");
    match ChainId::of(diff_ids) {
        Some(chain) => key.text("chain", chain.0.as_str()),
        None => key.absent("chain"),
    };
    key.finish()
}

/// The key of layers put onto a base; there is none below a merge onto scratch.
pub(super) fn merge_key(base: Option<&CacheKey>, upper: Option<&CacheKey>) -> KeyBuilder {
    let mut key = KeyBuilder::new("merge");
    for input in [base, upper].into_iter().flatten() {
        key.key("input", input);
    }
    key
}

#[cfg(test)]
mod tests {
    use cache::digest::Digest;

    use super::super::key_testing::{assert_recorded, key};
    use super::*;

    #[test]
    fn keys_are_those_recorded() {
        let layers = [b"one", b"two"].map(|bytes| DiffId(Digest::of(bytes)));
        let [one, two] = &layers;
        let merge = |base: Option<u8>, upper: u8| {
            let base = base.map(key);
            merge_key(base.as_ref(), Some(&key(upper))).finish()
        };
        assert_recorded(
            include_str!("../../../testdata/keys/stack.txt"),
            &[
                ("image", image_key(&layers)),
                ("image without layers", image_key(&[])),
                ("image of the lower layer", image_key(&layers[..1])),
                (
                    "image in the other order",
                    image_key(&[two.clone(), one.clone()]),
                ),
                ("merge", merge(Some(1), 2)),
                ("merge onto scratch", merge(None, 2)),
                ("merge onto another base", merge(Some(3), 2)),
                ("merge of another upper", merge(Some(1), 3)),
                ("merge the other way round", merge(Some(2), 1)),
            ],
        );
    }
}
