//! Declared outputs.

use super::names::Kind;
use super::{Scope, Validator};
use crate::manifest::{Parameter, Template, TemplateKind};

impl Validator<'_> {
    pub(super) fn outputs(&mut self, template: &Template, scope: &Scope, path: &str) {
        let words = format!("templates.{}.outputs", template.name);
        let at = format!("{path}.outputs");
        let names = template.outputs.parameters.iter().map(|parameter| parameter.name.as_str());
        self.field_names(names, Kind::Parameter, &format!("{words}.parameters"), &format!("{at}.parameters"));
        self.output_artifacts(template, path);
        if !template.is_leaf()
            && let Some(outputs) = template.raw.get("outputs")
        {
            self.references(outputs, scope, &words, &at);
        }
        for (index, output) in template.outputs.parameters.iter().enumerate() {
            let words = format!("{words}.parameters.{}", output.name);
            self.output(template, output, &words, &format!("{at}.parameters[{index}]"));
            let global = &output.global_name;
            if !global.is_empty()
                && !global.contains("{{")
                && let Some(why) = super::names::refusal(global, Kind::Parameter)
            {
                self.tell(
                    "ARG0012",
                    format!("{at}.parameters[{index}].globalName"),
                    format!("{words}.globalName: {why}"),
                );
            }
        }
    }

    fn output(&mut self, template: &Template, output: &Parameter, words: &str, at: &str) {
        let Some(source) = &output.value_from else {
            if output.value.is_none() {
                self.tell("ARG0010", at, format!("{words} does not have valueFrom or value specified"));
            }
            return;
        };
        if output.value.is_some() {
            self.tell("ARG0018", at, format!("{words} has both valueFrom and value specified. Choose one."));
            return;
        }
        let set = [
            !source.path.is_empty(),
            !source.jq_filter.is_empty(),
            !source.json_path.is_empty(),
            !source.parameter.is_empty(),
            !source.expression.is_empty(),
            source.supplied.is_some(),
        ];
        let count = set.into_iter().filter(|is_set| *is_set).count();
        let at = format!("{at}.valueFrom");
        if count != 1 {
            let message = if count == 0 {
                "valueFrom type unspecified. choose one of: path, jqFilter, jsonPath, parameter, raw, expression"
            } else {
                "multiple valueFrom types specified. choose one of: path, jqFilter, jsonPath, parameter, raw"
            };
            self.tell("ARG0018", at, message);
            return;
        }
        // Argo's words have a space after the name of a resource's output.
        let (present, wanted) = match template.kind {
            TemplateKind::Container(_) | TemplateKind::Script(_) | TemplateKind::ContainerSet(_) => {
                (!source.path.is_empty(), ".path")
            }
            TemplateKind::Resource(_) => {
                (!source.jq_filter.is_empty() || !source.json_path.is_empty(), " .jqFilter or jsonPath")
            }
            TemplateKind::Steps(_) | TemplateKind::Dag(_) => {
                (!source.parameter.is_empty() || !source.expression.is_empty(), ".parameter or expression")
            }
            TemplateKind::Suspend(_)
            | TemplateKind::Http(_)
            | TemplateKind::Data(_)
            | TemplateKind::Plugin(_)
            | TemplateKind::Missing => (true, ""),
        };
        if !present {
            let message = format!("{words}{wanted} must be specified for {} templates", template.kind.word());
            self.tell("ARG0018", at, message);
        }
    }
}
