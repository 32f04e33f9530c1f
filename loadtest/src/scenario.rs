//! Scenarios: what is done to a target, measured, and judged.
//!
//! Owns the command line of `run` and the verdict of each scenario. Refuses to start servers: a
//! target is an address, its certificates, and optionally a process to measure.
//! Invariant: a scenario that lost, doubled or reordered anything fails, whatever its numbers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::apiserver::certs::Pki;

/// What load is put on: a proxy or an apiserver, reached over the wire.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where kubelets connect, `https://HOST:PORT`.
    pub url: String,
    /// The proxy's admin listener, `http://HOST:PORT`; `/metrics` is read from it.
    pub admin: Option<String>,
    /// The embedded apiserver behind the proxy, `https://HOST:PORT`; its `/debug/requests` tells
    /// what reached it, and writes go to it directly. `None`: writes go to `url`.
    pub apiserver: Option<String>,
    /// Signs the certificates of kubelets and of the administrator; its CA signed the servers'.
    pub pki: Arc<Pki>,
    /// The process to measure, if it is not this one.
    pub pid: Option<u32>,
}

/// The command line of `watershed-loadtest run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArguments {
    /// What to do: steady, broadcast, storm, list, idle, slow or churn.
    pub scenario: String,
    /// Where kubelets connect, https://HOST:PORT.
    #[arg(long)]
    pub target: String,
    /// Folder with ca.crt and ca.key, as `apiserver --dir` writes it.
    #[arg(long)]
    pub dir: PathBuf,
    /// Process to measure (memory, CPU).
    #[arg(long)]
    pub pid: Option<u32>,
    /// Where to write the result as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Where to write the result as a self-contained HTML page.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Hollow kubelets.
    #[arg(long, default_value_t = 100)]
    pub kubelets: usize,
    /// Length of the measured part, seconds.
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// Rate of the churn.
    #[arg(long, default_value_t = 20.0)]
    pub writes_per_second: f64,
    /// The embedded apiserver behind a proxy, https://HOST:PORT: writes go there directly.
    #[arg(long)]
    pub apiserver: Option<String>,
    /// The proxy's admin listener, http://HOST:PORT.
    #[arg(long)]
    pub admin: Option<String>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Runs one scenario; the exit code is 1 when its verdict is negative.
///
/// # Errors
/// When the target cannot be reached, the folder holds no authority or a file cannot be written.
#[expect(clippy::todo, reason = "signatures first")]
pub async fn run(arguments: RunArguments, stop: CancellationToken) -> Result<ExitCode> {
    let _ = (arguments, stop);
    todo!()
}
