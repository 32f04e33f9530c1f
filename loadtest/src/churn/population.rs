//! The objects that churn works on.
//!
//! Owns their names and first shapes. Refuses to change them: that is the churn's.
//! Invariant: creating the population twice is as good as once.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Churn, JSON, WRITE_TIMEOUT};
use crate::kubelet::client::{Call, Client};

/// Services, slices, ConfigMaps and secrets, of each so many.
pub(super) const POPULATION: usize = 20;
/// Namespace of everything that has one.
const NAMESPACE: &str = "load";
/// Creations in flight at one time.
const CREATIONS_MAX: usize = 32;

/// Name of the n-th object of a kind.
pub(super) fn named(kind: &str, index: usize) -> String {
    format!("{kind}-{index}")
}

/// Path of an object by name.
pub(super) fn path(resource: &str, name: &str) -> String {
    format!("{}/{name}", collection(resource))
}

fn collection(resource: &str) -> String {
    match resource {
        "nodes" | "namespaces" => format!("/api/v1/{resource}"),
        "endpointslices" => {
            format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices")
        }
        _ => format!("/api/v1/namespaces/{NAMESPACE}/{resource}"),
    }
}

/// Creates a pod that mounts three objects, then binds it.
pub(super) fn pod(name: &str, node: &str, index: usize) -> Vec<Call> {
    let body = pod_object(name, None, index).to_string();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": NAMESPACE},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let binding_path = format!("{}/binding", path("pods", name));
    vec![
        Call::write(Method::POST, collection("pods"), JSON, body).json(),
        Call::write(Method::POST, binding_path, JSON, binding.to_string()).json(),
    ]
}

fn pod_object(name: &str, node: Option<&str>, index: usize) -> Value {
    let index = index % POPULATION;
    let token = json!({"projected": {"sources": [
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]}, "name": "kube-api-access"});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "load"}},
        "spec": {
            "containers": [{"name": "main", "image": "registry.example/main:1"}],
            "volumes": [
                {"name": "config", "configMap": {"name": named("config", index)}},
                {"name": "secret", "secret": {"secretName": named("secret", index)}},
                token,
            ],
        },
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

fn objects() -> Vec<(&'static str, Value)> {
    let metadata = |name: String| json!({"name": name, "namespace": NAMESPACE});
    let root = json!({"metadata": metadata("kube-root-ca.crt".into()), "data": {"ca.crt": "none"}});
    let mut objects = vec![("configmaps", root)];
    for index in 0..POPULATION {
        let port = json!([{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]);
        let service = json!({"metadata": metadata(named("service", index)), "spec": {
            "clusterIP": format!("10.96.77.{}", index + 1), "ports": port, "selector": {"app": "load"},
        }});
        let slice = json!({"metadata": metadata(named("slice", index)), "addressType": "IPv4",
            "endpoints": [], "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
        let config =
            json!({"metadata": metadata(named("config", index)), "data": {"key": "value"}});
        let secret =
            json!({"metadata": metadata(named("secret", index)), "stringData": {"key": "value"}});
        objects.extend([
            ("services", service),
            ("endpointslices", slice),
            ("configmaps", config),
            ("secrets", secret),
        ]);
    }
    objects
}

impl Churn {
    /// Creates the namespace and what is shared.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn populate(&mut self) -> Result<()> {
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        create(&self.client, "namespaces", namespace).await?;
        let client = &self.client;
        let mut created = stream::iter(objects())
            .map(|(resource, object)| async move {
                create(client, resource, object)
                    .await
                    .map(|object| (resource, object))
            })
            .buffer_unordered(CREATIONS_MAX);
        while let Some(result) = created.next().await {
            if let (resource, Some(object)) = result? {
                self.shared.ledger.note_object(resource, &object);
            }
        }
        self.shared.ledger.complete("services");
        Ok(())
    }

    /// Binds one pod to each node, as a DaemonSet would, and keeps them from being deleted.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn bind_agents(&mut self, mut progress: impl FnMut(usize)) -> Result<()> {
        let client = &self.client;
        let ledger = &Arc::clone(&self.shared).ledger;
        let pods = self.options.nodes.iter().enumerate();
        let mut created = stream::iter(pods)
            .map(|(index, node)| {
                let pod = pod_object(&format!("agent-{node}"), Some(node), index);
                create(client, "pods", pod)
            })
            .buffer_unordered(CREATIONS_MAX);
        let mut count = 0;
        while let Some(result) = created.next().await {
            if let Some(object) = result? {
                ledger.note_object("pods", &object);
            }
            count += 1;
            progress(count);
        }
        Ok(())
    }
}

/// Creates an object; none when it is there already.
async fn create(client: &Client, resource: &'static str, object: Value) -> Result<Option<Value>> {
    let call = Call::write(Method::POST, collection(resource), JSON, object.to_string()).json();
    let answer = client.call(&call, WRITE_TIMEOUT).await;
    let answer = answer.with_context(|| format!("create one of {resource}"))?;
    match answer.status {
        StatusCode::CREATED => Ok(Some(serde_json::from_slice(&answer.body)?)),
        StatusCode::CONFLICT => Ok(None),
        code => bail!(
            "create one of {resource}: {code} {}",
            String::from_utf8_lossy(&answer.body)
        ),
    }
}
