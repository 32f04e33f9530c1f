//! The loader processes of a run, seen as one.
//!
//! Owns their start, their sockets and their end. Refuses to know what is measured.
//! Invariant: dropping a crew ends its processes, and so does anything that ends this one: their
//! sockets close, and a loader without a socket is over.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::message::{Command, Report, Setup};
use super::plan::Plan;
use crate::apiserver::certs::Pki;
use crate::scenario::Encoding;

/// Connections that one process holds: what 20,000 file descriptors allow, and some.
const PER_LOADER: usize = 18_000;
/// Connections from which a second process is worth its core.
const WORTH_TWO: usize = 256;
const POLL: Duration = Duration::from_millis(50);

/// How a crew is started.
#[derive(Debug, Clone)]
pub struct CrewOptions {
    /// The server, `https://HOST:PORT`.
    pub url: String,
    /// What connections watch.
    pub plan: Plan,
    /// What they ask for.
    pub encoding: Encoding,
    /// Connections there will be at most.
    pub connections: usize,
    /// Processes; none for as many as it takes.
    pub loaders: Option<usize>,
    /// TLS handshakes at one time, of all processes together.
    pub handshakes: usize,
}

impl CrewOptions {
    fn loaders(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let worth = if self.connections >= WORTH_TWO {
            cores.min(2)
        } else {
            1
        };
        let needed = self.connections.div_ceil(PER_LOADER);
        self.loaders.unwrap_or(worth).max(needed).max(1)
    }
}

/// Loader processes.
#[derive(Debug)]
pub struct Crew {
    loaders: Vec<Loader>,
    wanted: (usize, usize),
}

#[derive(Debug)]
struct Loader {
    socket: BufReader<UnixStream>,
    _process: Process,
}

/// A process of this executable, which lives as long as the socket that is its standard input.
/// Ends it when dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts this executable with other arguments; its end of the socket is its standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(arguments: &[&OsStr]) -> Result<(UnixStream, Self)> {
        let (own, other) = StdStream::pair().context("make a pair of sockets")?;
        own.set_nonblocking(true)?;
        let path = std::env::current_exe().context("find this executable")?;
        let child = std::process::Command::new(path)
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(other)))
            .stdout(Stdio::null())
            .process_group(0) // Ctrl-C is for the run, which then still judges
            .spawn()
            .context("start another process of this executable")?;
        Ok((UnixStream::from_std(own)?, Self(child)))
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either may fail only because it is over already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Crew {
    /// Starts the processes; none has a connection yet.
    ///
    /// # Errors
    /// When a process cannot be started or does not answer.
    pub async fn start(options: &CrewOptions, pki: &Pki) -> Result<Self> {
        let all = options.loaders();
        let mut loaders = Vec::with_capacity(all);
        for own in 0..all {
            let mut loader = Loader::start()?;
            let setup = Setup {
                url: options.url.clone(),
                authority: pki.authority_pem(),
                plan: options.plan,
                encoding: options.encoding,
                stripe: (own, all),
                handshakes: options.handshakes.div_ceil(all),
            };
            loader.send(&Command::Setup(setup)).await?;
            loader.receive().await?;
            loaders.push(loader);
        }
        Ok(Self {
            loaders,
            wanted: (0, 0),
        })
    }

    /// How many processes there are.
    #[must_use]
    pub fn loaders(&self) -> usize {
        self.loaders.len()
    }

    /// Connections and watches that are asked for.
    #[must_use]
    pub fn wanted(&self) -> (u64, u64) {
        let (connections, watches) = self.wanted;
        (connections as u64, (connections * watches) as u64)
    }

    /// Sends a command to all; the sum of their answers.
    async fn order(&mut self, command: &Command) -> Result<Report> {
        for loader in &mut self.loaders {
            loader.send(command).await?;
        }
        let mut sum = Report::default();
        for loader in &mut self.loaders {
            sum.add(loader.receive().await?);
        }
        Ok(sum)
    }

    /// Has connections, each with watches, until there are so many of both; waits until all watches
    /// are open and in sync, and tells `progress` how many are.
    ///
    /// # Errors
    /// When they are not after `limit`, when stopped, or when a process is gone.
    pub async fn grow(
        &mut self,
        (connections, watches): (usize, usize),
        limit: Duration,
        stop: &CancellationToken,
        progress: impl FnMut(u64),
    ) -> Result<Report> {
        self.wanted = (connections, watches);
        let command = Command::Grow {
            connections,
            watches,
        };
        self.order(&command).await?;
        self.settle(limit, stop, progress).await
    }

    /// Waits until every watch that was asked for is open and in sync.
    ///
    /// # Errors
    /// As [`Crew::grow`].
    pub async fn settle(
        &mut self,
        limit: Duration,
        stop: &CancellationToken,
        mut progress: impl FnMut(u64),
    ) -> Result<Report> {
        let deadline = Instant::now() + limit;
        let (_, wanted) = self.wanted();
        loop {
            let report = self.report().await?;
            progress(report.watches);
            if report.watches >= wanted {
                return Ok(report);
            }
            let (open, findings) = (report.watches, report.findings.join("; "));
            if stop.is_cancelled() || Instant::now() >= deadline {
                let why = if stop.is_cancelled() {
                    "stopped"
                } else {
                    "late"
                };
                bail!("{why}: {open} of {wanted} watches are open: {findings}");
            }
            sleep(POLL).await;
        }
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// When a process is gone.
    pub async fn report(&mut self) -> Result<Report> {
        self.order(&Command::Report { latency: false }).await
    }

    /// What was counted so far, with the latencies since the last call.
    ///
    /// # Errors
    /// When a process is gone.
    pub async fn take(&mut self) -> Result<Report> {
        self.order(&Command::Report { latency: true }).await
    }

    /// Lets every tenth connection stand still, or go on.
    ///
    /// # Errors
    /// When a process is gone.
    pub async fn stall(&mut self, is_stalled: bool) -> Result<Report> {
        self.order(&Command::Stall(is_stalled)).await
    }

    /// Cuts every connection at once.
    ///
    /// # Errors
    /// When a process is gone.
    pub async fn cut(&mut self) -> Result<Report> {
        self.order(&Command::Cut).await
    }

    /// Waits until every watch has seen the lanes up to these sequences; how many events are still
    /// missing after `limit`.
    ///
    /// # Errors
    /// When a process is gone.
    pub async fn catch_up(&mut self, lanes: Vec<(u32, u64)>, limit: Duration) -> Result<u64> {
        let deadline = Instant::now() + limit;
        let command = Command::Behind { lanes };
        loop {
            let behind = self.order(&command).await?.behind;
            if behind == 0 || Instant::now() >= deadline {
                return Ok(behind);
            }
            sleep(POLL).await;
        }
    }
}

impl Loader {
    fn start() -> Result<Self> {
        let (socket, process) = Process::start(&["loader".as_ref()])?;
        Ok(Self {
            socket: BufReader::new(socket),
            _process: process,
        })
    }

    async fn send(&mut self, command: &Command) -> Result<()> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        let sent = self.socket.write_all(line.as_bytes()).await;
        sent.context("speak to a loader, which is gone")
    }

    async fn receive(&mut self) -> Result<Report> {
        let mut line = String::new();
        let length = self.socket.read_line(&mut line).await?;
        if length == 0 {
            bail!("a loader is gone; its last words are above");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
