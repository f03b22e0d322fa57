//! Declared and given artifacts.

use super::names::Kind;
use super::{PROBLEMS_MAX, Scope, Validator};
use crate::manifest::{Arguments, Artifact, Template};

/// When artifacts are deleted.
const STRATEGIES: [&str; 4] = ["", "OnWorkflowCompletion", "OnWorkflowDeletion", "Never"];

impl Validator<'_> {
    /// The artifacts that a template takes; their tags go into its scope.
    pub(super) fn input_artifacts(&mut self, template: &Template, scope: &mut Scope, path: &str) {
        let words = format!("templates.{}.inputs.artifacts", template.name);
        let path = format!("{path}.inputs.artifacts");
        let names = template.inputs.artifacts.iter().map(|artifact| artifact.name.as_str());
        self.field_names(names, Kind::Parameter, &words, &path);
        for (index, artifact) in template.inputs.artifacts.iter().enumerate() {
            let words = format!("{words}.{}", artifact.name);
            let at = format!("{path}[{index}]");
            scope.add(format!("inputs.artifacts.{}", artifact.name));
            if self.artifact_path(template, artifact, &words, &at) {
                scope.add(format!("inputs.artifacts.{}.path", artifact.name));
            }
            if !artifact.from.is_empty() {
                self.tell("ARG0018", format!("{at}.from"), format!("{words}.from not valid in inputs"));
            }
            self.artifact_location(artifact, &words, &at);
        }
    }

    /// The artifacts that a template yields.
    pub(super) fn output_artifacts(&mut self, template: &Template, path: &str) {
        let words = format!("templates.{}.outputs.artifacts", template.name);
        let path = format!("{path}.outputs.artifacts");
        let names = template.outputs.artifacts.iter().map(|artifact| artifact.name.as_str());
        self.field_names(names, Kind::Parameter, &words, &path);
        for (index, artifact) in template.outputs.artifacts.iter().enumerate() {
            let words = format!("{words}.{}", artifact.name);
            let at = format!("{path}[{index}]");
            self.artifact_path(template, artifact, &words, &at);
            self.artifact_location(artifact, &words, &at);
            let strategy = artifact.gc_strategy("");
            self.gc_strategy(strategy, &format!("{at}.artifactGC.strategy"));
        }
    }

    pub(super) fn gc_strategy(&mut self, strategy: &str, at: &str) {
        if !STRATEGIES.contains(&strategy) {
            let message = format!("artifactGC.strategy can't be '{strategy}'");
            let suggestion = "use one of: OnWorkflowCompletion, OnWorkflowDeletion, Never".to_owned();
            self.tell_with("ARG0018", at, message, suggestion);
        }
    }

    /// A leaf's artifact has a path; others have none. True for one that has.
    fn artifact_path(&mut self, template: &Template, artifact: &Artifact, words: &str, at: &str) -> bool {
        let has = !artifact.path.is_empty();
        if template.is_leaf() && !has {
            let message = format!("error in {words}: Artifact '{}' did not specify a path", artifact.name);
            self.tell("ARG0010", at, message);
        } else if !template.is_leaf() && has {
            let message = format!("{words}.path only valid in container/script templates");
            self.tell("ARG0018", format!("{at}.path"), message);
        }
        has && template.is_leaf()
    }

    fn artifact_location(&mut self, artifact: &Artifact, words: &str, at: &str) {
        let kinds: Vec<&str> = artifact
            .location
            .iter()
            .filter(|(kind, value)| *kind != "archiveLogs" && value.is_object())
            .map(|(kind, _)| kind.as_str())
            .collect();
        if kinds.len() > 1 {
            let message = format!("{words} can have only one location, and has {}", kinds.join(", "));
            self.tell("ARG0018", at, message);
        }
        let needed = [("git", "repo"), ("http", "url")];
        for (kind, field) in needed {
            let given = artifact.location.get(kind);
            if given.is_some_and(|given| {
                given.get(field).and_then(|text| text.as_str()).is_none_or(str::is_empty)
            }) {
                self.tell("ARG0010", format!("{at}.{kind}"), format!("{words}.{kind}.{field} is required"));
            }
        }
        let repo = artifact.location.get("git").and_then(|git| git.get("repo")?.as_str()).unwrap_or_default();
        if !repo.is_empty() && !repo.contains("{{") && !is_cloned(repo) {
            let message = format!(
                "{words}.git.repo is not supported: repositories are read by http, https and ssh alone"
            );
            let suggestion = "write its address as https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH";
            self.tell_with("ARG0005", format!("{at}.git.repo"), message, suggestion.to_owned());
        }
    }

    /// Given artifacts: names, and that each comes from somewhere. `words` ends in a dot.
    pub(super) fn argument_artifacts(&mut self, arguments: &Arguments, words: &str, path: &str) {
        let names = arguments.artifacts.iter().map(|artifact| artifact.name.as_str());
        let at = format!("{path}.artifacts");
        self.field_names(names, Kind::Parameter, &format!("{words}artifacts"), &at);
        for (index, artifact) in arguments.artifacts.iter().enumerate() {
            let at = format!("{at}[{index}]");
            let name = format!("{words}artifacts.{}", artifact.name);
            if !artifact.from.is_empty() && !artifact.from_expression.is_empty() {
                let message = format!("{name} shouldn't have both `from` and `fromExpression` in Artifact");
                self.tell("ARG0018", &at, message);
            } else if artifact.from.is_empty()
                && artifact.from_expression.is_empty()
                && !artifact.has_location()
                && !artifact.optional
            {
                let message = format!("{words}{}.from, artifact location, or key is required", artifact.name);
                self.tell("ARG0017", &at, message);
            }
            self.artifact_location(artifact, &name, &at);
        }
    }

    /// An artifact that a template takes is given, or says itself where it is.
    pub(super) fn artifact_supplied(
        &mut self,
        template: &Template,
        input: &Artifact,
        arguments: &Arguments,
        path: &str,
    ) {
        let given = arguments.artifact(&input.name).is_some();
        if given || input.optional || input.has_location() || self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let message = format!("templates.{} inputs.artifacts.{} was not supplied", template.name, input.name);
        self.tell("ARG0017", path, message);
    }
}

/// An address of a repository that agents clone from.
fn is_cloned(repo: &str) -> bool {
    if repo.contains("://") {
        return ["http://", "https://", "ssh://"].iter().any(|scheme| repo.starts_with(scheme));
    }
    let short = repo.split_once(':');
    short.is_some_and(|(host, path)| !host.is_empty() && !host.contains('/') && !path.is_empty())
}
