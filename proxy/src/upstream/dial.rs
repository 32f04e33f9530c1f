//! From an address to a connection that can carry requests, and the task that runs it.
//!
//! Owns: TCP, TLS and HTTP handshakes under one deadline, flow-control sizes, keep-alive.
//! Refuses: to decide when a connection is wanted; that is the pool's.
//! Invariant: an HTTP/2 connection is handed out only after the server's SETTINGS arrived, so the
//! number of streams it may carry is the server's word and not a guess. A connection's task ends
//! when the peer is gone, answers no ping, or said GOAWAY and the last stream is over.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::{io::BufReader, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use crate::{
    body::Body,
    connection::{self, Step, StreamExecutor, Streams},
    tls::ALPN_H2,
};

use super::{Pool, server::Address};

/// The most streams used of one connection, even where the server allows more: what is in flight
/// must fit the connection's window, or one slow client would stop its neighbours.
const STREAMS: usize = 100;

/// Bytes read from a socket at once: four records. rustls asks for 4 KiB at a time, which would be
/// a call of the kernel for every few events.
const READ: usize = 64 << 10;

/// A byte stream to a server.
pub(super) type Io = TokioIo<Either<TcpStream, TlsStream<BufReader<TcpStream>>>>;

type Http2Connection = http2::Connection<Io, Body, StreamExecutor>;

/// How connections are made.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    pub(super) address: Address,
    pub(super) timeout: Duration,
    /// Silence before a ping, and the time for its answer.
    pub(super) keep_alive: (Duration, Duration),
}

/// A connection over which requests can be sent.
pub(super) enum Opened {
    Http2(Box<OpenedHttp2>),
    Http1(Box<OpenedHttp1>),
}

/// An HTTP/1.1 connection and what runs it.
pub(super) type OpenedHttp1 = (http1::SendRequest<Body>, http1::Connection<Io, Body>);

/// An HTTP/2 connection and what runs it.
pub(super) struct OpenedHttp2 {
    pub(super) sender: http2::SendRequest<Body>,
    /// Streams the server allows now.
    pub(super) streams_allowed: Arc<AtomicUsize>,
    running: RunningHttp2,
}

/// Until its end, an HTTP/2 connection with its streams.
struct RunningHttp2 {
    connection: Option<Pin<Box<Http2Connection>>>,
    streams: Streams,
    allowed: Arc<AtomicUsize>,
}

impl Dialer {
    /// Opens a connection for `pool`, HTTP/2 if the server speaks it.
    ///
    /// # Errors
    /// What failed, in words.
    pub(super) async fn open(
        &self,
        pool: Pool,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Opened, String> {
        self.in_time(async {
            let io = self.connect(tls).await.map_err(|error| error.to_string())?;
            let speaks_http2 = match &io {
                Either::Left(_plain) => false,
                Either::Right(tls) => tls.get_ref().1.alpn_protocol() == Some(ALPN_H2),
            };
            let io = TokioIo::new(io);
            if speaks_http2 {
                self.http2(pool, io)
                    .await
                    .map(|it| Opened::Http2(Box::new(it)))
            } else {
                let opened = http1::handshake(io)
                    .await
                    .map_err(|error| error.to_string())?;
                Ok(Opened::Http1(Box::new(opened)))
            }
        })
        .await
    }

    /// Opens an HTTP/1.1 connection.
    ///
    /// # Errors
    /// What failed, in words.
    pub(super) async fn open_http1(
        &self,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<OpenedHttp1, String> {
        self.in_time(async {
            let io = self.connect(tls).await.map_err(|error| error.to_string())?;
            http1::handshake(TokioIo::new(io))
                .await
                .map_err(|error| error.to_string())
        })
        .await
    }

    async fn in_time<T>(
        &self,
        opening: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let opened = tokio::time::timeout(self.timeout, opening).await;
        opened.unwrap_or_else(|_| Err(format!("no connection within {:?}", self.timeout)))
    }

    async fn connect(
        &self,
        tls: Option<Arc<ClientConfig>>,
    ) -> io::Result<Either<TcpStream, TlsStream<BufReader<TcpStream>>>> {
        let Address {
            host, port, name, ..
        } = &self.address;
        let socket = TcpStream::connect((host.as_str(), *port)).await?;
        connection::tune(&socket, self.keep_alive.0, self.keep_alive.1)?;
        match tls {
            Some(config) if self.address.is_tls() => {
                let stream = TlsConnector::from(config)
                    .connect(name.clone(), BufReader::with_capacity(READ, socket))
                    .await?;
                Ok(Either::Right(stream))
            }
            Some(_) | None => Ok(Either::Left(socket)),
        }
    }

    async fn http2(&self, pool: Pool, io: Io) -> Result<OpenedHttp2, String> {
        let streams = Streams::new();
        let (stream_window, connection_window) = windows(pool);
        let (sender, connection) = http2::Builder::new(streams.executor())
            .timer(TokioTimer::new())
            .initial_max_send_streams(0)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .keep_alive_interval(self.keep_alive.0)
            .keep_alive_timeout(self.keep_alive.1)
            .keep_alive_while_idle(true)
            .handshake(io)
            .await
            .map_err(|error| error.to_string())?;
        let allowed = Arc::new(AtomicUsize::new(0));
        let mut running = RunningHttp2 {
            connection: Some(Box::pin(connection)),
            streams,
            allowed: Arc::clone(&allowed),
        };
        running.until_settings().await?;
        Ok(OpenedHttp2 {
            sender,
            streams_allowed: allowed,
            running,
        })
    }
}

/// Bytes the server may send ahead of our reading, per stream and per connection. The caches always
/// read; clients of forwarded requests may not, so a stream's share must leave room for all others.
fn windows(pool: Pool) -> (u32, u32) {
    match pool {
        Pool::Own => (2 << 20, 16 << 20),
        Pool::Asserted | Pool::Bare => (256 << 10, 32 << 20),
    }
}

impl OpenedHttp2 {
    /// Splits what sends from what must be run.
    pub(super) fn run(self) -> impl Future<Output = ()> + Send + 'static {
        let mut running = self.running;
        drop(self.sender);
        async move { running.until_end().await }
    }
}

impl RunningHttp2 {
    async fn until_settings(&mut self) -> Result<(), String> {
        poll_fn(|context| {
            let (connection, allowed) = (&mut self.connection, &self.allowed);
            self.streams.poll(context, |_, context| {
                step(connection, allowed, context);
                if allowed.load(Ordering::Relaxed) > 0 {
                    Step::Done(Ok(()))
                } else if connection.is_none() {
                    Step::Done(Err("the server ended the HTTP/2 handshake".to_owned()))
                } else {
                    Step::Running
                }
            })
        })
        .await
    }

    async fn until_end(&mut self) {
        poll_fn(|context| {
            let (connection, allowed) = (&mut self.connection, &self.allowed);
            self.streams.poll(context, |streams, context| {
                step(connection, allowed, context);
                if connection.is_none() && streams.len() == 0 {
                    Step::Done(())
                } else {
                    Step::Running
                }
            })
        })
        .await;
    }
}

/// Polls the part of the connection that takes new requests; it is `None` once it takes no more.
fn step(
    connection: &mut Option<Pin<Box<Http2Connection>>>,
    allowed: &AtomicUsize,
    context: &mut std::task::Context<'_>,
) {
    let Some(taking) = connection else { return };
    if taking.as_mut().poll(context).is_ready() {
        *connection = None;
        allowed.store(0, Ordering::Relaxed);
    } else {
        allowed.store(
            taking.current_max_send_streams().min(STREAMS),
            Ordering::Relaxed,
        );
    }
}
