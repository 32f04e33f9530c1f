//! What the admin listener asks: is the proxy ready, and what do its gauges read.
//!
//! Owns: the checks behind `/readyz` and the reading of cache statistics when metrics are scraped.
//! Refuses: to make liveness depend on an apiserver. A proxy that restarts because its upstream is
//! away would lose its caches and bring the load back at the worst moment.
//! Invariant: the proxy is ready when every preloaded cache has synced once, and whatever it may
//! watch of what authorization depends on, when an apiserver was reachable when last asked, and no
//! stream of a preloaded cache has been silent for longer than [`STALE_AFTER`].

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    admin::{Check, Probe},
    authz::Inputs,
    caches::{CacheKey, Caches, labels},
    heartbeats::Absorber,
    metrics::Metrics,
    upstream::Upstream,
};

/// How long an upstream stream may give no sign of life before the proxy is not ready. An apiserver
/// sends bookmarks every minute; the reflector gives a stream up after two and a half.
const STALE_AFTER: Duration = Duration::from_secs(300);

/// Looks at the parts of a proxy. Clones look at the same.
#[derive(Clone)]
pub(crate) struct Health {
    caches: Caches,
    inputs: Inputs,
    upstream: Upstream,
    absorber: Option<Absorber>,
    metrics: Metrics,
    /// What the counters of each cache read at the last scrape, so that only growth is added.
    counted: Arc<Mutex<std::collections::HashMap<CacheKey, Counted>>>,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    relists: u64,
    delivered: u64,
    cuts: u64,
    malformed: u64,
}

impl Health {
    pub(crate) fn new(
        (caches, inputs, upstream): (Caches, Inputs, Upstream),
        absorber: Option<Absorber>,
        metrics: Metrics,
    ) -> Self {
        Self {
            caches,
            inputs,
            upstream,
            absorber,
            metrics,
            counted: Arc::default(),
        }
    }

    /// For [`AdminOptions::checks`](crate::admin::AdminOptions::checks).
    pub(crate) fn checks(&self) -> Arc<dyn Fn(Probe) -> Vec<Check> + Send + Sync> {
        let health = self.clone();
        Arc::new(move |probe| match probe {
            Probe::Live => Vec::new(),
            Probe::Ready => health.readiness(),
        })
    }

    /// For [`AdminOptions::before_scrape`](crate::admin::AdminOptions::before_scrape).
    pub(crate) fn before_scrape(&self) -> Arc<dyn Fn() + Send + Sync> {
        let health = self.clone();
        Arc::new(move || health.read_gauges())
    }

    /// Whether every check of readiness passes.
    pub(crate) fn is_ready(&self) -> bool {
        self.readiness().iter().all(|check| check.result.is_ok())
    }

    fn readiness(&self) -> Vec<Check> {
        let servers = self.upstream.health();
        let upstream = if servers.up > 0 {
            Ok(())
        } else {
            Err(format!(
                "none of {} apiservers is reachable",
                servers.servers
            ))
        };
        let mut checks = vec![Check {
            name: "upstream".to_owned(),
            result: upstream,
        }];
        checks.extend(self.caches.preloaded().into_iter().map(|(name, cache)| {
            let result = match cache {
                None => Err("not open: the apiserver was not reachable or refuses it".to_owned()),
                Some(cache) if !cache.is_ready() => {
                    Err("the first sync has not finished".to_owned())
                }
                Some(cache) => fresh(cache.stats().last_progress),
            };
            Check {
                name: format!("cache-{name}"),
                result,
            }
        }));
        let inputs = self.caches.inputs().into_iter();
        checks.extend(inputs.map(|(name, is_ready)| {
            Check {
                name: format!("authorization-{name}"),
                result: is_ready
                    .then_some(())
                    .ok_or_else(|| "the first sync has not finished".to_owned()),
            }
        }));
        checks
    }

    fn read_facts(&self) {
        let families = &self.metrics.facts;
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let (graph, rbac) = (
            self.inputs.authorizer().graph_size(),
            self.inputs.authorizer().rbac_size(),
        );
        families.pods.set(gauge(graph.pods));
        families.nodes.set(gauge(graph.nodes));
        families.references.set(gauge(graph.mentions));
        families.volumes.set(gauge(graph.persistent_volumes));
        families.roles.set(gauge(rbac.roles));
        families.bindings.set(gauge(rbac.bindings));
        families.bytes.set(gauge(self.inputs.bytes()));
    }

    fn read_gauges(&self) {
        self.read_facts();
        if let Some(absorber) = &self.absorber {
            absorber.read_gauges();
        }
        let mut slow = 0;
        for (key, cache) in self.caches.all() {
            let stats = cache.stats();
            let labels = labels(&cache);
            let families = &self.metrics.cache;
            let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            families
                .objects
                .get_or_create(&labels)
                .set(gauge(stats.objects as u64));
            families
                .bytes
                .get_or_create(&labels)
                .set(gauge(stats.bytes as u64));
            families
                .history_bytes
                .get_or_create(&labels)
                .set(gauge(stats.history_bytes as u64));
            families
                .resource_version
                .get_or_create(&labels)
                .set(gauge(stats.resource_version.get()));
            families
                .lag_seconds
                .get_or_create(&labels)
                .set(stats.last_progress.elapsed().as_secs_f64());
            let mut counted = self.counted.lock();
            let before = counted.entry(key).or_default();
            let grown = |now: u64, before: u64| now.saturating_sub(before);
            let relists = stats.relists.saturating_sub(1);
            families
                .relists
                .get_or_create(&labels)
                .inc_by(grown(relists, before.relists));
            for (reason, now, before) in [
                ("cut", stats.cuts, before.cuts),
                ("malformed", stats.malformed, before.malformed),
            ] {
                families
                    .broken_streams
                    .get_or_create(&labels.with_reason(reason))
                    .inc_by(grown(now, before));
            }
            self.metrics
                .watch_events
                .get_or_create(&crate::metrics::ResourceLabels {
                    group: labels.group.clone(),
                    resource: labels.resource.clone(),
                })
                .inc_by(grown(stats.events_dispatched, before.delivered));
            *before = Counted {
                relists,
                delivered: stats.events_dispatched,
                cuts: stats.cuts,
                malformed: stats.malformed,
            };
            slow += stats.slow_watchers;
        }
        self.metrics
            .slow_watchers
            .set(i64::try_from(slow).unwrap_or(i64::MAX));
    }
}

fn fresh(last_progress: Instant) -> Result<(), String> {
    let silent = last_progress.elapsed();
    if silent <= STALE_AFTER {
        Ok(())
    } else {
        Err(format!(
            "the apiserver has sent nothing for {} s",
            silent.as_secs()
        ))
    }
}
