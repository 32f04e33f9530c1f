//! The recent past: events since some version, or "too old".
//!
//! Owns the newest events in order, numbered by a sequence that never repeats, and an index from
//! key to sequence numbers so that a reader of one key walks only that key's events. It is bounded
//! by bytes and age and forgets from the old end; the newest event always stays. The invariant: for
//! every start at or above [`Window::floor`], every event after it is here. It knows nothing of who
//! reads, nor of frames: its memory is the objects' bytes once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::{Change, Event};
use crate::interest::{Interest, KeyRef};
use crate::resource_version::ResourceVersion;

mod places;

use places::{Keys, Places};

/// Position of an event; grows by one with each event of a cache, across relists.
pub(crate) type Sequence = u64;

/// How many events go at once for their age alone. More than one comes with each push, so a long
/// history that grew old is gone after as many pushes as a fraction of it.
const OLD_AT_ONCE: usize = 256;

/// A history that ended. Dropping it frees it.
#[derive(Debug)]
#[must_use = "drop it where nobody waits"]
pub(crate) struct Forgotten {
    _entries: VecDeque<Entry>,
    _places: Places,
}

/// Events of one resource, oldest first.
#[derive(Debug)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// Sequence of the front.
    first: Sequence,
    floor: ResourceVersion,
    trigger: Option<usize>,
    bytes_max: usize,
    age_max: Duration,
    places: Places,
    bytes: usize,
}

/// An event, and what of it has to be known when it is forgotten.
#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    keys: Keys,
    bytes: usize,
}

impl Window {
    pub(crate) fn new(trigger: Option<usize>, bytes_max: usize, age_max: Duration) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            floor: ResourceVersion::new(0),
            trigger,
            bytes_max,
            age_max,
            places: Places::default(),
            bytes: 0,
        }
    }

    /// Appends a change and returns its event.
    pub(crate) fn push(&mut self, resource_version: ResourceVersion, change: Change) -> Arc<Event> {
        if let Some(newest) = self.entries.back() {
            assert!(
                newest.event.resource_version() <= resource_version,
                "versions never go back"
            );
        }
        let event = Arc::new(Event::new(resource_version, change));
        let keys = self.places.keys(|visit| event.keys(self.trigger, visit));
        self.places.push(&keys, self.end());
        let bytes = event.memory();
        self.bytes += bytes;
        self.entries.push_back(Entry {
            event: Arc::clone(&event),
            keys,
            bytes,
        });
        event
    }

    /// Forgets events beyond the bytes or the age, keeping the newest. What is only old goes a few
    /// at a time, so that no event waits while a whole history is freed.
    pub(crate) fn trim(&mut self) {
        let now = Instant::now();
        let mut old_left = OLD_AT_ONCE;
        while self.entries.len() > 1 {
            let is_over = self.bytes > self.bytes_max;
            let arrived = || self.entries[0].event.arrived();
            let is_old = !is_over && now.duration_since(arrived()) > self.age_max;
            if !(is_over || is_old && old_left > 0) {
                return;
            }
            old_left = old_left.saturating_sub(1);
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(Entry { event, keys, bytes }) = self.entries.pop_front() else {
            return;
        };
        self.places.pop(&keys, self.first);
        self.first += 1;
        self.bytes -= bytes;
        // As apiserver: anything from just before the oldest event on. Two events may share a
        // version (leases that expire together); a start between them would lose the first.
        let forgotten = event.resource_version();
        self.floor = self.entries.front().map_or(forgotten, |oldest| {
            let before_oldest = oldest.event.resource_version().get().saturating_sub(1);
            forgotten.max(ResourceVersion::new(before_oldest))
        });
    }

    /// Forgets everything: the state was replaced at `resource_version`, and what happened before
    /// is unknown. What was forgotten is handed out, to be freed where nobody waits.
    pub(crate) fn restart(&mut self, resource_version: ResourceVersion) -> Forgotten {
        self.first = self.end();
        self.bytes = 0;
        self.floor = resource_version;
        Forgotten {
            _entries: std::mem::take(&mut self.entries),
            _places: {
                let emptied = self.places.emptied();
                std::mem::replace(&mut self.places, emptied)
            },
        }
    }

    /// Whether the change of `key` at `resource_version` is here.
    pub(crate) fn holds(&self, key: &str, resource_version: ResourceVersion) -> bool {
        let mut of_key = self.places.of(KeyRef::Name(key), 0).rev();
        of_key.any(|sequence| {
            let event = &self.entries[(sequence - self.first) as usize].event;
            event.resource_version() == resource_version && event.key() == key
        })
    }

    /// The lowest version a reader may start after.
    pub(crate) fn floor(&self) -> ResourceVersion {
        self.floor
    }

    /// Sequence of the oldest event.
    pub(crate) fn first(&self) -> Sequence {
        self.first
    }

    /// Sequence the next event will have.
    pub(crate) fn end(&self) -> Sequence {
        self.first + self.entries.len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held: objects that left the store, and index places.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the event at `sequence` arrived; `None` once it is forgotten or before it is there.
    pub(crate) fn arrived(&self, sequence: Sequence) -> Option<Instant> {
        let place = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.entries.get(place).map(|entry| entry.event.arrived())
    }

    /// Sequence of the first event after `resource_version`.
    pub(crate) fn after(&self, resource_version: ResourceVersion) -> Sequence {
        let older = self
            .entries
            .partition_point(|entry| entry.event.resource_version() <= resource_version);
        self.first + older as u64
    }

    /// Sequence of the first event at or after `from` that `interest` does not rule out.
    pub(crate) fn next(&self, interest: &Interest, from: Sequence) -> Option<Sequence> {
        match interest.key() {
            None => (from < self.end()).then(|| from.max(self.first)),
            Some(key) => self.places.of(key, from).next(),
        }
    }

    /// Copies up to `max` events from `from` on and before `until` that `interest` does not rule
    /// out. Returns where to go on, if there is more.
    pub(crate) fn collect(
        &self,
        interest: &Interest,
        (from, until): (Sequence, Sequence),
        max: usize,
        into: &mut Vec<Arc<Event>>,
    ) -> Option<Sequence> {
        let from = from.max(self.first);
        let until = until.min(self.end());
        let place = |sequence: Sequence| (sequence - self.first) as usize;
        match interest.key() {
            None => {
                let next = until.min(from + max as u64);
                let entries = self.entries.range(place(from)..place(next.max(from)));
                into.extend(entries.map(|entry| Arc::clone(&entry.event)));
                (next < until).then_some(next)
            }
            Some(key) => {
                let mut picked = self.places.of(key, from).take_while(|&it| it < until);
                let entries = picked.by_ref().take(max).map(|it| &self.entries[place(it)]);
                into.extend(entries.map(|entry| Arc::clone(&entry.event)));
                picked.next()
            }
        }
    }

    /// The newest events down to the first one after `resource_version`, newest first.
    pub(crate) fn newest_down_to(
        &self,
        resource_version: ResourceVersion,
    ) -> impl Iterator<Item = &Arc<Event>> {
        let events = self.entries.iter().map(|entry| &entry.event);
        events
            .rev()
            .take_while(move |event| event.resource_version() > resource_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, pods, rv};

    const ALWAYS: Duration = Duration::from_secs(1 << 30);

    fn window() -> Window {
        let mut window = Window::new(pods().fields.trigger(), usize::MAX, ALWAYS);
        drop(window.restart(rv(10)));
        window
    }

    fn create(window: &mut Window, what: &str, version: u64) {
        window.push(
            rv(version),
            Change::Created {
                new: Arc::new(pod(what, version)),
            },
        );
    }

    fn remove(window: &mut Window, what: &str, version: u64) {
        let [old, last] = [1, version].map(|version| Arc::new(pod(what, version)));
        window.push(rv(version), Change::Removed { old, last });
    }

    fn read(window: &Window, interest: &Interest, from: Sequence) -> Vec<u64> {
        let mut events = Vec::new();
        let mut next = Some(from);
        while let Some(from) = next {
            next = window.collect(interest, (from, Sequence::MAX), 2, &mut events);
        }
        events
            .iter()
            .map(|event| event.resource_version().get())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_floor_is_the_list_then_just_below_the_oldest_event() {
        let mut window = window();
        assert_eq!(window.floor(), rv(10));
        create(&mut window, "a/x", 15);
        create(&mut window, "a/y", 20);
        create(&mut window, "a/z", 30);
        assert_eq!(window.floor(), rv(10), "nothing was forgotten");
        window.forget_oldest();
        assert_eq!(window.floor(), rv(19));
        drop(window.restart(rv(40)));
        assert_eq!(
            (window.floor(), window.len(), window.bytes()),
            (rv(40), 0, 0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_between_events_of_one_version_is_not_offered() {
        let mut window = window();
        remove(&mut window, "a/x", 20);
        remove(&mut window, "a/y", 20);
        window.forget_oldest();
        assert_eq!(window.floor(), rv(20), "19 would lose the first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_reads_exactly_its_own_events() {
        let mut window = window();
        for (step, node) in ["n1", "n2", "n1", "n3", "n1"].iter().enumerate() {
            let namespace = if step % 2 == 0 { "a" } else { "b" };
            create(
                &mut window,
                &format!("{namespace}/x{step} @{node}"),
                11 + step as u64,
            );
        }
        let old = Arc::new(pod("a/m @n2", 3));
        window.push(
            rv(16),
            Change::Updated {
                old,
                new: Arc::new(pod("a/m @n9", 16)),
                is_heartbeat: false,
            },
        );
        let cases = [
            (Interest::All, vec![11, 12, 13, 14, 15, 16]),
            (Interest::Namespace("a".into()), vec![11, 13, 15, 16]),
            (Interest::Name("a/x2".into()), vec![13]),
            (Interest::Field("n1".into()), vec![11, 13, 15]),
            (Interest::Field("n2".into()), vec![12, 16]),
            (Interest::Field("n9".into()), vec![16]),
            (Interest::Field("n4".into()), vec![]),
        ];
        for (interest, versions) in &cases {
            assert_eq!(read(&window, interest, 0), *versions, "{interest:?}");
            assert_eq!(window.next(interest, 0).is_some(), !versions.is_empty());
        }
        window.forget_oldest();
        window.forget_oldest();
        for (interest, versions) in &cases {
            let kept: Vec<_> = versions
                .iter()
                .copied()
                .filter(|&version| version > 12)
                .collect();
            assert_eq!(read(&window, interest, 0), kept, "{interest:?}");
        }
        assert_eq!(
            read(&window, &Interest::All, window.after(rv(14))),
            [15, 16]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_and_age_forget_the_oldest_but_never_the_newest() {
        let mut window = window();
        for version in 11..20 {
            remove(&mut window, "a/x", version);
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        let each = window.bytes() / 9;
        window.bytes_max = each * 5;
        window.trim();
        assert_eq!(window.len(), 5);
        (window.bytes_max, window.age_max) = (usize::MAX, Duration::from_secs(30));
        window.trim();
        assert_eq!(read(&window, &Interest::All, 0), [17, 18, 19]);
        (window.bytes_max, window.age_max) = (0, Duration::ZERO);
        window.trim();
        assert_eq!(read(&window, &Interest::All, 0), [19]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_push_frees_a_history_that_grew_old_all_at_once() {
        let mut window = window();
        window.age_max = Duration::from_secs(60);
        let count = 20 * OLD_AT_ONCE as u64;
        for version in 11..11 + count {
            create(&mut window, "a/x", version);
            window.trim();
        }
        tokio::time::advance(Duration::from_secs(61)).await;
        for version in 11 + count..11 + count + 30 {
            let before = window.len();
            create(&mut window, "a/x", version);
            window.trim();
            assert!(before + 1 - window.len() <= OLD_AT_ONCE);
        }
        assert_eq!(window.len(), 30, "and soon it is gone");
        assert_eq!(window.floor(), rv(10 + count));
    }
}
