//! The manifest as it runs: template defaults filled in, inline templates with names of their own.

use std::borrow::Cow;

use serde_json::Value;

use crate::merge;
use crate::references::{is_stored, own_name};

/// Names of inline templates begin with it; no template that was written can.
const INLINE: &str = "\u{1}";
/// The fields that say what a template does; one of them is set.
const KINDS: [&str; 10] =
    ["container", "containerSet", "script", "steps", "dag", "suspend", "http", "resource", "data", "plugin"];

/// A template's name as Argo shows it: an inline one has none.
pub fn shown_name(template: &str) -> &str {
    if is_inline(template) {
        ""
    } else if is_stored(template) {
        own_name(template)
    } else {
        template
    }
}

/// True for the name of an inline template.
pub fn is_inline(template: &str) -> bool {
    template.starts_with(INLINE)
}

/// The manifest with every template at the top, each with a name and with its defaults.
pub fn effective(manifest: &Value) -> Cow<'_, Value> {
    let spec = manifest.get("spec");
    let has_defaults = spec.is_some_and(|spec| spec.get("templateDefaults").is_some());
    let templates = spec.and_then(|spec| spec.get("templates")).and_then(Value::as_array);
    let has_inline = templates.into_iter().flatten().any(|template| steps_of(template).any(has_inline));
    if !has_defaults && !has_inline {
        return Cow::Borrowed(manifest);
    }
    let mut manifest = manifest.clone();
    let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) else {
        return Cow::Owned(manifest);
    };
    let defaults = spec.shift_remove("templateDefaults");
    if let Some(templates) = spec.get_mut("templates").and_then(Value::as_array_mut) {
        let mut at = 0;
        // Templates found inline are put at the end and looked at in their turn.
        while at < templates.len() {
            if let Some(defaults) = &defaults {
                with_defaults(&mut templates[at], defaults);
            }
            let found = hoist(&mut templates[at]);
            templates.extend(found);
            at += 1;
        }
    }
    Cow::Owned(manifest)
}

fn has_inline(step: &Value) -> bool {
    step.get("inline").is_some()
}

fn steps_of(template: &Value) -> impl Iterator<Item = &Value> {
    let groups = template.get("steps").and_then(Value::as_array).into_iter().flatten();
    let tasks = template.pointer("/dag/tasks").and_then(Value::as_array).into_iter().flatten();
    groups.filter_map(Value::as_array).flatten().chain(tasks)
}

/// Takes the inline templates out of a template's steps or tasks; the steps name them.
fn hoist(template: &mut Value) -> Vec<Value> {
    let owner = template.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut found = Vec::new();
    let mut take = |step: &mut Value| {
        let Some(fields) = step.as_object_mut() else { return };
        let Some(mut inline) = fields.shift_remove("inline") else { return };
        let step = fields.get("name").and_then(Value::as_str).unwrap_or_default();
        let name = format!("{INLINE}{}/{step}", owner.trim_start_matches(INLINE));
        fields.insert("template".to_owned(), name.clone().into());
        if let Some(inline) = inline.as_object_mut() {
            inline.insert("name".to_owned(), name.into());
        }
        found.push(inline);
    };
    let groups = template.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten();
    groups.filter_map(Value::as_array_mut).flatten().for_each(&mut take);
    let tasks = template.get_mut("dag").and_then(|dag| dag.get_mut("tasks")).and_then(Value::as_array_mut);
    tasks.into_iter().flatten().for_each(&mut take);
    found
}

/// Argo's merge: the template's own values win, lists of named things merge by name, the kind stays its own.
fn with_defaults(template: &mut Value, defaults: &Value) {
    let kind = KINDS.into_iter().find(|kind| template.get(*kind).is_some());
    let own = template.take();
    let mut merged = merge(defaults, &own);
    if let Some(fields) = merged.as_object_mut() {
        fields.retain(|key, _| Some(key.as_str()) == kind || !KINDS.contains(&key.as_str()));
        match own.get("name") {
            Some(name) => drop(fields.insert("name".to_owned(), name.clone())),
            None => drop(fields.shift_remove("name")),
        }
    }
    *template = merged;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inline_templates_get_names_and_steps_name_them() {
        let manifest = json!({"spec": {"templates": [{"name": "main", "dag": {"tasks": [
            {"name": "a", "inline": {"dag": {"tasks": [{"name": "b", "inline": {"suspend": {}}}]}}},
        ]}}]}});
        let shown = effective(&manifest);
        let names: Vec<_> =
            shown["spec"]["templates"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["main", "\u{1}main/a", "\u{1}main/a/b"]);
        assert_eq!(shown["spec"]["templates"][0]["dag"]["tasks"][0]["template"], "\u{1}main/a");
        assert_eq!(shown_name("\u{1}main/a"), "");
    }

    #[test]
    fn own_values_win_over_defaults_and_env_merges_by_name() {
        let manifest = json!({"spec": {
        "templateDefaults": {"retryStrategy": {"limit": 1},
            "container": {"image": "x", "env": [{"name": "A", "value": "a"}, {"name": "B", "value": "b"}]}},
        "templates": [
            {"name": "own", "container": {"image": "y", "env": [{"name": "B", "value": "c"}]}},
            {"name": "nap", "suspend": {}},
        ]}});
        let shown = effective(&manifest);
        let templates = shown["spec"]["templates"].as_array().unwrap();
        assert_eq!(templates[0]["container"]["image"], "y");
        assert_eq!(
            templates[0]["container"]["env"],
            json!([{"name": "A", "value": "a"}, {"name": "B", "value": "c"}])
        );
        assert!(templates[1].get("container").is_none());
        assert_eq!(templates[1]["retryStrategy"]["limit"], 1);
    }
}
