//! Measuring: latencies, processes, the proxy's metrics, the floor, and the verdict.
//!
//! Owns how each number is taken. Refuses targets and thresholds: absolute times differ from
//! machine to machine, so a scenario compares with the floor measured in the same run.
//! Invariant: recording a latency neither waits for other kubelets nor allocates.

pub mod floor;
pub mod process;
pub mod prometheus;
pub mod verdict;

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Histograms that a latency is spread over; a thread keeps to one.
const SHARDS: usize = 16;
/// Longest latency told apart: 10 minutes, in microseconds.
const LONGEST: u64 = 600_000_000;
/// Quantiles of the curve in a report.
const CURVE: [f64; 16] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0,
];

/// Microseconds on the clock of this process; what the annotation of a write carries.
#[must_use]
pub fn micros() -> u64 {
    // An u64 of microseconds lasts for longer than any process.
    ORIGIN.elapsed().as_micros() as u64 + 1
}

/// Latencies from many threads.
#[derive(Debug)]
pub struct Latency {
    /// What was recorded since the last interval ended.
    shards: [Mutex<Histogram<u64>>; SHARDS],
    /// What was recorded in the intervals before.
    past: Mutex<Histogram<u64>>,
}

impl Default for Latency {
    fn default() -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(histogram()));
        Self {
            shards,
            past: Mutex::new(histogram()),
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 2).expect("the bounds are valid")
}

impl Latency {
    /// Adds a latency.
    pub fn record(&self, latency: Duration) {
        self.record_micros(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds a latency in microseconds; one beyond ten minutes counts as ten minutes.
    pub fn record_micros(&self, latency: u64) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        self.shards[SHARD.get()].lock().saturating_record(latency);
    }

    /// What was recorded since the last interval ended; ends this one.
    #[must_use]
    pub fn take_interval(&self) -> LatencySummary {
        let interval = self.drain();
        self.past
            .lock()
            .add(&interval)
            .expect("all shards have the same bounds");
        LatencySummary::of(&interval)
    }

    /// Everything recorded so far, and forgets it.
    #[must_use]
    pub fn take(&self) -> LatencySummary {
        let mut sum = self.drain();
        let mut past = self.past.lock();
        sum.add(&*past).expect("all shards have the same bounds");
        past.reset();
        LatencySummary::of(&sum)
    }

    /// Everything recorded so far.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        let _ = self.take_interval();
        LatencySummary::of(&self.past.lock())
    }

    /// What was recorded since the last time, as (microseconds, how many); forgets it.
    #[must_use]
    pub fn take_counts(&self) -> Vec<(u64, u64)> {
        let interval = self.drain();
        let recorded = interval.iter_recorded();
        recorded
            .map(|own| (own.value_iterated_to(), own.count_since_last_iteration()))
            .collect()
    }

    fn drain(&self) -> Histogram<u64> {
        let mut sum = histogram();
        for shard in &self.shards {
            let mut shard = shard.lock();
            sum.add(&*shard).expect("all shards have the same bounds");
            shard.reset();
        }
        sum
    }
}

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Values.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// (latency, share of values up to it): the distribution as a curve.
    pub curve: Vec<(u64, f64)>,
}

impl LatencySummary {
    /// The percentiles of (microseconds, how many).
    #[must_use]
    pub fn of_counts(counts: &[(u64, u64)]) -> Self {
        let mut sum = histogram();
        for (latency, count) in counts {
            sum.saturating_record_n(*latency, *count);
        }
        Self::of(&sum)
    }

    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let curve = if histogram.is_empty() {
            &[][..]
        } else {
            &CURVE[..]
        };
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            curve: curve
                .iter()
                .map(|quantile| (at(*quantile), *quantile))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_threads_together() {
        let latency = Latency::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let latency = &latency;
                scope.spawn(move || (1..=25).for_each(|i| latency.record_micros(thread * 25 + i)));
            }
        });
        assert_eq!(latency.take_interval().count, 100);
        assert_eq!(latency.take_interval().count, 0);
        let summary = latency.take();
        assert_eq!(
            (summary.count, summary.p50, summary.p99, summary.max),
            (100, 50, 99, 100)
        );
        assert_eq!(latency.take(), LatencySummary::default());
    }
}
