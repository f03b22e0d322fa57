//! Outputs.

use super::content::{CHANGED, Range};
use super::parts::{Object, PARTS_MAX, Part, Parts};
use super::spool::{self, PART_BYTES, Spool};
use super::transfer::{Session, tries};
use super::{Digesting, digest_of_files, drivers, hex, pack};
use crate::artifacts::{OutputFile, Packing, SavedArtifact, Signed};
use flate2::Crc;
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// What is read at once of a file.
const PIECE_BYTES: usize = 128 * 1024;
/// Files of an artifact that is a directory.
pub const FILES_MAX: usize = 10_000;

/// What was saved, and what could not be: Argo's messages, each followed by `; `.
#[derive(Debug, Default)]
pub struct Saved {
    pub artifacts: Vec<SavedArtifact>,
    pub problems: String,
}

/// Saves all outputs that are there. `spool` is a directory for what can't be sent as it comes.
pub fn save(session: &Session, outputs: &[OutputFile], spool: &Path) -> Saved {
    let mut saved = Saved::default();
    for output in outputs {
        match save_one(session, output, spool) {
            Ok(Some(artifact)) => saved.artifacts.push(artifact),
            Ok(None) => {}
            Err(problem) => {
                saved.problems.push_str(&problem);
                saved.problems.push_str("; ");
            }
        }
    }
    saved
}

fn save_one(session: &Session, output: &OutputFile, spool: &Path) -> Result<Option<SavedArtifact>, String> {
    let path = Path::new(&output.path);
    if !path.exists() {
        if output.optional {
            return Ok(None);
        }
        let slash = if output.path.starts_with('/') { "" } else { "/" };
        return Err(format!(
            "open /var/run/argo/outputs/artifacts{slash}{}.tgz: no such file or directory",
            output.path.trim_end_matches('/')
        ));
    }
    if !output.driver.is_empty() {
        return drivers::save(output, path, spool).map(Some);
    }
    let is_tree = path.is_dir() && output.packing == Packing::None;
    if is_tree && output.is_url {
        return Err(format!("artifact {}: a directory needs an archive to be sent to a URL", output.name));
    }
    if is_tree {
        return tree(session, output, path, spool).map(Some);
    }
    let object = Object { session, name: output.name.clone(), file: String::new() };
    let (digest, size) = match output.packing {
        Packing::Tar { level } => packed(&object, spool, &|out| pack::tar(path, level, out))?,
        Packing::Zip => packed(&object, spool, &|out| pack::zip(path, out))?,
        Packing::None => unpacked(&object, spool, path)?,
    };
    Ok(Some(SavedArtifact { name: output.name.clone(), digest, size, directory: false }))
}

fn tree(session: &Session, output: &OutputFile, path: &Path, spool: &Path) -> Result<SavedArtifact, String> {
    let files = pack::files_below(path).map_err(|error| error.to_string())?;
    if files.len() > FILES_MAX {
        return Err(format!("artifact {} has {} files, the limit is {FILES_MAX}", output.name, files.len()));
    }
    let mut digests = Vec::with_capacity(files.len());
    let mut total = 0;
    for file in files {
        let object = Object { session, name: output.name.clone(), file: file.clone() };
        let (digest, size) = unpacked(&object, spool, &path.join(&file))?;
        total += size;
        digests.push((file, digest));
    }
    let digest = digest_of_files(digests);
    Ok(SavedArtifact { name: output.name.clone(), digest, size: total, directory: true })
}

/// Stores a file as it is; gives digest and size of its bytes.
fn unpacked(object: &Object<'_>, spool: &Path, path: &Path) -> Result<(String, u64), String> {
    let told = |error: io::Error| error.to_string();
    let file = File::open(path).map_err(told)?;
    let length = Some(file.metadata().map_err(told)?).filter(|metadata| metadata.is_file());
    match length.map(|metadata| metadata.len()).unwrap_or(0) {
        // What has no length, as the kernel's own files, may have bytes all the same.
        0 => packed(object, spool, &|out| io::copy(&mut &file, out).map(drop)),
        length => {
            let (first, has_parts) = object.signed().map_err(|failure| failure.message)?;
            if has_parts && length > PART_BYTES {
                return in_parts(object, file, length);
            }
            whole(object, first, Range::new(&file, 0, length))
        }
    }
}

/// Stores what is made as it is sent; gives digest and size of its bytes.
fn packed(
    object: &Object<'_>,
    directory: &Path,
    write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<(String, u64), String> {
    let (first, has_parts) = object.signed().map_err(|failure| failure.message)?;
    if !has_parts {
        // Such stores take an object only whole, with its length.
        let told = |error: io::Error| error.to_string();
        let mut file = spool::nameless(directory).map_err(told)?;
        write(&mut file).map_err(told)?;
        let length = file.metadata().map_err(told)?.len();
        return whole(object, first, Range::new(&file, 0, length));
    }
    thread::scope(|scope| {
        let mut sink = Digesting::new(Spool::new(directory, Parts::new(scope, object.clone())));
        let written = write(&mut sink);
        let (digest, size, spool) = sink.finish();
        let ended = match written {
            Ok(()) => spool.finish(object, first),
            Err(error) => Err(spool.give_up().unwrap_or_else(|| error.to_string())),
        };
        ended.map(|()| (digest, size))
    })
}

/// One request; the digest is that of the bytes that were sent.
fn whole(object: &Object<'_>, first: Signed, range: Range<'_>) -> Result<(String, u64), String> {
    let mut bytes = Digesting::new(range);
    let mut first = Some(first);
    tries(|| {
        // Another try needs a request that is still good.
        let request = first.take().map_or_else(|| object.signed().map(|(request, _)| request), Ok)?;
        object.session.put(&request, &mut bytes)
    })?;
    let (digest, size, _) = bytes.finish();
    Ok((digest, size))
}

/// A file that is too large for one request: it is digested while the parts before are sent.
fn in_parts(object: &Object<'_>, file: File, length: u64) -> Result<(String, u64), String> {
    let file = Arc::new(file);
    let part_bytes = PART_BYTES.max(length.div_ceil(PARTS_MAX));
    let mut digest = Context::new(&SHA256);
    thread::scope(|scope| {
        let mut parts = Parts::new(scope, object.clone());
        match give(&mut parts, &file, (length, part_bytes), &mut digest) {
            Ok(()) => parts.finish(),
            Err(problem) => Err(parts.give_up().unwrap_or(problem)),
        }
    })?;
    Ok((hex(digest.finish().as_ref()), length))
}

fn give(
    parts: &mut Parts<'_, '_>,
    file: &Arc<File>,
    (length, part_bytes): (u64, u64),
    digest: &mut Context,
) -> Result<(), String> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < length {
        let mut part = Part { slot: parts.slot()?, offset, length: 0, checksum: 0 };
        let mut sum = Crc::new();
        let wanted = part_bytes.min(length - offset);
        while part.length < wanted {
            let room = usize::try_from(wanted - part.length).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let read = file.read_at(&mut piece[..room], offset + part.length);
            let read = read.map_err(|error| error.to_string())?;
            if read == 0 {
                return Err(CHANGED.to_owned());
            }
            digest.update(&piece[..read]);
            sum.update(&piece[..read]);
            part.length += read as u64;
        }
        part.checksum = sum.sum();
        parts.send(file, part)?;
        offset += wanted;
    }
    Ok(())
}

/// The output that is the log of a container.
pub fn log_output(container: &str, file: &Path, driver: &str) -> OutputFile {
    let path: PathBuf = file.to_owned();
    OutputFile {
        name: format!("{container}-logs"),
        path: path.to_string_lossy().into_owned(),
        optional: true,
        packing: Packing::None,
        is_url: false,
        driver: driver.to_owned(),
    }
}
