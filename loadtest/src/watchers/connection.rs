//! One connection and its watches, in one task.
//!
//! Owns dialling, TLS, HTTP/2 and the reading of streams. Refuses to be fair to a slow loader: what
//! arrives is read at once, unless the connection is told to stand still.
//! Invariant: flow control never holds a server back except on a connection that stands still, whose
//! windows are HTTP/2's smallest.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use h2::client::SendRequest;
use http::header::{ACCEPT, USER_AGENT};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::CertificateDer;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::frame::{Cutter, Event};
use super::loader::{Orders, Shared};
use super::track::{Fault, Seen, Track};
use super::{SINGLE, now};
use crate::kubelet::client::retry_after;
use crate::kubelet::protobuf::Malformed;
use crate::scenario::Encoding;

/// As Go's transport: 30 s to dial.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Flow control windows of Go's transport. Half of one is read before the server is told, so that
/// a server spends next to nothing on it.
const CONNECTION_WINDOW: u32 = 1 << 30;
const STREAM_WINDOW: u32 = 4 << 20;
/// Windows of a connection that will stand still: HTTP/2's own.
const SMALL_WINDOW: u32 = 65_535;
/// Unread small DATA frames before h2 closes a connection: far above any burst of events.
const DATA_FRAME_BUDGET: usize = 64 << 20;
/// First and longest wait between two attempts, times 1 to 2.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How long the server may let a stream live, seconds: longer than a run.
const LIFE: std::ops::Range<u32> = 3_000..6_000;
/// Connections of one source address on loopback: well below the ephemeral ports there are.
const PER_ADDRESS: usize = 10_000;
/// Answers 403 in a row that may come while the server has not heard of a pod yet.
const FORBIDDEN_MAX: u32 = 5;

/// A connection in the making.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    pub(super) certificate: CertificateDer<'static>,
    /// Whether it stands still when it is told so.
    pub(super) is_stallable: bool,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) tracks: Arc<Mutex<Vec<Watch>>>,
}

/// One watch over its streams.
pub(super) type Watch = Arc<Mutex<Track>>;

type Streams = FuturesUnordered<BoxFuture<'static, ()>>;

impl Connection {
    /// Keeps the connection and its watches until its task is ended.
    pub(super) async fn run(mut self) {
        let mut delay = RETRY.0;
        loop {
            match timeout(DIAL_TIMEOUT, self.dial()).await {
                Ok(Ok((sender, connection))) => {
                    delay = RETRY.0;
                    self.shared.counts.established.fetch_add(1, Relaxed);
                    self.shared.counts.connections.fetch_add(1, Relaxed);
                    self.serve(&sender, connection).await;
                    self.shared.counts.connections.fetch_sub(1, Relaxed);
                }
                failed @ (Ok(Err(_)) | Err(_)) => {
                    self.shared.counts.failed.fetch_add(1, Relaxed);
                    if let Ok(Err(error)) = failed {
                        self.shared.tell(format!("dial: {error:#}"));
                    }
                    sleep(delay.mul_f64(1.0 + fastrand::f64())).await;
                    delay = (delay * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn dial(
        &self,
    ) -> Result<(
        SendRequest<Bytes>,
        h2::client::Connection<TlsStream<TcpStream>>,
    )> {
        let _turn = self.shared.gate.acquire().await?; // bounds handshakes at one time
        let stream = self.connect().await.context("connect")?;
        stream.set_nodelay(true)?;
        // A cut is a reset: nothing lingers, and no port waits for its time.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let certified =
            CertifiedKey::new(vec![self.certificate.clone()], Arc::clone(&self.shared.key));
        let mut tls = ClientConfig::clone(&self.shared.tls);
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        let name = self.shared.endpoint.name().clone();
        let stream = TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await
            .context("TLS handshake")?;
        let (stream_window, window) = if self.is_stallable {
            (SMALL_WINDOW, SMALL_WINDOW)
        } else {
            (STREAM_WINDOW, CONNECTION_WINDOW)
        };
        h2::client::Builder::new()
            .initial_window_size(stream_window)
            .initial_connection_window_size(window)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .enable_push(false)
            .handshake(stream)
            .await
            .context("HTTP/2 handshake")
    }

    /// Dials from as many addresses of loopback as it takes.
    async fn connect(&self) -> std::io::Result<TcpStream> {
        let address = self.shared.endpoint.address();
        let nth = self.index / PER_ADDRESS;
        if nth == 0 || address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            return TcpStream::connect(address).await;
        }
        let last = u8::try_from(nth + 1).unwrap_or(u8::MAX);
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
        socket.connect(address).await
    }

    /// Follows every watch until the connection is lost or cut.
    async fn serve(
        &mut self,
        sender: &SendRequest<Bytes>,
        connection: h2::client::Connection<TlsStream<TcpStream>>,
    ) {
        let mut connection = std::pin::pin!(connection);
        let mut streams = Streams::new();
        let cuts = self.orders.borrow_and_update().cuts;
        self.open(sender, &mut streams);
        loop {
            if self.is_stallable && self.orders.borrow().is_stalled {
                // Nothing is polled, so nothing is read.
                if self.orders.changed().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::select! {
                biased;
                _ = &mut connection => {
                    self.shared.counts.lost_connections.fetch_add(1, Relaxed);
                    return;
                }
                changed = self.orders.changed() => {
                    if changed.is_err() || self.orders.borrow().cuts != cuts {
                        return;
                    }
                    self.open(sender, &mut streams);
                }
                Some(()) = streams.next() => {}
            }
        }
    }

    /// Opens the watches that are asked for and not yet open on this connection.
    fn open(&self, sender: &SendRequest<Bytes>, streams: &mut Streams) {
        let wanted = self.orders.borrow().watches;
        let mut tracks = self.tracks.lock();
        let more = wanted.saturating_sub(tracks.len());
        tracks.reserve_exact(more);
        while tracks.len() < wanted {
            tracks.push(Watch::default());
        }
        for at in streams.len()..wanted {
            let stream = Stream {
                shared: Arc::clone(&self.shared),
                track: Arc::clone(&tracks[at]),
                place: (self.index, at),
                is_timed: !self.is_stallable,
                is_counted: AtomicBool::new(false),
            };
            streams.push(Box::pin(stream.run(sender.clone())));
        }
    }
}

/// One watch on one connection.
struct Stream {
    shared: Arc<Shared>,
    track: Watch,
    /// Connection and number of the watch.
    place: (usize, usize),
    is_timed: bool,
    is_counted: AtomicBool,
}

/// Takes a watch off the count of open ones when its stream is over, or dropped.
struct Open<'a>(&'a Stream);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.0.is_counted.swap(false, Relaxed) {
            self.0.shared.counts.watches.fetch_sub(1, Relaxed);
        }
    }
}

/// How a stream ended.
enum End {
    /// The connection is gone; a new one brings a new stream.
    Lost,
    /// Cleanly, or with an ERROR of this code.
    Over(Option<u64>),
    Refused(StatusCode, Option<u64>),
    Malformed,
}

impl From<Malformed> for End {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Stream {
    async fn run(self, sender: SendRequest<Bytes>) {
        let (mut delay, mut forbidden) = (RETRY.0, 0);
        loop {
            let end = match self.follow(&sender).await {
                Ok(()) => End::Over(None),
                Err(end) => end,
            };
            let counts = &self.shared.counts;
            let (mut wait, mut error) = (Duration::ZERO, None);
            match end {
                // The connection ends this future with it.
                End::Lost => std::future::pending().await,
                End::Over(None) => _ = counts.ended.fetch_add(1, Relaxed),
                End::Over(Some(410)) => {
                    counts.ended.fetch_add(1, Relaxed);
                    self.expire();
                }
                End::Over(Some(code)) => error = Some(format!("ERROR {code}")),
                End::Refused(StatusCode::GONE, _) => self.expire(),
                End::Refused(
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE,
                    after,
                ) => wait = after.map_or(delay, Duration::from_secs),
                End::Refused(StatusCode::FORBIDDEN, _) if forbidden < FORBIDDEN_MAX => {
                    forbidden += 1;
                    wait = delay;
                }
                End::Refused(code, _) => error = Some(code.to_string()),
                End::Malformed => error = Some("a malformed stream".to_owned()),
            }
            if let Some(error) = error {
                counts.errors.fetch_add(1, Relaxed);
                self.note(&error);
                wait = delay;
            }
            if !wait.is_zero() {
                sleep(wait.mul_f64(1.0 + fastrand::f64())).await;
                delay = (delay * 2).min(RETRY.1);
            }
        }
    }

    /// The server cannot go on from where this watch is.
    fn expire(&self) {
        let is_relist = self.track.lock().expire();
        let relists = &self.shared.counts.relists;
        relists.fetch_add(u64::from(is_relist), Relaxed);
    }

    /// Counts the watch as open and in sync.
    fn count(&self) {
        if !self.is_counted.swap(true, Relaxed) {
            self.shared.counts.watches.fetch_add(1, Relaxed);
        }
    }

    fn note(&self, what: &str) {
        let (path, query) = self.shared.plan.target(self.place.0, self.place.1);
        self.shared.tell(format!("watch {path}?{query}: {what}"));
    }

    async fn follow(&self, sender: &SendRequest<Bytes>) -> Result<(), End> {
        let request = self.request();
        let sender = sender.clone().ready().await;
        let mut sender = sender.map_err(|_| End::Lost)?;
        let sent = sender.send_request(request, true);
        let (response, _) = sent.map_err(|_| End::Lost)?;
        drop(sender);
        let response = response.await.map_err(|_| End::Lost)?;
        if response.status() != StatusCode::OK {
            let after = retry_after(response.headers());
            return Err(End::Refused(response.status(), after));
        }
        let counts = &self.shared.counts;
        let _open = Open(self);
        if self.track.lock().opened() {
            counts.resumes.fetch_add(1, Relaxed);
            self.count();
        }
        let mut body = response.into_body();
        let mut cutter = Cutter::default();
        let is_protobuf = self.shared.encoding == Encoding::Protobuf;
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(|_| End::Lost)?;
            let released = body.flow_control().release_capacity(chunk.len());
            released.map_err(|_| End::Lost)?;
            counts.bytes.fetch_add(chunk.len() as u64, Relaxed);
            cutter.cut(&chunk, is_protobuf, |frame| self.frame(frame, is_protobuf))?;
        }
        Ok(())
    }

    fn request(&self) -> Request<()> {
        let (path, query) = self.shared.plan.target(self.place.0, self.place.1);
        let from = match self.track.lock().resume() {
            Some(version) => format!("resourceVersion={version}"),
            None => "resourceVersionMatch=NotOlderThan&sendInitialEvents=true".to_owned(),
        };
        let life = fastrand::u32(LIFE);
        let authority = self.shared.endpoint.authority();
        let accept = match self.shared.encoding {
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf,application/json",
            Encoding::Json => "application/json",
        };
        Request::get(format!(
            "https://{authority}{path}?allowWatchBookmarks=true&{query}{from}\
             &timeoutSeconds={life}&watch=true"
        ))
        .header(ACCEPT, accept)
        .header(
            USER_AGENT,
            "kubelet/v1.36.1 (linux/amd64) kubernetes/0123abc",
        )
        .body(())
        .expect("a path of this file is a valid URI")
    }

    fn frame(&self, frame: &[u8], is_protobuf: bool) -> Result<(), End> {
        let event = if is_protobuf {
            Event::protobuf(frame)?
        } else {
            Event::json(frame)?
        };
        let seen = self.track.lock().event(&event);
        let counts = &self.shared.counts;
        match seen {
            Ok(Seen::Live(beat)) => {
                counts.events.fetch_add(1, Relaxed);
                if let Some(beat) = beat.filter(|_| self.is_timed) {
                    let latency = now().saturating_sub(beat.sent);
                    let is_single = beat.lane >= SINGLE;
                    let kind = [&self.shared.everybody, &self.shared.single];
                    kind[usize::from(is_single)].record_micros(latency);
                }
            }
            Ok(Seen::Initial) => _ = counts.initial.fetch_add(1, Relaxed),
            Ok(Seen::Synced) => self.count(),
            Ok(Seen::Bookmark) => _ = counts.bookmarks.fetch_add(1, Relaxed),
            Ok(Seen::Failed(code)) => return Err(End::Over(Some(code))),
            Err(fault) => {
                let (counter, count) = match fault {
                    Fault::Lost(count) => (&counts.lost, count),
                    Fault::Doubled => (&counts.doubled, 1),
                    Fault::Reordered => (&counts.reordered, 1),
                };
                counter.fetch_add(count, Relaxed);
                self.note(&format!("{fault:?} at {event:?}"));
            }
        }
        Ok(())
    }
}
