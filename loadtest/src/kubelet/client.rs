//! One HTTP/2 connection to a server, kept for as long as its owner lives.
//!
//! Owns dialling, TLS, back-off and redialling; requests wait for a connection and see its loss as
//! an error. Refuses pools and retries: a kubelet has one connection, and each caller knows its own
//! retry rule.
//!
//! h2 is used directly, because a hollow kubelet must cost a fraction of what it loads: the
//! connection, its streams and everything that waits for them live in one task.
//! Invariant: flow control is released as soon as data is read, so a slow server is never ours.

use std::fmt;
use std::io::Read as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER,
    USER_AGENT,
};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::apiserver::certs::Credential;

/// What a kubelet accepts.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const ACCEPT_PROTOBUF: &str = "application/vnd.kubernetes.protobuf,application/json";
const AGENT: &str = "kubelet/v1.36.1 (linux/amd64) kubernetes/0123abc";
/// As Go's transport: 10 s for TLS, 30 s to dial.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Flow control windows of Go's transport.
const CONNECTION_WINDOW: u32 = 1 << 30;
const STREAM_WINDOW: u32 = 4 << 20;
/// Unread small DATA frames before the connection is closed; far above any burst of events.
const DATA_FRAME_BUDGET: usize = 64 << 20;
const REDIAL: Duration = Duration::from_millis(800);
const REDIAL_MAX: Duration = Duration::from_secs(30);
/// Retries on `Retry-After` within one call, as client-go.
const RETRIES_MAX: u32 = 10;
/// Longest body that is read as a whole.
const BODY_MAX: usize = 1 << 30;

/// Why a request has no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// The connection was lost, or the stream reset.
    #[error("connection lost: {0}")]
    Connection(#[from] h2::Error),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The body is not what its headers say, or too long.
    #[error("unreadable body")]
    Body,
}

/// A server and what it takes to trust it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    authority: Arc<str>,
    address: SocketAddr,
    name: ServerName<'static>,
    roots: Arc<RootCertStore>,
}

impl Endpoint {
    /// Reads `https://HOST:PORT` and resolves it once.
    ///
    /// # Errors
    /// When the URL is no such, its host has no address, or `ca` holds no certificate.
    pub fn new(url: &str, ca: &str) -> Result<Self> {
        let uri: Uri = url
            .parse()
            .with_context(|| format!("read the address {url:?}"))?;
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("{url:?} is not an address of the form https://HOST:PORT");
        };
        let host = authority.host().trim_matches(['[', ']']);
        let port = authority.port_u16().unwrap_or(443);
        let address = (host, port).to_socket_addrs();
        let address = address.with_context(|| format!("resolve {host}"))?.next();
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.context("read the CA")?)?;
        }
        Ok(Self {
            authority: authority.as_str().into(),
            address: address.with_context(|| format!("{host} has no address"))?,
            name: ServerName::try_from(host.to_owned())?,
            roots: Arc::new(roots),
        })
    }

    /// `HOST:PORT` as it was given.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What it resolved to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its certificate has to name.
    #[must_use]
    pub fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// TLS towards it, HTTP/2 only, without a client certificate.
    ///
    /// # Errors
    /// When the provider has no usable protocol version.
    pub fn tls(&self) -> Result<rustls::ClientConfig> {
        let mut config = self.builder()?.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    fn builder(
        &self,
    ) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?;
        Ok(builder.with_root_certificates(Arc::clone(&self.roots)))
    }

    /// A client that presents a certificate. Nothing is dialled before [`Connection::run`].
    ///
    /// # Errors
    /// When the certificate or key is unusable.
    pub fn client(
        &self,
        credential: &Credential,
        gate: Arc<Semaphore>,
    ) -> Result<(Client, Connection)> {
        let mut config = self
            .builder()?
            .with_client_auth_cert(credential.chain()?, credential.private_key()?)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        let (publish, sender) = watch::channel(None);
        let counts = Arc::new(ConnectionCounts::default());
        let connection = Connection {
            endpoint: self.clone(),
            others: Vec::new(),
            tls: TlsConnector::from(Arc::new(config)),
            gate,
            publish,
            counts: Arc::clone(&counts),
        };
        let authority = Arc::clone(&self.authority);
        Ok((
            Client {
                sender,
                authority,
                counts,
            },
            connection,
        ))
    }
}

/// What happened to one client's connections.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    /// Connections established.
    pub established: AtomicU64,
    /// Dials or handshakes that failed.
    pub failed: AtomicU64,
}

/// Keeps the connection of a [`Client`].
pub struct Connection {
    endpoint: Endpoint,
    /// Where else to dial, in turn.
    others: Vec<Endpoint>,
    tls: TlsConnector,
    gate: Arc<Semaphore>,
    publish: watch::Sender<Option<SendRequest<Bytes>>>,
    counts: Arc<ConnectionCounts>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Dials these in turn once a connection is lost or cannot be had, as behind a load balancer.
    #[must_use]
    pub fn or(mut self, others: Vec<Endpoint>) -> Self {
        self.others = others;
        self
    }

    /// Dials, serves until the connection is lost or `cuts` changes, and dials again, for ever.
    pub async fn run(mut self, mut cuts: watch::Receiver<u64>) {
        let mut delay = REDIAL;
        loop {
            match timeout(DIAL_TIMEOUT, self.dial()).await {
                Ok(Ok((sender, connection))) => {
                    delay = REDIAL;
                    self.counts.established.fetch_add(1, Ordering::Relaxed);
                    self.publish.send_replace(Some(sender));
                    cuts.mark_unchanged();
                    tokio::select! {
                        _ = connection => {}
                        Ok(()) = cuts.changed() => {}
                    }
                    self.publish.send_replace(None);
                }
                Ok(Err(_)) | Err(_) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(delay.mul_f64(1.0 + fastrand::f64())).await;
                    delay = (delay * 2).min(REDIAL_MAX);
                }
            }
            if !self.others.is_empty() {
                let next = self.others.remove(0);
                let last = std::mem::replace(&mut self.endpoint, next);
                self.others.push(last);
            }
        }
    }

    async fn dial(
        &self,
    ) -> Result<(
        SendRequest<Bytes>,
        impl Future<Output = Result<(), h2::Error>> + use<>,
    )> {
        let _turn = self.gate.acquire().await?; // bounds handshakes at one time
        let stream = TcpStream::connect(self.endpoint.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.endpoint.name.clone(), stream).await?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_window_size(STREAM_WINDOW)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .enable_push(false)
            .handshake(stream)
            .await?;
        Ok((sender, connection))
    }
}

/// A request as a kubelet or an administrator sends it.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    target: String,
    accept: &'static str,
    content_type: Option<&'static str>,
    body: Bytes,
    /// Whether the answer may be compressed, as Go's transport asks for.
    gzip: bool,
}

impl Call {
    /// GET, protobuf preferred.
    pub fn read(target: impl Into<String>) -> Self {
        let target = target.into();
        Self {
            method: Method::GET,
            target,
            accept: ACCEPT_PROTOBUF,
            content_type: None,
            body: Bytes::new(),
            gzip: true,
        }
    }

    /// A write with a body; the answer is protobuf.
    pub fn write(
        method: Method,
        target: impl Into<String>,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        let (content_type, body) = (Some(content_type), body.into());
        Self {
            method,
            target: target.into(),
            accept: ACCEPT_PROTOBUF,
            content_type,
            body,
            gzip: true,
        }
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The answer shall be JSON.
    #[must_use]
    pub fn json(mut self) -> Self {
        self.accept = "application/json";
        self
    }

    /// The answer shall not be compressed.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.gzip = false;
        self
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP code.
    pub status: StatusCode,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
    /// The body, decompressed.
    pub body: Bytes,
}

/// Sends requests over whatever connection there is.
#[derive(Debug, Clone)]
pub struct Client {
    sender: watch::Receiver<Option<SendRequest<Bytes>>>,
    authority: Arc<str>,
    counts: Arc<ConnectionCounts>,
}

impl Client {
    /// Sends a request and reads the answer's head; waits for a connection if there is none.
    ///
    /// # Errors
    /// When the connection is lost first.
    pub async fn open(&self, call: &Call) -> Result<http::Response<RecvStream>, CallError> {
        let sender = {
            let mut receiver = self.sender.clone();
            let sender = receiver
                .wait_for(Option::is_some)
                .await
                .map_err(|_| CallError::Closed)?;
            sender.clone().ok_or(CallError::Closed)?
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("https://{}{}", self.authority, call.target))
            .header(ACCEPT, call.accept)
            .header(USER_AGENT, AGENT);
        if call.gzip {
            request = request.header(ACCEPT_ENCODING, "gzip");
        }
        if let Some(content_type) = call.content_type {
            // Go's transport says how long a body in memory is.
            request = request
                .header(CONTENT_TYPE, content_type)
                .header(CONTENT_LENGTH, call.body.len());
        }
        let request = request.body(()).map_err(|_| CallError::Body)?;
        let end = call.body.is_empty();
        let (response, mut body) = sender.ready().await?.send_request(request, end)?;
        if !end {
            body.send_data(call.body.clone(), true)?;
        }
        Ok(response.await?)
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection is lost, the time is over or the body is unreadable.
    pub async fn call(&self, call: &Call, limit: Duration) -> Result<Answer, CallError> {
        timeout(limit, self.exchange(call))
            .await
            .map_err(|_| CallError::Timeout(limit))?
    }

    /// The same; waits and retries where the answer carries `Retry-After`, as client-go.
    ///
    /// # Errors
    /// As [`Client::call`]; the limit is that of all attempts together.
    pub async fn call_patiently(&self, call: &Call, limit: Duration) -> Result<Answer, CallError> {
        let deadline = Instant::now() + limit;
        let mut retries = 0;
        loop {
            let left = deadline.duration_since(Instant::now());
            let answer = self.call(call, left).await?;
            let code = answer.status.as_u16();
            let retried = (code == 429 || code >= 500) && retries < RETRIES_MAX;
            let Some(seconds) = answer.retry_after.filter(|_| retried) else {
                return Ok(answer);
            };
            retries += 1;
            let wait = sleep(Duration::from_secs(seconds));
            if timeout_at(deadline, wait).await.is_err() {
                return Ok(answer);
            }
        }
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, CallError> {
        let (head, mut stream) = self.open(call).await?.into_parts();
        let mut body = BytesMut::new();
        while let Some(chunk) = read(&mut stream).await? {
            if body.len() + chunk.len() > BODY_MAX {
                return Err(CallError::Body);
            }
            body.extend_from_slice(&chunk);
        }
        let body = match head.headers.get(CONTENT_ENCODING) {
            Some(_) => gunzip(&body)?,
            None => body.freeze(),
        };
        Ok(Answer {
            status: head.status,
            retry_after: retry_after(&head.headers),
            body,
        })
    }

    /// Connections established and failed.
    #[must_use]
    pub fn connections(&self) -> &ConnectionCounts {
        &self.counts
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.sender.borrow().is_some()
    }
}

/// The next chunk of a body; `None` at its end.
///
/// # Errors
/// When the stream was reset or its connection lost.
pub async fn read(stream: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(chunk) = stream.data().await else {
        return Ok(None);
    };
    let chunk = chunk?;
    stream.flow_control().release_capacity(chunk.len())?;
    Ok(Some(chunk))
}

/// `Retry-After` in seconds; a date counts as absent.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

fn gunzip(body: &[u8]) -> Result<Bytes, CallError> {
    let mut plain = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(body).take(BODY_MAX as u64);
    decoder
        .read_to_end(&mut plain)
        .map_err(|_| CallError::Body)?;
    Ok(plain.into())
}
