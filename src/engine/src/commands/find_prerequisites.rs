use argosy_proto::command::{FindPrerequisites, Refusal, Reply};
use argosy_proto::fact::{self, fact::Body};

use crate::Code;
use crate::commands::done;
use crate::draft::Draft;

/// Names in one answer.
const NAMES_MAX: usize = 5_000;
const NAME_BYTES_MAX: usize = 600;

/// What a cluster has of the things that steps need. Only news is recorded.
pub(crate) fn decide(draft: &mut Draft, command: &FindPrerequisites) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let cluster = draft
        .state
        .cluster(name)
        .ok_or_else(|| Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")))?;
    let is_long = command.found.keys().any(|name| name.len() > NAME_BYTES_MAX);
    if command.found.len() > NAMES_MAX || is_long {
        return Err(Code::InvalidArgument.refuse(format!("cluster {name:?} told too much at once")));
    }
    let news = command.found.iter().filter(|(name, found)| cluster.prerequisites.get(*name) != Some(found));
    let found: std::collections::BTreeMap<String, bool> =
        news.map(|(name, found)| (name.clone(), *found)).collect();
    if !found.is_empty() {
        draft.emit(Body::PrerequisitesFound(fact::PrerequisitesFound { cluster: name.clone(), found }));
    }
    Ok(done())
}
