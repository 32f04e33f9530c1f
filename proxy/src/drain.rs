//! The order and the deadlines of a shutdown, and the owner of every task.
//!
//! Owns: the trackers every task of the proxy is spawned on, and the signals that tell the parts to
//! leave, in this order: not ready, no new requests and open connections told to go elsewhere,
//! watches ended, the rest cut.
//! Refuses: to know what the parts do at a signal. A part asks for its signal and acts; nobody is
//! called.
//! Invariant: signals are only ever given in that order, and once [`Drain::run`] has returned no
//! tracked task is left.
//!
//! ```text
//!  serving ──► not ready ──► leaving ────────────────────────────────────► cut
//!              /readyz 500   new requests get 429, GOAWAY, watches end     connections are dropped
//!              0             one connection at a time, from LAME_DUCK      grace period
//! ```

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a proxy that is no longer ready still accepts connections, so that load balancers that
/// poll `/readyz` stop sending before connections are refused. A tenth of the grace period when
/// that is shorter.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// The share of the time after [`LAME_DUCK`] over which watches are ended; the rest is left for the
/// requests that are still running.
const WATCH_SPREAD: f64 = 0.9;

/// Owns the tasks and their end. Clones are the same drain.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    /// The runtime of everything but client connections.
    home: Handle,
    clients: TaskTracker,
    background: TaskTracker,
    not_ready: CancellationToken,
    leaving: CancellationToken,
    cut: CancellationToken,
    schedule: Arc<OnceLock<Schedule>>,
}

/// When a drain that has begun will do what.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    leave: Instant,
    watches_over: Instant,
    cut: Instant,
}

impl Drain {
    /// A drain that has not begun, of tasks on the current runtime.
    pub(crate) fn new() -> Self {
        Self {
            home: Handle::current(),
            clients: TaskTracker::new(),
            background: TaskTracker::new(),
            not_ready: CancellationToken::new(),
            leaving: CancellationToken::new(),
            cut: CancellationToken::new(),
            schedule: Arc::default(),
        }
    }

    /// Runs a task that serves clients. The drain waits for it; what still runs when everything is
    /// cut is dropped where it waits.
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = self.cut.clone().run_until_cancelled_owned(task);
        drop(self.clients.spawn_on(task, &self.home));
    }

    /// Runs a client's connection on the runtime of its worker. The drain waits for it as for other
    /// tasks; the connection itself ends at [`Self::cut`], which is not looked at with every event.
    pub(crate) fn spawn_connection<F>(&self, connection: F, worker: &Handle)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.clients.spawn_on(connection, worker));
    }

    /// Runs a task that others rely on, as a reflector, an upstream connection or the polling of a
    /// file, wherever it was asked for. It is dropped where it waits as soon as the last client is
    /// gone.
    pub(crate) fn spawn_background<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_background_on(task, &self.home);
    }

    /// The same on another runtime.
    pub(crate) fn spawn_background_on<F>(&self, task: F, runtime: &Handle)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = self.cut.clone().run_until_cancelled_owned(task);
        drop(self.background.spawn_on(task, runtime));
    }

    /// Where [`Self::spawn_background`] runs its tasks.
    pub(crate) fn home(&self) -> &Handle {
        &self.home
    }

    /// The number of tasks that run now, those for clients and those in the background.
    pub(crate) fn tasks(&self) -> (usize, usize) {
        (self.clients.len(), self.background.len())
    }

    /// Given first: readiness fails from here on.
    pub(crate) fn not_ready(&self) -> &CancellationToken {
        &self.not_ready
    }

    /// Given second: requests are refused, connections send GOAWAY or `Connection: close`.
    pub(crate) fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// Given last: what still runs is dropped.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Whether it is time to refuse requests. Takes no lock: every request asks.
    pub(crate) fn is_leaving(&self) -> bool {
        let schedule = self.schedule.get();
        schedule.is_some_and(|schedule| Instant::now() >= schedule.leave)
    }

    /// A moment, spread evenly over the time that is left for it, at which one connection ends its
    /// watches. `None` while the drain has not begun.
    pub(crate) fn watch_end(&self) -> Option<Instant> {
        let schedule = self.schedule.get()?;
        let span = schedule
            .watches_over
            .saturating_duration_since(schedule.leave);
        Some(schedule.leave + span.mul_f64(fastrand::f64()))
    }

    /// Gives the signals in order and returns when every task has ended, after `grace_period` at
    /// the latest (plus the time a cut task takes to be dropped). A second call waits for the same
    /// end.
    pub(crate) async fn run(&self, grace_period: Duration) {
        let schedule = *self
            .schedule
            .get_or_init(|| Schedule::new(Instant::now(), grace_period));
        self.not_ready.cancel();
        let clients_gone = async {
            tokio::time::sleep_until(schedule.leave).await;
            self.leaving.cancel();
            self.clients.close();
            self.clients.wait().await;
        };
        let in_time = tokio::time::timeout_at(schedule.cut, clients_gone)
            .await
            .is_ok();
        if !in_time {
            let (clients, _) = self.tasks();
            tracing::warn!(clients, "the grace period is over; cutting what is left");
        }
        self.leaving.cancel();
        self.cut.cancel();
        for tracker in [&self.clients, &self.background] {
            tracker.close();
            tracker.wait().await;
        }
    }
}

impl Schedule {
    fn new(now: Instant, grace_period: Duration) -> Self {
        let leave = now + LAME_DUCK.min(grace_period / 10);
        let cut = now + grace_period;
        let watches_over = leave + (cut - leave).mul_f64(WATCH_SPREAD);
        Self {
            leave,
            watches_over,
            cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn signals_are_given_in_order_and_a_stubborn_task_is_cut_at_the_deadline() {
        let drain = Drain::new();
        let start = Instant::now();
        let (sent, mut seen) = tokio::sync::mpsc::channel(8);
        for (name, token) in [
            ("leaving", drain.leaving()),
            ("not ready", drain.not_ready()),
        ] {
            let (token, sent) = (token.clone(), sent.clone());
            drain.spawn(async move {
                token.cancelled().await;
                sent.send((name, start.elapsed()))
                    .await
                    .expect("the test listens");
            });
        }
        drain.spawn(std::future::pending());
        drop(sent);

        drain.run(GRACE).await;

        assert_eq!(start.elapsed(), GRACE);
        assert_eq!(drain.tasks(), (0, 0));
        assert_eq!(seen.recv().await, Some(("not ready", Duration::ZERO)));
        assert_eq!(seen.recv().await, Some(("leaving", LAME_DUCK)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_without_clients_ends_after_the_lame_duck_time_and_drops_the_background() {
        let drain = Drain::new();
        drain.spawn_background(std::future::pending());
        let start = Instant::now();
        drain.run(GRACE).await;
        assert_eq!(start.elapsed(), LAME_DUCK);
        assert_eq!(drain.tasks(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn watches_end_spread_between_leaving_and_the_cut() {
        let drain = Drain::new();
        assert_eq!(drain.watch_end(), None);
        let start = Instant::now();
        drain.run(GRACE).await;
        let mut ends: Vec<f64> = (0..1000)
            .map(|_| (drain.watch_end().expect("begun") - start).as_secs_f64())
            .collect();
        ends.sort_by(f64::total_cmp);
        assert!(
            ends[0] >= 5.0 && ends[999] <= 55.0,
            "{} {}",
            ends[0],
            ends[999]
        );
        assert!((25.0..35.0).contains(&ends[500]), "{}", ends[500]);
    }
}
