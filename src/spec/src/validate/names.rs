//! Names and arguments.

use std::collections::BTreeSet;

use super::Validator;
use crate::manifest::{Arguments, ValueFrom};

/// Longest name of a template, step or parameter.
const LENGTH_MAX: usize = 128;

/// Which names are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Templates, steps and tasks.
    Field,
    /// Parameters.
    Parameter,
}

/// Why a name is not one; Argo's words.
pub(super) fn refusal(name: &str, kind: Kind) -> Option<String> {
    if name.chars().count() > LENGTH_MAX {
        return Some(format!("must be no more than {LENGTH_MAX} characters"));
    }
    let mut characters = name.chars();
    let (fits, message) = match kind {
        Kind::Field => (
            characters.next().is_some_and(|first| first.is_ascii_alphanumeric())
                && characters.all(|next| next.is_ascii_alphanumeric() || next == '-'),
            "name must consist of alpha-numeric characters or '-', and must start with an alpha-numeric character (e.g. \
             My-name1-2, 123-NAME)",
        ),
        Kind::Parameter => (
            name.chars().all(|next| next.is_ascii_alphanumeric() || matches!(next, '-' | '_')),
            "Parameter/Artifact name must consist of alpha-numeric characters, '_' or '-' e.g. my_param_1, MY-PARAM-1",
        ),
    };
    (!fits).then(|| message.to_owned())
}

/// Whether a Kubernetes object could have this name; the empty name is one that is not given.
pub(super) fn is_subdomain(name: &str) -> bool {
    is_subdomain_prefix(name) && !name.ends_with(['-', '.'])
}

/// Whether a Kubernetes object could have a name that starts so.
pub(super) fn is_subdomain_prefix(name: &str) -> bool {
    name.chars().all(|next| next.is_ascii_lowercase() || next.is_ascii_digit() || matches!(next, '-' | '.'))
        && !name.starts_with(['-', '.'])
}

impl Validator<'_> {
    /// Checks names of a list: given, well formed, unique. `words` is the list in Argo's messages.
    pub(super) fn field_names<'n>(
        &mut self,
        names: impl Iterator<Item = &'n str>,
        kind: Kind,
        words: &str,
        path: &str,
    ) {
        let mut seen = BTreeSet::new();
        for (index, name) in names.enumerate() {
            let at = format!("{path}[{index}]");
            if name.is_empty() {
                self.tell("ARG0010", at, format!("{words}[{index}].name is required"));
            } else if let Some(why) = refusal(name, kind) {
                self.tell(
                    "ARG0012",
                    format!("{at}.name"),
                    format!("{words}[{index}].name: '{name}' is invalid: {why}"),
                );
            } else if !seen.insert(name) {
                self.tell(
                    "ARG0013",
                    format!("{at}.name"),
                    format!("{words}[{index}].name '{name}' is not unique"),
                );
            }
        }
    }

    /// Checks arguments: names, and that each has a value from an allowed source. `words` ends in a dot.
    pub(super) fn arguments(&mut self, arguments: &Arguments, words: &str, path: &str, allow_empty: bool) {
        let names = arguments.parameters.iter().map(|parameter| parameter.name.as_str());
        self.field_names(
            names,
            Kind::Parameter,
            &format!("{words}parameters"),
            &format!("{path}.parameters"),
        );
        self.argument_artifacts(arguments, words, path);
        for (index, parameter) in arguments.parameters.iter().enumerate() {
            let at = format!("{path}.parameters[{index}]");
            let name = format!("{words}{}", parameter.name);
            let is_empty = parameter.value.is_none() && parameter.value_from.is_none();
            // An enum needs its values before anything else, and a value of its own.
            if let Some(allowed) = &parameter.allowed {
                if allowed.is_empty() {
                    self.tell(
                        "ARG0018",
                        format!("{at}.enum"),
                        format!("{name}.enum should contain at least one value"),
                    );
                    continue;
                }
                let outside = |value: &&String| !allowed.contains(value) && !value.contains("{{");
                if parameter.value.as_ref().is_some_and(|value| outside(&value)) {
                    let message = format!("{name}.value should be present in {name}.enum list");
                    self.tell("ARG0018", format!("{at}.value"), message);
                }
            }
            if is_empty && !allow_empty {
                self.tell("ARG0017", at, format!("{name}.value or {name}.valueFrom is required"));
            } else if let Some(source) = &parameter.value_from
                && !is_argument_source(source)
            {
                let message = format!("{name}.valueFrom only allows: default, configMapKeyRef and supplied");
                self.tell("ARG0018", format!("{at}.valueFrom"), message);
            }
        }
    }
}

/// Where arguments may come from.
fn is_argument_source(source: &ValueFrom) -> bool {
    let other = !source.path.is_empty() || !source.parameter.is_empty() || !source.expression.is_empty();
    !other && (source.supplied.is_some() || source.config_map_key_ref.is_some())
}
