//! A small client that hides nothing: heads and bodies as they came, over HTTP/1.1 or HTTP/2.
//!
//! Owns the TLS connections of one user to one server: idle HTTP/1.1 connections are reused, a
//! body that goes on keeps its own, HTTP/2 shares one. All end with the client. Refuses redirects,
//! retries of anything that was sent, and answers above a limit.
//!
//! Invariant: every wait ends, at [`PATIENCE`] with an error.

mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

pub use self::watch::{Event, Watch};
use crate::apiserver::certs::Credential;

/// The longest wait for anything. Above the apiserver's own limit of 60 s; nothing sleeps it out.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Largest body read, in bytes.
const BODY_BYTES_MAX: usize = 64 << 20;

/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of the apiserver's protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What is sent as a body.
pub type Payload = UnsyncBoxBody<Bytes, std::io::Error>;

/// The protocol of a client's connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A request before it has an address.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Request {
    /// A request with any method, and path and query exactly as they shall stand on the wire.
    pub fn new(method: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// A GET.
    pub fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// Adds a header line; the same name may come again.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body as it is.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether a client can put the target on the wire unchanged: hyper refuses some bytes that
    /// Go's client sends, and drops fragments.
    pub fn is_sendable(&self) -> bool {
        let uri: Result<Uri, _> = self.target.parse();
        uri.is_ok_and(|uri| uri.path_and_query().is_some_and(|own| own == &*self.target))
    }

    /// Sets a JSON body; a PATCH becomes a merge patch.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        let content_type = match self.method.as_str() {
            "PATCH" => "application/merge-patch+json",
            _ => JSON,
        };
        self.header("content-type", content_type)
            .body(body.to_string())
    }
}

/// A request and its answer as they were on the wire; a watch's body grows while it is read.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The method sent.
    pub method: String,
    /// Path and query sent.
    pub target: String,
    /// The headers sent.
    pub sent: Vec<(String, String)>,
    /// The answer's status code.
    pub status: u16,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// What was read of the answer's body.
    pub body: BytesMut,
}

/// What several clients exchanged, in the order of the answers' heads.
pub type Journal = Arc<Mutex<Vec<Exchange>>>;

/// Sends requests as one user to one server.
pub struct Client {
    address: SocketAddr,
    tls: TlsConnector,
    protocol: Protocol,
    defaults: Vec<(String, String)>,
    journal: Option<Journal>,
    idle: Mutex<Vec<Connection>>,
    http2: tokio::sync::Mutex<Option<(http2::SendRequest<Payload>, Driver)>>,
}

type Driver = Arc<AbortOnDropHandle<()>>;

/// One HTTP/1.1 connection.
struct Connection {
    sender: http1::SendRequest<Payload>,
    driver: Driver,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Client")
            .field("address", &self.address)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// How a client meets a server: `ca` (PEM) signed the server's certificate, `credential` is shown.
///
/// # Errors
/// When a certificate or key is unusable.
pub fn tls(ca: &str, credential: Option<&Credential>) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match credential {
        Some(own) => builder.with_client_auth_cert(own.chain()?, own.private_key()?)?,
        None => builder.with_no_client_auth(),
    })
}

impl Client {
    /// A client of the server at `address`. It connects with its first request.
    pub fn new(address: SocketAddr, mut tls: rustls::ClientConfig, protocol: Protocol) -> Self {
        tls.alpn_protocols = vec![match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        Self {
            address,
            tls: TlsConnector::from(Arc::new(tls)),
            protocol,
            defaults: Vec::new(),
            journal: None,
            idle: Mutex::default(),
            http2: tokio::sync::Mutex::default(),
        }
    }

    /// The protocol of its connections.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sends a header with every request that does not have it.
    #[must_use]
    pub fn with_default(mut self, name: &str, value: impl Into<String>) -> Self {
        self.defaults.push((name.to_owned(), value.into()));
        self
    }

    /// Writes down what is exchanged.
    #[must_use]
    pub fn with_journal(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Reads `target` whole.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn get(&self, target: &str) -> anyhow::Result<Answer> {
        self.whole(Request::get(target)).await
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn whole(&self, request: Request) -> anyhow::Result<Answer> {
        let line = format!("{} {}", request.method, request.target);
        let (open, idle) = self.exchange(request).await?;
        let answer = open.whole().await.with_context(|| line)?;
        if let Some(connection) = idle.filter(|_| answer.headers.get("connection").is_none()) {
            self.idle.lock().push(connection);
        }
        Ok(answer)
    }

    /// Opens a watch, which must be granted with 200.
    ///
    /// # Errors
    /// When it is not, with the answer in the error.
    pub async fn watch(&self, request: Request) -> anyhow::Result<Watch> {
        let target = request.target.clone();
        let open = self.send(request).await?;
        if open.status() != 200 {
            let answer = open.whole().await?;
            anyhow::bail!("{target}: {} {}", answer.status, answer.text());
        }
        Ok(Watch::new(target, open))
    }

    /// Sends a request and reads the head of the answer.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn send(&self, request: Request) -> anyhow::Result<Open> {
        Ok(self.exchange(request).await?.0)
    }

    /// The head of the answer, and the connection to use again once its body was read.
    async fn exchange(&self, request: Request) -> anyhow::Result<(Open, Option<Connection>)> {
        let line = format!("{} {}", request.method, request.target);
        let wire = self.on_the_wire(&request).with_context(|| line.clone())?;
        let started = Instant::now();
        let answer = timeout(PATIENCE, self.answer(wire)).await;
        let answer = answer.context("no answer in time").and_then(|own| own);
        let (response, driver, idle) = answer.with_context(|| line)?;
        let record = self.journal.as_ref().map(|journal| {
            let mut all = journal.lock();
            all.push(Exchange {
                method: request.method,
                target: request.target,
                sent: request.headers,
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                body: BytesMut::new(),
            });
            (Arc::clone(journal), all.len() - 1)
        });
        let open = Open {
            response,
            started,
            record,
            _driver: driver,
        };
        Ok((open, idle))
    }

    async fn answer(
        &self,
        request: http::Request<Payload>,
    ) -> anyhow::Result<(Response<Incoming>, Driver, Option<Connection>)> {
        if self.protocol == Protocol::Http2 {
            let (mut sender, driver) = self.multiplexed().await?;
            let mut failure = match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, driver, None)),
                Err(failure) => failure,
            };
            // The server was leaving the connection before anything was sent.
            let Some(request) = failure.take_message() else {
                return Err(failure.into_error()).context("send the request");
            };
            *self.http2.lock().await = None;
            let (mut sender, driver) = self.multiplexed().await?;
            return Ok((sender.send_request(request).await?, driver, None));
        }
        let idle = self.idle.lock().pop().filter(|own| own.sender.is_ready());
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let response = match connection.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut failure) => {
                // The server closed the idle connection before anything was sent.
                let Some(request) = failure.take_message() else {
                    return Err(failure.into_error()).context("send the request");
                };
                connection = self.connect().await?;
                connection.sender.send_request(request).await?
            }
        };
        Ok((response, Arc::clone(&connection.driver), Some(connection)))
    }

    fn on_the_wire(&self, request: &Request) -> anyhow::Result<http::Request<Payload>> {
        let uri = match self.protocol {
            Protocol::Http1 => request.target.clone(),
            Protocol::Http2 => format!("https://{}{}", self.address, request.target),
        };
        let body = Full::new(request.body.clone()).map_err(|never| match never {});
        let mut wire = http::Request::new(body.boxed_unsync());
        *wire.method_mut() = Method::from_bytes(request.method.as_bytes())?;
        *wire.uri_mut() = uri.parse()?;
        ensure!(request.is_sendable(), "the target cannot be sent as it is");
        let is_named = |name: &str| {
            let mut names = request.headers.iter().map(|(own, _)| own);
            names.any(|own| own.eq_ignore_ascii_case(name))
        };
        let host = ("host".to_owned(), self.address.to_string());
        let host = (self.protocol == Protocol::Http1).then_some(&host);
        let defaults = self.defaults.iter().chain(host);
        let defaults = defaults.filter(|(name, _)| !is_named(name));
        for (name, value) in defaults.chain(&request.headers) {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            wire.headers_mut()
                .append(name, HeaderValue::from_str(value)?);
        }
        Ok(wire)
    }

    /// Whether the HTTP/2 connection is gone, or there was none.
    pub async fn is_left(&self) -> bool {
        let open = self.http2.lock().await;
        open.as_ref().is_none_or(|(sender, _)| sender.is_closed())
    }

    async fn multiplexed(&self) -> anyhow::Result<(http2::SendRequest<Payload>, Driver)> {
        let mut open = self.http2.lock().await;
        if let Some(own) = open.as_ref().filter(|(sender, _)| !sender.is_closed()) {
            return Ok(own.clone());
        }
        let io = TokioIo::new(self.dial().await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        // A broken connection shows as an error of its request or body.
        let driver = tokio::spawn(async move { drop(connection.await) });
        let own = (sender, Arc::new(AbortOnDropHandle::new(driver)));
        *open = Some(own.clone());
        Ok(own)
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let io = TokioIo::new(self.dial().await?);
        let (sender, connection) = http1::handshake(io).await?;
        // Upgrades are the caller's to use; an error shows in the request or its body.
        let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        let driver = Arc::new(AbortOnDropHandle::new(driver));
        Ok(Connection { sender, driver })
    }

    /// A new TLS stream to the server, for what no HTTP library sends.
    ///
    /// # Errors
    /// When the server is not reached or its certificate not trusted.
    pub async fn dial(&self) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = self.tls.connect(name, stream).await;
        stream.context("TLS handshake")
    }
}

/// An answer whose body is still to be read. Its connection lives as long.
#[derive(Debug)]
pub struct Open {
    /// The answer; an upgraded connection is taken from it.
    pub response: Response<Incoming>,
    started: Instant,
    record: Option<(Journal, usize)>,
    _driver: Driver,
}

impl Open {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// When the request was sent.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The rest of the answer.
    ///
    /// # Errors
    /// When the body breaks off, takes too long or is too large.
    pub async fn whole(mut self) -> anyhow::Result<Answer> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
            ensure!(body.len() <= BODY_BYTES_MAX, "the body is too large");
        }
        Ok(Answer {
            status: self.status(),
            headers: self.headers().clone(),
            body: body.freeze(),
            elapsed: self.started.elapsed(),
        })
    }

    /// The next bytes; `None` is a clean end.
    ///
    /// # Errors
    /// When the body breaks off or nothing comes in time.
    pub async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = timeout(PATIENCE, self.response.body_mut().frame()).await;
            let Some(frame) = frame.context("nothing came in time")? else {
                return Ok(None);
            };
            match frame.context("the body broke")?.into_data() {
                Ok(data) if !data.is_empty() => {
                    if let Some((journal, index)) = &self.record {
                        journal.lock()[*index].body.extend_from_slice(&data);
                    }
                    return Ok(Some(data));
                }
                Ok(_) | Err(_) => {} // the end of an HTTP/2 stream, or trailers
            }
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// From sending the request to the last byte.
    pub elapsed: Duration,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header that comes at most once and is text; empty when it does not come.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|own| own.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON, whatever the status.
    ///
    /// # Errors
    /// When it is not.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} {}", self.status, self.text()))
    }

    /// The object or list of a successful answer; anything else is an error.
    ///
    /// # Errors
    /// When the status is no success or the body no JSON.
    pub fn ok(&self) -> anyhow::Result<Value> {
        let is_success = StatusCode::from_u16(self.status).is_ok_and(|own| own.is_success());
        ensure!(is_success, "{} {}", self.status, self.text());
        self.json()
    }
}
