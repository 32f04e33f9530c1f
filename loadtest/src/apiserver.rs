//! A real, in-memory Kubernetes apiserver: the judge the proxy is held against.
//!
//! It serves LIST, WATCH, GET and writes as kube-apiserver 1.36 does, byte for byte where the recordings of one show it:
//! one global revision, watch caches with history windows, bookmarks, WatchList, paging, selectors, JSON and protobuf.
//! `store` owns objects and revisions, `server` the path of a request, one file each of the steps between. It shares
//! no code with the proxy, so that a mistake made twice is seen once.
//!
//! It refuses what the judged never need: admission plugins, conversion webhooks, aggregation, persistence.
//! Invariant: a revision is given out once, and every reader sees writes in the order of their revisions.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod certs;
pub mod controllers;
pub mod crd;
pub mod discovery;
pub mod impersonation;
pub mod patch;
pub mod request;
pub mod resources;
pub mod schema;
pub mod selectors;
pub mod server;
pub mod status;
pub mod store;
pub mod table;
pub mod tokens;
pub mod write;
pub mod yaml;

/// How an apiserver is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Folder for certificates and kubeconfigs; `None` keeps them in memory only.
    pub dir: Option<PathBuf>,
    /// Behaviour that real servers set by flags and feature gates.
    pub profile: Profile,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir: None,
            profile: Profile::default(),
        }
    }
}

/// Flags and feature gates.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The WatchList gate. Default true, as from 1.34.
    pub watch_list: bool,
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
    /// `--event-ttl`. Default 1 h.
    pub event_ttl: Duration,
    /// `--min-request-timeout`: watches without a timeout live 1 to 2 times as long. Default 30 min.
    pub watch_timeout: Duration,
    /// `--request-timeout`. Default 60 s.
    pub request_timeout: Duration,
    /// Whether the controllers that a control plane runs are imitated (namespace deletion, …). Default true; the
    /// recordings were made without.
    pub controllers: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            watch_list: true,
            first_revision: 20_000,
            history_events: 100,
            history_events_max: 102_400,
            history_age: Duration::from_secs(75),
            versions_max: 20_000,
            event_ttl: Duration::from_secs(3600),
            watch_timeout: Duration::from_secs(1800),
            request_timeout: Duration::from_secs(60),
            controllers: true,
        }
    }
}
