//! The exact shape of the configuration file.
//!
//! Owns the names of the keys, their defaults and the words that describe them: the JSON schema
//! and `REFERENCE.md` are made from the comments below, so these speak to operators. Owns no rule
//! beyond type: what a value must satisfy stands in `validate.rs`.
//!
//! Invariant: every field may be absent, required ones too. Decoding takes refused parts out of the
//! document and goes on (see `decode.rs`), and one missing key must not hide another mistake.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

use crate::duration::Time;
use crate::quantity::{GI, KI, MI, Quantity};

/// Configuration of a Watershed proxy.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(
    rename = "ProxyConfiguration",
    rename_all = "camelCase",
    default,
    deny_unknown_fields
)]
#[schemars(extend("required" = ["apiVersion", "kind", "listen", "upstream"]))]
pub(crate) struct File {
    /// Version of this format: `watershed.dev/v1alpha1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("const" = "watershed.dev/v1alpha1"))]
    pub(crate) api_version: Option<String>,
    /// Kind of this document: `ProxyConfiguration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("const" = "ProxyConfiguration"))]
    pub(crate) kind: Option<String>,
    /// Where this proxy stands, as logs and metrics name it. At most 63 characters.
    pub(crate) region: String,
    /// The listener clients connect to; TLS always. Certificates are read again when they change.
    pub(crate) listen: Listen,
    /// The listener of health checks and metrics; plain HTTP.
    pub(crate) admin: Admin,
    /// The apiservers behind this proxy.
    pub(crate) upstream: Upstream,
    /// What is cached and how much memory it may take.
    pub(crate) cache: Cache,
    /// Who is let in.
    pub(crate) authentication: Authentication,
    /// How a request is permitted.
    pub(crate) authorization: Authorization,
    /// What is done with the heartbeats of nodes.
    pub(crate) heartbeats: Heartbeats,
    /// What one client or the whole proxy may take.
    pub(crate) limits: Limits,
    /// How a shutdown goes.
    pub(crate) drain: Drain,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["address", "certFile", "keyFile"]))]
pub(crate) struct Listen {
    /// IP address and port, as `0.0.0.0:6443`. Port 0 lets the system choose one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// PEM certificate chain of this server, leaf first. A relative path starts at the folder of
    /// this file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<String>,
    /// PEM private key of the first certificate. Files that anybody may write to are refused, here and
    /// below; keys, tokens and kubeconfigs that others may read are warned of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<String>,
    /// PEM bundle of the authorities that sign client certificates. Without it no client
    /// certificate is asked for.
    #[serde(rename = "clientCAFile", skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca_file: Option<String>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// IP address and port. The default stays on the machine, because metrics name resources.
    pub(crate) address: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:9443".to_owned(),
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["credentials", "identity"]))]
pub(crate) struct Upstream {
    /// URLs of the apiservers without path, as `https://10.0.0.1:6443`; `http` only for loopback.
    /// The next one is used when one fails. May be left out when the credentials name a server.
    pub(crate) servers: Vec<String>,
    /// PEM bundle that signs the servers' certificates. May be left out when the credentials bring
    /// one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<String>,
    /// The proxy's own identity, for watches and reviews. Exactly one kind.
    pub(crate) credentials: Credentials,
    /// How the identity of a client travels with a forwarded request.
    pub(crate) identity: Identity,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Credentials {
    /// A kubeconfig; its current context is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubeconfig: Option<String>,
    /// `true`: the service account of the pod the proxy runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_cluster: Option<bool>,
    /// PEM chain of a client certificate, leaf first; goes with `keyFile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<String>,
    /// PEM private key of the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<String>,
    /// A bearer token in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["mode"]))]
pub(crate) struct Identity {
    /// `RequestHeader`: X-Remote headers with a client certificate the apiserver trusts as a front
    /// proxy; it must take identities from no other headers. `Impersonate`: Impersonate headers with the proxy's own credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<IdentityMode>,
    /// PEM chain of the front proxy's certificate, leaf first; required by `RequestHeader`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<String>,
    /// PEM private key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum IdentityMode {
    RequestHeader,
    Impersonate,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Cache {
    /// For every resource that `resources` does not name.
    pub(crate) defaults: CacheDefaults,
    /// Resources with settings of their own; what an entry leaves out is taken from `defaults`.
    pub(crate) resources: Vec<CachedResource>,
    /// Resources that are never cached, in every version.
    pub(crate) passthrough: Vec<GroupResource>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct CacheDefaults {
    /// Bytes of objects one cache may hold; each resource and encoding has a cache of its own. A
    /// resource that outgrows it is forwarded. At least 1Mi.
    pub(crate) objects: Quantity,
    /// Past events, for watchers that come back.
    pub(crate) history: HistoryDefaults,
    /// Time without a client after which a cache is closed; 0 keeps it open. At least 10s.
    pub(crate) idle_timeout: Time,
    /// Encodings that are cached; a request for another one is forwarded.
    pub(crate) encodings: Vec<Encoding>,
}

impl Default for CacheDefaults {
    fn default() -> Self {
        Self {
            objects: Quantity(512 * MI),
            history: HistoryDefaults::default(),
            idle_timeout: Time::seconds(10 * 60),
            encodings: vec![Encoding::Protobuf, Encoding::Json],
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct HistoryDefaults {
    /// Bytes of past events one cache may hold; reaching it shortens the history. At least 1Mi.
    pub(crate) bytes: Quantity,
    /// Age up to which past events are kept: how long a client may be away without a new list.
    /// From 75s, what the apiserver's own cache keeps, to 24h.
    pub(crate) age: Time,
}

impl Default for HistoryDefaults {
    fn default() -> Self {
        Self {
            bytes: Quantity(64 * MI),
            age: Time::seconds(5 * 60),
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["group", "resource"]))]
pub(crate) struct CachedResource {
    /// API group; empty for the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// API version; left out means every version that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// Plural name, as in a path: `pods`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource: Option<String>,
    /// Encodings that are cached. Left out: those of `defaults`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encodings: Option<Vec<Encoding>>,
    /// Bytes of objects each cache may hold. Left out: that of `defaults`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) objects: Option<Quantity>,
    /// Past events. What is left out is taken from `defaults`.
    pub(crate) history: History,
    /// Whether the caches are opened at start and kept open. Needs `encodings` in the same entry,
    /// because each one is a watch on the apiserver and memory of its own.
    pub(crate) preload: bool,
    /// Time without a client after which a cache is closed. Left out: that of `defaults`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle_timeout: Option<Time>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct History {
    /// Bytes of past events each cache may hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<Quantity>,
    /// Age up to which past events are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    Protobuf,
    Json,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["group", "resource"]))]
pub(crate) struct GroupResource {
    /// API group; empty for the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// Plural name, as in a path: `events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource: Option<String>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Authentication {
    /// Whether a client certificate signed by `listen.clientCAFile` names its holder.
    pub(crate) client_certificate: bool,
    /// Bearer tokens.
    pub(crate) token_review: TokenReview,
    /// Front proxies whose word about a caller is taken, as another Watershed in front of this one.
    /// Left out: nobody's.
    pub(crate) request_header: RequestHeader,
    /// Whether a caller without credentials is `system:anonymous` instead of refused.
    pub(crate) anonymous: bool,
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            client_certificate: true,
            token_review: TokenReview::default(),
            request_header: RequestHeader::default(),
            anonymous: false,
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct TokenReview {
    /// How long the answer about a token may be reused, so also how long a revoked one may still
    /// work; 0 asks for every request. At most 5m.
    #[serde(rename = "cacheTTL")]
    pub(crate) cache_ttl: Time,
    /// Audiences a token must be for; none means those of the apiserver.
    pub(crate) audiences: Vec<String>,
}

impl Default for TokenReview {
    fn default() -> Self {
        Self {
            cache_ttl: Time::seconds(10),
            audiences: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["clientCAFile"]))]
pub(crate) struct RequestHeader {
    /// PEM bundle of the authorities that sign the certificates of front proxies, as the apiserver's
    /// `--requestheader-client-ca-file`. Whoever it signs for can be anybody: keep it apart from
    /// `listen.clientCAFile`, or name the proxies in `allowedNames`.
    #[serde(rename = "clientCAFile", skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca_file: Option<String>,
    /// Common names of the certificates that are believed. None means every one that the bundle
    /// signs.
    pub(crate) allowed_names: Vec<String>,
    /// Headers with the name of the user; the first that is not empty counts.
    pub(crate) username_headers: Vec<String>,
    /// Headers with the groups of the user, one a line.
    pub(crate) group_headers: Vec<String>,
    /// Headers with the UID of the user. None by default, as on an apiserver: name `X-Remote-Uid`
    /// where every front proxy sets it or strips it, as Watershed does.
    pub(crate) uid_headers: Vec<String>,
    /// How the headers begin that hold what else is known of the user; the rest is the key.
    pub(crate) extra_header_prefixes: Vec<String>,
}

impl Default for RequestHeader {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            client_ca_file: None,
            allowed_names: Vec::new(),
            username_headers: one("X-Remote-User"),
            group_headers: one("X-Remote-Group"),
            uid_headers: Vec::new(),
            extra_header_prefixes: one("X-Remote-Extra-"),
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Authorization {
    /// Whether the apiservers run with `--authorization-mode=Node,…`. What the Node authorizer
    /// allows is then allowed from the caches, without a SubjectAccessReview.
    pub(crate) node: bool,
    /// How often a watch that the cache serves has to be permitted again, and its client known;
    /// besides at once when the roles, bindings or pods that it was permitted for are gone. If it is
    /// not, the watch ends as at its timeout, and the client's next one gets its 403 or 401. Where the
    /// apiserver has to be asked, this is a review for each watch and time. One with a bearer token,
    /// which is not kept, ends after 12 times as long. 0 lets a watch run until its timeout, as the
    /// apiserver does, which also goes for those that are forwarded. From 10s to 1h.
    pub(crate) revalidate_watches: Time,
    /// Whether they run with `--authorization-mode=Node,RBAC` and nothing else. Roles and bindings
    /// then decide without a SubjectAccessReview; never say so of a control plane with a webhook.
    pub(crate) rbac: bool,
    /// Feature gates of the apiservers that change what nodes may read.
    pub(crate) feature_gates: FeatureGates,
    /// Decisions of the apiserver.
    pub(crate) subject_access_review: SubjectAccessReview,
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            node: true,
            revalidate_watches: Time::seconds(5 * 60),
            rbac: false,
            feature_gates: FeatureGates::default(),
            subject_access_review: SubjectAccessReview::default(),
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub(crate) struct FeatureGates {
    /// Nodes may read the service accounts of their pods: `false` for Kubernetes 1.33.
    pub(crate) kubelet_service_account_token_for_credential_providers: bool,
    /// Nodes may read the pod certificate requests of their pods.
    pub(crate) pod_certificate_request: bool,
    /// Nodes may read trust bundles.
    pub(crate) cluster_trust_bundle: bool,
}

impl Default for FeatureGates {
    fn default() -> Self {
        Self {
            kubelet_service_account_token_for_credential_providers: true,
            pod_certificate_request: false,
            cluster_trust_bundle: false,
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct SubjectAccessReview {
    /// How long an allowing answer may be reused, so also how long a withdrawn right may still
    /// work; 0 asks for every request. At most 5m.
    #[serde(rename = "allowTTL")]
    pub(crate) allow_ttl: Time,
    /// How long a refusing answer may be reused; 0 asks for every request. At most 5m. For nodes
    /// never more than a second: their authorizer learns of a pod a moment after the kubelet.
    #[serde(rename = "denyTTL")]
    pub(crate) deny_ttl: Time,
}

impl Default for SubjectAccessReview {
    fn default() -> Self {
        Self {
            allow_ttl: Time::seconds(10),
            deny_ttl: Time::seconds(10),
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Heartbeats {
    /// `Passthrough`: Lease renewals are forwarded like any other write. `Coalesce`: those that change
    /// nothing but `renewTime` are answered here, and one in a few is written, under the node's own
    /// identity. How many is derived from the keys below, so that no live node is taken for dead and a
    /// dead one is found no later than without. Leases and nodes must be cached, and unless
    /// `authorization.node` is on each renewal is asked about by a SubjectAccessReview.
    pub(crate) mode: HeartbeatMode,
    /// `--node-monitor-grace-period` of the controller manager, which has the same default. From
    /// 10s to 10m. What is absorbed is taken from this time: a value above the controller manager's
    /// own makes live nodes NotReady.
    pub(crate) node_monitor_grace_period: Time,
    /// Renewals of a node that may be lost one after the other, on the way or by an outage of the
    /// apiserver, before the node is taken for dead. One is 10.4 seconds. From 0 to 50.
    pub(crate) tolerated_losses: u32,
    /// How much later than the quickest a write may reach the controller manager: the 99.9th
    /// percentile of write and watch. From 3s to 1m.
    pub(crate) latency_spread: Time,
    /// Writes a renewal at least so often, if the longest safe time is not wanted. The default is the
    /// longest that is safe, for each node by its own pace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flush_period: Option<Time>,
    /// Writes what a node's status says of being alive at least so often, if it says nothing else: a
    /// kubelet that finds nothing changed sends it every 5 minutes, and each costs the store and
    /// everybody who watches nodes a whole Node. Keep it below what monitoring of `lastHeartbeatTime`
    /// tolerates. 0 forwards all; at most 1h. Nothing is absorbed while `mode` is `Passthrough`.
    pub(crate) node_status_period: Time,
    /// Who is not told of a Node that changed in nothing but `lastHeartbeatTime`. Nobody by default.
    pub(crate) suppress_node_events: SuppressNodeEvents,
    /// Nodes that are remembered, some 256 bytes each. Renewals of further ones are forwarded.
    pub(crate) nodes: u32,
    /// The other replicas, which hear of renewals that are not written yet, and write them if this one
    /// is gone. Left out: nobody does, and fewer renewals may share a write.
    pub(crate) peers: Peers,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self {
            mode: HeartbeatMode::Passthrough,
            node_monitor_grace_period: Time::seconds(50),
            tolerated_losses: 2,
            latency_spread: Time::seconds(3),
            flush_period: None,
            node_status_period: Time::seconds(1800),
            suppress_node_events: SuppressNodeEvents::default(),
            nodes: 250_000,
            peers: Peers::default(),
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct SuppressNodeEvents {
    /// User names whose watches do not hear of a Node that changed in nothing but `lastHeartbeatTime`,
    /// in either `mode`; as `system:kube-scheduler` or
    /// `system:serviceaccount:kube-system:kube-proxy`. GET and LIST give the newest, bookmarks go on:
    /// a watch without them hears everything. Not for the controller manager, which has nothing else
    /// to go by for a node without a lease, nor for who updates Nodes under the condition of a version
    /// it saw, as autoscalers.
    pub(crate) users: Vec<String>,
    /// Groups, as there: `system:nodes` for kubelets. None the controller manager may be in.
    pub(crate) groups: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["serverName", "certFile", "keyFile", "caFile"]))]
pub(crate) struct Peers {
    /// IP address and port on which other replicas connect, TLS with certificates on both sides.
    pub(crate) listen: String,
    /// DNS name of a headless Service with `publishNotReadyAddresses: true`: each of its addresses is a
    /// replica, this one among them, and listens on the port of `listen`. Either this or `servers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    /// The replicas as `host:port`, this one among them or not. Either this or `service`.
    pub(crate) servers: Vec<String>,
    /// DNS name that the certificate of every replica carries and that of nobody else whom `caFile`
    /// signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
    /// PEM chain of this replica's certificate, leaf first, for server and client authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<String>,
    /// PEM private key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<String>,
    /// PEM bundle of the authorities that sign the certificates of replicas.
    #[serde(rename = "caFile", skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<String>,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:6444".to_owned(),
            service: None,
            servers: Vec::new(),
            server_name: None,
            cert_file: None,
            key_file: None,
            ca_file: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum HeartbeatMode {
    Passthrough,
    Coalesce,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Client connections at a time. Further ones are closed when accepted.
    pub(crate) connections: u32,
    /// Streams of one HTTP/2 connection, so also its watches. The default is that of Go's HTTP/2
    /// server; a kubelet opens about ten. Further ones wait.
    pub(crate) watches_per_connection: u32,
    /// Watches, logs and other streams one agent may have open: a node, or the service account of one
    /// pod. The next one gets 429 with a Retry-After of 1 to 8 seconds, and nobody else notices. Members
    /// of `system:masters` have no limit. 0 is no limit.
    pub(crate) watches_per_agent: u32,
    /// Other requests one agent may have under way, up to the last byte of their answers. As there.
    pub(crate) requests_per_agent: u32,
    /// The same of one user name, all who share it together: kube-proxy and CNI daemons are one user on
    /// every node, so the default is four on each connection of `connections`. As there.
    pub(crate) watches_per_user: u32,
    /// The same of one user name. As there.
    pub(crate) requests_per_user: u32,
    /// Bytes that lists, initial events of watches and shared answers may hold at once for all clients
    /// together: for each at most 256Ki, or the whole answer if it is a shared one. A quarter is kept for
    /// reads of one node's objects. Further requests wait for a second and get 429 with a Retry-After of
    /// 1 to 8 seconds. At least 1Mi.
    pub(crate) initial_list_bytes: Quantity,
    /// Bytes that what local decisions depend on may take: what pods, volumes and nodes have to do
    /// with each other, and the rules of roles. Beyond it the apiserver is asked instead. At least
    /// 1Mi; a pod takes some 300 bytes.
    pub(crate) authorization_bytes: Quantity,
    /// Bytes of compressed lists remembered, so that clients that ask the same get one compression. A
    /// list that would take more than a quarter of it is compressed for each. 0 remembers none.
    pub(crate) compressed_lists: Quantity,
    /// Time for a TLS handshake. From 1s to 1m.
    pub(crate) handshake_timeout: Time,
    /// Time for the header of a request; the default is the apiserver's. From 1s to 5m.
    pub(crate) header_timeout: Time,
    /// Bytes of the header of a request; larger ones get 431. A kubelet sends under 4Ki. From 8Ki
    /// to 1Mi.
    pub(crate) header_bytes: Quantity,
    /// Silence on an HTTP/2 connection after which the peer is pinged; the default is client-go's.
    /// From 1s to 10m.
    pub(crate) keep_alive_interval: Time,
    /// Time for the answer to a ping; the connection is closed at its end. From 1s to 5m.
    pub(crate) keep_alive_timeout: Time,
    /// Time a consistent read may wait for proof of freshness before a GET or LIST is forwarded,
    /// identical ones once, and a WATCH ends as on an apiserver that lags; the default is the
    /// apiserver's. From 100ms, and less than `requestTimeout`.
    pub(crate) consistent_read_timeout: Time,
    /// Time to open a connection to an apiserver, TLS included. From 100ms to 1m.
    pub(crate) connect_timeout: Time,
    /// Time for a request that is no watch, log or upgrade; the default is the apiserver's. From 1s
    /// to 1h.
    pub(crate) request_timeout: Time,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 250_000,
            watches_per_connection: 250,
            watches_per_agent: 10_000,
            requests_per_agent: 1000,
            watches_per_user: 1_000_000,
            requests_per_user: 100_000,
            initial_list_bytes: Quantity(GI / 4),
            authorization_bytes: Quantity(GI),
            compressed_lists: Quantity(64 * MI),
            handshake_timeout: Time::seconds(10),
            header_timeout: Time::seconds(32),
            header_bytes: Quantity(64 * KI),
            keep_alive_interval: Time::seconds(30),
            keep_alive_timeout: Time::seconds(15),
            consistent_read_timeout: Time::seconds(3),
            connect_timeout: Time::seconds(5),
            request_timeout: Time::seconds(60),
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Drain {
    /// Time over which connections are let go after SIGTERM; what is open at its end is cut. At
    /// most 1h.
    pub(crate) grace_period: Time,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            grace_period: Time::seconds(60),
        }
    }
}

/// Keys that do not exist, or no longer, and what to write instead. A renamed key gets its line
/// here for good, so that an old file is answered with the new name and not with a guess.
const TOMBSTONES: &[(&str, &str)] = &[
    (
        "listen.port",
        "the port is part of `listen.address`, as `0.0.0.0:6443`",
    ),
    (
        "admin.port",
        "the port is part of `admin.address`, as `127.0.0.1:9443`",
    ),
    (
        "listen.caFile",
        "the authorities of client certificates are `listen.clientCAFile`",
    ),
    (
        "upstream.server",
        "servers are a list: `upstream.servers: [\"https://…\"]`",
    ),
    (
        "upstream.kubeconfig",
        "it belongs into `upstream.credentials.kubeconfig`",
    ),
    (
        "upstream.tokenFile",
        "it belongs into `upstream.credentials.tokenFile`",
    ),
    (
        "upstream.certFile",
        "it belongs into `upstream.credentials` or `upstream.identity`",
    ),
    (
        "upstream.keyFile",
        "it belongs into `upstream.credentials` or `upstream.identity`",
    ),
    (
        "authentication.cacheTTL",
        "it belongs into `authentication.tokenReview.cacheTTL`",
    ),
    (
        "authorization.allowTTL",
        "it belongs into `authorization.subjectAccessReview.allowTTL`",
    ),
    (
        "authorization.denyTTL",
        "it belongs into `authorization.subjectAccessReview.denyTTL`",
    ),
    (
        "metadata",
        "this file is read by the proxy itself and has no metadata; remove it",
    ),
    (
        "spec",
        "there is no `spec` here; its keys stand at the top of the document",
    ),
];

/// What to say about an unknown key that has a tombstone.
pub(crate) fn tombstone(key: &str) -> Option<String> {
    let (_, advice) = TOMBSTONES.iter().find(|(buried, _)| *buried == key)?;
    Some(format!("there is no such key; {advice}"))
}

/// The JSON schema of [`File`].
pub(crate) fn schema() -> schemars::Schema {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<File>()
}
