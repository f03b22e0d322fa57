//! Which tags can be resolved where.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::Value;

use argosy_expr::tags;

use super::Validator;
use super::steps::without_hooks;
use crate::manifest::{Manifest, Step, Template};
use crate::references::is_missing;

/// A tag with one of these prefixes must be resolvable; others are left alone.
const CHECKED_PREFIXES: [&str; 7] = ["item.", "steps.", "inputs.", "outputs.", "pod.", "workflow.", "tasks."];
/// Resolvable whatever follows.
const OPEN_PREFIXES: [&str; 7] = [
    "outputs.",
    "workflow.creationTimestamp",
    "workflow.scheduledTime",
    "workflow.duration",
    "tasks.name",
    "steps.name",
    "node.name",
];
const GLOBALS: [&str; 13] = [
    "workflow.name",
    "workflow.namespace",
    "workflow.uid",
    "workflow.mainEntrypoint",
    "workflow.serviceAccountName",
    "workflow.status",
    "workflow.duration",
    "workflow.parameters",
    "workflow.parameters.json",
    "workflow.labels",
    "workflow.labels.json",
    "workflow.annotations",
    "workflow.annotations.json",
];

/// Names that can be resolved.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Those of every template, shared.
    globals: Rc<BTreeSet<String>>,
    names: BTreeSet<String>,
    any_item: bool,
    /// Prefixes of names that may or may not be there.
    open: BTreeSet<String>,
}

impl Scope {
    /// What every template sees.
    pub(super) fn global(manifest: &Manifest) -> Self {
        let mut names: BTreeSet<String> = GLOBALS.into_iter().map(str::to_owned).collect();
        for parameter in &manifest.spec.arguments.parameters {
            names.insert(format!("workflow.parameters.{}", parameter.name));
        }
        // Set on workflows of a CronWorkflow, and by `argo submit --scheduled-time`.
        let scheduled = "workflows.argoproj.io/scheduled-time";
        if manifest.kind == "CronWorkflow" || manifest.metadata.annotations.contains_key(scheduled) {
            names.insert("workflow.scheduledTime".to_owned());
        }
        if manifest.spec.priority.is_some() {
            names.insert("workflow.priority".to_owned());
        }
        let mut open = BTreeSet::new();
        if manifest.kind.ends_with("Template") {
            // The workflow that uses it may have more.
            open.insert("workflow.parameters.".to_owned());
        }
        let computed =
            manifest.spec.workflow_metadata.iter().flat_map(|metadata| metadata.labels_from.keys());
        let labels = manifest.labels();
        names.extend(labels.keys().chain(computed).map(|name| format!("workflow.labels.{name}")));
        names.extend(manifest.annotations().keys().map(|name| format!("workflow.annotations.{name}")));
        Self { globals: Rc::new(names), open, ..Self::default() }
    }

    /// From now on, names with this prefix may or may not be there.
    pub(super) fn add_open(&mut self, prefix: &str) {
        self.open.insert(prefix.to_owned());
    }

    /// Adds a name for every template that is checked from now on.
    pub(super) fn add_global(&mut self, name: &str) {
        Rc::make_mut(&mut self.globals).insert(name.to_owned());
    }

    /// What the body of a template sees.
    pub(super) fn of_template(globals: &Self, template: &Template) -> Self {
        let mut scope =
            Self { globals: Rc::clone(&globals.globals), open: globals.open.clone(), ..Self::default() };
        if !template.inputs.parameters.is_empty() {
            scope.add("inputs.parameters");
        }
        for input in &template.inputs.parameters {
            scope.add(format!("inputs.parameters.{}", input.name));
        }
        if template.is_pod() {
            scope.add("pod.name");
        }
        scope.add("node.name");
        scope.add("steps.name");
        scope.add("tasks.name");
        scope
    }

    pub(super) fn add(&mut self, name: impl Into<String>) {
        self.names.insert(name.into());
    }

    /// What a loop adds.
    pub(super) fn add_items(&mut self, step: &Step) {
        for item in &step.with_items {
            match item {
                Value::Object(fields) => {
                    for key in fields.keys() {
                        self.add(format!("item.{key}"));
                    }
                }
                Value::Array(items) => {
                    for index in 0..items.len() {
                        self.add(format!("item.[{index}]"));
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        self.any_item |= step.with_items.is_empty() && !step.with_param.is_empty();
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// What a step or task adds for those after it.
    pub(super) fn add_outputs(&mut self, prefix: &str, template: Option<&Template>, step: &Step) {
        for name in ["id", "status", "startedAt", "finishedAt", "hostNodeName"] {
            self.add(format!("{prefix}.{name}"));
        }
        let Some(template) = template else { return };
        if is_missing(&template.name) {
            // What it would yield is not known.
            self.open.insert(format!("{prefix}."));
        }
        if template.daemon {
            self.add(format!("{prefix}.ip"));
        }
        if template.has_result() {
            self.add(format!("{prefix}.outputs.result"));
            self.add(format!("{prefix}.exitCode"));
        }
        for output in &template.outputs.parameters {
            self.add(format!("{prefix}.outputs.parameters.{}", output.name));
        }
        for output in &template.outputs.artifacts {
            self.add(format!("{prefix}.outputs.artifacts.{}", output.name));
        }
        if step.is_loop() {
            self.add(format!("{prefix}.outputs.parameters"));
        }
    }

    fn resolves(&self, tag: &str) -> bool {
        !CHECKED_PREFIXES.iter().any(|prefix| tag.starts_with(prefix))
            || self.names.contains(tag)
            || self.globals.contains(tag)
            || OPEN_PREFIXES.iter().any(|prefix| tag.starts_with(prefix))
            || self.open.iter().any(|prefix| tag.starts_with(prefix.as_str()))
            || (self.any_item && tag.starts_with("item."))
    }
}

impl Validator<'_> {
    /// Outputs with a globalName are known to all that is checked after them.
    pub(super) fn add_globals(&mut self, template: Option<&Template>, scope: &mut Scope) {
        let outputs = template.map(|template| template.outputs.parameters.as_slice()).unwrap_or_default();
        for output in outputs.iter().filter(|output| !output.global_name.is_empty()) {
            if output.global_name.contains("{{") {
                // The name is known when it runs.
                self.globals.add_open("workflow.outputs.parameters.");
                scope.add_open("workflow.outputs.parameters.");
                continue;
            }
            let name = format!("workflow.outputs.parameters.{}", output.global_name);
            self.globals.add_global(&name);
            scope.add(name);
        }
        let artifacts = template.map(|template| template.outputs.artifacts.as_slice()).unwrap_or_default();
        for output in artifacts.iter().filter(|output| !output.global_name.is_empty()) {
            let name = format!("workflow.outputs.artifacts.{}", output.global_name);
            self.globals.add_global(&name);
            scope.add(name);
        }
        // What templates inside it have made known.
        scope.globals = Rc::clone(&self.globals.globals);
    }

    /// An exit handler may read global artifacts whose names are known when it runs.
    pub(super) fn open_global_artifacts(&mut self) {
        let mut outputs =
            self.manifest.spec.templates.iter().flat_map(|template| &template.outputs.artifacts);
        if outputs.any(|output| output.global_name.contains("{{")) {
            self.globals.add_open("workflow.outputs.artifacts.");
        }
    }

    /// A step's own texts: an inline template sees its own inputs, too.
    pub(super) fn step_references(&mut self, step: &Step, scope: &Scope, words: &str, path: &str) {
        let value = without_hooks(&step.raw);
        let Some(inline) = &step.inline else { return self.references(&value, scope, words, path) };
        let mut inside = scope.clone();
        for input in &inline.inputs.parameters {
            inside.add(format!("inputs.parameters.{}", input.name));
        }
        self.references(&value, &inside, words, path);
    }

    /// Checks the tags of every text of a value; `words` comes before the message.
    pub(super) fn references(&mut self, value: &Value, scope: &Scope, words: &str, path: &str) {
        let mut unclosed = None;
        each_text(value, path, &mut |path, text| {
            for tag in tags::names(text) {
                if !scope.resolves(tag) {
                    self.tell("ARG0016", path, format!("{words} failed to resolve {{{{{tag}}}}}"));
                }
            }
            if unclosed.is_none() && tags::is_unclosed(text) {
                unclosed = Some(path.to_owned());
            }
        });
        if let Some(path) = unclosed {
            self.swallowing(value, scope, words, &path);
        }
    }

    /// Argo looks for tags in the JSON text of a whole step: one that is not closed in its own text goes on to the next
    /// `}}` there (`tags/tag-unclosed`).
    fn swallowing(&mut self, value: &Value, scope: &Scope, words: &str, path: &str) {
        let text = argos_json(value);
        let swallows = |tag: &&str| tag.contains('"') && !scope.resolves(tag);
        for tag in tags::names(&text).filter(swallows) {
            let message = format!("{words} failed to resolve {{{{{tag}}}}}");
            self.tell_with("ARG0016", path, message, "close the tag with `}}`".to_owned());
        }
    }
}

/// The order in which Argo writes the fields of a step, of arguments and of a parameter.
const ARGOS_ORDER: [&str; 20] = [
    "name",
    "template",
    "inline",
    "arguments",
    "parameters",
    "artifacts",
    "templateRef",
    "dependencies",
    "withItems",
    "withParam",
    "withSequence",
    "when",
    "continueOn",
    "onExit",
    "depends",
    "default",
    "value",
    "valueFrom",
    "globalName",
    "enum",
];

/// The JSON text of a step as Argo writes it: the fields in its order, and Go's escapes.
fn argos_json(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let place = |name: &str| ARGOS_ORDER.iter().position(|known| *known == name);
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| place(name).unwrap_or(ARGOS_ORDER.len()));
            let text = |(name, value): (&String, &Value)| {
                format!("{}:{}", argos_json(&Value::from(name.as_str())), argos_json(value))
            };
            let texts: Vec<String> = fields.into_iter().map(text).collect();
            format!("{{{}}}", texts.join(","))
        }
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().map(argos_json).collect();
            format!("[{}]", texts.join(","))
        }
        Value::String(_) => {
            let text = value.to_string();
            text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Calls back with every text of a value, keys included, and its path.
fn each_text(value: &Value, path: &str, found: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::String(text) if text.contains("{{") => found(path, text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                each_text(value, &format!("{path}[{index}]"), found);
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = format!("{path}.{key}");
                if key.contains("{{") {
                    found(&path, key);
                }
                each_text(value, &path, found);
            }
        }
    }
}
