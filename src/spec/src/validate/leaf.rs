//! Templates that run or wait.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::names::Kind;
use super::{Scope, Validator};
use crate::failover::EXCLUSIVE_ANNOTATION;
use crate::leaf::{ContainerSet, Http, MAIN_CONTAINER, MERGE_STRATEGIES, RESOURCE_ACTIONS, Resource};
use crate::manifest::{IntOrString, Template, TemplateKind};
use crate::suggest;

/// Container names that are ours.
const RESERVED_NAMES: [&str; 2] = ["wait", "supervisor"];

/// What a container set's `main` takes and yields.
fn has_files(template: &Template) -> bool {
    let (inputs, outputs) = (&template.inputs, &template.outputs);
    !(inputs.artifacts.is_empty() && outputs.parameters.is_empty() && outputs.artifacts.is_empty())
}

impl Validator<'_> {
    pub(super) fn leaf(&mut self, template: &Template, scope: &Scope, path: &str) {
        let name = &template.name;
        self.references(&template.raw, scope, &format!("templates.{name}:"), path);
        match &template.kind {
            TemplateKind::Container(container) => {
                self.mounts(template, container, path);
                self.image(container, &format!("templates.{name}.container"), path);
            }
            TemplateKind::Script(script) => {
                self.image(&script.container, &format!("templates.{name}.script"), path)
            }
            TemplateKind::ContainerSet(set) => self.container_set(template, set, path),
            TemplateKind::Resource(resource) => self.resource(template, resource, path),
            TemplateKind::Http(http) => self.http(template, http, path),
            TemplateKind::Plugin(plugin) => self.plugin(template, plugin, path),
            TemplateKind::Data(_)
            | TemplateKind::Suspend(_)
            | TemplateKind::Steps(_)
            | TemplateKind::Dag(_)
            | TemplateKind::Missing => {}
        }
        if template.parallelism.is_some() {
            let message = format!("templates.{name}.parallelism is only valid for steps and dag templates");
            self.tell("ARG0019", format!("{path}.parallelism"), message);
        }
        let fits = match &template.active_deadline_seconds {
            None => true,
            Some(IntOrString::Int(seconds)) => *seconds > 0,
            Some(value @ IntOrString::String(text)) => {
                text.contains("{{") || value.as_i64().is_some_and(|value| value > 0)
            }
        };
        if !fits {
            self.tell(
                "ARG0018",
                format!("{path}.activeDeadlineSeconds"),
                format!("templates.{name}.activeDeadlineSeconds must be a positive integer > 0 or an argo variable"),
            );
        }
        self.exclusive(template, path);
        self.extra_containers(template, "initContainers", path);
        self.extra_containers(template, "sidecars", path);
    }

    /// An exclusive step's processes end with its lease: refused where the executor can't see to that.
    fn exclusive(&mut self, template: &Template, path: &str) {
        if template.exclusive().or_else(|| self.manifest.exclusive()) != Some(true) {
            return;
        }
        if let Some(why) = self.manifest.unenforceable(&template.raw) {
            let message = format!("template `{}` can't be exclusive: {why}", template.name);
            let suggestion = format!("set `{EXCLUSIVE_ANNOTATION}: \"false\"` on this template");
            self.tell_with("ARG0220", path.to_owned(), message, suggestion);
        }
    }

    fn image(&mut self, container: &Value, words: &str, path: &str) {
        let kind = words.rsplit('.').next().unwrap_or_default();
        let defaults = self.manifest.spec.template_defaults.as_ref();
        let image = container.get("image").or_else(|| defaults?.get(kind)?.get("image"));
        if image.and_then(Value::as_str).unwrap_or_default().is_empty() {
            self.tell("ARG0010", format!("{path}.{kind}"), format!("{words}.image may not be empty"));
        }
    }

    fn extra_containers(&mut self, template: &Template, field: &str, path: &str) {
        let containers = template.raw.get(field).and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let at = format!("{path}.{field}[{index}]");
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            if name.is_empty() {
                self.tell("ARG0010", at, format!("{field} must all have container name"));
            } else {
                self.reserved(name, &format!("templates.{}.{field}", template.name), at);
            }
        }
    }

    /// No two volumes or artifacts of a container are at one path.
    fn mounts(&mut self, template: &Template, container: &Value, path: &str) {
        let name = &template.name;
        let mut mounted = BTreeMap::new();
        let volumes = container.get("volumeMounts").and_then(Value::as_array);
        for (index, mount) in volumes.into_iter().flatten().enumerate() {
            let text = |field: &str| mount.get(field).and_then(Value::as_str).unwrap_or_default();
            let own = format!("container.volumeMounts.{}", text("name"));
            if let Some(before) = mounted.insert(text("mountPath"), own) {
                let words = format!("templates.{name}.container.volumeMounts[{index}].mountPath");
                let message = format!("{words} '{}' already mounted in {before}", text("mountPath"));
                self.tell("ARG0018", format!("{path}.container.volumeMounts[{index}].mountPath"), message);
            }
        }
        for (index, artifact) in template.inputs.artifacts.iter().enumerate() {
            let own = format!("inputs.artifacts.{}", artifact.name);
            if let Some(before) = mounted.insert(&artifact.path, own) {
                let words = format!("templates.{name}.inputs.artifacts[{index}].path");
                let message = format!("{words} '{}' already mounted in {before}", artifact.path);
                self.tell("ARG0018", format!("{path}.inputs.artifacts[{index}].path"), message);
            }
        }
    }

    fn reserved(&mut self, name: &str, words: &str, at: String) {
        if RESERVED_NAMES.contains(&name) {
            self.tell("ARG0012", at, format!("{words}: \"{name}\" is a reserved Argo container name"));
        }
    }

    fn container_set(&mut self, template: &Template, set: &ContainerSet, path: &str) {
        let words = format!("templates.{}.containerSet", template.name);
        let at = format!("{path}.containerSet");
        let containers = format!("{at}.containers");
        if set.containers.is_empty() {
            self.tell("ARG0010", containers, format!("{words}.containers must have at least one container"));
            return;
        }
        let names = set.containers.iter().map(|container| container.name.as_str());
        self.field_names(names, Kind::Field, &format!("{words}.containers"), &containers);
        let mut mounted = BTreeMap::new();
        for (index, mount) in set.volume_mounts.iter().enumerate() {
            let text = |field: &str| mount.get(field).and_then(Value::as_str).unwrap_or_default();
            if let Some(before) = mounted.insert(text("mountPath"), text("name")) {
                let message = format!(
                    "{words}.volumeMounts[{index}].mountPath '{}' already mounted in volumeMounts.{before}",
                    text("mountPath")
                );
                self.tell("ARG0018", format!("{at}.volumeMounts[{index}].mountPath"), message);
            }
        }
        for (index, container) in set.containers.iter().enumerate() {
            let at = format!("{containers}[{index}]");
            self.reserved(&container.name, &format!("{words}.containers"), format!("{at}.name"));
            for dependency in container.dependencies.iter().filter(|name| set.container(name).is_none()) {
                let known = set.containers.iter().map(|container| container.name.as_str());
                let near = suggest::nearest(dependency, known);
                self.tell_with(
                    "ARG0015",
                    format!("{at}.dependencies"),
                    format!("{words}.containers.{} dependency '{dependency}' not defined", container.name),
                    near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default(),
                );
            }
        }
        if let Some(cycle) = cycle(set) {
            let message = format!("{words}.containers dependency cycle detected: {}", cycle.join("->"));
            self.tell("ARG0015", containers, message);
        } else if has_files(template) && set.container(MAIN_CONTAINER).is_none() {
            let message = format!(
                "{words}.containers must have a container named \"{MAIN_CONTAINER}\" for input or output"
            );
            self.tell("ARG0010", containers, message);
        }
    }

    fn resource(&mut self, template: &Template, resource: &Resource, path: &str) {
        let words = format!("templates.{}.resource", template.name);
        let at = format!("{path}.resource");
        let action = resource.action.as_str();
        if !RESOURCE_ACTIONS.contains(&action) && !action.contains("{{") {
            let message = format!("{words}.action must be one of: {}", RESOURCE_ACTIONS.join(", "));
            let near = suggest::nearest(action, RESOURCE_ACTIONS.iter().copied());
            let suggestion = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
            self.tell_with("ARG0018", format!("{at}.action"), message, suggestion);
        }
        let strategy = resource.merge_strategy.as_str();
        if !strategy.is_empty() && !MERGE_STRATEGIES.contains(&strategy) && !strategy.contains("{{") {
            let message = format!("{words}.mergeStrategy must be one of: {}", MERGE_STRATEGIES.join(", "));
            self.tell("ARG0018", format!("{at}.mergeStrategy"), message);
        }
        let has_manifest = !resource.manifest.is_empty();
        if has_manifest && resource.manifest_from.is_some() {
            let message = "shouldn't have both `manifest` and `manifestFrom` specified in `Manifest` for resource template";
            self.tell("ARG0018", at, message);
            return;
        }
        if action == "delete" || action == "get" {
            return;
        }
        if !has_manifest && resource.manifest_from.is_none() {
            self.tell(
                "ARG0010",
                at,
                format!("either {words}.manifest or {words}.manifestFrom must be specified"),
            );
        } else if has_manifest
            && !resource.manifest.contains("{{")
            && !crate::yaml::is_readable(&resource.manifest)
        {
            self.tell("ARG0001", format!("{at}.manifest"), format!("{words}.manifest must be a valid yaml"));
        }
    }

    fn http(&mut self, template: &Template, http: &Http, path: &str) {
        let words = format!("templates.{}.http", template.name);
        if http.url.is_empty() {
            self.tell("ARG0010", format!("{path}.http"), format!("{words}.url is required"));
        }
        for (index, header) in http.headers.iter().enumerate() {
            if header.name.is_empty() {
                let at = format!("{path}.http.headers[{index}]");
                self.tell("ARG0010", at, format!("{words}.headers[{index}].name is required"));
            }
        }
    }

    fn plugin(&mut self, template: &Template, plugin: &Value, path: &str) {
        let keys = plugin.as_object().map_or(0, serde_json::Map::len);
        if keys != 1 {
            let message = format!("templates.{}.plugin: expected exactly one key, got {keys}", template.name);
            self.tell("ARG0018", format!("{path}.plugin"), message);
        }
    }

    /// Fields that only leaves have.
    pub(super) fn non_leaf(&mut self, template: &Template, path: &str) {
        if template.active_deadline_seconds.is_some() {
            self.tell(
                "ARG0019",
                format!("{path}.activeDeadlineSeconds"),
                format!("templates.{}.activeDeadlineSeconds is only valid for leaf templates", template.name),
            );
        }
    }
}

/// A cycle among a set's containers, as Argo tells it: the way from the first container until a name comes again.
fn cycle(set: &ContainerSet) -> Option<Vec<&str>> {
    let names: BTreeSet<&str> = set.containers.iter().map(|container| container.name.as_str()).collect();
    let mut done = BTreeSet::new();
    for name in names {
        // A way down the dependencies: the names on it, and how many of each one's dependencies were followed.
        let mut way: Vec<(&str, usize)> = vec![(name, 0)];
        while let Some((at, next)) = way.last_mut() {
            let dependencies =
                set.container(at).map(|found| found.dependencies.as_slice()).unwrap_or_default();
            let Some(dependency) = dependencies.get(*next) else {
                done.insert(*at);
                way.pop();
                continue;
            };
            *next += 1;
            // The first name is where the search began; Argo leaves it out until something depends on it.
            let shown = way.iter().skip(1).map(|(name, _)| *name);
            if shown.clone().any(|name| name == dependency) {
                return Some(shown.chain([dependency.as_str()]).collect());
            }
            if !done.contains(dependency.as_str()) {
                way.push((dependency, 0));
            }
        }
    }
    None
}
