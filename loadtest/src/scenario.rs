//! Scenarios: what is done to a target, measured, and judged.
//!
//! Owns the command line of `run`, the order of a run, and what each scenario adds to it (one file
//! each). Refuses to start servers: a target is an address, its certificates, and optionally a
//! process to measure.
//! Invariant: a scenario that lost, doubled or reordered anything fails, whatever its numbers.

mod bench;
mod broadcast;
mod churn;
mod engine;
mod get;
mod heartbeats;
mod idle;
mod indexed;
mod ingest;
mod list;
mod outcome;
mod passthrough;
mod population;
mod progress;
mod reads;
mod run;
mod slow;
mod steady;
mod storm;
mod target;
mod writer;

pub use heartbeats::{HeartbeatArguments, Moment, Share, Time};
pub use outcome::{Metric, Outcome, Plot, Series, Unit, bytes, grouped, verdict};
pub use progress::Progress;
pub use target::{Administrator, Target, Upstream};

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::report;
use bench::Bench;
use run::Run;

/// What `watershed-loadtest run` can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Kubelet-like connections under light churn: memory and CPU of each, latency, and how much of
    /// it the target adds when --apiserver is given. 1,000 × 10 watches, 20 writes/s, 30 s
    Steady,
    /// Memory at four numbers of connections up to 15,000, then with twice the watches: the slope
    /// per connection and per watch. 10 watches each, 15 s of rest before each sample
    Idle,
    /// Every watcher on a connection of its own gets every event of 1 KB: CPU per delivered event
    /// against the floor. 1,000 watchers, 20 writes/s, 10 s
    Broadcast,
    /// Each event is for one watcher among 1,000, then among 100,000: CPU per event at both.
    /// 1,000 connections × 100 watches, 500 writes/s, 20 s
    Indexed,
    /// Every tenth connection stops reading, three times: latency of the others with and without;
    /// the stalled go on without a list. 500 watchers, 20 writes/s, 48 s
    Slow,
    /// All connections are cut at once under churn: time until all watches resumed, CPU of each,
    /// relists, upstream requests and reviews, peak memory. 10,000 × 10 watches, 10 writes/s
    Storm,
    /// LIST of nodes at resourceVersion=0: latency, first byte, CPU; memory of lists nobody reads
    List,
    /// GET of one node at resourceVersion=0: latency and CPU
    Get,
    /// A GET and a PUT that are forwarded, and the same directly: latency added
    Passthrough,
    /// Updates of one resource as fast as they are taken in; needs `apiserver --torrent N` behind a
    /// proxy, and --apiserver and --admin: updates applied per second, CPU of each, lag, memory of
    /// the cache over its bytes
    Ingest,
    /// Half of the kubelets renew their leases through the target, the others at the apiserver; some
    /// die, and a node lifecycle controller at the apiserver finds them: how late, of both, and
    /// whether a live node was taken for lost; renewals per write against the formula, and every
    /// write against what was sent. Needs --apiserver; faults by --lose, --cut and --kill.
    /// 500 kubelets, 60 s or a flush period
    Heartbeats,
    /// Renewals by kubelets that renew every 250 ms: CPU of each that is absorbed, of each that is
    /// forwarded, of the same directly at the apiserver, and at a server that does nothing but TLS
    /// and HTTP/2, in turns. 1,000 kubelets, 20 s
    Renewals,
    /// Hollow kubelets, which do all that a kubelet does, and every kind of write. 100 kubelets,
    /// 20 writes/s, 30 s
    Churn,
}

/// The command line of `watershed-loadtest run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArguments {
    /// What to do
    pub scenario: Scenario,
    /// Where clients connect, https://HOST:PORT: a proxy, a kube-apiserver, any peer; replicas of
    /// it, for heartbeats, after commas
    #[arg(long, value_name = "URL")]
    pub target: String,
    /// Folder with ca.crt and ca.key, as `watershed-loadtest apiserver --dir` writes it
    #[arg(long)]
    pub dir: PathBuf,
    /// The server process, on this machine, whose memory and CPU are measured
    #[arg(long)]
    pub pid: Option<u32>,
    /// Where to write the result as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where to write the result as a self-contained HTML page
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// JSON of an earlier run of this scenario, to be shown beside this one
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Connections, each with a certificate of its own [default: by scenario]
    #[arg(long, value_name = "N", alias = "kubelets")]
    pub connections: Option<usize>,
    /// Watches of each connection [default: by scenario]
    #[arg(long, value_name = "N")]
    pub watches: Option<usize>,
    /// Length of the measured part, seconds [default: by scenario]
    #[arg(long, value_name = "S")]
    pub seconds: Option<u64>,
    /// Writes per second [default: by scenario]
    #[arg(long, value_name = "W")]
    pub writes_per_second: Option<f64>,
    /// What clients ask for
    #[arg(long, value_enum, default_value_t = Encoding::Protobuf)]
    pub encoding: Encoding,
    /// The apiserver behind a proxy, https://HOST:PORT: writes go there directly
    #[arg(long, value_name = "URL")]
    pub apiserver: Option<String>,
    /// The proxy's admin listener, http://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// Processes that hold the connections [default: what file descriptors and cores ask for]
    #[arg(long, value_name = "K")]
    pub loaders: Option<usize>,
    /// TLS handshakes at one time
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub handshakes: usize,
    /// Objects that `list` and `get` create and read [default: by scenario]
    #[arg(long, value_name = "N")]
    pub objects: Option<usize>,
    /// Bytes of JSON of each of them [default: by scenario]
    #[arg(long, value_name = "BYTES")]
    pub object_bytes: Option<usize>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Kubelets started per second, at most, by `churn`
    #[arg(long, default_value_t = 500.0, value_name = "RATE")]
    pub starts_per_second: f64,
    /// What `heartbeats` and `renewals` need to know
    #[command(flatten)]
    pub heartbeats: HeartbeatArguments,
}

/// What clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As kubelets and controllers do
    Protobuf,
    /// As kubectl and most other clients do
    Json,
}

/// Runs one scenario; the exit code is 1 when its verdict is negative.
///
/// # Errors
/// When the target cannot be reached, the folder holds no authority or a file cannot be written.
pub async fn run(arguments: RunArguments, stop: CancellationToken) -> Result<ExitCode> {
    let mut target = Target::from_folder(&arguments.target, &arguments.dir)?;
    target.pid = arguments.pid;
    target.apiserver.clone_from(&arguments.apiserver);
    target.admin.clone_from(&arguments.admin);
    let mut outcome = outcome(&arguments, target, &stop).await?;
    if let Some(path) = &arguments.compare {
        outcome.compare(path)?;
    }
    if let Some(path) = &arguments.json {
        write(path, &serde_json::to_string_pretty(&outcome)?)?;
    }
    if let Some(path) = &arguments.report {
        write(path, &report::page(&outcome))?;
    }
    print(&outcome);
    Ok(ExitCode::from(u8::from(!outcome.verdict.passed)))
}

async fn outcome(
    arguments: &RunArguments,
    target: Target,
    stop: &CancellationToken,
) -> Result<Outcome> {
    let run = Run::new(arguments, target, stop).await?;
    match arguments.scenario {
        Scenario::Steady => steady::run(run).await,
        Scenario::Idle => idle::run(run).await,
        Scenario::Broadcast => broadcast::run(run).await,
        Scenario::Indexed => indexed::run(run).await,
        Scenario::Slow => slow::run(run).await,
        Scenario::Storm => storm::run(run).await,
        Scenario::List => list::run(run).await,
        Scenario::Get => get::run(run).await,
        Scenario::Passthrough => passthrough::run(run).await,
        Scenario::Ingest => ingest::run(run).await,
        Scenario::Heartbeats => heartbeats::run(run).await,
        Scenario::Renewals => heartbeats::renewals(run).await,
        Scenario::Churn => churn::run(Bench::new(run)?).await,
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[expect(clippy::print_stdout, reason = "the result of a command")]
fn print(outcome: &Outcome) {
    println!("{}", outcome.table());
}
