//! Upgrades: WebSocket, SPDY and whatever comes next, as bytes.
//!
//! Owns: an upgrade from the client's request to the last byte in either direction.
//! Refuses: to understand the protocol that was switched to, and every version of HTTP, which would
//! hide requests in it: each could name any user, on a connection whose word is taken.
//! Invariant: bytes flow only after both sides switched; a side that ends its direction leaves the
//! other direction open.

use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use crate::{
    body::Body,
    callers::Place,
    drain::Drain,
    upstream::{ResponseBody, UpgradePlace},
};

use super::{
    CONNECTION, UPGRADE,
    headers::{has_token, remove_hop_by_hop, tokens},
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
    pub(super) fn take<B>(request: &mut Request<B>) -> Option<Self> {
        let headers = request.headers();
        let asked = headers
            .get_all(CONNECTION)
            .iter()
            .any(|it| has_token(it, b"upgrade"));
        let protocols = headers.get(header::UPGRADE)?.clone();
        if !asked || request.version() != Version::HTTP_11 || is_http(&protocols) {
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

/// Whether one of the protocols is HTTP.
fn is_http(protocols: &HeaderValue) -> bool {
    tokens(protocols).any(|it| {
        let name = it.split(|byte| *byte == b'/').next().unwrap_or_default();
        [&b"h2c"[..], b"h2", b"http"]
            .iter()
            .any(|http| name.eq_ignore_ascii_case(http))
    })
}

async fn join(client: Upgraded, server: Upgraded) {
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
    if let Err(error) = copied {
        tracing::debug!(%error, "a tunnel broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_version_of_http_is_tunnelled() {
        for (protocols, http) in [
            ("h2c", true),
            ("H2C", true),
            ("websocket, h2c", true),
            ("h2c;q=1", true),
            (" h2c ,", true),
            ("HTTP/2.0", true),
            ("http/1.1", true),
            ("h2", true),
            ("websocket", false),
            ("SPDY/3.1", false),
            ("h2cx", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(protocols);
            assert_eq!(is_http(&value), http, "{protocols:?}");
        }
    }
}
