//! CronWorkflows and WorkflowEventBindings: what they hold beside the workflow that they make.

mod schedule;

pub use schedule::Schedule;

use serde::Deserialize;
use serde_json::Value;

use crate::Diagnostic;
use crate::manifest::{Metadata, null_is_default};

/// Longest name of a CronWorkflow: its workflows get a time behind it, and still fit in Kubernetes' 63.
const NAME_LENGTH_MAX: usize = 52;
/// Schedules of one CronWorkflow.
const SCHEDULES_MAX: usize = 100;

/// What becomes of a start while earlier workflows of the same CronWorkflow run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConcurrencyPolicy {
    /// It starts beside them.
    #[default]
    Allow,
    /// It is skipped.
    Forbid,
    /// They are terminated.
    Replace,
}

/// A CronWorkflow, without the workflow's own spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronWorkflow {
    /// Name, labels and annotations.
    pub metadata: Metadata,
    /// When and how.
    pub spec: CronSpec,
}

/// Argo's CronWorkflowSpec, without `workflowSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronSpec {
    /// When it runs: one of them is enough.
    #[serde(deserialize_with = "null_is_default")]
    pub schedules: Vec<String>,
    /// The zone of the schedules; empty means UTC.
    #[serde(deserialize_with = "null_is_default")]
    pub timezone: String,
    /// Nothing starts.
    #[serde(deserialize_with = "null_is_default")]
    pub suspend: bool,
    /// `Allow`, `Forbid`, `Replace` or empty.
    #[serde(deserialize_with = "null_is_default")]
    pub concurrency_policy: String,
    /// How late a missed start may be made up for; `None`: never.
    pub starting_deadline_seconds: Option<i64>,
    /// Workflows that succeeded and are kept; 3 when absent.
    pub successful_jobs_history_limit: Option<i64>,
    /// Workflows that failed and are kept; 1 when absent.
    pub failed_jobs_history_limit: Option<i64>,
    /// A condition on each start; empty for none.
    #[serde(deserialize_with = "null_is_default")]
    pub when: String,
    /// When it ends for good.
    pub stop_strategy: Option<StopStrategy>,
    /// Labels and annotations of the workflows.
    pub workflow_metadata: Option<Metadata>,
}

/// Argo's StopStrategy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StopStrategy {
    /// True: nothing starts any more.
    #[serde(deserialize_with = "null_is_default")]
    pub expression: String,
}

impl CronWorkflow {
    /// Reads the object of a document or of a stored row.
    ///
    /// # Errors
    /// The value is no CronWorkflow.
    pub fn from_value(value: &Value) -> Result<Self, Vec<Diagnostic>> {
        Self::deserialize(value).map_err(|error| vec![Diagnostic::plain("ARG0003", "", error.to_string())])
    }

    /// The policy; `None` for a word that is none.
    #[must_use]
    pub fn concurrency_policy(&self) -> Option<ConcurrencyPolicy> {
        match self.spec.concurrency_policy.as_str() {
            "" | "Allow" => Some(ConcurrencyPolicy::Allow),
            "Forbid" => Some(ConcurrencyPolicy::Forbid),
            "Replace" => Some(ConcurrencyPolicy::Replace),
            _ => None,
        }
    }

    /// The schedules as they are read: each with the zone before it.
    pub fn zoned_schedules(&self) -> impl Iterator<Item = String> + '_ {
        self.spec.schedules.iter().map(|schedule| match self.spec.timezone.as_str() {
            "" => schedule.clone(),
            zone => format!("CRON_TZ={zone} {schedule}"),
        })
    }

    /// All schedules in one text, as Argo notes the ones it used last.
    #[must_use]
    pub fn schedule_text(&self) -> String {
        self.zoned_schedules().collect::<Vec<_>>().join(",")
    }

    /// The schedules, read.
    ///
    /// # Errors
    /// The first that can't be read, in Argo's words.
    pub fn read_schedules(&self) -> Result<Vec<Schedule>, String> {
        self.zoned_schedules().map(|schedule| Schedule::parse(&schedule)).collect()
    }

    /// Everything that is wrong with it, its workflow left out; the first is what Argo would say.
    #[must_use]
    pub fn problems(&self) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        let mut tell = |code, path: String, message: String| {
            problems.push(Diagnostic::plain(code, path, message));
        };
        let (spec, name) = (&self.spec, &self.metadata.name);
        if name.len() > NAME_LENGTH_MAX {
            let length = name.len();
            tell(
                "ARG0012",
                "metadata.name".to_owned(),
                format!(
                    "cron workflow name {name:?} must not be more than {NAME_LENGTH_MAX} characters long (currently {length})"
                ),
            );
        }
        if name.contains(|letter: char| {
            !(letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-.".contains(letter))
        }) {
            let message =
                format!("metadata.name '{name}' is invalid: use lower case letters, digits, '-' and '.'");
            tell("ARG0012", "metadata.name".to_owned(), message);
        }
        if spec.schedules.is_empty() {
            let message = "cron workflow must have at least one schedule".to_owned();
            tell("ARG0010", "spec.schedules".to_owned(), message);
        }
        if spec.schedules.len() > SCHEDULES_MAX {
            let message = format!("a cron workflow has at most {SCHEDULES_MAX} schedules");
            tell("ARG0018", "spec.schedules".to_owned(), message);
        }
        if let Err(error) = schedule::zone(&spec.timezone) {
            let message = format!("invalid timezone {:?}: {error}", spec.timezone);
            tell("ARG0018", "spec.timezone".to_owned(), message);
        }
        for (index, schedule) in spec.schedules.iter().take(SCHEDULES_MAX).enumerate() {
            if let Err(error) = Schedule::parse(schedule) {
                let message = format!("cron schedule {schedule} is malformed: {error}");
                tell("ARG0018", format!("spec.schedules[{index}]"), message);
            }
        }
        if self.concurrency_policy().is_none() {
            let message = format!("'{}' is not a valid concurrencyPolicy", spec.concurrency_policy);
            tell("ARG0018", "spec.concurrencyPolicy".to_owned(), message);
        }
        if spec.starting_deadline_seconds.is_some_and(|seconds| seconds < 0) {
            let message = "startingDeadlineSeconds must be positive".to_owned();
            tell("ARG0018", "spec.startingDeadlineSeconds".to_owned(), message);
        }
        problems
    }
}

/// Everything that is wrong with a WorkflowEventBinding.
pub(crate) fn event_binding_problems(binding: &Value) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let text = |path: &str| binding.pointer(path).and_then(Value::as_str).unwrap_or_default();
    match text("/spec/event/selector") {
        "" => problems.push(Diagnostic::plain(
            "ARG0010",
            "spec.event.selector",
            "spec.event.selector is required",
        )),
        selector => {
            if let Err(error) = argosy_expr::program::compile(selector) {
                let message = format!("spec.event.selector can't be read: {error}");
                problems.push(Diagnostic::plain("ARG0018", "spec.event.selector", message));
            }
        }
    }
    if binding.pointer("/spec/submit").is_some() && text("/spec/submit/workflowTemplateRef/name").is_empty() {
        problems.push(Diagnostic::plain(
            "ARG0010",
            "spec.submit.workflowTemplateRef",
            "spec.submit.workflowTemplateRef.name is required",
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cron(spec: Value) -> CronWorkflow {
        CronWorkflow::from_value(&json!({"metadata": {"name": "c"}, "spec": spec})).unwrap()
    }

    #[test]
    fn schedules_carry_their_zone() {
        let cron = cron(json!({"schedules": ["0 1 * * *", "@hourly"], "timezone": "Europe/Berlin"}));
        assert_eq!(cron.schedule_text(), "CRON_TZ=Europe/Berlin 0 1 * * *,CRON_TZ=Europe/Berlin @hourly");
        assert_eq!(cron.read_schedules().unwrap().len(), 2);
        assert!(cron.problems().is_empty());
    }

    #[test]
    fn problems_are_argos() {
        let first = |spec: Value| cron(spec).problems()[0].message.clone();
        assert_eq!(first(json!({})), "cron workflow must have at least one schedule");
        assert_eq!(
            first(json!({"schedules": ["* * * * *"], "timezone": "Moon/Base"})),
            "invalid timezone \"Moon/Base\": unknown time zone Moon/Base"
        );
        assert_eq!(
            first(json!({"schedules": ["every day"]})),
            "cron schedule every day is malformed: expected exactly 5 fields, found 2: [every day]"
        );
        assert_eq!(
            first(json!({"schedules": ["@hourly"], "concurrencyPolicy": "Never"})),
            "'Never' is not a valid concurrencyPolicy"
        );
        assert_eq!(
            first(json!({"schedules": ["@hourly"], "startingDeadlineSeconds": -1})),
            "startingDeadlineSeconds must be positive"
        );
        let long = CronWorkflow {
            metadata: Metadata { name: "n".repeat(53), ..Metadata::default() },
            ..cron(json!({"schedules": ["@hourly"]}))
        };
        assert!(
            long.problems()[0].message.contains("must not be more than 52 characters long (currently 53)")
        );
    }

    #[test]
    fn bindings_need_a_selector_that_can_be_read() {
        let problems = |spec: Value| event_binding_problems(&json!({"spec": spec})).len();
        assert_eq!(problems(json!({"event": {"selector": "payload.a == 1"}})), 0);
        assert_eq!(problems(json!({"event": {"selector": "payload.a =="}})), 1);
        assert_eq!(problems(json!({"event": {}, "submit": {}})), 2);
    }
}
