//! Selection by the fields of pods and services.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Cluster;
use super::scene::{ENCODINGS, key, names, version};
use super::transitions::{Passes, Selector, selected, sights, transitions};
use crate::client::Request;

fn pod(name: &str, node: Option<&str>) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}],
            "automountServiceAccountToken": false}});
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

/// 89, 90, 91, 92: a pod enters `spec.nodeName` when it is bound, goes on in it through phases and
/// graceful deletion and leaves it when it is removed; unbound pods have the empty name; `spec.host`
/// is another word for it; `status.podIPs` is accepted and always empty.
pub async fn a_pod_enters_the_selector_of_its_node_when_it_is_bound(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = format!("/api/v1/namespaces/{namespace}/pods");
    let on_n1: Passes = |it| it["spec"]["nodeName"] == "n1";
    let not_on_n1: Passes = |it| it["spec"]["nodeName"] != "n1";
    let selectors: [Selector; 9] = [
        ("fieldSelector=spec.nodeName%3Dn1", on_n1),
        ("fieldSelector=spec.host%3Dn1", on_n1),
        ("fieldSelector=spec.nodeName%21%3Dn1", not_on_n1),
        ("fieldSelector=spec.host%21%3Dn1", not_on_n1),
        ("fieldSelector=spec.nodeName%3D", |it| {
            it["spec"]["nodeName"].is_null()
        }),
        ("fieldSelector=status.podIPs%21%3Dx", |_| true),
        ("fieldSelector=status.podIPs%3D", |_| true),
        ("fieldSelector=status.phase%3DRunning", |it| {
            it["status"]["phase"] == "Running"
        }),
        (
            "fieldSelector=spec.nodeName%3Dn1,status.phase%21%3DRunning",
            |it| it["spec"]["nodeName"] == "n1" && it["status"]["phase"] != "Running",
        ),
    ];
    let story = live_and_die(cluster, &collection);
    let whole = (&*collection, "");
    let happened = transitions(cluster, whole, (&ENCODINGS, &selectors), story).await?;
    let bound = selected(&happened, on_n1)?;
    let of_p = bound
        .iter()
        .filter(|seen| key(&seen.object).ends_with("/p"));
    let kinds: Vec<_> = of_p.clone().map(|seen| seen.kind).collect();
    let (first, rest) = kinds.split_first().context("nothing was bound")?;
    let (end, changes) = rest.split_last().context("nothing after the binding")?;
    ensure!(*first == "ADDED" && *end == "DELETED", "{kinds:?}");
    let are_modified = changes.len() >= 2 && changes.iter().all(|it| *it == "MODIFIED");
    ensure!(are_modified, "{kinds:?}");
    let deleting = of_p.filter(|seen| !seen.object["metadata"]["deletionTimestamp"].is_null());
    ensure!(deleting.count() >= 2, "no graceful deletion in {bound:?}");

    for (selector, expected) in [
        ("spec.host%3Dn1", &["on-n1"][..]),
        ("spec.host%21%3Dn1", &["nowhere"]),
        ("spec.nodeName%3D", &["nowhere"]),
        ("status.podIPs%3D1.2.3.4", &[]),
        ("status.podIPs%21%3Dx", &["nowhere", "on-n1"]),
    ] {
        let target = format!("{collection}?fieldSelector={selector}");
        let listed = names(cluster.admin(), &target).await?;
        ensure!(listed == expected, "{selector}: {listed:?}");
    }
    Ok(())
}

/// The life of pod `p` from an unbound one to its end, and two that stay; the last version.
async fn live_and_die(cluster: &Cluster, collection: &str) -> anyhow::Result<u64> {
    let target = format!("{collection}/p");
    cluster.create(collection, &pod("p", None)).await?;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}});
    let bindings = format!("{target}/binding");
    cluster.create(&bindings, &binding).await?;
    let running = json!({"status": {"phase": "Running", "podIP": "1.2.3.4",
        "podIPs": [{"ip": "1.2.3.4"}]}});
    let status = format!("{target}/status");
    cluster.change("PATCH", &status, &running).await?;
    cluster.change("DELETE", &target, &json!({})).await?;
    let now = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    cluster.change("DELETE", &target, &now).await?;
    let bound = pod("on-n1", Some("n1"));
    cluster.create(collection, &bound).await?;
    cluster.create(collection, &pod("nowhere", None)).await?;
    let running = json!({"status": {"phase": "Running"}});
    let status = format!("{collection}/on-n1/status");
    version(&cluster.change("PATCH", &status, &running).await?)
}

/// 91: a node may read the pods bound to it by `spec.nodeName`; to who decides that, `spec.host` is
/// another field.
pub async fn the_alias_of_a_field_is_authorised_by_its_own_name(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let name = cluster.name("n");
    let node = cluster.user(&format!("system:node:{name}"), Some("system:nodes"))?;
    let node = cluster.client(&node)?;
    let status = async |field: &str| -> anyhow::Result<u16> {
        let target = format!("/api/v1/pods?fieldSelector={field}%3D{name}");
        Ok(node.get(&target).await?.status)
    };
    ensure!(status("spec.nodeName").await? == 200);
    ensure!(status("spec.host").await? == 403);
    Ok(())
}

/// 93: a headless service has the cluster IP `None`, which it keeps for life: one with an address
/// of the same name is another service.
pub async fn a_headless_service_never_gets_an_address(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = format!("/api/v1/namespaces/{namespace}/services");
    let target = format!("{collection}/s");
    let service = |name: &str, cluster_ip: Option<&str>| {
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"port": 80}]}});
        if let Some(cluster_ip) = cluster_ip {
            service["spec"]["clusterIP"] = json!(cluster_ip);
        }
        service
    };
    let headless: Passes = |it| it["spec"]["clusterIP"] == "None";
    let addressed: Passes = |it| it["spec"]["clusterIP"] != "None";
    let selectors: [Selector; 3] = [
        ("fieldSelector=spec.clusterIP%21%3DNone", addressed),
        ("fieldSelector=spec.clusterIP%3DNone", headless),
        ("fieldSelector=spec.type%3DClusterIP", |_| true),
    ];
    let story = async {
        cluster.create(&collection, &service("s", None)).await?;
        let toggle = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        let toggle = Request::new("PATCH", &target).json(&toggle);
        let refused = cluster.direct().whole(toggle).await?;
        ensure!(
            refused.status == 422,
            "{} {}",
            refused.status,
            refused.text()
        );
        cluster.change("DELETE", &target, &json!({})).await?;
        cluster
            .create(&collection, &service("s", Some("None")))
            .await?;
        cluster.change("DELETE", &target, &json!({})).await?;
        cluster.create(&collection, &service("s", None)).await?;
        version(
            &cluster
                .create(&collection, &service("t", Some("None")))
                .await?,
        )
    };
    let whole = (&*collection, "");
    let happened = transitions(cluster, whole, (&ENCODINGS, &selectors), story).await?;
    let kinds = |passes| -> anyhow::Result<Vec<&str>> {
        Ok(sights(&happened, passes)?.iter().map(|it| it.0).collect())
    };
    ensure!(kinds(addressed)? == ["ADDED", "DELETED", "ADDED"]);
    ensure!(kinds(headless)? == ["ADDED", "DELETED", "ADDED"]);
    Ok(())
}
