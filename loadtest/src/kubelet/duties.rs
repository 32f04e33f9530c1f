//! What a kubelet does unasked: registers its node, reports its status, renews its lease.
//!
//! Owns the order and the retries of these calls, as kubelet 1.36 makes them. Refuses to judge
//! answers beyond what decides the next call; the rest is noted as an error.
//! Invariant: nothing is said of a node, its lease included, before it is registered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::time::sleep;

use super::client::{Answer, Call, CallError, PROTOBUF};
use super::decode::{Object, unwrap};
use super::lease::{Renewer, Sender, expect};
use super::{CALL_TIMEOUT, HEARTBEAT_TIMEOUT, Kubelet, encode};

const STRATEGIC_MERGE: &str = "application/strategic-merge-patch+json";
/// A healthy node reports its status this often when nothing changes.
const STATUS_PERIOD: Duration = Duration::from_secs(300);

/// Registers the node and reports its status for ever.
pub(super) async fn node(kubelet: Arc<Kubelet>) {
    let has_csi_node = find_csi_node(&kubelet).await;
    let uid = register(&kubelet).await;
    report(&kubelet, encode::node_status(Timestamp::now())).await;
    if !has_csi_node {
        let body = encode::csi_node(&kubelet.name, &uid);
        let call = Call::write(
            Method::POST,
            "/apis/storage.k8s.io/v1/csinodes",
            PROTOBUF,
            body,
        );
        let answer = kubelet.call(&call, CALL_TIMEOUT).await;
        expect(
            &*kubelet,
            "create CSINode",
            answer,
            &[StatusCode::CREATED, StatusCode::CONFLICT],
        );
    }
    kubelet.node.send_replace(Some(uid));
    kubelet.step();
    let mut wait = STATUS_PERIOD.mul_f64(0.5 + fastrand::f64()); // only the first is spread
    loop {
        sleep(wait).await;
        report(&kubelet, encode::node_heartbeat(Timestamp::now())).await;
        wait = STATUS_PERIOD;
    }
}

/// Asks each second until there is an answer.
async fn find_csi_node(kubelet: &Kubelet) -> bool {
    let path = format!(
        "/apis/storage.k8s.io/v1/csinodes/{}?resourceVersion=0",
        kubelet.name
    );
    loop {
        let answer = kubelet.call(&Call::read(&path), CALL_TIMEOUT).await;
        if let Ok(answer) = &answer
            && matches!(answer.status, StatusCode::OK | StatusCode::NOT_FOUND)
        {
            return answer.status == StatusCode::OK;
        }
        expect(kubelet, "get CSINode", answer, &[]);
        sleep(Duration::from_secs(1)).await;
    }
}

/// Creates the Node, or finds it; the answer is its UID.
async fn register(kubelet: &Kubelet) -> String {
    let mut wait = Duration::from_millis(100);
    loop {
        let body = encode::node(&kubelet.name);
        let call = Call::write(Method::POST, "/api/v1/nodes", PROTOBUF, body);
        let answer = kubelet.call(&call, CALL_TIMEOUT).await;
        let expected = [
            StatusCode::CREATED,
            StatusCode::CONFLICT,
            StatusCode::FORBIDDEN,
        ];
        if let Some(answer) = expect(kubelet, "register the node", answer, &expected) {
            let uid = match answer.status {
                StatusCode::CREATED => uid_of(&answer),
                _ => node_uid(kubelet).await,
            };
            if let Some(uid) = uid {
                return uid;
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(7));
    }
}

async fn node_uid(kubelet: &Kubelet) -> Option<String> {
    let call = Call::read(format!("/api/v1/nodes/{}", kubelet.name));
    let answer = kubelet.call(&call, CALL_TIMEOUT).await;
    uid_of(&expect(kubelet, "get the node", answer, &[StatusCode::OK])?)
}

fn uid_of(answer: &Answer) -> Option<String> {
    let object = Object::decode(unwrap(&answer.body).ok()?).ok()?;
    Some(object.metadata.uid.to_owned())
}

async fn report(kubelet: &Kubelet, body: Bytes) {
    let path = format!("/api/v1/nodes/{}/status?timeout=10s", kubelet.name);
    let call = Call::write(Method::PATCH, path, STRATEGIC_MERGE, body);
    let answer = kubelet.call(&call, HEARTBEAT_TIMEOUT).await;
    expect(kubelet, "patch the node status", answer, &[StatusCode::OK]);
}

/// Holds and renews the lease for ever, once the node is registered.
pub(super) async fn lease(kubelet: Arc<Kubelet>) {
    let mut node = kubelet.node.subscribe();
    if node.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let mut renewer = Renewer::new(&kubelet.name);
    let mut is_first = true;
    loop {
        renewer.sync(&*kubelet).await;
        if renewer.is_held() && std::mem::take(&mut is_first) {
            kubelet.step();
        }
        sleep(renewer.pause()).await;
    }
}

impl Sender for Kubelet {
    async fn call(&self, call: &Call, limit: Duration) -> Result<Answer, CallError> {
        Self::call(self, call, limit).await
    }

    fn renews(&self, _renew_time: Timestamp) {}

    fn renewed(&self) {
        self.stats.renewals.fetch_add(1, Ordering::Relaxed);
    }

    fn unexpected(&self, what: &str, answer: &Answer) {
        Self::unexpected(self, what, answer);
    }
}
