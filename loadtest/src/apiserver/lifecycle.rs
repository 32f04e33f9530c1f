//! The end of a server in kube-apiserver's order, as with `--shutdown-delay-duration`,
//! `--shutdown-send-retry-after` and `--shutdown-watch-termination-grace-period`.
//!
//! ```text
//!   serving ─► not ready ──delay──► refusing ──watch grace──► over
//!              /readyz 500          new requests 429,
//!                                   watches end one by one
//! ```
//!
//! Owns how far the end has come. Refuses to close sockets; the server does that when it is over.
//! Invariant: the steps come in that order and none is taken back.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long the steps of an end take.
#[derive(Debug, Clone, Copy)]
pub struct Termination {
    /// From failing readiness to refusing requests.
    pub delay: Duration,
    /// Over which watches end.
    pub watch_grace: Duration,
}

/// How far the end of a server has come.
#[derive(Debug, Default)]
pub struct Lifecycle {
    terminating: AtomicBool,
    refusing: CancellationToken,
    watch_grace: OnceLock<Duration>,
}

impl Lifecycle {
    /// Whether `/readyz` fails.
    pub fn is_terminating(&self) -> bool {
        self.terminating.load(Ordering::SeqCst)
    }

    /// Whether new requests are refused.
    pub fn is_refusing(&self) -> bool {
        self.refusing.is_cancelled()
    }

    /// Resolves when one watch is to end: at its own moment of the grace period.
    pub async fn watch_end(&self) {
        self.refusing.cancelled().await;
        let grace = self.watch_grace.get().copied().unwrap_or_default();
        tokio::time::sleep(grace.mul_f64(fastrand::f64())).await;
    }

    /// Takes the steps up to the end of the watches.
    pub(super) async fn terminate(&self, termination: Termination) {
        self.terminating.store(true, Ordering::SeqCst);
        tokio::time::sleep(termination.delay).await;
        let watch_grace = *self.watch_grace.get_or_init(|| termination.watch_grace);
        self.refusing.cancel();
        tokio::time::sleep(watch_grace).await;
    }
}
