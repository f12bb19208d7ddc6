//! What keys point to, as it lies in the database.
//!
//! Every row carries a BLAKE3 check over key and fields. The database is not synced, so a power cut may leave rows
//! that look right to SQLite and are not: such a row counts as missing.

use super::builder::Parts;
use crate::digest::{CacheKey, DiffId, Digest};

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The whole stack of layers, bottom first.
    pub layers: Vec<DiffId>,
    /// What users of the result put in their keys, where that is not the record's own key: it was made anew with the cache
    /// ignored, and nothing that was made of its earlier result may be found by it.
    pub output: Option<CacheKey>,
    /// The step as shown to the user.
    pub name: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// How long it took, in milliseconds.
    pub cost_ms: u64,
    /// What its key was made of.
    pub parts: Parts,
}

/// The columns of a record that SQLite stores.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) output: Option<[u8; 32]>,
    pub(super) name: String,
    pub(super) layers: Vec<u8>,
    pub(super) created_ms: i64,
    pub(super) cost_ms: i64,
    pub(super) parts: String,
    pub(super) check: Vec<u8>,
}

impl Row {
    /// `None` if the parts cannot be written, which strings always can.
    pub(super) fn of(key: &CacheKey, record: &Record) -> Option<Self> {
        let layers = record.layers.iter().flat_map(hash_of).collect();
        let mut row = Self {
            output: record.output.map(|key| key.0),
            name: record.name.clone(),
            layers,
            created_ms: i64::try_from(record.created_ms).ok()?,
            cost_ms: i64::try_from(record.cost_ms).ok()?,
            parts: serde_json::to_string(&record.parts).ok()?,
            check: Vec::new(),
        };
        row.check = row.expected_check(key).to_vec();
        Some(row)
    }

    /// The record, if the row is whole.
    pub(super) fn into_record(self, key: &CacheKey) -> Option<Record> {
        if self.check != self.expected_check(key) || !self.layers.len().is_multiple_of(32) {
            return None;
        }
        Some(Record {
            layers: layers_of(&self.layers),
            created_ms: u64::try_from(self.created_ms).ok()?,
            cost_ms: u64::try_from(self.cost_ms).ok()?,
            parts: serde_json::from_str(&self.parts).ok()?,
            output: self.output.map(CacheKey),
            name: self.name,
        })
    }

    fn expected_check(&self, key: &CacheKey) -> [u8; 32] {
        check(&[
            &key.0,
            self.output.as_ref().map_or(&[][..], |key| &key[..]),
            self.name.as_bytes(),
            &self.layers,
            &self.created_ms.to_le_bytes(),
            &self.cost_ms.to_le_bytes(),
            self.parts.as_bytes(),
        ])
    }
}

/// The layers of a row's column.
pub(super) fn layers_of(column: &[u8]) -> Vec<DiffId> {
    let layers = column.chunks_exact(32).filter_map(|hash| {
        let hash: [u8; 32] = hash.try_into().ok()?;
        Some(DiffId(Digest::from_hash(hash)))
    });
    layers.collect()
}

/// BLAKE3 over fields, each with its length in front.
pub(super) fn check(fields: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    *hasher.finalize().as_bytes()
}

fn hash_of(layer: &DiffId) -> [u8; 32] {
    let mut hash = [0; 32];
    for (byte, pair) in hash
        .iter_mut()
        .zip(layer.0.hex().as_bytes().chunks_exact(2))
    {
        let digit = |c: u8| match c {
            b'0'..=b'9' => c - b'0',
            _ => c.wrapping_sub(b'a').wrapping_add(10),
        };
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::super::builder::Part;
    use super::*;

    #[test]
    fn rows_round_trip_and_damage_shows() {
        let key = CacheKey([1; 32]);
        let record = Record {
            layers: vec![DiffId(Digest::of(b"a")), DiffId(Digest::of(b"b"))],
            output: Some(CacheKey([9; 32])),
            name: "[2/2] RUN make".into(),
            created_ms: 5,
            cost_ms: 6,
            parts: Parts(vec![Part {
                name: "arg".into(),
                value: "make".into(),
            }]),
        };
        let row = || Row::of(&key, &record).unwrap();
        assert_eq!(row().into_record(&key), Some(record.clone()));
        assert_eq!(row().into_record(&CacheKey([2; 32])), None);
        type Damage = fn(&mut Row);
        let damages: [Damage; 6] = [
            |r| r.layers.truncate(32),
            |r| r.layers[5] ^= 1,
            |r| r.name.push('x'),
            |r| r.output = None,
            |r| r.created_ms += 1,
            |r| r.check.clear(),
        ];
        for (at, damage) in damages.into_iter().enumerate() {
            let mut row = row();
            damage(&mut row);
            assert_eq!(row.into_record(&key), None, "damage {at}");
        }
    }
}
