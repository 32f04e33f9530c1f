//! The frame splitter: any chunks give what the whole gives, and the whole what a plain reader
//! gives.

use bytes::Bytes;
use serde_json::value::RawValue;
use watershed_cache::encoding::{Encoding, FrameError, FrameSplitter};

/// Small, so that it is met.
const LONGEST: usize = 200;

/// JSON values one after the other. The first byte of the input seeds the chunks.
pub fn json(input: &[u8]) {
    let Some((frames, end)) = split(Encoding::Json, input) else {
        return;
    };
    let body = &input[1..];
    let values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
    let values: Result<Vec<_>, _> = values.collect();
    let Ok(values) = values else { return };
    let whole = |value: &&RawValue| value.get().starts_with('{') && value.get().len() <= LONGEST;
    if values.iter().all(whole) {
        assert_eq!(end, Ok(()), "all values are objects");
        let frames: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
        let values: Vec<&[u8]> = values.iter().map(|value| value.get().as_bytes()).collect();
        assert_eq!(frames, values, "frames");
    }
}

/// Messages behind their length. The first byte of the input seeds the chunks.
pub fn protobuf(input: &[u8]) {
    let Some((frames, end)) = split(Encoding::Protobuf, input) else {
        return;
    };
    let mut rest = &input[1..];
    let mut messages = Vec::new();
    let mut expected = Ok(());
    while !rest.is_empty() {
        let length = rest
            .first_chunk()
            .map(|length| u32::from_be_bytes(*length) as usize);
        if length.is_some_and(|length| length > LONGEST) {
            expected = Err(FrameError::TooLong { limit: LONGEST });
            break;
        }
        let message = length.and_then(|length| rest.get(4..4 + length));
        let Some(message) = message else {
            expected = Err(FrameError::Truncated { have: rest.len() });
            break;
        };
        messages.push(message);
        rest = &rest[4 + message.len()..];
    }
    let frames: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
    assert_eq!((frames, end), (messages, expected), "frames");
}

type Split = (Vec<Bytes>, Result<(), FrameError>);

/// Splits the whole at once, and holds it against small chunks.
fn split(encoding: Encoding, input: &[u8]) -> Option<Split> {
    let (&seed, body) = input.split_first()?;
    let whole = frames(encoding, body, || body.len());
    let mut random = fastrand::Rng::with_seed(seed.into());
    let chunked = frames(encoding, body, || random.usize(1..=7));
    assert_eq!(whole, chunked, "chunks");
    Some(whole)
}

fn frames(encoding: Encoding, mut body: &[u8], mut chunk: impl FnMut() -> usize) -> Split {
    let mut splitter = FrameSplitter::new(encoding, LONGEST);
    let mut frames = Vec::new();
    while !body.is_empty() {
        let (now, later) = body.split_at(chunk().min(body.len()));
        body = later;
        splitter.push(Bytes::copy_from_slice(now));
        loop {
            match splitter.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, splitter.finish())
}
