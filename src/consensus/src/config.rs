use crate::{Error, MemberId};

/// Configuration of a member's consensus.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub member: MemberId,
    /// Name of the cell; messages of other cells are refused.
    pub cell: String,
    /// The voters that found the cell: the same list on each of them, used on an empty store only. Empty for a member
    /// that joins an existing cell.
    pub voters: Vec<MemberId>,
    /// Members to listen to although the replicated configuration does not name them (yet): while joining, and for
    /// those added after this member fell behind.
    pub known_peers: Vec<MemberId>,
    /// Seed of the election jitter. Must differ between starts and members outside of simulation.
    pub seed: u64,
    /// Time between two calls of [`crate::Consensus::tick`], in milliseconds.
    pub tick_ms: u64,
    /// Ticks without a leader after which an election starts; the jitter adds up to as many again.
    pub election_ticks: usize,
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: usize,
    /// Limits on sizes and counts.
    pub limits: Limits,
    /// Where log lines of the Raft library go.
    pub log: LogTarget,
}

impl Config {
    /// The defaults: an election after one to two seconds of silence, heartbeats every 100 ms.
    pub fn new(member: MemberId, cell: impl Into<String>, voters: Vec<MemberId>) -> Self {
        Self {
            member,
            cell: cell.into(),
            voters,
            known_peers: Vec::new(),
            seed: 0,
            tick_ms: 100,
            election_ticks: 10,
            heartbeat_ticks: 1,
            limits: Limits::default(),
            log: LogTarget::Tracing,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |message: String| Err(Error::Config { message });
        if self.member == 0 || self.voters.contains(&0) {
            return refuse("a member's number is 1 or more".to_owned());
        }
        let mut voters = self.voters.clone();
        voters.sort_unstable();
        voters.dedup();
        if voters.len() != self.voters.len() {
            return refuse(format!("a voter is named twice in {:?}", self.voters));
        }
        if !self.voters.is_empty() && !self.voters.contains(&self.member) {
            return refuse(format!("member {} is not one of the voters {:?}", self.member, self.voters));
        }
        if self.voters.len() > self.limits.members_max {
            return refuse(format!(
                "{} voters, at most {} can be",
                self.voters.len(),
                self.limits.members_max
            ));
        }
        if self.heartbeat_ticks == 0 || self.election_ticks < 3 * self.heartbeat_ticks {
            return refuse("an election needs at least three heartbeats' time".to_owned());
        }
        Ok(())
    }
}

/// Limits on sizes and counts; sizes in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Voters and learners together.
    pub members_max: usize,
    /// One proposal.
    pub proposal_bytes_max: usize,
    /// Entries in one message, unless a single entry is larger.
    pub append_bytes_max: u64,
    /// Append messages in flight to one follower.
    pub append_messages_max: usize,
    /// Proposals that are not committed; more are refused as busy.
    pub uncommitted_bytes_max: u64,
    /// Committed entries applied in one batch of rows.
    pub apply_bytes_max: u64,
    /// A message of a peer.
    pub message_bytes_max: usize,
    /// Reads waiting for confirmation, on the leader and on each member; the oldest are forgotten.
    pub reads_max: usize,
    /// Newest entries of the log that are kept in memory.
    pub log_cache_bytes: usize,
    /// Entries kept behind the newest, for followers that are a little behind.
    pub log_entries_kept: u64,
    /// Bytes of entries kept; wins over `log_entries_kept`.
    pub log_bytes_kept: u64,
    /// Snapshots sent at a time.
    pub snapshots_sending_max: usize,
    /// Rows in one chunk of a snapshot, unless a single row is larger.
    pub snapshot_chunk_bytes: usize,
    /// Chunks sent ahead of their acknowledgement.
    pub snapshot_window_chunks: usize,
    /// A whole snapshot that is received.
    pub snapshot_bytes_max: u64,
    /// Ticks without an acknowledgement after which chunks are sent again.
    pub snapshot_resend_ticks: u64,
    /// Ticks without progress after which sending a snapshot is given up.
    pub snapshot_timeout_ticks: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            members_max: 15,
            proposal_bytes_max: 2 << 20,
            append_bytes_max: 256 << 10,
            append_messages_max: 256,
            uncommitted_bytes_max: 32 << 20,
            apply_bytes_max: 4 << 20,
            message_bytes_max: 8 << 20,
            reads_max: 4096,
            log_cache_bytes: 16 << 20,
            log_entries_kept: 20_000,
            log_bytes_kept: 128 << 20,
            snapshots_sending_max: 2,
            snapshot_chunk_bytes: 256 << 10,
            snapshot_window_chunks: 16,
            snapshot_bytes_max: 64 << 30,
            snapshot_resend_ticks: 10,
            snapshot_timeout_ticks: 300,
        }
    }
}

/// Where log lines of the Raft library go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// To `tracing`, with the target `raft`, one level lower than the library says (its `info` is our `debug`).
    Tracing,
    /// Nowhere, for simulation.
    Discard,
}
