//! Renewals of leases through the proxy, as kubelets send them: what is absorbed, what is written,
//! and what must reach the apiserver as it came.
//!
//! Owns a cluster of one apiserver and its replicas, and a kubelet that renews when it is told to.
//! The kubelet echoes the bytes of the last answer, as client-go does, with another `renewTime`.

mod absorbed;
mod failover;
mod forwarded;
mod honest;
mod replicas;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use watershed_config::{Coalesce, Config, Heartbeats};
use watershed_heartbeats::{Bounds, Settings};
use watershed_loadtest::apiserver::{Apiserver, Options};

use crate::{
    client::{Answer, Client, JSON, PROTOBUF, Protocol, full},
    fixture::{Fixture, ask_admin},
    objects::{load, version},
    peer::metric,
};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// What stands before the time of a renewal in JSON.
const RENEW_TIME: &str = "\"renewTime\":\"";
/// Between two renewals where the cache has to see the first.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
/// How many bytes a time has.
const TIME_LEN: usize = "2026-01-01T00:00:00.500000Z".len();

/// An apiserver, and a replica that absorbs.
pub(crate) struct Cluster {
    pub(crate) apiserver: Apiserver,
    pub(crate) replica: Fixture,
}

/// Settings under which what is absorbed stays absorbed for as long as a test runs.
pub(crate) fn bounds() -> Settings {
    Settings {
        grace_period: Duration::from_mins(5),
        tolerated_losses: 2,
        latency_spread: Duration::from_secs(3),
        flush_period: None,
        peers: false,
    }
}

/// Has a proxy absorb renewals within `settings`.
pub(crate) fn absorb(config: &mut Config, settings: Settings) {
    config.startup.heartbeats = Heartbeats::Coalesce(Coalesce {
        bounds: Bounds::new(settings).unwrap(),
        nodes: 1_000,
        peers: None,
        node_status_period: Duration::ZERO,
    });
}

impl Cluster {
    pub(crate) async fn start(settings: Settings) -> anyhow::Result<Self> {
        let apiserver = Apiserver::start(Options::default()).await?;
        let replica = Fixture::start(&apiserver, |config| absorb(config, settings)).await?;
        Ok(Self { apiserver, replica })
    }

    /// A kubelet of a Node that exists, whose lease exists too, at the replica.
    pub(crate) async fn kubelet(&self, node: &str) -> anyhow::Result<Kubelet> {
        self.register(node, "a");
        let client = self.client(&self.replica, node)?;
        let mut kubelet = Kubelet::new(node, client);
        kubelet.create(&self.apiserver).await?;
        Ok(kubelet)
    }

    /// Creates the Node, one of two of that name.
    pub(crate) fn register(&self, node: &str, which: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {
            "name": node, "uid": uid(which), "creationTimestamp": "2026-01-01T00:00:00Z",
        }});
        load(&self.apiserver, ("", "nodes"), object);
    }

    /// The kubelet's own client at a replica.
    pub(crate) fn client(&self, replica: &Fixture, node: &str) -> anyhow::Result<Client> {
        let credential = self.apiserver.pki().issue_node(node)?;
        replica.client(&self.apiserver, Some(&credential), Protocol::Http2)
    }

    /// Somebody who may do everything, directly at the apiserver.
    pub(crate) fn admin(&self) -> anyhow::Result<Client> {
        let pki = self.apiserver.pki();
        let credential = pki.issue("admin", Some("system:masters"))?;
        let (address, ca) = (self.apiserver.addr(), pki.ca());
        Client::new(address, ca, Some(&credential), Protocol::Http2)
    }

    /// The lease as it is stored.
    pub(crate) async fn stored(&self, node: &str) -> anyhow::Result<Value> {
        self.admin()?.get(&format!("{LEASES}/{node}")).await?.ok()
    }

    /// PUTs of leases that reached the apiserver.
    pub(crate) fn writes(&self) -> u64 {
        let counters = self.apiserver.counters();
        counters.requests("update", "coordination.k8s.io", "leases")
    }

    /// Heartbeats of one outcome, as the metrics say.
    pub(crate) async fn outcomes(&self, outcome: &str) -> anyhow::Result<f64> {
        let name = format!("watershed_heartbeats_total{{outcome=\"{outcome}\"}}");
        metric(self.replica.proxy.admin_address(), &name).await
    }

    pub(crate) async fn stop(self) {
        self.replica.stop().await;
        self.apiserver.shutdown().await;
    }
}

/// The uid of one of two Nodes.
pub(crate) fn uid(which: &str) -> String {
    "xxxxxxxx-3adc-4ddb-bad2-43b47c7be773".replace('x', which)
}

/// Renews its lease.
pub(crate) struct Kubelet {
    pub(crate) node: String,
    pub(crate) client: Client,
    /// The last answer to a write.
    pub(crate) lease: Bytes,
    /// Of what it sends and accepts.
    pub(crate) media: &'static str,
    /// Of its last renewal, by its own clock.
    pub(crate) second: u32,
}

impl Kubelet {
    pub(crate) fn new(node: &str, client: Client) -> Self {
        Self {
            node: node.to_owned(),
            client,
            lease: Bytes::new(),
            media: JSON,
            second: 0,
        }
    }

    /// Creates its lease.
    pub(crate) async fn make(&mut self) -> anyhow::Result<()> {
        self.make_of(&uid("a")).await
    }

    /// Creates its lease, owned by the Node of that uid.
    pub(crate) async fn make_of(&mut self, owner: &str) -> anyhow::Result<()> {
        let body = json!({
            "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": self.node, "namespace": "kube-node-lease", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": owner},
            ]},
            "spec": {"holderIdentity": self.node, "leaseDurationSeconds": 40,
                "renewTime": time(0)},
        });
        let answer = self.client.write(Method::POST, LEASES, &body).await?;
        ensure!(answer.status == StatusCode::CREATED, "{}", answer.text());
        self.lease = answer.body;
        Ok(())
    }

    /// Creates its lease, and renews it until one renewal is absorbed.
    async fn create(&mut self, apiserver: &Apiserver) -> anyhow::Result<()> {
        self.make().await?;
        // The second one tells how far apart they are; none is absorbed before.
        for _renewal in 0..2 {
            let before = self.version()?;
            while self.version()? == before {
                let answer = self.renew().await?;
                ensure!(answer.status == StatusCode::OK, "{}", answer.text());
                tokio::time::sleep(PAUSE).await;
            }
        }
        // Until the cache has seen the last write.
        let counters = apiserver.counters();
        let writes = || counters.requests("update", "coordination.k8s.io", "leases");
        for _renewal in 0..400 {
            let before = writes();
            self.renew().await?;
            if writes() == before {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::bail!("no renewal was absorbed")
    }

    /// Renews, a second later by its clock, and keeps what is answered.
    pub(crate) async fn renew(&mut self) -> anyhow::Result<Answer> {
        self.second += 1;
        let body = self.renewed(self.second);
        let answer = self.put(body, "?timeout=10s", self.media).await?;
        if answer.status == StatusCode::OK {
            self.lease = answer.body.clone();
        }
        Ok(answer)
    }

    /// What it would send at a second of its clock.
    pub(crate) fn renewed(&self, second: u32) -> Vec<u8> {
        match self.media {
            PROTOBUF => in_protobuf(&self.lease, second),
            _ => in_json(&self.lease, second),
        }
    }

    pub(crate) async fn put(
        &self,
        body: impl Into<Bytes>,
        query: &str,
        accept: &str,
    ) -> anyhow::Result<Answer> {
        self.put_with(body, query, accept, &[]).await
    }

    pub(crate) async fn put_with(
        &self,
        body: impl Into<Bytes>,
        query: &str,
        accept: &str,
        headers: &[(&'static str, &str)],
    ) -> anyhow::Result<Answer> {
        let target = format!("{LEASES}/{}{query}", self.node);
        let mut request = self
            .client
            .request(Method::PUT, &target)
            .header("content-type", self.media);
        let sent = request.headers_mut().context("a request")?;
        sent.insert("accept", accept.parse()?);
        for (name, value) in headers {
            sent.insert(*name, value.parse()?);
        }
        self.client.whole(request.body(full(body))?).await
    }

    /// The resource version it was told last, where it is JSON.
    pub(crate) fn version(&self) -> anyhow::Result<u64> {
        version(&serde_json::from_slice(&self.lease)?)
    }
}

/// A time of a kubelet's clock.
pub(crate) fn time(second: u32) -> String {
    format!(
        "2026-01-01T00:{:02}:{:02}.500000Z",
        second / 60,
        second % 60
    )
}

/// The same lease, renewed.
fn in_json(lease: &[u8], second: u32) -> Vec<u8> {
    let text = std::str::from_utf8(lease).unwrap();
    let at = text.find(RENEW_TIME).unwrap() + RENEW_TIME.len();
    [&text[..at], &time(second), &text[at + TIME_LEN..]]
        .concat()
        .into_bytes()
}

/// The same in protobuf, where seconds and half seconds have a fixed length for a few thousand years.
fn in_protobuf(lease: &[u8], second: u32) -> Vec<u8> {
    let midnight = 1_767_225_600_u64;
    let seconds = |second: u32| {
        let mut left = midnight + u64::from(second);
        let mut bytes = vec![8];
        while left > 0x7f {
            bytes.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
            left >>= 7;
        }
        bytes.push(u8::try_from(left).unwrap());
        bytes.push(16);
        bytes
    };
    let found = (0..4_000).find_map(|second| {
        let old = seconds(second);
        let at = lease.windows(old.len()).position(|it| it == old)?;
        Some((at, old.len()))
    });
    let (at, len) = found.expect("a time of this clock");
    [&lease[..at], &seconds(second), &lease[at + len..]].concat()
}

/// What does not vary of an answer's head.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    headers["content-type"].to_str().unwrap()
}
