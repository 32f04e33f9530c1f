//! How many renewals one write may stand for.
//!
//! Owns the arithmetic between the control plane's settings and the flush period. The node
//! lifecycle controller counts from the last renewal that reached the store, so what is absorbed is
//! taken from the margin for lost renewals, and never from the time of detection:
//!
//! ```text
//!  nodeMonitorGracePeriod ≥ (n + m) · interval + spread        n renewals a write, m may be lost
//!  and without peers      ≥ n · interval + 45 s + spread       a replica falls silent unnoticed
//! ```
//!
//! Refuses settings under which fewer than two renewals would share a write, with the arithmetic.
//! A node that renews more slowly than usual gets a smaller `n` by the same rule, down to one: then
//! every renewal of it is written.

use std::time::Duration;

/// A kubelet of default settings renews after 10 s and up to 4 % more.
pub(crate) const USUAL_INTERVAL: Duration = Duration::from_millis(10_400);
/// How long a kubelet takes to notice a peer that fell silent: HTTP/2 pings it after 30 s of
/// silence and waits 15 s.
const UNNOTICED: Duration = Duration::from_secs(45);
/// Less spread of write latencies than this is not believed.
const LEAST_SPREAD: Duration = Duration::from_secs(3);
/// What the flush period is short of `n` intervals, so that the n-th renewal is never just early.
const EARLY: Duration = Duration::from_millis(500);
/// How long before a node would be given up its write is due at the latest.
pub(crate) const RESERVE: Duration = Duration::from_secs(15);

/// What the operator states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--node-monitor-grace-period` of kube-controller-manager; 50 s by default since 1.32.
    pub grace_period: Duration,
    /// How many renewals in a row may be lost before a live node is given up; 2 by default.
    pub tolerated_losses: u32,
    /// The spread of the time that a write takes until kube-controller-manager hears of it: its
    /// 99.9th percentile, at least 3 s.
    pub latency_spread: Duration,
    /// The longest flush period the operator wants, if shorter than what is safe is wanted.
    pub flush_period: Option<Duration>,
    /// Whether other replicas hold what this one has not written.
    pub peers: bool,
}

/// Why settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    /// Fewer than two renewals could share a write.
    #[error(
        "a grace period of {grace} leaves nothing to absorb: {arithmetic}; two renewals sharing a \
         write need at least {needed}"
    )]
    GraceTooShort {
        /// The grace period.
        grace: Seconds,
        /// How few renewals a write may stand for, and why.
        arithmetic: String,
        /// The shortest grace period that is not refused.
        needed: Seconds,
    },
    /// The flush period that is asked for is not safe.
    #[error(
        "a flush period of {wanted} makes one write stand for up to {renewals} renewals, but a \
         grace period of {grace} allows {allowed}: {arithmetic}; the longest safe period is \
         {longest}"
    )]
    FlushTooLong {
        /// The flush period.
        wanted: Seconds,
        /// The renewals in it.
        renewals: u32,
        /// The grace period.
        grace: Seconds,
        /// The renewals that are safe.
        allowed: u32,
        /// Why.
        arithmetic: String,
        /// The flush period of as many.
        longest: Seconds,
    },
    /// Less than any cluster shows.
    #[error("a latency spread of {0} is not believable: at least 3s")]
    SpreadTooShort(Seconds),
}

/// A duration in an error message: seconds, with decimals only where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}s", self.0.as_secs_f64())
    }
}

/// Settings that hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    settings: Settings,
}

impl Bounds {
    /// Checks what the operator states against nodes that renew as they do by default.
    ///
    /// # Errors
    ///
    /// If two renewals could not safely share a write, or the flush period asked for is too long.
    pub fn new(settings: Settings) -> Result<Self, BoundsError> {
        let bounds = Self { settings };
        if settings.latency_spread < LEAST_SPREAD {
            return Err(BoundsError::SpreadTooShort(Seconds(
                settings.latency_spread,
            )));
        }
        let allowed = bounds.safe_renewals(USUAL_INTERVAL);
        if allowed < 2 {
            return Err(BoundsError::GraceTooShort {
                grace: Seconds(settings.grace_period),
                arithmetic: bounds.arithmetic(),
                needed: Seconds(bounds.needed()),
            });
        }
        let longest = period(allowed, usual_least());
        if let Some(wanted) = settings.flush_period.filter(|wanted| *wanted > longest) {
            return Err(BoundsError::FlushTooLong {
                wanted: Seconds(wanted),
                renewals: renewals_in(wanted),
                grace: Seconds(settings.grace_period),
                allowed,
                arithmetic: bounds.arithmetic(),
                longest: Seconds(longest),
            });
        }
        Ok(bounds)
    }

    /// How many renewals of a node one write may stand for, if they are at most `interval` apart.
    /// One means that each is written.
    pub fn renewals_per_write(&self, interval: Duration) -> u32 {
        self.safe_renewals(interval).max(1)
    }

    /// How long after a write the renewals of a node may be absorbed, if they are between `least`
    /// and `most` apart: then there are at most n times `most` between two writes. Zero means never.
    pub fn flush_period(&self, least: Duration, most: Duration) -> Duration {
        let safe = match self.renewals_per_write(most) {
            0 | 1 => Duration::ZERO,
            // Of an even pace the n-th renewal is written; of an uneven one what comes before it.
            renewals => period(renewals, least).max(most * (renewals - 1)),
        };
        self.settings
            .flush_period
            .map_or(safe, |wanted| wanted.min(safe))
    }

    /// How long after its last write a node must be written again, whatever else waits.
    pub fn deadline(&self) -> Duration {
        self.settings.grace_period.saturating_sub(RESERVE)
    }

    /// What is safe while no peer hears of what was not written. Fewer renewals share a write, down to
    /// one.
    pub const fn without_peers(mut self) -> Self {
        self.settings.peers = false;
        self
    }

    /// What this comes to for kubelets of default settings, in a sentence for people.
    pub fn in_words(&self) -> String {
        let share = |bounds: &Self| {
            let flush_period = bounds.flush_period(usual_least(), USUAL_INTERVAL);
            // A flush period of one's own comes to fewer than are safe.
            let renewals = renewals_in(flush_period).min(bounds.renewals_per_write(USUAL_INTERVAL));
            let renewals = if flush_period.is_zero() { 1 } else { renewals };
            (renewals, USUAL_INTERVAL * renewals)
        };
        let (renewals, apart) = share(self);
        let Settings {
            grace_period,
            latency_spread,
            ..
        } = self.settings;
        let left = Seconds(grace_period.saturating_sub(latency_spread + apart));
        let alone = match share(&self.without_peers()).0 {
            _ if !self.settings.peers => String::new(),
            1 => "; while no other replica is there, each is written".to_owned(),
            few => format!("; while no other replica is there, one in {few} is"),
        };
        format!(
            "one renewal in {renewals} is written, at most {} after the last; of the grace period \
             of {} this leaves {left} to renewals that are lost and apiservers that are away{alone}",
            Seconds(apart),
            Seconds(grace_period),
        )
    }

    /// What the operator stated.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    fn safe_renewals(&self, interval: Duration) -> u32 {
        let losses = self.settings.tolerated_losses;
        let lossy = self
            .fitting(Duration::ZERO, interval)
            .saturating_sub(losses);
        match self.settings.peers {
            true => lossy,
            false => lossy.min(self.fitting(UNNOTICED, interval)),
        }
    }

    /// How many intervals fit into what the grace period leaves.
    fn fitting(&self, reserved: Duration, interval: Duration) -> u32 {
        let Settings {
            grace_period,
            latency_spread,
            ..
        } = self.settings;
        let left = grace_period.saturating_sub(latency_spread + reserved);
        let fitting = left.as_micros() / interval.as_micros().max(1);
        u32::try_from(fitting).unwrap_or(u32::MAX)
    }

    /// The shortest grace period under which two renewals may share a write.
    fn needed(&self) -> Duration {
        let Settings {
            tolerated_losses,
            latency_spread,
            peers,
            ..
        } = self.settings;
        let lossy = USUAL_INTERVAL * (tolerated_losses.saturating_add(2)) + latency_spread;
        let silent = USUAL_INTERVAL * 2 + UNNOTICED + latency_spread;
        if peers { lossy } else { lossy.max(silent) }
    }

    /// Why as many renewals as [`Self::safe_renewals`] says and not more.
    fn arithmetic(&self) -> String {
        let Settings {
            grace_period,
            tolerated_losses,
            latency_spread,
            peers,
            ..
        } = self.settings;
        let (grace, spread) = (Seconds(grace_period), Seconds(latency_spread));
        let (interval, silent) = (Seconds(USUAL_INTERVAL), Seconds(UNNOTICED));
        let fit = self.fitting(Duration::ZERO, USUAL_INTERVAL);
        let left = fit.saturating_sub(tolerated_losses);
        let lossy = format!(
            "({grace} - {spread} spread) / {interval} = {fit} renewals, less {tolerated_losses} \
             that may be lost = {left}"
        );
        if peers {
            return lossy;
        }
        let fit = self.fitting(UNNOTICED, USUAL_INTERVAL);
        format!(
            "{lossy}; and without peers ({grace} - {spread} spread - {silent} until a silent \
             replica is noticed) / {interval} = {fit}"
        )
    }
}

/// The shortest time between two renewals of a kubelet of default settings.
const fn usual_least() -> Duration {
    Duration::from_secs(10)
}

/// The flush period after which exactly the n-th renewal is due.
fn period(renewals: u32, least: Duration) -> Duration {
    (least * renewals).saturating_sub(EARLY)
}

/// How many renewals of a kubelet of default settings may share a write.
fn renewals_in(flush_period: Duration) -> u32 {
    let latest = flush_period + EARLY;
    let renewals = latest.as_micros().div_ceil(usual_least().as_micros());
    u32::try_from(renewals).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::unsaved;

    const fn settings(grace_seconds: u64, tolerated_losses: u32, peers: bool) -> Settings {
        Settings {
            grace_period: Duration::from_secs(grace_seconds),
            tolerated_losses,
            latency_spread: Duration::from_secs(3),
            flush_period: None,
            peers,
        }
    }

    fn renewals(settings: Settings) -> u32 {
        let bounds = Bounds::new(settings).unwrap();
        bounds.renewals_per_write(USUAL_INTERVAL)
    }

    #[test]
    fn a_grace_period_allows_as_many_renewals_as_it_has_room_for() {
        for (grace, of_two, of_one) in [
            (50, 2, 3),
            (80, 5, 6),
            (120, 9, 10),
            (180, 15, 16),
            (300, 26, 27),
            (600, 55, 56),
        ] {
            assert_eq!(renewals(settings(grace, 2, true)), of_two, "{grace}");
            assert_eq!(renewals(settings(grace, 1, true)), of_one, "{grace}");
        }
        let flush = Bounds::new(settings(50, 2, true)).unwrap();
        let flush = flush.flush_period(usual_least(), USUAL_INTERVAL);
        assert_eq!(flush, Duration::from_millis(19_500));
    }

    #[test]
    fn without_peers_less_is_absorbed() {
        assert_eq!(renewals(settings(90, 2, true)), 6);
        assert_eq!(renewals(settings(90, 2, false)), 4);
        for (grace, left) in [(50, 1), (90, 4)] {
            let bounds = Bounds::new(settings(grace, 2, true)).unwrap();
            let alone = bounds.without_peers();
            assert_eq!(alone.renewals_per_write(USUAL_INTERVAL), left, "{grace}");
        }
    }

    #[test]
    fn settings_that_leave_no_room_are_refused_with_the_arithmetic() {
        let refused = Bounds::new(settings(40, 2, true)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a grace period of 40s leaves nothing to absorb: (40s - 3s spread) / 10.4s = 3 \
             renewals, less 2 that may be lost = 1; two renewals sharing a write need at least \
             44.6s"
        );
        let refused = Bounds::new(settings(50, 2, false)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a grace period of 50s leaves nothing to absorb: (50s - 3s spread) / 10.4s = 4 \
             renewals, less 2 that may be lost = 2; and without peers (50s - 3s spread - 45s until \
             a silent replica is noticed) / 10.4s = 0; two renewals sharing a write need at least \
             68.8s"
        );
        let long = Settings {
            flush_period: Some(Duration::from_secs(26)),
            ..settings(50, 2, true)
        };
        assert_eq!(
            Bounds::new(long).unwrap_err().to_string(),
            "a flush period of 26s makes one write stand for up to 3 renewals, but a grace period \
             of 50s allows 2: (50s - 3s spread) / 10.4s = 4 renewals, less 2 that may be lost = 2; \
             the longest safe period is 19.5s"
        );
        let hasty = Settings {
            latency_spread: Duration::from_secs(1),
            ..settings(50, 2, true)
        };
        let refused = Bounds::new(hasty).unwrap_err().to_string();
        assert_eq!(
            refused,
            "a latency spread of 1s is not believable: at least 3s"
        );
    }

    #[test]
    fn what_settings_come_to_can_be_read() {
        let words = |settings| Bounds::new(settings).unwrap().in_words();
        assert_eq!(
            words(settings(90, 2, true)),
            "one renewal in 6 is written, at most 62.4s after the last; of the grace period of 90s \
             this leaves 24.6s to renewals that are lost and apiservers that are away; while no \
             other replica is there, one in 4 is"
        );
        assert!(words(settings(50, 2, true)).ends_with("there, each is written"));
        let alone = Settings {
            flush_period: Some(Duration::from_secs(15)),
            ..settings(90, 2, false)
        };
        assert_eq!(
            words(alone),
            "one renewal in 2 is written, at most 20.8s after the last; of the grace period of 90s \
             this leaves 66.2s to renewals that are lost and apiservers that are away"
        );
    }

    #[test]
    fn a_node_that_sometimes_renews_quickly_is_not_written_more_often() {
        let bounds = Bounds::new(settings(90, 2, true)).unwrap();
        let flush = bounds.flush_period(Duration::from_millis(100), USUAL_INTERVAL);
        assert_eq!(flush, USUAL_INTERVAL * 5);
    }

    #[test]
    fn a_node_that_renews_slowly_is_always_written() {
        let bounds = Bounds::new(settings(50, 2, true)).unwrap();
        let slow = Duration::from_secs(40);
        assert_eq!(bounds.renewals_per_write(slow), 1);
        assert_eq!(bounds.flush_period(slow, slow), Duration::ZERO);
    }

    proptest! {
        #![proptest_config(unsaved())]

        #[test]
        fn what_is_absorbed_fits_into_the_grace_period(
            grace in 0..900_u64, losses in 0..6_u32, peers: bool, interval in 1_000..60_000_u64,
        ) {
            let Ok(bounds) = Bounds::new(settings(grace, losses, peers)) else {
                return Ok(());
            };
            let interval = Duration::from_millis(interval);
            let n = bounds.renewals_per_write(interval);
            let spread = Duration::from_secs(3);
            let gap = interval * (n + losses) + spread;
            prop_assert!(n == 1 || gap <= Duration::from_secs(grace));
            let silent = interval * n + Duration::from_secs(45) + spread;
            prop_assert!(n == 1 || peers || silent <= Duration::from_secs(grace));
        }

        #[test]
        fn the_grace_period_that_is_asked_for_is_not_refused(
            grace in 0..100_u64, losses in 0..6_u32, peers: bool,
        ) {
            let refused = Bounds::new(settings(grace, losses, peers));
            if let Err(BoundsError::GraceTooShort { needed, .. }) = refused {
                let enough = Settings { grace_period: needed.0, ..settings(0, losses, peers) };
                prop_assert!(Bounds::new(enough).is_ok());
            }
        }
    }
}
