//! Writes what replicas that are gone owed.
//!
//! Owns: how many payments are under way, and what follows from each. Refuses: to choose which is
//! next, or when: that is the estate's, which keeps the pace.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use watershed_heartbeats::Debt;

use super::Shared;
use crate::metrics::OutcomeLabels;

/// Payments under way at once.
const PAYING_MAX: usize = 64;
/// How often it is looked whether one is due.
const LOOKING: Duration = Duration::from_millis(50);

/// Where debts are paid.
pub(crate) trait Store: Send + Sync + 'static {
    /// Writes a renewal under its node's identity, unless the store has it.
    fn pay(&self, debt: &Debt) -> impl Future<Output = Paid> + Send;
}

/// What came of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paid {
    /// It is in the store.
    Written,
    /// The store has it or something newer, or there is no such lease any more.
    Needless,
    /// It did not arrive, or nobody knows.
    Failed,
}

/// Pays what is due, for ever.
pub(super) async fn run(shared: Arc<Shared>, store: Arc<impl Store>) {
    let mut ticks = interval(LOOKING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut paying = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(_) = paying.join_next() => {}
        }
        while paying.len() < PAYING_MAX
            && let Some(debt) = shared.next_debt()
        {
            paying.spawn(Arc::clone(&shared).pay(Arc::clone(&store), debt));
        }
    }
}

impl Shared {
    fn next_debt(&self) -> Option<Debt> {
        let now = self.ledger.now();
        let mut estate = self.ledger.estate();
        let next = estate.next(now);
        let (held, due) = estate.len();
        drop(estate);
        self.metrics.held.set(held as i64);
        self.metrics.due.set(due as i64);
        next
    }

    async fn pay(self: Arc<Self>, store: Arc<impl Store>, debt: Debt) {
        let paid = store.pay(&debt).await;
        let outcome = match paid {
            Paid::Written => "written",
            Paid::Needless => "needless",
            Paid::Failed => {
                let now = self.ledger.now();
                self.ledger.estate().unpaid(now, debt);
                "failed"
            }
        };
        let labels = OutcomeLabels { outcome };
        self.metrics.paid.get_or_create(&labels).inc();
    }
}
