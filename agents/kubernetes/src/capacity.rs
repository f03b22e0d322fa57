//! What a cluster has for steps: the sum of what its usable hosts can give. Pure.
//!
//! What other Pods of the cluster request is not deducted yet: a step that finds no room waits as `Unschedulable`.

use argosy_proto::common::Resources;
use k8s_openapi::api::core::v1::Node;

/// The sum over hosts that are ready and take Pods.
#[must_use]
pub fn allocatable(hosts: &[Node]) -> Resources {
    let mut sum = Resources::default();
    for host in hosts.iter().filter(|host| usable(host)) {
        let amounts = host.status.as_ref().and_then(|status| status.allocatable.as_ref());
        for (name, quantity) in amounts.into_iter().flatten() {
            let amount = |scale_milli| units(&quantity.0, scale_milli).unwrap_or(0);
            let add = |total: &mut i64, more: i64| *total = total.saturating_add(more);
            match name.as_str() {
                "cpu" => add(&mut sum.cpu_milli, amount(true)),
                "memory" => add(&mut sum.memory_bytes, amount(false)),
                "ephemeral-storage" => add(&mut sum.ephemeral_storage_bytes, amount(false)),
                "pods" => add(&mut sum.pods, amount(false)),
                name if name.contains('/') => {
                    add(sum.extended.entry(name.to_owned()).or_default(), amount(false))
                }
                // Huge pages and the like, which placement does not count.
                _ => {}
            }
        }
    }
    sum
}

/// What is found, but for the amounts that somebody named.
#[must_use]
pub fn overridden(found: Resources, named: &Resources) -> Resources {
    let either = |named: i64, found: i64| if named == 0 { found } else { named };
    Resources {
        cpu_milli: either(named.cpu_milli, found.cpu_milli),
        memory_bytes: either(named.memory_bytes, found.memory_bytes),
        pods: either(named.pods, found.pods),
        ..found
    }
}

/// Every usable host mounts images as volumes: Kubernetes does so by default since 1.35, containerd since 2.1, CRI-O since
/// 1.31.
#[must_use]
pub fn mount_images(hosts: &[Node]) -> bool {
    let usable: Vec<&Node> = hosts.iter().filter(|host| usable(host)).collect();
    let mounts = |host: &&Node| {
        let Some(info) = host.status.as_ref().and_then(|status| status.node_info.as_ref()) else {
            return false;
        };
        let kubelet = version(info.kubelet_version.trim_start_matches('v'));
        let runtime =
            info.container_runtime_version.split_once("://").is_some_and(|(name, text)| match name {
                "containerd" => version(text) >= (2, 1),
                "cri-o" => version(text) >= (1, 31),
                _ => false,
            });
        runtime && kubelet >= (1, 35)
    };
    !usable.is_empty() && usable.iter().all(mounts)
}

/// Major and minor number; zero where there is none.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn usable(host: &Node) -> bool {
    let spec = host.spec.as_ref();
    let ready = host.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let closed = spec.is_some_and(|spec| spec.unschedulable == Some(true));
    !closed && ready.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A Kubernetes quantity in whole units, or in thousandths. Fractions are rounded down.
#[must_use]
pub fn units(quantity: &str, milli: bool) -> Option<i64> {
    let end = quantity
        .find(|character: char| !matches!(character, '0'..='9' | '.' | '+' | '-'))
        .unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let (multiplier, divisor): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| *power <= 18)?;
            (10_i128.pow(power), 1)
        }
    };
    const DECIMALS_MAX: usize = 9;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = &fraction[..fraction.len().min(DECIMALS_MAX)];
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let value =
        digits.checked_mul(multiplier)?.checked_mul(if milli { 1_000 } else { 1 })? / (divisor * scale);
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read_in_all_spellings() {
        let cases = [
            ("2", true, 2_000),
            ("1900m", true, 1_900),
            ("0.5", true, 500),
            ("24682156Ki", false, 24_682_156 * 1024),
            ("1.5Gi", false, 3 << 29),
            ("12e6", false, 12_000_000),
            ("1500m", false, 1),
            ("110", false, 110),
        ];
        for (text, milli, value) in cases {
            assert_eq!(units(text, milli), Some(value), "{text}");
        }
        for bad in ["", "x", "1x", "1e99", "99999999999999999999999999", "1.2.3"] {
            assert_eq!(units(bad, false), None, "{bad}");
        }
    }

    #[test]
    fn images_are_mounted_where_every_host_can() {
        let host = |kubelet: &str, runtime: &str| {
            serde_json::from_value::<Node>(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"architecture": "", "bootID": "", "containerRuntimeVersion": runtime, "kernelVersion": "",
                    "kubeProxyVersion": "", "kubeletVersion": kubelet, "machineID": "", "operatingSystem": "", "osImage": "",
                    "systemUUID": ""}}}))
            .unwrap()
        };
        let new = host("v1.35.1", "containerd://2.1.3");
        assert!(mount_images(&[new.clone(), host("v1.36.0-gke.1", "cri-o://1.35.0")]));
        for old in [
            host("v1.34.4", "containerd://2.1.3"),
            host("v1.35.0", "containerd://1.6.20"),
            host("v1.35.0", "other://9.9"),
        ] {
            assert!(!mount_images(&[new.clone(), old]));
        }
        assert!(!mount_images(&[]));
    }

    #[test]
    fn only_usable_hosts_count() {
        let host = |ready: &str, unschedulable: bool| {
            serde_json::from_value::<Node>(json!({"spec": {"unschedulable": unschedulable}, "status": {
                "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10", "example.org/gpu": "1"},
                "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        let sum = allocatable(&[
            host("True", false),
            host("True", false),
            host("False", false),
            host("True", true),
        ]);
        assert_eq!((sum.cpu_milli, sum.memory_bytes, sum.pods), (4_000, 2 << 30, 20));
        assert_eq!(sum.extended["example.org/gpu"], 2);
    }
}
