//! Whether a replica may say yes to a renewal that nobody has written.
//!
//! Owns the proof: writes that succeed, and how old the last of them is. Refuses to believe in
//! anything else: that the network is up, that the last write was fine a while ago, that an error
//! was an exception. Invariant: [`Honesty::Honest`] is returned only while all of its conditions
//! hold at that very moment, so an answer of 200 is always backed by a write that arrived less than
//! [`PROOF`] ago.
//!
//! ```text
//!             a write arrives, its proof is whole
//!   Unproven ─────────────────────────────────────► Honest ─┐
//!      ▲  ▲                                           │     │ proof too old, half the writes fail,
//!      │  └───────────────────────────────────────────┘     │ a fifth of the queue is late
//!      │ a write arrives                                    │
//!      └──────────── Shedding ◄─────────────────────────────┘ all writes since the last proof fail
//! ```
//!
//! Unproven, every renewal is written before it is answered. Shedding, all but one a [`TRIAL`] get
//! a 429, so that fifty retries of every kubelet do not meet an apiserver that cannot answer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Moment;

/// A write that arrived proves that writes arrive for so long.
pub(crate) const PROOF: Duration = Duration::from_secs(5);
/// The stretch over which errors are counted against successes.
const WINDOW: Duration = Duration::from_secs(5);
/// Parts of the window.
const PARTS: usize = 5;
/// As many failures in a row, and no proof, mean that trying is useless.
const HOPELESS: u32 = 8;
/// How often a write is tried while all others are shed.
pub(crate) const TRIAL: Duration = Duration::from_millis(250);

/// What a replica may do with a renewal that could be absorbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Honesty {
    /// Answer it.
    Honest,
    /// Write it, and answer what the upstream answers.
    Unproven,
    /// Answer 429, except now and then.
    Shedding,
}

/// What became of writes lately.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    last_success: Option<Moment>,
    failures_in_a_row: u32,
    last_trial: Option<Moment>,
    /// By when each part began; at most [`PARTS`].
    window: VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    began: Moment,
    succeeded: u32,
    failed: u32,
}

impl Proof {
    /// A write, or another request that proves the same, arrived.
    pub(crate) fn succeeded(&mut self, now: Moment) {
        self.last_success = Some(self.last_success.map_or(now, |last| last.max(now)));
        self.failures_in_a_row = 0;
        self.part(now).succeeded += 1;
    }

    /// A write did not arrive, or nobody knows whether it did.
    pub(crate) fn failed(&mut self, now: Moment) {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.part(now).failed += 1;
    }

    fn part(&mut self, now: Moment) -> &mut Part {
        let length = WINDOW / u32::try_from(PARTS).expect("a few");
        let fresh = self
            .window
            .back()
            .is_some_and(|part| now.since(part.began) < length);
        if !fresh {
            if self.window.len() == PARTS {
                self.window.pop_front();
            }
            self.window.push_back(Part {
                began: now,
                succeeded: 0,
                failed: 0,
            });
        }
        self.window.back_mut().expect("one was put there")
    }

    /// What may be done now. `late` says whether too many writes wait beyond their deadline.
    pub(crate) fn honesty(&self, now: Moment, late: bool) -> Honesty {
        let proven = self
            .last_success
            .is_some_and(|last| now.since(last) < PROOF);
        if !proven && self.failures_in_a_row >= HOPELESS {
            return Honesty::Shedding;
        }
        let recent = self
            .window
            .iter()
            .filter(|part| now.since(part.began) < WINDOW);
        let (succeeded, failed) = recent.fold((0_u32, 0_u32), |(succeeded, failed), part| {
            (succeeded + part.succeeded, failed + part.failed)
        });
        let failing = failed > 0 && failed >= succeeded;
        if proven && !failing && !late {
            Honesty::Honest
        } else {
            Honesty::Unproven
        }
    }

    /// Whether writes have failed, and nothing but failed, for so long that others should write.
    pub(crate) fn is_cut_off(&self, now: Moment) -> bool {
        let proven = self
            .last_success
            .is_some_and(|last| now.since(last) < PROOF);
        !proven && self.failures_in_a_row > 0
    }

    /// Whether this renewal is to be tried although all are shed.
    pub(crate) fn takes_trial(&mut self, now: Moment) -> bool {
        let due = self.last_trial.is_none_or(|last| now.since(last) >= TRIAL);
        if due {
            self.last_trial = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::after_start(Duration::from_millis(millis))
    }

    #[test]
    fn nothing_is_proven_at_first() {
        assert_eq!(Proof::default().honesty(at(0), false), Honesty::Unproven);
    }

    #[test]
    fn a_proof_lasts_five_seconds() {
        let mut proof = Proof::default();
        proof.succeeded(at(1_000));
        assert_eq!(proof.honesty(at(5_999), false), Honesty::Honest);
        assert_eq!(proof.honesty(at(6_000), false), Honesty::Unproven);
    }

    #[test]
    fn half_the_writes_failing_is_no_proof() {
        let mut proof = Proof::default();
        proof.succeeded(at(0));
        proof.succeeded(at(10));
        proof.failed(at(20));
        assert_eq!(proof.honesty(at(30), false), Honesty::Honest);
        proof.failed(at(40));
        assert_eq!(proof.honesty(at(50), false), Honesty::Unproven);
        proof.succeeded(at(60));
        assert_eq!(proof.honesty(at(70), false), Honesty::Honest);
    }

    #[test]
    fn late_writes_are_no_proof() {
        let mut proof = Proof::default();
        proof.succeeded(at(0));
        assert_eq!(proof.honesty(at(1), true), Honesty::Unproven);
    }

    #[test]
    fn who_cannot_write_is_cut_off_and_who_has_nothing_to_write_is_not() {
        let mut proof = Proof::default();
        assert!(!proof.is_cut_off(at(60_000)));
        proof.succeeded(at(60_000));
        proof.failed(at(61_000));
        assert!(!proof.is_cut_off(at(64_999)) && proof.is_cut_off(at(65_000)));
        proof.succeeded(at(65_001));
        assert!(!proof.is_cut_off(at(90_000)));
    }

    #[test]
    fn when_all_fails_all_is_shed_until_a_trial_succeeds() {
        let mut proof = Proof::default();
        proof.succeeded(at(0));
        (0..HOPELESS).for_each(|write| proof.failed(at(100 + u64::from(write))));
        assert_eq!(proof.honesty(at(4_000), false), Honesty::Unproven);
        assert_eq!(proof.honesty(at(5_000), false), Honesty::Shedding);
        assert!(proof.takes_trial(at(5_000)));
        assert!(!proof.takes_trial(at(5_249)));
        assert!(proof.takes_trial(at(5_250)));
        proof.failed(at(5_300));
        assert_eq!(proof.honesty(at(6_000), false), Honesty::Shedding);
        proof.succeeded(at(30_000));
        assert_eq!(proof.honesty(at(30_001), false), Honesty::Honest);
    }
}
