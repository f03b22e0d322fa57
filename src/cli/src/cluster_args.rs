//! Arguments of the commands on clusters, members and authorities.

use clap::{Args, Subcommand};
use std::time::Duration;

use crate::args::{Format, Output};

/// `argosy cluster`.
#[derive(Subcommand, Clone, Debug)]
pub enum Cluster {
    /// Make a single-use invite for a cluster's agent
    Invite(Invite),
    /// List clusters
    List(Format),
    /// Show a cluster
    Get(ClusterGet),
    /// Let nothing new start on a cluster
    Cordon(ClusterName),
    /// Let steps start on a cluster again; ends a drain
    Uncordon(ClusterName),
    /// Empty a cluster: what has not started moves at once, what runs may end until the deadline
    Drain(ClusterDrain),
    /// Set labels (KEY=VALUE) or remove them (KEY-)
    Label(ClusterMarks),
    /// Set taints (KEY=VALUE:NoSchedule) or remove them (KEY-)
    Taint(ClusterMarks),
    /// Let a cluster that has enrolled be used, where the policy asks for it
    Approve(ClusterReason),
    /// Turn the agent of a cluster away: its certificates are not accepted any more, and its steps move
    Revoke(ClusterReason),
    /// End the registration of a cluster
    Remove(ClusterRemove),
    /// Give a cluster up for one that was built anew, and invite that under the same name
    Replace(Invite),
    /// Invite a cluster that was removed again
    Rejoin(Invite),
}

/// The name of a cluster.
#[derive(Args, Clone, Debug)]
pub struct ClusterName {
    /// Name of the cluster.
    pub name: String,
}

/// `argosy ca`.
#[derive(Subcommand, Clone, Debug)]
pub enum Authority {
    /// Replace the certificate authority while everything runs: first it is made known, then it issues
    Roll(AuthorityRoll),
    /// Print the certificates of the authorities that clients have to trust
    Bundle,
}

/// `argosy ca roll`.
#[derive(Args, Clone, Debug)]
pub struct AuthorityRoll {
    /// Only say how far a roll is and who is behind; fails while somebody is.
    #[arg(long, conflicts_with_all = ["finish", "force"])]
    pub check: bool,
    /// Drop the old authority: nothing that it signed is accepted after that.
    #[arg(long)]
    pub finish: bool,
    /// Don't wait for those that are behind: they have to be enrolled again.
    #[arg(long, requires = "finish")]
    pub force: bool,
}

/// `argosy cluster approve` and `argosy cluster revoke`.
#[derive(Args, Clone, Debug)]
pub struct ClusterReason {
    /// Name of the cluster.
    pub name: String,
    /// Why; shown with the cluster.
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// `argosy cluster drain`.
#[derive(Args, Clone, Debug)]
pub struct ClusterDrain {
    /// Name of the cluster.
    pub name: String,
    /// After this time running steps that are safe to repeat are moved, as in 10m.
    #[arg(long, value_parser = crate::time::parse_span)]
    pub deadline: Option<Duration>,
    /// Don't wait until the cluster is empty.
    #[arg(long)]
    pub no_wait: bool,
}

/// `argosy cluster label` and `argosy cluster taint`.
#[derive(Args, Clone, Debug)]
pub struct ClusterMarks {
    /// Name of the cluster.
    pub name: String,
    /// What to set or remove.
    #[arg(required = true, value_name = "MARK")]
    pub marks: Vec<String>,
}

/// `argosy cluster remove`.
#[derive(Args, Clone, Debug)]
pub struct ClusterRemove {
    /// Name of the cluster.
    pub name: String,
    /// Give up what it still holds; its agent, if it is there, lets go of everything.
    #[arg(long)]
    pub forget: bool,
}

/// `argosy cluster invite`.
#[derive(Args, Clone, Debug)]
pub struct Invite {
    /// Name that the cluster gets.
    pub name: String,
    /// How long the invite can be used, as in 10m.
    #[arg(long, default_value = "10m", value_parser = crate::time::parse_span)]
    pub ttl: Duration,
    /// Output format: json and yaml print all of the answer, name only the token.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy cluster get`.
#[derive(Args, Clone, Debug)]
pub struct ClusterGet {
    /// Name of the cluster.
    pub name: String,
    /// Output format.
    #[arg(short, long)]
    pub output: Option<Output>,
}

/// `argosy recovery`.
#[derive(Args, Clone, Debug)]
pub struct Recovery {
    /// Stop what runs on this cluster and belongs to the lost part of history
    #[arg(long, value_name = "CLUSTER")]
    pub release: Option<String>,
}

/// `argosy member`.
#[derive(Subcommand, Clone, Debug)]
pub enum Member {
    /// List members
    List(Format),
    /// Let a new member join: first it learns, then it votes
    #[command(
        after_help = "The new member runs with `join: true` in its configuration and a copy of the cell's pki directory."
    )]
    Add(AddMember),
    /// Remove a member for good; its number is never used again
    Remove(RemoveMember),
    /// Hand leadership over to a member
    Lead(LeadMember),
}

/// `argosy member add`.
#[derive(Args, Clone, Debug)]
pub struct AddMember {
    /// A number that no member has or had
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,
    /// Where other members reach it, host:port
    #[arg(long)]
    pub peer: String,
    /// Where agents reach it, host:port
    #[arg(long)]
    pub agent: String,
    /// Where users reach it, host:port
    #[arg(long)]
    pub api: String,
    /// A member that leaves once the new one votes
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub replace: Option<u64>,
    /// How long to wait.
    #[command(flatten)]
    pub wait: WaitMember,
}

/// `argosy member remove`.
#[derive(Args, Clone, Debug)]
pub struct RemoveMember {
    /// The member's number
    pub id: u64,
    /// Although too few of those that stay are in touch: may stop the cell
    #[arg(long)]
    pub force: bool,
    /// How long to wait.
    #[command(flatten)]
    pub wait: WaitMember,
}

/// `argosy member lead`.
#[derive(Args, Clone, Debug)]
pub struct LeadMember {
    /// The member's number
    pub id: u64,
    /// How long to wait.
    #[command(flatten)]
    pub wait: WaitMember,
}

/// How long a change of members is waited for.
#[derive(Args, Clone, Debug)]
pub struct WaitMember {
    /// Return once the change is recorded
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting after this; the change goes on
    #[arg(long, default_value = "5m", value_parser = crate::time::parse_span)]
    pub timeout: Duration,
}
