//! Where TokenReviews and SubjectAccessReviews are created: the apiservers, as the proxy itself.
//!
//! Owns: one POST and the reading of its answer, errors told apart by whether a retry may help.
//! Refuses: to retry or remember (`authn/review.rs`, `memo.rs`), and to log a body: it may hold a token.

use bytes::Bytes;
use http::{Request, header};

use super::{ReviewError, Reviews};
use crate::{
    body::Body,
    upstream::{Pool, Refusal, Upstream},
};

/// The largest answer that is read, in bytes.
const ANSWER_BYTES: usize = 1 << 20;

impl Reviews for Upstream {
    async fn create(&self, path: &'static str, body: Bytes) -> Result<Bytes, ReviewError> {
        let request = Request::post(path)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::full(body))
            .expect("a constant path is a URI");
        let transport = |error: &dyn std::fmt::Display| ReviewError::Transport(error.to_string());
        let response = self
            .send(Pool::Own, request)
            .await
            .map_err(|error| transport(&error))?;
        if !response.status().is_success() {
            let Refusal {
                code,
                reason,
                message,
                retry_after,
            } = Refusal::read(response).await;
            return Err(ReviewError::Status {
                code,
                reason,
                message,
                retry_after,
            });
        }
        response
            .into_body()
            .bytes(ANSWER_BYTES)
            .await
            .map_err(|error| transport(&error))
    }
}
