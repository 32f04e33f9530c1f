//! The connections of forwarded requests to one server with one identity, on every thread that
//! forwards.
//!
//! Owns: which connections a request may go on: those that its own runtime runs, so that neither it
//! nor its answer has to wake another thread.
//! Refuses: a limit of its own. Connections of all threads share the places of one, and where none
//! is left, an open connection of another thread will do.
//! Invariant: at most one set of connections for each runtime that ever asked; there are as many as
//! workers, and the one the proxy was started on.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};

use super::{
    credentials::Tls,
    pool::{Connections, Lease, NoConnection},
};

/// Connections by the runtime they run on.
pub(super) struct Nearby {
    make: Box<dyn Fn(Handle) -> Arc<Connections> + Send + Sync>,
    sets: Mutex<Vec<(Id, Arc<Connections>)>>,
}

impl Nearby {
    /// `make` gives the connections of one runtime.
    pub(super) fn new(make: impl Fn(Handle) -> Arc<Connections> + Send + Sync + 'static) -> Self {
        Self {
            make: Box::new(make),
            sets: Mutex::default(),
        }
    }

    /// Those of the current runtime.
    pub(super) fn here(&self) -> Arc<Connections> {
        let runtime = Handle::current();
        let mut sets = self.sets.lock();
        if let Some((_, found)) = sets.iter().find(|(id, _)| *id == runtime.id()) {
            return Arc::clone(found);
        }
        let id = runtime.id();
        let made = (self.make)(runtime);
        sets.push((id, Arc::clone(&made)));
        made
    }

    /// A place on a connection made with `tls`, of this thread if that is possible.
    pub(super) async fn lease(&self, tls: &Tls) -> Result<Lease, NoConnection> {
        match self.here().lease(tls).await {
            Err(NoConnection::Full) => self.elsewhere(tls).ok_or(NoConnection::Full),
            settled => settled,
        }
    }

    fn elsewhere(&self, tls: &Tls) -> Option<Lease> {
        let sets = self.sets.lock();
        sets.iter().find_map(|(_, set)| set.lease_open(tls))
    }
}
