//! Which templates must run in one cluster: those that share a volume, and a daemon with those beside it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::manifest::{Manifest, Template};

/// Templates whose steps go to one cluster and stay there together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColocationGroup {
    /// Names of the templates, in order.
    pub templates: BTreeSet<String>,
    /// The volumes that tie them: names of claims.
    pub claims: BTreeSet<String>,
    /// The daemon templates that tie them: those beside a daemon reach it by an address of its cluster.
    pub daemons: BTreeSet<String>,
}

impl ColocationGroup {
    fn is_apart(&self, other: &Self) -> bool {
        self.claims.is_disjoint(&other.claims)
            && self.daemons.is_disjoint(&other.daemons)
            && self.templates.is_disjoint(&other.templates)
    }

    fn join(&mut self, other: &mut Self) {
        self.templates.append(&mut other.templates);
        self.claims.append(&mut other.claims);
        self.daemons.append(&mut other.daemons);
    }
}

impl Manifest {
    /// The groups of templates that share a claim or stand beside a daemon, each template in at most one group. A single
    /// template with a claim is a group, too: its claim lives in one cluster, and all its steps must find it there.
    pub fn colocation(&self) -> Vec<ColocationGroup> {
        let own_claims: BTreeSet<&str> =
            self.spec.volume_claim_templates.iter().filter_map(claim_template_name).collect();
        let shared = claims_of(&self.spec.volumes);
        let mut groups: Vec<ColocationGroup> = Vec::new();
        for template in &self.spec.templates {
            let claims = used_claims(template, &own_claims, &shared);
            if !claims.is_empty() {
                let templates = BTreeSet::from([template.name.clone()]);
                add(&mut groups, ColocationGroup { templates, claims, daemons: BTreeSet::new() });
            }
        }
        for group in self.daemon_groups() {
            add(&mut groups, group);
        }
        groups
    }

    /// For each template with daemons among its steps: everything that runs below it.
    fn daemon_groups(&self) -> Vec<ColocationGroup> {
        let by_name: BTreeMap<&str, &Template> =
            self.spec.templates.iter().map(|template| (template.name.as_str(), template)).collect();
        let is_daemon = |name: &str| by_name.get(name).is_some_and(|template| template.daemon);
        let around = self.spec.templates.iter().filter_map(|template| {
            let steps = template.kind.children();
            let daemons: BTreeSet<String> =
                steps.iter().map(|step| step.template.clone()).filter(|name| is_daemon(name)).collect();
            let templates = leaves_below(template, &by_name);
            (!daemons.is_empty()).then(|| ColocationGroup { templates, claims: BTreeSet::new(), daemons })
        });
        around.collect()
    }
}

/// Adds a group; those that have something in common with it become part of it.
fn add(groups: &mut Vec<ColocationGroup>, mut group: ColocationGroup) {
    groups.retain_mut(|other| {
        let apart = other.is_apart(&group);
        if !apart {
            group.join(other);
        }
        apart
    });
    groups.push(group);
}

/// The templates that run as leaves somewhere below a steps or dag template. A name that is only known at run time may
/// be any.
fn leaves_below(template: &Template, by_name: &BTreeMap<&str, &Template>) -> BTreeSet<String> {
    let (mut leaves, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut open: Vec<&Template> = vec![template];
    while let Some(next) = open.pop() {
        if !seen.insert(next.name.as_str()) {
            continue;
        }
        if next.is_leaf() {
            leaves.insert(next.name.clone());
        }
        for step in next.kind.children() {
            if step.template.contains("{{") {
                open.extend(by_name.values());
            } else {
                open.extend(by_name.get(step.template.as_str()));
            }
        }
    }
    leaves
}

fn claim_template_name(claim: &Value) -> Option<&str> {
    claim.get("metadata")?.get("name")?.as_str()
}

/// Volumes that are claims: the volume's name, and the claim's.
fn claims_of(volumes: &[Value]) -> BTreeMap<&str, &str> {
    let claims = volumes.iter().filter_map(|volume| {
        let claim = volume.get("persistentVolumeClaim")?.get("claimName")?.as_str()?;
        Some((volume.get("name")?.as_str()?, claim))
    });
    claims.collect()
}

/// The claims that a template's containers mount; a claim of the workflow's own templates is named by the template.
fn used_claims(template: &Template, own: &BTreeSet<&str>, shared: &BTreeMap<&str, &str>) -> BTreeSet<String> {
    let volumes = template.raw.get("volumes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let local = claims_of(volumes);
    let single =
        ["container", "script", "containerSet"].into_iter().filter_map(|field| template.raw.get(field));
    let lists = ["/initContainers", "/sidecars", "/containerSet/containers"]
        .into_iter()
        .filter_map(|field| template.raw.pointer(field)?.as_array());
    let containers = single.chain(lists.flatten());
    let mounts = containers.flat_map(|container| {
        ["volumeMounts", "volumeDevices"]
            .into_iter()
            .filter_map(|field| container.get(field)?.as_array())
            .flatten()
    });
    let names = mounts.filter_map(|mount| mount.get("name")?.as_str());
    let claims = names.filter_map(|name| {
        let local_volume =
            volumes.iter().any(|volume| volume.get("name").and_then(Value::as_str) == Some(name));
        if local_volume {
            return local.get(name).map(|claim| (*claim).to_owned());
        }
        shared
            .get(name)
            .map(|claim| (*claim).to_owned())
            .or_else(|| own.get(name).map(|name| format!("template:{name}")))
    });
    claims.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::Manifest;

    fn template(name: &str, volumes: &[&str], more: &Value) -> Value {
        let mounts: Vec<Value> =
            volumes.iter().map(|volume| json!({"name": volume, "mountPath": "/v"})).collect();
        let mut template = json!({"name": name, "container": {"image": "x", "volumeMounts": mounts}});
        let fields = template.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        template
    }

    #[test]
    fn templates_that_share_a_claim_are_one_group() {
        let sidecar =
            json!({"sidecars": [{"name": "s", "volumeMounts": [{"name": "work", "mountPath": "/w"}]}]});
        let own = json!({"volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": "other"}}]});
        let spec = json!({
            "volumeClaimTemplates": [{"metadata": {"name": "work"}}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "big"}}, {"name": "tmp", "emptyDir": {}}],
            "templates": [
                template("a", &["work"], &json!({})),
                template("b", &["tmp"], &json!({})),
                template("c", &["data"], &json!({})),
                template("d", &["data"], &sidecar),
                template("e", &["work"], &own),
            ],
        });
        let manifest: Manifest = serde_json::from_value(json!({"spec": spec})).unwrap();
        let groups = manifest.colocation();
        let names: Vec<Vec<&str>> =
            groups.iter().map(|group| group.templates.iter().map(String::as_str).collect()).collect();
        assert_eq!(names, [vec!["a", "c", "d"], vec!["e"]]);
    }

    #[test]
    fn a_daemon_and_all_beside_it_are_one_group() {
        let spec = json!({"templates": [
            {"name": "main", "steps": [[{"name": "s", "template": "inner"}], [{"name": "t", "template": "alone"}]]},
            {"name": "inner", "dag": {"tasks": [
                {"name": "server", "template": "server"},
                {"name": "client", "template": "calls", "dependencies": ["server"]},
            ]}},
            {"name": "calls", "steps": [[{"name": "c", "template": "client"}]]},
            {"name": "server", "daemon": true, "container": {"image": "x"}},
            {"name": "client", "container": {"image": "x"}},
            {"name": "alone", "container": {"image": "x"}},
        ]});
        let manifest: Manifest = serde_json::from_value(json!({"spec": spec})).unwrap();
        let groups = manifest.colocation();
        assert_eq!(groups.len(), 1);
        let names: Vec<&str> = groups[0].templates.iter().map(String::as_str).collect();
        assert_eq!(names, ["client", "server"]);
    }
}
