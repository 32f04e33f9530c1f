//! A client that trusts nobody: every byte of an answer and of a watch is looked at.
//!
//! Owns one HTTP/2 connection, which ends with it, or gives out the bare TLS stream. Every wait has an end: a peer that does not
//! answer fails the test and does not hang it.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;
use watershed_loadtest::apiserver::{
    Apiserver,
    certs::{Credential, Pki},
};

use crate::fixture::ask_admin;

pub(crate) const JSON: &str = "application/json";
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub(crate) const HTTP1: &[u8] = b"http/1.1";
pub(crate) const HTTP2: &[u8] = b"h2";

/// Longer than anything here takes, the longest pause between two attempts included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Largest body that is read.
const BODY_BYTES: usize = 64 << 20;

/// Who connects: whose server certificate is believed, and which certificate is shown.
#[derive(Clone)]
pub(crate) struct Caller {
    ca: String,
    credential: Option<Credential>,
}

impl Caller {
    /// A member of `system:masters`.
    pub(crate) fn admin(pki: &Pki) -> anyhow::Result<Self> {
        Ok(Self::of(pki, pki.issue("admin", Some("system:masters"))?))
    }

    /// The holder of `credential`.
    pub(crate) fn of(pki: &Pki, credential: Credential) -> Self {
        Self {
            ca: pki.ca().to_owned(),
            credential: Some(credential),
        }
    }

    /// The same, believing the servers of another authority.
    pub(crate) fn trusting(&self, ca: &str) -> Self {
        Self {
            ca: ca.to_owned(),
            ..self.clone()
        }
    }

    /// A TLS stream with this ALPN protocol.
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        alpn: &[u8],
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.credential {
            Some(own) => {
                // Nothing asks whether both fit, or whether the certificate is one.
                let key = own.private_key()?;
                let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
                let own = rustls::sign::CertifiedKey::new(own.chain()?, key);
                let own = rustls::sign::SingleCertAndKey::from(own);
                builder.with_client_cert_resolver(Arc::new(own))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let socket = in_time(TcpStream::connect(address))
            .await?
            .context("connect")?;
        socket.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, socket);
        in_time(handshake).await?.context("TLS handshake")
    }
}

/// `future`, or an error when it takes too long.
pub(crate) async fn in_time<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.context("it takes too long")
}

/// Waits until `reached` says so.
pub(crate) async fn until(what: &str, mut reached: impl FnMut() -> bool) -> anyhow::Result<()> {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(waiting).await.with_context(|| what.to_owned())
}

/// One HTTP/2 connection.
pub(crate) struct Client {
    sender: http2::SendRequest<Full<Bytes>>,
    /// The server's certificate, DER.
    pub(crate) server: Vec<u8>,
    _driver: AbortOnDropHandle<()>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, caller: &Caller) -> anyhow::Result<Self> {
        let stream = caller.dial(address, HTTP2).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let server = certificates.context("a server certificate")?[0].to_vec();
        let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
        let (sender, connection) = in_time(handshake).await??;
        // A broken connection shows as an error of its request or body.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            server,
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    /// The answer's head, and its body as it comes.
    pub(crate) async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let request = request.body(Full::new(body.into()))?;
        let path = request.uri().to_string();
        let answer = in_time(self.sender.clone().send_request(request)).await;
        answer.and_then(|it| Ok(it?)).context(path)
    }

    /// A GET and its whole answer.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> anyhow::Result<Answer> {
        let request = Request::get(url(path)).header(header::ACCEPT, accept);
        Answer::read(self.send(request, "").await?).await
    }

    /// Opens a watch, which must be granted.
    pub(crate) async fn watch(&self, path: &str, accept: &str) -> anyhow::Result<Watch> {
        let request = Request::get(url(path)).header(header::ACCEPT, accept);
        let answer = self.send(request, "").await?;
        if answer.status() != StatusCode::OK {
            let answer = Answer::read(answer).await?;
            anyhow::bail!("{path} was refused: {answer:?}");
        }
        Ok(Watch {
            body: answer.into_body(),
            buffer: Vec::new(),
            protobuf: accept == PROTOBUF,
        })
    }
}

/// What a path is asked as; the authority is of no interest.
pub(crate) fn url(path: &str) -> String {
    format!("https://127.0.0.1{path}")
}

impl Answer {
    pub(crate) async fn read(answer: http::Response<Incoming>) -> anyhow::Result<Self> {
        let (parts, body) = answer.into_parts();
        let body = in_time(Limited::new(body, BODY_BYTES).collect()).await?;
        let body = body.map_err(|error| anyhow::anyhow!("the body broke: {error}"))?;
        Ok(Self {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }
}

/// An open watch.
pub(crate) struct Watch {
    body: Incoming,
    buffer: Vec<u8>,
    protobuf: bool,
}

/// What matters of an event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) version: u64,
}

impl Watch {
    /// The next event that is no bookmark; `None` at a clean end.
    ///
    /// # Errors
    /// When the body breaks off, within a frame or not.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(frame) = self.frame() {
                let event = if self.protobuf {
                    Event::protobuf(&frame)
                } else {
                    Event::json(&frame)
                };
                let event = event.with_context(|| frame.escape_ascii().to_string())?;
                if event.kind != "BOOKMARK" {
                    return Ok(Some(event));
                }
                continue;
            }
            match in_time(self.body.frame()).await? {
                None => {
                    ensure!(self.buffer.is_empty(), "the watch ended within a frame");
                    return Ok(None);
                }
                Some(frame) => {
                    let data = frame?.into_data().unwrap_or_default();
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
    }

    /// The next whole frame of what has come.
    fn frame(&mut self) -> Option<Vec<u8>> {
        if self.protobuf {
            let length = u32::from_be_bytes(self.buffer.get(..4)?.try_into().ok()?) as usize;
            self.buffer.get(..4 + length)?;
            return self
                .buffer
                .drain(..4 + length)
                .skip(4)
                .collect::<Vec<_>>()
                .into();
        }
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        Some(self.buffer.drain(..=end).collect())
    }

    /// Asserts that the next event is about an object of this name.
    pub(crate) async fn expect(&mut self, kind: &str, name: &str) -> anyhow::Result<()> {
        let event = self.next().await?.context("the watch ended")?;
        ensure!(
            event.kind == kind && event.name == name,
            "{kind} {name}: {event:?}"
        );
        Ok(())
    }

    /// Asserts that nothing comes for a while.
    pub(crate) async fn expect_silence(&mut self) -> anyhow::Result<()> {
        let next = tokio::time::timeout(Duration::from_millis(150), self.next()).await;
        ensure!(next.is_err(), "the watch was not silent: {next:?}");
        Ok(())
    }
}

impl Event {
    fn json(frame: &[u8]) -> Option<Self> {
        let event: Value = serde_json::from_slice(frame).ok()?;
        let metadata = &event["object"]["metadata"];
        let version = metadata["resourceVersion"].as_str().unwrap_or("0");
        Some(Self {
            kind: event["type"].as_str()?.to_owned(),
            name: metadata["name"].as_str().unwrap_or_default().to_owned(),
            version: version.parse().ok()?,
        })
    }

    /// `WatchEvent` {1 type, 2 object {1 raw}}, raw = `k8s\0` `Unknown` {2 raw}, in it metadata 1 {1
    /// name, 6 resourceVersion}.
    fn protobuf(frame: &[u8]) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let raw = field(field(frame, 2)?, 1)?.strip_prefix(b"k8s\0")?;
        let metadata = field(field(raw, 2)?, 1)?;
        Some(Self {
            kind: text(field(frame, 1)?)?,
            name: text(field(metadata, 1).unwrap_or_default())?,
            version: text(field(metadata, 6)?)?.parse().ok()?,
        })
    }
}

/// The first field of this number in a message whose fields before it are all bytes.
fn field(mut message: &[u8], number: u8) -> Option<&[u8]> {
    loop {
        let (tag, rest) = message.split_first()?;
        let (mut length, mut at) = (0, 0);
        loop {
            let byte = rest.get(at)?;
            length |= usize::from(byte & 0x7f) << (7 * at);
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let value = rest.get(at..at + length)?;
        if *tag == number << 3 | 2 {
            return Some(value);
        }
        message = &rest[at + length..];
    }
}

/// Writes an object with some data into the store of `apiserver`, as new or in place of an older
/// one, and returns its resource version.
pub(crate) fn write(apiserver: &Apiserver, resource: &str, name: &str, data: &str) -> u64 {
    let resource = apiserver.registry().find("", "v1", resource).unwrap();
    let object = json!({
        "apiVersion": "v1",
        "kind": resource.kind,
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": "6bd4a3d8-0f0b-4b5e-9d6c-2f4c6a1f9a10",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"data": data},
        },
    });
    apiserver.store().load(&resource, object).resource_version
}

/// The value of the metric whose line begins with `name`, labels included; 0 when there is none.
pub(crate) async fn metric(address: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let (_, text) = ask_admin(address, "/metrics").await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.map_or(Ok(0.0), |value| value.trim().parse())?)
}
