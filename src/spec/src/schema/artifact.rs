//! Artifacts: what is taken and yielded as files, and where it is kept.

use super::{Shape, Type, dropped, honoured, refused};

const SECRET: Shape = Shape::Object(&SECRET_KEY);

pub(super) static TYPES: &[&Type] = &[
    &ARTIFACT,
    &ARCHIVE,
    &TAR,
    &ARCHIVE_LOCATION,
    &S3,
    &S3_ENCRYPTION,
    &GCS,
    &AZURE,
    &OSS,
    &HTTP,
    &HTTP_AUTH,
    &BASIC_AUTH,
    &CLIENT_CERT_AUTH,
    &OAUTH2,
    &ENDPOINT_PARAMETER,
    &HEADER,
    &ARTIFACTORY,
    &GIT,
    &RAW,
    &PLUGIN,
    &SECRET_KEY,
    &ARTIFACT_GC,
    &WORKFLOW_ARTIFACT_GC,
    &REPOSITORY_REFERENCE,
];

/// A type with the fields of a location and some more, written out in place.
macro_rules! location_type {
    ($name:literal $(, $more:expr)*) => {
        Type {
            name: $name,
            fields: &[
                $($more,)*
                honoured("archiveLogs", Shape::Boolean),
                honoured("s3", Shape::Object(&S3)),
                honoured("gcs", Shape::Object(&GCS)),
                honoured("azure", Shape::Object(&AZURE)),
                honoured("oss", Shape::Object(&OSS)),
                honoured("http", Shape::Object(&HTTP)),
                honoured("artifactory", Shape::Object(&ARTIFACTORY)),
                honoured("git", Shape::Object(&GIT)),
                honoured("raw", Shape::Object(&RAW)),
                refused("hdfs"),
                honoured("plugin", Shape::Object(&PLUGIN)),
            ],
        }
    };
}

pub(super) static ARTIFACT: Type = location_type!(
    "Artifact",
    honoured("name", Shape::String),
    honoured("path", Shape::String),
    honoured("mode", Shape::Integer),
    honoured("recurseMode", Shape::Boolean),
    honoured("from", Shape::String),
    honoured("fromExpression", Shape::String),
    honoured("subPath", Shape::String),
    honoured("optional", Shape::Boolean),
    honoured("globalName", Shape::String),
    honoured("archive", Shape::Object(&ARCHIVE)),
    honoured("artifactGC", Shape::Object(&ARTIFACT_GC)),
    dropped("deleted")
);

pub(super) static ARCHIVE_LOCATION: Type = location_type!("ArtifactLocation");

static PLUGIN: Type = Type {
    name: "PluginArtifact",
    fields: &[
        honoured("name", Shape::String),
        honoured("configuration", Shape::String),
        honoured("connectionTimeoutSeconds", Shape::Integer),
        honoured("key", Shape::String),
    ],
};

static ARCHIVE: Type = Type {
    name: "ArchiveStrategy",
    fields: &[
        honoured("tar", Shape::Object(&TAR)),
        honoured("zip", Shape::Any),
        honoured("none", Shape::Any),
    ],
};

static TAR: Type = Type { name: "TarStrategy", fields: &[honoured("compressionLevel", Shape::Integer)] };

static S3: Type = Type {
    name: "S3Artifact",
    fields: &[
        honoured("key", Shape::String),
        honoured("endpoint", Shape::String),
        honoured("bucket", Shape::String),
        honoured("region", Shape::String),
        honoured("insecure", Shape::Boolean),
        honoured("accessKeySecret", SECRET),
        honoured("secretKeySecret", SECRET),
        honoured("sessionTokenSecret", SECRET),
        honoured("roleARN", Shape::String),
        honoured("useSDKCreds", Shape::Boolean),
        refused("createBucketIfNotPresent"),
        honoured("encryptionOptions", Shape::Object(&S3_ENCRYPTION)),
        honoured("caSecret", SECRET),
        honoured("addressingStyle", Shape::String),
    ],
};

static S3_ENCRYPTION: Type = Type {
    name: "S3EncryptionOptions",
    fields: &[
        honoured("kmsKeyId", Shape::String),
        refused("kmsEncryptionContext"),
        honoured("enableEncryption", Shape::Boolean),
        refused("serverSideCustomerKeySecret"),
    ],
};

static GCS: Type = Type {
    name: "GCSArtifact",
    fields: &[
        honoured("key", Shape::String),
        honoured("bucket", Shape::String),
        honoured("serviceAccountKeySecret", SECRET),
    ],
};

static AZURE: Type = Type {
    name: "AzureArtifact",
    fields: &[
        honoured("blob", Shape::String),
        honoured("endpoint", Shape::String),
        honoured("container", Shape::String),
        honoured("accountKeySecret", SECRET),
        honoured("useSDKCreds", Shape::Boolean),
    ],
};

static OSS: Type = Type {
    name: "OSSArtifact",
    fields: &[
        honoured("key", Shape::String),
        honoured("endpoint", Shape::String),
        honoured("bucket", Shape::String),
        honoured("accessKeySecret", SECRET),
        honoured("secretKeySecret", SECRET),
        refused("createBucketIfNotPresent"),
        honoured("securityToken", Shape::String),
        refused("lifecycleRule"),
        honoured("useSDKCreds", Shape::Boolean),
    ],
};

static HTTP: Type = Type {
    name: "HTTPArtifact",
    fields: &[
        honoured("url", Shape::String),
        honoured("headers", Shape::Objects(&HEADER)),
        honoured("auth", Shape::Object(&HTTP_AUTH)),
        dropped("saveStreamViaFile"),
    ],
};

static HEADER: Type =
    Type { name: "Header", fields: &[honoured("name", Shape::String), honoured("value", Shape::String)] };

static HTTP_AUTH: Type = Type {
    name: "HTTPAuth",
    fields: &[
        honoured("basicAuth", Shape::Object(&BASIC_AUTH)),
        honoured("clientCert", Shape::Object(&CLIENT_CERT_AUTH)),
        honoured("oauth2", Shape::Object(&OAUTH2)),
    ],
};

static BASIC_AUTH: Type = Type {
    name: "BasicAuth",
    fields: &[honoured("usernameSecret", SECRET), honoured("passwordSecret", SECRET)],
};

static CLIENT_CERT_AUTH: Type =
    Type { name: "ClientCertAuth", fields: &[refused("clientCertSecret"), refused("clientKeySecret")] };

static OAUTH2: Type = Type {
    name: "OAuth2Auth",
    fields: &[
        honoured("clientIDSecret", SECRET),
        honoured("clientSecretSecret", SECRET),
        honoured("tokenURLSecret", SECRET),
        honoured("scopes", Shape::List(&Shape::String)),
        honoured("endpointParams", Shape::Objects(&ENDPOINT_PARAMETER)),
    ],
};

static ENDPOINT_PARAMETER: Type = Type {
    name: "OAuth2EndpointParam",
    fields: &[honoured("key", Shape::String), honoured("value", Shape::String)],
};

static ARTIFACTORY: Type = Type {
    name: "ArtifactoryArtifact",
    fields: &[
        honoured("url", Shape::String),
        honoured("usernameSecret", SECRET),
        honoured("passwordSecret", SECRET),
    ],
};

static GIT: Type = Type {
    name: "GitArtifact",
    fields: &[
        honoured("repo", Shape::String),
        honoured("revision", Shape::String),
        honoured("depth", Shape::Integer),
        honoured("fetch", Shape::List(&Shape::String)),
        honoured("usernameSecret", SECRET),
        honoured("passwordSecret", SECRET),
        honoured("sshPrivateKeySecret", SECRET),
        honoured("insecureIgnoreHostKey", Shape::Boolean),
        honoured("disableSubmodules", Shape::Boolean),
        honoured("singleBranch", Shape::Boolean),
        honoured("branch", Shape::String),
        honoured("insecureSkipTLS", Shape::Boolean),
    ],
};

static RAW: Type = Type { name: "RawArtifact", fields: &[honoured("data", Shape::String)] };

static SECRET_KEY: Type = Type {
    name: "SecretKeySelector",
    fields: &[
        honoured("name", Shape::String),
        honoured("key", Shape::String),
        honoured("optional", Shape::Boolean),
    ],
};

/// Argosy deletes with its agents' own rights: there are no Pods whose account or metadata could matter.
static ARTIFACT_GC: Type = Type {
    name: "ArtifactGC",
    fields: &[honoured("strategy", Shape::String), dropped("serviceAccountName"), dropped("podMetadata")],
};

pub(super) static WORKFLOW_ARTIFACT_GC: Type = Type {
    name: "WorkflowLevelArtifactGC",
    fields: &[
        honoured("strategy", Shape::String),
        dropped("serviceAccountName"),
        dropped("podMetadata"),
        honoured("forceFinalizerRemoval", Shape::Boolean),
        dropped("podSpecPatch"),
    ],
};

pub(super) static REPOSITORY_REFERENCE: Type = Type {
    name: "ArtifactRepositoryRef",
    fields: &[honoured("configMap", Shape::String), honoured("key", Shape::String)],
};
