//! What a table of fields can't say: names, references, graphs, arguments.
//!
//! The order of the checks is Argo's, so that the first problem is the one that Argo would tell, in the same words; then
//! the checks go on.

mod artifacts;
mod graph;
mod leaf;
mod metrics;
mod names;
mod outputs;
mod scope;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use argosy_expr::{Lookup, Rules, substitute};

use crate::failover::{
    self, ANNOTATION_PREFIX, ANNOTATIONS, EXCLUSIVE_ANNOTATION, EXCLUSIVE_LEASE_ANNOTATION,
    EXPAND_OUTPUTS_ANNOTATION, FAILOVER_ANNOTATION, IDEMPOTENT_ANNOTATION, ON_RECONNECT_ANNOTATION,
    PLACEMENT_ANNOTATION,
};
use crate::manifest::{
    Arguments, EXIT_HOOK, LifecycleHook, Manifest, Metadata, Parameter, RetryStrategy, Step, Template,
    TemplateKind,
};
use crate::{Diagnostic, suggest};
use scope::Scope;

/// Longest name of a workflow.
const NAME_LENGTH_MAX: usize = 63;
/// Calls within calls that are followed at once; templates further down are checked on their own.
const DEPTH_MAX: usize = 50;
/// Problems of one manifest that are told.
const PROBLEMS_MAX: usize = 100;

/// Everything that is wrong with a manifest as one to be run; the first is what Argo would say.
pub fn validate(manifest: &Manifest) -> Vec<Diagnostic> {
    Validator::new(manifest).run(false)
}

/// As [`validate`], for a text that is only looked at: the workflow's parameters need no values yet.
pub fn lint(manifest: &Manifest) -> Vec<Diagnostic> {
    Validator::new(manifest).run(true)
}

/// As [`lint`], for a manifest whose references were followed: what is wrong with a template from elsewhere is told at
/// the reference to it. The first `own_templates` are the manifest's own.
pub(crate) fn lint_resolved(manifest: &Manifest, own_templates: usize) -> Vec<Diagnostic> {
    Validator { own_templates, ..Validator::new(manifest) }.run(true)
}

struct Validator<'a> {
    manifest: &'a Manifest,
    /// Templates from here on are from elsewhere.
    own_templates: usize,
    /// Paths of the calls that led here.
    calls: Vec<String>,
    /// Templates by name; the first of a name counts.
    templates: BTreeMap<&'a str, usize>,
    globals: Scope,
    /// Values of the workflow's parameters, by tag.
    values: BTreeMap<String, String>,
    visited: BTreeSet<usize>,
    /// Where the check is, in the words of Argo's messages: the calls that led here.
    trail: Vec<String>,
    problems: Vec<Diagnostic>,
    told: BTreeSet<(String, String)>,
    /// Steps of searches in graphs that are left.
    search_left: usize,
}

impl<'a> Validator<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        let mut templates = BTreeMap::new();
        for (index, template) in manifest.spec.templates.iter().enumerate() {
            templates.entry(template.name.as_str()).or_insert(index);
        }
        let mut values = BTreeMap::new();
        for parameter in &manifest.spec.arguments.parameters {
            if let Some(value) = parameter.value.as_ref().or(parameter.default.as_ref()) {
                values.insert(format!("workflow.parameters.{}", parameter.name), value.clone());
            }
        }
        Self {
            manifest,
            own_templates: usize::MAX,
            calls: Vec::new(),
            templates,
            globals: Scope::global(manifest),
            values,
            visited: BTreeSet::new(),
            trail: Vec::new(),
            problems: Vec::new(),
            told: BTreeSet::new(),
            search_left: graph::SEARCH_MAX,
        }
    }

    /// Notes a problem. `message` is Argo's, without the calls that led here.
    fn tell(&mut self, code: &'static str, path: impl Into<String>, message: impl Into<String>) {
        self.tell_with(code, path, message, String::new());
    }

    fn tell_with(
        &mut self,
        code: &'static str,
        path: impl Into<String>,
        message: impl Into<String>,
        suggestion: String,
    ) {
        let (mut path, mut message) = (path.into(), message.into());
        if self.is_elsewhere(&path) {
            let call = self.calls.iter().rev().find(|call| !self.is_elsewhere(call));
            path = call.map_or_else(|| "spec.workflowTemplateRef".to_owned(), |call| reference_path(call));
        }
        if self.problems.len() >= PROBLEMS_MAX || !self.told.insert((path.clone(), message.clone())) {
            return;
        }
        if !self.trail.is_empty() {
            message = format!("{} {message}", self.trail.join(" "));
        }
        self.problems.push(Diagnostic::plain(code, path, message).suggest(suggestion));
    }

    /// True for a path in a template that is not the manifest's own.
    fn is_elsewhere(&self, path: &str) -> bool {
        let index =
            path.strip_prefix("spec.templates[").and_then(|rest| rest.split(']').next()?.parse().ok());
        index.is_some_and(|index: usize| index >= self.own_templates)
    }

    fn run(mut self, lint: bool) -> Vec<Diagnostic> {
        let manifest = self.manifest;
        if manifest.kind == "WorkflowEventBinding" {
            // It holds no workflow.
            return self.problems;
        }
        // Parameters of a stored template get their values when it is used.
        let lint = lint || manifest.kind.ends_with("Template");
        let metadata = &manifest.metadata;
        if metadata.name.chars().count() > NAME_LENGTH_MAX {
            let length = metadata.name.chars().count();
            self.tell(
                "ARG0012",
                "metadata.name",
                format!(
                    "workflow name \"{}\" must not be more than {NAME_LENGTH_MAX} characters long (currently {length})",
                    metadata.name
                ),
            );
        } else if !names::is_subdomain(&metadata.name) || !names::is_subdomain_prefix(&metadata.generate_name)
        {
            let (field, name) = if names::is_subdomain(&metadata.name) {
                ("generateName", &metadata.generate_name)
            } else {
                ("name", &metadata.name)
            };
            self.tell(
                "ARG0012",
                format!("metadata.{field}"),
                format!("metadata.{field} '{name}' is invalid: use lower case letters, digits, '-' and '.'"),
            );
        }
        self.annotations(metadata, "metadata");
        if refers_to_stored(manifest) {
            // The rest is checked where the stored templates are, with them at hand.
            return self.problems;
        }
        // Names made by the control plane for templates that it fetched begin with a control character.
        let names = manifest.spec.templates.iter().map(|template| template.name.as_str());
        let names = names.filter(|name| !name.starts_with('\u{2}'));
        self.field_names(names, names::Kind::Field, "spec.templates", "spec.templates");
        self.arguments(&manifest.spec.arguments, "spec.arguments.", "spec.arguments", lint);
        self.retry_strategy(manifest.spec.retry_strategy.as_ref(), "spec.retryStrategy");
        self.parallelism(manifest.spec.parallelism, "spec.parallelism");
        self.metrics(manifest.spec.metrics.as_ref(), "spec", "spec");
        self.gc_strategy(manifest.spec.artifact_gc_strategy(), "spec.artifactGC.strategy");
        self.entrypoints();
        for (index, template) in manifest.spec.templates.iter().enumerate() {
            if self.visited.contains(&index) {
                continue;
            }
            self.trail.push(format!("templates.{}", template.name));
            self.template(index, None);
            self.trail.pop();
        }
        self.problems
    }

    fn entrypoints(&mut self) {
        let manifest = self.manifest;
        let spec = &manifest.spec;
        if spec.entrypoint.is_empty() && manifest.kind.ends_with("Template") {
            // A template need not be one that can be run as a whole.
        } else if spec.entrypoint.is_empty() {
            self.tell("ARG0010", "spec.entrypoint", "spec.entrypoint is required");
        } else {
            // Whoever uses a stored template supplies its inputs.
            let arguments = (!manifest.kind.ends_with("Template")).then_some(&spec.arguments);
            self.call(&spec.entrypoint, arguments, &BTreeMap::new(), "spec.entrypoint");
        }
        if let Some(hook) = spec.exit_hook() {
            self.globals.add_global("workflow.failures");
            self.open_global_artifacts();
            let own = !hook.arguments.parameters.is_empty();
            let arguments = if own { &hook.arguments } else { &spec.arguments };
            self.call(&hook.template, Some(arguments), &BTreeMap::new(), "spec.onExit");
        }
        self.conditions(&spec.hooks, "hooks", "spec");
        for (name, hook) in spec.hooks.iter().filter(|(name, _)| *name != EXIT_HOOK) {
            let own = !hook.arguments.parameters.is_empty();
            let arguments = if own { &hook.arguments } else { &spec.arguments };
            self.call(&hook.template, Some(arguments), &BTreeMap::new(), &format!("spec.hooks.{name}"));
        }
    }

    /// Checks the use of a template by name; `known` are values for tags in the name, besides the workflow's parameters. The template's index, if there.
    fn call(
        &mut self,
        name: &str,
        arguments: Option<&Arguments>,
        known: &BTreeMap<String, String>,
        path: &str,
    ) -> Option<&'a Template> {
        if name.is_empty() {
            self.tell("ARG0010", path, "failed to get a template");
            return None;
        }
        let scopes: [&dyn Lookup; 2] = [known, &self.values];
        let name = substitute(name, &scopes.as_slice(), &Rules::LENIENT).unwrap_or_else(|_| name.to_owned());
        let Some(index) = self.templates.get(name.as_str()).copied() else {
            let nearest = suggest::nearest(&name, self.templates.keys().copied());
            let suggestion = nearest.map(|name| format!("did you mean `{name}`?")).unwrap_or_default();
            self.tell_with("ARG0011", path, format!("template name '{name}' undefined"), suggestion);
            return None;
        };
        self.template(index, Some((arguments, path)));
        Some(&self.manifest.spec.templates[index])
    }

    /// Checks what a step or task runs: a template by name, or its own.
    fn target(
        &mut self,
        step: &'a Step,
        arguments: Option<&Arguments>,
        known: &BTreeMap<String, String>,
        at: &str,
    ) -> Option<&'a Template> {
        let Some(inline) = &step.inline else {
            return self.call(&step.template, arguments, known, &steps::template_path(step, at));
        };
        if !step.template.is_empty() {
            let message = format!("{} template and inline are exclusive", step.name);
            self.tell("ARG0018", format!("{at}.inline"), message);
        }
        if let Some(arguments) = arguments {
            for input in &inline.inputs.parameters {
                self.supplied(inline, input, arguments, at);
            }
            for input in &inline.inputs.artifacts {
                self.artifact_supplied(inline, input, arguments, at);
            }
        }
        if self.trail.len() <= DEPTH_MAX {
            self.body(inline, &format!("{at}.inline"), arguments);
        }
        Some(inline)
    }

    /// The templates of hooks: there, and supplied with what they need.
    fn hooks(&mut self, hooks: &BTreeMap<String, LifecycleHook>, on_exit: &str, path: &str) {
        for (name, hook) in hooks {
            let arguments = if hook.arguments.parameters.is_empty() { None } else { Some(&hook.arguments) };
            self.call(&hook.template, arguments, &BTreeMap::new(), &format!("{path}.hooks.{name}"));
        }
        if !on_exit.is_empty() {
            self.call(on_exit, None, &BTreeMap::new(), &format!("{path}.onExit"));
        }
    }

    /// Every hook but the one at the end says when it runs.
    fn conditions(&mut self, hooks: &BTreeMap<String, LifecycleHook>, words: &str, path: &str) {
        let silent =
            |(name, hook): &(&String, &LifecycleHook)| *name != EXIT_HOOK && hook.expression.is_empty();
        for (name, _) in hooks.iter().filter(silent) {
            let message = format!("{words}.{name} Expression required");
            self.tell("ARG0010", format!("{path}.hooks.{name}"), message);
        }
    }

    /// Checks a template. With `call`, also that its inputs are supplied by the arguments (at the path).
    fn template(&mut self, index: usize, call: Option<(Option<&Arguments>, &str)>) {
        let manifest = self.manifest;
        let template = &manifest.spec.templates[index];
        let path = format!("spec.templates[{index}]");
        if let Some((Some(arguments), call_path)) = call {
            for input in &template.inputs.parameters {
                self.supplied(template, input, arguments, call_path);
            }
            for input in &template.inputs.artifacts {
                self.artifact_supplied(template, input, arguments, call_path);
            }
        }
        if self.visited.contains(&index) || self.trail.len() > DEPTH_MAX {
            return;
        }
        self.visited.insert(index);
        self.calls.push(call.map_or_else(|| path.clone(), |(_, call)| call.to_owned()));
        self.body(template, &path, call.and_then(|(arguments, _)| arguments));
        self.calls.pop();
    }

    /// Checks a template itself.
    fn body(&mut self, template: &'a Template, path: &str, arguments: Option<&Arguments>) {
        if !self.template_type(template, path) {
            return;
        }
        let inputs = format!("templates.{}.inputs.parameters", template.name);
        let names = template.inputs.parameters.iter().map(|parameter| parameter.name.as_str());
        self.field_names(names, names::Kind::Parameter, &inputs, &format!("{path}.inputs.parameters"));
        let metrics = crate::metrics::Metrics::of(&template.raw);
        self.metrics(metrics.as_ref(), &format!("templates.{}", template.name), path);
        self.timeout(template, path);
        self.parallelism(template.parallelism, &format!("{path}.parallelism"));
        self.annotations(&template.metadata, &format!("{path}.metadata"));
        self.retry_strategy(template.retry_strategy.as_ref(), &format!("{path}.retryStrategy"));
        let mut scope = Scope::of_template(&self.globals, template);
        self.input_artifacts(template, &mut scope, path);
        match &template.kind {
            TemplateKind::Steps(groups) => self.steps(template, groups, &mut scope, arguments, path),
            TemplateKind::Dag(dag) => self.dag(template, dag, &mut scope, arguments, path),
            TemplateKind::Container(_)
            | TemplateKind::Script(_)
            | TemplateKind::Suspend(_)
            | TemplateKind::ContainerSet(_)
            | TemplateKind::Resource(_)
            | TemplateKind::Http(_)
            | TemplateKind::Data(_)
            | TemplateKind::Plugin(_) => self.leaf(template, &scope, path),
            TemplateKind::Missing => {}
        }
        self.outputs(template, &scope, path);
    }

    fn parallelism(&mut self, bound: Option<i64>, path: &str) {
        if bound.is_some_and(|bound| bound < 1) {
            self.tell("ARG0018", path, "parallelism must be 1 or more");
        }
    }

    fn timeout(&mut self, template: &Template, path: &str) {
        let waits = matches!(template.kind, TemplateKind::Suspend(_) | TemplateKind::Missing);
        if template.is_leaf() && !waits {
            if template.timeout.parse::<i64>().is_ok() {
                let message = format!("{} has invalid duration format in timeout.", template.name);
                let suggestion = format!("write the unit: `{}s`", template.timeout);
                self.tell_with("ARG0018", format!("{path}.timeout"), message, suggestion);
            }
            return;
        }
        for (field, value) in [("timeout", &template.timeout), ("pendingTimeout", &template.pending_timeout)]
        {
            if !value.is_empty() {
                let message = format!("{} template doesn't support {field} field", template.kind.word());
                self.tell("ARG0019", format!("{path}.{field}"), message);
            }
        }
    }

    fn supplied(&mut self, template: &Template, input: &Parameter, arguments: &Arguments, path: &str) {
        let given = arguments.parameter(&input.name);
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        // Of the ways to compute an input, only a ConfigMap gives it a value by itself.
        let from = input.value_from.as_ref();
        let has_own = input.value.is_some()
            || input.default.is_some()
            || from.is_some_and(|from| from.config_map_key_ref.is_some());
        let is_given = given.is_some_and(|given| {
            given.value.is_some() || given.value_from.is_some() || given.default.is_some()
        });
        if has_own || is_given {
            return;
        }
        let name = &input.name;
        let near =
            suggest::nearest(name, arguments.parameters.iter().map(|parameter| parameter.name.as_str()));
        let suggestion =
            near.map(|near| format!("`{near}` is given: is `{name}` meant?")).unwrap_or_default();
        let message = format!("templates.{} inputs.parameters.{name} was not supplied", template.name);
        self.tell_with("ARG0017", path, message, suggestion);
    }

    /// True when the template has exactly one type.
    fn template_type(&mut self, template: &Template, path: &str) -> bool {
        let types = [
            "container",
            "containerSet",
            "script",
            "steps",
            "dag",
            "suspend",
            "resource",
            "http",
            "data",
            "plugin",
        ];
        let set = types.into_iter().filter(|name| template.raw.get(name).is_some()).count();
        if set == 1 {
            return true;
        }
        if set == 0 {
            let suggestion = format!("give it one of: {}", types.join(", "));
            self.tell_with(
                "ARG0014",
                path,
                format!("template '{}' type is unknown", template.name),
                suggestion,
            );
        } else {
            self.tell(
                "ARG0014",
                path,
                format!(
                    "templates.{} multiple template types specified. choose one of: container, containerSet, steps, \
                     script, resource, dag, suspend, template, template ref",
                    template.name
                ),
            );
        }
        false
    }

    fn retry_strategy(&mut self, strategy: Option<&RetryStrategy>, path: &str) {
        let Some(strategy) = strategy else { return };
        let known = ["", "Always", "OnFailure", "OnError", "OnTransientError"];
        if !known.contains(&strategy.retry_policy.as_str()) {
            let message = format!("{} is not a valid RetryPolicy", strategy.retry_policy);
            let suggestion = "use one of: Always, OnFailure, OnError, OnTransientError".to_owned();
            self.tell_with("ARG0018", format!("{path}.retryPolicy"), message, suggestion);
        }
        let limit_fits = strategy.limit.as_ref().is_none_or(|limit| match limit {
            crate::IntOrString::Int(_) => true,
            crate::IntOrString::String(text) => text.contains("{{") || limit.as_i64().is_some(),
        });
        if !limit_fits {
            self.tell("ARG0018", format!("{path}.limit"), format!("{path}.limit must be a whole number"));
        }
    }

    fn annotations(&mut self, metadata: &Metadata, path: &str) {
        let known: [(&str, &[&str]); 5] = [
            (EXCLUSIVE_ANNOTATION, &["true", "false"]),
            (EXPAND_OUTPUTS_ANNOTATION, &["true", "false"]),
            (IDEMPOTENT_ANNOTATION, &["true", "false"]),
            (FAILOVER_ANNOTATION, &["reschedule", "fail", "wait"]),
            (ON_RECONNECT_ANNOTATION, &["keep-replacement", "keep-original", "longest-running"]),
        ];
        for (name, values) in known {
            let Some(value) = metadata.annotations.get(name) else { continue };
            if !values.contains(&value.as_str()) {
                let message = format!("annotation `{name}` can't be `{value}`");
                let suggestion = format!("use one of: {}", values.join(", "));
                self.tell_with("ARG0021", format!("{path}.annotations"), message, suggestion);
            }
        }
        let is = |name: &str, value: &str| metadata.annotations.get(name).is_some_and(|it| it == value);
        if is(EXCLUSIVE_ANNOTATION, "true")
            && metadata.annotations.contains_key(ON_RECONNECT_ANNOTATION)
            && !is(ON_RECONNECT_ANNOTATION, "keep-replacement")
        {
            let message = format!(
                "annotation `{ON_RECONNECT_ANNOTATION}` can't be that of an exclusive step: what was taken over has stopped by itself"
            );
            let suggestion = "leave it out, or say `keep-replacement`".to_owned();
            self.tell_with("ARG0021", format!("{path}.annotations"), message, suggestion);
        }
        if path != "metadata" && metadata.annotations.contains_key(EXPAND_OUTPUTS_ANNOTATION) {
            let message = format!("annotation `{EXPAND_OUTPUTS_ANNOTATION}` counts for whole workflows only");
            let suggestion = "put it into the workflow's metadata".to_owned();
            self.tell_with("ARG0021", format!("{path}.annotations"), message, suggestion);
        }
        if metadata.annotations.contains_key(PLACEMENT_ANNOTATION) {
            let message = format!("annotation `{PLACEMENT_ANNOTATION}` does nothing");
            let suggestion = "say it with nodeSelector: `cluster.argosy.dev/name: NAME`, or a label of clusters after `cluster.argosy.dev/`";
            self.tell_with("ARG0021", format!("{path}.annotations"), message, suggestion.to_owned());
        }
        // A slip of the pen would leave the step without the promise that it asks for.
        for name in metadata.annotations.keys().filter(|name| !ANNOTATIONS.contains(&name.as_str())) {
            let Some(own) = name.strip_prefix(ANNOTATION_PREFIX) else { continue };
            let names = ANNOTATIONS.into_iter().filter_map(|known| known.strip_prefix(ANNOTATION_PREFIX));
            if let Some(meant) = suggest::nearest(own, names) {
                let message = format!("annotation `{name}` is unknown");
                self.tell_with(
                    "ARG0021",
                    format!("{path}.annotations"),
                    message,
                    format!("did you mean `{ANNOTATION_PREFIX}{meant}`?"),
                );
            }
        }
        if let Some(value) = metadata.annotations.get(EXCLUSIVE_LEASE_ANNOTATION)
            && failover::lease_ms(value).is_none()
        {
            let message = format!("annotation `{EXCLUSIVE_LEASE_ANNOTATION}` can't be `{value}`");
            let suggestion = "use hours, minutes and seconds, like 90s or 10m: 5s to a day".to_owned();
            self.tell_with("ARG0021", format!("{path}.annotations"), message, suggestion);
        }
    }
}

/// Where a step names the template from elsewhere that it runs.
fn reference_path(call: &str) -> String {
    call.strip_suffix(".template").map_or_else(|| call.to_owned(), |step| format!("{step}.templateRef"))
}

/// Some part of the manifest is in a stored template.
fn refers_to_stored(manifest: &Manifest) -> bool {
    fn refers(template: &Template, depth: usize) -> bool {
        let of_step = |step: &Step| {
            step.raw.get("templateRef").is_some()
                || step.hooks.values().any(|hook| hook.template_ref.is_some())
                || step.inline.as_ref().is_some_and(|inline| refers(inline, depth + 1))
        };
        depth <= DEPTH_MAX && template.kind.children().into_iter().any(of_step)
    }
    manifest.spec.workflow_template_ref.is_some()
        || manifest.spec.hooks.values().any(|hook| hook.template_ref.is_some())
        || manifest.spec.templates.iter().any(|template| refers(template, 0))
}

/// Values of a template's inputs, by tag, as far as they are literal: the template name of a step may hold such a tag.
fn known_inputs(template: &Template, arguments: Option<&Arguments>) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    for input in &template.inputs.parameters {
        let given = arguments.and_then(|arguments| arguments.parameter(&input.name));
        let value =
            given.and_then(|given| given.value.as_ref()).or(input.value.as_ref()).or(input.default.as_ref());
        if let Some(value) = value.filter(|value| !value.contains("{{")) {
            known.insert(format!("inputs.parameters.{}", input.name), value.clone());
        }
    }
    known
}

#[cfg(test)]
mod tests;
