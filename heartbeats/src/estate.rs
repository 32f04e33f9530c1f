//! What replicas owe, and who pays when one is gone.
//!
//! Owns the debts of others that are held here, and the pace at which they are paid. A debt is a
//! renewal that a kubelet sent and a replica answered; an heir writes it as it was said, or not at
//! all. Debts are merged by (uid, renewTime), the later wins: telling one twice, late or in another
//! order changes nothing, so there is no token and no election.
//!
//! The one who owes says with each debt which heir this is ([`Heir`]). The first pays at once; the
//! second pays what the store does not have a few seconds later, because the first may be gone too.
//! Both paying costs a write. Rejected: that each replica works out by itself who is first, since
//! two that disagree about who is there may both wait for the other.
//!
//! If the connections of a peer were closed, those of its kubelets were too, and who lives renews
//! elsewhere by itself. So its heirs wait for that; and if half of them have come, who has not is
//! taken for dead, and nothing is paid for it. If fewer have, something keeps them, and all is paid.
//!
//! A debt is paid soon or never. The controller gives a node a new grace period whenever a later
//! `renewTime` arrives, however old it is: what a kubelet said long before it died must not be
//! written when its replica dies too.
//!
//! What a replica absorbed after it last told its peers is lost with it: the next write of such a
//! node is as late as if that one renewal had been lost, which the bounds allow for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::heirs::Heir;
use crate::write::{Needless, body};
use crate::{Lease, MicroTime, Moment, Uid};

/// How long a second heir waits for the first.
const SECOND_AFTER: Duration = Duration::from_secs(5);
/// How long after a payment that failed the next one is tried.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long after a kubelet was last heard its debt is paid: one that lives is heard again after
/// 10.4 s, and it takes 3 s to notice that its replica is silent, or 8 s that it does not come back;
/// the rest is for the payment.
const PAYABLE: Duration = Duration::from_secs(20);

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
    /// When the kubelet was last heard, by the clock of who holds this: to a peer its age is told,
    /// and [`Moment::before`] makes the moment of it again.
    pub heard_at: Moment,
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

    fn is_payable(&self, now: Moment) -> bool {
        now.since(self.heard_at) < PAYABLE
    }
}

/// A peer, by any number that no other life of it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u32);

/// The debts of others.
#[derive(Debug)]
pub struct Estate {
    limit: usize,
    debts: HashMap<Uid, Held>,
    /// Those to be paid: by when they may be, then the longest unwritten first.
    due: BTreeSet<(Moment, MicroTime, Uid)>,
    /// Those of whom some debts are due, and who may come back.
    groups: Vec<Group>,
    pace: Pace,
}

/// The kubelets of a peer whose connections were closed.
#[derive(Debug, Default)]
struct Group {
    all: usize,
    /// Those who have not come back.
    left: usize,
    /// Whether something keeps them; once it has been looked at.
    is_kept: Option<bool>,
}

#[derive(Debug)]
struct Held {
    debt: Debt,
    /// Who said so last; `None` if it is gone.
    from: Option<Peer>,
    heir: Heir,
    due: Option<Moment>,
    /// Whose return is waited for, together with whom.
    group: Option<usize>,
}

impl Group {
    fn is_kept(&mut self) -> bool {
        *self.is_kept.get_or_insert(self.left * 2 > self.all)
    }
}

impl Held {
    fn place(&self) -> Option<(Moment, MicroTime, Uid)> {
        let due = self.due?;
        Some((due, self.debt.written, self.debt.uid))
    }
}

impl Estate {
    /// Holds at most `limit` debts, and pays at most so many a second, or as many more as it takes to
    /// pay all that is due in time.
    pub fn new(limit: usize, payments_per_second: u32) -> Self {
        Self {
            limit,
            debts: HashMap::new(),
            due: BTreeSet::new(),
            groups: Vec::new(),
            pace: Pace::new(payments_per_second),
        }
    }

    /// Takes in what a peer says to its heir. `false` if there is no room for it.
    pub fn hear(&mut self, from: Peer, heir: Heir, debt: Debt) -> bool {
        let owed = debt.renew_time > debt.written;
        let Some(mut held) = self.take(debt.uid) else {
            let fits = self.debts.len() < self.limit;
            if owed && fits {
                self.put(Held {
                    debt,
                    from: Some(from),
                    heir,
                    due: None,
                    group: None,
                });
            }
            return fits || !owed;
        };
        held.debt.written = held.debt.written.max(debt.written);
        if debt.renew_time >= held.debt.renew_time {
            // Who says the newest answers for it.
            held.debt.renew_time = debt.renew_time;
            held.debt.heard_at = debt.heard_at;
            (held.from, held.heir, held.due) = (Some(from), heir, None);
            held.group = None;
        }
        if held.debt.renew_time > held.debt.written {
            self.put(held);
        }
        true
    }

    /// Takes in what the store has.
    pub fn stored(&mut self, uid: Uid, renew_time: MicroTime) {
        let held = self.debts.get(&uid);
        if held.is_some_and(|held| held.debt.renew_time <= renew_time) {
            self.forget(uid);
        }
    }

    /// A lease was deleted: nothing is owed to it.
    pub fn forget(&mut self, uid: Uid) {
        self.take(uid);
    }

    /// A peer is silent, or cannot write, and its kubelets have not noticed: its debts have to be
    /// paid, but for those of kubelets that were not heard for long. Visits all debts.
    pub fn died(&mut self, now: Moment, peer: Peer) {
        self.fall_due(now, peer, None);
    }

    /// A peer is gone, and its connections were closed: its debts have to be paid after `within`,
    /// unless half of its kubelets have come back by then. Visits all debts.
    pub fn closed(&mut self, now: Moment, peer: Peer, within: Duration) {
        let group = self.groups.len();
        self.groups.push(Group::default());
        self.fall_due(now + within, peer, Some(group));
        self.groups[group].all = self.groups[group].left;
    }

    fn fall_due(&mut self, due: Moment, peer: Peer, group: Option<usize>) {
        for held in self.debts.values_mut() {
            if held.from == Some(peer) {
                held.from = None;
                held.group = group;
                held.due = Some(match held.heir {
                    Heir::First => due,
                    Heir::Second => due + SECOND_AFTER,
                });
                self.due.extend(held.place());
                if let Some(group) = group {
                    self.groups[group].left += 1;
                }
            }
        }
        self.pace.hurry(self.due.len());
    }

    /// The next debt to pay, if it is time. It is forgotten here, unless the payment fails: then
    /// [`Self::unpaid`] has to be told.
    pub fn next(&mut self, now: Moment) -> Option<Debt> {
        loop {
            let &(due, _written, uid) = self.due.first()?;
            let held = self.debts.get(&uid)?;
            let (group, mut payable) = (held.group, held.debt.is_payable(now));
            if let Some(group) = group.filter(|_| due <= now) {
                payable &= self.groups[group].is_kept();
            }
            if payable && (due > now || !self.pace.takes(now)) {
                return None;
            }
            let held = self.take(uid)?;
            if payable {
                return Some(held.debt);
            }
        }
    }

    /// A payment did not arrive: it is due again in a moment.
    pub fn unpaid(&mut self, now: Moment, debt: Debt) {
        let known = self.debts.get(&debt.uid);
        if known.is_some_and(|known| known.debt.renew_time >= debt.renew_time) {
            return; // heard again meanwhile
        }
        self.forget(debt.uid);
        self.put(Held {
            debt,
            from: None,
            heir: Heir::First,
            due: Some(now + RETRY_AFTER),
            group: None,
        });
    }

    /// Debts that are held, and those of them that have to be paid.
    pub fn len(&self) -> (usize, usize) {
        (self.debts.len(), self.due.len())
    }

    fn take(&mut self, uid: Uid) -> Option<Held> {
        let held = self.debts.remove(&uid)?;
        if let Some(place) = held.place() {
            self.due.remove(&place);
        }
        if let Some(group) = held.group {
            self.groups[group].left -= 1;
            if self.due.is_empty() {
                // Nobody is in any of them.
                self.groups.clear();
            }
        }
        Some(held)
    }

    fn put(&mut self, mut held: Held) {
        held.group = held.group.filter(|group| *group < self.groups.len());
        if let Some(group) = held.group {
            self.groups[group].left += 1;
        }
        self.due.extend(held.place());
        self.debts.insert(held.debt.uid, held);
    }
}

/// So many a second, evenly, and no more at once after a pause than in a tenth of a second.
#[derive(Debug)]
struct Pace {
    /// Where there is no hurry.
    usual: Duration,
    gap: Duration,
    /// Payments are counted as if the last one was then.
    last: Moment,
}

/// How long it may take to pay all that is due at once: soon most of it is not payable any more.
const PAID_WITHIN: Duration = Duration::from_secs(10);
/// How late a caller may come and still take what was due since the last time.
const TICK: Duration = Duration::from_millis(100);

impl Pace {
    fn new(per_second: u32) -> Self {
        let usual = Duration::from_secs(1) / per_second.max(1);
        Self {
            usual,
            gap: usual,
            last: Moment::default(),
        }
    }

    /// There is so much to pay.
    fn hurry(&mut self, due: usize) {
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        self.gap = self.usual.min(PAID_WITHIN / due.max(1));
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

    const FIRST: Heir = Heir::First;
    const SECOND: Heir = Heir::Second;

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
            heard_at: at(100_000),
        }
    }

    /// All that has to be paid if every peer is gone, in order.
    fn all_due(mut estate: Estate) -> Vec<Debt> {
        (0..4).for_each(|peer| estate.died(at(0), Peer(peer)));
        (0..)
            .map_while(|step| estate.next(at(10_000 + step * 1_000)))
            .collect()
    }

    #[test]
    fn an_heir_pays_the_longest_unwritten_first_and_keeps_its_pace() {
        let mut estate = Estate::new(9, 10);
        for (uid, written) in [(1, 30), (2, 10)] {
            assert!(estate.hear(Peer(0), FIRST, debt(uid, 100, written)));
        }
        assert!(estate.hear(Peer(1), FIRST, debt(4, 100, 5)));
        assert_eq!(estate.next(at(900)), None);
        estate.died(at(950), Peer(0));
        assert_eq!(estate.len(), (3, 2));
        assert_eq!(estate.next(at(1_000)), Some(debt(2, 100, 10)));
        assert_eq!(estate.next(at(1_050)), None);
        assert_eq!(estate.next(at(1_100)), Some(debt(1, 100, 30)));
        assert_eq!(estate.next(at(9_000)), None);
        assert_eq!(estate.len(), (1, 0));
    }

    #[test]
    fn a_second_heir_pays_what_the_first_did_not() {
        let mut estate = Estate::new(9, 1_000);
        for (uid, heir) in [(1, SECOND), (2, SECOND), (3, FIRST)] {
            assert!(estate.hear(Peer(0), heir, debt(uid, 100, 50)));
        }
        estate.died(at(1_000), Peer(0));
        assert_eq!(estate.next(at(1_000)), Some(debt(3, 100, 50)));
        assert_eq!(estate.next(at(5_999)), None);
        estate.stored(Uid::from_bits(1), time(100));
        assert_eq!(estate.next(at(6_000)), Some(debt(2, 100, 50)));
        assert_eq!(estate.next(at(7_000)), None);
        assert_eq!(estate.len(), (0, 0));
    }

    /// Ten debts of a peer whose connections were closed, of which some are written elsewhere.
    fn after_closing(come_back: u128) -> Vec<Debt> {
        let mut estate = Estate::new(99, 1_000);
        (0..10).for_each(|uid| assert!(estate.hear(Peer(0), FIRST, debt(uid, 100, 50))));
        estate.closed(at(100_000), Peer(0), Duration::from_secs(8));
        (0..come_back).for_each(|uid| estate.stored(Uid::from_bits(uid), time(101)));
        assert_eq!(estate.next(at(107_999)), None);
        (0..99)
            .filter_map(|step| estate.next(at(108_000 + step * 10)))
            .collect()
    }

    #[test]
    fn who_does_not_come_back_where_others_do_is_taken_for_dead() {
        assert!(after_closing(5).is_empty() && after_closing(9).is_empty());
        assert_eq!(after_closing(4).len(), 6, "something keeps them");
        assert_eq!(after_closing(0).len(), 10);
    }

    #[test]
    fn what_a_kubelet_said_long_ago_is_not_paid() {
        let mut estate = Estate::new(9, 1_000);
        for (uid, heard_at) in [(1, 10_000), (2, 30_000), (3, 17_000)] {
            let heard_at = at(heard_at);
            let debt = debt(uid, 100, 50);
            assert!(estate.hear(Peer(0), FIRST, Debt { heard_at, ..debt }));
        }
        estate.died(at(34_000), Peer(0));
        let paid = [estate.next(at(35_000)), estate.next(at(36_000))];
        let paid = paid.map(|debt| debt.map(|debt| debt.uid.bits()));
        assert_eq!(paid, [Some(2), Some(3)], "{estate:?}");
        estate.unpaid(
            at(40_000),
            Debt {
                heard_at: at(30_000),
                ..debt(2, 100, 50)
            },
        );
        assert_eq!(estate.next(at(50_000)), None);
        assert_eq!(estate.len(), (0, 0));
    }

    #[test]
    fn a_payment_that_failed_is_tried_again_unless_the_peer_is_back() {
        let mut estate = Estate::new(9, 1_000);
        estate.hear(Peer(0), FIRST, debt(1, 100, 50));
        estate.hear(Peer(0), FIRST, debt(2, 100, 50));
        estate.died(at(1_000), Peer(0));
        let paying = [estate.next(at(1_100)), estate.next(at(1_200))];
        estate.hear(Peer(1), FIRST, debt(2, 100, 50));
        for debt in paying.into_iter().flatten() {
            estate.unpaid(at(2_000), debt);
        }
        assert_eq!(estate.next(at(3_999)), None);
        assert_eq!(estate.next(at(4_000)), Some(debt(1, 100, 50)));
        assert_eq!(estate.len(), (1, 0));
    }

    #[test]
    fn a_debt_of_a_peer_that_came_back_is_not_due() {
        let mut estate = Estate::new(9, 1_000);
        estate.hear(Peer(0), FIRST, debt(1, 100, 50));
        estate.hear(Peer(0), FIRST, debt(2, 100, 50));
        estate.died(at(1_000), Peer(0));
        estate.hear(Peer(1), SECOND, debt(1, 100, 50));
        estate.hear(Peer(2), SECOND, debt(2, 90, 60));
        assert_eq!(estate.len(), (2, 1));
        assert_eq!(estate.next(at(2_000)), Some(debt(2, 100, 60)));
        assert_eq!(estate.next(at(3_000)), None);
    }

    #[test]
    fn after_a_pause_only_a_tick_is_made_up_for() {
        let mut estate = Estate::new(999, 100);
        (0..999).for_each(|uid| assert!(estate.hear(Peer(0), FIRST, debt(uid, 100, 0))));
        estate.died(at(0), Peer(0));
        let paid = std::iter::from_fn(|| estate.next(at(60_000))).count();
        assert_eq!(paid, 10);
        let paid = (1..=100)
            .flat_map(|step| estate.next(at(60_000 + step * 10)))
            .count();
        assert_eq!(paid, 100);
    }

    #[test]
    fn many_debts_are_paid_faster() {
        let mut estate = Estate::new(9_999, 100);
        (0..5_000).for_each(|uid| assert!(estate.hear(Peer(0), FIRST, debt(uid, 100, 0))));
        estate.died(at(0), Peer(0));
        let pay =
            |estate: &mut Estate, millis| std::iter::from_fn(|| estate.next(at(millis))).count();
        let paid: usize = (1..=200).map(|step| pay(&mut estate, step * 50)).sum();
        assert!((4_900..=5_000).contains(&paid), "{paid} in ten seconds");
        estate.hear(Peer(1), FIRST, debt(9_000, 100, 0));
        estate.died(at(20_000), Peer(1));
        assert_eq!(estate.pace.gap, estate.pace.usual);
    }

    #[test]
    fn what_is_stored_or_deleted_is_not_owed() {
        let mut estate = Estate::new(2, 1_000);
        assert!(estate.hear(Peer(0), FIRST, debt(1, 100, 0)));
        assert!(estate.hear(Peer(0), FIRST, debt(2, 100, 0)));
        assert!(!estate.hear(Peer(0), FIRST, debt(3, 100, 0)), "no room");
        assert!(
            estate.hear(Peer(0), FIRST, debt(4, 100, 100)),
            "nothing to hold"
        );
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
            told in prop::collection::vec(
                (0..3_u32, any::<bool>(), 0..3_u128, 0..50_i64, 0..50_i64), 0..20,
            ),
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            // What is in the store when a debt is paid is later than when it was told.
            let owed = |told: &[(u32, bool, u128, i64, i64)]| {
                let mut estate = Estate::new(99, 1_000);
                for &(peer, first, uid, renewed, written) in told {
                    let heir = if first { FIRST } else { SECOND };
                    estate.hear(Peer(peer), heir, debt(uid, renewed + written, written));
                }
                let stored = told.iter().map(|told| (told.2, told.4));
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
