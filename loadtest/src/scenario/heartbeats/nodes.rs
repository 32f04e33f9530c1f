//! The Nodes that leases are owned by.

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kubelet::client::{Call, Client};
use crate::scenario::Progress;
use crate::scenario::run::Run;
use crate::scenario::writer::TIMEOUT;

const NODES: &str = "/api/v1/nodes";
/// Creations in flight at one time.
const CREATIONS_MAX: usize = 64;

/// Names of so many nodes that no earlier run has left anything of.
pub(super) fn names(count: usize) -> Vec<String> {
    let run = fastrand::u32(..);
    let name = |at| format!("heart-{run:08x}-{at:05}");
    (0..count).map(name).collect()
}

/// Creates nodes that are Ready, or takes those that are there; each with its UID.
pub(super) async fn create(run: &Run, names: &[String]) -> Result<Vec<(String, String)>> {
    let client = run.admin.client();
    let mut progress = Progress::new("nodes", names.len());
    let mut created = stream::iter(names)
        .map(|name| async move { Ok::<_, anyhow::Error>((name.clone(), uid(client, name).await?)) })
        .buffer_unordered(CREATIONS_MAX);
    let mut nodes = Vec::with_capacity(names.len());
    while let Some(node) = created.try_next().await? {
        nodes.push(node);
        progress.at(nodes.len());
    }
    progress.done();
    Ok(nodes)
}

async fn uid(client: &Client, name: &str) -> Result<String> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": now, "lastTransitionTime": now});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"conditions": [ready]}});
    let call = Call::write(Method::POST, NODES, "application/json", node.to_string()).json();
    let mut answer = client.call(&call, TIMEOUT).await?;
    if answer.status == StatusCode::CONFLICT {
        let call = Call::read(format!("{NODES}/{name}")).json();
        answer = client.call(&call, TIMEOUT).await?;
    }
    if !answer.status.is_success() {
        bail!("create node {name}: {}", answer.status);
    }
    let node: Value = serde_json::from_slice(&answer.body)?;
    let uid = node["metadata"]["uid"].as_str();
    Ok(uid.context("a node without a UID")?.to_owned())
}
