//! Every fuzz target over its corpus and over seeded mutations of it: the same functions that
//! libFuzzer runs, for a second or two, on stable, and the same every time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use watershed_oracle::{TARGETS, Target};

/// Mutations of each target, unless `WATERSHED_FUZZ_RUNS` says another number.
const RUNS: usize = 3_000;
/// Bytes a mutation may grow to.
const LONGEST: usize = 4_096;

#[test]
fn every_target_holds_over_its_corpus_and_mutations() {
    let runs = std::env::var("WATERSHED_FUZZ_RUNS");
    let runs = runs.map_or(RUNS, |runs| runs.parse().expect("a number of runs"));
    let failures: Vec<String> = TARGETS
        .into_iter()
        .filter_map(|target| {
            let seeds = corpus(target);
            let mut random = fastrand::Rng::with_seed(20_261_121);
            let mutations = (0..runs).map(|_| mutated(&seeds, &mut random));
            let failing =
                seeds.iter().cloned().chain(mutations).find(|input| {
                    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err()
                })?;
            Some(format!(
                "{} fails on {}",
                target.name,
                failing.escape_ascii()
            ))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Cargo runs tests in the folder of their package.
fn corpus(target: Target) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new("corpus").join(target.name);
    let files = std::fs::read_dir(&folder).expect("every target has a corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no corpus", target.name);
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a file of the corpus"))
        .collect()
}

fn mutated(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=input.len());
        match random.u8(..6) {
            0 if at < input.len() => input[at] = random.u8(..),
            1 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            2 if at < input.len() => drop(input.remove(at)),
            3 => input.insert(at, random.u8(..)),
            // A piece of some seed, in the middle of this one.
            4 => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                let to = (from + random.usize(..24)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => input.truncate(at),
        }
    }
    input.truncate(LONGEST);
    input
}
