//! Requests byte by byte, over both protocols.

use super::*;

/// The header fields of an HTTP/2 request, pseudo-headers included, as they go onto the wire.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Status and body.
    Answer(u16, String),
    /// The stream was reset, or the connection ended.
    Reset,
}

/// Sends these bytes, the head of a request that closes the connection, over HTTP/1.1.
pub(super) async fn ask_http1(
    caller: &Caller,
    address: std::net::SocketAddr,
    request: &[u8],
) -> anyhow::Result<Outcome> {
    let mut stream = caller.dial(address, HTTP1).await?;
    // It may close before it has read everything.
    drop(stream.write_all(request).await);
    let mut seen = Vec::new();
    drop(
        in_time(stream.read_to_end(&mut seen))
            .await
            .context("it stays open")?,
    );
    let Some(end) = seen.windows(4).position(|it| it == b"\r\n\r\n") else {
        return Ok(Outcome::Reset);
    };
    let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
    let status = head.get(9..12).context("no status")?.parse()?;
    let body = &seen[end + 4..];
    let body = match head.contains("transfer-encoding: chunked") {
        true => dechunked(body)?,
        false => body.to_vec(),
    };
    Ok(Outcome::Answer(
        status,
        String::from_utf8_lossy(&body).into_owned(),
    ))
}

fn dechunked(mut body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = body
            .windows(2)
            .position(|it| it == b"\r\n")
            .context("a chunk's length")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..line])?, 16)?;
        if length == 0 {
            return Ok(whole);
        }
        let rest = &body[line + 2..];
        whole.extend(rest.get(..length).context("a whole chunk")?);
        body = &rest[length + 2..];
    }
}

/// Sends one request of these fields over HTTP/2.
pub(super) async fn ask_http2(
    caller: &Caller,
    address: std::net::SocketAddr,
    fields: &Fields,
) -> anyhow::Result<Outcome> {
    let mut stream = caller.dial(address, HTTP2).await?;
    let block: Vec<u8> = fields.iter().flat_map(literal).collect();
    let mut sent = PREFACE.to_vec();
    sent.extend(frame("HEADERS", END_HEADERS | END_STREAM, 1, &block));
    drop(stream.write_all(&sent).await);
    let mut seen = Vec::new();
    loop {
        let read = in_time(stream.read_buf(&mut seen))
            .await
            .context("no answer")?;
        let found = frames(&seen);
        let own: Vec<_> = found.iter().filter(|it| it.stream == 1).collect();
        let is_over = own
            .iter()
            .any(|it| it.kind <= 1 && it.flags & END_STREAM != 0);
        if is_over {
            let head = own.iter().find(|it| it.kind == 1).context("no head")?;
            let data = own
                .iter()
                .filter(|it| it.kind == 0)
                .flat_map(|it| &it.payload);
            let body: Vec<u8> = data.copied().collect();
            let body = String::from_utf8_lossy(&body).into_owned();
            return Ok(Outcome::Answer(status(&head.payload)?, body));
        }
        if own.iter().any(|it| it.kind == 3) || !matches!(read, Ok(1..)) {
            return Ok(Outcome::Reset);
        }
    }
}

/// A field as HPACK writes one that no table knows or shall know.
fn literal((name, value): &(Vec<u8>, Vec<u8>)) -> Vec<u8> {
    let mut field = vec![0x10];
    for text in [name, value] {
        let mut rest = text.len();
        if rest < 127 {
            field.push(rest as u8);
        } else {
            field.push(127);
            rest -= 127;
            while rest >= 128 {
                field.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            field.push(rest as u8);
        }
        field.extend(text);
    }
    field
}

/// The status, which is the first field of a head.
fn status(block: &[u8]) -> anyhow::Result<u16> {
    // A dynamic table's new size may come first.
    let block = match block {
        [0x20..=0x3e, rest @ ..] => rest,
        [0x3f, rest @ ..] => {
            let end = rest
                .iter()
                .position(|byte| byte & 128 == 0)
                .context("a size")?;
            &rest[end + 1..]
        }
        block => block,
    };
    match *block {
        [0x88, ..] => Ok(200),
        [0x8c, ..] => Ok(400),
        [0x8d, ..] => Ok(404),
        [0x8e, ..] => Ok(500),
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => Ok(std::str::from_utf8(&[a, b, c])?.parse()?),
        [0x08 | 0x18 | 0x48, length, ref code @ ..] if length & 128 != 0 => {
            let bits = code
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
            let mut bits = bits.map(u16::from);
            let mut take =
                |count: usize| bits.by_ref().take(count).fold(0, |all, bit| all << 1 | bit);
            let mut status = 0;
            for _ in 0..3 {
                // 0 to 2 have five bits, the other digits six.
                let digit = match take(5) {
                    few @ 0..=2 => few,
                    more => (more << 1 | take(1)) - 0b01_1001 + 3,
                };
                status = status * 10 + digit;
            }
            Ok(status)
        }
        _ => anyhow::bail!("no status in {block:02x?}"),
    }
}
