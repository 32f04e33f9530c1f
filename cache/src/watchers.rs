//! Who waits for what: the fan-out index of one lane.
//!
//! Owns one slot per open watcher, with its waker, the first event it has not read and the tick its
//! time comes at, and one entry per key somebody watches, with its slots and the recent events under it. An event visits
//! only the slots of its own keys. Nothing is ever queued for a watcher; a stalled one costs its
//! slot. Marks and parking happen under one lock, so a task that finds its slot unmarked may sleep:
//! register before looking.

use std::collections::VecDeque;
use std::task::Waker;

use crate::event::Event;
use crate::interest::{Index, Interest};
use crate::window::Sequence;

/// Marks a slot whose watcher has read everything.
const DRY: Sequence = Sequence::MAX;

/// Names a slot until it is unregistered.
pub(crate) type SlotId = u32;

/// Names a key and its slots as long as it has any.
pub(crate) type EntryId = u32;

/// A moment in the life of a lane, coarse: see [`View`](crate::view::View).
pub(crate) type Tick = u32;

/// The tick of a slot whose time has come.
const NOW: Tick = 0;

/// The tick of a slot that has no time.
const NEVER: Tick = Tick::MAX;

/// Ends a list of slots.
const NONE: SlotId = SlotId::MAX;

/// The entry of those who want everything. Always there; every event is under it.
const EVERYTHING: EntryId = 0;

/// All open watchers of a lane.
#[derive(Debug)]
pub(crate) struct Watchers {
    slots: Vec<Slot>,
    free_slots: Vec<SlotId>,
    entries: Vec<Entry>,
    free_entries: Vec<EntryId>,
    index: Index<EntryId>,
    trigger: Option<usize>,
    /// Slots an event was marked in, or found marked.
    #[cfg(test)]
    pub(crate) visited: usize,
}

#[derive(Debug)]
struct Slot {
    waker: Option<Waker>,
    /// First unread event this watcher may care about, or [`DRY`].
    unread: Sequence,
    /// The neighbours in the list of the entry, or [`NONE`].
    next: SlotId,
    previous: SlotId,
    /// When its watcher has something to do besides reading.
    due: Tick,
    /// Whether heartbeats are nothing to its watcher.
    is_quiet: bool,
}

/// What is known under one key.
#[derive(Debug)]
struct Entry {
    interest: Interest,
    head: SlotId,
    /// Events before this one are not known here.
    since: Sequence,
    /// The events since then, oldest first; for [`EVERYTHING`] it would be all.
    recent: VecDeque<Sequence>,
}

impl Watchers {
    pub(crate) fn new(trigger: Option<usize>) -> Self {
        Self {
            slots: Vec::new(),
            free_slots: Vec::new(),
            entries: vec![Entry::new(Interest::All, 0)],
            free_entries: Vec::new(),
            index: Index::new(),
            trigger,
            #[cfg(test)]
            visited: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    /// Adds a watcher that has `unread` before it, if anything. `now` is the sequence of the event
    /// to come.
    pub(crate) fn register(
        &mut self,
        interest: &Interest,
        unread: Option<Sequence>,
        now: Sequence,
    ) -> (SlotId, EntryId) {
        let entry = self.enter(interest, now);
        let next = self.entries[entry as usize].head;
        let slot = Slot {
            waker: None,
            unread: unread.unwrap_or(DRY),
            next,
            previous: NONE,
            due: NEVER,
            is_quiet: false,
        };
        let id = match self.free_slots.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                SlotId::try_from(self.slots.len() - 1).expect("fewer than four billion watchers")
            }
        };
        if next != NONE {
            self.slots[next as usize].previous = id;
        }
        self.entries[entry as usize].head = id;
        (id, entry)
    }

    fn enter(&mut self, interest: &Interest, now: Sequence) -> EntryId {
        let Some(key) = interest.key() else {
            return EVERYTHING;
        };
        if let Some(&id) = self.index.find(key) {
            return id;
        }
        let entry = Entry::new(interest.clone(), now);
        let id = match self.free_entries.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                EntryId::try_from(self.entries.len() - 1).expect("no more entries than watchers")
            }
        };
        *self.index.entry(key) = id;
        id
    }

    /// Frees the slot, and the entry with its last one.
    pub(crate) fn unregister(&mut self, id: SlotId, entry: EntryId) {
        let freed = Slot {
            waker: None,
            unread: DRY,
            next: NONE,
            previous: NONE,
            due: NEVER,
            is_quiet: false,
        };
        let Slot { next, previous, .. } = std::mem::replace(&mut self.slots[id as usize], freed);
        self.free_slots.push(id);
        if next != NONE {
            self.slots[next as usize].previous = previous;
        }
        if previous != NONE {
            self.slots[previous as usize].next = next;
            return;
        }
        self.entries[entry as usize].head = next;
        if next == NONE && entry != EVERYTHING {
            let unused = Entry::new(Interest::All, 0);
            let left = std::mem::replace(&mut self.entries[entry as usize], unused);
            let key = left.interest.key().expect("only everything has no key");
            self.index.remove(key);
            self.free_entries.push(entry);
        }
    }

    /// First unread event of a watcher.
    pub(crate) fn unread(&self, id: SlotId) -> Option<Sequence> {
        let unread = self.slots[id as usize].unread;
        (unread != DRY).then_some(unread)
    }

    pub(crate) fn set_unread(&mut self, id: SlotId, unread: Option<Sequence>) {
        self.slots[id as usize].unread = unread.unwrap_or(DRY);
    }

    /// The interest of an entry.
    pub(crate) fn interest(&self, entry: EntryId) -> &Interest {
        &self.entries[entry as usize].interest
    }

    /// From which event on those of an entry are known here.
    pub(crate) fn since(&self, entry: EntryId) -> Sequence {
        self.entries[entry as usize].since
    }

    /// The first event of an entry at or after `from` and before `end`; both not before
    /// [`Self::since`].
    pub(crate) fn next(&self, entry: EntryId, from: Sequence, end: Sequence) -> Option<Sequence> {
        if entry == EVERYTHING {
            return (from < end).then_some(from);
        }
        let recent = &self.entries[entry as usize].recent;
        // Mostly the newest.
        match recent.back() {
            Some(&newest) if newest >= from => {
                let place = recent.partition_point(|&sequence| sequence < from);
                recent.get(place).copied()
            }
            Some(_) | None => None,
        }
    }

    /// Leaves a waker to be called when the slot is marked.
    pub(crate) fn park(&mut self, id: SlotId, waker: &Waker) {
        let slot = &mut self.slots[id as usize];
        if !slot
            .waker
            .as_ref()
            .is_some_and(|parked| parked.will_wake(waker))
        {
            slot.waker = Some(waker.clone());
        }
    }

    /// Marks every slot that may care and hands out the wakers of those that slept. Events before
    /// `first` are forgotten.
    pub(crate) fn mark(
        &mut self,
        event: &Event,
        (first, sequence): (Sequence, Sequence),
        wake: &mut Vec<Waker>,
    ) {
        let trigger = self.trigger;
        let is_heartbeat = event.is_heartbeat();
        self.mark_entry(EVERYTHING, (sequence, is_heartbeat), wake);
        event.keys(trigger, |key| {
            if let Some(&entry) = self.index.find(key) {
                let recent = &mut self.entries[entry as usize].recent;
                while recent.front().is_some_and(|&oldest| oldest < first) {
                    recent.pop_front();
                }
                recent.push_back(sequence);
                self.mark_entry(entry, (sequence, is_heartbeat), wake);
            }
        });
    }

    fn mark_entry(
        &mut self,
        entry: EntryId,
        (sequence, is_heartbeat): (Sequence, bool),
        wake: &mut Vec<Waker>,
    ) {
        let mut next = self.entries[entry as usize].head;
        while next != NONE {
            let slot = &mut self.slots[next as usize];
            if slot.unread == DRY && !(is_heartbeat && slot.is_quiet) {
                slot.unread = sequence;
                wake.extend(slot.waker.take());
            }
            next = slot.next;
            #[cfg(test)]
            {
                self.visited += 1;
            }
        }
    }

    /// Heartbeats are not marked for a watcher from now on, unless it has something to read anyway.
    pub(crate) fn quieten(&mut self, id: SlotId) {
        self.slots[id as usize].is_quiet = true;
    }

    /// Whether the time of a watcher has come.
    pub(crate) fn is_due(&self, id: SlotId) -> bool {
        self.slots[id as usize].due == NOW
    }

    /// Sets the time of a watcher.
    pub(crate) fn set_due(&mut self, id: SlotId, due: Tick) {
        self.slots[id as usize].due = due.max(NOW + 1);
    }

    /// Hands out the wakers of those whose time has come.
    pub(crate) fn tick(&mut self, now: Tick, wake: &mut Vec<Waker>) {
        for slot in self.slots.iter_mut().filter(|slot| slot.due <= now) {
            slot.due = NOW;
            wake.extend(slot.waker.take());
        }
    }

    /// Hands out every waker: the state ended for all.
    pub(crate) fn wake_all(&mut self, wake: &mut Vec<Waker>) {
        wake.extend(self.slots.iter_mut().filter_map(|slot| slot.waker.take()));
    }

    /// First unread events of all watchers that have some.
    pub(crate) fn all_unread(&self) -> impl Iterator<Item = Sequence> {
        self.slots
            .iter()
            .map(|slot| slot.unread)
            .filter(|&unread| unread != DRY)
    }
}

impl Entry {
    const fn new(interest: Interest, since: Sequence) -> Self {
        Self {
            interest,
            head: NONE,
            since,
            recent: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::event::Change;
    use crate::testing::{pod, pods, rv};

    fn created(what: &str, version: u64) -> Event {
        let new = Arc::new(pod(what, version));
        Event::new(rv(version), Change::Created { new })
    }

    #[tokio::test(start_paused = true)]
    async fn slots_come_and_go_in_any_order_and_only_the_interested_are_marked() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut watchers = Watchers::new(pods().fields.trigger());
        let interests = [
            Interest::All,
            Interest::Namespace("a".into()),
            Interest::Namespace("b".into()),
            Interest::Name("a/x".into()),
            Interest::Field("n1".into()),
        ];
        let mut open = BTreeMap::new();
        for sequence in 0..500 {
            if rng.bool() || open.is_empty() {
                let interest = interests[rng.usize(..interests.len())].clone();
                let (id, entry) = watchers.register(&interest, None, sequence);
                assert_eq!(*watchers.interest(entry), interest);
                assert_eq!(
                    open.insert(id, (entry, interest, sequence)),
                    None,
                    "no slot is given twice"
                );
            } else {
                let id = *open.keys().nth(rng.usize(..open.len())).unwrap();
                watchers.unregister(id, open.remove(&id).unwrap().0);
            }
            assert_eq!(watchers.len(), open.len());
            let event = created("a/x @n1", sequence);
            watchers.mark(&event, (0, sequence), &mut Vec::new());
            for (&id, (entry, interest, since)) in &open {
                let cares = *interest != Interest::Namespace("b".into());
                assert_eq!(
                    watchers.unread(id),
                    cares.then_some(sequence),
                    "{interest:?}"
                );
                watchers.set_unread(id, None);
                assert!(watchers.since(*entry) <= *since);
                let known = watchers.next(*entry, *since, sequence + 1);
                assert_eq!(known, cares.then_some(*since), "all since then are known");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_for_one_of_100_000_indexed_watchers_visits_that_one() {
        let mut watchers = Watchers::new(pods().fields.trigger());
        for node in 0..100_000 {
            let interest = Interest::Field(format!("n{node}").into());
            watchers.register(&interest, None, 0);
        }
        watchers.mark(&created("a/x @n777", 1), (0, 1), &mut Vec::new());
        assert_eq!(watchers.visited, 1);
        let marked: Vec<_> = watchers.all_unread().collect();
        assert_eq!(marked, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_remembers_no_more_events_than_are_kept() {
        let mut watchers = Watchers::new(pods().fields.trigger());
        let (_, entry) = watchers.register(&Interest::Namespace("a".into()), None, 0);
        for sequence in 0..100 {
            let first = u64::saturating_sub(sequence, 9);
            watchers.mark(
                &created("a/x", sequence),
                (first, sequence),
                &mut Vec::new(),
            );
        }
        assert_eq!(watchers.entries[entry as usize].recent.len(), 10);
    }
}
