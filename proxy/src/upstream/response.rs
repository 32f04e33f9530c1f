//! The body of an apiserver's answer.
//!
//! Owns: the lease of the connection it comes on, given back at its end.
//! Refuses: to read ahead; what nobody reads stays with the server.
//! Invariant: a body dropped before its end cancels the request at the server.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use crate::body::BodyError;

use super::pool::Lease;

/// The body of an apiserver's answer. Holds its place on the connection until it ends or is
/// dropped.
pub(crate) struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Option<Lease>) -> Self {
        Self { incoming, lease }
    }

    /// The whole body.
    ///
    /// # Errors
    /// When it breaks off or is longer than `limit` bytes.
    pub(crate) async fn bytes(self, limit: usize) -> Result<Bytes, BodyError> {
        match Limited::new(self, limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) => Err(match error.downcast::<BodyError>() {
                Ok(error) => *error,
                Err(other) => {
                    debug_assert!(other.is::<LengthLimitError>());
                    BodyError::TooLong { limit }
                }
            }),
        }
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        if (frame.is_none() || self.incoming.is_end_stream())
            && let Some(lease) = self.lease.take()
        {
            lease.answered();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Sender)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.answered();
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ResponseBody")
            .field("incoming", &self.incoming)
            .finish()
    }
}
