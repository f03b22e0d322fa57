//! Templates that run or wait.

use serde_json::Value;

use super::{Scope, Validator};
use crate::manifest::{IntOrString, Template, TemplateKind};

/// Container names that are ours.
const RESERVED_NAMES: [&str; 2] = ["wait", "supervisor"];

impl Validator<'_> {
    pub(super) fn leaf(&mut self, template: &Template, scope: &Scope, path: &str) {
        let name = &template.name;
        self.references(&template.raw, scope, &format!("templates.{name}:"), path);
        match &template.kind {
            TemplateKind::Container(container) => {
                self.image(container, &format!("templates.{name}.container"), path)
            }
            TemplateKind::Script(script) => {
                self.image(&script.container, &format!("templates.{name}.script"), path)
            }
            TemplateKind::Suspend(_)
            | TemplateKind::Steps(_)
            | TemplateKind::Dag(_)
            | TemplateKind::Missing => {}
        }
        if template.parallelism.is_some() {
            let message = format!("templates.{name}.parallelism is only valid for steps and dag templates");
            self.tell("ARG0019", format!("{path}.parallelism"), message);
        }
        let fits = match &template.active_deadline_seconds {
            None => true,
            Some(IntOrString::Int(seconds)) => *seconds > 0,
            Some(value @ IntOrString::String(text)) => {
                text.contains("{{") || value.as_i64().is_some_and(|value| value > 0)
            }
        };
        if !fits {
            self.tell(
                "ARG0018",
                format!("{path}.activeDeadlineSeconds"),
                format!("templates.{name}.activeDeadlineSeconds must be a positive integer > 0 or an argo variable"),
            );
        }
        self.extra_containers(template, "initContainers", path);
        self.extra_containers(template, "sidecars", path);
    }

    fn image(&mut self, container: &Value, words: &str, path: &str) {
        let kind = words.rsplit('.').next().unwrap_or_default();
        let defaults = self.manifest.spec.template_defaults.as_ref();
        let image = container.get("image").or_else(|| defaults?.get(kind)?.get("image"));
        if image.and_then(Value::as_str).unwrap_or_default().is_empty() {
            self.tell("ARG0010", format!("{path}.{kind}"), format!("{words}.image may not be empty"));
        }
    }

    fn extra_containers(&mut self, template: &Template, field: &str, path: &str) {
        let containers = template.raw.get(field).and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let at = format!("{path}.{field}[{index}]");
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            if name.is_empty() {
                self.tell("ARG0010", at, format!("{field} must all have container name"));
            } else if RESERVED_NAMES.contains(&name) {
                let words = format!(
                    "templates.{}.{field}: \"{name}\" is a reserved Argo container name",
                    template.name
                );
                self.tell("ARG0012", at, words);
            }
        }
    }

    /// Fields that only leaves have.
    pub(super) fn non_leaf(&mut self, template: &Template, path: &str) {
        if template.active_deadline_seconds.is_some() {
            self.tell(
                "ARG0019",
                format!("{path}.activeDeadlineSeconds"),
                format!("templates.{}.activeDeadlineSeconds is only valid for leaf templates", template.name),
            );
        }
    }
}
