//! The store, with a watch on its synced writes: they are what a commit waits for.

use argosy_store::{Batch, Checkpoint, Error, Family, Kv, Pair, RocksKv, Sync};
use argosy_telemetry::prometheus::Histogram;
use std::time::Instant;

/// A store whose synced writes are timed.
pub struct TimedKv {
    store: RocksKv,
    fsync_seconds: Histogram,
}

impl TimedKv {
    /// Times `store` into `fsync_seconds`.
    #[must_use]
    pub fn new(store: RocksKv, fsync_seconds: Histogram) -> Self {
        Self { store, fsync_seconds }
    }
}

impl Kv for TimedKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.store.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, Error> {
        self.store.scan(family, from, to, limit)
    }

    fn last(&self, family: Family) -> Result<Option<Pair>, Error> {
        self.store.last(family)
    }

    fn write(&mut self, batch: Batch, sync: Sync) -> Result<(), Error> {
        let began = Instant::now();
        let written = self.store.write(batch, sync);
        if sync == Sync::Yes {
            self.fsync_seconds.observe(began.elapsed().as_secs_f64());
        }
        written
    }

    fn checkpoint(&self, families: &[Family]) -> Result<Box<dyn Checkpoint>, Error> {
        self.store.checkpoint(families)
    }
}
