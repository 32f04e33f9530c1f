//! A replica does what the proxy is to do with the crate.

use std::collections::BTreeMap;
use std::time::Duration;

use watershed_heartbeats::{
    After, Asked, Bounds, Debt, Decision, Encoding, Estate, Heartbeats, Heir, Heirs, Lease, Limits,
    Moment, Outcome, Peer, Settings, Ticket, Turn, Write,
};

use super::{Cargo, REPLICAS, Reply, Request, World};
use crate::laws::debts::Told;
use crate::laws::{Answering, FRESH, Laws, PAYABLE};
use crate::store::{Answer, Store, Stored, since_start, uid};

pub(crate) struct Replica {
    /// Another one after each crash.
    pub(crate) life: u64,
    pub(crate) up: bool,
    /// It is not up, and peers do not know yet.
    pub(crate) unnoticed_until: Option<u64>,
    /// From the upstream, but for its watches.
    pub(crate) cut: bool,
    /// Its watches tell nothing.
    pub(crate) stalled: bool,
    pub(crate) beats: Heartbeats,
    estate: Estate,
    leases: BTreeMap<String, Stored>,
    nodes: BTreeMap<String, u128>,
    leases_at: usize,
    nodes_at: usize,
    heard_at: u64,
    has_peers: bool,
    /// Requests that wait, and since when.
    parked: BTreeMap<Ticket, (u64, Request)>,
}

impl Replica {
    pub(crate) fn new(life: u64, limits: Limits, store: &Store, now: u64) -> Self {
        let settings = Settings {
            grace_period: Duration::from_secs(50),
            tolerated_losses: 2,
            latency_spread: Duration::from_secs(3),
            flush_period: None,
            peers: true,
        };
        Self {
            life,
            up: true,
            unnoticed_until: None,
            cut: false,
            stalled: false,
            beats: Heartbeats::new(Bounds::new(settings).expect("it fits"), limits),
            estate: Estate::new(100, 20),
            leases: store.leases.clone(),
            nodes: store.nodes.clone(),
            leases_at: store.lease_events.len(),
            nodes_at: store.node_events.len(),
            heard_at: now,
            has_peers: false,
            parked: BTreeMap::new(),
        }
    }

    pub(crate) fn lives(&self, life: u64) -> bool {
        self.up && self.life == life
    }

    /// Whether its peers take it for one that is up.
    pub(crate) const fn seems_up(&self) -> bool {
        self.up || self.unnoticed_until.is_some()
    }

    pub(crate) fn unpaid(&mut self, now: Moment, debt: Debt) {
        self.estate.unpaid(now, debt);
    }

    /// What this life is to its peers.
    pub(crate) fn peer(&self) -> Peer {
        Peer(u32::try_from(self.life).expect("it fits"))
    }

    /// Another replica is gone.
    pub(crate) fn loses(&mut self, now: Moment, gone: Peer) {
        self.estate.died(now, gone);
    }

    /// Another replica is gone, or came: `any` says whether one is there.
    pub(crate) fn set_peers(&mut self, any: bool) {
        self.has_peers = any;
        self.beats.set_replicated(any);
        self.beats.tell_all();
    }
}

const NAMES: [&str; REPLICAS] = ["r0", "r1", "r2"];

impl World {
    /// Takes in some of what happened.
    pub(super) fn hear_watches(&mut self, number: usize) {
        let moment = self.moment();
        let replica = &mut self.replicas[number];
        if !replica.up || replica.stalled {
            return;
        }
        replica.heard_at = self.now;
        let leases = &self.store.lease_events[replica.leases_at..];
        let some = self.rng.usize(0..=leases.len());
        replica.leases_at += some;
        for (name, lease) in &leases[..some] {
            let old = match lease {
                Some(lease) => {
                    let bytes = lease.bytes();
                    let read = Lease::read(Encoding::Json, &bytes).expect("a lease");
                    replica.beats.lease_seen(moment, name, &read);
                    replica.estate.stored(read.uid(), read.renew_time());
                    replica.leases.insert(name.clone(), lease.clone())
                }
                None => {
                    replica.beats.deleted(name);
                    replica.leases.remove(name)
                }
            };
            let gone = old.filter(|old| lease.as_ref().is_none_or(|lease| lease.uid != old.uid));
            if let Some(gone) = gone {
                replica.estate.forget(uid(gone.uid));
            }
        }
        let nodes = &self.store.node_events[replica.nodes_at..];
        let some = self.rng.usize(0..=nodes.len());
        replica.nodes_at += some;
        for (name, node) in &nodes[..some] {
            replica.beats.deleted(name);
            match node {
                Some(node) => replica.nodes.insert(name.clone(), *node),
                None => replica.nodes.remove(name),
            };
        }
    }

    /// What the proxy does with a PUT.
    pub(super) fn receive(&mut self, number: usize, request: Request) {
        let moment = self.moment();
        let replica = &mut self.replicas[number];
        let name = request.body.name.clone();
        let Some(cached) = replica.leases.get(&name).cloned() else {
            return self.forward(number, &request);
        };
        let bytes = cached.bytes();
        let lease = Lease::read(Encoding::Json, &bytes).expect("a lease");
        let Ok(renewal) = lease.compare(&request.body.bytes()) else {
            return self.forward(number, &request);
        };
        let node = replica.nodes.get(&name).copied();
        let asked = Asked {
            node: &name,
            connection: u64::from(request.kubelet == 0) * self.rng.u64(0..2),
            renewal,
            stored: lease.renew_time(),
            owner: lease.owner(),
            node_uid: node.map(uid),
            fresh: self.now - replica.heard_at < FRESH,
        };
        let decision = replica.beats.decide(moment, &asked);
        let who = Answering {
            life: replica.life,
            heard_at: replica.heard_at,
            has_peers: replica.has_peers,
            node,
        };
        self.count(&decision);
        self.note(format!("r{number} {decision:?} {:?}", request.body));
        match decision {
            Decision::Absorb => {
                let answer = Stored::parse(&lease.renewed(renewal.renew_time));
                let both = (&request.body, &answer);
                self.laws.absorbs(self.now, who, &self.store, both);
                self.reply(&request, Reply::Lease(answer));
            }
            Decision::Write(write) => self.send(number, write, request, Some(cached)),
            Decision::Wait(ticket) => {
                let parked = (self.now, request);
                self.replicas[number].parked.insert(ticket, parked);
            }
            Decision::Forward(_reason) => self.forward(number, &request),
            Decision::Shed => self.reply(&request, Reply::Error),
        }
    }

    fn forward(&mut self, number: usize, request: &Request) {
        let moment = self.moment();
        let failing = self.rng.u64(0..100) < self.failing;
        let replica = &mut self.replicas[number];
        if replica.cut || failing {
            replica.beats.forwarded(moment, false);
            return self.reply(request, Reply::Error);
        }
        match self.store.put(&request.body) {
            Answer::Written(version) => {
                replica.beats.forwarded(moment, true);
                self.laws.succeeds(replica.life, self.now);
                let lease = Stored {
                    version,
                    ..request.body.clone()
                };
                self.reply(request, Reply::Lease(lease));
            }
            Answer::Conflict => self.reply(request, Reply::Conflict),
        }
    }

    /// Sends a write into the newest lease that is known.
    fn send(&mut self, number: usize, write: Write, request: Request, lease: Option<Stored>) {
        let Some(lease) = lease else {
            return self.finish(number, write, request, Outcome::Missing, None);
        };
        let bytes = lease.bytes();
        match write.body(&Lease::read(Encoding::Json, &bytes).expect("a lease")) {
            Ok(body) => {
                let body = Stored::parse(&body);
                self.launch(number, Cargo::Renewal(write, request), body);
            }
            Err(needless) => {
                self.tally.count("needless");
                let outcome = Outcome::Needless(needless);
                self.finish(number, write, request, outcome, Some(lease));
            }
        }
    }

    /// A write is over; `lease` is the newest that is known.
    pub(super) fn finish(
        &mut self,
        number: usize,
        write: Write,
        request: Request,
        outcome: Outcome,
        lease: Option<Stored>,
    ) {
        let moment = self.moment();
        let replica = &mut self.replicas[number];
        if matches!(outcome, Outcome::Written(_)) {
            self.laws.succeeds(replica.life, self.now);
        }
        match replica.beats.finished(moment, write, outcome) {
            After::Relay => {
                let reply = match (outcome, lease) {
                    (Outcome::Written(_), Some(lease)) => Reply::Lease(lease),
                    (Outcome::Conflict, _) => Reply::Conflict,
                    _ => Reply::Error,
                };
                self.reply(&request, reply);
            }
            After::Again(write) if replica.cut => {
                self.finish(number, write, request, Outcome::Failed, None);
            }
            After::Again(write) => {
                self.tally.count("again");
                let newest = self.store.leases.get(&request.body.name).cloned();
                self.send(number, write, request, newest);
            }
            After::Absorb => {
                let lease = lease.expect("it was read");
                Laws::confirms(&self.store, (&request.body, &lease));
                self.reply(&request, Reply::Lease(lease));
            }
            After::Forward => self.forward(number, &request),
        }
    }

    /// Lets those that wait have their turns.
    pub(super) fn take_turns(&mut self, number: usize) {
        while self.replicas[number].up {
            let moment = self.moment();
            let replica = &mut self.replicas[number];
            let Some((ticket, turn)) = replica.beats.next(moment) else {
                let since = replica.parked.values().map(|(since, _request)| *since);
                return Laws::waits(self.now, since.min());
            };
            let (_since, request) = replica.parked.remove(&ticket).expect("it waits");
            let cached = replica.leases.get(&request.body.name).cloned();
            match turn {
                Turn::Write(write) => self.send(number, write, request, cached),
                Turn::Absorb => match cached {
                    Some(lease) => {
                        Laws::confirms(&self.store, (&request.body, &lease));
                        self.reply(&request, Reply::Lease(lease));
                    }
                    None => self.forward(number, &request),
                },
                Turn::Forward => self.forward(number, &request),
                Turn::Shed => self.reply(&request, Reply::Error),
            }
        }
    }

    /// A kubelet has given up a request. What was sent of it may still arrive; and not always does a
    /// replica hear that a client has gone.
    pub(super) fn abandon(&mut self, kubelet: usize, request: u64) {
        if self.rng.u8(0..100) < 30 {
            return;
        }
        let moment = self.moment();
        for flight in &mut self.flights {
            let replica = &mut self.replicas[flight.replica];
            let theirs = matches!(&flight.cargo, Cargo::Renewal(_, sent)
                if sent.kubelet == kubelet && sent.number == request);
            if !theirs || !replica.lives(flight.life) {
                continue;
            }
            let cargo = std::mem::replace(&mut flight.cargo, Cargo::Nobodys);
            if let Cargo::Renewal(write, _request) = cargo {
                replica.beats.gone(moment, write);
                self.tally.count("gone");
            }
        }
        for replica in &mut self.replicas {
            let theirs = |(_since, parked): &(u64, Request)| {
                parked.kubelet == kubelet && parked.number == request
            };
            let found = replica
                .parked
                .iter()
                .find(|(_ticket, parked)| theirs(parked));
            if let Some((&ticket, _parked)) = found {
                replica.parked.remove(&ticket);
                replica.beats.abandon(ticket);
            }
        }
    }

    /// Writes what replicas owed that are gone.
    pub(super) fn pay(&mut self, number: usize) {
        let moment = self.moment();
        while self.replicas[number].up {
            let Some(debt) = self.replicas[number].estate.next(moment) else {
                return;
            };
            let Some(cached) = self.replicas[number].leases.get(&*debt.node) else {
                self.replicas[number].unpaid(moment, debt);
                continue;
            };
            let bytes = cached.bytes();
            let lease = Lease::read(Encoding::Json, &bytes).expect("a lease");
            if let Ok(body) = debt.body(&lease) {
                self.laws.pays(self.now, debt.uid.bits());
                self.launch(number, Cargo::Debt(debt), Stored::parse(&body));
            }
        }
    }

    /// Once a second: tells heirs what is owed.
    pub(super) fn tell_peers(&mut self, number: usize) {
        let moment = self.moment();
        let others: Vec<_> = (0..REPLICAS)
            .filter(|other| *other != number && self.replicas[*other].seems_up())
            .collect();
        let heirs = Heirs::new(others.iter().map(|other| NAMES[*other]));
        let life = self.replicas[number].life;
        let mut debts = self.replicas[number].beats.changes(100);
        // Hash maps have an order of their own in each process; a seed has to replay.
        debts.sort_unstable_by(|one, other| one.node.cmp(&other.node));
        for debt in debts {
            let (uid, renewed) = (debt.uid.bits(), since_start(debt.renew_time));
            self.laws.owes(uid, renewed);
            self.laws.debts.says(life, uid, renewed);
            for (heir, place) in Heir::ALL.into_iter().zip(heirs.of(&debt.node)) {
                let lost = self.rng.u8(0..100) < 5;
                if let Some(place) = place.filter(|_| !lost) {
                    self.tell(number, others[place], heir, &debt);
                }
            }
        }
        for debt in self.replicas[number].beats.owed() {
            let (uid, renewed) = (debt.uid.bits(), since_start(debt.renew_time));
            self.laws.owes(uid, renewed);
            let silent = moment.since(debt.heard_at) >= Duration::from_millis(PAYABLE);
            if !others.is_empty() && !silent {
                self.laws.debts.owes(life, uid, renewed);
            }
        }
    }

    fn tell(&mut self, number: usize, other: usize, heir: Heir, debt: &Debt) {
        let (peer, moment) = (self.replicas[number].peer(), self.moment());
        let other = &mut self.replicas[other];
        if other.up {
            other.estate.hear(peer, heir, debt.clone());
            let age = moment.since(debt.heard_at).as_millis();
            let told = Told {
                by: peer.0.into(),
                renewed: since_start(debt.renew_time),
                first: heir == Heir::First,
                heard_at: self.now - u64::try_from(age).expect("it fits"),
            };
            self.laws.debts.tells(other.life, debt.uid.bits(), told);
        }
    }

    /// Once a second: a write of some other node's lease is forwarded, and proves what it proves.
    pub(super) fn forward_another(&mut self, number: usize) {
        let moment = self.moment();
        let replica = &mut self.replicas[number];
        let arrives = !replica.cut && self.rng.u64(0..100) >= self.failing;
        replica.beats.forwarded(moment, arrives);
        if arrives {
            self.laws.succeeds(replica.life, self.now);
        }
    }
}
