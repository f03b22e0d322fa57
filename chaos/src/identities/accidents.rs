//! What goes wrong in these weeks, and what operators do.

use argosy_proto::command::{self as ask, IdentityAction, command::Body};

use super::holder::Holder;
use super::{DAY_MS, Event, HOUR_MS, MINUTE_MS, OFFSET_MAX_MS, QUIET_MS, World};

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Accident {
    AgentEnds {
        holder: usize,
        for_ms: u64,
    },
    ControlEnds {
        for_ms: u64,
    },
    RollBegins,
    RollEnds,
    Revoked {
        holder: usize,
    },
    /// Somebody copies the files of an agent, and uses them later.
    Robbed {
        holder: usize,
        waits_ms: u64,
    },
}

impl World {
    /// Agents 0 and 1 are nobody's aim: their days are bad enough. Agent 2 is away for longer than the grace, or is revoked;
    /// agent 3 is robbed.
    pub(super) fn plan_accidents(&mut self) {
        let end_ms = self.options.days * DAY_MS - QUIET_MS;
        let grace_ms = self.options.renewal_grace_ms;
        let plan = |world: &mut Self, latest_ms: u64, accident: Accident| {
            let at_ms = world.random.between(2 * HOUR_MS, latest_ms);
            world.queue.plan(at_ms, Event::Accident(accident));
        };
        // A day; and most of the grace: the control plane may be off, too, when it comes back.
        plan(self, end_ms - DAY_MS, Accident::AgentEnds { holder: 0, for_ms: DAY_MS });
        let almost_ms = 6 * DAY_MS;
        plan(self, end_ms - almost_ms, Accident::AgentEnds { holder: 1, for_ms: almost_ms });
        for holder in 0..self.options.agents {
            for _ in 0..self.random.below(8) {
                let for_ms = self.random.between(1, 10 * MINUTE_MS);
                plan(self, end_ms - HOUR_MS, Accident::AgentEnds { holder, for_ms });
            }
        }
        let for_ms = self.random.between(2 * HOUR_MS, 20 * HOUR_MS);
        plan(self, end_ms - DAY_MS, Accident::ControlEnds { for_ms });
        let for_ms = self.random.between(1, 2 * MINUTE_MS);
        plan(self, end_ms - DAY_MS, Accident::ControlEnds { for_ms });
        plan(self, end_ms - 8 * DAY_MS, Accident::RollBegins);
        if self.random.per_mille(500) {
            let for_ms = grace_ms + 2 * HOUR_MS;
            plan(self, end_ms - for_ms - DAY_MS, Accident::AgentEnds { holder: 2, for_ms });
        } else {
            plan(self, end_ms - DAY_MS, Accident::Revoked { holder: 2 });
        }
        if self.random.per_mille(700) {
            let waits_ms = self.random.between(1, 3 * DAY_MS);
            plan(self, end_ms - 5 * DAY_MS, Accident::Robbed { holder: 3, waits_ms });
        }
    }

    pub(super) fn accident(&mut self, accident: Accident) {
        self.line(format_args!("{accident:?}"));
        match accident {
            Accident::AgentEnds { holder, for_ms } => self.agent_ends(holder, for_ms),
            Accident::ControlEnds { for_ms } => {
                self.control.is_up = false;
                self.control.sessions.clear();
                for holder in 0..self.holders.len() {
                    self.holders[holder].accidents += 1;
                    self.cut(holder);
                }
                self.queue.plan_after(for_ms, Event::ControlStarts);
            }
            Accident::RollBegins | Accident::RollEnds | Accident::Revoked { .. } if !self.control.is_up => {
                self.queue.plan_after(MINUTE_MS, Event::Accident(accident));
            }
            Accident::RollBegins => {
                match self.control.begin_roll(self.wall_ms()) {
                    Ok(()) => self.after_command(),
                    Err(error) => self.violate(format!("a roll can't begin: {error}")),
                }
                self.queue.plan_after(HOUR_MS, Event::Accident(Accident::RollEnds));
            }
            Accident::RollEnds => match self.control.finish_roll(self.wall_ms()) {
                Ok(()) => {
                    self.report.rolls += 1;
                    self.after_command();
                }
                Err(reason) => {
                    // Agents that are away keep it; an operator tries again, and waits for them.
                    self.line(format_args!("the roll goes on: {reason}"));
                    self.queue.plan_after(12 * HOUR_MS, Event::Accident(Accident::RollEnds));
                }
            },
            Accident::Revoked { holder } => self.revoke(holder),
            Accident::Robbed { holder, waits_ms } => self.rob(holder, waits_ms),
        }
    }

    fn agent_ends(&mut self, holder: usize, for_ms: u64) {
        let now_ms = self.now_ms();
        let it = &mut self.holders[holder];
        if it.process.is_none() {
            return;
        }
        self.cut(holder);
        let it = &mut self.holders[holder];
        it.accidents += 1;
        it.end(now_ms);
        if for_ms > self.options.renewal_grace_ms {
            // It finds that it is too late, and an operator helps.
            it.needs_invite = true;
            self.queue.plan_after(for_ms + HOUR_MS, Event::Invite { holder });
        }
        self.queue.plan_after(for_ms, Event::Start { holder });
    }

    fn revoke(&mut self, holder: usize) {
        let revoke = ask::ChangeIdentity {
            cluster: self.holders[holder].cluster.clone(),
            action: IdentityAction::Revoke.into(),
            reason: "for the sake of it".to_owned(),
            actor: "operator".to_owned(),
        };
        if let Err(refusal) = self.control.command(self.wall_ms(), Body::ChangeIdentity(revoke)) {
            self.violate(format!("a revocation was refused: {}", refusal.message));
        }
        self.holders[holder].needs_invite = true;
        self.after_command();
        self.queue.plan_after(HOUR_MS, Event::Invite { holder });
    }

    fn rob(&mut self, holder: usize, waits_ms: u64) {
        let offset_ms = self.random.around_zero(OFFSET_MAX_MS);
        let mut thief = Holder::new(self.holders[holder].cluster.clone(), true, offset_ms);
        thief.files.clone_from(&self.holders[holder].files);
        thief.needs_invite = true;
        self.robbed.push(thief.cluster.clone());
        self.holders.push(thief);
        self.queue.plan_after(waits_ms, Event::Start { holder: self.holders.len() - 1 });
    }
}
