//! What a connection watches, and who it is.
//!
//! Owns the list of watches by number. Refuses to remember it: a path is made when it is asked for,
//! so that a hundred thousand idle watches cost no text.
//! Invariant: every watch of a kubelet is one that the Node authorizer grants it, provided that the
//! pod on its node mounts [`mounted`].

use anyhow::Result;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::apiserver::certs::{Pki, SharedKey};

/// Namespace of everything that has one.
pub const NAMESPACE: &str = "load";
/// ConfigMaps and secrets, of each so many.
pub const MOUNTED: usize = 20;
/// Watches of a kubelet that are not of mounted objects.
const OWN: usize = 6;

/// The watches of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// As a kubelet: its node, its pods, services, slices of nothing else; then what its pod mounts.
    Kubelet,
    /// Services only.
    Services,
    /// Pods of one node a watch; the first watch is of the node of that connection.
    Pods,
}

/// ConfigMaps (true) and secrets (false) by number that the pod on a node mounts for `watches`.
pub fn mounted(node: usize, watches: usize) -> impl Iterator<Item = (bool, usize)> {
    (OWN..watches).map(move |watch| mount(node, watch))
}

fn mount(node: usize, watch: usize) -> (bool, usize) {
    let at = watch - OWN;
    (at.is_multiple_of(2), (node + at / 2) % MOUNTED)
}

impl Plan {
    /// Path and query without version of a watch.
    pub(super) fn target(self, connection: usize, watch: usize) -> (String, String) {
        let core = |resource: &str| format!("/api/v1/{resource}");
        let by_name = |name: &str| format!("fieldSelector=metadata.name%3D{name}&");
        let on_node = |node: &str| format!("fieldSelector=spec.nodeName%3D{node}&");
        let node = node(connection);
        let services = || {
            let query = "fieldSelector=spec.clusterIP%21%3DNone&";
            (core("services"), query.to_owned())
        };
        match (self, watch) {
            (Self::Services, _) => services(),
            (Self::Pods, 0) => (core("pods"), on_node(&node)),
            (Self::Pods, _) => (core("pods"), on_node(&format!("{node}-{watch}"))),
            (Self::Kubelet, 0) => (core("nodes"), by_name(&node)),
            (Self::Kubelet, 1) => (core("pods"), on_node(&node)),
            (Self::Kubelet, 2) => services(),
            (Self::Kubelet, 3) => (
                "/apis/storage.k8s.io/v1/csidrivers".to_owned(),
                String::new(),
            ),
            (Self::Kubelet, 4) => (
                "/apis/node.k8s.io/v1/runtimeclasses".to_owned(),
                String::new(),
            ),
            (Self::Kubelet, 5) => {
                let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
                (path, by_name("kube-root-ca.crt"))
            }
            (Self::Kubelet, _) => {
                let (is_config, at) = mount(connection, watch);
                let (resource, kind) = if is_config {
                    ("configmaps", "config")
                } else {
                    ("secrets", "secret")
                };
                let path = format!("/api/v1/namespaces/{NAMESPACE}/{resource}");
                (path, by_name(&format!("{kind}-{at}")))
            }
        }
    }

    /// The certificate of a connection: of a kubelet, or of somebody who may watch all pods.
    pub(super) fn issue(
        self,
        pki: &Pki,
        key: &SharedKey,
        connection: usize,
    ) -> Result<CertificateDer<'static>> {
        match self {
            Self::Kubelet | Self::Services => {
                let user = format!("system:node:{}", node(connection));
                pki.issue_shared(key, &user, Some("system:nodes"))
            }
            Self::Pods => {
                let user = format!("loadtest-{connection}");
                pki.issue_shared(key, &user, Some("system:masters"))
            }
        }
    }
}

/// Name of the node of a connection.
#[must_use]
pub fn node(connection: usize) -> String {
    format!("node-{connection}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_of_a_node_mounts_all_that_its_kubelet_watches() {
        for node in [0, 7, 39] {
            let mounts: Vec<_> = mounted(node, 20).collect();
            for watch in OWN..20 {
                let (path, query) = Plan::Kubelet.target(node, watch);
                let (is_config, at) = mounts[watch - OWN];
                let kind = if is_config { "config" } else { "secret" };
                assert!(path.contains(kind), "{path}");
                assert!(query.ends_with(&format!("{kind}-{at}&")), "{query}");
            }
        }
    }

    #[test]
    fn no_two_watches_of_a_connection_are_the_same() {
        for plan in [Plan::Kubelet, Plan::Pods] {
            let targets = (0..OWN + 2 * MOUNTED).map(|watch| plan.target(3, watch));
            let targets: std::collections::BTreeSet<_> = targets.collect();
            assert_eq!(targets.len(), OWN + 2 * MOUNTED);
        }
    }
}
