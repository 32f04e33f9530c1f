//! The demo: hollow kubelets and churn against a proxy, a live table, a summary with a verdict.
//!
//! Owns the order of the show and what is printed. The caller owns the apiserver and the proxy;
//! the demo reaches both over the wire only.
//! Invariant: the summary is printed however the demo ends, and it says so when anything was lost,
//! doubled or reordered.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::scenario::Target;

/// What the demo shows.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Hollow kubelets. Default 2,000.
    pub kubelets: usize,
    /// Length of the churn after all kubelets started; `None` goes on until stopped.
    pub duration: Option<Duration>,
    /// Where to write the HTML report, if anywhere.
    pub report: Option<PathBuf>,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            kubelets: 2_000,
            duration: Some(Duration::from_secs(60)),
            report: None,
        }
    }
}

/// How the demo ended.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Whether every kubelet was served without an error and nothing was lost, doubled or reordered.
    pub passed: bool,
    /// The summary as printed.
    pub text: String,
}

/// Runs the demo until its duration is over or `stop` is cancelled; prints to stdout.
///
/// # Errors
/// When the target cannot be reached at all or the report cannot be written. A failed verdict is
/// not an error: see [`Summary::passed`].
#[expect(clippy::todo, reason = "signatures first")]
pub async fn run(options: DemoOptions, target: Target, stop: CancellationToken) -> Result<Summary> {
    let _ = (options, target, stop);
    todo!()
}
