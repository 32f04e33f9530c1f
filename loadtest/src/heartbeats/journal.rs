//! What kubelets sent, and what came of it in the store.
//!
//! Owns one life for each kubelet: every time it sent, every write of its lease, its death and when
//! it was found dead. Refuses to know who is right about a gap: the controller is.
//! Invariant: each write is held against everything that was sent before it, so a `renewTime` that
//! nobody sent, one that goes back, and a lease under another owner or manager are all findings.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::kubelet::stats::Log;

/// Who may be named in `managedFields`.
const MANAGER: &str = "kubelet";

/// A lease as the store shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name, which is that of its node.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// UID of its owner; empty without one.
    pub owner: String,
    /// Microseconds since 1970; none where there is no time.
    pub renew_time: Option<i64>,
    /// Managers in `managedFields`, in order.
    pub managers: Vec<String>,
}

/// One kubelet.
#[derive(Debug, Default)]
pub struct Life {
    /// Every `renewTime` it sent, microseconds, in order.
    pub sent: Vec<i64>,
    /// Renewals that were acknowledged.
    pub acknowledged: u64,
    /// When it ended, by force.
    pub died: Option<Instant>,
    /// When it was taken for lost after its death.
    pub found: Option<Instant>,
    /// How often it was taken for lost in its life.
    pub buried_alive: u64,
    /// UID of its Node.
    pub owner: String,
    /// UID of its lease.
    pub uid: String,
    /// The times of the lease in the store.
    pub written: Vec<Arrival>,
}

/// A new `renewTime` that the store showed.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// When the controller heard of it.
    pub at: Instant,
    /// What it says, microseconds.
    pub time: i64,
    /// How much later that was than what it says.
    pub delay: Duration,
}

impl Life {
    /// Renewals and writes between the first write since `start` and the last one in its life.
    #[must_use]
    pub fn coalesced(&self, start: Instant) -> (u64, u64) {
        let times: Vec<_> = self.since(start).map(|arrival| arrival.time).collect();
        let (Some(first), Some(last)) = (times.first(), times.last()) else {
            return (0, 0);
        };
        let count = |time: &i64| self.sent.partition_point(|sent| sent <= time);
        ((count(last) - count(first)) as u64, times.len() as u64 - 1)
    }

    /// The longest time between two writes since `start`, in its life.
    #[must_use]
    pub fn longest_gap(&self, start: Instant) -> Option<Duration> {
        let times: Vec<_> = self.since(start).map(|arrival| arrival.at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max()
    }

    /// What arrived since `start`, in its life.
    pub fn since(&self, start: Instant) -> impl Iterator<Item = &Arrival> {
        let is_alive = move |at: Instant| self.died.is_none_or(|died| at <= died);
        let written = self.written.iter();
        written.filter(move |arrival| arrival.at >= start && is_alive(arrival.at))
    }

    fn judge(&self, lease: &Written) -> Result<(), String> {
        let name = &lease.name;
        let Some(time) = lease.renew_time else {
            return Err(format!("{name}: a lease without a time"));
        };
        if self.sent.binary_search(&time).is_err() {
            return Err(format!("{name}: {time} was written, and never sent"));
        }
        if lease.uid == self.uid
            && let Some(Arrival { time: last, .. }) = self.written.last()
            && time < *last
        {
            return Err(format!("{name}: {time} was written after {last}"));
        }
        if lease.uid.is_empty() || lease.owner != self.owner {
            let owner = &lease.owner;
            return Err(format!("{name}: the owner is {owner:?}, not its node"));
        }
        if lease.managers.iter().any(|manager| manager != MANAGER) || lease.managers.len() != 1 {
            return Err(format!("{name}: it is managed by {:?}", lease.managers));
        }
        Ok(())
    }
}

/// All lives.
#[derive(Debug, Default)]
pub struct Journal {
    lives: HashMap<String, Mutex<Life>>,
    /// What may never happen, in words.
    pub findings: Log,
    /// Answers that a healthy server would not give.
    pub errors: Log,
}

impl Journal {
    /// A journal of nodes, each with the UID of its Node.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = (String, String)>) -> Self {
        let lives = nodes.into_iter().map(|(name, owner)| {
            let life = Life {
                owner,
                ..Life::default()
            };
            (name, Mutex::new(life))
        });
        Self {
            lives: lives.collect(),
            ..Self::default()
        }
    }

    /// Looks at one life, or enters something; `None` for a stranger.
    pub fn life<T>(&self, name: &str, look: impl FnOnce(&mut Life) -> T) -> Option<T> {
        self.lives.get(name).map(|life| look(&mut life.lock()))
    }

    /// Looks at all lives of some nodes.
    pub fn lives<'a, T: 'a>(
        &'a self,
        names: &'a [String],
        mut look: impl FnMut(&Life) -> T + 'a,
    ) -> impl Iterator<Item = T> + 'a {
        let lives = names.iter().filter_map(|name| self.lives.get(name));
        lives.map(move |life| look(&life.lock()))
    }

    /// Enters what the store shows now; `wall` is now as kubelets tell it, microseconds.
    pub fn written(&self, now: Instant, wall: i64, lease: &Written) {
        let Some(life) = self.lives.get(&lease.name) else {
            return;
        };
        let mut life = life.lock();
        if let Err(finding) = life.judge(lease) {
            self.findings.add(finding);
        }
        life.uid.clone_from(&lease.uid);
        let last = life.written.last().map(|last| last.time);
        if let Some(time) = lease.renew_time.filter(|time| last != Some(*time)) {
            life.written.push(Arrival {
                at: now,
                time,
                delay: Duration::from_micros(u64::try_from(wall - time).unwrap_or_default()),
            });
        }
    }

    /// Enters that a node was taken for lost.
    pub fn lost(&self, now: Instant, name: &str) {
        self.life(name, |life| match life.died {
            Some(_) => life.found = life.found.or(Some(now)),
            None => life.buried_alive += 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(time: i64) -> Written {
        Written {
            name: "n".into(),
            uid: "u".into(),
            owner: "o".into(),
            renew_time: Some(time),
            managers: vec!["kubelet".into()],
        }
    }

    fn journal(sent: &[i64]) -> Journal {
        let journal = Journal::new([("n".to_owned(), "o".to_owned())]);
        journal.life("n", |life| life.sent.extend_from_slice(sent));
        journal
    }

    fn finding(sent: &[i64], leases: &[Written]) -> String {
        let journal = journal(sent);
        for lease in leases {
            journal.written(Instant::now(), 9, lease);
        }
        journal.findings.lines().join("; ")
    }

    #[test]
    fn what_was_sent_may_be_written_in_part_and_twice_but_not_backwards() {
        assert_eq!(finding(&[1, 2, 3], &[lease(1), lease(3), lease(3)]), "");
        assert_eq!(
            finding(&[1, 2, 3], &[lease(3), lease(2)]),
            "n: 2 was written after 3"
        );
    }

    #[test]
    fn a_time_that_nobody_sent_is_found_out() {
        assert_eq!(
            finding(&[1, 3], &[lease(1), lease(2)]),
            "n: 2 was written, and never sent"
        );
    }

    #[test]
    fn a_lease_of_another_owner_or_manager_is_found_out() {
        let mut orphan = lease(1);
        orphan.owner.clear();
        assert!(finding(&[1], &[orphan]).contains("owner"));
        let mut shared = lease(1);
        shared.managers.push("watershed".into());
        assert!(finding(&[1], &[shared]).contains("managed by"));
    }

    #[test]
    fn a_new_lease_begins_anew() {
        let mut again = lease(1);
        again.uid = "v".into();
        assert_eq!(finding(&[1, 2], &[lease(2), again]), "");
    }

    #[test]
    fn renewals_are_counted_between_the_first_write_and_the_last() {
        let journal = journal(&[1, 2, 3, 4, 5, 6]);
        let start = Instant::now();
        for (seconds, time) in [(0, 1), (20, 3), (41, 5)] {
            journal.written(start + Duration::from_secs(seconds), 9, &lease(time));
        }
        let coalesced = journal.life("n", |life| life.coalesced(start));
        assert_eq!(coalesced, Some((4, 2)));
        let gap = journal.life("n", |life| life.longest_gap(start)).flatten();
        assert_eq!(gap, Some(Duration::from_secs(21)));
    }

    #[test]
    fn only_the_dead_are_found() {
        let journal = journal(&[]);
        journal.lost(Instant::now(), "n");
        journal.life("n", |life| life.died = Some(Instant::now()));
        journal.lost(Instant::now(), "n");
        let life = journal.life("n", |life| (life.buried_alive, life.found.is_some()));
        assert_eq!(life, Some((1, true)));
    }
}
