//! Steps templates.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;

use super::names::{Kind, refusal};
use super::{Scope, Validator, known_inputs};
use crate::manifest::{Arguments, Step, Template};

impl<'a> Validator<'a> {
    pub(super) fn steps(
        &mut self,
        template: &'a Template,
        groups: &'a [Vec<Step>],
        scope: &mut Scope,
        arguments: Option<&Arguments>,
        path: &str,
    ) {
        self.non_leaf(template, path);
        let known = known_inputs(template, arguments);
        let mut names = BTreeSet::new();
        for (number, group) in groups.iter().enumerate() {
            let words = format!("templates.{}.steps[{number}]", template.name);
            let mut targets = Vec::with_capacity(group.len());
            for (index, step) in group.iter().enumerate() {
                let at = format!("{path}.steps[{number}][{index}]");
                self.step_name(step, &mut names, &words, &at);
                let words = format!("{words}.{}", step.name);
                scope.add(format!("steps.{}.status", step.name));
                self.looping(step, &words, &at);
                scope.add_items(step);
                self.arguments(
                    &step.arguments,
                    &format!("{words}.arguments."),
                    &format!("{at}.arguments"),
                    false,
                );
                self.trail.push(words);
                targets.push(self.target(step, Some(&step.arguments), &known, &at));
                self.hooks(&step.hooks, &step.on_exit, &at);
                if let Some(words) = self.trail.pop() {
                    self.conditions(&step.hooks, &words, &at);
                }
            }
            for (index, step) in group.iter().enumerate() {
                let at = format!("{path}.steps[{number}][{index}]");
                self.step_references(step, scope, &format!("templates.{}.steps", template.name), &at);
            }
            for (step, target) in group.iter().zip(targets) {
                scope.add_outputs(&format!("steps.{}", step.name), target, step);
                self.add_globals(target, scope);
            }
        }
    }

    fn step_name<'s>(&mut self, step: &'s Step, names: &mut BTreeSet<&'s str>, words: &str, at: &str) {
        let name = step.name.as_str();
        if name.is_empty() {
            self.tell("ARG0010", at, format!("{words}.name is required"));
        } else if !names.insert(name) {
            self.tell("ARG0013", format!("{at}.name"), format!("{words}.name '{name}' is not unique"));
        } else if let Some(why) = refusal(name, Kind::Field) {
            self.tell("ARG0012", format!("{at}.name"), format!("{words}.name '{name}' is invalid: {why}"));
        }
    }

    /// At most one kind of loop, and a numeric one with one end.
    pub(super) fn looping(&mut self, step: &Step, words: &str, at: &str) {
        let kinds =
            [step.raw.get("withItems").is_some(), !step.with_param.is_empty(), step.with_sequence.is_some()];
        if kinds.into_iter().filter(|is_set| *is_set).count() > 1 {
            let message = format!("{words} only one of withItems, withParam, withSequence can be specified");
            self.tell("ARG0018", at, message);
        }
        if step
            .with_sequence
            .as_ref()
            .is_some_and(|sequence| sequence.count.is_some() && sequence.end.is_some())
        {
            let message = format!("{words} only one of count or end can be defined in withSequence");
            self.tell("ARG0018", format!("{at}.withSequence"), message);
        }
    }
}

/// Hooks are resolved when they run, with their own step's outputs.
pub(super) fn without_hooks(step: &Value) -> Cow<'_, Value> {
    let mut step = Cow::Borrowed(step);
    if step.get("hooks").is_some()
        && let Some(fields) = step.to_mut().as_object_mut()
    {
        fields.shift_remove("hooks");
    }
    step
}

/// Where a step names its template; the step itself when it doesn't.
pub(super) fn template_path(step: &Step, at: &str) -> String {
    if step.template.is_empty() { at.to_owned() } else { format!("{at}.template") }
}
