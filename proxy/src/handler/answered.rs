//! What becomes of a request: the response, and what it is counted as.
//!
//! Owns: the label `served`, and what every answer has. Refuses: to decide which answer it is.

use std::time::SystemTime;

use http::{HeaderName, HeaderValue, Response, header};

use crate::{
    body::Body, callers::Place, negotiate::ErrorsOf, passthrough::ToUpgrade, status::Status,
};

pub(super) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// How a request was answered: the metric label, and the response.
pub(super) struct Answered {
    pub(super) served: &'static str,
    pub(super) response: Response<Body>,
}

impl Answered {
    pub(super) fn cached(response: Response<Body>) -> Self {
        Self {
            served: "cache",
            response,
        }
    }

    pub(super) fn with_warning(mut self, warning: Option<&'static str>) -> Self {
        if let Some(warning) = warning.map(HeaderValue::from_static) {
            let headers = self.response.headers_mut();
            headers.append(header::WARNING, warning);
        }
        self
    }

    /// The answer to who has too much under way.
    pub(super) fn limited(status: Status, errors: ErrorsOf<'_>) -> Self {
        Self {
            served: "limited",
            response: local(status, errors),
        }
    }

    /// The same answer, which gives `place` back at its end.
    pub(super) fn keep(mut self, place: Option<Place>) -> Self {
        self.response = self.response.map(|body| body.keep(place));
        self
    }

    /// An error of the proxy's own.
    pub(super) fn refused(status: Status, errors: ErrorsOf<'_>) -> Self {
        Self {
            served: "refused",
            response: local(status, errors),
        }
    }
}

/// An answer of the proxy's own.
pub(super) fn local(status: Status, errors: ErrorsOf<'_>) -> Response<Body> {
    status.into_response(&errors.format()).map(Body::full)
}

/// Adds what every answer has: the request's Audit-Id or a new one, and the time; unless the
/// apiserver did, or left them out because the connection was no longer HTTP to it.
pub(super) fn completed(mut response: Response<Body>, sent: Option<HeaderValue>) -> Response<Body> {
    if response.extensions().get::<ToUpgrade>().is_some() {
        return response;
    }
    let headers = response.headers_mut();
    headers.entry(AUDIT_ID).or_insert_with(|| {
        sent.unwrap_or_else(|| {
            let id = uuid::Uuid::new_v4().to_string();
            HeaderValue::from_str(&id).expect("a UUID is a header value")
        })
    });
    headers.entry(header::DATE).or_insert_with(|| {
        let now = httpdate::fmt_http_date(SystemTime::now());
        HeaderValue::from_str(&now).expect("a date is a header value")
    });
    response
}
