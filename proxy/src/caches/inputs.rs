//! Keeps open what authorization depends on.
//!
//! Owns: the task that opens a cache of every input, at start and again when one had to be closed,
//! and has permits looked at again once everything is known again.
//! Refuses: to insist. An input that the apiserver does not serve, or does not let the proxy watch,
//! is tried again now and then; until then the apiserver is asked what would have depended on it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{CacheKey, Caches, Uncached, preload};
use crate::discovery::GroupVersionResource;

/// How often what is missing is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Until `leaving`.
pub(super) async fn run(caches: Caches, leaving: CancellationToken) {
    let inputs = &caches.shared.inputs;
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
        tokio::select! {
            () = leaving.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Opens the cache in the version the apiserver prefers and the encoding the configuration does.
async fn open(caches: &Caches, (group, resource): (&str, &str)) -> Result<(), Uncached> {
    let version = caches.shared.discovery.preferred_version(group).await;
    let version = version.ok_or(Uncached::Ineligible)?;
    let live = caches.shared.live.borrow().clone();
    let settings = live.cache.settings(group, &version, resource);
    let encoding = settings.and_then(|it| it.encodings.first().copied());
    let key = CacheKey {
        gvr: GroupVersionResource {
            group: group.into(),
            version,
            resource: resource.into(),
        },
        encoding: preload::encoding(&encoding.ok_or(Uncached::Configured)?),
    };
    let cached = caches.open(&key).await?;
    if cached.feed.is_none() {
        // It was opened while another fed the resource, and can be told to only from the beginning.
        cached.stop.cancel();
    }
    Ok(())
}
