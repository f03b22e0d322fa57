//! What is said of fields beside their place in a table: why some are refused or left out, and what fields of older
//! versions of Argo have become.

use super::{Field, Status};

/// What a field of an older version has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// One element of a list.
    OneOf(&'static str),
    /// Nothing: it is left out.
    Nothing,
}

/// A field that the current version of Argo has no more.
#[derive(Debug)]
pub(crate) struct Deprecation {
    /// The type it was in.
    pub(crate) owner: &'static str,
    pub(crate) field: &'static str,
    pub(crate) becomes: Becomes,
    /// What to write instead.
    pub(crate) says: &'static str,
}

pub(crate) static DEPRECATIONS: &[Deprecation] = &[
    Deprecation {
        owner: "CronWorkflowSpec",
        field: "schedule",
        becomes: Becomes::OneOf("schedules"),
        says: "write `schedules`, a list",
    },
    Deprecation {
        owner: "Synchronization",
        field: "mutex",
        becomes: Becomes::OneOf("mutexes"),
        says: "write `mutexes`, a list",
    },
    Deprecation {
        owner: "Synchronization",
        field: "semaphore",
        becomes: Becomes::OneOf("semaphores"),
        says: "write `semaphores`, a list",
    },
    Deprecation {
        owner: "WorkflowSpec",
        field: "podPriority",
        becomes: Becomes::Nothing,
        says: "it is left out; write `podPriorityClassName`",
    },
];

/// What has become of a field of an older version.
pub(crate) fn deprecation(owner: &str, field: &str) -> Option<&'static Deprecation> {
    DEPRECATIONS.iter().find(|old| old.owner == owner && old.field == field)
}

/// Why a field is left out or refused; empty for others.
pub(crate) fn reason(owner: &str, field: &Field) -> &'static str {
    let given = || {
        let is_of = |of: &str, name: &str| name == field.name && (of == owner || of == ANY_TYPE);
        REASONS.iter().find(|(of, name, _)| is_of(of, name)).map(|(_, _, reason)| *reason)
    };
    match field.status {
        Status::Honoured | Status::Passed => "",
        Status::Dropped => given().unwrap_or_default(),
        Status::Refused => given().unwrap_or_default(),
    }
}

const ANY_TYPE: &str = "*";
const NO_POD: &str = "artifacts are deleted without a Pod of their own";
const BY_SERVER: &str = "Kubernetes fills it in";

/// Type (or any), field, reason.
pub(crate) static REASONS: &[(&str, &str, &str)] = &[
    (ANY_TYPE, "status", "what a workflow has come to is not part of a submission"),
    ("ObjectMeta", "uid", BY_SERVER),
    ("ObjectMeta", "resourceVersion", BY_SERVER),
    ("ObjectMeta", "generation", BY_SERVER),
    ("ObjectMeta", "creationTimestamp", BY_SERVER),
    ("ObjectMeta", "deletionTimestamp", BY_SERVER),
    ("ObjectMeta", "deletionGracePeriodSeconds", BY_SERVER),
    ("ObjectMeta", "managedFields", BY_SERVER),
    ("ObjectMeta", "selfLink", BY_SERVER),
    ("ObjectMeta", "finalizers", "a workflow is no Kubernetes object here: there is nobody to wait for"),
    ("ObjectMeta", "ownerReferences", "a workflow is no Kubernetes object here: nothing can own it"),
    ("Outputs", "result", "what a step yields is not part of a submission"),
    ("Outputs", "exitCode", "what a step yields is not part of a submission"),
    ("HTTPArtifact", "saveStreamViaFile", "how bytes are buffered on their way is the executor's business"),
    (ANY_TYPE, "serviceAccountName", NO_POD),
    (ANY_TYPE, "podMetadata", NO_POD),
    (ANY_TYPE, "podSpecPatch", NO_POD),
    ("Artifact", "deleted", "what became of an artifact is not part of a submission"),
    (
        "ValueFrom",
        "event",
        "only the arguments of a WorkflowEventBinding have an event; Argo ignores it elsewhere",
    ),
    ("SubmitArguments", "artifacts", "an event carries no files; Argo ignores them"),
    (ANY_TYPE, "hdfs", "the executor has no HDFS client; write it as `http` with the WebHDFS address"),
    (ANY_TYPE, "createBucketIfNotPresent", "agents may read and write objects only; make the bucket first"),
    (ANY_TYPE, "lifecycleRule", "agents may read and write objects only; set it at the bucket"),
    (
        ANY_TYPE,
        "kmsEncryptionContext",
        "a copy within the store could not keep it; `kmsKeyId` alone is honoured",
    ),
    (
        ANY_TYPE,
        "serverSideCustomerKeySecret",
        "every request would carry the key into the Pod; use `enableEncryption`, with `kmsKeyId` for a key of your own",
    ),
    (ANY_TYPE, "clientCertSecret", "the executor shows no client certificates; use `basicAuth` or `oauth2`"),
    (ANY_TYPE, "clientKeySecret", "the executor shows no client certificates; use `basicAuth` or `oauth2`"),
    ("ConfigMapKeySelector", "key", "a cache is chosen by its name alone, in Argo too"),
    ("ConfigMapKeySelector", "optional", "a cache is made when it is first used, in Argo too"),
];
