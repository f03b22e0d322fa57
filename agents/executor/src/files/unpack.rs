//! One stream to files.

use crate::artifacts::Packing;
use flate2::read::GzDecoder;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

/// Bytes that are looked at to tell what a stream is.
const LOOK_BYTES: usize = 64 * 1024;

/// Writes a stream to a path, unpacked as told or as its contents say. What was there is replaced.
pub fn unpack(mut from: impl Read, to: &Path, packing: Option<Packing>) -> io::Result<()> {
    let mut start = Vec::new();
    from.by_ref().take(LOOK_BYTES as u64).read_to_end(&mut start)?;
    let packing = packing.unwrap_or_else(|| look(&start));
    let mut stream = Cursor::new(start).chain(from);
    make_parent(to)?;
    match packing {
        Packing::None => {
            remove(to)?;
            io::copy(&mut stream, &mut File::create(to)?)?;
        }
        Packing::Tar { .. } => {
            let directory = beside(to, "untar");
            remove(&directory)?;
            fs::create_dir_all(&directory)?;
            let unpacked = untar(&mut stream, &directory).and_then(|()| settle(&directory, to));
            remove(&directory)?;
            unpacked?;
        }
        Packing::Zip => {
            let (directory, file) = (beside(to, "unzip"), beside(to, "zip"));
            remove(&directory)?;
            fs::create_dir_all(&directory)?;
            let unpacked = io::copy(&mut stream, &mut File::create(&file)?)
                .and_then(|_| unzip(&file, &directory))
                .and_then(|()| settle(&directory, to));
            remove(&directory)?;
            remove(&file)?;
            unpacked?;
        }
    }
    // The rest counts for the digest.
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn untar(stream: &mut impl Read, directory: &Path) -> io::Result<()> {
    let mut decoder = GzDecoder::new(stream);
    let mut archive = tar::Archive::new(&mut decoder);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    archive.unpack(directory)?;
    // What follows the last entry belongs to the stream.
    io::copy(&mut decoder, &mut io::sink()).map(drop)
}

fn unzip(file: &Path, directory: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(file)?).map_err(io::Error::other)?;
    archive.extract(directory).map_err(io::Error::other)
}

/// Argo's rule: an archive of one entry is that entry.
fn settle(directory: &Path, to: &Path) -> io::Result<()> {
    let entries: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    remove(to)?;
    match entries.as_slice() {
        [one] => fs::rename(one, to),
        _ => fs::rename(directory, to),
    }
}

/// By its first bytes: a gzipped tar, a zip file, or neither.
fn look(start: &[u8]) -> Packing {
    if start.starts_with(b"PK\x03\x04") {
        return Packing::Zip;
    }
    if start.starts_with(&[0x1f, 0x8b]) {
        let mut block = [0; 512];
        let is_block = GzDecoder::new(start).read_exact(&mut block).is_ok();
        if is_block && (block[257..262] == *b"ustar" || is_header(&block)) {
            return Packing::Tar { level: None };
        }
    }
    Packing::None
}

/// The sum in an old header of a tar fits.
fn is_header(block: &[u8; 512]) -> bool {
    let told = std::str::from_utf8(&block[148..156]).unwrap_or_default();
    let told = u32::from_str_radix(told.trim_matches(['\0', ' ']), 8);
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum();
    told == Ok(sum + 8 * u32::from(b' '))
}

pub fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

pub fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

/// A name beside a path, on the same file system.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().map_or_else(|| "artifact".into(), |name| name.to_string_lossy().into_owned());
    path.with_file_name(format!(".{name}.argosy-{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::pack;

    fn tree(root: &Path) {
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("a"), "1").unwrap();
        fs::write(root.join("d/b"), "2").unwrap();
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("x");
        tree(&source);
        for packing in [Packing::Tar { level: Some(1) }, Packing::Zip] {
            let mut packed = Vec::new();
            match packing {
                Packing::Tar { level } => pack::tar(&source, level, &mut packed).unwrap(),
                Packing::Zip => pack::zip(&source, &mut packed).unwrap(),
                Packing::None => unreachable!(),
            }
            for told in [None, Some(packing)] {
                let to = root.path().join("out/y");
                unpack(packed.as_slice(), &to, told).unwrap();
                assert_eq!(fs::read_to_string(to.join("d/b")).unwrap(), "2", "{packing:?}");
                let left = fs::read_dir(root.path().join("out")).unwrap().count();
                assert_eq!(left, 1, "nothing is left beside it");
            }
        }
        let file = root.path().join("one");
        fs::write(&file, "plain").unwrap();
        let mut packed = Vec::new();
        pack::tar(&file, None, &mut packed).unwrap();
        let to = root.path().join("two");
        unpack(packed.as_slice(), &to, None).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "plain");
        unpack(packed.as_slice(), &to, Some(Packing::None)).unwrap();
        assert_eq!(fs::read(&to).unwrap(), packed, "as it is when that is asked for");
    }

    #[test]
    fn what_is_no_archive_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let to = root.path().join("x");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut gz, &[7; 2000]).unwrap();
        let gz = gz.finish().unwrap();
        for bytes in [b"echo ran".to_vec(), Vec::new(), gz] {
            unpack(bytes.as_slice(), &to, None).unwrap();
            assert_eq!(fs::read(&to).unwrap(), bytes);
        }
    }

    #[test]
    fn an_archive_cannot_write_outside() {
        let root = tempfile::tempdir().unwrap();
        let mut builder =
            tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        header.as_gnu_mut().unwrap().name[..9].copy_from_slice(b"../../bad");
        header.set_cksum();
        builder.append(&header, &b"x"[..]).unwrap();
        let packed = builder.into_inner().unwrap().finish().unwrap();
        let to = root.path().join("a/b/c");
        let _ = unpack(packed.as_slice(), &to, None);
        assert!(!root.path().join("a/bad").exists() && !root.path().join("bad").exists());
    }
}
