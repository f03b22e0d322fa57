//! Start permits of exclusive steps: on their way to the log, and back after commit.

use super::cluster::Kind;
use super::{Answer, Sessions};
use argosy_proto::agent::{self, control_frame::Body as Down};
use argosy_proto::command::{self, command::Body as Ask, reply::Body as Reply};
use argosy_proto::common::Fence;

impl Sessions {
    /// Asked again while it is decided, it is one question.
    pub(super) fn on_ask_permit(&mut self, name: &str, ask: agent::AskPermit) {
        let agent::AskPermit { fence: Some(fence), holder } = ask else {
            self.counters.frames_unexpected += 1;
            return;
        };
        let waiting_max = self.limits.permits_waiting_max;
        let Some(session) = self.clusters.get_mut(name).and_then(|cluster| cluster.session.as_mut()) else {
            return;
        };
        if !session.live {
            self.counters.frames_unexpected += 1;
            return;
        }
        let asked = (fence, holder);
        if session.permits.contains(&asked) {
            return;
        }
        if session.permits.len() >= waiting_max {
            self.counters.permits_dropped += 1;
            return;
        }
        session.permits.insert(asked.clone());
        let (epoch, (fence, holder)) = (session.epoch, asked);
        let grant = command::GrantPermit {
            cluster: name.to_owned(),
            session_epoch: epoch,
            fence: Some(fence),
            holder: holder.clone(),
        };
        self.counters.permits_asked += 1;
        self.decide(name, Kind::Permit { epoch, fence, holder }, Ask::GrantPermit(grant));
    }

    pub(super) fn on_permit_decided(
        &mut self,
        name: &str,
        epoch: u64,
        fence: Fence,
        holder: String,
        answer: Answer,
    ) {
        // In a later session the agent asks again.
        let Some(session) = self.current(name, epoch) else { return };
        let asked = (fence, holder);
        session.permits.remove(&asked);
        let connection = session.connection;
        match answer {
            Answer::Reply(command::Reply { body: Some(Reply::PermitDecided(decided)) }) => {
                self.counters.permits_refused += u64::from(!decided.granted);
                let verdict = agent::PermitVerdict {
                    fence: Some(fence),
                    holder: asked.1,
                    granted: decided.granted,
                    reason: decided.reason,
                    exclusive_lease_ms: decided.exclusive_lease_ms,
                };
                self.send(connection, epoch, Down::PermitVerdict(verdict));
            }
            // The executor asks again.
            Answer::Reply(_) | Answer::Refused(_) | Answer::Lost => {}
        }
    }
}
