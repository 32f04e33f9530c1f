//! What lists are of: which objects, in what order, and what when there is no cache to list from.

use anyhow::ensure;
use serde_json::json;

use super::cluster::{config_maps, until};
use super::expect::{expect, expect_status};
use super::lists::{filled, list, listed};
use super::scene::{key, version, watch_after};
use super::{Cluster, Setup};
use crate::client::{Answer, JSON, Request};

/// 49: objects come in the order of `namespace/name` as bytes, not of the pair of them.
pub async fn the_order_of_a_list_is_that_of_the_keys_bytes(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    // "-" and "." are below "/", digits above.
    let suffixes = ["a0", "a", "a-b"];
    let mut newest = 0;
    for suffix in suffixes {
        let namespace = cluster.namespace(suffix).await?;
        for name in ["x", "x-y", "x.y", "x0"] {
            let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata":
                {"name": name, "labels": {"case": cluster.prefix()}}});
            newest = version(&cluster.create(&config_maps(&namespace), &body).await?)?;
        }
    }
    let mut expected = Vec::new();
    for suffix in ["a-b", "a", "a0"] {
        for name in ["x", "x-y", "x.y", "x0"] {
            expected.push(format!("{}/{name}", cluster.name(suffix)));
        }
    }
    let own = format!(
        "/api/v1/configmaps?labelSelector=case%3D{}",
        cluster.prefix()
    );
    let at_least = format!("&resourceVersion={newest}");
    let exact = format!("{at_least}&resourceVersionMatch=Exact");
    for query in ["", &at_least, &exact, "&resourceVersion=0"] {
        let list = list(cluster.admin(), &format!("{own}{query}")).await?;
        let keys: Vec<String> = list.items.iter().map(key).collect();
        ensure!(keys == expected, "{query}: {keys:?}");
    }
    Ok(())
}

/// 50: an empty collection is an empty list with a version.
pub async fn an_empty_collection_has_a_version(cluster: &Cluster) -> anyhow::Result<()> {
    let (full, versions) = filled(cluster, &["x"]).await?;
    let empty = config_maps(&cluster.namespace("b").await?);
    drop(full);
    let at_least = format!("?resourceVersion={}", versions[0]);
    for query in ["", "?resourceVersion=0", &at_least, "?limit=1"] {
        let answer = cluster.admin().get(&format!("{empty}{query}")).await?;
        let list = listed(&answer)?;
        let body = format!(
            "{{\"kind\":\"ConfigMapList\",\"apiVersion\":\"v1\",\"metadata\":\
             {{\"resourceVersion\":\"{}\"}},\"items\":[]}}\n",
            list.version
        );
        expect(&answer, 200, JSON, &body)?;
        ensure!(list.version > 0, "{query}");
        let is_current = query == "?resourceVersion=0" || list.version >= versions[0];
        ensure!(is_current, "{query}: {list:?}");
    }
    Ok(())
}

/// 51, 52, 53: fields of names and namespaces select, whatever cannot be selects nothing.
pub async fn names_and_namespaces_are_selected_by_field(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x", "y"]).await?;
    let other = cluster.namespace("b").await?;
    cluster.config_map(&other, "x").await?;
    let (own, other_collection) = (cluster.name("a"), config_maps(&other));
    let everywhere = "/api/v1/configmaps";
    let by_namespace = format!("fieldSelector=metadata.namespace%3D{own}");
    let by_both = format!("fieldSelector=metadata.namespace%3D{own},metadata.name%3Dx");
    let cases: [(String, &[&str]); 8] = [
        (
            format!("{collection}?fieldSelector=metadata.name%3Dnope"),
            &[],
        ),
        (
            format!("{collection}?fieldSelector=metadata.name%3Dx"),
            &["x"],
        ),
        (
            format!("{collection}?fieldSelector=metadata.name!%3Dx"),
            &["y"],
        ),
        (format!("{everywhere}?{by_namespace}"), &["x", "y"]),
        (format!("{everywhere}?{by_both}"), &["x"]),
        (format!("{other_collection}?{by_namespace}"), &[]),
        (
            format!("{collection}?fieldSelector=metadata.name%3Dx,metadata.name%3Dy"),
            &[],
        ),
        (
            format!("{everywhere}?{by_namespace},metadata.namespace%3D{other}"),
            &[],
        ),
    ];
    for (target, names) in cases {
        for more in ["", "&resourceVersion=0"] {
            let list = list(cluster.admin(), &format!("{target}{more}")).await?;
            ensure!(list.names() == names, "{target}{more}: {list:?}");
            ensure!(list.version > 0, "{target}{more}");
        }
    }
    let whole = cluster.admin().get(&collection).await?;
    let selected = cluster
        .admin()
        .get(&format!("{everywhere}?{by_namespace}"))
        .await?;
    let items = |answer: &Answer| anyhow::Ok(answer.ok()?["items"].take());
    ensure!(items(&whole)? == items(&selected)?);
    Ok(())
}

/// A cluster on which the caches of custom resources that begin stay empty, where that can be had,
/// and the path of Widgets that nobody has asked for.
async fn unfilled(cluster: &Cluster) -> anyhow::Result<(Cluster, String)> {
    let own = cluster.own(Setup::default()).await?;
    if let Ok(embedded) = own.embedded() {
        embedded.faults().hold_caches(true);
    }
    let group = format!("{}.example.com", own.prefix());
    define(&own, &group).await?;
    Ok((own, format!("/apis/{group}/v1")))
}

/// 55: who needs a cache that is being filled is told to come back, who needs one object is not.
pub async fn a_cache_that_is_being_filled_is_waited_for(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, path) = unfilled(cluster).await?;
    let all = format!("{path}/widgets");
    let object = format!("{path}/namespaces/default/widgets/x");
    let (watch, selected) = (
        format!("{all}?watch=1"),
        format!("{all}?limit=5&labelSelector=a"),
    );
    let client = own.admin();
    let (listed, selected, got, watched) = futures_util::try_join!(
        client.get(&all),
        client.get(&selected),
        client.get(&object),
        // Where the cache is filled already, the watch is granted.
        client.send(Request::get(watch)),
    )?;
    let group = format!("{}.example.com", own.prefix());
    let details = format!(r#"{{"name":"x","group":"{group}","kind":"widgets"}}"#);
    let message = format!("widgets.{group} \"x\" not found");
    expect_status(&got, 404, "NotFound", &message, &details)?;
    let watched = match watched.status() {
        200 => None,
        _ => Some(watched.whole().await?),
    };
    let refusals = [Some(listed), Some(selected), watched];
    for answer in refusals.iter().flatten() {
        if own.embedded().is_err() && answer.status == 200 {
            continue; // a real cache may be faster
        }
        let details = r#"{"retryAfterSeconds":1}"#;
        let message = "storage is (re)initializing";
        expect_status(answer, 429, "TooManyRequests", message, details)?;
        ensure!(answer.header("retry-after") == "1", "{:?}", answer.headers);
    }
    if let Ok(embedded) = own.embedded() {
        ensure!(refusals[2].is_some(), "a watch is granted");
        embedded.faults().hold_caches(false);
    }
    until("the cache is filled", async || {
        Ok(client.get(&all).await?.status == 200)
    })
    .await?;
    let now = list(client, &all).await?.version;
    watch_after(client, &all, now, JSON).await?;
    own.end().await;
    Ok(())
}

/// 55: a page of everything needs no cache.
pub async fn a_page_of_everything_needs_no_cache(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, path) = unfilled(cluster).await?;
    for target in ["widgets?limit=5", "namespaces/default/widgets?limit=5"] {
        let page = list(own.admin(), &format!("{path}/{target}")).await?;
        ensure!(page.items.is_empty() && page.version > 0, "{page:?}");
    }
    own.end().await;
    Ok(())
}

/// Defines Widgets and waits until they are served, without asking for any.
async fn define(cluster: &Cluster, group: &str) -> anyhow::Result<()> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let body = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget",
                "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    cluster.create(definitions, &body).await?;
    until("widgets are served", async || {
        let listed = cluster.direct().get(&format!("/apis/{group}/v1")).await?;
        Ok(listed.status == 200 && listed.text().contains("\"widgets\""))
    })
    .await
}

/// 56: a virtual resource cannot be watched.
pub async fn a_virtual_resource_cannot_be_watched(cluster: &Cluster) -> anyhow::Result<()> {
    let answer = cluster
        .admin()
        .get("/api/v1/componentstatuses?watch=1")
        .await?;
    let message = "watch is not supported on resources of kind \"componentstatuses\"";
    let details = r#"{"kind":"componentstatuses"}"#;
    expect_status(&answer, 405, "MethodNotAllowed", message, details)
}
