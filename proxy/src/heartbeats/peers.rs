//! What this replica owes is known to others, and what others owed is paid here.
//!
//! Owns: the telling of renewals that were answered and not written, five times a second, to the two
//! heirs of each node; who is there; the payment of what a replica that is gone owed. Refuses: to
//! decide what is owed ([`watershed_heartbeats`]), and to keep a queue of its own: what a node owes
//! changes in the table until a peer is told.
//! Invariant: while no peer is there, the bounds without peers hold.
//!
//! ```text
//!  Ledger ─ changes ─► tell ─ Heirs::of ─► links ─► link ══ TLS ══► hearing ─► Estate ─ due ─► payer
//!                       ▲                              here │ there                             PUT
//!  places ─► members ───┴── who is there
//! ```
//!
//! What was told and got lost is told again: whenever a peer comes or goes, everybody is told
//! everything that is owed, since heirs change with it. It costs some 60 bytes a node.

mod frame;
mod hearing;
mod link;
mod links;
mod metrics;
mod payer;
mod places;
mod tls;

use std::{collections::HashMap, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    net::TcpListener,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use watershed_config as config;
use watershed_heartbeats::{Debt, Heir};

use self::{
    frame::{Instance, Told},
    hearing::Debtors,
    link::Link,
    links::{Links, Ready},
    places::Places,
    tls::PeerFiles,
};
pub(crate) use self::{
    metrics::PeerMetrics,
    payer::{Paid, Store},
};
use super::Ledger;
use crate::{
    drain::Drain,
    metrics::Metrics,
    tls::{TlsError, reload::Reloaded},
};

/// How often peers are told what changed. What is absorbed in between dies with a replica.
const TELLING: Duration = Duration::from_millis(200);
/// Nodes they are told about at once at most; the others wait for the next time.
const TOLD_AT_ONCE: usize = 16_384;
/// The same where a peer is behind: what a replica of 100,000 nodes has to tell. A peer that does not
/// take this in either is disconnected.
const TOLD_AT_LEAST: usize = 2_048;
/// Debts in a frame, about.
const TOLD_IN_FRAME: usize = 200;
/// How long the last debts may take at the end.
const HANDOVER: Duration = Duration::from_secs(3);

/// What all tasks of the peers share.
struct Shared {
    own: Instance,
    /// What every replica's certificate carries.
    name: ServerName<'static>,
    tls: Arc<Reloaded<PeerFiles>>,
    ledger: Arc<Ledger>,
    links: Arc<Links>,
    debtors: Debtors,
    drain: Drain,
    metrics: PeerMetrics,
}

/// The peers of a replica, not begun.
pub(crate) struct Peers {
    shared: Arc<Shared>,
    listener: TcpListener,
    places: Places,
}

impl Peers {
    /// Reads the certificates; others will connect to `listener`.
    ///
    /// # Errors
    /// When files cannot be read or used.
    pub(crate) fn new(
        settings: &config::Peers,
        listener: TcpListener,
        ledger: Arc<Ledger>,
        (drain, metrics): (Drain, PeerMetrics),
    ) -> Result<Self, TlsError> {
        let name = ServerName::try_from(settings.server_name.clone());
        let name = name.map_err(|error| TlsError::Unusable {
            what: "name of `heartbeats.peers.serverName`",
            reason: error.to_string(),
        })?;
        let files = PeerFiles {
            certificate: settings.cert_file.clone(),
            key: settings.key_file.clone(),
            ca: settings.ca_file.clone(),
            name: name.clone(),
        };
        let shared = Shared {
            own: Instance::new(),
            name,
            tls: Arc::new(Reloaded::load(files)?),
            ledger,
            links: Links::new(),
            debtors: Debtors::default(),
            drain,
            metrics,
        };
        Ok(Self {
            shared: Arc::new(shared),
            listener,
            places: Places::Stated(settings.replicas.clone()),
        })
    }

    /// Begins: every task is the drain's. Debts are paid into `store`.
    pub(crate) fn run(self, store: impl Store, reload_interval: Duration, metrics: &Metrics) {
        let Self {
            shared,
            listener,
            places,
        } = self;
        let drain = shared.drain.clone();
        let (tls, metrics) = (Arc::clone(&shared.tls), metrics.clone());
        drain.spawn_background(async move {
            tls.watch("the peer certificates", reload_interval, &metrics)
                .await;
        });
        drain.spawn_background(hearing::listen(Arc::clone(&shared), listener));
        drain.spawn_background(payer::run(Arc::clone(&shared), Arc::new(store)));
        drain.spawn_background(Arc::clone(&shared).follow(places));
        // As for clients: the end of the process waits until everything is handed over.
        drain.spawn(shared.tell());
    }
}

impl Shared {
    /// Keeps a way to each place where a replica may be.
    async fn follow(self: Arc<Self>, mut places: Places) {
        let mut members: HashMap<String, CancellationToken> = HashMap::new();
        let mut failing = false;
        loop {
            let found = tokio::select! {
                found = places.find() => found,
                () = self.drain.leaving().cancelled() => return,
            };
            match found {
                Ok(found) => {
                    failing = false;
                    members.retain(|place, gone| {
                        let stays = found.binary_search(place).is_ok();
                        if !stays {
                            gone.cancel();
                        }
                        stays
                    });
                    for place in found {
                        members
                            .entry(place)
                            .or_insert_with_key(|place| self.connect(place));
                    }
                }
                Err(error) if failing => tracing::debug!(%error, "cannot find peers"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(%error, "cannot find peers; those who are known stay");
                }
            }
            tokio::select! {
                () = places.next() => {}
                () = self.drain.leaving().cancelled() => return,
            }
        }
    }

    fn connect(self: &Arc<Self>, place: &str) -> CancellationToken {
        let gone = CancellationToken::new();
        let link = Link {
            place: place.to_owned(),
            gone: gone.clone(),
            shared: Arc::clone(self),
        };
        self.drain.spawn(link.run());
        gone
    }

    /// Tells peers what is owed until this replica stops, and then all of it.
    async fn tell(self: Arc<Self>) {
        let mut ticks = interval(TELLING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ready = Ready::default();
        let mut all_told = Instant::now();
        loop {
            tokio::select! {
                () = self.drain.leaving().cancelled() => break,
                () = self.links.changed() => ready = self.meet(),
                _ = ticks.tick() => {
                    if ready.len() != self.links.able() {
                        ready = self.meet();
                    }
                    if ready.len() > 0 && self.tell_changes(&ready) {
                        all_told = Instant::now();
                    }
                    self.metrics.untold_seconds.set(all_told.elapsed().as_secs_f64());
                }
            }
        }
        self.hand_over(self.meet()).await;
    }

    /// Those who are there now. They are told everything.
    fn meet(&self) -> Ready {
        let ready = self.links.ready();
        let alone = ready.len() == 0;
        self.ledger.with(|_now, table| {
            table.set_replicated(!alone);
            table.tell_all();
        });
        let before = self.metrics.alive.set(ready.len() as i64);
        match (before, alone) {
            (1.., true) => tracing::warn!("no peer is there: fewer renewals share a write"),
            (0, false) => tracing::info!("peers hear of what is not written"),
            _ => {}
        }
        ready
    }

    /// Tells heirs what changed; `true` if that was all.
    fn tell_changes(&self, ready: &Ready) -> bool {
        let room = ready.room() / 2 * TOLD_IN_FRAME;
        let limit = room.clamp(TOLD_AT_LEAST, TOLD_AT_ONCE);
        let changes = self.ledger.with(|_now, table| table.changes(limit));
        let is_all = changes.len() < limit;
        for (place, debts) in self.by_heir(ready, changes).into_iter().enumerate() {
            for frame in frame::debts(&debts) {
                ready.send(place, frame);
            }
        }
        is_all
    }

    /// The debts of which each of those who are there has to hear.
    fn by_heir(&self, ready: &Ready, debts: Vec<Debt>) -> Vec<Vec<Told>> {
        let now = self.ledger.now();
        let mut by_heir = vec![Vec::new(); ready.len()];
        for debt in debts {
            for (heir, place) in Heir::ALL.into_iter().zip(ready.heirs.of(&debt.node)) {
                if let Some(place) = place {
                    by_heir[place].push(Told::of(heir, debt.clone(), now));
                    self.metrics.told.inc();
                }
            }
        }
        by_heir
    }

    /// Absorbs nothing more, tells everything that is owed, and says goodbye.
    async fn hand_over(&self, ready: Ready) {
        let owed = self.ledger.with(|_now, table| {
            table.drain();
            table.tell_all();
            table.untold()
        });
        let peers = ready.len();
        if peers == 0 {
            tracing::warn!(owed, "no peer to hand unwritten renewals over to");
        } else if timeout(HANDOVER, self.tell_rest(&ready)).await.is_err() {
            tracing::warn!(owed, peers, "not all unwritten renewals were handed over");
        } else {
            tracing::info!(owed, peers, "handed unwritten renewals over");
        }
        drop(ready);
        self.links.close();
    }

    async fn tell_rest(&self, ready: &Ready) {
        loop {
            let changes = self.ledger.with(|_now, table| table.changes(TOLD_AT_ONCE));
            if changes.is_empty() {
                return;
            }
            for (place, debts) in self.by_heir(ready, changes).into_iter().enumerate() {
                for frame in frame::debts(&debts) {
                    ready.send_patiently(place, frame).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
