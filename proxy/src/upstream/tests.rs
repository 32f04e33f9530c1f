//! The client of the apiservers against servers of its own on loopback.

use std::{net::SocketAddr, path::PathBuf, pin::Pin, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderValue, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::tls::{
    ALPN_HTTP1, ServerFiles, ServerTls,
    tests::{Folder, Issued, TestCa},
};

use super::*;

/// Longer than anything here takes; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a test's server saw of one request.
pub(crate) struct Seen {
    pub(crate) request: Request<Incoming>,
    /// The leaf of the client's certificate.
    pub(crate) certificate: Option<Vec<u8>>,
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
}

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A server of a test.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    /// Connections accepted so far.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Has the open connections send GOAWAY and end when their streams do.
    leave: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

/// How a test's server speaks.
#[derive(Clone, Copy)]
pub(crate) struct Speech {
    pub(crate) http2: bool,
    pub(crate) streams: u32,
}

impl Default for Speech {
    fn default() -> Self {
        Self {
            http2: true,
            streams: 250,
        }
    }
}

impl TestServer {
    pub(crate) async fn start<A>(ca: &TestCa, clients: &TestCa, speech: Speech, answer: A) -> Self
    where
        A: Fn(Seen) -> Answer + Clone + Send + Sync + 'static,
    {
        Self::start_at(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            ca,
            clients,
            speech,
            answer,
        )
        .await
    }

    async fn start_at<A>(
        address: SocketAddr,
        ca: &TestCa,
        clients: &TestCa,
        speech: Speech,
        answer: A,
    ) -> Self
    where
        A: Fn(Seen) -> Answer + Clone + Send + Sync + 'static,
    {
        let folder = Folder::new();
        let files = folder.server_files(&ca.server("apiserver"), &clients.pem());
        let tls = ServerTls::load(files).expect("good files");
        let socket = TcpListener::bind(address).await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let (connections, (leave, left)) = (Arc::new(AtomicUsize::new(0)), watch::channel(()));
        let counter = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            let mut running = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = socket.accept().await.expect("a connection");
                let connection = counter.fetch_add(1, Ordering::SeqCst);
                let mut config = (*tls.config()).clone();
                if !speech.http2 {
                    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
                }
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
                let (answer, mut left) = (answer.clone(), left.clone());
                left.mark_unchanged();
                running.spawn(async move {
                    let stream = acceptor.accept(socket).await.expect("a handshake");
                    serve(stream, connection, speech, left, answer).await;
                });
            }
        });
        Self {
            address,
            connections,
            leave,
            accepting,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Closes the listening socket and every connection.
    pub(crate) async fn stop(&self) {
        self.accepting.abort();
        while !self.accepting.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    fn opened(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve<A>(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    connection: usize,
    speech: Speech,
    mut left: watch::Receiver<()>,
    answer: A,
) where
    A: Fn(Seen) -> Answer + Clone + Send + Sync + 'static,
{
    let chain = stream.get_ref().1.peer_certificates();
    let certificate = chain.and_then(|it| it.first()).map(|it| it.to_vec());
    let service = service_fn(move |request| {
        let answer = answer(Seen {
            request,
            certificate: certificate.clone(),
            connection,
        });
        async { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let io = TokioIo::new(stream);
    if speech.http2 && io.inner().get_ref().1.alpn_protocol() == Some(b"h2") {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(speech.streams);
        let mut serving = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ended = serving.as_mut() => return,
            _left = left.changed() => serving.as_mut().graceful_shutdown(),
        }
        drop(serving.await);
    } else {
        drop(
            http1::Builder::new()
                .serve_connection(io, service)
                .with_upgrades()
                .await,
        );
    }
}

/// The certificates of a test.
pub(crate) struct Setting {
    pub(crate) ca: TestCa,
    pub(crate) clients: TestCa,
    pub(crate) folder: Folder,
    pub(crate) drain: Drain,
    pub(crate) own: Issued,
    pub(crate) front_proxy: Issued,
}

impl Setting {
    pub(crate) fn new() -> Self {
        let clients = TestCa::new("clients");
        Self {
            ca: TestCa::new("servers"),
            folder: Folder::new(),
            drain: Drain::new(),
            own: clients.client("watershed"),
            front_proxy: clients.client("front-proxy"),
            clients,
        }
    }

    pub(crate) fn options(&self, servers: Vec<String>) -> UpstreamOptions {
        let file = |name: &str, text: &str| -> PathBuf { self.folder.write(name, text) };
        UpstreamOptions {
            servers,
            ca_file: Some(file("ca.crt", &self.ca.pem())),
            credentials: CredentialSource::Files {
                certificate: Some((
                    file("own.crt", &self.own.certificate),
                    file("own.key", &self.own.key),
                )),
                token: Some(file("token", "own-token\n")),
            },
            asserted: AssertedIdentity::RequestHeader {
                certificate: file("front.crt", &self.front_proxy.certificate),
                key: file("front.key", &self.front_proxy.key),
            },
            connections_per_pool: 8,
            connect_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(15),
            reload_interval: Duration::from_secs(5),
        }
    }

    pub(crate) fn upstream(&self, servers: Vec<String>) -> Upstream {
        self.upstream_with(&self.options(servers))
    }

    fn upstream_with(&self, options: &UpstreamOptions) -> Upstream {
        Upstream::new(options, &self.drain, &Metrics::new().0).expect("good settings")
    }

    async fn server<A>(&self, speech: Speech, answer: A) -> TestServer
    where
        A: Fn(Seen) -> Answer + Clone + Send + Sync + 'static,
    {
        TestServer::start(&self.ca, &self.clients, speech, answer).await
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::Empty).expect("a request")
}

fn post(body: Body) -> Request<Body> {
    Request::post("/").body(body).expect("a request")
}

async fn text(answer: Response<ResponseBody>) -> String {
    let bytes = answer.into_body().bytes(1 << 20).await.expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// `/hang` answers a head and a body that never ends; anything else the connection's number.
fn answer(seen: Seen) -> Answer {
    Box::pin(async move {
        if seen.request.uri().path() == "/hang" {
            return Response::new(Body::stream(futures_util::stream::pending()));
        }
        Response::new(Body::full(seen.connection.to_string()))
    })
}

async fn hang(upstream: &Upstream) -> Response<ResponseBody> {
    upstream
        .send(Pool::Own, get("/hang"))
        .await
        .expect("a head")
}

#[tokio::test]
async fn a_full_connection_is_never_waited_for() {
    let setting = Setting::new();
    for (streams, requests, connections) in [(2, 5, 3), (250, 101, 2), (1, 8, 8)] {
        let server = setting
            .server(
                Speech {
                    streams,
                    ..Speech::default()
                },
                answer,
            )
            .await;
        let upstream = setting.upstream(vec![server.url()]);
        let asked: FuturesUnordered<_> = (0..requests).map(|_| hang(&upstream)).collect();
        let held: Vec<_> = tokio::time::timeout(PATIENCE, asked.collect())
            .await
            .expect("all are answered");
        assert_eq!((held.len(), server.opened()), (requests, connections));
    }
}

#[tokio::test]
async fn when_no_connection_may_be_opened_a_request_fails_at_once_and_a_dropped_one_makes_room() {
    let setting = Setting::new();
    let server = setting
        .server(
            Speech {
                streams: 1,
                ..Speech::default()
            },
            answer,
        )
        .await;
    let options = UpstreamOptions {
        connections_per_pool: 1,
        ..setting.options(vec![server.url()])
    };
    let upstream = setting.upstream_with(&options);
    let held = hang(&upstream).await;
    let refused = upstream
        .send(Pool::Own, get("/"))
        .await
        .expect_err("it is full");
    assert!(
        matches!(refused, UpstreamError::Full { connections: 1, .. }),
        "{refused}"
    );
    drop(held);
    assert_eq!(
        text(upstream.send(Pool::Own, get("/")).await.expect("room")).await,
        "0"
    );
    assert_eq!(
        text(upstream.send(Pool::Own, get("/")).await.expect("room")).await,
        "0"
    );
}

#[tokio::test]
async fn a_thread_that_forwards_has_its_own_connections_or_a_place_on_those_of_others() {
    let setting = Setting::new();
    for (pool, places, connections) in [
        (Pool::Asserted, 8, 2),
        (Pool::Bare, 8, 2),
        (Pool::Bare, 1, 1),
        (Pool::Own, 8, 1),
    ] {
        let server = setting.server(Speech::default(), answer).await;
        let options = UpstreamOptions {
            connections_per_pool: places,
            ..setting.options(vec![server.url()])
        };
        let upstream = setting.upstream_with(&options);
        let here = upstream.send(pool, get("/")).await;
        assert_eq!(text(here.expect("an answer")).await, "0");
        let elsewhere = tokio::task::spawn_blocking(move || {
            let mut thread = tokio::runtime::Builder::new_current_thread();
            let thread = thread.enable_all().build().expect("a runtime");
            thread.block_on(async {
                let answer = upstream.send(pool, get("/")).await;
                text(answer.expect("an answer")).await
            })
        });
        let elsewhere = tokio::time::timeout(PATIENCE, elsewhere).await;
        let elsewhere = elsewhere.expect("in time").expect("no panic");
        assert_eq!(
            (elsewhere, server.opened()),
            ((connections - 1).to_string(), connections),
            "{pool:?}, {places} places"
        );
    }
}

#[tokio::test]
async fn a_server_that_only_speaks_http1_gets_a_connection_per_request_in_flight_and_keeps_it() {
    let setting = Setting::new();
    let server = setting
        .server(
            Speech {
                http2: false,
                ..Speech::default()
            },
            answer,
        )
        .await;
    let upstream = setting.upstream(vec![server.url()]);
    for _ in 0..3 {
        let answer = upstream.send(Pool::Own, get("/")).await.expect("an answer");
        assert_eq!(answer.version(), Version::HTTP_11);
        assert_eq!(text(answer).await, "0");
    }
    let asked: FuturesUnordered<_> = (0..4).map(|_| hang(&upstream)).collect();
    let held: Vec<_> = asked.collect().await;
    assert_eq!((held.len(), server.opened()), (4, 4));
}

#[tokio::test]
async fn a_server_that_is_down_is_passed_over_and_used_again_once_it_is_back() {
    let setting = Setting::new();
    let gone = setting.server(Speech::default(), answer).await;
    let address = gone.address;
    drop(gone);
    let server = setting.server(Speech::default(), answer).await;
    let upstream = setting.upstream(vec![format!("https://{address}"), server.url()]);
    for _ in 0..4 {
        upstream
            .send(Pool::Own, get("/"))
            .await
            .expect("the other answers");
    }
    assert_eq!(upstream.health(), Health { servers: 2, up: 1 });

    let ca = (&setting.ca, &setting.clients);
    let back = TestServer::start_at(address, ca.0, ca.1, Speech::default(), answer).await;
    let found = async {
        while upstream.health().up < 2 {
            upstream
                .send(Pool::Own, get("/"))
                .await
                .expect("the other answers");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("found again");
    assert!(back.opened() > 0);
}

#[tokio::test]
async fn without_any_server_the_error_says_which_and_why() {
    let setting = Setting::new();
    let gone = setting.server(Speech::default(), answer).await;
    let address = gone.address;
    drop(gone);
    let upstream = setting.upstream(vec![format!("https://{address}")]);
    let error = upstream
        .send(Pool::Own, get("/"))
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let error = upstream
        .open_upgrade(Pool::Own, get("/"))
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn after_goaway_streams_go_on_and_new_requests_go_elsewhere() {
    let setting = Setting::new();
    let server = setting.server(Speech::default(), answer).await;
    let upstream = setting.upstream(vec![server.url()]);
    let mut held = hang(&upstream).await;
    server.leave.send(()).expect("connections listen");
    let moved = async {
        while text(upstream.send(Pool::Own, get("/")).await.expect("an answer")).await == "0" {}
    };
    tokio::time::timeout(PATIENCE, moved)
        .await
        .expect("another connection");
    let more = futures_util::poll!(http_body_util::BodyExt::frame(held.body_mut()));
    assert!(more.is_pending(), "the old stream ended: {more:?}");
}

/// Counts what reaches it, and breaks the connection of every request to `/break`.
fn breaking(count: &Arc<AtomicUsize>) -> impl Fn(Seen) -> Answer + Clone + use<> {
    let count = Arc::clone(count);
    move |seen| {
        let nth = count.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if nth == 0 {
                // The body of an HTTP/1.1 answer that breaks takes the connection with it.
                drop(seen);
                std::panic::resume_unwind(Box::new("the connection ends here"));
            }
            Response::new(Body::full(nth.to_string()))
        })
    }
}

#[tokio::test]
async fn a_lost_request_is_sent_again_only_if_it_just_reads() {
    let setting = Setting::new();
    for (request, repeated) in [(get("/"), true), (post(Body::full("x")), false)] {
        let count = Arc::new(AtomicUsize::new(0));
        let speech = Speech {
            http2: false,
            ..Speech::default()
        };
        let server = setting.server(speech, breaking(&count)).await;
        let upstream = setting.upstream(vec![server.url()]);
        let answer = upstream.send(Pool::Own, request).await;
        match answer {
            Ok(answer) => assert_eq!((text(answer).await.as_str(), repeated), ("1", true)),
            Err(error) => {
                assert!(matches!(error, UpstreamError::Failed { .. }), "{error}");
                assert!(!repeated);
            }
        }
        assert_eq!(count.load(Ordering::SeqCst), if repeated { 2 } else { 1 });
    }
}

#[tokio::test]
async fn a_server_that_answers_no_ping_is_dead() {
    let setting = Setting::new();
    let folder = Folder::new();
    let issued = setting.ca.server("apiserver");
    let files = ServerFiles {
        client_ca: None,
        front_proxies: None,
        ..folder.server_files(&issued, "")
    };
    let tls = ServerTls::load(files).expect("good files");
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", socket.local_addr().expect("bound"));
    let silent = tokio::spawn(async move {
        let (socket, _) = socket.accept().await.expect("a connection");
        let mut stream = tls.accept(socket).await.expect("a handshake");
        // Empty SETTINGS, and then never a word.
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        tokio::io::AsyncWriteExt::write_all(&mut stream, settings)
            .await
            .expect("written");
        std::future::pending::<()>().await;
    });
    let options = UpstreamOptions {
        keep_alive_interval: Duration::from_millis(50),
        keep_alive_timeout: Duration::from_millis(50),
        ..setting.options(vec![url])
    };
    let upstream = setting.upstream_with(&options);
    let lost = tokio::time::timeout(PATIENCE, upstream.send(Pool::Own, post(Body::Empty))).await;
    let error = lost.expect("noticed in time").expect_err("no answer");
    assert!(matches!(error, UpstreamError::Failed { .. }), "{error:?}");
    silent.abort();
}

#[tokio::test]
async fn each_pool_has_its_own_credentials_and_the_bare_one_none() {
    let setting = Setting::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = {
        let seen = Arc::clone(&seen);
        move |request: Seen| -> Answer {
            let token = request
                .request
                .headers()
                .get(header::AUTHORIZATION)
                .cloned();
            seen.lock().push((request.certificate.clone(), token));
            answer(request)
        }
    };
    let server = setting.server(Speech::default(), record).await;
    let upstream = setting.upstream(vec![server.url()]);
    for pool in [Pool::Own, Pool::Asserted, Pool::Bare] {
        drop(upstream.send(pool, get("/")).await.expect("an answer"));
        let request = post(Body::Empty);
        drop(
            upstream
                .open_upgrade(pool, request)
                .await
                .expect("an answer"),
        );
    }
    let own = (
        Some(der(&setting.own)),
        Some(HeaderValue::from_static("Bearer own-token")),
    );
    let asserted = (Some(der(&setting.front_proxy)), None);
    let bare = (None, None);
    let expected = [
        own.clone(),
        own,
        asserted.clone(),
        asserted,
        bare.clone(),
        bare,
    ];
    assert_eq!(*seen.lock(), expected);
}

fn der(issued: &Issued) -> Vec<u8> {
    let pem = issued.certificate.as_bytes();
    let chain = crate::tls::certificates("test", "test".as_ref(), pem).expect("a certificate");
    chain.first().expect("a leaf").to_vec()
}

#[tokio::test]
async fn a_new_certificate_makes_new_connections_and_a_new_token_does_not() {
    let setting = Setting::new();
    let server = setting
        .server(Speech::default(), |seen| {
            let token = seen.request.headers()[header::AUTHORIZATION].clone();
            let connection = seen.connection;
            Box::pin(async move {
                let token = token.to_str().expect("text").to_owned();
                Response::new(Body::full(format!("{connection} {token}")))
            })
        })
        .await;
    let upstream = setting.upstream(vec![server.url()]);
    let ask = async || text(upstream.send(Pool::Own, get("/")).await.expect("an answer")).await;
    assert_eq!(ask().await, "0 Bearer own-token");
    setting.folder.write("token", "next-token");
    assert_eq!(
        upstream.shared.credentials.poll(),
        crate::tls::reload::Outcome::Changed
    );
    assert_eq!(ask().await, "0 Bearer next-token");
    let next = setting.clients.client("watershed");
    setting.folder.write("own.crt", &next.certificate);
    setting.folder.write("own.key", &next.key);
    assert_eq!(
        upstream.shared.credentials.poll(),
        crate::tls::reload::Outcome::Changed
    );
    assert_eq!(ask().await, "1 Bearer next-token");
}

#[tokio::test]
async fn a_body_longer_than_its_limit_is_an_error() {
    let setting = Setting::new();
    let server = setting.server(Speech::default(), answer).await;
    let upstream = setting.upstream(vec![server.url()]);
    let answer = upstream.send(Pool::Own, get("/")).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let error = answer
        .into_body()
        .bytes(0)
        .await
        .expect_err("one byte is too long");
    assert!(
        matches!(error, crate::body::BodyError::TooLong { limit: 0 }),
        "{error}"
    );
}

#[tokio::test]
async fn a_kubeconfig_gives_server_identity_and_ca() {
    let setting = Setting::new();
    let server = setting.server(Speech::default(), answer).await;
    let base64 = |text: &str| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text);
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: {:?}, certificate-authority-data: {:?}}}}}]\n\
         users: [{{name: u, user: {{client-certificate-data: {:?}, client-key-data: {:?}}}}}]\n",
        server.url(),
        base64(&setting.ca.pem()),
        base64(&setting.own.certificate),
        base64(&setting.own.key),
    );
    let path = setting.folder.write("kubeconfig", &kubeconfig);
    let options = UpstreamOptions {
        servers: Vec::new(),
        ca_file: None,
        credentials: CredentialSource::Kubeconfig(path),
        ..setting.options(Vec::new())
    };
    let upstream = setting.upstream_with(&options);
    assert_eq!(
        text(upstream.send(Pool::Own, get("/")).await.expect("an answer")).await,
        "0"
    );

    for (user, reason) in [
        (
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: aws}}",
            "exec plugins",
        ),
        ("{username: a, password: b}", "apiservers know no passwords"),
        ("{client-certificate-data: AAAA}", "without the other"),
    ] {
        let at = kubeconfig.find("users:").expect("written above");
        let bad = format!("{}users: [{{name: u, user: {user}}}]\n", &kubeconfig[..at]);
        setting.folder.write("kubeconfig", &bad);
        let error = Upstream::new(&options, &setting.drain, &Metrics::new().0);
        let error = error.expect_err(reason).to_string();
        assert!(
            error.contains(reason) && error.contains("kubeconfig"),
            "{error}"
        );
    }
}
