//! Commands of clients: decided here by the leader, passed on to it by everybody else.

use crate::leading::{Answer, Waiter};
use crate::{Member, Now, Outcome, Output};
use argosy_model::MemberId;
use argosy_proto::command::{Command, Refusal, Reply};
use argosy_proto::peer::{Forward, ForwardReply, forward_reply, peer_frame};
use argosy_store::Kv;
use std::collections::BTreeMap;

/// Commands passed on to the leader and not answered yet, with the moment they become unknown.
#[derive(Default)]
pub(crate) struct Forwards(BTreeMap<u64, u64>);

impl<K: Kv> Member<K> {
    pub(crate) fn client_command(&mut self, now: Now, request: u64, command: Command) {
        if self.leading.is_some() {
            return self.enqueue(now, Waiter::Client { request, command });
        }
        let outcome = match self.leader() {
            None => Outcome::NotLeader,
            Some(_) if self.forwards.0.len() >= self.config.forwards_max => {
                self.counters.overloaded += 1;
                Outcome::Overloaded
            }
            Some(leader) => {
                self.forwards.0.insert(request, now.steady_ms + self.config.forward_timeout_ms);
                let forward = Forward { request, command: Some(command) };
                return self.send_peer(leader, peer_frame::Body::Forward(forward));
            }
        };
        self.outputs.push(Output::Answer { request, outcome });
    }

    fn enqueue(&mut self, now: Now, waiter: Waiter) {
        let Some(leading) = &mut self.leading else {
            return self.deliver(now, &waiter, Outcome::NotLeader);
        };
        if leading.queue.len() >= self.config.commands_waiting_max {
            self.counters.overloaded += 1;
            return self.deliver(now, &waiter, Outcome::Overloaded);
        }
        leading.queue.push_back(waiter);
    }

    /// A command that a peer passes on.
    pub(crate) fn forwarded(&mut self, now: Now, from: MemberId, forward: Forward) {
        let Forward { request, command: Some(command) } = forward else {
            return self.drop_peer_frame("empty_forward");
        };
        self.enqueue(now, Waiter::Peer { member: from, request, command });
    }

    pub(crate) fn forward_reply(&mut self, reply: ForwardReply) {
        let request = reply.request;
        if self.forwards.0.remove(&request).is_none() {
            return self.drop_peer_frame("late_forward_reply");
        }
        let outcome = match reply.outcome {
            Some(forward_reply::Outcome::Reply(reply)) => Outcome::Done(reply),
            Some(forward_reply::Outcome::Refusal(refusal)) => Outcome::Refused(refusal),
            Some(forward_reply::Outcome::NotLeader(_)) => Outcome::NotLeader,
            Some(forward_reply::Outcome::Overloaded(_)) => Outcome::Overloaded,
            Some(forward_reply::Outcome::Unknown(_)) | None => Outcome::Unknown,
        };
        self.outputs.push(Output::Answer { request, outcome });
    }

    /// What was passed on to a leader that is gone, or that does not answer, is unknown.
    pub(crate) fn expire_forwards(&mut self, now: Now) {
        let due = |deadline: &u64| *deadline <= now.steady_ms;
        let expired: Vec<u64> = self
            .forwards
            .0
            .iter()
            .filter(|(_, deadline)| due(deadline))
            .map(|(request, _)| *request)
            .collect();
        self.forget_forwards(&expired);
    }

    /// The leader changed: what the old one was asked is unknown, and agents' sessions go on with the new one.
    pub(crate) fn leader_changed(&mut self, now: Now) {
        let all: Vec<u64> = self.forwards.0.keys().copied().collect();
        self.forget_forwards(&all);
        self.relay_hellos(now);
    }

    fn forget_forwards(&mut self, requests: &[u64]) {
        for request in requests {
            self.forwards.0.remove(request);
            self.outputs.push(Output::Answer { request: *request, outcome: Outcome::Unknown });
        }
    }

    /// An answer that is safe to tell.
    pub(crate) fn answer(&mut self, now: Now, waiter: &Waiter, answer: Result<Reply, Refusal>) {
        let outcome = match answer {
            Ok(reply) => Outcome::Done(reply),
            Err(refusal) => Outcome::Refused(refusal),
        };
        self.deliver(now, waiter, outcome);
    }

    pub(crate) fn answer_unknown(&mut self, now: Now, answers: Vec<Answer>) {
        for (waiter, _) in answers {
            self.deliver(now, &waiter, Outcome::Unknown);
        }
    }

    /// Tells an outcome to whoever waits.
    pub(crate) fn deliver(&mut self, now: Now, waiter: &Waiter, outcome: Outcome) {
        match waiter {
            Waiter::Client { request, .. } => {
                self.outputs.push(Output::Answer { request: *request, outcome })
            }
            Waiter::Peer { member, request, .. } => {
                let outcome = match outcome {
                    Outcome::Done(reply) => forward_reply::Outcome::Reply(reply),
                    Outcome::Refused(refusal) => forward_reply::Outcome::Refusal(refusal),
                    Outcome::NotLeader => forward_reply::Outcome::NotLeader(true),
                    Outcome::Overloaded => forward_reply::Outcome::Overloaded(true),
                    Outcome::Unknown => forward_reply::Outcome::Unknown(true),
                };
                let reply = ForwardReply { request: *request, outcome: Some(outcome) };
                self.send_peer(*member, peer_frame::Body::ForwardReply(reply));
            }
            Waiter::Session(asked) => {
                let asked = asked.clone();
                self.session_answer(now, &asked, outcome);
            }
            Waiter::Own(_) => tracing::debug!(?outcome, "the leader's own command"),
        }
    }
}
