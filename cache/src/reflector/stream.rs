//! The events of one upstream watch body.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::Instant;

use crate::encoding::{Encoding, EventType, FrameSplitter, WatchEvent, decode_event};
use crate::object::Object;
use crate::resource::Resource;

use super::{ListerWatcher, Upstream, UpstreamError, WatchRequest};

/// Events that are published together, at most: about a tenth of a millisecond of work.
pub(super) const BATCH: usize = 32;

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
            if let Some(event) = self.buffered()? {
                tokio::task::coop::consume_budget().await;
                return Ok(event);
            }
            match tokio::time::timeout(self.silence_max, self.body.next()).await {
                Ok(Some(Ok(chunk))) => self.splitter.push(chunk),
                Ok(Some(Err(error))) => return Err(StreamEnd::Cut(error.to_string())),
                Ok(None) => return Err(self.finish()),
                Err(_elapsed) => return Err(StreamEnd::Cut("the stream fell silent".into())),
            }
        }
    }

    /// Waits for an object and adds it and those that came with it, up to [`BATCH`], to `objects`.
    /// What else came, or went wrong, is returned; it is after the objects.
    pub(super) async fn batch(
        &mut self,
        objects: &mut Vec<(EventType, Object)>,
    ) -> Result<Option<WatchEvent>, StreamEnd> {
        let mut event = self.next().await?;
        loop {
            match event {
                WatchEvent::Object { event_type, object } => objects.push((event_type, object)),
                WatchEvent::Bookmark { .. } | WatchEvent::Error(_) => return Ok(Some(event)),
            }
            if objects.len() == BATCH {
                return Ok(None);
            }
            match self.buffered()? {
                Some(next) => event = next,
                None => return Ok(None),
            }
        }
    }

    /// The next event that has arrived.
    fn buffered(&mut self) -> Result<Option<WatchEvent>, StreamEnd> {
        // Nearly every frame of JSON is a line; one that is not fails to decode as one.
        let decoded = self.splitter.line().and_then(|line| {
            let event = decode_event(self.encoding, &self.resource, line).ok()?;
            Some((event, line.len()))
        });
        if let Some((event, length)) = decoded {
            self.splitter.skip(length);
            self.events += 1;
            return Ok(Some(event));
        }
        let malformed = |error: &dyn std::fmt::Display| StreamEnd::Malformed(error.to_string());
        let frame = self.splitter.next_frame().map_err(|it| malformed(&it))?;
        let Some(frame) = frame else { return Ok(None) };
        let event = decode_event(self.encoding, &self.resource, &frame);
        let event = event.map_err(|it| malformed(&it))?;
        self.events += 1;
        Ok(Some(event))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod_json, pods};

    type Chunks = std::vec::IntoIter<Result<Bytes, UpstreamError>>;

    fn stream(text: &str, cut: usize) -> EventStream<futures_util::stream::Iter<Chunks>> {
        let chunks = text.as_bytes().chunks(cut);
        let chunks: Vec<_> = chunks
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        EventStream {
            body: futures_util::stream::iter(chunks),
            splitter: FrameSplitter::new(Encoding::Json, 1 << 20),
            encoding: Encoding::Json,
            resource: pods(),
            silence_max: Duration::from_secs(60),
            opened: Instant::now(),
            events: 0,
        }
    }

    fn added(number: u64) -> String {
        let object = pod_json(&format!("a/x{number}"), number);
        format!("{{\"type\":\"ADDED\",\"object\":{object}}}")
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_the_same_however_they_are_laid_out_and_cut() {
        let pretty = added(2).replace(":{", ":\n{").replace('}', "\n}");
        let across = added(3).replace("}}", "}\n}");
        let text = [
            &added(1),
            "\n",
            &pretty,
            "\r\n",
            &across,
            &added(4),
            "\n\n",
            &added(5),
        ];
        let text = text.concat();
        for cut in [1, 7, 100, text.len()] {
            let mut stream = stream(&text, cut);
            let mut objects = Vec::new();
            while stream.batch(&mut objects).await.is_ok() {}
            let versions: Vec<_> = objects
                .iter()
                .map(|(_, object)| object.resource_version().get())
                .collect();
            assert_eq!(versions, [1, 2, 3, 4, 5], "cut every {cut} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_bounded_and_ends_before_what_is_no_object() {
        let mut text: String = (1..=70).map(|number| added(number) + "\n").collect();
        text += "{\"type\":\"ERROR\",\"object\":{\"code\":410}}\n";
        let mut stream = stream(&text, text.len());
        let mut objects = Vec::new();
        for expected in [BATCH, BATCH, 70 - 2 * BATCH] {
            let came = stream.batch(&mut objects).await.unwrap();
            assert_eq!(objects.drain(..).len(), expected);
            assert_eq!(
                came.is_some(),
                expected < BATCH,
                "the error is after the last"
            );
        }
    }
}
