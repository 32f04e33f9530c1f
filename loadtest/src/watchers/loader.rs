//! A loader: some of the connections of a run, in one process on one thread.
//!
//! Owns its connections' tasks and what they count. Refuses to decide anything: it does what the
//! lines on its socket say, and ends with the socket.
//! Invariant: counting neither waits nor allocates, so that a loader is cheaper than what it loads.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::sign::SigningKey;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{Connection, Watch};
use super::message::{Command, Histogram, Report, Setup};
use super::plan::Plan;
use crate::apiserver::certs::{Pki, SharedKey};
use crate::kubelet::client::Endpoint;
use crate::measure::Latency;
use crate::measure::process::Process;
use crate::scenario::Encoding;

/// Every which connection of a loader stands still when told to: 10 %.
const STALLED_EVERY: usize = 10;
/// Findings that are told in words.
const FINDINGS_MAX: usize = 20;
/// Certificates issued before the loader looks at its socket again.
const BATCH: usize = 64;

/// What every connection does.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Orders {
    pub(super) watches: usize,
    pub(super) is_stalled: bool,
    pub(super) cuts: u64,
}

/// What connections share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    pub(super) tls: ClientConfig,
    pub(super) key: Arc<dyn SigningKey>,
    pub(super) plan: Plan,
    pub(super) encoding: Encoding,
    pub(super) gate: Semaphore,
    pub(super) counts: Counts,
    pub(super) everybody: Latency,
    pub(super) single: Latency,
    findings: Mutex<Vec<String>>,
}

impl Shared {
    /// Notes something in words; the first are kept.
    pub(super) fn tell(&self, text: String) {
        let mut findings = self.findings.lock();
        if findings.len() < FINDINGS_MAX {
            findings.push(text);
        }
    }
}

/// As in [`Report`].
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicU64,
    pub(super) watches: AtomicU64,
    pub(super) established: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) lost_connections: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) initial: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) bookmarks: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) resumes: AtomicU64,
    pub(super) relists: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) doubled: AtomicU64,
    pub(super) reordered: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// Serves the run that started this process with a socket as its standard input.
///
/// # Errors
/// When standard input is no such socket, or what comes over it is no command.
pub async fn serve_stdin() -> Result<()> {
    serve(stdin_socket()?).await
}

/// The socket that is this process's standard input, as a run starts it.
///
/// # Errors
/// When it is none.
pub(crate) fn stdin_socket() -> Result<UnixStream> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let socket = StdStream::from(socket);
    let not_a_socket = "this command is started by `run`, not by hand";
    socket.set_nonblocking(true).context(not_a_socket)?;
    UnixStream::from_std(socket).context(not_a_socket)
}

/// Does what the lines on a socket say until it is closed.
///
/// # Errors
/// When a line is no command, or the first is not the set-up.
pub async fn serve(socket: UnixStream) -> Result<()> {
    let (read, mut write) = socket.into_split();
    let mut lines = BufReader::new(read).lines();
    let Some(first) = lines.next_line().await? else {
        return Ok(());
    };
    let Command::Setup(setup) = serde_json::from_str(&first)? else {
        anyhow::bail!("the first command is no set-up");
    };
    let mut loader = Loader::new(setup)?;
    let mut report = Report::default();
    loop {
        let mut line = serde_json::to_string(&report)?;
        line.push('\n');
        if write.write_all(line.as_bytes()).await.is_err() {
            return Ok(());
        }
        let line = loop {
            tokio::select! {
                line = lines.next_line() => break line,
                grown = loader.grow(), if loader.is_growing() => grown?,
            }
        };
        let Ok(Some(line)) = line else {
            return Ok(()); // whoever started this is gone
        };
        report = loader.obey(serde_json::from_str(&line)?);
    }
}

struct Loader {
    setup: Setup,
    shared: Arc<Shared>,
    pki: Pki,
    key: SharedKey,
    orders: watch::Sender<Orders>,
    tracks: Vec<Arc<Mutex<Vec<Watch>>>>,
    /// Connections of all loaders together that are asked for.
    wanted: usize,
    tasks: JoinSet<()>,
}

impl Loader {
    fn new(setup: Setup) -> Result<Self> {
        let (certificate, key) = &setup.authority;
        let pki = Pki::from_pem(certificate, key)?;
        let endpoint = Endpoint::new(&setup.url, pki.ca())?;
        let key = SharedKey::new()?;
        let shared = Shared {
            tls: endpoint.tls()?,
            endpoint,
            key: key.signing()?,
            plan: setup.plan,
            encoding: setup.encoding,
            gate: Semaphore::new(setup.handshakes),
            counts: Counts::default(),
            everybody: Latency::default(),
            single: Latency::default(),
            findings: Mutex::default(),
        };
        Ok(Self {
            setup,
            shared: Arc::new(shared),
            pki,
            key,
            orders: watch::Sender::new(Orders::default()),
            tracks: Vec::new(),
            wanted: 0,
            tasks: JoinSet::new(),
        })
    }

    fn obey(&mut self, command: Command) -> Report {
        let mut report = Report::default();
        let mut is_timed = false;
        match command {
            Command::Setup(_) => {}
            Command::Grow {
                connections,
                watches,
            } => {
                self.wanted = connections;
                self.orders.send_modify(|orders| orders.watches = watches);
            }
            Command::Stall(is_stalled) => {
                self.orders
                    .send_modify(|orders| orders.is_stalled = is_stalled);
            }
            Command::Cut => self.orders.send_modify(|orders| orders.cuts += 1),
            Command::Report { latency } => is_timed = latency,
            Command::Behind { lanes } => {
                let lanes: std::collections::HashMap<u32, u64> = lanes.into_iter().collect();
                let at = |lane| lanes.get(&lane).copied();
                let tracks = self.tracks.iter().flat_map(|own| own.lock().clone());
                report.behind = tracks.map(|own| own.lock().is_behind(at)).sum();
            }
        }
        self.fill(&mut report);
        if is_timed {
            report.shared = Histogram(self.shared.everybody.take_counts());
            report.single = Histogram(self.shared.single.take_counts());
        }
        report
    }

    fn fill(&self, report: &mut Report) {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Relaxed);
        report.connections = read(&counts.connections);
        report.watches = read(&counts.watches);
        report.established = read(&counts.established);
        report.failed = read(&counts.failed);
        report.lost_connections = read(&counts.lost_connections);
        report.ended = read(&counts.ended);
        report.initial = read(&counts.initial);
        report.events = read(&counts.events);
        report.bookmarks = read(&counts.bookmarks);
        report.bytes = read(&counts.bytes);
        report.resumes = read(&counts.resumes);
        report.relists = read(&counts.relists);
        report.lost = read(&counts.lost);
        report.doubled = read(&counts.doubled);
        report.reordered = read(&counts.reordered);
        report.errors = read(&counts.errors);
        report.findings.clone_from(&self.shared.findings.lock());
        report.cpu = Process::new(None)
            .sample()
            .map_or(0.0, |own| own.cpu_seconds);
    }

    /// The number among all loaders of the next connection.
    fn next(&self) -> usize {
        let (own, all) = self.setup.stripe;
        self.tracks.len() * all + own
    }

    fn is_growing(&self) -> bool {
        self.next() < self.wanted
    }

    /// Starts some of the connections that are asked for.
    async fn grow(&mut self) -> Result<()> {
        for _ in 0..BATCH {
            if !self.is_growing() {
                break;
            }
            let (index, at) = (self.next(), self.tracks.len());
            let certificate = self.setup.plan.issue(&self.pki, &self.key, index)?;
            let tracks = Arc::<Mutex<Vec<Watch>>>::default();
            self.tracks.push(Arc::clone(&tracks));
            let connection = Connection {
                shared: Arc::clone(&self.shared),
                index,
                certificate,
                is_stallable: at.is_multiple_of(STALLED_EVERY),
                orders: self.orders.subscribe(),
                tracks,
            };
            self.tasks.spawn(connection.run());
        }
        tokio::task::yield_now().await;
        Ok(())
    }
}
