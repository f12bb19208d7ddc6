//! Tests of `index`.

use std::fs;

use super::super::builder::Parts;
use super::*;
use crate::digest::Digest;

fn record(step: &str, created_ms: u64) -> Record {
    Record {
        layers: vec![DiffId(Digest::of(step.as_bytes()))],
        output: None,
        name: format!("[1/1] {step}"),
        created_ms,
        cost_ms: 3,
        parts: Parts::default(),
    }
}

fn key(n: u16) -> CacheKey {
    let mut key = CacheKey([0; 32]);
    key.0[..2].copy_from_slice(&n.to_le_bytes());
    key
}

#[test]
fn records_and_memos_survive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let keys = Keys::new(&paths);
    assert_eq!(keys.lookup(&key(1)).unwrap(), None);
    keys.record(&key(1), &record("a", 10)).unwrap();
    keys.record(&key(2), &record("a", 30)).unwrap();
    keys.record(&key(3), &record("a", 20)).unwrap();
    keys.remember(&key(1), b"memo", 10).unwrap();
    assert_eq!(keys.memo(&key(1)).unwrap(), Some(b"memo".to_vec()));
    keys.flush(11).unwrap();
    drop(keys);

    let keys = Keys::new(&paths);
    assert_eq!(keys.lookup(&key(1)).unwrap(), Some(record("a", 10)));
    assert_eq!(keys.memo(&key(1)).unwrap(), Some(b"memo".to_vec()));
    assert_eq!(keys.memo(&key(2)).unwrap(), None);
    keys.forget(&key(2)).unwrap();
    assert_eq!(keys.lookup(&key(2)).unwrap(), None);
    assert_eq!(keys.take_set_aside(), None);
}

#[test]
fn a_damaged_or_foreign_database_is_set_aside() {
    type Spoil = fn(&std::path::Path);
    let spoils: [Spoil; 3] = [
        |p| {
            fs::write(p, "no database, and longer than a header. ".repeat(9)).unwrap();
            // Which has all that is missing, unless it was folded in just now.
            fs::remove_file(p.with_extension("sqlite-wal")).ok();
        },
        |p| {
            let connection = Connection::open(p).unwrap();
            connection.pragma_update(None, "user_version", 99).unwrap();
        },
        |p| {
            let mut bytes = fs::read(p).unwrap();
            let from = 4096.min(bytes.len());
            bytes[from..].fill(0xff);
            fs::write(p, bytes).unwrap();
            fs::remove_file(p.with_extension("sqlite-wal")).ok();
        },
    ];
    for (at, spoil) in spoils.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let keys = Keys::new(&paths);
        // Enough to be folded from the log into the database.
        for n in 0..600 {
            keys.record(&key(n), &record("a", 10)).unwrap();
        }
        drop(keys);
        spoil(&paths.database());
        let keys = Keys::new(&paths);
        assert_eq!(keys.lookup(&key(1)).unwrap(), None, "case {at}");
        let aside = keys.take_set_aside().unwrap();
        assert!(aside.exists());
        keys.record(&key(1), &record("a", 10)).unwrap();
        assert_eq!(
            Keys::new(&paths).lookup(&key(1)).unwrap(),
            Some(record("a", 10))
        );
    }
}

#[test]
fn what_is_used_again_and_again_is_written_down_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    Keys::new(&paths).record(&key(1), &record("a", 10)).unwrap();
    let used_ms = || Keys::new(&paths).uses().unwrap()[0].used_ms;
    let use_at = |now_ms: u64| {
        let keys = Keys::new(&paths);
        keys.lookup(&key(1)).unwrap().unwrap();
        keys.flush(now_ms).unwrap();
    };
    assert_eq!(used_ms(), 10);
    use_at(USE_GRAIN_MS);
    assert_eq!(used_ms(), 10);
    use_at(2 * USE_GRAIN_MS);
    assert_eq!(used_ms(), 2 * USE_GRAIN_MS);
}

#[test]
fn what_a_result_was_made_of_is_used_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let keys = Keys::new(&paths);
    for n in 1..=3 {
        keys.record(&key(n), &record("a", 10)).unwrap();
    }
    let found = keys.lookup_over(&key(1), [key(2), key(9)]).unwrap();
    assert_eq!(found, Some(record("a", 10)));
    assert_eq!(keys.lookup_over(&key(8), [key(3)]).unwrap(), None);
    keys.flush(2 * USE_GRAIN_MS).unwrap();
    let uses = Keys::new(&paths).uses().unwrap();
    let used: Vec<u64> = uses.iter().map(|record| record.used_ms).collect();
    assert_eq!(used, [2 * USE_GRAIN_MS, 2 * USE_GRAIN_MS, 10]);
}

#[test]
fn outputs_are_known_also_in_a_database_that_had_no_index_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let keys = Keys::new(&paths);
    let rerun = Record {
        output: Some(key(7)),
        ..record("again", 10)
    };
    keys.record(&key(1), &record("a", 10)).unwrap();
    keys.record(&key(2), &rerun).unwrap();
    let outputs = BTreeMap::from([(key(2), key(7))]);
    assert_eq!(keys.outputs().unwrap(), outputs);
    drop(keys);
    let older = Connection::open(paths.database()).unwrap();
    older.execute_batch("DROP INDEX rerun").unwrap();
    older.pragma_update(None, "user_version", 2).unwrap();
    drop(older);
    let keys = Keys::new(&paths);
    assert_eq!(keys.lookup(&key(2)).unwrap(), Some(rerun));
    assert_eq!(keys.outputs().unwrap(), outputs);
    assert_eq!(keys.take_set_aside(), None);
}

#[test]
fn many_rows_at_once_leave_no_log_behind() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let keys = Keys::new(&paths);
    for n in 0..3000 {
        keys.remember(&key(n), &[7; 100], 10).unwrap();
    }
    keys.flush(11).unwrap();
    let log = paths.database().with_extension("sqlite-wal");
    assert_eq!(fs::metadata(log).unwrap().len(), 0);
    assert_eq!(keys.memo(&key(2999)).unwrap(), Some(vec![7; 100]));
}

#[test]
fn a_deleted_database_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    Keys::new(&paths).record(&key(1), &record("a", 10)).unwrap();
    fs::remove_file(paths.database()).unwrap();
    let keys = Keys::new(&paths);
    assert_eq!(keys.lookup(&key(1)).unwrap(), None);
    keys.record(&key(1), &record("a", 10)).unwrap();
    assert_eq!(keys.lookup(&key(1)).unwrap(), Some(record("a", 10)));
}

#[test]
fn many_open_and_write_one_new_database_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let paths = &paths;
    std::thread::scope(|scope| {
        for thread in 0..16u16 {
            scope.spawn(move || {
                let keys = Keys::new(paths);
                for n in 0..5 {
                    keys.record(&key(thread * 100 + n), &record("s", 1))
                        .unwrap();
                }
            });
        }
    });
    let keys = Keys::new(paths);
    for thread in 0..16 {
        for n in 0..5 {
            assert!(keys.lookup(&key(thread * 100 + n)).unwrap().is_some());
        }
    }
}
