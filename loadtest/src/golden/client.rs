//! A small HTTP/1.1 client over TLS, one user per connection.
//!
//! Owns the connections of one replay: idle ones are reused, watches get their own, all end with
//! the client. Refuses redirects, retries of anything that was sent, and answers above a limit.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// Longest wait for an answer's head or body. The apiserver's own limit is 60 s.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// Largest body read.
const BODY_BYTES_MAX: usize = 64 << 20;

/// What is sent.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) user: String,
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) elapsed: Duration,
}

/// An answer whose body goes on; the connection lives as long as this value.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    pub(super) started: Instant,
    connection: Connection,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

pub(super) struct Client<'a> {
    address: SocketAddr,
    users: &'a HashMap<String, Arc<rustls::ClientConfig>>,
    idle: HashMap<String, Connection>,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        address: SocketAddr,
        users: &'a HashMap<String, Arc<rustls::ClientConfig>>,
    ) -> Self {
        Self {
            address,
            users,
            idle: HashMap::new(),
        }
    }

    /// Uses new connections from now on.
    pub(super) fn reconnect(&mut self) {
        self.idle.clear();
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn exchange(&mut self, outgoing: &Outgoing) -> anyhow::Result<Answer> {
        let open = self.open(outgoing).await?;
        let body = timeout(
            ANSWER_MAX,
            Limited::new(open.body, BODY_BYTES_MAX).collect(),
        )
        .await;
        let body = body.context("the body took too long")?;
        let body = body
            .map_err(|error| anyhow::anyhow!("read the body: {error}"))?
            .to_bytes();
        let elapsed = open.started.elapsed();
        self.idle.insert(outgoing.user.clone(), open.connection);
        Ok(Answer {
            status: open.status,
            headers: open.headers,
            body,
            elapsed,
        })
    }

    /// Sends a request and reads the head of the answer.
    pub(super) async fn open(&mut self, outgoing: &Outgoing) -> anyhow::Result<Open> {
        let request = self.request(outgoing)?;
        let idle = self
            .idle
            .remove(&outgoing.user)
            .filter(|own| own.sender.is_ready());
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect(&outgoing.user).await?,
        };
        let started = Instant::now();
        let response = match connection.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut failure) => {
                // The server closed the idle connection before anything was sent.
                let Some(request) = failure.take_message() else {
                    return Err(failure.into_error()).context("send the request");
                };
                connection = self.connect(&outgoing.user).await?;
                let answer = timeout(ANSWER_MAX, connection.sender.send_request(request)).await;
                answer
                    .context("no answer in time")?
                    .context("send the request again")?
            }
        };
        let (parts, body) = response.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        Ok(Open {
            status,
            headers,
            body,
            started,
            connection,
        })
    }

    fn request(&self, outgoing: &Outgoing) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(outgoing.method.as_str())
            .uri(
                outgoing
                    .path
                    .parse::<Uri>()
                    .with_context(|| outgoing.path.clone())?,
            )
            .header("host", self.address.to_string());
        let named = |name: &str| {
            outgoing
                .headers
                .iter()
                .any(|(own, _)| own.eq_ignore_ascii_case(name))
        };
        if !named("user-agent") {
            request = request.header("user-agent", "golden/1.0");
        }
        for (name, value) in &outgoing.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(outgoing.body.clone()))?)
    }

    async fn connect(&self, user: &str) -> anyhow::Result<Connection> {
        let Some(config) = self.users.get(user) else {
            bail!("no certificate for user {user}")
        };
        let stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await;
        let (sender, connection) =
            handshake(TokioIo::new(stream.context("TLS handshake")?)).await?;
        let driver = tokio::spawn(async move {
            // A broken connection shows as an error of its request or body.
            let _ = connection.await;
        });
        Ok(Connection {
            sender,
            _driver: AbortOnDropHandle::new(driver),
        })
    }
}

/// Whether hyper can put the path on the wire unchanged: it refuses some bytes Go's client sends,
/// and drops fragments.
pub(super) fn is_sendable(path: &str) -> bool {
    path.parse::<Uri>()
        .is_ok_and(|uri| uri.path_and_query().is_some_and(|own| own == path))
}
