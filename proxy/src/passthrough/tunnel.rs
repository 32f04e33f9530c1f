//! Upgrades: WebSocket, SPDY and whatever comes next, as bytes.
//!
//! Owns: an upgrade from the client's request to the last byte in either direction.
//! Refuses: to understand the protocol that was switched to, and `h2c`, which would hide requests
//! in it.
//! Invariant: bytes flow only after both sides switched; a side that ends its direction leaves the
//! other direction open.

use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use crate::{
    body::Body,
    callers::Place,
    drain::Drain,
    upstream::{ResponseBody, UpgradePlace},
};

use super::{
    CONNECTION, UPGRADE,
    headers::{has_token, remove_hop_by_hop},
};

/// Bytes in flight in each direction of a tunnel.
const BUFFER: usize = 16 << 10;

/// A client's wish to switch protocols.
pub(super) struct Upgrade {
    protocols: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// The wish of an HTTP/1.1 request, if it has one.
    pub(super) fn take(request: &mut Request<Incoming>) -> Option<Self> {
        let headers = request.headers();
        let asked = headers
            .get_all(CONNECTION)
            .iter()
            .any(|it| has_token(it, b"upgrade"));
        let protocols = headers.get(header::UPGRADE)?.clone();
        if !asked || request.version() != Version::HTTP_11 || has_token(&protocols, b"h2c") {
            return None;
        }
        Some(Self {
            protocols,
            client: hyper::upgrade::on(request),
        })
    }

    /// Says the same to the apiserver.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, self.protocols.clone());
    }

    /// The answer to the client; both sides are joined once it was sent. The caller's place is given
    /// back when they part.
    pub(super) fn accept(
        self,
        mut answer: Response<ResponseBody>,
        (callers, drain): (Option<Place>, &Drain),
    ) -> Response<Body> {
        let place: Option<UpgradePlace> = answer.extensions_mut().remove();
        let server = hyper::upgrade::on(&mut answer);
        let (mut parts, _no_body) = answer.into_parts();
        let chosen = parts.headers.get(header::UPGRADE).cloned();
        remove_hop_by_hop(&mut parts.headers);
        parts.headers.insert(CONNECTION, UPGRADE);
        parts
            .headers
            .insert(header::UPGRADE, chosen.unwrap_or(self.protocols));
        parts.extensions = http::Extensions::new();
        let client = self.client;
        drain.spawn(async move {
            let _kept = (place, callers);
            match futures_util::try_join!(client, server) {
                Ok((client, server)) => join(client, server).await,
                Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
            }
        });
        Response::from_parts(parts, Body::Empty)
    }
}

async fn join(client: Upgraded, server: Upgraded) {
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
    if let Err(error) = copied {
        tracing::debug!(%error, "a tunnel broke");
    }
}
