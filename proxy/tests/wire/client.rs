//! A client that hides nothing: heads and bodies as they came, over HTTP/1.1 or HTTP/2.
//!
//! Owns connections and the cutting of watch streams into events. Refuses to retry and to follow.
//! Invariant: every wait ends, at [`PATIENCE`] with a failed test.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use watershed_loadtest::{
    apiserver::certs::Credential,
    kubelet::decode::{self, Change, FrameSplitter},
};

/// The longest wait for anything. Long, because a test machine may be busy; nothing sleeps it out.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) const JSON: &str = "application/json";
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What is sent.
pub(crate) type Payload = UnsyncBoxBody<Bytes, std::io::Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Sends requests as one user: over one HTTP/2 connection, or an HTTP/1.1 connection each.
pub(crate) struct Client {
    address: SocketAddr,
    tls: TlsConnector,
    protocol: Protocol,
    http2: Mutex<Option<Multiplexed>>,
}

#[derive(Clone)]
struct Multiplexed {
    sender: http2::SendRequest<Payload>,
    driver: Arc<AbortOnDropHandle<()>>,
}

/// An answer whose body is still to be read. Its connection lives as long.
pub(crate) struct Open {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) response: Response<()>,
    pub(crate) body: Incoming,
    _driver: Arc<AbortOnDropHandle<()>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    /// A client of the server at `address`, whose certificate `ca` signed.
    pub(crate) fn new(
        address: SocketAddr,
        ca: &str,
        credential: Option<&Credential>,
        protocol: Protocol,
    ) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match credential {
            Some(own) => builder.with_client_auth_cert(own.chain()?, own.private_key()?)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        Ok(Self {
            address,
            tls: TlsConnector::from(Arc::new(config)),
            protocol,
            http2: Mutex::default(),
        })
    }

    /// Reads `target` whole, as JSON.
    pub(crate) async fn get(&self, target: &str) -> anyhow::Result<Answer> {
        self.whole(self.request(Method::GET, target).body(empty())?)
            .await
    }

    /// Writes JSON to `target`.
    pub(crate) async fn write(
        &self,
        method: Method,
        target: &str,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => JSON,
        };
        let request = self
            .request(method, target)
            .header("content-type", content_type);
        self.whole(request.body(full(body.to_string()))?).await
    }

    /// A request for `target` that accepts JSON.
    pub(crate) fn request(&self, method: Method, target: &str) -> http::request::Builder {
        let builder = Request::builder().method(method);
        let builder = match self.protocol {
            Protocol::Http1 => builder.uri(target).header("host", self.address.to_string()),
            Protocol::Http2 => builder.uri(format!("https://{}{target}", self.address)),
        };
        builder.header("accept", JSON)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn whole(&self, request: Request<Payload>) -> anyhow::Result<Answer> {
        self.send(request).await?.whole().await
    }

    /// Sends a request and reads the head of the answer.
    pub(crate) async fn send(&self, request: Request<Payload>) -> anyhow::Result<Open> {
        let target = request.uri().to_string();
        timeout(PATIENCE, self.send_at_once(request))
            .await
            .with_context(|| format!("no answer in time: {target}"))?
    }

    async fn send_at_once(&self, request: Request<Payload>) -> anyhow::Result<Open> {
        let (response, driver) = match self.protocol {
            Protocol::Http1 => {
                let (mut sender, connection) =
                    http1::handshake(TokioIo::new(self.dial().await?)).await?;
                // Upgrades are the caller's to use; an error shows in the request or its body.
                let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
                let driver = Arc::new(AbortOnDropHandle::new(driver));
                (sender.send_request(request).await?, driver)
            }
            Protocol::Http2 => {
                let mut own = self.multiplexed().await?;
                match own.sender.try_send_request(request).await {
                    Ok(response) => (response, own.driver),
                    Err(mut failure) => {
                        // The server was leaving the connection before anything was sent.
                        let Some(request) = failure.take_message() else {
                            return Err(failure.into_error().into());
                        };
                        *self.http2.lock().await = None;
                        let mut own = self.multiplexed().await?;
                        (own.sender.send_request(request).await?, own.driver)
                    }
                }
            }
        };
        let (parts, body) = response.into_parts();
        let mut response = Response::new(());
        *response.extensions_mut() = parts.extensions;
        Ok(Open {
            status: parts.status,
            headers: parts.headers,
            response,
            body,
            _driver: driver,
        })
    }

    /// Opens a watch; the answer must be 200.
    pub(crate) async fn watch(&self, target: &str, accept: &'static str) -> anyhow::Result<Watch> {
        let mut request = self.request(Method::GET, target).body(empty())?;
        request
            .headers_mut()
            .insert("accept", http::HeaderValue::from_static(accept));
        let open = self.send(request).await?;
        if open.status != StatusCode::OK {
            let answer = open.whole().await?;
            anyhow::bail!("{target}: {} {}", answer.status, answer.text());
        }
        Ok(Watch {
            target: target.to_owned(),
            open,
            cutter: if accept == PROTOBUF {
                Cutter::Protobuf(FrameSplitter::default())
            } else {
                Cutter::Json(BytesMut::new())
            },
        })
    }

    async fn multiplexed(&self) -> anyhow::Result<Multiplexed> {
        let mut open = self.http2.lock().await;
        if let Some(own) = open.as_ref().filter(|own| !own.sender.is_closed()) {
            return Ok(own.clone());
        }
        let io = TokioIo::new(self.dial().await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        let own = Multiplexed {
            sender,
            driver: Arc::new(AbortOnDropHandle::new(driver)),
        };
        *open = Some(own.clone());
        Ok(own)
    }

    async fn dial(&self) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        self.tls.connect(name, stream).await.context("handshake")
    }
}

impl Open {
    /// The rest of the answer.
    pub(crate) async fn whole(self) -> anyhow::Result<Answer> {
        let body = timeout(PATIENCE, self.body.collect())
            .await
            .context("the body took too long")?;
        Ok(Answer {
            status: self.status,
            headers: self.headers,
            body: body.context("read the body")?.to_bytes(),
        })
    }

    /// The next bytes; `None` is a clean end.
    pub(crate) async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = timeout(PATIENCE, self.body.frame())
                .await
                .context("nothing came in time")?;
            let Some(frame) = frame else { return Ok(None) };
            match frame.context("the body broke")?.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                Ok(_) | Err(_) => {} // the end of an HTTP/2 stream, or trailers
            }
        }
    }
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| self.text())
    }

    /// The object or list in a 200 or 201; anything else is an error.
    pub(crate) fn ok(&self) -> anyhow::Result<Value> {
        ensure!(self.status.is_success(), "{} {}", self.status, self.text());
        self.json()
    }
}

/// An event of a watch, whatever its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// ADDED, MODIFIED or DELETED; the object's `namespace/name`; its version.
    Object(&'static str, String, u64),
    /// The version, and whether it ends the initial events.
    Bookmark(u64, bool),
    /// The code and message of its Status.
    Error(u64, String),
}

/// An open watch.
pub(crate) struct Watch {
    target: String,
    open: Open,
    cutter: Cutter,
}

enum Cutter {
    Json(BytesMut),
    Protobuf(FrameSplitter),
}

impl Watch {
    /// The next event; `None` is a clean end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.cutter.cut()? {
                return Ok(Some(event));
            }
            let chunk = self.open.chunk().await;
            match chunk.with_context(|| self.target.clone())? {
                Some(chunk) => self.cutter.push(&chunk),
                None => {
                    ensure!(self.cutter.is_empty(), "{}: half an event", self.target);
                    return Ok(None);
                }
            }
        }
    }

    /// The next event that is no bookmark.
    pub(crate) async fn object(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            match self.next().await? {
                Some(Event::Bookmark(..)) => {}
                other => return Ok(other),
            }
        }
    }
}

impl Cutter {
    fn push(&mut self, chunk: &[u8]) {
        match self {
            Self::Json(buffer) => buffer.extend_from_slice(chunk),
            Self::Protobuf(splitter) => splitter.push(chunk),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Json(buffer) => buffer.is_empty(),
            Self::Protobuf(splitter) => !splitter.is_partial(),
        }
    }

    fn cut(&mut self) -> anyhow::Result<Option<Event>> {
        match self {
            Self::Json(buffer) => {
                let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
                    return Ok(None);
                };
                json_event(&buffer.split_to(end + 1)).map(Some)
            }
            Self::Protobuf(splitter) => {
                let frame = splitter.next_frame();
                let frame = frame.map_err(|error| anyhow::anyhow!("{error:?}"))?;
                frame.map(|it| protobuf_event(&it)).transpose()
            }
        }
    }
}

fn json_event(line: &[u8]) -> anyhow::Result<Event> {
    let event: Value = serde_json::from_slice(line)?;
    let (object, metadata) = (&event["object"], &event["object"]["metadata"]);
    let version = || -> anyhow::Result<u64> {
        let text = metadata["resourceVersion"].as_str();
        Ok(text.context("an event without a version")?.parse()?)
    };
    let name = metadata["name"].as_str().unwrap_or_default();
    let key = match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    };
    Ok(match event["type"].as_str() {
        Some("ADDED") => Event::Object("ADDED", key, version()?),
        Some("MODIFIED") => Event::Object("MODIFIED", key, version()?),
        Some("DELETED") => Event::Object("DELETED", key, version()?),
        Some("BOOKMARK") => {
            let end = &metadata["annotations"]["k8s.io/initial-events-end"];
            Event::Bookmark(version()?, end == "true")
        }
        Some("ERROR") => Event::Error(
            object["code"].as_u64().unwrap_or_default(),
            object["message"].as_str().unwrap_or_default().to_owned(),
        ),
        other => anyhow::bail!("an event of type {other:?}"),
    })
}

fn protobuf_event(frame: &[u8]) -> anyhow::Result<Event> {
    let event = decode::Event::decode(frame).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(match event {
        decode::Event::Object { change, object } => {
            let change = match change {
                Change::Added => "ADDED",
                Change::Modified => "MODIFIED",
                Change::Deleted => "DELETED",
            };
            Event::Object(change, object.key(), object.metadata.resource_version)
        }
        decode::Event::Bookmark {
            resource_version,
            initial_events_end,
        } => Event::Bookmark(resource_version, initial_events_end),
        decode::Event::Error(status) => Event::Error(status.code, status.message),
    })
}

pub(crate) fn empty() -> Payload {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(body: impl Into<Bytes>) -> Payload {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}
