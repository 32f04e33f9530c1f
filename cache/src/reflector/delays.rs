//! The pace of retries: client-go's reflector back-off.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// client-go `reflector.go`, 1.36: 800 ms, doubled, each stretched by up to as much again, 30 s
/// before stretching.
const FIRST: Duration = Duration::from_millis(800);
const LAST: Duration = Duration::from_secs(30);

/// Health this long starts over.
const HEALTHY: Duration = Duration::from_secs(120);

/// A longer `Retry-After` is not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Delays before attempts that follow a failure.
#[derive(Debug)]
pub(super) struct Delays {
    rng: fastrand::Rng,
    schedule: ExponentialBackoff,
    /// When the last delay ends.
    last: Option<Instant>,
}

impl Delays {
    pub(super) fn new(mut rng: fastrand::Rng) -> Self {
        Self {
            schedule: schedule(&mut rng),
            rng,
            last: None,
        }
    }

    /// The delay before the next attempt, at least what the server asked for.
    pub(super) fn after_failure(&mut self, retry_after: Option<u32>) -> Duration {
        if self.is_healthy() {
            self.schedule = schedule(&mut self.rng);
        }
        let delay = self.schedule.next().expect("the schedule has no end");
        let asked = Duration::from_secs(retry_after.unwrap_or(0).into()).min(RETRY_AFTER_MAX);
        self.note(delay.max(asked))
    }

    /// No delay for the first expiry in a while, a growing one for those that follow it.
    pub(super) fn after_expiry(&mut self) -> Duration {
        if !self.is_healthy() {
            return self.after_failure(None);
        }
        self.schedule = schedule(&mut self.rng);
        self.note(Duration::ZERO)
    }

    /// The delay before asking again for what was refused for good: half a minute to a minute.
    pub(super) fn after_refusal(&mut self) -> Duration {
        let delay = LAST + LAST.mul_f32(self.rng.f32());
        self.note(delay)
    }

    fn is_healthy(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() > HEALTHY)
    }

    fn note(&mut self, delay: Duration) -> Duration {
        self.last = Some(Instant::now() + delay);
        delay
    }
}

fn schedule(rng: &mut fastrand::Rng) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST)
        .with_max_delay(LAST)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(rng.u64(..))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn delays_double_to_their_bound_and_start_over_after_two_minutes_of_health() {
        let mut delays = Delays::new(fastrand::Rng::with_seed(1));
        let mut floor = FIRST;
        for _ in 0..12 {
            let delay = delays.after_failure(None);
            assert!(
                delay >= floor && delay <= floor * 2,
                "{delay:?} for {floor:?}"
            );
            floor = (floor * 2).min(LAST);
            tokio::time::sleep(delay).await;
        }
        assert!(delays.after_failure(None) >= LAST);
        tokio::time::sleep(LAST * 2 + HEALTHY + FIRST).await;
        assert!(delays.after_failure(None) <= FIRST * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_honoured_within_reason() {
        let mut delays = Delays::new(fastrand::Rng::with_seed(1));
        assert_eq!(delays.after_failure(Some(20)), Duration::from_secs(20));
        assert_eq!(delays.after_failure(Some(9999)), RETRY_AFTER_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_expiry_is_free() {
        let mut delays = Delays::new(fastrand::Rng::with_seed(1));
        assert_eq!(delays.after_expiry(), Duration::ZERO);
        assert!(delays.after_expiry() >= FIRST);
    }
}
