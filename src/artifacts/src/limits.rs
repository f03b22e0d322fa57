/// Bounds of what is done in stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a signed request can be used, milliseconds. Less than the control plane's `artifact_sweep_after_ms`.
    pub url_life_ms: u64,
    /// How long an executor offers its result to an agent that can't be reached before it leaves it in the store, milliseconds.
    pub result_after_ms: u64,
    /// How long one call to a store may take, milliseconds; copies of large objects aside.
    pub call_ms: u64,
    /// How long a store may take to join the parts of an upload, milliseconds; less than executors wait for an answer.
    pub join_ms: u64,
    /// How long a copy may take, milliseconds.
    pub copy_ms: u64,
    /// Objects of one artifact that is a directory.
    pub files_max: usize,
    /// Objects that one listing of a data template gives.
    pub listed_max: usize,
    /// Bytes of one copy that the store makes by itself; above, the bytes pass through the agent.
    pub server_copy_bytes_max: u64,
    /// How long a Secret that was read is used again, milliseconds.
    pub secrets_kept_ms: u64,
    /// How long a clone of a repository may take, milliseconds; waiting for others included.
    pub clone_ms: u64,
    /// Clones at one time; more wait.
    pub clones_under_way_max: usize,
    /// Bounds of one clone.
    pub clone: argosy_git::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            url_life_ms: 15 * 60 * 1000,
            result_after_ms: 20_000,
            call_ms: 30_000,
            join_ms: 80_000,
            copy_ms: 60 * 60 * 1000,
            files_max: 10_000,
            listed_max: 100_000,
            server_copy_bytes_max: 5 * 1000 * 1000 * 1000,
            secrets_kept_ms: 30_000,
            clone_ms: 10 * 60 * 1000,
            clones_under_way_max: 2,
            clone: argosy_git::Limits::default(),
        }
    }
}
