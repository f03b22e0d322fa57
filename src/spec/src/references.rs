//! References to stored templates, followed once: what becomes of the stored templates later changes nothing.
//!
//! A template that comes by `templateRef` stands among the workflow's own under a name that tells where it is from; the
//! steps that refer to it, and those inside it, are rewritten to such names. So nothing else knows of references, and
//! Argo's view of the tree (`templateRef`, `templateScope`) follows from the names.

use argosy_expr::{Rules, substitute};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::Diagnostic;
use crate::merge::merge;

/// Names of templates from elsewhere begin with it; no template that was written can.
pub(crate) const STORED: &str = "\u{2}";
/// Stands for the kind in the name of a template that is not there.
const MISSING: &str = "missing";
/// Templates that one workflow may draw from elsewhere.
const TEMPLATES_MAX: usize = 10_000;
/// Nesting of inline templates.
const DEPTH_MAX: usize = 100;

/// Where stored templates are.
pub trait Stored {
    /// The ClusterWorkflowTemplate, or the WorkflowTemplate of the workflow's namespace, of that name.
    fn resource(&self, cluster_scope: bool, name: &str) -> Option<Value>;

    /// What is said when it is not there, or has not the template that is wanted of it.
    fn missing(&self, cluster_scope: bool, name: &str, template: Option<&str>) -> String;
}

/// The outcome of following all references.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The manifest without references.
    pub manifest: Value,
    /// Argo's `storedTemplates` and `storedWorkflowTemplateSpec`.
    pub stored: Value,
    /// References that lead nowhere, and what else is wrong with them. Not empty: the manifest is of use for a look only.
    pub problems: Vec<Diagnostic>,
    /// The templates of the manifest that were written in it itself; those after them are from elsewhere.
    pub own_templates: usize,
}

/// A message with the names that people know.
pub fn plain(message: &str) -> String {
    let mut pieces = message.split(STORED);
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain.push_str(piece.splitn(3, '/').last().unwrap_or(piece));
    }
    plain
}

/// True for the name of a template that a reference asks for in vain.
pub(crate) fn is_missing(template: &str) -> bool {
    template.strip_prefix(STORED).is_some_and(|rest| rest.starts_with(MISSING))
}

/// True for the name of a template from elsewhere.
pub fn is_stored(template: &str) -> bool {
    template.starts_with(STORED)
}

/// The name that the template has where it is stored.
pub fn own_name(template: &str) -> &str {
    template.rsplit('/').next().unwrap_or(template)
}

/// `namespaced/RESOURCE` or `cluster/RESOURCE` of a template from elsewhere (or of one inline in it).
pub fn scope_of(template: &str) -> Option<&str> {
    let at = template.find(STORED)? + STORED.len();
    let rest = template.get(at..)?;
    let (kind, more) = rest.split_once('/')?;
    let resource = more.split('/').next()?;
    rest.get(..kind.len() + 1 + resource.len())
}

/// Argo's `templateRef` of a template from elsewhere.
pub fn reference_json(template: &str) -> Option<Value> {
    let (kind, resource) = scope_of(template)?.split_once('/')?;
    let mut shown = json!({"name": resource, "template": own_name(template)});
    if kind == "cluster" {
        shown["clusterScope"] = json!(true);
    }
    Some(shown)
}

/// Follows the references of a manifest; `None` when it has none.
pub fn resolve(stored: &dyn Stored, manifest: &Value) -> Option<Resolved> {
    let by_workflow = manifest.pointer("/spec/workflowTemplateRef").filter(|found| !found.is_null());
    let templates = manifest.pointer("/spec/templates").and_then(Value::as_array);
    let has_references = templates.into_iter().flatten().any(|template| refers(template, 0))
        || manifest.pointer("/spec/hooks").is_some_and(hooks_refer);
    if by_workflow.is_none() && !has_references {
        return None;
    }
    let mut resolver = Resolver {
        from: stored,
        parameters: BTreeMap::new(),
        known: BTreeSet::new(),
        found: Vec::new(),
        stored: BTreeMap::new(),
        problems: Vec::new(),
    };
    let mut manifest = manifest.clone();
    let mut stored = Map::new();
    let mut own_templates = manifest.pointer("/spec/templates").and_then(Value::as_array).map_or(0, Vec::len);
    if let Some(reference) = by_workflow {
        if let Some(spec) = resolver.merged(reference, manifest.get("spec").unwrap_or(&Value::Null)) {
            let mut shown = spec.clone();
            shown["workflowTemplateRef"] = reference.clone();
            stored.insert("storedWorkflowTemplateSpec".to_owned(), shown);
            manifest["spec"] = spec;
        }
        own_templates = 0;
    }
    resolver.parameters = parameters(&manifest);
    resolver.follow(&mut manifest);
    let templates = resolver.stored.into_iter().collect();
    stored.insert("storedTemplates".to_owned(), Value::Object(templates));
    Some(Resolved { manifest, stored: Value::Object(stored), problems: resolver.problems, own_templates })
}

/// Some step in the template refers to a stored one.
fn refers(template: &Value, depth: usize) -> bool {
    depth < DEPTH_MAX
        && steps(template).any(|step| {
            step.get("templateRef").is_some()
                || step.get("hooks").is_some_and(hooks_refer)
                || step.get("inline").is_some_and(|inline| refers(inline, depth + 1))
        })
}

fn hooks_refer(hooks: &Value) -> bool {
    hooks.as_object().into_iter().flatten().any(|(_, hook)| hook.get("templateRef").is_some())
}

fn steps(template: &Value) -> impl Iterator<Item = &Value> {
    let groups = template.get("steps").and_then(Value::as_array).into_iter().flatten();
    let tasks = template.pointer("/dag/tasks").and_then(Value::as_array).into_iter().flatten();
    groups.filter_map(Value::as_array).flatten().chain(tasks)
}

fn parameters(manifest: &Value) -> BTreeMap<String, String> {
    let list = manifest.pointer("/spec/arguments/parameters").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|parameter| {
        let value = parameter.get("value")?.as_str()?;
        Some((format!("workflow.parameters.{}", parameter["name"].as_str()?), value.to_owned()))
    })
    .collect()
}

struct Resolver<'a> {
    from: &'a dyn Stored,
    /// Values for tags in references.
    parameters: BTreeMap<String, String>,
    /// Names of templates that were fetched.
    known: BTreeSet<String>,
    found: Vec<Value>,
    stored: BTreeMap<String, Value>,
    problems: Vec<Diagnostic>,
}

/// Where a reference is written.
#[derive(Clone, Copy)]
struct At<'a> {
    /// Where the template that holds it is stored; `None` for the workflow itself.
    scope: Option<&'a str>,
    /// In the words of Argo's messages.
    trail: &'a str,
    /// As a path in the manifest.
    path: &'a str,
}

impl Resolver<'_> {
    fn tell(&mut self, code: &'static str, path: &str, message: impl Into<String>) {
        self.problems.push(Diagnostic::plain(code, path, message));
    }

    /// The workflow's spec over that of its WorkflowTemplate.
    fn merged(&mut self, reference: &Value, own: &Value) -> Option<Value> {
        const PATH: &str = "spec.workflowTemplateRef";
        let has_templates =
            own.get("templates").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if has_templates {
            let message =
                "Templates is invalid field in spec if workflow referred WorkflowTemplate reference";
            self.tell("ARG0018", "spec.templates", message);
            return None;
        }
        let name = reference.get("name").and_then(Value::as_str).unwrap_or_default();
        let cluster_scope = is_cluster_scope(reference);
        let Some(template) = self.from.resource(cluster_scope, name) else {
            self.tell("ARG0163", PATH, self.from.missing(cluster_scope, name, None));
            return None;
        };
        let below = template.get("spec").cloned().unwrap_or_else(|| json!({}));
        let mut above = own.as_object().cloned().unwrap_or_default();
        above.shift_remove("workflowTemplateRef");
        above.shift_remove("templates");
        let arguments = merged_arguments(below.get("arguments"), above.shift_remove("arguments").as_ref());
        let mut spec = merge(&below, &Value::Object(above));
        spec["arguments"] = arguments;
        let entrypoint = spec.get("entrypoint").and_then(Value::as_str).unwrap_or_default();
        let templates = spec.get("templates").and_then(Value::as_array);
        let has = |wanted: &str| templates.into_iter().flatten().any(|template| template["name"] == wanted);
        if !entrypoint.is_empty() && !has(entrypoint) {
            let message = format!("template reference {name}.{entrypoint} not found");
            self.tell("ARG0011", PATH, message);
        }
        for template in templates.into_iter().flatten() {
            let own = template["name"].as_str().unwrap_or_default();
            self.stored.insert(format!("{}/{name}/{own}", prefix(cluster_scope)), template.clone());
        }
        Some(spec)
    }

    fn follow(&mut self, manifest: &mut Value) {
        if let Some(hooks) = manifest.pointer_mut("/spec/hooks") {
            self.hooks(hooks, At { scope: None, trail: "spec", path: "spec" });
        }
        let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) else { return };
        let list = spec.entry("templates").or_insert_with(|| json!([]));
        let Some(templates) = list.as_array_mut() else { return };
        for (index, template) in templates.iter_mut().enumerate() {
            let name = template["name"].as_str().unwrap_or_default().to_owned();
            let path = format!("spec.templates[{index}]");
            if name.starts_with(STORED) {
                self.tell("ARG0012", &path, format!("template name {name:?} is not valid"));
                continue;
            }
            let trail = format!("templates.{name}");
            self.rewrite(template, At { scope: None, trail: &trail, path: &path }, 0);
        }
        let mut at = 0;
        while at < self.found.len() {
            if self.found.len() > TEMPLATES_MAX {
                let message = format!("the workflow refers to more than {TEMPLATES_MAX} stored templates");
                self.tell("ARG0002", "spec.templates", message);
                return;
            }
            let mut template = self.found[at].take();
            let name = template["name"].as_str().unwrap_or_default().to_owned();
            let scope = scope_of(&name).map(str::to_owned);
            let trail = format!("templates.{}", own_name(&name));
            // There is no place for it in the manifest.
            let path = format!("spec.templates[{}]", templates.len() + at);
            self.rewrite(&mut template, At { scope: scope.as_deref(), trail: &trail, path: &path }, 0);
            self.found[at] = template;
            at += 1;
        }
        templates.append(&mut self.found);
    }

    /// Makes every step of a template name what it runs.
    fn rewrite(&mut self, template: &mut Value, at: At<'_>, depth: usize) {
        if depth >= DEPTH_MAX {
            self.tell("ARG0002", at.path, "templates are nested too deeply in each other");
            return;
        }
        let groups = template.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten();
        for (number, group) in groups.enumerate() {
            for (index, step) in group.as_array_mut().into_iter().flatten().enumerate() {
                let name = step["name"].as_str().unwrap_or_default().to_owned();
                let trail = format!("{}.steps[{number}].{name}", at.trail);
                let path = format!("{}.steps[{number}][{index}]", at.path);
                self.step(step, At { scope: at.scope, trail: &trail, path: &path }, depth);
            }
        }
        let tasks =
            template.get_mut("dag").and_then(|dag| dag.get_mut("tasks")).and_then(Value::as_array_mut);
        for (index, task) in tasks.into_iter().flatten().enumerate() {
            let name = task["name"].as_str().unwrap_or_default().to_owned();
            let trail = format!("{}.tasks.{name}", at.trail);
            let path = format!("{}.dag.tasks[{index}]", at.path);
            self.step(task, At { scope: at.scope, trail: &trail, path: &path }, depth);
        }
    }

    fn step(&mut self, step: &mut Value, at: At<'_>, depth: usize) {
        if let Some(inline) = step.get_mut("inline") {
            let path = format!("{}.inline", at.path);
            self.rewrite(inline, At { path: &path, ..at }, depth + 1);
        }
        self.name(step, at);
        if let Some(hooks) = step.get_mut("hooks") {
            self.hooks(hooks, at);
        }
        let (Some(scope), Some(fields)) = (at.scope, step.as_object_mut()) else { return };
        if let Some(local) = fields.get("onExit").and_then(Value::as_str).filter(|local| !local.is_empty()) {
            let name = self.local(scope, local, at);
            fields.insert("onExit".to_owned(), name.into());
        }
    }

    fn hooks(&mut self, hooks: &mut Value, at: At<'_>) {
        for (name, hook) in hooks.as_object_mut().into_iter().flatten() {
            let path = format!("{}.hooks.{name}", at.path);
            self.name(hook, At { path: &path, ..at });
        }
    }

    /// Makes a step or hook name what it runs.
    fn name(&mut self, step: &mut Value, at: At<'_>) {
        let Some(fields) = step.as_object_mut() else { return };
        if let Some(reference) = fields.shift_remove("templateRef") {
            let resource = self.text(reference.get("name"));
            let template = self.text(reference.get("template"));
            let path = format!("{}.templateRef", at.path);
            let name = self.fetch(
                prefix(is_cluster_scope(&reference)),
                &resource,
                &template,
                At { path: &path, ..at },
            );
            fields.insert("template".to_owned(), name.into());
        } else if let (Some(scope), Some(local)) = (at.scope, fields.get("template").and_then(Value::as_str))
        {
            let name = self.local(scope, local, at);
            fields.insert("template".to_owned(), name.into());
        }
    }

    fn text(&self, value: Option<&Value>) -> String {
        let text = value.and_then(Value::as_str).unwrap_or_default();
        substitute(text, &self.parameters, &Rules::LENIENT).unwrap_or_else(|_| text.to_owned())
    }

    /// A template of the resource that the step itself is stored in.
    fn local(&mut self, scope: &str, local: &str, at: At<'_>) -> String {
        let (kind, resource) = scope.split_once('/').unwrap_or((scope, ""));
        let local = self.text(Some(&Value::String(local.to_owned())));
        self.fetch(kind, resource, &local, at)
    }

    /// The name of a stored template among the workflow's own; it is added when it is new.
    fn fetch(&mut self, kind: &str, resource: &str, template: &str, at: At<'_>) -> String {
        let name = format!("{STORED}{kind}/{resource}/{template}");
        if self.known.contains(&name) {
            return name;
        }
        let cluster_scope = kind == prefix(true);
        let stored = self.from.resource(cluster_scope, resource);
        let templates = stored.as_ref().and_then(|stored| stored.pointer("/spec/templates")?.as_array());
        let found = templates.into_iter().flatten().find(|found| found["name"] == template).cloned();
        let Some(mut found) = found else {
            let why = match stored {
                Some(_) => format!("template reference {resource}.{template} not found"),
                None => self.from.missing(cluster_scope, resource, Some(template)),
            };
            let code = if stored.is_some() { "ARG0011" } else { "ARG0163" };
            self.tell(code, at.path, format!("{} {why}", at.trail));
            return self.nothing(kind, resource, template);
        };
        self.known.insert(name.clone());
        self.stored.insert(format!("{kind}/{resource}/{template}"), found.clone());
        found["name"] = json!(name);
        self.found.push(found);
        name
    }

    /// Something to stand for a template that is not there, so that the checks go on.
    fn nothing(&mut self, kind: &str, resource: &str, template: &str) -> String {
        let name = format!("{STORED}{MISSING}/{kind}.{resource}/{template}");
        if self.known.insert(name.clone()) {
            self.found.push(json!({"name": name, "suspend": {}}));
        }
        name
    }
}

fn is_cluster_scope(reference: &Value) -> bool {
    reference.get("clusterScope") == Some(&Value::Bool(true))
}

fn prefix(cluster_scope: bool) -> &'static str {
    if cluster_scope { "cluster" } else { "namespaced" }
}

/// By name; the workflow's own parameter replaces the template's as a whole.
fn merged_arguments(below: Option<&Value>, above: Option<&Value>) -> Value {
    let list = |arguments: Option<&Value>, kind: &str| {
        arguments.and_then(|arguments| arguments.get(kind)?.as_array().cloned()).unwrap_or_default()
    };
    let mut merged = Map::new();
    for kind in ["parameters", "artifacts"] {
        let mut all = list(above, kind);
        for value in list(below, kind) {
            if !all.iter().any(|own| own["name"] == value["name"]) {
                all.push(value);
            }
        }
        if !all.is_empty() {
            merged.insert(kind.to_owned(), Value::Array(all));
        }
    }
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "\u{2}cluster/lib/build";

    #[test]
    fn names_tell_where_a_template_is_from() {
        assert_eq!((own_name(NAME), scope_of(NAME)), ("build", Some("cluster/lib")));
        let expected = json!({"name": "lib", "template": "build", "clusterScope": true});
        assert_eq!(reference_json(NAME), Some(expected));
        assert_eq!((is_stored("main"), scope_of("main")), (false, None));
        // One that is inline in it.
        assert_eq!(scope_of("\u{1}\u{2}namespaced/lib/build/step"), Some("namespaced/lib"));
    }

    #[test]
    fn messages_name_templates_as_people_do() {
        assert_eq!(plain(&format!("templates.{NAME}.steps failed")), "templates.build.steps failed");
        assert_eq!(plain("nothing of that"), "nothing of that");
    }

    #[test]
    fn a_parameter_of_the_workflow_replaces_that_of_the_template_as_a_whole() {
        let below =
            json!({"parameters": [{"name": "p", "value": "1", "enum": ["1"]}, {"name": "q", "value": "2"}]});
        let above = json!({"parameters": [{"name": "p", "value": "3"}]});
        let expected = json!({"parameters": [{"name": "p", "value": "3"}, {"name": "q", "value": "2"}]});
        assert_eq!(merged_arguments(Some(&below), Some(&above)), expected);
    }
}
