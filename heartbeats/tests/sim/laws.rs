//! What must hold, written down as naively as possible.
//!
//! The laws know what kubelets said and what the store had, and nothing of how the crate decides.

pub(crate) mod debts;

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{Store, Stored};
use debts::Debts;

/// A write proves that writes arrive for so long, milliseconds.
const PROOF: u64 = 5_000;

/// What a kubelet said last is written by an heir within so long, or never, milliseconds.
pub(crate) const PAYABLE: u64 = 20_000;

/// A client is told to come again before it goes by itself, milliseconds.
const PATIENCE: u64 = 7_000;
/// A watch that was silent for longer is not believed, milliseconds.
pub(crate) const FRESH: u64 = 75_000;

/// A replica that answers by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answering {
    pub(crate) life: u64,
    /// When its watches told something last.
    pub(crate) heard_at: u64,
    /// Others seem to be there.
    pub(crate) has_peers: bool,
    /// The uid of the Node, as it knows it.
    pub(crate) node: Option<u128>,
}

#[derive(Debug, Default)]
pub(crate) struct Laws {
    /// What kubelets said of each lease, by uid.
    said: BTreeMap<u128, BTreeSet<i64>>,
    /// When it said anything of it last.
    said_at: BTreeMap<u128, u64>,
    /// What each life of a replica has answered, by uid.
    answered: BTreeMap<(u64, u128), i64>,
    /// When a write of each life of a replica last arrived.
    succeeded: BTreeMap<u64, u64>,
    pub(crate) debts: Debts,
}

impl Laws {
    pub(crate) fn says(&mut self, now: u64, uid: u128, renewed: i64) {
        self.said.entry(uid).or_default().insert(renewed);
        self.said_at.insert(uid, now);
    }

    pub(crate) fn succeeds(&mut self, life: u64, now: u64) {
        self.succeeded.insert(life, now);
    }

    fn was_said(&self, uid: u128, renewed: i64) -> bool {
        self.said
            .get(&uid)
            .is_some_and(|said| said.contains(&renewed))
    }

    /// A renewal is answered by a replica that has not written it.
    pub(crate) fn absorbs(
        &mut self,
        now: u64,
        who: Answering,
        store: &Store,
        (sent, answer): (&Stored, &Stored),
    ) {
        let (uid, life, node) = (answer.uid, who.life, who.node);
        let silent = now - who.heard_at;
        assert!(silent < FRESH, "its watches told nothing for {silent} ms");
        assert!(who.has_peers, "alone, nothing is absorbed at 50 s");
        assert_eq!(
            answer.renewed, sent.renewed,
            "the answer says what the kubelet said"
        );
        assert!(
            store.versions[&uid].contains(&answer.version),
            "the lease had that version"
        );
        assert!(
            answer.version >= sent.version,
            "a client's version does not go back"
        );
        assert_eq!(
            (answer.uid, answer.edits),
            (sent.uid, sent.edits),
            "nothing else is changed"
        );
        assert_eq!(node, Some(answer.owner), "the Node owns the lease");
        let last = self.succeeded.get(&life);
        let proven = last.is_some_and(|last| now - last < PROOF);
        assert!(
            proven,
            "a write arrived within five seconds: {last:?} at {now}"
        );
        let before = self.answered.insert((life, uid), answer.renewed);
        assert!(
            before.is_none_or(|before| before < answer.renewed),
            "time goes on"
        );
    }

    /// A renewal is answered by a replica because the store has it or a later one.
    pub(crate) fn confirms(store: &Store, (sent, answer): (&Stored, &Stored)) {
        let uid = sent.uid;
        assert_eq!(
            answer.uid, uid,
            "an answer is of the lease that was renewed"
        );
        assert!(store.versions[&uid].contains(&answer.version));
        assert!(store.latest[&uid] >= sent.renewed, "the store got as new");
    }

    /// A request waits for its turn.
    pub(crate) fn waits(now: u64, since: Option<u64>) {
        let waited = since.map_or(0, |since| now - since);
        assert!(
            waited < PATIENCE,
            "a client that waits {waited} ms goes soon"
        );
    }

    /// A replica sends a write of its own making.
    pub(crate) fn writes(&self, store: &Store, body: &Stored) {
        assert!(
            self.was_said(body.uid, body.renewed),
            "a kubelet said so: {body:?}"
        );
        assert!(
            store.versions[&body.uid].contains(&body.version),
            "the lease had that version"
        );
    }

    /// It pays what another one owed.
    pub(crate) fn pays(&self, now: u64, uid: u128) {
        let silent = now - self.said_at[&uid];
        assert!(
            silent <= PAYABLE,
            "a kubelet silent for {silent} ms is dead"
        );
    }

    /// It arrives, and is accepted, in place of `before`.
    pub(crate) fn written(before: &Stored, body: &Stored) {
        assert_eq!(
            before.uid, body.uid,
            "a write is of the lease that was renewed"
        );
        assert!(before.renewed < body.renewed, "the store does not go back");
        assert_eq!(
            (before.owner, before.edits),
            (body.owner, body.edits),
            "nothing else changes"
        );
    }

    /// A replica says what it owes.
    pub(crate) fn owes(&self, uid: u128, renewed: i64) {
        assert!(self.was_said(uid, renewed), "what is owed was said");
    }

    /// All is well again for long enough.
    pub(crate) fn healed(&self, lease: &Stored) {
        let answered = self
            .answered
            .iter()
            .filter(|((_life, uid), _)| *uid == lease.uid);
        let newest = answered.map(|(_who, renewed)| *renewed).max();
        let forgotten = newest.is_some_and(|newest| newest > lease.renewed + 25_000_000);
        assert!(
            !forgotten,
            "what was answered is in the store or about to be: {lease:?} {newest:?}"
        );
    }
}
