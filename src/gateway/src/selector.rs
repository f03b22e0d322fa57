//! Field selectors as Kubernetes reads them; label selectors are the model's.

use argosy_model::SELECTOR_REQUIREMENTS_MAX as REQUIREMENTS_MAX;
pub(crate) use argosy_model::{InvalidSelector as Invalid, LabelSelector};

/// The fields that workflows can be selected by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector {
    /// Wanted or unwanted names.
    names: Vec<(bool, String)>,
    namespaces: Vec<(bool, String)>,
}

impl FieldSelector {
    /// Reads `metadata.name=a,metadata.namespace!=b`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut selector = Self::default();
        for term in text.split(',').filter(|term| !term.is_empty()).take(REQUIREMENTS_MAX) {
            let (field, wanted, value) = if let Some((field, value)) = term.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (field, true, value)
            } else {
                return Err(Invalid(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            match field.trim() {
                "metadata.name" => selector.names.push((wanted, value.to_owned())),
                "metadata.namespace" => selector.namespaces.push((wanted, value.to_owned())),
                other => return Err(Invalid(format!("field label not supported: {other}"))),
            }
        }
        Ok(selector)
    }

    pub fn matches(&self, namespace: &str, name: &str) -> bool {
        let holds = |tests: &[(bool, String)], text: &str| {
            tests.iter().all(|(wanted, value)| (value == text) == *wanted)
        };
        holds(&self.names, name) && holds(&self.namespaces, namespace)
    }

    /// The one name that can match.
    pub fn name(&self) -> Option<&str> {
        self.names.iter().find(|(wanted, _)| *wanted).map(|(_, name)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_field() {
        let selector = FieldSelector::parse("metadata.name=a").unwrap();
        assert!(selector.matches("n", "a") && !selector.matches("n", "b"));
        assert_eq!(selector.name(), Some("a"));
        assert!(FieldSelector::parse("spec.x=1").is_err());
        assert!(FieldSelector::parse("x").is_err());
    }
}
