//! The database: keys to records, and small memos.
//!
//! Everything in it can be made again, so losing it costs cache hits and nothing else: a database that SQLite finds
//! damaged, or that has another version, is set aside and a new one begun.
//!
//! # Concurrency
//!
//! WAL, so readers never wait. Every write is one short BEGIN IMMEDIATE transaction (plain BEGIN fails at the first
//! write when two upgrade at once). Memos and times of last use wait in memory and are written together by
//! [`Keys::flush`], or with the next record, or when there are many: a build that ran nothing writes nothing while it
//! runs.
//!
//! # Durability
//!
//! Nothing is synced: what was written last may be lost with the power. Rows carry their own check (`key::record`). No checkpoint on close: it would make
//! the last of several processes pay for all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::database::{self, fold_log, is_damaged};
use super::record::{Record, Row, check};
use crate::digest::{CacheKey, DiffId};
use crate::lock::locked;
use crate::root::StatePaths;

/// A time of last use is written when the one in the database is older than this: a build that runs nothing, again and
/// again, writes nothing, and nothing that is used goes for want of use.
pub const USE_GRAIN_MS: u64 = 300_000;

/// Rows that are so many, written at once, leave a long log behind.
const MANY_ROWS: usize = 64;

/// Memos and uses kept in memory before they are written.
const PENDING: usize = 4096;

/// Why the database could not answer. Callers treat it as a miss and say so.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// SQLite said no.
    #[error("cannot {attempt} the cache database `{path}`")]
    Database {
        /// What was tried.
        attempt: &'static str,
        /// Which.
        path: PathBuf,
        /// What it said.
        #[source]
        source: rusqlite::Error,
    },
    /// A record has values that cannot be stored.
    #[error("the record of `{name}` cannot be stored")]
    Unstorable {
        /// Its step, as shown to the user.
        name: String,
    },
}

/// Keys and what they point to. Opened at the first question. Shared by threads.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    state: Mutex<State>,
}

/// A record as collections see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordUse {
    /// Its key.
    pub key: CacheKey,
    /// The step as shown to the user.
    pub name: String,
    /// The whole stack, bottom first.
    pub layers: Vec<DiffId>,
    /// How long the step took, in milliseconds.
    pub cost_ms: u64,
    /// When the record was last of use, in milliseconds since the Unix epoch.
    pub used_ms: u64,
}

/// A record as a check finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Examined {
    /// It is what was written.
    Whole(Record),
    /// It counts as missing.
    Damaged,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Connection>,
    memos: BTreeMap<CacheKey, Vec<u8>>,
    /// What was asked for, and when it had last been, as far as the database knows.
    used_records: BTreeMap<CacheKey, u64>,
    used_memos: BTreeMap<CacheKey, u64>,
    set_aside: Option<PathBuf>,
}

impl Keys {
    /// The keys of a state directory. Touches nothing yet.
    pub fn new(paths: &StatePaths) -> Self {
        Self {
            path: paths.database(),
            state: Mutex::default(),
        }
    }

    /// The record of a key.
    pub fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, KeyError> {
        let mut state = self.lock();
        let found = self.find(&mut state, key)?;
        Ok(found.map(|(record, used_ms)| {
            state.used_records.insert(*key, used_ms);
            record
        }))
    }

    /// As [`Self::lookup`], of a result that was found without looking up what it was made of: with it, the records of
    /// `beneath` count as used.
    pub fn lookup_over(
        &self,
        key: &CacheKey,
        beneath: impl IntoIterator<Item = CacheKey>,
    ) -> Result<Option<Record>, KeyError> {
        let mut state = self.lock();
        let found = self.find(&mut state, key)?;
        Ok(found.map(|(record, used_ms)| {
            let used = beneath.into_iter().chain([*key]);
            state.used_records.extend(used.map(|key| (key, used_ms)));
            record
        }))
    }

    /// The records whose users put another key in theirs, by key ([`Record::output`]).
    pub fn outputs(&self) -> Result<BTreeMap<CacheKey, CacheKey>, KeyError> {
        let mut state = self.lock();
        self.with(&mut state, "read", |connection| {
            let mut statement =
                connection.prepare("SELECT key, output FROM record WHERE output IS NOT NULL")?;
            let rows = statement
                .query_map([], |row| Ok((CacheKey(row.get(0)?), CacheKey(row.get(1)?))))?;
            rows.collect()
        })
    }

    /// The record of a key, without its counting as used.
    pub fn peek(&self, key: &CacheKey) -> Result<Option<Record>, KeyError> {
        let found = self.find(&mut self.lock(), key)?;
        Ok(found.map(|(record, _)| record))
    }

    /// As [`Self::peek`], for checks: told apart from no record is one that is damaged.
    pub(crate) fn examine(&self, key: &CacheKey) -> Result<Option<Examined>, KeyError> {
        let row = self.row(&mut self.lock(), key)?;
        Ok(row.map(|(row, _)| match row.into_record(key) {
            Some(record) => Examined::Whole(record),
            None => Examined::Damaged,
        }))
    }

    /// The record of a key and when it was last of use.
    fn find(&self, state: &mut State, key: &CacheKey) -> Result<Option<(Record, u64)>, KeyError> {
        let found = self.row(state, key)?.and_then(|(row, used_ms)| {
            let record = row.into_record(key)?;
            Some((record, milliseconds(used_ms)))
        });
        Ok(found)
    }

    fn row(&self, state: &mut State, key: &CacheKey) -> Result<Option<(Row, i64)>, KeyError> {
        self.with(state, "read", |connection| {
            connection
                .prepare_cached(
                    "SELECT output, name, layers, created_ms, cost_ms, parts, digest, used_ms
                     FROM record WHERE key = ?1",
                )?
                .query_row([&key.0[..]], |row| Ok((row_from(row)?, row.get(7)?)))
                .optional()
        })
    }

    /// Stores a record, in place of an older one of its key, and whatever waited to be written.
    pub fn record(&self, key: &CacheKey, record: &Record) -> Result<(), KeyError> {
        let row = Row::of(key, record).ok_or_else(|| KeyError::Unstorable {
            name: record.name.clone(),
        })?;
        let mut state = self.lock();
        self.write_pending(&mut state, record.created_ms, Some((key, &row)))
    }

    /// Every record, without its parts: for collections.
    pub fn uses(&self) -> Result<Vec<RecordUse>, KeyError> {
        let mut state = self.lock();
        self.with(&mut state, "read", |connection| {
            let mut statement =
                connection.prepare("SELECT key, name, layers, cost_ms, used_ms FROM record")?;
            let rows = statement.query_map([], |row| {
                let layers: Vec<u8> = row.get(2)?;
                Ok(RecordUse {
                    key: CacheKey(row.get(0)?),
                    name: row.get(1)?,
                    layers: super::record::layers_of(&layers),
                    cost_ms: milliseconds(row.get(3)?),
                    used_ms: milliseconds(row.get(4)?),
                })
            })?;
            rows.collect()
        })
    }

    /// Removes the records of keys, and memos that nobody asked for since a time.
    pub fn forget_all(&self, keys: &[CacheKey], memos_before_ms: u64) -> Result<(), KeyError> {
        let mut state = self.lock();
        let oldest = i64::try_from(memos_before_ms).unwrap_or(i64::MAX);
        self.with(&mut state, "write", |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for key in keys {
                transaction
                    .prepare_cached("DELETE FROM record WHERE key = ?1")?
                    .execute([&key.0[..]])?;
            }
            transaction.execute("DELETE FROM memo WHERE used_ms < ?1", [oldest])?;
            transaction.commit()
        })
    }

    /// Removes the record of a key, because what it points to is gone.
    pub fn forget(&self, key: &CacheKey) -> Result<(), KeyError> {
        let mut state = self.lock();
        state.used_records.remove(key);
        self.with(&mut state, "write", |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute("DELETE FROM record WHERE key = ?1", [&key.0[..]])?;
            transaction.commit()
        })
    }

    /// A remembered value.
    pub fn memo(&self, key: &CacheKey) -> Result<Option<Vec<u8>>, KeyError> {
        let mut state = self.lock();
        if let Some(value) = state.memos.get(key) {
            return Ok(Some(value.clone()));
        }
        let found: Option<(Vec<u8>, Vec<u8>, i64)> =
            self.with(&mut state, "read", |connection| {
                connection
                    .prepare_cached("SELECT value, digest, used_ms FROM memo WHERE key = ?1")?
                    .query_row([&key.0[..]], |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                    })
                    .optional()
            })?;
        let whole = found.filter(|(value, digest, _)| *digest == check(&[&key.0, value]));
        if let Some((_, _, used_ms)) = &whole {
            state.used_memos.insert(*key, milliseconds(*used_ms));
        }
        Ok(whole.map(|(value, ..)| value))
    }

    /// Remembers a small value. Written later.
    pub fn remember(&self, key: &CacheKey, value: &[u8], now_ms: u64) -> Result<(), KeyError> {
        let mut state = self.lock();
        state.memos.insert(*key, value.to_owned());
        if state.memos.len() + state.used_records.len() + state.used_memos.len() < PENDING {
            return Ok(());
        }
        self.write_pending(&mut state, now_ms, None)
    }

    /// Writes what waits, if it is worth it: new memos, and times of last use if one in the database is old.
    pub fn flush(&self, now_ms: u64) -> Result<(), KeyError> {
        let mut state = self.lock();
        let is_old = |used_ms: &u64| used_ms.saturating_add(USE_GRAIN_MS) < now_ms;
        let mut uses = state.used_records.values().chain(state.used_memos.values());
        if state.memos.is_empty() && !uses.any(is_old) {
            return Ok(());
        }
        self.write_pending(&mut state, now_ms, None)
    }

    /// Where a damaged or foreign database was moved to, if that happened since the last call: something to tell.
    pub fn take_set_aside(&self) -> Option<PathBuf> {
        self.lock().set_aside.take()
    }

    fn write_pending(
        &self,
        state: &mut State,
        now_ms: u64,
        record: Option<(&CacheKey, &Row)>,
    ) -> Result<(), KeyError> {
        let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let memos = std::mem::take(&mut state.memos);
        let used_records = std::mem::take(&mut state.used_records);
        let used_memos = std::mem::take(&mut state.used_memos);
        let written = self.with(state, "write", |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if let Some((key, row)) = record {
                insert_record(&transaction, key, row, now)?;
            }
            insert_memos(&transaction, &memos, now)?;
            touch(
                &transaction,
                "UPDATE record SET used_ms = ?2 WHERE key = ?1",
                &used_records,
                now,
            )?;
            touch(
                &transaction,
                "UPDATE memo SET used_ms = ?2 WHERE key = ?1",
                &used_memos,
                now,
            )?;
            transaction.commit()?;
            if memos.len() + used_records.len() + used_memos.len() >= MANY_ROWS {
                fold_log(connection);
            }
            Ok(())
        });
        if written.is_err() {
            state.memos.extend(memos);
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Runs a question on the open database. If the database turns out to be damaged, it is set aside and the question
    /// put to a new one.
    fn with<T>(
        &self,
        state: &mut State,
        attempt: &'static str,
        mut ask: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, KeyError> {
        let fail = |source| KeyError::Database {
            attempt,
            path: self.path.clone(),
            source,
        };
        for is_last in [false, true] {
            let answer = match &mut state.connection {
                Some(connection) => ask(connection),
                empty => {
                    database::open(&self.path).and_then(|connection| ask(empty.insert(connection)))
                }
            };
            match answer {
                Err(error) if !is_last && is_damaged(&error) => {
                    tracing::debug!(%error, "damaged database");
                    state.connection = None;
                    state.set_aside = Some(database::set_aside(&self.path));
                }
                Err(error) => return Err(fail(error)),
                Ok(answer) => return Ok(answer),
            }
        }
        Err(fail(rusqlite::Error::InvalidQuery))
    }
}

fn row_from(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        output: row.get(0)?,
        name: row.get(1)?,
        layers: row.get(2)?,
        created_ms: row.get(3)?,
        cost_ms: row.get(4)?,
        parts: row.get(5)?,
        check: row.get(6)?,
    })
}

fn insert_record(
    connection: &Connection,
    key: &CacheKey,
    row: &Row,
    now: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO record
             (key, output, name, layers, created_ms, cost_ms, parts, digest, used_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            &key.0[..],
            row.output.as_ref().map(|key| &key[..]),
            row.name,
            row.layers,
            row.created_ms,
            row.cost_ms,
            row.parts,
            row.check,
            now
        ])
        .map(drop)
}

fn insert_memos(
    connection: &Connection,
    memos: &BTreeMap<CacheKey, Vec<u8>>,
    now: i64,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO memo (key, value, digest, used_ms) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (key, value) in memos {
        statement.execute(params![&key.0[..], value, check(&[&key.0, value]), now])?;
    }
    Ok(())
}

fn touch(
    connection: &Connection,
    update: &str,
    keys: &BTreeMap<CacheKey, u64>,
    now: i64,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(update)?;
    for key in keys.keys() {
        statement.execute(params![&key.0[..], now])?;
    }
    Ok(())
}

fn milliseconds(column: i64) -> u64 {
    u64::try_from(column).unwrap_or_default()
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
