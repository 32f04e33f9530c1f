//! The writer: beats at a rate, each object's one after the other.
//!
//! Owns the sequence of every object it writes to. Refuses to write to an object whose last write
//! is not acknowledged: the rate falls instead, and is told.
//! Invariant: after [`Writer::run`] the server has acknowledged exactly the sequences that
//! [`Writer::positions`] tells, or the log has an error.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::kubelet::client::{Call, CallError, Client};
use crate::kubelet::stats::Log;
use crate::measure::Latency;
use crate::watchers::{BEAT, Beat, now};

pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// Writes in flight at one time.
const IN_FLIGHT_MAX: usize = 64;
/// A write is late when it is sent so long after its time.
const LATE: Duration = Duration::from_millis(50);

/// One object that is written to.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: u32,
    pub(super) path: String,
    sequence: u64,
    is_busy: bool,
}

impl Lane {
    pub(super) fn new(id: u32, path: String) -> Self {
        Self {
            id,
            path,
            sequence: 0,
            is_busy: false,
        }
    }
}

/// A merge patch of annotations.
pub(super) fn patch(path: &str, annotations: &Value) -> Call {
    let patch = json!({"metadata": {"annotations": annotations}}).to_string();
    Call::write(Method::PATCH, path, "application/merge-patch+json", patch)
}

/// Writes beats.
pub(super) struct Writer {
    client: Client,
    lanes: Vec<Lane>,
    next: usize,
    /// Writes acknowledged.
    pub(super) writes: u64,
    /// Writes that were sent late: the server, or this machine, was busy.
    pub(super) late: u64,
    /// From sending a write to its acknowledgement.
    pub(super) latency: Latency,
    /// Writes that were refused.
    pub(super) errors: Log,
}

impl Writer {
    pub(super) fn new(client: &Client, lanes: Vec<Lane>) -> Self {
        Self {
            client: client.clone(),
            lanes,
            next: 0,
            writes: 0,
            late: 0,
            latency: Latency::default(),
            errors: Log::default(),
        }
    }

    /// Where every lane is.
    pub(super) fn positions(&self) -> Vec<(u32, u64)> {
        let lanes = self.lanes.iter();
        lanes.map(|lane| (lane.id, lane.sequence)).collect()
    }

    /// Writes so many times per second until `stop`, then waits for the writes in flight.
    pub(super) async fn run(&mut self, rate: f64, stop: &CancellationToken) {
        let period = Duration::from_secs_f64(1.0 / rate.max(0.001));
        let mut pace = interval(period);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut in_flight = FuturesUnordered::new();
        let in_flight_max = IN_FLIGHT_MAX.min(self.lanes.len());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = in_flight.next() => self.finish(done),
                due = pace.tick(), if in_flight.len() < in_flight_max => {
                    self.late += u64::from(due.elapsed() > LATE);
                    if let Some((at, call)) = self.begin() {
                        in_flight.push(send(self.client.clone(), at, call));
                    }
                }
            }
        }
        while let Some(done) = in_flight.next().await {
            self.finish(done);
        }
    }

    /// The next lane that is not being written to, and its next beat.
    fn begin(&mut self) -> Option<(usize, Call)> {
        let count = self.lanes.len();
        let mut all = (0..count).map(|step| (self.next + step) % count);
        let at = all.find(|at| !self.lanes[*at].is_busy)?;
        self.next = at + 1;
        let lane = &mut self.lanes[at];
        lane.is_busy = true;
        lane.sequence += 1;
        let beat = Beat {
            lane: lane.id,
            sequence: lane.sequence,
            sent: now(),
        };
        Some((at, patch(&lane.path, &json!({BEAT: beat.to_string()}))))
    }

    fn finish(&mut self, done: Done) {
        let lane = &mut self.lanes[done.at];
        lane.is_busy = false;
        match done.answer {
            Ok(code) if code.is_success() => {
                self.writes += 1;
                self.latency.record(done.elapsed);
            }
            Ok(code) => self.errors.add(format!("write {}: {code}", lane.path)),
            Err(error) => self.errors.add(format!("write {}: {error}", lane.path)),
        }
    }
}

struct Done {
    at: usize,
    answer: Result<http::StatusCode, CallError>,
    elapsed: Duration,
}

async fn send(client: Client, at: usize, call: Call) -> Done {
    let started = Instant::now();
    let answer = client.call(&call, TIMEOUT).await;
    Done {
        at,
        answer: answer.map(|answer| answer.status),
        elapsed: started.elapsed(),
    }
}
