//! A node lifecycle controller at work: informers, passes, and what it finds.
//!
//! Owns the caches of leases and nodes, read at the apiserver as kube-controller-manager reads them,
//! and the clock of the passes. Refuses to write: a loss is entered in the journal, and the Node
//! stays as it is.
//! Invariant: a pass looks at the caches and at nothing else, so what it does not know in time is
//! what a control plane would not know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::informer;
use super::journal::{Journal, Written};
use super::lifecycle::{Change, Lifecycle, Observed};
use crate::kubelet::client::Client;
use crate::kubelet::decode::Object;
use crate::kubelet::protobuf::{Fields, Malformed, find};

/// `--node-monitor-period`, from the end of a pass to the next one.
const PERIOD: Duration = Duration::from_secs(5);
const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// A controller that runs.
#[derive(Debug)]
pub struct Controller {
    journal: Arc<Journal>,
    /// By node.
    cache: Mutex<HashMap<String, Observed>>,
    lifecycle: Mutex<Lifecycle>,
    /// The longest time between two passes.
    longest: Mutex<Duration>,
}

impl Controller {
    /// A controller that enters in the journal what it hears and finds.
    #[must_use]
    pub fn new(grace: Duration, journal: Arc<Journal>) -> Self {
        Self {
            journal,
            cache: Mutex::default(),
            lifecycle: Mutex::new(Lifecycle::new(grace)),
            longest: Mutex::default(),
        }
    }

    /// Runs until it is dropped.
    pub async fn run(&self, client: &Client) {
        let nodes = informer::run(client, NODES, |is_gone, node| self.node(is_gone, node));
        let leases = informer::run(client, LEASES, |is_gone, lease| self.lease(is_gone, lease));
        tokio::join!(nodes, leases, self.monitor());
    }

    /// The longest time from one pass to the next so far.
    pub fn longest_period(&self) -> Duration {
        *self.longest.lock()
    }

    /// Nodes that are lost now.
    pub fn lost(&self) -> usize {
        self.lifecycle.lock().lost()
    }

    async fn monitor(&self) {
        loop {
            let last = Instant::now();
            sleep(PERIOD).await;
            let now = Instant::now();
            let mut longest = self.longest.lock();
            *longest = longest.max(now - last);
            drop(longest);
            self.pass(now);
        }
    }

    fn pass(&self, now: Instant) {
        let cache = self.cache.lock();
        let mut lifecycle = self.lifecycle.lock();
        for (name, observed) in cache.iter().filter(|(_, own)| own.heartbeat.is_some()) {
            match lifecycle.visit(now, name, *observed) {
                Some(Change::Lost) => self.journal.lost(now, name),
                Some(Change::Found) | None => {}
            }
        }
    }

    fn node(&self, is_gone: bool, node: &Object<'_>) {
        let name = node.metadata.name;
        if is_gone {
            self.cache.lock().remove(name);
            self.lifecycle.lock().forget(name);
            return;
        }
        let heartbeat = ready_heartbeat(node.message).unwrap_or_default();
        let mut cache = self.cache.lock();
        cache.entry(name.to_owned()).or_default().heartbeat = heartbeat;
    }

    fn lease(&self, is_gone: bool, lease: &Object<'_>) {
        let now = Instant::now();
        let mut renew_time = None;
        if !is_gone && let Ok(written) = written(lease) {
            renew_time = written.renew_time;
            let wall = Timestamp::now().as_microsecond();
            self.journal.written(now, wall, &written);
        }
        let name = lease.metadata.name.to_owned();
        self.cache.lock().entry(name).or_default().renew_time = renew_time;
    }
}

/// `lastHeartbeatTime` of the Ready condition in a Node.
fn ready_heartbeat(node: &[u8]) -> Result<Option<i64>, Malformed> {
    let status = find(node, 3)?.unwrap_or_default();
    for field in Fields::new(status) {
        let field = field?;
        if field.number == 4 && find(field.bytes, 1)? == Some(b"Ready") {
            let time = find(field.bytes, 3)?.unwrap_or_default();
            return Ok(Some(micros(time)? / 1_000_000));
        }
    }
    Ok(None)
}

/// What is held against the journal of a Lease.
fn written(lease: &Object<'_>) -> Result<Written, Malformed> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut written = Written {
        name: lease.metadata.name.to_owned(),
        uid: lease.metadata.uid.to_owned(),
        owner: String::new(),
        renew_time: None,
        managers: Vec::new(),
    };
    for field in Fields::new(find(lease.message, 1)?.unwrap_or_default()) {
        let field = field?;
        match field.number {
            13 => written.owner = text(find(field.bytes, 4)?.unwrap_or_default()),
            17 => {
                let manager = find(field.bytes, 1)?.unwrap_or_default();
                written.managers.push(text(manager));
            }
            _ => {}
        }
    }
    let spec = find(lease.message, 2)?.unwrap_or_default();
    if let Some(time) = find(spec, 4)? {
        written.renew_time = Some(micros(time)?);
    }
    Ok(written)
}

/// A Time or MicroTime.
fn micros(time: &[u8]) -> Result<i64, Malformed> {
    let mut micros = 0;
    for field in Fields::new(time) {
        let field = field?;
        match field.number {
            1 => micros += field.varint.cast_signed() * 1_000_000,
            2 => micros += field.varint.cast_signed() / 1_000,
            _ => {}
        }
    }
    Ok(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::{decode::unwrap, encode};

    #[test]
    fn a_lease_is_read_as_the_kubelet_wrote_it() {
        let now = Timestamp::from_microsecond(1_767_225_600_123_456).unwrap();
        let body = encode::lease("n", "node-uid", 40, now);
        let message = unwrap(&body).unwrap();
        let metadata = crate::kubelet::decode::Metadata {
            name: "n",
            ..Default::default()
        };
        let lease = written(&Object { metadata, message }).unwrap();
        assert_eq!(lease.renew_time, Some(now.as_microsecond()));
        assert_eq!(
            (lease.name.as_str(), lease.owner.as_str()),
            ("n", "node-uid")
        );
    }
}
