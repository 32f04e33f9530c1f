//! How many renewals may share a write, by the arithmetic of the node lifecycle controller.
//!
//! Owns the formula, written down here once more on purpose: a mistake in the proxy's own must not
//! excuse itself. Refuses to know what a proxy is configured to do.

use std::time::Duration;

use super::arguments::HeartbeatArguments;

/// Of the time between two renewals.
const JITTER: f64 = 1.04;
/// How long a kubelet takes to notice a replica that fell silent: HTTP/2's ping after 30 s, and 15 s
/// for its answer.
const UNNOTICED: f64 = 45.0;

/// What bounds absorption.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) grace: Duration,
    pub(super) spread: Duration,
    pub(super) losses: u32,
    pub(super) peers: bool,
    pub(super) is_baseline: bool,
    /// Between two renewals, at most.
    pub(super) interval: Duration,
}

impl Bounds {
    pub(super) fn new(arguments: &HeartbeatArguments, lease_seconds: u32) -> Self {
        Self {
            grace: arguments.grace.0,
            spread: arguments.latency_spread.0,
            losses: arguments.tolerated_losses,
            peers: arguments.peers,
            is_baseline: arguments.baseline,
            interval: Duration::from_secs(lease_seconds.into()).mul_f64(JITTER / 4.0),
        }
    }

    /// Renewals per write.
    pub(super) fn renewals_per_write(&self) -> u32 {
        if self.is_baseline {
            return 1;
        }
        let left = self.grace.as_secs_f64() - self.spread.as_secs_f64();
        let fitting = |left: f64| (left / self.interval.as_secs_f64()).floor().max(0.0) as u32;
        let lossy = fitting(left).saturating_sub(self.losses);
        let silent = match self.peers {
            true => lossy,
            false => fitting(left - UNNOTICED),
        };
        lossy.min(silent).max(1)
    }

    /// The longest time between two writes of a node that loses nothing.
    pub(super) fn flush(&self) -> Duration {
        self.interval * self.renewals_per_write()
    }

    /// The longest cut after which nobody is lost, if the first renewal after it arrives at once:
    /// what was absorbed before it counts as silence too.
    pub(super) fn cut(&self) -> Duration {
        self.grace.saturating_sub(self.flush() + self.spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(grace: u64, losses: u32, peers: bool) -> Bounds {
        Bounds {
            grace: Duration::from_secs(grace),
            spread: Duration::from_secs(3),
            losses,
            peers,
            is_baseline: false,
            interval: Duration::from_millis(10_400),
        }
    }

    #[test]
    fn as_many_renewals_share_a_write_as_the_grace_period_allows() {
        for (grace, two_lost, one_lost) in [
            (40, 1, 2),
            (50, 2, 3),
            (80, 5, 6),
            (90, 6, 7),
            (120, 9, 10),
            (180, 15, 16),
            (300, 26, 27),
            (600, 55, 56),
        ] {
            let of = |losses| bounds(grace, losses, true).renewals_per_write();
            assert_eq!((of(2), of(1)), (two_lost, one_lost), "{grace}");
        }
    }

    #[test]
    fn without_peers_a_silent_replica_is_reckoned_with() {
        for (grace, expected) in [(50, 1), (69, 2), (90, 4), (300, 24)] {
            let own = bounds(grace, 2, false).renewals_per_write();
            assert_eq!(own, expected, "{grace}");
        }
    }

    #[test]
    fn a_cut_of_half_a_minute_needs_more_grace_than_the_default() {
        assert!(bounds(50, 2, true).cut() < Duration::from_secs(30));
        assert!(bounds(60, 3, true).cut() > Duration::from_secs(30));
        assert!(bounds(90, 2, false).cut() > Duration::from_secs(30));
    }
}
