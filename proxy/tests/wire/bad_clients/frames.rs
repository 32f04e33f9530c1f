//! HTTP/2 frames by hand, for what no client library lets one send.

use anyhow::ensure;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// An HTTP/2 client's preface with empty SETTINGS.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const KINDS: [(&str, u8); 4] = [
    ("HEADERS", 1),
    ("RST_STREAM", 3),
    ("WINDOW_UPDATE", 8),
    ("CONTINUATION", 9),
];
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: &str, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let (_, kind) = KINDS.iter().find(|it| it.0 == kind).unwrap();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], *kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The header block of `GET https://localhost<path>`.
pub(crate) fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87];
    for (name, value) in [(0x41, "localhost"), (0x04, path)] {
        assert!(value.len() < 127);
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    block
}

/// A frame that was read.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The whole frames of what was read.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        found.push(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload: payload.to_vec(),
        });
        bytes = rest;
    }
    found
}

/// Lets the peer send as much as it likes on this stream.
pub(crate) fn open_windows(stream: u32) -> Vec<u8> {
    let more = (1_u32 << 30).to_be_bytes();
    [0, stream]
        .into_iter()
        .flat_map(|stream| frame("WINDOW_UPDATE", 0, stream, &more))
        .collect()
}

/// The data of a stream, up to its clean end.
pub(crate) async fn body(
    from: &mut (impl AsyncRead + Unpin),
    stream: u32,
) -> anyhow::Result<Vec<u8>> {
    let mut seen = Vec::new();
    loop {
        ensure!(from.read_buf(&mut seen).await? > 0, "the connection ended");
        let mut found = frames(&seen);
        found.retain(|it| it.stream == stream);
        ensure!(found.iter().all(|it| it.kind != 3), "the stream was reset");
        if found
            .iter()
            .any(|it| it.kind <= 1 && it.flags & END_STREAM != 0)
        {
            found.retain(|it| it.kind == 0);
            return Ok(found.into_iter().flat_map(|it| it.payload).collect());
        }
    }
}

/// The error code of the last GOAWAY.
pub(crate) fn goaway(bytes: &[u8]) -> Option<u32> {
    let found = frames(bytes);
    let Frame { payload, .. } = found.iter().rfind(|it| it.kind == 7)?;
    Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()))
}

/// The error code for a peer that asks too much.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
