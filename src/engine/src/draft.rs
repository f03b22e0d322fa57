use argosy_model::{Fence, Limits, LogTime};
use argosy_proto::command::{Command, Refusal, Reply, command};
use argosy_proto::fact::{self, Batch, Fact, fact::Body};
use prost::Message;

use crate::evolve::{self, BATCH_VERSION, Changes, Position};
use crate::state::State;
use crate::{Code, Leader, advance, commands};

/// Bytes of an idempotency key, of its tenant, and of its digest.
const KEY_BYTES_MAX: usize = 512;

/// A batch in the making: facts so far, and the state they lead to.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The state with all facts of this draft evolved. Its sequence moves in [`Draft::finish`] only.
    pub state: State,
    position: Position,
    now: LogTime,
    id: u64,
    facts: Vec<Fact>,
    changes: Changes,
    bytes: usize,
    work: u32,
}

impl Draft {
    /// An empty draft on top of `state`. `position` is where the batch will stand in the log (its fences hold it), `now`
    /// the time of all its facts (never before the state's), `id` names it to its waiters.
    #[must_use]
    pub fn new(state: &State, position: Position, now: LogTime, id: u64) -> Self {
        let now = now.max(state.log_time());
        let state = state.clone();
        Self { state, position, now, id, facts: Vec::new(), changes: Changes::default(), bytes: 0, work: 0 }
    }

    /// The first fact of a cell; only on an empty state.
    pub fn create_cell(&mut self, cell: &str, incarnation: u64) {
        if self.state.incarnation() == 0 {
            self.emit(Body::CellCreated(fact::CellCreated { cell: cell.to_owned(), incarnation }));
        }
    }

    /// The first fact after a recovery: the number of the cell's history rises above `floor`. To be a batch of its own,
    /// since the fences of a batch carry the number that it began with.
    pub fn raise_incarnation(&mut self, floor: u64) {
        if self.state.incarnation() <= floor {
            self.emit(Body::IncarnationRaised(fact::IncarnationRaised { incarnation: floor + 1 }));
        }
    }

    /// Carries out a command. The reply may be sent once the batch, or the state it was decided on, is committed.
    ///
    /// # Errors
    /// A refusal, which leaves the draft as it was.
    pub fn command(&mut self, command: &Command, leader: &mut Leader) -> Result<Reply, Refusal> {
        let before = (self.state.clone(), self.changes.clone(), self.facts.len(), self.bytes);
        let outcome = self.decide(command, leader);
        if outcome.is_err() {
            let (state, changes, facts, bytes) = before;
            (self.state, self.changes, self.bytes) = (state, changes, bytes);
            self.facts.truncate(facts);
        }
        outcome
    }

    fn decide(&mut self, command: &Command, leader: &mut Leader) -> Result<Reply, Refusal> {
        self.spend(1);
        let body = command.body.as_ref().ok_or_else(|| {
            Code::UnknownCommand.refuse("the command is unknown to this version: upgrade the control plane")
        })?;
        let Some(key) = &command.idempotency_key else { return self.dispatch(body, leader) };
        if key.tenant.len() > KEY_BYTES_MAX
            || key.key.len() > KEY_BYTES_MAX
            || key.digest.len() > KEY_BYTES_MAX
        {
            return Err(Code::InvalidArgument.refuse(format!(
                "an idempotency key, its tenant and its digest have at most {KEY_BYTES_MAX} bytes each"
            )));
        }
        let recorded = self.state.idempotency.get(&(key.tenant.clone(), key.key.clone()));
        if let Some(recorded) =
            recorded.filter(|row| self.now.0 - row.recorded_at_ms < leader.limits.idempotency_ttl_ms)
        {
            if recorded.digest != key.digest {
                return Err(Code::IdempotencyConflict.refuse(format!(
                    "idempotency key {:?} was used for another request: use a new key for a new request",
                    key.key
                )));
            }
            if let Ok(reply) = Reply::decode(recorded.reply.as_slice()) {
                return Ok(reply);
            }
        }
        let reply = self.dispatch(body, leader)?;
        self.forget_old_keys(&leader.limits);
        self.emit(Body::IdempotencyRecorded(fact::IdempotencyRecorded {
            tenant: key.tenant.clone(),
            key: key.key.clone(),
            digest: key.digest.clone(),
            reply: reply.encode_to_vec(),
        }));
        Ok(reply)
    }

    fn dispatch(&mut self, body: &command::Body, leader: &mut Leader) -> Result<Reply, Refusal> {
        match body {
            command::Body::SubmitWorkflow(command) => {
                commands::submit_workflow::decide(self, leader, command)
            }
            command::Body::DeleteWorkflow(command) => {
                commands::delete_workflow::decide(self, leader, command)
            }
            command::Body::ShutdownWorkflow(command) => {
                commands::shutdown_workflow::decide(self, leader, command)
            }
            command::Body::CreateInvite(command) => commands::create_invite::decide(self, leader, command),
            command::Body::RedeemInvite(command) => commands::redeem_invite::decide(self, leader, command),
            command::Body::OpenSession(command) => commands::open_session::decide(self, leader, command),
            command::Body::ReportAttempt(command) => commands::report_attempt::decide(self, leader, command),
            command::Body::ResyncAttempts(command) => {
                commands::resync_attempts::decide(self, leader, command)
            }
            command::Body::TakeOver(command) => commands::take_over::decide(self, leader, command),
            command::Body::UpdateCluster(command) => commands::update_cluster::decide(self, leader, command),
            command::Body::FindPrerequisites(command) => commands::find_prerequisites::decide(self, command),
            command::Body::SuspendWorkflow(command) => commands::suspend_workflow::decide(self, command),
            command::Body::ResumeWorkflow(command) => {
                commands::resume_workflow::decide(self, leader, command)
            }
            command::Body::SetNode(command) => commands::set_node::decide(self, leader, command),
            command::Body::RetryWorkflow(command) => commands::retry_workflow::decide(self, leader, command),
            command::Body::ResubmitWorkflow(command) => {
                commands::resubmit_workflow::decide(self, leader, command)
            }
            command::Body::CreateTemplate(command) => {
                commands::create_template::decide(self, leader, command)
            }
            command::Body::UpdateTemplate(command) => {
                commands::update_template::decide(self, leader, command)
            }
            command::Body::DeleteTemplate(command) => commands::delete_template::decide(self, command),
            command::Body::GrantPermit(command) => commands::grant_permit::decide(self, leader, command),
            command::Body::AddMember(command) => commands::add_member::decide(self, command),
            command::Body::RemoveMember(command) => Ok(commands::remove_member::decide(self, command)),
            command::Body::ReleaseQuarantine(command) => commands::release_quarantine::decide(self, command),
            command::Body::TransferLeadership(_) => Err(Code::UnknownCommand.refuse(
                "a transfer of leadership is the member's own business: it never reaches a decision",
            )),
            command::Body::StoreConfigMap(command) => {
                commands::store_config_map::decide(self, leader, command)
            }
            command::Body::DeleteConfigMap(command) => commands::delete_config_map::decide(self, command),
            command::Body::SetSyncLimit(command) => commands::set_sync_limit::decide(self, leader, command),
            command::Body::DeleteSyncLimit(command) => {
                commands::delete_sync_limit::decide(self, leader, command)
            }
            command::Body::CreateCron(command) => commands::create_cron::decide(self, leader, command),
            command::Body::UpdateCron(command) => commands::update_cron::decide(self, leader, command),
            command::Body::DeleteCron(command) => commands::delete_cron::decide(self, command),
            command::Body::SuspendCron(command) => commands::suspend_cron::decide(self, command),
            command::Body::BackfillCron(command) => commands::backfill_cron::decide(self, leader, command),
            command::Body::StoreEventBinding(command) => {
                commands::event_binding::store(self, leader, command)
            }
            command::Body::DeleteEventBinding(command) => commands::event_binding::delete(self, command),
            command::Body::DeleteArchived(command) => commands::archived::delete(self, command),
            command::Body::RetryArchived(command) => commands::archived::retry(self, leader, command),
            command::Body::ResubmitArchived(command) => commands::archived::resubmit(self, leader, command),
            command::Body::ReportConfigMaps(command) => {
                commands::report_config_maps::decide(self, leader, command)
            }
            command::Body::ReportArtifactTask(command) => {
                commands::report_artifact_task::decide(self, leader, command)
            }
            command::Body::RenewIdentity(command) => commands::identity::renew(self, leader, command),
            command::Body::SeeIdentity(command) => commands::identity::see(self, command),
            command::Body::ImportRevocations(command) => commands::revocations::import(self, leader, command),
            command::Body::ChangeIdentity(command) => commands::identity::change(self, command),
            command::Body::RollAuthority(command) => commands::authority::roll(self, command),
            command::Body::ReportAuthority(command) => commands::authority::report(self, command),
            command::Body::ResumeTakeOvers(command) => commands::resume_take_overs::decide(self, command),
            command::Body::ChangeCluster(command) => commands::change_cluster::decide(self, command),
            command::Body::DrainCluster(command) => commands::drain_cluster::decide(self, command),
            command::Body::RemoveCluster(command) => commands::remove_cluster::decide(self, leader, command),
            command::Body::BeginDrill(command) => commands::begin_drill::decide(self, leader, command),
            command::Body::AbortDrill(command) => commands::begin_drill::abort(self, command),
            command::Body::CreateDrillSchedule(command) => {
                commands::drill_schedule::create(self, leader, command)
            }
            command::Body::DeleteDrillSchedule(command) => commands::drill_schedule::delete(self, command),
        }
    }

    /// Oldest first: at most two per command, so the bound is held without ever costing much at once.
    fn forget_old_keys(&mut self, limits: &Limits) {
        for _ in 0..2 {
            let Some((recorded, tenant, key)) = self.state.index.idempotency_age.iter().next().cloned()
            else {
                return;
            };
            let expired = self.now.0 - recorded >= limits.idempotency_ttl_ms;
            if !expired && self.state.idempotency.len() < limits.idempotency_keys_max {
                return;
            }
            self.emit(Body::IdempotencyForgotten(fact::IdempotencyForgotten { tenant, key }));
        }
    }

    /// What the decision on a command needs and state does not hold: the number of an archived workflow. Its records
    /// ([`crate::archive_range`]) are to be given to [`Leader::give_archived`] before the command is decided.
    #[must_use]
    pub fn need(&self, command: &Command) -> Option<u64> {
        crate::archive::need(&self.state, command)
    }

    /// Goes on with what waits: timers that are due, the agenda, placement; within the limits of one batch.
    /// True: more waits, make another batch.
    pub fn advance(&mut self, leader: &mut Leader) -> bool {
        advance::advance(self, leader)
    }

    /// No facts yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// Bytes of the facts so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Units of work done for this draft.
    #[must_use]
    pub fn work(&self) -> u32 {
        self.work
    }

    /// Ends the draft: the batch to propose, and the state and changes that [`crate::evolve`] will arrive at for it.
    #[must_use]
    pub fn finish(mut self) -> (Batch, State, Changes) {
        let batch = Batch {
            version: BATCH_VERSION,
            id: self.id,
            follows_sequence: self.state.sequence(),
            expected_index: self.position.index,
            log_time_ms: self.now.0,
            facts: self.facts,
        };
        evolve::seal(&mut self.state, &mut self.changes, self.now);
        (batch, self.state, self.changes)
    }

    /// Time of the draft.
    pub(crate) fn now(&self) -> LogTime {
        self.now
    }

    /// Counts work.
    pub(crate) fn spend(&mut self, units: u32) {
        self.work = self.work.saturating_add(units);
    }

    /// No more should be done in this batch.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        self.work >= limits.decide_work_max || self.bytes >= limits.batch_bytes_max / 2
    }

    /// The one way to a fact: evolved at once, so later decisions see it. Gives the fact's own fence.
    pub(crate) fn emit(&mut self, body: Body) -> Fence {
        let ordinal = u32::try_from(self.facts.len()).expect("a batch is bounded by its bytes");
        let fence = Fence { incarnation: self.position.incarnation, index: self.position.index, ordinal };
        evolve::apply(&mut self.state, &mut self.changes, fence, self.now, &body)
            .expect("decisions make facts that fit");
        let fact = Fact { body: Some(body) };
        self.bytes += fact.encoded_len() + 4;
        self.facts.push(fact);
        fence
    }
}
