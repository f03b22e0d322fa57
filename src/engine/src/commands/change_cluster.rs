use argosy_proto::command::{ChangeCluster, Refusal, Reply};
use argosy_proto::common::Taint;
use argosy_proto::fact::{self, fact::Body};

use crate::Code;
use crate::commands::{done, find_cluster};
use crate::draft::Draft;

/// Labels and taints that operators give one cluster, and bytes of one.
const MARKS_MAX: usize = 64;
const MARK_BYTES_MAX: usize = 512;
/// The one effect of a cluster's taint.
const NO_SCHEDULE: &str = "NoSchedule";

/// Cordon, uncordon, labels and taints. Nothing is recorded when all is so already.
pub(crate) fn decide(draft: &mut Draft, command: &ChangeCluster) -> Result<Reply, Refusal> {
    let row = find_cluster(&draft.state, &command.cluster)?.clone();
    let bad = |message: String| Code::InvalidArgument.refuse(message);
    let mut own_labels = row.own_labels.clone();
    for key in &command.remove_labels {
        own_labels.remove(key);
    }
    for (key, value) in &command.set_labels {
        if key.is_empty() || key.len() + value.len() > MARK_BYTES_MAX {
            return Err(bad(format!("label {key:?} is empty or has more than {MARK_BYTES_MAX} bytes")));
        }
        own_labels.insert(key.clone(), value.clone());
    }
    let mut taints = row.taints.clone();
    taints.retain(|taint| !command.remove_taints.contains(&taint.key));
    for taint in &command.set_taints {
        if taint.effect != NO_SCHEDULE {
            return Err(bad(format!(
                "a cluster's taint has the effect {NO_SCHEDULE}, not {:?}",
                taint.effect
            )));
        }
        if taint.key.is_empty() || taint.key.len() + taint.value.len() > MARK_BYTES_MAX {
            return Err(bad(format!(
                "taint {:?} is empty or has more than {MARK_BYTES_MAX} bytes",
                taint.key
            )));
        }
        taints.retain(|known: &Taint| known.key != taint.key);
        taints.push(taint.clone());
    }
    if own_labels.len() > MARKS_MAX || taints.len() > MARKS_MAX {
        return Err(bad(format!(
            "a cluster has at most {MARKS_MAX} labels and {MARKS_MAX} taints from operators"
        )));
    }
    let cordoned = command.cordon.unwrap_or(row.cordoned);
    if command.cordon == Some(false) && row.drain.is_some_and(|drain| !drain.degraded) {
        let over = fact::ClusterDrainMoved { cluster: command.cluster.clone(), drain: None };
        draft.emit(Body::ClusterDrainMoved(over));
    }
    if (cordoned, &own_labels, &taints) != (row.cordoned, &row.own_labels, &row.taints) {
        let cluster = command.cluster.clone();
        draft.emit(Body::ClusterChanged(fact::ClusterChanged { cluster, cordoned, own_labels, taints }));
    }
    Ok(done())
}
