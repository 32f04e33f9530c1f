//! `/livez`, `/readyz` and `/metrics`, on a listener of their own.
use std::{io, net::SocketAddr, sync::Arc};

use prometheus_client::registry::Registry;

use crate::drain::Drain;

/// Which question a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// `/livez`: does the process work; never depends on an apiserver.
    Live,
    /// `/readyz`: should it get traffic.
    Ready,
}

/// The answer of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// As shown: `ping`, `upstream`, `cache-pods`.
    pub(crate) name: String,
    /// Why it fails; shown only at `/readyz/<name>` and in the log.
    pub(crate) result: Result<(), String>,
}

/// What the admin listener shows.
#[derive(Clone)]
pub(crate) struct AdminOptions {
    /// Runs every check of a probe, in the order they are shown; `ping` and `shutdown` are added here.
    pub(crate) checks: Arc<dyn Fn(Probe) -> Vec<Check> + Send + Sync>,
    /// Called before a scrape: sets the gauges that are read from their source.
    pub(crate) before_scrape: Arc<dyn Fn() + Send + Sync>,
    /// The families.
    pub(crate) registry: Arc<Registry>,
    /// Owner of the connections' tasks; `/readyz` fails once it has begun.
    pub(crate) drain: Drain,
}

/// The bound admin socket.
#[derive(Debug)]
pub(crate) struct Admin {
    socket: tokio::net::TcpListener,
}

impl Admin {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = tokio::net::TcpListener::bind(address).await?;
        Ok(Self { socket })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the socket has none, which does not happen after `bind`.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Answers until everything is cut, so that probes see the drain.
    pub(crate) async fn serve(self, _options: AdminOptions) {
        todo!()
    }
}
