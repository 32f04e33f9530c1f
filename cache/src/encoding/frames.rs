//! Cuts the body of an upstream watch into frames.
//!
//! Owns the framing of both encodings: JSON values one after the other, with any whitespace between
//! them, and protobuf messages behind a big-endian length of four bytes. Chunks may end anywhere.
//! It refuses frames above a limit, and refuses to understand them: JSON is only followed closely
//! enough to find where an object ends. Invariant: every byte is looked at once, however small the
//! chunks are.

use bytes::{Buf, Bytes, BytesMut};

use super::Encoding;

/// Cuts a watch body into frames, whatever the chunks it arrives in.
#[derive(Debug)]
pub struct FrameSplitter {
    buffer: BytesMut,
    max_frame: usize,
    state: State,
}

/// How far into a frame the splitter has looked.
#[derive(Debug)]
enum State {
    Json(JsonState),
    Protobuf,
}

/// Where in a JSON object the scan stands; the default is in front of one.
#[derive(Debug, Default)]
struct JsonState {
    /// Bytes of the buffer already looked at.
    scanned: usize,
    /// Open braces and brackets.
    depth: usize,
    string: InString,
    /// Whether a line ended within what was looked at.
    has_lines: bool,
}

/// Whether the next byte belongs to a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum InString {
    #[default]
    No,
    Yes,
    /// The byte before was a backslash.
    Escaped,
}

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

/// Bytes of the length in front of a protobuf frame.
const LENGTH: usize = 4;

impl FrameSplitter {
    /// A splitter that refuses frames longer than `max_frame` bytes.
    pub fn new(encoding: Encoding, max_frame: usize) -> Self {
        let state = match encoding {
            Encoding::Json => State::Json(JsonState::default()),
            Encoding::Protobuf => State::Protobuf,
        };
        Self {
            buffer: BytesMut::new(),
            max_frame,
            state,
        }
    }

    /// Takes the next chunk of the body. Memory is bounded if [`Self::next_frame`] is called until
    /// it has no more before the next push: one frame and one chunk.
    pub fn push(&mut self, chunk: Bytes) {
        self.buffer.extend_from_slice(&chunk);
    }

    /// What is in front, up to its first newline, if that may be a frame of JSON: a server writes
    /// one event on a line, and no string has a newline in it. Whether it is one tells only a
    /// decoder; then [`Self::skip`] it. Else [`Self::next_frame`] looks closer.
    pub fn line(&mut self) -> Option<&[u8]> {
        let State::Json(state) = &mut self.state else {
            return None;
        };
        if state.depth == 0 {
            drop_whitespace(&mut self.buffer);
        }
        if state.has_lines || self.buffer.first() != Some(&b'{') {
            return None;
        }
        let new = &self.buffer[state.scanned..];
        let end = state.scanned + memchr::memchr(b'\n', new)?;
        let line = &self.buffer[..end];
        (line.ends_with(b"}") && end <= self.max_frame).then_some(line)
    }

    /// Drops a line that was a frame.
    ///
    /// # Panics
    /// If `length` is more than there is.
    pub fn skip(&mut self, length: usize) {
        self.buffer.advance(length + 1);
        self.state = State::Json(JsonState::default());
    }

    /// The next whole frame, without length prefix or surrounding whitespace; `None` until more is
    /// pushed.
    ///
    /// # Errors
    /// The stream is broken. The splitter must not be used further.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        match &mut self.state {
            State::Json(state) => state.next(&mut self.buffer, self.max_frame),
            State::Protobuf => next_protobuf(&mut self.buffer, self.max_frame),
        }
    }

    /// To be called when the body ended and [`Self::next_frame`] has no more.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when bytes of an unfinished frame remain.
    pub fn finish(self) -> Result<(), FrameError> {
        match self.buffer.len() {
            0 => Ok(()),
            have => Err(FrameError::Truncated { have }),
        }
    }
}

impl JsonState {
    fn next(&mut self, buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
        if self.depth == 0 && !self.start(buffer)? {
            return Ok(None);
        }
        let ended = self.scan(buffer);
        if self.scanned > limit {
            return Err(FrameError::TooLong { limit });
        }
        if !ended {
            return Ok(None);
        }
        let frame = buffer.split_to(self.scanned).freeze();
        *self = Self::default();
        Ok(Some(frame))
    }

    /// Drops whitespace and enters the object behind it, if it has arrived.
    fn start(&mut self, buffer: &mut BytesMut) -> Result<bool, FrameError> {
        drop_whitespace(buffer);
        match buffer.first() {
            None => Ok(false),
            Some(b'{') => {
                *self = Self {
                    scanned: 1,
                    depth: 1,
                    ..Self::default()
                };
                Ok(true)
            }
            Some(&found) => Err(FrameError::NotAnObject { found }),
        }
    }

    /// Looks at what is new; true when the object ends at `scanned`.
    fn scan(&mut self, buffer: &[u8]) -> bool {
        let new = &buffer[self.scanned..];
        self.has_lines |= memchr::memchr(b'\n', new).is_some();
        let mut at = 0;
        while let Some(&byte) = new.get(at) {
            at += 1;
            match (self.string, byte) {
                (InString::No, b'"') => self.string = InString::Yes,
                (InString::No, b'{' | b'[') => self.depth += 1,
                (InString::No, b'}' | b']') => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.scanned += at;
                        return true;
                    }
                }
                (InString::No, _) => {}
                (InString::Yes, b'"') => self.string = InString::No,
                (InString::Yes, b'\\') => self.string = InString::Escaped,
                (InString::Yes, _) => {
                    let rest = &new[at..];
                    at += memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                }
                (InString::Escaped, _) => self.string = InString::Yes,
            }
        }
        self.scanned = buffer.len();
        false
    }
}

fn drop_whitespace(buffer: &mut BytesMut) {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    let spaces = buffer.iter().take_while(|byte| is_space(byte)).count();
    buffer.advance(spaces);
}

fn next_protobuf(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > limit {
        return Err(FrameError::TooLong { limit });
    }
    if buffer.len() < LENGTH + length {
        buffer.reserve(LENGTH + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests;
