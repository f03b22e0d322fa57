//! What a resource step does: one of Argo's actions, waiting for conditions, output parameters.

use std::path::PathBuf;
use std::time::Duration;

use argosy_proto::common::OutputParameter;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Access, Failure, Sent};
use super::conditions::{Conditions, Verdict};
use super::flags::{self, Flags};
use super::target::{self, Kind, Problem};
use super::{jq, jsonpath};

/// Tries of an action whose failure may pass, and the first wait between two of them.
pub const TRIES_MAX: u32 = 5;
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The annotation that says which attempt made an object.
pub const FENCE: &str = "argosy.dev/fence";
const WORKFLOW_LABEL: &str = "workflows.argoproj.io/workflow";
const APPLY_MANAGER: &str = "argosy";

/// A resource template.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resource {
    pub action: String,
    pub merge_strategy: String,
    pub manifest: String,
    pub manifest_from: Option<ManifestFrom>,
    pub set_owner_reference: bool,
    pub success_condition: String,
    pub failure_condition: String,
    pub flags: Vec<String>,
}

/// Where else a manifest comes from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ManifestFrom {
    pub artifact: NamedArtifact,
}

/// An input artifact, by its name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamedArtifact {
    pub name: String,
}

/// An output parameter of a resource template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    pub json_path: String,
    pub jq_filter: String,
    pub default: Option<String>,
}

/// A step about an object.
pub struct Step {
    pub access: Access,
    pub resource: Resource,
    pub outputs: Vec<Output>,
    pub namespace: String,
    pub workflow: String,
    pub fence: String,
    /// Between two looks at an object that is waited for.
    pub poll_every: Duration,
    /// The program that evaluates jq filters.
    pub jq: Option<PathBuf>,
}

/// The object of a step.
#[derive(Clone, Debug)]
struct Object {
    kind: Kind,
    namespace: String,
    name: String,
}

impl Object {
    fn path(&self) -> String {
        self.kind.object(&self.namespace, &self.name)
    }
}

impl Step {
    /// Does it, and waits for what is to be waited for; `told` hears what is done.
    ///
    /// # Errors
    /// Argo's message, without the container's name and exit code.
    pub async fn run(&self, told: &(dyn Fn(String) + Sync)) -> Result<Vec<OutputParameter>, String> {
        let conditions = Conditions::new(&self.resource.success_condition, &self.resource.failure_condition)?;
        let flags = flags::parse(&self.resource.flags)?;
        let object = self.act(&flags, told).await?;
        let Some(object) = object else { return Ok(self.without_object()) };
        if !conditions.is_empty() {
            self.wait(&object, &conditions, told).await?;
        }
        self.read_outputs(&object).await
    }

    /// Carries the action out, again when a failure may pass. The object it is about, if it is there afterwards.
    async fn act(&self, flags: &Flags, told: &(dyn Fn(String) + Sync)) -> Result<Option<Object>, String> {
        let mut wait = RETRY_FIRST;
        for attempt in 1.. {
            let (failure, doing) = match self.try_once(flags).await {
                Ok(object) => {
                    if let Some(object) = &object {
                        told(format!("{} {}", self.resource.action, object.path()));
                    }
                    return Ok(object);
                }
                Err(Trouble::Told(message)) => return Err(format!("no more retries {message}")),
                Err(Trouble::Api(failure, doing)) => (failure, doing),
            };
            let message = failure.told(doing);
            if attempt >= TRIES_MAX || !failure.may_pass() {
                return Err(format!("no more retries {message}"));
            }
            told(message);
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Ok(None)
    }

    async fn try_once(&self, flags: &Flags) -> Result<Option<Object>, Trouble> {
        match self.resource.action.as_str() {
            "create" => self.create(flags).await.map(Some),
            "apply" => self.apply(flags).await.map(Some),
            "replace" => self.replace(flags).await.map(Some),
            "patch" => self.patch(flags).await.map(Some),
            "get" => {
                let object = self.named(flags).await?;
                self.access.get(&object.path()).await.map_err(|failure| Trouble::Api(failure, ""))?;
                Ok(Some(object))
            }
            "delete" => self.delete(flags).await,
            other => Err(Trouble::Told(format!("error: unknown command {other:?} for \"kubectl\""))),
        }
    }

    fn manifest(&self) -> Result<Value, Trouble> {
        if self.resource.manifest.is_empty() {
            return Err(Trouble::Told("Must provide at least one of flags or manifest.".to_owned()));
        }
        target::read_manifest(&self.resource.manifest).map_err(Trouble::Told)
    }

    /// The manifest, its type, and where it belongs.
    async fn described(&self, flags: &Flags) -> Result<(Value, Object), Trouble> {
        let manifest = self.manifest()?;
        let kind = target::by_manifest(&self.access.client, &manifest).await?;
        let own = target::metadata(&manifest, "namespace");
        let namespace = match (own, &flags.namespace) {
            ("", Some(flag)) => flag.as_str(),
            ("", None) => &self.namespace,
            (own, _) => own,
        };
        target::check_name(namespace).map_err(Trouble::Told)?;
        let mut name = target::metadata(&manifest, "name").to_owned();
        let prefix = target::metadata(&manifest, "generateName");
        if name.is_empty() && !prefix.is_empty() {
            name = target::generated(prefix, &self.fence);
        }
        target::check_name(&name).map_err(Trouble::Told)?;
        Ok((manifest.clone(), Object { kind, namespace: namespace.to_owned(), name }))
    }

    /// The object that flags or the manifest name.
    async fn named(&self, flags: &Flags) -> Result<Object, Trouble> {
        let Some((word, name)) = target::words_of(flags).map_err(Trouble::Told)? else {
            return self.described(flags).await.map(|(_, object)| object);
        };
        let kind = target::by_word(&self.access.client, &word).await?;
        let namespace = flags.namespace.clone().unwrap_or_else(|| self.namespace.clone());
        for name in [&name, &namespace] {
            target::check_name(name).map_err(Trouble::Told)?;
        }
        Ok(Object { kind, namespace, name })
    }

    async fn create(&self, flags: &Flags) -> Result<Object, Trouble> {
        let (mut manifest, object) = self.described(flags).await?;
        manifest["metadata"]["name"] = object.name.clone().into();
        manifest["metadata"]["annotations"][FENCE] = self.fence.clone().into();
        self.belong(&mut manifest);
        let query = query("kubectl-create", flags);
        let path = format!("{}?{query}", object.kind.collection(&object.namespace));
        let doing = "when creating \"/tmp/manifest.yaml\"";
        match self.put("POST", path, "application/json", &manifest).await {
            Ok(_) => Ok(object),
            // The answer of an earlier try may have been lost.
            Err(failure @ Failure::Refused { code: 409, .. }) => {
                let there = self.access.get(&object.path()).await.ok();
                let ours =
                    there.as_ref().and_then(|there| there.pointer("/metadata/annotations")?.get(FENCE));
                if ours.and_then(Value::as_str) == Some(self.fence.as_str()) {
                    return Ok(object);
                }
                Err(Trouble::Api(failure, doing))
            }
            Err(failure) => Err(Trouble::Api(failure, doing)),
        }
    }

    /// Argo makes the Workflow the owner. Here is none in the cluster, and Kubernetes deletes what has an owner that is not
    /// there: the object is only marked.
    fn belong(&self, manifest: &mut Value) {
        if self.resource.set_owner_reference {
            manifest["metadata"]["labels"][WORKFLOW_LABEL] = self.workflow.clone().into();
        }
    }

    async fn apply(&self, flags: &Flags) -> Result<Object, Trouble> {
        let (mut manifest, object) = self.described(flags).await?;
        self.belong(&mut manifest);
        let path = format!("{}?{}&force=true", object.path(), query(APPLY_MANAGER, flags));
        let sent = self.put("PATCH", path, "application/apply-patch+yaml", &manifest).await;
        sent.map_err(|failure| Trouble::Api(failure, "when applying patch"))?;
        Ok(object)
    }

    async fn replace(&self, flags: &Flags) -> Result<Object, Trouble> {
        let doing = "when replacing \"/tmp/manifest.yaml\"";
        let (mut manifest, object) = self.described(flags).await?;
        self.belong(&mut manifest);
        let failed = |failure| Trouble::Api(failure, doing);
        if target::metadata(&manifest, "resourceVersion").is_empty() {
            let there = self.access.get(&object.path()).await.map_err(failed)?;
            manifest["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
        }
        let path = format!("{}?{}", object.path(), query("kubectl-replace", flags));
        self.put("PUT", path, "application/json", &manifest).await.map_err(failed)?;
        Ok(object)
    }

    async fn patch(&self, flags: &Flags) -> Result<Object, Trouble> {
        let object = self.named(flags).await?;
        let patch = target::read_yaml(&self.resource.manifest).map_err(Trouble::Told)?;
        let content_type = match self.resource.merge_strategy.as_str() {
            "json" => "application/json-patch+json",
            "merge" => "application/merge-patch+json",
            _ => "application/strategic-merge-patch+json",
        };
        let part = flags.subresource.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
        let path = format!("{}{part}?{}", object.path(), query("kubectl-patch", flags));
        let sent = self.put("PATCH", path, content_type, &patch).await;
        sent.map_err(|failure| Trouble::Api(failure, ""))?;
        Ok(object)
    }

    async fn delete(&self, flags: &Flags) -> Result<Option<Object>, Trouble> {
        let object = self.named(flags).await?;
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "propagationPolicy": flags.cascade.unwrap_or("Background"),
            "gracePeriodSeconds": flags.grace_period_seconds,
        });
        let there = match self.access.get(&object.path()).await {
            Ok(there) => there,
            Err(failure) if failure.is_missing() => return Ok(None),
            Err(failure) => return Err(Trouble::Api(failure, "")),
        };
        match self.put("DELETE", object.path(), "application/json", &options).await {
            Ok(_) => {}
            Err(failure) if failure.is_missing() => return Ok(None),
            Err(failure) => return Err(Trouble::Api(failure, "")),
        }
        // As kubectl does, until it is gone; another object may have its name by then.
        loop {
            if flags.no_wait {
                break;
            }
            match self.access.get(&object.path()).await {
                Ok(now) if now["metadata"]["uid"] == there["metadata"]["uid"] => {}
                Ok(_) => break,
                Err(failure) if failure.is_missing() => break,
                Err(failure) if failure.may_pass() => {}
                Err(failure) => return Err(Trouble::Api(failure, "")),
            }
            tokio::time::sleep(self.poll_every.min(RETRY_FIRST)).await;
        }
        Ok(None)
    }

    async fn put(
        &self,
        method: &str,
        path: String,
        content_type: &str,
        body: &Value,
    ) -> Result<Value, Failure> {
        let body = body.to_string().into_bytes();
        self.access.send(Sent { method, path, content_type, body }).await
    }

    async fn wait(
        &self,
        object: &Object,
        conditions: &Conditions,
        told: &(dyn Fn(String) + Sync),
    ) -> Result<(), String> {
        loop {
            match self.access.get(&object.path()).await {
                Ok(now) => match conditions.judge(&now) {
                    Verdict::Met => return Ok(()),
                    Verdict::Failed(message) => return Err(message),
                    Verdict::Waits => {}
                },
                Err(failure) if failure.is_missing() => {
                    let Failure::Refused { message, .. } = failure else { continue };
                    return Err(format!(
                        "The resource has been deleted while its status was still being checked. Will not be retried: {message}"
                    ));
                }
                Err(failure) if failure.may_pass() => told(failure.told("")),
                Err(failure) => return Err(failure.told("")),
            }
            tokio::time::sleep(self.poll_every).await;
        }
    }

    /// Outputs of an action after which there is no object.
    fn without_object(&self) -> Vec<OutputParameter> {
        let value = |output: &Output| OutputParameter {
            name: output.name.clone(),
            value: output.default.clone().unwrap_or_default(),
        };
        self.outputs.iter().map(value).collect()
    }

    async fn read_outputs(&self, object: &Object) -> Result<Vec<OutputParameter>, String> {
        let mut values = Vec::new();
        if self.outputs.is_empty() {
            return Ok(values);
        }
        let now = self.access.get(&object.path()).await.map_err(|failure| failure.told(""))?;
        for output in &self.outputs {
            let found = if output.json_path.is_empty() {
                self.filtered(&output.jq_filter, &now).await
            } else {
                jsonpath::evaluate(&output.json_path, &now)
            };
            let value = match (found, &output.default) {
                (Ok(value), _) => value,
                (Err(_), Some(default)) => default.clone(),
                (Err(error), None) => return Err(error),
            };
            values.push(OutputParameter { name: output.name.clone(), value });
        }
        Ok(values)
    }

    async fn filtered(&self, filter: &str, object: &Value) -> Result<String, String> {
        match &self.jq {
            Some(program) => jq::ask(program, filter, &object.to_string()).await,
            None => Err("jq filters are switched off on this cluster's agent: use jsonPath".to_owned()),
        }
    }
}

fn query(manager: &str, flags: &Flags) -> String {
    let validation = flags.validation.unwrap_or("Strict");
    let dry_run = if flags.server_dry_run { "&dryRun=All" } else { "" };
    format!("fieldManager={manager}&fieldValidation={validation}{dry_run}")
}

/// Why a try did not work.
enum Trouble {
    /// For good, in kubectl's words.
    Told(String),
    /// The API's answer, and what it was about.
    Api(Failure, &'static str),
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Told(message) => Self::Told(message),
            Problem::Api(failure) => Self::Api(failure, ""),
        }
    }
}

/// The resource and the outputs of a template.
///
/// # Errors
/// When it is none.
pub fn read(template: &Value) -> Result<(Resource, Vec<Output>), String> {
    let resource =
        Resource::deserialize(&template["resource"]).map_err(|error| format!("resource: {error}"))?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let declared = template.pointer("/outputs/parameters").and_then(Value::as_array);
    let outputs = declared
        .into_iter()
        .flatten()
        .map(|one| Output {
            name: text(one.get("name")),
            json_path: text(one.pointer("/valueFrom/jsonPath")),
            jq_filter: text(one.pointer("/valueFrom/jqFilter")),
            default: one.pointer("/valueFrom/default").map(|value| match value {
                Value::String(text) => text.clone(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    value.to_string()
                }
            }),
        })
        .filter(|output| !output.json_path.is_empty() || !output.jq_filter.is_empty())
        .collect();
    Ok((resource, outputs))
}
