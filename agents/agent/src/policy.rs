//! The policy file of the cluster's owner.

use argosy_agent_runtime::Policy;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// The label of the cluster that says which policy it has.
pub const LABEL: &str = "argosy.dev/policy";
/// Bytes of a policy file.
const BYTES_MAX: u64 = 1 << 20;
/// Letters of the digest that names a policy.
const DIGEST_LETTERS: usize = 12;

/// A policy and the beginning of the SHA-256 of its file.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub policy: Arc<Policy>,
    pub digest: String,
}

/// Why an agent does not start: without its owner's rules it would do what they forbid.
#[derive(Debug, thiserror::Error)]
#[error("ARG1192: the policy {place} is of no use: {reason}")]
pub struct Error {
    /// File, line and column.
    place: String,
    reason: String,
}

/// Reads a policy.
///
/// # Errors
/// Where it can't be read, or not be understood.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    let file = path.display();
    let whole = |reason: String| Error { place: file.to_string(), reason };
    let size = std::fs::metadata(path).map_err(|error| whole(error.to_string()))?.len();
    if size > BYTES_MAX {
        return Err(whole(format!("it has {size} bytes, {BYTES_MAX} are allowed")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| whole(error.to_string()))?;
    let at = |line: usize, column: usize, reason: String| Error {
        place: format!("{file}:{line}:{column}"),
        reason,
    };
    let policy: Policy = serde_yaml::from_str(&text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        at(line, column, error.to_string())
    })?;
    // What is left of a file that was cut off must not allow everything.
    if policy == Policy::default() {
        return Err(at(1, 1, "it has no rule".to_owned()));
    }
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Loaded { policy: Arc::new(policy), digest: digest[..DIGEST_LETTERS].to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/agent/policy.yaml");

    fn of(text: &str) -> Result<Loaded, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        std::fs::write(&path, text).unwrap();
        load(&path).map_err(|error| error.to_string().replace(directory.path().to_str().unwrap(), "D"))
    }

    #[test]
    fn the_example_is_good() {
        let loaded = load(Path::new(EXAMPLE)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.digest.len(), DIGEST_LETTERS);
    }

    #[test]
    fn a_malformed_policy_says_file_line_and_column() {
        for (text, place) in [
            ("images:\n  - busybox\nimage: [x]\n", "D/policy.yaml:3:1"),
            ("namespaces: [a]\nlargestPod:\n  cpu: lots\n", "D/policy.yaml:3:8"),
            ("namespaces: [a\n", "D/policy.yaml:2:1"),
            ("", "D/policy.yaml:1:1"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.starts_with(&format!("ARG1192: the policy {place} is of no use: ")), "{error}");
        }
        assert!(
            load(Path::new("/nowhere/policy.yaml")).unwrap_err().to_string().contains("/nowhere/policy.yaml")
        );
    }

    #[test]
    fn another_policy_has_another_digest() {
        assert_ne!(of("namespaces: [a]\n").unwrap().digest, of("namespaces: [b]\n").unwrap().digest);
    }
}
