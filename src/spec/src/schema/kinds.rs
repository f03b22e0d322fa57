//! The kinds of objects that can be written, beside the Workflow itself.

use super::argo::{OBJECT_META, WORKFLOW, WORKFLOW_SPEC, WORKFLOW_TEMPLATE_REF};
use super::{Shape, Type, dropped, honoured, refused};

/// All types of this file, for the table.
pub(super) static TYPES: &[&Type] = &[
    &WORKFLOW_TEMPLATE,
    &CLUSTER_WORKFLOW_TEMPLATE,
    &CRON_WORKFLOW,
    &CRON_WORKFLOW_SPEC,
    &STOP_STRATEGY,
    &EVENT_BINDING,
    &EVENT_BINDING_SPEC,
    &EVENT,
    &SUBMIT,
    &SUBMIT_ARGUMENTS,
    &SUBMIT_PARAMETER,
    &SUBMIT_VALUE_FROM,
];

/// Every kind that can be written, and its type.
pub(crate) static KINDS: [(&str, &Type); 5] = [
    ("Workflow", &WORKFLOW),
    ("WorkflowTemplate", &WORKFLOW_TEMPLATE),
    ("ClusterWorkflowTemplate", &CLUSTER_WORKFLOW_TEMPLATE),
    ("CronWorkflow", &CRON_WORKFLOW),
    ("WorkflowEventBinding", &EVENT_BINDING),
];

/// The fields of every object, around a spec of some type.
macro_rules! object_type {
    ($name:literal, $spec:ident) => {
        Type {
            name: $name,
            fields: &[
                honoured("apiVersion", Shape::String),
                honoured("kind", Shape::String),
                honoured("metadata", Shape::Object(&OBJECT_META)),
                honoured("spec", Shape::Object(&$spec)),
                dropped("status"),
            ],
        }
    };
}

static WORKFLOW_TEMPLATE: Type = object_type!("WorkflowTemplate", WORKFLOW_SPEC);
static CLUSTER_WORKFLOW_TEMPLATE: Type = object_type!("ClusterWorkflowTemplate", WORKFLOW_SPEC);
static CRON_WORKFLOW: Type = object_type!("CronWorkflow", CRON_WORKFLOW_SPEC);
static EVENT_BINDING: Type = object_type!("WorkflowEventBinding", EVENT_BINDING_SPEC);

static CRON_WORKFLOW_SPEC: Type = Type {
    name: "CronWorkflowSpec",
    fields: &[
        honoured("workflowSpec", Shape::Object(&WORKFLOW_SPEC)),
        honoured("schedules", Shape::List(&Shape::String)),
        honoured("timezone", Shape::String),
        honoured("concurrencyPolicy", Shape::String),
        honoured("suspend", Shape::Boolean),
        honoured("startingDeadlineSeconds", Shape::Integer),
        honoured("successfulJobsHistoryLimit", Shape::Integer),
        honoured("failedJobsHistoryLimit", Shape::Integer),
        honoured("workflowMetadata", Shape::Object(&OBJECT_META)),
        honoured("stopStrategy", Shape::Object(&STOP_STRATEGY)),
        honoured("when", Shape::String),
    ],
};

static STOP_STRATEGY: Type = Type { name: "StopStrategy", fields: &[honoured("expression", Shape::String)] };

static EVENT_BINDING_SPEC: Type = Type {
    name: "WorkflowEventBindingSpec",
    fields: &[honoured("event", Shape::Object(&EVENT)), honoured("submit", Shape::Object(&SUBMIT))],
};

static EVENT: Type = Type { name: "Event", fields: &[honoured("selector", Shape::String)] };

static SUBMIT: Type = Type {
    name: "Submit",
    fields: &[
        honoured("workflowTemplateRef", Shape::Object(&WORKFLOW_TEMPLATE_REF)),
        honoured("metadata", Shape::Object(&OBJECT_META)),
        honoured("arguments", Shape::Object(&SUBMIT_ARGUMENTS)),
    ],
};

static SUBMIT_ARGUMENTS: Type = Type {
    name: "SubmitArguments",
    fields: &[honoured("parameters", Shape::Objects(&SUBMIT_PARAMETER)), refused("artifacts")],
};

static SUBMIT_PARAMETER: Type = Type {
    name: "SubmitParameter",
    fields: &[
        honoured("name", Shape::String),
        honoured("value", Shape::AnyString),
        honoured("valueFrom", Shape::Object(&SUBMIT_VALUE_FROM)),
    ],
};

static SUBMIT_VALUE_FROM: Type = Type {
    name: "SubmitValueFrom",
    fields: &[honoured("event", Shape::String), honoured("default", Shape::AnyString)],
};
