//! References to stored templates, followed once, when a workflow is accepted: what becomes of the templates later
//! changes nothing for it.
//!
//! A template that comes by `templateRef` stands among the workflow's own under a name that tells where it is from; the
//! steps that refer to it, and those inside it, are rewritten to such names. So the rest of the engine knows of no
//! references. Argo's view of the tree (`templateRef`, `templateScope`) follows from the names.

use argosy_expr::{Rules, substitute};
use argosy_proto::command::Refusal;
use argosy_proto::state as row;
use argosy_spec::Manifest;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::commands::template::Kind;
use crate::effective::merge;
use crate::state::State;
use crate::{Code, place};

/// Names of templates from elsewhere begin with it; no template that was written can.
const STORED: &str = "\u{2}";
/// Templates that one workflow may draw from elsewhere.
const TEMPLATES_MAX: usize = 10_000;
/// Nesting of inline templates.
const DEPTH_MAX: usize = 100;

/// The outcome of following all references.
pub(crate) struct Resolved {
    /// The manifest without references.
    pub manifest: Value,
    /// Argo's `storedTemplates` and `storedWorkflowTemplateSpec`.
    pub stored: Value,
}

/// A message with the names that people know.
pub(crate) fn plain(message: &str) -> String {
    let mut pieces = message.split(STORED);
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain.push_str(piece.splitn(3, '/').last().unwrap_or(piece));
    }
    plain
}

/// True for the name of a template from elsewhere.
pub(crate) fn is_stored(template: &str) -> bool {
    template.starts_with(STORED)
}

/// The name that the template has where it is stored.
pub(crate) fn own_name(template: &str) -> &str {
    template.rsplit('/').next().unwrap_or(template)
}

/// `namespaced/RESOURCE` or `cluster/RESOURCE` of a template from elsewhere (or of one inline in it).
pub(crate) fn scope_of(template: &str) -> Option<&str> {
    let at = template.find(STORED)? + STORED.len();
    let rest = template.get(at..)?;
    let (kind, more) = rest.split_once('/')?;
    let resource = more.split('/').next()?;
    rest.get(..kind.len() + 1 + resource.len())
}

/// Argo's `templateRef` of a template from elsewhere.
pub(crate) fn reference_json(template: &str) -> Option<Value> {
    let (kind, resource) = scope_of(template)?.split_once('/')?;
    let mut shown = json!({"name": resource, "template": own_name(template)});
    if kind == "cluster" {
        shown["clusterScope"] = json!(true);
    }
    Some(shown)
}

/// Where templates written in the workflow itself are: nowhere, when it is made of a stored one.
pub(crate) fn local_scope(state: &State, workflow: u64, row: &row::Workflow) -> String {
    let kept = state.manifests.get(&workflow);
    let of_template = kept.is_some_and(|kept| kept.stored_json.contains("\"storedWorkflowTemplateSpec\""));
    if of_template { "local/".to_owned() } else { format!("local/{}", row.name) }
}

/// Follows the references of a manifest; `None` when it has none.
pub(crate) fn resolve(state: &State, namespace: &str, manifest: &Value) -> Result<Option<Resolved>, Refusal> {
    let by_workflow = manifest.pointer("/spec/workflowTemplateRef").filter(|found| !found.is_null());
    let templates = manifest.pointer("/spec/templates").and_then(Value::as_array);
    let has_references = templates.into_iter().flatten().any(|template| refers(template, 0));
    if by_workflow.is_none() && !has_references {
        return Ok(None);
    }
    let mut resolver = Resolver {
        state,
        namespace,
        parameters: BTreeMap::new(),
        known: BTreeSet::new(),
        found: Vec::new(),
        stored: BTreeMap::new(),
    };
    let mut manifest = manifest.clone();
    let mut stored = Map::new();
    if let Some(reference) = by_workflow {
        let spec = resolver.merged(reference, manifest.get("spec").unwrap_or(&Value::Null))?;
        let mut shown = spec.clone();
        shown["workflowTemplateRef"] = reference.clone();
        stored.insert("storedWorkflowTemplateSpec".to_owned(), shown);
        manifest["spec"] = spec;
    }
    resolver.parameters = parameters(&manifest);
    resolver.follow(&mut manifest)?;
    let templates = resolver.stored.into_iter().collect();
    stored.insert("storedTemplates".to_owned(), Value::Object(templates));
    Ok(Some(Resolved { manifest, stored: Value::Object(stored) }))
}

/// Checks what a manifest with references comes to; one without was checked by [`argosy_spec`] alone.
///
/// # Errors
/// As for a submission: a template that is missing, or what is wrong with the whole.
pub fn check_references(state: &State, namespace: &str, manifest: &Value) -> Result<(), Refusal> {
    let Some(resolved) = resolve(state, namespace, manifest)? else { return Ok(()) };
    let invalid = |message: String| Code::InvalidManifest.refuse(plain(&message));
    let manifest = Manifest::from_value(resolved.manifest).map_err(|problems| {
        invalid(problems.iter().map(argosy_spec::Diagnostic::line).collect::<Vec<_>>().join("\n"))
    })?;
    place::validate(&manifest).map_err(invalid)
}

/// Some step in the template refers to a stored one.
fn refers(template: &Value, depth: usize) -> bool {
    depth < DEPTH_MAX
        && steps(template).any(|step| {
            step.get("templateRef").is_some()
                || step.get("inline").is_some_and(|inline| refers(inline, depth + 1))
        })
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
    state: &'a State,
    namespace: &'a str,
    /// Values for tags in references.
    parameters: BTreeMap<String, String>,
    /// Names of templates that were fetched.
    known: BTreeSet<String>,
    found: Vec<Value>,
    stored: BTreeMap<String, Value>,
}

impl Resolver<'_> {
    fn resource(&self, kind: Kind, name: &str) -> Option<Value> {
        let key = match kind {
            Kind::Cluster => (true, String::new(), name.to_owned()),
            Kind::Namespaced => (false, self.namespace.to_owned(), name.to_owned()),
        };
        serde_json::from_str(&self.state.templates.get(&key)?.json).ok()
    }

    /// The workflow's spec over that of its WorkflowTemplate.
    fn merged(&mut self, reference: &Value, own: &Value) -> Result<Value, Refusal> {
        let invalid = |message: &str| Code::InvalidManifest.refuse(message);
        let has_templates =
            own.get("templates").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if has_templates {
            return Err(invalid(
                "Templates is invalid field in spec if workflow referred WorkflowTemplate reference",
            ));
        }
        let name = reference.get("name").and_then(Value::as_str).unwrap_or_default();
        let kind = Kind::of(reference.get("clusterScope") == Some(&Value::Bool(true)));
        let template = self
            .resource(kind, name)
            .ok_or_else(|| Code::TemplateMissing.refuse(format!("{} {name:?} not found", kind.resource())))?;
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
            return Err(invalid(&format!("template reference {name}.{entrypoint} not found")));
        }
        for template in templates.into_iter().flatten() {
            let own = template["name"].as_str().unwrap_or_default();
            self.stored.insert(format!("{}/{name}/{own}", prefix(kind)), template.clone());
        }
        Ok(spec)
    }

    fn follow(&mut self, manifest: &mut Value) -> Result<(), Refusal> {
        let Some(templates) = manifest.pointer_mut("/spec/templates").and_then(Value::as_array_mut) else {
            return Ok(());
        };
        for template in templates.iter_mut() {
            let name = template["name"].as_str().unwrap_or_default().to_owned();
            if name.starts_with(STORED) {
                return Err(Code::InvalidManifest.refuse(format!("template name {name:?} is not valid")));
            }
            self.rewrite(template, None, &format!("templates.{name}"), 0)?;
        }
        let mut at = 0;
        while at < self.found.len() {
            if self.found.len() > TEMPLATES_MAX {
                return Err(Code::InvalidManifest
                    .refuse(format!("the workflow refers to more than {TEMPLATES_MAX} stored templates")));
            }
            let mut template = self.found[at].take();
            let name = template["name"].as_str().unwrap_or_default().to_owned();
            let scope = scope_of(&name).map(str::to_owned);
            self.rewrite(&mut template, scope.as_deref(), &format!("templates.{}", own_name(&name)), 0)?;
            self.found[at] = template;
            at += 1;
        }
        templates.append(&mut self.found);
        Ok(())
    }

    /// Makes every step of a template name what it runs; `scope` is where the template is stored.
    fn rewrite(
        &mut self,
        template: &mut Value,
        scope: Option<&str>,
        trail: &str,
        depth: usize,
    ) -> Result<(), Refusal> {
        if depth >= DEPTH_MAX {
            return Err(Code::InvalidManifest.refuse("templates are nested too deeply in each other"));
        }
        let groups = template.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten();
        for (number, group) in groups.enumerate() {
            for step in group.as_array_mut().into_iter().flatten() {
                let name = step["name"].as_str().unwrap_or_default().to_owned();
                self.step(step, scope, &format!("{trail}.steps[{number}].{name}"), depth)?;
            }
        }
        let tasks =
            template.get_mut("dag").and_then(|dag| dag.get_mut("tasks")).and_then(Value::as_array_mut);
        for task in tasks.into_iter().flatten() {
            let name = task["name"].as_str().unwrap_or_default().to_owned();
            self.step(task, scope, &format!("{trail}.tasks.{name}"), depth)?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        step: &mut Value,
        scope: Option<&str>,
        trail: &str,
        depth: usize,
    ) -> Result<(), Refusal> {
        if let Some(inline) = step.get_mut("inline") {
            self.rewrite(inline, scope, trail, depth + 1)?;
        }
        let Some(fields) = step.as_object_mut() else { return Ok(()) };
        if let Some(reference) = fields.shift_remove("templateRef") {
            let kind = Kind::of(reference.get("clusterScope") == Some(&Value::Bool(true)));
            let resource = self.text(reference.get("name"));
            let template = self.text(reference.get("template"));
            let name = self.fetch(prefix(kind), &resource, &template, trail)?;
            fields.insert("template".to_owned(), name.into());
        } else if let (Some(scope), Some(local)) = (scope, fields.get("template").and_then(Value::as_str)) {
            let name = self.local(scope, local, trail)?;
            fields.insert("template".to_owned(), name.into());
        }
        let Some(scope) = scope else { return Ok(()) };
        if let Some(local) = fields.get("onExit").and_then(Value::as_str).filter(|local| !local.is_empty()) {
            let name = self.local(scope, local, trail)?;
            fields.insert("onExit".to_owned(), name.into());
        }
        let hooks = fields.get_mut("hooks").and_then(Value::as_object_mut).into_iter().flatten();
        for (_, hook) in hooks {
            if let Some(local) = hook.get("template").and_then(Value::as_str) {
                let name = self.local(scope, local, trail)?;
                hook["template"] = name.into();
            }
        }
        Ok(())
    }

    fn text(&self, value: Option<&Value>) -> String {
        let text = value.and_then(Value::as_str).unwrap_or_default();
        substitute(text, &self.parameters, &Rules::LENIENT).unwrap_or_else(|_| text.to_owned())
    }

    /// A template of the resource that the step itself is stored in.
    fn local(&mut self, scope: &str, local: &str, trail: &str) -> Result<String, Refusal> {
        let (kind, resource) = scope.split_once('/').unwrap_or((scope, ""));
        let (kind, resource) = (kind.to_owned(), resource.to_owned());
        let local = self.text(Some(&Value::String(local.to_owned())));
        self.fetch(&kind, &resource, &local, trail)
    }

    /// The name of a stored template among the workflow's own; it is added when it is new.
    fn fetch(&mut self, kind: &str, resource: &str, template: &str, trail: &str) -> Result<String, Refusal> {
        let name = format!("{STORED}{kind}/{resource}/{template}");
        if !self.known.insert(name.clone()) {
            return Ok(name);
        }
        let missing = || {
            Code::InvalidManifest
                .refuse(format!("{trail} template reference {resource}.{template} not found"))
        };
        let stored = self.resource(Kind::of(kind == "cluster"), resource).ok_or_else(missing)?;
        let templates = stored.pointer("/spec/templates").and_then(Value::as_array).into_iter().flatten();
        let mut found =
            templates.into_iter().find(|found| found["name"] == template).cloned().ok_or_else(missing)?;
        self.stored.insert(format!("{kind}/{resource}/{template}"), found.clone());
        found["name"] = json!(name);
        self.found.push(found);
        Ok(name)
    }
}

fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespaced => "namespaced",
        Kind::Cluster => "cluster",
    }
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
