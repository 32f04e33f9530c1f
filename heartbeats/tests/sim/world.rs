//! Replicas, kubelets, and what goes wrong between them.

mod calm;
mod faults;
mod kubelet;
mod replica;

use std::collections::BTreeMap;
use std::time::Duration;

use watershed_heartbeats::{Debt, Decision, Limits, Moment, Outcome, Reason, Write};

use crate::laws::Laws;
use crate::store::{Answer, Store, Stored};
pub(crate) use kubelet::{Kubelet, Reply, Request};
pub(crate) use replica::Replica;

const KUBELETS: usize = 6;
const REPLICAS: usize = 3;

/// How often something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// Whether everything that can happen did.
    pub(crate) fn is_rich(&self) -> bool {
        let reasons = [
            Reason::Stale,
            Reason::OtherNode,
            Reason::Contested,
            Reason::NotNewer,
            Reason::BeingWritten,
            Reason::TooManyNodes,
        ];
        let reasons = reasons.map(|reason| format!("forwarded {reason:?}"));
        let others = [
            "absorbed",
            "written",
            "waited",
            "shed",
            "again",
            "needless",
            "paid",
            "settled",
            "late",
            "gone",
            "overtaken",
            "recreated under a write",
            "lost",
            "long gap",
            "found dead",
        ];
        let reached = |what: &str| self.0.contains_key(what);
        reasons.iter().all(|what| reached(what)) && others.iter().all(|what| reached(what))
    }
}

/// A write on the wire.
pub(crate) struct Flight {
    replica: usize,
    /// Of the replica that sent it.
    life: u64,
    cargo: Cargo,
    body: Stored,
    applies_at: u64,
    answers_at: u64,
    loses_answer: bool,
    result: Option<Outcome>,
}

pub(crate) enum Cargo {
    Renewal(Write, Request),
    Debt(Debt),
    /// The client has gone.
    Nobodys,
}

pub(crate) struct World {
    rng: fastrand::Rng,
    loud: bool,
    log: Vec<String>,
    pub(crate) tally: Tally,
    /// Milliseconds.
    now: u64,
    store: Store,
    laws: Laws,
    replicas: Vec<Replica>,
    kubelets: Vec<Kubelet>,
    flights: Vec<Flight>,
    limits: Limits,
    next_life: u64,
    /// When a replica crashed last.
    crashed_at: u64,
    peers_told_at: u64,
    /// Of a hundred writes, how many fail.
    failing: u64,
    /// The same of those that are not payments.
    flaky: u64,
    slow: bool,
    /// Some writes arrive long after they were sent.
    held_up: bool,
}

impl World {
    pub(crate) fn new(seed: u64, loud: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let limits = Limits {
            nodes: rng.usize(KUBELETS - 3..KUBELETS + 3),
            waiting: rng.usize(0..4),
            under_way: rng.u32(1..4),
        };
        let mut world = Self {
            loud,
            log: Vec::new(),
            tally: Tally::default(),
            now: 1_000,
            store: Store::default(),
            laws: Laws::default(),
            replicas: Vec::new(),
            kubelets: Vec::new(),
            flights: Vec::new(),
            limits,
            next_life: 0,
            crashed_at: 0,
            peers_told_at: 0,
            failing: 0,
            flaky: 0,
            slow: false,
            held_up: false,
            rng,
        };
        for number in 0..KUBELETS {
            let name = format!("n{number}");
            world.store.set_node(&name, true);
            let home = world.rng.usize(0..REPLICAS);
            let first = world.now + world.rng.u64(0..10_000);
            world.kubelets.push(Kubelet::new(name, home, first));
        }
        for _replica in 0..REPLICAS {
            let replica = Replica::new(world.life(), limits, &world.store, world.now);
            world.replicas.push(replica);
        }
        world.count_peers();
        world
    }

    pub(crate) fn run(&mut self, steps: usize) {
        for _step in 0..steps {
            if self.rng.u8(0..100) < 6 {
                self.fault();
            }
            self.step();
        }
        self.heal();
        self.calm();
        for kubelet in self.kubelets.iter().filter(|kubelet| kubelet.is_steady()) {
            let lease = self.store.leases.get(&kubelet.name).expect("all is well");
            self.laws.healed(lease);
        }
    }

    pub(crate) fn log(&self) -> &[String] {
        &self.log
    }

    pub(crate) fn tally(self) -> Tally {
        self.tally
    }

    fn moment(&self) -> Moment {
        Moment::after_start(Duration::from_millis(self.now))
    }

    fn life(&mut self) -> u64 {
        self.next_life += 1;
        self.next_life
    }

    fn note(&mut self, what: String) {
        if self.loud {
            eprintln!("{:>7} {what}", self.now);
        }
        self.log.push(format!("{:>7} {what}", self.now));
    }

    fn step(&mut self) {
        self.now += self.rng.u64(20..400);
        for number in 0..REPLICAS {
            self.hear_watches(number);
        }
        self.fly();
        self.notice();
        for number in 0..REPLICAS {
            self.take_turns(number);
            self.pay(number);
        }
        for number in 0..KUBELETS {
            self.live(number);
        }
        if self.now - self.peers_told_at >= 1_000 {
            self.peers_told_at = self.now;
            for number in 0..REPLICAS {
                if self.replicas[number].up {
                    self.tell_peers(number);
                    self.forward_another(number);
                }
            }
        }
        self.check_debts();
    }

    /// Whoever can write pays.
    fn check_debts(&mut self) {
        let (replicas, calm) = (
            &self.replicas,
            self.failing == 0 && !self.slow && !self.held_up,
        );
        let writes = |replica: &Replica| replica.up && !replica.cut && !replica.stalled;
        let able = |life: u64| {
            let its = replicas.iter().find(|replica| replica.life == life);
            calm && its.is_some_and(writes)
        };
        let settled = self.laws.debts.check(self.now, &self.store, able);
        for _debt in 0..settled {
            self.tally.count("settled");
        }
    }

    /// Moves what is on the wire.
    fn fly(&mut self) {
        let now = self.now;
        for index in 0..self.flights.len() {
            let flight = &self.flights[index];
            if flight.result.is_some() || flight.applies_at > now {
                continue;
            }
            let same_life = self.replicas[flight.replica].lives(flight.life);
            let unreachable = same_life && self.replicas[flight.replica].cut;
            let flaky = match flight.cargo {
                Cargo::Renewal(..) | Cargo::Nobodys => self.flaky,
                Cargo::Debt(_) => 0,
            };
            let outcome = if unreachable || self.rng.u64(0..100) < self.failing.max(flaky) {
                Outcome::Failed
            } else {
                self.apply(index, same_life)
            };
            self.flights[index].result = Some(outcome);
        }
        let mut index = 0;
        while index < self.flights.len() {
            let flight = &self.flights[index];
            if flight.result.is_none() || flight.answers_at > now {
                index += 1;
                continue;
            }
            let flight = self.flights.swap_remove(index);
            if self.replicas[flight.replica].lives(flight.life) {
                self.land(flight);
            }
        }
    }

    fn apply(&mut self, index: usize, same_life: bool) -> Outcome {
        let flight = &self.flights[index];
        let before = self.store.leases.get(&flight.body.name).cloned();
        let outcome = match self.store.put(&flight.body) {
            Answer::Conflict => {
                let same = before.filter(|before| before.uid == flight.body.uid);
                if same.is_some_and(|before| before.renewed > flight.body.renewed) {
                    self.tally.count("overtaken");
                }
                return Outcome::Conflict;
            }
            Answer::Written(version) => Outcome::Written(version),
        };
        Laws::written(&before.expect("it was replaced"), &flight.body);
        let (lost, what) = (flight.loses_answer, format!("arrives {:?}", flight.body));
        self.note(what);
        self.tally.count(if same_life { "written" } else { "late" });
        if lost { Outcome::Failed } else { outcome }
    }

    fn land(&mut self, flight: Flight) {
        let outcome = flight.result.expect("it was applied");
        let (number, moment) = (flight.replica, self.moment());
        match flight.cargo {
            Cargo::Renewal(write, request) => {
                let lease = match outcome {
                    Outcome::Written(version) => Some(Stored {
                        version,
                        ..flight.body
                    }),
                    _ => None,
                };
                self.finish(number, write, request, outcome, lease);
            }
            Cargo::Nobodys => {}
            Cargo::Debt(debt) => {
                let replica = &mut self.replicas[number];
                if matches!(outcome, Outcome::Written(_)) {
                    self.tally.count("paid");
                    replica.beats.forwarded(moment, true);
                    self.laws.succeeds(replica.life, self.now);
                } else {
                    let (life, uid) = (replica.life, debt.uid.bits());
                    self.laws.debts.collides(self.now, life, uid);
                    replica.unpaid(moment, debt);
                }
            }
        }
    }

    fn launch(&mut self, number: usize, cargo: Cargo, body: Stored) {
        self.laws.writes(&self.store, &body);
        self.note(format!("r{number} writes {body:?}"));
        let longest = if self.slow { 9_000 } else { 300 };
        // Now and then one is held up on its way, until others have overtaken it.
        let held_up = u64::from(self.held_up && self.rng.u8(0..100) < 10) * 30_000;
        let applies_at = self.now + held_up + self.rng.u64(1..longest);
        let answers_at = applies_at + self.rng.u64(1..longest);
        self.flights.push(Flight {
            replica: number,
            life: self.replicas[number].life,
            cargo,
            body,
            applies_at,
            answers_at,
            loses_answer: self.rng.u8(0..100) < 3,
            result: None,
        });
    }

    fn count(&mut self, decision: &Decision) {
        match decision {
            Decision::Absorb => self.tally.count("absorbed"),
            Decision::Write(_) => self.tally.count("wrote"),
            Decision::Wait(_) => self.tally.count("waited"),
            Decision::Forward(reason) => self.tally.count(format!("forwarded {reason:?}")),
            Decision::Shed => self.tally.count("shed"),
        }
    }
}
