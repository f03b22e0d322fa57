//! What clusters can run: what needs Kubernetes, and what clusters that run steps as processes leave out.

use std::collections::{BTreeMap, BTreeSet};

use argosy_model::{SELECTOR_PREFIX, selector_matches};
use serde_json::Value;

use crate::artifact::Artifact;
use crate::manifest::{LifecycleHook, Manifest, Template, TemplateKind};
use crate::references::is_stored;
use crate::{Diagnostic, is_inline, shown_name};

/// A cluster that has joined, as far as manifests are checked against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinedCluster {
    /// Its name.
    pub name: String,
    /// It runs steps as processes of its host, and not as Pods.
    pub runs_processes: bool,
    /// What selectors look at.
    pub labels: BTreeMap<String, String>,
}

/// Something that only Kubernetes has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Where it is in the template, or in the workflow's spec.
    pub path: String,
    /// What it is, in the plural.
    pub what: &'static str,
    /// It is in the workflow's spec, not in the template.
    pub of_workflow: bool,
}

/// Clusters that a message names.
const NAMES_MAX: usize = 3;

/// Fields of a template that need Kubernetes.
const TEMPLATE_NEEDS: [(&str, &str); 4] = [
    ("sidecars", "sidecars"),
    ("initContainers", "init containers"),
    ("volumes", "volumes"),
    ("podSpecPatch", "Pod patches"),
];
/// The same of its container or script.
const CONTAINER_NEEDS: [(&str, &str); 4] = [
    ("envFrom", "variables from ConfigMaps or Secrets"),
    ("volumeMounts", "volumes"),
    ("volumeDevices", "volumes"),
    ("lifecycle", "container lifecycle hooks"),
];
/// Fields of a template that a process does not have and does not need to run.
const TEMPLATE_LEFT_OUT: [&str; 9] = [
    "serviceAccountName",
    "automountServiceAccountToken",
    "securityContext",
    "hostAliases",
    "affinity",
    "schedulerName",
    "priorityClassName",
    "podResources",
    "resourceClaims",
];
/// The same of its container or script.
const CONTAINER_LEFT_OUT: [&str; 6] = [
    "securityContext",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "resources.limits",
    "resources.claims",
];
/// The same of the workflow's spec.
const WORKFLOW_LEFT_OUT: [&str; 11] = [
    "serviceAccountName",
    "automountServiceAccountToken",
    "securityContext",
    "hostAliases",
    "affinity",
    "schedulerName",
    "podPriorityClassName",
    "hostNetwork",
    "dnsPolicy",
    "dnsConfig",
    "podDisruptionBudget",
];

impl Template {
    /// The first artifact that a driver keeps: inputs or outputs, and its place there.
    fn artifact_of_a_driver(&self) -> Option<(&'static str, usize)> {
        [("inputs", &self.inputs.artifacts), ("outputs", &self.outputs.artifacts)].into_iter().find_map(
            |(side, artifacts)| {
                let is_plugin =
                    |artifact: &Artifact| artifact.kind().is_some_and(|(kind, _)| kind == "plugin");
                Some((side, artifacts.iter().position(is_plugin)?))
            },
        )
    }

    /// What only Kubernetes has of it; `None`: it may run as a process, too.
    pub fn needs_kubernetes(&self) -> Option<Need> {
        let need = |path: String, what| Some(Need { path, what, of_workflow: false });
        match &self.kind {
            TemplateKind::ContainerSet(_) => {
                return need("containerSet".to_owned(), "containerSet templates");
            }
            TemplateKind::Resource(_) => return need("resource".to_owned(), "resource templates"),
            TemplateKind::Plugin(_) => return need("plugin".to_owned(), "plugin templates"),
            TemplateKind::Suspend(_)
            | TemplateKind::Steps(_)
            | TemplateKind::Dag(_)
            | TemplateKind::Missing => return None,
            TemplateKind::Container(_)
            | TemplateKind::Script(_)
            | TemplateKind::Http(_)
            | TemplateKind::Data(_) => {}
        }
        if let Some((field, what)) = TEMPLATE_NEEDS.iter().find(|(field, _)| is_set(self.raw.get(field))) {
            return need((*field).to_owned(), what);
        }
        if let Some((side, at)) = self.artifact_of_a_driver() {
            return need(format!("{side}.artifacts[{at}].plugin"), "artifact plugins");
        }
        if let TemplateKind::Http(_) = &self.kind {
            let at = has_source(self.raw.pointer("/http/headers"))?;
            return need(format!("http.headers[{at}].valueFrom"), "headers from Secrets");
        }
        if let TemplateKind::Data(_) = &self.kind {
            return None;
        }
        let (kind, container) = self.container()?;
        if let Some((field, what)) = CONTAINER_NEEDS.iter().find(|(field, _)| is_set(container.get(field))) {
            return need(format!("{kind}.{field}"), what);
        }
        if let Some(at) = has_source(container.get("env")) {
            let what = "variables from ConfigMaps, Secrets or fields of the Pod";
            return need(format!("{kind}.env[{at}].valueFrom"), what);
        }
        // What the image says is not known where no image is read.
        let has_command = is_set(container.get("command"));
        if has_command { None } else { need(kind.to_owned(), "containers without a command") }
    }

    fn container(&self) -> Option<(&'static str, &Value)> {
        let of = |kind| Some((kind, self.raw.get(kind).filter(|container| container.is_object())?));
        of("script").or_else(|| of("container"))
    }

    /// The fields that a process is run without.
    fn left_out(&self) -> Vec<String> {
        let mut fields = set_fields(&self.raw, "", &TEMPLATE_LEFT_OUT);
        if let Some((kind, container)) = self.container() {
            fields.extend(set_fields(container, &format!("{kind}."), &CONTAINER_LEFT_OUT));
        }
        fields.extend(chooses_hosts(&self.raw));
        fields
    }
}

impl Manifest {
    /// What only Kubernetes has of a template's steps; `None`: they may run as processes, too.
    pub fn needs_kubernetes(&self, template: &Template) -> Option<Need> {
        template.needs_kubernetes().or_else(|| {
            let is_patched = template.is_pod() && is_set(self.spec.pod.get("podSpecPatch"));
            let path = "podSpecPatch".to_owned();
            is_patched.then_some(Need { path, what: "Pod patches", of_workflow: true })
        })
    }

    /// What the clusters that have joined can't run (errors), and what some of them leave out (warnings). Nothing is
    /// said while none has joined: then all of it waits. Best asked of a manifest that is [`crate::effective`].
    pub fn misfits(&self, clusters: &[JoinedCluster]) -> Vec<Diagnostic> {
        self.misfits_where(clusters, &|_| true)
    }

    /// As [`Manifest::misfits`], of the templates that are written in the manifest.
    pub(crate) fn own_misfits(&self, clusters: &[JoinedCluster]) -> Vec<Diagnostic> {
        self.misfits_where(clusters, &|template| !is_stored(&template.name))
    }

    fn misfits_where(
        &self,
        clusters: &[JoinedCluster],
        is_wanted: &dyn Fn(&Template) -> bool,
    ) -> Vec<Diagnostic> {
        if clusters.is_empty() {
            return Vec::new();
        }
        let reached = self.reached();
        let mut problems = Vec::new();
        let mut bare = BTreeSet::new();
        for (at, template) in self.spec.templates.iter().enumerate() {
            if !reached.contains(template.name.as_str())
                || !template.is_leaf()
                || !is_wanted(template)
                || matches!(template.kind, TemplateKind::Suspend(_))
            {
                continue;
            }
            let fit = Fit { manifest: self, template, at, clusters };
            problems.extend(fit.problems(&mut bare));
        }
        let spec = serde_json::to_value(&self.spec).unwrap_or_default();
        let mut fields = set_fields(&spec, "", &WORKFLOW_LEFT_OUT);
        fields.extend(chooses_hosts(&spec));
        if !bare.is_empty() {
            problems.extend(fields.iter().map(|field| left_out("", &bare, field, format!("spec.{field}"))));
        }
        problems
    }

    /// The names of the templates that may run: all of them, where something else chooses.
    fn reached(&self) -> BTreeSet<&str> {
        let by_name: BTreeMap<&str, &Template> =
            self.spec.templates.iter().map(|template| (template.name.as_str(), template)).collect();
        if self.spec.entrypoint.is_empty() || self.kind.ends_with("Template") {
            return by_name.into_keys().collect();
        }
        let mut seen = BTreeSet::new();
        let mut open = vec![self.spec.entrypoint.as_str(), self.spec.on_exit.as_str()];
        open.extend(of_hooks(&self.spec.hooks));
        while let Some(name) = open.pop() {
            if name.contains("{{") {
                return by_name.into_keys().collect();
            }
            let Some(template) = by_name.get(name) else { continue };
            if !seen.insert(template.name.as_str()) {
                continue;
            }
            for step in template.kind.children() {
                open.extend([step.template.as_str(), step.on_exit.as_str()]);
                open.extend(of_hooks(&step.hooks));
            }
        }
        seen
    }
}

/// A template and the clusters that have joined.
struct Fit<'a> {
    manifest: &'a Manifest,
    template: &'a Template,
    /// The template's place in the manifest.
    at: usize,
    clusters: &'a [JoinedCluster],
}

impl Fit<'_> {
    /// What doesn't fit; the process clusters that may take its steps are added to `bare`.
    fn problems(&self, bare: &mut BTreeSet<String>) -> Vec<Diagnostic> {
        let selector = self.selector();
        let is_chosen = |cluster: &&JoinedCluster| {
            let chosen = |(key, wanted): &(String, String)| {
                wanted.contains("{{") || selector_matches(key, wanted, &cluster.name, &cluster.labels)
            };
            selector.iter().all(chosen)
        };
        let chosen: Vec<&JoinedCluster> = self.clusters.iter().filter(is_chosen).collect();
        let name = self.name();
        if chosen.is_empty() {
            let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            let message = format!(
                "template '{name}': no cluster that has joined has {}; its steps wait",
                pairs.join(", ")
            );
            let path =
                if self.has_selector() { self.path("nodeSelector") } else { "spec.nodeSelector".to_owned() };
            return vec![Diagnostic::warning("ARG1243", path, message)];
        }
        let processes: BTreeSet<String> = chosen
            .iter()
            .filter(|cluster| cluster.runs_processes)
            .map(|cluster| cluster.name.clone())
            .collect();
        let Some(need) = self.manifest.needs_kubernetes(self.template) else {
            let fields = if processes.is_empty() { Vec::new() } else { self.template.left_out() };
            bare.extend(processes.iter().cloned());
            return fields.iter().map(|field| left_out(name, &processes, field, self.path(field))).collect();
        };
        if processes.len() < chosen.len() {
            return Vec::new();
        }
        let who = if self.clusters.iter().all(|cluster| cluster.runs_processes) {
            "only process clusters have joined".to_owned()
        } else {
            format!("its nodeSelector asks for process clusters ({})", names(&processes))
        };
        let message = format!("template '{name}': {} need a Kubernetes cluster, and {who}", need.what);
        let path = if need.of_workflow { format!("spec.{}", need.path) } else { self.path(&need.path) };
        vec![Diagnostic::plain("ARG1121", path, message)]
    }

    /// The template's name; of an inline one, where it is.
    fn name(&self) -> &str {
        let name = &self.template.name;
        if is_inline(name) { name.trim_start_matches(char::is_control) } else { shown_name(name) }
    }

    /// Where a field is; that is not known of an inline template.
    fn path(&self, field: &str) -> String {
        if is_inline(&self.template.name) {
            return String::new();
        }
        format!("spec.templates[{}].{field}", self.at)
    }

    fn has_selector(&self) -> bool {
        self.template.raw.get("nodeSelector").is_some_and(Value::is_object)
    }

    /// The keys that choose clusters: the template's own, else the workflow's.
    fn selector(&self) -> Vec<(String, String)> {
        let own = self.template.raw.get("nodeSelector").filter(|_| self.has_selector());
        let selector = own.or_else(|| self.manifest.spec.pod.get("nodeSelector")).and_then(Value::as_object);
        let pairs = selector.into_iter().flatten().filter(|(key, _)| key.starts_with(SELECTOR_PREFIX));
        pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    }
}

fn left_out(template: &str, clusters: &BTreeSet<String>, field: &str, path: String) -> Diagnostic {
    let of = if template.is_empty() { "the workflow".to_owned() } else { format!("template '{template}'") };
    let verb = if clusters.len() == 1 { "leaves" } else { "leave" };
    let noun = if clusters.len() == 1 { "process cluster" } else { "process clusters" };
    let message = format!("{of}: {noun} {} {verb} out {field}", names(clusters));
    Diagnostic::warning("ARG1242", path, message)
}

fn names(clusters: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = clusters.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = clusters.len().saturating_sub(NAMES_MAX);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

fn of_hooks(hooks: &BTreeMap<String, LifecycleHook>) -> impl Iterator<Item = &str> {
    hooks.values().map(|hook| hook.template.as_str())
}

/// Whether a field says something that is not nothing.
fn is_set(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::Bool(true) | Value::Number(_) | Value::String(_)) => true,
    }
}

/// The first of a list of named values that comes from elsewhere.
fn has_source(list: Option<&Value>) -> Option<usize> {
    list.and_then(Value::as_array)?.iter().position(|item| is_set(item.get("valueFrom")))
}

/// Those of the fields that are set; a name with a dot is a field of a field.
fn set_fields(object: &Value, before: &str, fields: &[&str]) -> Vec<String> {
    let is_there = |field: &&&str| is_set(object.pointer(&format!("/{}", field.replace('.', "/"))));
    fields.iter().filter(is_there).map(|field| format!("{before}{field}")).collect()
}

/// The fields that choose hosts within a cluster.
fn chooses_hosts(object: &Value) -> Vec<String> {
    let of_hosts = |key: &str| !key.starts_with(SELECTOR_PREFIX);
    let selector = object.get("nodeSelector").and_then(Value::as_object).into_iter().flatten();
    let tolerations = object.get("tolerations").and_then(Value::as_array).into_iter().flatten();
    let mut tolerated = tolerations.map(|one| one.get("key").and_then(Value::as_str).unwrap_or_default());
    let mut found = Vec::new();
    if selector.map(|(key, _)| key.as_str()).any(of_hosts) {
        found.push("nodeSelector".to_owned());
    }
    if tolerated.any(of_hosts) {
        found.push("tolerations".to_owned());
    }
    found
}
