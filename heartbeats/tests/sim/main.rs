//! Seeded faults against a naive model.
//!
//! A seed decides everything: three replicas with late watches, an upstream that is slow, fails, or
//! does what it is asked and loses the answer; kubelets that renew as kubelets do, move between
//! replicas, use two at once, have their clocks put back and forth, die; leases and Nodes that are
//! deleted, created anew, edited; replicas that crash with writes on the wire and come back empty.
//! After every step the laws hold (`laws.rs`), and when the
//! faults are over the control plane sees what it must (`world/calm.rs`).
//!
//! | variable | effect |
//! |---|---|
//! | `WATERSHED_HEARTBEATS_SEED=7` | replays one seed, and prints its steps |
//! | `WATERSHED_HEARTBEATS_SECONDS=60` | runs fresh seeds for that long |

mod controller;
mod laws;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use world::{Tally, World};

const SEEDS: u64 = 60;
const STEPS: usize = 1_500;

#[test]
fn faults_of_every_seed_leave_the_laws_intact() {
    if let Some(seed) = number("WATERSHED_HEARTBEATS_SEED") {
        check(seed, true);
        return;
    }
    let mut tally = Tally::default();
    (0..SEEDS).for_each(|seed| tally.add(&check(seed, false)));
    // The faults are worth nothing if they do not get into the corners.
    assert!(tally.is_rich(), "{tally:?}");
}

#[test]
fn a_seed_replays_its_faults() {
    let [first, second] = [(); 2].map(|()| check(3, false));
    assert_eq!(first, second);
}

#[test]
fn fresh_faults_leave_the_laws_intact() {
    let Some(seconds) = number("WATERSHED_HEARTBEATS_SECONDS") else {
        return;
    };
    let started = std::time::SystemTime::now();
    let first = fastrand::u64(1 << 20..1 << 40);
    let mut seeds = 0;
    let mut tally = Tally::default();
    while started
        .elapsed()
        .is_ok_and(|elapsed| elapsed < Duration::from_secs(seconds))
    {
        tally.add(&check(first + seeds, false));
        seeds += 1;
    }
    println!("{seeds} fresh seeds from {first} obey the laws\n{tally:#?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

fn check(seed: u64, loud: bool) -> Tally {
    let mut world = World::new(seed, loud);
    let run = catch_unwind(AssertUnwindSafe(|| world.run(STEPS)));
    if let Err(panic) = run {
        let log = world.log();
        eprintln!(
            "last steps:\n  {}",
            log[log.len().saturating_sub(40)..].join("\n  ")
        );
        eprintln!("replay with WATERSHED_HEARTBEATS_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
    world.tally()
}
