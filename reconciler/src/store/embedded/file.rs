//! The file: how it is opened, what its tables are, and what becomes of its errors.

use std::cell::Cell;
use std::fs::{DirBuilder, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableHandle,
    WriteTransaction,
};

use super::{Error, closed, header};

/// Key → the revision that wrote it, the value.
pub(super) const OBJECTS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("objects");
/// Revision → key, new value, revision of the value before (0: none), the value before. Every revision after
/// [`COMPACTED`] up to [`REVISION`] has its row.
pub(super) const HISTORY: TableDefinition<'_, u64, Change<'_>> = TableDefinition::new("history");
/// Numbers by name.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// A row of the history.
pub(super) type Change<'a> = (&'a str, Option<&'a [u8]>, u64, Option<&'a [u8]>);

/// What the tables above look like.
pub(super) const FORMAT: &str = "format";
/// The newest revision.
pub(super) const REVISION: &str = "revision";
/// The newest revision whose change has been forgotten.
pub(super) const COMPACTED: &str = "compacted";
/// Bytes of keys and values in the history.
pub(super) const HISTORY_BYTES: &str = "history-bytes";

/// The format that this version writes.
const FORMAT_NOW: u64 = 1;
/// The revision of an empty store, as in etcd: 0 stands for "any" in Kubernetes.
pub(super) const FIRST: u64 = 1;
/// For another process to let go of the file.
const LOCK: Duration = Duration::from_millis(200);
/// Between two attempts to open the file again.
const PAUSE: Duration = Duration::from_millis(500);

/// The file, opened again by itself after an error of the disk.
pub(super) struct File {
    path: PathBuf,
    cache: usize,
    state: RwLock<State>,
}

struct State {
    database: Option<Database>,
    /// How often it was opened.
    generation: u64,
    closed: bool,
    /// Why it could not be opened again, and when that was tried.
    failed: Option<(Error, Instant)>,
}

impl File {
    pub(super) fn open(path: &Path, cache: usize) -> Result<Self, Error> {
        let database = open(path, cache)?;
        Ok(Self {
            path: path.to_owned(),
            cache,
            state: RwLock::new(State {
                database: Some(database),
                generation: 0,
                closed: false,
                failed: None,
            }),
        })
    }

    /// Runs `read` on the newest state; twice if the disk failed meanwhile.
    pub(super) fn read<T>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        let read = |database: &Database| read(&database.begin_read()?);
        match self.attempt(&read)? {
            Err(error) if failed(&error) => self.attempt(&read)?,
            done => done,
        }
        .map_err(|error| explain(&self.path, &error))
    }

    /// Runs `write`, which commits the transaction it is given. When that fails, it may be committed nevertheless.
    pub(super) fn write<T>(
        &self,
        write: impl Fn(WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        let begun = Cell::new(false);
        let write = |database: &Database| {
            let txn = database.begin_write()?;
            begun.set(true);
            write(txn)
        };
        match self.attempt(&write)? {
            // A reader has met with a failure, or an earlier write.
            Err(redb::Error::PreviousIo) if !begun.get() => self.attempt(&write)?,
            done => done,
        }
        .map_err(|error| explain(&self.path, &error))
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        state.database = None;
    }

    fn attempt<T>(
        &self,
        run: &impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> Result<Result<T, redb::Error>, Error> {
        let mut opened = false;
        let (done, generation) = loop {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return Err(closed());
            }
            match &state.database {
                Some(database) => break (run(database), state.generation),
                None if opened => return Err(explain(&self.path, &redb::Error::PreviousIo)),
                None => {
                    let generation = state.generation;
                    drop(state);
                    self.reopen(generation)?;
                    opened = true;
                }
            }
        };
        if let Err(error) = &done
            && failed(error)
        {
            tracing::warn!("{}; opening it again", explain(&self.path, error));
            // Whoever comes next tries again.
            if let Err(error) = self.reopen(generation) {
                tracing::error!("{error}");
            }
        }
        Ok(done)
    }

    /// After an error of the disk redb refuses everything until the file is opened anew, which brings back the last
    /// transaction that was committed.
    fn reopen(&self, generation: u64) -> Result<(), Error> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.closed || state.generation != generation {
            return Ok(());
        }
        if state.database.is_none()
            && let Some((error, at)) = &state.failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        state.database = None;
        match open(&self.path, self.cache) {
            Ok(database) => {
                state.database = Some(database);
                state.generation += 1;
                state.failed = None;
                Ok(())
            }
            Err(error) => {
                state.failed = Some((error.clone(), Instant::now()));
                Err(error)
            }
        }
    }
}

/// True when the file must be opened again.
fn failed(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo)
}

fn open(path: &Path, cache: usize) -> Result<Database, Error> {
    let on_disk = |error: io::Error| explain(path, &redb::Error::Io(error));
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| explain(folder, &redb::Error::Io(error)))?;
    let open = |path: &Path| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    };
    let (database, format) = if path.try_exists().map_err(on_disk)? {
        let file = open(path).map_err(on_disk)?;
        // Also a file that was copied here: it holds Secrets.
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(on_disk)?;
        lock(&file, path)?;
        let length = file.metadata().map_err(on_disk)?.len();
        let mut begin = [0; header::LENGTH];
        file.read_exact_at(&mut begin, 0).map_err(on_disk)?;
        header::check(&begin, length).map_err(|why| damaged(&path.display(), &why))?;
        database(file, cache).map_err(|error| explain(path, &error))?
    } else {
        // Under another name until it is whole: a file is then either not there or a store.
        let unfinished = path.with_extension("new");
        let file = open(&unfinished).map_err(on_disk)?;
        lock(&file, &unfinished)?;
        file.set_len(0).map_err(on_disk)?;
        let made = database(file, cache).map_err(|error| explain(&unfinished, &error))?;
        std::fs::rename(&unfinished, path)
            .and_then(|()| std::fs::File::open(folder)?.sync_all())
            .map_err(on_disk)?;
        made
    };
    match format {
        Some(FORMAT_NOW) => Ok(database),
        Some(newer) => Err(Error::Broken(format!(
            "{} has format {newer}, written by a newer version of weft; this one reads format {FORMAT_NOW}: start that \
             version again, or choose another folder with --data",
            path.display()
        ))),
        None => Err(Error::Broken(format!(
            "{} is a redb file, but not one of weft's: choose another folder with --data",
            path.display()
        ))),
    }
}

/// Takes the lock that redb wants to have. Its last holder may be about to end, so that is waited for a little.
fn lock(file: &std::fs::File, path: &Path) -> Result<(), Error> {
    let end = Instant::now() + LOCK;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(LOCK / 20);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Broken(format!(
                    "{} is in use by another process: stop that API server, or choose another folder with --data",
                    path.display()
                )));
            }
            // Where there are no locks, redb does without.
            Err(TryLockError::Error(_)) | Ok(()) => return Ok(()),
        }
    }
}

fn database(file: std::fs::File, cache: usize) -> Result<(Database, Option<u64>), redb::Error> {
    let database = redb::Builder::new()
        .set_cache_size(cache)
        .create_file(file)?;
    let format = prepare(&database)?;
    Ok((database, format))
}

/// The format of the file, after a new file has been given its tables; `None` for a stranger's file.
fn prepare(database: &Database) -> Result<Option<u64>, redb::Error> {
    let txn = database.begin_read()?;
    let tables: Vec<_> = txn.list_tables()?.collect();
    if !tables.is_empty() {
        if !tables.iter().any(|table| table.name() == META.name()) {
            return Ok(None);
        }
        let format = txn.open_table(META)?.get(FORMAT)?;
        return Ok(format.map(|format| format.value()));
    }
    let txn = database.begin_write()?;
    txn.open_table(OBJECTS)?;
    txn.open_table(HISTORY)?;
    {
        let mut meta = txn.open_table(META)?;
        for (name, number) in [
            (FORMAT, FORMAT_NOW),
            (REVISION, FIRST),
            (COMPACTED, FIRST),
            (HISTORY_BYTES, 0),
        ] {
            meta.insert(name, number)?;
        }
    }
    txn.commit()?;
    Ok(Some(FORMAT_NOW))
}

/// A number of the meta table.
pub(super) fn number(
    meta: &impl ReadableTable<&'static str, u64>,
    name: &'static str,
) -> Result<u64, redb::Error> {
    let number = meta.get(name)?;
    number
        .map(|number| number.value())
        .ok_or_else(|| redb::Error::Corrupted(format!("the table meta has no {name}")))
}

fn explain(path: &Path, error: &redb::Error) -> Error {
    use io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
    let path = path.display();
    match error {
        redb::Error::Io(cause) => match cause.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Error::Full(format!("{path}: {cause}")),
            // What redb says of a file that ends too early.
            InvalidData | UnexpectedEof => damaged(&path, cause),
            _ => Error::Broken(format!(
                "{path}: {cause}: check the disk and the folder's rights"
            )),
        },
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => Error::Away(format!(
            "{path} is being opened again after an error of the disk"
        )),
        redb::Error::UpgradeRequired(version) => Error::Broken(format!(
            "{path} has version {version} of redb's file format, which this version of weft cannot read: start the \
             version that wrote it, or choose another folder with --data"
        )),
        redb::Error::ValueTooLarge(size) => {
            Error::Full(format!("{path}: a value of {size} bytes is too large"))
        }
        other => damaged(&path, other),
    }
}

fn damaged(path: &dyn std::fmt::Display, cause: &dyn std::fmt::Display) -> Error {
    Error::Broken(format!(
        "{path} is damaged: {cause}: put a copy from a backup in its place, or move it away to start with an empty store"
    ))
}
