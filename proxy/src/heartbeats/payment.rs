//! The payment of a debt: the write that a replica which is gone would have made.
//!
//! Owns: the request. It goes out under the node's own identity, as a renewal does, and says that
//! the field is the kubelet's, so that the lease has one manager. Refuses: to write into anything
//! but the newest known lease of a Node that is there, and anything that this lease does not lack.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;
use watershed_cache::{Object, WatchCache};
use watershed_heartbeats::{Debt, Outcome, Uid};

use super::{
    Ledger,
    leases::{self, FRESH, LEASES, NAMESPACE, NODES, lease_in},
    peers::{Paid, Store},
    renewal::{ANSWER_MAX, WRITE_MAX, newest, outcome_of},
};
use crate::{
    authn::{Credential, Identity, UserInfo},
    body::Body,
    caches::Caches,
    passthrough::Passthrough,
};

/// Writes into the apiserver what its caches of leases lack.
pub(crate) struct Payments {
    pub(super) ledger: Arc<Ledger>,
    pub(super) caches: Caches,
    pub(super) passthrough: Passthrough,
}

impl Store for Payments {
    async fn pay(&self, debt: &Debt) -> Paid {
        let Some(cache) = self.leases() else {
            return Paid::Failed;
        };
        let lease = cache.snapshot().ok();
        let mut lease = lease.and_then(|leases| lease_in(&leases, &debt.node));
        for _attempt in 0..2 {
            let Some(object) = lease else {
                let is_known = cache.is_fresh(FRESH);
                return if is_known {
                    Paid::Needless
                } else {
                    Paid::Failed
                };
            };
            let Some(nodes) = NODES.iter().find_map(|key| self.caches.ready(key)) else {
                return Paid::Failed;
            };
            let Some(body) = body(debt, &object, leases::uid_in(&nodes, &debt.node)) else {
                return Paid::Needless;
            };
            let outcome = self.put(&debt.node, &object, body).await;
            match outcome {
                Outcome::Written(_) | Outcome::Failed => {
                    let arrived = outcome != Outcome::Failed;
                    self.ledger.with(|now, table| table.forwarded(now, arrived));
                    return if arrived { Paid::Written } else { Paid::Failed };
                }
                Outcome::Needless(_) | Outcome::Missing | Outcome::Refused => {
                    return Paid::Needless;
                }
                Outcome::Conflict => lease = newest(&cache, &debt.node).await,
            }
        }
        Paid::Failed
    }
}

impl Payments {
    /// The leases in an encoding that is cached.
    fn leases(&self) -> Option<WatchCache> {
        LEASES.iter().find_map(|key| self.caches.ready(key))
    }

    async fn put(&self, node: &str, lease: &Object, body: Vec<u8>) -> Outcome {
        let path = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{node}?fieldManager=kubelet"
        );
        let media_type = HeaderValue::from_static(lease.encoding().media_type());
        let request = Request::builder()
            .method(Method::PUT)
            .uri(path)
            .header(header::CONTENT_TYPE, media_type.clone())
            .header(header::ACCEPT, media_type)
            .header(header::USER_AGENT, "watershed/heir")
            .body(Body::full(body))
            .expect("the name of a node can stand in a path");
        let answering = async {
            let answer = self.passthrough.send_as(request, &identity(node)).await;
            let (head, body) = answer.ok()?.into_parts();
            // To the end, or the stream would be reset.
            Limited::new(body, ANSWER_MAX).collect().await.ok()?;
            Some(outcome_of(head.status))
        };
        let answered = timeout(WRITE_MAX, answering).await;
        answered.ok().flatten().unwrap_or(Outcome::Failed)
    }
}

/// What is to be written into the cached lease; `None` if nothing is, or it is no longer that of the
/// Node there is.
fn body(debt: &Debt, object: &Object, node: Option<Uid>) -> Option<Vec<u8>> {
    let lease = leases::read(object).ok()?;
    let owner = lease.owner()?;
    let is_owned = owner.name == debt.node.as_bytes() && Some(owner.uid) == node;
    is_owned.then(|| debt.body(&lease).ok())?
}

/// As the certificate of its kubelet names it.
fn identity(node: &str) -> Identity {
    let groups = ["system:nodes", "system:authenticated"];
    let user = UserInfo {
        name: format!("system:node:{node}"),
        groups: groups.map(str::to_owned).into(),
        ..UserInfo::default()
    };
    Identity {
        user: Arc::new(user),
        credential: Credential::Certificate,
        warning: None,
    }
}
