//! What flags change in a manifest.

use serde_json::{Map, Value, json};

use crate::{Error, Submit};

fn object<'a>(parent: &'a mut Value, key: &str) -> Result<&'a mut Map<String, Value>, Error> {
    let wrong = || Error::Usage(format!("the manifest's {key} is no object"));
    let map = parent.as_object_mut().ok_or_else(wrong)?;
    let slot = map.entry(key).or_insert_with(|| json!({}));
    if slot.is_null() {
        *slot = json!({});
    }
    slot.as_object_mut().ok_or_else(wrong)
}

/// `NAME=VALUE`, the value up to the end.
fn parameter(text: &str) -> Result<(String, Value), Error> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), json!(value))),
        _ => Err(Error::Usage(format!("Expected parameter of the form: NAME=VALUE. Received: {text}"))),
    }
}

/// All parameters that the flags set, the file's first.
fn parameters(arguments: &Submit) -> Result<Vec<(String, Value)>, Error> {
    let mut found = Vec::new();
    if let Some(path) = &arguments.parameter_file {
        let wrong = |reason: String| Error::File { path: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: Map<String, Value> =
            serde_yaml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        for (name, value) in file {
            let text = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
            };
            found.push((name, json!(text)));
        }
    }
    for text in &arguments.parameters {
        found.push(parameter(text)?);
    }
    Ok(found)
}

fn set_parameters(spec: &mut Value, set: Vec<(String, Value)>) -> Result<(), Error> {
    if set.is_empty() {
        return Ok(());
    }
    let arguments = object(spec, "arguments")?;
    let list = arguments.entry("parameters").or_insert_with(|| json!([]));
    let list = list
        .as_array_mut()
        .ok_or_else(|| Error::Usage("the manifest's arguments.parameters is no list".to_owned()))?;
    for (name, value) in set {
        match list.iter_mut().find(|parameter| parameter["name"] == name) {
            Some(parameter) => {
                let parameter = parameter
                    .as_object_mut()
                    .ok_or_else(|| Error::Usage(format!("parameter {name} is no object")))?;
                parameter.insert("value".to_owned(), value);
                parameter.remove("valueFrom");
            }
            None => list.push(json!({"name": name, "value": value})),
        }
    }
    Ok(())
}

/// Applies the flags to a manifest.
pub(super) fn apply(workflow: &mut Value, arguments: &Submit) -> Result<(), Error> {
    let metadata = object(workflow, "metadata")?;
    if let Some(name) = &arguments.name {
        metadata.insert("name".to_owned(), json!(name));
        metadata.remove("generateName");
    }
    if let Some(prefix) = &arguments.generate_name {
        metadata.insert("generateName".to_owned(), json!(prefix));
        metadata.remove("name");
    }
    for label in
        arguments.labels.iter().flat_map(|labels| labels.split(',')).filter(|label| !label.is_empty())
    {
        let (key, value) = label
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("label {label:?} is not of the form KEY=VALUE")))?;
        object(&mut workflow["metadata"], "labels")?.insert(key.to_owned(), json!(value));
    }
    object(workflow, "spec")?;
    let spec = &mut workflow["spec"];
    if let Some(entrypoint) = &arguments.entrypoint {
        spec["entrypoint"] = json!(entrypoint);
    }
    if let Some(account) = &arguments.serviceaccount {
        spec["serviceAccountName"] = json!(account);
    }
    set_parameters(spec, parameters(arguments)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_change_the_manifest() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.yaml");
        std::fs::write(&file, "a: from-file\nn: 5\n").unwrap();
        let arguments = Submit {
            name: Some("other".into()),
            labels: Some("x=1,y=2".into()),
            entrypoint: Some("e".into()),
            parameters: vec!["a=b=c".into(), "new=".into()],
            parameter_file: Some(file),
            ..Submit::default()
        };
        let mut workflow = json!({"metadata": {"generateName": "g-"}, "spec": {"arguments": {"parameters": [{"name": "a", "value": "old"}]}}});
        apply(&mut workflow, &arguments).unwrap();
        assert_eq!(
            workflow,
            json!({
                "metadata": {"name": "other", "labels": {"x": "1", "y": "2"}},
                "spec": {"entrypoint": "e", "arguments": {"parameters": [
                    {"name": "a", "value": "b=c"}, {"name": "n", "value": "5"}, {"name": "new", "value": ""}]}},
            })
        );
        let bad = Submit { parameters: vec!["novalue".into()], ..Submit::default() };
        assert!(apply(&mut json!({}), &bad).is_err());
    }
}
