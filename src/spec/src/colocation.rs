//! Which templates must run in one cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::manifest::{Manifest, Template};

/// Templates that share a volume claim: their steps go to one cluster and stay there together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColocationGroup {
    /// Names of the templates, in order.
    pub templates: BTreeSet<String>,
    /// The volumes that tie them: names of claims.
    pub claims: BTreeSet<String>,
}

impl Manifest {
    /// The groups of templates that share a claim, each template in at most one group. A single template is a group, too:
    /// its claim lives in one cluster, and all its steps must find it there.
    pub fn colocation(&self) -> Vec<ColocationGroup> {
        let own_claims: BTreeSet<&str> =
            self.spec.volume_claim_templates.iter().filter_map(claim_template_name).collect();
        let shared = claims_of(&self.spec.volumes);
        let mut groups: Vec<ColocationGroup> = Vec::new();
        for template in &self.spec.templates {
            let claims = used_claims(template, &own_claims, &shared);
            if claims.is_empty() {
                continue;
            }
            let mut group = ColocationGroup { templates: BTreeSet::from([template.name.clone()]), claims };
            groups.retain_mut(|other| {
                let apart = other.claims.is_disjoint(&group.claims);
                if !apart {
                    group.templates.append(&mut other.templates);
                    group.claims.append(&mut other.claims);
                }
                apart
            });
            groups.push(group);
        }
        groups
    }
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
    let single = ["container", "script"].into_iter().filter_map(|field| template.raw.get(field));
    let lists =
        ["initContainers", "sidecars"].into_iter().filter_map(|field| template.raw.get(field)?.as_array());
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
}
