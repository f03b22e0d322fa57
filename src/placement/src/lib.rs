//! Placement: which cluster takes a step.
//!
//! Filters, each naming its reason, then the least loaded of what is left. It keeps nothing: requests and clusters come
//! in, a choice or the reasons come out; the caller deducts what it assigned. It doesn't know workflows or sessions.
//!
//! Invariants: the same input gives the same choice; ties go to the first name; a cluster is never chosen beyond its
//! allocatable resources as given.
//!
//! Failure model: nothing fails; "nowhere" comes with a reason for every cluster.

use argosy_model::selector_matches;
pub use argosy_model::{SELECTOR_NAME, SELECTOR_PREFIX};
use argosy_proto::common::{Resources, Runtime};
use std::collections::BTreeMap;
use std::fmt;

/// What a step asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Resources; Pods count one each.
    pub resources: Resources,
    /// Keys under [`SELECTOR_PREFIX`] and the values wanted.
    pub selector: BTreeMap<String, String>,
    /// Clusters not to use.
    pub excluded: Vec<String>,
    /// The cluster that the step's colocation group is on.
    pub pinned: Option<String>,
    /// The runtime needed; unspecified means any.
    pub runtime: Runtime,
    /// Its processes must end with their lease.
    pub exclusive: bool,
    /// The cluster where most of the bytes were made that it reads, if they are many.
    pub near: Option<String>,
    /// Taints of clusters that it bears: KEY, or KEY=VALUE.
    pub tolerations: Vec<String>,
    /// Clusters whose owners do not let it run there: unlike what is excluded, that never passes.
    pub refused: Vec<String>,
}

/// A cluster as placement sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// Its agent has a session that is not lost.
    pub connected: bool,
    /// Its runtime answers.
    pub healthy: bool,
    /// After a recovery, it has not told yet what runs there.
    pub reconciling: bool,
    /// What its agent runs steps with.
    pub runtime: Runtime,
    /// All it has.
    pub allocatable: Resources,
    /// What is assigned.
    pub used: Resources,
    /// Attempts it may hold in addition; the control plane's own bound.
    pub attempts_free: usize,
    /// Its agent can end the processes of exclusive steps, whatever happens to itself.
    pub enforces_exclusive: bool,
    /// No operator has approved it yet.
    pub unapproved: bool,
    /// Nothing new is to start there.
    pub cordoned: bool,
    /// What keeps steps away that don't bear it: key and value.
    pub taints: Vec<(String, String)>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it lacks of the prerequisites of the step that is being placed.
    pub lacking: Option<Reason>,
}

/// Why a cluster was not chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No session.
    NotConnected,
    /// Its runtime is not healthy.
    Unhealthy,
    /// After a recovery, it has not told yet what runs there.
    Reconciling,
    /// A step was taken over from it.
    Excluded,
    /// Its owner does not let the step run there.
    Refused,
    /// The colocation group is on another.
    Pinned(String),
    /// Another runtime is needed.
    Runtime,
    /// It enrolled, and no operator has approved it.
    Unapproved,
    /// An operator wants nothing new there.
    Cordoned,
    /// It has a taint that the step does not bear.
    Tainted(String),
    /// It can't hold an exclusive step to its lease.
    NotExclusive,
    /// A selector's value differs.
    Selector(String),
    /// Not enough of a resource.
    Insufficient(String),
    /// Something that the step needs does not exist there.
    Lacks(String),
    /// Whether something that the step needs exists there is being asked.
    Unchecked(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => formatter.write_str("not connected"),
            Self::Unhealthy => formatter.write_str("its runtime does not answer"),
            Self::Reconciling => formatter.write_str("has not told yet what runs there, after a recovery"),
            Self::Excluded => formatter.write_str("the step was taken over from it"),
            Self::Refused => formatter.write_str("its owner's policy refuses the step"),
            Self::Pinned(cluster) => write!(formatter, "steps that share a volume are on {cluster}"),
            Self::Runtime => formatter.write_str("has another runtime"),
            Self::Unapproved => formatter.write_str("it is not approved yet"),
            Self::Cordoned => formatter.write_str("it is cordoned"),
            Self::Tainted(key) => write!(formatter, "the step does not tolerate its taint {key}"),
            Self::NotExclusive => formatter.write_str("its agent can't end an exclusive step's processes"),
            Self::Selector(key) => write!(formatter, "does not match {key}"),
            Self::Insufficient(resource) => write!(formatter, "not enough {resource}"),
            Self::Lacks(name) => write!(formatter, "has no {name}"),
            Self::Unchecked(name) => write!(formatter, "has not said yet whether it has {name}"),
        }
    }
}

/// Chooses a cluster: its place in `clusters`.
///
/// # Errors
/// Every cluster with the reason why not, when none is left. When exclusions are all that stands against the connected
/// clusters, they are ignored: a cluster that came back is better than none.
pub fn place(request: &Request, clusters: &[ClusterView]) -> Result<usize, Vec<(String, Reason)>> {
    let reasons: Vec<Option<Reason>> = clusters.iter().map(|cluster| reason(request, cluster)).collect();
    let open = |wanted: &dyn Fn(&Option<Reason>) -> bool| {
        let candidates = clusters.iter().enumerate().filter(|(at, _)| wanted(&reasons[*at]));
        candidates.min_by(|(_, left), (_, right)| {
            score(request, left).total_cmp(&score(request, right)).then_with(|| left.name.cmp(&right.name))
        })
    };
    let chosen =
        open(&|reason| reason.is_none()).or_else(|| open(&|reason| *reason == Some(Reason::Excluded)));
    chosen.map(|(at, _)| at).ok_or_else(|| {
        clusters
            .iter()
            .zip(&reasons)
            .filter_map(|(cluster, reason)| Some((cluster.name.clone(), reason.clone()?)))
            .collect()
    })
}

/// Whether a cluster takes what is requested, now or when it has room: what stands against it may pass by itself.
#[must_use]
pub fn could_take(request: &Request, cluster: &ClusterView) -> bool {
    match reason(request, cluster) {
        None | Some(Reason::Excluded | Reason::Insufficient(_) | Reason::Unchecked(_)) => true,
        Some(
            Reason::NotConnected
            | Reason::Unhealthy
            | Reason::Reconciling
            | Reason::Refused
            | Reason::Pinned(_)
            | Reason::Runtime
            | Reason::Unapproved
            | Reason::Cordoned
            | Reason::Tainted(_)
            | Reason::NotExclusive
            | Reason::Selector(_)
            | Reason::Lacks(_),
        ) => false,
    }
}

/// Exclusion comes last: a cluster that is only excluded could take the step.
fn reason(request: &Request, cluster: &ClusterView) -> Option<Reason> {
    if !cluster.connected {
        return Some(Reason::NotConnected);
    }
    if !cluster.healthy {
        return Some(Reason::Unhealthy);
    }
    if cluster.reconciling {
        return Some(Reason::Reconciling);
    }
    if cluster.unapproved {
        return Some(Reason::Unapproved);
    }
    if cluster.cordoned {
        return Some(Reason::Cordoned);
    }
    let bears = |key: &String, value: &String| {
        request.tolerations.iter().any(|borne| match borne.split_once('=') {
            Some((wanted, of)) => wanted == key && of == value,
            None => borne == key,
        })
    };
    if let Some((key, _)) = cluster.taints.iter().find(|(key, value)| !bears(key, value)) {
        return Some(Reason::Tainted(key.clone()));
    }
    if let Some(pinned) = request.pinned.as_ref().filter(|pinned| **pinned != cluster.name) {
        return Some(Reason::Pinned(pinned.clone()));
    }
    // A simulated cluster stands for any other.
    let fits = [Runtime::Unspecified, cluster.runtime].contains(&request.runtime);
    if !fits && cluster.runtime != Runtime::Simulated {
        return Some(Reason::Runtime);
    }
    if request.exclusive && !cluster.enforces_exclusive {
        return Some(Reason::NotExclusive);
    }
    for (key, wanted) in &request.selector {
        if !selector_matches(key, wanted, &cluster.name, &cluster.labels) {
            return Some(Reason::Selector(key.clone()));
        }
    }
    if request.refused.contains(&cluster.name) {
        return Some(Reason::Refused);
    }
    if let Some(resource) = insufficient(request, cluster) {
        return Some(Reason::Insufficient(resource));
    }
    if let Some(lacking) = &cluster.lacking {
        return Some(lacking.clone());
    }
    request.excluded.contains(&cluster.name).then_some(Reason::Excluded)
}

fn insufficient(request: &Request, cluster: &ClusterView) -> Option<String> {
    let (wanted, have, used) = (&request.resources, &cluster.allocatable, &cluster.used);
    let lacks = |wanted: i64, have: i64, used: i64| wanted > 0 && used.saturating_add(wanted) > have;
    if cluster.attempts_free == 0 {
        return Some("room for attempts".to_owned());
    }
    if lacks(wanted.pods, have.pods, used.pods) {
        return Some("pods".to_owned());
    }
    if lacks(wanted.cpu_milli, have.cpu_milli, used.cpu_milli) {
        return Some("cpu".to_owned());
    }
    if lacks(wanted.memory_bytes, have.memory_bytes, used.memory_bytes) {
        return Some("memory".to_owned());
    }
    // Agents that don't report ephemeral storage are not judged by it.
    if have.ephemeral_storage_bytes > 0
        && lacks(wanted.ephemeral_storage_bytes, have.ephemeral_storage_bytes, used.ephemeral_storage_bytes)
    {
        return Some("ephemeral-storage".to_owned());
    }
    let of = |map: &BTreeMap<String, i64>, name: &str| map.get(name).copied().unwrap_or(0);
    wanted
        .extended
        .iter()
        .find(|(name, amount)| lacks(**amount, of(&have.extended, name), of(&used.extended, name)))
        .map(|(name, _)| name.clone())
}

/// How much fuller the cluster with a step's data may be than another one, and still be chosen.
const NEAR_SHARE: f64 = 0.25;

/// What the choice goes by: the load, less where the step's data is.
fn score(request: &Request, cluster: &ClusterView) -> f64 {
    let is_near = request.near.as_deref() == Some(cluster.name.as_str());
    load(request, cluster) - if is_near { NEAR_SHARE } else { 0.0 }
}

/// The fullest dimension after the step is there, from 0 (empty) to 1 (full).
fn load(request: &Request, cluster: &ClusterView) -> f64 {
    let (wanted, have, used) = (&request.resources, &cluster.allocatable, &cluster.used);
    #[expect(clippy::cast_precision_loss, reason = "a score needs no more than a double's precision")]
    let share = |wanted: i64, have: i64, used: i64| {
        if have <= 0 { 0.0 } else { used.saturating_add(wanted) as f64 / have as f64 }
    };
    share(wanted.pods, have.pods, used.pods)
        .max(share(wanted.cpu_milli, have.cpu_milli, used.cpu_milli))
        .max(share(wanted.memory_bytes, have.memory_bytes, used.memory_bytes))
}

/// The reasons in one line, for the node's message: grouped, so that a fleet of a thousand clusters stays readable.
#[must_use]
pub fn explain(reasons: &[(String, Reason)]) -> String {
    /// Clusters named per reason.
    const NAMES_MAX: usize = 3;
    if reasons.is_empty() {
        return "no cluster is registered: invite one with `argosy cluster invite NAME`".to_owned();
    }
    let mut groups: BTreeMap<&Reason, Vec<&str>> = BTreeMap::new();
    for (cluster, reason) in reasons {
        groups.entry(reason).or_default().push(cluster);
    }
    let parts: Vec<String> = groups
        .iter()
        .map(|(reason, names)| {
            let more = names.len().saturating_sub(NAMES_MAX);
            let shown = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
            if more == 0 {
                format!("{shown}: {reason}")
            } else {
                format!("{shown} and {more} more: {reason}")
            }
        })
        .collect();
    format!("no cluster can take it: {}", parts.join("; "))
}

#[cfg(test)]
mod tests;
