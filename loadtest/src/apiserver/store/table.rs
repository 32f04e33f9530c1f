//! The objects of one resource, every version of them back to the compaction, and the resource's
//! watch cache.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use super::event::{Event, EventKind};
use super::history::History;
use super::leases::Leases;
use super::object::{Stored, trigger_value};
use super::watchers::{Scope, Subscription, Watchers};
use super::{Profile, Start, StoreError};

#[derive(Debug)]
struct Version {
    revision: u64,
    object: Option<Arc<Stored>>,
}

#[derive(Debug)]
pub(super) struct Table {
    /// Versions of each key, oldest first; the last may be a tombstone.
    chains: BTreeMap<String, Vec<Version>>,
    /// Keys of current objects by the value they are indexed by.
    by_trigger: BTreeMap<String, BTreeSet<String>>,
    /// Writes that superseded a version, oldest first: what can be trimmed.
    superseded: VecDeque<(u64, String)>,
    compacted: u64,
    pub(super) leases: Leases,
    history: History,
    pub(super) watchers: Watchers,
    /// The cache's resource version.
    pub(super) progress: watch::Sender<u64>,
    /// Events a frozen cache has not seen.
    withheld: VecDeque<Arc<Event>>,
    cached: bool,
}

impl Table {
    pub(super) fn new(revision: u64, cached: bool, profile: &Profile) -> Self {
        Self {
            chains: BTreeMap::new(),
            by_trigger: BTreeMap::new(),
            superseded: VecDeque::new(),
            compacted: 0,
            leases: Leases::default(),
            history: History::new(revision, cached, profile),
            watchers: Watchers::default(),
            progress: watch::Sender::new(revision),
            withheld: VecDeque::new(),
            cached,
        }
    }

    pub(super) fn cache_version(&self) -> u64 {
        *self.progress.borrow()
    }

    pub(super) fn listed_at(&self) -> u64 {
        self.history.listed_at()
    }

    pub(super) fn latest(&self, key: &str) -> Option<&Arc<Stored>> {
        self.chains
            .get(key)
            .and_then(|chain| chain.last())
            .and_then(|v| v.object.as_ref())
    }

    pub(super) fn version_at(&self, key: &str, revision: u64) -> Option<&Arc<Stored>> {
        self.chains
            .get(key)
            .and_then(|chain| version_of(chain, revision))
    }

    pub(super) fn expect(
        &self,
        key: &str,
        expected: Option<u64>,
    ) -> Result<Arc<Stored>, StoreError> {
        let current = self.latest(key).ok_or(StoreError::NotFound)?;
        match expected {
            Some(expected) if expected != current.resource_version => Err(StoreError::Conflict {
                current: current.resource_version,
            }),
            Some(_) | None => Ok(Arc::clone(current)),
        }
    }

    /// Objects of a scope in key order, as of a revision.
    pub(super) fn scan(&self, scope: &Scope, revision: u64) -> Vec<Arc<Stored>> {
        match scope {
            Scope::All => self
                .chains
                .values()
                .filter_map(|c| version_of(c, revision))
                .cloned()
                .collect(),
            Scope::Key(key) => self
                .version_at(key, revision)
                .into_iter()
                .cloned()
                .collect(),
            Scope::Namespace(namespace) => {
                // '0' follows '/' in ASCII: the range holds every key of the namespace.
                let (from, to) = (format!("{namespace}/"), format!("{namespace}0"));
                self.chains
                    .range::<str, _>((Bound::Included(from.as_str()), Bound::Excluded(to.as_str())))
                    .filter_map(|(_, chain)| version_of(chain, revision))
                    .cloned()
                    .collect()
            }
            Scope::Trigger(value) => self.scan_trigger(value, revision),
        }
    }

    /// The index knows current objects only; where a later write may have moved one, all are looked
    /// at.
    fn scan_trigger(&self, value: &str, revision: u64) -> Vec<Arc<Stored>> {
        let newest = self.superseded.back().map_or(0, |(newest, _)| *newest);
        if revision < newest {
            return self.scan(&Scope::All, revision);
        }
        let keys = self.by_trigger.get(value);
        keys.into_iter()
            .flatten()
            .filter_map(|key| self.version_at(key, revision))
            .cloned()
            .collect()
    }

    pub(super) fn scan_exact(
        &self,
        scope: &Scope,
        revision: u64,
    ) -> Result<Vec<Arc<Stored>>, StoreError> {
        if revision < self.compacted {
            return Err(StoreError::Compacted);
        }
        Ok(self.scan(scope, revision))
    }

    pub(super) fn put(&mut self, object: &Arc<Stored>, frozen: bool, profile: &Profile) {
        let previous = self.latest(&object.key).cloned();
        self.write(
            &object.key,
            object.resource_version,
            Some(Arc::clone(object)),
            profile,
        );
        let kind = if previous.is_some() {
            EventKind::Updated
        } else {
            EventKind::Created
        };
        self.announce(
            Event::new(kind, Arc::clone(object), previous),
            frozen,
            profile,
        );
    }

    pub(super) fn remove(
        &mut self,
        current: &Arc<Stored>,
        revision: u64,
        frozen: bool,
        profile: &Profile,
    ) -> Arc<Stored> {
        let last = Arc::new(current.at(revision));
        self.leases.detach(&current.key);
        self.write(&current.key, revision, None, profile);
        let previous = Some(Arc::clone(current));
        self.announce(
            Event::new(EventKind::Removed, Arc::clone(&last), previous),
            frozen,
            profile,
        );
        last
    }

    fn write(&mut self, key: &str, revision: u64, object: Option<Arc<Stored>>, profile: &Profile) {
        self.index(key, object.as_deref());
        let chain = self.chains.entry(key.to_owned()).or_default();
        if !chain.is_empty() {
            self.superseded.push_back((revision, key.to_owned()));
        }
        chain.push(Version { revision, object });
        while self.superseded.len() > profile.versions_max {
            if let Some((revision, key)) = self.superseded.pop_front() {
                self.compacted = self.compacted.max(revision);
                self.trim(&key, revision);
            }
        }
    }

    fn index(&mut self, key: &str, object: Option<&Stored>) {
        let value_of = |storage_object: &Stored| {
            let kind = storage_object.value["kind"].as_str().unwrap_or("");
            let storage = match kind {
                "Pod" => "pods",
                "ResourceSlice" => "resourceslices.resource.k8s.io",
                _ => return None,
            };
            trigger_value(storage, &storage_object.value).map(str::to_owned)
        };
        let old = self.latest(key).and_then(|object| value_of(object));
        let new = object.and_then(value_of);
        if old == new {
            return;
        }
        if let Some(old) = old
            && let Some(keys) = self.by_trigger.get_mut(&old)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_trigger.remove(&old);
            }
        }
        if let Some(new) = new {
            self.by_trigger
                .entry(new)
                .or_default()
                .insert(key.to_owned());
        }
    }

    /// Drops the versions of a key that no read at `revision` or later can see.
    fn trim(&mut self, key: &str, revision: u64) {
        let Some(chain) = self.chains.get_mut(key) else {
            return;
        };
        let keep = chain.partition_point(|version| version.revision <= revision);
        chain.drain(..keep.saturating_sub(1));
        let dead =
            matches!(chain.as_slice(), [Version { revision: r, object: None }] if *r <= revision);
        if dead {
            self.chains.remove(key);
        }
    }

    pub(super) fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision);
        self.history.compact(revision);
        while self
            .superseded
            .front()
            .is_some_and(|(at, _)| *at <= revision)
        {
            if let Some((at, key)) = self.superseded.pop_front() {
                self.trim(&key, at);
            }
        }
    }

    fn announce(&mut self, event: Event, frozen: bool, profile: &Profile) {
        let event = Arc::new(event);
        if frozen && self.cached {
            if self.withheld.len() >= profile.versions_max {
                self.withheld.pop_front();
            }
            self.withheld.push_back(event);
        } else {
            self.deliver(event, profile);
        }
    }

    fn deliver(&mut self, event: Arc<Event>, profile: &Profile) {
        self.history.push(Arc::clone(&event), profile);
        self.watchers.dispatch(&event);
        self.advance(event.resource_version);
    }

    /// Moves the cache's resource version forward.
    pub(super) fn advance(&mut self, revision: u64) {
        self.progress.send_if_modified(|current| {
            let forward = revision > *current;
            *current = revision.max(*current);
            forward
        });
    }

    pub(super) fn thaw(&mut self, profile: &Profile) {
        while let Some(event) = self.withheld.pop_front() {
            self.deliver(event, profile);
        }
    }

    /// Takes the cache back to a revision its history still reaches.
    pub(super) fn fall_behind(&mut self, revision: u64, profile: &Profile) {
        let back = revision.min(self.cache_version());
        let Ok(later) = self.history.after(back) else {
            return;
        };
        if self.cached {
            let withheld = std::mem::take(&mut self.withheld);
            self.withheld = later.into_iter().chain(withheld).collect();
            self.history = History::new(back, true, profile);
            self.watchers = Watchers::default();
            self.progress.send_replace(back);
        }
    }

    pub(super) fn restart_cache(&mut self, revision: u64, profile: &Profile) {
        if self.cached {
            self.history = History::new(revision, true, profile);
        }
        self.withheld.clear();
        self.watchers = Watchers::default();
        self.advance(revision);
    }

    pub(super) fn subscribe(
        &mut self,
        id: u64,
        scope: Scope,
        start: Start,
        (cached, revision): (bool, u64),
    ) -> Result<Subscription, StoreError> {
        let current = if cached {
            self.cache_version()
        } else {
            revision
        };
        let (initial, history, start_version) = match start {
            Start::Initial => (self.scan(&scope, current), Vec::new(), current),
            Start::After(requested) => (Vec::new(), self.history.after(requested)?, requested),
        };
        let events = self.watchers.add(id, scope.clone());
        Ok(Subscription::new(
            id,
            scope,
            (initial, history, start_version),
            events,
        ))
    }
}

fn version_of(chain: &[Version], revision: u64) -> Option<&Arc<Stored>> {
    let count = chain.partition_point(|version| version.revision <= revision);
    chain[..count]
        .last()
        .and_then(|version| version.object.as_ref())
}
