//! Which write goes out next, and how many at once.
//!
//! Owns the queue of writes that wait for their turn, the earliest deadline first, and the number
//! that may be under way: one more after each full round of quick writes, half as many after a
//! failure or a slow one, but never so few for slowness alone that an upstream which is merely slow
//! would get fewer writes than it can take. Refuses to hold more than a limit, and to hold anything longer than a
//! client waits; who is refused gets a 429. Waiting writes are requests of clients: the queue never
//! makes up a write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Moment;

/// A kubelet gives up after 10 s; what waits longer than this would be written for nobody.
pub(crate) const PATIENCE: Duration = Duration::from_secs(7);
/// A write that takes longer may say that there are too many.
const SLOW: Duration = Duration::from_secs(1);
/// The number of writes is halved at most so often.
const RELIEF: Duration = Duration::from_secs(1);
/// Writes under way at the beginning, and the least because they are slow: where writes wait for
/// each other so many change nothing, and where each takes long by itself fewer would be too few.
const FIRST: u32 = 16;

/// The limits of [`crate::Heartbeats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes that may be remembered; renewals of others are forwarded.
    pub nodes: usize,
    /// Writes that may wait.
    pub waiting: usize,
    /// Writes that may be under way, however quick they are.
    pub under_way: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes: 250_000,
            waiting: 4_096,
            under_way: 256,
        }
    }
}

/// A write that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What becomes of a write that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Now,
    Later(Ticket),
    Full,
}

#[derive(Debug)]
pub(crate) struct Writes<W> {
    limits: Limits,
    /// How many may be under way.
    allowed: u32,
    /// Quick ones since that number last changed.
    quick: u32,
    relieved: Option<Moment>,
    under_way: u32,
    next_ticket: u64,
    /// In the order they came.
    waiting: BTreeMap<Ticket, Waiting<W>>,
    by_deadline: BTreeSet<(Moment, Ticket)>,
}

#[derive(Debug)]
struct Waiting<W> {
    since: Moment,
    deadline: Moment,
    write: W,
}

impl<W> Writes<W> {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            allowed: if FIRST < limits.under_way {
                FIRST
            } else {
                limits.under_way
            },
            quick: 0,
            relieved: None,
            under_way: 0,
            next_ticket: 0,
            waiting: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
        }
    }

    /// Asks for a write. If it is for now, it counts as under way.
    pub(crate) fn ask(&mut self, now: Moment, deadline: Moment, write: W) -> Place {
        if self.waiting.is_empty() && self.under_way < self.allowed {
            self.under_way += 1;
            return Place::Now;
        }
        if self.waiting.len() >= self.limits.waiting {
            return Place::Full;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.by_deadline.insert((deadline, ticket));
        let waiting = Waiting {
            since: now,
            deadline,
            write,
        };
        self.waiting.insert(ticket, waiting);
        Place::Later(ticket)
    }

    /// The write whose turn it is, which is then under way.
    pub(crate) fn next(&mut self) -> Option<(Ticket, W)> {
        if self.under_way >= self.allowed {
            return None;
        }
        let &(_deadline, ticket) = self.by_deadline.first()?;
        let write = self.remove(ticket)?;
        self.under_way += 1;
        Some((ticket, write))
    }

    /// A write that has waited longer than its client will.
    pub(crate) fn expired(&mut self, now: Moment) -> Option<(Ticket, W)> {
        let (&ticket, first) = self.waiting.first_key_value()?;
        if now.since(first.since) < PATIENCE {
            return None;
        }
        Some((ticket, self.remove(ticket)?))
    }

    /// Forgets a write that waits, because its client has gone.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<W> {
        let Waiting {
            deadline, write, ..
        } = self.waiting.remove(&ticket)?;
        self.by_deadline.remove(&(deadline, ticket));
        Some(write)
    }

    /// A write that was under way has come to nothing, before it was sent.
    pub(crate) const fn unused(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A write that was under way is over.
    pub(crate) fn over(&mut self, now: Moment, took: Duration, failed: bool) {
        self.unused();
        if failed || took > SLOW {
            return self.relieve(now, if failed { 1 } else { FIRST });
        }
        self.quick += 1;
        if self.quick >= self.allowed {
            self.quick = 0;
            self.allowed = (self.allowed + 1).min(self.limits.under_way);
        }
    }

    /// Nobody waits any more for a write that was under way: it was slow, or nothing is known.
    pub(crate) fn gone(&mut self, now: Moment, took: Duration) {
        self.unused();
        if took > SLOW {
            self.relieve(now, FIRST);
        }
    }

    /// Halves how many may be under way, if they are more than `least`.
    fn relieve(&mut self, now: Moment, least: u32) {
        self.quick = 0;
        let lately = self.relieved.is_some_and(|last| now.since(last) < RELIEF);
        if !lately && self.allowed > least {
            self.relieved = Some(now);
            self.allowed = (self.allowed / 2).max(least);
        }
    }

    /// Whether more than a fifth of those that wait do so beyond their deadline.
    pub(crate) fn is_late(&self, now: Moment) -> bool {
        let fifth = self.by_deadline.iter().nth(self.by_deadline.len() / 5);
        fifth.is_some_and(|(deadline, _ticket)| *deadline < now)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) const fn under_way(&self) -> u32 {
        self.under_way
    }

    pub(crate) const fn allowed(&self) -> u32 {
        self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    fn limited(waiting: usize, under_way: u32) -> Writes<u64> {
        Writes::new(Limits {
            nodes: 9,
            waiting,
            under_way,
        })
    }

    #[test]
    fn the_earliest_deadline_goes_first() {
        let mut writes = limited(9, 1);
        assert_eq!(writes.ask(at(0), at(9), 9), Place::Now);
        for deadline in [7, 3, 5] {
            assert!(matches!(
                writes.ask(at(0), at(deadline), deadline),
                Place::Later(_)
            ));
        }
        assert_eq!(writes.next(), None);
        for expected in [3, 5, 7] {
            writes.over(at(1), Duration::ZERO, false);
            assert_eq!(writes.next().map(|(_ticket, write)| write), Some(expected));
        }
    }

    #[test]
    fn the_queue_has_an_end_and_so_has_waiting() {
        let mut writes = limited(2, 1);
        for place in [true, true, true, false] {
            assert_eq!(writes.ask(at(0), at(9), 0) != Place::Full, place);
        }
        assert!(writes.expired(at(6)).is_none());
        assert!(writes.expired(at(7)).is_some());
        assert!(writes.expired(at(7)).is_some());
        assert!(writes.expired(at(7)).is_none());
        assert_eq!((writes.waiting(), writes.by_deadline.len()), (0, 0));
    }

    #[test]
    fn quick_writes_make_room_and_slow_ones_take_it() {
        let mut writes = limited(0, 1_000);
        let mut rounds = 0;
        while writes.allowed() < 40 {
            for _write in 0..writes.allowed() {
                writes.over(at(0), Duration::from_millis(5), false);
            }
            rounds += 1;
        }
        assert_eq!(rounds, 24);
        writes.over(at(1), Duration::from_secs(2), false);
        assert_eq!(writes.allowed(), 20);
        writes.over(at(1), Duration::ZERO, true);
        assert_eq!(writes.allowed(), 20, "one relief a second");
        (2..10).for_each(|second| writes.over(at(second), Duration::from_secs(2), false));
        assert_eq!(
            writes.allowed(),
            16,
            "slow ones alone are no reason for fewer"
        );
        (10..20).for_each(|second| writes.over(at(second), Duration::ZERO, true));
        assert_eq!(writes.allowed(), 1);
    }

    #[test]
    fn a_fifth_beyond_its_deadline_is_late() {
        let mut writes = limited(10, 0);
        for deadline in 1..=10 {
            writes.ask(at(0), at(deadline), deadline);
        }
        assert!(!writes.is_late(at(3)));
        assert!(writes.is_late(at(4)));
    }
}
