//! What local decisions depend on, fed by the caches of those resources.
//!
//! Owns: which resources are inputs, which cache feeds each of them, and whether what it fed is all
//! there is. The facts of an object are taken in by the cache's observer, so before anybody can
//! hear of the object: a kubelet that is told of its pod may read what the pod mentions.
//! Refuses: to open or close caches ([`crate::caches`]), and to decide.
//!
//! Invariant: at most one cache feeds a source at a time, and what it said is forgotten before it
//! stops, so that what is deleted unseen gives nobody anything.
//!
//! Facts that would take more than `limits.authorizationBytes` are all let go, until a restart: the
//! apiserver is asked then, as it is where the proxy may not watch an input.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;
use watershed_authorizer::{Authorizer, Facts, Features, Revoked, Source};
use watershed_cache::{Object, Observer, WatchCache};
use watershed_config::{Authorizers, Live};

use super::Revocations;

/// Objects taken in between two looks at how much memory they take together.
const WEIGHED_EVERY: u64 = 256;

/// The facts, and who feeds them. Clones share both.
#[derive(Clone)]
pub(crate) struct Inputs {
    shared: Arc<Shared>,
}

struct Shared {
    authorizer: Authorizer,
    revocations: Arc<Revocations>,
    wanted: Vec<Source>,
    live: watch::Receiver<Arc<Live>>,
    feeding: Mutex<HashMap<Source, Feeding>>,
    /// Objects taken in.
    taken: AtomicU64,
    /// Whether facts were let go, and who lost what meanwhile is still to be found out.
    has_lost: AtomicBool,
    /// Whether the facts outgrew their limit.
    is_over: AtomicBool,
}

/// The cache that feeds a source.
#[derive(Clone, Debug)]
struct Feeding {
    feed: Arc<Feed>,
    cache: WatchCache,
}

/// The observer of the cache of one source.
pub(crate) struct Feed {
    source: Source,
    inputs: Inputs,
    /// How often it was told that nothing is known any more.
    losses: AtomicU64,
    /// Whether an object could not be read, or not kept.
    has_gaps: AtomicBool,
}

/// A source whose facts are all there.
pub(super) struct Complete {
    /// What can prove that they are fresh.
    pub(super) cache: WatchCache,
    feed: Arc<Feed>,
    losses: u64,
}

impl Inputs {
    /// No facts yet, of what apiservers that authorize as `declared` decide by. What somebody loses
    /// is announced by `revocations`.
    pub(crate) fn new(
        declared: Authorizers,
        revocations: Arc<Revocations>,
        live: watch::Receiver<Arc<Live>>,
    ) -> Self {
        let gates = declared.feature_gates;
        let features = Features {
            credential_provider_tokens: gates
                .kubelet_service_account_token_for_credential_providers,
            pod_certificate_requests: gates.pod_certificate_request,
            cluster_trust_bundles: gates.cluster_trust_bundle,
        };
        let is_wanted = |source: &Source| match source {
            Source::Pods
            | Source::PersistentVolumes
            | Source::VolumeAttachments
            | Source::ResourceSlices => declared.node,
            Source::PodCertificateRequests => declared.node && gates.pod_certificate_request,
            Source::Roles
            | Source::ClusterRoles
            | Source::RoleBindings
            | Source::ClusterRoleBindings => declared.rbac,
        };
        Self {
            shared: Arc::new(Shared {
                authorizer: Authorizer::new(features),
                revocations,
                wanted: Source::ALL.into_iter().filter(is_wanted).collect(),
                live,
                feeding: Mutex::default(),
                taken: AtomicU64::new(0),
                has_lost: AtomicBool::new(false),
                is_over: AtomicBool::new(false),
            }),
        }
    }

    /// The resources that should be watched, as group and resource.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.shared.wanted.iter().map(|source| source.resource())
    }

    /// The cache that feeds a wanted resource, if one does.
    pub(crate) fn cache_of(&self, group: &str, resource: &str) -> Option<WatchCache> {
        let source = Source::of(group, resource)?;
        let feeding = self.shared.feeding.lock();
        feeding.get(&source).map(|it| it.cache.clone())
    }

    /// An observer for a cache of this resource that is about to be opened, if it is an input that
    /// no other feeds. [`Self::feeds`] must follow before anybody else asks.
    pub(crate) fn feed(&self, group: &str, resource: &str) -> Option<Arc<Feed>> {
        let source = Source::of(group, resource)?;
        let is_free = !self.shared.feeding.lock().contains_key(&source);
        let is_wanted = self.shared.wanted.contains(&source);
        (is_wanted && is_free).then(|| {
            Arc::new(Feed {
                source,
                inputs: self.clone(),
                losses: AtomicU64::new(0),
                has_gaps: AtomicBool::new(false),
            })
        })
    }

    /// The cache that `feed` observes, from now until [`Self::ended`].
    pub(crate) fn feeds(&self, feed: &Arc<Feed>, cache: &WatchCache) {
        let feeding = Feeding {
            feed: Arc::clone(feed),
            cache: cache.clone(),
        };
        let before = self.shared.feeding.lock().insert(feed.source, feeding);
        debug_assert!(before.is_none(), "one cache feeds a source");
    }

    /// The cache that `feed` observed is closed.
    pub(crate) fn ended(&self, feed: &Feed) {
        self.shared.feeding.lock().remove(&feed.source);
    }

    /// Lets everybody's permits be looked at again if facts were let go and are all back: what was
    /// deleted meanwhile nobody has announced.
    pub(crate) fn catch_up(&self) {
        let has_all = {
            let feeding = self.shared.feeding.lock();
            feeding.values().all(|it| it.cache.is_ready())
        };
        if has_all && self.shared.has_lost.swap(false, Ordering::SeqCst) {
            self.shared.revocations.revoked(Revoked::AnyNode);
            self.shared.revocations.revoked(Revoked::AnyUser);
        }
    }

    /// Those sources, if all facts that their caches know of are here.
    pub(super) fn complete(&self, sources: impl Iterator<Item = Source>) -> Option<Vec<Complete>> {
        let feeding = self.shared.feeding.lock();
        sources
            .map(|source| {
                let Feeding { feed, cache } = feeding.get(&source)?;
                let losses = feed.losses.load(Ordering::SeqCst);
                let complete = Complete {
                    cache: cache.clone(),
                    feed: Arc::clone(feed),
                    losses,
                };
                (cache.is_ready() && complete.is_still_complete()).then_some(complete)
            })
            .collect()
    }

    /// What decides by the facts.
    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.shared.authorizer
    }

    /// Bytes that all facts take.
    pub(crate) fn bytes(&self) -> usize {
        let authorizer = &self.shared.authorizer;
        authorizer.graph_size().bytes + authorizer.rbac_size().bytes
    }

    /// Lets go of everything if it has become too much.
    fn weigh(&self) {
        let taken = self.shared.taken.fetch_add(1, Ordering::Relaxed);
        if !taken.is_multiple_of(WEIGHED_EVERY) {
            return;
        }
        let bytes_max = self.shared.live.borrow().limits.authorization_bytes;
        let bytes = self.bytes() as u64;
        if bytes > bytes_max && !self.shared.is_over.swap(true, Ordering::SeqCst) {
            tracing::warn!(
                bytes,
                bytes_max,
                "local authorization takes more than limits.authorizationBytes; from now on the \
                 apiserver is asked. Raise the limit and restart"
            );
            for source in Source::ALL {
                drop(self.shared.authorizer.clear(source));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::SeqCst)
    }
}

impl Complete {
    /// Whether nothing was let go since.
    pub(super) fn is_still_complete(&self) -> bool {
        self.feed.losses.load(Ordering::SeqCst) == self.losses
            && !self.feed.has_gaps.load(Ordering::SeqCst)
            && !self.feed.inputs.is_over()
    }
}

impl Observer for Feed {
    fn upserted(&self, object: &Object) {
        if self.inputs.is_over() {
            return;
        }
        let authorizer = self.inputs.authorizer();
        let revoked = match Facts::read(self.source, object.bytes()) {
            Ok(facts) => authorizer.upsert(facts),
            Err(error) => {
                if !self.has_gaps.swap(true, Ordering::SeqCst) {
                    let (group, resource) = self.source.resource();
                    tracing::warn!(
                        group, resource, key = object.key(), %error,
                        "cannot read an object that decisions depend on; the apiserver is asked \
                         before anybody is refused"
                    );
                }
                authorizer.delete(self.source, object.namespace(), object.name())
            }
        };
        self.inputs.shared.revocations.revoked(revoked);
        self.inputs.weigh();
        if self.inputs.is_over() {
            // Maybe since a moment ago: then it was not among what was let go.
            self.removed(object);
        }
    }

    fn removed(&self, object: &Object) {
        let (namespace, name) = (object.namespace(), object.name());
        let revoked = self
            .inputs
            .authorizer()
            .delete(self.source, namespace, name);
        self.inputs.shared.revocations.revoked(revoked);
    }

    fn closed(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
        self.inputs.shared.has_lost.store(true, Ordering::SeqCst);
        drop(self.inputs.authorizer().clear(self.source));
        self.has_gaps.store(false, Ordering::SeqCst);
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Feed").field(&self.source).finish()
    }
}
