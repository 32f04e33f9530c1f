//! Kubelets renew as client-go's lease controller does: five tries, then from the beginning.

use super::{REPLICAS, World};
use crate::store::Stored;

/// A kubelet gives up a request after so long, milliseconds.
const TIMEOUT: u64 = 10_000;
const TRIES: u32 = 5;

#[derive(Debug)]
pub(crate) struct Kubelet {
    pub(crate) name: String,
    pub(crate) alive: bool,
    /// Of its clock, microseconds.
    pub(crate) offset: i64,
    /// Its clock was never set.
    pub(crate) trusted: bool,
    pub(crate) home: usize,
    /// It uses connections to several replicas.
    pub(crate) double: bool,
    /// The last lease it was given.
    pub(crate) base: Option<Stored>,
    pub(crate) next_at: u64,
    waiting: Option<(u64, u64)>,
    tries: u32,
    requests: u64,
    /// Renewals that did not arrive since one did.
    missed: u32,
}

/// A PUT.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) kubelet: usize,
    pub(crate) number: u64,
    pub(crate) body: Stored,
}

#[derive(Debug)]
pub(crate) enum Reply {
    Lease(Stored),
    Conflict,
    Error,
}

impl Kubelet {
    pub(crate) fn new(name: String, home: usize, next_at: u64) -> Self {
        Self {
            name,
            alive: true,
            offset: 1_000_000_000,
            trusted: true,
            home,
            double: false,
            base: None,
            next_at,
            waiting: None,
            tries: 0,
            requests: 0,
            missed: 0,
        }
    }

    /// It lives and its clock was never set.
    pub(crate) fn is_steady(&self) -> bool {
        self.alive && self.trusted
    }

    pub(crate) fn restart(&mut self, now: u64) {
        self.alive = true;
        self.base = None;
        self.waiting = None;
        self.next_at = now;
    }

    /// It waits no more; for which request it did.
    pub(crate) fn hang_up(&mut self) -> Option<u64> {
        let (number, _since) = self.waiting.take()?;
        Some(number)
    }

    /// The next renewal is lost on its way, unless as many were before it.
    pub(crate) fn loses(&mut self, at_most: u32, now: u64) -> bool {
        let may = self.waiting.is_none() && self.base.is_some() && now < self.next_at;
        let loses = may && self.missed < at_most;
        if loses {
            self.missed += 1;
            self.next_at += 10_200;
        }
        loses
    }

    /// Whether its last renewal was lost.
    pub(crate) const fn has_missed(&self) -> bool {
        self.missed > 0
    }

    fn failed(&mut self, now: u64) {
        self.waiting = None;
        self.tries += 1;
        self.next_at = now + 5;
        if self.tries >= TRIES {
            self.tries = 0;
            self.base = None;
            self.next_at = now + 10_000;
            self.missed += 1;
        }
    }
}

impl World {
    /// Lets a kubelet do what it is time for.
    pub(super) fn live(&mut self, index: usize) {
        let now = self.now;
        let kubelet = &mut self.kubelets[index];
        if !kubelet.alive {
            return;
        }
        if let Some((number, since)) = kubelet.waiting {
            if now - since >= TIMEOUT {
                kubelet.failed(now);
                self.abandon(index, number);
            }
            return;
        }
        if now < kubelet.next_at {
            return;
        }
        let home = if kubelet.double {
            self.rng.usize(0..REPLICAS)
        } else {
            kubelet.home
        };
        if !self.replicas[home].up {
            self.kubelets[index].home = self.rng.usize(0..REPLICAS);
            self.kubelets[index].failed(now);
            return;
        }
        let kubelet = &mut self.kubelets[index];
        let renewed = kubelet.offset + i64::try_from(now * 1_000).expect("it fits");
        let Some(base) = kubelet.base.clone() else {
            return self.start_over(index, home, renewed);
        };
        kubelet.requests += 1;
        kubelet.waiting = Some((kubelet.requests, now));
        let body = Stored { renewed, ..base };
        let number = kubelet.requests;
        self.laws.says(now, body.uid, renewed);
        self.receive(
            home,
            Request {
                kubelet: index,
                number,
                body,
            },
        );
    }

    /// Reads its lease, or creates it if its Node is there.
    fn start_over(&mut self, index: usize, home: usize, renewed: i64) {
        let kubelet = &mut self.kubelets[index];
        kubelet.next_at = self.now + 1_000;
        if self.replicas[home].cut {
            return;
        }
        kubelet.base = self.store.leases.get(&kubelet.name).cloned();
        if kubelet.base.is_some() {
            kubelet.next_at = self.now;
        } else if let Some(lease) = self.store.create(&kubelet.name, renewed) {
            self.laws.says(self.now, lease.uid, renewed);
            kubelet.base = Some(lease);
            kubelet.next_at = self.now + self.rng.u64(10_000..10_400);
        }
    }

    pub(super) fn reply(&mut self, request: &Request, reply: Reply) {
        let pause = self.rng.u64(10_000..10_400);
        let kubelet = &mut self.kubelets[request.kubelet];
        if kubelet
            .waiting
            .is_none_or(|(number, _since)| number != request.number)
        {
            return;
        }
        match reply {
            Reply::Lease(lease) => {
                kubelet.base = Some(lease);
                kubelet.waiting = None;
                (kubelet.tries, kubelet.missed) = (0, 0);
                kubelet.next_at = self.now + pause;
            }
            Reply::Conflict => {
                kubelet.failed(self.now);
                kubelet.base = None;
            }
            Reply::Error => kubelet.failed(self.now),
        }
    }
}
