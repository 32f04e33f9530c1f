//! Who waits for what: the fan-out index.
//!
//! Owns one slot per open watcher: its waker and the first event it has not read. An event visits
//! only the slots registered under one of its keys. Nothing is ever queued for a watcher; a stalled
//! one costs its slot. The writer marks slots under the lock that also guards the window and wakes
//! the tasks after it let go, so a task that finds its slot unmarked may sleep: publish state
//! before news, register before looking.

use std::task::Waker;

use crate::event::Event;
use crate::interest::{Index, Interest};
use crate::window::Sequence;

/// Marks a slot whose watcher has read everything.
const DRY: Sequence = Sequence::MAX;

/// Names a slot until it is unregistered.
pub(crate) type SlotId = u32;

/// All open watchers of a view.
#[derive(Debug)]
pub(crate) struct Watchers {
    slots: Vec<Slot>,
    free: Vec<SlotId>,
    all: Vec<SlotId>,
    index: Index<Vec<SlotId>>,
    trigger: Option<usize>,
}

#[derive(Debug)]
struct Slot {
    waker: Option<Waker>,
    /// First unread event this watcher may care about, or [`DRY`].
    unread: Sequence,
    /// Where in its list of the index the slot stands.
    place: u32,
}

impl Watchers {
    pub(crate) fn new(trigger: Option<usize>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            all: Vec::new(),
            index: Index::new(),
            trigger,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a watcher that has `unread` before it, if anything.
    pub(crate) fn register(&mut self, interest: &Interest, unread: Option<Sequence>) -> SlotId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                waker: None,
                unread: DRY,
                place: 0,
            });
            SlotId::try_from(self.slots.len() - 1).expect("fewer than four billion watchers")
        });
        let list = match interest.key() {
            None => &mut self.all,
            Some(key) => self.index.entry(key),
        };
        let place = SlotId::try_from(list.len()).expect("fewer than four billion watchers");
        list.push(id);
        self.slots[id as usize] = Slot {
            waker: None,
            unread: unread.unwrap_or(DRY),
            place,
        };
        id
    }

    /// Frees the slot; `interest` is the one it was registered with.
    pub(crate) fn unregister(&mut self, id: SlotId, interest: &Interest) {
        let place = self.slots[id as usize].place as usize;
        let list = match interest.key() {
            None => &mut self.all,
            Some(key) => self
                .index
                .find_mut(key)
                .expect("a registered slot is listed"),
        };
        assert_eq!(list.swap_remove(place), id, "a slot knows its place");
        if let Some(&moved) = list.get(place) {
            self.slots[moved as usize].place = self.slots[id as usize].place;
        }
        if let Some(key) = interest.key()
            && list.is_empty()
        {
            self.index.remove(key);
        }
        self.slots[id as usize] = Slot {
            waker: None,
            unread: DRY,
            place: 0,
        };
        self.free.push(id);
    }

    /// First unread event of a watcher.
    pub(crate) fn unread(&self, id: SlotId) -> Option<Sequence> {
        let unread = self.slots[id as usize].unread;
        (unread != DRY).then_some(unread)
    }

    pub(crate) fn set_unread(&mut self, id: SlotId, unread: Option<Sequence>) {
        self.slots[id as usize].unread = unread.unwrap_or(DRY);
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

    /// Marks every slot that may care and hands out the wakers of those that slept.
    pub(crate) fn mark(&mut self, event: &Event, sequence: Sequence, wake: &mut Vec<Waker>) {
        let Self {
            slots,
            all,
            index,
            trigger,
            ..
        } = self;
        let mut mark = |id: &SlotId| {
            let slot = &mut slots[*id as usize];
            if slot.unread == DRY {
                slot.unread = sequence;
                wake.extend(slot.waker.take());
            }
        };
        all.iter().for_each(&mut mark);
        event.keys(*trigger, |key| {
            if let Some(list) = index.find(key) {
                list.iter().for_each(&mut mark);
            }
        });
    }

    /// Hands out every waker: the view ended for all.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::event::Change;
    use crate::testing::{pod, pods, rv};

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
                let id = watchers.register(&interest, None);
                assert_eq!(open.insert(id, interest), None, "no slot is given twice");
            } else {
                let id = *open.keys().nth(rng.usize(..open.len())).unwrap();
                watchers.unregister(id, &open.remove(&id).unwrap());
            }
            assert_eq!(watchers.len(), open.len());
            let event = Event::new(
                rv(sequence),
                Change::Created {
                    new: Arc::new(pod("a/x @n1", sequence)),
                },
                &Arc::default(),
            );
            watchers.mark(&event, sequence, &mut Vec::new());
            for (&id, interest) in &open {
                let cares = *interest != Interest::Namespace("b".into());
                assert_eq!(
                    watchers.unread(id),
                    cares.then_some(sequence),
                    "{interest:?}"
                );
                watchers.set_unread(id, None);
            }
        }
    }
}
