//! The file of the database: opened, begun, brought up to date, set aside.
//!
//! Not here: what is in it (`index`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::io::make_private_dir;

/// `user_version` of the database. Raise it when tables change: older databases are set aside, unless [`SCHEMA`] makes
/// them what they should be.
const SCHEMA_VERSION: i32 = 3;

/// The oldest that lacks nothing but an index.
const EXTENSIBLE_VERSION: i32 = 2;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS record (
        key BLOB PRIMARY KEY, output BLOB, name TEXT NOT NULL, layers BLOB NOT NULL,
        created_ms INTEGER NOT NULL, cost_ms INTEGER NOT NULL, parts TEXT NOT NULL,
        used_ms INTEGER NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS rerun ON record (key, output) WHERE output IS NOT NULL;
    CREATE TABLE IF NOT EXISTS memo (
        key BLOB PRIMARY KEY, value BLOB NOT NULL, used_ms INTEGER NOT NULL, digest BLOB NOT NULL
        ) WITHOUT ROWID;";

/// How long a writer waits for other writers. Transactions take well under a millisecond; a process stopped in the
/// middle of one must not fail a build at once.
const BUSY: Duration = Duration::from_secs(20);

/// Pages in the log before it is folded into the database: few, because the first reader after the last one left reads
/// the whole log.
const LOG_PAGES: u32 = 128;

/// Opens a database; makes it if there is none.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    if let Some(directory) = path.parent() {
        // SQLite reports a missing directory itself.
        make_private_dir(directory).ok();
    }
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    if version == SCHEMA_VERSION {
        return Ok(connection);
    }
    if version != 0 && version != EXTENSIBLE_VERSION {
        return Err(foreign());
    }
    begin_log(&connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(connection)
}

/// Moves the database out of the way. Other processes that have it open keep the moved one, and lose what they
/// write there.
pub(super) fn set_aside(path: &Path) -> PathBuf {
    let aside = path.with_extension("sqlite.damaged");
    for suffix in ["", "-wal", "-shm"] {
        let with = |path: &Path| {
            let mut name = path.to_owned().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        std::fs::rename(with(path), with(&aside)).ok();
    }
    aside
}

/// Switches to WAL. SQLite does not wait for others who do the same at the same moment, so this does.
fn begin_log(connection: &Connection) -> rusqlite::Result<()> {
    let mut pauses = 0;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && pauses < 400 => {
                pauses += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            switched => return switched,
        }
    }
}

/// Folds the log into the database and empties it, unless somebody uses it: then the next to write many rows does.
pub(super) fn fold_log(connection: &Connection) {
    let folded = connection
        .busy_timeout(Duration::ZERO)
        .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    if let Err(error) = folded {
        tracing::debug!(%error, "the log of the database stays");
    }
    if let Err(error) = connection.busy_timeout(BUSY) {
        tracing::debug!(%error, "cannot wait for other writers any more");
    }
}

fn foreign() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
        Some("the database has another version".to_owned()),
    )
}

/// Whether the file is no database that this program can use.
pub(super) fn is_damaged(error: &rusqlite::Error) -> bool {
    // What the disk cannot read is as damaged as what it has lost.
    let is_unreadable = error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_CORRUPTFS);
    is_unreadable
        || matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        )
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
