//! Kubelets that do nothing but hold a lease.
//!
//! Owns their connections, the pace of their renewals and their ends. Refuses everything else a
//! kubelet does: [`Kubelet`](crate::kubelet::Kubelet) does that.
//! Invariant: every time is in the journal before it leaves, and nothing leaves after a death.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::journal::{Journal, Life};
use crate::apiserver::certs::Pki;
use crate::kubelet::client::{Answer, Call, CallError, Client, Connection, Endpoint};
use crate::kubelet::lease::{Renewer, Sender};
use crate::scenario::Encoding;

/// What is lost on the way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loss {
    /// Share of renewals. Half of them never arrive, and with them a whole turn is lost, retries
    /// included; of the others the answer is lost, and the kubelet tries again at once.
    pub share: f64,
}

/// What kubelets have in common.
#[derive(Debug, Clone)]
pub struct KubeletsOptions {
    /// Servers; each kubelet begins with one of them and goes on to the next when it is gone.
    pub endpoints: Vec<Endpoint>,
    /// Signs their certificates.
    pub pki: Arc<Pki>,
    /// Of the lease, seconds; it is renewed four times in that.
    pub duration_seconds: u32,
    /// Of renewals.
    pub encoding: Encoding,
    /// Appended to the query of renewals.
    pub query: &'static str,
    /// What is lost on the way.
    pub loss: Loss,
    /// TLS handshakes at one time.
    pub handshakes: usize,
}

/// Renewals of all kubelets together.
#[derive(Debug, Default)]
pub struct Counts {
    /// Acknowledged.
    pub renewed: AtomicU64,
    /// Lost on purpose.
    pub lost: AtomicU64,
}

/// Running kubelets. Dropping it ends them.
#[derive(Debug)]
pub struct Kubelets {
    names: Vec<String>,
    kills: Vec<CancellationToken>,
    journal: Arc<Journal>,
    counts: Arc<Counts>,
    tasks: JoinSet<()>,
    /// Never cut on purpose.
    _cuts: watch::Sender<u64>,
}

impl Kubelets {
    /// Starts a kubelet for each of the nodes; their first renewals are spread over one interval.
    ///
    /// # Errors
    /// When a certificate cannot be issued.
    pub fn start(
        options: &KubeletsOptions,
        names: Vec<String>,
        journal: &Arc<Journal>,
    ) -> Result<Self> {
        let gate = Arc::new(Semaphore::new(options.handshakes));
        let (cuts, cut) = watch::channel(0);
        let counts = Arc::<Counts>::default();
        let (mut kills, mut tasks) = (Vec::new(), JoinSet::new());
        for (at, name) in names.iter().enumerate() {
            let credential = options.pki.issue_node(name)?;
            let mut endpoints = options.endpoints.clone();
            let first = at % endpoints.len();
            endpoints.rotate_left(first);
            let others = endpoints.split_off(1);
            let (client, connection) = endpoints[0].client(&credential, Arc::clone(&gate))?;
            let heart = Heart {
                name: name.clone(),
                client,
                journal: Arc::clone(journal),
                counts: Arc::clone(&counts),
                loss: options.loss,
                is_answer_lost: AtomicBool::new(false),
            };
            let renewer =
                Renewer::new(name).with(options.duration_seconds, options.encoding, options.query);
            let kill = CancellationToken::new();
            kills.push(kill.clone());
            let connection = connection.or(others);
            tasks.spawn(heart.beat(renewer, connection, cut.clone(), kill));
        }
        Ok(Self {
            names,
            kills,
            journal: Arc::clone(journal),
            counts,
            tasks,
            _cuts: cuts,
        })
    }

    /// Names of their nodes.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Renewals so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Those that hold a lease.
    #[must_use]
    pub fn holding(&self) -> usize {
        let renewed = |life: &Life| life.acknowledged > 0;
        let lives = self.journal.lives(&self.names, renewed);
        lives.filter(|is_holding| *is_holding).count()
    }

    /// Ends one, without a word.
    pub fn kill(&self, at: usize) {
        self.journal.life(&self.names[at], |life| {
            life.died = life.died.or_else(|| Some(Instant::now()));
        });
        self.kills[at].cancel();
    }

    /// Ends all, and waits for them.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// One kubelet.
struct Heart {
    name: String,
    client: Client,
    journal: Arc<Journal>,
    counts: Arc<Counts>,
    loss: Loss,
    /// Of the renewal under way.
    is_answer_lost: AtomicBool,
}

impl Heart {
    async fn beat(
        self,
        renewer: Renewer,
        connection: Connection,
        cut: watch::Receiver<u64>,
        kill: CancellationToken,
    ) {
        tokio::select! {
            biased;
            () = kill.cancelled() => {}
            () = connection.run(cut) => {}
            () = self.renew(renewer) => {}
        }
    }

    async fn renew(&self, mut renewer: Renewer) {
        sleep(renewer.pause().mul_f64(fastrand::f64())).await;
        loop {
            if renewer.is_held() && fastrand::f64() < self.loss.share / 2.0 {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
            } else {
                let is_lost = renewer.is_held() && fastrand::f64() < self.loss.share / 2.0;
                self.counts
                    .lost
                    .fetch_add(u64::from(is_lost), Ordering::Relaxed);
                self.is_answer_lost.store(is_lost, Ordering::Relaxed);
                renewer.sync(self).await;
            }
            sleep(renewer.pause()).await;
        }
    }
}

impl Sender for Heart {
    async fn call(&self, call: &Call, limit: Duration) -> Result<Answer, CallError> {
        let answer = self.client.call_patiently(call, limit).await?;
        if self.is_answer_lost.swap(false, Ordering::Relaxed) {
            return Err(CallError::Closed);
        }
        Ok(answer)
    }

    fn renews(&self, renew_time: Timestamp) {
        let time = renew_time.as_microsecond();
        self.journal.life(&self.name, |life| life.sent.push(time));
    }

    fn renewed(&self) {
        self.counts.renewed.fetch_add(1, Ordering::Relaxed);
        self.journal.life(&self.name, |life| life.acknowledged += 1);
    }

    fn unexpected(&self, what: &str, answer: &Answer) {
        let (name, status) = (&self.name, answer.status);
        let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
        self.journal
            .errors
            .add(format!("{name}: {what}: {status} {text}"));
    }
}
