//! Everything the proxy does not answer itself, streamed both ways.
//!
//! Owns: the way of a request to an apiserver and of its answer back, upgrades included, and with
//! `passthrough/headers.rs` the way an identity travels.
//! Refuses: to buffer, to understand bodies, and to wait. Each side's back-pressure is the other's;
//! a client that goes away cancels its request at the apiserver.
//! Invariant: the apiserver learns the identity that was authenticated here and nothing that the
//! client says about identity, except a bearer token that reaches it untouched, over a connection
//! that carries no credentials of the proxy.

mod headers;
mod tunnel;

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, Version, header};

use crate::{
    authn::Identity,
    body::Body,
    callers::Place,
    drain::Drain,
    listener::{ConnectionInfo, Protocol},
    status::{ErrorFormat, Status},
    upstream::{AssertedIdentity, Pool, ResponseBody, Upstream, UpstreamError},
};

#[cfg(test)]
pub(crate) use self::headers::identify;
pub(crate) use self::headers::remove_hop_by_hop;
use self::tunnel::Upgrade;

/// How an identity that the proxy has to assert is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assertion {
    /// `X-Remote-*`, trusted because of the front proxy's certificate.
    RequestHeader,
    /// `Impersonate-*`, allowed because of the proxy's own rights.
    Impersonate,
}

impl From<&AssertedIdentity> for Assertion {
    fn from(identity: &AssertedIdentity) -> Self {
        match identity {
            AssertedIdentity::RequestHeader { .. } => Self::RequestHeader,
            AssertedIdentity::Impersonate => Self::Impersonate,
        }
    }
}

/// Marks the apiserver's answer to a request to upgrade. The apiserver has taken the connection over
/// by then, so the answer lacks what its HTTP server adds to others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToUpgrade;

/// Forwards requests. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Passthrough {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: Upstream,
    assertion: Assertion,
    drain: Drain,
}

impl Passthrough {
    /// Forwards to `upstream`; upgraded connections are `drain`'s.
    pub(crate) fn new(upstream: Upstream, assertion: Assertion, drain: Drain) -> Self {
        Self {
            shared: Arc::new(Shared {
                upstream,
                assertion,
                drain,
            }),
        }
    }

    /// Forwards `request` under `identity` and returns the apiserver's answer as it comes. What
    /// keeps it from coming is answered with a Status in the form of `errors`: 403 where the
    /// identity cannot be carried, 429 where all connections are full, 502 where the answer was
    /// lost, 503 where no apiserver can be reached. `place` is given back at the end of the answer,
    /// or of what it was upgraded to.
    pub(crate) async fn forward(
        &self,
        mut request: Request<Body>,
        connection: &ConnectionInfo,
        (identity, place): (&Identity, Option<Place>),
        errors: &ErrorFormat,
    ) -> Response<Body> {
        let upgrade = match connection.protocol {
            Protocol::Http1 => Upgrade::take(&mut request),
            Protocol::Http2 => None, // RFC 9113 8.6: there is none
        };
        let (mut parts, body) = request.into_parts();
        headers::remove_hop_by_hop(&mut parts.headers);
        let pool = match self.identify(&mut parts.headers, identity) {
            Ok(pool) => pool,
            Err(status) => return refuse(status, errors),
        };
        if let Some(credential) = parts.headers.get_mut(header::AUTHORIZATION) {
            credential.set_sensitive(true); // HTTP/2 would remember it in the connection's table
        }
        headers::append_forwarded_for(&mut parts.headers, connection.peer.ip());
        parts.extensions = http::Extensions::new();
        let answer = match upgrade {
            None => {
                self.shared
                    .upstream
                    .send(pool, Request::from_parts(parts, body))
                    .await
            }
            Some(upgrade) => {
                upgrade.ask(&mut parts.headers);
                let request = Request::from_parts(parts, body);
                match self.shared.upstream.open_upgrade(pool, request).await {
                    Ok(answer) => {
                        let is_accepted = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
                        let mut answer = if is_accepted {
                            upgrade.accept(answer, (place, &self.shared.drain))
                        } else {
                            relay(answer).map(|body| body.keep(place))
                        };
                        answer.extensions_mut().insert(ToUpgrade);
                        return answer;
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match answer {
            Ok(answer) => relay(answer).map(|body| body.keep(place)),
            Err(error) => refuse(status(&error), errors),
        }
    }

    /// Sends a request of the proxy's own as somebody else.
    ///
    /// # Errors
    /// As [`Upstream::send`]; also when the identity cannot be carried.
    pub(crate) async fn send_as(
        &self,
        mut request: Request<Body>,
        identity: &Identity,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let pool = self.identify(request.headers_mut(), identity);
        let pool = pool.map_err(|_status| {
            UpstreamError::Unreachable("the identity cannot travel in a header".to_owned())
        })?;
        self.shared.upstream.send(pool, request).await
    }

    /// Replaces what `headers` say about identity by `identity`, and tells on which connections the
    /// request must go. Hop-by-hop headers must be gone already: one of them could name what is
    /// added here.
    ///
    /// # Errors
    /// 403 when the identity cannot be carried.
    pub(crate) fn identify(
        &self,
        headers: &mut http::HeaderMap,
        identity: &Identity,
    ) -> Result<Pool, Status> {
        headers::identify(headers, identity, self.shared.assertion)
    }
}

/// The apiserver's answer as the client gets it.
fn relay(answer: Response<ResponseBody>) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    headers::remove_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    Response::from_parts(parts, Body::Upstream(Box::new(body), None))
}

fn refuse(status: Status, format: &ErrorFormat) -> Response<Body> {
    status.into_response(format).map(Body::full)
}

/// The Status of a request that got no answer. What went wrong inside is for the log.
pub(crate) fn status(error: &UpstreamError) -> Status {
    tracing::debug!(%error, "cannot forward");
    match error {
        UpstreamError::Unreachable(_) => {
            Status::unavailable("the proxy cannot reach an apiserver", 1)
        }
        UpstreamError::Full { .. } => {
            Status::too_many_requests("too many requests are being forwarded, please try again", 1)
        }
        UpstreamError::Failed { .. } => Status::new(
            502,
            "",
            "the apiserver did not answer; the request may or may not have been processed",
        ),
    }
}

/// A header value the proxy makes up itself.
fn value(bytes: &[u8]) -> Option<HeaderValue> {
    HeaderValue::from_bytes(bytes).ok()
}

/// Named here because both directions and the tunnel need them.
const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");
const CONNECTION: header::HeaderName = header::CONNECTION;

#[cfg(test)]
mod tests;
