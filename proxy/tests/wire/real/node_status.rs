//! Heartbeats of a Node's status at a real control plane: what it takes, and that what is answered
//! here is what it would have answered.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use watershed_config::{Credentials, Heartbeats};
use watershed_loadtest::conformance::{ControlPlane as _, Setup};

use super::control_plane::{Assets, RealControlPlane};
use crate::{
    client::{Answer, Client, JSON, PROTOBUF, Protocol, empty, full},
    fixture::Fixture,
    heartbeats::{Kubelet, absorb, bounds},
    node_status::{KINDS, NODES, beaten, heartbeat},
    objects::version,
};

#[tokio::test]
#[ignore = "needs KUBEBUILDER_ASSETS, a folder with etcd and kube-apiserver"]
async fn heartbeats_are_answered_as_a_real_apiserver_would() -> anyhow::Result<()> {
    let plane = RealControlPlane::start(&Assets::from_env()?, &Setup::default()).await?;
    let (cert_file, key_file) = plane.proxy_credential()?;
    let replica = Fixture::behind(plane.pki(), plane.address(), |config| {
        config.startup.upstream.credentials = Credentials::ClientCertificate {
            cert_file,
            key_file,
        };
        absorb(config, bounds());
        if let Heartbeats::Coalesce(settings) = &mut config.startup.heartbeats {
            settings.node_status_period = Duration::from_mins(30);
        }
    })
    .await?;
    let credential = plane.pki().issue_node("n1")?;
    let at = |address| {
        Client::new(
            address,
            plane.pki().ca(),
            Some(&credential),
            Protocol::Http2,
        )
    };
    let (direct, through) = (at(plane.address())?, at(replica.proxy.address())?);
    let mut kubelet = Kubelet::new("n1", at(replica.proxy.address())?);
    register(&direct, &mut kubelet).await?;

    let stored = get(&direct, JSON).await?;
    for (second, accept) in [(300, JSON), (301, PROTOBUF)] {
        get(&through, accept).await?;
        kubelet.renew().await?;
        let answer = patch(&through, heartbeat(second), accept).await?;
        ensure!(answer.status == StatusCode::OK, "{}", answer.text());
        ensure!(get(&direct, JSON).await?.body == stored.body, "absorbed");
        ensure!(answer.body.len() == get(&direct, accept).await?.body.len());
        ensure!(accept == PROTOBUF || answer.json()? == beaten(stored.json()?, second));
    }
    // A real one takes the times along, and the apiserver takes it.
    let real = r#"{"status":{"$setElementOrder/conditions":[{"type":"MemoryPressure"},
        {"type":"DiskPressure"},{"type":"PIDPressure"},{"type":"Ready"}],
        "conditions":[{"message":"changed","type":"PIDPressure"}]}}"#;
    let answer = patch(&through, real.to_owned(), JSON).await?.ok()?;
    ensure!(version(&answer)? > version(&stored.json()?)?);
    let mut expected = beaten(stored.json()?, 301)["status"].clone();
    expected["conditions"][2]["message"] = "changed".into();
    ensure!(answer["status"] == expected, "{answer}");
    // What is answered here is what the apiserver answers, but for what each write changes.
    kubelet.renew().await?;
    let version = version(&answer)?;
    get_at(&through, version).await?;
    let here = patch(&through, heartbeat(600), JSON).await?.ok()?;
    ensure!(
        here["metadata"]["resourceVersion"] == json!(version.to_string()),
        "absorbed"
    );
    let there = patch(&direct, heartbeat(600), JSON).await?.ok()?;
    let plain = |mut node: Value| {
        let managers = node["metadata"]["managedFields"].as_array_mut();
        for manager in managers.into_iter().flatten() {
            manager["time"] = Value::Null;
        }
        node["metadata"]["resourceVersion"] = Value::Null;
        node
    };
    ensure!(
        plain(here.clone()) == plain(there.clone()),
        "{here}\n{there}"
    );
    replica.stop().await;
    plane.stop().await;
    Ok(())
}

/// Creates Node and lease as a kubelet does, and renews until one renewal is absorbed.
async fn register(direct: &Client, kubelet: &mut Kubelet) -> anyhow::Result<()> {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let node = direct.write(Method::POST, NODES, &node).await?.ok()?;
    let conditions = KINDS.map(|kind| {
        let status = if kind == "Ready" { "True" } else { "False" };
        let then = "2026-01-01T00:00:00Z";
        json!({"type": kind, "status": status, "reason": "r", "message": "m",
            "lastHeartbeatTime": then, "lastTransitionTime": then})
    });
    let status = json!({"status": {"conditions": conditions, "capacity": {"cpu": "4"}}});
    patch(direct, status.to_string(), JSON).await?.ok()?;
    patch(direct, heartbeat(1), JSON).await?.ok()?;
    kubelet
        .make_of(node["metadata"]["uid"].as_str().unwrap_or_default())
        .await?;
    for _renewal in 0..20 {
        kubelet.renew().await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn patch(client: &Client, body: String, accept: &str) -> anyhow::Result<Answer> {
    let mut request = client
        .request(Method::PATCH, &format!("{NODES}/n1/status?timeout=10s"))
        .header("content-type", "application/strategic-merge-patch+json")
        .body(full(Bytes::from(body)))?;
    request.headers_mut().insert("accept", accept.parse()?);
    client.whole(request).await
}

async fn get(client: &Client, accept: &str) -> anyhow::Result<Answer> {
    let request = client.request(Method::GET, &format!("{NODES}/n1"));
    let mut request = request.body(empty())?;
    request.headers_mut().insert("accept", accept.parse()?);
    let answer = client.whole(request).await?;
    ensure!(answer.status == StatusCode::OK, "{}", answer.text());
    Ok(answer)
}

async fn get_at(client: &Client, version: u64) -> anyhow::Result<Value> {
    let target = format!("{NODES}/n1?resourceVersion={version}");
    client.get(&target).await?.ok()
}
