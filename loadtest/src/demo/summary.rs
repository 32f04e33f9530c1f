//! The end of the demo: what was held, and what it would have been without the tier.
//!
//! Owns the derived figures and their sources. Refuses to present them as measured.
//! Invariant: every derived figure names the measured one it comes from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::tally::{Row, Tally};
use crate::kubelet::fleet::Fleet;
use crate::measure::verdict::{Verdict, watches_by_resource};
use crate::scenario::{Outcome, Plot, Series, Unit};

/// Memory that kube-apiserver 1.36 holds for a kubelet-like connection with 8 idle watches.
const APISERVER_PER_CONNECTION: f64 = 495.0 * 1024.0;
/// CPU that kube-apiserver 1.36 takes to deliver one event of 1 KB to one watcher, microseconds.
const APISERVER_PER_EVENT: f64 = 35.0;

pub(super) fn outcome(tally: &Tally, fleet: &Fleet, verdict: Verdict, start: Duration) -> Outcome {
    let kubelets = fleet.kubelets().len();
    let settings = vec![
        ("target".to_owned(), tally.target.url.clone()),
        ("kubelets".to_owned(), kubelets.to_string()),
        ("churn".to_owned(), format!("{:.0} s", tally.seconds)),
    ];
    let mut outcome = Outcome::new("demo", settings);
    outcome.verdict = verdict;
    measured(&mut outcome, tally, fleet, start);
    without_tier(&mut outcome, tally, fleet);
    outcome.plots.extend(plots(&tally.rows));
    outcome
}

fn measured(outcome: &mut Outcome, tally: &Tally, fleet: &Fleet, start: Duration) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let stats = &tally.stats;
    outcome.add(
        "start until all watches were open",
        start.as_secs_f64(),
        Unit::Seconds,
    );
    outcome.add("client watches", read(&stats.watches), Unit::Count);
    for (resource, count) in watches_by_resource(fleet.kubelets()) {
        outcome.add(&format!("  of {resource}"), count as f64, Unit::Count);
    }
    if let Some(row) = tally.rows.last() {
        if let Some(watches) = row.upstream_watches {
            outcome.add("upstream watches", watches as f64, Unit::Count);
        }
        if let Some(caches) = row.caches {
            outcome.add("caches of the proxy", caches, Unit::Bytes);
        }
        if let Some(resident) = row.resident {
            let name = "memory of the whole process";
            outcome.add(name, resident as f64, Unit::Bytes);
        }
    }
    outcome.add("writes", read(&tally.churn.writes), Unit::Count);
    outcome.add("events delivered", read(&stats.events), Unit::Count);
    outcome.set_latency(stats.latency.summary());
    outcome.add("lease renewals", read(&stats.renewals), Unit::Count);
    outcome.add("pods started", read(&stats.pods_started), Unit::Count);
    outcome.add("watches resumed", read(&stats.resumes), Unit::Count);
    outcome.add("relists", read(&stats.relists), Unit::Count);
}

fn without_tier(outcome: &mut Outcome, tally: &Tally, fleet: &Fleet) {
    let kubelets = fleet.kubelets().len() as f64;
    let watches = tally.stats.watches.load(Ordering::Relaxed) as f64;
    let events = tally.stats.events.load(Ordering::Relaxed) as f64;
    outcome.derive(
        "without the tier: watches on the apiserver",
        watches,
        Unit::Count,
        "every client watch would be its own",
    );
    outcome.derive(
        "without the tier: memory for them",
        kubelets * APISERVER_PER_CONNECTION,
        Unit::Bytes,
        "495 KiB per connection with 8 watches (62 KiB a watch), kube-apiserver 1.36",
    );
    if tally.seconds > 0.0 {
        outcome.derive(
            "without the tier: cores to deliver the events",
            events * APISERVER_PER_EVENT / 1e6 / tally.seconds,
            Unit::Ratio,
            "35 µs of CPU per delivered event, kube-apiserver 1.36",
        );
    }
}

fn plots(rows: &[Row]) -> Vec<Plot> {
    let series = |name: &str, value: fn(&Row) -> f64| Series {
        name: name.to_owned(),
        points: rows
            .iter()
            .enumerate()
            .map(|(at, row)| (at as f64 + 1.0, value(row)))
            .collect(),
    };
    let plot = |title: &str, y: &str, series: Vec<Series>| Plot {
        title: title.to_owned(),
        x: "time (s)".to_owned(),
        y: y.to_owned(),
        log_x: false,
        series,
    };
    vec![
        plot(
            "Events",
            "per second",
            vec![
                series("in (writes)", |row| row.writes),
                series("out (to kubelets)", |row| row.events),
            ],
        ),
        plot(
            "Latency, write to event",
            "ms",
            vec![
                series("p50", |row| row.latency.p50 as f64 / 1000.0),
                series("p99", |row| row.latency.p99 as f64 / 1000.0),
            ],
        ),
        plot(
            "Requests at the apiserver",
            "per second",
            vec![
                series("reads", |row| row.reads.unwrap_or(0.0)),
                series("leases", |row| row.leases.unwrap_or(0.0)),
                series("others", |row| row.others.unwrap_or(0.0)),
            ],
        ),
    ]
}
