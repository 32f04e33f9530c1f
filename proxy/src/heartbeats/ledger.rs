//! What is known of the nodes' renewals, behind one lock, and whose turn it is to write.
//!
//! Owns: the clock of all [`Moment`]s, the table of nodes, the clients that wait for their turn, and
//! the debts of other replicas. Refuses: I/O, and to hold the lock across a wait.
//! Invariant: every licence to write that the table gives out comes back to it: a [`Pending`] that is
//! dropped, because its client has gone or its time was over, says so itself.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::oneshot, time::Instant};
use watershed_heartbeats::{
    After, Asked, Bounds, Decision, Estate, Heartbeats, Lease, Limits, Moment, Needless, Outcome,
    Reason, Ticket, Turn, Write,
};

/// Debts of other replicas that an heir pays in a second at most, so that what a dead replica leaves
/// does not hit the store at once.
const PAYMENTS_PER_SECOND: u32 = 500;

/// Debts of other replicas that are held, for each node that may be remembered: every replica tells
/// two others what it owes, so two if all have as many nodes, and room for what one that is gone
/// left. A debt takes some 250 bytes.
const DEBTS_PER_NODE: usize = 3;

/// The state of absorption of one replica.
pub(crate) struct Ledger {
    began: Instant,
    table: Mutex<Table>,
    estate: Mutex<Estate>,
    status_period: Duration,
}

struct Table {
    heartbeats: Heartbeats,
    /// Who waits, by ticket; as many as the table's own queue holds.
    waiting: HashMap<Ticket, oneshot::Sender<Turn>>,
}

/// What to do with a renewal.
pub(super) enum Step {
    /// Answer it here.
    Absorb,
    /// Write it.
    Write(Pending),
    /// Wait for the turn.
    Wait(Parked),
    /// Send it on as it is.
    Forward(Reason),
    /// Tell the client to come back.
    Shed,
}

/// What to do when a write is over.
pub(super) enum Followed {
    /// Give the client the apiserver's answer.
    Relay,
    /// Once more, from a newer lease.
    Again(Pending),
    /// Answer it here.
    Absorb,
    /// Send the client's request on as it is.
    Forward,
}

/// The licence for one write.
pub(super) struct Pending {
    ledger: Arc<Ledger>,
    write: Option<Write>,
}

/// A client in the queue.
pub(super) struct Parked {
    ledger: Arc<Ledger>,
    ticket: Ticket,
    turn: oneshot::Receiver<Turn>,
}

impl Ledger {
    /// Knows of no node. At most `nodes` are remembered, and three times as many debts of other
    /// replicas.
    pub(crate) fn new(bounds: Bounds, nodes: u32) -> Self {
        let nodes = usize::try_from(nodes).unwrap_or(usize::MAX);
        let limits = Limits {
            nodes,
            ..Limits::default()
        };
        Self {
            began: Instant::now(),
            table: Mutex::new(Table {
                heartbeats: Heartbeats::new(bounds, limits),
                waiting: HashMap::new(),
            }),
            estate: Mutex::new(Estate::new(
                nodes.saturating_mul(DEBTS_PER_NODE),
                PAYMENTS_PER_SECOND,
            )),
            status_period: Duration::ZERO,
        }
    }

    /// The same, in which the store's word of a Node's heartbeat may get as old as `period`; zero, the
    /// default, absorbs none in a status.
    pub(crate) fn with_status_period(self, period: Duration) -> Self {
        Self {
            status_period: period,
            ..self
        }
    }

    /// How old the store's word of a Node's heartbeat may get.
    pub(super) const fn status_period(&self) -> Duration {
        self.status_period
    }

    /// Now, by the clock of everything here.
    pub(crate) fn now(&self) -> Moment {
        Moment::after_start(self.began.elapsed())
    }

    /// Does something with the table. Not to be nested, nor held across a wait.
    pub(crate) fn with<T>(&self, work: impl FnOnce(Moment, &mut Heartbeats) -> T) -> T {
        let mut table = self.table.lock();
        // Under the lock, so that the table's clock does not go back.
        let now = self.now();
        work(now, &mut table.heartbeats)
    }

    /// The debts of other replicas.
    pub(crate) fn estate(&self) -> MutexGuard<'_, Estate> {
        self.estate.lock()
    }

    /// Decides about a renewal.
    pub(super) fn decide(self: &Arc<Self>, asked: &Asked<'_>) -> Step {
        let mut table = self.table.lock();
        let decision = table.heartbeats.decide(self.now(), asked);
        match decision {
            Decision::Absorb => Step::Absorb,
            Decision::Write(write) => Step::Write(self.pending(write)),
            Decision::Forward(reason) => Step::Forward(reason),
            Decision::Shed => Step::Shed,
            Decision::Wait(ticket) => {
                let (sender, turn) = oneshot::channel();
                table.waiting.insert(ticket, sender);
                let ledger = Arc::clone(self);
                Step::Wait(Parked {
                    ledger,
                    ticket,
                    turn,
                })
            }
        }
    }

    /// Calls those in the queue whose fate is known. Writes that end do so too; every second it has
    /// to be done for those that waited too long.
    pub(super) fn call(self: &Arc<Self>) {
        let mut table = self.table.lock();
        self.call_next(&mut table);
    }

    fn call_next(&self, table: &mut Table) {
        while let Some((ticket, turn)) = table.heartbeats.next(self.now()) {
            let unheard = match table.waiting.remove(&ticket) {
                Some(client) => client.send(turn).err(),
                None => Some(turn),
            };
            if let Some(Turn::Write(write)) = unheard {
                table.heartbeats.gone(self.now(), write);
            }
        }
    }

    fn finish(&self, write: Write, outcome: Outcome) -> After {
        let mut table = self.table.lock();
        let after = table.heartbeats.finished(self.now(), write, outcome);
        self.call_next(&mut table);
        after
    }

    fn gone(&self, write: Write) {
        let mut table = self.table.lock();
        table.heartbeats.gone(self.now(), write);
        self.call_next(&mut table);
    }

    fn pending(self: &Arc<Self>, write: Write) -> Pending {
        Pending {
            ledger: Arc::clone(self),
            write: Some(write),
        }
    }
}

impl Pending {
    /// The body of the write.
    ///
    /// # Errors
    /// When the lease needs no such write; [`Outcome::Needless`] ends it then.
    pub(super) fn body(&self, lease: &Lease<'_>) -> Result<Vec<u8>, Needless> {
        self.write().body(lease)
    }

    /// The write is over.
    pub(super) fn end(mut self, outcome: Outcome) -> Followed {
        let write = self.write.take().expect("it ends once");
        match self.ledger.finish(write, outcome) {
            After::Relay => Followed::Relay,
            After::Again(write) => Followed::Again(self.ledger.pending(write)),
            After::Absorb => Followed::Absorb,
            After::Forward => Followed::Forward,
        }
    }

    fn write(&self) -> &Write {
        self.write.as_ref().expect("it has not ended")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(write) = self.write.take() {
            self.ledger.gone(write);
        }
    }
}

impl Future for Parked {
    type Output = Step;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Step> {
        Pin::new(&mut self.turn)
            .poll(context)
            .map(|turn| match turn {
                Ok(Turn::Write(write)) => Step::Write(self.ledger.pending(write)),
                Ok(Turn::Absorb) => Step::Absorb,
                Ok(Turn::Forward) => Step::Forward(Reason::BeingWritten),
                // The sender is dropped with the table only.
                Ok(Turn::Shed) | Err(_) => Step::Shed,
            })
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        // Called meanwhile: the licence goes back.
        if let Ok(Turn::Write(write)) = self.turn.try_recv() {
            drop(self.ledger.pending(write));
        }
        let mut table = self.ledger.table.lock();
        if table.waiting.remove(&self.ticket).is_some() {
            table.heartbeats.abandon(self.ticket);
        }
    }
}
