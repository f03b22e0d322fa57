//! From an Argo template to a command line and an environment.

use argosy_executor::protocol::Task;
use argosy_proto::common::Assignment;
use serde_json::Value;
use std::collections::BTreeMap;

/// A step as a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub working_directory: Option<String>,
    pub task: Task,
}

/// Template fields that need something a process does not have, and what that is.
const TEMPLATE_REFUSED: [(&str, &str); 7] = [
    ("containerSet", "container sets"),
    ("resource", "a Kubernetes API server"),
    ("plugin", "executor plugins"),
    ("sidecars", "sidecars"),
    ("initContainers", "init containers"),
    ("volumes", "volumes"),
    ("podSpecPatch", "Pod patches"),
];
const WORKFLOW_REFUSED: [(&str, &str); 1] = [("podSpecPatch", "Pod patches")];
const CONTAINER_REFUSED: [(&str, &str); 4] = [
    ("envFrom", "ConfigMaps and Secrets"),
    ("volumeMounts", "volumes"),
    ("volumeDevices", "volumes"),
    ("lifecycle", "container lifecycle hooks"),
];

fn is_set(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::Bool(true) | Value::Number(_) | Value::String(_)) => true,
    }
}

/// The step of an assignment; the error is a node's message.
pub fn step(assignment: &Assignment) -> Result<Step, String> {
    let template: Value = serde_json::from_str(&assignment.template_json)
        .map_err(|error| format!("the assignment's template is not JSON: {error}"))?;
    let lacking =
        |what: &str| format!("the process runtime has no {what}; run this step on a Kubernetes cluster");
    refuse_fields(&template, &TEMPLATE_REFUSED).map_err(|what| lacking(&what))?;
    let object = |field: &str| template.get(field).filter(|value| value.is_object());
    if let Some(http) = object("http") {
        return request(assignment, http);
    }
    if object("data").is_some() {
        return own_work(assignment);
    }
    let container = template.get("script").or_else(|| template.get("container"));
    let workflow: Value = serde_json::from_str(&assignment.workflow_pod_json).unwrap_or_default();
    refuse_fields(&workflow, &WORKFLOW_REFUSED).map_err(|what| lacking(&what))?;
    let Some(container) = container.filter(|container| container.is_object()) else {
        return Err("the template has neither container nor script".to_owned());
    };
    refuse_fields(container, &CONTAINER_REFUSED).map_err(|what| lacking(&what))?;
    let mut task = Task::from_template(&assignment.template_json).map_err(|error| error.to_string())?;
    if assignment.stop_grace_ms > 0 {
        task.stop_grace_ms = assignment.stop_grace_ms.unsigned_abs();
    }
    task.exclusive_lease_ms = assignment.exclusive.then(|| assignment.exclusive_lease_ms.unsigned_abs());
    task.active_deadline_ms = active_deadline_ms(&template);
    let environment = environment(assignment, container)?;
    let known: BTreeMap<&str, &str> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut arguments = texts(container, "command")?;
    if arguments.is_empty() {
        return Err(
            "the container has no command: the process runtime does not read images, so command must be set"
                .to_owned(),
        );
    }
    arguments.extend(texts(container, "args")?);
    let arguments = arguments.iter().map(|word| expand(word, &known)).collect();
    // Argo hands the script over in an environment variable, where Kubernetes expands it.
    task.script = task.script.map(|source| expand(&source, &known));
    let working_directory = container.get("workingDir").and_then(Value::as_str).map(str::to_owned);
    Ok(Step { arguments, working_directory, task, environment })
}

/// A request: the executor sends it, in the host's network.
fn request(assignment: &Assignment, http: &Value) -> Result<Step, String> {
    let mut headers = http.get("headers").and_then(Value::as_array).into_iter().flatten();
    if let Some(header) = headers.find(|header| is_set(header.get("valueFrom"))) {
        let name = header.get("name").and_then(Value::as_str).unwrap_or_default();
        return Err(format!(
            "the process runtime has no Secrets (header {name} has valueFrom); give it a value"
        ));
    }
    own_work(assignment)
}

/// A step that the executor does itself.
fn own_work(assignment: &Assignment) -> Result<Step, String> {
    let mut task = Task::from_template(&assignment.template_json).map_err(|error| error.to_string())?;
    if assignment.stop_grace_ms > 0 {
        task.stop_grace_ms = assignment.stop_grace_ms.unsigned_abs();
    }
    let environment = environment(assignment, &Value::Null)?;
    Ok(Step { arguments: vec!["task".to_owned()], working_directory: None, task, environment })
}

/// The limit that a kubelet would enforce; 0 for none.
fn active_deadline_ms(template: &Value) -> u64 {
    let limit = template.get("activeDeadlineSeconds");
    let seconds = limit.and_then(|limit| limit.as_u64().or_else(|| limit.as_str()?.parse().ok()));
    seconds.unwrap_or(0).saturating_mul(1000)
}

fn refuse_fields(object: &Value, refused: &[(&str, &str)]) -> Result<(), String> {
    match refused.iter().find(|(field, _)| is_set(object.get(field))) {
        Some((field, what)) => Err(format!("{what} (field {field})")),
        None => Ok(()),
    }
}

fn texts(container: &Value, field: &str) -> Result<Vec<String>, String> {
    let words = container.get(field).and_then(Value::as_array).into_iter().flatten();
    words
        .map(|word| {
            word.as_str().map(str::to_owned).ok_or_else(|| format!("{field} holds something that is no text"))
        })
        .collect()
}

fn environment(assignment: &Assignment, container: &Value) -> Result<Vec<(String, String)>, String> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut variables: Vec<(String, String)> = [
        ("PATH", path),
        ("HOME", "/tmp"),
        ("ARGO_CONTAINER_NAME", "main"),
        ("ARGO_NODE_ID", &assignment.node_id),
        ("ARGO_POD_NAME", &assignment.pod_name),
        ("ARGO_WORKFLOW_NAME", &assignment.workflow),
        ("ARGO_WORKFLOW_UID", &assignment.workflow_uid),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    for variable in container.get("env").and_then(Value::as_array).into_iter().flatten() {
        let name = variable.get("name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("an environment variable has the name {name:?}"));
        }
        if is_set(variable.get("valueFrom")) {
            return Err(format!(
                "the process runtime has no sources for environment variables ({name} has valueFrom); give it a value"
            ));
        }
        let value = variable.get("value").and_then(Value::as_str).unwrap_or_default();
        let known: BTreeMap<&str, &str> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        let value = expand(value, &known);
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// Kubernetes' expansion: `$(NAME)` of a known name is its value, `$$` is `$`, all else stays.
fn expand(text: &str, known: &BTreeMap<&str, &str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        if let Some(tail) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = tail;
        } else if let Some((value, tail)) = reference.and_then(|(name, tail)| Some((known.get(name)?, tail)))
        {
            expanded.push_str(value);
            rest = tail;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(template: &str) -> Result<Step, String> {
        step(&Assignment { template_json: template.to_owned(), ..Assignment::default() })
    }

    #[test]
    fn command_arguments_and_environment_are_kept_in_order() {
        let step =
            of(r#"{"container":{"image":"i","command":["sh","-c"],"args":["echo $(B) $$(B) $(C) $HOME"],
            "env":[{"name":"A","value":"1"},{"name":"B","value":"$(A)2"}],"workingDir":"/w"}}"#)
            .unwrap();
        assert_eq!(step.arguments, ["sh", "-c", "echo 12 $(B) $(C) $HOME"]);
        assert_eq!(step.environment.last(), Some(&("B".to_owned(), "12".to_owned())));
        assert_eq!(step.working_directory.as_deref(), Some("/w"));
    }

    #[test]
    fn what_cannot_be_given_is_named() {
        for (template, word) in [
            (r#"{"container":{"image":"i"}}"#, "command must be set"),
            (r#"{"container":{"command":["a"],"volumeMounts":[{"name":"v"}]}}"#, "volumeMounts"),
            (r#"{"container":{"command":["a"],"env":[{"name":"S","valueFrom":{"secretKeyRef":{}}}]}}"#, ""),
            (
                r#"{"container":{"command":["a"],"env":[{"name":"S","valueFrom":{"secretKeyRef":{"key":"k"}}}]}}"#,
                "valueFrom",
            ),
            (r#"{"resource":{"action":"get"}}"#, "resource"),
            (r#"{"http":{"url":"x","headers":[{"name":"H","valueFrom":{"secretKeyRef":{}}}]}}"#, ""),
            (
                r#"{"http":{"url":"x","headers":[{"name":"H","valueFrom":{"secretKeyRef":{"key":"k"}}}]}}"#,
                "Secrets",
            ),
            (r#"{"suspend":{}}"#, "neither container nor script"),
            ("{", "not JSON"),
        ] {
            let message = of(template).err().unwrap_or_default();
            assert!(message.contains(word), "{template}: {message}");
        }
    }

    /// What is refused here is placed elsewhere, or refused when it is submitted.
    #[test]
    fn the_control_plane_knows_what_is_refused() {
        let container = |field: &str| {
            let mut container = serde_json::json!({"command": ["a"]});
            container[field] = serde_json::json!([{"name": "x", "valueFrom": {"x": 1}}]);
            serde_json::json!({ "container": container })
        };
        let mut templates = vec![
            serde_json::json!({"container": {"image": "i"}}),
            serde_json::json!({"http": {"url": "x", "headers": [{"name": "a", "valueFrom": {"x": 1}}]}}),
            container("env"),
        ];
        templates.extend(CONTAINER_REFUSED.iter().map(|(field, _)| container(field)));
        templates.extend(TEMPLATE_REFUSED.iter().map(|(field, _)| {
            let value = serde_json::json!({"a": "b"});
            match *field {
                "sidecars" | "initContainers" | "volumes" => {
                    serde_json::json!({"container": {"command": ["a"]}, *field: [value]})
                }
                "podSpecPatch" => serde_json::json!({"container": {"command": ["a"]}, *field: "{}"}),
                kind => serde_json::json!({ kind: value }),
            }
        }));
        for template in templates {
            assert!(of(&template.to_string()).is_err(), "{template}");
            let read = argosy_spec::Template::from_value(template.clone()).unwrap();
            assert!(read.needs_kubernetes().is_some(), "{template}");
        }
    }

    #[test]
    fn a_patch_of_the_whole_workflow_is_not_left_out_in_silence() {
        let assignment = Assignment {
            template_json: r#"{"container":{"command":["a"]}}"#.to_owned(),
            workflow_pod_json: r#"{"podSpecPatch":"{}"}"#.to_owned(),
            ..Assignment::default()
        };
        assert!(step(&assignment).unwrap_err().contains("Pod patches (field podSpecPatch)"));
    }

    #[test]
    fn a_request_is_left_to_the_executor() {
        let step = of(r#"{"http":{"url":"http://x/","headers":[{"name":"A","value":"1"}]}}"#).unwrap();
        assert!(matches!(step.task.work, Some(argosy_executor::protocol::Work::Http(_))));
    }

    #[test]
    fn a_script_is_expanded_as_argo_does() {
        let step = of(r#"{"script":{"command":["sh"],"source":"echo $$ $(date) $(X)","env":[{"name":"X","value":"x"}]}}"#).unwrap();
        assert_eq!(step.task.script.as_deref(), Some("echo $ $(date) x"));
    }
}
