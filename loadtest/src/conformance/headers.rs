//! What stands around a body: identifiers, warnings, what is ignored, and WebSockets.

use anyhow::{Context as _, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::Cluster;
use super::cluster::config_maps;
use super::scene::{begin, decoded, enveloped, version, watching};
use crate::client::{Answer, Event, JSON, Open, PATIENCE, PROTOBUF, Request};

/// 130: an answer carries the Audit-Id of its request, or one of its own.
pub async fn an_answer_carries_the_audit_id_of_its_request(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    cluster.config_map(&namespace, "x").await?;
    for target in [
        collection.clone(),
        format!("{collection}/x"),
        format!("{collection}/nope"),
        format!("{collection}?watch=1&timeoutSeconds=1"),
        format!("{collection}?limit=abc"),
    ] {
        let request = Request::get(&target).header("audit-id", "abc");
        let answer = cluster.admin().whole(request).await?;
        ensure!(
            answer.header("audit-id") == "abc",
            "{target}: {:?}",
            answer.headers
        );
        let answer = cluster.admin().get(&target).await?;
        let own = answer.header("audit-id");
        let is_uuid = own.len() == 36 && own.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
        ensure!(is_uuid, "{target}: {:?}", answer.headers);
    }
    Ok(())
}

/// 131: there are no conditions, no entity tags and no ranges.
pub async fn a_conditional_request_is_answered_as_any_other(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    cluster.config_map(&namespace, "x").await?;
    for target in [collection.clone(), format!("{collection}/x")] {
        let plain = cluster.admin().get(&target).await?.json()?;
        for (name, value) in [
            ("if-none-match", "*"),
            ("if-none-match", "\"x\""),
            ("if-match", "\"x\""),
            ("if-modified-since", "Sat, 21 Nov 2026 00:00:00 GMT"),
            ("range", "bytes=0-9"),
        ] {
            let request = Request::get(&target).header(name, value);
            let answer: Answer = cluster.admin().whole(request).await?;
            ensure!(answer.status == 200, "{name}: {}", answer.status);
            ensure!(
                answer.headers.get("etag").is_none(),
                "{name}: {:?}",
                answer.headers
            );
            let body = answer.json()?;
            ensure!(body["items"] == plain["items"] && body["data"] == plain["data"]);
            ensure!(body["kind"] == plain["kind"]);
        }
    }
    Ok(())
}

/// 132: what is deprecated says so in every answer about it.
pub async fn a_deprecated_resource_warns_in_every_answer(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = format!("/api/v1/namespaces/{namespace}/endpoints");
    let body = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"},
        "subsets": [{"addresses": [{"ip": "10.9.9.9"}], "ports": [{"port": 80}]}]});
    cluster.create(&collection, &body).await?;
    let warning = concat!(
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 ",
        "EndpointSlice\""
    );
    let is_warned = |headers: &http::HeaderMap| headers.get_all("warning").iter().eq([warning]);
    for accept in [JSON, PROTOBUF] {
        for target in [collection.clone(), format!("{collection}/e")] {
            let request = Request::get(&target).header("accept", accept);
            let answer = cluster.admin().whole(request).await?;
            ensure!(
                answer.status == 200 && is_warned(&answer.headers),
                "{target}: {answer:?}"
            );
        }
        let watch = cluster
            .admin()
            .watch(watching(&collection, "", accept))
            .await?;
        ensure!(is_warned(watch.headers()), "{:?}", watch.headers());
    }
    let answer = cluster.admin().get(&config_maps(&namespace)).await?;
    ensure!(
        answer.headers.get("warning").is_none(),
        "{:?}",
        answer.headers
    );
    Ok(())
}

/// A request to go on as a WebSocket; the key and its answer are those of RFC 6455 1.3.
fn upgrade(target: &str, accept: &str) -> Request {
    Request::get(target)
        .header("accept", accept)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// The messages of a WebSocket.
struct Messages {
    io: TokioIo<Upgraded>,
    buffer: BytesMut,
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;

impl Messages {
    async fn begin(open: Open) -> anyhow::Result<Self> {
        let (status, headers) = (open.status(), open.headers());
        ensure!(status == 101, "{status}: {headers:?}");
        let accept = headers.get("sec-websocket-accept").context("no accept")?;
        ensure!(accept == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "{accept:?}");
        Ok(Self {
            io: TokioIo::new(hyper::upgrade::on(open.response).await?),
            buffer: BytesMut::new(),
        })
    }

    /// The opcode and payload of the next message, which comes in one frame.
    async fn next(&mut self) -> anyhow::Result<(u8, Bytes)> {
        loop {
            if let Some(message) = self.cut() {
                return message;
            }
            let read = timeout(PATIENCE, self.io.read_buf(&mut self.buffer)).await;
            ensure!(read.context("no message in time")?? > 0, "the tunnel ended");
        }
    }

    fn cut(&mut self) -> Option<anyhow::Result<(u8, Bytes)>> {
        let head = *self.buffer.first_chunk::<2>()?;
        let (skip, length) = match head[1] {
            126 => {
                let length = self.buffer.get(2..4)?;
                (4, u16::from_be_bytes([length[0], length[1]]).into())
            }
            127.. => return Some(Err(anyhow::anyhow!("masked or too long: {head:?}"))),
            short => (2, usize::from(short)),
        };
        if self.buffer.len() < skip + length {
            return None;
        }
        self.buffer.advance(skip);
        let payload = self.buffer.split_to(length).freeze();
        let is_whole = head[0] & 0x80 != 0;
        Some(if is_whole {
            Ok((head[0] & 0x0f, payload))
        } else {
            Err(anyhow::anyhow!("a fragment: {head:?}"))
        })
    }
}

/// 133: a watch over a WebSocket is a message per event, in text for JSON and in binary for
/// protobuf, which then has no length before it.
pub async fn a_websocket_carries_an_event_a_message(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let from = begin(cluster, &collection).await?;
    let stored = cluster.config_map(&namespace, "x").await?;
    let target = format!("{collection}?watch=1&resourceVersion={from}");
    let origin = "http://localhost";
    let request = upgrade(&target, JSON).header("origin", origin);
    let mut text = Messages::begin(cluster.admin().send(request).await?).await?;
    let request = upgrade(&target, PROTOBUF).header("origin", origin);
    let mut binary = Messages::begin(cluster.admin().send(request).await?).await?;
    let change = json!({"data": {"k": "v"}});
    let changed = cluster
        .change("PATCH", &format!("{collection}/x"), &change)
        .await?;
    for (kind, object) in [("ADDED", &stored), ("MODIFIED", &changed)] {
        let (opcode, payload) = text.next().await?;
        let expected = json!({"type": kind, "object": object});
        ensure!(
            opcode == TEXT && payload.ends_with(b"}\n"),
            "{opcode} {payload:?}"
        );
        ensure!(
            serde_json::from_slice::<Value>(&payload)? == expected,
            "{payload:?}"
        );
        let (opcode, payload) = binary.next().await?;
        let event = framed(kind, &payload, version(object)?);
        ensure!(
            opcode == BINARY && decoded(enveloped(&event)?)? == *object,
            "{payload:?}"
        );
    }
    Ok(())
}

/// The event of a message, with a length before it as on other streams.
fn framed(kind: &str, payload: &[u8], version: u64) -> Event {
    Event {
        kind: kind.to_owned(),
        key: String::new(),
        version,
        ends_initial_events: false,
        raw: [&[0; 4], payload].concat().into(),
        at: std::time::Duration::ZERO,
    }
}

/// 133: a WebSocket needs an origin, and is offered at most one protocol, which is named in the
/// answer.
pub async fn a_websocket_needs_an_origin_and_at_most_one_protocol(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let target = format!("{}?watch=1", config_maps(&namespace));
    let answer = cluster.admin().whole(upgrade(&target, JSON)).await?;
    ensure!(answer.status == 403 && answer.body.is_empty(), "{answer:?}");
    let request = upgrade(&target, JSON).header("origin", "http://localhost");
    let two = request.clone().header("sec-websocket-protocol", "one, two");
    let answer = cluster.admin().whole(two).await?;
    ensure!(answer.status == 400 && answer.body.is_empty(), "{answer:?}");
    let one = request.header("sec-websocket-protocol", "one");
    let open = cluster.admin().send(one).await?;
    let protocol = open.headers().get("sec-websocket-protocol");
    ensure!(
        open.status() == 101 && protocol.is_some_and(|own| own == "one"),
        "{open:?}"
    );
    Ok(())
}
