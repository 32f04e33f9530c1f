//! One attempt to have a request answered by one server, and what its failure means.
//!
//! Owns: the shape a request has for one server, and the reading of hyper's errors.
//! Refuses: to try again; whether that is safe is in the answer, and what to do in `upstream.rs`.
//! Invariant: [`Attempt::NotSent`] gives back the body whole.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, Uri, Version, header, request::Parts};
use hyper::client::conn::TrySendError;
use tokio::sync::Semaphore;

use crate::{body::Body, drain::Drain, metrics::Metrics};

use super::{
    Pool, ResponseBody, UpstreamError, UpstreamOptions,
    credentials::{Identities, Tls},
    dial::Dialer,
    nearby::Nearby,
    pool::{Connections, Lease, NoConnection},
    server::{Address, Availability},
};

/// One apiserver and the connections to it.
pub(super) struct Server {
    pub(super) dialer: Dialer,
    pub(super) availability: Arc<Availability>,
    /// Connections at once with one identity.
    limit: usize,
    own: Arc<Connections>,
    asserted: Nearby,
    bare: Nearby,
}

/// What became of one attempt.
pub(super) enum Attempt {
    /// The head of the answer came.
    Answered(Response<ResponseBody>),
    /// Nothing was sent: the body is as it was.
    NotSent(UpstreamError, Body),
    /// It was sent, and the server may or may not have processed it.
    Lost(UpstreamError),
    /// It was sent, and the server says it did not process it.
    Refused(UpstreamError),
}

impl Server {
    pub(super) fn new(
        address: Address,
        options: &UpstreamOptions,
        drain: &Drain,
        metrics: &Metrics,
    ) -> Self {
        let dialer = Dialer {
            address,
            timeout: options.connect_timeout,
            keep_alive: (options.keep_alive_interval, options.keep_alive_timeout),
        };
        let availability = Arc::new(Availability::default());
        let limit = options.connections_per_pool;
        let connections = |pool| {
            let (dialer, availability) = (dialer.clone(), Arc::clone(&availability));
            let owners = (drain.clone(), metrics.upstream_connections.clone());
            let places = Arc::new(Semaphore::new(limit));
            move |runtime| {
                let (dialer, availability) = (dialer.clone(), Arc::clone(&availability));
                let run = (runtime, Arc::clone(&places));
                Connections::new(pool, dialer, availability, owners.clone(), run)
            }
        };
        Self {
            limit,
            own: connections(Pool::Own)(drain.home().clone()),
            asserted: Nearby::new(connections(Pool::Asserted)),
            bare: Nearby::new(connections(Pool::Bare)),
            dialer,
            availability,
        }
    }

    /// Opens a connection in the background, unless one is being opened.
    pub(super) fn probe(&self, pool: Pool, tls: &Tls) {
        match pool {
            Pool::Own => self.own.probe(tls),
            Pool::Asserted => self.asserted.here().probe(tls),
            Pool::Bare => self.bare.here().probe(tls),
        }
    }

    async fn lease(&self, pool: Pool, tls: &Tls) -> Result<Lease, NoConnection> {
        match pool {
            Pool::Own => self.own.lease(tls).await,
            Pool::Asserted => self.asserted.lease(tls).await,
            Pool::Bare => self.bare.lease(tls).await,
        }
    }

    pub(super) async fn attempt(
        &self,
        pool: Pool,
        identities: &Identities,
        parts: &Parts,
        body: Body,
    ) -> Attempt {
        let tls: &Tls = identities.tls(pool);
        let mut lease: Lease = match self.lease(pool, tls).await {
            Ok(lease) => lease,
            Err(reason) => return Attempt::NotSent(self.no_connection(reason), body),
        };
        let request = self.address_to(parts, body, identities.token(pool), lease.is_http2());
        match lease.send(request).await {
            Ok(answer) => {
                self.availability.worked();
                Attempt::Answered(answer.map(|it| ResponseBody::new(it, Some(lease))))
            }
            Err(mut failure) => self.failed(&mut failure),
        }
    }

    fn failed(&self, failure: &mut TrySendError<Request<Body>>) -> Attempt {
        let server = self.dialer.address.authority.to_string();
        let reason = with_causes(failure.error());
        if let Some(unsent) = failure.take_message() {
            let error = UpstreamError::Unreachable(format!("{server}: {reason}"));
            return Attempt::NotSent(error, unsent.into_body());
        }
        if not_processed(failure.error()) {
            return Attempt::Refused(UpstreamError::Failed { server, reason });
        }
        Attempt::Lost(self.lost(failure.error()))
    }

    pub(super) fn lost(&self, error: &hyper::Error) -> UpstreamError {
        // A stream that was reset, and what a client did to its own request, say nothing about the
        // server.
        let one_stream = h2_cause(error).is_some_and(h2::Error::is_reset);
        if !one_stream && !error.is_user() {
            self.availability.failed();
        }
        let server = self.dialer.address.authority.to_string();
        UpstreamError::Failed {
            server,
            reason: with_causes(error),
        }
    }

    fn no_connection(&self, reason: NoConnection) -> UpstreamError {
        match reason {
            NoConnection::Unreachable(reason) => UpstreamError::Unreachable(reason),
            NoConnection::Full => UpstreamError::Full {
                server: self.dialer.address.authority.to_string(),
                connections: self.limit,
            },
        }
    }

    /// The request as this server must see it.
    pub(super) fn address_to(
        &self,
        parts: &Parts,
        body: Body,
        token: Option<&HeaderValue>,
        http2: bool,
    ) -> Request<Body> {
        let mut parts = parts.clone();
        let Address {
            scheme, authority, ..
        } = &self.dialer.address;
        let target = parts.uri.path_and_query().cloned();
        let target = target.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        if http2 {
            parts.version = Version::HTTP_2;
            parts.headers.remove(header::HOST);
            let mut uri = http::uri::Parts::default();
            uri.scheme = Some(scheme.clone());
            uri.authority = Some(authority.clone());
            uri.path_and_query = Some(target);
            parts.uri = Uri::from_parts(uri).expect("scheme, authority and path make a URI");
        } else {
            parts.version = Version::HTTP_11;
            let host =
                HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII");
            parts.headers.insert(header::HOST, host);
            parts.uri = Uri::from(target);
        }
        if let Some(token) = token {
            parts.headers.insert(header::AUTHORIZATION, token.clone());
        }
        Request::from_parts(parts, body)
    }
}

/// True when the server said that it did not touch the request: the stream was refused, or is above
/// the last one that a GOAWAY names.
fn not_processed(error: &hyper::Error) -> bool {
    h2_cause(error).is_some_and(|error| {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || refused)
    })
}

fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
