//! What replicas owe, and who pays when one is gone.
//!
//! Owns the choice of the two peers that hear of a node's renewals, the debts of others that are
//! held here, and the pace at which an heir pays them. A debt is a renewal that a kubelet sent and
//! a replica answered; an heir writes it as it was said, or not at all. Debts are merged by
//! (uid, renewTime), the later wins: telling one twice, late or in another order changes nothing,
//! so there is no token and no election. Two heirs of one debt cost a write at most. What a replica
//! absorbed after it last told its peers is lost with it: the next write of such a node is as late
//! as if that one renewal had been lost, which the bounds allow for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::write::{Needless, body};
use crate::{Lease, MicroTime, Moment, Uid};

/// A renewal that may not be in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debt {
    /// Whose.
    pub node: Arc<str>,
    /// Of the lease.
    pub uid: Uid,
    /// What the kubelet said and was answered.
    pub renew_time: MicroTime,
    /// What the store had. Equal to `renew_time` if nothing is owed.
    pub written: MicroTime,
}

impl Debt {
    /// The body of the write that pays it, to be PUT under the node's own identity.
    ///
    /// # Errors
    ///
    /// If the newest known lease says that nothing is owed: then drop it.
    pub fn body(&self, lease: &Lease<'_>) -> Result<Vec<u8>, Needless> {
        body(self.uid, self.renew_time, lease)
    }
}

/// The peers in the order in which they inherit a node: the first two hold its debts, the first
/// that is alive pays them. All replicas agree on it, whatever the order of their lists.
pub fn heirs<'p>(node: &str, peers: &[&'p str]) -> Vec<&'p str> {
    let mut ranked: Vec<_> = peers
        .iter()
        .map(|peer| (weight(node, peer), *peer))
        .collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    ranked.dedup();
    ranked.into_iter().map(|(_weight, peer)| peer).collect()
}

/// Of a node at a peer, for the choice by the greatest. It must be the same in every version.
fn weight(node: &str, peer: &str) -> u64 {
    // FNV-1a, with a byte between that no name has, then mixed: its upper bits alone are weak.
    let bytes = node.bytes().chain([0xff]).chain(peer.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    for multiplier in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(multiplier);
    }
    hash ^ hash >> 33
}

/// A peer, by any number its link has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u32);

/// The debts of others.
#[derive(Debug)]
pub struct Estate {
    limit: usize,
    debts: HashMap<Uid, Held>,
    /// Those to be paid, the longest unwritten first.
    due: BTreeSet<(MicroTime, Uid)>,
    pace: Pace,
}

#[derive(Debug)]
struct Held {
    debt: Debt,
    /// Who said so last.
    from: Peer,
    due: bool,
}

impl Estate {
    /// Holds at most `limit` debts, and pays at most so many a second.
    pub fn new(limit: usize, payments_per_second: u32) -> Self {
        Self {
            limit,
            debts: HashMap::new(),
            due: BTreeSet::new(),
            pace: Pace::new(payments_per_second),
        }
    }

    /// Takes in what a peer says. `false` if there is no room for it.
    pub fn hear(&mut self, from: Peer, debt: Debt) -> bool {
        let Some(held) = self.debts.get_mut(&debt.uid) else {
            let owed = debt.renew_time > debt.written;
            if owed && self.debts.len() >= self.limit {
                return false;
            }
            if owed {
                let due = false;
                self.debts.insert(debt.uid, Held { debt, from, due });
            }
            return true;
        };
        let order = (held.debt.written, debt.uid);
        if debt.renew_time > held.debt.renew_time {
            held.from = from;
            held.debt.renew_time = debt.renew_time;
        }
        held.debt.written = held.debt.written.max(debt.written);
        let due = self.due.remove(&order);
        if held.debt.renew_time <= held.debt.written {
            self.debts.remove(&debt.uid);
        } else if due {
            self.due.insert((held.debt.written, debt.uid));
        }
        true
    }

    /// Takes in what the store has.
    pub fn stored(&mut self, uid: Uid, renew_time: MicroTime) {
        let Some(held) = self.debts.get(&uid) else {
            return;
        };
        if renew_time >= held.debt.renew_time {
            self.forget(uid);
        }
    }

    /// A lease was deleted: nothing is owed to it.
    pub fn forget(&mut self, uid: Uid) {
        if let Some(held) = self.debts.remove(&uid) {
            self.due.remove(&(held.debt.written, uid));
        }
    }

    /// A peer is gone, or said that it stops: its debts of the nodes that are inherited here have
    /// to be paid. Those of others stay, for when their heir is gone too.
    pub fn died(&mut self, peer: Peer, inherits: impl Fn(&str) -> bool) {
        for (uid, held) in &mut self.debts {
            if held.from == peer && !held.due && inherits(&held.debt.node) {
                held.due = true;
                self.due.insert((held.debt.written, *uid));
            }
        }
    }

    /// The next debt to pay, if it is time. It is forgotten here, unless the payment fails: then
    /// [`Self::unpaid`] has to be told.
    pub fn next(&mut self, now: Moment) -> Option<Debt> {
        let &(written, uid) = self.due.first()?;
        if !self.pace.takes(now) {
            return None;
        }
        self.due.remove(&(written, uid));
        self.debts.remove(&uid).map(|held| held.debt)
    }

    /// A payment did not arrive: it is due again. `false` if there is no room for it.
    pub fn unpaid(&mut self, from: Peer, debt: Debt) -> bool {
        let (uid, due) = (debt.uid, true);
        let heard = self.hear(from, debt);
        if let Some(held) = self.debts.get_mut(&uid) {
            held.due = due;
            self.due.insert((held.debt.written, uid));
        }
        heard
    }

    /// Debts that are held, and those of them that have to be paid.
    pub fn len(&self) -> (usize, usize) {
        (self.debts.len(), self.due.len())
    }
}

/// So many a second, evenly, and no more at once after a pause than in a tenth of a second.
#[derive(Debug)]
struct Pace {
    gap: Duration,
    /// Payments are counted as if the last one was then.
    last: Moment,
}

/// How late a caller may come and still take what was due since the last time.
const TICK: Duration = Duration::from_millis(100);

impl Pace {
    fn new(per_second: u32) -> Self {
        Self {
            gap: Duration::from_secs(1) / per_second.max(1),
            last: Moment::default(),
        }
    }

    fn takes(&mut self, now: Moment) -> bool {
        let unused = now.since(self.last);
        if unused < self.gap {
            return false;
        }
        // What is older than a tick is lost.
        let lost = unused.saturating_sub(self.gap.max(TICK));
        self.last = self.last + lost + self.gap;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::unsaved;

    fn time(micros: i64) -> MicroTime {
        MicroTime::from_micros(micros).unwrap()
    }

    fn at(millis: u64) -> Moment {
        Moment::after_start(Duration::from_millis(millis))
    }

    fn debt(uid: u128, renewed: i64, written: i64) -> Debt {
        Debt {
            node: format!("n{uid}").into(),
            uid: Uid::from_bits(uid),
            renew_time: time(renewed),
            written: time(written),
        }
    }

    /// All that has to be paid if every peer is gone, in order.
    fn all_due(mut estate: Estate) -> Vec<Debt> {
        (0..4).for_each(|peer| estate.died(Peer(peer), |_node| true));
        (0..)
            .map_while(|step| estate.next(at(1_000 + step * 1_000)))
            .collect()
    }

    #[test]
    fn heirs_do_not_depend_on_the_order_of_peers_and_are_evenly_spread() {
        let peers = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        let turned = ["10.0.0.3", "10.0.0.1", "10.0.0.4", "10.0.0.2"];
        let mut first = [0; 4];
        for node in 0..4_000 {
            let node = format!("node-{node}");
            let order = heirs(&node, &peers);
            assert_eq!(order, heirs(&node, &turned));
            first[peers.iter().position(|peer| *peer == order[0]).unwrap()] += 1;
            // Whoever leaves takes only its own place with it.
            let left: Vec<_> = order
                .iter()
                .filter(|peer| **peer != peers[1])
                .copied()
                .collect();
            assert_eq!(left, heirs(&node, &[peers[0], peers[2], peers[3]]));
        }
        assert!(
            first.iter().all(|nodes| (900..1_100).contains(nodes)),
            "{first:?}"
        );
    }

    #[test]
    fn the_choice_of_heirs_is_the_same_in_every_version() {
        assert_eq!(heirs("node-1", &["a", "b", "c"]), FIXED);
    }

    const FIXED: [&str; 3] = ["a", "b", "c"];

    #[test]
    fn an_heir_pays_the_longest_unwritten_first_and_keeps_its_pace() {
        let mut estate = Estate::new(9, 10);
        for (uid, written) in [(1, 30), (2, 10), (3, 20)] {
            assert!(estate.hear(Peer(0), debt(uid, 100, written)));
        }
        assert!(estate.hear(Peer(1), debt(4, 100, 5)));
        assert_eq!(estate.next(at(900)), None);
        estate.died(Peer(0), |node| node != "n3");
        assert_eq!(estate.len(), (4, 2));
        assert_eq!(estate.next(at(1_000)), Some(debt(2, 100, 10)));
        assert_eq!(estate.next(at(1_050)), None);
        assert_eq!(estate.next(at(1_100)), Some(debt(1, 100, 30)));
        assert_eq!(estate.next(at(9_000)), None);
        assert_eq!(estate.len(), (2, 0));
        assert!(estate.unpaid(Peer(0), debt(1, 100, 30)));
        assert_eq!(estate.next(at(9_500)), Some(debt(1, 100, 30)));
    }

    #[test]
    fn after_a_pause_only_a_tick_is_made_up_for() {
        let mut estate = Estate::new(999, 100);
        (0..999).for_each(|uid| assert!(estate.hear(Peer(0), debt(uid, 100, 0))));
        estate.died(Peer(0), |_node| true);
        let paid = std::iter::from_fn(|| estate.next(at(60_000))).count();
        assert_eq!(paid, 10);
        let paid = (1..=100)
            .flat_map(|step| estate.next(at(60_000 + step * 10)))
            .count();
        assert_eq!(paid, 100);
    }

    #[test]
    fn what_is_stored_or_deleted_is_not_owed() {
        let mut estate = Estate::new(2, 1_000);
        assert!(estate.hear(Peer(0), debt(1, 100, 0)));
        assert!(estate.hear(Peer(0), debt(2, 100, 0)));
        assert!(!estate.hear(Peer(0), debt(3, 100, 0)), "no room");
        assert!(estate.hear(Peer(0), debt(4, 100, 100)), "nothing to hold");
        estate.stored(Uid::from_bits(1), time(99));
        assert_eq!(estate.len(), (2, 0));
        estate.stored(Uid::from_bits(1), time(100));
        estate.forget(Uid::from_bits(2));
        assert_eq!(estate.len(), (0, 0));
    }

    proptest! {
        #![proptest_config(unsaved())]

        #[test]
        fn debts_may_be_told_twice_and_in_any_order(
            told in prop::collection::vec((0..3_u32, 0..3_u128, 0..50_i64, 0..50_i64), 0..20),
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            // What is in the store when a debt is paid is later than when it was told.
            let owed = |told: &[(u32, u128, i64, i64)]| {
                let mut estate = Estate::new(99, 1_000);
                for &(peer, uid, renewed, written) in told {
                    estate.hear(Peer(peer), debt(uid, renewed + written, written));
                }
                let stored = told.iter().map(|told| (told.1, told.3));
                stored.for_each(|(uid, written)| estate.stored(Uid::from_bits(uid), time(written)));
                let mut owed = all_due(estate);
                owed.sort_by_key(|debt| debt.uid);
                owed.into_iter().map(|debt| (debt.uid, debt.renew_time)).collect::<Vec<_>>()
            };
            let mut more = told.clone();
            if !told.is_empty() {
                more.extend(again.iter().map(|at| told[at.index(told.len())]));
            }
            more.reverse();
            prop_assert_eq!(owed(&more), owed(&told));
        }
    }
}
