//! Reviews by the apiserver, with the proxy's own credentials.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use serde::Deserialize;

use super::{ReviewError, Reviews};
use crate::body::Body;
use crate::upstream::{Pool, Upstream};

/// A longer answer is refused, in bytes. A review echoes its question.
const ANSWER_BYTES_MAX: usize = 1 << 20;

impl Reviews for Upstream {
    async fn create(&self, path: &'static str, body: Bytes) -> Result<Bytes, ReviewError> {
        let transport = |error: &dyn std::error::Error| ReviewError::Transport(error.to_string());
        let request = request(path, body);
        let response = self
            .send(Pool::Own, request)
            .await
            .map_err(|error| transport(&error))?;
        let (head, body) = response.into_parts();
        let body = body
            .bytes(ANSWER_BYTES_MAX)
            .await
            .map_err(|error| transport(&error))?;
        if head.status.is_success() {
            return Ok(body);
        }
        Err(refusal(head.status, &head.headers, &body))
    }
}

fn request(path: &'static str, body: Bytes) -> Request<Body> {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let mut request = Request::new(Body::full(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().insert(header::CONTENT_TYPE, JSON);
    request.headers_mut().insert(header::ACCEPT, JSON);
    request
}

/// What an answer that is no success says: a Status, or the beginning of some text.
fn refusal(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> ReviewError {
    let status: Status = serde_json::from_slice(body).unwrap_or_else(|_| Status {
        reason: String::new(),
        message: String::from_utf8_lossy(&body[..body.len().min(200)])
            .trim_end()
            .to_owned(),
    });
    let retry_after = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    ReviewError::Status {
        code: code.as_u16(),
        reason: status.reason,
        message: status.message,
        retry_after,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    reason: String,
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_review_says_why_and_when_to_ask_again() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        let body = br#"{"kind":"Status","reason":"TooManyRequests","message":"later","code":429}"#;
        assert_eq!(
            refusal(StatusCode::TOO_MANY_REQUESTS, &headers, body),
            ReviewError::Status {
                code: 429,
                reason: "TooManyRequests".to_owned(),
                message: "later".to_owned(),
                retry_after: Some(7),
            }
        );
        assert_eq!(
            refusal(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"no route\n"),
            ReviewError::Status {
                code: 502,
                reason: String::new(),
                message: "no route".to_owned(),
                retry_after: None,
            }
        );
    }
}
