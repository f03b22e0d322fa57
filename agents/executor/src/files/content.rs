//! Bytes on their way to a store: they may have to be sent more than once.

use super::Digesting;
use flate2::Crc;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;

/// What is said of a file that is not, while it is stored, what it was before.
pub const CHANGED: &str = "the file changed while it was stored";

/// What a request sends.
pub trait Source: Read {
    /// Bytes of it.
    fn length(&self) -> u64;
    /// To its beginning, for another try.
    fn rewind(&mut self);
}

impl Source for Cursor<&[u8]> {
    fn length(&self) -> u64 {
        self.get_ref().len() as u64
    }

    fn rewind(&mut self) {
        self.set_position(0);
    }
}

/// A part of a file. Others may read the same file meanwhile.
pub struct Range<'a> {
    file: &'a File,
    offset: u64,
    length: u64,
    position: u64,
}

impl<'a> Range<'a> {
    pub fn new(file: &'a File, offset: u64, length: u64) -> Self {
        Self { file, offset, length, position: 0 }
    }
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length - self.position;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.offset + self.position)?;
        if read == 0 && wanted > 0 {
            return Err(io::Error::other(CHANGED));
        }
        self.position += read as u64;
        Ok(read)
    }
}

impl Source for Range<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn rewind(&mut self) {
        self.position = 0;
    }
}

/// The digest is that of the last try.
impl<S: Source> Source for Digesting<S> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn rewind(&mut self) {
        self.inner.rewind();
        self.start_anew();
    }
}

/// Knows a checksum of what the last try sent. Much cheaper than a digest.
pub struct Summing<S> {
    inner: S,
    sum: Crc,
}

impl<S> Summing<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, sum: Crc::new() }
    }

    pub fn sum(&self) -> u32 {
        self.sum.sum()
    }
}

impl<S: Read> Read for Summing<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.update(&buffer[..read]);
        Ok(read)
    }
}

impl<S: Source> Source for Summing<S> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn rewind(&mut self) {
        self.inner.rewind();
        self.sum.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_part_of_a_file_is_the_same_every_time() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut range = Summing::new(Range::new(&file, 2, 5));
        for _ in 0..2 {
            range.rewind();
            let mut text = String::new();
            range.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), range.length()), ("23456", 5));
        }
        let mut whole = Crc::new();
        whole.update(b"23456");
        assert_eq!(range.sum(), whole.sum());
        let mut digesting = Digesting::new(Range::new(&file, 0, 10));
        for _ in 0..2 {
            digesting.rewind();
            io::copy(&mut digesting, &mut io::sink()).unwrap();
        }
        assert_eq!(digesting.finish().1, 10);
    }

    #[test]
    fn a_file_that_was_cut_off_is_not_sent() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123").unwrap();
        let error = io::copy(&mut Range::new(&file, 0, 5), &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), CHANGED);
    }
}
