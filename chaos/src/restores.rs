//! The control plane's data is lost: a backup that somebody made is restored into an empty store, the members join one after
//! another, and the clusters, where everything has gone on, say what they hold. The backup is made, checked and restored by the
//! product; what is simulated is the operator, and that nothing of the old members is left.

use argosy_engine::State;
use argosy_member::{Input, backup};
use argosy_store::{Family, Kv, MemoryKv};

use crate::checkers::{Invariant, Read};
use crate::fault::Fault;
use crate::nemesis::{Intensity, Targets};
use crate::operators::Standing;
use crate::people::find;
use crate::random::Random;
use crate::users::User;
use crate::world::{Event, World};

/// How long before a backup is asked for again, or a restore waits for one.
const AGAIN_MS: u64 = 2_000;
/// What is left of a run after a restore, at least: members join, clusters report.
const AFTER_MIN_MS: u64 = 15_000;
/// Longest part of history that is lost.
const LOST_MAX_MS: u64 = 25_000;
/// Between the loss and the restored member's first start, at most.
const DOWN_MAX_MS: u64 = 20_000;
/// In so many of a thousand restores, somebody ends what was left in quarantine.
const RELEASES_PER_MILLE: u64 = 500;

/// A backup that was made.
pub(crate) struct Backup {
    bytes: Vec<u8>,
    /// The log's last index in it.
    applied: u64,
    at_ms: u64,
}

/// Backups and what became of them.
#[derive(Default)]
pub(crate) struct Restores {
    /// The read behind the backup that is being made.
    asked: Option<(u64, Read)>,
    backup: Option<Backup>,
    /// Parts of history that are lost.
    pub lost: u64,
}

/// A backup and the loss of everything but that, for runs in which other things go wrong as well.
#[must_use]
pub(crate) fn schedule(
    random: &mut Random,
    intensity: &Intensity,
    targets: Targets,
    from_ms: u64,
    until_ms: u64,
) -> Vec<(u64, Fault)> {
    if intensity.lose_cluster == 0 {
        return Vec::new();
    }
    let last_ms = until_ms.saturating_sub(AFTER_MIN_MS + LOST_MAX_MS);
    let backup_ms = random.between(from_ms, last_ms.max(from_ms));
    let lost_ms = backup_ms + random.between(1, LOST_MAX_MS);
    let restore = Fault::Restore {
        founder: random.between(1, targets.members),
        down_ms: random.between(100, DOWN_MAX_MS.min(until_ms.saturating_sub(lost_ms + 1_000)).max(100)),
        releases: random.per_mille(RELEASES_PER_MILLE),
    };
    vec![(backup_ms, Fault::BackUp { member: random.between(1, targets.members) }), (lost_ms, restore)]
}

impl World {
    /// Somebody asks a member for a backup, and asks another one if there is no answer.
    pub(crate) fn back_up(&mut self, member: u64) {
        if self.restores.backup.is_some() || self.restores.lost > 0 || self.now_ms() > self.options.active_ms
        {
            return;
        }
        let next = member % self.options.members + 1;
        self.queue.plan_after(AGAIN_MS, Event::BackUp { member: next });
        // Who has not enrolled by then would have to be invited anew.
        if !self.users[0].is_idle() || !self.clusters.iter().all(|cluster| cluster.enrolled) {
            return;
        }
        let request = self.fresh_id();
        let read = self.checkers.durability.read_begins(self.now_ms());
        self.restores.asked = Some((request, read));
        self.line(format_args!("a backup is asked of member {member}: request {request}"));
        self.member_input(member, Input::Read { request });
    }

    /// A member answers a read. Whether it was the one that a backup waits for.
    pub(crate) fn backed_up(&mut self, id: u64, request: u64, is_served: bool) -> bool {
        let Some((_, read)) = self.restores.asked.take_if(|(asked, _)| *asked == request) else {
            return false;
        };
        if !is_served {
            return true;
        }
        let Some(machine) = self.members.get(&id).and_then(|host| host.machine()) else { return true };
        let (state, applied) = (machine.state().clone(), machine.applied_index());
        let mut bytes = Vec::new();
        let made = machine.checkpoint().map_err(backup::Error::from).and_then(|checkpoint| {
            let mut take = |piece: Vec<u8>| {
                bytes.extend(piece);
                true
            };
            backup::write(checkpoint.as_ref(), &mut take)
        });
        if let Err(error) = made {
            // Its disk is failing, or nothing was decided yet.
            self.line(format_args!("member {id} makes no backup: {error}"));
            return true;
        }
        self.line(format_args!("member {id} makes a backup at sequence {}", state.sequence()));
        self.read_ends(read, &state);
        self.restores.backup = Some(Backup { bytes, applied, at_ms: self.now_ms() });
        true
    }

    /// Everything of the control plane is lost but the backup.
    pub(crate) fn restore(&mut self, founder: u64, down_ms: u64, releases: bool) {
        let Some(backup) = self.restores.backup.take() else {
            if self.now_ms() + AFTER_MIN_MS + AGAIN_MS < self.options.active_ms {
                let again = Fault::Restore { founder, down_ms, releases };
                self.queue.plan_after(AGAIN_MS, Event::Fault(Box::new(again)));
            }
            return;
        };
        self.restores.asked = None;
        self.restores.lost += 1;
        self.counts.restores += 1;
        let (kv, state) = match restored(&backup.bytes, founder) {
            Ok(restored) => restored,
            Err(error) => return self.judge(Invariant::Durable, Err(format!("no backup: {error}"))),
        };
        let at_ms = backup.at_ms;
        self.line(format_args!(
            "the backup of {at_ms} ms, sequence {}, is restored to member {founder}",
            state.sequence()
        ));
        let mut kv = Some(kv);
        for member in 1..=self.options.members {
            let disk = if member == founder { kv.take() } else { None };
            self.member_replaced(member, down_ms, disk);
        }
        self.network.forget_peers();
        self.requests.values_mut().for_each(|request| request.lost = true);
        self.connections_lost();
        self.history_restored(&backup, state);
        let joining = (1..=self.options.members).filter(|member| *member != founder);
        let names = if releases {
            self.clusters.iter().map(|cluster| cluster.name.clone()).collect()
        } else {
            Vec::new()
        };
        let random = Random::of_part(self.options.seed, "recovery");
        let user = self.users.len();
        self.users.push(User::recovering(user, random, joining, names));
        self.queue.plan_after(down_ms, Event::UserActs { user });
    }

    /// What was seen after the backup counts no more, but for what commands did and are doing.
    fn history_restored(&mut self, backup: &Backup, state: State) {
        let now_ms = self.now_ms();
        let empty = State::new();
        let difference = state.difference(&empty);
        let nodes: Vec<_> = difference
            .nodes
            .iter()
            .filter_map(|((workflow, number), node)| {
                Some(crate::judge::node_seen(*workflow, *number, (*node)?))
            })
            .collect();
        let attempts: Vec<_> = difference
            .attempts
            .iter()
            .filter_map(|(fence, attempt)| {
                let attempt = (*attempt)?;
                Some(crate::judge::attempt_seen(*fence, attempt, state.reproduces(fence)))
            })
            .collect();
        self.checkers.exclusive.restored();
        self.name_steps(&difference.nodes);
        self.checkers.results.restored(now_ms, backup.applied, nodes, attempts);
        self.checkers.agreement.restored();
        self.checkers.votes.restored();
        self.checkers.schedules.restored(crate::schedules::seen(&state).into_iter().map(|(_, cron)| cron));
        self.checkers.durability.restored(state.sequence(), |name| find(&state, name));
        let standings: Vec<(String, Standing)> = state
            .clusters()
            .map(|(name, row)| (name.to_owned(), Standing { cordoned: row.cordoned, removed: row.removed }))
            .collect();
        for (name, standing) in standings {
            self.checkers.durability.order_restored(now_ms, &name, standing);
            self.users.iter_mut().for_each(|user| user.finds(&name, standing));
        }
        self.latest = state;
    }
}

/// A store made of a backup, and the state in it.
fn restored(bytes: &[u8], founder: u64) -> Result<(MemoryKv, State), backup::Error> {
    let checked = backup::verify(bytes)?;
    let mut kv = MemoryKv::new();
    backup::restore(&mut kv, bytes, founder, &checked)?;
    let rows = kv.scan(Family::State, b"", None, usize::MAX)?;
    Ok((kv, State::load(rows.into_iter())?))
}
