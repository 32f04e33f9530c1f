//! The events of one upstream watch body.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::Instant;

use crate::encoding::{Encoding, FrameSplitter, WatchEvent, decode_event};
use crate::resource::Resource;

use super::{ListerWatcher, Upstream, UpstreamError, WatchRequest};

/// Cuts a body into events. Nothing is applied in part: an event comes out whole or not at all.
#[derive(Debug)]
pub(super) struct EventStream<B> {
    body: B,
    splitter: FrameSplitter,
    encoding: Encoding,
    resource: Arc<Resource>,
    silence_max: Duration,
    opened: Instant,
    events: u64,
}

/// Why no more events come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The server ended it between two frames.
    Clean,
    /// It broke, inside a frame or not, or fell silent.
    Cut(String),
    /// It carried something that makes no sense.
    Malformed(String),
}

impl<B: Stream<Item = Result<Bytes, UpstreamError>> + Unpin> EventStream<B> {
    /// The next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<WatchEvent, StreamEnd> {
        loop {
            match self.splitter.next_frame() {
                Ok(Some(frame)) => {
                    tokio::task::coop::consume_budget().await;
                    let event = decode_event(self.encoding, &self.resource, &frame)
                        .map_err(|error| StreamEnd::Malformed(error.to_string()))?;
                    self.events += 1;
                    return Ok(event);
                }
                Ok(None) => {}
                Err(error) => return Err(StreamEnd::Malformed(error.to_string())),
            }
            match tokio::time::timeout(self.silence_max, self.body.next()).await {
                Ok(Some(Ok(chunk))) => self.splitter.push(chunk),
                Ok(Some(Err(error))) => return Err(StreamEnd::Cut(error.to_string())),
                Ok(None) => return Err(self.finish()),
                Err(_elapsed) => return Err(StreamEnd::Cut("the stream fell silent".into())),
            }
        }
    }

    fn finish(&mut self) -> StreamEnd {
        let empty = FrameSplitter::new(self.encoding, 0);
        match std::mem::replace(&mut self.splitter, empty).finish() {
            Ok(()) => StreamEnd::Clean,
            Err(error) => StreamEnd::Cut(error.to_string()),
        }
    }

    /// Whether it ended so soon and so empty that opening it again at once would be a busy loop.
    pub(super) fn was_futile(&self) -> bool {
        self.events == 0 && self.opened.elapsed() < Duration::from_secs(1)
    }
}

impl<L: ListerWatcher> Upstream<'_, L> {
    /// Opens a watch.
    pub(super) async fn open(
        &self,
        request: WatchRequest,
    ) -> Result<EventStream<L::Body>, UpstreamError> {
        let opening = self.lister_watcher.watch(request);
        let body = tokio::time::timeout(self.options.request_timeout, opening)
            .await
            .map_err(|_elapsed| UpstreamError::Transport("no answer to the watch".into()))??;
        Ok(EventStream {
            body,
            splitter: FrameSplitter::new(self.shared.encoding, self.options.frame_max),
            encoding: self.shared.encoding,
            resource: Arc::clone(&self.shared.resource),
            silence_max: self.options.silence_max,
            opened: Instant::now(),
            events: 0,
        })
    }
}
