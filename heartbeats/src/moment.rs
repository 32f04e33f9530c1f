//! A point on the caller's monotonic clock.

use std::num::NonZeroU64;
use std::time::Duration;

/// A point in time by a clock that the caller chose and that never goes back, to the microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(NonZeroU64); // microseconds and one: an `Option` of it costs nothing

impl Moment {
    /// The clock's start.
    pub const START: Self = Self(NonZeroU64::MIN);

    /// So long after the start. Saturates after half a million years.
    pub fn after_start(elapsed: Duration) -> Self {
        Self::START + elapsed
    }

    /// So long before this, and the start at the earliest.
    pub fn before(self, elapsed: Duration) -> Self {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        NonZeroU64::new(self.0.get().saturating_sub(micros)).map_or(Self::START, Self)
    }

    /// The time from `earlier` to this; zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Moment {
    fn default() -> Self {
        Self::START
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}
