//! What replicas say to each other, as bytes.
//!
//! Owns: the frames, their encoding, and the strict reading of them from a stream. Refuses: to read
//! on after anything that this version would not have written; the connection ends then.
//! Invariant: what is read is bounded by [`FRAME_MAX`], and a name that comes out can stand in a
//! path and in a header as it is.
//!
//! ```text
//!  length u32 │ kind u8 │ ...      the length counts what follows it; all numbers big-endian
//!             │ 1 hello   │ "watershed" │ version u16 │ instance 16 bytes
//!             │ 2 debts   │ entries: uid 16 bytes │ renewed i64 │ written i64 │ age u32 │ heir u8 │
//!             │           │          length u8 │ name
//!             │ 3 beat    │ full u8
//!             │ 4 goodbye │
//! ```
//!
//! Rejected: HTTP/2, which would bring pings and windows that are here already, and JSON: a fleet
//! tells 200,000 debts a second. Replicas share no clock, so when a kubelet was heard is told by its
//! age, in milliseconds; all else is the kubelet's own word.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use uuid::Uuid;
use watershed_heartbeats::{Debt, Heir, MicroTime, Moment, Uid};

/// The longest frame that is read, in bytes.
const FRAME_MAX: usize = 64 << 10;
/// Frames of debts are written once they are so long: one TLS record.
const FRAME_FULL: usize = 15 << 10;
/// What every replica that can read this says first.
const VERSION: u16 = 1;
const MAGIC: &[u8] = b"watershed";

const HELLO: u8 = 1;
const DEBTS: u8 = 2;
const BEAT: u8 = 3;
const GOODBYE: u8 = 4;
const PAY: u8 = 5;

/// One life of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Instance(Uuid);

impl Instance {
    /// Another one each time.
    pub(super) fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

impl std::fmt::Display for Instance {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

/// One thing that a replica says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Who it is; first, from both sides.
    Hello(Instance),
    /// What it owes, and which of their heirs the other is.
    Debts(Vec<Told>),
    /// It is alive; `full` if it cannot take in more debts.
    Beat {
        /// Debts were refused since the last beat.
        full: bool,
    },
    /// It is there and cannot write: what it told so far is to be paid for it.
    Pay,
    /// It stops, and will not pay.
    Goodbye,
}

/// One debt, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) heir: Heir,
    node: Arc<str>,
    uid: Uid,
    renew_time: MicroTime,
    written: MicroTime,
    /// How long ago the kubelet was heard.
    age: Duration,
}

impl Told {
    /// By who holds it, now.
    pub(super) fn of(heir: Heir, debt: Debt, now: Moment) -> Self {
        Self {
            heir,
            age: now.since(debt.heard_at),
            node: debt.node,
            uid: debt.uid,
            renew_time: debt.renew_time,
            written: debt.written,
        }
    }

    /// To who hears it, now.
    pub(super) fn debt(self, now: Moment) -> Debt {
        Debt {
            node: self.node,
            uid: self.uid,
            renew_time: self.renew_time,
            written: self.written,
            heard_at: now.before(self.age),
        }
    }
}

/// Why a stream makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// Longer than anything that is written.
    #[error("a frame of {0} bytes")]
    TooLong(usize),
    /// Of no kind that is known, or not of the form of its kind.
    #[error("a frame of kind {0} that cannot be understood")]
    Frame(u8),
    /// Another version, or no replica at all.
    #[error("it speaks another version")]
    Version,
}

impl Frame {
    /// As it is sent. Debts beyond one frame's length have to be split before: see [`debts`].
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32(0);
        match self {
            Self::Hello(instance) => {
                out.put_u8(HELLO);
                out.put_slice(MAGIC);
                out.put_u16(VERSION);
                out.put_slice(instance.0.as_bytes());
            }
            Self::Debts(debts) => {
                out.put_u8(DEBTS);
                debts.iter().for_each(|told| put_debt(&mut out, told));
            }
            Self::Beat { full } => out.put_slice(&[BEAT, u8::from(*full)]),
            Self::Pay => out.put_u8(PAY),
            Self::Goodbye => out.put_u8(GOODBYE),
        }
        seal(out)
    }

    /// Takes the first frame out of what was read, if all of it is there.
    fn take(from: &mut BytesMut) -> Result<Option<Self>, Malformed> {
        let Some(length) = from.first_chunk() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > FRAME_MAX {
            return Err(Malformed::TooLong(length));
        }
        if from.len() < 4 + length {
            return Ok(None);
        }
        from.advance(4);
        let mut frame = from.split_to(length).freeze();
        let kind = frame.try_get_u8().map_err(|_| Malformed::Frame(0))?;
        let read = match kind {
            HELLO => return hello(frame).map(Some),
            DEBTS => read_debts(frame).map(Self::Debts),
            BEAT => match *frame {
                [full @ (0 | 1)] => Some(Self::Beat { full: full == 1 }),
                _ => None,
            },
            PAY => frame.is_empty().then_some(Self::Pay),
            GOODBYE => frame.is_empty().then_some(Self::Goodbye),
            _ => None,
        };
        read.map(Some).ok_or(Malformed::Frame(kind))
    }
}

/// Frames with all of these debts.
pub(super) fn debts(debts: &[Told]) -> impl Iterator<Item = Bytes> {
    let mut rest = debts.iter();
    std::iter::from_fn(move || {
        let mut out = BytesMut::new();
        out.put_u32(0);
        out.put_u8(DEBTS);
        let empty = out.len();
        while out.len() < FRAME_FULL
            && let Some(told) = rest.next()
        {
            put_debt(&mut out, told);
        }
        (out.len() > empty).then(|| seal(out))
    })
}

fn put_debt(out: &mut BytesMut, told: &Told) {
    // A name that does not fit is of no node: an apiserver takes 253 bytes.
    let Ok(length) = u8::try_from(told.node.len()) else {
        return;
    };
    out.put_u128(told.uid.bits());
    out.put_i64(told.renew_time.micros());
    out.put_i64(told.written.micros());
    out.put_u32(u32::try_from(told.age.as_millis()).unwrap_or(u32::MAX));
    out.put_u8(match told.heir {
        Heir::First => 1,
        Heir::Second => 2,
    });
    out.put_u8(length);
    out.put_slice(told.node.as_bytes());
}

fn seal(mut frame: BytesMut) -> Bytes {
    let length = u32::try_from(frame.len() - 4).expect("frames are short");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

fn hello(frame: Bytes) -> Result<Frame, Malformed> {
    let rest = frame.strip_prefix(MAGIC).ok_or(Malformed::Version)?;
    let rest = rest.strip_prefix(&VERSION.to_be_bytes());
    let instance = Uuid::from_slice(rest.ok_or(Malformed::Version)?);
    let instance = instance.map_err(|_| Malformed::Frame(HELLO))?;
    Ok(Frame::Hello(Instance(instance)))
}

fn read_debts(mut frame: Bytes) -> Option<Vec<Told>> {
    let mut debts = Vec::new();
    while frame.has_remaining() {
        debts.push(read_debt(&mut frame)?);
    }
    Some(debts)
}

fn read_debt(frame: &mut Bytes) -> Option<Told> {
    let uid = Uid::from_bits(frame.try_get_u128().ok()?);
    let renew_time = MicroTime::from_micros(frame.try_get_i64().ok()?)?;
    let written = MicroTime::from_micros(frame.try_get_i64().ok()?)?;
    let age = Duration::from_millis(frame.try_get_u32().ok()?.into());
    let heir = match frame.try_get_u8().ok()? {
        1 => Heir::First,
        2 => Heir::Second,
        _ => return None,
    };
    let length = usize::from(frame.try_get_u8().ok()?);
    if frame.len() < length {
        return None;
    }
    let name = frame.split_to(length);
    let node = std::str::from_utf8(&name)
        .ok()
        .filter(|name| is_node_name(name))?;
    Some(Told {
        heir,
        node: node.into(),
        uid,
        renew_time,
        written,
        age,
    })
}

/// Whether it can name a node: a DNS subdomain, as the apiserver has it.
fn is_node_name(name: &str) -> bool {
    let label = |label: &str| {
        let ends = [label.as_bytes().first(), label.as_bytes().last()];
        ends.iter().all(|end| end.is_some_and(|it| *it != b'-'))
            && label
                .bytes()
                .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The frames of a stream.
pub(super) struct Frames<R> {
    stream: R,
    /// Never longer than the longest frame and one read.
    unread: BytesMut,
}

/// Why no further frame comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] std::io::Error),
    /// It makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Of a stream from its start.
    pub(super) fn new(stream: R) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
        }
    }

    /// The next frame, or `None` at the end of the stream. May be dropped and called again.
    ///
    /// # Errors
    /// See [`Unreadable`]; nothing is to be read after one.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, Unreadable> {
        loop {
            if let Some(frame) = Frame::take(&mut self.unread)? {
                return Ok(Some(frame));
            }
            self.unread.reserve(4 << 10);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn told(heir: Heir, node: &str) -> Told {
        Told {
            heir,
            node: node.into(),
            uid: Uid::from_bits(7),
            renew_time: MicroTime::from_micros(1_700_000_000_000_000).unwrap(),
            written: MicroTime::from_micros(0).unwrap(),
            age: Duration::from_millis(7_500),
        }
    }

    fn all() -> [Frame; 7] {
        let two = vec![told(Heir::First, "node-1.example"), told(Heir::Second, "n")];
        [
            Frame::Hello(Instance::new()),
            Frame::Debts(two),
            Frame::Debts(Vec::new()),
            Frame::Beat { full: true },
            Frame::Beat { full: false },
            Frame::Pay,
            Frame::Goodbye,
        ]
    }

    #[tokio::test]
    async fn what_is_written_is_read_whatever_the_pieces_it_comes_in() {
        let all = all();
        let bytes: Vec<u8> = all.iter().flat_map(Frame::to_bytes).collect();
        for piece in [1, 3, bytes.len()] {
            let (mut there, here) = tokio::io::duplex(piece);
            let writing = async {
                there.write_all(&bytes).await.unwrap();
                drop(there);
            };
            let reading = async {
                let mut frames = Frames::new(here);
                for frame in &all {
                    assert_eq!(frames.next().await.unwrap().as_ref(), Some(frame));
                }
                assert_eq!(frames.next().await.unwrap(), None);
            };
            tokio::join!(writing, reading);
        }
    }

    #[test]
    fn a_part_of_a_frame_is_no_frame() {
        for frame in all() {
            let whole = frame.to_bytes();
            for length in 0..whole.len() {
                let mut part = BytesMut::from(&whole[..length]);
                assert_eq!(Frame::take(&mut part), Ok(None), "{frame:?} {length}");
            }
        }
    }

    #[test]
    fn a_frame_that_is_cut_or_changed_is_refused_or_another_frame() {
        for frame in all() {
            let whole = frame.to_bytes();
            for at in 4..whole.len() {
                let mut cut = BytesMut::from(&whole[..at]);
                cut[..4].copy_from_slice(&u32::try_from(at - 4).unwrap().to_be_bytes());
                let is_refused = Frame::take(&mut cut).is_err();
                assert!(is_refused || matches!(frame, Frame::Debts(_)), "{frame:?}");
                for bit in 0..8 {
                    let mut changed = BytesMut::from(&whole[..]);
                    changed[at] ^= 1 << bit;
                    assert_ne!(Frame::take(&mut changed), Ok(Some(frame.clone())));
                }
            }
        }
    }

    #[test]
    fn an_age_is_the_same_by_any_clock() {
        let at = |seconds| Moment::after_start(Duration::from_secs(seconds));
        let debt = told(Heir::First, "n").debt(at(100));
        let again = Told::of(Heir::First, debt, at(103)).debt(at(9_003));
        assert_eq!(
            at(9_003).since(again.heard_at),
            Duration::from_millis(10_500)
        );
    }

    #[test]
    fn garbage_is_refused() {
        let name = |name: &[u8]| {
            let mut frame = vec![DEBTS];
            frame.extend([0; 36]);
            frame.extend([1, u8::try_from(name.len()).unwrap()]);
            frame.extend(name);
            frame
        };
        let longest = [b'a'; 255];
        for (frame, kind) in [
            (vec![], 0),
            (vec![0], 0),
            (vec![9, 1], 9),
            (vec![BEAT], BEAT),
            (vec![BEAT, 2], BEAT),
            (vec![PAY, 0], PAY),
            (vec![GOODBYE, 0], GOODBYE),
            (name(b""), DEBTS),
            (name(b"a/b"), DEBTS),
            (name(b"a\r\nb"), DEBTS),
            (name(b"A"), DEBTS),
            (name(b".."), DEBTS),
            (name(b"-a"), DEBTS),
            (name("ä".as_bytes()), DEBTS),
            (name(&longest), DEBTS),
        ] {
            let mut bytes = BytesMut::new();
            bytes.put_u32(u32::try_from(frame.len()).unwrap());
            bytes.put_slice(&frame);
            assert_eq!(
                Frame::take(&mut bytes),
                Err(Malformed::Frame(kind)),
                "{frame:?}"
            );
        }
        let mut huge = BytesMut::from(&[0xff; 4][..]);
        assert!(matches!(Frame::take(&mut huge), Err(Malformed::TooLong(_))));
        let mut get = BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n"[..]);
        assert!(matches!(Frame::take(&mut get), Err(Malformed::TooLong(_))));
        let mut other = BytesMut::from(&Frame::Hello(Instance::new()).to_bytes()[..]);
        other[15] ^= 1;
        assert_eq!(Frame::take(&mut other), Err(Malformed::Version));
    }

    #[test]
    fn many_debts_are_cut_into_frames_that_are_read() {
        let name = "n".repeat(253);
        let many = vec![told(Heir::First, &name); 1_000];
        let mut read = 0;
        for frame in debts(&many) {
            let mut bytes = BytesMut::from(&frame[..]);
            let Ok(Some(Frame::Debts(some))) = Frame::take(&mut bytes) else {
                panic!("it is too long");
            };
            assert!(bytes.is_empty());
            read += some.len();
        }
        assert_eq!(read, many.len());
        assert_eq!(debts(&[]).count(), 0);
    }
}
