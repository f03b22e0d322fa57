//! Templates without a container that run in a Pod all the same: requests, executor plugins, data of stores. The executor does what they
//! say as the main container of a Pod of its own: in the step's network, with the step's Secrets, without credentials.

use std::borrow::Cow;

use argosy_executor::protocol::{PLUGINS_FIELD, PluginSidecar, Plugins, header_variable};
use argosy_proto::common::Assignment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use crate::containers::{SHARED_FOLDER, SHARED_VOLUME};

/// How Argo's plugins are found.
const PLUGIN_SELECTOR: &str = "workflows.argoproj.io/configmap-type=ExecutorPlugin";
/// Plugins of one namespace that are looked at.
const PLUGINS_MAX: u32 = 100;
/// Argo's user of such Pods.
const USER: i64 = 8737;
/// Certificates of a cluster's own authorities: Argo's names.
const CERTIFICATES_SECRET: &str = "argo-workflows-agent-ca-certificates";
const CERTIFICATES_FOLDER: &str = "/etc/ssl/certs/ca-certificates/";

/// The assignment with a container that does what its template says; as it is, where it has one.
///
/// # Errors
/// [`Error::Told`] in words for the node's message.
pub async fn prepare<'a>(
    client: &Client,
    own_namespace: &str,
    executor_image: &str,
    assignment: &'a Assignment,
) -> Result<Cow<'a, Assignment>, Error> {
    let Ok(mut template) = serde_json::from_str::<Value>(&assignment.template_json) else {
        return Ok(Cow::Borrowed(assignment));
    };
    if template.get("http").is_some_and(Value::is_object) {
        add_request(&mut template, executor_image);
    } else if template.get("data").is_some_and(Value::is_object) {
        template["container"] = executor_container(executor_image);
    } else if template.get("plugin").is_some_and(Value::is_object) {
        let mut found = Vec::new();
        for namespace in [assignment.namespace.as_str(), own_namespace] {
            if !namespace.is_empty() {
                found.extend(find_plugins(client, namespace).await?);
            }
        }
        add_plugins(&mut template, assignment, executor_image, found).map_err(Error::Told)?;
    } else {
        return Ok(Cow::Borrowed(assignment));
    }
    Ok(Cow::Owned(Assignment { template_json: template.to_string(), ..assignment.clone() }))
}

/// Why there is no Pod.
#[derive(Debug)]
pub enum Error {
    /// For the node.
    Told(String),
    /// The API's: another try may work.
    Api(kube::Error),
}

/// The container of the executor that does the work.
fn executor_container(executor_image: &str) -> Value {
    json!({
        "name": "main", "image": executor_image, "imagePullPolicy": "IfNotPresent", "command": ["task"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "privileged": false,
            "readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

fn add_request(template: &mut Value, executor_image: &str) {
    let mut container = executor_container(executor_image);
    let headers = template.pointer("/http/headers").and_then(Value::as_array);
    let secrets: Vec<Value> = headers
        .into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(number, header)| {
            let source = header.pointer("/valueFrom/secretKeyRef")?;
            Some(json!({"name": header_variable(number), "valueFrom": {"secretKeyRef": source}}))
        })
        .collect();
    container["env"] = secrets.into();
    container["volumeMounts"] =
        json!([{"name": CERTIFICATES_SECRET, "mountPath": CERTIFICATES_FOLDER, "readOnly": true}]);
    let volume =
        json!({"name": CERTIFICATES_SECRET, "secret": {"secretName": CERTIFICATES_SECRET, "optional": true}});
    let Some(fields) = template.as_object_mut() else { return };
    fields.insert("container".to_owned(), container);
    push(fields, "volumes", volume);
}

fn push(fields: &mut Map<String, Value>, list: &str, value: Value) {
    match fields.get_mut(list).and_then(Value::as_array_mut) {
        Some(items) => items.push(value),
        None => drop(fields.insert(list.to_owned(), json!([value]))),
    }
}

/// An executor plugin.
#[derive(Clone, Debug, PartialEq)]
struct Plugin {
    name: String,
    container: Value,
    port: u16,
    account: bool,
}

async fn find_plugins(client: &Client, namespace: &str) -> Result<Vec<Plugin>, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let wanted = ListParams::default().labels(PLUGIN_SELECTOR).limit(PLUGINS_MAX);
    let found = match maps.list(&wanted).await {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return Err(Error::Told(format!(
                "{}: executor plugins need the agent's role argosy-agent-plugins in namespace {namespace}",
                status.message
            )));
        }
        Err(error) => return Err(Error::Api(error)),
    };
    found.items.iter().map(|map| read_plugin(map).map_err(Error::Told)).collect()
}

fn read_plugin(map: &ConfigMap) -> Result<Plugin, String> {
    let map_name = map.metadata.name.clone().unwrap_or_default();
    let key = |key: &str| map.data.as_ref().and_then(|data| data.get(key)).cloned().unwrap_or_default();
    let text = key("sidecar.container");
    let container: Value = serde_yaml::from_str(&text)
        .map_err(|error| format!("executor plugin {map_name}: sidecar.container: {error}"))?;
    let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let port = container.pointer("/ports/0/containerPort").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok());
    match port {
        Some(port) if !name.is_empty() => Ok(Plugin {
            account: key("sidecar.automountServiceAccountToken").trim() == "true",
            name,
            container,
            port,
        }),
        Some(_) | None => {
            Err(format!("executor plugin {map_name}: sidecar.container needs a name and a port"))
        }
    }
}

/// Plugins that the workflow brings along, in Argo's form.
fn of_workflow(workflow_pod_json: &str) -> Result<Vec<Plugin>, String> {
    let workflow: Value = serde_json::from_str(workflow_pod_json).unwrap_or_default();
    let plugins = workflow.get("executorPlugins").and_then(Value::as_array);
    let read = |one: &Value| {
        let container = one.pointer("/spec/sidecar/container").cloned().unwrap_or_default();
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let port = container.pointer("/ports/0/containerPort").and_then(Value::as_u64);
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|_| !name.is_empty());
        let account = one.pointer("/spec/sidecar/automountServiceAccountToken") == Some(&Value::Bool(true));
        port.map(|port| Plugin { name, container, port, account })
            .ok_or_else(|| "spec.executorPlugins: a sidecar's container needs a name and a port".to_owned())
    };
    plugins.into_iter().flatten().map(read).collect()
}

fn add_plugins(
    template: &mut Value,
    assignment: &Assignment,
    executor_image: &str,
    found: Vec<Plugin>,
) -> Result<(), String> {
    let mut plugins = of_workflow(&assignment.workflow_pod_json)?;
    for one in found {
        // The workflow's own come first, then its namespace's.
        if plugins.iter().all(|known| known.name != one.name) {
            plugins.push(one);
        }
    }
    let work = Plugins {
        sidecars: plugins
            .iter()
            .map(|plugin| PluginSidecar { name: plugin.name.clone(), port: plugin.port })
            .collect(),
        workflow: json!({
            "name": assignment.workflow, "namespace": assignment.namespace, "uid": assignment.workflow_uid,
        }),
        template: template.clone(),
        tokens_directory: SHARED_FOLDER.to_owned(),
    };
    let mut tokens = executor_container(executor_image);
    let mut command = vec!["/argosy-executor", "plugin-tokens", SHARED_FOLDER];
    command.extend(plugins.iter().map(|plugin| plugin.name.as_str()));
    tokens["name"] = "plugin-tokens".into();
    tokens["command"] = json!(command);
    let Some(fields) = template.as_object_mut() else { return Ok(()) };
    let work = serde_json::to_value(&work).map_err(|error| error.to_string())?;
    fields.insert(PLUGINS_FIELD.to_owned(), work);
    fields.insert("container".to_owned(), executor_container(executor_image));
    push(fields, "initContainers", tokens);
    for plugin in plugins {
        if plugin.account {
            let volume = json!({
                "name": format!("{}-account", plugin.name),
                "secret": {"secretName": format!("{}-executor-plugin.service-account-token", plugin.name)},
            });
            push(fields, "volumes", volume);
        }
        push(fields, "initContainers", sidecar(plugin));
    }
    Ok(())
}

/// The plugin's container beside the executor; Kubernetes ends it when the executor has ended.
fn sidecar(plugin: Plugin) -> Value {
    let mut container = plugin.container;
    let Some(fields) = container.as_object_mut() else { return container };
    fields.insert("restartPolicy".to_owned(), "Always".into());
    // It sees its own token, and no other's.
    let token =
        json!({"name": SHARED_VOLUME, "mountPath": SHARED_FOLDER, "subPath": plugin.name, "readOnly": true});
    push(fields, "volumeMounts", token);
    if plugin.account {
        let account = json!({
            "name": format!("{}-account", plugin.name), "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        });
        push(fields, "volumeMounts", account);
    }
    container
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_secrets_as_variables() {
        let mut template = json!({"http": {"url": "http://x", "headers": [
            {"name": "a", "value": "1"}, {"name": "b", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]}});
        add_request(&mut template, "image");
        let expected = json!([{"name": "ARGOSY_HTTP_HEADER_1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
        assert_eq!(template["container"]["env"], expected);
        assert_eq!(template["volumes"][0]["secret"]["optional"], true);
    }

    #[test]
    fn an_argo_plugin_becomes_a_sidecar_with_its_own_token() {
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "hello-executor-plugin"}, "data": {
            "sidecar.automountServiceAccountToken": "true",
            "sidecar.container": "name: hello\nimage: python\nports: [{containerPort: 4355}]\ncommand: [python]\n",
        }}))
        .unwrap();
        let mut template = json!({"name": "t", "plugin": {"hello": {}}});
        let assignment = Assignment { workflow: "w".into(), ..Assignment::default() };
        add_plugins(&mut template, &assignment, "image", vec![read_plugin(&map).unwrap()]).unwrap();
        let inits = template["initContainers"].as_array().unwrap();
        assert_eq!(
            inits[0]["command"],
            json!(["/argosy-executor", "plugin-tokens", "/var/run/argo", "hello"])
        );
        assert_eq!((&inits[1]["name"], &inits[1]["restartPolicy"]), (&json!("hello"), &json!("Always")));
        assert_eq!(inits[1]["volumeMounts"][0]["subPath"], "hello");
        assert_eq!(
            template["volumes"][0]["secret"]["secretName"],
            "hello-executor-plugin.service-account-token"
        );
        assert_eq!(template[PLUGINS_FIELD]["sidecars"], json!([{"name": "hello", "port": 4355}]));
        assert_eq!(template[PLUGINS_FIELD]["template"]["plugin"], json!({"hello": {}}));
        let broken = ConfigMap::default();
        assert!(read_plugin(&broken).is_err());
    }
}
