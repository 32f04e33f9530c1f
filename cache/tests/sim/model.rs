//! The naive model: it keeps everything that was ever written and computes every answer from the
//! whole log.
//!
//! It shares no code with the cache. Positions are indices into the log; a version may stand for
//! several of them, because deletions by expiry come several to a version.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::thing::{Form, Thing};
use crate::wanted::Wanted;

/// Objects by key.
pub(crate) type State = BTreeMap<String, Arc<Thing>>;

/// Versions of the selected objects by key.
pub(crate) type View = BTreeMap<String, u64>;

/// One write: what was there before and what is there after it.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) version: u64,
    pub(crate) old: Option<Arc<Thing>>,
    new: Option<Arc<Thing>>,
}

/// Everything that was written.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) form: Form,
    pub(crate) log: Vec<Write>,
    /// The state before each write, and the newest.
    states: Vec<State>,
    /// Newest version of the storage, which other resources share.
    pub(crate) version: u64,
    /// Longest text of an object.
    note_max: usize,
    uid: u64,
}

impl Write {
    /// Whether it said no more than that a kubelet is alive.
    pub(crate) fn is_heartbeat(&self) -> bool {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => old.content == new.content,
            _ => false,
        }
    }
}

impl Thing {
    /// What version of it somebody knows who is told of all that is for him.
    pub(crate) fn seen_at(&self, wanted: &Wanted) -> u64 {
        if wanted.is_quiet {
            self.content
        } else {
            self.version
        }
    }
}

impl History {
    pub(crate) fn new(form: Form, note_max: usize) -> Self {
        Self {
            form,
            log: Vec::new(),
            states: vec![State::new()],
            version: 1,
            note_max,
            uid: 0,
        }
    }

    /// How many writes there are up to a version.
    pub(crate) fn position(&self, version: u64) -> usize {
        self.log.partition_point(|write| write.version <= version)
    }

    /// The state after so many writes.
    pub(crate) fn state(&self, position: usize) -> &State {
        &self.states[position]
    }

    /// The state at a version.
    pub(crate) fn at(&self, version: u64) -> &State {
        self.state(self.position(version))
    }

    /// Positions whose version is `version`: one, or some more when several writes share it.
    pub(crate) fn positions(&self, version: u64) -> std::ops::RangeInclusive<usize> {
        let last = self.position(version);
        let before = self.log.partition_point(|write| write.version < version);
        last.min(before + 1)..=last
    }

    /// What a selection sees after so many writes; for who does without heartbeats, the version of
    /// the last write that was more than one.
    pub(crate) fn view(&self, position: usize, wanted: &Wanted) -> View {
        self.selected(position, wanted)
            .map(|thing| (thing.key(), thing.seen_at(wanted)))
            .collect()
    }

    /// The selected objects after so many writes, in key order.
    pub(crate) fn selected(
        &self,
        position: usize,
        wanted: &Wanted,
    ) -> impl Iterator<Item = &Arc<Thing>> {
        let things = self.state(position).values();
        things.filter(|thing| wanted.selects(thing))
    }

    /// The frame a selection gets for the write at `position`, if any, and what it does to a view.
    pub(crate) fn frame(&self, position: usize, wanted: &Wanted) -> Option<(Vec<u8>, Effect)> {
        let Write { version, old, new } = &self.log[position];
        if wanted.is_quiet && self.log[position].is_heartbeat() {
            return None;
        }
        let passes = |thing: &&Arc<Thing>| wanted.selects(thing);
        let seen = old.as_ref().filter(passes);
        let (event_type, object, effect) = match (seen, new.as_ref().filter(passes)) {
            (None, None) => return None,
            (None, Some(new)) => ("ADDED", new, Effect::Enters(new.key(), *version)),
            (Some(_), Some(new)) => ("MODIFIED", new, Effect::Changes(new.key(), *version)),
            (Some(old), None) => ("DELETED", old, Effect::Leaves(old.key())),
        };
        let object = object.object(self.form, *version);
        Some((self.form.event(event_type, &object), effect))
    }

    /// How many of these writes somebody is not told of because they are heartbeats.
    pub(crate) fn spared(&self, range: std::ops::Range<usize>, wanted: &Wanted) -> usize {
        let is_spared = |write: &&Write| {
            let is_wanted = write.new.as_ref().is_some_and(|new| wanted.selects(new));
            wanted.is_quiet && write.is_heartbeat() && is_wanted
        };
        self.log[range].iter().filter(is_spared).count()
    }

    /// Creates, changes or deletes some object.
    pub(crate) fn write(&mut self, rng: &mut fastrand::Rng) {
        self.version += rng.u64(1..4);
        let key = (["a", "a-b", "b"][rng.usize(..3)], rng.u8(..6));
        let is_there = self.newest().contains_key(&format!("{}/p{}", key.0, key.1));
        let new = (!is_there || rng.u8(..3) > 0).then(|| self.invent(key, rng));
        self.push(key, new);
    }

    /// Deletes an object and creates another of its name at once.
    pub(crate) fn recreate(&mut self, rng: &mut fastrand::Rng) {
        let Some(victim) = self.some(rng) else { return };
        self.version += 1;
        self.remove(&victim);
        self.version += 1;
        self.uid += 1;
        let number = victim.name[1..].parse().expect("pN");
        let new = self.invent((victim.namespace, number), rng);
        self.push((victim.namespace, number), Some(new));
    }

    /// Deletes several objects at one version, as leases that expire together do.
    pub(crate) fn expire(&mut self, rng: &mut fastrand::Rng) {
        self.version += rng.u64(1..4);
        for _ in 0..rng.usize(2..5) {
            if let Some(victim) = self.some(rng) {
                self.remove(&victim);
            }
        }
    }

    /// The kubelet of some object says that it is alive.
    pub(crate) fn beat(&mut self, rng: &mut fastrand::Rng) {
        let Some(old) = self.some(rng) else { return };
        self.version += rng.u64(1..4);
        let number = old.name[1..].parse().expect("pN");
        // The first is the first of its manager; and in protobuf a longer version changes the
        // lengths around it, which nobody looks through.
        let digits = |version: u64| version.to_string().len();
        let is_longer = digits(old.version) < digits(self.version);
        let is_more = old.beats == 0 || (is_longer && self.form == Form::Protobuf);
        let new = Thing {
            name: old.name.clone(),
            labels: old.labels.clone(),
            note: old.note.clone(),
            beats: old.beats + 1,
            content: if is_more { self.version } else { old.content },
            version: self.version,
            own: std::sync::OnceLock::new(),
            ..*old
        };
        self.push((old.namespace, number), Some(new));
    }

    fn newest(&self) -> &State {
        self.states.last().expect("there is the empty one")
    }

    fn some(&self, rng: &mut fastrand::Rng) -> Option<Arc<Thing>> {
        let state = self.newest();
        let choice = rng.usize(..state.len().max(1));
        state.values().nth(choice).cloned()
    }

    fn invent(&mut self, (namespace, name): (&'static str, u8), rng: &mut fastrand::Rng) -> Thing {
        let name = format!("p{name}");
        let old = self.newest().get(&format!("{namespace}/{name}"));
        let beats = old.map_or(0, |old| old.beats);
        let uid = old.map_or(self.uid + 1, |old| old.uid);
        self.uid = self.uid.max(uid);
        let values = [
            ("app", rng.choice(["web", "db", "other"])),
            ("tier", rng.choice(["front", "back"])),
            ("weight", rng.choice(["1", "2", "3", "heavy"])),
        ];
        let labels = values.map(|(key, value)| (key, value.expect("there are some")));
        let labels = labels.into_iter().filter(|_| rng.u8(..4) > 0).collect();
        let quote = "\"}{ü\\";
        Thing {
            namespace,
            name,
            uid,
            node: ["", "n1", "n2"][rng.usize(..3)],
            phase: ["Pending", "Running", "Failed", ""][rng.usize(..4)],
            labels,
            note: format!("{quote}{}", "x".repeat(rng.usize(..=self.note_max))),
            beats,
            content: self.version,
            version: self.version,
            own: std::sync::OnceLock::new(),
        }
    }

    fn remove(&mut self, victim: &Thing) {
        let number = victim.name[1..].parse().expect("pN");
        self.push((victim.namespace, number), None);
    }

    fn push(&mut self, (namespace, name): (&'static str, u8), new: Option<Thing>) {
        let key = format!("{namespace}/p{name}");
        let mut state = self.newest().clone();
        let new = new.map(Arc::new);
        let old = match &new {
            Some(new) => state.insert(key, Arc::clone(new)),
            None => state.remove(&key),
        };
        self.states.push(state);
        self.log.push(Write {
            version: self.version,
            old,
            new,
        });
    }
}

/// What an event does to a view.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Enters(String, u64),
    Changes(String, u64),
    Leaves(String),
}

impl Effect {
    /// Whether the view was as the event says it was.
    pub(crate) fn fold(self, view: &mut View) -> bool {
        match self {
            Self::Enters(key, version) => view.insert(key, version).is_none(),
            Self::Changes(key, version) => {
                view.insert(key, version).is_some_and(|old| old < version)
            }
            Self::Leaves(key) => view.remove(&key).is_some(),
        }
    }
}
