use argosy_engine::State;
use argosy_member::{Input, Outcome};
use argosy_model::WorkflowKey;

use crate::checkers::{Found, Invariant, Operation};
use crate::network::End;
use crate::operators::{Order, Standing};
use crate::users::{NAMESPACE, Wish};
use crate::world::{Event, Request, UserAnswer, World};

/// Between the making of an invite or a certificate and the agent's first start.
const ENROL_MAX_MS: u64 = 800;

fn operation(wish: &Wish) -> Option<(&str, Operation)> {
    match wish {
        Wish::Submit(name) => Some((name, Operation::Submit)),
        Wish::Stop(name) => Some((name, Operation::Stop)),
        Wish::Delete(name) => Some((name, Operation::Delete)),
        Wish::Read
        | Wish::Invite(..)
        | Wish::Redeem(..)
        | Wish::Order(..)
        | Wish::Drill(..)
        | Wish::AbortDrill(_)
        | Wish::AddMember(_)
        | Wish::Release(_)
        | Wish::Schedule(..) => None,
    }
}

impl World {
    /// Steps that wait for a cluster's return (`argosy.dev/failover: wait`) wait for ever where it does not come: an operator who sees that
    /// removes it. So late that nothing else is left to happen, and where nothing else waits.
    pub(crate) fn give_up_the_gone(&mut self) {
        let from_ms = self.options.active_ms + self.options.quiet_max_ms / 2;
        if self.now_ms() < from_ms || !self.users[0].is_idle() {
            return;
        }
        let limits = argosy_model::Limits::default();
        let waits = |name: &str| {
            let mut waiting = self.latest.waiting_on(name, &limits, usize::MAX).into_iter().peekable();
            waiting.peek().is_some() && waiting.all(|one| one.wait == argosy_engine::TakeOverWait::Return)
        };
        let found = self.clusters.iter().find(|cluster| cluster.gone && waits(&cluster.name));
        let Some(name) = found.map(|cluster| cluster.name.clone()) else { return };
        let number = self.fresh_id();
        self.users[0].asked_for(Wish::Order(name, Order::Remove { forget: true }, number));
        self.queue.plan_after(1, Event::UserActs { user: 0 });
    }

    pub(crate) fn user_acts(&mut self, user: usize) {
        let now_ms = self.now_ms();
        let of_clusters = self.users[user].is_operator() || self.users[user].is_drilling();
        if of_clusters && !self.clusters.iter().all(|cluster| cluster.enrolled) {
            self.queue.plan_after(ENROL_MAX_MS, Event::UserActs { user });
            return;
        }
        if self.users[user].doing.is_none() {
            // The operator only enrols clusters.
            let new_work = user > 0 && now_ms < self.options.active_ms;
            let Some(wish) = self.users[user].wish(new_work) else { return };
            self.line(format_args!("user {user} wants {wish:?}"));
            if let Some((name, operation)) = operation(&wish) {
                self.checkers.durability.begun(now_ms, name, operation);
            }
            if let Wish::Order(cluster, ..) | Wish::Redeem(cluster, _) = &wish {
                self.checkers.durability.order_begun(cluster);
            }
        }
        let request = self.fresh_id();
        let members = self.options.members;
        let member = self.users[user].choose_member(members);
        let patience_ms = self.users[user].patience_ms();
        let Some(doing) = self.users[user].doing.as_mut() else { return };
        doing.request = Some(request);
        doing.tries += 1;
        let is_read = doing.command.is_none();
        let read = is_read.then(|| self.checkers.durability.read_begins(now_ms));
        self.requests.insert(request, Request { user, member, read, lost: false });
        self.line(format_args!("user {user} asks member {member}: request {request}"));
        if let Some(at_ms) = self.network.send_alone(now_ms, End::User(user), End::Member(member)) {
            self.queue.plan(at_ms, Event::RequestArrives { request });
        }
        self.queue.plan_after(patience_ms, Event::PatienceEnds { request });
    }

    pub(crate) fn request_arrives(&mut self, request: u64) {
        let Some(Request { user, member, .. }) = self.requests.get(&request) else { return };
        let (user, member) = (*user, *member);
        if self.members.get(&member).is_none_or(|host| !host.is_up()) {
            let after_ms = self.network.draw_ms(1, 20);
            self.queue
                .plan_after(after_ms, Event::AnswerArrives { request, answer: Box::new(UserAnswer::Broken) });
            return;
        }
        let Some(doing) = self.users[user].doing.as_ref().filter(|doing| doing.request == Some(request))
        else {
            return;
        };
        let input = match doing.command.clone() {
            Some(command) => Input::Command { request, command },
            None => Input::Read { request },
        };
        self.member_input(member, input);
    }

    pub(crate) fn answer_send(&mut self, member: u64, request: u64, answer: UserAnswer) {
        let Some(user) = self.requests.get(&request).map(|request| request.user) else { return };
        if let Some(at_ms) = self.network.send_alone(self.now_ms(), End::Member(member), End::User(user)) {
            self.queue.plan(at_ms, Event::AnswerArrives { request, answer: Box::new(answer) });
        }
    }

    pub(crate) fn answer_arrives(&mut self, number: u64, answer: UserAnswer) {
        let Some(request) = self.requests.remove(&number) else { return };
        let user = request.user;
        let Some(doing) = self.users[user].doing.clone().filter(|doing| doing.request == Some(number)) else {
            return;
        };
        let wish = doing.wish;
        // What gone members said is not known to be so any more.
        let answer = if request.lost { UserAnswer::Broken } else { answer };
        let settled = match answer {
            UserAnswer::Broken => None,
            UserAnswer::State(None) => None,
            UserAnswer::State(Some(state)) => {
                if let Some(read) = request.read {
                    self.read_ends(read, &state);
                }
                Some(true)
            }
            UserAnswer::Outcome(Outcome::Done(_)) => {
                self.acknowledged(&wish);
                Some(true)
            }
            // Another one is joining, or has not finished.
            UserAnswer::Outcome(Outcome::Refused(_)) if matches!(wish, Wish::AddMember(_)) => None,
            UserAnswer::Outcome(Outcome::Refused(refusal)) => {
                self.refused(&wish, &format!("{} {}", refusal.code, refusal.message));
                Some(false)
            }
            UserAnswer::Outcome(Outcome::NotLeader | Outcome::Overloaded | Outcome::Unknown) => None,
        };
        self.line(format_args!("user {user} on {wish:?}: {settled:?}"));
        let pause_ms = match settled {
            Some(done) => {
                self.users[user].settle(done);
                if let Wish::Order(cluster, ..) | Wish::Redeem(cluster, _) = &wish
                    && let Some(standing) = self.users[user].standing(cluster)
                {
                    let now_ms = self.now_ms();
                    self.checkers.durability.order_settled(now_ms, cluster, standing);
                }
                self.users[user].pause_ms()
            }
            None => {
                if let Some(doing) = self.users[user].doing.as_mut() {
                    doing.request = None;
                }
                self.users[user].retry_pause_ms()
            }
        };
        self.queue.plan_after(pause_ms, Event::UserActs { user });
    }

    fn acknowledged(&mut self, wish: &Wish) {
        let now_ms = self.now_ms();
        if let Some((name, operation)) = operation(wish) {
            self.checkers.durability.acknowledged(now_ms, name, operation);
            self.counts.workflows += u64::from(operation == Operation::Submit);
        }
        if let Wish::Redeem(cluster, _) = wish
            && let Some(index) = self.clusters.iter().position(|other| other.name == *cluster)
        {
            self.clusters[index].enrolled = true;
            let wait_ms = self.random.between(1, ENROL_MAX_MS);
            self.queue.plan_after(wait_ms, Event::AgentStart { cluster: index });
        }
    }

    fn refused(&mut self, wish: &Wish, message: &str) {
        let check = match operation(wish) {
            Some((name, operation)) => {
                let ended = find(&self.latest, name).is_none_or(|found| found.stopped_or_over);
                self.checkers.durability.refused(name, operation, ended, message)
            }
            // As things stand there: another is under way, nothing else has room, nothing is left to end.
            None if matches!(wish, Wish::Drill(..) | Wish::AbortDrill(_)) => Ok(()),
            // Its invite is of before the restore, and void.
            None if matches!(wish, Wish::Redeem(..)) && self.restores.lost > 0 => Ok(()),
            // Rightly, while it holds something.
            None if matches!(wish, Wish::Order(_, Order::Remove { forget: false }, _)) => Ok(()),
            None => Err(format!("{wish:?} was refused: {message}")),
        };
        self.judge(Invariant::Durable, check);
    }

    /// A linearizable read gave this state.
    pub(crate) fn read_ends(&mut self, read: crate::checkers::Read, state: &State) {
        let now_ms = self.now_ms();
        let sequence = state.sequence();
        let check = self.checkers.durability.read_ends(read, now_ms, sequence, |name| find(state, name));
        self.judge(Invariant::Durable, check);
        let check = self.checkers.durability.orders_read(read, |cluster| {
            let row = state.cluster(cluster)?;
            Some(Standing { cordoned: row.cordoned, removed: row.removed })
        });
        self.judge(Invariant::Durable, check);
    }
}

/// A generated workflow in a state.
pub(crate) fn find(state: &State, name: &str) -> Option<Found> {
    let key = WorkflowKey { namespace: NAMESPACE.to_owned(), name: name.to_owned() };
    let workflow = state.workflow(state.workflow_id(&key)?)?;
    Some(Found { stopped_or_over: workflow.shutdown != 0 || workflow.finished_at_ms != 0 })
}
