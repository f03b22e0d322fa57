//! Names, labels and annotations of Pods.

use argosy_model::Fence;

/// Kept on a Pod until the attempt is released.
pub const FINALIZER: &str = "argosy.dev/committed";
/// Label: the cell.
pub const CELL: &str = "argosy.dev/cell";
/// Label: the cluster, as it is registered.
pub const CLUSTER: &str = "argosy.dev/cluster";
/// Label: the attempt.
pub const FENCE: &str = "argosy.dev/fence";
/// Annotation: the uid of the Pod that has the attempt's start permit.
pub const PERMIT: &str = "argosy.dev/permit";
/// Annotation: no container runs under an executor, so the Pod's own end counts.
pub const NO_EXECUTOR: &str = "argosy.dev/no-executor";
/// Label: the workflow's uid.
pub const WORKFLOW_UID: &str = "argosy.dev/workflow-uid";
/// Annotation: the workflow's name, which may be longer than a label.
pub const WORKFLOW_NAME: &str = "argosy.dev/workflow";
/// Annotation: Argo's, when the ended Pod is removed: `STRATEGY/DELAY`.
pub const GC: &str = "workflows.argoproj.io/pod-gc-strategy";
/// Annotation: the containers that end with the main ones, separated by commas.
pub const SIDECARS: &str = "argosy.dev/sidecars";
/// Annotation: the Pod name that Argo would use, which is also `{{pod.name}}`.
pub const ARGO_POD_NAME: &str = "argosy.dev/argo-pod-name";
/// Label: Argo's, the workflow.
pub const WORKFLOW: &str = "workflows.argoproj.io/workflow";
/// Label: Argo's, whether the Pod's result was taken.
pub const COMPLETED: &str = "workflows.argoproj.io/completed";
/// Label: Argo's, part of an exit handler.
pub const ON_EXIT: &str = "workflows.argoproj.io/on-exit";
/// Annotation: Argo's, the full node name.
pub const NODE_NAME: &str = "workflows.argoproj.io/node-name";
/// Annotation: Argo's, the node id.
pub const NODE_ID: &str = "workflows.argoproj.io/node-id";
/// The user's container.
pub const MAIN: &str = "main";
/// The container that puts the executor in place.
pub const INIT: &str = "init";
/// What stands before a driver's name in that of the container that loads its artifacts: Argo's.
pub const INIT_ARTIFACT: &str = "init-artifact-";

const POD_NAME_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

/// The Pod's name: Argo's, cut if need be, and a suffix that names cell and fence, which makes it unique whatever the cut.
/// No dots, since it is the host name in the Pod as well.
#[must_use]
pub fn pod_name(argo_pod_name: &str, cell: &str, fence: &Fence) -> String {
    let suffix = format!("-{:08x}-{}-{}-{}", short(cell), fence.incarnation, fence.index, fence.ordinal);
    let mut end = argo_pod_name.len().min(POD_NAME_LENGTH_MAX - suffix.len());
    while !argo_pod_name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", argo_pod_name[..end].trim_end_matches(['-', '.']))
}

/// FNV-1a, 32 bits: enough to keep apart the cells that share a namespace.
fn short(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A text as a label value: other characters become `_`, the rest is cut.
#[must_use]
pub fn label_value(text: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let value: String = text
        .chars()
        .map(|character| if allowed(character) { character } else { '_' })
        .take(LABEL_LENGTH_MAX)
        .collect();
    value.trim_matches(|character: char| !character.is_ascii_alphanumeric()).to_owned()
}

/// The label selector of everything that this cell runs on this cluster.
#[must_use]
pub fn selector(cell: &str, cluster: &str) -> String {
    format!("{CELL}={},{CLUSTER}={}", label_value(cell), label_value(cluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_names_differ_by_fence_and_cell_and_fit() {
        let fence = Fence { incarnation: 1, index: 23, ordinal: 4 };
        let name = pod_name("w-say-123", "cell", &fence);
        assert!(name.starts_with("w-say-123-") && name.ends_with("-1-23-4"), "{name}");
        assert_ne!(name, pod_name("w-say-123", "other", &fence));
        assert_ne!(name, pod_name("w-say-123", "cell", &Fence { ordinal: 5, ..fence }));
        let long = pod_name(&"x".repeat(400), "cell", &fence);
        assert_eq!(long.len(), POD_NAME_LENGTH_MAX);
        assert!(long.ends_with("-1-23-4"));
    }

    #[test]
    fn label_values_are_valid() {
        assert_eq!(label_value("a/b c"), "a_b_c");
        assert_eq!(label_value("-.a.-"), "a");
        assert_eq!(label_value(&"é".repeat(9)), "");
        assert!(label_value(&"x".repeat(99)).len() <= LABEL_LENGTH_MAX);
    }
}
