//! What a leaf needs that must exist on its cluster: named, so that clusters without it are passed over.
//!
//! A name is `KIND NAMESPACE/NAME`, or `KIND NAME` for what belongs to no namespace, with Kubernetes' kinds. Optional
//! references are none. Agents are asked for names that nobody knows about yet.

use argosy_placement::Reason;
use argosy_proto::common::Runtime;
use argosy_proto::state as row;
use serde_json::Value;
use std::collections::BTreeSet;

/// Names of one leaf; more are not looked at.
const NAMES_MAX: usize = 64;

/// The names that a leaf's template and the workflow's Pod specification come to.
pub(crate) fn of(namespace: &str, template: &Value, workflow: &Value) -> Vec<String> {
    let mut names = Names { namespace, found: BTreeSet::new() };
    names.found.insert(format!("Namespace {namespace}"));
    let either =
        |field: &str| template.get(field).filter(|value| !value.is_null()).or_else(|| workflow.get(field));
    names.own("ServiceAccount", either("serviceAccountName"));
    let class = template.get("priorityClassName").or_else(|| workflow.get("podPriorityClassName"));
    names.global("PriorityClass", class);
    for secret in list(workflow.get("imagePullSecrets")) {
        names.own("Secret", secret.get("name"));
    }
    let mut mounted = BTreeSet::new();
    for container in containers(template) {
        names.container(container);
        mounted.extend(list(container.get("volumeMounts")).filter_map(|mount| mount.get("name")?.as_str()));
    }
    mounted.extend(
        list(template.pointer("/containerSet/volumeMounts")).filter_map(|mount| mount.get("name")?.as_str()),
    );
    for volume in list(workflow.get("volumes")).chain(list(template.get("volumes"))) {
        if volume.get("name").and_then(Value::as_str).is_some_and(|name| mounted.contains(name)) {
            names.volume(volume);
        }
    }
    for claim in list(workflow.get("volumeClaimTemplates")) {
        let name = claim.pointer("/metadata/name").and_then(Value::as_str);
        if name.is_some_and(|name| mounted.contains(name)) {
            names.global("StorageClass", claim.pointer("/spec/storageClassName"));
        }
    }
    names.found.into_iter().take(NAMES_MAX).collect()
}

/// Why a cluster is passed over for one of these names: it lacks it, or nobody knows yet. Then the name is to be asked for.
pub(crate) fn lacking(needed: &[String], cluster: &row::Cluster) -> Option<Reason> {
    if cluster.runtime() != Runtime::Kubernetes {
        return None;
    }
    let missing = needed.iter().find(|name| cluster.prerequisites.get(*name) == Some(&false));
    if let Some(name) = missing {
        return Some(Reason::Lacks(name.clone()));
    }
    let unknown = needed.iter().find(|name| !cluster.prerequisites.contains_key(*name));
    unknown.map(|name| Reason::Unchecked(name.clone()))
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn containers(template: &Value) -> impl Iterator<Item = &Value> {
    let single = ["container", "script"].into_iter().filter_map(|field| template.get(field));
    let lists = ["/containerSet/containers", "/sidecars", "/initContainers"];
    single.chain(lists.into_iter().flat_map(|path| list(template.pointer(path))))
}

struct Names<'a> {
    namespace: &'a str,
    found: BTreeSet<String>,
}

impl Names<'_> {
    fn own(&mut self, kind: &str, name: Option<&Value>) {
        if let Some(name) = plain(name) {
            self.found.insert(format!("{kind} {}/{name}", self.namespace));
        }
    }

    fn global(&mut self, kind: &str, name: Option<&Value>) {
        if let Some(name) = plain(name) {
            self.found.insert(format!("{kind} {name}"));
        }
    }

    /// A reference that must be there.
    fn reference(&mut self, kind: &str, reference: Option<&Value>, field: &str) {
        let Some(reference) = reference else { return };
        if reference.get("optional").and_then(Value::as_bool) != Some(true) {
            self.own(kind, reference.get(field));
        }
    }

    fn container(&mut self, container: &Value) {
        for variable in list(container.get("env")) {
            self.reference("Secret", variable.pointer("/valueFrom/secretKeyRef"), "name");
            self.reference("ConfigMap", variable.pointer("/valueFrom/configMapKeyRef"), "name");
        }
        for source in list(container.get("envFrom")) {
            self.reference("Secret", source.get("secretRef"), "name");
            self.reference("ConfigMap", source.get("configMapRef"), "name");
        }
    }

    fn volume(&mut self, volume: &Value) {
        self.reference("Secret", volume.get("secret"), "secretName");
        self.reference("ConfigMap", volume.get("configMap"), "name");
        self.own("PersistentVolumeClaim", volume.pointer("/persistentVolumeClaim/claimName"));
        for source in list(volume.pointer("/projected/sources")) {
            self.reference("Secret", source.get("secret"), "name");
            self.reference("ConfigMap", source.get("configMap"), "name");
        }
    }
}

/// A name that holds no tag and is no nonsense.
fn plain(name: Option<&Value>) -> Option<&str> {
    name.and_then(Value::as_str).filter(|name| !name.is_empty() && name.len() <= 253 && !name.contains("{{"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_must_exist_is_named_and_optional_things_are_not() {
        let template = json!({
            "container": {"env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k", "optional": true}}}],
                "volumeMounts": [{"name": "data"}, {"name": "conf"}, {"name": "work"}]},
            "sidecars": [{"envFrom": [{"configMapRef": {"name": "c2"}}]}],
            "volumes": [{"name": "conf", "secret": {"secretName": "s2"}}],
            "serviceAccountName": "runner",
        });
        let workflow = json!({
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}, {"name": "unused", "secret": {"secretName": "s3"}}],
            "imagePullSecrets": [{"name": "pull"}], "serviceAccountName": "other", "podPriorityClassName": "low",
            "volumeClaimTemplates": [{"metadata": {"name": "work"}, "spec": {"storageClassName": "fast"}}],
        });
        let names = of("n", &template, &workflow);
        let expected = [
            "ConfigMap n/c2",
            "Namespace n",
            "PersistentVolumeClaim n/d",
            "PriorityClass low",
            "Secret n/pull",
            "Secret n/s1",
            "Secret n/s2",
            "ServiceAccount n/runner",
            "StorageClass fast",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_cluster_without_a_name_is_passed_over_and_one_nobody_asked_waits() {
        let mut cluster = row::Cluster { runtime: Runtime::Kubernetes.into(), ..row::Cluster::default() };
        let needed = ["Namespace n".to_owned(), "Secret n/s".to_owned()];
        assert_eq!(lacking(&needed, &cluster), Some(Reason::Unchecked("Namespace n".into())));
        cluster.prerequisites.insert("Namespace n".into(), true);
        cluster.prerequisites.insert("Secret n/s".into(), false);
        assert_eq!(lacking(&needed, &cluster), Some(Reason::Lacks("Secret n/s".into())));
        cluster.prerequisites.insert("Secret n/s".into(), true);
        assert_eq!(lacking(&needed, &cluster), None);
        cluster.prerequisites.clear();
        cluster.runtime = Runtime::Process.into();
        assert_eq!(lacking(&needed, &cluster), None);
    }
}
