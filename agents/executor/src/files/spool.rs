//! Bytes that are made as they are sent: archives, and what has no length.
//!
//! They go through a file in which each part under way has a place of its own, used again once it is sent; what is small
//! never touches the disk.

use super::content::Range;
use super::parts::{Object, Part, Parts};
use super::transfer::tries;
use crate::artifacts::Signed;
use flate2::Crc;
use std::fs::File;
use std::io::{self, Cursor, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a part: at least what S3 takes.
pub const PART_BYTES: u64 = 8 * 1024 * 1024;
/// From this part on, parts of what has no length yet are larger, so that their number suffices.
const PARTS_SMALL_MAX: u64 = 4_000;
const PART_BYTES_LARGE: u64 = 32 * 1024 * 1024;
/// What is gathered before it is written to the file. Parts are whole multiples of it.
const BUFFER_BYTES: usize = 128 * 1024;
/// Files of other executors that may be in the way for an instant.
const NAMES_MAX: u32 = 1_000;

/// A file for what is on its way; it goes with its last user, however that ends.
pub fn nameless(directory: &Path) -> io::Result<File> {
    for number in 0..NAMES_MAX {
        let path = directory.join(format!("upload-{}-{number}", std::process::id()));
        match File::options().create_new(true).read(true).write(true).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("{} has no room for another file", directory.display())))
}

/// Where the bytes of an object are written to.
pub struct Spool<'p, 'scope, 'env> {
    directory: &'p Path,
    parts: Parts<'scope, 'env>,
    buffer: Vec<u8>,
    file: Option<Arc<File>>,
    /// That of the part that is being made.
    slot: Option<usize>,
    filled: u64,
    sum: Crc,
    problem: Option<String>,
}

impl<'p, 'scope, 'env> Spool<'p, 'scope, 'env> {
    pub fn new(directory: &'p Path, parts: Parts<'scope, 'env>) -> Self {
        let (buffer, sum) = (Vec::new(), Crc::new());
        Self { directory, parts, buffer, file: None, slot: None, filled: 0, sum, problem: None }
    }

    fn part_bytes(&self) -> u64 {
        if self.parts.given() < PARTS_SMALL_MAX { PART_BYTES } else { PART_BYTES_LARGE }
    }

    fn write_out(&mut self) -> Result<(), String> {
        let told = |error: io::Error| error.to_string();
        let slot = match self.slot {
            Some(slot) => slot,
            None => *self.slot.insert(self.parts.slot()?),
        };
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(Arc::new(nameless(self.directory).map_err(told)?)),
        };
        file.write_all_at(&self.buffer, offset_of(slot) + self.filled).map_err(told)?;
        self.sum.update(&self.buffer);
        self.filled += self.buffer.len() as u64;
        self.buffer.clear();
        if self.filled >= self.part_bytes() { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), String> {
        let (Some(slot), Some(file)) = (self.slot.take(), &self.file) else { return Ok(()) };
        let part = Part { slot, offset: offset_of(slot), length: self.filled, checksum: self.sum.sum() };
        (self.filled, self.sum) = (0, Crc::new());
        self.parts.send(file, part)
    }

    /// Sends what is left, or all of it in one request, the first of which is given.
    pub fn finish(mut self, object: &Object<'_>, first: Signed) -> Result<(), String> {
        let ended = self.end(object, first);
        match ended {
            Ok(true) => self.parts.finish(),
            Ok(false) => Ok(()),
            Err(problem) => Err(self.parts.give_up().unwrap_or(problem)),
        }
    }

    /// True if parts are under way.
    fn end(&mut self, object: &Object<'_>, first: Signed) -> Result<bool, String> {
        let mut first = Some(first);
        let mut request = || first.take().map_or_else(|| object.signed().map(|(request, _)| request), Ok);
        if self.file.is_none() {
            let mut bytes = Cursor::new(self.buffer.as_slice());
            return tries(|| object.session.put(&request()?, &mut bytes)).map(|_| false);
        }
        if !self.buffer.is_empty() {
            self.write_out()?;
        }
        if self.parts.given() == 0
            && let (Some(slot), Some(file)) = (self.slot, &self.file)
        {
            let mut bytes = Range::new(file, offset_of(slot), self.filled);
            return tries(|| object.session.put(&request()?, &mut bytes)).map(|_| false);
        }
        self.send().map(|()| true)
    }

    /// Nothing of it stays; gives why, if sending is why.
    pub fn give_up(self) -> Option<String> {
        self.parts.give_up().or(self.problem)
    }
}

fn offset_of(slot: usize) -> u64 {
    slot as u64 * PART_BYTES_LARGE
}

impl Write for Spool<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BUFFER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() >= BUFFER_BYTES
            && let Err(problem) = self.write_out()
        {
            self.problem = Some(problem.clone());
            return Err(io::Error::other(problem));
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_made_of_whole_buffers() {
        for bytes in [PART_BYTES, PART_BYTES_LARGE] {
            assert_eq!(bytes % BUFFER_BYTES as u64, 0);
        }
    }

    #[test]
    fn a_spool_file_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (nameless(directory.path()).unwrap(), nameless(directory.path()).unwrap());
        one.write_all(b"one").unwrap();
        other.write_all(b"2").unwrap();
        assert_eq!((one.metadata().unwrap().len(), other.metadata().unwrap().len()), (3, 1));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
