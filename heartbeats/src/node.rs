//! What is remembered of one node.
//!
//! Owns the times of a lease on both clocks, the node's own pace, and the suspicion that two hosts
//! share its name. Refuses to remember a renewal of another lease: a new uid is a new node.
//! Invariant: `written <= heard` unless the upstream says more, `acknowledged <= heard`, and
//! none of the three ever goes back.

use std::time::Duration;

use crate::bounds::Bounds;
use crate::{MicroTime, Moment, Renewal, StatusTimes, Uid};

/// Disturbances after which a name is taken to be used by two hosts.
const STRIKES: u8 = 3;
/// How long renewals of such a name are forwarded after the last disturbance.
const CONTESTED: Duration = Duration::from_secs(600);
/// All of a flush period.
const WHOLE: u8 = u8::MAX;
/// Steps of this many 256ths, the golden ratio, spread however many there are evenly.
const GOLDEN: u8 = 159;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) uid: Uid,
    /// The newest that is known.
    pub(crate) version: u64,
    /// The newest that the kubelet said, absorbed or not.
    pub(crate) heard: MicroTime,
    /// The newest in the store.
    pub(crate) written: MicroTime,
    /// The newest that was answered with 200 here, unwritten.
    pub(crate) acknowledged: MicroTime,
    pub(crate) heard_at: Option<Moment>,
    /// When the kubelet said what is in the store, or the watch told of it; if nobody saw it
    /// written, when the node was first heard of.
    since: Moment,
    /// Since when a write of it is under way.
    pub(crate) writing: Option<Moment>,
    contested_until: Moment,
    /// Folded; two that fold to one are taken for one.
    connection: u32,
    /// The longest usual time between two renewals, milliseconds; 0 if not known.
    interval: u32,
    /// A longer one, seen once: if seen again, it is the interval.
    longer: u32,
    strikes: u8,
    /// Of the first flush period, in 256ths less one; of all later ones it is the whole.
    share: u8,
    /// Somebody saw it written.
    seen_written: bool,
    /// The last renewal said an older time than one before.
    pub(crate) stepped_back: bool,
    /// It is in the list of what peers have to hear.
    pub(crate) changed: bool,
    /// The newest times of its status that were answered with 200 here, unwritten.
    status: Packed,
}

impl Node {
    /// The `nth` that is heard of. Nodes that come together, as when a replica begins, are not to be
    /// written together ever after: the first flush period of each is another part of the whole.
    pub(crate) fn new(now: Moment, renewal: &Renewal, stored: MicroTime, nth: u8) -> Self {
        Self {
            share: WHOLE - nth.wrapping_mul(GOLDEN),
            uid: renewal.uid,
            version: renewal.resource_version,
            heard: stored,
            written: stored,
            acknowledged: MicroTime::MIN,
            heard_at: None,
            since: now,
            writing: None,
            contested_until: Moment::default(),
            connection: 0,
            interval: 0,
            longer: 0,
            strikes: 0,
            seen_written: false,
            stepped_back: false,
            changed: false,
            status: Packed::default(),
        }
    }

    /// Takes in that a renewal came, whether it is newer or not.
    pub(crate) fn hear(&mut self, now: Moment, renewal: &Renewal, connection: u64) {
        let connection = folded(connection);
        let newer = renewal.renew_time > self.heard;
        let moved = self.heard_at.is_some() && connection != self.connection;
        let apart = self.heard_at.map(|last| now.since(last));
        let declared = declared(renewal.duration);
        let hasty = apart.is_some_and(|apart| apart < declared / 2);
        if moved && (!newer || hasty) {
            self.strikes = self.strikes.saturating_add(1).min(STRIKES);
        } else if newer && !moved {
            self.strikes = self.strikes.saturating_sub(1);
        }
        if self.strikes == STRIKES {
            self.contested_until = now + CONTESTED;
        }
        self.stepped_back = renewal.renew_time < self.heard;
        self.connection = connection;
        self.version = self.version.max(renewal.resource_version);
        if newer {
            self.heard = renewal.renew_time;
            if let Some(apart) = apart {
                self.learn(apart);
            }
            self.heard_at = Some(now);
        }
    }

    /// A shorter interval is believed slowly, a longer one the second time: one may be a loss.
    fn learn(&mut self, apart: Duration) {
        let apart = u32::try_from(apart.as_millis()).unwrap_or(u32::MAX);
        if self.interval == 0 || apart <= self.interval {
            self.interval = self.interval.max(apart) - self.interval.saturating_sub(apart) / 8;
            self.longer = 0;
        } else if apart <= self.interval.saturating_add(self.interval / 2) {
            self.interval = apart;
            self.longer = 0;
        } else if self.longer == 0 {
            self.longer = apart;
        } else {
            self.interval = self.longer.min(apart);
            self.longer = 0;
        }
    }

    /// How long after a write its renewals may be absorbed; zero if never.
    pub(crate) fn flush_period(&self, bounds: &Bounds, duration: u32) -> Duration {
        if self.interval == 0 {
            return Duration::ZERO;
        }
        let observed = Duration::from_millis(self.interval.into());
        let declared = declared(duration);
        let most = observed.max(jittered(declared));
        let whole = bounds.flush_period(observed.min(declared), most);
        whole * (u32::from(self.share) + 1) / (u32::from(WHOLE) + 1)
    }

    /// When the kubelet said what is in the store, if somebody saw that.
    pub(crate) fn written_at(&self) -> Option<Moment> {
        self.seen_written.then_some(self.since)
    }

    /// By when it has to be written. One that nobody saw written may be as old as a flush period;
    /// however often it asks, it becomes no younger.
    pub(crate) fn deadline(&self, bounds: &Bounds) -> Moment {
        let halved = if self.seen_written { 1 } else { 2 };
        self.since + bounds.deadline() / halved
    }

    /// When the kubelet said a time, as far as can be told by its own clock from when it said
    /// another: the watch that tells of it may be late. Now, if it was never heard here.
    pub(crate) fn said_at(&self, renew_time: MicroTime, now: Moment) -> Moment {
        let Some(heard_at) = self.heard_at else {
            return now;
        };
        let (said, heard) = (renew_time.micros(), self.heard.micros());
        let apart = Duration::from_micros(said.abs_diff(heard));
        if said < heard {
            heard_at.before(apart)
        } else {
            (heard_at + apart).min(now)
        }
    }

    /// Takes in what the store has. `when` is when the kubelet said it, or now.
    pub(crate) fn stored(&mut self, when: Moment, version: u64, renew_time: MicroTime) {
        self.version = self.version.max(version);
        if renew_time > self.written {
            self.written = renew_time;
            if self.seen_written {
                self.share = WHOLE;
            }
            self.since = self.written_at().map_or(when, |last| last.max(when));
            self.seen_written = true;
        }
        if renew_time > self.heard {
            // Another replica heard it.
            self.heard = renew_time;
            self.heard_at = Some(when);
        }
    }

    /// Whether two hosts seem to renew it.
    pub(crate) fn is_contested(&self, now: Moment) -> bool {
        now < self.contested_until
    }

    /// What was answered and is not in the store.
    pub(crate) fn owed(&self) -> Option<MicroTime> {
        (self.acknowledged > self.written).then_some(self.acknowledged)
    }

    /// Whether its lease is being renewed, so that nothing hangs on what its status says: heard of
    /// within the duration of a lease.
    pub(crate) fn is_renewed(&self, now: Moment) -> bool {
        let interval = self.interval().unwrap_or_default().max(declared(40));
        self.heard_at
            .is_some_and(|heard_at| now.since(heard_at) <= 4 * interval)
    }

    /// The newest times of its status that were answered here.
    pub(crate) fn status(&self) -> Option<StatusTimes> {
        self.status.unpack()
    }

    /// Takes in that these were answered here; whether they could be kept.
    pub(crate) fn answer_status(&mut self, times: StatusTimes) -> bool {
        let packed = Packed::new(times);
        self.status = packed.unwrap_or(self.status);
        packed.is_some()
    }

    /// The interval that was observed, if there was one.
    pub(crate) fn interval(&self) -> Option<Duration> {
        (self.interval > 0).then(|| Duration::from_millis(self.interval.into()))
    }
}

/// Times of a status, a minute or so apart at most: a kubelet takes them within one second.
#[derive(Clone, Copy, Debug, Default)]
struct Packed {
    /// Seconds since 1970 of the first; 0 if there are none.
    first: u32,
    /// By how many seconds each is after it.
    after: [u8; 4],
}

impl Packed {
    fn new(times: StatusTimes) -> Option<Self> {
        let seconds = times.seconds();
        let first = seconds.into_iter().fold(i64::MAX, i64::min);
        let mut after = [0; 4];
        for (after, seconds) in after.iter_mut().zip(seconds) {
            let apart = seconds.checked_sub(first)?;
            *after = u8::try_from(apart).ok()?;
        }
        let first = u32::try_from(first).ok().filter(|first| *first > 0)?;
        Some(Self { first, after })
    }

    fn unpack(self) -> Option<StatusTimes> {
        let seconds = self
            .after
            .map(|after| i64::from(self.first) + i64::from(after));
        (self.first > 0).then_some(StatusTimes::from_seconds(seconds))
    }
}

const fn folded(connection: u64) -> u32 {
    let [a, b, c, d, e, f, g, h] = connection.to_le_bytes();
    u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes([e, f, g, h])
}

/// What a kubelet waits between two renewals, before jitter.
fn declared(duration_seconds: u32) -> Duration {
    Duration::from_secs(duration_seconds.into()) / 4
}

/// With the jitter of a kubelet.
fn jittered(interval: Duration) -> Duration {
    interval * 26 / 25
}

/// So that a node stays under 256 bytes with its name, the index and the allocator's rounding.
const _: () = assert!(size_of::<Node>() <= 112);

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal(at: u64) -> Renewal {
        Renewal {
            uid: Uid::from_bits(1),
            resource_version: 1,
            renew_time: MicroTime::from_micros(i64::try_from(at * 1_000).unwrap()).unwrap(),
            duration: 40,
        }
    }

    fn at(millis: u64) -> Moment {
        Moment::after_start(Duration::from_millis(millis))
    }

    #[test]
    fn what_a_late_watch_tells_was_not_said_only_now() {
        let mut node = node();
        assert_eq!(node.said_at(renewal(5).renew_time, at(9)), at(9));
        node.hear(at(20_000), &renewal(50_000), 7);
        let said_at = |millis: u64| node.said_at(renewal(millis).renew_time, at(40_000));
        assert_eq!(said_at(50_000), at(20_000));
        assert_eq!(said_at(60_200), at(30_200), "elsewhere, and told 10 s late");
        assert_eq!(said_at(39_800), at(9_800));
        assert_eq!(said_at(99_000), at(40_000), "its clock was put forward");
    }

    #[test]
    fn nodes_that_come_together_are_soon_written_one_after_the_other() {
        let settings = crate::Settings {
            grace_period: Duration::from_secs(300),
            tolerated_losses: 2,
            latency_spread: Duration::from_secs(3),
            flush_period: None,
            peers: true,
        };
        let bounds = Bounds::new(settings).unwrap();
        let mut periods: Vec<_> = (0..=255)
            .map(|nth| {
                let mut node = Node::new(at(1), &renewal(1), renewal(0).renew_time, nth);
                (1..3).for_each(|step| node.hear(at(step), &renewal(step * 10_000), 7));
                node.stored(at(3), 2, renewal(20_000).renew_time);
                let first = node.flush_period(&bounds, 40);
                node.stored(at(4), 3, renewal(30_000).renew_time);
                assert_eq!(node.flush_period(&bounds, 40), Duration::from_secs(260));
                first.as_secs()
            })
            .collect();
        assert_eq!(periods[0], 260, "alone, a node has the whole of it");
        periods.sort_unstable();
        let even = |(nth, period): (u64, &u64)| period.abs_diff(nth * 260 / 256) <= 2;
        assert!((0..).zip(&periods).all(even), "{periods:?}");
    }

    fn node() -> Node {
        Node::new(at(0), &renewal(1), renewal(0).renew_time, 0)
    }

    #[test]
    fn a_lost_renewal_does_not_change_the_interval_and_a_slower_pace_does() {
        let mut node = node();
        for millis in [1, 10_200, 20_400] {
            node.hear(at(millis), &renewal(millis), 7);
        }
        assert_eq!(node.interval().unwrap().as_millis(), 10_200);
        node.hear(at(40_800), &renewal(40_800), 7);
        assert_eq!(node.interval().unwrap().as_millis(), 10_200);
        node.hear(at(51_000), &renewal(51_000), 7);
        node.hear(at(91_000), &renewal(91_000), 7);
        node.hear(at(131_000), &renewal(131_000), 7);
        assert_eq!(node.interval().unwrap().as_millis(), 40_000);
    }

    #[test]
    fn two_hosts_of_one_name_are_found_out_and_a_move_is_not() {
        let mut moved = node();
        for (millis, connection) in [(1, 7), (10_000, 7), (20_000, 8), (30_000, 8), (40_000, 7)] {
            moved.hear(at(millis), &renewal(millis), connection);
            assert!(!moved.is_contested(at(millis)));
        }
        let mut shared = node();
        for step in 0..8 {
            let (here, there) = (step * 10_000 + 60_000, step * 10_000 + 5_000);
            shared.hear(at(step * 10_000), &renewal(here), 7);
            shared.hear(at(step * 10_000 + 5_000), &renewal(there), 8);
        }
        assert!(shared.is_contested(at(80_000)));
        assert!(!shared.is_contested(at(80_000 + 600_000)));
    }

    #[test]
    fn what_is_known_never_goes_back() {
        let mut node = node();
        node.hear(at(1), &renewal(500), 7);
        node.stored(at(2), 9, renewal(500).renew_time);
        node.hear(at(3), &renewal(400), 7);
        node.stored(at(4), 8, renewal(400).renew_time);
        assert!(node.stepped_back);
        assert_eq!(
            (node.heard, node.written),
            (renewal(500).renew_time, renewal(500).renew_time)
        );
        assert_eq!((node.version, node.written_at()), (9, Some(at(2))));
    }
}
