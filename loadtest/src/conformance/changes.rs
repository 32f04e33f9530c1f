//! What happens to objects, and how each of it is told.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::cluster::{config_maps, until};
use super::scene::{
    ENCODINGS, at_version, begin, decoded, enveloped, object, sees, version, watch_after, watching,
};
use super::{Cluster, Setup};
use crate::client::{JSON, PROTOBUF, Request, Watch};

/// 96: an object that is deleted and made again is DELETED and ADDED, with two identities.
pub async fn a_name_that_is_used_again_is_another_object(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let first = cluster.config_map(&namespace, "x").await?;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        let watch = watch_after(cluster.admin(), &collection, version(&first)?, accept);
        watches.push(watch.await?);
    }
    let target = format!("{collection}/x");
    cluster.change("DELETE", &target, &json!({})).await?;
    let second = cluster.config_map(&namespace, "x").await?;
    ensure!(first["metadata"]["uid"] != second["metadata"]["uid"]);
    for accept in ENCODINGS {
        let watch = watch_after(cluster.admin(), &collection, version(&first)?, accept);
        watches.push(watch.await?);
    }
    for mut watch in watches {
        let deleted = watch.event_now().await?;
        ensure!(deleted.kind == "DELETED", "{deleted:?}");
        ensure!(
            object(&deleted)? == at_version(&first, deleted.version),
            "{deleted:?}"
        );
        let added = watch.event_now().await?;
        ensure!(
            added.kind == "ADDED" && object(&added)? == second,
            "{added:?}"
        );
    }
    Ok(())
}

/// 97: a namespace in deletion is MODIFIED, what is in it is DELETED one by one, then it is; the
/// watches in it stay, and see what comes when it is made again. What the namespace controller does
/// is done here, because an apiserver alone has none; where one runs, it is faster or not.
pub async fn a_deleted_namespace_takes_its_objects_along(cluster: &Cluster) -> anyhow::Result<()> {
    let name = cluster.namespace("a").await?;
    let collection = config_maps(&name);
    let namespaces = "/api/v1/namespaces";
    let newest = begin(cluster, &collection).await?;
    begin(cluster, namespaces).await?;
    let mut created = Vec::new();
    for object in ["x", "y", "z"] {
        created.push(version(&cluster.config_map(&name, object).await?)?);
    }
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for accept in ENCODINGS {
        inside.push(watch_after(cluster.admin(), &collection, created[2], accept).await?);
        let query = format!("resourceVersion={newest}&fieldSelector=metadata.name%3D{name}");
        outside.push(
            cluster
                .admin()
                .watch(watching(namespaces, &query, accept))
                .await?,
        );
    }
    let target = format!("{namespaces}/{name}");
    cluster.change("DELETE", &target, &json!({})).await?;
    control_namespace(cluster, &name).await?;
    cluster
        .create(
            namespaces,
            &json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name}}),
        )
        .await?;
    let again = version(&cluster.config_map(&name, "x").await?)?;

    for watch in &mut inside {
        let mut last = created[2];
        for object in ["x", "y", "z"] {
            let event = watch.event_now().await?;
            let own = (event.kind.as_str(), event.key.as_str());
            ensure!(
                own == ("DELETED", &*format!("{name}/{object}")),
                "{event:?}"
            );
            ensure!(event.version > last, "{event:?} after {last}");
            last = event.version;
        }
        sees(watch, &[("ADDED", &format!("{name}/x"), again)]).await?;
    }
    for watch in &mut outside {
        let mut event = watch.event_now().await?;
        ensure!(event.kind == "MODIFIED", "{event:?}");
        while event.kind == "MODIFIED" {
            let namespace = object(&event)?;
            let is_marked = !namespace["metadata"]["deletionTimestamp"].is_null();
            let phase = &namespace["status"]["phase"];
            ensure!(is_marked && phase == "Terminating", "{namespace}");
            event = watch.event_now().await?;
        }
        ensure!(event.kind == "DELETED", "{event:?}");
        let event = watch.event_now().await?;
        ensure!(event.kind == "ADDED" && event.key == name, "{event:?}");
    }
    Ok(())
}

/// Empties a namespace in deletion, in the order of its keys, and lets it go.
async fn control_namespace(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let target = format!("/api/v1/namespaces/{name}");
    for object in ["x", "y", "z"] {
        let target = format!("{}/{object}", config_maps(name));
        let gone = cluster
            .direct()
            .whole(Request::new("DELETE", target))
            .await?;
        ensure!(
            [200, 404].contains(&gone.status),
            "{} {}",
            gone.status,
            gone.text()
        );
    }
    let finalize = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
        "spec": {"finalizers": []}});
    let finalize = Request::new("PUT", format!("{target}/finalize")).json(&finalize);
    let gone = cluster.direct().whole(finalize).await?;
    ensure!(
        [200, 404, 409].contains(&gone.status),
        "{} {}",
        gone.status,
        gone.text()
    );
    until("the namespace is gone", async || {
        Ok(cluster.direct().get(&target).await?.status == 404)
    })
    .await
}

/// 98: while a finalizer holds it, a deleted object is MODIFIED; the update that takes the last
/// finalizer away is never written, so the DELETED shows it once more.
pub async fn the_last_finalizer_goes_with_its_object(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "x", "finalizers": ["example.com/hold"]}});
    let created = version(&cluster.create(&collection, &body).await?)?;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        watches.push(watch_after(cluster.admin(), &collection, created, accept).await?);
    }
    let target = format!("{collection}/x");
    let held = cluster.change("DELETE", &target, &json!({})).await?;
    ensure!(!held["metadata"]["deletionTimestamp"].is_null(), "{held}");
    let release = json!({"metadata": {"finalizers": null}, "data": {"late": "1"}});
    cluster.change("PATCH", &target, &release).await?;
    let last = version(&cluster.config_map(&namespace, "last").await?)?;
    for accept in ENCODINGS {
        watches.push(watch_after(cluster.admin(), &collection, created, accept).await?);
    }
    for mut watch in watches {
        let event = watch.event_now().await?;
        ensure!(
            event.kind == "MODIFIED" && object(&event)? == held,
            "{event:?}"
        );
        let event = watch.event_now().await?;
        ensure!(
            event.kind == "DELETED" && event.version > version(&held)?,
            "{event:?}"
        );
        ensure!(
            object(&event)? == at_version(&held, event.version),
            "{event:?}"
        );
        sees(&mut watch, &[("ADDED", &format!("{namespace}/last"), last)]).await?;
    }
    Ok(())
}

/// 99: an update that changes nothing is no event and leaves the version.
pub async fn an_update_that_changes_nothing_is_no_event(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let stored = cluster.config_map(&namespace, "x").await?;
    let created = version(&stored)?;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        watches.push(watch_after(cluster.admin(), &collection, created, accept).await?);
    }
    let target = format!("{collection}/x");
    let same = cluster.change("PUT", &target, &stored).await?;
    ensure!(same == stored, "{same} is not {stored}");
    cluster
        .change("PATCH", &target, &json!({"metadata": {"labels": {}}}))
        .await?;
    let last = version(&cluster.config_map(&namespace, "last").await?)?;
    for mut watch in watches {
        sees(&mut watch, &[("ADDED", &format!("{namespace}/last"), last)]).await?;
    }
    Ok(())
}

/// How many changes each writer makes.
const CHANGES: usize = 60;

/// 100: two clients write at once; every watch sees all of it in the order of the versions.
pub async fn every_watch_sees_concurrent_writes_in_the_order_of_versions(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let from = begin(cluster, &collection).await?;
    let mut watches = Vec::new();
    for round in 0..8 {
        let selector = [
            "",
            "labelSelector=by%3D0",
            "labelSelector=by%3D1",
            "labelSelector=by",
        ];
        let selector = selector[round % 4];
        let query = format!("resourceVersion={from}&{selector}&allowWatchBookmarks=true");
        for accept in ENCODINGS {
            let watch = cluster
                .admin()
                .watch(watching(&collection, &query, accept))
                .await?;
            watches.push((watch, selector));
        }
    }
    let write = async |by: usize| -> anyhow::Result<Vec<u64>> {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("by-{by}"), "labels": {"by": by.to_string()}}});
        let mut written = vec![version(&cluster.create(&collection, &body).await?)?];
        let target = format!("{collection}/by-{by}");
        for change in 0..CHANGES {
            let body = json!({"data": {"change": change.to_string()}});
            written.push(version(&cluster.change("PATCH", &target, &body).await?)?);
        }
        Ok(written)
    };
    let (first, second) = tokio::try_join!(write(0), write(1))?;
    let mut all = [first.clone(), second.clone()].concat();
    all.sort_unstable();
    for (mut watch, selector) in watches {
        let expected = match selector {
            "labelSelector=by%3D0" => &first,
            "labelSelector=by%3D1" => &second,
            _ => &all,
        };
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            seen.push(watch.change().await?.version);
        }
        ensure!(
            seen == *expected,
            "{selector}: {seen:?} is not {expected:?}"
        );
    }
    Ok(())
}

/// 101: events that expire together are deleted at one version, and every one of them is told.
pub async fn events_that_expire_together_share_a_version(cluster: &Cluster) -> anyhow::Result<()> {
    // A real apiserver shares an etcd lease for a twentieth of the time to live, in whole seconds.
    let seconds = if cluster.embedded().is_ok() { 4 } else { 40 };
    let setup = Setup {
        event_ttl: std::time::Duration::from_secs(seconds),
        ..Setup::default()
    };
    let cluster = &cluster.own(setup).await?;
    let namespace = cluster.namespace("a").await?;
    let collection = format!("/api/v1/namespaces/{namespace}/events");
    let from = begin(cluster, &collection).await?;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        watches.push(watch_after(cluster.admin(), &collection, from, accept).await?);
    }
    let mut names = Vec::new();
    for index in 0..12 {
        let name = format!("e{index:02}");
        let body = json!({"apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "p"},
            "reason": "Testing"});
        cluster.create(&collection, &body).await?;
        names.push(format!("{namespace}/{name}"));
    }
    for mut watch in watches {
        let mut deleted: BTreeMap<String, u64> = BTreeMap::new();
        let (mut added, mut last) = (Vec::new(), from);
        while deleted.len() < names.len() {
            let event = watch.event_now().await?;
            ensure!(event.version >= last, "{event:?} after {last}");
            last = event.version;
            match event.kind.as_str() {
                "ADDED" => added.push(event.key),
                "DELETED" => ensure!(deleted.insert(event.key, last).is_none(), "twice"),
                _ => anyhow::bail!("{event:?}"),
            }
        }
        ensure!(
            added == names && deleted.keys().eq(&names),
            "{added:?} {deleted:?}"
        );
        let mut versions: Vec<_> = deleted.into_values().collect();
        versions.dedup();
        ensure!(
            versions.len() < names.len(),
            "no two expired together: {versions:?}"
        );
    }
    Ok(())
}

/// 102: one event is the same object in both encodings, and in each the very bytes a GET answers.
pub async fn an_event_holds_the_bytes_of_a_get(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let from = begin(cluster, &collection).await?;
    let mut json = watch_after(cluster.admin(), &collection, from, JSON).await?;
    let mut protobuf = watch_after(cluster.admin(), &collection, from, PROTOBUF).await?;
    let target = format!("{collection}/x");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "x", "labels": {"b": "1", "a": "2"},
            "annotations": {"note": "<&>\u{2028}\u{e9}\u{1f680}\"\\\t"}},
        "data": {"z": "1", "a": ""}, "binaryData": {"bin": "AAEC"}});
    cluster.create(&collection, &body).await?;
    is_as_read(cluster, &target, (&mut json, &mut protobuf), "ADDED").await?;
    let body = json!({"data": {"z": null}, "immutable": true});
    cluster.change("PATCH", &target, &body).await?;
    is_as_read(cluster, &target, (&mut json, &mut protobuf), "MODIFIED").await
}

async fn is_as_read(
    cluster: &Cluster,
    target: &str,
    (json, protobuf): (&mut Watch, &mut Watch),
    kind: &str,
) -> anyhow::Result<()> {
    let event = json.event_now().await?;
    for client in [cluster.admin(), cluster.direct()] {
        let body = client.get(target).await?.text();
        let body = body.strip_suffix('\n').context("no newline at the end")?;
        let frame = format!("{{\"type\":\"{kind}\",\"object\":{body}}}\n");
        ensure!(event.raw == frame.as_bytes(), "{event:?} is not {frame}");
    }
    let text: Value = event.object()?;
    let event = protobuf.event_now().await?;
    let length = u32::try_from(event.raw.len() - 4)?;
    ensure!(
        event.raw[..4] == length.to_be_bytes() && event.kind == kind,
        "{event:?}"
    );
    for client in [cluster.admin(), cluster.direct()] {
        let read = Request::get(target).header("accept", PROTOBUF);
        let body = client.whole(read).await?.body;
        ensure!(enveloped(&event)? == body, "{event:?} is not {body:?}");
        ensure!(decoded(&body)? == text, "{body:?} is not {text}");
    }
    Ok(())
}
