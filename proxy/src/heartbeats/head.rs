//! What may be a heartbeat by its head.
//!
//! Owns: caller, path, query, media types and length of a request that is worth looking into, which
//! is F1 of the predicate. Refuses: to read a body before its head says that it is short.
//! Invariant: the caller is the node that the path names.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Limited};
use watershed_cache::encoding::Encoding;

use crate::{
    authn::UserInfo,
    negotiate::{Action, Endpoint, Media, Negotiated, Transform, negotiate},
    request::{Doubt, Query},
};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/";
const NODES: &str = "/api/v1/nodes/";

/// A request that may be a heartbeat, as far as its head tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(super) what: What,
    pub(super) node: String,
    /// The body.
    pub(super) sent: Encoding,
    /// The answer.
    pub(super) accepted: Encoding,
}

/// What it is that may be a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A PUT of the node's lease.
    Lease,
    /// A strategic merge patch of the Node's status.
    Status,
}

impl What {
    /// Longer bodies are not looked into: a lease has some 900 bytes; a patch that is a heartbeat
    /// some 440, a whole status some 15,000.
    const fn body_max(self) -> usize {
        match self {
            Self::Lease => 16 << 10,
            Self::Status => 64 << 10,
        }
    }
}

impl Head {
    /// What `request` may be. `None` for everything else.
    pub(crate) fn of<B>(request: &Request<B>, query: &Query, user: &UserInfo) -> Option<Self> {
        let (path, headers) = (request.uri().path(), request.headers());
        let (what, node) = match *request.method() {
            Method::PUT => (What::Lease, path.strip_prefix(LEASES)?),
            Method::PATCH => {
                let node = path.strip_prefix(NODES)?.strip_suffix("/status")?;
                (What::Status, node)
            }
            _ => return None,
        };
        let own = user.name.strip_prefix("system:node:");
        let plain = own == Some(node)
            && user.is_node()
            && query.has_only("timeout")
            && Doubt::of_headers(headers).is_none()
            && !headers.contains_key(header::CONTENT_ENCODING)
            && length(headers).is_some_and(|length| length <= what.body_max());
        if !plain {
            return None;
        }
        Some(Self {
            what,
            node: node.to_owned(),
            sent: sent(what, headers)?,
            accepted: accepted(headers, query)?,
        })
    }

    /// Whether what becomes of it says whether writes of leases arrive.
    pub(crate) const fn is_renewal(&self) -> bool {
        matches!(self.what, What::Lease)
    }

    /// The body, which the head says is short. `None` if it does not come.
    pub(crate) async fn collect<B>(&self, body: B) -> Option<Bytes>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let collected = Limited::new(body, self.what.body_max()).collect().await;
        collected.ok().map(http_body_util::Collected::to_bytes)
    }
}

fn length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn sent(what: What, headers: &HeaderMap) -> Option<Encoding> {
    let media_type = headers.get(header::CONTENT_TYPE)?.as_bytes();
    match (what, media_type) {
        (What::Lease, b"application/vnd.kubernetes.protobuf") => Some(Encoding::Protobuf),
        (What::Lease, b"application/json")
        | (What::Status, b"application/strategic-merge-patch+json") => Some(Encoding::Json),
        (What::Lease | What::Status, _) => None,
    }
}

fn accepted(headers: &HeaderMap, query: &Query) -> Option<Encoding> {
    let endpoint = Endpoint {
        action: Action::Get,
        custom: false,
    };
    match negotiate(headers, query, endpoint).ok()? {
        Negotiated {
            media: Media::Json { pretty: false },
            transform: Transform::None,
        } => Some(Encoding::Json),
        Negotiated {
            media: Media::Protobuf,
            transform: Transform::None,
        } => Some(Encoding::Protobuf),
        Negotiated { .. } => None,
    }
}
