//! Artifacts as manifests write them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::manifest::null_is_default;

/// The kinds of location, and the field of each that names the object in it.
const KINDS: [(&str, &str); 9] = [
    ("s3", "key"),
    ("gcs", "key"),
    ("oss", "key"),
    ("azure", "blob"),
    ("http", "url"),
    ("artifactory", "url"),
    ("git", "repo"),
    ("raw", ""),
    ("plugin", "key"),
];
/// Kinds that a repository can be: locations without a bucket of their own are in it.
const STORES: [&str; 5] = ["s3", "gcs", "oss", "azure", "plugin"];
/// Argo's key format where a repository has none.
pub const KEY_FORMAT: &str = "{{workflow.name}}/{{pod.name}}";

/// An artifact: declared, given or produced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// The file or directory in the container; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Permissions of a loaded file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<i64>,
    /// The mode counts for everything below, too.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub recurse_mode: bool,
    /// A tag of another artifact; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// An expression that gives another artifact; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub from_expression: String,
    /// The part of the other artifact that is meant; empty for all of it.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub sub_path: String,
    /// Not having it is no failure.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub optional: bool,
    /// Outputs only: also known as `workflow.outputs.artifacts.NAME`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub global_name: String,
    /// `{tar: ..}`, `{zip: {}}` or `{none: {}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<Map<String, Value>>,
    /// When it is deleted, if it says so itself.
    #[serde(rename = "artifactGC", skip_serializing_if = "Option::is_none")]
    pub artifact_gc: Option<Map<String, Value>>,
    /// It has been deleted.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// Where it is.
    #[serde(flatten)]
    pub location: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// How an artifact is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// A gzipped tar; the level of compression, if given.
    Tar(Option<i64>),
    /// A zip file.
    Zip,
    /// Files as they are.
    None,
}

impl Artifact {
    /// The kind of its location and what is said of it.
    pub fn kind(&self) -> Option<(&str, &Map<String, Value>)> {
        KINDS.iter().find_map(|(kind, _)| Some((*kind, self.location.get(*kind)?.as_object()?)))
    }

    /// It says where it is, if only by a key.
    pub fn has_location(&self) -> bool {
        self.kind().is_some_and(|(kind, fields)| kind == "raw" || !key_in(kind, fields).is_empty())
    }

    /// The key in its store; empty for none.
    pub fn key(&self) -> &str {
        self.kind().map_or("", |(kind, fields)| key_in(kind, fields))
    }

    /// Makes `key` the key in its store.
    pub fn set_key(&mut self, key: &str) {
        set_key(&mut self.location, key);
    }

    /// How it is packed, if it says so.
    pub fn archive(&self) -> Option<Archive> {
        let archive = self.archive.as_ref()?;
        let level = || archive.get("tar")?.get("compressionLevel")?.as_i64();
        if archive.contains_key("none") {
            Some(Archive::None)
        } else if archive.contains_key("zip") {
            Some(Archive::Zip)
        } else {
            archive.contains_key("tar").then(|| Archive::Tar(level()))
        }
    }

    /// The name of its file in a store, where the key is made for it.
    pub fn file_name(&self) -> String {
        match self.archive() {
            None | Some(Archive::Tar(_)) => format!("{}.tgz", self.name),
            Some(Archive::Zip) => format!("{}.zip", self.name),
            Some(Archive::None) => {
                let path = self.path.trim_end_matches('/');
                path.rsplit('/').next().unwrap_or(path).to_owned()
            }
        }
    }

    /// When it is deleted: its own strategy, else the workflow's.
    pub fn gc_strategy<'a>(&'a self, workflow: &'a str) -> &'a str {
        let own = self.artifact_gc.as_ref().and_then(|gc| gc.get("strategy")?.as_str());
        own.filter(|own| !own.is_empty()).unwrap_or(workflow)
    }
}

fn key_in<'a>(kind: &str, fields: &'a Map<String, Value>) -> &'a str {
    let field = KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, field)| *field);
    fields.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Makes `key` the key of a location.
pub fn set_key(location: &mut Map<String, Value>, key: &str) {
    for (kind, field) in KINDS {
        if let Some(fields) = location.get_mut(kind).and_then(Value::as_object_mut)
            && !field.is_empty()
        {
            fields.insert(field.to_owned(), key.into());
        }
    }
}

/// A location whose store is not named is in the repository: its fields come from there, its own win.
pub fn relocate(location: &mut Map<String, Value>, repository: &Map<String, Value>) {
    for kind in STORES {
        let Some(own) = location.get_mut(kind).and_then(Value::as_object_mut) else { continue };
        let is_whole = match kind {
            "azure" => is_text(own, "container"),
            // A driver is told nothing that the artifact or the repository does not say.
            "plugin" => is_text(own, "name") && is_text(own, "configuration"),
            _ => is_text(own, "bucket"),
        };
        if is_whole {
            return;
        }
        let Some(below) = repository.get(kind).and_then(Value::as_object) else { return };
        for (key, value) in
            below.iter().filter(|(key, _)| !matches!(key.as_str(), "keyFormat" | "blobNameFormat"))
        {
            own.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn is_text(fields: &Map<String, Value>, field: &str) -> bool {
    fields.get(field).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}

/// The location of a step's files in a repository, the key as its format says with tags in it. Artifactory's is a URL.
pub fn archive_location(repository: &Map<String, Value>) -> Option<Map<String, Value>> {
    for (kind, format, field) in [
        ("s3", "keyFormat", "key"),
        ("gcs", "keyFormat", "key"),
        ("oss", "keyFormat", "key"),
        ("azure", "blobNameFormat", "blob"),
        ("plugin", "keyFormat", "key"),
    ] {
        let Some(mut fields) = repository.get(kind).and_then(Value::as_object).cloned() else { continue };
        let format = fields.shift_remove(format);
        let prefix = fields.shift_remove("keyPrefix");
        let format = match (format, prefix) {
            (Some(Value::String(format)), _) if !format.is_empty() => format,
            // The older word for a format.
            (_, Some(Value::String(prefix))) if !prefix.is_empty() => format!("{prefix}/{KEY_FORMAT}"),
            _ => KEY_FORMAT.to_owned(),
        };
        fields.insert(field.to_owned(), format.into());
        return Some(Map::from_iter([(kind.to_owned(), Value::Object(fields))]));
    }
    let mut fields = repository.get("artifactory").and_then(Value::as_object).cloned()?;
    let base = fields.shift_remove("repoURL").and_then(|url| url.as_str().map(str::to_owned))?;
    let format = fields.shift_remove("keyFormat").and_then(|format| format.as_str().map(str::to_owned));
    let format = format.filter(|format| !format.is_empty()).unwrap_or_else(|| KEY_FORMAT.to_owned());
    fields.insert("url".to_owned(), format!("{}/{format}", base.trim_end_matches('/')).into());
    Some(Map::from_iter([("artifactory".to_owned(), Value::Object(fields))]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn artifact(value: Value) -> Artifact {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn names_of_files_follow_the_archive() {
        for (archive, name) in [
            (json!(null), "a.tgz"),
            (json!({"tar": {"compressionLevel": 1}}), "a.tgz"),
            (json!({"zip": {}}), "a.zip"),
            (json!({"none": {}}), "x.txt"),
        ] {
            let one = artifact(json!({"name": "a", "path": "/tmp/x.txt", "archive": archive}));
            assert_eq!(one.file_name(), name);
        }
    }

    #[test]
    fn a_key_alone_is_in_the_repository_and_a_bucket_is_not() {
        let repository = json!({"s3": {"bucket": "b", "endpoint": "e", "keyFormat": "f"}});
        let repository = repository.as_object().unwrap();
        let mut one = artifact(json!({"name": "a", "s3": {"key": "k"}}));
        relocate(&mut one.location, repository);
        assert_eq!(one.location["s3"], json!({"key": "k", "bucket": "b", "endpoint": "e"}));
        let mut other = artifact(json!({"name": "a", "s3": {"key": "k", "bucket": "own"}}));
        relocate(&mut other.location, repository);
        assert_eq!(other.location["s3"], json!({"key": "k", "bucket": "own"}));
        let archive = archive_location(repository).unwrap();
        assert_eq!(archive["s3"], json!({"bucket": "b", "endpoint": "e", "key": "f"}));
    }

    #[test]
    fn a_drivers_repository_says_driver_and_configuration() {
        let repository =
            json!({"plugin": {"name": "d", "configuration": "c", "keyFormat": "f/{{pod.name}}"}});
        let repository = repository.as_object().unwrap();
        let archive = archive_location(repository).unwrap();
        assert_eq!(archive["plugin"], json!({"name": "d", "configuration": "c", "key": "f/{{pod.name}}"}));
        let mut one = artifact(json!({"name": "a", "plugin": {"key": "k"}}));
        assert!(one.has_location() && one.key() == "k");
        relocate(&mut one.location, &archive);
        assert_eq!(one.location["plugin"], json!({"key": "k", "name": "d", "configuration": "c"}));
        let whole = json!({"name": "a", "plugin": {"name": "e", "configuration": "own", "key": "k"}});
        let mut other = artifact(whole.clone());
        relocate(&mut other.location, &archive);
        assert_eq!(other.location["plugin"], whole["plugin"]);
    }

    #[test]
    fn an_artifact_is_written_as_it_was_read() {
        let value =
            json!({"name": "a", "path": "/p", "mode": 493, "archive": {"none": {}}, "s3": {"key": "k"}});
        assert_eq!(serde_json::to_value(artifact(value.clone())).unwrap(), value);
    }
}
