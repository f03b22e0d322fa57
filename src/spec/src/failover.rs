//! What the `argosy.dev/...` annotations of a workflow or template say of the loss of its cluster.

use serde_json::Value;

use crate::manifest::{Manifest, Metadata, Template};

/// What to do with an attempt whose cluster is lost while it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// Run it elsewhere.
    Reschedule,
    /// Fail the node.
    Fail,
    /// Wait for the cluster.
    Wait,
}

/// Which of two attempts counts when a lost cluster comes back with one that was taken over, unless the replacement has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReconnect {
    /// The one that was started elsewhere.
    KeepReplacement,
    /// The one that came back, whatever it does or came to.
    KeepOriginal,
    /// The one that came back, if it has run and is running still, or has succeeded.
    LongestRunning,
}

/// Annotation: `"true"` says that running the step twice does no harm.
pub const IDEMPOTENT_ANNOTATION: &str = "argosy.dev/idempotent";
/// Annotation: `reschedule`, `fail` or `wait`.
pub const FAILOVER_ANNOTATION: &str = "argosy.dev/failover";
/// Annotation: `"true"` says that two runs of the step must never overlap.
pub const EXCLUSIVE_ANNOTATION: &str = "argosy.dev/exclusive";
/// Annotation: how long an exclusive step may run after its last acknowledged renewal, like `90s` or `10m`.
pub const EXCLUSIVE_LEASE_ANNOTATION: &str = "argosy.dev/exclusive-lease";

/// Annotation: which of two attempts counts when a lost cluster comes back with one: `keep-replacement` (so without it as
/// well), `keep-original` or `longest-running`.
pub const ON_RECONNECT_ANNOTATION: &str = "argosy.dev/on-reconnect";
/// Annotation of workflows: `"true"` has tags in what containers put out read as tags, as in Argo.
pub const EXPAND_OUTPUTS_ANNOTATION: &str = "argosy.dev/expand-outputs";
/// What the design named for placement, and does not do: a `nodeSelector` says it.
pub(crate) const PLACEMENT_ANNOTATION: &str = "argosy.dev/placement";
/// Of the names of ours.
pub(crate) const ANNOTATION_PREFIX: &str = "argosy.dev/";
/// The names of ours that a workflow's or template's metadata may have.
pub(crate) const ANNOTATIONS: [&str; 6] = [
    EXCLUSIVE_ANNOTATION,
    EXCLUSIVE_LEASE_ANNOTATION,
    EXPAND_OUTPUTS_ANNOTATION,
    FAILOVER_ANNOTATION,
    IDEMPOTENT_ANNOTATION,
    ON_RECONNECT_ANNOTATION,
];

/// The shortest exclusive lease: one that a healthy network renews several times.
pub const EXCLUSIVE_LEASE_MS_MIN: i64 = 5_000;
/// The longest exclusive lease: a day.
pub const EXCLUSIVE_LEASE_MS_MAX: i64 = 24 * 3_600_000;

/// Fields of a template whose processes the executor does not start, so that it can't end them.
const NOT_OURS_TO_END: [(&str, &str); 6] = [
    ("http", "an HTTP request that was sent can't be taken back"),
    ("resource", "what a resource template makes goes on without it"),
    ("plugin", "a plugin's work can't be ended"),
    ("containerSet", "its containers have executors of their own"),
    ("sidecars", "a sidecar runs on its own"),
    ("initContainers", "an init container runs before the start permit"),
];
/// Pod options under which a process can outlive the step's executor.
const SHARED_PROCESSES: [&str; 2] = ["hostPID", "shareProcessNamespace"];

impl Template {
    /// True when the template says that running it twice does no harm.
    pub fn idempotent(&self) -> bool {
        is_true(&self.metadata, IDEMPOTENT_ANNOTATION) == Some(true)
    }

    /// What to do with an attempt on a lost cluster, if the template says so.
    pub fn failover(&self) -> Option<Failover> {
        failover(&self.metadata)
    }

    /// Which attempt counts when a lost cluster comes back with one, if the template says so.
    pub fn on_reconnect(&self) -> Option<OnReconnect> {
        on_reconnect(&self.metadata)
    }

    /// Whether its runs must never overlap, if the template says so.
    pub fn exclusive(&self) -> Option<bool> {
        is_true(&self.metadata, EXCLUSIVE_ANNOTATION)
    }

    /// Its exclusive lease in milliseconds, if the template says so.
    pub fn exclusive_lease_ms(&self) -> Option<i64> {
        lease_ms(self.metadata.annotations.get(EXCLUSIVE_LEASE_ANNOTATION)?)
    }
}

impl Manifest {
    /// The workflow's default for [`Template::idempotent`].
    pub fn idempotent(&self) -> bool {
        is_true(&self.metadata, IDEMPOTENT_ANNOTATION) == Some(true)
    }

    /// The workflow's default for [`Template::failover`].
    pub fn failover(&self) -> Option<Failover> {
        failover(&self.metadata)
    }

    /// The workflow's default for [`Template::on_reconnect`].
    pub fn on_reconnect(&self) -> Option<OnReconnect> {
        on_reconnect(&self.metadata)
    }

    /// The workflow's default for [`Template::exclusive`].
    pub fn exclusive(&self) -> Option<bool> {
        is_true(&self.metadata, EXCLUSIVE_ANNOTATION)
    }

    /// The workflow's default for [`Template::exclusive_lease_ms`].
    pub fn exclusive_lease_ms(&self) -> Option<i64> {
        lease_ms(self.metadata.annotations.get(EXCLUSIVE_LEASE_ANNOTATION)?)
    }

    /// Why a template's processes can't be ended by its executor, so that it can't be exclusive; `None`: they can.
    /// `template` is the template's JSON, as written or resolved.
    pub fn unenforceable(&self, template: &Value) -> Option<&'static str> {
        let there = |field: &str| match template.get(field) {
            None | Some(Value::Null) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        };
        if let Some((_, why)) = NOT_OURS_TO_END.iter().find(|(field, _)| there(field)) {
            return Some(why);
        }
        let patches = [template.get("podSpecPatch"), self.spec.pod.get("podSpecPatch")];
        let patched = |word: &str| {
            patches.iter().flatten().filter_map(|patch| patch.as_str()).any(|patch| patch.contains(word))
        };
        SHARED_PROCESSES.iter().any(|word| patched(word)).then_some(
            "its podSpecPatch names hostPID or shareProcessNamespace, under which a process can outlive the executor",
        )
    }
}

fn is_true(metadata: &Metadata, annotation: &str) -> Option<bool> {
    match metadata.annotations.get(annotation).map(String::as_str) {
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) | None => None,
    }
}

fn failover(metadata: &Metadata) -> Option<Failover> {
    match metadata.annotations.get(FAILOVER_ANNOTATION).map(String::as_str) {
        Some("reschedule") => Some(Failover::Reschedule),
        Some("fail") => Some(Failover::Fail),
        Some("wait") => Some(Failover::Wait),
        Some(_) | None => None,
    }
}

fn on_reconnect(metadata: &Metadata) -> Option<OnReconnect> {
    match metadata.annotations.get(ON_RECONNECT_ANNOTATION).map(String::as_str) {
        Some("keep-replacement") => Some(OnReconnect::KeepReplacement),
        Some("keep-original") => Some(OnReconnect::KeepOriginal),
        Some("longest-running") => Some(OnReconnect::LongestRunning),
        Some(_) | None => None,
    }
}

/// `1h`, `10m`, `90s` and their sums, in milliseconds; `None` for anything else, for less than 5 s and more than a day.
pub(crate) fn lease_ms(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut total = 0_i64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit_ms = match rest[digits..].chars().next()? {
            's' => 1_000,
            'm' => 60_000,
            'h' => 3_600_000,
            _ => return None,
        };
        rest = &rest[digits + 1..];
        total = total.checked_add(number.checked_mul(unit_ms)?)?;
    }
    (EXCLUSIVE_LEASE_MS_MIN..=EXCLUSIVE_LEASE_MS_MAX).contains(&total).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_executor_cannot_end_cannot_be_exclusive() {
        let mut manifest = Manifest::default();
        for template in [
            json!({"http": {"url": "x"}}),
            json!({"resource": {"action": "create"}}),
            json!({"plugin": {"x": {}}}),
            json!({"container": {}, "sidecars": [{"name": "s"}]}),
            json!({"container": {}, "initContainers": [{"name": "s"}]}),
            json!({"containerSet": {}}),
            json!({"container": {}, "podSpecPatch": "{\"hostPID\": true}"}),
            json!({"container": {}, "podSpecPatch": "shareProcessNamespace: true"}),
        ] {
            assert!(manifest.unenforceable(&template).is_some(), "{template}");
        }
        let plain = json!({"container": {}, "sidecars": [], "podSpecPatch": "priority: 5", "http": null});
        assert_eq!(manifest.unenforceable(&plain), None);
        manifest.spec.pod.insert("podSpecPatch".to_owned(), json!("hostPID: true"));
        assert!(manifest.unenforceable(&plain).is_some());
    }

    #[test]
    fn leases_are_read_and_nonsense_is_not() {
        assert_eq!(lease_ms("90s"), Some(90_000));
        assert_eq!(lease_ms("1h30m"), Some(5_400_000));
        for text in ["", "10", "4s", "5d", "s", "-1s", "25h", "99999999999999999999s", "1é"] {
            assert_eq!(lease_ms(text), None, "{text}");
        }
    }
}
