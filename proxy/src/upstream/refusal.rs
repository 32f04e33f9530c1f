//! What an apiserver's error answer says.

use http::{HeaderMap, Response, header};
use watershed_cache::encoding::{StatusError, decode_status};

use super::ResponseBody;

/// The largest error body that is read, in bytes.
const BODY_BYTES: usize = 64 << 10;

/// How much of a body that is no Status is kept as its message, in bytes.
const EXCERPT_BYTES: usize = 256;

/// An answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) code: u16,
    /// `reason` of the Status; empty if the body is none.
    pub(crate) reason: String,
    /// Its message, or the beginning of a body that is no Status.
    pub(crate) message: String,
    /// Whole seconds from `Retry-After`.
    pub(crate) retry_after: Option<u32>,
}

impl Refusal {
    /// Reads the body. One that breaks off or is no Status still has a code.
    pub(crate) async fn read(response: Response<ResponseBody>) -> Self {
        let code = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let body = response
            .into_body()
            .bytes(BODY_BYTES)
            .await
            .unwrap_or_default();
        let (reason, message) = match decode_status(&body) {
            Ok(StatusError {
                reason, message, ..
            }) => (reason, message),
            Err(_) => (String::new(), excerpt(&body)),
        };
        Self {
            code,
            reason,
            message,
            retry_after,
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<u32> {
    headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn excerpt(body: &[u8]) -> String {
    let beginning = &body[..body.len().min(EXCERPT_BYTES)];
    String::from_utf8_lossy(beginning).trim().to_owned()
}
