//! A running watch, cut into events by its media type.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::time::timeout;

use super::Open;
use crate::kubelet::decode::{self, Change};

/// Longest accepted frame, in bytes: above any object.
const FRAME_MAX: usize = 64 << 20;

/// An open watch.
#[derive(Debug)]
pub struct Watch {
    target: String,
    open: Open,
    is_protobuf: bool,
    buffer: BytesMut,
}

/// An event of a watch, whatever its encoding.
#[derive(Clone, Debug)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub kind: String,
    /// The object's `namespace/name`, or its name where it has no namespace.
    pub key: String,
    /// The object's resource version; 0 in an ERROR.
    pub version: u64,
    /// Whether it is the BOOKMARK that ends the initial events.
    pub ends_initial_events: bool,
    /// The frame as it came: a line with its newline, or a message with its length.
    pub raw: Bytes,
    /// From sending the request until the frame was complete.
    pub at: Duration,
}

impl Event {
    /// The event in a JSON frame.
    ///
    /// # Errors
    /// When the frame is no JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.raw).with_context(|| self.raw.escape_ascii().to_string())
    }

    /// The object of a JSON frame.
    ///
    /// # Errors
    /// When the frame is no JSON.
    pub fn object(&self) -> anyhow::Result<Value> {
        Ok(self.json()?["object"].take())
    }
}

impl Watch {
    pub(super) fn new(target: String, open: Open) -> Self {
        let content_type = open.headers().get(http::header::CONTENT_TYPE);
        let is_protobuf =
            content_type.is_some_and(|own| own.as_bytes().starts_with(super::PROTOBUF.as_bytes()));
        Self {
            target,
            open,
            is_protobuf,
            buffer: BytesMut::new(),
        }
    }

    /// The head of the answer.
    pub fn headers(&self) -> &http::HeaderMap {
        self.open.headers()
    }

    /// Since the request was sent.
    pub fn elapsed(&self) -> Duration {
        self.open.started().elapsed()
    }

    /// The next event; `None` is a clean end.
    ///
    /// # Errors
    /// When the stream breaks off, ends within a frame, is malformed, or nothing comes in time.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(frame) = self.cut()? {
                return self.event(frame).map(Some);
            }
            let chunk = self.open.chunk().await;
            match chunk.with_context(|| self.target.clone())? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => {
                    let rest = self.buffer.escape_ascii();
                    ensure!(
                        self.buffer.is_empty(),
                        "{}: half an event: {rest}",
                        self.target
                    );
                    return Ok(None);
                }
            }
        }
    }

    /// The next event; an end is an error.
    ///
    /// # Errors
    /// As [`Watch::next`], and when the stream ends.
    pub async fn event_now(&mut self) -> anyhow::Result<Event> {
        let next = self.next().await?;
        next.with_context(|| format!("{} ended", self.target))
    }

    /// The next event that is no bookmark; an end is an error.
    ///
    /// # Errors
    /// As [`Watch::next`], and when the stream ends.
    pub async fn change(&mut self) -> anyhow::Result<Event> {
        loop {
            let event = self.event_now().await?;
            if event.kind != "BOOKMARK" {
                return Ok(event);
            }
        }
    }

    /// Nothing but plain bookmarks came for so long.
    ///
    /// # Errors
    /// When something did, or the stream ended.
    pub async fn is_silent_for(&mut self, time: Duration) -> anyhow::Result<()> {
        match timeout(time, self.change()).await {
            Err(_) => Ok(()),
            Ok(next) => anyhow::bail!("{} is not silent: {next:?}", self.target),
        }
    }

    fn cut(&mut self) -> anyhow::Result<Option<Bytes>> {
        let length = if self.is_protobuf {
            let prefix = self.buffer.first_chunk::<4>();
            prefix.map(|own| 4 + u32::from_be_bytes(*own) as usize)
        } else {
            let end = self.buffer.iter().position(|byte| *byte == b'\n');
            end.map(|own| own + 1)
        };
        ensure!(
            length.unwrap_or(self.buffer.len()) <= FRAME_MAX,
            "no such frame"
        );
        let length = length.filter(|length| *length <= self.buffer.len());
        Ok(length.map(|length| self.buffer.split_to(length).freeze()))
    }

    fn event(&self, raw: Bytes) -> anyhow::Result<Event> {
        let at = self.elapsed();
        let event = match raw.get(4..).filter(|_| self.is_protobuf) {
            Some(message) => protobuf(message),
            None => json(&raw),
        };
        let event = event.with_context(|| raw.escape_ascii().to_string())?;
        Ok(Event { raw, at, ..event })
    }
}

fn event(kind: &str) -> Event {
    Event {
        kind: kind.to_owned(),
        key: String::new(),
        version: 0,
        ends_initial_events: false,
        raw: Bytes::new(),
        at: Duration::ZERO,
    }
}

fn json(line: &[u8]) -> anyhow::Result<Event> {
    let whole: Value = serde_json::from_slice(line)?;
    let kind = whole["type"].as_str().context("an event without a type")?;
    if kind == "ERROR" {
        return Ok(event(kind));
    }
    let metadata = &whole["object"]["metadata"];
    let version = metadata["resourceVersion"].as_str();
    let name = metadata["name"].as_str().unwrap_or_default();
    Ok(Event {
        key: match metadata["namespace"].as_str() {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        },
        version: version.context("an event without a version")?.parse()?,
        ends_initial_events: metadata["annotations"]["k8s.io/initial-events-end"] == "true",
        ..event(kind)
    })
}

fn protobuf(message: &[u8]) -> anyhow::Result<Event> {
    let malformed = |_| anyhow::anyhow!("malformed protobuf");
    Ok(match decode::Event::decode(message).map_err(malformed)? {
        decode::Event::Object { change, object } => Event {
            key: object.key(),
            version: object.metadata.resource_version,
            ..event(match change {
                Change::Added => "ADDED",
                Change::Modified => "MODIFIED",
                Change::Deleted => "DELETED",
            })
        },
        decode::Event::Bookmark {
            resource_version,
            initial_events_end,
        } => Event {
            version: resource_version,
            ends_initial_events: initial_events_end,
            ..event("BOOKMARK")
        },
        decode::Event::Error(_) => event("ERROR"),
    })
}
