//! Keeps open what authorization and the absorption of heartbeats depend on.
//!
//! Owns: the task that opens a cache of every input, at start and again when one had to be closed,
//! and has permits looked at again once everything is known again.
//! Refuses: to insist. An input that the apiserver does not serve, or does not let the proxy watch,
//! is tried again now and then; until then the apiserver is asked what would have depended on it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{CacheKey, Cached, Caches, Uncached, preload};
use crate::{discovery::GroupVersionResource, heartbeats};

/// How often what is missing is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Until `leaving`.
pub(super) async fn run(caches: Caches, leaving: CancellationToken) {
    let inputs = &caches.shared.told.inputs;
    loop {
        for (group, resource) in inputs.wanted() {
            if inputs.cache_of(group, resource).is_none()
                && let Err(why) = open(&caches, (group, resource)).await
            {
                tracing::debug!(
                    group,
                    resource,
                    why = why.as_str(),
                    "cannot watch what authorization depends on"
                );
            }
        }
        inputs.catch_up();
        if caches.shared.told.leases.is_some() {
            for gvr in [&heartbeats::LEASES[0].gvr, &heartbeats::NODES[0].gvr] {
                if let Err(why) = open_as_configured(&caches, gvr).await {
                    let (resource, why) = (&*gvr.resource, why.as_str());
                    tracing::debug!(resource, why, "cannot watch what heartbeats depend on");
                }
            }
        }
        tokio::select! {
            () = leaving.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Opens the cache in the version the apiserver prefers.
async fn open(caches: &Caches, (group, resource): (&str, &str)) -> Result<(), Uncached> {
    let version = caches.shared.discovery.preferred_version(group).await;
    let gvr = GroupVersionResource {
        group: group.into(),
        version: version.ok_or(Uncached::Ineligible)?,
        resource: resource.into(),
    };
    let cached = open_as_configured(caches, &gvr).await?;
    if cached.feed.is_none() {
        // It was opened while another fed the resource, and can be told to only from the beginning.
        cached.stop.cancel();
    }
    Ok(())
}

/// Opens the cache in the encoding the configuration prefers, or finds it open.
async fn open_as_configured(
    caches: &Caches,
    gvr: &GroupVersionResource,
) -> Result<Cached, Uncached> {
    let live = caches.shared.live.borrow().clone();
    let settings = live.cache.settings(&gvr.group, &gvr.version, &gvr.resource);
    let encoding = settings.and_then(|it| it.encodings.first().copied());
    caches
        .open(&CacheKey {
            gvr: gvr.clone(),
            encoding: preload::encoding(&encoding.ok_or(Uncached::Configured)?),
        })
        .await
}
