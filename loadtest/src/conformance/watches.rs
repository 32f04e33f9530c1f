//! How a watch begins: at a version, below history, beyond the present.

use anyhow::ensure;
use serde_json::json;

use super::Cluster;
use super::cluster::config_maps;
use super::scene::{
    Custom, ENCODINGS, at_version, begin, ends, object, sees, version, watch_after, watching,
};
use crate::client::{Client, JSON};

/// 61: from the newest version on a watch shows what comes next, once, and nothing else.
pub async fn a_watch_from_the_newest_version_begins_with_what_comes_next(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    cluster.config_map(&namespace, "old").await?;
    let newest = begin(cluster, &collection).await?;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        watches.push(watch_after(cluster.admin(), &collection, newest, accept).await?);
    }
    let next = version(&cluster.config_map(&namespace, "next").await?)?;
    let last = version(&cluster.config_map(&namespace, "last").await?)?;
    for mut watch in watches {
        let expected = [
            ("ADDED", &*format!("{namespace}/next"), next),
            ("ADDED", &*format!("{namespace}/last"), last),
        ];
        sees(&mut watch, &expected).await?;
    }
    Ok(())
}

/// 62, 63: history is replayed from just after the version: what was created at it is not ADDED
/// again, what was created after it is.
pub async fn history_is_replayed_from_just_after_the_version(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let target = format!("{collection}/x");
    let created = version(&cluster.config_map(&namespace, "x").await?)?;
    let mut changed = Vec::new();
    for value in ["1", "2"] {
        let body = json!({"data": {"v": value}});
        changed.push(version(&cluster.change("PATCH", &target, &body).await?)?);
    }
    let last = version(&cluster.config_map(&namespace, "last").await?)?;
    let (x, end) = (format!("{namespace}/x"), format!("{namespace}/last"));
    let all = [
        ("ADDED", &*x, created),
        ("MODIFIED", &*x, changed[0]),
        ("MODIFIED", &*x, changed[1]),
        ("ADDED", &*end, last),
    ];
    for accept in ENCODINGS {
        for (after, from) in [
            (created - 1, 0),
            (created, 1),
            (changed[0], 2),
            (changed[1], 3),
        ] {
            let mut watch = watch_after(cluster.admin(), &collection, after, accept).await?;
            sees(&mut watch, &all[from..]).await?;
        }
    }
    Ok(())
}

/// 64: a deletion has a version of its own, which its DELETED carries; it is replayed below it and
/// not at it.
pub async fn a_deletion_is_replayed_below_its_own_version_only(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let stored = cluster.config_map(&namespace, "x").await?;
    let created = version(&stored)?;
    let mut live = watch_after(cluster.admin(), &collection, created, JSON).await?;
    let target = format!("{collection}/x");
    cluster.change("DELETE", &target, &json!({})).await?;
    let deletion = live.event_now().await?;
    let (kind, deleted) = (deletion.kind.as_str(), deletion.version);
    ensure!(kind == "DELETED" && deleted > created, "{deletion:?}");
    let last = version(&cluster.config_map(&namespace, "last").await?)?;
    let (x, end) = (format!("{namespace}/x"), format!("{namespace}/last"));
    for accept in ENCODINGS {
        let client = cluster.admin();
        let mut above = watch_after(client, &collection, deleted, accept).await?;
        sees(&mut above, &[("ADDED", &end, last)]).await?;
        let mut below = watch_after(client, &collection, deleted - 1, accept).await?;
        let event = below.event_now().await?;
        let own = (event.kind.as_str(), event.key.as_str(), event.version);
        ensure!(own == ("DELETED", x.as_str(), deleted), "{event:?}");
        ensure!(object(&event)? == at_version(&stored, deleted), "{event:?}");
        sees(&mut below, &[("ADDED", &end, last)]).await?;
    }
    Ok(())
}

/// The oldest version a watch may start after, as the refusal of version 1 tells.
async fn oldest(client: &Client, collection: &str) -> anyhow::Result<u64> {
    let mut watch = watch_after(client, collection, 1, JSON).await?;
    let event = watch.event_now().await?;
    let status = event.object()?;
    let message = status["message"].as_str().unwrap_or_default();
    let oldest = message
        .strip_prefix("too old resource version: 1 (")
        .and_then(|rest| rest.strip_suffix(')'));
    ensure!(event.kind == "ERROR" && oldest.is_some(), "{event:?}");
    ends(&mut watch).await?;
    Ok(oldest.unwrap_or_default().parse()?)
}

/// A watch after this version is told that history begins at `oldest`, in exactly these bytes, and
/// ended.
async fn is_too_old(
    client: &Client,
    collection: &str,
    (requested, oldest): (u64, u64),
) -> anyhow::Result<()> {
    let mut watch = watch_after(client, collection, requested, JSON).await?;
    let event = watch.event_now().await?;
    let expected = format!(
        concat!(
            r#"{{"type":"ERROR","object":{{"kind":"Status","apiVersion":"v1","metadata":{{}},"#,
            r#""status":"Failure","message":"too old resource version: {requested} ({oldest})","#,
            r#""reason":"Expired","code":410}}}}"#,
            "\n"
        ),
        requested = requested,
        oldest = oldest
    );
    ensure!(event.raw == expected.as_bytes(), "{event:?}");
    ends(&mut watch).await
}

/// 65, 67: a watch may start after the version just before the oldest event in history and not
/// below; where nothing was evicted that is the version the cache began at, so version 1 is too old
/// of a resource nothing ever happened to.
pub async fn the_version_before_history_is_the_last_to_be_accepted(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let custom = Custom::define(cluster).await?;
    let collection = custom.collection(&namespace);
    let first = oldest(cluster.admin(), &collection).await?;
    ensure!(first > 1, "the cache began at {first}");
    is_too_old(cluster.admin(), &collection, (first - 1, first)).await?;
    let mut watch = watch_after(cluster.admin(), &collection, first, JSON).await?;
    let body = custom.widget("x", "red");
    let created = version(&cluster.create(&collection, &body).await?)?;
    let x = format!("{namespace}/x");
    sees(&mut watch, &[("ADDED", &x, created)]).await?;
    // An event moves the beginning of history only when it pushes another one out.
    ensure!(oldest(cluster.admin(), &collection).await? == first);
    let mut watch = watch_after(cluster.admin(), &collection, first, JSON).await?;
    sees(&mut watch, &[("ADDED", &x, created)]).await
}

/// 66: when a cache had to list anew, nothing before that list can be watched, whether it was lost
/// or not. A changed definition makes the apiserver do so.
pub async fn a_cache_that_listed_anew_knows_nothing_from_before(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let custom = Custom::define(cluster).await?;
    let collection = custom.collection(&namespace);
    let begun = oldest(cluster.admin(), &collection).await?;
    let body = custom.widget("x", "red");
    let created = version(&cluster.create(&collection, &body).await?)?;
    let mut open = watch_after(cluster.admin(), &collection, begun, JSON).await?;
    sees(&mut open, &[("ADDED", &format!("{namespace}/x"), created)]).await?;
    custom.redefine(cluster).await?;
    ends(&mut open).await?;
    custom.served(cluster).await?;

    for attempt in 1.. {
        // A proxy may list once more when it learns why it had to.
        let anew = oldest(cluster.admin(), &collection).await?;
        ensure!(anew > created, "{anew} is not after {created}");
        let listed = from_a_new_list(cluster, &custom, (&collection, anew)).await;
        if listed.is_ok() || oldest(cluster.admin(), &collection).await? == anew {
            return listed;
        }
        ensure!(attempt < 5, "it lists anew all the time: {listed:?}");
    }
    Ok(())
}

async fn from_a_new_list(
    cluster: &Cluster,
    custom: &Custom,
    (collection, anew): (&str, u64),
) -> anyhow::Result<()> {
    for requested in [2, anew / 2, anew - 1] {
        is_too_old(cluster.admin(), collection, (requested, anew)).await?;
    }
    let mut watch = watch_after(cluster.admin(), collection, anew, JSON).await?;
    let body = custom.widget(&cluster.name(&anew.to_string()), "red");
    let created = version(&cluster.create(collection, &body).await?)?;
    let event = watch.event_now().await?;
    let own = (event.kind.as_str(), event.version);
    ensure!(own == ("ADDED", created), "{event:?}");
    Ok(())
}

/// 68: a version still to come is waited for in silence; events up to it are not for this client,
/// and neither are bookmarks.
pub async fn a_watch_from_the_future_is_silent_until_then(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let never = begin(cluster, &collection).await? + 1_000_000_000;
    let mut silent = Vec::new();
    for accept in ENCODINGS {
        // Long enough for the bookmark before the end, which would come after two seconds.
        let query = format!("resourceVersion={never}&allowWatchBookmarks=true&timeoutSeconds=4");
        let watch = watching(&collection, &query, accept);
        silent.push(cluster.admin().watch(watch).await?);
    }
    let created = version(&cluster.config_map(&namespace, "x").await?)?;
    let soon = created + 100;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        watches.push(watch_after(cluster.admin(), &collection, soon, accept).await?);
    }
    let (mut written, target) = (vec![created], format!("{collection}/x"));
    while written.iter().filter(|version| **version > soon).count() < 2 {
        let body = json!({"data": {"v": written.len().to_string()}});
        written.push(version(&cluster.change("PATCH", &target, &body).await?)?);
    }
    let (x, later) = (
        format!("{namespace}/x"),
        written.iter().filter(|it| **it > soon),
    );
    let expected: Vec<_> = later.map(|version| ("MODIFIED", &*x, *version)).collect();
    for mut watch in watches {
        sees(&mut watch, &expected).await?;
    }
    for mut watch in silent {
        ends(&mut watch).await?;
    }
    Ok(())
}
