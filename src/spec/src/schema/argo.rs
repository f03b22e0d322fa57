//! Argo's types.

use super::artifact::{ARCHIVE_LOCATION, ARTIFACT, REPOSITORY_REFERENCE, WORKFLOW_ARTIFACT_GC};
use super::kubernetes::{CONTAINER_FIELDS, LOCAL_REFERENCE, RESOURCES, TOLERATION, VOLUME};
use super::leaf::{CONTAINER_SET, DATA, EXECUTOR, HTTP, RESOURCE};
use super::{Field, Shape, Type, dropped, honoured, passed, refused};

const STRINGS: Shape = Shape::Map(&Shape::String);
const ANY_LIST: Shape = Shape::List(&Shape::Any);
const HOOKS: Shape = Shape::Map(&Shape::Object(&LIFECYCLE_HOOK));

/// All types of this file, for the table.
pub(super) static TYPES: &[&Type] = &[
    &WORKFLOW,
    &OBJECT_META,
    &POD_GC,
    &VOLUME_CLAIM_GC,
    &WORKFLOW_SPEC,
    &TEMPLATE,
    &METADATA,
    &ARGUMENTS,
    &INPUTS,
    &OUTPUTS,
    &PARAMETER,
    &VALUE_FROM,
    &SCRIPT,
    &USER_CONTAINER,
    &STEP,
    &DAG,
    &TASK,
    &SUSPEND,
    &SEQUENCE,
    &CONTINUE_ON,
    &RETRY_STRATEGY,
    &BACKOFF,
    &RETRY_AFFINITY,
    &METRICS,
    &PROMETHEUS,
    &METRIC_LABEL,
    &COUNTER,
    &GAUGE,
    &HISTOGRAM,
    &LABEL_VALUE_FROM,
    &LIFECYCLE_HOOK,
    &MEMOIZE,
    &CACHE,
    &CACHE_CONFIG_MAP,
    &CONFIG_MAP_KEY,
    &SYNCHRONIZATION,
    &SEMAPHORE,
    &SYNC_DATABASE,
    &MUTEX,
    &WORKFLOW_METADATA,
    &TEMPLATE_REF,
    &WORKFLOW_TEMPLATE_REF,
    &TTL_STRATEGY,
];

pub(super) static WORKFLOW: Type = Type {
    name: "Workflow",
    fields: &[
        honoured("apiVersion", Shape::String),
        honoured("kind", Shape::String),
        honoured("metadata", Shape::Object(&OBJECT_META)),
        honoured("spec", Shape::Object(&WORKFLOW_SPEC)),
        dropped("status"),
    ],
};

static POD_GC: Type = Type {
    name: "PodGC",
    fields: &[
        honoured("strategy", Shape::String),
        honoured("labelSelector", Shape::Any),
        honoured("deleteDelayDuration", Shape::String),
    ],
};

static VOLUME_CLAIM_GC: Type = Type { name: "VolumeClaimGC", fields: &[honoured("strategy", Shape::String)] };

pub(super) static OBJECT_META: Type = Type {
    name: "ObjectMeta",
    fields: &[
        honoured("name", Shape::String),
        honoured("generateName", Shape::String),
        honoured("namespace", Shape::String),
        honoured("labels", STRINGS),
        honoured("annotations", STRINGS),
        refused("finalizers"),
        refused("ownerReferences"),
        dropped("uid"),
        dropped("resourceVersion"),
        dropped("generation"),
        dropped("creationTimestamp"),
        dropped("deletionTimestamp"),
        dropped("deletionGracePeriodSeconds"),
        dropped("managedFields"),
        dropped("selfLink"),
    ],
};

pub(super) static WORKFLOW_SPEC: Type = Type {
    name: "WorkflowSpec",
    fields: &[
        honoured("entrypoint", Shape::String),
        honoured("arguments", Shape::Object(&ARGUMENTS)),
        honoured("templates", Shape::Objects(&TEMPLATE)),
        honoured("onExit", Shape::String),
        honoured("retryStrategy", Shape::Object(&RETRY_STRATEGY)),
        honoured("activeDeadlineSeconds", Shape::Integer),
        honoured("serviceAccountName", Shape::String),
        honoured("podMetadata", Shape::Object(&METADATA)),
        passed("automountServiceAccountToken", Shape::Boolean),
        passed("volumes", Shape::Objects(&VOLUME)),
        passed("nodeSelector", STRINGS),
        passed("affinity", Shape::Any),
        passed("tolerations", Shape::Objects(&TOLERATION)),
        passed("imagePullSecrets", Shape::Objects(&LOCAL_REFERENCE)),
        passed("hostNetwork", Shape::Boolean),
        passed("dnsPolicy", Shape::String),
        passed("dnsConfig", Shape::Any),
        passed("schedulerName", Shape::String),
        passed("podPriorityClassName", Shape::String),
        passed("hostAliases", ANY_LIST),
        passed("securityContext", Shape::Any),
        honoured("archiveLogs", Shape::Boolean),
        honoured("artifactGC", Shape::Object(&WORKFLOW_ARTIFACT_GC)),
        honoured("artifactRepositoryRef", Shape::Object(&REPOSITORY_REFERENCE)),
        passed("executor", Shape::Object(&EXECUTOR)),
        passed("executorPlugins", ANY_LIST),
        honoured("hooks", HOOKS),
        honoured("metrics", Shape::Object(&METRICS)),
        honoured("parallelism", Shape::Integer),
        honoured("podDisruptionBudget", Shape::Any),
        honoured("podGC", Shape::Object(&POD_GC)),
        passed("podResources", Shape::Object(&RESOURCES)),
        passed("podSpecPatch", Shape::String),
        honoured("priority", Shape::Integer),
        passed("resourceClaims", ANY_LIST),
        honoured("shutdown", Shape::String),
        honoured("suspend", Shape::Boolean),
        honoured("synchronization", Shape::Object(&SYNCHRONIZATION)),
        honoured("templateDefaults", Shape::Object(&TEMPLATE)),
        honoured("ttlStrategy", Shape::Object(&TTL_STRATEGY)),
        honoured("volumeClaimGC", Shape::Object(&VOLUME_CLAIM_GC)),
        honoured("volumeClaimTemplates", ANY_LIST),
        honoured("workflowMetadata", Shape::Object(&WORKFLOW_METADATA)),
        honoured("workflowTemplateRef", Shape::Object(&WORKFLOW_TEMPLATE_REF)),
    ],
};

static TEMPLATE: Type = Type {
    name: "Template",
    fields: &[
        honoured("name", Shape::String),
        honoured("inputs", Shape::Object(&INPUTS)),
        honoured("outputs", Shape::Object(&OUTPUTS)),
        honoured("metadata", Shape::Object(&METADATA)),
        honoured("annotations", STRINGS),
        honoured("container", Shape::Object(&CONTAINER)),
        honoured("script", Shape::Object(&SCRIPT)),
        honoured("steps", Shape::Groups(&STEP)),
        honoured("dag", Shape::Object(&DAG)),
        honoured("suspend", Shape::Object(&SUSPEND)),
        honoured("retryStrategy", Shape::Object(&RETRY_STRATEGY)),
        honoured("activeDeadlineSeconds", Shape::IntOrString),
        honoured("failFast", Shape::Boolean),
        passed("volumes", Shape::Objects(&VOLUME)),
        passed("nodeSelector", STRINGS),
        passed("affinity", Shape::Any),
        passed("tolerations", Shape::Objects(&TOLERATION)),
        passed("schedulerName", Shape::String),
        passed("priorityClassName", Shape::String),
        passed("serviceAccountName", Shape::String),
        passed("automountServiceAccountToken", Shape::Boolean),
        passed("hostAliases", ANY_LIST),
        passed("securityContext", Shape::Any),
        honoured("archiveLocation", Shape::Object(&ARCHIVE_LOCATION)),
        honoured("containerSet", Shape::Object(&CONTAINER_SET)),
        honoured("daemon", Shape::Boolean),
        honoured("data", Shape::Object(&DATA)),
        passed("executor", Shape::Object(&EXECUTOR)),
        honoured("http", Shape::Object(&HTTP)),
        passed("initContainers", Shape::Objects(&USER_CONTAINER)),
        honoured("memoize", Shape::Object(&MEMOIZE)),
        honoured("metrics", Shape::Object(&METRICS)),
        honoured("parallelism", Shape::Integer),
        honoured("pendingTimeout", Shape::String),
        honoured("plugin", Shape::Any),
        passed("podResources", Shape::Object(&RESOURCES)),
        passed("podSpecPatch", Shape::String),
        honoured("resource", Shape::Object(&RESOURCE)),
        passed("resourceClaims", ANY_LIST),
        passed("sidecars", Shape::Objects(&USER_CONTAINER)),
        honoured("synchronization", Shape::Object(&SYNCHRONIZATION)),
        honoured("timeout", Shape::String),
    ],
};

static CONTAINER: Type = Type { name: "Container", fields: &CONTAINER_FIELDS };

static METADATA: Type =
    Type { name: "Metadata", fields: &[honoured("labels", STRINGS), honoured("annotations", STRINGS)] };

pub(super) static ARGUMENTS: Type = Type {
    name: "Arguments",
    fields: &[
        honoured("parameters", Shape::Objects(&PARAMETER)),
        honoured("artifacts", Shape::Objects(&ARTIFACT)),
    ],
};

static INPUTS: Type = Type {
    name: "Inputs",
    fields: &[
        honoured("parameters", Shape::Objects(&PARAMETER)),
        honoured("artifacts", Shape::Objects(&ARTIFACT)),
    ],
};

static OUTPUTS: Type = Type {
    name: "Outputs",
    fields: &[
        honoured("parameters", Shape::Objects(&PARAMETER)),
        honoured("artifacts", Shape::Objects(&ARTIFACT)),
        dropped("result"),
        dropped("exitCode"),
    ],
};

static PARAMETER: Type = Type {
    name: "Parameter",
    fields: &[
        honoured("name", Shape::String),
        honoured("default", Shape::AnyString),
        honoured("value", Shape::AnyString),
        honoured("valueFrom", Shape::Object(&VALUE_FROM)),
        honoured("enum", Shape::List(&Shape::AnyString)),
        honoured("description", Shape::AnyString),
        honoured("globalName", Shape::String),
    ],
};

static VALUE_FROM: Type = Type {
    name: "ValueFrom",
    fields: &[
        honoured("path", Shape::String),
        honoured("parameter", Shape::String),
        honoured("supplied", Shape::Any),
        honoured("default", Shape::AnyString),
        honoured("configMapKeyRef", Shape::Object(&CONFIG_MAP_KEY)),
        refused("event"),
        honoured("expression", Shape::String),
        honoured("jqFilter", Shape::String),
        honoured("jsonPath", Shape::String),
    ],
};

const SOURCE: Field = honoured("source", Shape::String);
const MIRROR: Field = passed("mirrorVolumeMounts", Shape::Boolean);

/// The fields of a Container and one more.
pub(super) const fn container_and(extra: Field) -> [Field; CONTAINER_FIELDS.len() + 1] {
    let mut fields = [extra; CONTAINER_FIELDS.len() + 1];
    let mut index = 0;
    while index < CONTAINER_FIELDS.len() {
        fields[index] = CONTAINER_FIELDS[index];
        index += 1;
    }
    fields
}

static SCRIPT: Type = Type { name: "ScriptTemplate", fields: &container_and(SOURCE) };
static USER_CONTAINER: Type = Type { name: "UserContainer", fields: &container_and(MIRROR) };

/// A type with the fields that steps and tasks share, and some more. Written out in place: the types are recursive, and a
/// constant can't be.
macro_rules! step_type {
    ($name:literal $(, $more:expr)*) => {
        Type {
            name: $name,
            fields: &[
                honoured("name", Shape::String),
                honoured("template", Shape::String),
                honoured("arguments", Shape::Object(&ARGUMENTS)),
                honoured("withItems", Shape::List(&Shape::Any)),
                honoured("withParam", Shape::String),
                honoured("withSequence", Shape::Object(&SEQUENCE)),
                honoured("when", Shape::String),
                honoured("continueOn", Shape::Object(&CONTINUE_ON)),
                honoured("hooks", HOOKS),
                honoured("inline", Shape::Object(&TEMPLATE)),
                honoured("onExit", Shape::String),
                honoured("templateRef", Shape::Object(&TEMPLATE_REF)),
                $($more,)*
            ],
        }
    };
}

static STEP: Type = step_type!("WorkflowStep");

static TASK: Type = step_type!(
    "DAGTask",
    honoured("depends", Shape::String),
    honoured("dependencies", Shape::List(&Shape::String))
);

static DAG: Type = Type {
    name: "DAGTemplate",
    fields: &[
        honoured("target", Shape::String),
        honoured("tasks", Shape::Objects(&TASK)),
        honoured("failFast", Shape::Boolean),
    ],
};

static SUSPEND: Type = Type { name: "SuspendTemplate", fields: &[honoured("duration", Shape::String)] };

static SEQUENCE: Type = Type {
    name: "Sequence",
    fields: &[
        honoured("count", Shape::IntOrString),
        honoured("start", Shape::IntOrString),
        honoured("end", Shape::IntOrString),
        honoured("format", Shape::String),
    ],
};

static CONTINUE_ON: Type = Type {
    name: "ContinueOn",
    fields: &[honoured("error", Shape::Boolean), honoured("failed", Shape::Boolean)],
};

static RETRY_STRATEGY: Type = Type {
    name: "RetryStrategy",
    fields: &[
        honoured("limit", Shape::IntOrString),
        honoured("retryPolicy", Shape::String),
        honoured("backoff", Shape::Object(&BACKOFF)),
        honoured("affinity", Shape::Object(&RETRY_AFFINITY)),
        honoured("expression", Shape::String),
    ],
};

static METRICS: Type =
    Type { name: "Metrics", fields: &[honoured("prometheus", Shape::Objects(&PROMETHEUS))] };

static PROMETHEUS: Type = Type {
    name: "Prometheus",
    fields: &[
        honoured("name", Shape::String),
        honoured("help", Shape::String),
        honoured("labels", Shape::Objects(&METRIC_LABEL)),
        honoured("when", Shape::String),
        honoured("counter", Shape::Object(&COUNTER)),
        honoured("gauge", Shape::Object(&GAUGE)),
        honoured("histogram", Shape::Object(&HISTOGRAM)),
    ],
};

static METRIC_LABEL: Type = Type {
    name: "MetricLabel",
    fields: &[honoured("key", Shape::String), honoured("value", Shape::AnyString)],
};

static COUNTER: Type = Type { name: "Counter", fields: &[honoured("value", Shape::AnyString)] };

static GAUGE: Type = Type {
    name: "Gauge",
    fields: &[
        honoured("value", Shape::AnyString),
        honoured("realtime", Shape::Boolean),
        honoured("operation", Shape::String),
    ],
};

static HISTOGRAM: Type =
    Type { name: "Histogram", fields: &[honoured("value", Shape::AnyString), honoured("buckets", ANY_LIST)] };

static RETRY_AFFINITY: Type =
    Type { name: "RetryAffinity", fields: &[honoured("nodeAntiAffinity", Shape::Any)] };

static LABEL_VALUE_FROM: Type =
    Type { name: "LabelValueFrom", fields: &[honoured("expression", Shape::String)] };

static BACKOFF: Type = Type {
    name: "Backoff",
    fields: &[
        honoured("duration", Shape::String),
        honoured("factor", Shape::IntOrString),
        honoured("maxDuration", Shape::String),
        honoured("cap", Shape::String),
    ],
};

static LIFECYCLE_HOOK: Type = Type {
    name: "LifecycleHook",
    fields: &[
        honoured("template", Shape::String),
        honoured("arguments", Shape::Object(&ARGUMENTS)),
        honoured("expression", Shape::String),
        honoured("templateRef", Shape::Object(&TEMPLATE_REF)),
    ],
};

static TEMPLATE_REF: Type = Type {
    name: "TemplateRef",
    fields: &[
        honoured("name", Shape::String),
        honoured("template", Shape::String),
        honoured("clusterScope", Shape::Boolean),
    ],
};

pub(super) static WORKFLOW_TEMPLATE_REF: Type = Type {
    name: "WorkflowTemplateRef",
    fields: &[honoured("name", Shape::String), honoured("clusterScope", Shape::Boolean)],
};

static WORKFLOW_METADATA: Type = Type {
    name: "WorkflowMetadata",
    fields: &[
        honoured("labels", STRINGS),
        honoured("annotations", STRINGS),
        honoured("labelsFrom", Shape::Map(&Shape::Object(&LABEL_VALUE_FROM))),
    ],
};

static CONFIG_MAP_KEY: Type = Type {
    name: "ConfigMapKeyRef",
    fields: &[
        honoured("name", Shape::String),
        honoured("key", Shape::String),
        honoured("optional", Shape::Boolean),
    ],
};

static SYNCHRONIZATION: Type = Type {
    name: "Synchronization",
    fields: &[
        honoured("semaphores", Shape::Objects(&SEMAPHORE)),
        honoured("mutexes", Shape::Objects(&MUTEX)),
    ],
};

static SEMAPHORE: Type = Type {
    name: "SemaphoreRef",
    fields: &[
        honoured("configMapKeyRef", Shape::Object(&CONFIG_MAP_KEY)),
        honoured("database", Shape::Object(&SYNC_DATABASE)),
        honoured("namespace", Shape::String),
    ],
};

static SYNC_DATABASE: Type = Type { name: "SyncDatabaseRef", fields: &[honoured("key", Shape::String)] };

static MUTEX: Type = Type {
    name: "Mutex",
    fields: &[
        honoured("name", Shape::String),
        honoured("namespace", Shape::String),
        honoured("database", Shape::Boolean),
    ],
};

static MEMOIZE: Type = Type {
    name: "Memoize",
    fields: &[
        honoured("key", Shape::String),
        honoured("maxAge", Shape::String),
        honoured("cache", Shape::Object(&CACHE)),
    ],
};

static CACHE: Type =
    Type { name: "Cache", fields: &[honoured("configMap", Shape::Object(&CACHE_CONFIG_MAP))] };

static CACHE_CONFIG_MAP: Type = Type {
    name: "ConfigMapKeySelector",
    fields: &[honoured("name", Shape::String), dropped("key"), dropped("optional")],
};

static TTL_STRATEGY: Type = Type {
    name: "TTLStrategy",
    fields: &[
        honoured("secondsAfterCompletion", Shape::Integer),
        honoured("secondsAfterSuccess", Shape::Integer),
        honoured("secondsAfterFailure", Shape::Integer),
    ],
};
