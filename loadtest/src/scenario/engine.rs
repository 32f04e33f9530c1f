//! Watchers and a writer against the target: what the scenarios of the watch path have in common.
//!
//! Owns the windows of load, what they cost, and the judgement of all that watchers were sent.
//! Refuses to choose figures: those are each scenario's.
//! Invariant: a run in which anything was lost, doubled, reordered, ended or listed again fails.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::outcome::{Outcome, Plot, Series, Unit};
use super::population::Population;
use super::run::{ALL_CPU, Cost, Run};
use super::writer::{Lane, Writer};
use crate::measure::LatencySummary;
use crate::measure::process::Sample;
use crate::watchers::{Crew, CrewOptions, Histogram, Plan, Report};

/// Time for all watches to open; for thousands of handshakes on a busy machine.
const OPEN: Duration = Duration::from_secs(600);
/// Time for the last events to arrive.
const SETTLE: Duration = Duration::from_secs(60);
/// Time for the last events to reach those who read.
const QUIET: Duration = Duration::from_millis(500);
/// Bytes of an event.
pub(super) const EVENT_BYTES: usize = 1_024;

/// A run with watchers.
pub(super) struct Engine {
    pub(super) run: Run,
    pub(super) crew: Crew,
    pub(super) writer: Writer,
    started: Instant,
    delivered: Vec<(f64, f64)>,
}

/// What happened in a window.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    pub(super) cost: Cost,
    /// Length of the part in which was written; the cost includes the wait for the last event.
    pub(super) seconds: f64,
    pub(super) writes: u64,
    pub(super) events: u64,
    pub(super) bookmarks: u64,
    /// CPU of the loaders, seconds.
    pub(super) loaders: f64,
    /// Write to event where everybody watches.
    pub(super) shared: Histogram,
    /// Write to event where one watches.
    pub(super) single: Histogram,
}

/// Starts loaders; none has a connection yet.
pub(super) async fn crew(run: &Run, plan: Plan, connections: usize) -> Result<Crew> {
    let options = CrewOptions {
        url: run.target.url.clone(),
        plan,
        encoding: run.arguments.encoding,
        connections,
        loaders: run.arguments.loaders,
        handshakes: run.arguments.handshakes,
    };
    Crew::start(&options, &run.target.pki).await
}

/// Watchers of the first connections' objects at the apiserver itself, to tell the latency that the
/// target adds; none where there is no apiserver behind it.
pub(super) async fn control(run: &Run, connections: usize, watches: usize) -> Result<Option<Crew>> {
    let Some(url) = run.target.apiserver.clone() else {
        return Ok(None);
    };
    let options = CrewOptions {
        url,
        plan: Plan::Kubelet,
        encoding: run.arguments.encoding,
        connections,
        loaders: Some(1),
        handshakes: run.arguments.handshakes,
    };
    let mut crew = Crew::start(&options, &run.target.pki).await?;
    let wanted = (connections, watches);
    crew.grow(wanted, OPEN, &run.stop, |_| {}).await?;
    Ok(Some(crew))
}

/// Creates objects as the administrator.
pub(super) fn population(run: &Run) -> Population<'_> {
    Population {
        client: run.admin.client(),
        encoding: run.arguments.encoding,
        event_bytes: EVENT_BYTES,
    }
}

impl Engine {
    pub(super) async fn new(
        mut run: Run,
        plan: Plan,
        connections: usize,
        lanes: Vec<Lane>,
    ) -> Result<Self> {
        let crew = crew(&run, plan, connections).await?;
        run.note("connections", connections);
        run.note("encoding", format!("{:?}", run.arguments.encoding));
        run.note("loader processes", crew.loaders());
        Ok(Self {
            writer: Writer::new(run.admin.client(), lanes),
            run,
            crew,
            started: Instant::now(),
            delivered: Vec::new(),
        })
    }

    /// Opens connections and watches until there are so many; how long it took.
    pub(super) async fn grow(&mut self, connections: usize, watches: usize) -> Result<Duration> {
        let started = Instant::now();
        let mut progress = Progress::new("watches open", connections * watches);
        let (wanted, stop) = ((connections, watches), self.run.stop.clone());
        let at = |open| progress.at(open as usize);
        self.crew.grow(wanted, OPEN, &stop, at).await?;
        progress.done();
        Ok(started.elapsed())
    }

    /// Lets the writer write for a while, waits for the last event, and measures.
    pub(super) async fn load(&mut self, rate: f64, duration: Duration) -> Result<Window> {
        let before = self.crew.take().await?;
        let (writes, mark) = (self.writer.writes, self.run.mark());
        let halt = self.run.stop.child_token();
        let (writer, crew) = (&mut self.writer, &mut self.crew);
        let watching = watch(crew, duration, &halt, before.events);
        let ((), delivered) = tokio::join!(writer.run(rate, &halt), watching);
        let begin = mark.at().duration_since(self.started).as_secs_f64();
        let delivered = delivered?.into_iter().map(|(at, rate)| (begin + at, rate));
        self.delivered.extend(delivered);
        let seconds = mark.at().elapsed().as_secs_f64();
        let wrote = self.writer.writes - writes;
        self.catch_up().await?;
        let cost = self.run.since(&mark);
        let after = self.crew.take().await?;
        Ok(Window {
            cost,
            seconds,
            writes: wrote,
            events: after.events - before.events,
            bookmarks: after.bookmarks - before.bookmarks,
            loaders: after.cpu - before.cpu,
            shared: after.shared,
            single: after.single,
        })
    }

    /// Waits until every watch has seen every write; what is still missing then is lost.
    pub(super) async fn catch_up(&mut self) -> Result<()> {
        let behind = self.crew.catch_up(self.writer.positions(), SETTLE).await?;
        let verdict = &mut self.run.outcome.verdict;
        if behind > 0 {
            verdict.fail(format!("{behind} events did not come within {SETTLE:?}"));
            verdict.lost += behind;
        }
        Ok(())
    }

    /// Lets the writer write while some connections stand still: the latencies of the others, and
    /// the process at the end. Nobody waits for those who do not read.
    pub(super) async fn load_stalled(
        &mut self,
        rate: f64,
        duration: Duration,
    ) -> Result<(Histogram, Option<Sample>)> {
        let events = self.crew.take().await?.events;
        let halt = self.run.stop.child_token();
        let (writer, crew) = (&mut self.writer, &mut self.crew);
        let watching = watch(crew, duration, &halt, events);
        let ((), watched) = tokio::join!(writer.run(rate, &halt), watching);
        watched?;
        sleep(QUIET).await; // the last events of the others
        let memory = self.run.sample();
        Ok((self.crew.take().await?.shared, memory))
    }

    /// Resident memory of the target, bytes.
    pub(super) fn memory(&self) -> Option<f64> {
        self.run.sample().map(|sample| sample.resident as f64)
    }

    /// Adds the memory that connections brought, from a sample before them.
    pub(super) fn add_memory(&mut self, before: Option<Sample>, connections: usize) {
        let (Some(before), Some(after)) = (before, self.memory()) else {
            return;
        };
        let grown = (after - before.resident as f64) / connections.max(1) as f64;
        let outcome = &mut self.run.outcome;
        outcome.add("resident memory", after, Unit::Bytes);
        let from = "growth since before the first, caches that it opened included; see `idle`";
        outcome.derive("memory per connection", grown, Unit::Bytes, from);
    }

    /// What an idle target costs.
    pub(super) async fn rest(&mut self, duration: Duration) -> Cost {
        let mark = self.run.mark();
        let mut progress = Progress::new("seconds of rest", duration.as_secs() as usize);
        let mut pace = interval(Duration::from_secs(1));
        while mark.at().elapsed() < duration && !self.run.stop.is_cancelled() {
            pace.tick().await;
            progress.at(mark.at().elapsed().as_secs() as usize);
        }
        progress.done();
        self.run.since(&mark)
    }

    /// Adds rates of a window, and CPU per event; `part` tells it from others of the run.
    pub(super) fn add_window(&mut self, part: &str, window: &Window) {
        let outcome = &mut self.run.outcome;
        let (seconds, events) = (window.cost.seconds, window.events as f64);
        let writes = window.writes as f64 / window.seconds;
        outcome.add(&format!("writes, {part}"), writes, Unit::PerSecond);
        let name = format!("events delivered, {part}");
        outcome.add(&name, events / seconds, Unit::PerSecond);
        if window.events > 0 {
            let own = window.loaders * 1e6 / events;
            let name = format!("loaders: CPU per event, {part}");
            outcome.add(&name, own, Unit::Micros);
        }
        self.run.add_cost(part, &window.cost);
    }

    /// Judges, adds the floor and what watchers counted, and ends them.
    pub(super) async fn finish(mut self) -> Result<Outcome> {
        let report = self.crew.report().await?;
        self.judge(&report);
        drop(self.crew);
        self.run.add_floor().await?;
        let mut outcome = self.run.outcome;
        let count = |value: u64| value as f64;
        for (name, value) in [
            ("watches", report.watches),
            ("events", report.events),
            ("objects of initial lists", report.initial),
            ("bookmarks", report.bookmarks),
            ("watches resumed", report.resumes),
            ("relists", report.relists),
            ("streams ended by the server", report.ended),
            ("connections established", report.established),
            ("connections failed", report.failed),
            ("connections lost", report.lost_connections),
            ("writes behind their time", self.writer.late),
        ] {
            outcome.add(name, count(value), Unit::Count);
        }
        outcome.add_latency("write", &self.writer.latency.summary());
        outcome.plots.push(rates(self.delivered));
        outcome.plots.retain(|plot| !plot.series.is_empty()); // nothing was written
        Ok(outcome)
    }

    fn judge(&mut self, report: &Report) {
        let verdict = &mut self.run.outcome.verdict;
        verdict.lost += report.lost;
        verdict.doubled += report.doubled;
        verdict.reordered += report.reordered;
        verdict.errors += report.errors;
        verdict.compared += report.watches;
        verdict.findings.extend(report.findings.iter().cloned());
        for line in self.writer.errors.lines() {
            verdict.fail(line);
        }
        for (count, what) in [
            (report.ended, "streams were ended by the server"),
            (report.relists, "watches had to list again"),
            (report.lost_connections, "connections were lost"),
        ] {
            if count > 0 {
                verdict.fail(format!("{count} {what}"));
            }
        }
        verdict.conclude();
    }
}

/// Asks once a second how many events came, until the time is over; then halts the writer.
async fn watch(
    crew: &mut Crew,
    duration: Duration,
    halt: &CancellationToken,
    mut events: u64,
) -> Result<Vec<(f64, f64)>> {
    let _halt = halt.clone().drop_guard(); // however this ends, the writer does too
    let mut progress = Progress::new("seconds of load", duration.as_secs() as usize);
    let mut pace = interval(Duration::from_secs(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let (mut points, mut last) = (Vec::new(), 0.0);
    pace.tick().await;
    while started.elapsed() < duration && !halt.is_cancelled() {
        let rest = duration.saturating_sub(started.elapsed());
        tokio::select! {
            _ = pace.tick() => {}
            () = sleep(rest) => {}
            () = halt.cancelled() => {}
        }
        let report = crew.report().await?;
        let at = started.elapsed().as_secs_f64();
        if at - last > 0.2 {
            points.push((at, (report.events - events) as f64 / (at - last)));
        }
        (events, last) = (report.events, at);
        progress.at(at as usize);
    }
    progress.done();
    Ok(points)
}

/// CPU per event above what the same connections cost at rest.
pub(super) fn above_rest(window: &Window, rest: &Cost) -> Option<f64> {
    let idle = rest.cores()? * window.cost.seconds;
    let cpu = window.cost.cpu? - idle;
    (window.events > 0).then(|| cpu * 1e6 / window.events as f64)
}

/// CPU per event, over the floor; the name of the figure says of what.
pub(super) fn add_per_event(outcome: &mut Outcome, name: &str, value: f64, floor: f64) {
    let from = format!("{ALL_CPU} over delivered events");
    outcome.derive(name, value, Unit::Micros, &from);
    let name = format!("{name}, over the floor");
    outcome.derive(&name, value / floor, Unit::Ratio, &from);
}

/// A distribution of latencies for each of the given.
pub(super) fn distribution(title: &str, parts: &[(&str, &LatencySummary)]) -> Plot {
    let series = parts.iter().filter(|(_, latency)| latency.count > 0);
    let series = series.map(|(name, latency)| Series {
        name: (*name).to_owned(),
        points: latency
            .curve
            .iter()
            .map(|(micros, share)| (*micros as f64 / 1000.0, *share * 100.0))
            .collect(),
    });
    Plot {
        title: title.to_owned(),
        x: "latency (ms)".to_owned(),
        y: "events within it (%)".to_owned(),
        log_x: true,
        series: series.collect(),
    }
}

fn rates(delivered: Vec<(f64, f64)>) -> Plot {
    let series = Series {
        name: "events delivered".into(),
        points: delivered,
    };
    Plot {
        title: "Events delivered".into(),
        x: "time since the start (s)".into(),
        y: "per second".into(),
        log_x: false,
        series: [series]
            .into_iter()
            .filter(|own| own.points.len() > 1)
            .collect(),
    }
}
