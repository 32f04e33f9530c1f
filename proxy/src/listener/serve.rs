//! One connection after its handshake: HTTP/1.1 or HTTP/2 until it is closed, left or idle.
//!
//! Owns: what hyper is configured with, and a connection's reaction to the drain and to its own
//! deadlines.
//! Refuses: timers and signals that are polled with every event. They live in one future among the
//! connection's streams, which runs only when one of them fires.
//! Invariant: `Leave` is seen before `EndWatches`, and both at most once.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Wake, Waker},
};

use http::{HeaderMap, HeaderName, Request, Response, header::DATE};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};

use crate::{
    body::Body,
    connection::{Gate, Step, Streams, deadline::Deadline},
    drain::Drain,
    workers::Load,
};

use super::{ConnectionInfo, Limits};

/// HTTP/2 bytes a client may send on one stream before they are read. Bodies from clients are
/// small.
const STREAM_WINDOW: u32 = 64 << 10;
/// The same over all streams of a connection.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of one stream that may wait for the client's window. A watch body is asked for more only
/// when there is room, so a client that does not read costs this and a cursor.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that a client opened and reset before they were looked at (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams reset by us for a client's errors (CVE-2025-8671).
const LOCAL_RESETS: usize = 256;
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Bytes of an HTTP/1.1 connection's buffers, beyond the headers' own limit.
const HTTP1_BUFFER: usize = 64 << 10;

/// Serves HTTP/2 until the connection is over.
pub(super) async fn http2<T, H, F>(
    stream: T,
    (info, mut load): (Arc<ConnectionInfo>, Load),
    limits: &Limits,
    drain: &Drain,
    handle: H,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>, Arc<ConnectionInfo>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut streams = Streams::new();
    let mut builder = http2::Builder::new(streams.executor());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(limits.header_bytes)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .keep_alive_interval(limits.keep_alive_interval)
        .keep_alive_timeout(limits.keep_alive_timeout);
    let orders = Orders::of(drain, &info, &streams);
    orders.add_deadlines(limits, &streams);
    let service = service(Arc::clone(&info), handle, (drain, &orders));
    let io = TokioIo::new(Gate::new(stream, streams.connection_waker()));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut idle = Idle::default();
    let result = std::future::poll_fn(|context| {
        streams.poll(context, |streams, context| {
            match orders.next(&info, streams, context) {
                Some(Order::Cut) => return Step::Done(Ok(())),
                Some(Order::Leave) => connection.as_mut().graceful_shutdown(),
                Some(Order::FirstRequestDue) if info.requests.load(Ordering::Relaxed) == 0 => {
                    return Step::Done(Ok(()));
                }
                Some(Order::IdleDue) if idle.since_last(&info, streams) => {
                    connection.as_mut().graceful_shutdown();
                }
                Some(Order::FirstRequestDue | Order::IdleDue) | None => {}
            }
            load.set_streams(streams.len().saturating_sub(Orders::STREAMS));
            connection.as_mut().poll(context).into_step()
        })
    })
    .await;
    log_end(&info, result);
}

/// Serves HTTP/1.1, upgrades included, until the connection is over.
pub(super) async fn http1<T, H, F>(
    stream: T,
    info: Arc<ConnectionInfo>,
    limits: &Limits,
    drain: &Drain,
    handle: H,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>, Arc<ConnectionInfo>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut streams = Streams::new();
    let header_bytes = limits.header_bytes as usize;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false) // the answer to an upgrade may have none
        .header_read_timeout(limits.header_timeout)
        .max_header_size(header_bytes)
        .max_buf_size(HTTP1_BUFFER + header_bytes);
    let orders = Orders::of(drain, &info, &streams);
    let service = service(Arc::clone(&info), handle, (drain, &orders));
    let mut connection = pin!(
        builder
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut deadline = Deadline::default();
    let result = std::future::poll_fn(|context| {
        streams.poll(context, |streams, context| {
            match orders.next(&info, streams, context) {
                Some(Order::Cut) => return Step::Done(Ok(())),
                Some(Order::Leave) => connection.as_mut().graceful_shutdown(),
                // hyper's own header timeout covers both.
                Some(Order::FirstRequestDue | Order::IdleDue) | None => {}
            }
            let polled = deadline.poll(context, |context| connection.as_mut().poll(context));
            polled.map(|over| over.unwrap_or(Ok(()))).into_step()
        })
    })
    .await;
    log_end(&info, result);
}

fn service<H, F>(
    info: Arc<ConnectionInfo>,
    handle: H,
    (drain, orders): (&Drain, &Orders),
) -> impl Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
>
where
    H: Fn(Request<Incoming>, Arc<ConnectionInfo>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (drain, orders) = (drain.clone(), orders.clone());
    service_fn(move |request| {
        info.requests.fetch_add(1, Ordering::Relaxed);
        if drain.is_leaving() {
            orders.give(Orders::LEAVE);
        }
        // Boxed, so that its size is given back when the answer's head is there: a stream keeps
        // room for the larger of this future and the body, for as long as a watch lasts.
        let answer = Box::pin(handle(request, Arc::clone(&info)));
        let (info, orders) = (Arc::clone(&info), orders.clone());
        async move {
            let mut answer = answer.await;
            keep_out_of_the_table(answer.headers_mut());
            if info.is_let_go.load(Ordering::Relaxed) {
                orders.give(Orders::LEAVE);
            }
            Ok(answer)
        }
    })
}

/// Headers that are never the same again. HTTP/2 would remember each for as long as the connection
/// lives, up to the size of its table: 10 KiB of memory for a kubelet that renews its Lease.
fn keep_out_of_the_table(headers: &mut HeaderMap) {
    for name in [DATE, AUDIT_ID] {
        if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
}

fn log_end(info: &ConnectionInfo, result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(client.addr = %info.peer, %error, "connection ended");
    }
}

trait IntoStep {
    fn into_step(self) -> Step<hyper::Result<()>>;
}

impl IntoStep for std::task::Poll<hyper::Result<()>> {
    fn into_step(self) -> Step<hyper::Result<()>> {
        match self {
            Self::Ready(result) => Step::Done(result),
            Self::Pending => Step::Running,
        }
    }
}

/// Whether an HTTP/2 connection did nothing since the last look.
#[derive(Default)]
struct Idle {
    requests: u64,
}

impl Idle {
    fn since_last(&mut self, info: &ConnectionInfo, streams: &Streams) -> bool {
        let requests = info.requests.load(Ordering::Relaxed);
        let quiet = requests == self.requests && streams.len() <= Orders::STREAMS;
        self.requests = requests;
        quiet
    }
}

/// What a connection's deadlines and the drain ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Cut,
    Leave,
    FirstRequestDue,
    IdleDue,
}

/// Orders that have been given and not been seen, as bits.
#[derive(Clone, Debug)]
struct Orders(Arc<AtomicU8>);

/// Orders every watch to be polled, from wherever it is woken.
#[derive(Debug)]
pub(super) struct WakeWatches {
    orders: Orders,
    connection: Waker,
}

impl Wake for WakeWatches {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.orders.give(Orders::WAKE_WATCHES);
        self.connection.wake_by_ref();
    }
}

impl Orders {
    /// The futures these put among the streams of an HTTP/2 connection.
    const STREAMS: usize = 2;

    const LEAVE: u8 = 1;
    const FIRST_REQUEST_DUE: u8 = 2;
    const IDLE_DUE: u8 = 4;
    const END_WATCHES: u8 = 8;
    const CUT: u8 = 16;
    const WAKE_WATCHES: u8 = 32;

    /// The orders of the drain. Who has not asked anything yet is let go with the first answer.
    fn of(drain: &Drain, info: &Arc<ConnectionInfo>, streams: &Streams) -> Self {
        let orders = Self(Arc::default());
        let wake_watches = WakeWatches {
            orders: orders.clone(),
            connection: streams.connection_waker(),
        };
        info.wake_watches.get_or_init(|| Arc::new(wake_watches));
        let (own, drain, info) = (orders.clone(), drain.clone(), Arc::clone(info));
        streams.executor().execute(async move {
            drain.leaving().cancelled().await;
            if info.requests.load(Ordering::Relaxed) > 0 {
                own.give(Self::LEAVE);
            }
            if let Some(end) = drain.watch_end() {
                tokio::time::sleep_until(end).await;
                own.give(Self::END_WATCHES);
            }
            drain.cut().cancelled().await;
            own.give(Self::CUT);
            // Keeps its place, so that the number of streams says how many are the client's.
            std::future::pending().await
        });
        orders
    }

    /// The deadlines hyper does not keep for HTTP/2.
    fn add_deadlines(&self, limits: &Limits, streams: &Streams) {
        let (own, first, idle) = (self.clone(), limits.header_timeout, limits.idle_timeout);
        streams.executor().execute(async move {
            sleep(first).await;
            own.give(Self::FIRST_REQUEST_DUE);
            loop {
                sleep(idle).await;
                own.give(Self::IDLE_DUE);
            }
        });
    }

    fn give(&self, order: u8) {
        self.0.fetch_or(order, Ordering::Relaxed);
    }

    /// The next order, if any, and a further round for those after it. Ends the watches itself.
    fn next(
        &self,
        info: &ConnectionInfo,
        streams: &mut Streams,
        context: &Context<'_>,
    ) -> Option<Order> {
        if self.0.load(Ordering::Relaxed) == 0 {
            return None;
        }
        context.waker().wake_by_ref();
        if self.take(Self::END_WATCHES) {
            info.watches_end.store(true, Ordering::Relaxed);
            self.give(Self::WAKE_WATCHES);
        }
        if self.take(Self::WAKE_WATCHES) {
            streams.wake_all();
        }
        [
            (Self::CUT, Order::Cut),
            (Self::LEAVE, Order::Leave),
            (Self::FIRST_REQUEST_DUE, Order::FirstRequestDue),
            (Self::IDLE_DUE, Order::IdleDue),
        ]
        .into_iter()
        .find(|(bit, _)| self.take(*bit))
        .map(|(_, order)| order)
    }

    fn take(&self, order: u8) -> bool {
        self.0.fetch_and(!order, Ordering::Relaxed) & order != 0
    }
}
