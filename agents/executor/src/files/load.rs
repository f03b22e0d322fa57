//! Inputs.

use super::transfer::{Failure, Session, tries};
use super::unpack::{make_parent, remove, unpack};
use super::{Digesting, digest_of_files};
use crate::artifacts::{Answer, InputFile, InputPlan, Operation, Packing, RemoteFile, Signed, Source};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why inputs could not be loaded.
#[derive(Debug)]
pub struct Problem {
    /// Argo's message, without what comes before `artifact`.
    pub message: String,
    /// Inputs that their stores do not have, if that is why.
    pub missing: Vec<String>,
    /// Inputs whose store did not answer, if that is why.
    pub unreached: Vec<String>,
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self { message, missing: Vec::new(), unreached: Vec::new() }
    }
}

/// Loads all inputs. `place` gives the path that an input is written to.
pub fn load(
    session: Option<&Session>,
    inputs: &[InputFile],
    place: impl Fn(&InputFile) -> PathBuf,
) -> Result<(), Problem> {
    let asks = inputs.iter().any(|input| input.raw.is_none());
    let plans = match session {
        Some(session) if asks => plans_of(session).map_err(|why| unreached(inputs, why))?,
        _ => Vec::new(),
    };
    let missing: Vec<String> =
        inputs.iter().filter(|input| is_missing(input, &plans)).map(|input| input.name.clone()).collect();
    if let Some(first) = missing.first() {
        return Err(Problem { message: not_loaded(first, NO_KEY), missing, unreached: Vec::new() });
    }
    for input in inputs {
        let failed = |reason: String| not_loaded(&input.name, &reason);
        let to = place(input);
        if let Some(raw) = &input.raw {
            write_raw(&to, raw).map_err(|error| failed(error.to_string()))?;
        } else {
            let plan = plans.iter().find(|plan| plan.name == input.name);
            let fetched = fetch(session, input, plan, &to);
            if !fetched.map_err(|why| unreached(std::slice::from_ref(input), failed(why)))? {
                continue;
            }
        }
        set_mode(input, &to).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// Inputs that could not be had, whatever was in the way: who knows that their store is lost can tell.
fn unreached(inputs: &[InputFile], message: String) -> Problem {
    let asked = inputs.iter().filter(|input| input.raw.is_none());
    Problem { message, missing: Vec::new(), unreached: asked.map(|input| input.name.clone()).collect() }
}

/// What Argo says of an object that is not there.
const NO_KEY: &str = "The specified key does not exist.";

fn not_loaded(name: &str, reason: &str) -> String {
    format!("artifact {name} failed to load: {reason}")
}

/// The store has been asked, and has nothing of what the step can't do without.
fn is_missing(input: &InputFile, plans: &[InputPlan]) -> bool {
    let plan = plans.iter().find(|plan| plan.name == input.name);
    input.raw.is_none() && !input.optional && plan.is_some_and(|plan| plan.source == Source::Missing)
}

fn write_raw(to: &Path, text: &str) -> io::Result<()> {
    make_parent(to)?;
    remove(to)?;
    fs::write(to, text)
}

/// False when there is nothing, and that is allowed.
fn fetch(
    session: Option<&Session>,
    input: &InputFile,
    plan: Option<&InputPlan>,
    to: &Path,
) -> Result<bool, String> {
    let Some(session) = session else { return Err("there is no agent to ask".to_owned()) };
    let mut plan = plan.map(|plan| plan.source.clone());
    let loaded = tries(|| {
        let source = match plan.take() {
            Some(source) => source,
            // Another try needs requests that are still good.
            None => again(session, &input.name)?,
        };
        once(session, input, &source, to)
    })?;
    if !loaded && !input.optional {
        return Err(NO_KEY.to_owned());
    }
    Ok(loaded)
}

fn plans_of(session: &Session) -> Result<Vec<InputPlan>, String> {
    let Answer::Inputs { inputs } = session.ask(Operation::Inputs)? else { return Ok(Vec::new()) };
    Ok(inputs)
}

fn again(session: &Session, name: &str) -> Result<Source, Failure> {
    let plans = plans_of(session).map_err(|message| Failure { message, again: false })?;
    let plan = plans.into_iter().find(|plan| plan.name == name);
    plan.map(|plan| plan.source)
        .ok_or_else(|| Failure { message: "the agent knows no such input".to_owned(), again: false })
}

fn once(session: &Session, input: &InputFile, source: &Source, to: &Path) -> Result<bool, Failure> {
    match source {
        Source::Missing => Ok(false),
        Source::Driver => {
            let message = "its driver runs beside steps in Pods only".to_owned();
            Err(Failure { message, again: false })
        }
        Source::Agent => {
            let archive = session.archive(&input.name)?;
            let packing = Some(input.packing.unwrap_or(Packing::Tar { level: None }));
            unpack(archive, to, packing)
                .map_err(|error| Failure { message: error.to_string(), again: true })?;
            Ok(true)
        }
        Source::Url { request } => one(session, request, true, to, input.packing).map(|_| true),
        Source::Objects { files, digest } => {
            let is_single = matches!(files.as_slice(), [file] if file.path.is_empty());
            let found = if is_single {
                one(session, &files[0].request, false, to, input.packing)?
            } else {
                directory(session, files, to)?
            };
            if !digest.is_empty() && found != *digest {
                let message = format!("its bytes have the digest {found}, and {digest} was stored");
                return Err(Failure { message, again: true });
            }
            Ok(true)
        }
    }
}

fn one(
    session: &Session,
    request: &Signed,
    is_url: bool,
    to: &Path,
    packing: Option<Packing>,
) -> Result<String, Failure> {
    let mut reader = Digesting::new(session.get(request, is_url)?);
    let unpacked = unpack(&mut reader, to, packing);
    // Bytes that stop early, and a full disk, look alike: another try tells.
    unpacked.map_err(|error| Failure { message: error.to_string(), again: true })?;
    Ok(reader.finish().0)
}

fn directory(session: &Session, files: &[RemoteFile], to: &Path) -> Result<String, Failure> {
    remove(to).map_err(|error| Failure { message: error.to_string(), again: false })?;
    let mut digests = Vec::with_capacity(files.len());
    for file in files {
        if file.path.split('/').any(|part| part == "..") || file.path.starts_with('/') {
            let message = format!("an object's name climbs out of its artifact: {}", file.path);
            return Err(Failure { message, again: false });
        }
        if file.path.ends_with('/') || file.path.is_empty() {
            continue;
        }
        let digest = one(session, &file.request, false, &to.join(&file.path), Some(Packing::None))?;
        digests.push((file.path.clone(), digest));
    }
    Ok(digest_of_files(digests))
}

pub fn set_mode(input: &InputFile, path: &Path) -> io::Result<()> {
    let Some(mode) = input.mode else { return Ok(()) };
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
        if input.recurse_mode && path.is_dir() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                if !entry.file_type()?.is_symlink() {
                    open.push(entry.path());
                }
            }
        }
    }
    Ok(())
}
