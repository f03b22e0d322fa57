//! What the values of a type must hold beside their shapes: the rules of Argo's resource definitions (their `required`,
//! `enum`, `minimum`, ...) that no later check knows. The Kubernetes API refuses what breaks one before Argo sees it.

use serde_json::{Map, Value};

/// What must hold for a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Law {
    /// It is there, and not null.
    Required,
    /// Where it is there, it is one of these texts.
    OneOf(&'static [&'static str]),
    /// Where it is there, it lies between these numbers.
    Between(i64, i64),
    /// Where it is there, it has no more characters.
    LengthAtMost(usize),
    /// Where it is there, it is not empty.
    NotEmpty,
    /// Where it is there, it is a name of letters, digits and `_` that doesn't begin with a digit.
    LabelName,
}

const POD_GC_STRATEGIES: &[&str] =
    &["", "OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess"];
/// Permissions of a file: octal 777.
const MODE_MAX: i64 = 0o777;

/// Type, field, what must hold.
pub(crate) static LAWS: &[(&str, &str, Law)] = &[
    ("Memoize", "cache", Law::Required),
    ("Memoize", "key", Law::Required),
    ("Memoize", "maxAge", Law::Required),
    ("Cache", "configMap", Law::Required),
    ("PodGC", "strategy", Law::OneOf(POD_GC_STRATEGIES)),
    ("RetryStrategy", "retryPolicy", Law::NotEmpty),
    ("ContainerSetRetryStrategy", "retries", Law::Required),
    ("Data", "source", Law::Required),
    ("Data", "transformation", Law::Required),
    ("TransformationStep", "expression", Law::Required),
    ("LabelValueFrom", "expression", Law::Required),
    ("StopStrategy", "expression", Law::Required),
    ("Metrics", "prometheus", Law::Required),
    ("Gauge", "realtime", Law::Required),
    ("Gauge", "value", Law::Required),
    ("Gauge", "value", Law::LengthAtMost(256)),
    ("Histogram", "buckets", Law::Required),
    ("MetricLabel", "key", Law::Required),
    ("MetricLabel", "key", Law::LabelName),
    ("MetricLabel", "value", Law::Required),
    ("Artifact", "mode", Law::Between(0, MODE_MAX)),
    ("ArtifactoryArtifact", "url", Law::Required),
    ("AzureArtifact", "blob", Law::Required),
    ("AzureArtifact", "container", Law::Required),
    ("AzureArtifact", "endpoint", Law::Required),
    ("GCSArtifact", "key", Law::Required),
    ("GitArtifact", "repo", Law::Required),
    ("HTTPArtifact", "url", Law::Required),
    ("Header", "name", Law::Required),
    ("Header", "value", Law::Required),
    ("OSSArtifact", "key", Law::Required),
    ("RawArtifact", "data", Law::Required),
    ("ManifestFrom", "artifact", Law::Required),
    ("SyncDatabaseRef", "key", Law::Required),
    ("ConfigMapKeyRef", "key", Law::Required),
    ("SecretKeySelector", "key", Law::Required),
    ("Template", "steps", Law::NotEmpty),
];

/// The laws of a type.
pub(crate) fn laws_of(owner: &str) -> impl Iterator<Item = (&'static str, Law)> {
    LAWS.iter().filter(move |(of, _, _)| *of == owner).map(|(_, field, law)| (*field, *law))
}

impl Law {
    /// What is wrong with the field `name` of an object, as it follows the field's path in a message; `is_there`: the
    /// manifest has it, readable or not.
    pub(crate) fn broken(self, object: &Map<String, Value>, name: &str, is_there: bool) -> Option<String> {
        let value = object.get(name);
        let text = value.and_then(Value::as_str);
        match self {
            Self::Required if is_there => None,
            Self::Required => Some("is required".to_owned()),
            Self::OneOf(allowed) => {
                let text = text.filter(|text| !allowed.contains(text))?;
                let shown: Vec<&str> = allowed.iter().copied().filter(|one| !one.is_empty()).collect();
                Some(format!("can't be {text:?}: it must be one of {}", shown.join(", ")))
            }
            Self::Between(low, high) => {
                let number = value?.as_i64().filter(|number| !(low..=high).contains(number))?;
                Some(format!("can't be {number}: it must be from {low} to {high}"))
            }
            Self::LengthAtMost(most) => {
                let length = text?.chars().count();
                (length > most).then(|| format!("has {length} characters, and may have {most}"))
            }
            Self::NotEmpty => {
                let is_empty = text == Some("") || value?.as_array().is_some_and(Vec::is_empty);
                is_empty.then(|| "must not be empty".to_owned())
            }
            Self::LabelName => {
                let text = text.filter(|text| !is_label_name(text))?;
                Some(format!("can't be {text:?}: it must have only letters, digits and `_`, no digit first"))
            }
        }
    }
}

fn is_label_name(text: &str) -> bool {
    let rest = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && text.chars().all(rest)
}
