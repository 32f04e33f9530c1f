//! Cuts the body of an upstream watch into frames.

use bytes::Bytes;

use super::Encoding;

/// Cuts a watch body into frames, whatever the chunks it arrives in.
#[derive(Debug)]
pub struct FrameSplitter {}

/// Why a watch body could not be cut. The stream is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame longer than the limit.
    #[error("watch frame longer than {limit} bytes")]
    TooLong {
        /// The limit given to [`FrameSplitter::new`].
        limit: usize,
    },
    /// A JSON stream with something other than an object in it.
    #[error("watch stream holds byte {found:#04x} where a JSON object must start")]
    NotAnObject {
        /// The byte found.
        found: u8,
    },
    /// The stream ended within a frame.
    #[error("watch stream ended {have} bytes into a frame")]
    Truncated {
        /// Bytes of the unfinished frame.
        have: usize,
    },
}

impl FrameSplitter {
    /// A splitter that refuses frames longer than `max_frame` bytes.
    pub fn new(encoding: Encoding, max_frame: usize) -> Self {
        let _ = (encoding, max_frame);
        todo!()
    }

    /// Takes the next chunk of the body.
    #[expect(clippy::needless_pass_by_value, reason = "first landing")]
    pub fn push(&mut self, chunk: Bytes) {
        let _ = chunk;
        todo!()
    }

    /// The next whole frame, without length prefix or surrounding whitespace; `None` until more is pushed.
    ///
    /// # Errors
    /// The stream is broken; every later call may return anything.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        todo!()
    }

    /// To be called when the body ended.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when bytes of an unfinished frame remain.
    pub fn finish(self) -> Result<(), FrameError> {
        todo!()
    }
}
