//! Outputs.

use super::transfer::{Failure, Session, tries};
use super::{Digesting, digest_of_files, pack};
use crate::artifacts::{Answer, Operation, OutputFile, Packing, SavedArtifact, Signed};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes of a part: the least that S3 takes, since it is held in memory.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// From this part on, parts are larger, so that their number suffices.
const PARTS_SMALL_MAX: usize = 4_000;
const PART_BYTES_LARGE: usize = 32 * 1024 * 1024;
/// Parts of one object, which S3 allows: 19.5 GiB in small and 187.5 GiB in large ones.
const PARTS_MAX: usize = 10_000;
/// Files of an artifact that is a directory.
const FILES_MAX: usize = 10_000;

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
    let is_tree = path.is_dir() && output.packing == Packing::None;
    if is_tree && output.is_url {
        return Err(format!("artifact {}: a directory needs an archive to be sent to a URL", output.name));
    }
    if is_tree {
        return tree(session, output, path, spool).map(Some);
    }
    let (digest, size) = object(session, &output.name, "", spool, |out| match output.packing {
        Packing::Tar { level } => pack::tar(path, level, out),
        Packing::Zip => pack::zip(path, out),
        Packing::None => io::copy(&mut File::open(path)?, out).map(drop),
    })?;
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
        let (digest, size) = object(session, &output.name, &file, spool, |out| {
            io::copy(&mut File::open(path.join(&file))?, out).map(drop)
        })?;
        total += size;
        digests.push((file, digest));
    }
    let digest = digest_of_files(digests);
    Ok(SavedArtifact { name: output.name.clone(), digest, size: total, directory: true })
}

/// Stores one object; gives digest and size of its bytes.
fn object(
    session: &Session,
    name: &str,
    file: &str,
    spool: &Path,
    write: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<(String, u64), String> {
    let first = signed(session, name, file)?;
    if !first.1 {
        return spooled(session, name, file, spool, write);
    }
    let mut sink = Digesting::new(Upload::new(session, name, file));
    let written = write(&mut sink);
    let (digest, size, upload) = sink.finish();
    let ended = match written {
        Ok(()) => upload.finish(),
        Err(error) => Err(upload.give_up(&error)),
    };
    ended.map(|()| (digest, size))
}

fn signed(session: &Session, name: &str, file: &str) -> Result<(Signed, bool), String> {
    match session.ask(Operation::Put { name: name.to_owned(), file: file.to_owned() })? {
        Answer::Signed { request, parts } => Ok((request, parts)),
        Answer::Inputs { .. }
        | Answer::Paths { .. }
        | Answer::Addresses { .. }
        | Answer::Upload { .. }
        | Answer::Done => Err("the agent's answer is not a signed request".to_owned()),
    }
}

/// For stores that take an object only whole, with its length: by way of a file.
fn spooled(
    session: &Session,
    name: &str,
    file: &str,
    spool: &Path,
    write: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<(String, u64), String> {
    let path = spool.join(format!("upload-{}", std::process::id()));
    let told = |error: io::Error| error.to_string();
    let sent = (|| {
        let target =
            File::options().create(true).truncate(true).read(true).write(true).open(&path).map_err(told)?;
        let mut sink = Digesting::new(target);
        write(&mut sink).map_err(told)?;
        let (digest, size, mut target) = sink.finish();
        tries(|| {
            target
                .seek(SeekFrom::Start(0))
                .map_err(|error| Failure { message: error.to_string(), again: false })?;
            let (request, _) =
                signed(session, name, file).map_err(|message| Failure { message, again: false })?;
            session.put_from(&request, &mut target, size)
        })?;
        Ok((digest, size))
    })();
    let _ = fs::remove_file(&path);
    sent
}

/// An object that is sent as it comes: whole if it is small, else in parts.
struct Upload<'a> {
    session: &'a Session,
    name: String,
    file: String,
    part: Vec<u8>,
    upload: Option<String>,
    tags: Vec<String>,
    problem: Option<String>,
}

impl<'a> Upload<'a> {
    fn new(session: &'a Session, name: &str, file: &str) -> Self {
        Self {
            session,
            name: name.to_owned(),
            file: file.to_owned(),
            part: Vec::new(),
            upload: None,
            tags: Vec::new(),
            problem: None,
        }
    }

    fn part_bytes(&self) -> usize {
        if self.tags.len() < PARTS_SMALL_MAX { PART_BYTES } else { PART_BYTES_LARGE }
    }

    fn send_part(&mut self) -> Result<(), String> {
        let (name, file) = (self.name.clone(), self.file.clone());
        let upload = match &self.upload {
            Some(upload) => upload.clone(),
            None => match self.session.ask(Operation::Begin { name: name.clone(), file: file.clone() })? {
                Answer::Upload { upload } => self.upload.insert(upload).clone(),
                Answer::Inputs { .. }
                | Answer::Paths { .. }
                | Answer::Addresses { .. }
                | Answer::Signed { .. }
                | Answer::Done => {
                    return Err("the agent's answer is not an upload".to_owned());
                }
            },
        };
        let number = self.tags.len() + 1;
        if number > PARTS_MAX {
            return Err(format!("artifact {name} needs more than {PARTS_MAX} parts"));
        }
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        let tag = tries(|| {
            let operation =
                Operation::Part { name: name.clone(), file: file.clone(), upload: upload.clone(), number };
            match self.session.ask(operation) {
                Ok(Answer::Signed { request, .. }) => self.session.put(&request, &self.part),
                Ok(_) => {
                    Err(Failure { message: "the agent's answer is not a request".to_owned(), again: false })
                }
                Err(message) => Err(Failure { message, again: false }),
            }
        })?;
        self.tags.push(tag);
        self.part.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(), String> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        if self.upload.is_none() {
            return tries(|| {
                let (request, _) = signed(self.session, &self.name, &self.file)
                    .map_err(|message| Failure { message, again: false })?;
                self.session.put(&request, &self.part)
            })
            .map(drop);
        }
        if !self.part.is_empty() {
            self.send_part()?;
        }
        let upload = self.upload.take().unwrap_or_default();
        let (name, file, tags) = (self.name, self.file, self.tags);
        self.session.ask(Operation::Complete { name, file, upload, tags }).map(drop)
    }

    /// Nothing of it stays; gives why.
    fn give_up(mut self, error: &io::Error) -> String {
        if let Some(upload) = self.upload.take() {
            let (name, file) = (self.name.clone(), self.file.clone());
            let _ = self.session.ask(Operation::Abort { name, file, upload });
        }
        self.problem.unwrap_or_else(|| error.to_string())
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.capacity() == 0 {
            self.part.reserve(bytes.len().min(PART_BYTES));
        }
        let room = self.part_bytes() - self.part.len();
        let taken = bytes.len().min(room);
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() >= self.part_bytes()
            && let Err(problem) = self.send_part()
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

/// The output that is the log of a container.
pub fn log_output(container: &str, file: &Path) -> OutputFile {
    let path: PathBuf = file.to_owned();
    OutputFile {
        name: format!("{container}-logs"),
        path: path.to_string_lossy().into_owned(),
        optional: true,
        packing: Packing::None,
        is_url: false,
    }
}
