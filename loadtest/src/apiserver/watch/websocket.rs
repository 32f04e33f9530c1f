//! WATCH over a WebSocket: one message per event, as browsers ask for it.
//!
//! Owns the handshake with the apiserver's refusals (an `Origin` is required, at most one
//! subprotocol), the few frames a watch needs, and the discarding of what the client says. Refuses
//! extensions, fragmentation and every opcode but text, binary and close.

use std::pin::Pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::header::{CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::header::{SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::apiserver::body::{Body, Response};
use crate::apiserver::negotiate::Media;
use crate::apiserver::server::State;

mod sha1;

const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;
const OPCODE_CLOSE: u8 = 0x8;

/// Whether a request asks for a WebSocket.
pub(in crate::apiserver) fn is_wanted(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// A handshake that may go on.
#[derive(Debug)]
pub(super) struct Handshake {
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
}

impl Handshake {
    /// Judges the request; the error is the whole answer.
    pub(super) fn judge(headers: &HeaderMap) -> Result<Self, StatusCode> {
        let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
        if origin.is_none_or(|origin| origin.parse::<Uri>().is_err()) {
            return Err(StatusCode::FORBIDDEN);
        }
        let key = headers
            .get(SEC_WEBSOCKET_KEY)
            .ok_or(StatusCode::BAD_REQUEST)?;
        let mut text = key.as_bytes().to_vec();
        text.extend_from_slice(ACCEPT_SUFFIX.as_bytes());
        let accept = HeaderValue::from_str(&STANDARD.encode(sha1::digest(&text)))
            .map_err(|_| StatusCode::BAD_REQUEST)?;
        let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let protocols: Vec<&str> = protocols
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL))
            .collect();
        match protocols.as_slice() {
            [] => Ok(Self {
                accept,
                protocol: None,
            }),
            [one] => Ok(Self {
                accept,
                protocol: HeaderValue::from_str(one).ok(),
            }),
            _ => Err(StatusCode::BAD_REQUEST),
        }
    }

    /// Answers 101 and starts writing the stream's frames, each as one message.
    pub(super) fn accept<S>(
        self,
        state: &Arc<State>,
        upgrade: OnUpgrade,
        stream: S,
        media: Media,
    ) -> Response
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    {
        let opcode = match media {
            Media::Protobuf => OPCODE_BINARY,
            Media::Json | Media::Yaml => OPCODE_TEXT,
        };
        state.tasks.spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    let stream = Box::pin(stream);
                    if let Err(error) = speak(TokioIo::new(upgraded), stream, opcode).await {
                        tracing::debug!(%error, "a watch over a WebSocket ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "a WebSocket was not taken up"),
            }
        });
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

/// Writes messages until the stream or the client ends.
async fn speak<I, S>(mut io: I, mut stream: Pin<Box<S>>, opcode: u8) -> std::io::Result<()>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    S: Stream<Item = std::io::Result<Bytes>>,
{
    let mut discarded = [0_u8; 1024];
    loop {
        tokio::select! {
            frame = stream.next() => match frame {
                Some(frame) => io.write_all(&message(opcode, &frame?)).await?,
                None => {
                    io.write_all(&message(OPCODE_CLOSE, &1000_u16.to_be_bytes())).await?;
                    return io.shutdown().await;
                }
            },
            read = io.read(&mut discarded) => if read? == 0 {
                return Ok(());
            },
        }
    }
}

/// A final, unmasked frame.
fn message(opcode: u8, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length < 126 => frame.put_u8(length),
        (_, Ok(length)) => {
            frame.put_u8(126);
            frame.put_u16(length);
        }
        (_, Err(_)) => {
            frame.put_u8(127);
            frame.put_u64(payload.len() as u64);
        }
    }
    frame.put_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn the_handshake_answers_the_key_of_the_standard() {
        let headers = headers(&[
            ("origin", "http://localhost"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        let accept = Handshake::judge(&headers).map(|handshake| handshake.accept);
        assert_eq!(
            accept,
            Ok(HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        );
    }

    #[test]
    fn a_browser_must_say_where_it_comes_from() {
        let headers = headers(&[("sec-websocket-key", "x")]);
        assert_eq!(
            Handshake::judge(&headers).map(|_| ()),
            Err(StatusCode::FORBIDDEN)
        );
    }

    #[test]
    fn two_protocols_are_one_too_many() {
        let headers = headers(&[
            ("origin", "http://localhost"),
            ("sec-websocket-key", "x"),
            ("sec-websocket-protocol", "a, b"),
        ]);
        assert_eq!(
            Handshake::judge(&headers).map(|_| ()),
            Err(StatusCode::BAD_REQUEST)
        );
    }

    #[test]
    fn lengths_grow_with_the_payload() {
        assert_eq!(message(OPCODE_TEXT, b"ab")[..2], [0x81, 2]);
        assert_eq!(message(OPCODE_TEXT, &[0; 200])[..4], [0x81, 126, 0, 200]);
        assert_eq!(
            message(OPCODE_BINARY, &[0; 70_000])[..6],
            [0x82, 127, 0, 0, 0, 0]
        );
    }
}
