//! What a drill would touch, and where each step could go: placement's own answer, asked of state as it is.

use argosy_model::{Fence, LabelSelector, Limits, Resources};
use argosy_placement::{ClusterView, Request, explain, place};
use argosy_proto::command::Refusal;
use argosy_proto::common::Taint;
use argosy_proto::state::{Attempt, DrillMode, Failover, Work};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::commands::find_cluster;
use crate::resources::add;
use crate::state::State;
use crate::{Code, Leader, loss, lost_group, place as engine_place, prerequisites};

/// What would become of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedStep {
    /// The attempt.
    pub fence: Fence,
    /// Of its workflow.
    pub namespace: String,
    /// Its workflow.
    pub workflow: String,
    /// Its node's name.
    pub node: String,
    /// It has its start permit.
    pub running: bool,
    /// How long beyond lease and margin it is left to its cluster; `None`: until that is back.
    pub wait_ms: Option<i64>,
    /// Where it could go.
    pub to: Option<String>,
    /// Why it cannot move, or could go nowhere.
    pub why_not: Option<String>,
    /// The drill leaves it alone.
    pub spared: bool,
}

/// What a drill would touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillPlan {
    /// The cluster.
    pub cluster: String,
    /// How it is lost.
    pub mode: DrillMode,
    /// Every attempt in scope, in the order of their assignment.
    pub steps: Vec<PlannedStep>,
    /// Other clusters that could take a small step now.
    pub others: Vec<String>,
    /// Lease and margin: so long does it take to notice that a cluster is silent.
    pub lease_and_margin_ms: i64,
}

impl DrillPlan {
    /// Attempts that would be touched.
    #[must_use]
    pub fn touched(&self) -> usize {
        self.steps.iter().filter(|step| !step.spared).count()
    }

    /// Attempts that would be left alone.
    #[must_use]
    pub fn spared(&self) -> usize {
        self.steps.len() - self.touched()
    }

    /// Attempts that would be killed.
    pub(crate) fn to_kill(&self) -> impl Iterator<Item = Fence> + '_ {
        let kills = self.mode == DrillMode::KillPods;
        self.steps.iter().filter(move |step| kills && !step.spared).map(|step| step.fence)
    }

    /// Whether a drill may begin.
    ///
    /// # Errors
    /// Nothing of the cluster could run anywhere else, or there is nothing to kill: a drill that tries nothing would pass.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.mode == DrillMode::KillPods {
            return match self.to_kill().next() {
                Some(_) => Ok(()),
                None => Err(Code::DrillRefused.refuse(format!(
                    "nothing on {:?} is there to kill, of {} steps in scope: see `argosy drill run --dry-run`",
                    self.cluster,
                    self.steps.len()
                ))),
            };
        }
        if self.others.is_empty() {
            return Err(Code::DrillRefused.refuse(format!(
                "no other cluster is ready and has room for what is on {:?}: a drill would be an outage",
                self.cluster
            )));
        }
        let mut movable = self.steps.iter().filter(|step| step.wait_ms.is_some()).peekable();
        if movable.peek().is_some() && movable.all(|step| step.to.is_none()) {
            return Err(Code::DrillRefused.refuse(format!(
                "none of the steps on {:?} could go to another cluster: see `argosy drill run --dry-run`",
                self.cluster
            )));
        }
        Ok(())
    }
}

impl State {
    /// What a drill would touch as state is now.
    ///
    /// # Errors
    /// The cluster cannot be lost, or the scope not be read.
    pub fn drill_plan(
        &self,
        cluster: &str,
        mode: DrillMode,
        scope: &str,
        limits: &Limits,
    ) -> Result<DrillPlan, Refusal> {
        plan(self, &mut Leader::new(limits.clone()), cluster, mode, scope)
    }
}

pub(crate) fn plan(
    state: &State,
    leader: &mut Leader,
    name: &str,
    mode: DrillMode,
    scope: &str,
) -> Result<DrillPlan, Refusal> {
    let cluster = find_cluster(state, name)?;
    let refuse = |why: &str| Err(Code::DrillRefused.refuse(format!("cluster {name:?} {why}")));
    if cluster.session_epoch == 0 || cluster.lost {
        return refuse("is not connected: there is nothing to lose");
    }
    if cluster.reconciling {
        return refuse("has not told yet what runs there, after a recovery");
    }
    let scope = LabelSelector::parse(scope)
        .map_err(|error| Code::InvalidArgument.refuse(format!("unable to parse the scope: {error}")))?;
    let mut views = engine_place::views(state, &leader.limits);
    if mode != DrillMode::KillPods {
        views.iter_mut().filter(|view| view.name == name).for_each(|view| view.connected = false);
    }
    let others = with_room(state, &views, name);
    let mut steps = Vec::new();
    for (fence, attempt) in state.open_attempts(name) {
        let is_free = attempt.fenced || attempt.stopping || attempt.quarantined;
        if is_free || !selects(state, &scope, attempt.workflow) {
            continue;
        }
        let Some(work) = state.works.get(&(attempt.workflow, attempt.node)).cloned() else { continue };
        steps.push(planned(state, leader, &mut views, name, mode, fence, attempt, &work));
    }
    let lease_and_margin_ms = leader.limits.lease_and_margin_ms;
    Ok(DrillPlan { cluster: name.to_owned(), mode, steps, others, lease_and_margin_ms })
}

/// Other clusters that could take the smallest step.
fn with_room(state: &State, views: &[ClusterView], name: &str) -> Vec<String> {
    let resources = Resources { pods: 1, ..Resources::default() };
    let others = views.iter().filter(|view| view.name != name);
    let has_room = |view: &&ClusterView| {
        let taints: &[Taint] = state.cluster(&view.name).map_or(&[], |row| &row.taints);
        let tolerations = taints.iter().map(|taint| taint.key.clone()).collect();
        let request = Request { resources: resources.clone(), tolerations, ..Request::default() };
        place(&request, std::slice::from_ref(*view)).is_ok()
    };
    others.filter(has_room).map(|view| view.name.clone()).collect()
}

/// Whether a workflow is in the scope, by the labels that it was submitted with.
fn selects(state: &State, scope: &LabelSelector, workflow: u64) -> bool {
    if scope.is_empty() {
        return true;
    }
    let Some(row) = state.workflows.get(&workflow) else { return false };
    let summary: Value = serde_json::from_str(&row.summary_json).unwrap_or_default();
    let labels = summary.pointer("/metadata/labels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    let labels: BTreeMap<String, String> =
        pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    scope.matches(&labels)
}

#[expect(clippy::too_many_arguments, reason = "what is known of one attempt")]
fn planned(
    state: &State,
    leader: &mut Leader,
    views: &mut [ClusterView],
    cluster: &str,
    mode: DrillMode,
    fence: Fence,
    attempt: &Attempt,
    work: &Work,
) -> PlannedStep {
    let (workflow, node) = (attempt.workflow, attempt.node);
    let row = state.workflows.get(&workflow);
    let mut step = PlannedStep {
        fence,
        namespace: row.map(|row| row.namespace.clone()).unwrap_or_default(),
        workflow: row.map(|row| row.name.clone()).unwrap_or_default(),
        node: state.node(workflow, node).map(|row| row.name.clone()).unwrap_or_default(),
        running: attempt.permitted,
        ..PlannedStep::default()
    };
    match stays(state, leader, cluster, mode, attempt, work) {
        Ok(wait_ms) => step.wait_ms = Some(wait_ms),
        Err((why_not, spared)) => {
            (step.why_not, step.spared) = (Some(why_not), spared);
            return step;
        }
    }
    for view in views.iter_mut() {
        let known = state.cluster(&view.name);
        view.lacking = known.and_then(|known| prerequisites::lacking(&work.prerequisites, known));
    }
    match place(&engine_place::request(state, workflow, work), views) {
        Ok(at) => {
            let view = &mut views[at];
            add(&mut view.used, work.requests.as_ref());
            view.attempts_free = view.attempts_free.saturating_sub(1);
            step.to = Some(view.name.clone());
        }
        Err(reasons) => step.why_not = Some(explain(&reasons)),
    }
    step
}

/// How long an attempt is left to its cluster, or why it does not move, and whether the drill leaves it alone for that.
fn stays(
    state: &State,
    leader: &mut Leader,
    cluster: &str,
    mode: DrillMode,
    attempt: &Attempt,
    work: &Work,
) -> Result<i64, (String, bool)> {
    if mode == DrillMode::KillPods {
        return if !attempt.permitted {
            Err(("it has not started: there is nothing to kill".to_owned(), true))
        } else if leader.always_retries(state, attempt.workflow, attempt.node) {
            Ok(0)
        } else {
            Err((
                "nobody might run it again: no retryStrategy with the policy Always and tries left"
                    .to_owned(),
                true,
            ))
        };
    }
    let pinned = engine_place::is_pinned_to(state, attempt.workflow, work, cluster);
    if pinned && lost_group::others_were_there(state, leader, attempt.workflow, attempt.node, work.group) {
        return Err(("its colocation group would lose its volumes: the step fails".to_owned(), false));
    }
    if attempt.permitted && work.failover() == Failover::Fail {
        return Err(("its failover is `fail`: the step fails".to_owned(), false));
    }
    if work.takeovers >= leader.limits.takeover_limit {
        return Err((format!("it was taken over {} times: the step fails", work.takeovers), false));
    }
    loss::wait_ms(work, attempt.permitted, &leader.limits)
        .ok_or_else(|| ("its failover is `wait`: it waits for its cluster".to_owned(), false))
}
