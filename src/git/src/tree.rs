//! The archive.

use crate::{Archive, Error};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use tar::{EntryType, Header};

/// A gzipped tar in the making.
pub struct Builder {
    tar: tar::Builder<GzEncoder<BufWriter<File>>>,
    now: u64,
    left: u64,
    bytes_max: u64,
}

impl Builder {
    pub fn new(file: File, bytes_max: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let packed = GzEncoder::new(BufWriter::new(file), Compression::fast());
        Self { tar: tar::Builder::new(packed), now, left: bytes_max, bytes_max }
    }

    fn header(&self, kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(self.now);
        header
    }

    fn count(&mut self, bytes: u64) -> Result<(), Error> {
        let over = Error::Limit { what: "the files", max: self.bytes_max };
        self.left = self.left.checked_sub(bytes).ok_or(over)?;
        Ok(())
    }

    pub fn directory(&mut self, path: &Path) -> Result<(), Error> {
        let mut header = self.header(EntryType::Directory, 0o755, 0);
        Ok(self.tar.append_data(&mut header, path, std::io::empty())?)
    }

    pub fn file(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
        self.count(bytes.len() as u64)?;
        let mut header = self.header(EntryType::Regular, mode, bytes.len() as u64);
        Ok(self.tar.append_data(&mut header, path, bytes)?)
    }

    pub fn copy(&mut self, path: &Path, from: &Path) -> Result<(), Error> {
        let file = File::open(from)?;
        let size = file.metadata()?.len();
        let mut header = self.header(EntryType::Regular, 0o444, size);
        Ok(self.tar.append_data(&mut header, path, file.take(size))?)
    }

    pub fn link(&mut self, path: &Path, target: &Path) -> Result<(), Error> {
        let mut header = self.header(EntryType::Symlink, 0o777, 0);
        Ok(self.tar.append_link(&mut header, path, target)?)
    }

    pub fn finish(self) -> Result<Archive, Error> {
        let mut buffered = self.tar.into_inner()?.finish()?;
        buffered.flush()?;
        let mut file = buffered.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let bytes = file.stream_position()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Archive { file, bytes })
    }
}
