//! The questions of executors: where inputs are, and requests to store outputs.

use crate::Error;
use crate::operation::{Entry, entries};
use crate::store::{Store, Stores, addresses};
use argosy_executor::artifacts::{Answer, InputPlan, Operation, RemoteFile, Source, Ticket};
use argosy_model::{Fence, artifact_key};
use argosy_spec::Artifact;
use argosy_spec::artifact::relocate;
use serde_json::Value;

/// Why an executor gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Argo's words, or the store's.
    pub message: String,
    /// Asking again is of no use.
    pub permanent: bool,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { permanent: error.is_permanent(), message: error.to_string() }
    }
}

/// Answers a question about the artifacts that a ticket names; the caller has checked that the ticket is the attempt's.
///
/// # Errors
/// Why there is no answer.
pub async fn answer(
    stores: &Stores,
    fence: &Fence,
    ticket: &Ticket,
    operation: Operation,
) -> Result<Answer, Refusal> {
    match operation {
        Operation::Inputs => {
            let mut plans = Vec::with_capacity(ticket.inputs.len());
            for input in &ticket.inputs {
                plans.push(input_plan(stores, ticket, input).await?);
            }
            Ok(Answer::Inputs { inputs: plans })
        }
        Operation::ResultObject => {
            let object = crate::result::place(stores, fence, ticket).await?;
            Ok(Answer::ResultObject { object })
        }
        Operation::Paths => Ok(Answer::Paths { paths: paths(stores, ticket).await? }),
        Operation::Resolve { url } => {
            let parsed = url.parse().map_err(|_| refused("the address of a redirection can't be read"))?;
            Ok(Answer::Addresses { addresses: addresses(&parsed).await? })
        }
        Operation::Archive { .. } => Err(refused("archives are asked for elsewhere")),
        Operation::Put { name, file } => {
            let (store, key) = output(stores, fence, ticket, &name, &file).await?;
            Ok(Answer::Signed { request: store.sign_put(&key).await?, parts: store.has_parts() })
        }
        Operation::Begin { name, file } => {
            let (store, key) = output(stores, fence, ticket, &name, &file).await?;
            Ok(Answer::Upload { upload: store.begin(&key).await? })
        }
        Operation::Part { name, file, upload, number } => {
            let (store, key) = output(stores, fence, ticket, &name, &file).await?;
            Ok(Answer::Signed { request: store.sign_part(&key, &upload, number).await?, parts: true })
        }
        Operation::Complete { name, file, upload, tags } => {
            let (store, key) = output(stores, fence, ticket, &name, &file).await?;
            if let Err(error) = store.complete(&key, &upload, &tags).await {
                // It may be done all the same: an answer is lost, or comes later than anyone waits for it, and then the
                // store knows the upload no more. Nobody but this attempt stores under its key.
                let there = store.head(&key).await;
                there.ok().flatten().ok_or(error)?;
            }
            Ok(Answer::Done)
        }
        Operation::Save { name } => {
            let location = output_location(ticket, &name)?;
            if location.location.contains_key("plugin") {
                Ok(Answer::Done)
            } else {
                Err(refused(&format!("no driver keeps the output artifact {name}")))
            }
        }
        Operation::Abort { name, file, upload } => {
            let (store, key) = output(stores, fence, ticket, &name, &file).await?;
            store.abort(&key, &upload).await?;
            Ok(Answer::Done)
        }
    }
}

pub(crate) fn refused(message: &str) -> Refusal {
    Refusal { message: message.to_owned(), permanent: true }
}

pub(crate) fn artifact(value: &Value) -> Result<Artifact, Refusal> {
    serde_json::from_value(value.clone())
        .map_err(|error| refused(&format!("the artifact can't be read: {error}")))
}

/// The store and the key for an output of an attempt. URLs that are no store have no key of the attempt's.
async fn output(
    stores: &Stores,
    fence: &Fence,
    ticket: &Ticket,
    name: &str,
    file: &str,
) -> Result<(Store, String), Refusal> {
    let artifact = output_location(ticket, name)?;
    let store = stores.open(&ticket.namespace, &artifact.location).await?;
    if file.split('/').any(|part| part == "..") {
        return Err(refused("a file's name can't climb out of its artifact"));
    }
    let mut key = artifact_key(&ticket.prefix, fence, artifact.key());
    if !file.is_empty() {
        key = format!("{}/{file}", key.trim_end_matches('/'));
    }
    Ok((store, key))
}

/// An output of a ticket, its location whole.
fn output_location(ticket: &Ticket, name: &str) -> Result<Artifact, Refusal> {
    let declared =
        ticket.outputs.iter().find(|output| output.get("name").and_then(Value::as_str) == Some(name));
    let mut artifact = match declared {
        Some(declared) => artifact(declared)?,
        None => log_artifact(ticket, name).ok_or_else(|| refused("the step has no such output artifact"))?,
    };
    if !artifact.has_location() {
        let file_name = match declared {
            Some(_) => artifact.file_name(),
            None => format!("{}.log", name.trim_end_matches("-logs")),
        };
        artifact.location = ticket.archive_location.clone();
        artifact.location.shift_remove("archiveLogs");
        let key = format!("{}/{file_name}", artifact.key().trim_end_matches('/'));
        artifact.set_key(&key);
    } else {
        relocate(&mut artifact.location, &ticket.archive_location);
    }
    Ok(artifact)
}

/// The log of a container, if logs are kept.
fn log_artifact(ticket: &Ticket, name: &str) -> Option<Artifact> {
    let is_kept = ticket.archive_location.get("archiveLogs").and_then(Value::as_bool) == Some(true);
    (is_kept && name.ends_with("-logs")).then(|| Artifact { name: name.to_owned(), ..Artifact::default() })
}

/// The keys below the location that a `data` template names, as Argo lists them.
async fn paths(stores: &Stores, ticket: &Ticket) -> Result<Vec<String>, Refusal> {
    let source = ticket.paths_of.as_ref();
    let mut artifact = artifact(source.ok_or_else(|| refused("the step lists no artifacts"))?)?;
    relocate(&mut artifact.location, &ticket.archive_location);
    let store = stores.open(&ticket.namespace, &artifact.location).await?;
    let found = store.list(artifact.key(), stores.limits.listed_max).await?;
    if found.is_empty() && store.head(artifact.key()).await?.is_none() {
        return Err(refused(&format!("no key found of name {}", artifact.key())));
    }
    Ok(found.into_iter().map(|object| object.key).collect())
}

async fn input_plan(stores: &Stores, ticket: &Ticket, input: &Value) -> Result<InputPlan, Refusal> {
    let digest = input.pointer("/argosy/digest").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut artifact = artifact(input)?;
    let name = artifact.name.clone();
    let keys = located(&mut artifact, ticket);
    let failed = |error: Error| {
        let refusal = Refusal::from(error);
        let message = format!("artifact {name} failed to load: {}", refusal.message);
        Refusal { message, ..refusal }
    };
    let Some((kind, _)) = artifact.kind() else {
        return Ok(InputPlan { name, source: Source::Missing });
    };
    if kind == "git" {
        return Ok(InputPlan { name, source: Source::Agent });
    }
    if kind == "plugin" {
        return Ok(InputPlan { name, source: Source::Driver });
    }
    let store = stores.open(&ticket.namespace, &artifact.location).await.map_err(failed)?;
    if !store.is_store() {
        let request = store.sign_get("").await.map_err(failed)?;
        return Ok(InputPlan { name, source: Source::Url { request } });
    }
    match files(&store, stores, &keys).await {
        Ok(files) => Ok(InputPlan { name, source: Source::Objects { files, digest } }),
        Err(Error::NotFound) => Ok(InputPlan { name, source: Source::Missing }),
        Err(error) => Err(failed(error)),
    }
}

/// Completes an input's location. Gives the keys where it may be, first that of the attempt that made it.
pub(crate) fn located(artifact: &mut Artifact, ticket: &Ticket) -> Vec<String> {
    let stored = artifact.location.shift_remove("argosy");
    relocate(&mut artifact.location, &ticket.archive_location);
    let own = stored.as_ref().and_then(|stored| stored.get("key")?.as_str()).unwrap_or_default();
    [own, artifact.key()].iter().filter(|key| !key.is_empty()).map(ToString::to_string).collect()
}

/// Requests for what is under the first of the keys that has anything: one object, or all below it.
pub(crate) async fn files(store: &Store, stores: &Stores, keys: &[String]) -> Result<Vec<RemoteFile>, Error> {
    let found = entries(store, stores.limits.files_max, keys).await?;
    let mut files = Vec::with_capacity(found.len());
    for Entry { path, key, size } in found {
        files.push(RemoteFile { path, size, request: store.sign_get(&key).await? });
    }
    Ok(files)
}
