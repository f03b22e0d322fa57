use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, ReadOptions, WriteBatch, WriteOptions,
};

use crate::batch::FAMILY_END;
use crate::{Batch, Change, Checkpoint, Cursor, Error, Family, Kv, Pair, Row, Sync, in_order, rows_with};

/// Sizes of a [`RocksKv`]. The defaults suit a host with two cores and a small disk cache.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory of one family's newest rows before they go to a file, in bytes.
    pub write_buffer_bytes: usize,
    /// Size of all write-ahead logs at which families are written out, so that old logs can go, in bytes.
    pub wal_bytes_max: u64,
    /// Table files kept open.
    pub open_files_max: i32,
    /// Threads for flushes and compactions.
    pub background_jobs: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            write_buffer_bytes: 16 << 20,
            wal_bytes_max: 128 << 20,
            open_files_max: 512,
            background_jobs: 2,
        }
    }
}

/// The store of a member on its disk: one RocksDB, a column family per [`Family`], the write-ahead log always on.
pub struct RocksKv {
    database: DB,
    checkpoints: PathBuf,
    checkpoint_count: AtomicU64,
}

impl RocksKv {
    /// Opens or creates the store in `directory`. What a crash left of checkpoints is removed. Whose store it is, and
    /// of which format, is checked by [`crate::claim`].
    pub fn open(directory: &Path, options: &Options) -> Result<Self, Error> {
        let checkpoints = directory.join("checkpoints");
        let data = directory.join("rows");
        std::fs::create_dir_all(&data).map_err(|error| io_error("creating its directory", &error))?;
        let families = Family::ALL.map(|family| descriptor(family, options));
        let database = DB::open_cf_descriptors(&database_options(options), &data, families)
            .map_err(|error| open_error(directory, &error))?;
        // Only now: holding the lock means that no other process reads them.
        match std::fs::remove_dir_all(&checkpoints) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("removing old checkpoints", &error));
            }
            Ok(()) | Err(_) => {}
        }
        Ok(Self { database, checkpoints, checkpoint_count: AtomicU64::new(0) })
    }

    /// A numeric property of RocksDB summed over the families, such as `rocksdb.estimate-num-keys`; for metrics.
    pub fn property(&self, name: &str) -> u64 {
        Family::ALL
            .into_iter()
            .filter_map(|family| {
                self.database.property_int_value_cf(handle(&self.database, family), name).ok()
            })
            .flatten()
            .sum()
    }
}

impl Kv for RocksKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        get(&self.database, family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, Error> {
        page(&self.database, family, from, to, limit, usize::MAX)
    }

    fn last(&self, family: Family) -> Result<Option<Pair>, Error> {
        let mut rows = self.database.raw_iterator_cf(handle(&self.database, family));
        rows.seek_to_last();
        let found = rows.item().map(|(key, value)| (key.to_vec(), value.to_vec()));
        rows.status().map_err(|error| disk_error("reading", &error))?;
        Ok(found)
    }

    fn write(&mut self, batch: Batch, sync: Sync) -> Result<(), Error> {
        batch.check()?;
        let mut rows = WriteBatch::default();
        for change in batch.changes() {
            match change {
                Change::Put { family, key, value } => {
                    rows.put_cf(handle(&self.database, *family), key, value)
                }
                Change::Delete { family, key } => rows.delete_cf(handle(&self.database, *family), key),
                Change::DeleteRange { family, from, to } => {
                    rows.delete_range_cf(handle(&self.database, *family), from, to);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync == Sync::Yes);
        self.database.write_opt(rows, &options).map_err(|error| disk_error("writing", &error))
    }

    fn checkpoint(&self, families: &[Family]) -> Result<Box<dyn Checkpoint>, Error> {
        std::fs::create_dir_all(&self.checkpoints)
            .map_err(|error| io_error("creating a checkpoint", &error))?;
        let number = self.checkpoint_count.fetch_add(1, Ordering::Relaxed);
        let directory = Directory(self.checkpoints.join(number.to_string()));
        rocksdb::checkpoint::Checkpoint::new(&self.database)
            .and_then(|checkpoint| checkpoint.create_checkpoint(&directory.0))
            .map_err(|error| disk_error("cutting a checkpoint", &error))?;
        let options = Options { open_files_max: 64, ..Options::default() };
        let descriptors = Family::ALL.map(|family| descriptor(family, &options));
        let database =
            DB::open_cf_descriptors_read_only(&database_options(&options), &directory.0, descriptors, false)
                .map_err(|error| disk_error("opening a checkpoint", &error))?;
        Ok(Box::new(RocksCheckpoint { database, held: in_order(families), _directory: directory }))
    }
}

struct RocksCheckpoint {
    // Before the directory: fields are dropped in order, and the files are in use until then.
    database: DB,
    held: Vec<Family>,
    _directory: Directory,
}

/// A directory that goes with its owner. A failure is ignored: opening the store removes what is left.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Checkpoint for RocksCheckpoint {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if !self.held.contains(&family) {
            return Ok(None);
        }
        get(&self.database, family, key)
    }

    fn rows(&self, cursor: &mut Cursor, limit_bytes: usize) -> Result<Vec<Row>, Error> {
        rows_with(&self.held, cursor, limit_bytes, |family, from, limit_bytes| {
            page(&self.database, family, from, None, usize::MAX, limit_bytes)
        })
    }
}

fn get(database: &DB, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    database.get_cf(handle(database, family), key).map_err(|error| disk_error("reading", &error))
}

/// Rows from `from` on until one of the limits is reached; at least one, if there is one.
fn page(
    database: &DB,
    family: Family,
    from: &[u8],
    to: Option<&[u8]>,
    limit: usize,
    limit_bytes: usize,
) -> Result<Vec<Pair>, Error> {
    let mut pairs = Vec::new();
    if limit == 0 || to.is_some_and(|to| to <= from) {
        return Ok(pairs);
    }
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(to.unwrap_or(FAMILY_END));
    let mut rows = database.raw_iterator_cf_opt(handle(database, family), options);
    rows.seek(from);
    let mut bytes = 0;
    while let Some((key, value)) = rows.item() {
        bytes += key.len() + value.len();
        pairs.push((key.to_vec(), value.to_vec()));
        if pairs.len() >= limit || bytes >= limit_bytes {
            break;
        }
        rows.next();
    }
    rows.status().map_err(|error| disk_error("reading", &error))?;
    Ok(pairs)
}

fn handle(database: &DB, family: Family) -> &ColumnFamily {
    database.cf_handle(family.name()).expect("every family was opened with the database")
}

fn database_options(options: &Options) -> rocksdb::Options {
    let mut database = rocksdb::Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    database.set_max_background_jobs(options.background_jobs);
    database.set_max_open_files(options.open_files_max);
    database.set_max_total_wal_size(options.wal_bytes_max);
    // Written-out tables are synced as they grow, so that no large sync stalls the write-ahead log.
    database.set_bytes_per_sync(1 << 20);
    database.set_keep_log_file_num(4);
    database.set_max_log_file_size(8 << 20);
    database
}

fn descriptor(family: Family, options: &Options) -> ColumnFamilyDescriptor {
    let mut settings = rocksdb::Options::default();
    settings.set_write_buffer_size(options.write_buffer_bytes);
    settings.set_max_write_buffer_number(3);
    settings.set_target_file_size_base(options.write_buffer_bytes as u64);
    let compression = match family {
        // Short-lived rows: compressing them is lost work.
        Family::RaftLog | Family::RaftMeta => DBCompressionType::None,
        Family::State | Family::Blobs | Family::History | Family::Archive => DBCompressionType::Zstd,
    };
    settings.set_compression_type(compression);
    ColumnFamilyDescriptor::new(family.name(), settings)
}

fn open_error(directory: &Path, error: &rocksdb::Error) -> Error {
    let message = error.to_string();
    if message.contains("lock file") || message.contains("lock hold by current process") {
        return Error::Locked { path: directory.display().to_string() };
    }
    disk_error("opening", error)
}

fn disk_error(doing: &str, error: &rocksdb::Error) -> Error {
    let message = error.to_string();
    if message.contains("No space left on device") || message.contains("Disk quota exceeded") {
        return Error::DiskFull { message };
    }
    if error.kind() == rocksdb::ErrorKind::Corruption {
        return Error::Damaged { message };
    }
    Error::Disk { doing: doing.to_owned(), message }
}

fn io_error(doing: &str, error: &std::io::Error) -> Error {
    let full = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded];
    if full.contains(&error.kind()) {
        return Error::DiskFull { message: error.to_string() };
    }
    Error::Disk { doing: doing.to_owned(), message: error.to_string() }
}
