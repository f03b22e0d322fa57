//! Argo's types of templates that run.

use super::argo::container_and;
use super::kubernetes::{KEY_SELECTOR, VOLUME_MOUNT};
use super::{Field, Shape, Type, honoured, passed};

const STRING_LIST: Shape = Shape::List(&Shape::String);
const DEPENDENCIES: Field = honoured("dependencies", STRING_LIST);

/// All types of this file, for the table.
pub(super) static TYPES: &[&Type] = &[
    &CONTAINER_SET,
    &CONTAINER_NODE,
    &CONTAINER_SET_RETRY,
    &RESOURCE,
    &MANIFEST_FROM,
    &HTTP,
    &HTTP_HEADER,
    &HTTP_HEADER_SOURCE,
    &HTTP_BODY,
    &DATA,
    &DATA_SOURCE,
    &TRANSFORMATION,
    &EXECUTOR,
];

pub(super) static CONTAINER_SET: Type = Type {
    name: "ContainerSetTemplate",
    fields: &[
        honoured("containers", Shape::Objects(&CONTAINER_NODE)),
        honoured("volumeMounts", Shape::Objects(&VOLUME_MOUNT)),
        honoured("retryStrategy", Shape::Object(&CONTAINER_SET_RETRY)),
    ],
};

static CONTAINER_NODE: Type = Type { name: "ContainerNode", fields: &container_and(DEPENDENCIES) };

static CONTAINER_SET_RETRY: Type = Type {
    name: "ContainerSetRetryStrategy",
    fields: &[honoured("duration", Shape::String), honoured("retries", Shape::IntOrString)],
};

pub(super) static RESOURCE: Type = Type {
    name: "ResourceTemplate",
    fields: &[
        honoured("action", Shape::String),
        honoured("mergeStrategy", Shape::String),
        honoured("manifest", Shape::String),
        honoured("manifestFrom", Shape::Object(&MANIFEST_FROM)),
        honoured("setOwnerReference", Shape::Boolean),
        honoured("successCondition", Shape::String),
        honoured("failureCondition", Shape::String),
        honoured("flags", STRING_LIST),
    ],
};

static MANIFEST_FROM: Type = Type { name: "ManifestFrom", fields: &[honoured("artifact", Shape::Any)] };

pub(super) static HTTP: Type = Type {
    name: "HTTP",
    fields: &[
        honoured("method", Shape::String),
        honoured("url", Shape::String),
        honoured("headers", Shape::Objects(&HTTP_HEADER)),
        honoured("timeoutSeconds", Shape::Integer),
        honoured("successCondition", Shape::String),
        honoured("body", Shape::String),
        honoured("bodyFrom", Shape::Object(&HTTP_BODY)),
        honoured("insecureSkipVerify", Shape::Boolean),
    ],
};

static HTTP_HEADER: Type = Type {
    name: "HTTPHeader",
    fields: &[
        honoured("name", Shape::String),
        honoured("value", Shape::String),
        honoured("valueFrom", Shape::Object(&HTTP_HEADER_SOURCE)),
    ],
};

static HTTP_HEADER_SOURCE: Type =
    Type { name: "HTTPHeaderSource", fields: &[honoured("secretKeyRef", Shape::Object(&KEY_SELECTOR))] };

static HTTP_BODY: Type = Type { name: "HTTPBodySource", fields: &[honoured("bytes", Shape::String)] };

pub(super) static DATA: Type = Type {
    name: "Data",
    fields: &[
        honoured("source", Shape::Object(&DATA_SOURCE)),
        honoured("transformation", Shape::Objects(&TRANSFORMATION)),
    ],
};

static DATA_SOURCE: Type = Type { name: "DataSource", fields: &[honoured("artifactPaths", Shape::Any)] };

static TRANSFORMATION: Type =
    Type { name: "TransformationStep", fields: &[honoured("expression", Shape::String)] };

pub(super) static EXECUTOR: Type =
    Type { name: "ExecutorConfig", fields: &[passed("serviceAccountName", Shape::String)] };
