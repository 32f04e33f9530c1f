//! Keeps open what the configuration preloads.
//!
//! Owns: the list of caches the configuration wants, versions filled in, and the task that opens
//! them at start, after a change of the configuration, and again when one had to be closed.
//! Refuses: to hurry. An apiserver that is away is asked again every few seconds, not more.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use watershed_cache::encoding::Encoding;
use watershed_config::CachedResource;

use super::{CacheKey, Caches, Shared};
use crate::discovery::GroupVersionResource;

/// How often what is missing is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Until `leaving`.
pub(super) async fn run(caches: Caches, leaving: CancellationToken) {
    let mut live = caches.shared.live.clone();
    loop {
        for key in wanted(&caches.shared).await {
            let is_open = caches.shared.open.lock().contains_key(&key);
            if !is_open && let Err(why) = caches.open(&key).await {
                tracing::debug!(cache = %key, why = why.as_str(), "cannot preload yet");
            }
        }
        tokio::select! {
            () = leaving.cancelled() => return,
            // The publisher going away only means that nothing changes any more.
            Ok(()) = live.changed() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// The caches the configuration preloads. An entry without a version means the version the apiserver
/// prefers; while that cannot be learned the entry is left out.
pub(super) async fn wanted(shared: &Arc<Shared>) -> Vec<CacheKey> {
    let live = shared.live.borrow().clone();
    let mut keys = Vec::new();
    for entry in live.cache.resources.iter().filter(|entry| entry.preload) {
        let version = match &entry.version {
            Some(version) => Some(version.as_str().into()),
            None => shared.discovery.preferred_version(&entry.group).await,
        };
        let Some(version) = version else { continue };
        let gvr = GroupVersionResource {
            group: entry.group.as_str().into(),
            version,
            resource: entry.resource.as_str().into(),
        };
        keys.extend(entry.settings.encodings.iter().map(|encoding| CacheKey {
            gvr: gvr.clone(),
            encoding: self::encoding(encoding),
        }));
    }
    keys
}

/// The cache's word for a configured encoding.
pub(super) const fn encoding(configured: &watershed_config::Encoding) -> Encoding {
    match configured {
        watershed_config::Encoding::Json => Encoding::Json,
        watershed_config::Encoding::Protobuf => Encoding::Protobuf,
    }
}

/// Whether an entry of the configuration is about this resource.
pub(super) fn names(entry: &CachedResource, gvr: &GroupVersionResource) -> bool {
    entry.group == *gvr.group
        && entry.resource == *gvr.resource
        && entry
            .version
            .as_ref()
            .is_none_or(|version| **version == *gvr.version)
}
