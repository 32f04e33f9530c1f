//! What a replica owed when it fell silent is in the store soon after that was noticed, if it had
//! told an heir and the heir can write.

use std::collections::BTreeMap;

use super::PAYABLE;
use crate::store::Store;

/// From when it is noticed to when it is written, milliseconds: a few steps, the pace, a flight.
const FIRST_PAYS: u64 = 2_500;
/// What the second heir waits for the first.
const SECOND_WAITS: u64 = 5_000;
/// One more try after one that met another write.
const ANOTHER_TRY: u64 = 5_500;

#[derive(Debug, Default)]
pub(crate) struct Debts {
    /// What was said last, by the life of who says it, and the lease.
    said: BTreeMap<(u64, u128), i64>,
    /// By the life of who heard it, and the lease.
    told: BTreeMap<(u64, u128), Told>,
    /// By the life of who has to pay, and the lease.
    due: BTreeMap<(u64, u128), Due>,
}

/// What a replica says to an heir.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Its life.
    pub(crate) by: u64,
    pub(crate) renewed: i64,
    /// To its first heir.
    pub(crate) first: bool,
    /// When the kubelet was last heard.
    pub(crate) heard_at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    renewed: i64,
    by: u64,
    heard_at: u64,
}

impl Debts {
    /// An heir hears what the replica of a life owes.
    pub(crate) fn tells(&mut self, heir: u64, uid: u128, told: Told) {
        let known = self.told.entry((heir, uid)).or_insert(told);
        if told.renewed >= known.renewed {
            *known = told;
            // Who says the newest answers for it.
            self.due.remove(&(heir, uid));
        }
    }

    /// What a replica owes after it told its heirs.
    pub(crate) fn owes(&self, by: u64, uid: u128, renewed: i64) {
        let said = self.said.get(&(by, uid));
        let told = said.is_some_and(|said| *said >= renewed);
        assert!(told, "{by} told nobody that it owes {renewed} to {uid}");
    }

    /// A replica says what it owes to whoever may hear it.
    pub(crate) fn says(&mut self, by: u64, uid: u128, renewed: i64) {
        let said = self.said.entry((by, uid)).or_insert(renewed);
        *said = renewed.max(*said);
    }

    /// An heir notices that a replica is gone.
    pub(crate) fn notices(&mut self, now: u64, heir: u64, gone: u64) {
        let theirs = |of: u64, told: &Told| of == heir && told.by == gone;
        for (&(of, uid), told) in self.told.iter().filter(|(key, told)| theirs(key.0, told)) {
            let waits = if told.first { 0 } else { SECOND_WAITS };
            let (renewed, heard_at) = (told.renewed, told.heard_at);
            let by = now + FIRST_PAYS + waits;
            let due = Due {
                renewed,
                by,
                heard_at,
            };
            self.due.insert((of, uid), due);
        }
        self.told.retain(|key, told| !theirs(key.0, told));
    }

    /// A payment met another write.
    pub(crate) fn collides(&mut self, now: u64, heir: u64, uid: u128) {
        if let Some(due) = self.due.get_mut(&(heir, uid)) {
            due.by = due.by.max(now + ANOTHER_TRY);
        }
    }

    /// How many were paid in time since the last step. `able` says which lives can write now.
    pub(crate) fn check(&mut self, now: u64, store: &Store, able: impl Fn(u64) -> bool) -> u64 {
        let there = |uid: u128| store.leases.values().any(|lease| lease.uid == uid);
        let before = self.due.len();
        self.due
            .retain(|(_heir, uid), due| there(*uid) && store.latest[uid] < due.renewed);
        let settled = before - self.due.len();
        // What could only be paid too late is not to be paid.
        self.due
            .retain(|(heir, _uid), due| able(*heir) && due.by <= due.heard_at + PAYABLE);
        for (who, due) in &self.due {
            assert!(now <= due.by, "{who:?} owes {due:?} at {now}");
        }
        u64::try_from(settled).expect("a few")
    }
}
