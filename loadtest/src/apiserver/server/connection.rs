//! Sockets: TLS, HTTP/1.1 and HTTP/2, and their end.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::CONNECTION;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{State, handler};
use crate::apiserver::authn::Peer;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// Streams of one HTTP/2 connection, the apiserver's default.
const STREAMS_MAX: u32 = 100;
const WINDOW_BYTES: u32 = 256 * 1024;

/// Runs hyper's stream tasks where their end is awaited.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Accepts connections until the state's shutdown; `kill` drops what has not ended by then.
pub(in crate::apiserver) async fn serve(
    state: Arc<State>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    kill: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = state.shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = connection(Arc::clone(&state), stream, acceptor.clone());
        let mut cuts = state.faults.cuts();
        let kill = kill.clone();
        state.tasks.spawn(async move {
            tokio::select! {
                () = connection => {}
                _ = cuts.changed() => {}
                () = kill.cancelled() => {}
            }
        });
    }
}

async fn connection(state: Arc<State>, stream: TcpStream, acceptor: TlsAcceptor) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let Ok(Ok(stream)) = handshake else { return };
    let session = stream.get_ref().1;
    let peer = Arc::new(
        state
            .authenticator
            .peer(session.peer_certificates().unwrap_or(&[])),
    );
    let http2 = session.alpn_protocol() == Some(b"h2");
    let (cutting, cut) = (Arc::clone(&state), Arc::clone(&peer));
    let served = async {
        if http2 {
            serve_http2(state, stream, peer).await
        } else {
            serve_http1(state, stream, peer).await
        }
    };
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        biased;
        silence = cutting.faults.wait_for_cut_off(&cut) => return sleep(silence).await,
        result = &mut served => result,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

async fn serve_http2(
    state: Arc<State>,
    stream: TlsStream<TcpStream>,
    peer: Arc<Peer>,
) -> hyper::Result<()> {
    let (shutdown, tasks) = (state.shutdown.clone(), state.tasks.clone());
    let closing = Arc::new(Notify::new());
    let close = Arc::clone(&closing);
    let service = service_fn(move |request| {
        let (state, peer, close) = (Arc::clone(&state), Arc::clone(&peer), Arc::clone(&close));
        async move {
            let mut response = handler::handle(state, peer, true, request).await;
            if response.headers_mut().remove(CONNECTION).is_some() {
                close.notify_one();
            }
            hyper::Result::Ok(response)
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(Tracked(tasks))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        () = closing.notified() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn serve_http1(
    state: Arc<State>,
    stream: TlsStream<TcpStream>,
    peer: Arc<Peer>,
) -> hyper::Result<()> {
    let shutdown = state.shutdown.clone();
    let service = service_fn(move |request| {
        let (state, peer) = (Arc::clone(&state), Arc::clone(&peer));
        async move { hyper::Result::Ok(handler::handle(state, peer, false, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
