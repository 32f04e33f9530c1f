//! The body of a long answer on its way to a client.
//!
//! Owns: a running list's place in the budget and its time. The pieces come from a snapshot, from
//! the memory of compressed answers, or out of an encoder.
//! Refuses: to work ahead. A piece is made when HTTP/2 or the socket has room for it.
//! Invariant: when the last piece is taken nothing of the source is held any more; a list that is
//! not taken in its request's time is cut and never completed (as `timeout.go` does once a
//! response has begun, 1.36).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::Instant;

use super::Content;
use crate::{body::BodyError, budget::Place, connection::deadline};

/// See the module text.
pub(crate) struct Sending {
    pieces: Pieces,
    /// Single objects have none.
    _place: Option<Place>,
    deadline: Instant,
}

/// Where the pieces come from.
pub(super) enum Pieces {
    /// They are written when they are asked for.
    Written(Box<Content>),
    /// They were compressed before.
    Compressed(std::vec::IntoIter<Bytes>),
    /// They are compressed when they are asked for.
    Compressing(Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>),
}

impl Sending {
    /// Sends `pieces` until `deadline`, which had better not come first.
    pub(super) fn new(pieces: Pieces, place: Option<Place>, deadline: Instant) -> Self {
        Self {
            pieces,
            _place: place,
            deadline,
        }
    }

    /// The next piece.
    pub(crate) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        deadline::expect(self.deadline);
        match &mut self.pieces {
            Pieces::Written(content) => Poll::Ready(content.piece().map(Ok)),
            Pieces::Compressed(pieces) => Poll::Ready(pieces.next().map(Ok)),
            Pieces::Compressing(pieces) => pieces.as_mut().poll_next(context),
        }
    }

    /// Whether the last piece was taken, as far as that is known.
    pub(crate) fn is_over(&self) -> bool {
        match &self.pieces {
            Pieces::Written(content) => content.is_over(),
            Pieces::Compressed(pieces) => pieces.len() == 0,
            Pieces::Compressing(_) => false,
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        deadline::over();
    }
}
