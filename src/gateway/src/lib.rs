//! REST: the API that Argo's clients know, and the control plane's own few routes.
//!
//! The gateway translates: requests to commands and reads, replies and views to Argo's JSON, refusals to Argo's error
//! envelopes. It holds no workflow state, decides nothing and opens no socket: [`router`] is given to the server, which
//! listens, speaks TLS and implements [`Cell`].
//!
//! Invariants:
//! - An answered change is committed; an answer of unknown outcome says so and is safe to repeat with the same
//!   `Idempotency-Key`.
//! - GET and LIST see every change that was answered before, on any member, unless `consistency=stale` is asked for.
//! - Nothing under `/api` is answered without a token.
//! - Every body, stream, list and log line has a maximum ([`Limits`]).
//!
//! Failure model: without a leader, changes and reads fail with 503 (gRPC code 14) and change nothing; stale reads,
//! `/healthz` and `/metrics` go on. A watcher that falls behind is told so and cut off.

mod cell;

pub use cell::{
    Behind, Cell, CellStatus, Change, ClusterRecord, CommandError, Consistency, Invite, InviteRequest,
    LogError, LogQuery, LogSource, MemberStatus, ReadError, SessionStatus, Summary, View,
};
