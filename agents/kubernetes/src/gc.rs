//! When ended Pods and claims are removed: Argo's `podGC` and `volumeClaimGC`. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Argo's delay between a Pod's end and its removal, where the workflow names none.
const DELAY_MS: i64 = 5_000;

/// What has to be over.
#[expect(clippy::enum_variant_names, reason = "Argo's words")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Strategy {
    OnPodCompletion,
    OnPodSuccess,
    OnWorkflowCompletion,
    OnWorkflowSuccess,
}

impl Strategy {
    fn of(word: &str) -> Option<Self> {
        [Self::OnPodCompletion, Self::OnPodSuccess, Self::OnWorkflowCompletion, Self::OnWorkflowSuccess]
            .into_iter()
            .find(|strategy| strategy.word() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Self::OnPodCompletion => "OnPodCompletion",
            Self::OnPodSuccess => "OnPodSuccess",
            Self::OnWorkflowCompletion => "OnWorkflowCompletion",
            Self::OnWorkflowSuccess => "OnWorkflowSuccess",
        }
    }

    /// The end of the whole workflow is waited for.
    pub fn waits_for_workflow(self) -> bool {
        match self {
            Self::OnPodCompletion | Self::OnPodSuccess => false,
            Self::OnWorkflowCompletion | Self::OnWorkflowSuccess => true,
        }
    }

    /// Failures are kept.
    pub fn needs_success(self) -> bool {
        match self {
            Self::OnPodSuccess | Self::OnWorkflowSuccess => true,
            Self::OnPodCompletion | Self::OnWorkflowCompletion => false,
        }
    }
}

/// A workflow's `podGC`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodGc {
    strategy: Option<Strategy>,
    label_selector: Option<LabelSelector>,
    delete_delay_duration: Option<String>,
}

/// When one Pod is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    pub strategy: Strategy,
    pub delay_ms: i64,
}

impl Removal {
    /// Of a Pod with these labels; nothing if it is to stay. The error is Go's.
    pub fn of(gc: &PodGc, labels: &BTreeMap<String, String>) -> Result<Option<Self>, String> {
        let Some(strategy) = gc.strategy else { return Ok(None) };
        let delay = gc.delete_delay_duration.as_deref().filter(|text| !text.is_empty());
        let delay_ms = match delay {
            Some(text) => argosy_model::parse_duration(text)? / 1_000_000,
            None => DELAY_MS,
        };
        let is_chosen = gc.label_selector.as_ref().is_none_or(|selector| selects(selector, labels));
        Ok(is_chosen.then_some(Self { strategy, delay_ms: delay_ms.max(0) }))
    }

    /// As an annotation's value: Argo's `STRATEGY/DELAY`.
    pub fn text(self) -> String {
        format!("{}/{}ms", self.strategy.word(), self.delay_ms)
    }

    /// Reads what [`Self::text`] made.
    pub fn read(text: &str) -> Option<Self> {
        let (word, delay) = text.split_once('/')?;
        let delay_ms = argosy_model::parse_duration(delay).ok()? / 1_000_000;
        Some(Self { strategy: Strategy::of(word)?, delay_ms })
    }
}

/// Kubernetes' rule; an expression that nobody understands selects nothing.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let named = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|one| {
        let value = labels.get(&one.key);
        let is_listed = value.is_some_and(|value| one.values.iter().flatten().any(|listed| listed == value));
        match one.operator.as_str() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    named && expressions
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn removal(gc: Value, labels: &[(&str, &str)]) -> Option<String> {
        let gc: PodGc = serde_json::from_value(gc).unwrap();
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Removal::of(&gc, &labels).unwrap().map(Removal::text)
    }

    #[test]
    fn strategies_have_argos_delay_and_survive_their_annotation() {
        assert_eq!(removal(json!({}), &[]), None);
        let text = removal(json!({"strategy": "OnPodSuccess"}), &[]).unwrap();
        assert_eq!(text, "OnPodSuccess/5000ms");
        assert_eq!(
            Removal::read(&text).unwrap(),
            Removal { strategy: Strategy::OnPodSuccess, delay_ms: 5_000 }
        );
        let own = json!({"strategy": "OnWorkflowCompletion", "deleteDelayDuration": "0s"});
        assert_eq!(removal(own, &[]).as_deref(), Some("OnWorkflowCompletion/0ms"));
        assert_eq!(Removal::read("Never/0s"), None);
        let bad: PodGc =
            serde_json::from_value(json!({"strategy": "OnPodSuccess", "deleteDelayDuration": "soon"}))
                .unwrap();
        assert!(Removal::of(&bad, &BTreeMap::new()).is_err());
    }

    #[test]
    fn a_selector_chooses_among_pods() {
        let gc = |expression: Value| json!({"strategy": "OnPodCompletion", "labelSelector": {"matchLabels": {"gc": "yes"}, "matchExpressions": [expression]}});
        let labels = [("gc", "yes"), ("tier", "a")];
        let is_chosen = |expression: Value| removal(gc(expression), &labels).is_some();
        assert!(is_chosen(json!({"key": "tier", "operator": "In", "values": ["a", "b"]})));
        assert!(!is_chosen(json!({"key": "tier", "operator": "NotIn", "values": ["a"]})));
        assert!(is_chosen(json!({"key": "gone", "operator": "DoesNotExist"})));
        assert!(!is_chosen(json!({"key": "tier", "operator": "Like"})));
        assert!(
            removal(gc(json!({"key": "tier", "operator": "Exists"})), &[("gc", "no"), ("tier", "a")])
                .is_none()
        );
    }
}
