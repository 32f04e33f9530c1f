//! A node's lease under the hand of its kubelet: what a PUT needs, and what it meets without.
//!
//! The kubelet acts on these codes: 409 makes it read the lease again, anything else makes it try
//! the same once more.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Cluster;
use super::machine::Node;
use crate::client::Request;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// A node that exists, with its lease as the server stores it.
async fn holder(cluster: &Cluster, suffix: &str) -> anyhow::Result<(Node, Value)> {
    let node = Node::new(cluster, suffix)?;
    let own = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}});
    let own = cluster.create("/api/v1/nodes", &own).await?;
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node.name,
        "uid": own["metadata"]["uid"]});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": node.name, "ownerReferences": [owner]},
        "spec": {"holderIdentity": node.name, "leaseDurationSeconds": 40,
            "renewTime": "2026-01-01T00:00:00.000000Z"}});
    let create = Request::new("POST", LEASES).json(&lease);
    let lease = node.caller.client.whole(create).await?.ok()?;
    Ok((node, lease))
}

/// The code of a PUT of the node's lease with some members changed; `null` takes one away.
async fn put(node: &Node, lease: &Value, changes: &[(&str, Value)]) -> anyhow::Result<u16> {
    let mut lease = lease.clone();
    for (pointer, value) in changes {
        let (parent, member) = pointer.rsplit_once('/').context("a pointer")?;
        let parent = lease.pointer_mut(parent).and_then(Value::as_object_mut);
        let parent = parent.context("no such member")?;
        match value {
            Value::Null => _ = parent.remove(member),
            value => _ = parent.insert(member.to_owned(), value.clone()),
        }
    }
    let target = format!("{LEASES}/{}?timeout=10s", node.name);
    let put = Request::new("PUT", target).json(&lease);
    Ok(node.caller.client.whole(put).await?.status)
}

fn renewed(second: u32) -> (&'static str, Value) {
    let time = format!("2026-01-01T00:00:{second:02}.000000Z");
    ("/spec/renewTime", json!(time))
}

/// A renewal carries the version and the UID it was given last, and nothing that is not its own.
pub async fn a_renewal_is_of_the_lease_that_was_read(cluster: &Cluster) -> anyhow::Result<()> {
    let (node, lease) = holder(cluster, "n1").await?;
    ensure!(put(&node, &lease, &[renewed(10)]).await? == 200);
    let target = format!("{LEASES}/{}", node.name);
    let stored = node.caller.client.get(&target).await?.ok()?;
    let (before, after) = (&lease["metadata"], &stored["metadata"]);
    ensure!(before["uid"] == after["uid"] && before["resourceVersion"] != after["resourceVersion"]);
    ensure!(stored["spec"]["renewTime"] == renewed(10).1, "{stored}");
    let uid = json!("00000000-0000-4000-8000-000000000000");
    for (what, change, code) in [
        (
            "another version",
            ("/metadata/resourceVersion", json!("1")),
            409,
        ),
        (
            "no version",
            ("/metadata/resourceVersion", Value::Null),
            422,
        ),
        ("another uid", ("/metadata/uid", uid), 409),
        ("another name", ("/metadata/name", json!("another")), 400),
        (
            "another namespace",
            ("/metadata/namespace", json!("default")),
            400,
        ),
        ("no duration", ("/spec/leaseDurationSeconds", json!(0)), 422),
    ] {
        let found = put(&node, &stored, &[renewed(20), change]).await?;
        ensure!(found == code, "{what}: {found}, not {code}");
    }
    let again = node.caller.client.get(&target).await?.ok()?;
    ensure!(
        again == stored,
        "refused, and changed all the same: {again}"
    );
    Ok(())
}

/// What was read before a foreign edit is refused after it, and keeps the edit when read again.
pub async fn a_renewal_from_before_an_edit_is_a_conflict(cluster: &Cluster) -> anyhow::Result<()> {
    let (node, lease) = holder(cluster, "n1").await?;
    let target = format!("{LEASES}/{}", node.name);
    let edit = json!({"metadata": {"annotations": {"example.com/seen": "yes"}}});
    cluster.change("PATCH", &target, &edit).await?;
    ensure!(put(&node, &lease, &[renewed(10)]).await? == 409);
    let read = node.caller.client.get(&target).await?.ok()?;
    ensure!(put(&node, &read, &[renewed(20)]).await? == 200);
    let stored = node.caller.client.get(&target).await?.ok()?;
    ensure!(stored["metadata"]["annotations"]["example.com/seen"] == "yes");
    Ok(())
}

/// The holder of a lease that is gone is told of a conflict, and who never had one gets one.
pub async fn a_lease_that_is_gone_is_a_conflict_for_its_holder(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (node, lease) = holder(cluster, "n1").await?;
    ensure!(put(&node, &lease, &[renewed(10)]).await? == 200);
    let target = format!("{LEASES}/{}", node.name);
    cluster.change("DELETE", &target, &json!({})).await?;
    let found = put(&node, &lease, &[renewed(20)]).await?;
    ensure!(found == 409, "with a uid: {found}");
    let status = node.caller.client.get(&target).await?.status;
    ensure!(status == 404, "the lease came back: {status}");
    let anew = [
        renewed(30),
        ("/metadata/uid", Value::Null),
        ("/metadata/resourceVersion", Value::Null),
    ];
    let found = put(&node, &lease, &anew).await?;
    ensure!(found == 201, "without one: {found}");
    let stored = node.caller.client.get(&target).await?.ok()?;
    ensure!(stored["metadata"]["uid"] != lease["metadata"]["uid"]);
    Ok(())
}

/// Nobody renews for another node.
pub async fn a_lease_is_renewed_by_its_own_node_only(cluster: &Cluster) -> anyhow::Result<()> {
    let (_, lease) = holder(cluster, "n1").await?;
    let other = Node::new(cluster, "n2")?;
    let name = lease["metadata"]["name"].as_str().unwrap_or_default();
    let target = format!("{LEASES}/{name}?timeout=10s");
    let put = Request::new("PUT", target).json(&lease);
    let answer = other.caller.client.whole(put).await?;
    ensure!(answer.status == 403, "{}", answer.text());
    Ok(())
}
