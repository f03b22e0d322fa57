//! What the commands about stored templates share.

use argosy_proto::command::{Refusal, Reply, TemplateStored, reply};

use crate::draft::Draft;
use crate::{Code, Leader};

/// Stored templates of a cell.
pub(crate) const TEMPLATES_MAX: usize = 20_000;
/// Longest name and namespace (Kubernetes').
const NAME_LENGTH_MAX: usize = 253;

/// The two kinds of stored templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Namespaced,
    Cluster,
}

impl Kind {
    pub(crate) fn of(cluster_scope: bool) -> Self {
        if cluster_scope { Self::Cluster } else { Self::Namespaced }
    }

    /// As Kubernetes names the resource in messages.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Namespaced => "workflowtemplates.argoproj.io",
            Self::Cluster => "clusterworkflowtemplates.argoproj.io",
        }
    }
}

pub(crate) fn check_name(kind: Kind, namespace: &str, name: &str) -> Result<(), Refusal> {
    let namespace_fits = match kind {
        Kind::Namespaced => !namespace.is_empty() && namespace.len() <= NAME_LENGTH_MAX,
        Kind::Cluster => namespace.is_empty(),
    };
    if name.is_empty() || name.len() > NAME_LENGTH_MAX || !namespace_fits {
        return Err(Code::InvalidArgument.refuse(format!(
            "a template's name must have 1 to {NAME_LENGTH_MAX} bytes, and only a WorkflowTemplate has a namespace"
        )));
    }
    Ok(())
}

pub(crate) fn check_manifest(leader: &Leader, json: &str) -> Result<(), Refusal> {
    let bytes_max = leader.limits.manifest_bytes_max;
    if json.len() > bytes_max {
        return Err(Code::ManifestTooLarge
            .refuse(format!("the template has {} bytes, the limit is {bytes_max}", json.len())));
    }
    let value: Result<serde_json::Value, _> = serde_json::from_str(json);
    match value {
        Ok(value) if value.is_object() => Ok(()),
        Ok(_) | Err(_) => Err(Code::InvalidManifest.refuse("the template is not a JSON object")),
    }
}

pub(crate) fn stored(draft: &Draft, key: &(bool, String, String)) -> Reply {
    let (uid, resource_version) = draft
        .state
        .templates
        .get(key)
        .map(|row| (row.uid.clone(), row.changed_sequence.to_string()))
        .unwrap_or_default();
    Reply { body: Some(reply::Body::TemplateStored(TemplateStored { uid, resource_version })) }
}
