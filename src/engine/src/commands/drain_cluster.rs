use argosy_proto::command::{DrainCluster, Refusal, Reply};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::Drain;

use crate::commands::{done, find_cluster};
use crate::draft::Draft;
use crate::recall;

/// Cordons the cluster and has it emptied: what has not started leaves at once, what runs may end until the deadline. Asked
/// again, it goes on with the new deadline.
pub(crate) fn decide(draft: &mut Draft, command: &DrainCluster) -> Result<Reply, Refusal> {
    let row = find_cluster(&draft.state, &command.cluster)?.clone();
    let now_ms = draft.now().0;
    if !row.cordoned {
        draft.emit(Body::ClusterChanged(fact::ClusterChanged {
            cluster: command.cluster.clone(),
            cordoned: true,
            own_labels: row.own_labels,
            taints: row.taints,
        }));
    }
    let in_ms = i64::try_from(command.deadline_in_ms).unwrap_or(i64::MAX);
    let deadline_ms = if in_ms == 0 { 0 } else { now_ms.saturating_add(in_ms) };
    let since_ms = row.drain.filter(|drain| !drain.degraded).map_or(now_ms, |drain| drain.since_ms);
    recall::begin(draft, &command.cluster, Drain { since_ms, deadline_ms, ..Drain::default() });
    if deadline_ms != 0 {
        recall::remind(draft, deadline_ms);
    }
    Ok(done())
}
