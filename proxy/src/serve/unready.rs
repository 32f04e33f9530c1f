//! What becomes of a read while the cache of its resource is being filled.
//!
//! Owns: kube-apiserver's choice between its storage and a 429 (as `cacher/delegator.go`
//! `shouldDelegateListOnNotReadyCache`, 1.36). A storm of watches and whole lists must not reach the
//! storage; single objects and first pages may.

use watershed_cache::{ResourceVersion, WatchCache};

use super::{Freshness, Read};
use crate::request::RequestInfo;

impl Read {
    /// The lowest version an answer from elsewhere must speak of, so that nobody is shown something
    /// older than what `cache` may have shown them before.
    pub(crate) fn lowest(&self, cache: &WatchCache) -> ResourceVersion {
        let Ok(newest) = cache.snapshot() else {
            return ResourceVersion::default();
        };
        match self {
            Self::Get {
                namespace, name, ..
            } => newest
                .get(namespace, name)
                .map_or_else(ResourceVersion::default, |it| it.resource_version()),
            Self::List {
                freshness: Freshness::Exactly(version),
                ..
            } => *version,
            Self::List { .. } => newest.resource_version(),
            Self::Watch { .. } => ResourceVersion::default(),
        }
    }

    /// Whether an apiserver whose cache is not ready answers this from its storage, so that it is
    /// forwarded. The rest it refuses with a 429.
    pub(crate) fn is_forwarded_unready(&self, info: &RequestInfo) -> bool {
        match self {
            Self::Get { .. } => true,
            Self::Watch { .. } => false,
            // The past is never in a cache that is about to begin.
            Self::List {
                freshness: Freshness::Exactly(_) | Freshness::Stored(_),
                ..
            } => true,
            Self::List { selection, .. } => {
                let is_limited = matches!(&info.options, Some(Ok(options)) if options.limit > 0);
                is_limited && selection.labels.is_empty() && selection.fields.is_empty()
            }
        }
    }
}
