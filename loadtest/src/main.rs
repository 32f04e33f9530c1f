//! The judge's command line: the embedded apiserver, and load scenarios against any server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use watershed_loadtest::apiserver::authn::Users;
use watershed_loadtest::apiserver::{Apiserver, Options, Profile};
use watershed_loadtest::heartbeats::echo;
use watershed_loadtest::scenario::{self, RunArguments};
use watershed_loadtest::watchers;

/// Everything needed to judge a Watershed proxy without a cluster.
#[derive(Debug, Parser)]
#[command(name = "watershed-loadtest", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a real, in-memory Kubernetes apiserver until Ctrl-C or SIGTERM.
    ///
    /// Certificates, kubeconfigs (admin.kubeconfig) and an example proxy configuration
    /// (watershed.yaml) are written into the directory; its authorities are reused when they are
    /// already there. Objects live in memory only.
    Apiserver {
        /// Address to listen on; port 0 picks a free one.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6443")]
        listen: SocketAddr,
        /// Directory for certificates, kubeconfigs and watershed.yaml; created if missing.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Bearer tokens: a file with a line `token,user,uid,"group1,group2"` for each.
        #[arg(long, value_name = "FILE")]
        users: Option<PathBuf>,
        /// Tell so many pods instead of storing any: a script that `run ingest` turns on.
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..1_000_000))]
        torrent: u64,
    },
    /// Put load on a server, measure it, and judge whether anything was lost, doubled or reordered.
    ///
    /// The exit code is 1 when the verdict is negative.
    Run(#[command(flatten)] Box<RunArguments>),
    /// Holds some of the connections of a run, which starts it.
    #[command(hide = true)]
    Loader,
    /// The least a server can do for a renewal; a run starts it.
    #[command(hide = true)]
    Echo { dir: PathBuf },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let mut runtime = match arguments.command {
        // Nothing is handed between threads, so a loader costs less than what it loads.
        Command::Loader | Command::Echo { .. } => Builder::new_current_thread(),
        Command::Apiserver { .. } | Command::Run(_) => Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().context("start the runtime");
    match runtime.and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Apiserver {
            listen,
            dir,
            users,
            torrent,
        } => {
            apiserver(listen, dir, users, torrent).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(arguments) => load(*arguments).await,
        Command::Echo { dir } => {
            echo::serve(&dir).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Loader => {
            watchers::serve_stdin().await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a scenario; Ctrl-C ends the load early and still judges it.
async fn load(arguments: RunArguments) -> Result<ExitCode> {
    let stop = CancellationToken::new();
    let mut run = std::pin::pin!(scenario::run(arguments, stop.clone()));
    tokio::select! {
        code = &mut run => code,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("listen for Ctrl-C")?;
            stop.cancel();
            run.await
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command's own output")]
async fn apiserver(
    listen: SocketAddr,
    dir: PathBuf,
    users: Option<PathBuf>,
    torrent_pods: u64,
) -> Result<()> {
    let users = users
        .map(|file| Users::open(&file))
        .transpose()?
        .unwrap_or_default();
    let options = Options {
        listen,
        dir: Some(dir.clone()),
        users,
        profile: Profile {
            torrent_pods,
            ..Profile::default()
        },
    };
    let server = Apiserver::start(options).await?;
    let (address, dir) = (server.addr(), dir.display());
    println!(
        "serving https://{address}, try: kubectl --kubeconfig {dir}/admin.kubeconfig get nodes"
    );
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("listen for Ctrl-C")?,
        _ = terminate.recv() => {}
    }
    server.shutdown().await;
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the last words of a failed command")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
