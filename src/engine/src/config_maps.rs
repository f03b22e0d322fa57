//! ConfigMaps as workflows read them: parameters, limits of semaphores, prepared caches, artifact repositories.
//!
//! The cell has its own, which users write; clusters report theirs that carry Argo's label. One of the cell's own hides
//! those that clusters report under the same name, and among these the cluster that comes first by name wins: what a
//! workflow reads must not hang on where its steps run.

use argosy_proto::fact;
use argosy_proto::state as row;
use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::key::Key;
use crate::state::{ROW_VERSION, State};

/// The label that says what a ConfigMap is for.
pub(crate) const TYPE_LABEL: &str = "workflows.argoproj.io/configmap-type";
/// Its value for parameters.
pub(crate) const PARAMETER_TYPE: &str = "Parameter";

/// A value that was asked for and that is not there, in Argo's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No such ConfigMap or key: a default may take its place.
    Absent(String),
    /// The ConfigMap is for something else.
    Unfit(String),
}

impl Missing {
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Absent(message) | Self::Unfit(message) => message,
        }
    }
}

impl State {
    /// The ConfigMap that workflows of a namespace read under a name.
    #[must_use]
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&row::ConfigMap> {
        self.config_map_entry(namespace, name).map(|(_, row)| row)
    }

    /// As [`State::config_map`], with the cluster that reported it; empty for the cell's own.
    pub(crate) fn config_map_entry(&self, namespace: &str, name: &str) -> Option<(&str, &row::ConfigMap)> {
        self.config_maps_of(namespace, name).next()
    }

    /// All of a name with the clusters that reported them, the one that is read first.
    pub(crate) fn config_maps_of<'state>(
        &'state self,
        namespace: &str,
        name: &str,
    ) -> impl Iterator<Item = (&'state str, &'state row::ConfigMap)> {
        let from = (namespace.to_owned(), name.to_owned(), String::new());
        let mine = move |key: &(String, String, String)| key.0 == namespace && key.1 == name;
        let found = self.config_maps.range(from..).take_while(move |(key, _)| mine(key));
        found.map(|(key, row)| (key.2.as_str(), row.as_ref()))
    }

    /// A parameter's value.
    pub(crate) fn config_map_parameter(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<&str, Missing> {
        let Some(found) = self.config_map(namespace, name) else {
            return Err(Missing::Absent(format!(
                "ConfigMap '{name}' does not exist. Please make sure it has the label {TYPE_LABEL}: {PARAMETER_TYPE} to be detectable by the controller"
            )));
        };
        if found.labels.get(TYPE_LABEL).is_none_or(|kind| kind != PARAMETER_TYPE) {
            return Err(Missing::Unfit(format!(
                "ConfigMap '{name}' needs to have the label {TYPE_LABEL}: {PARAMETER_TYPE} to load parameters"
            )));
        }
        found
            .data
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| Missing::Absent(format!("ConfigMap '{name}' does not have the key '{key}'")))
    }
}

/// What a ConfigMap counts for.
pub(crate) fn bytes(key: &(String, String, String), row: &row::ConfigMap) -> usize {
    let maps = [&row.labels, &row.annotations, &row.data];
    let contents: usize = maps.into_iter().flatten().map(|(name, text)| name.len() + text.len()).sum();
    key.0.len() + key.1.len() + key.2.len() + contents
}

impl Step<'_> {
    pub(crate) fn config_map_stored(&mut self, fact: &fact::ConfigMapStored) -> Result<(), Error> {
        let key = (fact.namespace.clone(), fact.name.clone(), fact.cluster.clone());
        let mut stored = fact.contents.clone().ok_or(Error::Misfit { what: "ConfigMap", id: 0 })?;
        let known = self.state.config_maps.get(&key).cloned();
        stored.version = ROW_VERSION;
        stored.created_at_ms = known.as_ref().map_or(self.time.0, |known| known.created_at_ms);
        stored.changed_sequence = self.state.meta.sequence + 1;
        let before = known.map_or(0, |known| bytes(&key, &known));
        self.state.index.config_maps_bytes += bytes(&key, &stored);
        self.state.index.config_maps_bytes -= before;
        self.state.config_maps.insert(key.clone(), Arc::new(stored));
        self.check_config_map(&key.0, &key.1);
        self.touch(Key::ConfigMap(key.0, key.1, key.2));
        Ok(())
    }

    pub(crate) fn arguments_configured(&mut self, fact: &fact::ArgumentsConfigured) -> Result<(), Error> {
        self.workflow(fact.workflow)?.configured.clone_from(&fact.parameters);
        Ok(())
    }

    pub(crate) fn config_map_deleted(&mut self, fact: &fact::ConfigMapDeleted) {
        let key = (fact.namespace.clone(), fact.name.clone(), fact.cluster.clone());
        if let Some(known) = self.state.config_maps.remove(&key) {
            self.state.index.config_maps_bytes -= bytes(&key, &known);
        }
        self.check_config_map(&key.0, &key.1);
        self.touch(Key::ConfigMap(key.0, key.1, key.2));
    }
}
