//! What is read from a watch frame: its type, its version, the beat of the writer. Nothing else.
//!
//! Owns the two encodings as far as the checks need them. Refuses to decode objects: a loader that
//! did would measure itself.
//! Invariant: a frame that is not understood is an error, never skipped.

use std::fmt;

use crate::kubelet::decode::unwrap;
use crate::kubelet::protobuf::{Fields, Malformed, find};

/// Annotation that a writer counts and times its writes in. It sorts before the payload, so that
/// it is found near the head of an object.
pub const BEAT: &str = "watershed.dev/beat";
/// Annotation that makes an event as long as it should be.
pub const PAYLOAD: &str = "watershed.dev/payload";
/// Longest accepted frame, bytes: above any object.
pub(super) const FRAME_MAX: usize = 64 << 20;
/// The beat is looked for within so many bytes behind the version of a JSON object.
const BEAT_WITHIN: usize = 2_048;

/// One write: which object, the how manieth of it, and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Number of the object.
    pub lane: u32,
    /// Writes to it so far.
    pub sequence: u64,
    /// Microseconds of the system's clock, which all processes of a machine share.
    pub sent: u64,
}

impl fmt::Display for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}/{}/{}@", self.lane, self.sequence, self.sent)
    }
}

impl Beat {
    /// Reads `@LANE/SEQUENCE/SENT@`; what comes before the first `@` is skipped.
    fn read(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|byte| *byte == b'@');
        let mut numbers = parts.nth(1)?.split(|byte| *byte == b'/').map(number);
        let lane = u32::try_from(numbers.next()??).ok()?;
        Some(Self {
            lane,
            sequence: numbers.next()??,
            sent: numbers.next()??,
        })
    }
}

/// Type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// ADDED.
    Added,
    /// MODIFIED.
    Modified,
    /// DELETED.
    Deleted,
    /// BOOKMARK.
    Bookmark {
        /// Whether it ends the initial events.
        ends_initial: bool,
    },
    /// ERROR with the code of its Status.
    Error(u64),
}

/// A frame, as far as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type.
    pub kind: Kind,
    /// Version of the object; 0 in an error.
    pub version: u64,
    /// The writer's annotation, where the object has one.
    pub beat: Option<Beat>,
}

impl Event {
    /// Reads a line of a JSON stream.
    ///
    /// # Errors
    /// When it is no watch event in the form of an apiserver.
    pub(super) fn json(line: &[u8]) -> Result<Self, Malformed> {
        let rest = line.strip_prefix(br#"{"type":""#).ok_or(Malformed)?;
        let kind = match rest.first().ok_or(Malformed)? {
            b'A' => Kind::Added,
            b'M' => Kind::Modified,
            b'D' => Kind::Deleted,
            b'B' => Kind::Bookmark {
                ends_initial: position(rest, br#""k8s.io/initial-events-end":"true""#).is_some(),
            },
            b'E' => {
                let at = position(rest, br#""code":"#).ok_or(Malformed)?;
                let code = number(&rest[at + 7..]).ok_or(Malformed)?;
                return Ok(Self::error(code));
            }
            _ => return Err(Malformed),
        };
        const VERSION: &[u8] = br#""resourceVersion":""#;
        let at = position(rest, VERSION).ok_or(Malformed)? + VERSION.len();
        let rest = &rest[at..];
        let version = number(rest).ok_or(Malformed)?;
        let near = &rest[..rest.len().min(BEAT_WITHIN)];
        let beat = position(near, br#""watershed.dev/beat":"@"#);
        let beat = beat.and_then(|at| Beat::read(&near[at + BEAT.len() + 2..]));
        Ok(Self {
            kind,
            version,
            beat,
        })
    }

    /// Reads a message of a protobuf stream, without its length.
    ///
    /// # Errors
    /// When it is no watch event with an enveloped object.
    pub(super) fn protobuf(message: &[u8]) -> Result<Self, Malformed> {
        let kind = find(message, 1)?.ok_or(Malformed)?;
        let raw = find(message, 2)?.ok_or(Malformed)?;
        let object = unwrap(find(raw, 1)?.ok_or(Malformed)?)?;
        if kind == b"ERROR" {
            let code = Fields::new(object).flatten().find(|own| own.number == 6);
            return Ok(Self::error(code.map_or(0, |own| own.varint)));
        }
        let (mut version, mut beat, mut ends_initial) = (0, None, false);
        for field in Fields::new(find(object, 1)?.ok_or(Malformed)?) {
            let field = field?;
            match field.number {
                6 => version = number(field.bytes).ok_or(Malformed)?,
                12 => match find(field.bytes, 1)?.unwrap_or_default() {
                    b"watershed.dev/beat" => {
                        beat = find(field.bytes, 2)?.and_then(Beat::read);
                        break;
                    }
                    b"k8s.io/initial-events-end" => ends_initial = true,
                    _ => {}
                },
                _ => {}
            }
        }
        let kind = match kind {
            b"ADDED" => Kind::Added,
            b"MODIFIED" => Kind::Modified,
            b"DELETED" => Kind::Deleted,
            b"BOOKMARK" => Kind::Bookmark { ends_initial },
            _ => return Err(Malformed),
        };
        Ok(Self {
            kind,
            version,
            beat,
        })
    }

    fn error(code: u64) -> Self {
        Self {
            kind: Kind::Error(code),
            version: 0,
            beat: None,
        }
    }
}

/// The decimal number that `text` starts with.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    let digits = digits.take(19); // fits an u64
    let mut digits = digits.map(|byte| u64::from(byte - b'0')).peekable();
    digits.peek()?;
    Some(digits.fold(0, |number, digit| number * 10 + digit))
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Where whole frames end.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// Bytes of an unfinished frame.
    rest: Vec<u8>,
}

impl Cutter {
    /// Hands every whole frame in what was received so far to `each`, without a protobuf length.
    ///
    /// # Errors
    /// The first error of `each`, or when a frame is out of all proportion.
    pub(super) fn cut<E: From<Malformed>>(
        &mut self,
        chunk: &[u8],
        is_protobuf: bool,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.rest.is_empty() {
            let used = cut_all(chunk, is_protobuf, &mut each)?;
            self.rest.extend_from_slice(&chunk[used..]);
            return Ok(());
        }
        self.rest.extend_from_slice(chunk);
        let used = cut_all(&self.rest, is_protobuf, &mut each)?;
        if used == self.rest.len() {
            self.rest = Vec::new(); // an idle watch keeps no buffer
        } else {
            self.rest.drain(..used);
        }
        if self.rest.len() > FRAME_MAX {
            return Err(Malformed.into());
        }
        Ok(())
    }
}

fn cut_all<E: From<Malformed>>(
    bytes: &[u8],
    is_protobuf: bool,
    each: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<usize, E> {
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        let (skip, length) = if is_protobuf {
            let Some(prefix) = rest.first_chunk::<4>() else {
                return Ok(used);
            };
            (4, u32::from_be_bytes(*prefix) as usize)
        } else {
            use std::io::BufRead as _;
            // Finds a newline word by word; a slice never fails.
            let line = (&mut &*rest).skip_until(b'\n').unwrap_or(0);
            if line == 0 || rest[line - 1] != b'\n' {
                return Ok(used);
            }
            (0, line)
        };
        if length > FRAME_MAX {
            return Err(Malformed.into());
        }
        let Some(frame) = rest.get(skip..skip + length) else {
            return Ok(used);
        };
        each(frame)?;
        used += skip + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::protobuf::Message;

    const BEATEN: Beat = Beat {
        lane: 7,
        sequence: 42,
        sent: 1_700_000_000_000_000,
    };

    fn line(kind: &str, version: u64, beat: &str) -> Vec<u8> {
        let annotations = format!(r#""annotations":{{{beat}"watershed.dev/payload":"xx"}}"#);
        let metadata = format!(r#"{{"name":"s","resourceVersion":"{version}",{annotations}}}"#);
        let object = format!(r#"{{"kind":"Service","metadata":{metadata}}}"#);
        format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into_bytes()
    }

    fn message(kind: &str, version: u64, beat: &str) -> Vec<u8> {
        let metadata = Message::default()
            .string(1, "s")
            .string(6, &version.to_string())
            .entry(12, BEAT, beat)
            .entry(12, PAYLOAD, "xx");
        let object = Message::default().message(1, &metadata);
        let unknown = Message::default().message(2, &object);
        let mut raw = b"k8s\0".to_vec();
        raw.extend_from_slice(&unknown.0);
        let raw = Message::default().bytes(1, &raw);
        Message::default().string(1, kind).message(2, &raw).0
    }

    #[test]
    fn type_version_and_beat_are_read_from_both_encodings() {
        let wanted = Event {
            kind: Kind::Modified,
            version: 90,
            beat: Some(BEATEN),
        };
        let json = line("MODIFIED", 90, &format!(r#""{BEAT}":"{BEATEN}","#));
        assert_eq!(Event::json(&json), Ok(wanted));
        let protobuf = message("MODIFIED", 90, &BEATEN.to_string());
        assert_eq!(Event::protobuf(&protobuf), Ok(wanted));
    }

    #[test]
    fn a_field_of_managed_fields_is_no_beat() {
        let json = line("ADDED", 9, r#""f:watershed.dev/beat":{},"#);
        assert_eq!(Event::json(&json).unwrap().beat, None);
    }

    #[test]
    fn an_error_in_json_has_the_code_of_its_status() {
        let line = br#"{"type":"ERROR","object":{"kind":"Status","metadata":{},"code":410}}"#;
        assert_eq!(Event::json(line).unwrap().kind, Kind::Error(410));
        assert_eq!(Event::json(b"{}"), Err(Malformed));
    }

    #[test]
    fn frames_are_cut_wherever_chunks_end() {
        let json: Vec<u8> = [line("ADDED", 1, ""), line("MODIFIED", 2, "")].concat();
        let mut protobuf = Vec::new();
        for version in 1..3 {
            let message = message("ADDED", version, "@1/2/3@");
            protobuf.extend_from_slice(&(message.len() as u32).to_be_bytes());
            protobuf.extend_from_slice(&message);
        }
        for (bytes, is_protobuf) in [(json, false), (protobuf, true)] {
            for size in 1..bytes.len() {
                let (mut cutter, mut versions) = (Cutter::default(), Vec::new());
                for chunk in bytes.chunks(size) {
                    let cut = cutter.cut(chunk, is_protobuf, |frame| {
                        let event = if is_protobuf {
                            Event::protobuf(frame)
                        } else {
                            Event::json(frame)
                        };
                        versions.push(event?.version);
                        Ok::<_, Malformed>(())
                    });
                    cut.unwrap();
                }
                assert_eq!(versions, [1, 2], "chunks of {size}");
            }
        }
    }
}
