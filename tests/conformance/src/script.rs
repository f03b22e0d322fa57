//! Operators' scripts: steps that wait for a condition and then do something.

use serde_json::{Map, Value};

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is waited for; null: nothing.
    pub after: Value,
    /// What is done.
    pub verb: String,
    /// The step as written.
    pub fields: Value,
}

impl Step {
    /// Under which name the record holds what came of it.
    #[must_use]
    pub fn record_name(&self) -> Option<&str> {
        self.fields["as"].as_str()
    }

    /// The workflow it acts on, if that is not the main one.
    #[must_use]
    pub fn workflow(&self) -> Option<&str> {
        self.fields["workflow"].as_str()
    }

    /// The arguments of a verb of the CLI.
    #[must_use]
    pub fn arguments(&self) -> Arguments {
        let words = self.fields["args"].as_array().into_iter().flatten();
        Arguments(words.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// The script ends here: the workflow need not finish.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.fields["final"] == true
    }

    /// A step of something that goes on after the workflow ended.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.verb == "snapshot"
    }
}

/// Reads a script.
///
/// # Errors
/// It is no list of steps.
pub fn read(text: &str) -> Result<Vec<Step>, String> {
    let steps: Vec<Value> = serde_json::from_str(text).map_err(|error| format!("the script: {error}"))?;
    let step = |fields: Value| Step {
        after: fields["after"].clone(),
        verb: fields["do"].as_str().unwrap_or("wait").to_owned(),
        fields,
    };
    Ok(steps.into_iter().map(step).collect())
}

/// What a condition needs to see.
pub trait Sight {
    /// The workflow of that name.
    fn workflow(&self, name: &str) -> Option<Value>;
    /// Names of other workflows that begin so, those that were made first coming first.
    fn named(&self, prefix: &str) -> Vec<String>;
    /// An object `Kind/name` as it is now.
    fn object(&self, object: &str) -> Option<Value>;
}

/// Whether a condition of the script holds (`seconds` is the caller's business).
#[must_use]
pub fn holds(condition: &Value, main: &str, sight: &impl Sight) -> bool {
    if condition.is_null() {
        return true;
    }
    if let Some(name) = condition["missing"].as_str() {
        return sight.workflow(name).is_none();
    }
    if let Some(object) = condition["object"].as_str() {
        return object_is(condition, sight.object(object).as_ref());
    }
    let names = match (condition["workflow"].as_str(), condition["prefix"].as_str()) {
        (Some(name), _) => vec![name.to_owned()],
        (None, Some(prefix)) => sight.named(prefix),
        (None, None) => vec![main.to_owned()],
    };
    names.iter().filter_map(|name| sight.workflow(name)).any(|workflow| workflow_is(condition, &workflow))
}

fn object_is(condition: &Value, object: Option<&Value>) -> bool {
    let Some(object) = object else { return condition["gone"] == true };
    if condition["gone"] == true {
        return false;
    }
    let Some(path) = condition["field"].as_str() else { return true };
    let found = field(object, path);
    match condition.get("equals") {
        Some(wanted) => found == wanted,
        None => !found.is_null(),
    }
}

/// A field by its dotted path.
#[must_use]
pub fn field<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |object, key| &object[key])
}

fn workflow_is(condition: &Value, workflow: &Value) -> bool {
    let status = &workflow["status"];
    let is = |asked: &Value, found: &Value| {
        asked.is_null() || asked == found || asked.as_array().is_some_and(|any| any.contains(found))
    };
    if let Some(part) = condition["wfMessage"].as_str()
        && !status["message"].as_str().unwrap_or_default().contains(part)
    {
        return false;
    }
    let Some(node) = condition["node"].as_str() else {
        return if condition["phase"] == "done" {
            workflow["metadata"]["labels"]["workflows.argoproj.io/completed"] == "true"
        } else {
            is(&condition["phase"], &status["phase"])
        };
    };
    let says = condition["messageContains"].as_str().unwrap_or_default();
    status["nodes"].as_object().into_iter().flatten().any(|(_, found)| {
        (found["name"] == node || found["displayName"] == node)
            && is(&condition["phase"], &found["phase"])
            && found["message"].as_str().unwrap_or_default().contains(says)
            && (condition["waiting"] != true || !found["synchronizationStatus"].is_null())
    })
}

/// Arguments of a verb, as Argo's CLI takes them.
pub struct Arguments(pub Vec<String>);

impl Arguments {
    /// All values of a flag, `--flag value` and `--flag=value`.
    #[must_use]
    pub fn values(&self, flags: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        let mut words = self.0.iter();
        while let Some(word) = words.next() {
            if flags.contains(&word.as_str()) {
                found.extend(words.next().cloned());
            } else if let Some((flag, value)) = word.split_once('=')
                && flags.contains(&flag)
                && flag.starts_with('-')
            {
                found.push(value.to_owned());
            }
        }
        found
    }

    /// The last value of a flag.
    #[must_use]
    pub fn value(&self, flag: &str) -> String {
        self.values(&[flag]).pop().unwrap_or_default()
    }

    /// A flag without a value is there.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|word| word == flag)
    }
}

/// Fields of an object, as `get` records them; null for an object that is not there.
#[must_use]
pub fn shown_fields(object: Option<&Value>, fields: &Value) -> Value {
    let Some(object) = object else { return Value::Null };
    let paths = fields.as_array().into_iter().flatten().filter_map(Value::as_str);
    paths.map(|path| (path.to_owned(), field(object, path).clone())).collect::<Map<_, _>>().into()
}

/// Whether an object has all labels of a selector `a=b,c=d`.
#[must_use]
pub fn has_labels(workflow: &Value, labels: &str) -> bool {
    labels
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .all(|(label, value)| workflow["metadata"]["labels"][label] == value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Shown(Value);

    impl Sight for Shown {
        fn workflow(&self, name: &str) -> Option<Value> {
            (name == "w" || name == "w-x").then(|| self.0.clone())
        }
        fn named(&self, prefix: &str) -> Vec<String> {
            if "w-x".starts_with(prefix) { vec!["w-x".to_owned()] } else { Vec::new() }
        }
        fn object(&self, _: &str) -> Option<Value> {
            Some(json!({"status": {"failed": 1}}))
        }
    }

    #[test]
    fn conditions_look_at_workflows_nodes_and_objects() {
        let shown = Shown(json!({
            "metadata": {"labels": {"workflows.argoproj.io/completed": "true"}},
            "status": {"phase": "Failed", "message": "Waiting for it", "nodes": {
                "1": {"name": "w[0].a", "displayName": "a", "phase": "Pending", "message": "Unschedulable: x"}}},
        }));
        for (condition, expected) in [
            (json!(null), true),
            (json!({"phase": "done"}), true),
            (json!({"phase": ["Running", "Failed"]}), true),
            (json!({"phase": "Running"}), false),
            (json!({"node": "a", "phase": "Pending", "messageContains": "Unsched"}), true),
            (json!({"node": "w[0].a"}), true),
            (json!({"node": "a", "waiting": true}), false),
            (json!({"workflow": "w-x", "wfMessage": "Waiting for"}), true),
            (json!({"workflow": "other", "phase": "Failed"}), false),
            (json!({"prefix": "w-", "phase": "done"}), true),
            (json!({"missing": "w"}), false),
            (json!({"missing": "other"}), true),
            (json!({"object": "CronWorkflow/w", "field": "status.failed", "equals": 1}), true),
            (json!({"object": "CronWorkflow/w", "field": "status.active"}), false),
        ] {
            assert_eq!(holds(&condition, "w", &shown), expected, "{condition}");
        }
    }

    #[test]
    fn arguments_have_two_forms() {
        let arguments = Arguments(["-p", "a=1", "--parameter=b=2", "--memoized"].map(str::to_owned).to_vec());
        assert_eq!(arguments.values(&["-p", "--parameter"]), ["a=1", "b=2"]);
        assert!(arguments.has("--memoized"));
    }
}
