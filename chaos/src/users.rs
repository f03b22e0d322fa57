use std::collections::{BTreeMap, VecDeque};

use argosy_proto::command::{
    AbortDrill, AddMember, Command, CreateInvite, DeleteWorkflow, IdempotencyKey, RedeemInvite,
    ReleaseQuarantine, ShutdownStrategy, ShutdownWorkflow, SubmitWorkflow, command::Body,
};
use argosy_proto::common::MemberAddresses;
use prost::Message;

use crate::drills;
use crate::handovers;
use crate::operators::{self, Operator, Order};
use crate::random::Random;
use crate::schedules;
use crate::workloads::{self, Workload};

/// Namespace of all generated workflows.
pub const NAMESPACE: &str = "team";
/// Life of an invite; longer than any run.
const INVITE_TTL_MS: u64 = 3_600_000;

/// What a user wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Submit the workflow of that name.
    Submit(String),
    /// Stop it, with or without exit handlers.
    Stop(String),
    /// Delete it.
    Delete(String),
    /// Read everything acknowledged so far.
    Read,
    /// Make an invite for the cluster; the number tells invites of one cluster apart.
    Invite(String, u64),
    /// Redeem it, as the cluster's agent does when it enrols.
    Redeem(String, u64),
    /// Do something to the cluster; the number tells orders apart.
    Order(String, Order, u64),
    /// Lose a cluster on purpose; the number tells drills apart.
    Drill(drills::Plan, u64),
    /// End the loss of the drill under way.
    AbortDrill(u64),
    /// Let a member join.
    AddMember(u64),
    /// End what is in quarantine on the cluster.
    Release(String),
    /// Store a CronWorkflow of that name that starts workflows for so many milliseconds of the run.
    Schedule(String, u64),
}

/// A wish being carried out: asked again, under the same key, until its outcome is known.
#[derive(Clone, Debug)]
pub struct Doing {
    /// What.
    pub wish: Wish,
    /// The command; none for a read.
    pub command: Option<Command>,
    /// The request on its way, if any.
    pub request: Option<u64>,
    /// Requests made for it.
    pub tries: u32,
}

/// A user: submits, stops, deletes and reads workflows, one thing at a time.
#[derive(Debug)]
pub struct User {
    index: usize,
    random: Random,
    script: VecDeque<Wish>,
    /// Own workflows that were acknowledged and not deleted by the user.
    workflows: Vec<String>,
    /// What each of them is made of.
    made: BTreeMap<String, Workload>,
    next: u64,
    /// This one is for clusters, not for workflows.
    operator: Option<Operator>,
    /// This one is for drills, and takes its time between them.
    drills: bool,
    /// This one does what the script says and nothing else.
    is_scripted: bool,
    /// The workflows of this one hand artifacts on.
    hands_over: bool,
    /// And the control plane knows whose store is whose.
    is_told: bool,
    /// How long exclusive steps last, where that is not left to chance.
    exclusive_ms: Option<u64>,
    /// What is under way.
    pub doing: Option<Doing>,
}

fn uid_of_cluster(cluster: &str) -> String {
    format!("uid-of-{cluster}")
}

fn token_hash(cluster: &str, number: u64) -> Vec<u8> {
    blake3::hash(format!("invite {number} of {cluster}").as_bytes()).as_bytes().to_vec()
}

impl User {
    /// A user who first does what the script says.
    #[must_use]
    pub fn new(index: usize, random: Random, script: impl IntoIterator<Item = Wish>) -> Self {
        let script = script.into_iter().collect();
        let (workflows, made) = (Vec::new(), BTreeMap::new());
        Self {
            index,
            random,
            script,
            workflows,
            made,
            next: 0,
            operator: None,
            drills: false,
            is_scripted: false,
            hands_over: false,
            is_told: false,
            exclusive_ms: None,
            doing: None,
        }
    }

    /// One who does things to clusters.
    #[must_use]
    pub fn operating(index: usize, random: Random, operator: Operator) -> Self {
        Self { operator: Some(operator), ..Self::new(index, random, []) }
    }

    /// One who begins drills, and ends some of them.
    #[must_use]
    pub fn drilling(index: usize, mut random: Random, clusters: &[String], active_ms: u64) -> Self {
        let script = drills::script(&mut random, clusters, active_ms);
        Self { drills: true, ..Self::new(index, random, script) }
    }

    /// One who lets members join after a restore, and then releases what is in quarantine on these clusters.
    #[must_use]
    pub fn recovering(
        index: usize,
        random: Random,
        joining: impl Iterator<Item = u64>,
        released: Vec<String>,
    ) -> Self {
        let script = joining.map(Wish::AddMember).chain(released.into_iter().map(Wish::Release));
        Self { is_scripted: true, ..Self::new(index, random, script) }
    }

    /// One whose workflows hand artifacts on.
    #[must_use]
    pub fn handing_over(index: usize, random: Random, is_told: bool) -> Self {
        Self { hands_over: true, is_told, ..Self::new(index, random, []) }
    }

    /// Sets how long exclusive steps last.
    pub fn lasts_exclusively(&mut self, exclusive_ms: Option<u64>) {
        self.exclusive_ms = exclusive_ms;
    }

    /// Whether the workflows of this one hand artifacts on.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.hands_over
    }

    /// The uid of a cluster of that name.
    #[must_use]
    pub fn cluster_uid(cluster: &str) -> String {
        uid_of_cluster(cluster)
    }

    /// Whether nothing is under way and nothing scripted is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.doing.is_none()
            && self.script.is_empty()
            && self.operator.as_ref().is_none_or(Operator::is_content)
    }

    /// This is to be done as well, after what is scripted.
    pub fn asked_for(&mut self, wish: Wish) {
        self.script.push_back(wish);
    }

    /// Whether clusters are what this one is for.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.operator.is_some()
    }

    /// Whether drills are what this one is for.
    #[must_use]
    pub fn is_drilling(&self) -> bool {
        self.drills
    }

    /// How a cluster stands by what was acknowledged to this operator.
    #[must_use]
    pub fn standing(&self, cluster: &str) -> Option<operators::Standing> {
        Some(self.operator.as_ref()?.standing(cluster))
    }

    /// A cluster turns out to stand so.
    pub fn finds(&mut self, cluster: &str, standing: operators::Standing) {
        if let Some(operator) = &mut self.operator {
            operator.finds(cluster, standing);
        }
    }

    /// The workflows this user made.
    #[must_use]
    pub fn made(&self) -> &BTreeMap<String, Workload> {
        &self.made
    }

    /// How long until the next act.
    pub fn pause_ms(&mut self) -> u64 {
        if let Some(operator) = &mut self.operator {
            return operator.pause_ms();
        }
        if self.drills {
            return self.random.between(1_000, drills::PAUSE_MAX_MS);
        }
        if self.random.per_mille(200) { self.random.between(1, 50) } else { self.random.between(200, 5_000) }
    }

    /// How long until the same is asked again.
    pub fn retry_pause_ms(&mut self) -> u64 {
        self.random.between(50, 1_200)
    }

    /// How long an answer is waited for.
    pub fn patience_ms(&mut self) -> u64 {
        self.random.between(3_000, 15_000)
    }

    /// Whom to ask.
    pub fn choose_member(&mut self, members: u64) -> u64 {
        self.random.between(1, members)
    }

    /// Takes up the next wish; `new_work` allows more than what is scripted.
    pub fn wish(&mut self, new_work: bool) -> Option<Wish> {
        debug_assert!(self.doing.is_none(), "one thing at a time");
        if let Some(operator) = self.operator.as_mut().filter(|_| self.script.is_empty()) {
            self.script.extend(operator.wishes(!new_work));
            if self.script.is_empty() {
                return None;
            }
        }
        let wish = match self.script.pop_front() {
            Some(wish) => wish,
            None if new_work && !self.drills && !self.is_scripted => self.invent(),
            None => return None,
        };
        let command = self.command(&wish);
        self.doing = Some(Doing { wish: wish.clone(), command, request: None, tries: 0 });
        Some(wish)
    }

    fn invent(&mut self) -> Wish {
        let known = self.random.pick(&self.workflows).cloned();
        match (self.random.below(100), known) {
            (0..=9, Some(name)) => Wish::Stop(name),
            (10..=19, Some(name)) => {
                self.workflows.retain(|other| *other != name);
                Wish::Delete(name)
            }
            (20..=49, _) => Wish::Read,
            (_, _) => {
                self.next += 1;
                Wish::Submit(format!("u{}-w{}", self.index, self.next))
            }
        }
    }

    fn command(&mut self, wish: &Wish) -> Option<Command> {
        let namespace = NAMESPACE.to_owned();
        let body = match wish.clone() {
            Wish::Read => return None,
            Wish::Submit(name) => {
                let mut workload = if self.hands_over {
                    handovers::generate(&mut self.random, NAMESPACE, &name, self.is_told)
                } else {
                    workloads::generate(&mut self.random, NAMESPACE, &name)
                };
                if let Some(exclusive_ms) = self.exclusive_ms {
                    workloads::last_exclusively(&mut workload, exclusive_ms);
                }
                let manifest_json = workload.manifest.to_string();
                let uid = format!("uid-of-{name}");
                let creator = format!("user-{}", self.index);
                self.made.insert(name.clone(), workload);
                Body::SubmitWorkflow(SubmitWorkflow {
                    namespace,
                    name,
                    uid,
                    manifest_json,
                    creator,
                    cron: String::new(),
                })
            }
            Wish::Stop(name) => {
                let strategy = if self.random.per_mille(500) {
                    ShutdownStrategy::Stop
                } else {
                    ShutdownStrategy::Terminate
                };
                let message = "no longer wanted".to_owned();
                Body::ShutdownWorkflow(ShutdownWorkflow {
                    namespace,
                    name,
                    strategy: strategy.into(),
                    message,
                    ..ShutdownWorkflow::default()
                })
            }
            Wish::Delete(name) => Body::DeleteWorkflow(DeleteWorkflow { namespace, name }),
            Wish::Order(cluster, order, _) => {
                operators::command(cluster, order, format!("user-{}", self.index))
            }
            Wish::Invite(cluster, number) => {
                let token_hash = token_hash(&cluster, number);
                Body::CreateInvite(CreateInvite { cluster, token_hash, ttl_ms: INVITE_TTL_MS })
            }
            Wish::Schedule(name, active_ms) => schedules::create(&mut self.random, &name, active_ms),
            Wish::Drill(plan, _) => drills::command(&plan),
            Wish::AddMember(member) => {
                let address = |port: u64| format!("member-{member}.test:{port}");
                let addresses = MemberAddresses { peer: address(1), agent: address(2), api: address(3) };
                Body::AddMember(AddMember { member, addresses: Some(addresses), replaces: 0 })
            }
            Wish::Release(cluster) => Body::ReleaseQuarantine(ReleaseQuarantine { cluster }),
            Wish::AbortDrill(_) => Body::AbortDrill(AbortDrill::default()),
            Wish::Redeem(cluster, number) => {
                let (cluster_uid, token_hash) = (uid_of_cluster(&cluster), token_hash(&cluster, number));
                Body::RedeemInvite(RedeemInvite {
                    cluster,
                    cluster_uid,
                    token_hash,
                    ..RedeemInvite::default()
                })
            }
        };
        let mut command = Command { version: 1, idempotency_key: None, body: Some(body) };
        let digest = blake3::hash(&command.encode_to_vec()).as_bytes().to_vec();
        let key = format!("{wish:?}");
        command.idempotency_key =
            Some(IdempotencyKey { tenant: format!("user-{}", self.index), key, digest });
        Some(command)
    }

    /// The outcome of what is under way is known.
    pub fn settle(&mut self, done: bool) {
        let Some(Doing { wish, .. }) = self.doing.take().filter(|_| done) else { return };
        if let Some(operator) = &mut self.operator {
            operator.done(&wish);
        }
        if let Wish::Submit(name) = wish {
            self.workflows.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_follows_the_script_and_then_invents() {
        let script = [Wish::Invite("a".to_owned(), 0), Wish::Redeem("a".to_owned(), 0)];
        let mut user = User::new(1, Random::new(1), script.clone());
        for wish in script {
            assert_eq!(user.wish(false), Some(wish));
            let command = user.doing.as_ref().and_then(|doing| doing.command.clone()).unwrap();
            assert!(command.idempotency_key.is_some_and(|key| key.digest.len() == 32));
            user.settle(true);
        }
        assert!(user.is_idle() && user.wish(false).is_none());
        for _ in 0..50 {
            assert!(user.wish(true).is_some());
            user.settle(true);
        }
        assert!(!user.made().is_empty());
    }

    #[test]
    fn a_workflow_is_deleted_at_most_once() {
        let mut user = User::new(1, Random::new(9), []);
        let mut deleted = std::collections::BTreeSet::new();
        for _ in 0..500 {
            if let Some(Wish::Delete(name)) = user.wish(true) {
                assert!(deleted.insert(name));
            }
            user.settle(true);
        }
        assert!(!deleted.is_empty());
    }
}
