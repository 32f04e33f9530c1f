//! A value built from files, rebuilt when they change.
//!
//! Owns: the value in force and the hash of the bytes it was built from.
//! Refuses: file notification. Mounted Secrets are folders of symbolic links that are swapped
//! within a minute or so of a change anyway; polling small files every few seconds has no edge
//! cases.
//! Invariant: the value in force was built whole from files that were read in one pass. One that
//! cannot be built is reported once and changes nothing.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::metrics::{Metrics, OutcomeLabels};

use super::TlsError;

/// What is read, and what is made of it.
pub(crate) trait Source: Send + Sync + 'static {
    /// The bytes that were read.
    type Material: Hash;
    /// What they make.
    type Output: Send + Sync + 'static;

    /// Reads everything.
    ///
    /// # Errors
    /// When something cannot be read.
    fn read(&self) -> Result<Self::Material, TlsError>;

    /// Makes the value; called only when the bytes changed.
    ///
    /// # Errors
    /// When the bytes make no value.
    fn build(&self, material: &Self::Material) -> Result<Self::Output, TlsError>;
}

/// What one look at the files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing new, or the same failure as last time.
    Unchanged,
    /// A new value is in force.
    Changed,
    /// New files that make no value, or files that are gone; the old value stays.
    Broken(String),
}

/// The value in force.
pub(crate) struct Reloaded<S: Source> {
    source: S,
    current: ArcSwap<S::Output>,
    seen: Mutex<Seen>,
}

/// What the last look saw.
enum Seen {
    Bytes(u64),
    Failure(String),
}

impl<S: Source> Reloaded<S> {
    /// Builds the first value.
    ///
    /// # Errors
    /// When files cannot be read or make no value.
    pub(crate) fn load(source: S) -> Result<Self, TlsError> {
        let material = source.read()?;
        let current = ArcSwap::from_pointee(source.build(&material)?);
        let seen = Mutex::new(Seen::Bytes(fingerprint(&material)));
        Ok(Self {
            source,
            current,
            seen,
        })
    }

    /// The value in force.
    pub(crate) fn load_current(&self) -> Guard<Arc<S::Output>> {
        self.current.load()
    }

    /// Looks at the files once. Blocks on file reads.
    pub(crate) fn poll(&self) -> Outcome {
        let mut seen = self.seen.lock();
        let material = match self.source.read() {
            Ok(material) => material,
            Err(error) => return seen.failed(error.to_string()),
        };
        let bytes = fingerprint(&material);
        if matches!(*seen, Seen::Bytes(last) if last == bytes) {
            return Outcome::Unchanged;
        }
        match self.source.build(&material) {
            Ok(value) => {
                self.current.store(Arc::new(value));
                *seen = Seen::Bytes(bytes);
                Outcome::Changed
            }
            Err(error) => seen.failed(error.to_string()),
        }
    }

    /// Looks every `interval`, for ever, and reports what it finds under the name `what`.
    pub(crate) async fn watch(
        self: Arc<Self>,
        what: &'static str,
        interval: Duration,
        metrics: &Metrics,
    ) {
        let count = |outcome| {
            metrics
                .tls_reloads
                .get_or_create(&OutcomeLabels { outcome })
                .inc();
        };
        loop {
            tokio::time::sleep(interval).await;
            let this = Arc::clone(&self);
            let Ok(outcome) = tokio::task::spawn_blocking(move || this.poll()).await else {
                return; // the runtime is shutting down
            };
            match outcome {
                Outcome::Unchanged => {}
                Outcome::Changed => {
                    count("changed");
                    tracing::info!(what, "reloaded");
                }
                Outcome::Broken(error) => {
                    count("invalid");
                    tracing::warn!(what, %error, "new files cannot be used; the old stay in force");
                }
            }
        }
    }
}

impl Seen {
    fn failed(&mut self, error: String) -> Outcome {
        if matches!(self, Self::Failure(last) if *last == error) {
            return Outcome::Unchanged;
        }
        *self = Self::Failure(error.clone());
        Outcome::Broken(error)
    }
}

impl<S: Source> std::fmt::Debug for Reloaded<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reloaded").finish_non_exhaustive()
    }
}

fn fingerprint(material: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    material.hash(&mut hasher);
    hasher.finish()
}
