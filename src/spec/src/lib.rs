//! Argo YAML.
