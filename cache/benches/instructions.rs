//! Counts instructions with valgrind's callgrind, where it is installed.
//!
//! The bench starts itself again under valgrind, once for each case; only what runs inside
//! [`counted`] is collected. The counts of the run before lie in cargo's folder for such files.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::case::{Case, Input};

/// Says to a process which case it is to run under valgrind.
const WANTED: &str = "WATERSHED_BENCH_COUNTED";

/// Where the counts of the last run are kept, a case and its count on each line.
const LAST: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/instructions.txt");

/// The case this process was started for, if it is a counting one.
pub(crate) fn wanted() -> Option<String> {
    std::env::var(WANTED).ok()
}

/// Runs a case as [`report`] asked for.
pub(crate) fn count(cases: &[Case], name: &str) {
    let case = cases.iter().find(|case| case.name == name);
    let case = case.expect("the parent names one of the same cases");
    let mut steps = (case.prepare)();
    for _ in 0..3 {
        let input = (steps.input)();
        (steps.run)(input); // what is done once is not counted
    }
    let inputs = (0..case.runs).map(|_| (steps.input)()).collect();
    counted(&mut *steps.run, inputs);
}

/// The part valgrind looks at, by its name.
#[inline(never)]
fn counted(run: &mut dyn FnMut(Input), inputs: Vec<Input>) {
    for input in inputs {
        run(input);
    }
}

/// Prints a table of all cases the command line names.
#[expect(clippy::print_stdout, reason = "the result of a bench")]
pub(crate) fn report(cases: &[Case]) {
    if !is_installed() {
        println!("valgrind is not installed: instructions are not counted");
        return;
    }
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted = |case: &&Case| filter.as_ref().is_none_or(|part| case.name.contains(part));
    let mut counts = last();
    println!("{:<44} {:>14}", "instructions", "each");
    for case in cases.iter().filter(wanted) {
        let each = collect(case) / (case.runs as u64 * case.units);
        let change = counts.insert(case.name.clone(), each).map(|before| {
            let change = (each as f64 / before.max(1) as f64 - 1.0) * 100.0;
            format!("{change:+.1} %")
        });
        println!(
            "{:<44} {each:>14} {}",
            case.name,
            change.unwrap_or_default()
        );
    }
    let lines: String = counts
        .iter()
        .map(|(name, each)| format!("{name}\t{each}\n"))
        .collect();
    std::fs::write(LAST, lines).expect("cargo made the folder");
}

fn is_installed() -> bool {
    let version = Command::new("valgrind").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

fn last() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(Path::new(LAST)).unwrap_or_default();
    let line = |line: &str| {
        let (name, each) = line.split_once('\t')?;
        Some((name.to_owned(), each.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Instructions of all runs of a case.
fn collect(case: &Case) -> u64 {
    let this = std::env::current_exe().expect("a process knows its executable");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*instructions::counted")
        .arg(this)
        .env(WANTED, &case.name)
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("valgrind counted nothing for {}: {said}", case.name))
}
