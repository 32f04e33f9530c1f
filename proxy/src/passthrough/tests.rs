//! Requests through a listener, the pass-through and an upstream server, all on loopback.

use std::{collections::BTreeMap, net::SocketAddr, pin::Pin, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    authn::{Credential, UserInfo},
    listener::{Limits, Listener, ListenerOptions},
    metrics::Metrics,
    request::Query,
    tls::{
        ALPN_H2, ALPN_HTTP1, ServerTls,
        tests::{Folder, TestCa, client_config},
    },
    upstream::tests::{PATIENCE, Seen, Setting, Speech, TestServer},
    workers::Workers,
};

use super::*;

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A proxy that only forwards, in front of a test's server.
struct Subject {
    ca: TestCa,
    address: SocketAddr,
    server: TestServer,
    drain: Drain,
    _setting: Setting,
}

impl Subject {
    async fn start<A>(speech: Speech, credential: Credential, answer: A) -> Self
    where
        A: Fn(Seen) -> Answer + Clone + Send + Sync + 'static,
    {
        let setting = Setting::new();
        let server = TestServer::start(&setting.ca, &setting.clients, speech, answer).await;
        let upstream = setting.upstream(vec![server.url()]);
        let drain = setting.drain.clone();
        let forward = Passthrough::new(upstream, Assertion::RequestHeader, drain.clone());
        let (ca, folder) = (TestCa::new("ca"), Folder::new());
        let files = folder.server_files(&ca.server("proxy"), &ca.pem());
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let listener = listener.expect("a free port");
        let address = listener.local_address().expect("bound");
        let metrics = Metrics::new().0;
        let options = ListenerOptions {
            tls: ServerTls::load(files).expect("good files"),
            limits: Arc::new(ArcSwap::from_pointee(Limits::default())),
            drain: drain.clone(),
            workers: Workers::here(&metrics),
            metrics,
        };
        let identity = Identity {
            user: Arc::new(UserInfo {
                name: "jane".to_owned(),
                uid: String::new(),
                groups: vec!["developers".to_owned()],
                extra: BTreeMap::new(),
            }),
            credential,
            warning: None,
        };
        drain.spawn(listener.serve(options, move |request, connection| {
            let (forward, identity) = (forward.clone(), identity.clone());
            async move {
                let errors = ErrorFormat::negotiate(request.headers(), &Query::default());
                forward
                    .forward(
                        request.map(Body::from),
                        &connection,
                        (&identity, None),
                        &errors,
                    )
                    .await
            }
        }));
        Self {
            ca,
            address,
            server,
            drain,
            _setting: setting,
        }
    }

    async fn dial(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.address).await.expect("a listener");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(client_config(&self.ca, None, &[alpn]));
        connector.connect(name, socket).await.expect("a handshake")
    }

    async fn http2(&self) -> http2::SendRequest<Body> {
        let stream = TokioIo::new(self.dial(ALPN_H2).await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        sender
    }

    async fn http1(&self) -> http1::SendRequest<Body> {
        let stream = TokioIo::new(self.dial(ALPN_HTTP1).await);
        let (sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
        tokio::spawn(connection.with_upgrades());
        sender
    }
}

/// A body fed by the test.
fn fed() -> (mpsc::Sender<&'static str>, Body) {
    let (feed, fed) = mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(fed);
    let bytes =
        futures_util::StreamExt::map(stream, |it: &str| Ok(Bytes::from_static(it.as_bytes())));
    (feed, Body::stream(bytes))
}

async fn text(answer: Response<Incoming>) -> String {
    let bytes = timeout(PATIENCE, answer.into_body().collect())
        .await
        .expect("in time");
    String::from_utf8(bytes.expect("a body").to_bytes().to_vec()).expect("text")
}

const BOTH: [Speech; 2] = [
    Speech {
        http2: true,
        streams: 250,
    },
    Speech {
        http2: false,
        streams: 250,
    },
];

#[tokio::test]
async fn target_and_headers_arrive_as_sent_with_the_identity_added() {
    let target = "/api/v1/namespaces/a%2Fb/pods//x;y?labelSelector=a%20in+(b)&;&x=%zz";
    for speech in BOTH {
        let seen = Arc::new(Mutex::new(None));
        let record = {
            let seen = Arc::clone(&seen);
            move |request: Seen| -> Answer {
                let (parts, _) = request.request.into_parts();
                *seen.lock() = Some((parts, request.certificate.is_some()));
                Box::pin(async { Response::new(Body::Empty) })
            }
        };
        let subject = Subject::start(speech, Credential::Certificate, record).await;
        let request = Request::get(format!("https://localhost{target}"))
            .header("User-Agent", "kubelet/v1.36")
            .header("Audit-Id", "a-1")
            .header("Accept", "application/vnd.kubernetes.protobuf")
            .header("X-Remote-User", "admin")
            .header("X-Remote-Group", "system:masters")
            .body(Body::Empty)
            .expect("a request");
        let answer = subject
            .http2()
            .await
            .send_request(request)
            .await
            .expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let (parts, certificate) = seen.lock().take().expect("it arrived");
        assert!(
            certificate,
            "the front proxy's certificate must vouch for the headers"
        );
        assert_eq!(
            parts.uri.path_and_query().map(|it| it.as_str()),
            Some(target)
        );
        for (name, value) in [
            ("user-agent", "kubelet/v1.36"),
            ("audit-id", "a-1"),
            ("accept", "application/vnd.kubernetes.protobuf"),
            ("x-remote-user", "jane"),
            ("x-remote-group", "developers"),
            ("x-forwarded-for", "127.0.0.1"),
        ] {
            let values: Vec<_> = parts.headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{name}");
        }
        let host = subject.server.address.to_string();
        let authority = parts.uri.authority().map(|it| it.as_str().to_owned());
        let named = authority.or_else(|| Some(parts.headers["host"].to_str().ok()?.to_owned()));
        assert_eq!(named, Some(host));
    }
}

#[tokio::test]
async fn bodies_flow_both_ways_before_either_ends() {
    for speech in BOTH {
        let echo = |seen: Seen| -> Answer {
            Box::pin(async { Response::new(Body::Client(seen.request.into_body())) })
        };
        let subject = Subject::start(speech, Credential::Certificate, echo).await;
        let (feed, body) = fed();
        let request = Request::post("https://localhost/echo")
            .body(body)
            .expect("a request");
        feed.send("first").await.expect("the body is read");
        let mut client = subject.http2().await;
        let answer = timeout(PATIENCE, client.send_request(request))
            .await
            .expect("in time");
        let mut body = answer.expect("an answer").into_body();
        for part in ["first", "second"] {
            let frame = timeout(PATIENCE, body.frame()).await.expect("in time");
            let data = frame
                .expect("a frame")
                .expect("no error")
                .into_data()
                .expect("data");
            assert_eq!(data, part);
            if part == "first" {
                feed.send("second").await.expect("the body is read");
            }
        }
        drop(feed);
        let rest = timeout(PATIENCE, body.collect()).await.expect("in time");
        assert!(rest.expect("a clean end").to_bytes().is_empty());
    }
}

#[tokio::test]
async fn trailers_and_the_answers_headers_arrive_and_hop_by_hop_ones_do_not() {
    // What the client sends comes back, its trailers included.
    let answer = |seen: Seen| -> Answer {
        assert_eq!(seen.request.headers()["te"], "trailers");
        Box::pin(async {
            let mut answer = Response::new(Body::Client(seen.request.into_body()));
            *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            let headers = answer.headers_mut();
            headers.insert("warning", HeaderValue::from_static("299 - \"old\""));
            headers.insert("retry-after", HeaderValue::from_static("7"));
            headers.insert("proxy-authenticate", HeaderValue::from_static("Basic"));
            answer
        })
    };
    let subject = Subject::start(Speech::default(), Credential::Certificate, answer).await;
    let stream = TokioIo::new(subject.dial(ALPN_H2).await);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    let trailers = HeaderMap::from_iter([(
        header::HeaderName::from_static("x-checksum"),
        HeaderValue::from_static("1"),
    )]);
    let frames = [
        Frame::data(Bytes::from_static(b"x")),
        Frame::trailers(trailers.clone()),
    ];
    let frames = frames.map(Ok::<_, std::convert::Infallible>);
    let body = StreamBody::new(tokio_stream::iter(frames));
    let request = Request::post("https://localhost/")
        .header("te", "trailers")
        .body(body);
    let answer = client
        .send_request(request.expect("a request"))
        .await
        .expect("an answer");
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["warning"], "299 - \"old\"");
    assert_eq!(answer.headers()["retry-after"], "7");
    assert!(!answer.headers().contains_key("proxy-authenticate"));
    let collected = timeout(PATIENCE, answer.into_body().collect())
        .await
        .expect("in time");
    let collected = collected.expect("a body");
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), "x");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request_at_the_apiserver() {
    let (tell, told) = oneshot::channel::<()>();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let answer = move |_| -> Answer {
        let tell = tell.lock().take();
        Box::pin(async move {
            Response::new(Body::stream(futures_util::stream::poll_fn(move |_| {
                // Dropped with the stream, which tells the test.
                let _kept = &tell;
                std::task::Poll::Pending
            })))
        })
    };
    let subject = Subject::start(Speech::default(), Credential::Certificate, answer).await;
    let mut client = subject.http2().await;
    let request = Request::get("https://localhost/log?follow=true").body(Body::Empty);
    let request = client.send_request(request.expect("a request"));
    let answer = timeout(PATIENCE, request)
        .await
        .expect("in time")
        .expect("a head");
    drop(answer);
    timeout(PATIENCE, told)
        .await
        .expect("in time")
        .expect_err("dropped, not sent");
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_that_ends_one_direction_at_a_time() {
    for (protocol, method) in [("websocket", "GET"), ("SPDY/3.1", "POST")] {
        let answer = |mut seen: Seen| -> Answer {
            assert_eq!(seen.request.headers()["connection"], "Upgrade");
            assert_eq!(seen.request.headers()["x-remote-user"], "jane");
            let protocol = seen.request.headers()["upgrade"].clone();
            let upgraded = hyper::upgrade::on(&mut seen.request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.expect("upgraded"));
                let mut all = Vec::new();
                stream
                    .read_to_end(&mut all)
                    .await
                    .expect("the client's direction ends");
                stream
                    .write_all(&all)
                    .await
                    .expect("the other is still open");
                stream.shutdown().await.expect("closed");
            });
            Box::pin(async move {
                let mut answer = Response::new(Body::Empty);
                *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                answer
                    .headers_mut()
                    .insert("connection", HeaderValue::from_static("Upgrade"));
                answer.headers_mut().insert("upgrade", protocol);
                answer
                    .headers_mut()
                    .insert("x-stream", HeaderValue::from_static("v5"));
                answer
            })
        };
        let subject = Subject::start(Speech::default(), Credential::Certificate, answer).await;
        let request = Request::builder()
            .method(method)
            .uri("/api/v1/namespaces/a/pods/b/exec?command=sh")
            .header("Host", "localhost")
            .header("Connection", "keep-alive, UPGRADE")
            .header("Upgrade", protocol)
            .body(Body::Empty)
            .expect("a request");
        let mut client = subject.http1().await;
        let answer = timeout(PATIENCE, client.send_request(request))
            .await
            .expect("in time");
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers()["upgrade"], protocol);
        assert_eq!(answer.headers()["x-stream"], "v5");
        let upgraded = hyper::upgrade::on(answer).await.expect("upgraded");
        let mut stream = TokioIo::new(upgraded);
        stream.write_all(b"over the tunnel").await.expect("open");
        stream.shutdown().await.expect("one direction");
        let mut all = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
        read.expect("in time").expect("the other direction");
        assert_eq!(all, b"over the tunnel");
        subject.drain.run(Duration::from_millis(100)).await;
        assert_eq!(subject.drain.tasks(), (0, 0));
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_answered_as_the_apiserver_does() {
    let answer = |_| -> Answer {
        Box::pin(async {
            let mut answer = Response::new(Body::full("no exec for you"));
            *answer.status_mut() = StatusCode::FORBIDDEN;
            answer
        })
    };
    let subject = Subject::start(Speech::default(), Credential::Certificate, answer).await;
    let request = Request::get("/exec")
        .header("Host", "localhost")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .body(Body::Empty)
        .expect("a request");
    let answer = subject
        .http1()
        .await
        .send_request(request)
        .await
        .expect("an answer");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(text(answer).await, "no exec for you");
}

#[tokio::test]
async fn an_apiserver_that_cannot_be_reached_is_a_503_status_with_retry_after() {
    let answer = |_| -> Answer { Box::pin(async { Response::new(Body::Empty) }) };
    let subject = Subject::start(Speech::default(), Credential::Bearer, answer).await;
    subject.server.stop().await;
    let request = Request::get("https://localhost/api")
        .body(Body::Empty)
        .expect("a request");
    let answer = subject
        .http2()
        .await
        .send_request(request)
        .await
        .expect("an answer");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let status: serde_json::Value = serde_json::from_str(&text(answer).await).expect("JSON");
    assert_eq!(
        (&status["kind"], &status["code"]),
        (&"Status".into(), &503.into())
    );
}
