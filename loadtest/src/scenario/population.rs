//! What watchers see: nodes, pods, services and what pods mount.
//!
//! Owns the names and shapes of the objects and their first beat. Refuses to change them later:
//! that is the writer's.
//! Invariant: creating it again is as good as once, whatever an earlier run has left.

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::writer::{Lane, TIMEOUT, patch};
use super::{Encoding, Progress};
use crate::kubelet::client::{Call, Client};
use crate::watchers::{BEAT, Beat, MOUNTED, NAMESPACE, PAYLOAD, SINGLE, mounted, node};

/// Creations in flight at one time.
const CREATIONS_MAX: usize = 64;
/// A pod mounts at least what so many watches need, so that the pods of one scenario serve the next.
const MOUNTS_MIN: usize = 20;
/// What an event adds to its object: the type, and a length or braces.
const FRAME: usize = 36;

/// Creates objects as an administrator.
pub(super) struct Population<'a> {
    pub(super) client: &'a Client,
    /// Encoding that events are sized in.
    pub(super) encoding: Encoding,
    /// Bytes of an event.
    pub(super) event_bytes: usize,
}

impl Population<'_> {
    /// A cluster of nodes with one pod each, which mounts what a kubelet with so many watches
    /// watches; so many services and pods are to be written to.
    pub(super) async fn cluster(
        &self,
        nodes: usize,
        watches: usize,
        (services, pods): (u32, usize),
    ) -> Result<Vec<Lane>> {
        let mut lanes = self.services(services).await?;
        self.mounts().await?;
        self.nodes(nodes).await?;
        let pods = pods.min(nodes);
        lanes.extend(self.beating_pods(pods, watches).await?);
        self.pods(pods..nodes, watches).await?;
        Ok(lanes)
    }

    /// Services that everybody watches: lanes below [`SINGLE`].
    pub(super) async fn services(&self, count: u32) -> Result<Vec<Lane>> {
        self.namespace().await?;
        let objects = (0..count).map(|id| {
            let port = json!([{"port": 80, "protocol": "TCP"}]);
            let object = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": format!("beat-{id}"), "namespace": NAMESPACE},
                "spec": {"ports": port},
            });
            (id, object)
        });
        self.lanes("services", objects.collect(), "services").await
    }

    /// What pods mount.
    pub(super) async fn mounts(&self) -> Result<()> {
        self.namespace().await?;
        let named = |kind: &str, name: String| {
            json!({"apiVersion": "v1", "kind": kind,
                "metadata": {"name": name, "namespace": NAMESPACE}})
        };
        let configs = (0..MOUNTED).map(|at| format!("config-{at}"));
        for name in configs.chain(["kube-root-ca.crt".to_owned()]) {
            self.create(&path("configmaps"), &named("ConfigMap", name))
                .await?;
        }
        for at in 0..MOUNTED {
            let secret = named("Secret", format!("secret-{at}"));
            self.create(&path("secrets"), &secret).await?;
        }
        Ok(())
    }

    /// Nodes.
    pub(super) async fn nodes(&self, count: usize) -> Result<()> {
        let nodes = (0..count).map(|at| {
            let object =
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node(at)}});
            ("/api/v1/nodes".to_owned(), object)
        });
        self.create_all("nodes", nodes.collect()).await
    }

    /// One pod on each node, which mounts what its kubelet watches.
    pub(super) async fn pods(&self, nodes: std::ops::Range<usize>, watches: usize) -> Result<()> {
        let pods = nodes.map(|at| (path("pods"), pod(at, watches)));
        self.create_all("pods", pods.collect()).await
    }

    /// The same, to be written to: lanes from [`SINGLE`].
    pub(super) async fn beating_pods(&self, count: usize, watches: usize) -> Result<Vec<Lane>> {
        self.namespace().await?;
        let pods = (0..count).map(|at| (SINGLE + at as u32, pod(at, watches)));
        self.lanes("pods", pods.collect(), "pods written to").await
    }

    async fn namespace(&self) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE}});
        self.create("/api/v1/namespaces", &object).await?;
        Ok(())
    }

    /// Creates objects that carry a beat, all with the payload that makes the first one's events as
    /// long as asked for.
    async fn lanes(
        &self,
        resource: &str,
        objects: Vec<(u32, Value)>,
        what: &'static str,
    ) -> Result<Vec<Lane>> {
        let mut payload = String::new();
        let mut lanes = Vec::with_capacity(objects.len());
        let mut objects = objects.into_iter();
        if let Some((id, object)) = objects.next() {
            let lane = self.lane(resource, id, object.clone(), "x").await?;
            let length = self.length(&lane.path).await?;
            payload = "x".repeat(self.event_bytes.saturating_sub(length + FRAME).max(1));
            lanes.push(self.lane(resource, id, object, &payload).await?);
        }
        let mut progress = Progress::new(what, objects.len() + 1);
        let payload = &payload;
        let mut created = stream::iter(objects)
            .map(|(id, object)| self.lane(resource, id, object, payload))
            .buffer_unordered(CREATIONS_MAX);
        while let Some(lane) = created.try_next().await? {
            lanes.push(lane);
            progress.at(lanes.len());
        }
        progress.done();
        lanes.sort_by_key(|lane| lane.id);
        Ok(lanes)
    }

    async fn lane(
        &self,
        resource: &str,
        id: u32,
        mut object: Value,
        payload: &str,
    ) -> Result<Lane> {
        let first = Beat {
            lane: id,
            sequence: 0,
            sent: 0,
        };
        let annotations = json!({BEAT: first.to_string(), PAYLOAD: payload});
        object["metadata"]["annotations"] = annotations.clone();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let lane = Lane::new(id, format!("{}/{name}", path(resource)));
        if !self.create(&path(resource), &object).await? {
            let call = patch(&lane.path, &annotations);
            let status = self.client.call(&call, TIMEOUT).await?.status;
            ensure!(status.is_success(), "patch {}: {status}", lane.path);
        }
        Ok(lane)
    }

    /// Bytes of an object in the encoding that is watched.
    async fn length(&self, path: &str) -> Result<usize> {
        let call = match self.encoding {
            Encoding::Protobuf => Call::read(path),
            Encoding::Json => Call::read(path).json(),
        };
        let answer = self.client.call(&call, TIMEOUT).await?;
        ensure!(
            answer.status == StatusCode::OK,
            "get {path}: {}",
            answer.status
        );
        Ok(answer.body.len())
    }

    async fn create_all(&self, what: &'static str, objects: Vec<(String, Value)>) -> Result<()> {
        let mut progress = Progress::new(what, objects.len());
        let mut created = stream::iter(objects)
            .map(|(path, object)| async move { self.create(&path, &object).await })
            .buffer_unordered(CREATIONS_MAX);
        let mut count = 0;
        while created.try_next().await?.is_some() {
            count += 1;
            progress.at(count);
        }
        progress.done();
        Ok(())
    }

    /// Creates an object; false when it is there already.
    async fn create(&self, path: &str, object: &Value) -> Result<bool> {
        let call = Call::write(Method::POST, path, "application/json", object.to_string()).json();
        let answer = self.client.call(&call, TIMEOUT).await;
        let answer = answer.with_context(|| format!("create at {path}"))?;
        match answer.status {
            StatusCode::CREATED => Ok(true),
            StatusCode::CONFLICT => Ok(false),
            code => {
                let body = String::from_utf8_lossy(&answer.body);
                bail!("create at {path}: {code} {body}")
            }
        }
    }
}

fn path(resource: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{resource}")
}

fn pod(at: usize, watches: usize) -> Value {
    let root = [(
        "root".to_owned(),
        json!({"configMap": {"name": "kube-root-ca.crt"}}),
    )];
    let own = mounted(at, watches.max(MOUNTS_MIN)).map(|(is_config, number)| {
        if is_config {
            let source = json!({"configMap": {"name": format!("config-{number}")}});
            (format!("c{number}"), source)
        } else {
            let source = json!({"secret": {"secretName": format!("secret-{number}")}});
            (format!("s{number}"), source)
        }
    });
    let volumes = root.into_iter().chain(own).map(|(name, mut volume)| {
        volume["name"] = json!(name);
        volume
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("agent-{}", node(at)), "namespace": NAMESPACE},
        "spec": {
            "nodeName": node(at),
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "registry.example/main:1"}],
            "volumes": volumes.collect::<Vec<_>>(),
        },
    })
}
