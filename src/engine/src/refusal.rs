use argosy_proto::command::Refusal;

/// Why a command was not carried out. The codes are stable; `docs/errors.md` has a line for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command has no body this version knows.
    UnknownCommand,
    /// The manifest is not valid.
    InvalidManifest,
    /// The manifest is too large.
    ManifestTooLarge,
    /// A workflow of that name exists.
    WorkflowExists,
    /// No workflow of that name.
    WorkflowMissing,
    /// The workflow is over.
    WorkflowFinished,
    /// Too many workflows are under way.
    TooManyWorkflows,
    /// The same idempotency key came with another request.
    IdempotencyConflict,
    /// A cluster's name breaks the rules.
    InvalidClusterName,
    /// No cluster of that name.
    ClusterMissing,
    /// The cluster is registered with another uid.
    ClusterUidMismatch,
    /// Too many clusters.
    TooManyClusters,
    /// No such invite.
    InviteUnknown,
    /// The invite's time ran out.
    InviteExpired,
    /// The invite was used.
    InviteUsed,
    /// The invite is for another cluster.
    InviteOtherCluster,
    /// An older session speaks.
    StaleSession,
    /// A lost part of history may run the step that must not overlap.
    LostPartRuns,
    /// An invite's lifetime is out of range.
    InvalidTtl,
    /// A field that is required is missing or wrong.
    InvalidArgument,
    /// The workflow cannot be placed as written.
    Unplaceable,
    /// Nothing that waits is selected, or it cannot be set.
    NothingSelected,
    /// A waiting node lacks an output that somebody must supply.
    NodeNotReady,
    /// The workflow cannot be retried as it stands.
    NotRetryable,
    /// A template of that name exists.
    TemplateExists,
    /// No template of that name.
    TemplateMissing,
    /// The template was changed since the caller looked.
    TemplateChanged,
    /// The cell has all the templates it may have.
    TooManyTemplates,
    /// The cluster holds attempts.
    ClusterHolds,
    /// The cluster was removed.
    ClusterRemoved,
    /// No cluster that has joined can run such a template.
    RuntimeMissing,
    /// A member's number was used before.
    MemberNumberUsed,
    /// The cell is not in a state for this change of its members.
    MembershipRefused,
    /// A ConfigMap of that name exists.
    ConfigMapExists,
    /// No ConfigMap of that name.
    ConfigMapMissing,
    /// The ConfigMap was changed since the caller looked.
    ConfigMapChanged,
    /// The ConfigMap may not be changed.
    ConfigMapImmutable,
    /// The ConfigMap is too large.
    ConfigMapTooLarge,
    /// The cell has all the ConfigMaps it may have.
    TooManyConfigMaps,
    /// ConfigMaps of one name differ between clusters, or from the cell's own: a warning.
    ConfigMapDiffers,
    /// A semaphore's limit of that name exists.
    SyncLimitExists,
    /// No semaphore's limit of that name.
    SyncLimitMissing,
    /// The cell has all the limits of semaphores it may have.
    TooManySyncLimits,
    /// A CronWorkflow or WorkflowEventBinding of that name exists.
    CronExists,
    /// No CronWorkflow or WorkflowEventBinding of that name.
    CronMissing,
    /// The CronWorkflow was changed since the caller looked.
    CronChanged,
    /// The cell has all the CronWorkflows or WorkflowEventBindings it may have.
    TooManyCrons,
    /// A backfill cannot be made as asked for.
    BackfillRefused,
    /// No archived workflow of that uid.
    ArchiveMissing,
    /// The workflow is still on its way to the archive.
    ArchiveNotReady,
    /// The archived workflow is too large to come back.
    ArchiveTooLarge,
    /// The archive's records can't be read.
    ArchiveUnreadable,
    /// The certificate of a cluster's agent was revoked.
    IdentityRevoked,
    /// Two processes have used the identity of a cluster's agent.
    IdentityLocked,
    /// The key of a revoked or locked identity.
    KeyRefused,
    /// Nothing that an operator could approve.
    NothingToApprove,
    /// A roll of the certificate authority can't take this step now.
    RollRefused,
    /// A drill cannot begin as things stand.
    DrillRefused,
    /// No drill of that number.
    DrillMissing,
    /// The drill's loss is over.
    DrillOver,
    /// A schedule of drills of that name exists.
    DrillScheduleExists,
    /// No schedule of drills of that name.
    DrillScheduleMissing,
    /// The cell has all the schedules of drills it may have.
    TooManyDrillSchedules,
    /// The storm brake holds nothing that could be resumed.
    NothingHeld,
}

impl Code {
    /// Every code, for the documentation's test.
    pub const ALL: &[Self] = &[
        Self::UnknownCommand,
        Self::InvalidManifest,
        Self::ManifestTooLarge,
        Self::WorkflowExists,
        Self::WorkflowMissing,
        Self::WorkflowFinished,
        Self::TooManyWorkflows,
        Self::IdempotencyConflict,
        Self::InvalidClusterName,
        Self::ClusterMissing,
        Self::ClusterUidMismatch,
        Self::TooManyClusters,
        Self::InviteUnknown,
        Self::InviteExpired,
        Self::InviteUsed,
        Self::InviteOtherCluster,
        Self::StaleSession,
        Self::LostPartRuns,
        Self::InvalidTtl,
        Self::InvalidArgument,
        Self::Unplaceable,
        Self::NothingSelected,
        Self::NodeNotReady,
        Self::NotRetryable,
        Self::TemplateExists,
        Self::TemplateMissing,
        Self::TemplateChanged,
        Self::TooManyTemplates,
        Self::RuntimeMissing,
        Self::MemberNumberUsed,
        Self::MembershipRefused,
        Self::ConfigMapExists,
        Self::ConfigMapMissing,
        Self::ConfigMapChanged,
        Self::ConfigMapImmutable,
        Self::ConfigMapTooLarge,
        Self::TooManyConfigMaps,
        Self::ConfigMapDiffers,
        Self::SyncLimitExists,
        Self::SyncLimitMissing,
        Self::TooManySyncLimits,
        Self::CronExists,
        Self::CronMissing,
        Self::CronChanged,
        Self::TooManyCrons,
        Self::BackfillRefused,
        Self::ArchiveMissing,
        Self::ArchiveNotReady,
        Self::ArchiveTooLarge,
        Self::ArchiveUnreadable,
        Self::ClusterHolds,
        Self::ClusterRemoved,
        Self::IdentityRevoked,
        Self::IdentityLocked,
        Self::KeyRefused,
        Self::NothingToApprove,
        Self::RollRefused,
        Self::DrillRefused,
        Self::DrillMissing,
        Self::DrillOver,
        Self::DrillScheduleExists,
        Self::DrillScheduleMissing,
        Self::TooManyDrillSchedules,
        Self::NothingHeld,
    ];

    /// Code, gRPC code and HTTP status.
    fn numbers(self) -> (&'static str, u32, u32) {
        match self {
            Self::UnknownCommand => ("ARG1001", 12, 501),
            Self::InvalidManifest => ("ARG1002", 3, 400),
            Self::ManifestTooLarge => ("ARG1003", 3, 400),
            Self::WorkflowExists => ("ARG1004", 6, 409),
            Self::WorkflowMissing => ("ARG1005", 5, 404),
            Self::WorkflowFinished => ("ARG1006", 13, 500),
            Self::TooManyWorkflows => ("ARG1007", 8, 429),
            Self::IdempotencyConflict => ("ARG1008", 6, 409),
            Self::InvalidClusterName => ("ARG1009", 3, 400),
            Self::ClusterMissing => ("ARG1010", 5, 404),
            Self::ClusterUidMismatch => ("ARG1011", 7, 403),
            Self::TooManyClusters => ("ARG1012", 8, 429),
            Self::InviteUnknown => ("ARG1013", 7, 403),
            Self::InviteExpired => ("ARG1014", 7, 403),
            Self::InviteUsed => ("ARG1015", 7, 403),
            Self::InviteOtherCluster => ("ARG1016", 7, 403),
            Self::StaleSession => ("ARG1017", 9, 409),
            Self::LostPartRuns => ("ARG1250", 9, 409),
            Self::InvalidTtl => ("ARG1018", 3, 400),
            Self::InvalidArgument => ("ARG1019", 3, 400),
            Self::Unplaceable => ("ARG1020", 3, 400),
            Self::NothingSelected => ("ARG1021", 13, 500),
            Self::NodeNotReady => ("ARG1022", 13, 500),
            Self::NotRetryable => ("ARG1023", 3, 400),
            Self::TemplateExists => ("ARG1024", 6, 409),
            Self::TemplateMissing => ("ARG1025", 5, 404),
            Self::TemplateChanged => ("ARG1026", 6, 409),
            Self::TooManyTemplates => ("ARG1027", 8, 429),
            Self::ClusterHolds => ("ARG1220", 9, 409),
            Self::ClusterRemoved => ("ARG1221", 7, 403),
            Self::RuntimeMissing => ("ARG1121", 9, 400),
            Self::MemberNumberUsed => ("ARG1240", 9, 409),
            Self::MembershipRefused => ("ARG1241", 9, 409),
            Self::ConfigMapExists => ("ARG1100", 6, 409),
            Self::ConfigMapMissing => ("ARG1101", 5, 404),
            Self::ConfigMapChanged => ("ARG1102", 6, 409),
            Self::ConfigMapImmutable => ("ARG1103", 3, 422),
            Self::ConfigMapTooLarge => ("ARG1104", 3, 413),
            Self::TooManyConfigMaps => ("ARG1105", 8, 429),
            Self::ConfigMapDiffers => ("ARG1170", 9, 409),
            Self::SyncLimitExists => ("ARG1106", 6, 409),
            Self::SyncLimitMissing => ("ARG1107", 5, 404),
            Self::TooManySyncLimits => ("ARG1108", 8, 429),
            Self::CronExists => ("ARG1140", 6, 409),
            Self::CronMissing => ("ARG1141", 5, 404),
            Self::CronChanged => ("ARG1142", 6, 409),
            Self::TooManyCrons => ("ARG1143", 8, 429),
            Self::BackfillRefused => ("ARG1144", 3, 400),
            Self::ArchiveMissing => ("ARG1145", 5, 404),
            Self::ArchiveNotReady => ("ARG1146", 14, 503),
            Self::ArchiveTooLarge => ("ARG1147", 8, 400),
            Self::ArchiveUnreadable => ("ARG1148", 13, 500),
            Self::IdentityRevoked => ("ARG1183", 7, 403),
            Self::IdentityLocked => ("ARG1184", 7, 403),
            Self::KeyRefused => ("ARG1185", 7, 403),
            Self::NothingToApprove => ("ARG1186", 9, 409),
            Self::RollRefused => ("ARG1187", 9, 409),
            Self::DrillRefused => ("ARG1230", 9, 409),
            Self::DrillMissing => ("ARG1231", 5, 404),
            Self::DrillOver => ("ARG1232", 9, 409),
            Self::DrillScheduleExists => ("ARG1233", 6, 409),
            Self::DrillScheduleMissing => ("ARG1234", 5, 404),
            Self::TooManyDrillSchedules => ("ARG1235", 8, 429),
            Self::NothingHeld => ("ARG1190", 9, 409),
        }
    }

    /// The stable code, e.g. `ARG1004`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.numbers().0
    }

    /// A refusal with this code.
    #[must_use]
    pub fn refuse(self, message: impl Into<String>) -> Refusal {
        let (code, grpc_code, http_status) = self.numbers();
        Refusal { code: code.to_owned(), grpc_code, http_status, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_documented() {
        let documented = include_str!("../../../docs/errors.md");
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL.iter().copied() {
            assert!(seen.insert(code.as_str()), "{code:?} has the number of another");
            assert!(documented.contains(code.as_str()), "{code:?} is not in docs/errors.md");
        }
    }
}
