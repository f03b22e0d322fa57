use serde::{Deserialize, Serialize};
use std::fmt;

/// A control-plane member. Never reused in a cell: a member that lost its disk comes back under a new id.
pub type MemberId = u64;

/// A workflow's number in its cell, given in the order of acceptance and never reused (names are, after a delete).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkflowId(pub u64);

/// A node's number in its workflow, in the order of creation. Argo's node id is a 32-bit hash and may collide in large
/// workflows, so state is keyed by this instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeIndex(pub u32);

/// A workflow as users name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkflowKey {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name, unique in the namespace at any time.
    pub name: String,
}

impl fmt::Display for WorkflowKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A name that breaks the rules of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} name {name:?} is invalid: use 1 to {length_max} lower-case letters, digits and '-', starting and ending with a letter or digit"
)]
pub struct InvalidName {
    /// What was named.
    pub kind: &'static str,
    /// The name as given.
    pub name: String,
    /// Longest name in bytes.
    pub length_max: usize,
}

/// A registered cluster's name: a DNS label, since it becomes a part of the agent's SPIFFE identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// Longest name in bytes.
    pub const LENGTH_MAX: usize = 63;

    /// Checks the name.
    ///
    /// # Errors
    /// [`InvalidName`] unless it is a DNS label.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
        let name = name.into();
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = name.as_bytes();
        let valid = (1..=Self::LENGTH_MAX).contains(&bytes.len())
            && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
            && inner(bytes[0])
            && inner(bytes[bytes.len() - 1]);
        if valid {
            Ok(Self(name))
        } else {
            Err(InvalidName { kind: "cluster", name, length_max: Self::LENGTH_MAX })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for ClusterName {
    type Error = InvalidName;
    fn try_from(name: String) -> Result<Self, InvalidName> {
        Self::new(name)
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

fn fnv1a_32(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Argo's node id: the workflow's name for the root, else name and FNV-1a of the full node name (Argo reference 3.5).
#[must_use]
pub fn node_id(workflow: &str, node_name: &str) -> String {
    if workflow == node_name { workflow.to_owned() } else { format!("{workflow}-{}", fnv1a_32(node_name)) }
}

/// Argo's pod name, version 2: the workflow's name for the root, else workflow, template (left out when empty) and hash
/// of the node name, the readable part cut to 242 bytes (Argo reference 3.5).
#[must_use]
pub fn pod_name(workflow: &str, template: &str, node_name: &str) -> String {
    const PREFIX_LENGTH_MAX: usize = 242;
    if workflow == node_name {
        return workflow.to_owned();
    }
    let mut prefix = workflow.to_owned();
    if !template.is_empty() {
        prefix.push('-');
        prefix.push_str(template);
    }
    let mut end = prefix.len().min(PREFIX_LENGTH_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    prefix.truncate(end);
    format!("{prefix}-{}", fnv1a_32(node_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_are_argos() {
        assert_eq!(node_id("steps-z2zdn", "steps-z2zdn[0].hello1"), "steps-z2zdn-27420706");
        assert_eq!(node_id("w", "w"), "w");
    }

    #[test]
    fn pod_names_leave_out_an_empty_template_and_are_cut() {
        assert_eq!(pod_name("w", "w", "w"), "w");
        assert!(pod_name("w", "", "w.a").starts_with("w-"));
        assert!(pod_name("w", "say", "w.a").starts_with("w-say-"));
        assert!(pod_name(&"x".repeat(300), "t", "n").len() <= 253);
    }

    #[test]
    fn cluster_names_are_dns_labels() {
        for good in ["a", "eu-1", "0"] {
            assert!(ClusterName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "é", &"x".repeat(64)] {
            assert!(ClusterName::new(bad).is_err(), "{bad}");
        }
    }
}
