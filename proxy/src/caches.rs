//! The caches that are open: one for each resource and encoding somebody asked for.
//!
//! Owns: which caches exist, when they are opened (at start for what the configuration preloads and
//! what authorization depends on, at first use for the rest), why a resource is not cached, and when
//! a cache is closed (idle, refused or removed upstream, over its budget, its definition changed).
//! Refuses: to decide what a request means, and to answer one. It hands out a [`WatchCache`].
//! Invariant: at most one cache, and so one upstream watch, per resource and encoding; every cache
//! has exactly one task, tracked by the drain, and is out of the map before that task ends.
//!
//! ```text
//!   find ──► open? ──yes──► ready? ──yes──► Cached
//!              │no             └─no──► wait a little ──► Cached | NotReady
//!              └─► refused lately? configured away? not eligible? ──► Uncached(why)
//!                  else open: reflector task until idle, denied, gone, over budget, changed
//! ```

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use watershed_cache::{Observer, Options, Resource, WatchCache, Writer, encoding::Encoding};
use watershed_config::{Live, ResourceSettings, Subjects};

use crate::{
    authn::UserInfo,
    authz::{Feed, Inputs},
    discovery::{Discovered, Discovery, GroupVersionResource},
    drain::Drain,
    heartbeats::{self, LeaseFeed},
    metrics::{CacheLabels, Metrics},
    request::RequestInfo,
    upstream::Upstream,
};

mod inputs;
mod life;
mod lister;
mod preload;

/// How long a first request waits for the cache it opened before it is told to come back.
const OPENING_WAIT: Duration = Duration::from_secs(5);

/// How long a resource that could not be cached is passed through before it is tried again.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// Caches open at once. A cluster has some hundred resources; more means somebody is making them up.
const OPEN_MAX: usize = 2048;

/// Why a request is not answered from a cache. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uncached {
    /// The configuration passes this resource or encoding through.
    Configured,
    /// Discovery says it cannot be cached.
    Ineligible,
    /// It was tried a moment ago and could not be: refused, over budget, gone.
    Refused,
    /// It is being filled.
    NotReady,
}

impl Uncached {
    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Ineligible => "ineligible",
            Self::Refused => "refused",
            Self::NotReady => "not-ready",
        }
    }
}

/// Names one cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    /// The resource.
    pub(crate) gvr: GroupVersionResource,
    /// How its bytes are encoded.
    pub(crate) encoding: Encoding,
}

/// An open cache and what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Cached {
    /// The cache, ready when it was handed out.
    pub(crate) cache: WatchCache,
    /// `Warning` headers the apiserver puts on answers about this resource.
    pub(crate) warnings: Warnings,
    key: CacheKey,
    definition: Arc<str>,
    /// What it tells authorization, if it does.
    feed: Option<Arc<Feed>>,
    /// Whose watches are told of no heartbeats, if anybody's.
    without_heartbeats: Option<Arc<Subjects>>,
    stop: CancellationToken,
}

impl Cached {
    /// Whether heartbeats are nothing to the watches of a user.
    pub(crate) fn is_quiet_for(&self, user: &UserInfo) -> bool {
        let subjects = self.without_heartbeats.as_ref();
        subjects.is_some_and(|it| it.contains(&user.name, &user.groups))
    }
}

/// The `Warning` headers last seen upstream, shared with the lister that sees them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<HeaderValue>>>);

impl Warnings {
    /// What to put on an answer.
    pub(crate) fn current(&self) -> Vec<HeaderValue> {
        self.0.lock().clone()
    }

    fn replace(&self, seen: Vec<HeaderValue>) {
        *self.0.lock() = seen;
    }
}

/// Who is told what by caches, besides those who read them.
pub(crate) struct Told {
    /// Authorization.
    pub(crate) inputs: Inputs,
    /// Absorption, of leases, if there is any.
    pub(crate) leases: Option<LeaseFeed>,
    /// Whose watches of Nodes are told of no heartbeats.
    pub(crate) without_heartbeats: Arc<Subjects>,
}

/// The open caches. Clones share them.
#[derive(Clone)]
pub(crate) struct Caches {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Upstream,
    discovery: Discovery,
    live: watch::Receiver<Arc<Live>>,
    drain: Drain,
    metrics: Metrics,
    /// The threads watches live on.
    workers: watershed_cache::Workers,
    told: Told,
    open: Mutex<HashMap<CacheKey, Cached>>,
    /// Until when a key is not tried again. Bounded by [`OPEN_MAX`].
    refused: Mutex<HashMap<CacheKey, Instant>>,
}

impl Caches {
    /// No cache is open yet; the preloading task opens what the configuration names and keeps it open.
    pub(crate) fn start(
        upstream: Upstream,
        live: watch::Receiver<Arc<Live>>,
        drain: Drain,
        metrics: Metrics,
        workers: watershed_cache::Workers,
        told: Told,
    ) -> Self {
        let caches = Self {
            shared: Arc::new(Shared {
                discovery: Discovery::new(upstream.clone()),
                upstream,
                live,
                drain: drain.clone(),
                metrics,
                workers,
                told,
                open: Mutex::default(),
                refused: Mutex::default(),
            }),
        };
        drain.spawn(preload::run(caches.clone(), drain.leaving().clone()));
        drain.spawn(inputs::run(caches.clone(), drain.leaving().clone()));
        caches
    }

    /// The cache that may answer for `key`, opened if it has to be.
    pub(crate) async fn find(&self, key: &CacheKey) -> Result<Cached, Uncached> {
        let open = self.shared.open.lock().get(key).cloned();
        match open {
            Some(cached) if cached.cache.is_ready() => Ok(cached),
            // Boxed: most requests find a ready cache and need no room to wait for one.
            open => Box::pin(self.wait_for(key, open)).await,
        }
    }

    /// The cache for `key`, if it is open and ready.
    pub(crate) fn ready(&self, key: &CacheKey) -> Option<WatchCache> {
        let open = self.shared.open.lock();
        let cache = &open.get(key)?.cache;
        cache.is_ready().then(|| cache.clone())
    }

    async fn wait_for(&self, key: &CacheKey, open: Option<Cached>) -> Result<Cached, Uncached> {
        let cached = match open {
            Some(cached) => cached,
            None => self.open(key).await?,
        };
        if cached.cache.is_ready() {
            return Ok(cached);
        }
        let closed = cached.stop.cancelled();
        tokio::select! {
            () = cached.cache.ready() => {}
            () = closed => return Err(Uncached::Refused),
            () = tokio::time::sleep(OPENING_WAIT) => return Err(Uncached::NotReady),
        }
        Ok(cached)
    }

    /// How long the cache for `key` has not been ready, as far as there is one.
    pub(crate) fn unready_for(&self, key: &CacheKey) -> Duration {
        let open = self.shared.open.lock();
        open.get(key)
            .filter(|cached| !cached.cache.is_ready())
            .map_or(Duration::ZERO, |cached| cached.cache.since_change())
    }

    /// What is known of a resource the configuration does not pass through. While a cache of it is
    /// ready nobody is asked, so that reads go on when discovery cannot be.
    pub(crate) async fn resource(
        &self,
        gvr: &GroupVersionResource,
    ) -> Result<Arc<Resource>, Uncached> {
        let GroupVersionResource {
            group,
            version,
            resource,
        } = gvr;
        let live = Arc::clone(&self.shared.live.borrow());
        if live.cache.settings(group, version, resource).is_none() {
            return Err(Uncached::Configured);
        }
        if let Some(known) = self.shared.ready_resource(gvr) {
            return Ok(known);
        }
        match Box::pin(self.shared.discovery.resource(gvr)).await {
            Ok(discovered) => Ok(Arc::new(discovered.resource.clone())),
            Err(_) => Err(Uncached::Ineligible),
        }
    }

    /// Whether a request names a resource that has a cache now.
    pub(crate) fn knows(&self, info: &RequestInfo) -> bool {
        let named = |key: &CacheKey| {
            *key.gvr.resource == *info.resource
                && *key.gvr.group == *info.group
                && *key.gvr.version == *info.version
        };
        self.shared.open.lock().keys().any(named)
    }

    /// What authorization depends on and can be had, by name, and whether it is all there. For
    /// readiness.
    pub(crate) fn inputs(&self) -> Vec<(String, bool)> {
        let inputs = &self.shared.told.inputs;
        let fed = inputs.wanted().filter_map(|(group, resource)| {
            let cache = inputs.cache_of(group, resource)?;
            Some((qualified(resource, group), cache.is_ready()))
        });
        fed.collect()
    }

    /// Every open cache, in no particular order.
    pub(crate) fn all(&self) -> Vec<(CacheKey, WatchCache)> {
        let open = self.shared.open.lock();
        open.iter()
            .map(|(key, cached)| (key.clone(), cached.cache.clone()))
            .collect()
    }

    /// The caches the configuration preloads, by name, and each if it is open. For readiness.
    pub(crate) fn preloaded(&self) -> Vec<(String, Option<WatchCache>)> {
        let live = self.shared.live.borrow().clone();
        let open = self.shared.open.lock();
        let mut found = Vec::new();
        for entry in live.cache.resources.iter().filter(|entry| entry.preload) {
            for encoding in entry.settings.encodings.iter().map(preload::encoding) {
                let named =
                    |key: &CacheKey| preload::names(entry, &key.gvr) && key.encoding == encoding;
                let cache = open
                    .iter()
                    .find(|(key, _)| named(key))
                    .map(|(_, it)| it.cache.clone());
                let name = qualified(&entry.resource, &entry.group);
                found.push((format!("{name}-{}", label(encoding)), cache));
            }
        }
        found
    }

    async fn open(&self, key: &CacheKey) -> Result<Cached, Uncached> {
        let settings = self.shared.settings(key).ok_or(Uncached::Configured)?;
        if self.shared.is_refused(key) {
            return Err(Uncached::Refused);
        }
        let Ok(discovered) = self.shared.discovery.resource(&key.gvr).await else {
            return Err(Uncached::Ineligible);
        };
        if discovered.resource.custom && key.encoding == Encoding::Protobuf {
            return Err(Uncached::Ineligible);
        }
        let mut open = self.shared.open.lock();
        if let Some(cached) = open.get(key) {
            return Ok(cached.clone());
        }
        if open.len() >= OPEN_MAX || self.shared.drain.leaving().is_cancelled() {
            return Err(Uncached::Refused);
        }
        let (cached, writer) = self.shared.build(key, &discovered, &settings);
        open.insert(key.clone(), cached.clone());
        drop(open);
        tracing::info!(cache = %key, "cache opened");
        let shared = Arc::clone(&self.shared);
        self.shared
            .drain
            .spawn_background(life::run(shared, cached.clone(), writer));
        Ok(cached)
    }
}

impl Shared {
    /// The caller holds the lock of the open caches.
    fn build(
        &self,
        key: &CacheKey,
        discovered: &Discovered,
        settings: &ResourceSettings,
    ) -> (Cached, Writer) {
        let feed = self.told.inputs.feed(&key.gvr.group, &key.gvr.resource);
        let spared = &self.told.without_heartbeats;
        let is_spared = heartbeats::NODES.contains(key) && !spared.is_empty();
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let options = Options {
            objects_bytes: bytes(settings.objects),
            history_bytes: bytes(settings.history_bytes),
            history_age: settings.history_age,
            workers: self.workers.clone(),
            heartbeats: is_spared,
            observer: match &feed {
                Some(feed) => Some(Arc::clone(feed) as _),
                None => self.observer_of_leases(key),
            },
            ..Options::default()
        };
        let resource = Arc::new(discovered.resource.clone());
        let (writer, cache) = WatchCache::new(resource, key.encoding, options);
        if let Some(feed) = &feed {
            self.told.inputs.feeds(feed, &cache);
        }
        let cached = Cached {
            cache,
            warnings: Warnings::default(),
            key: key.clone(),
            definition: discovered.definition.as_str().into(),
            feed,
            without_heartbeats: is_spared.then(|| Arc::clone(spared)),
            stop: CancellationToken::new(),
        };
        (cached, writer)
    }

    fn observer_of_leases(&self, key: &CacheKey) -> Option<Arc<dyn Observer>> {
        let is_lease = heartbeats::LEASES.contains(key);
        let feed = self.told.leases.clone().filter(|_| is_lease)?;
        Some(Arc::new(feed))
    }

    /// Whether absorption needs the cache, once it is open.
    fn absorbs_by(&self, key: &CacheKey) -> bool {
        let is_input = heartbeats::LEASES.contains(key) || heartbeats::NODES.contains(key);
        self.told.leases.is_some() && is_input
    }

    /// `None` when the configuration passes the resource or the encoding through.
    fn settings(&self, key: &CacheKey) -> Option<ResourceSettings> {
        let GroupVersionResource {
            group,
            version,
            resource,
        } = &key.gvr;
        let live = self.live.borrow();
        let settings = live.cache.settings(group, version, resource)?;
        let is_wanted = settings
            .encodings
            .iter()
            .any(|it| preload::encoding(it) == key.encoding);
        is_wanted.then(|| settings.clone())
    }

    /// The resource of a ready cache, in whichever encoding there is one.
    fn ready_resource(&self, gvr: &GroupVersionResource) -> Option<Arc<Resource>> {
        let open = self.open.lock();
        [Encoding::Protobuf, Encoding::Json]
            .into_iter()
            .find_map(|encoding| {
                let gvr = gvr.clone();
                let cached = open.get(&CacheKey { gvr, encoding })?;
                cached
                    .cache
                    .is_ready()
                    .then(|| Arc::clone(cached.cache.resource()))
            })
    }

    fn is_preloaded(&self, key: &CacheKey) -> bool {
        let live = self.live.borrow();
        live.cache
            .resources
            .iter()
            .any(|entry| entry.preload && preload::names(entry, &key.gvr))
    }

    fn is_refused(&self, key: &CacheKey) -> bool {
        let mut refused = self.refused.lock();
        match refused.get(key) {
            Some(until) if *until > Instant::now() => true,
            Some(_) => {
                refused.remove(key);
                false
            }
            None => false,
        }
    }

    fn refuse(&self, key: &CacheKey) {
        let now = Instant::now();
        let mut refused = self.refused.lock();
        if refused.len() >= OPEN_MAX {
            refused.retain(|_, until| *until > now);
        }
        if refused.len() < OPEN_MAX {
            refused.insert(key.clone(), now + REFUSED_FOR);
        }
    }
}

/// The labels of a cache's metrics.
pub(crate) fn labels(cache: &WatchCache) -> CacheLabels {
    let Resource {
        group,
        version,
        resource,
        ..
    } = &**cache.resource();
    CacheLabels {
        group: group.to_string(),
        version: version.to_string(),
        resource: resource.to_string(),
        encoding: label(cache.encoding()),
    }
}

/// A resource with its group, as in `deployments.apps`; the core group has no name.
fn qualified(resource: &str, group: &str) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    format!("{resource}{dot}{group}")
}

const fn label(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "json",
        Encoding::Protobuf => "protobuf",
    }
}

fn forget_metrics(metrics: &Metrics, cache: &WatchCache) {
    let labels = labels(cache);
    metrics.upstream_watches.remove(&labels);
    metrics.cache.objects.remove(&labels);
    metrics.cache.bytes.remove(&labels);
    metrics.cache.history_bytes.remove(&labels);
    metrics.cache.resource_version.remove(&labels);
    metrics.cache.lag_seconds.remove(&labels);
}

impl std::fmt::Display for CacheKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let GroupVersionResource {
            group,
            version,
            resource,
        } = &self.gvr;
        let (name, encoding) = (qualified(resource, group), label(self.encoding));
        write!(formatter, "{name}/{version} ({encoding})")
    }
}
