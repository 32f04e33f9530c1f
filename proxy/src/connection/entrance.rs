//! How far into the bytes of an HTTP/2 client a connection reads at once.
//!
//! Owns: the boundaries of frames, as far as their length and type tell, and the number of requests
//! that come in before those that came in are looked at.
//! Refuses: to judge. What is no HTTP/2 passes as it is; the connection says so.
//! Invariant: bytes are let in up to the end of a request, and once a request is complete that
//! fills the entrance, nothing is until [`Entrance::take_full`] was asked.

/// Requests let in at once: HTTP/2 has room for so many from the first on.
const REQUESTS: u8 = 4;

/// What comes before the first frame (RFC 9113, 3.4), in bytes.
const PREFACE: usize = 24;

/// The head of a frame (RFC 9113, 4.1), in bytes.
const HEAD: usize = 9;

/// The type of a frame that begins a request.
const HEADERS: u8 = 1;

/// See the module text.
#[derive(Debug)]
pub(super) struct Entrance {
    /// Bytes before the next head.
    before_head: usize,
    /// The head that is being read, and how much of it is.
    head: [u8; HEAD],
    known: usize,
    /// Requests let in since it was full.
    requests: u8,
}

impl Default for Entrance {
    fn default() -> Self {
        Self {
            before_head: PREFACE,
            head: [0; HEAD],
            known: 0,
            requests: 0,
        }
    }
}

impl Entrance {
    /// How many of these bytes, which follow those that were let in, come in now.
    pub(super) fn let_in(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.is_full() {
            let left = bytes.len() - at;
            if self.before_head > 0 {
                let passed = self.before_head.min(left);
                self.before_head -= passed;
                at += passed;
                continue;
            }
            let read = left.min(HEAD - self.known);
            self.head[self.known..][..read].copy_from_slice(&bytes[at..][..read]);
            self.known += read;
            at += read;
            if self.known == HEAD {
                let [high, middle, low, kind, ..] = self.head;
                self.known = 0;
                self.before_head = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.requests += u8::from(kind == HEADERS);
            }
        }
        at
    }

    /// Whether so many requests came in that those are to be looked at first; says so once.
    pub(super) fn take_full(&mut self) -> bool {
        let is_full = self.is_full();
        if is_full {
            self.requests = 0;
        }
        is_full
    }

    fn is_full(&self) -> bool {
        let is_between = self.before_head == 0 && self.known == 0;
        is_between && self.requests >= REQUESTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [.., high, middle, low] = length.to_be_bytes();
        let mut frame = vec![high, middle, low, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD + length, kind);
        frame
    }

    #[test]
    fn all_bytes_come_in_order_and_few_requests_at_once() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut sent = vec![b'P'; PREFACE];
            let mut ends = Vec::new();
            for _ in 0..rng.usize(0..30) {
                let kind = rng.u8(0..3);
                sent.extend(frame(kind, rng.usize(0..40)));
                ends.extend((kind == HEADERS).then_some(sent.len()));
            }
            let (mut entrance, mut read, mut pauses) = (Entrance::default(), 0, 0);
            while read < sent.len() {
                if entrance.take_full() {
                    pauses += 1;
                    let full = ends[usize::from(REQUESTS) * pauses - 1];
                    assert_eq!(read, full, "it is full at the end of a request");
                }
                let end = sent.len().min(read + rng.usize(1..100));
                let let_in = entrance.let_in(&sent[read..end]);
                assert!(let_in > 0, "it goes on");
                read += let_in;
            }
            pauses += usize::from(entrance.take_full());
            assert_eq!(pauses, ends.len() / usize::from(REQUESTS));
        }
    }
}
