//! Kubernetes' types, as far as they are checked by name.

use super::{Field, Shape, Type, passed};

const STRING_LIST: Shape = Shape::List(&Shape::String);

/// All types of this file, for the table.
pub(super) static TYPES: &[&Type] = &[
    &CONTAINER,
    &CONTAINER_PORT,
    &ENV_VAR,
    &ENV_VAR_SOURCE,
    &ENV_FROM,
    &KEY_SELECTOR,
    &RESOURCES,
    &VOLUME_MOUNT,
    &SECURITY_CONTEXT,
    &LOCAL_REFERENCE,
    &TOLERATION,
    &VOLUME,
];

static CONTAINER: Type = Type { name: "Container", fields: &CONTAINER_FIELDS };

pub(super) const CONTAINER_FIELDS: [Field; 25] = [
    passed("name", Shape::String),
    passed("image", Shape::String),
    passed("command", STRING_LIST),
    passed("args", STRING_LIST),
    passed("workingDir", Shape::String),
    passed("ports", Shape::Objects(&CONTAINER_PORT)),
    passed("env", Shape::Objects(&ENV_VAR)),
    passed("envFrom", Shape::Objects(&ENV_FROM)),
    passed("resources", Shape::Object(&RESOURCES)),
    passed("resizePolicy", Shape::List(&Shape::Any)),
    passed("restartPolicy", Shape::String),
    passed("restartPolicyRules", Shape::List(&Shape::Any)),
    passed("volumeMounts", Shape::Objects(&VOLUME_MOUNT)),
    passed("volumeDevices", Shape::List(&Shape::Any)),
    passed("livenessProbe", Shape::Any),
    passed("readinessProbe", Shape::Any),
    passed("startupProbe", Shape::Any),
    passed("lifecycle", Shape::Any),
    passed("terminationMessagePath", Shape::String),
    passed("terminationMessagePolicy", Shape::String),
    passed("imagePullPolicy", Shape::String),
    passed("securityContext", Shape::Object(&SECURITY_CONTEXT)),
    passed("stdin", Shape::Boolean),
    passed("stdinOnce", Shape::Boolean),
    passed("tty", Shape::Boolean),
];

static CONTAINER_PORT: Type = Type {
    name: "ContainerPort",
    fields: &[
        passed("name", Shape::String),
        passed("containerPort", Shape::Integer),
        passed("hostPort", Shape::Integer),
        passed("hostIP", Shape::String),
        passed("protocol", Shape::String),
    ],
};

static ENV_VAR: Type = Type {
    name: "EnvVar",
    fields: &[
        passed("name", Shape::String),
        passed("value", Shape::String),
        passed("valueFrom", Shape::Object(&ENV_VAR_SOURCE)),
    ],
};

static ENV_VAR_SOURCE: Type = Type {
    name: "EnvVarSource",
    fields: &[
        passed("fieldRef", Shape::Any),
        passed("resourceFieldRef", Shape::Any),
        passed("configMapKeyRef", Shape::Object(&KEY_SELECTOR)),
        passed("secretKeyRef", Shape::Object(&KEY_SELECTOR)),
        passed("fileKeyRef", Shape::Any),
    ],
};

pub(super) static KEY_SELECTOR: Type = Type {
    name: "KeySelector",
    fields: &[
        passed("name", Shape::String),
        passed("key", Shape::String),
        passed("optional", Shape::Boolean),
    ],
};

static ENV_FROM: Type = Type {
    name: "EnvFromSource",
    fields: &[
        passed("prefix", Shape::String),
        passed("configMapRef", Shape::Any),
        passed("secretRef", Shape::Any),
    ],
};

pub(super) static RESOURCES: Type = Type {
    name: "ResourceRequirements",
    fields: &[
        passed("limits", Shape::Map(&Shape::AnyString)),
        passed("requests", Shape::Map(&Shape::AnyString)),
        passed("claims", Shape::List(&Shape::Any)),
    ],
};

pub(super) static VOLUME_MOUNT: Type = Type {
    name: "VolumeMount",
    fields: &[
        passed("name", Shape::String),
        passed("mountPath", Shape::String),
        passed("subPath", Shape::String),
        passed("subPathExpr", Shape::String),
        passed("readOnly", Shape::Boolean),
        passed("recursiveReadOnly", Shape::String),
        passed("mountPropagation", Shape::String),
    ],
};

static SECURITY_CONTEXT: Type = Type {
    name: "SecurityContext",
    fields: &[
        passed("allowPrivilegeEscalation", Shape::Boolean),
        passed("appArmorProfile", Shape::Any),
        passed("capabilities", Shape::Any),
        passed("privileged", Shape::Boolean),
        passed("procMount", Shape::String),
        passed("readOnlyRootFilesystem", Shape::Boolean),
        passed("runAsGroup", Shape::Integer),
        passed("runAsNonRoot", Shape::Boolean),
        passed("runAsUser", Shape::Integer),
        passed("seLinuxOptions", Shape::Any),
        passed("seccompProfile", Shape::Any),
        passed("windowsOptions", Shape::Any),
    ],
};

pub(super) static LOCAL_REFERENCE: Type =
    Type { name: "LocalObjectReference", fields: &[passed("name", Shape::String)] };

pub(super) static TOLERATION: Type = Type {
    name: "Toleration",
    fields: &[
        passed("key", Shape::String),
        passed("operator", Shape::String),
        passed("value", Shape::String),
        passed("effect", Shape::String),
        passed("tolerationSeconds", Shape::Integer),
    ],
};

pub(super) static VOLUME: Type = Type {
    name: "Volume",
    fields: &[
        passed("name", Shape::String),
        passed("awsElasticBlockStore", Shape::Any),
        passed("azureDisk", Shape::Any),
        passed("azureFile", Shape::Any),
        passed("cephfs", Shape::Any),
        passed("cinder", Shape::Any),
        passed("configMap", Shape::Any),
        passed("csi", Shape::Any),
        passed("downwardAPI", Shape::Any),
        passed("emptyDir", Shape::Any),
        passed("ephemeral", Shape::Any),
        passed("fc", Shape::Any),
        passed("flexVolume", Shape::Any),
        passed("flocker", Shape::Any),
        passed("gcePersistentDisk", Shape::Any),
        passed("gitRepo", Shape::Any),
        passed("glusterfs", Shape::Any),
        passed("hostPath", Shape::Any),
        passed("image", Shape::Any),
        passed("iscsi", Shape::Any),
        passed("nfs", Shape::Any),
        passed("persistentVolumeClaim", Shape::Any),
        passed("photonPersistentDisk", Shape::Any),
        passed("portworxVolume", Shape::Any),
        passed("projected", Shape::Any),
        passed("quobyte", Shape::Any),
        passed("rbd", Shape::Any),
        passed("scaleIO", Shape::Any),
        passed("secret", Shape::Any),
        passed("storageos", Shape::Any),
        passed("vsphereVolume", Shape::Any),
    ],
};
