//! A backup: the rows of a checkpoint as one stream of bytes that says when it is whole.
//!
//! ```text
//! "ARGOSYBK" | version u32 | header: length u32, JSON | frames... | end
//! frame: 1 | count u32 | count times (family u32, key length u32, key, value length u32, value)
//! end:   2 | rows in all u64 | BLAKE3 of everything before these 32 bytes
//! ```
//! Numbers are big-endian. What the header says is the writer's business.

use std::io::{self, Read};

use crate::{Family, Row};

const MAGIC: &[u8; 8] = b"ARGOSYBK";
/// Version of the form above.
pub const BACKUP_VERSION: u32 = 1;
const ROWS: u8 = 1;
const END: u8 = 2;
/// Longest header, key or value that is believed. Values are bounded by a batch's size long before.
const PIECE_BYTES_MAX: u32 = 64 << 20;

/// Why a backup can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file can't be read.
    #[error("the backup can't be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as a backup does.
    #[error("this is no backup: it does not begin with {}", String::from_utf8_lossy(MAGIC))]
    NoBackup,
    /// Another version wrote it.
    #[error(
        "the backup has version {found}, this program reads version {BACKUP_VERSION}: use the program that wrote it"
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// It ends too early.
    #[error("the backup ends after {rows} rows without its closing mark: it was cut short, make another")]
    Truncated {
        /// Rows read.
        rows: u64,
    },
    /// It is not what was written.
    #[error("the backup is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
}

/// Writes a backup piece by piece.
#[derive(Debug)]
pub struct BackupWriter {
    digest: blake3::Hasher,
    rows: u64,
}

impl BackupWriter {
    /// The beginning, to be written first.
    #[must_use]
    pub fn begin(header: &[u8]) -> (Self, Vec<u8>) {
        let mut out = MAGIC.to_vec();
        out.extend(BACKUP_VERSION.to_be_bytes());
        piece(&mut out, header);
        let mut digest = blake3::Hasher::new();
        digest.update(&out);
        (Self { digest, rows: 0 }, out)
    }

    /// A frame with these rows.
    pub fn rows(&mut self, rows: &[Row]) -> Vec<u8> {
        let mut out = vec![ROWS];
        out.extend(u32::try_from(rows.len()).unwrap_or(u32::MAX).to_be_bytes());
        for row in rows {
            out.extend(row.family.number().to_be_bytes());
            piece(&mut out, &row.key);
            piece(&mut out, &row.value);
        }
        self.rows += rows.len() as u64;
        self.digest.update(&out);
        out
    }

    /// The end. Without it a backup counts as cut short.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let mut out = vec![END];
        out.extend(self.rows.to_be_bytes());
        self.digest.update(&out);
        out.extend(self.digest.finalize().as_bytes());
        out
    }
}

fn piece(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

/// Reads a backup frame by frame. Nothing of it should be acted on before [`BackupReader::next`] has given `None`: only
/// then is it known to be whole.
pub struct BackupReader<R> {
    source: R,
    digest: blake3::Hasher,
    rows: u64,
}

impl<R: Read> BackupReader<R> {
    /// Reads the beginning and the header.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn open(source: R) -> Result<(Self, Vec<u8>), BackupError> {
        let mut reader = Self { source, digest: blake3::Hasher::new(), rows: 0 };
        let mut magic = [0; 8];
        match reader.source.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Ok(()) => return Err(BackupError::NoBackup),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(BackupError::NoBackup),
            Err(error) => return Err(error.into()),
        }
        reader.digest.update(&magic);
        let found = reader.number()?;
        if found != BACKUP_VERSION {
            return Err(BackupError::Version { found });
        }
        let header = reader.piece()?;
        Ok((reader, header))
    }

    /// The next rows; `None` at the end of a backup that is whole.
    ///
    /// # Errors
    /// [`BackupError`].
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after an error")]
    pub fn next(&mut self) -> Result<Option<Vec<Row>>, BackupError> {
        let [kind] = self.take::<1>()?;
        match kind {
            ROWS => self.frame().map(Some),
            END => self.end().map(|()| None),
            other => Err(BackupError::Damaged {
                reason: format!("a frame of unknown kind {other} after {} rows", self.rows),
            }),
        }
    }

    fn frame(&mut self) -> Result<Vec<Row>, BackupError> {
        let count = self.number()?;
        let mut rows = Vec::new();
        for _ in 0..count {
            let number = self.number()?;
            let family = Family::from_number(number).filter(|family| Family::DATA.contains(family));
            let family = family.ok_or_else(|| BackupError::Damaged {
                reason: format!("row {} is of family {number}, which no backup holds", self.rows),
            })?;
            let (key, value) = (self.piece()?, self.piece()?);
            self.rows += 1;
            rows.push(Row { family, key, value });
        }
        Ok(rows)
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let told = u64::from_be_bytes(self.take()?);
        let expected = self.digest.finalize();
        let mut found = [0; 32];
        self.fill(&mut found)?;
        let damaged = |reason: String| Err(BackupError::Damaged { reason });
        if told != self.rows {
            return damaged(format!("it has {} rows and should have {told}", self.rows));
        }
        if expected.as_bytes() != &found {
            return damaged("its digest is another".to_owned());
        }
        if self.source.read(&mut [0])? != 0 {
            return damaged("something follows its end".to_owned());
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        let cut = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
        self.source.read_exact(bytes).map_err(|error| {
            if cut(&error) { BackupError::Truncated { rows: self.rows } } else { BackupError::Io(error) }
        })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        self.digest.update(&bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, BackupError> {
        self.take().map(u32::from_be_bytes)
    }

    fn piece(&mut self) -> Result<Vec<u8>, BackupError> {
        let length = self.number()?;
        if length > PIECE_BYTES_MAX {
            return Err(BackupError::Damaged {
                reason: format!("a piece of {length} bytes after {} rows", self.rows),
            });
        }
        // Grows as bytes come: a damaged length reserves nothing.
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(u64::from(length)).read_to_end(&mut bytes)?;
        if read as u64 != u64::from(length) {
            return Err(BackupError::Truncated { rows: self.rows });
        }
        self.digest.update(&bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(family: Family, key: &[u8], value: &[u8]) -> Row {
        Row { family, key: key.to_vec(), value: value.to_vec() }
    }

    fn written() -> (Vec<Row>, Vec<u8>) {
        let rows = vec![
            row(Family::State, b"a", b"1"),
            row(Family::State, b"b", b""),
            row(Family::Archive, b"c", b"3"),
        ];
        let (mut writer, mut bytes) = BackupWriter::begin(b"{}");
        bytes.extend(writer.rows(&rows[..2]));
        bytes.extend(writer.rows(&rows[2..]));
        bytes.extend(writer.finish());
        (rows, bytes)
    }

    fn read(bytes: &[u8]) -> Result<(Vec<u8>, Vec<Row>), BackupError> {
        let (mut reader, header) = BackupReader::open(bytes)?;
        let mut rows = Vec::new();
        while let Some(mut frame) = reader.next()? {
            rows.append(&mut frame);
        }
        Ok((header, rows))
    }

    #[test]
    fn what_is_written_reads_back() {
        let (rows, bytes) = written();
        assert_eq!(read(&bytes).unwrap(), (b"{}".to_vec(), rows));
    }

    #[test]
    fn the_bytes_of_a_backup_stay() {
        let (mut writer, begin) = BackupWriter::begin(b"{}");
        assert_eq!(begin, b"ARGOSYBK\0\0\0\x01\0\0\0\x02{}");
        let frame = writer.rows(&[row(Family::State, b"k", b"v")]);
        assert_eq!(frame, b"\x01\0\0\0\x01\0\0\0\x03\0\0\0\x01k\0\0\0\x01v");
        assert_eq!(writer.finish()[..9], *b"\x02\0\0\0\0\0\0\0\x01");
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let (_, bytes) = written();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "bit of byte {at}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(read(&longer).is_err(), "something follows");
    }
}
