//! The end of a run: usual days, and what the control plane sees in them.
//!
//! One renewal in ten is lost and one write in twenty, but never more than two renewals in a row;
//! kubelets change replicas; a replica crashes now and then; leases are edited; a kubelet dies. No
//! live kubelet may be given up, no gap be longer than the bounds say, and who died must be found out
//! as fast as without absorption.

use super::kubelet::Kubelet;
use super::{KUBELETS, REPLICAS, World};
use crate::controller::{Controller, GRACE, PERIOD};
use crate::laws::PAYABLE;

/// What is left of the faults has to be over by then, milliseconds.
const SETTLED: u64 = 60_000;
const LASTS: u64 = 240_000;
/// Two renewals a write and two lost, of at most 10.4 s and a step of this simulation, and the spread
/// of latencies.
const LONGEST_GAP: u64 = 4 * (10_400 + 400) + 3_000;
/// From the death of a kubelet to its last write at the latest: one waited for its turn.
const LATENCY: u64 = 7_000 + 1_500;
/// The same if its replica falls silent too, and an heir pays.
const LATENCY_OF_HEIRS: u64 = PAYABLE + 1_500;
/// How long after a crash heirs may pay.
const PAYING: u64 = 12_000;
/// Renewals that are lost in a row at most.
const LOSSES: u32 = 2;

/// What the store says of one kubelet's lease.
#[derive(Debug)]
struct Seen {
    renewed: i64,
    at: u64,
    died_at: Option<u64>,
}

impl World {
    pub(super) fn calm(&mut self) {
        let settled_at = self.now + SETTLED;
        while self.now < settled_at {
            self.step();
        }
        self.flaky = 5;
        let mut controller = Controller::default();
        let mut seen: Vec<_> = (0..KUBELETS)
            .map(|kubelet| self.first_look(kubelet))
            .collect();
        let until = self.now + LASTS;
        while self.now < until {
            self.usual_day();
            if self.rng.u16(0..400) == 0 && self.now + 2 * GRACE < until {
                self.lose_for_good(&mut seen);
            }
            self.step();
            for kubelet in 0..KUBELETS {
                if let Some(seen) = &mut seen[kubelet] {
                    self.look(kubelet, seen, &controller);
                }
            }
            controller.monitor(self.now, &self.store);
        }
        self.look_back(&seen, &controller);
    }

    /// Nothing of one whose clock was set: its times may be ahead of it.
    fn first_look(&self, kubelet: usize) -> Option<Seen> {
        let kubelet = &self.kubelets[kubelet];
        let steady = kubelet.is_steady().then_some(kubelet)?;
        let lease = self.store.leases.get(&steady.name).expect("all is well");
        Some(Seen {
            renewed: lease.renewed,
            at: self.now,
            died_at: None,
        })
    }

    fn usual_day(&mut self) {
        let kubelet = self.rng.usize(0..KUBELETS);
        let replica = self.rng.usize(0..REPLICAS);
        match self.rng.u16(0..1_000) {
            0..12 if self.kubelets[kubelet].loses(LOSSES, self.now) => self.tally.count("lost"),
            12..16 => self.kubelets[kubelet].home = replica,
            16..18 => {
                let name = self.kubelets[kubelet].name.clone();
                self.store.edit(&name);
            }
            18..25 if self.may_crash(replica) => self.crash(replica),
            25..125 if self.now >= self.crashed_at + 10_000 => {
                (0..REPLICAS).for_each(|number| self.revive(number));
            }
            _ => {}
        }
    }

    /// A renewal that meets a crashed replica is lost: it must not be the third in a row.
    fn may_crash(&self, replica: usize) -> bool {
        let mut there = self.kubelets.iter().filter(|it| it.home == replica);
        self.now >= self.crashed_at + 30_000 && !there.any(Kubelet::has_missed)
    }

    fn lose_for_good(&mut self, seen: &mut [Option<Seen>]) {
        let kubelet = self.rng.usize(0..KUBELETS);
        if let Some(seen) = seen[kubelet].as_mut().filter(|seen| seen.died_at.is_none()) {
            seen.died_at = Some(self.now);
            self.kill(kubelet);
            self.note(format!("dies: {kubelet}"));
        }
    }

    fn look(&mut self, kubelet: usize, seen: &mut Seen, controller: &Controller) {
        let (now, name) = (self.now, &self.kubelets[kubelet].name);
        let lease = self.store.leases.get(name).expect("all is well");
        assert!(lease.renewed >= seen.renewed, "{name} goes back");
        if lease.renewed > seen.renewed {
            let late = seen.died_at.map_or(0, |died_at| now - died_at);
            let heirs_pay = now < self.crashed_at + PAYING;
            let latest = if heirs_pay { LATENCY_OF_HEIRS } else { LATENCY };
            assert!(
                late <= latest,
                "{name} is renewed {late} ms after its death"
            );
            (seen.renewed, seen.at) = (lease.renewed, now);
        }
        if seen.died_at.is_none() {
            let gap = now - seen.at;
            assert!(gap <= LONGEST_GAP, "{name} is not heard of for {gap} ms");
            let unknown = controller.unknown_since(name);
            assert_eq!(unknown, None, "{name} lives");
            if gap > 3 * 10_400 {
                self.tally.count("long gap");
            }
        }
    }

    fn look_back(&mut self, seen: &[Option<Seen>], controller: &Controller) {
        for (kubelet, seen) in seen.iter().enumerate() {
            let Some(died_at) = seen.as_ref().and_then(|seen| seen.died_at) else {
                continue;
            };
            let name = &self.kubelets[kubelet].name;
            let found = controller.unknown_since(name).expect("it is dead");
            let took = found - died_at;
            let (least, most) = (GRACE - LONGEST_GAP, GRACE + 2 * PERIOD + LATENCY_OF_HEIRS);
            assert!((least..=most).contains(&took), "{name}: {took} ms");
            self.tally.count("found dead");
        }
    }
}
