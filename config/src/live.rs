//! The part of the configuration that may be replaced while the proxy runs.
//!
//! Every limit of the proxy that an operator may set stands here with its unit, its default and
//! the reason for it. Byte counts are `u64`, times are [`Duration`], so no name carries a unit.

use std::time::Duration;

/// What may be replaced while the proxy runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// What is cached and how much memory it may take.
    pub cache: CacheSettings,
    /// Who is let in.
    pub authentication: Authentication,
    /// How long a decision about a request may be reused.
    pub authorization: Authorization,
    /// What one client or the whole proxy may take.
    pub limits: Limits,
    /// How a shutdown goes.
    pub drain: Drain,
}

/// What is cached and how much memory it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// For every resource that `resources` does not name.
    pub defaults: ResourceSettings,
    /// Resources with settings of their own; what an entry leaves out is taken from `defaults`.
    pub resources: Vec<CachedResource>,
    /// Resources that are never cached.
    pub passthrough: Vec<GroupResource>,
}

impl CacheSettings {
    /// The settings for a resource, or `None` when it is never cached. An entry that names a
    /// version applies to that version only and goes before one that names none.
    pub fn settings(
        &self,
        group: &str,
        version: &str,
        resource: &str,
    ) -> Option<&ResourceSettings> {
        if self
            .passthrough
            .iter()
            .any(|entry| entry.group == group && entry.resource == resource)
        {
            return None;
        }
        let named = |exact: bool| {
            self.resources.iter().find(|entry| {
                entry.group == group
                    && entry.resource == resource
                    && entry.version.as_deref() == exact.then_some(version)
            })
        };
        Some(
            named(true)
                .or_else(|| named(false))
                .map_or(&self.defaults, |entry| &entry.settings),
        )
    }
}

/// A resource with settings of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedResource {
    /// API group; empty for the core group.
    pub group: String,
    /// API version; `None` means every version that is asked for, and the preferred one when
    /// preloading.
    pub version: Option<String>,
    /// Plural name, as in a path.
    pub resource: String,
    /// Whether the caches (one for each of `settings.encodings`) are opened at start and kept open
    /// when idle. Default false.
    pub preload: bool,
    /// The settings, defaults filled in.
    pub settings: ResourceSettings,
}

/// How the caches of one resource behave. Each encoding has a cache and budgets of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSettings {
    /// Bytes of objects a cache may hold. Default 512 MiB. A resource that outgrows it is not
    /// served from the cache: its requests are forwarded.
    pub objects: u64,
    /// Bytes of past events a cache may hold. Default 64 MiB. Reaching it shortens the history.
    pub history_bytes: u64,
    /// Age up to which past events are kept. Default 5 min, as etcd's compaction interval in the
    /// apiserver. At least 75 s, so that a watcher survives a reconnect.
    pub history_age: Duration,
    /// Time without a client after which a cache is closed. Default 10 min; 0 keeps it open.
    pub idle_timeout: Duration,
    /// Encodings that are cached; a request for another one is forwarded. Default both, protobuf
    /// first. Never empty, no repetition.
    pub encodings: Vec<Encoding>,
}

/// An encoding objects are cached in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

/// A resource of an API group, in every version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupResource {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural name, as in a path.
    pub resource: String,
}

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Whether a client certificate signed by `listen.clientCAFile` names its holder. Default
    /// true; no effect without that file.
    pub client_certificate: bool,
    /// Bearer tokens.
    pub token_review: TokenReview,
    /// Whether a caller without credentials is `system:anonymous` instead of refused with 401.
    /// Default false.
    pub anonymous: bool,
}

/// How bearer tokens are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenReview {
    /// How long an answer may be reused, so also how long a revoked token may still work. Default
    /// 10 s, as the apiserver's own webhook cache; 0 asks for every request; at most 5 min.
    pub cache_ttl: Duration,
    /// Audiences the token must be for; empty means those of the apiserver.
    pub audiences: Vec<String>,
}

/// How a request is permitted, and how long a decision may be reused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// How often a watch served from the cache has to be permitted again, besides at once when what
    /// it was permitted for is gone. Default 5 min; from 10 s to 1 h. Zero lets it run until its
    /// timeout whatever happens, as the apiserver does.
    pub revalidate_watches: Duration,
    /// How long an allowing answer may be reused. Default 10 s; 0 asks for every request; at most
    /// 5 min, the apiserver's own default for its webhook.
    pub allow_ttl: Duration,
    /// How long a refusing answer may be reused. Default 10 s; 0 asks for every request; at most
    /// 5 min. For nodes never more than a second.
    pub deny_ttl: Duration,
}

/// What one client or the whole proxy may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at a time. Default 250 000. Further ones are closed when accepted.
    pub connections: u32,
    /// Open watches of one connection, and streams of an HTTP/2 connection. Default 250, the
    /// streams a Go HTTP/2 server allows; a kubelet opens about ten. Further ones wait (HTTP/2) or
    /// get 429.
    pub watches_per_connection: u32,
    /// Streams of one agent: a node, or the service account of one pod. Default 10 000, some 11 MiB;
    /// a kubelet opens up to a few hundred, an ingress controller a few for each namespace. Further
    /// ones get 429. 0 is no limit, here and in the next three.
    pub watches_per_agent: u32,
    /// Other requests of one agent under way. Default 1000; an apiserver serves 600 at once to
    /// everybody.
    pub requests_per_agent: u32,
    /// Streams of one user name. Default 1 000 000, four for each of the default `connections`:
    /// node daemons share one user, and must never meet it while they are well.
    pub watches_per_user: u32,
    /// Other requests of one user name under way. Default 100 000, as many as may wait for a review.
    pub requests_per_user: u32,
    /// Bytes that lists, initial events of watches and shared answers may hold at once for all
    /// clients together. Default 256 MiB. A quarter is kept for reads of one node's objects.
    /// Further requests wait for a second and get 429 with a Retry-After.
    pub initial_list_bytes: u64,
    /// Bytes that what decisions depend on may take: the relations of pods, volumes and nodes, and
    /// the rules of roles. Default 1 GiB; a pod takes some 300 bytes. Beyond it all of it is let go
    /// and the apiserver is asked.
    pub authorization_bytes: u64,
    /// Bytes of compressed lists remembered. Default 64 MiB. A list that would take more than a
    /// quarter of it is compressed for each client.
    pub compressed_lists: u64,
    /// Time for a TLS handshake. Default 10 s. The connection is closed at its end.
    pub handshake_timeout: Duration,
    /// Time for the header of a request. Default 32 s, as the apiserver.
    pub header_timeout: Duration,
    /// Bytes of the header of a request. Default 64 KiB; a kubelet sends under 4 KiB. Larger ones
    /// get 431.
    pub header_bytes: u64,
    /// Silence on an HTTP/2 connection after which the peer is pinged. Default 30 s, as client-go.
    pub keep_alive_interval: Duration,
    /// Time for the answer to a ping; the connection is closed at its end. Default 15 s, as
    /// client-go.
    pub keep_alive_timeout: Duration,
    /// Time a consistent read may wait for proof of freshness before a GET or LIST is forwarded,
    /// identical ones once, and a WATCH ends as on an apiserver that lags, two seconds later.
    /// Default 3 s, as the apiserver's watch cache.
    pub consistent_read_timeout: Duration,
    /// Time for a connection to an apiserver, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// Time for an ordinary request that is not a watch, a log or an upgrade. Default 60 s, as the
    /// apiserver's `--request-timeout`.
    pub request_timeout: Duration,
}

/// How a shutdown goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Time over which connections are let go after SIGTERM; what is open at its end is cut.
    /// Default 60 s; at most 1 h.
    pub grace_period: Duration,
}
