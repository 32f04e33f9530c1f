//! Connections over loopback: who gets in, what each deadline ends, how a drain empties them.

use std::{task::Poll, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls::{
    ALPN_HTTP1, ClientCertificate,
    tests::{Folder, Issued, TestCa, client_config},
};

use super::*;

/// Longer than anything here takes; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listener under test.
struct Subject {
    ca: TestCa,
    folder: Folder,
    tls: ServerTls,
    address: SocketAddr,
    drain: Drain,
    metrics: Metrics,
    alive: Arc<()>,
}

/// The owners of [`Subject::alive`] besides the bodies of watches: the subject and its listener's
/// handler.
const KEPT: usize = 2;

impl Subject {
    async fn start(limits: Limits) -> Self {
        let (ca, folder) = (TestCa::new("ca"), Folder::new());
        let files = folder.server_files(&ca.server("proxy"), &ca.pem());
        let tls = ServerTls::load(files).expect("good files");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(address).await.expect("a free port");
        let address = listener.local_address().expect("bound");
        let (drain, (metrics, _)) = (Drain::new(), Metrics::new());
        let options = ListenerOptions {
            tls: tls.clone(),
            limits: Arc::new(ArcSwap::from_pointee(limits)),
            drain: drain.clone(),
            workers: Workers::here(&metrics),
            metrics: metrics.clone(),
        };
        let alive = Arc::new(());
        let handle = {
            let alive = Arc::clone(&alive);
            move |request, connection| answer(request, connection, Arc::clone(&alive))
        };
        drain.spawn(listener.serve(options, handle));
        Self {
            ca,
            folder,
            tls,
            address,
            drain,
            metrics,
            alive,
        }
    }

    async fn dial(&self, identity: Option<&Issued>, alpn: &[u8]) -> TlsStream<TcpStream> {
        let config = client_config(&self.ca, identity, &[alpn]);
        let socket = TcpStream::connect(self.address).await.expect("a listener");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(config)
            .connect(name, socket)
            .await
            .expect("a handshake")
    }

    async fn http2(&self, identity: Option<&Issued>) -> http2::SendRequest<Empty<Bytes>> {
        let stream = TokioIo::new(self.dial(identity, ALPN_H2).await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        sender
    }

    async fn http1(&self) -> http1::SendRequest<Empty<Bytes>> {
        let stream = TokioIo::new(self.dial(None, ALPN_HTTP1).await);
        let (sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender
    }

    fn refused(&self, reason: &'static str) -> u64 {
        self.metrics
            .connections_refused
            .get_or_create(&ReasonLabels { reason })
            .get()
    }

    /// Waits until so many connections are open.
    async fn until_open(&self, connections: i64) {
        let reached = async {
            while self.metrics.connections.get() != connections {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached)
            .await
            .expect("so many connections");
    }
}

/// `/watch` ends when the connection says so; anything else answers with the certificate's verdict.
async fn answer(
    request: Request<Incoming>,
    connection: Arc<ConnectionInfo>,
    alive: Arc<()>,
) -> Response<Body> {
    if request.uri().path() == "/watch" {
        // Registers no waker: only the connection can have it polled again.
        return Response::new(Body::stream(stream::poll_fn(move |_| {
            let _owned = &alive;
            if connection.watches_end() {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        })));
    }
    let verdict = match connection.proof().client {
        ClientCertificate::None => "none".to_owned(),
        ClientCertificate::Valid(leaf) => format!("valid {}", !leaf.is_empty()),
        ClientCertificate::Invalid(reason) => format!("invalid {reason}"),
    };
    Response::new(Body::full(verdict))
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}"))
        .body(Empty::new())
        .expect("a request")
}

async fn verdict(sender: &mut http2::SendRequest<Empty<Bytes>>) -> String {
    let response = sender.send_request(request("/")).await.expect("a response");
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_reaches_the_handler_as_invalid() {
    let subject = Subject::start(Limits::default()).await;
    let stranger = TestCa::new("stranger").client("system:node:a");
    let mut client = subject.http2(Some(&stranger)).await;
    let verdict = verdict(&mut client).await;
    assert!(
        verdict.starts_with("invalid ") && verdict.contains("UnknownIssuer"),
        "{verdict}"
    );
}

#[tokio::test]
async fn a_certificate_of_the_authority_is_valid_and_none_is_none() {
    let subject = Subject::start(Limits::default()).await;
    let mut known = subject.http2(Some(&subject.ca.client("a"))).await;
    assert_eq!(verdict(&mut known).await, "valid true");
    assert_eq!(verdict(&mut subject.http2(None).await).await, "none");
}

#[tokio::test]
async fn both_protocols_are_served_by_alpn() {
    let subject = Subject::start(Limits::default()).await;
    let mut http1 = subject.http1().await;
    let response = http1.send_request(request("/")).await.expect("a response");
    assert_eq!(
        (response.status(), response.version()),
        (StatusCode::OK, Version::HTTP_11)
    );
    let mut http2 = subject.http2(None).await;
    let response = http2.send_request(request("/")).await.expect("a response");
    assert_eq!(
        (response.status(), response.version()),
        (StatusCode::OK, Version::HTTP_2)
    );
}

#[tokio::test]
async fn new_files_change_the_verdict_about_an_open_connection_and_do_not_drop_it() {
    let subject = Subject::start(Limits::default()).await;
    let mut client = subject.http2(Some(&subject.ca.client("a"))).await;
    assert_eq!(verdict(&mut client).await, "valid true");

    let next = TestCa::new("next");
    subject
        .folder
        .server_files(&next.server("proxy"), &next.pem());
    assert_eq!(
        subject.tls.poll_files(),
        crate::tls::reload::Outcome::Changed
    );

    assert!(verdict(&mut client).await.starts_with("invalid "));
    let config = client_config(&next, Some(&next.client("b")), &[ALPN_H2]);
    let socket = TcpStream::connect(subject.address)
        .await
        .expect("a listener");
    let name = ServerName::try_from("localhost").expect("a name");
    let fresh = TlsConnector::from(config).connect(name, socket).await;
    fresh.expect("the new certificate is served");
    assert_eq!(
        subject
            .metrics
            .connections_refused
            .get_or_create(&ReasonLabels {
                reason: "handshake"
            })
            .get(),
        0
    );
}

#[tokio::test]
async fn one_connection_more_than_allowed_is_closed_at_once() {
    let subject = Subject::start(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut first = subject.http2(None).await;
    let mut second = TcpStream::connect(subject.address)
        .await
        .expect("a listener");
    let ended = timeout(PATIENCE, second.read(&mut [0; 8]))
        .await
        .expect("in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(subject.refused("limit"), 1);
    assert_eq!(verdict(&mut first).await, "none");

    drop(first);
    subject.until_open(0).await;
    assert_eq!(verdict(&mut subject.http2(None).await).await, "none");
}

#[tokio::test]
async fn a_client_that_never_finishes_the_handshake_is_closed() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let subject = Subject::start(limits).await;
    let mut socket = TcpStream::connect(subject.address)
        .await
        .expect("a listener");
    socket
        .write_all(&[22, 3, 1])
        .await
        .expect("the start of a ClientHello");
    let ended = timeout(PATIENCE, socket.read(&mut [0; 8]))
        .await
        .expect("in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(subject.refused("handshake_timeout"), 1);
    subject.until_open(0).await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_headers_is_closed() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let subject = Subject::start(limits).await;
    for (alpn, start) in [
        (ALPN_HTTP1, &b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow"[..]),
        (ALPN_HTTP1, b""),
        (ALPN_H2, b"PRI * HTTP/2.0\r\n"),
        (ALPN_H2, PREFACE),
    ] {
        let mut stream = subject.dial(None, alpn).await;
        stream.write_all(start).await.expect("a start");
        let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{start:?} keeps its connection");
        subject.until_open(0).await;
    }
}

/// An HTTP/2 client's preface with empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// HEADERS of stream 1 with END_STREAM: `GET https://localhost/watch`.
const GET_WATCH: &[u8] = b"\0\0\x15\x01\x05\0\0\0\x01\x82\x87\x41\x09localhost\x04\x06/watch";

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_freed_with_its_watch() {
    let limits = Limits {
        keep_alive_interval: Duration::from_millis(50),
        keep_alive_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let subject = Subject::start(limits).await;
    let mut stream = subject.dial(None, ALPN_H2).await;
    stream
        .write_all(&[PREFACE, GET_WATCH].concat())
        .await
        .expect("a request");
    let mut seen = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut seen)).await;
    assert!(ended.is_ok(), "the connection lives on");
    assert!(!seen.is_empty());
    subject.until_open(0).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_watch_is_not() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(40),
        ..Limits::default()
    };
    let limits = Limits {
        header_timeout: Duration::from_millis(40),
        ..limits
    };
    let subject = Subject::start(limits).await;
    let mut busy = subject.http2(None).await;
    let watch = busy
        .send_request(request("/watch"))
        .await
        .expect("a response");
    let mut idle = subject.http2(None).await;
    assert_eq!(verdict(&mut idle).await, "none");
    subject.until_open(2).await;
    subject.until_open(1).await;
    assert!(idle.is_closed());
    assert_eq!(verdict(&mut busy).await, "none");
    drop(watch);
    subject.until_open(0).await;
}

#[tokio::test]
async fn a_drain_ends_watches_cleanly_and_empties_the_listener() {
    let subject = Subject::start(Limits::default()).await;
    let mut http2 = subject.http2(None).await;
    let mut http1 = subject.http1().await;
    let watches = [
        http2
            .send_request(request("/watch"))
            .await
            .expect("a response")
            .into_body(),
        http1
            .send_request(request("/watch"))
            .await
            .expect("a response")
            .into_body(),
    ];
    let end = tokio::spawn({
        let drain = subject.drain.clone();
        async move { drain.run(Duration::from_millis(400)).await }
    });
    for watch in watches {
        let body = timeout(PATIENCE, watch.collect()).await.expect("in time");
        assert!(body.expect("a clean end").to_bytes().is_empty());
    }
    timeout(PATIENCE, end)
        .await
        .expect("in time")
        .expect("no panic");
    assert_eq!(subject.drain.tasks(), (0, 0));
    TcpStream::connect(subject.address)
        .await
        .expect_err("the listener is closed");
}

#[tokio::test]
async fn a_client_that_leaves_drops_what_was_made_for_it() {
    let subject = Subject::start(Limits::default()).await;
    let mut http1 = subject.http1().await;
    let mut http2 = subject.http2(None).await;
    let watches = [
        http1
            .send_request(request("/watch"))
            .await
            .expect("a response"),
        http2
            .send_request(request("/watch"))
            .await
            .expect("a response"),
    ];
    // Each connection owns one handler, each watch one body.
    assert_eq!(Arc::strong_count(&subject.alive), 2 + 2 + KEPT);
    drop((http1, http2, watches));
    subject.until_open(0).await;
    assert_eq!(Arc::strong_count(&subject.alive), KEPT);
}
