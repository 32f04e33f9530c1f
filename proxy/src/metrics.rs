//! The families the proxy exports, under the prefix `watershed_`.
//!
//! Owns: names, help texts, labels and buckets, in one place, so that dashboards and alerts have
//! one source.
//! Refuses: labels that grow with nodes, pods or users. A label value is a resource, a verb, a
//! status code or a word of a fixed list.
//! Invariant: a family is registered once, at start. Hot paths resolve their handle once
//! (`get_or_create` locks the family) and keep it; a handle is an atomic behind an `Arc`.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::heartbeats::{HeartbeatMetrics, PeerMetrics};

mod delays;

pub(crate) use delays::Delays;

/// Names the cache of one resource in one encoding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CacheLabels {
    /// API group, `""` for core.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// Plural resource name.
    pub(crate) resource: String,
    /// `json` or `protobuf`.
    pub(crate) encoding: &'static str,
}

/// Names the cache of one resource in one encoding, and why a stream of it was given up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StreamLabels {
    /// As in [`CacheLabels`].
    pub(crate) group: String,
    /// As in [`CacheLabels`].
    pub(crate) version: String,
    /// As in [`CacheLabels`].
    pub(crate) resource: String,
    /// As in [`CacheLabels`].
    pub(crate) encoding: &'static str,
    /// `cut`: it broke instead of ending; `malformed`: it or a list made no sense.
    pub(crate) reason: &'static str,
}

impl CacheLabels {
    /// These labels with a reason.
    pub(crate) fn with_reason(&self, reason: &'static str) -> StreamLabels {
        StreamLabels {
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            encoding: self.encoding,
            reason,
        }
    }
}

/// Names a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResourceLabels {
    /// API group, `""` for core.
    pub(crate) group: String,
    /// Plural resource name.
    pub(crate) resource: String,
}

/// One kind of request that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    /// Upper case, as the apiserver labels them: `GET`, `LIST`, `WATCH`, `POST` and so on.
    pub(crate) verb: &'static str,
    /// Plural resource name, `""` where there is none or it is not known to exist.
    pub(crate) resource: String,
    /// `cache`, `shared`, `heartbeat`, `limited`, `refused`, or the reason it was forwarded.
    pub(crate) served: &'static str,
    /// HTTP status code.
    pub(crate) code: u16,
}

/// One kind of request to an apiserver.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UpstreamRequestLabels {
    /// HTTP method.
    pub(crate) verb: &'static str,
    /// HTTP status code, or `error` when none came.
    pub(crate) code: Code,
}

/// A status code, or its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Code {
    /// The server answered with this status.
    Status(u16),
    /// No answer came.
    Error,
}

impl EncodeLabelValue for Code {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        match self {
            Self::Status(code) => EncodeLabelValue::encode(code, encoder),
            Self::Error => EncodeLabelValue::encode(&"error", encoder),
        }
    }
}

/// How a permit was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AuthorizationLabels {
    /// `node`, `cache` or `review`.
    pub(crate) source: &'static str,
    /// `allowed`, `denied` or `error`.
    pub(crate) decision: &'static str,
}

/// One word of a fixed list: what happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    /// What happened.
    pub(crate) outcome: &'static str,
}

/// One word of a fixed list: why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    /// Why.
    pub(crate) reason: &'static str,
}

/// Names a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WorkerLabels {
    /// From 0.
    pub(crate) worker: u64,
}

/// Every family of the proxy. Clones share the same families.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Watches open at an apiserver.
    pub(crate) upstream_watches: Family<CacheLabels, Gauge>,
    /// Requests sent to an apiserver and answered, or failed.
    pub(crate) upstream_requests: Family<UpstreamRequestLabels, Counter>,
    /// Connections open to apiservers.
    pub(crate) upstream_connections: Gauge,
    /// Watches served from the cache now.
    pub(crate) watchers: Family<ResourceLabels, Gauge>,
    /// Client connections open now.
    pub(crate) connections: Gauge,
    /// The same, by the worker they run on.
    pub(crate) worker_connections: Family<WorkerLabels, Gauge>,
    /// Requests and watches of HTTP/2 connections under way, by the worker they run on.
    pub(crate) worker_streams: Family<WorkerLabels, Gauge>,
    /// Client connections closed unserved: `limit`, `handshake`, `handshake_timeout`, `accept`.
    pub(crate) connections_refused: Family<ReasonLabels, Counter>,
    /// Certificate and CA reloads: `changed`, `invalid`.
    pub(crate) tls_reloads: Family<OutcomeLabels, Counter>,
    /// Requests answered.
    pub(crate) requests: Family<RequestLabels, Counter>,
    /// Requests refused because of what their caller has under way, by the limit's key.
    pub(crate) requests_limited: Family<ReasonLabels, Counter>,
    /// Events delivered to watchers.
    pub(crate) watch_events: Family<ResourceLabels, Counter>,
    /// What the caches hold and where they stand.
    pub(crate) cache: CacheMetrics,
    /// Seconds from an event's arrival from the apiserver to its bytes being given to a client's
    /// socket.
    pub(crate) watch_delivery_seconds: Delays,
    /// Absorption.
    pub(crate) heartbeats: HeartbeatMetrics,
    /// What replicas owe each other.
    pub(crate) peers: PeerMetrics,
    /// Watchers that are behind by more than what a healthy client leaves unread.
    pub(crate) slow_watchers: Gauge,
    /// Long answers from the cache that were sent as gzip: `compressed`, `shared`, `streamed`.
    pub(crate) compressed: Family<OutcomeLabels, Counter>,
    /// Bytes of compressed answers that are remembered.
    pub(crate) compressed_bytes: Gauge,
    /// Bytes that running initial lists may hold.
    pub(crate) initial_list_bytes: Gauge,
    /// Lists and watches with initial events that were told to come back: `node`, `collection`.
    pub(crate) initial_lists_refused: Family<ReasonLabels, Counter>,
    /// Authorization decisions by where they came from.
    pub(crate) authorization: Family<AuthorizationLabels, Counter>,
    /// Watches ended before their time: `authorization`, `authentication`.
    pub(crate) watches_revoked: Family<ReasonLabels, Counter>,
    /// What local decisions depend on.
    pub(crate) facts: FactMetrics,
}

/// How much local authorization knows, `watershed_authorization_…`; set when it is scraped.
#[derive(Clone, Debug, Default)]
pub(crate) struct FactMetrics {
    /// Pods that are bound to a node.
    pub(crate) pods: Gauge,
    /// Nodes that something belongs to.
    pub(crate) nodes: Gauge,
    /// Mentions of an object by a pod, each object once.
    pub(crate) references: Gauge,
    /// Persistent volumes with a claim.
    pub(crate) volumes: Gauge,
    /// Roles and cluster roles.
    pub(crate) roles: Gauge,
    /// Role bindings and cluster role bindings.
    pub(crate) bindings: Gauge,
    /// Bytes of all of it.
    pub(crate) bytes: Gauge,
}

/// The families of the watch caches, `watershed_watch_cache_…`; set when they are scraped.
#[derive(Clone, Debug, Default)]
pub(crate) struct CacheMetrics {
    /// Objects held.
    pub(crate) objects: Family<CacheLabels, Gauge>,
    /// Bytes of objects held.
    pub(crate) bytes: Family<CacheLabels, Gauge>,
    /// Bytes of recent events held.
    pub(crate) history_bytes: Family<CacheLabels, Gauge>,
    /// The resource version the cache stands at.
    pub(crate) resource_version: Family<CacheLabels, Gauge>,
    /// Seconds since the upstream stream last made progress.
    pub(crate) lag_seconds: Family<CacheLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    /// Times the cache was filled by a list after its first.
    pub(crate) relists: Family<CacheLabels, Counter>,
    /// Upstream watches and lists that were given up: `cut`, `malformed`.
    pub(crate) broken_streams: Family<StreamLabels, Counter>,
}

impl Metrics {
    /// The families, and the registry that encodes them; further collectors may be registered in
    /// it.
    pub(crate) fn new() -> (Self, Registry) {
        let metrics = Self {
            upstream_watches: Family::default(),
            upstream_requests: Family::default(),
            upstream_connections: Gauge::default(),
            watchers: Family::default(),
            connections: Gauge::default(),
            worker_connections: Family::default(),
            worker_streams: Family::default(),
            connections_refused: Family::default(),
            tls_reloads: Family::default(),
            requests: Family::default(),
            requests_limited: Family::default(),
            watch_events: Family::default(),
            cache: CacheMetrics::default(),
            watch_delivery_seconds: Delays::default(),
            heartbeats: HeartbeatMetrics::new(),
            peers: PeerMetrics::default(),
            slow_watchers: Gauge::default(),
            compressed: Family::default(),
            compressed_bytes: Gauge::default(),
            initial_list_bytes: Gauge::default(),
            initial_lists_refused: Family::default(),
            authorization: Family::default(),
            watches_revoked: Family::default(),
            facts: FactMetrics::default(),
        };
        let mut registry = Registry::with_prefix("watershed");
        metrics.register(&mut registry);
        metrics
            .cache
            .register(registry.sub_registry_with_prefix("watch_cache"));
        metrics
            .facts
            .register(registry.sub_registry_with_prefix("authorization"));
        (metrics, registry)
    }

    /// `_total` is added to counters by the encoder.
    fn register(&self, to: &mut Registry) {
        let it = self.clone();
        to.register(
            "upstream_watches",
            "Watches open at an apiserver",
            it.upstream_watches,
        );
        to.register(
            "upstream_requests",
            "Requests to an apiserver",
            it.upstream_requests,
        );
        to.register(
            "upstream_connections",
            "Connections open to apiservers",
            it.upstream_connections,
        );
        to.register("watchers", "Watches served from the cache now", it.watchers);
        to.register("connections", "Client connections open now", it.connections);
        to.register(
            "worker_connections",
            "Client connections open now, by worker thread",
            it.worker_connections,
        );
        to.register(
            "worker_streams",
            "HTTP/2 requests and watches under way, by worker thread",
            it.worker_streams,
        );
        to.register(
            "connections_refused",
            "Client connections closed unserved, by reason",
            it.connections_refused,
        );
        to.register(
            "tls_reloads",
            "Certificate and CA reloads, by outcome",
            it.tls_reloads,
        );
        to.register("requests", "Requests answered", it.requests);
        to.register(
            "requests_limited",
            "Requests refused for what their caller has under way, by limit",
            it.requests_limited,
        );
        to.register(
            "watch_events",
            "Events delivered to watchers",
            it.watch_events,
        );
        to.register(
            "watch_delivery_seconds",
            "Seconds from an event's arrival from the apiserver to a client's socket",
            it.watch_delivery_seconds,
        );
        it.heartbeats.register(to);
        it.peers.register(to.sub_registry_with_prefix("heartbeats"));
        to.register(
            "slow_watchers",
            "Watchers that are behind",
            it.slow_watchers,
        );
        to.register("authorization", "Authorization decisions", it.authorization);
        to.register(
            "watches_revoked",
            "Watches ended because they are not permitted any more, by what is not",
            it.watches_revoked,
        );
        self.register_lists(to);
    }

    fn register_lists(&self, to: &mut Registry) {
        let it = self.clone();
        to.register(
            "compressed_lists",
            "Long answers sent as gzip, by outcome",
            it.compressed,
        );
        to.register(
            "compressed_list_bytes",
            "Bytes of compressed answers remembered",
            it.compressed_bytes,
        );
        to.register(
            "initial_list_bytes",
            "Bytes that running initial lists may hold",
            it.initial_list_bytes,
        );
        to.register(
            "initial_lists_refused",
            "Initial lists that were told to come back, by priority",
            it.initial_lists_refused,
        );
    }
}

impl FactMetrics {
    fn register(&self, to: &mut Registry) {
        let it = self.clone();
        let families = [
            ("pods", "Pods bound to a node", it.pods),
            ("nodes", "Nodes that something belongs to", it.nodes),
            ("references", "Objects that pods mention", it.references),
            ("volumes", "Persistent volumes with a claim", it.volumes),
            ("roles", "Roles and cluster roles", it.roles),
            ("bindings", "Bindings of both", it.bindings),
            ("bytes", "Bytes that local authorization takes", it.bytes),
        ];
        for (name, help, family) in families {
            to.register(name, help, family);
        }
    }
}

impl CacheMetrics {
    fn register(&self, to: &mut Registry) {
        let it = self.clone();
        to.register("objects", "Objects held", it.objects);
        to.register("bytes", "Bytes of objects held", it.bytes);
        to.register(
            "history_bytes",
            "Bytes of recent events held",
            it.history_bytes,
        );
        to.register(
            "resource_version",
            "Resource version reached",
            it.resource_version,
        );
        to.register(
            "lag_seconds",
            "Seconds since the upstream made progress",
            it.lag_seconds,
        );
        to.register("relists", "Lists after the first", it.relists);
        to.register(
            "broken_streams",
            "Upstream watches and lists that were given up, by reason",
            it.broken_streams,
        );
    }
}

/// The registry's families as text for a scrape.
pub(crate) fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)
        .expect("writing to a string cannot fail");
    text
}

/// The content type of [`exposition`].
pub(crate) const EXPOSITION_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_design() {
        let (metrics, registry) = Metrics::new();
        metrics.connections.inc();
        let labels = UpstreamRequestLabels {
            verb: "GET",
            code: Code::Status(200),
        };
        metrics.upstream_requests.get_or_create(&labels).inc();
        let error = UpstreamRequestLabels {
            verb: "GET",
            code: Code::Error,
        };
        metrics.upstream_requests.get_or_create(&error).inc();
        let cache = CacheLabels {
            group: String::new(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            encoding: "json",
        };
        metrics.cache.relists.get_or_create(&cache).inc();
        metrics.cache.lag_seconds.get_or_create(&cache).set(0.5);

        let text = exposition(&registry);
        for line in [
            "watershed_connections 1",
            r#"watershed_upstream_requests_total{verb="GET",code="200"} 1"#,
            r#"watershed_upstream_requests_total{verb="GET",code="error"} 1"#,
            r#"watershed_watch_cache_relists_total{group="",version="v1",resource="pods",encoding="json"} 1"#,
            r#"watershed_watch_cache_lag_seconds{group="",version="v1",resource="pods",encoding="json"} 0.5"#,
        ] {
            assert!(
                text.lines().any(|it| it == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
