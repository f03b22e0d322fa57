//! What agent and executor say to each other about artifacts.
//!
//! `POST /v1/artifacts` with a [`Request`] is answered 200 with an [`Answer`], 403 (refused for good; the body is the
//! node's message), 503 (ask again) or 401. A request names what its [`Ticket`] allows, and nothing else is signed.
//! [`Operation::Archive`] goes to `POST /v1/artifacts/archive` and is answered with the archive itself.

use crate::protocol::ResultObject;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Parts of one large output that an executor sends side by side, unless its agent says otherwise.
pub const PARTS_AT_ONCE: u64 = 4;
/// At most so many: each takes a thread and a connection with its buffers, and an executor has 15 MB.
pub const PARTS_AT_ONCE_MAX: u64 = 16;

/// What a task says, within its bounds.
#[must_use]
pub fn parts_at_once(told: u64) -> usize {
    let wanted = if told == 0 { PARTS_AT_ONCE } else { told };
    usize::try_from(wanted.min(PARTS_AT_ONCE_MAX)).unwrap_or(1)
}

/// What an attempt may read and write in stores. Made by its agent, sealed, and handed back with every request: an agent
/// that was started anew knows it again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Whose Secrets the locations name.
    pub namespace: String,
    /// Of the keys under which attempts of the workflow store objects of their own.
    pub prefix: String,
    /// Argo's Artifact objects, with ours beside the location where the bytes are known.
    #[serde(default)]
    pub inputs: Vec<Value>,
    /// Argo's Artifact objects.
    #[serde(default)]
    pub outputs: Vec<Value>,
    /// Argo's ArtifactLocation for what names none.
    #[serde(default)]
    pub archive_location: Map<String, Value>,
    /// The Argo Artifact whose paths a `data` template asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths_of: Option<Value>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The fence, displayed.
    pub fence: String,
    /// Who asks.
    pub holder: String,
    /// The sealed ticket.
    pub ticket: String,
    /// What is asked.
    pub operation: Operation,
}

/// What an executor asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Operation {
    /// Where the inputs are.
    Inputs,
    /// The keys below the location that a `data` template names.
    Paths,
    /// Where the result may be left when the agent can't be reached.
    ResultObject,
    /// The addresses of a URL's host, after a redirection.
    Resolve {
        /// The URL.
        url: String,
    },
    /// An input that the agent packs itself, as a gzipped tar.
    Archive {
        /// The artifact.
        name: String,
    },
    /// A request that stores an output whole.
    Put {
        /// The artifact.
        name: String,
        /// The file in it; empty for an artifact that is one object.
        file: String,
    },
    /// Begins an upload in parts.
    Begin {
        /// The artifact.
        name: String,
        /// The file in it.
        file: String,
    },
    /// A request that stores a part.
    Part {
        /// The artifact.
        name: String,
        /// The file in it.
        file: String,
        /// The upload.
        upload: String,
        /// From 1.
        number: u16,
    },
    /// Joins the parts.
    Complete {
        /// The artifact.
        name: String,
        /// The file in it.
        file: String,
        /// The upload.
        upload: String,
        /// What the store answered to the parts, in order.
        tags: Vec<String>,
    },
    /// Whether an output that a driver keeps may be saved now.
    Save {
        /// The artifact.
        name: String,
    },
    /// Gives an upload up.
    Abort {
        /// The artifact.
        name: String,
        /// The file in it.
        file: String,
        /// The upload.
        upload: String,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Answer {
    /// Where the inputs are.
    Inputs {
        /// In the order of the template.
        inputs: Vec<InputPlan>,
    },
    /// What a store has below a location.
    Paths {
        /// Keys in order.
        paths: Vec<String>,
    },
    /// Addresses of a host.
    Addresses {
        /// `IP:PORT`.
        addresses: Vec<String>,
    },
    /// A signed request.
    Signed {
        /// The request.
        request: Signed,
        /// The store takes parts.
        parts: bool,
    },
    /// Where the result may be left; nowhere if the attempt's location is no store.
    ResultObject {
        /// The place.
        object: Option<ResultObject>,
    },
    /// An upload was begun.
    Upload {
        /// Its id.
        upload: String,
    },
    /// It is done.
    Done,
}

/// Where an input is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPlan {
    /// The artifact.
    pub name: String,
    /// Where from.
    pub source: Source,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Source {
    /// Objects in a store.
    Objects {
        /// One without a path, or all of a directory.
        files: Vec<RemoteFile>,
        /// SHA-256 in hex; empty = not known.
        digest: String,
    },
    /// A URL as the manifest has it.
    Url {
        /// The request.
        request: Signed,
    },
    /// The agent has it: what it takes to get it (a repository's login, say) stays there.
    Agent,
    /// A driver in the step's Pod has it.
    Driver,
    /// Nowhere.
    Missing,
}

/// An object to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Below the artifact; empty for an artifact that is one object.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The request.
    pub request: Signed,
}

/// A request that may be sent for a while. Its URL is a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// With its signature.
    pub url: String,
    /// To be sent with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// `IP:PORT` of its host.
    pub addresses: Vec<String>,
    /// Certificates (PEM) that its host's is checked against, besides the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// An input of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// The artifact.
    pub name: String,
    /// The file or directory.
    pub path: String,
    /// Permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// For everything below, too.
    #[serde(default)]
    pub recurse_mode: bool,
    /// Not having it is no failure.
    #[serde(default)]
    pub optional: bool,
    /// How it is packed; unset = by its contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing: Option<Packing>,
    /// Its contents, where the manifest has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// An output of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// The artifact.
    pub name: String,
    /// The file or directory.
    pub path: String,
    /// Not having it is no failure.
    #[serde(default)]
    pub optional: bool,
    /// How it is packed.
    pub packing: Packing,
    /// Its location is a URL: one request stores it, and it can't be a directory.
    #[serde(default)]
    pub is_url: bool,
    /// The driver that keeps it; empty: no driver does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
}

/// A driver of Argo's ("artifact plugin") in the step's Pod, and what it is to load or save there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Seconds until it must answer, where its configuration says so; 0 = Argo's limits.
    #[serde(default)]
    pub connection_timeout_seconds: u32,
    /// What it keeps of this step's.
    pub artifacts: Vec<DriverArtifact>,
}

/// An artifact as its driver is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverArtifact {
    /// The artifact.
    pub name: String,
    /// The file or directory in the main container.
    #[serde(default)]
    pub path: String,
    /// Permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<i32>,
    /// For everything below, too.
    #[serde(default)]
    pub recurse_mode: bool,
    /// Not having it is no failure.
    #[serde(default)]
    pub optional: bool,
    /// For the driver alone to understand.
    #[serde(default)]
    pub configuration: String,
    /// What the driver is to find it by.
    pub key: String,
    /// Of this artifact, instead of the driver's; 0 = the driver's.
    #[serde(default)]
    pub connection_timeout_seconds: u32,
}

/// Where a driver's socket is: Argo's place.
#[must_use]
pub fn driver_folder(driver: &str) -> String {
    format!("/tmp/artifact-plugins/{driver}")
}

/// A driver's socket, which is its only argument.
#[must_use]
pub fn driver_socket(driver: &str) -> String {
    format!("{}/socket", driver_folder(driver))
}

/// How an artifact is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// A gzipped tar of this compression level.
    Tar {
        /// 0 to 9; unset = the usual one.
        level: Option<u32>,
    },
    /// A zip file.
    Zip,
    /// As it is.
    None,
}

/// An artifact that was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedArtifact {
    /// Its name.
    pub name: String,
    /// SHA-256 in hex; of a directory, that of the list of its files and their digests.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Many objects.
    #[serde(default)]
    pub directory: bool,
}

fn packing(archive: Option<&Value>) -> Option<Packing> {
    let archive = archive?.as_object()?;
    if archive.contains_key("none") {
        Some(Packing::None)
    } else if archive.contains_key("zip") {
        Some(Packing::Zip)
    } else {
        let tar = archive.get("tar")?;
        let level = tar.get("compressionLevel").and_then(Value::as_u64);
        Some(Packing::Tar {
            level: level.and_then(|level| u32::try_from(level).ok()).filter(|level| *level <= 9),
        })
    }
}

/// Locations of object stores, as Argo names them: what is there can be read, copied and deleted.
pub const STORES: [&str; 4] = ["s3", "gcs", "azure", "oss"];

/// The artifacts of a template: what is loaded, what is saved, whether logs are kept, and the ticket for it (its namespace
/// and prefix are the agent's to fill in).
#[must_use]
pub fn of_template(template: &Value) -> (Vec<InputFile>, Vec<OutputFile>, bool, Option<Ticket>) {
    let list = |side: &str| {
        let found = template.pointer(&format!("/{side}/artifacts")).and_then(Value::as_array);
        found.cloned().unwrap_or_default()
    };
    let text = |artifact: &Value, field: &str| {
        artifact.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let flag = |artifact: &Value, field: &str| artifact.get(field).and_then(Value::as_bool).unwrap_or(false);
    let archive_location =
        template.get("archiveLocation").and_then(Value::as_object).cloned().unwrap_or_default();
    let paths_of =
        template.pointer("/data/source/artifactPaths").filter(|source| source.is_object()).cloned();
    // As in Argo, where nobody stands beside what has no command.
    let has_command =
        ["http", "plugin", "data"].iter().all(|kind| !template.get(*kind).is_some_and(Value::is_object));
    let archive_logs =
        has_command && archive_location.get("archiveLogs").and_then(Value::as_bool).unwrap_or(false);
    let (inputs, outputs) = (list("inputs"), list("outputs"));
    let input_files = inputs.iter().map(|artifact| InputFile {
        name: text(artifact, "name"),
        path: text(artifact, "path"),
        mode: artifact.get("mode").and_then(Value::as_u64).and_then(|mode| u32::try_from(mode).ok()),
        recurse_mode: flag(artifact, "recurseMode"),
        optional: flag(artifact, "optional"),
        packing: packing(artifact.get("archive")),
        raw: artifact.pointer("/raw/data").and_then(Value::as_str).map(str::to_owned),
    });
    let output_files = outputs.iter().map(|artifact| OutputFile {
        name: text(artifact, "name"),
        path: text(artifact, "path"),
        optional: flag(artifact, "optional"),
        packing: packing(artifact.get("archive")).unwrap_or(Packing::Tar { level: None }),
        is_url: artifact.get("http").is_some() || artifact.get("artifactory").is_some(),
        driver: String::new(),
    });
    let (input_files, output_files): (Vec<_>, Vec<_>) = (input_files.collect(), output_files.collect());
    let needs_store = |input: &InputFile| input.raw.is_none();
    let has_ticket = input_files.iter().any(needs_store)
        || !output_files.is_empty()
        || archive_logs
        || paths_of.is_some()
        || STORES.iter().any(|kind| archive_location.contains_key(*kind));
    let mut inputs = inputs;
    for artifact in &mut inputs {
        // The contents are in the task; the ticket stays small.
        if let Some(fields) = artifact.as_object_mut() {
            fields.shift_remove("raw");
        }
    }
    let ticket =
        has_ticket.then(|| Ticket { inputs, outputs, archive_location, paths_of, ..Ticket::default() });
    (input_files, output_files, archive_logs, ticket)
}
