//! What the minutes of a run say: delays of detection, gaps, writes, and who is to blame.
//!
//! Owns every comparison of the heartbeats scenario. Refuses thresholds in absolute time: a bound is
//! what the control plane's own arithmetic gives, with the latency of the native half of this run.

use tokio::time::Instant;

use super::bounds::Bounds;
use crate::heartbeats::{Controller, Journal, Kubelets, Life};
use crate::scenario::outcome::{Plot, Series, Unit};
use crate::scenario::run::Run;

/// Writes may be so far from the formula: those that came as a retry.
const TOLERANCE: f64 = 0.02;
/// A replica that wrote nothing for so long writes the next renewal, to know that writes arrive;
/// and a second one that comes while the first is under way. Where few nodes renew, this is much.
const PROOF: f64 = 5.0;
const PER_PROOF: f64 = 2.0;
/// What clocks that are read one after the other may be apart.
const SLACK: f64 = 0.1;

/// Kubelets that go the same way.
pub(super) struct Half {
    pub(super) name: &'static str,
    pub(super) kubelets: Kubelets,
}

/// What was found of one half; times in seconds, in order.
#[derive(Debug, Default)]
struct Found {
    delays: Vec<f64>,
    gaps: Vec<f64>,
    latencies: Vec<f64>,
    renewals: u64,
    writes: u64,
    dead: usize,
    missed: usize,
    buried_alive: u64,
}

impl Found {
    fn of(half: &Half, journal: &Journal, start: Instant) -> Self {
        let mut found = Self::default();
        let names = half.kubelets.names();
        journal
            .lives(names, |life| found.add(life, start))
            .for_each(drop);
        for times in [&mut found.delays, &mut found.gaps, &mut found.latencies] {
            times.sort_by(f64::total_cmp);
        }
        found
    }

    fn add(&mut self, life: &Life, start: Instant) {
        let (renewals, writes) = life.coalesced(start);
        self.renewals += renewals;
        self.writes += writes;
        self.buried_alive += life.buried_alive;
        let gap = life.longest_gap(start).map(|gap| gap.as_secs_f64());
        self.gaps.extend(gap);
        let late = life.since(start).map(|arrival| arrival.delay.as_secs_f64());
        self.latencies.extend(late);
        if let Some(died) = life.died {
            self.dead += 1;
            match life.found {
                Some(found) => self.delays.push((found - died).as_secs_f64()),
                None => self.missed += 1,
            }
        }
    }
}

/// Judges a run that is over, and tells what was measured.
pub(super) fn judge(
    run: &mut Run,
    halves: &[Half],
    journal: &Journal,
    controller: &Controller,
    (bounds, start): (&Bounds, Instant),
) {
    let found: Vec<_> = halves
        .iter()
        .map(|half| (half.name, Found::of(half, journal, start)))
        .collect();
    let (native, target) = (&found[found.len() - 1].1, &found[0].1);
    let latency = native.latencies.last().copied().unwrap_or_default();
    let period = controller.longest_period().as_secs_f64();
    let latest = latency + bounds.grace.as_secs_f64() + 2.0 * period;
    for (name, own) in &found {
        tell(run, name, own);
    }
    let from = "latency of native writes + grace period + two passes of the controller, all as \
                measured in this run";
    run.outcome.derive(
        "native worst case of detection",
        latest,
        Unit::Seconds,
        from,
    );
    for (name, own) in &found {
        deaths(run, name, own, (bounds, latest));
    }
    ratio(run, target, (bounds, start));
    for (log, what) in [(&journal.findings, ""), (&journal.errors, "answer: ")] {
        let is_fault = what.is_empty() || !is_faulty(run);
        if !what.is_empty() {
            let count = log.count() as f64;
            run.outcome.add("unexpected answers", count, Unit::Count);
        }
        for line in log.lines().into_iter().filter(|_| is_fault) {
            run.outcome.verdict.fail(format!("{what}{line}"));
        }
    }
    run.outcome.plots.push(delays(&found));
    run.outcome.plots.push(gaps(&found));
}

/// Whether anything was done to the target that changes how much it writes.
fn is_faulty(run: &Run) -> bool {
    let own = &run.arguments.heartbeats;
    own.lose.is_some() || own.cut.is_some() || !own.kill.is_empty()
}

fn tell(run: &mut Run, name: &str, own: &Found) {
    let outcome = &mut run.outcome;
    let mut add =
        |what: &str, value: f64, unit| outcome.add(&format!("{what}, {name}"), value, unit);
    add("deaths", own.dead as f64, Unit::Count);
    for (what, quantile) in [("least", 0.0), ("p50", 0.5), ("p90", 0.9), ("latest", 1.0)] {
        if let Some(value) = at(&own.delays, quantile) {
            add(&format!("death found after, {what}"), value, Unit::Seconds);
        }
    }
    add(
        "live nodes taken for lost",
        own.buried_alive as f64,
        Unit::Count,
    );
    for (what, quantile) in [("p50", 0.5), ("longest", 1.0)] {
        if let Some(value) = at(&own.gaps, quantile) {
            let what = format!("longest gap between two writes of a node, {what}");
            add(&what, value, Unit::Seconds);
        }
    }
    for (what, quantile) in [("p50", 0.5), ("longest", 1.0)] {
        if let Some(value) = at(&own.latencies, quantile) {
            let what = format!("renewal to the controller's cache, {what}");
            add(&what, value * 1e6, Unit::Micros);
        }
    }
}

/// Everybody who died was found, in time; nobody else.
fn deaths(run: &mut Run, name: &str, own: &Found, (bounds, latest): (&Bounds, f64)) {
    let is_native = name == "natively";
    let is_faulty = is_faulty(run);
    let verdict = &mut run.outcome.verdict;
    if own.buried_alive > 0 {
        let count = own.buried_alive;
        let whose = if is_native {
            "; this machine is too busy to judge"
        } else {
            ""
        };
        verdict.fail(format!(
            "{count} live nodes were taken for lost {name}{whose}"
        ));
    }
    if own.missed > 0 {
        verdict.fail(format!("{} dead nodes were not found {name}", own.missed));
    }
    let late = own
        .delays
        .iter()
        .filter(|delay| **delay > latest + SLACK)
        .count();
    if late > 0 {
        verdict.fail(format!(
            "{late} deaths were found {name} later than {latest:.1} s, the native worst case"
        ));
    }
    let flush = if is_native {
        bounds.interval
    } else {
        bounds.flush()
    };
    let soonest = (bounds.grace.saturating_sub(flush)).as_secs_f64() - SLACK;
    let soon = own.delays.iter().filter(|delay| **delay < soonest).count();
    if soon > 0 && !is_faulty {
        verdict.fail(format!(
            "{soon} deaths were found {name} sooner than {soonest:.1} s: less was written than \
             the formula says"
        ));
    }
}

/// Renewals per write against the formula.
fn ratio(run: &mut Run, target: &Found, (bounds, start): (&Bounds, Instant)) {
    if target.writes == 0 {
        run.outcome
            .verdict
            .fail("no node was written twice; the run is too short".to_owned());
        return;
    }
    let measured = target.renewals as f64 / target.writes as f64;
    let expected = f64::from(bounds.renewals_per_write());
    let from = "of each node, renewals sent from its first write to its last, over the writes";
    let outcome = &mut run.outcome;
    outcome.derive("renewals per write", measured, Unit::Ratio, from);
    let from = "the smaller of ((grace period - spread) / longest interval - losses tolerated) and, \
                without peers, (grace period - spread - 45 s) / longest interval; rounded down";
    outcome.derive(
        "renewals per write by the formula",
        expected,
        Unit::Ratio,
        from,
    );
    outcome.add("writes compared", target.writes as f64, Unit::Count);
    let cut = bounds.cut().as_secs_f64();
    let from = "grace period - flush period - spread: what a cut of the upstream may last";
    outcome.derive("cut that nobody is lost in", cut, Unit::Seconds, from);
    let (writes, by_formula) = (target.writes as f64, target.renewals as f64 / expected);
    let surplus = writes - by_formula;
    let replicas = run.target.url.split(',').count() as f64;
    let proofs = match bounds.renewals_per_write() {
        1 => 0.0,
        _ => PER_PROOF * replicas * start.elapsed().as_secs_f64() / PROOF,
    };
    let from = format!(
        "up to {proofs:.0} of them prove that writes arrive, where a replica wrote nothing for 5 s"
    );
    let outcome = &mut run.outcome;
    outcome.derive("writes beyond the formula", surplus, Unit::Count, &from);
    let allowed = -TOLERANCE * writes..=TOLERANCE * writes + proofs;
    if !allowed.contains(&surplus) && !is_faulty(run) {
        run.outcome.verdict.fail(format!(
            "{measured:.2} renewals per write, where the formula says {expected}: {surplus:.0} \
             writes too many"
        ));
    }
}

/// The value at a quantile of what is in order.
fn at(times: &[f64], quantile: f64) -> Option<f64> {
    let last = times.len().checked_sub(1)?;
    times
        .get((last as f64 * quantile).round() as usize)
        .copied()
}

/// A distribution as steps: how many of all are at most so large, percent.
fn steps(name: &str, times: &[f64]) -> Series {
    let mut points = Vec::with_capacity(times.len() * 2);
    for (index, time) in times.iter().enumerate() {
        let share = |count: usize| count as f64 * 100.0 / times.len() as f64;
        points.push((*time, share(index)));
        points.push((*time, share(index + 1)));
    }
    Series {
        name: name.to_owned(),
        points,
    }
}

fn delays(found: &[(&str, Found)]) -> Plot {
    let series = found.iter().map(|(name, own)| steps(name, &own.delays));
    Plot {
        title: "From death to detection".into(),
        x: "time since the death (s)".into(),
        y: "deaths found (%)".into(),
        log_x: false,
        series: series.collect(),
    }
}

fn gaps(found: &[(&str, Found)]) -> Plot {
    let series = found.iter().map(|(name, own)| steps(name, &own.gaps));
    Plot {
        title: "Longest gap between two writes of a node".into(),
        x: "gap (s)".into(),
        y: "nodes (%)".into(),
        log_x: false,
        series: series.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let times = [1.0, 2.0, 3.0];
        let all = [0.0, 0.5, 1.0].map(|quantile| at(&times, quantile));
        assert_eq!(all, [Some(1.0), Some(2.0), Some(3.0)]);
        assert_eq!(at(&[], 0.5), None);
    }

    #[test]
    fn a_distribution_begins_at_nothing_and_ends_at_all() {
        let points = steps("n", &[2.0, 5.0]).points;
        assert_eq!(points, [(2.0, 0.0), (2.0, 50.0), (5.0, 50.0), (5.0, 100.0)]);
    }
}
