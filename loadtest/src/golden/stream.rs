//! The frames of one running watch.
//!
//! Cuts the body into lines (JSON) or length-prefixed messages (protobuf) by its media type, and
//! tells a plain bookmark from the events that must match.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use crate::client::Open;

/// What a watch did next.
#[derive(Debug)]
pub(super) enum Next {
    /// A whole frame, with its newline or length.
    Frame(Bytes),
    /// The stream ended.
    Ended,
    /// Nothing came until the deadline.
    Quiet,
}

#[derive(Debug)]
pub(super) struct WatchStream {
    open: Open,
    is_protobuf: bool,
    buffer: BytesMut,
    ended: bool,
    /// The largest resource version of an object event so far.
    pub(super) newest: u64,
    /// The request's `timeoutSeconds`.
    pub(super) timeout: Option<Duration>,
}

impl WatchStream {
    pub(super) fn new(open: Open, path: &str) -> Self {
        let content_type = open.headers().get(http::header::CONTENT_TYPE);
        let is_protobuf =
            content_type.is_some_and(|own| own.as_bytes().starts_with(b"application/vnd"));
        let timeout = path
            .split(['?', '&'])
            .find_map(|pair| pair.strip_prefix("timeoutSeconds="));
        let timeout = timeout
            .and_then(|text| text.parse().ok())
            .map(Duration::from_secs);
        Self {
            open,
            is_protobuf,
            buffer: BytesMut::new(),
            ended: false,
            newest: 0,
            timeout,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.open.started().elapsed()
    }

    pub(super) fn started(&self) -> Instant {
        self.open.started()
    }

    pub(super) async fn next(&mut self, deadline: Instant) -> Next {
        loop {
            if let Some(frame) = self.cut() {
                return Next::Frame(frame);
            }
            if self.ended {
                return Next::Ended;
            }
            match timeout_at(deadline, self.open.chunk()).await {
                Err(_) => return Next::Quiet,
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(Ok(None) | Err(_)) => self.ended = true,
            }
        }
    }

    /// The bytes of an unfinished frame.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer
    }

    fn cut(&mut self) -> Option<Bytes> {
        let length = if self.is_protobuf {
            let prefix = self.buffer.first_chunk::<4>()?;
            4 + u32::from_be_bytes(*prefix) as usize
        } else {
            self.buffer.iter().position(|byte| *byte == b'\n')? + 1
        };
        (self.buffer.remaining() >= length).then(|| self.buffer.split_to(length).freeze())
    }
}

/// Whether a frame is a bookmark that depends on timing: not the end of initial events.
pub(super) fn is_plain_bookmark(frame: &[u8]) -> bool {
    let has = |needle: &[u8]| frame.windows(needle.len()).any(|window| window == needle);
    let json = frame.starts_with(b"{\"type\":\"BOOKMARK\"");
    let protobuf = frame
        .get(4..)
        .is_some_and(|event| event.starts_with(b"\x0a\x08BOOKMARK"));
    (json || protobuf) && !has(b"k8s.io/initial-events-end")
}
