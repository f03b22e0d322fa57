//! Steps that ended well and run again, since a step that waits needs artifacts that were lost with their cluster.
//!
//! Their nodes stay as they are: fulfilled, counted by their parents, with the outputs of the first time. What runs again is
//! an attempt with a fence of its own; when it ends well, its artifacts' places take the place of those that were lost, and
//! nothing else of it is kept. Readers wait in the placement queue, blocked with the reason; whenever something changes
//! there, they are looked at anew, and so nothing has to be told to anybody.
//!
//! Whose artifacts only their cluster has is known of stores that the configuration names (`Leader::cluster_stores`), and
//! from attempts that did not find an input whose cluster is lost (`AttemptReport.missing_artifacts`).

mod ends;
mod find;
mod policy;

use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use std::ops::RangeInclusive;

use crate::Leader;
use crate::advance::{Turn, leaf};
use crate::draft::Draft;
use crate::recall;
use crate::scope::display_name;
use crate::state::State;
use policy::Verdict;

pub(crate) use ends::{attempt_over, end_reader, failed, not_needed, published, reader_lacks, withdraw_all};
pub(crate) use find::{attempt_of, bound, current, with_current_inputs};

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
    if work.reproduces && !is_needed(&draft.state, workflow, node) {
        return Standing::NotNeeded;
    }
    let found = match look(&draft.state, workflow, node, work) {
        Ok(found) => found,
        Err(message) => return Standing::Lost { message },
    };
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
    /// The cluster where it must run, and one of the inputs there.
    here: Option<(String, String)>,
    /// Those that are lost: the input's name, its producer if that is known, and the cluster.
    lost: Vec<(String, Option<u32>, String)>,
}

fn look(state: &State, workflow: u64, node: u32, work: &row::Work) -> Result<Found, String> {
    let mut found = Found::default();
    if work.bound.is_empty() {
        return Ok(found);
    }
    let Some(row) = state.node(workflow, node) else { return Ok(found) };
    if work.group != 0
        && let Some(pin) = state.workflows.get(&workflow).and_then(|row| row.pins.get(&work.group))
    {
        found.here = Some((pin.clone(), "the volumes or daemons of its colocation group".to_owned()));
    }
    for input in row.rare().input_artifacts.iter().filter(|input| work.bound.contains(&input.stored_key)) {
        let source = find::source(state, workflow, input);
        if source.as_ref().is_some_and(|source| find::is_deleted(source.artifact)) {
            // As Argo: whoever reads it finds that it is not there.
            continue;
        }
        let cluster = source.as_ref().map_or(&input.cluster, |source| &source.artifact.cluster);
        if find::is_gone(state, cluster) {
            found.lost.push((input.name.clone(), source.map(|source| source.producer), cluster.clone()));
            continue;
        }
        match &found.here {
            Some((other, what)) if other != cluster => return Err(apart(what, other, &input.name, cluster)),
            Some(_) => {}
            None => found.here = Some((cluster.clone(), input.name.clone())),
        }
    }
    Ok(found)
}

/// Why a step can't have all its inputs in one place.
fn apart(what: &str, there: &str, other: &str, elsewhere: &str) -> String {
    format!(
        "it needs {what}, which only cluster {there} has, and {other}, which only cluster {elsewhere} has: keep artifacts in a store that all clusters reach, or its producers in one cluster"
    )
}

/// Sees to it that what is lost is made again; what the reader waits for meanwhile, or why it waits in vain.
fn find_producers(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    reader: u32,
    found: &Found,
) -> Option<Standing> {
    let mut waits = None;
    for (input, producer, cluster) in &found.lost {
        let Some(producer) = *producer else {
            let loss = find::loss(&draft.state, cluster);
            let message =
                format!("{loss}, and with it its input {input}, which no step of this workflow makes");
            return Some(Standing::Lost { message });
        };
        let here = found.here.as_ref().map_or("", |(cluster, _)| cluster);
        match again(draft, leader, workflow, producer, reader, cluster, here) {
            Ok(message) => drop(waits.get_or_insert(message)),
            Err(why) => {
                let loss = find::loss(&draft.state, cluster);
                let producer = shown(&draft.state, workflow, producer);
                let message = format!(
                    "{loss}, and with it its input {input}: {producer} is not run again for it, as {why}"
                );
                return Some(Standing::Lost { message });
            }
        }
    }
    waits.map(|message| Standing::Waits { message })
}

/// Has a step run again, once however many wait for it; what they wait for, or why it does not.
fn again(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    producer: u32,
    reader: u32,
    lost: &str,
    beside: &str,
) -> Result<String, String> {
    let name = shown(&draft.state, workflow, producer);
    let loss = find::loss(&draft.state, lost);
    let waits = format!("waits for {name} to make its artifacts again: {loss}");
    if is_reproduction(&draft.state, workflow, producer) {
        return Ok(waits);
    }
    match policy::verdict(&draft.state, leader, workflow, producer, lost, draft.now().0)? {
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
        .and_then(|mut turn| leaf::work_again(&mut turn, producer))?;
    work.reproduces = true;
    beside.clone_into(&mut work.beside);
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

/// Some artifact of the step is still where nobody can have it.
fn is_needed(state: &State, workflow: u64, node: u32) -> bool {
    let outputs = state.node(workflow, node).and_then(|row| row.outputs.as_ref());
    let mut artifacts = outputs.iter().flat_map(|outputs| &outputs.artifacts);
    artifacts.any(|artifact| !artifact.stored_key.is_empty() && find::is_gone(state, &artifact.cluster))
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
