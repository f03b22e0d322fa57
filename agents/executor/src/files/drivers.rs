//! Outputs that a driver keeps, at the side of the main container: put where the driver can read them, and handed to the
//! container that speaks to it. The user's command can reach neither the driver nor other keys than its template names.

use super::{Digesting, digest_of_files, pack, save::FILES_MAX};
use crate::artifacts::{OutputFile, Packing, SavedArtifact};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where outputs lie in the directory that the containers share.
const OUTPUTS: &str = "outputs/artifacts";
/// Where the containers that speak to drivers listen, in the same directory.
const GATES: &str = "drivers";
/// How long such a container may take to begin to listen: it was started before this one.
const GATE_WAIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is asked of the container that speaks to a driver: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saving {
    /// The artifact.
    pub name: String,
    /// Where the driver reads it.
    pub path: PathBuf,
}

/// Its answer, one line of JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Empty: it is saved.
    pub error: String,
}

/// Where the container that speaks to a driver listens.
pub fn gate(shared: &Path, driver: &str) -> PathBuf {
    shared.join(GATES).join(driver)
}

/// Saves an output that is there.
pub fn save(output: &OutputFile, path: &Path, shared: &Path) -> Result<SavedArtifact, String> {
    let folder = shared.join(OUTPUTS).join(&output.name);
    let saved = put(output, path, &folder)
        .map_err(|error| format!("artifact {}: {error}", output.name))
        .and_then(|(staged, saved)| ask(output, staged, shared).map(|()| saved));
    // It may be large, and the step's other outputs need room too.
    let _ = fs::remove_dir_all(&folder);
    saved
}

/// Puts an output into a folder, packed as it says; gives where it lies there, and what it is.
fn put(output: &OutputFile, path: &Path, folder: &Path) -> io::Result<(PathBuf, SavedArtifact)> {
    open_folder(folder)?;
    let own_name = || path.file_name().map_or_else(|| output.name.clone().into(), ToOwned::to_owned);
    let staged = folder.join(match output.packing {
        Packing::Tar { .. } => format!("{}.tgz", output.name).into(),
        Packing::Zip => format!("{}.zip", output.name).into(),
        Packing::None => own_name(),
    });
    let artifact =
        |digest, size, directory| SavedArtifact { name: output.name.clone(), digest, size, directory };
    if path.is_dir() && output.packing == Packing::None {
        let (digest, size) = copy_tree(path, &staged)?;
        return Ok((staged, artifact(digest, size, true)));
    }
    let (digest, size) = write(&staged, |out| match output.packing {
        Packing::Tar { level } => pack::tar(path, level, out),
        Packing::Zip => pack::zip(path, out),
        Packing::None => io::copy(&mut File::open(path)?, out).map(drop),
    })?;
    Ok((staged, artifact(digest, size, false)))
}

/// The driver runs as another user: it must get in, and the executors of other containers must be able to add to it.
fn open_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for folder in folder.ancestors().take(3) {
        // Only whoever made it can, and only that is needed.
        let _ = fs::set_permissions(folder, Permissions::from_mode(0o777));
    }
    Ok(())
}

fn write(to: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<(String, u64)> {
    let mut sink = Digesting::new(File::create(to)?);
    fill(&mut sink)?;
    let (digest, size, file) = sink.finish();
    file.set_permissions(Permissions::from_mode(0o644))?;
    Ok((digest, size))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<(String, u64)> {
    let files = pack::files_below(from)?;
    if files.len() > FILES_MAX {
        return Err(io::Error::other(format!("it has {} files, the limit is {FILES_MAX}", files.len())));
    }
    fs::create_dir_all(to)?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    let (mut digests, mut total) = (Vec::with_capacity(files.len()), 0);
    for file in files {
        let target = to.join(&file);
        for folder in Path::new(&file).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(to.join(folder))?;
            fs::set_permissions(to.join(folder), Permissions::from_mode(0o755))?;
        }
        let (digest, size) =
            write(&target, |out| io::copy(&mut File::open(from.join(&file))?, out).map(drop))?;
        total += size;
        digests.push((file, digest));
    }
    Ok((digest_of_files(digests), total))
}

/// Asks for it to be saved, and waits for as long as the driver takes.
fn ask(output: &OutputFile, staged: PathBuf, shared: &Path) -> Result<(), String> {
    let driver = &output.driver;
    let told = |error: io::Error| {
        format!("plugin {driver} save failed: the container artifact-saver-{driver} does not answer: {error}")
    };
    let mut stream = connect(&gate(shared, driver)).map_err(told)?;
    let saving = Saving { name: output.name.clone(), path: staged };
    let line = serde_json::to_string(&saving).map_err(|error| told(error.into()))?;
    stream.write_all(format!("{line}\n").as_bytes()).map_err(told)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(told)?;
    let answer: Told = serde_json::from_str(&answer).map_err(|error| told(error.into()))?;
    if answer.error.is_empty() { Ok(()) } else { Err(answer.error) }
}

fn connect(gate: &Path) -> io::Result<UnixStream> {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(gate) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
                    && begun.elapsed() < GATE_WAIT => {}
            connected => return connected,
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
