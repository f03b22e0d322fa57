//! Steps that ended well and run again, since a step that waits needs artifacts that were lost with their cluster.
//!
//! Their nodes stay as they are: fulfilled, counted by their parents, with the outputs of the first time. What runs again is
//! an attempt with a fence of its own; when it ends well, its artifacts' places take the place of those that were lost, and
//! nothing else of it is kept. Readers wait in the placement queue, blocked with the reason; whenever something changes
//! there, they are looked at anew, and so nothing has to be told to anybody.
//!
//! Whose artifacts only their cluster has is known of stores that the configuration names (`Leader::cluster_stores`,
//! `Leader::store_clusters`), and from attempts that did not find an input whose cluster is lost
//! (`AttemptReport.missing_artifacts`) or could not reach its store (`unreached_artifacts`).

mod ends;
mod find;
mod policy;
mod refuge;

use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::Leader;
use crate::advance::{Turn, leaf};
use crate::artifacts;
use crate::draft::Draft;
use crate::recall;
use crate::scope::display_name;
use crate::state::State;
use find::Whereabouts;
use policy::Verdict;

pub(crate) use ends::{
    Unpublished, attempt_over, end_reader, failed, not_needed, published, reader_lacks, unpublished,
    withdraw_all,
};
pub(crate) use find::{as_of_now, attempt_of, bound, current};
pub(crate) use refuge::is_elsewhere;

/// Where a step that waits for placement stands to its inputs.
pub(crate) enum Standing {
    /// They are there; the cluster that it must go to for them, if it can't have them elsewhere.
    Ready { cluster: Option<String> },
    /// They are being made again, or their cluster may come back.
    Waits { message: String },
    /// They can't be had any more.
    Lost { message: String },
    /// It was to make artifacts again, and they are back.
    NotNeeded,
}

/// The step runs again for its artifacts alone.
pub(crate) fn is_reproduction(state: &State, workflow: u64, node: u32) -> bool {
    state.works.get(&(workflow, node)).is_some_and(|work| work.reproduces)
}

/// Where a step that waits for placement stands to its inputs. What must be made again for it is begun.
pub(crate) fn standing(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    node: u32,
    work: &row::Work,
) -> Standing {
    if work.reproduces && !is_needed(&draft.state, leader, workflow, node, work) {
        return Standing::NotNeeded;
    }
    let found = look(&draft.state, leader, workflow, node, work);
    if let Some(waits) = find_producers(draft, leader, workflow, node, &found) {
        return waits;
    }
    let cluster = found.here.map(|(cluster, _)| cluster);
    if !work.reproduces {
        return Standing::Ready { cluster };
    }
    if let Some(message) = not_its_turn(draft, leader, workflow) {
        return Standing::Waits { message };
    }
    Standing::Ready { cluster: cluster.or_else(|| beside(&draft.state, workflow, work)) }
}

/// What of a step's inputs is where.
#[derive(Default)]
struct Found {
    /// The cluster where it must run, and what is there.
    here: Option<(String, String)>,
    /// Those that can't be had there.
    away: Vec<Away>,
}

/// An input that a step can't have where it is to run.
struct Away {
    input: String,
    /// Whose output it is, if a step of the workflow made it.
    producer: Option<u32>,
    /// Where it is, or was.
    cluster: String,
}

fn look(state: &State, leader: &Leader, workflow: u64, node: u32, work: &row::Work) -> Found {
    let mut found = Found::default();
    let Some(row) = state.node(workflow, node).filter(|_| !work.bound.is_empty()) else { return found };
    let mut bytes: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for input in row.rare().input_artifacts.iter().filter(|input| work.bound.contains(&input.stored_key)) {
        let source = find::source(state, workflow, input);
        if source.as_ref().is_some_and(|source| find::is_deleted(source.artifact)) {
            // As Argo: whoever reads it finds that it is not there.
            continue;
        }
        let artifact = source.as_ref().map_or(input, |source| source.artifact);
        let Whereabouts::In(cluster) = find::whereabouts(state, leader, workflow, artifact) else { continue };
        if !find::is_gone(state, &cluster) {
            let (sum, _) = bytes.entry(cluster.clone()).or_insert_with(|| (0, input.name.clone()));
            *sum = sum.saturating_add(input.size);
        }
        let producer = source.map(|source| source.producer);
        found.away.push(Away { input: input.name.clone(), producer, cluster });
    }
    let most = bytes
        .into_iter()
        .max_by(|(one, (first, _)), (other, (second, _))| first.cmp(second).then_with(|| other.cmp(one)));
    found.here =
        group_pin(state, workflow, work).or_else(|| most.map(|(cluster, (_, what))| (cluster, what)));
    if let Some((here, _)) = &found.here {
        found.away.retain(|away| away.cluster != *here);
    }
    found
}

/// Where the step's colocation group is, if it has one.
fn group_pin(state: &State, workflow: u64, work: &row::Work) -> Option<(String, String)> {
    let pin = state.workflows.get(&workflow)?.pins.get(&work.group).filter(|_| work.group != 0)?;
    Some((pin.clone(), "what its colocation group shares".to_owned()))
}

/// Sees to it that what is away is made again; what the reader waits for meanwhile, or why it waits in vain.
fn find_producers(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    reader: u32,
    found: &Found,
) -> Option<Standing> {
    let mut waits = None;
    for away in &found.away {
        let outcome = match away.producer {
            Some(producer) => again(draft, leader, workflow, producer, reader, away, &found.here),
            None => Err("no step of this workflow makes it".to_owned()),
        };
        match outcome {
            Ok(message) => drop(waits.get_or_insert(message)),
            Err(why) => {
                let message = format!("{}: {why}", absence(&draft.state, away, &found.here));
                return Some(Standing::Lost { message });
            }
        }
    }
    waits.map(|message| Standing::Waits { message })
}

/// How people are told that a step can't have an input.
fn absence(state: &State, away: &Away, here: &Option<(String, String)>) -> String {
    let Away { input, cluster, .. } = away;
    match here {
        Some((here, what)) if !find::is_gone(state, cluster) => format!(
            "it needs {what}, which only cluster {here} has, and {input}, which only cluster {cluster} has"
        ),
        Some(_) | None => format!("{}, and with it its input {input}", find::loss(state, cluster)),
    }
}

/// Has a step run again, once however many wait for it; what they wait for, or why it does not.
fn again(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    producer: u32,
    reader: u32,
    away: &Away,
    here: &Option<(String, String)>,
) -> Result<String, String> {
    let name = shown(&draft.state, workflow, producer);
    let lost = away.cluster.as_str();
    let loss = if find::is_gone(&draft.state, lost) {
        find::loss(&draft.state, lost)
    } else {
        format!("only cluster {lost} has them")
    };
    let waits = format!("waits for {name} to make its artifacts again: {loss}");
    if let Some(work) = draft.state.works.get(&(workflow, producer)).filter(|work| work.reproduces) {
        // Why no cluster takes it is nowhere else to be seen: its node has ended.
        let why = draft.state.blocked.get(&work.shape).filter(|_| work.fence.is_none());
        return Ok(why.map_or(waits.clone(), |why| format!("{waits}; {name} {}", why.message)));
    }
    if find::is_gone(&draft.state, lost) && has_nowhere_to_go(&draft.state, leader, workflow, producer) {
        return Err(format!(
            "{name} is not run again for it, as its store is in that cluster and there is no other (reproductions.repository)"
        ));
    }
    match policy::verdict(&draft.state, leader, workflow, producer, lost, draft.now().0)
        .map_err(|why| format!("{name} is not run again for it, as {why}"))?
    {
        Verdict::Now => {}
        Verdict::Return => {
            return Ok(format!("waits for cluster {lost}, which is lost: the failover of {name} is `wait`"));
        }
        Verdict::At(due_ms) => {
            recall::remind(draft, due_ms);
            return Ok(format!(
                "waits for cluster {lost}, which is lost, before {name} makes its artifacts again: nothing says that it may run twice"
            ));
        }
    }
    let mut work = Turn::new(draft, leader, workflow)
        .ok_or_else(|| "its manifest can't be read".to_owned())
        .and_then(|mut turn| leaf::work_again(&mut turn, producer))
        .map_err(|why| format!("{name} can't be run again for it: {why}"))?;
    work.reproduces = true;
    work.beside = here.as_ref().map(|(cluster, _)| cluster.clone()).unwrap_or_default();
    work.shape = crate::place::shape(&draft.state, workflow, producer, &work);
    let reader = draft.state.node(workflow, reader).map_or_else(String::new, |row| row.name.clone());
    let reproduction = row::Reproduction {
        reason: row::ReproductionReason::Artifact.into(),
        lost: lost.to_owned(),
        reader,
        ..row::Reproduction::default()
    };
    draft.emit(Body::ReproductionQueued(fact::ReproductionQueued {
        workflow,
        node: producer,
        work: Some(work),
        reproduction: Some(reproduction),
    }));
    Ok(waits)
}

/// What the step makes belongs into the store of a lost cluster, and no other repository is known.
fn has_nowhere_to_go(state: &State, leader: &Leader, workflow: u64, producer: u32) -> bool {
    let Some(row) = state.workflows.get(&workflow) else { return false };
    let is_lost = |artifact: &row::Artifact| {
        let location = artifacts::whole_location(artifact, row);
        refuge::owner(leader, &location).is_some_and(|owner| refuge::is_lost(state, owner))
    };
    stored_outputs(state, workflow, producer).any(is_lost) && !refuge::is_there(state, leader)
}

/// Some artifact of the step is still where nobody can have it, or not where its reader needs it.
fn is_needed(state: &State, leader: &Leader, workflow: u64, node: u32, work: &row::Work) -> bool {
    let is_elsewhere = |cluster: &str| !work.beside.is_empty() && cluster != work.beside;
    stored_outputs(state, workflow, node).any(|artifact| {
        match find::whereabouts(state, leader, workflow, artifact) {
            Whereabouts::In(cluster) => find::is_gone(state, &cluster) || is_elsewhere(&cluster),
            Whereabouts::Anywhere => false,
        }
    })
}

fn stored_outputs(state: &State, workflow: u64, node: u32) -> impl Iterator<Item = &row::Artifact> {
    let outputs = state.node(workflow, node).and_then(|row| row.outputs.as_ref());
    let artifacts = outputs.into_iter().flat_map(|outputs| &outputs.artifacts);
    artifacts.filter(|artifact| !artifact.stored_key.is_empty())
}

/// Where a step goes that has the choice: to its reader's other inputs, else to where others of its workflow went, so
/// that whoever needs several of them finds them in one place.
fn beside(state: &State, workflow: u64, work: &row::Work) -> Option<String> {
    let refuge = state.workflows.get(&workflow).map_or("", |row| &row.refuge);
    let there = |cluster: &&str| !cluster.is_empty() && !find::is_gone(state, cluster);
    [work.beside.as_str(), refuge].iter().find(|cluster| there(cluster)).map(ToString::to_string)
}

/// Where a workflow bounds what runs at the same time, one step runs again at a time: in the place of a reader, which waits.
fn not_its_turn(draft: &Draft, leader: &mut Leader, workflow: u64) -> Option<String> {
    let parsed = leader.parsed(&draft.state, workflow)?;
    let spec = &parsed.manifest.spec;
    let is_bounded =
        spec.parallelism.is_some() || spec.templates.iter().any(|template| template.parallelism.is_some());
    if !is_bounded {
        return None;
    }
    let mut works = draft.state.works.range(all_of(workflow));
    let (key, _) = works.find(|(_, work)| work.reproduces && work.fence.is_some())?;
    Some(format!(
        "waits for {} to make its artifacts again: the workflow's parallelism is bounded",
        shown(&draft.state, workflow, key.1)
    ))
}

fn shown(state: &State, workflow: u64, node: u32) -> String {
    state.node(workflow, node).map_or_else(String::new, |row| display_name(state, workflow, row))
}

pub(super) fn all_of(workflow: u64) -> RangeInclusive<(u64, u32)> {
    (workflow, 0)..=(workflow, u32::MAX)
}
