//! What may be a heartbeat of a node, from its body to its answer.
//!
//! Owns: the order of body, permit, absorption and, where that is not certain, the way to the
//! apiserver. Refuses: to know what a heartbeat is ([`crate::heartbeats`]).

use std::{sync::Arc, time::Duration};

use http::{Request, header};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{Answered, Handler, OWN_TIMEOUT};
use crate::{
    authn::Identity,
    authz::Attributes,
    body::Body,
    callers::Place,
    heartbeats::{Absorber, Beat, Head, Renewed},
    listener::ConnectionInfo,
    negotiate::ErrorsOf,
    request::{Doubt, Query, RequestInfo},
    serve::Reason,
    status::Status,
};

impl Handler {
    /// The answer to what may be a heartbeat of a node, by its head.
    pub(super) async fn heartbeat(
        &self,
        (absorber, head, request): (&Absorber, Head, Request<Incoming>),
        (connection, identity, place): (&Arc<ConnectionInfo>, &Identity, Option<Place>),
        (info, query): (&RequestInfo, &Query),
        patience: Duration,
    ) -> Answered {
        let deadline = Instant::now() + patience;
        let (mut parts, body) = request.into_parts();
        // A write of the absorber's goes upstream with these headers.
        self.authenticator.strip(&mut parts.headers);
        let errors = ErrorsOf {
            headers: &parts.headers,
            query,
        };
        let late = || Answered::refused(Status::request_timeout(), errors);
        let body = match timeout_at(deadline, head.collect(body)).await {
            Ok(Some(body)) => body,
            // Cut off by its client, which reads no answer.
            Ok(None) => {
                return Answered::refused(Status::bad_request("the body was cut off"), errors);
            }
            Err(_) => return late(),
        };
        let absorbing = async {
            let live = Arc::clone(&self.live.borrow());
            let attributes = Attributes::new(Arc::clone(&identity.user), info);
            let permit = self.authorizer.authorize(&attributes, &live.authorization);
            match permit.await {
                // The apiserver says it.
                Err(_) => Renewed::Forward,
                Ok(permit) => {
                    debug_assert!(permit.covers(info), "a permit is for one request");
                    let beat = Beat {
                        head: &head,
                        parts: &parts,
                        body: &body,
                        identity,
                        connection,
                        errors,
                    };
                    absorber.absorb(&beat).await
                }
            }
        };
        let absorbed = timeout_at(deadline, absorbing).await;
        let format = errors.format();
        let body = match absorbed {
            Err(_) => return late(),
            Ok(Renewed::Here(response)) => {
                let served = "heartbeat";
                return Answered { served, response }.keep(place);
            }
            Ok(Renewed::Forward) => body,
            Ok(Renewed::ForwardWith(body)) => {
                parts.headers.remove(header::CONTENT_LENGTH);
                body
            }
        };
        let request = Request::from_parts(parts, Body::full(body));
        let due = (Reason::Doubt(Doubt::Method), Some(deadline + OWN_TIMEOUT));
        let forwarding = self.forwarded(request, connection, (identity, place), due, &format);
        // Boxed: most heartbeats are answered here and need no room for it.
        let answered = Box::pin(forwarding).await;
        absorber.forwarded(&head, answered.response.status(), patience);
        answered
    }
}
