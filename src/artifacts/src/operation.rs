//! What the control plane has done in stores: copies after a commit, deletions, listings, downloads.

use crate::Error;
use crate::store::{Store, Stores};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Something to be done in the store of a location, with the Secrets of a namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Operation {
    /// Copies an attempt's object (or all below its key) to the key that users know. May be repeated.
    Copy {
        /// Whose Secrets the location names.
        namespace: String,
        /// Argo's ArtifactLocation, whole.
        location: Map<String, Value>,
        /// The attempt's key.
        from: String,
        /// The user's key.
        to: String,
        /// All objects below.
        directory: bool,
        /// Bytes.
        size: u64,
    },
    /// Deletes an object and, of a directory, all below its key. May be repeated.
    Delete {
        /// Whose Secrets the location names.
        namespace: String,
        /// Argo's ArtifactLocation, whole.
        location: Map<String, Value>,
        /// The key.
        key: String,
        /// What is below the key goes, too.
        below: bool,
    },
    /// Tells what is under the first of the keys that has anything, as JSON of a list of [`Entry`].
    Stat {
        /// Whose Secrets the location names.
        namespace: String,
        /// Argo's ArtifactLocation, whole.
        location: Map<String, Value>,
        /// Keys in the order in which they are tried.
        keys: Vec<String>,
    },
    /// Streams a part of an object. Readers ask for one part after the other, so that nobody waits for a slow one.
    Read {
        /// Whose Secrets the location names.
        namespace: String,
        /// Argo's ArtifactLocation, whole.
        location: Map<String, Value>,
        /// The key.
        key: String,
        /// The first byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Lists keys below one, as a JSON list.
    List {
        /// Whose Secrets the location names.
        namespace: String,
        /// Argo's ArtifactLocation, whole.
        location: Map<String, Value>,
        /// The key.
        key: String,
    },
    /// Signs requests to read what is under a key, for a step of a cluster that has no credentials for it: JSON of
    /// `Vec<RemoteFile>`.
    Sign {
        /// Whose Secrets the location names.
        namespace: String,
        /// Argo's ArtifactLocation, whole.
        location: Map<String, Value>,
        /// Keys in the order in which they are tried.
        keys: Vec<String>,
    },
}

impl Operation {
    /// Whose Secrets the location names.
    pub fn namespace_mut(&mut self) -> &mut String {
        match self {
            Self::Copy { namespace, .. }
            | Self::Delete { namespace, .. }
            | Self::Stat { namespace, .. }
            | Self::Read { namespace, .. }
            | Self::List { namespace, .. }
            | Self::Sign { namespace, .. } => namespace,
        }
    }
}

/// An object under a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the key; empty for the key itself.
    pub path: String,
    /// The whole key.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

/// What comes of an operation: bytes in order.
pub type Outcome = BoxStream<'static, Result<Bytes, Error>>;

/// Does it.
///
/// # Errors
/// Why it could not be done.
pub async fn operate(stores: &Stores, operation: Operation) -> Result<Outcome, Error> {
    match operation {
        Operation::Copy { namespace, location, from, to, directory, size } => {
            let store = stores.open(&namespace, &location).await?;
            copy(&store, stores, &from, &to, directory, size).await?;
            Ok(nothing())
        }
        Operation::Delete { namespace, location, key, below } => {
            let store = stores.open(&namespace, &location).await?;
            store.delete(&key).await?;
            if below {
                store.delete_below(&format!("{key}/")).await?;
            }
            Ok(nothing())
        }
        Operation::Stat { namespace, location, keys } => {
            let store = stores.open(&namespace, &location).await?;
            let found = entries(&store, stores.limits.files_max, &keys).await?;
            Ok(one(serde_json::to_vec(&found).unwrap_or_default()))
        }
        Operation::Read { namespace, location, key, offset, length } => {
            let store = stores.open(&namespace, &location).await?;
            store.read(&key, offset..offset.saturating_add(length)).await
        }
        Operation::List { namespace, location, key } => {
            let store = stores.open(&namespace, &location).await?;
            let found = store.list(&key, stores.limits.listed_max).await?;
            let keys: Vec<String> = found.into_iter().map(|object| object.key).collect();
            Ok(one(serde_json::to_vec(&keys).unwrap_or_default()))
        }
        Operation::Sign { namespace, location, keys } => {
            let store = stores.open(&namespace, &location).await?;
            let files = crate::executor::files(&store, stores, &keys).await?;
            Ok(one(serde_json::to_vec(&files).unwrap_or_default()))
        }
    }
}

/// What is under the first of the keys that has anything: one object, or all below it.
pub(crate) async fn entries(store: &Store, max: usize, keys: &[String]) -> Result<Vec<Entry>, Error> {
    for key in keys {
        if let Some(found) = store.head(key).await? {
            return Ok(vec![Entry { path: String::new(), key: found.key, size: found.size }]);
        }
        let below = store.list(key, max).await?;
        if below.is_empty() {
            continue;
        }
        let prefix = key.trim_matches('/');
        let entry = |file: crate::Found| {
            let path = file.key.strip_prefix(prefix).unwrap_or(&file.key).trim_start_matches('/').to_owned();
            Entry { path, key: file.key, size: file.size }
        };
        return Ok(below.into_iter().map(entry).collect());
    }
    Err(Error::NotFound)
}

fn nothing() -> Outcome {
    stream::empty().boxed()
}

fn one(bytes: Vec<u8>) -> Outcome {
    stream::once(async move { Ok(Bytes::from(bytes)) }).boxed()
}

async fn copy(
    store: &Store,
    stores: &Stores,
    from: &str,
    to: &str,
    directory: bool,
    size: u64,
) -> Result<(), Error> {
    if !directory {
        return match store.copy(from, to, size).await {
            // Swept after an earlier copy: then the copy is there.
            Err(Error::NotFound) if store.head(to).await?.is_some() => Ok(()),
            copied => copied,
        };
    }
    let files = store.list(from, stores.limits.files_max).await?;
    if files.is_empty() {
        return Err(Error::NotFound);
    }
    let prefix = from.trim_matches('/');
    for file in files {
        let rest = file.key.strip_prefix(prefix).unwrap_or_default().trim_start_matches('/');
        store.copy(&file.key, &format!("{}/{rest}", to.trim_end_matches('/')), file.size).await?;
    }
    Ok(())
}
