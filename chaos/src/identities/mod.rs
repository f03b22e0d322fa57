//! Certificates of true lengths over weeks: agents that are off for a day, a control plane that is off for longer than a
//! certificate lives, rolls of the authority, revocations, and thieves with a copy of an agent's key.
//!
//! The engine decides on certificates, `argosy_pki` signs and verifies them and says when to renew; around them are messages
//! that come late or never, answers that arrive broken, processes that die at the worst moment. Sessions here carry nothing
//! but what concerns certificates: [`crate::World`] has the rest, in minutes instead of weeks.

mod accidents;
mod control;
mod exchange;
mod holder;

use std::fmt;
use std::sync::Arc;

use argosy_pki::{AgentKey, Keeper};
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::state::Standing;

use crate::{Queue, Random, Trace, WALL_START_MS};
use accidents::Accident;
use control::Control;
use exchange::{Down, Up};
use holder::{Files, Holder, Process};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Agents' clocks differ by at most so much: less than a certificate is dated back.
const OFFSET_MAX_MS: i64 = 120_000;
/// At the end nothing happens for so long: whoever is good has a session then.
const QUIET_MS: u64 = 8 * HOUR_MS;
/// Renewals of a certificate of an hour, for each hour that its agent runs.
const RENEWALS_PER_HOUR: u64 = 3;

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names the run.
    pub seed: u64,
    /// Its length.
    pub days: u64,
    /// Agents.
    pub agents: usize,
    /// Nothing goes wrong: how renewals spread is looked at.
    pub is_calm: bool,
    /// How long after its end a certificate can be renewed.
    pub renewal_grace_ms: u64,
    /// A bug to be seen: revoked certificates are let in.
    pub ignores_revocations: bool,
    /// Print everything that happens.
    pub echo_trace: bool,
}

impl Options {
    /// A run with accidents.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self {
            seed,
            days: 18,
            agents: 4,
            is_calm: false,
            renewal_grace_ms: 7 * DAY_MS,
            ignores_revocations: false,
            echo_trace: false,
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What was broken.
    pub violations: Vec<String>,
    /// Digest of everything that happened.
    pub fingerprint: String,
    /// Its last lines.
    pub trace: Vec<String>,
    /// Certificates renewed.
    pub renewals: u64,
    /// Agents that went on by themselves after they had been away for a day or longer.
    pub returned: u64,
    /// Clusters locked for a copied key.
    pub locked: u64,
    /// Rolls of the authority that came to their end.
    pub rolls: u64,
    /// Handshakes that were refused.
    pub refused: u64,
    /// Most renewals within one minute.
    pub renewals_per_minute_max: u64,
}

enum Event {
    Look { holder: usize, life: u64 },
    Connect { holder: usize, life: u64 },
    Up { holder: usize, connection: u64, shown: u64, message: Up },
    Down { holder: usize, life: u64, connection: u64, message: Down },
    Broken { holder: usize, life: u64, connection: u64 },
    Start { holder: usize },
    Invite { holder: usize },
    ControlStarts,
    Accident(Accident),
}

/// A control plane and its agents, for weeks.
pub struct World {
    options: Options,
    queue: Queue<Event>,
    random: Random,
    trace: Trace,
    control: Control,
    holders: Vec<Holder>,
    /// Clusters that may be locked, because somebody has a copy of their key.
    robbed: Vec<String>,
    locked_noted: Vec<String>,
    next_id: u64,
    minute: (u64, u64),
    report: Report,
}

impl World {
    /// Runs a seed to its end.
    ///
    /// # Errors
    /// The cryptographic library refused.
    pub fn run(options: Options) -> Result<Report, argosy_pki::Error> {
        let mut world = Self {
            queue: Queue::default(),
            random: Random::new(options.seed),
            trace: Trace::new(false, options.echo_trace),
            control: Control::new(&options, WALL_START_MS)?,
            holders: Vec::new(),
            robbed: Vec::new(),
            locked_noted: Vec::new(),
            next_id: 1,
            minute: (0, 0),
            report: Report {
                violations: Vec::new(),
                fingerprint: String::new(),
                trace: Vec::new(),
                renewals: 0,
                returned: 0,
                locked: 0,
                rolls: 0,
                refused: 0,
                renewals_per_minute_max: 0,
            },
            options,
        };
        world.begin();
        let end_ms = world.options.days * DAY_MS;
        while world.report.violations.is_empty() {
            let Some(event) = world.queue.next(end_ms) else { break };
            world.happen(event);
        }
        world.judge_end(end_ms);
        let mut report = world.report;
        report.fingerprint = world.trace.fingerprint();
        report.trace = world.trace.lines().map(str::to_owned).collect();
        Ok(report)
    }

    fn begin(&mut self) {
        for number in 0..self.options.agents {
            let offset_ms = self.random.around_zero(OFFSET_MAX_MS);
            self.holders.push(Holder::new(format!("c{number}"), false, offset_ms));
            // All within a minute: their certificates are of one age.
            let at_ms = self.random.below(MINUTE_MS);
            self.queue.plan(at_ms, Event::Invite { holder: number });
        }
        if !self.options.is_calm {
            self.plan_accidents();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Look { holder, life } => self.look(holder, life),
            Event::Connect { holder, life } => self.connect(holder, life),
            Event::Up { holder, connection, shown, message } => {
                self.arrive(holder, (connection, shown), message);
            }
            Event::Down { holder, life, connection, message } => {
                if self.holders[holder].life == life {
                    self.answered(holder, connection, message);
                }
            }
            Event::Broken { holder, life, connection } => self.broken(holder, life, connection),
            Event::Start { holder } => self.start(holder),
            Event::Invite { holder } => self.invite(holder),
            Event::ControlStarts => {
                self.line(format_args!("the control plane is back"));
                self.control.is_up = true;
            }
            Event::Accident(accident) => self.accident(accident),
        }
    }

    fn now_ms(&self) -> u64 {
        self.queue.now_ms()
    }

    /// The control plane's wall clock.
    fn wall_ms(&self) -> i64 {
        WALL_START_MS + i64::try_from(self.now_ms()).unwrap_or(i64::MAX)
    }

    fn holder_wall_ms(&self, holder: usize) -> i64 {
        self.wall_ms() + self.holders[holder].offset_ms
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        self.trace.line(self.queue.now_ms(), text);
    }

    fn violate(&mut self, text: String) {
        self.line(format_args!("BROKEN: {text}"));
        self.report.violations.push(text);
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The process of a holder that has files starts.
    fn start(&mut self, holder: usize) {
        let now_ms = self.now_ms();
        let (instance, draw) = (self.random.draw() | 1, self.random.draw());
        let it = &mut self.holders[holder];
        let (None, Some(files)) = (&it.process, &it.files) else { return };
        let is_late = !it.needs_invite && now_ms - it.away_since_ms >= DAY_MS && it.away_since_ms > 0;
        it.process = Some(Process {
            instance,
            keeper: Keeper::new(files.identity.clone(), draw),
            connection: None,
            is_welcome: false,
            asked: None,
            questions: 0,
        });
        it.started_ms = now_ms;
        it.life += 1;
        let (life, name) = (it.life, it.name());
        self.report.returned += u64::from(is_late);
        self.line(format_args!("{name} starts, life {life}"));
        self.queue.plan_after(1, Event::Connect { holder, life });
        self.queue.plan_after(2, Event::Look { holder, life });
    }

    /// An operator makes an invite, and the agent redeems it with a new key.
    fn invite(&mut self, holder: usize) {
        if !self.control.is_up {
            self.queue.plan_after(MINUTE_MS, Event::Invite { holder });
            return;
        }
        match self.enrol(holder) {
            Ok(()) => {
                let name = self.holders[holder].name();
                self.line(format_args!("{name} is enrolled"));
                self.start(holder);
            }
            Err(error) => self.violate(format!("{} can't enrol: {error}", self.holders[holder].name())),
        }
    }

    fn enrol(&mut self, holder: usize) -> Result<(), String> {
        let (now_ms, wall_ms) = (self.wall_ms(), self.holder_wall_ms(holder));
        let cluster = self.holders[holder].cluster.clone();
        let token_hash = argosy_pki::invite_hash(&self.fresh_id().to_string()).to_vec();
        let refused = |refusal: argosy_engine::Refusal| format!("{}: {}", refusal.code, refusal.message);
        let invite =
            ask::CreateInvite { cluster: cluster.clone(), token_hash: token_hash.clone(), ttl_ms: 3_600_000 };
        self.control.command(now_ms, Body::CreateInvite(invite)).map_err(refused)?;
        let text = |error: argosy_pki::Error| error.to_string();
        let key = AgentKey::generate().map_err(text)?;
        let request = key.signing_request().map_err(text)?;
        let redeem = ask::RedeemInvite {
            cluster: cluster.clone(),
            cluster_uid: uid(&cluster),
            token_hash,
            key: self.control.check(&request, &cluster).map_err(text)?,
            authority: self.control.authority(),
        };
        let reply = self.control.command(now_ms, Body::RedeemInvite(redeem)).map_err(refused)?;
        let Some(reply::Body::InviteRedeemed(redeemed)) = reply.body else {
            return Err("an unexpected answer".to_owned());
        };
        let issued = self.control.sign(&request, &cluster, redeemed.generation, now_ms).map_err(text)?;
        let identity = Keeper::check(&key, issued.chain, issued.roots, &cluster, wall_ms).map_err(text)?;
        self.after_command();
        let at_ms = self.now_ms();
        let it = &mut self.holders[holder];
        it.end(at_ms);
        it.needs_invite = false;
        it.accidents += 1;
        it.files = Some(Files { key: Arc::new(key), identity });
        self.locked_noted.retain(|locked| *locked != cluster);
        Ok(())
    }

    /// What members do once a command is committed: streams of revoked certificates end, agents hear of authorities, and the
    /// operator hears the alarm of a locked key.
    fn after_command(&mut self) {
        let mut has_changed = false;
        while self.control.follow_roll(self.wall_ms()) {
            has_changed = true;
        }
        if has_changed {
            self.line(format_args!("the cell trusts {} authorities", self.control.trusts().len()));
            self.tell_everybody();
        }
        if !self.options.ignores_revocations {
            self.end_refused();
        }
        for number in 0..self.options.agents {
            let cluster = self.holders[number].cluster.clone();
            if self.control.standing(&cluster) != Standing::Locked || self.locked_noted.contains(&cluster) {
                continue;
            }
            self.locked_noted.push(cluster.clone());
            self.report.locked += 1;
            self.line(format_args!("cluster {cluster} is locked"));
            if !self.robbed.contains(&cluster) {
                self.violate(format!("cluster {cluster} is locked, and nobody has a copy of its key"));
            }
            self.holders[number].needs_invite = true;
            self.queue.plan_after(HOUR_MS, Event::Invite { holder: number });
        }
    }

    /// One more certificate was issued.
    fn count_renewal(&mut self, holder: usize) {
        let minute = self.now_ms() / MINUTE_MS;
        self.minute = if self.minute.0 == minute { (minute, self.minute.1 + 1) } else { (minute, 1) };
        // After the first hours: all began at one time.
        if self.now_ms() > 12 * HOUR_MS {
            self.report.renewals_per_minute_max = self.report.renewals_per_minute_max.max(self.minute.1);
        }
        self.report.renewals += 1;
        self.holders[holder].renewals += 1;
    }

    fn judge_end(&mut self, end_ms: u64) {
        if !self.report.violations.is_empty() {
            return;
        }
        for holder in 0..self.holders.len() {
            self.holders[holder].ran_ms += if self.holders[holder].process.is_some() {
                end_ms - self.holders[holder].started_ms
            } else {
                0
            };
            if let Some(problem) = self.problem(holder) {
                self.violate(problem);
            }
        }
    }

    /// What is wrong with a holder at the end.
    fn problem(&self, holder: usize) -> Option<String> {
        let it = &self.holders[holder];
        let name = it.name();
        if it.is_thief {
            let is_in = it.process.as_ref().is_some_and(|process| process.is_welcome);
            let row = self.control.state.cluster(&it.cluster).and_then(|row| row.identity.as_ref());
            // A key is refused once its certificates have ended, whatever came after.
            let is_noticed = row.is_some_and(|identity| !identity.refused_keys.is_empty());
            return match (is_in, it.was_let_in && !is_noticed) {
                (true, _) => Some(format!("{name} has a session at the end")),
                (false, true) => Some(format!("{name} was let in, and nobody noticed")),
                (false, false) => None,
            };
        }
        let hours = it.ran_ms.div_ceil(HOUR_MS);
        let renewals_max = RENEWALS_PER_HOUR * hours + 3 * it.accidents;
        if it.renewals > renewals_max {
            return Some(format!("{name} renewed {} times in {hours} hours", it.renewals));
        }
        let Some(process) = it.process.as_ref() else {
            return Some(format!("{name} does not run at the end"));
        };
        if !process.is_welcome {
            return Some(format!("{name} has no session at the end"));
        }
        let validity = process.keeper.identity().credentials.validity;
        validity
            .is_over(self.holder_wall_ms(holder))
            .then(|| format!("{name} has a certificate that ran out"))
    }
}

fn uid(cluster: &str) -> String {
    format!("uid-{cluster}")
}
