//! The cluster owner's veto: what the agent makes nothing of, whatever the control plane asks.
//!
//! A rule that the policy does not name allows everything. Two looks: at the assignment, before any runtime hears of it,
//! and at the Pod as it would be made, patches and plugins included.

use argosy_model::quantity;
use argosy_proto::common::{Assignment, Resources};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The stable code of every refusal.
pub const CODE: &str = "ARG1191";

/// Where images without a registry come from, and its users' part for those without a path.
const REGISTRY: &str = "docker.io";
const LIBRARY: &str = "library";

/// What an owner allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Namespaces that steps may run in.
    #[serde(default)]
    namespaces: Option<Vec<Pattern>>,
    /// What namespaces of the control plane are called in this cluster, where that differs.
    #[serde(default)]
    namespace_mapping: NamespaceMapping,
    /// Service accounts that steps may have: NAME, or NAMESPACE/NAME.
    #[serde(default)]
    service_accounts: Option<Vec<Pattern>>,
    /// Images that containers may run.
    #[serde(default)]
    images: Option<Vec<Pattern>>,
    /// What steps may have of the host.
    #[serde(default)]
    host_access: Option<HostAccess>,
    /// The most that one Pod may ask for, by Kubernetes' name of the resource.
    #[serde(default)]
    largest_pod: Option<BTreeMap<String, Amount>>,
    /// Whether `resource` templates may run: what they make are no Pods of the agent's, and no other rule sees them.
    #[serde(default)]
    resource_templates: Option<bool>,
}

/// What steps may have of the host; all that is not said is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HostAccess {
    /// `hostNetwork`, and ports of the host.
    network: bool,
    /// `hostPID` and `hostIPC`.
    processes: bool,
    /// Containers that are privileged, unmask `/proc` or are host processes.
    privileged: bool,
    /// Capabilities that containers may add.
    capabilities: Vec<String>,
    /// Paths that `hostPath` volumes may have.
    paths: Vec<Pattern>,
}

/// Namespaces of the control plane, and what each is called in this cluster: no two of them the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NamespaceMapping(BTreeMap<String, String>);

impl NamespaceMapping {
    fn local<'a>(&'a self, namespace: &'a str) -> Option<&'a str> {
        match self.0.get(namespace) {
            Some(local) => Some(local),
            None => (!self.0.values().any(|local| local == namespace)).then_some(namespace),
        }
    }

    fn global<'a>(&'a self, local: &'a str) -> Option<&'a str> {
        match self.0.iter().find(|(_, mapped)| *mapped == local) {
            Some((namespace, _)) => Some(namespace),
            None => (!self.0.contains_key(local)).then_some(local),
        }
    }
}

/// A text in which `*` stands for any characters, `/` among them, and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(String);

/// A Kubernetes quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Amount(String);

/// What the policy has against a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{CODE}: the policy of the cluster's owner refuses the step: rule {rule}: {what}")]
pub struct Refusal {
    /// The rule, as the policy names it.
    pub rule: &'static str,
    /// What it is about.
    pub what: String,
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        let (pattern, text): (Vec<char>, Vec<char>) = (self.0.chars().collect(), text.chars().collect());
        let (mut at, mut seen) = (0, 0);
        // Where the last star was, and how much it has taken.
        let mut star: Option<(usize, usize)> = None;
        while seen < text.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(letter) if *letter == '?' || *letter == text[seen] => (at, seen) = (at + 1, seen + 1),
                Some(_) | None => {
                    let Some((back, taken)) = star else { return false };
                    star = Some((back, taken + 1));
                    (at, seen) = (back + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|letter| *letter == '*')
    }

    /// An image is told apart by its full name; a pattern without a tag is about every one.
    fn matches_image(&self, image: &str) -> bool {
        let (pattern, image) = (Self(full_image(&self.0).into_owned()), full_image(image));
        pattern.matches(&image) || (!has_version(&pattern.0) && pattern.matches(without_version(&image)))
    }
}

impl<'de> Deserialize<'de> for NamespaceMapping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = BTreeMap::<String, String>::deserialize(deserializer)?;
        let mut seen = BTreeMap::new();
        for (namespace, local) in &table {
            if local.trim().is_empty() || namespace.trim().is_empty() {
                return Err(de::Error::custom("a namespace without a name"));
            }
            if let Some(other) = seen.insert(local, namespace) {
                let message = format!(
                    "namespaces {other:?} and {namespace:?} would both be {local:?}: steps could reach each other's Secrets"
                );
                return Err(de::Error::custom(message));
            }
        }
        Ok(Self(table))
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().is_empty() {
            return Err(de::Error::custom("a pattern is empty: it would match nothing"));
        }
        Ok(Self(text))
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an amount as Kubernetes writes it: 4, 500m, 8Gi")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                match quantity(text, false) {
                    Some(_) => Ok(Amount(text.to_owned())),
                    None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `busybox` to `docker.io/library/busybox`; a first part with a dot, a port or a star is a registry.
fn full_image(image: &str) -> Cow<'_, str> {
    match image.split_once('/') {
        None if image.contains('*') && !image.contains(':') => Cow::Borrowed(image),
        None => Cow::Owned(format!("{REGISTRY}/{LIBRARY}/{image}")),
        Some((first, _)) if first.contains(['.', ':', '*']) || first == "localhost" => Cow::Borrowed(image),
        Some(_) => Cow::Owned(format!("{REGISTRY}/{image}")),
    }
}

fn last_part(image: &str) -> usize {
    image.rfind('/').map_or(0, |slash| slash + 1)
}

fn has_version(image: &str) -> bool {
    image[last_part(image)..].contains([':', '@'])
}

fn without_version(image: &str) -> &str {
    let last = last_part(image);
    let end = image[last..].find([':', '@']).map_or(image.len(), |at| last + at);
    &image[..end]
}

fn refuse(rule: &'static str, what: String) -> Result<(), Refusal> {
    Err(Refusal { rule, what })
}

fn allows(patterns: Option<&Vec<Pattern>>, matches: impl Fn(&Pattern) -> bool) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(matches))
}

/// The items of a list in an object.
fn items<'a>(of: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    of.get(list).and_then(Value::as_array).into_iter().flatten()
}

fn is_true(of: &Value, pointer: &str) -> bool {
    of.pointer(pointer) == Some(&Value::Bool(true))
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(spec, list))
}

fn name_of(of: &Value) -> &str {
    of["name"].as_str().unwrap_or_default()
}

impl Policy {
    /// What a namespace of the control plane is called in this cluster; `None`: it is another one's, or out of reach.
    #[must_use]
    pub fn local_namespace<'a>(&'a self, namespace: &'a str) -> Option<&'a str> {
        self.namespace_mapping.local(namespace)
    }

    /// What the control plane calls a namespace of this cluster; `None`: it has no name for it.
    #[must_use]
    pub fn global_namespace<'a>(&'a self, local: &'a str) -> Option<&'a str> {
        self.namespace_mapping.global(local)
    }

    /// Puts an assignment into the namespace that it has in this cluster, and judges it there.
    ///
    /// # Errors
    /// As [`Self::check_assignment`], or that namespace is another one's.
    pub fn admit(&self, assignment: &mut Assignment) -> Result<(), Refusal> {
        match self.local_namespace(&assignment.namespace) {
            Some(local) if local == assignment.namespace => {}
            Some(local) => assignment.namespace = local.to_owned(),
            None => {
                let what = format!("namespace {:?} is another one's in this cluster", assignment.namespace);
                return refuse("namespaceMapping", what);
            }
        }
        self.check_assignment(assignment)
    }

    /// Judges what can be judged before a runtime hears of an assignment.
    ///
    /// # Errors
    /// The first rule that refuses it.
    pub fn check_assignment(&self, assignment: &Assignment) -> Result<(), Refusal> {
        let namespace = assignment.namespace.as_str();
        if !allows(self.namespaces.as_ref(), |pattern| pattern.matches(namespace)) {
            return refuse("namespaces", format!("namespace {namespace:?} is not among those allowed"));
        }
        if let Some(requests) = &assignment.requests {
            self.check_requests(requests)?;
        }
        let template: Value = serde_json::from_str(&assignment.template_json).unwrap_or_default();
        if template.get("resource").is_none_or(Value::is_null) {
            return Ok(());
        }
        if self.resource_templates == Some(false) {
            return refuse("resourceTemplates", "templates of kind resource are not allowed".to_owned());
        }
        let workflow: Value = serde_json::from_str(&assignment.workflow_pod_json).unwrap_or_default();
        let account = [&template["executor"], &template, &workflow]
            .into_iter()
            .filter_map(|of| of["serviceAccountName"].as_str())
            .find(|name| !name.is_empty());
        self.check_account(namespace, account)
    }

    /// Judges a Pod as it would be made. `own_image` is the executor's, which is the owner's own.
    ///
    /// # Errors
    /// The first rule that refuses it.
    pub fn check_pod(&self, namespace: &str, pod: &Value, own_image: &str) -> Result<(), Refusal> {
        let spec = &pod["spec"];
        self.check_account(namespace, spec["serviceAccountName"].as_str())?;
        for container in containers(spec) {
            self.check_image(name_of(container), container["image"].as_str().unwrap_or_default(), own_image)?;
        }
        for volume in items(spec, "volumes") {
            if let Some(image) = volume.pointer("/image/reference").and_then(Value::as_str) {
                self.check_image(name_of(volume), image, own_image)?;
            }
        }
        if let Some(allowed) = &self.host_access {
            allowed.check(spec)?;
        }
        self.check_size(spec)
    }

    fn check_account(&self, namespace: &str, name: Option<&str>) -> Result<(), Refusal> {
        let name = name.filter(|name| !name.is_empty()).unwrap_or("default");
        let full = format!("{namespace}/{name}");
        let matches = |pattern: &Pattern| pattern.matches(if pattern.0.contains('/') { &full } else { name });
        if allows(self.service_accounts.as_ref(), matches) {
            return Ok(());
        }
        refuse("serviceAccounts", format!("service account {full:?} is not among those allowed"))
    }

    fn check_image(&self, of: &str, image: &str, own_image: &str) -> Result<(), Refusal> {
        if image == own_image || allows(self.images.as_ref(), |pattern| pattern.matches_image(image)) {
            return Ok(());
        }
        refuse("images", format!("image {image:?} of {of:?} is not among those allowed"))
    }

    fn check_requests(&self, requests: &Resources) -> Result<(), Refusal> {
        let Resources { cpu_milli, memory_bytes, ephemeral_storage_bytes, pods: _, extended } = requests;
        let known =
            [("cpu", cpu_milli), ("memory", memory_bytes), ("ephemeral-storage", ephemeral_storage_bytes)];
        let extended = extended.iter().map(|(name, amount)| (name.as_str(), amount));
        known.into_iter().chain(extended).try_for_each(|(name, amount)| self.check_amount(name, *amount))
    }

    fn check_amount(&self, name: &str, asked: i64) -> Result<(), Refusal> {
        let Some(largest) = self.largest_pod.as_ref().and_then(|largest| largest.get(name)) else {
            return Ok(());
        };
        if quantity(&largest.0, name == "cpu").is_some_and(|largest| asked <= largest) {
            return Ok(());
        }
        let asked = if name == "cpu" { format!("{asked}m") } else { asked.to_string() };
        refuse("largestPod", format!("the Pod asks for {asked} of {name}, {} are allowed", largest.0))
    }

    /// Requests or limits, whichever are larger: the sum over containers that run side by side, or one of those before.
    fn check_size(&self, spec: &Value) -> Result<(), Refusal> {
        for name in self.largest_pod.iter().flat_map(BTreeMap::keys) {
            let asked = |container: &Value| {
                let amount = |kind: &str| {
                    let text = match &container["resources"][kind][name.as_str()] {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.to_string(),
                        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return 0,
                    };
                    quantity(&text, name == "cpu").unwrap_or(i64::MAX)
                };
                amount("requests").max(amount("limits"))
            };
            // A native sidecar goes on beside all others.
            let stays = |container: &&Value| container["restartPolicy"] == "Always";
            let lasting = items(spec, "containers").chain(items(spec, "initContainers").filter(stays));
            let sum = lasting.map(asked).fold(0, i64::saturating_add);
            let first = items(spec, "initContainers").map(asked).max().unwrap_or(0);
            self.check_amount(name, sum.max(first))?;
        }
        Ok(())
    }
}

impl HostAccess {
    fn check(&self, spec: &Value) -> Result<(), Refusal> {
        if !self.network && is_true(spec, "/hostNetwork") {
            return refuse("hostAccess.network", "hostNetwork is not allowed".to_owned());
        }
        for field in ["hostPID", "hostIPC"] {
            if !self.processes && spec[field] == true {
                return refuse("hostAccess.processes", format!("{field} is not allowed"));
            }
        }
        if !self.privileged && is_true(spec, "/securityContext/windowsOptions/hostProcess") {
            return refuse("hostAccess.privileged", "host processes are not allowed".to_owned());
        }
        for volume in items(spec, "volumes") {
            let Some(path) = volume.pointer("/hostPath/path").and_then(Value::as_str) else { continue };
            // What a pattern allows ends where the path climbs out of it.
            let climbs = path.split('/').any(|part| part == "..");
            if climbs || !self.paths.iter().any(|pattern| pattern.matches(path)) {
                let what =
                    format!("volume {:?} is the host's {path:?}, which is not allowed", name_of(volume));
                return refuse("hostAccess.paths", what);
            }
        }
        containers(spec).try_for_each(|container| self.check_container(container))
    }

    fn check_container(&self, container: &Value) -> Result<(), Refusal> {
        let name = name_of(container);
        let host_port = |port: &Value| port["hostPort"].as_u64().is_some_and(|port| port > 0);
        if !self.network && items(container, "ports").any(host_port) {
            return refuse("hostAccess.network", format!("container {name:?} has a port of the host"));
        }
        let context = &container["securityContext"];
        let unmasked = context["procMount"].as_str().is_some_and(|mount| mount != "Default");
        let privileged = is_true(context, "/privileged") || is_true(context, "/windowsOptions/hostProcess");
        if !self.privileged && (privileged || unmasked) {
            return refuse("hostAccess.privileged", format!("container {name:?} is privileged"));
        }
        let mut added = items(&context["capabilities"], "add").filter_map(Value::as_str);
        let plain = |capability: &str| capability.trim_start_matches("CAP_").to_ascii_uppercase();
        let more = added.find(|added| !self.capabilities.iter().any(|one| plain(one) == plain(added)));
        match more {
            Some(added) if !self.privileged => {
                refuse("hostAccess.capabilities", format!("container {name:?} adds the capability {added}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(rules: Value) -> Policy {
        serde_json::from_value(rules).unwrap()
    }

    fn pod(spec: Value) -> Value {
        let mut whole = json!({"containers": [{"name": "main", "image": "busybox"}]});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        json!({"spec": whole})
    }

    fn rule(rules: Value, spec: Value) -> Option<&'static str> {
        policy(rules).check_pod("team-a", &pod(spec), "argosy/executor:1").err().map(|refusal| refusal.rule)
    }

    #[test]
    fn an_empty_policy_allows_everything() {
        let all = json!({"hostNetwork": true, "hostPID": true, "containers": [{"image": "x", "securityContext": {"privileged": true}}]});
        assert_eq!(rule(json!({}), all), None);
    }

    #[test]
    fn images_are_compared_by_their_full_names() {
        let matches = |pattern: &str, image: &str| Pattern(pattern.to_owned()).matches_image(image);
        for (pattern, image, expected) in [
            ("busybox", "busybox:1.36", true),
            ("busybox", "docker.io/library/busybox@sha256:0", true),
            ("busybox", "busybox.example.com/x", false),
            ("busybox:1.*", "busybox:1.36", true),
            ("busybox:1.*", "busybox:2", false),
            ("busybox:1.*", "busybox", false),
            ("registry.example.com/*", "registry.example.com/team/app:1", true),
            ("registry.example.com/*", "registry.example.com.evil.org/app:1", false),
            ("registry.example.com:5000/app", "registry.example.com:5000/app:3", true),
            ("team/*", "docker.io/team/app", true),
            ("team/*", "ghcr.io/team/app", false),
            ("*.example.com/*", "a.example.com/app", true),
            ("*", "anything/at:all", true),
        ] {
            assert_eq!(matches(pattern, image), expected, "{pattern} {image}");
        }
        let allowed = json!({"images": ["team/*"]});
        let own = json!({"containers": [{"image": "team/app"}], "initContainers": [{"image": "argosy/executor:1"}]});
        assert_eq!(rule(allowed.clone(), own), None, "the executor is the owner's own");
        assert_eq!(rule(allowed.clone(), json!({})), Some("images"));
        let volume = json!({"containers": [], "volumes": [{"name": "v", "image": {"reference": "x"}}]});
        assert_eq!(rule(allowed, volume), Some("images"));
    }

    #[test]
    fn host_access_is_refused_part_by_part() {
        let context = |context: Value| json!({"containers": [{"name": "main", "image": "x", "securityContext": context}]});
        let host = |path: &str| json!({"volumes": [{"name": "v", "hostPath": {"path": path}}]});
        let cases = [
            (json!({"hostNetwork": true}), "hostAccess.network"),
            (json!({"containers": [{"ports": [{"hostPort": 80}]}]}), "hostAccess.network"),
            (json!({"hostPID": true}), "hostAccess.processes"),
            (json!({"hostIPC": true}), "hostAccess.processes"),
            (context(json!({"privileged": true})), "hostAccess.privileged"),
            (context(json!({"procMount": "Unmasked"})), "hostAccess.privileged"),
            (context(json!({"capabilities": {"add": ["CAP_SYS_ADMIN"]}})), "hostAccess.capabilities"),
            (host("/etc"), "hostAccess.paths"),
            (host("/var/cache/../../etc"), "hostAccess.paths"),
        ];
        let rules = json!({"hostAccess": {"paths": ["/var/cache/*"], "capabilities": ["net_bind_service"]}});
        for (spec, expected) in cases {
            assert_eq!(rule(rules.clone(), spec.clone()), Some(expected), "{spec}");
        }
        assert_eq!(rule(rules.clone(), host("/var/cache/x")), None);
        assert_eq!(rule(rules, context(json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}}))), None);
        let all =
            json!({"hostAccess": {"network": true, "processes": true, "privileged": true, "paths": ["*"]}});
        assert_eq!(rule(all, json!({"hostNetwork": true, "hostPID": true})), None);
    }

    #[test]
    fn a_pod_is_as_large_as_its_containers_side_by_side() {
        let with =
            |kind: &str, cpu: Value| json!({"name": "c", "image": "x", "resources": {kind: {"cpu": cpu}}});
        let rules = json!({"largestPod": {"cpu": 2, "memory": "1Gi"}});
        let two = json!({"containers": [with("requests", json!("1")), with("limits", json!("1500m"))]});
        let refusal = policy(rules.clone()).check_pod("n", &pod(two), "").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "ARG1191: the policy of the cluster's owner refuses the step: rule largestPod: the Pod asks for 2500m of cpu, 2 are allowed"
        );
        let after =
            json!({"initContainers": [with("limits", json!(2))], "containers": [with("limits", json!(1))]});
        assert_eq!(rule(rules.clone(), after), None, "one after the other");
        assert_eq!(rule(rules, json!({"initContainers": [with("limits", json!(3))]})), Some("largestPod"));
    }

    #[test]
    fn assignments_are_judged_by_namespace_requests_and_resource() {
        let rules = policy(json!({
            "namespaces": ["team-*"], "largestPod": {"cpu": "500m"}, "resourceTemplates": false,
        }));
        let of = |namespace: &str, cpu_milli: i64, template: Value| {
            let requests = Some(Resources { cpu_milli, ..Resources::default() });
            let template_json = template.to_string();
            let assignment =
                Assignment { namespace: namespace.into(), requests, template_json, ..Assignment::default() };
            rules.check_assignment(&assignment).err().map(|refusal| refusal.rule)
        };
        assert_eq!(of("team-a", 500, json!({"container": {}})), None);
        assert_eq!(of("other", 0, json!({})), Some("namespaces"));
        assert_eq!(of("team-a", 501, json!({})), Some("largestPod"));
        assert_eq!(of("team-a", 0, json!({"resource": {"action": "create"}})), Some("resourceTemplates"));
    }

    #[test]
    fn namespaces_have_another_name_in_this_cluster_and_nobody_slips_into_it() {
        let policy = policy(
            json!({"namespaces": ["batch-*", "c"], "namespaceMapping": {"a": "batch-a", "b": "batch-b"}}),
        );
        let admitted = |namespace: &str| {
            let mut assignment = Assignment { namespace: namespace.into(), ..Assignment::default() };
            let judged = policy.admit(&mut assignment);
            (assignment.namespace, judged.err().map(|refusal| refusal.rule))
        };
        assert_eq!(admitted("a"), ("batch-a".to_owned(), None));
        assert_eq!(admitted("c"), ("c".to_owned(), None));
        assert_eq!(admitted("batch-a"), ("batch-a".to_owned(), Some("namespaceMapping")));
        assert_eq!(admitted("d"), ("d".to_owned(), Some("namespaces")));
        let names = ["batch-b", "c", "a"].map(|local| policy.global_namespace(local));
        assert_eq!(names, [Some("b"), Some("c"), None]);
        let both = json!({"namespaceMapping": {"a": "x", "b": "x"}});
        let refused = serde_json::from_value::<Policy>(both).unwrap_err().to_string();
        assert!(refused.contains("would both be"), "{refused}");
    }

    #[test]
    fn service_accounts_with_and_without_their_namespace() {
        let rules = json!({"serviceAccounts": ["runner", "team-a/deploy-*"]});
        for (account, expected) in [("runner", None), ("deploy-x", None), ("root", Some("serviceAccounts"))] {
            assert_eq!(rule(rules.clone(), json!({"serviceAccountName": account})), expected, "{account}");
        }
        assert_eq!(rule(rules.clone(), json!({})), Some("serviceAccounts"), "that of a Pod that names none");
        let resource = Assignment {
            namespace: "team-b".into(),
            template_json: json!({"resource": {"action": "get"}}).to_string(),
            workflow_pod_json: json!({"serviceAccountName": "deploy-x"}).to_string(),
            ..Assignment::default()
        };
        let refusal = policy(rules).check_assignment(&resource).unwrap_err();
        assert_eq!(refusal.rule, "serviceAccounts");
        assert!(refusal.what.contains("team-b/deploy-x"), "{refusal}");
    }

    #[test]
    fn what_is_not_understood_is_no_policy() {
        for bad in [
            json!({"image": ["x"]}),
            json!({"images": "x"}),
            json!({"images": [""]}),
            json!({"largestPod": {"cpu": "lots"}}),
            json!({"hostAccess": {"hostNetwork": true}}),
        ] {
            assert!(serde_json::from_value::<Policy>(bad.clone()).is_err(), "{bad}");
        }
    }
}
