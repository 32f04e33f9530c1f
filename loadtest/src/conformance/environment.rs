//! Where cases run: control planes, what stands in front of them, and who asks.
//!
//! Owns the seam between cases and what starts servers for them: the runner of the embedded
//! apiserver, that of the proxy, and that of a real control plane. Refuses to know a proxy but by
//! its addresses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::apiserver::certs::{Credential, Pki};
use crate::apiserver::{Apiserver, Options, Profile};
use crate::client::{Client, JSON, Protocol, tls};

/// What the clients of cases call themselves.
const USER_AGENT: &str = "conformance/1.0";

/// An apiserver with its storage, embedded or real, seen from outside its API.
pub trait ControlPlane: Send + Sync {
    /// Where the apiserver listens.
    fn address(&self) -> SocketAddr;

    /// The authorities it trusts: for clients, for front proxies, and for its own certificate.
    fn pki(&self) -> &Pki;

    /// Discards history below a revision, as etcd's compaction does.
    fn compact(&self, revision: u64) -> BoxFuture<'_, anyhow::Result<()>>;

    /// The embedded apiserver, for faults that no other has.
    fn embedded(&self) -> Option<&Apiserver>;
}

impl ControlPlane for Apiserver {
    fn address(&self) -> SocketAddr {
        self.addr()
    }

    fn pki(&self) -> &Pki {
        self.pki()
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, anyhow::Result<()>> {
        self.compact(revision);
        Box::pin(std::future::ready(Ok(())))
    }

    fn embedded(&self) -> Option<&Apiserver> {
        Some(self)
    }
}

/// How a control plane and the proxy in front of it are started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The apiserver's WatchList gate. Default true.
    pub watch_list: bool,
    /// The apiserver's `--event-ttl`. Default 1 h.
    pub event_ttl: Duration,
    /// Whether requests without credentials are `system:anonymous`. Default true.
    pub anonymous: bool,
    /// How long a proxy remembers decisions, allowed and denied. Default zero.
    pub decision_ttl: Duration,
    /// Group and resource of caches a proxy opens at start. Default: namespaces, pods, configmaps.
    pub preload: Vec<(&'static str, &'static str)>,
    /// Bytes of history in each cache of a proxy; `None` is the proxy's default.
    pub history_bytes: Option<u64>,
    /// How long the server under test takes to leave when it is stopped. Default zero.
    pub grace_period: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            watch_list: true,
            event_ttl: Duration::from_secs(3600),
            anonymous: true,
            decision_ttl: Duration::ZERO,
            preload: vec![("", "namespaces"), ("", "pods"), ("", "configmaps")],
            history_bytes: None,
            grace_period: Duration::ZERO,
        }
    }
}

/// Starts servers under test. The control planes it starts are alone with their storage: no
/// controllers run, ServiceAccount admission is off, the authorizers are Node and RBAC.
pub trait Environment: Send + Sync {
    /// Starts a control plane, and what stands in front of it. A setup it cannot have is an error
    /// of [`does_not_apply`](super::does_not_apply).
    fn start(&self, setup: Setup) -> BoxFuture<'_, anyhow::Result<Started>>;
}

/// What an environment started.
pub struct Started {
    /// Where cases aim at.
    pub subject: Subject,
    /// Ends it.
    pub running: Box<dyn Running>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.subject.fmt(formatter)
    }
}

/// Something that has to be ended.
pub trait Running: Send + Sync {
    /// Ends it and everything it runs.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// A server under test and the apiserver at it or behind it.
#[derive(Clone)]
pub struct Subject {
    /// Where requests under test go.
    pub address: SocketAddr,
    /// The authority of its serving certificate, PEM.
    pub ca: String,
    /// The proxy, unless the apiserver itself is under test.
    pub proxy: Option<Proxied>,
    /// The apiserver.
    pub control_plane: Arc<dyn ControlPlane>,
    /// How it was started.
    pub setup: Setup,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Subject")
            .field("address", &self.address)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

/// What is known of a proxy under test besides its answers.
#[derive(Clone, Copy, Debug)]
pub struct Proxied {
    /// Its admin listener, without TLS.
    pub admin: SocketAddr,
    /// Whether it is told that the apiserver's authorizers are Node and RBAC, and so decides by
    /// itself.
    pub decides: bool,
}

/// Whom a request is from.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The client certificate shown.
    pub certificate: Option<Credential>,
    /// The bearer token sent.
    pub token: Option<String>,
}

impl Identity {
    /// Nobody.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The holder of a certificate.
    pub fn of(certificate: Credential) -> Self {
        Self {
            certificate: Some(certificate),
            token: None,
        }
    }

    /// The same, with a bearer token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    pub(super) fn client(
        &self,
        to: SocketAddr,
        ca: &str,
        protocol: Protocol,
    ) -> anyhow::Result<Client> {
        let client = Client::new(to, tls(ca, self.certificate.as_ref())?, protocol)
            .with_default("user-agent", USER_AGENT)
            .with_default("accept", JSON);
        Ok(match &self.token {
            Some(token) => client.with_default("authorization", format!("Bearer {token}")),
            None => client,
        })
    }
}

/// Starts an embedded apiserver as `setup` asks for.
///
/// # Errors
/// When it cannot be started.
pub async fn start_embedded(setup: &Setup) -> anyhow::Result<Apiserver> {
    let profile = Profile {
        watch_list: setup.watch_list,
        event_ttl: setup.event_ttl,
        controllers: false,
        ..Profile::default()
    };
    let options = Options {
        profile,
        ..Options::default()
    };
    Apiserver::start(options).await
}
