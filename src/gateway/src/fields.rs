//! `fields=`: which parts of an answer are wanted (Argo reference 5).

use serde_json::{Map, Value, json};

/// A parsed `fields` parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    exclude: bool,
    paths: Vec<String>,
}

impl Fields {
    /// Paths longer or more numerous than this are cut: no client of Argo's comes near.
    const PATHS_MAX: usize = 200;

    /// `a.b,c` keeps these; a leading `-` drops them instead. As in Argo the sign counts once, before the first path: in
    /// `-a,-b` the second path is a field named `-b`.
    pub fn parse(text: &str) -> Self {
        let (exclude, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let paths = rest
            .split(',')
            .filter(|path| !path.is_empty())
            .take(Self::PATHS_MAX)
            .map(str::to_owned)
            .collect();
        Self { exclude, paths }
    }

    /// The paths below a prefix such as `result.object`.
    pub fn below(&self, prefix: &str) -> Self {
        let paths = self.paths.iter().map(|path| {
            match path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
                Some(rest) => rest.to_owned(),
                None => path.clone(),
            }
        });
        Self { exclude: self.exclude, paths: paths.collect() }
    }

    fn keeps(&self, path: &str) -> bool {
        let under = |path: &str, root: &str| {
            path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if self.exclude {
            !self.paths.iter().any(|field| under(path, field))
        } else {
            self.paths.iter().any(|field| under(path, field) || under(field, path))
        }
    }

    fn clean(&self, path: &str, value: &mut Value) {
        match value {
            Value::Object(map) => {
                let mut kept = Map::new();
                for (key, mut inner) in std::mem::take(map) {
                    let inner_path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    if self.keeps(&inner_path) {
                        self.clean(&inner_path, &mut inner);
                        kept.insert(key, inner);
                    }
                }
                *map = kept;
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean(path, item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Applies to a workflow; what Argo always writes stays, empty.
    pub fn workflow(&self, mut workflow: Value) -> Value {
        if !self.paths.is_empty() {
            self.clean("", &mut workflow);
            restore_zero_fields(&mut workflow);
        }
        workflow
    }

    /// Applies to a list of workflows.
    pub fn list(&self, mut list: Value) -> Value {
        if !self.paths.is_empty() {
            self.clean("", &mut list);
            default(&mut list, "metadata", json!({}));
            default(&mut list, "items", Value::Null);
            if let Some(items) = list.get_mut("items").and_then(Value::as_array_mut) {
                items.iter_mut().for_each(restore_zero_fields);
            }
        }
        list
    }
}

fn default(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.entry(key).or_insert(value);
    }
}

/// Argo's types write these even when they are empty.
pub(crate) fn restore_zero_fields(workflow: &mut Value) {
    default(workflow, "metadata", json!({}));
    default(workflow, "spec", json!({}));
    default(workflow, "status", json!({}));
    default(&mut workflow["spec"], "arguments", json!({}));
    default(&mut workflow["status"], "startedAt", Value::Null);
    default(&mut workflow["status"], "finishedAt", Value::Null);
    let nodes = workflow["status"].get_mut("nodes").and_then(Value::as_object_mut);
    for node in nodes.into_iter().flat_map(|nodes| nodes.values_mut()) {
        for key in ["id", "name", "displayName", "type"] {
            default(node, key, json!(""));
        }
        default(node, "startedAt", Value::Null);
        default(node, "finishedAt", Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow() -> Value {
        json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"entrypoint": "main", "arguments": {}},
               "status": {"phase": "Running", "startedAt": "t", "finishedAt": null, "nodes": {"a": {"id": "a", "phase": "Running"}}}})
    }

    #[test]
    fn chosen_fields_stay_and_argos_zero_fields_too() {
        assert_eq!(
            Fields::parse("metadata.name,status.phase").workflow(workflow()),
            json!({"metadata": {"name": "a"}, "spec": {"arguments": {}},
                   "status": {"phase": "Running", "startedAt": null, "finishedAt": null}})
        );
    }

    #[test]
    fn only_the_first_sign_excludes() {
        let cleaned = Fields::parse("-status.nodes,-spec,-metadata").workflow(workflow());
        assert_eq!(cleaned["metadata"]["uid"], "u");
        assert_eq!(cleaned["spec"]["entrypoint"], "main");
        assert_eq!(cleaned["status"].get("nodes"), None);
    }

    #[test]
    fn a_list_keeps_its_shape() {
        let list = json!({"metadata": {"resourceVersion": "1"}, "items": [workflow()]});
        let cleaned = Fields::parse("items.metadata.name").list(list.clone());
        assert_eq!(cleaned["metadata"], json!({}));
        assert_eq!(cleaned["items"][0]["metadata"], json!({"name": "a"}));
        assert_eq!(Fields::parse("metadata").list(list)["items"], Value::Null);
    }

    #[test]
    fn no_fields_change_nothing() {
        assert_eq!(Fields::parse("").workflow(workflow()), workflow());
    }

    #[test]
    fn paths_below_a_prefix() {
        let fields = Fields::parse("result.object.metadata.name").below("result.object");
        assert_eq!(fields.workflow(workflow())["metadata"], json!({"name": "a"}));
    }
}
