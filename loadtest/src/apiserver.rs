//! A real, in-memory Kubernetes apiserver: the judge the proxy is held against.
//!
//! It serves LIST, WATCH, GET and writes as kube-apiserver 1.36 does, byte for byte where the
//! recordings of one show it: one global revision, watch caches with history windows, bookmarks,
//! WatchList, paging, selectors, JSON and protobuf. `store` owns objects and revisions, `server`
//! the path of a request, one file each of the steps between. It shares no code with the proxy, so
//! that a mistake made twice is seen once.
//!
//! It refuses what the judged never need: admission plugins, conversion webhooks, aggregation,
//! persistence. Invariant: a revision is given out once, and every reader sees writes in the order
//! of their revisions.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod certs;
pub mod controllers;
pub mod convert;
pub mod counters;
pub mod crd;
pub mod discovery;
pub mod faults;
pub mod impersonation;
pub mod lifecycle;
pub mod list;
pub mod negotiate;
pub mod paging;
pub mod patch;
pub mod read;
pub mod render;
pub mod request;
pub mod resources;
mod reviews;
pub mod schema;
pub mod selectors;
pub mod server;
pub mod status;
pub mod store;
pub mod table;
pub mod tokens;
pub mod torrent;
pub mod watch;
pub mod write;
pub mod yaml;

use authn::{Authenticator, Users};
use authz::Authorizer;
use certs::Pki;
use counters::Counters;
use faults::Faults;
use lifecycle::{Lifecycle, Termination};
use resources::Registry;
use server::State;
use store::Store;
use torrent::Torrent;

/// A running apiserver. Dropping it kills its connections; `shutdown` ends them in order.
#[derive(Debug)]
pub struct Apiserver {
    address: SocketAddr,
    state: Arc<State>,
    pki: Pki,
    kill: CancellationToken,
}

/// How long connections may take to end at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How often events are checked for their time to live.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

impl Apiserver {
    /// Starts a server; it answers when this returns.
    ///
    /// # Errors
    /// When the address cannot be bound or the certificates cannot be made or read.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("cannot listen on {}", options.listen))?;
        let address = listener
            .local_addr()
            .context("the listener has no address")?;
        let pki = match &options.dir {
            Some(dir) => {
                let pki = Pki::open(dir)?;
                pki.write_files(dir, address)?;
                pki
            }
            None => Pki::ephemeral()?,
        };
        let tls = pki.server_config()?;
        let authenticator = Authenticator::new(&pki, options.users)?;
        let state = Arc::new(state(options.profile, authenticator));
        bootstrap::install(&state);
        let server = Self {
            address,
            state,
            pki,
            kill: CancellationToken::new(),
        };
        server.spawn(listener, tls);
        Ok(server)
    }

    fn spawn(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        let (tasks, kill) = (&self.state.tasks, self.kill.clone());
        tasks.spawn(server::serve_connections(
            Arc::clone(&self.state),
            listener,
            tls,
            kill,
        ));
        let (state, stop) = (Arc::clone(&self.state), self.state.shutdown.clone());
        tasks.spawn(async move {
            let background = async {
                tokio::join!(expire(&state), async {
                    if state.profile.controllers {
                        controllers::run(Arc::clone(&state)).await;
                    }
                })
            };
            tokio::select! {
                _ = background => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Its certificate authorities; issues client certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// What its handlers share.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Its objects.
    pub fn store(&self) -> &Arc<Store> {
        &self.state.store
    }

    /// What it serves.
    pub fn registry(&self) -> &Registry {
        &self.state.registry
    }

    /// What reached it.
    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// Its misbehaviour.
    pub fn faults(&self) -> &Faults {
        &self.state.faults
    }

    /// Plays a new server process on the same storage: connections are cut, caches start empty at
    /// the current revision.
    pub fn restart(&self) {
        self.state.store.restart();
        self.state.faults.cut_connections();
    }

    /// Plays a server that is cut off from etcd: caches get no events and no progress until it is
    /// let go again. Reads at RV 0 are stale, consistent lists go past the cache, others wait.
    pub fn lag(&self, lagging: bool) {
        self.state.store.freeze(lagging);
    }

    /// Plays another server process on the same storage, whose caches are behind: they stand at a
    /// revision and get nothing until `lag(false)`. Connections are cut.
    pub fn fall_behind(&self, revision: u64) {
        self.state.store.fall_behind(revision);
        self.state.faults.cut_connections();
    }

    /// Ends every watch of a resource and restarts its cache at the current revision, as a server
    /// does that had to list again.
    pub fn relist(&self, resource: &resources::Resource) {
        self.state.store.close(resource);
    }

    /// Discards history below a revision, as etcd's compaction does.
    pub fn compact(&self, revision: u64) {
        self.state.store.compact(revision);
    }

    /// Takes the steps that SIGTERM makes a kube-apiserver take that is given time: readiness fails,
    /// then requests are refused while watches end one by one, then connections close.
    pub async fn terminate(&self, termination: Termination) {
        self.state.lifecycle.terminate(termination).await;
        self.state.shutdown.cancel();
    }

    /// Ends watches cleanly, lets answers finish for a few seconds, then cuts what is left.
    pub async fn shutdown(self) {
        self.state.shutdown.cancel();
        self.state.store.restart();
        self.state.tasks.close();
        if tokio::time::timeout(SHUTDOWN_GRACE, self.state.tasks.wait())
            .await
            .is_err()
        {
            self.kill.cancel();
            // Stream tasks of a dropped connection end by themselves; they are not worth more
            // waiting.
            let rest = tokio::time::timeout(SHUTDOWN_GRACE, self.state.tasks.wait()).await;
            if rest.is_err() {
                tracing::debug!("streams of cut connections still run");
            }
        }
    }
}

impl Drop for Apiserver {
    fn drop(&mut self) {
        self.state.shutdown.cancel();
        self.kill.cancel();
    }
}

fn state(profile: Profile, authenticator: Authenticator) -> State {
    let authorizer = Arc::new(Authorizer::new());
    let observed = Arc::clone(&authorizer);
    let observer: store::Observer = Box::new(move |storage, namespace, name, object| {
        let (resource, group) = storage.split_once('.').unwrap_or((storage, ""));
        observed.observe(group, resource, (namespace, name), object);
    });
    let torrent = (profile.torrent_pods > 0).then(|| Torrent::new(profile.torrent_pods));
    let state = State {
        store: Arc::new(Store::new(profile.clone(), observer)),
        torrent: torrent.map(Arc::new),
        profile,
        registry: Registry::builtin(),
        authenticator,
        authorizer,
        counters: Counters::default(),
        faults: Faults::default(),
        lifecycle: Lifecycle::default(),
        shutdown: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    for resource in state.registry.all() {
        state.store.open(&resource);
    }
    state
}

async fn expire(state: &State) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        ticks.tick().await;
        state.store.expire();
    }
}

/// How an apiserver is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Folder for certificates and kubeconfigs; `None` keeps them in memory only.
    pub dir: Option<PathBuf>,
    /// Behaviour that real servers set by flags and feature gates.
    pub profile: Profile,
    /// Bearer tokens and whom they name.
    pub users: Users,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir: None,
            profile: Profile::default(),
            users: Users::default(),
        }
    }
}

/// Flags and feature gates.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The WatchList gate. Default true, as from 1.34.
    pub watch_list: bool,
    /// What `/version` calls itself. Default `v1.36.0`.
    pub version: &'static str,
    /// First revision. Default 20000.
    pub first_revision: u64,
    /// Events a watch cache keeps at first; doubles while they are young. Default 100.
    pub history_events: usize,
    /// Upper bound of that doubling. Default 102,400.
    pub history_events_max: usize,
    /// Age below which a full history grows instead of dropping. Default 75 s.
    pub history_age: Duration,
    /// Superseded versions of objects kept for exact reads, per resource. Default 20,000.
    pub versions_max: usize,
    /// How long the cache of a custom resource takes to be filled. Default 20 ms.
    pub cache_start: Duration,
    /// `--event-ttl`. Default 1 h.
    pub event_ttl: Duration,
    /// `--min-request-timeout`: watches without a timeout live 1 to 2 times as long. Default 30
    /// min.
    pub watch_timeout: Duration,
    /// `--request-timeout`. Default 60 s.
    pub request_timeout: Duration,
    /// Whether the controllers that a control plane runs are imitated (namespace deletion, …).
    /// Default true; the recordings were made without.
    pub controllers: bool,
    /// Pods that are told by a script in the place of stored ones, for `run ingest`; 0, the default,
    /// for none.
    pub torrent_pods: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            watch_list: true,
            version: "v1.36.0",
            first_revision: 20_000,
            history_events: 100,
            history_events_max: 102_400,
            history_age: Duration::from_secs(75),
            versions_max: 20_000,
            cache_start: Duration::from_millis(20),
            event_ttl: Duration::from_secs(3600),
            watch_timeout: Duration::from_secs(1800),
            request_timeout: Duration::from_secs(60),
            controllers: true,
            torrent_pods: 0,
        }
    }
}

#[cfg(test)]
mod tests;
