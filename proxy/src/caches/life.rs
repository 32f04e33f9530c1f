//! The life of one open cache: its task, from the first request to the reason to close it.
//!
//! Owns: running the reflector, and judging when the cache is of no more use: idle, refused or gone
//! upstream, over its budget, configured away, its definition changed.
//! Refuses: to open caches, and to answer from them.
//! Invariant: the cache is out of the map before this task ends, so nobody is handed a closed one.

use std::{sync::Arc, time::Duration};

use tokio::time::{Interval, MissedTickBehavior};
use watershed_cache::{Reflector, ReflectorOptions, ReflectorStatus, Writer};
use watershed_config::ResourceSettings;

use super::{Cached, Shared, forget_metrics, labels, lister::UpstreamLister};
use crate::discovery::Ineligible;

/// How often an open cache is looked at: is it idle, has its definition changed. Shorter when the idle time is.
const INSPECTION: Duration = Duration::from_secs(10);

/// The task of one cache: its reflector, until there is a reason to close it.
pub(super) async fn run(shared: Arc<Shared>, cached: Cached, writer: Writer) {
    let lister = UpstreamLister::new(
        shared.upstream.clone(),
        &cached,
        shared
            .metrics
            .upstream_watches
            .get_or_create(&labels(&cached.cache))
            .clone(),
    );
    let stop = cached.stop.clone();
    let shutdown = async move { stop.cancelled().await };
    let reflector = Reflector::run(writer, lister, ReflectorOptions::default(), shutdown);
    tokio::select! {
        () = reflector => {}
        reason = reason_to_close(&shared, &cached) => {
            tracing::info!(cache = %cached.key, reason, "cache closed");
        }
    }
    close(&shared, &cached);
}

/// Takes the cache out of the map first, so that nobody is handed a closed one, then tells who waits for it.
fn close(shared: &Shared, cached: &Cached) {
    if let Some(feed) = &cached.feed {
        shared.told.inputs.ended(feed);
    }
    let closed = shared.open.lock().remove(&cached.key);
    cached.stop.cancel();
    forget_metrics(&shared.metrics, &cached.cache);
    drop(closed);
}

/// Resolves with the reason once the cache is of no more use.
async fn reason_to_close(shared: &Arc<Shared>, cached: &Cached) -> &'static str {
    let mut status = cached.cache.status();
    let mut live = shared.live.clone();
    let mut inspection = inspections(shared.settings(&cached.key));
    loop {
        tokio::select! {
            changed = status.changed() => {
                if changed.is_err() {
                    return "its reflector ended";
                }
                let seen = status.borrow_and_update().clone();
                let Some(reason) = hopeless(&seen, cached.cache.is_ready()) else { continue };
                tracing::warn!(cache = %cached.key, status = ?seen, "passed through for now");
                shared.refuse(&cached.key);
                return reason;
            }
            // Looks at once, and from now on as often as the new settings ask for.
            Ok(()) = live.changed() => inspection = inspections(shared.settings(&cached.key)),
            _ = inspection.tick() => {
                let Some(settings) = shared.settings(&cached.key) else {
                    return "the configuration passes it through";
                };
                if is_idle(shared, cached, settings.idle_timeout) {
                    return "nobody used it";
                }
                if definition_changed(shared, cached).await {
                    return "its definition changed";
                }
            }
        }
    }
}

/// When an open cache is looked at, the first time at once.
fn inspections(settings: Option<ResourceSettings>) -> Interval {
    let idle_timeout = settings.map_or(Duration::ZERO, |it| it.idle_timeout);
    let every = if idle_timeout.is_zero() {
        INSPECTION
    } else {
        INSPECTION.min((idle_timeout / 4).max(Duration::from_millis(100)))
    };
    let mut inspections = tokio::time::interval(every);
    inspections.set_missed_tick_behavior(MissedTickBehavior::Delay);
    inspections
}

/// What a reflector says that makes its cache useless, `is_ready` or not. A refusal of one that is ready
/// is a matter of credentials, which are read again.
fn hopeless(status: &ReflectorStatus, is_ready: bool) -> Option<&'static str> {
    match status {
        ReflectorStatus::Denied { .. } if is_ready => None,
        ReflectorStatus::Denied { .. } => Some("the apiserver refuses to list or watch it"),
        ReflectorStatus::Gone => Some("the apiserver no longer serves it"),
        ReflectorStatus::OverBudget { .. } => Some("its objects do not fit their budget"),
        ReflectorStatus::Syncing
        | ReflectorStatus::Live
        | ReflectorStatus::Retrying { .. }
        | ReflectorStatus::Stopped => None,
    }
}

/// Nobody has used it for `idle_timeout`; zero keeps it open, and so does that authorization or
/// absorption depends on it.
fn is_idle(shared: &Shared, cached: &Cached, idle_timeout: Duration) -> bool {
    !idle_timeout.is_zero()
        && cached.feed.is_none()
        && !shared.absorbs_by(&cached.key)
        && cached.cache.watchers() == 0
        && cached.cache.last_used().elapsed() >= idle_timeout
        && !shared.is_preloaded(&cached.key)
}

/// Bytes of custom resources may change without their resource version when the definition does.
async fn definition_changed(shared: &Shared, cached: &Cached) -> bool {
    if !cached.cache.resource().custom {
        return false;
    }
    match shared.discovery.resource_now(&cached.key.gvr).await {
        Ok(now) => *now.definition != *cached.definition,
        Err(Ineligible::Unknown) => false,
        Err(
            Ineligible::Unlisted
            | Ineligible::Aggregated
            | Ineligible::StoredOnly
            | Ineligible::ListKind,
        ) => true,
    }
}
