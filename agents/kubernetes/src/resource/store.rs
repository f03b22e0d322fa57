//! Permitted attempts as files, one each.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;

use argosy_model::{Fence, display_fence};
use argosy_proto::common::Assignment;
use prost::Message;

/// Version of the records this code writes.
const VERSION: u32 = 1;
/// Bytes of a record that are read.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
const ENDING: &str = "resource";

/// A permitted attempt. Tags are never reused.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// 1. One of a higher version is left alone.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// What is to be done.
    #[prost(message, optional, tag = "2")]
    pub assignment: Option<Assignment>,
    /// Who was permitted.
    #[prost(string, tag = "3")]
    pub holder: String,
    /// When.
    #[prost(int64, tag = "4")]
    pub started_at_ms: i64,
}

/// A directory of records; without one nothing is kept.
pub struct Store(Option<PathBuf>);

impl Store {
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self(directory)
    }

    fn path(&self, fence: &Fence) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(format!("{}.{ENDING}", display_fence(fence))))
    }

    /// Keeps a record; it is durable when this returns.
    pub fn keep(&self, fence: &Fence, record: &Record) -> std::io::Result<()> {
        let (Some(directory), Some(path)) = (&self.0, self.path(fence)) else { return Ok(()) };
        fs::create_dir_all(directory)?;
        let mut record = record.clone();
        record.version = VERSION;
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&record.encode_to_vec())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    }

    pub fn forget(&self, fence: &Fence) {
        if let Some(path) = self.path(fence)
            && let Err(error) = fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a record of a resource step was not removed");
        }
    }

    /// All records. One that can't be read is told of and left alone: its attempt is lost, which the reconciler notices.
    pub fn all(&self) -> Vec<Record> {
        let Some(entries) = self.0.as_ref().and_then(|directory| fs::read_dir(directory).ok()) else {
            return Vec::new();
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let records = paths.filter(|path| path.extension().is_some_and(|ending| ending == ENDING));
        records
            .filter_map(|path| match read(&path) {
                Ok(record) => Some(record),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a record of a resource step cannot be read");
                    None
                }
            })
            .collect()
    }
}

fn read(path: &std::path::Path) -> std::io::Result<Record> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    let record = Record::decode(bytes.as_slice()).map_err(std::io::Error::other)?;
    if record.version == VERSION {
        Ok(record)
    } else {
        Err(std::io::Error::other(format!("it has version {}", record.version)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_until_it_is_forgotten() {
        let directory = std::env::temp_dir().join(format!("argosy-resource-store-{}", std::process::id()));
        let store = Store::new(Some(directory.clone()));
        let fence = Fence { incarnation: 1, index: 2, ordinal: 3 };
        let assignment = Assignment { fence: Some(fence), namespace: "n".into(), ..Assignment::default() };
        let record = Record { assignment: Some(assignment), holder: "h".into(), ..Record::default() };
        store.keep(&fence, &record).unwrap();
        fs::write(directory.join("broken.resource"), [0xff]).unwrap();
        let found = store.all();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].holder.as_str(), found[0].assignment.as_ref().unwrap().namespace.as_str()),
            ("h", "n")
        );
        store.forget(&fence);
        assert!(store.all().is_empty());
        fs::remove_dir_all(directory).unwrap();
    }
}
