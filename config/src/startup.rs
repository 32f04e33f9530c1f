//! The part of the configuration that is read once.
//!
//! These settings shape things that cannot be swapped under running connections: sockets, the
//! proxy's own identity, the way heartbeats are answered. The contents of the files named here are
//! another matter: certificates and bundles are read again when they change.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use watershed_heartbeats::Bounds;

/// What is read once; a change needs a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// Where this proxy stands, as logs and metrics name it. Empty by default.
    pub region: String,
    /// The listener clients connect to.
    pub listen: Listen,
    /// Front proxies whose word about a caller is taken; `None` for nobody's.
    pub request_header: Option<RequestHeader>,
    /// The listener of health checks and metrics.
    pub admin: Admin,
    /// The apiservers behind this proxy.
    pub upstream: Upstream,
    /// What is known of how the apiservers authorize.
    pub authorizers: Authorizers,
    /// What is done with the heartbeats of nodes.
    pub heartbeats: Heartbeats,
    /// Who is not told of them.
    pub suppress_node_events: Subjects,
}

/// The listener clients connect to; TLS always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port. Required. Port 0 lets the system choose one.
    pub address: SocketAddr,
    /// PEM certificate chain of the server, leaf first. Required.
    pub cert_file: PathBuf,
    /// PEM private key of the first certificate. Required.
    pub key_file: PathBuf,
    /// PEM bundle of the authorities that sign client certificates. Without it no client
    /// certificate is asked for.
    pub client_ca_file: Option<PathBuf>,
}

/// Front proxies, and the headers by which they say whom a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// PEM bundle of the authorities that sign their certificates. Required.
    pub client_ca_file: PathBuf,
    /// Common names of the certificates that are believed; empty for every one that the bundle signs.
    pub allowed_names: Vec<String>,
    /// Lower-case names of the headers with the user's name; never empty. Default `x-remote-user`.
    pub username_headers: Vec<String>,
    /// Lower-case names of the headers with its groups. Default `x-remote-group`.
    pub group_headers: Vec<String>,
    /// Lower-case names of the headers with its UID. Default none, as kube-apiserver: an older front
    /// proxy would let a client's own pass.
    pub uid_headers: Vec<String>,
    /// How the headers with its extras begin, in lower case. Default `x-remote-extra-`.
    pub extra_header_prefixes: Vec<String>,
}

/// The listener of health checks and metrics; plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Address and port. Default `127.0.0.1:9443`: metrics name resources, so they stay on the
    /// machine until someone decides otherwise.
    pub address: SocketAddr,
}

/// The apiservers behind this proxy and how it speaks to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// URLs without path, as `https://10.0.0.1:6443`; `http` only for loopback addresses. Empty
    /// only with [`Credentials::Kubeconfig`] and [`Credentials::InCluster`]: then the server these
    /// name is used.
    pub servers: Vec<String>,
    /// PEM bundle that signs the servers' certificates. `None` means the one of the kubeconfig or
    /// of the pod; with other credentials it is required, except where every server is `http`.
    pub ca_file: Option<PathBuf>,
    /// The proxy's own identity, for watches and reviews. Required.
    pub credentials: Credentials,
    /// How the identity of a client travels with a forwarded request. Required.
    pub identity: UpstreamIdentity,
}

/// The proxy's own identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The current context of a kubeconfig.
    Kubeconfig(PathBuf),
    /// The service account of the pod the proxy runs in.
    InCluster,
    /// A client certificate.
    ClientCertificate {
        /// PEM certificate chain, leaf first.
        cert_file: PathBuf,
        /// PEM private key of the first certificate.
        key_file: PathBuf,
    },
    /// A bearer token in a file, read again when it changes.
    TokenFile(PathBuf),
}

/// How the identity of a client travels with a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamIdentity {
    /// `X-Remote-User` and its kin over a connection with the front proxy's client certificate.
    RequestHeader {
        /// PEM certificate chain, leaf first, signed by the apiserver's `--requestheader-client-ca-file`.
        cert_file: PathBuf,
        /// PEM private key of the first certificate.
        key_file: PathBuf,
    },
    /// `Impersonate-User` and its kin with the proxy's own credentials, which need the right to
    /// impersonate.
    Impersonate,
}

/// What the apiservers authorize with, as far as the proxy may decide like them. It opens caches of
/// what these decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorizers {
    /// Whether the first of `--authorization-mode` is `Node`: what its rules and graph allow a
    /// kubelet is then allowed without a review. Default true.
    pub node: bool,
    /// Whether it is `Node,RBAC` and nothing else: roles and bindings then decide without a review.
    /// Default false; only with `node`.
    pub rbac: bool,
    /// Feature gates of the apiservers.
    pub feature_gates: FeatureGates,
}

/// Feature gates of the apiservers that change what the Node authorizer allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureGates {
    /// Default true, as since Kubernetes 1.34.
    pub kubelet_service_account_token_for_credential_providers: bool,
    /// Default false.
    pub pod_certificate_request: bool,
    /// Default false.
    pub cluster_trust_bundle: bool,
}

/// What is done with the heartbeats of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heartbeats {
    /// Forwarded like any other write. The default: absorbing answers a write that the store has not
    /// seen, which nobody should get without asking.
    Passthrough,
    /// Most are answered here.
    Coalesce(Coalesce),
}

/// How heartbeats are absorbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coalesce {
    /// How many renewals a write may stand for; what the operator stated is in it.
    pub bounds: Bounds,
    /// How old what the store knows of a Node's `lastHeartbeatTime` may get; zero absorbs none of
    /// them. Default 30 minutes.
    pub node_status_period: Duration,
    /// Nodes that are remembered. Default 250,000.
    pub nodes: u32,
    /// The other replicas; `None` where nobody hears of what is not written yet.
    pub peers: Option<Box<Peers>>,
}

/// Some of those who may be authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// By user name.
    pub users: Vec<String>,
    /// By one of their groups.
    pub groups: Vec<String>,
}

impl Subjects {
    /// Whether there is nobody.
    pub const fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Whether a user of this name and these groups is one of them.
    pub fn contains(&self, user: &str, groups: &[String]) -> bool {
        self.users.iter().any(|it| it == user) || groups.iter().any(|it| self.groups.contains(it))
    }
}

/// Where the other replicas are, and how they know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Where they connect. Default `0.0.0.0:6444`.
    pub listen: SocketAddr,
    /// Where they are. Required.
    pub replicas: Replicas,
    /// DNS name that the certificate of every replica carries, besides being signed by `ca_file`.
    /// Required.
    pub server_name: String,
    /// PEM certificate chain of this replica, leaf first, for both directions. Required.
    pub cert_file: PathBuf,
    /// PEM private key of the first certificate. Required.
    pub key_file: PathBuf,
    /// PEM bundle that signs the certificates of replicas. Required.
    pub ca_file: PathBuf,
}

/// Where the replicas are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// At every address of a name.
    Service {
        /// The DNS name.
        name: String,
        /// The port they listen on.
        port: u16,
    },
    /// One at each `host:port`; never empty.
    Servers(Vec<String>),
}
