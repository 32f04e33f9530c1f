//! Churn: what users and controllers write while kubelets watch.
//!
//! Owns the population (services, slices, ConfigMaps, secrets, one pod per node), a rate-limited
//! stream of writes over it, and the ledger of what the server acknowledged. Refuses to be a
//! kubelet: pods are started and ended by those they are bound to.
//! Invariant: no two writes to one object are in flight at a time, so the ledger knows every version
//! of every object that only the churn writes.

mod ledger;
mod population;

pub use ledger::{Ledger, Write};

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::kubelet::client::{Call, Client};
use crate::kubelet::decode::SENT_ANNOTATION;
use crate::kubelet::stats::Log;
use crate::measure::{Latency, micros};

/// Writes in flight at one time; beyond it the rate falls and [`Churn::late`] counts.
const IN_FLIGHT_MAX: usize = 64;
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

/// How often each kind of write comes, relative to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// A pod is created and bound to a random node.
    pub pod_creations: u32,
    /// A pod is deleted with its grace period.
    pub pod_deletions: u32,
    /// An annotation of a pod changes.
    pub pod_updates: u32,
    /// A ConfigMap changes.
    pub config_maps: u32,
    /// A secret changes.
    pub secrets: u32,
    /// A service changes: every kubelet hears of it.
    pub services: u32,
    /// An EndpointSlice changes.
    pub endpoint_slices: u32,
    /// A label of a node changes.
    pub node_labels: u32,
}

impl Mix {
    /// A cluster at work.
    pub const ALL: Self = Self {
        pod_creations: 4,
        pod_deletions: 4,
        pod_updates: 6,
        config_maps: 2,
        secrets: 1,
        services: 1,
        endpoint_slices: 4,
        node_labels: 2,
    };
    /// Services only.
    pub const BROADCAST: Self = Self {
        pod_creations: 0,
        pod_deletions: 0,
        pod_updates: 0,
        config_maps: 0,
        secrets: 0,
        services: 1,
        endpoint_slices: 0,
        node_labels: 0,
    };

    fn choose(self, rng: &mut Rng) -> Kind {
        let weights = [
            (Kind::CreatePod, self.pod_creations),
            (Kind::DeletePod, self.pod_deletions),
            (Kind::UpdatePod, self.pod_updates),
            (Kind::ConfigMap, self.config_maps),
            (Kind::Secret, self.secrets),
            (Kind::Service, self.services),
            (Kind::EndpointSlice, self.endpoint_slices),
            (Kind::NodeLabel, self.node_labels),
        ];
        let sum: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut point = rng.u32(0..sum.max(1));
        for (kind, weight) in weights {
            match point.checked_sub(weight) {
                None => return kind,
                Some(rest) => point = rest,
            }
        }
        Kind::Service
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    CreatePod,
    DeletePod,
    UpdatePod,
    ConfigMap,
    Secret,
    Service,
    EndpointSlice,
    NodeLabel,
}

/// What is written, and how fast.
#[derive(Debug, Clone)]
pub struct ChurnOptions {
    /// Writes per second.
    pub writes_per_second: f64,
    /// Seed of every choice.
    pub seed: u64,
    /// Kinds of writes.
    pub mix: Mix,
    /// Nodes to bind pods to.
    pub nodes: Vec<String>,
    /// Bytes of payload in an update. Default 512: an event of about 1 KB.
    pub payload: usize,
}

impl ChurnOptions {
    /// Options with defaults: everything, 20 writes per second.
    #[must_use]
    pub fn new(nodes: Vec<String>) -> Self {
        Self {
            writes_per_second: 20.0,
            seed: 1,
            mix: Mix::ALL,
            nodes,
            payload: 512,
        }
    }
}

/// The writer.
#[derive(Debug)]
pub struct Churn {
    client: Client,
    options: ChurnOptions,
    rng: Rng,
    pods: Vec<String>,
    next_pod: u64,
    /// Keeps the pods of this run apart from those an earlier one left behind.
    run: u32,
    busy: HashSet<(&'static str, String)>,
    shared: Arc<Shared>,
}

/// What others may see of the churn while it runs.
#[derive(Debug, Default)]
pub struct Shared {
    /// Acknowledged writes.
    pub ledger: Ledger,
    /// Writes acknowledged so far.
    pub writes: AtomicU64,
    /// Writes that came later than the rate asks for.
    pub late: AtomicU64,
    /// From sending a write to its acknowledgement.
    pub latency: Latency,
    /// Writes that were refused.
    pub errors: Log,
}

/// One write before it is sent.
struct Plan {
    kind: Kind,
    name: String,
    resource: &'static str,
    calls: Vec<Call>,
}

/// One write after it.
struct Done {
    kind: Kind,
    name: String,
    resource: &'static str,
    answer: Result<Option<Value>, String>,
}

impl Churn {
    /// A writer that has written nothing yet.
    #[must_use]
    pub fn new(client: Client, options: ChurnOptions) -> Self {
        Self {
            client,
            rng: Rng::with_seed(options.seed),
            options,
            pods: Vec::new(),
            next_pod: 0,
            run: fastrand::u32(..),
            busy: HashSet::new(),
            shared: Arc::default(),
        }
    }

    /// What it has written.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Changes the nodes that pods are bound to.
    pub fn set_nodes(&mut self, nodes: Vec<String>) {
        self.options.nodes = nodes;
    }

    /// Writes at the given rate until `stop`, then waits for the writes in flight.
    pub async fn run(&mut self, stop: &CancellationToken) {
        let period = Duration::from_secs_f64(1.0 / self.options.writes_per_second.max(0.01));
        let mut pace = interval(period);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut in_flight = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = in_flight.next() => self.finish(done),
                due = pace.tick(), if in_flight.len() < IN_FLIGHT_MAX => {
                    if due.elapsed() > period + Duration::from_millis(50) {
                        self.shared.late.fetch_add(1, Ordering::Relaxed);
                    }
                    let kind = self.options.mix.choose(&mut self.rng);
                    if let Some(plan) = self.plan(kind) {
                        in_flight.push(send(self.client.clone(), plan, Arc::clone(&self.shared)));
                    }
                }
            }
        }
        while let Some(done) = in_flight.next().await {
            self.finish(done);
        }
    }

    fn finish(&mut self, done: Done) {
        self.busy.remove(&(done.resource, done.name.clone()));
        let object = match done.answer {
            Ok(object) => object,
            Err(text) => {
                self.shared.errors.add(text);
                return;
            }
        };
        self.shared.writes.fetch_add(1, Ordering::Relaxed);
        match (done.kind, &object) {
            (Kind::CreatePod, Some(_)) => self.pods.push(done.name),
            (Kind::UpdatePod, None) => self.pods.retain(|pod| *pod != done.name),
            _ => {}
        }
        if let Some(object) = object {
            self.shared.ledger.note_object(done.resource, &object);
        }
    }

    /// The next write of a kind; none when every object of the kind is being written.
    fn plan(&mut self, kind: Kind) -> Option<Plan> {
        use population::{POPULATION, named};
        let any = self.rng.usize(0..POPULATION);
        let (resource, name, calls) = match kind {
            Kind::CreatePod => {
                let name = format!("pod-{:08x}-{}", self.run, self.next_pod);
                self.next_pod += 1;
                let node = self.rng.choice(&self.options.nodes)?.clone();
                let calls = population::pod(&name, &node, any);
                ("pods", name, calls)
            }
            Kind::DeletePod => {
                let name = self.rng.choice(&self.pods)?.clone();
                let path = population::path("pods", &name);
                (
                    "pods",
                    name,
                    vec![Call::write(Method::DELETE, path, JSON, "{}").json()],
                )
            }
            Kind::UpdatePod => {
                let name = self.rng.choice(&self.pods)?.clone();
                let call = self.patch("pods", &name, json!({}));
                ("pods", name, vec![call])
            }
            Kind::ConfigMap => {
                let (name, data) = (named("config", any), json!({"data": {"key": self.text()}}));
                let call = self.patch("configmaps", &name, data);
                ("configmaps", name, vec![call])
            }
            Kind::Secret => {
                let (name, data) = (
                    named("secret", any),
                    json!({"stringData": {"key": self.text()}}),
                );
                let call = self.patch("secrets", &name, data);
                ("secrets", name, vec![call])
            }
            Kind::Service => {
                let (name, text) = (named("service", any), self.text());
                let noise = json!({"metadata": {"annotations": {"watershed.dev/payload": text}}});
                let call = self.patch("services", &name, noise);
                ("services", name, vec![call])
            }
            Kind::EndpointSlice => {
                let (name, call) = self.endpoint_slice(any);
                ("endpointslices", name, vec![call])
            }
            Kind::NodeLabel => {
                let name = self.rng.choice(&self.options.nodes)?.clone();
                let flip = self.rng.u32(..).to_string();
                let label = json!({"metadata": {"labels": {"watershed.dev/flip": flip}}});
                let call = self.patch("nodes", &name, label);
                ("nodes", name, vec![call])
            }
        };
        if !self.busy.insert((resource, name.clone())) {
            return None;
        }
        if kind == Kind::DeletePod {
            self.pods.retain(|pod| *pod != name);
        }
        Some(Plan {
            kind,
            name,
            resource,
            calls,
        })
    }

    fn endpoint_slice(&mut self, any: usize) -> (String, Call) {
        let name = population::named("slice", any);
        let endpoints: Vec<Value> = (0..8)
            .map(|_| format!("10.{}.{}.1", self.rng.u8(..), self.rng.u8(..)))
            .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
            .collect();
        let call = self.patch("endpointslices", &name, json!({"endpoints": endpoints}));
        (name, call)
    }

    /// A merge patch that carries its send time.
    fn patch(&self, resource: &str, name: &str, mut patch: Value) -> Call {
        patch["metadata"]["annotations"][SENT_ANNOTATION] = json!(micros().to_string());
        let path = population::path(resource, name);
        Call::write(Method::PATCH, path, MERGE_PATCH, patch.to_string()).json()
    }

    fn text(&mut self) -> String {
        (0..self.options.payload)
            .map(|_| self.rng.alphanumeric())
            .collect()
    }
}

/// Sends the calls of a write one after the other; the answer is the last one's object, or none
/// when it is gone.
async fn send(client: Client, plan: Plan, shared: Arc<Shared>) -> Done {
    let Plan {
        kind,
        name,
        resource,
        calls,
    } = plan;
    let started = Instant::now();
    let mut object = None;
    for call in calls {
        let answer = match client.call(&call, WRITE_TIMEOUT).await {
            Ok(answer) => answer,
            Err(error) => {
                let answer = Err(format!("write {resource}/{name}: {error}"));
                return Done {
                    kind,
                    name,
                    resource,
                    answer,
                };
            }
        };
        let code = answer.status;
        if !code.is_success() && code != StatusCode::NOT_FOUND {
            let text = String::from_utf8_lossy(&answer.body);
            let answer = Err(format!("write {resource}/{name}: {code} {}", text.trim()));
            return Done {
                kind,
                name,
                resource,
                answer,
            };
        }
        let is_object = code
            .is_success()
            .then(|| serde_json::from_slice(&answer.body).ok());
        object = is_object.flatten();
    }
    shared.latency.record(started.elapsed());
    Done {
        kind,
        name,
        resource,
        answer: Ok(object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_yields_each_kind_as_often_as_its_weight_says() {
        let mut rng = Rng::with_seed(7);
        let mut counts = std::collections::BTreeMap::<Kind, u32>::new();
        for _ in 0..24_000 {
            *counts.entry(Mix::ALL.choose(&mut rng)).or_default() += 1;
        }
        assert_eq!(counts.len(), 8);
        assert!(
            (5500..6500).contains(&counts[&Kind::UpdatePod]),
            "{counts:?}"
        );
        assert!((800..1200).contains(&counts[&Kind::Service]), "{counts:?}");
        assert!((0..100).all(|_| Mix::BROADCAST.choose(&mut rng) == Kind::Service));
    }
}
