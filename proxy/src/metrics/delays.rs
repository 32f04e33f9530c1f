//! A histogram that many threads feed with every event they deliver.
//!
//! Owns: buckets of which each thread has its own. The library's histogram is one lock that all
//! threads take turns to write; here a delay costs its thread two additions that nobody disputes.
//! Refuses: labels and quantiles.
//! Invariant: what was observed before a scrape began is in it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// From one event on an idle core to a watcher that is far behind.
const BOUNDS: [Duration; 14] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

/// Shards; with more threads than that some share one.
const SHARDS: usize = 16;

/// How long deliveries took. Clones are the same histogram.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delays(Arc<[Shard; SHARDS]>);

/// One thread's share, in cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// How many were up to each bound and above the one before; the last were above all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Nanoseconds.
    sum: AtomicU64,
}

impl Delays {
    /// Counts one delay.
    pub(crate) fn observe(&self, delay: Duration) {
        let shard = &self.0[own_shard()];
        let bucket = BOUNDS.partition_point(|bound| *bound < delay);
        let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        shard.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        shard.sum.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

fn own_shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    OWN.with(|own| *own)
}

impl EncodeMetric for Delays {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let total = |of: &dyn Fn(&Shard) -> &AtomicU64| -> u64 {
            let shards = self.0.iter();
            shards.map(|it| of(it).load(Ordering::Relaxed)).sum()
        };
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64);
        let buckets: Vec<_> = bounds
            .chain([f64::INFINITY])
            .enumerate()
            .map(|(place, bound)| (bound, total(&|it| &it.buckets[place])))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(total(&|it| &it.sum)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, exposition};

    #[test]
    fn delays_of_all_threads_are_counted_in_the_bucket_they_fit() {
        let (metrics, registry) = Metrics::new();
        let delays = [400, 500, 501, 90_000_000].map(Duration::from_micros);
        std::thread::scope(|scope| {
            for delay in delays {
                let of_thread = metrics.watch_delivery_seconds.clone();
                scope.spawn(move || of_thread.observe(delay));
            }
        });
        let text = exposition(&registry);
        for line in [
            "sum 90.001401",
            "count 4",
            r#"bucket{le="0.0005"} 2"#,
            r#"bucket{le="0.001"} 3"#,
            r#"bucket{le="60.0"} 3"#,
            r#"bucket{le="+Inf"} 4"#,
        ] {
            let line = format!("watershed_watch_delivery_seconds_{line}");
            assert!(
                text.lines().any(|it| it == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
