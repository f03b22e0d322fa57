//! From normalised JSON to the typed structs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::leaf::{ContainerSet, Data, Http, Resource};
use crate::manifest::{
    Arguments, ContinueOn, Dag, Inputs, IntOrString, LifecycleHook, Manifest, Memoize, Metadata, Outputs,
    RetryStrategy, Script, Sequence, Step, Suspend, Template, TemplateKind, null_is_default,
};
use crate::synchronization::Synchronization;
use crate::{Diagnostic, Error};

/// The template's fields that are read here; the rest stays in `raw`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TemplateFields {
    #[serde(deserialize_with = "null_is_default")]
    name: String,
    #[serde(deserialize_with = "null_is_default")]
    inputs: Inputs,
    #[serde(deserialize_with = "null_is_default")]
    outputs: Outputs,
    retry_strategy: Option<RetryStrategy>,
    #[serde(deserialize_with = "null_is_default")]
    metadata: Metadata,
    #[serde(deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
    active_deadline_seconds: Option<IntOrString>,
    fail_fast: Option<bool>,
    #[serde(deserialize_with = "null_is_default")]
    timeout: String,
    parallelism: Option<i64>,
    memoize: Option<Memoize>,
    synchronization: Option<Synchronization>,
    container: Option<Value>,
    script: Option<Value>,
    steps: Option<Vec<Vec<Step>>>,
    dag: Option<Dag>,
    suspend: Option<Suspend>,
    container_set: Option<ContainerSet>,
    resource: Option<Resource>,
    http: Option<Http>,
    data: Option<Data>,
    plugin: Option<Value>,
    #[serde(deserialize_with = "null_is_default")]
    daemon: bool,
    #[serde(deserialize_with = "null_is_default")]
    pending_timeout: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct StepFields {
    #[serde(deserialize_with = "null_is_default")]
    name: String,
    #[serde(deserialize_with = "null_is_default")]
    template: String,
    #[serde(deserialize_with = "null_is_default")]
    arguments: Arguments,
    #[serde(deserialize_with = "null_is_default")]
    with_items: Vec<Value>,
    #[serde(deserialize_with = "null_is_default")]
    with_param: String,
    with_sequence: Option<Sequence>,
    #[serde(deserialize_with = "null_is_default")]
    when: String,
    #[serde(deserialize_with = "null_is_default")]
    continue_on: ContinueOn,
    #[serde(deserialize_with = "null_is_default")]
    dependencies: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    depends: String,
    inline: Option<Template>,
    #[serde(deserialize_with = "null_is_default")]
    hooks: BTreeMap<String, LifecycleHook>,
    #[serde(deserialize_with = "null_is_default")]
    on_exit: String,
}

pub(crate) fn manifest(value: Value) -> Result<Manifest, Box<Diagnostic>> {
    Manifest::deserialize(value)
        .map_err(|error| Box::new(Diagnostic::plain("ARG0003", "", error.to_string())))
}

pub(crate) fn template(value: Value) -> Result<Template, Error> {
    let fields = TemplateFields::deserialize(&value).map_err(|error| Error::Fit(error.to_string()))?;
    // Argo's order of precedence when several are set; validation has refused that before anything runs.
    let kind = if let Some(container) = fields.container {
        TemplateKind::Container(container)
    } else if let Some(set) = fields.container_set {
        TemplateKind::ContainerSet(set)
    } else if let Some(steps) = fields.steps {
        TemplateKind::Steps(steps)
    } else if let Some(dag) = fields.dag {
        TemplateKind::Dag(dag)
    } else if let Some(script) = fields.script {
        TemplateKind::Script(script_of(script))
    } else if let Some(resource) = fields.resource {
        TemplateKind::Resource(resource)
    } else if let Some(data) = fields.data {
        TemplateKind::Data(data)
    } else if let Some(suspend) = fields.suspend {
        TemplateKind::Suspend(suspend)
    } else if let Some(http) = fields.http {
        TemplateKind::Http(http)
    } else if let Some(plugin) = fields.plugin {
        TemplateKind::Plugin(plugin)
    } else {
        TemplateKind::Missing
    };
    Ok(Template {
        name: fields.name,
        inputs: fields.inputs,
        outputs: fields.outputs,
        kind,
        retry_strategy: fields.retry_strategy,
        metadata: fields.metadata,
        annotations: fields.annotations,
        active_deadline_seconds: fields.active_deadline_seconds,
        fail_fast: fields.fail_fast,
        timeout: fields.timeout,
        parallelism: fields.parallelism,
        memoize: fields.memoize,
        synchronization: fields.synchronization,
        daemon: fields.daemon,
        pending_timeout: fields.pending_timeout,
        raw: value,
    })
}

fn script_of(mut value: Value) -> Script {
    let source = match value.as_object_mut().and_then(|fields| fields.shift_remove("source")) {
        Some(Value::String(text)) => text,
        Some(_) | None => String::new(),
    };
    Script { source, container: value }
}

pub(crate) fn step(value: Value) -> Result<Step, Error> {
    let fields = StepFields::deserialize(&value).map_err(|error| Error::Fit(error.to_string()))?;
    Ok(Step {
        name: fields.name,
        template: fields.template,
        arguments: fields.arguments,
        with_items: fields.with_items,
        with_param: fields.with_param,
        with_sequence: fields.with_sequence,
        when: fields.when,
        continue_on: fields.continue_on,
        dependencies: fields.dependencies,
        depends: fields.depends,
        inline: fields.inline.map(Box::new),
        hooks: fields.hooks,
        on_exit: fields.on_exit,
        raw: value,
    })
}
