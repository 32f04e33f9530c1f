//! The one body type of the proxy, for requests it sends and responses it gives.
//!
//! Owns: the enum of everything a body can be, so that hot variants are not dispatched through a
//! table. What is large is boxed: a connection keeps room for the enum for every open watch.
//! Refuses: to buffer. A variant hands on what its source has ready and is asked again.
//! Invariant: a body that ends with an error is cut on the wire (RST_STREAM, or a chunked body
//! without its last chunk), never completed, so a client cannot take a part for the whole.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::{
    callers::Place,
    serve::{Sending, WatchBody},
    upstream::ResponseBody,
};

/// A request or response body.
#[derive(Default)]
pub(crate) enum Body {
    /// No bytes.
    #[default]
    Empty,
    /// Bytes known in full; `None` once they were taken.
    Full(Option<Bytes>),
    /// What an apiserver sends, streamed through, trailers included.
    Upstream(Box<ResponseBody>, Kept),
    /// What a client sends, streamed through, trailers included.
    Client(Incoming),
    /// A long object or a list from the cache.
    Long(Box<Sending>, Kept),
    /// A watch from the cache.
    Watch(Box<WatchBody>, Kept),
    /// Any other source; for what is not hot.
    Stream(
        Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>,
        Kept,
    ),
}

/// The caller's place among those with something under way, for as long as the body lasts.
type Kept = Option<Place>;

/// Bytes of a body known in full that count as sent once they are given to the connection; a longer
/// one keeps its place until they are written.
const SENT_AT_ONCE: usize = 64 << 10;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The peer that sends it went away or broke the protocol.
    #[error("the sender of the body failed: {0}")]
    Sender(#[from] hyper::Error),
    /// A body that has to be held whole was longer than its limit.
    #[error("the body is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Its client did not take it in time.
    #[error("the time for the answer is over")]
    Late,
    /// The work of writing it was lost.
    #[error("the body could not be written")]
    Lost,
}

impl Body {
    /// A body of exactly these bytes.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()))
    }

    /// A body from any source of bytes.
    pub(crate) fn stream<S>(source: S) -> Self
    where
        S: Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
    {
        Self::Stream(Box::pin(source), None)
    }

    /// The same body, which gives `place` back at its end.
    pub(crate) fn keep(mut self, place: Option<Place>) -> Self {
        match &mut self {
            Self::Empty | Self::Client(_) | Self::Full(None) => {}
            Self::Full(Some(bytes)) => {
                if let Some(place) = place.filter(|_| bytes.len() > SENT_AT_ONCE) {
                    let bytes = std::mem::take(bytes);
                    return Self::full(Bytes::from_owner(Lasting(bytes, place)));
                }
            }
            Self::Upstream(_, kept)
            | Self::Long(_, kept)
            | Self::Watch(_, kept)
            | Self::Stream(_, kept) => *kept = place,
        }
        self
    }

    /// The same body again, when it is known in full: what a retry may send.
    pub(crate) fn replay(&self) -> Option<Self> {
        match self {
            Self::Empty | Self::Full(None) => Some(Self::Empty),
            Self::Full(Some(bytes)) => Some(Self::Full(Some(bytes.clone()))),
            Self::Upstream(..)
            | Self::Client(_)
            | Self::Long(..)
            | Self::Watch(..)
            | Self::Stream(..) => None,
        }
    }
}

/// Bytes with a place that is given back when the last of them is let go.
struct Lasting(
    Bytes,
    #[expect(dead_code, reason = "it is held to be dropped")] Place,
);

impl AsRef<[u8]> for Lasting {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Incoming> for Body {
    fn from(body: Incoming) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::Client(body)
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(
                bytes
                    .take()
                    .filter(|it| !it.is_empty())
                    .map(|it| Ok(Frame::data(it))),
            ),
            Self::Upstream(body, _) => Pin::new(&mut **body).poll_frame(context),
            Self::Client(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(BodyError::Sender),
            Self::Long(sending, _) => sending
                .poll_piece(context)
                .map(|piece| piece.map(|it| it.map(Frame::data))),
            Self::Watch(watch, _) => watch
                .poll_frames(context)
                .map(|frames| frames.map(|it| Ok(Frame::data(it)))),
            Self::Stream(source, _) => source
                .as_mut()
                .poll_next(context)
                .map(|item| item.map(|it| it.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Upstream(body, _) => body.is_end_stream(),
            Self::Client(body) => body.is_end_stream(),
            Self::Long(sending, _) => sending.is_over(),
            Self::Watch(..) | Self::Stream(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Upstream(body, _) => body.size_hint(),
            Self::Client(body) => body.size_hint(),
            Self::Long(..) | Self::Watch(..) | Self::Stream(..) => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Upstream(..) => "Upstream",
            Self::Client(_) => "Client",
            Self::Long(..) => "Long",
            Self::Watch(..) => "Watch",
            Self::Stream(..) => "Stream",
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_full_body_gives_its_bytes_once_and_knows_its_length() {
        let body = Body::full("abc");
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        assert_eq!(body.collect().await.expect("cannot fail").to_bytes(), "abc");
        assert!(Body::full("").is_end_stream());
        assert!(Body::Empty.is_end_stream());
    }

    #[tokio::test]
    async fn a_stream_that_fails_is_never_taken_for_complete() {
        let source = tokio_stream::iter([
            Ok(Bytes::from_static(b"part")),
            Err(BodyError::TooLong { limit: 4 }),
        ]);
        let body = Body::stream(source);
        assert_eq!(body.size_hint().exact(), None);
        assert!(matches!(
            body.collect().await,
            Err(BodyError::TooLong { limit: 4 })
        ));
    }

    #[test]
    fn a_body_takes_no_more_room_than_what_a_client_sends() {
        assert!(size_of::<Body>() <= size_of::<Incoming>() + size_of::<u64>());
    }

    #[test]
    fn only_a_body_known_in_full_can_be_sent_again() {
        assert!(matches!(
            Body::full("x").replay(),
            Some(Body::Full(Some(_)))
        ));
        assert!(matches!(Body::Empty.replay(), Some(Body::Empty)));
        assert!(Body::stream(tokio_stream::empty()).replay().is_none());
    }
}
