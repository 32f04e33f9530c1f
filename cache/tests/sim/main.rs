//! Seeded histories against a naive model.
//!
//! A seed decides everything: the encoding and the limits; writes, and deletions that share a
//! version; cuts at any byte, compactions, refusals, nonsense and silence; servers that lag behind
//! a balancer; bookmarks that are late or missing; clients of every selector kind that are slow,
//! leave and return; workers they live on, which get their turns late; lists, pages and consistent
//! reads meanwhile. After every step the laws hold (`laws.rs`): what a client is sent is byte for
//! byte what must come next, its folded view is the list at its version, versions never go back,
//! nobody sleeps through a write that its worker was told of, a stream ends only for a reason, a
//! consistent read is not older than its question, and memory stays within its limits.
//!
//! | variable | effect |
//! |---|---|
//! | `WATERSHED_SIM_SEED=7` | replays one seed |
//! | `WATERSHED_SIM_STEPS=3,17` | takes only these steps of it |
//! | `WATERSHED_SIM_SECONDS=60` | runs fresh seeds for that long |
//!
//! A seed that fails is run again with fewer steps until none can be left out, then its last steps
//! are printed. Seeds that found something are kept in `seeds.txt`.

mod client;
mod frames;
mod laws;
mod model;
mod observer;
mod reader;
mod run;
mod steps;
mod thing;
mod upstream;
mod wanted;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use run::{Run, STEPS, Tally};

/// Seeds of an ordinary test run, besides those that found something.
const SEEDS: u64 = 60;

/// Seeds that found something once, each with what.
const FOUND: &str = include_str!("seeds.txt");

#[test]
fn histories_of_every_seed_obey_the_laws() {
    if let Some(seed) = number("WATERSHED_SIM_SEED") {
        check(seed, steps());
        return;
    }
    let mut tally = Tally::default();
    (0..SEEDS).for_each(|seed| tally.add(&check(seed, all())));
    // The histories are worth nothing if they do not get into the corners.
    assert!(tally.is_rich(), "{tally:?}");
}

#[test]
fn histories_that_found_something_obey_the_laws() {
    let seeds = FOUND.lines().filter(|line| !line.starts_with('#'));
    for line in seeds {
        let seed = line.split_whitespace().next().expect("a seed");
        check(seed.parse().expect("a number"), all());
    }
}

#[test]
fn a_seed_replays_its_history() {
    for seed in [3, 4, 5] {
        let [first, second] = [(); 2].map(|()| {
            let run = Run::new(seed, all(), true);
            run.go();
            run.log()
        });
        assert!(first.len() > STEPS && first == second, "seed {seed}");
    }
}

/// Runs seeds nobody has seen, for as long as `WATERSHED_SIM_SECONDS` says.
#[test]
fn fresh_histories_obey_the_laws() {
    let Some(seconds) = number("WATERSHED_SIM_SECONDS") else {
        return;
    };
    let started = tokio::time::Instant::now();
    let first = fastrand::u64(1 << 20..1 << 40);
    let mut tally = Tally::default();
    let mut seeds = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        tally.add(&check(first + seeds, all()));
        seeds += 1;
    }
    println!(
        "{seeds} fresh seeds from {first} in {seconds} s obey the laws; \
         WATERSHED_SIM_SEED=n replays one\n{tally:#?}"
    );
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

fn all() -> BTreeSet<usize> {
    (0..STEPS).collect()
}

/// The steps of `WATERSHED_SIM_STEPS`, or all.
fn steps() -> BTreeSet<usize> {
    let Ok(text) = std::env::var("WATERSHED_SIM_STEPS") else {
        return all();
    };
    let steps = text.split(',').map(|step| step.parse());
    steps.map(|step| step.expect("a number")).collect()
}

/// Takes some steps of a seed; leaves out what it can and explains the rest if that fails.
fn check(seed: u64, steps: BTreeSet<usize>) -> Tally {
    match catch_unwind(|| Run::new(seed, steps.clone(), false).go()) {
        Ok(tally) => tally,
        Err(_panic) => {
            let steps = shrink(seed, steps);
            let list: Vec<_> = steps.iter().map(ToString::to_string).collect();
            let run = Run::new(seed, steps, true);
            let again = catch_unwind(AssertUnwindSafe(|| run.go()));
            let log = run.log();
            let last = log.len().saturating_sub(60);
            eprintln!("last steps:\n  {}", log[last..].join("\n  "));
            eprintln!(
                "replay with WATERSHED_SIM_SEED={seed} WATERSHED_SIM_STEPS={} or without steps",
                list.join(",")
            );
            match again {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(_) => panic!("seed {seed} failed once and not again"),
            }
        }
    }
}

/// Leaves out steps, ever fewer at a time, as long as the seed still fails.
fn shrink(seed: u64, mut steps: BTreeSet<usize>) -> BTreeSet<usize> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut size = STEPS / 2;
    while size > 0 {
        for chunk in (0..STEPS).step_by(size) {
            let fewer: BTreeSet<_> = steps
                .iter()
                .copied()
                .filter(|step| !(chunk..chunk + size).contains(step))
                .collect();
            let is_smaller = fewer.len() < steps.len();
            let attempt = || Run::new(seed, fewer.clone(), false).go();
            if is_smaller && catch_unwind(AssertUnwindSafe(attempt)).is_err() {
                steps = fewer;
            }
        }
        size /= 2;
    }
    std::panic::set_hook(hook);
    steps
}
