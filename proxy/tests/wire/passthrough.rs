//! What the proxy does not answer itself, seen from both ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, mpsc},
};
use watershed_loadtest::apiserver::{Apiserver, Options, certs::Pki};

use crate::{
    client::{Answer, Client, PATIENCE, Payload, Protocol, empty, full},
    fixture::{Fixture, until},
    scripted::Scripted,
};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A body far larger than anything in between may hold, and a piece of it.
const BODY: u64 = 48 << 20;
const PIECE: usize = 64 << 10;

/// What all buffers between two ends may hold together when nobody reads: sockets, HTTP/2 windows.
const HELD_MAX: u64 = 24 << 20;

struct Real {
    apiserver: Apiserver,
    fixture: Fixture,
}

impl Real {
    async fn start() -> anyhow::Result<Self> {
        let apiserver = Apiserver::start(Options::default()).await?;
        let fixture = Fixture::start(&apiserver, |_| ()).await?;
        Ok(Self { apiserver, fixture })
    }

    fn admin(&self, protocol: Protocol) -> anyhow::Result<Client> {
        admin(self.apiserver.pki(), &self.fixture, protocol)
    }

    fn direct(&self, protocol: Protocol) -> anyhow::Result<Client> {
        let pki = self.apiserver.pki();
        let credential = pki.issue("admin", Some("system:masters"))?;
        let address = self.apiserver.addr();
        Client::new(address, pki.ca(), Some(&credential), protocol)
    }

    async fn stop(self) {
        self.fixture.stop().await;
        self.apiserver.shutdown().await;
    }
}

fn admin(pki: &Pki, fixture: &Fixture, protocol: Protocol) -> anyhow::Result<Client> {
    let credential = pki.issue("admin", Some("system:masters"))?;
    let address = fixture.proxy.address();
    Client::new(address, pki.ca(), Some(&credential), protocol)
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"key": value}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_subresources_are_done_by_the_apiserver() -> anyhow::Result<()> {
    let real = Real::start().await?;
    for (index, protocol) in PROTOCOLS.into_iter().enumerate() {
        let client = real.admin(protocol)?;
        let name = format!("written-{index}");
        let path = format!("{CONFIG_MAPS}/{name}");
        let created = client
            .write(Method::POST, CONFIG_MAPS, &config_map(&name, "one"))
            .await?;
        assert_eq!(created.status, StatusCode::CREATED, "{}", created.text());
        let again = client
            .write(Method::POST, CONFIG_MAPS, &config_map(&name, "one"))
            .await?;
        assert_eq!(again.status, StatusCode::CONFLICT);
        let put = client
            .write(Method::PUT, &path, &config_map(&name, "two"))
            .await?;
        assert_eq!(put.ok()?["data"]["key"], "two");
        let patch = json!({"data": {"key": "three"}});
        let patched = client.write(Method::PATCH, &path, &patch).await?;
        assert_eq!(patched.ok()?["data"]["key"], "three");
        assert_eq!(client.get(&path).await?.ok()?["data"]["key"], "three");
        let deleted = client.whole(client.request(Method::DELETE, &path).body(empty())?);
        assert_eq!(deleted.await?.status, StatusCode::OK);
        assert_eq!(client.get(&path).await?.status, StatusCode::NOT_FOUND);

        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        client
            .write(Method::POST, "/api/v1/nodes", &node)
            .await?
            .ok()?;
        let status = json!({"status": {"phase": "Running"}});
        let target = format!("/api/v1/nodes/{name}/status");
        let patched = client.write(Method::PATCH, &target, &status).await?;
        assert_eq!(patched.ok()?["status"]["phase"], "Running");
    }
    real.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kubectl_asks_besides_is_answered_byte_for_byte() -> anyhow::Result<()> {
    let real = Real::start().await?;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let plain = "application/json";
    let asked = [
        ("/api", plain),
        ("/apis", plain),
        ("/api", discovery),
        ("/apis", discovery),
        ("/api/v1", plain),
        ("/apis/apps/v1", plain),
        ("/version", plain),
        ("/openapi/v3", plain),
        ("/openapi/v3/api/v1", plain),
        ("/api/v1/namespaces", table),
        ("/api/v1/namespaces/default", table),
        ("/api/v1/namespaces", "application/yaml"),
        (
            "/api/v1/namespaces",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        ),
        ("/api/v1/no-such-things", plain),
        ("/no/such/path", plain),
    ];
    for protocol in PROTOCOLS {
        let (proxied, direct) = (real.admin(protocol)?, real.direct(protocol)?);
        for (target, accept) in asked {
            let get = async |client: &Client| -> anyhow::Result<Answer> {
                let mut request = client.request(Method::GET, target).body(empty())?;
                request.headers_mut().insert("accept", accept.parse()?);
                client.whole(request).await
            };
            // Before and after: a Table tells ages, and the clock goes on.
            let before = get(&direct).await?;
            let (ours, theirs) = (get(&proxied).await?, get(&direct).await?);
            assert_eq!(ours.status, theirs.status, "{target}");
            let is_theirs = [before.text(), theirs.text()].contains(&ours.text());
            assert!(is_theirs, "{target} as {accept}: {}", ours.text());
            let (ours, theirs) = (&ours.headers, &theirs.headers);
            assert_eq!(ours.get("content-type"), theirs.get("content-type"));
            assert_eq!(ours.get("etag"), theirs.get("etag"), "{target}");
        }
    }
    real.stop().await;
    Ok(())
}

/// A body of [`BODY`] bytes that counts what was taken of it.
fn counted(taken: &Arc<AtomicU64>) -> Payload {
    let taken = Arc::clone(taken);
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let pieces = stream::iter(0..BODY / PIECE as u64).map(move |_| {
        taken.fetch_add(PIECE as u64, Ordering::SeqCst);
        Ok(Frame::data(piece.clone()))
    });
    StreamBody::new(pieces).boxed_unsync()
}

async fn length(mut body: Incoming) -> u64 {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    length
}

/// Waits until a counter has stopped, and returns where.
async fn standstill(counter: &AtomicU64) -> u64 {
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(150)).await; // longer than a piece ever takes
        let now = counter.load(Ordering::SeqCst);
        if now > 0 && now == before {
            return now;
        }
        before = now;
    }
}

/// A proxy in front of a scripted apiserver.
async fn scripted<H, F>(handle: H) -> anyhow::Result<(Pki, Scripted, Fixture)>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Payload>> + Send + 'static,
{
    let pki = Pki::ephemeral()?;
    let upstream = Scripted::start(&pki, handle).await?;
    let fixture = Fixture::behind(&pki, upstream.address, |config| {
        // It knows no objects: the proxy asks nothing of its own.
        config.startup.authorizers.node = false;
    })
    .await?;
    Ok((pki, upstream, fixture))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_request_is_held_back_by_a_slow_apiserver() -> anyhow::Result<()> {
    let go = Arc::new(Notify::new());
    let reader = Arc::clone(&go);
    let (pki, _upstream, fixture) = scripted(move |request: Request<Incoming>| {
        let go = Arc::clone(&reader);
        async move {
            go.notified().await;
            let length = length(request.into_body()).await;
            Response::new(full(length.to_string()))
        }
    })
    .await?;
    for protocol in PROTOCOLS {
        let client = admin(&pki, &fixture, protocol)?;
        let taken = Arc::new(AtomicU64::new(0));
        let request = client
            .request(Method::POST, "/upload")
            .body(counted(&taken))?;
        let sent = client.whole(request);
        let watched = async {
            let held = tokio::time::timeout(PATIENCE, standstill(&taken)).await?;
            ensure!(held < HELD_MAX, "{held} bytes are held by nobody's reading");
            go.notify_one();
            anyhow::Ok(())
        };
        let (answer, held) = tokio::join!(sent, watched);
        held.with_context(|| format!("{protocol:?}"))?;
        assert_eq!(answer?.text(), BODY.to_string(), "{protocol:?}");
    }
    fixture.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_is_held_back_by_a_slow_client() -> anyhow::Result<()> {
    let taken = Arc::new(AtomicU64::new(0));
    let source = Arc::clone(&taken);
    let (pki, _upstream, fixture) = scripted(move |_| {
        let answer = Response::new(counted(&source));
        async move { answer }
    })
    .await?;
    for protocol in PROTOCOLS {
        taken.store(0, Ordering::SeqCst);
        let client = admin(&pki, &fixture, protocol)?;
        let request = client.request(Method::GET, "/download").body(empty())?;
        let mut open = client.send(request).await?;
        let held = tokio::time::timeout(PATIENCE, standstill(&taken)).await?;
        ensure!(held < HELD_MAX, "{protocol:?}: {held} bytes are held");
        let mut length = 0;
        while let Some(chunk) = open.chunk().await? {
            length += chunk.len() as u64;
        }
        assert_eq!(length, BODY, "{protocol:?}");
    }
    fixture.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_followed_arrives_line_by_line() -> anyhow::Result<()> {
    let (lines, source) = mpsc::channel::<&'static str>(1);
    let source = Arc::new(tokio::sync::Mutex::new(source));
    let (pki, _upstream, fixture) = scripted(move |_| {
        let source = Arc::clone(&source);
        let lines = stream::unfold(source, |source| async move {
            let line = source.lock().await.recv().await?;
            (line != "end").then(|| (Ok(Frame::data(Bytes::from_static(line.as_bytes()))), source))
        });
        async move { Response::new(StreamBody::new(lines).boxed_unsync()) }
    })
    .await?;
    for protocol in PROTOCOLS {
        let client = admin(&pki, &fixture, protocol)?;
        let target = "/api/v1/namespaces/default/pods/p/log?follow=true";
        let mut open = client
            .send(client.request(Method::GET, target).body(empty())?)
            .await?;
        for line in ["one\n", "two\n", "three\n"] {
            lines.send(line).await?;
            let seen = open.chunk().await?.context("it ended")?;
            assert_eq!(seen, line, "{protocol:?}");
        }
        lines.send("end").await?;
        assert_eq!(open.chunk().await?, None);
    }
    fixture.stop().await;
    Ok(())
}

/// Tells when the apiserver's side of a request is dropped.
struct Dropped(Arc<AtomicU64>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_cancels_its_request_at_the_apiserver() -> anyhow::Result<()> {
    let (begun, dropped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (begins, drops) = (Arc::clone(&begun), Arc::clone(&dropped));
    let (pki, _upstream, fixture) = scripted(move |request: Request<Incoming>| {
        let guard = Dropped(Arc::clone(&drops));
        begins.fetch_add(1, Ordering::SeqCst);
        async move {
            if request.uri().path() == "/silent" {
                std::future::pending::<()>().await;
            }
            let endless = stream::once(async { Ok(Frame::data(Bytes::from_static(b"begun"))) })
                .chain(stream::once(async move {
                    let _guard = guard;
                    std::future::pending().await
                }));
            Response::new(StreamBody::new(endless).boxed_unsync())
        }
    })
    .await?;
    let mut count = 0;
    for protocol in PROTOCOLS {
        for target in ["/silent", "/endless"] {
            let client = admin(&pki, &fixture, protocol)?;
            let request = client.request(Method::GET, target).body(empty())?;
            count += 1;
            let has_begun = || begun.load(Ordering::SeqCst) == count;
            if target == "/endless" {
                let mut open = client.send(request).await?;
                assert_eq!(open.chunk().await?.as_deref(), Some(&b"begun"[..]));
                drop(open);
            } else {
                tokio::select! {
                    answer = client.send(request) => {
                        anyhow::bail!("an answer {:?} from silence", answer?.status);
                    }
                    begun = until("it begins", has_begun) => begun?,
                }
            }
            let is_dropped = || dropped.load(Ordering::SeqCst) == count;
            let what = format!("{target} is cancelled over {protocol:?}");
            until(&what, is_dropped).await?;
        }
    }
    fixture.stop().await;
    Ok(())
}

/// A request to switch protocols.
fn upgrade(
    client: &Client,
    target: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<Request<Payload>> {
    let mut request = client.request(Method::GET, target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.header("connection", "Upgrade").body(empty())?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_is_a_tunnel() -> anyhow::Result<()> {
    let (pki, _upstream, fixture) = scripted(|mut request: Request<Incoming>| async move {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgraded.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            drop(tokio::io::copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        });
        let mut answer = Response::new(empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert("connection", http::HeaderValue::from_static("Upgrade"));
        headers.insert("upgrade", http::HeaderValue::from_static("SPDY/3.1"));
        let version = http::HeaderValue::from_static("v4.channel.k8s.io");
        headers.insert("x-stream-protocol-version", version);
        answer
    })
    .await?;
    let client = admin(&pki, &fixture, Protocol::Http1)?;
    let target = "/api/v1/namespaces/default/pods/p/exec?command=sh";
    let mut open = client
        .send(upgrade(&client, target, &[("upgrade", "SPDY/3.1")])?)
        .await?;
    assert_eq!(open.status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(open.headers["upgrade"], "SPDY/3.1");
    assert_eq!(
        open.headers["x-stream-protocol-version"],
        "v4.channel.k8s.io"
    );
    let upgraded = hyper::upgrade::on(&mut open.response).await?;
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut seen = Vec::new();
    let sending = async {
        write.write_all(&sent).await?;
        write.shutdown().await
    };
    let both = async { tokio::try_join!(sending, read.read_to_end(&mut seen)) };
    tokio::time::timeout(PATIENCE, both).await??;
    assert!(seen == sent, "{} of {} bytes", seen.len(), sent.len());
    fixture.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_watch_goes_through() -> anyhow::Result<()> {
    let real = Real::start().await?;
    let client = real.admin(Protocol::Http1)?;
    client
        .write(Method::POST, CONFIG_MAPS, &config_map("seen", "x"))
        .await?
        .ok()?;
    let event = first_over_websocket(&client, CONFIG_MAPS).await?;
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["metadata"]["name"], "seen");
    real.stop().await;
    Ok(())
}

/// The first event of a watch of `collection` over a WebSocket.
pub(crate) async fn first_over_websocket(
    client: &Client,
    collection: &str,
) -> anyhow::Result<Value> {
    let websocket = [
        ("upgrade", "websocket"),
        ("origin", "http://localhost"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let target = format!("{collection}?watch=1");
    let mut open = client.send(upgrade(client, &target, &websocket)?).await?;
    assert_eq!(open.status, StatusCode::SWITCHING_PROTOCOLS);
    let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; // RFC 6455 1.3, for the key above
    assert_eq!(open.headers["sec-websocket-accept"], accept);
    let upgraded = hyper::upgrade::on(&mut open.response).await?;
    let mut io = TokioIo::new(upgraded);
    let mut head = [0; 4];
    tokio::time::timeout(PATIENCE, io.read_exact(&mut head)).await??;
    // A whole text frame whose length takes two more bytes.
    assert_eq!(head[..2], [0x81, 126]);
    let mut frame = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    tokio::time::timeout(PATIENCE, io.read_exact(&mut frame)).await??;
    Ok(serde_json::from_slice(&frame)?)
}
