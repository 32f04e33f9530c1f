//! How a watch begins: with the state there is, with none, or with a refusal.

use anyhow::ensure;
use serde_json::json;

use super::cluster::config_maps;
use super::scene::{ENCODINGS, WATCH_LIST, begin, ends, sees, version, watching};
use super::watch_options::expect_invalid;
use super::{Cluster, Setup};
use crate::client::{JSON, Request, Watch};

/// Waits until the state at this version is what version "0" means.
pub(super) async fn caught_up(
    cluster: &Cluster,
    collection: &str,
    version: u64,
) -> anyhow::Result<()> {
    for accept in ENCODINGS {
        let target = format!("{collection}?resourceVersion={version}");
        let answer = cluster
            .admin()
            .whole(Request::get(target).header("accept", accept));
        ensure!(answer.await?.status == 200);
    }
    Ok(())
}

/// The next event is the bookmark that ends the initial events, at this version or later.
async fn initial_events_end(watch: &mut Watch, at_least: u64) -> anyhow::Result<u64> {
    let event = watch.event_now().await?;
    let is_end = event.kind == "BOOKMARK" && event.ends_initial_events;
    ensure!(
        is_end && event.version >= at_least,
        "expected the end at {at_least}, came {event:?}"
    );
    Ok(event.version)
}

/// 70: version "0" begins with all there is, in the order of keys, each object at its own version,
/// and goes on with what comes next; where bookmarks are allowed one stands between.
pub async fn version_zero_begins_with_all_objects_in_key_order(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    // Keys are compared as bytes: "-" < "/" < "0".
    let mut stored = Vec::new();
    for suffix in ["a0", "a", "a-b"] {
        let namespace = cluster.namespace(suffix).await?;
        begin(cluster, &config_maps(&namespace)).await?;
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "x", "labels": {"run": cluster.prefix()}}});
        let created = cluster.create(&config_maps(&namespace), &body).await?;
        stored.push((format!("{namespace}/x"), version(&created)?));
    }
    let newest = stored[2].1;
    caught_up(cluster, "/api/v1/configmaps", newest).await?;
    let (a0, a, a_b) = (&stored[0], &stored[1], &stored[2]);
    let expected = [a_b, a, a0].map(|(key, version)| ("ADDED", key.as_str(), *version));
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        for bookmarks in [false, true] {
            let query = format!(
                "resourceVersion=0&labelSelector=run={}&allowWatchBookmarks={bookmarks}",
                cluster.prefix()
            );
            let watch = watching("/api/v1/configmaps", &query, accept);
            let mut watch = cluster.admin().watch(watch).await?;
            sees(&mut watch, &expected).await?;
            if bookmarks {
                initial_events_end(&mut watch, newest).await?;
            }
            watches.push(watch);
        }
    }
    let namespace = cluster.name("a");
    let change = json!({"data": {"v": "1"}});
    let target = format!("{}/x", config_maps(&namespace));
    let changed = version(&cluster.change("PATCH", &target, &change).await?)?;
    for mut watch in watches {
        let event = watch.change().await?;
        let own = (event.kind.as_str(), event.key.as_str(), event.version);
        ensure!(
            own == ("MODIFIED", &*format!("{namespace}/x"), changed),
            "{event:?}"
        );
    }
    Ok(())
}

/// 71: without a version a watch begins with the state that holds every write acknowledged before
/// it.
pub async fn no_version_begins_with_everything_written_before(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let (mut keys, mut versions) = (Vec::new(), Vec::new());
    for round in 0..4 {
        let name = format!("c{round}");
        keys.push(format!("{namespace}/{name}"));
        versions.push(version(&cluster.config_map(&namespace, &name).await?)?);
        let query = [
            "allowWatchBookmarks=true",
            "resourceVersion=&allowWatchBookmarks=1",
        ];
        let watch = watching(&collection, query[round % 2], ENCODINGS[round / 2]);
        let mut watch = cluster.admin().watch(watch).await?;
        let expected = keys.iter().zip(&versions);
        let expected: Vec<_> = expected.map(|(key, at)| ("ADDED", &**key, *at)).collect();
        sees(&mut watch, &expected).await?;
        initial_events_end(&mut watch, versions[round]).await?;
    }
    Ok(())
}

/// 72: whoever does not allow bookmarks gets none, the end of the initial events included.
pub async fn without_bookmarks_the_end_of_initial_events_is_not_marked(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let elsewhere = cluster.namespace("b").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let created = version(&cluster.config_map(&namespace, "x").await?)?;
    caught_up(cluster, &collection, created).await?;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        for query in [
            "resourceVersion=0",
            "",
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        ] {
            let query = format!("{query}&timeoutSeconds=4");
            let watch = watching(&collection, &query, accept);
            watches.push(cluster.admin().watch(watch).await?);
        }
    }
    // Progress a bookmark could tell of, after one second and before the end.
    cluster.config_map(&elsewhere, "noise").await?;
    for mut watch in watches {
        sees(&mut watch, &[("ADDED", &format!("{namespace}/x"), created)]).await?;
        ends(&mut watch).await?;
    }
    Ok(())
}

/// 73: asked for initial events not older than a version, a watch begins with the state at that
/// version or later, marks its end with a bookmark, and goes on.
pub async fn a_watch_list_marks_the_end_of_its_initial_events(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let before = begin(cluster, &collection).await?;
    let created = version(&cluster.config_map(&namespace, "x").await?)?;
    caught_up(cluster, &collection, created).await?;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        for version in [
            String::new(),
            "0".into(),
            before.to_string(),
            created.to_string(),
        ] {
            let query = format!("{WATCH_LIST}&resourceVersion={version}");
            let watch = watching(&collection, &query, accept);
            let mut watch = cluster.admin().watch(watch).await?;
            sees(&mut watch, &[("ADDED", &format!("{namespace}/x"), created)]).await?;
            initial_events_end(&mut watch, created).await?;
            watches.push(watch);
        }
    }
    let next = version(&cluster.config_map(&namespace, "y").await?)?;
    for mut watch in watches {
        let event = watch.change().await?;
        ensure!(event.kind == "ADDED" && event.version == next, "{event:?}");
    }
    Ok(())
}

/// 74, 81: where there is nothing to begin with, the mark of the end comes first; a name nobody has
/// is no error.
pub async fn a_watch_of_nothing_begins_with_the_mark(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let newest = begin(cluster, &collection).await?;
    let (mut marked, mut silent) = (Vec::new(), Vec::new());
    for accept in ENCODINGS {
        for query in [
            WATCH_LIST.to_owned(),
            format!("{WATCH_LIST}&resourceVersion={newest}"),
            "fieldSelector=metadata.name=nope&resourceVersion=0&allowWatchBookmarks=true".into(),
        ] {
            let watch = cluster
                .admin()
                .watch(watching(&collection, &query, accept))
                .await?;
            marked.push((watch, query.contains("nope")));
        }
        let query = "fieldSelector=metadata.name=nope&resourceVersion=0&timeoutSeconds=3";
        let watch = cluster.admin().watch(watching(&collection, query, accept));
        silent.push(watch.await?);
    }
    let created = version(&cluster.config_map(&namespace, "x").await?)?;
    for (mut watch, is_of_nope) in marked {
        initial_events_end(&mut watch, 1).await?;
        if !is_of_nope {
            let event = watch.change().await?;
            ensure!(
                event.kind == "ADDED" && event.version == created,
                "{event:?}"
            );
        }
    }
    for mut watch in silent {
        ends(&mut watch).await?;
    }
    Ok(())
}

/// 75: initial events not older than a version that does not come are waited for three seconds;
/// then the stream holds one ERROR, a 504, and ends.
pub async fn a_watch_list_from_the_future_is_told_so_in_the_stream(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let newest = begin(cluster, &collection).await?;
    let future = newest + 1_000_000_000;
    let query = format!("{WATCH_LIST}&resourceVersion={future}");
    let mut watch = cluster
        .admin()
        .watch(watching(&collection, &query, JSON))
        .await?;
    let event = watch.event_now().await?;
    ensure!(event.kind == "ERROR", "{event:?}");
    ensure!(event.at.as_millis() >= 2_900, "it waited {:?}", event.at);
    let text = String::from_utf8_lossy(&event.raw).into_owned();
    let (before, rest) = text.split_once(", current: ").unwrap_or_default();
    let expected = format!(
        concat!(
            r#"{{"type":"ERROR","object":{{"kind":"Status","apiVersion":"v1","metadata":{{}},"#,
            r#""status":"Failure","message":"Timeout: Too large resource version: {}"#
        ),
        future
    );
    ensure!(before == expected, "{text}");
    let (current, rest) = rest.split_once('"').unwrap_or_default();
    ensure!(current.parse::<u64>()? >= newest, "{text}");
    let expected = concat!(
        r#","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","#,
        r#""message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}}"#,
        "\n"
    );
    ensure!(rest == expected, "{text}");
    ends(&mut watch).await?;
    let protobuf = watching(&collection, &query, ENCODINGS[1]);
    let mut watch = cluster.admin().watch(protobuf).await?;
    let event = watch.event_now().await?;
    ensure!(event.kind == "ERROR", "{event:?}");
    ends(&mut watch).await
}

/// 77, 78: whoever wants no initial events gets none, at version "0" from what the cache has, and
/// without a version from after the request.
pub async fn without_initial_events_a_watch_begins_with_what_comes_next(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let before = begin(cluster, &collection).await?;
    let created = version(&cluster.config_map(&namespace, "x").await?)?;
    caught_up(cluster, &collection, created).await?;
    let none = "sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        for (version, is_replayed) in [
            ("0".to_owned(), false),
            (String::new(), false),
            (before.to_string(), true),
        ] {
            let query = format!("{none}&resourceVersion={version}");
            let watch = cluster.admin().watch(watching(&collection, &query, accept));
            watches.push((watch.await?, is_replayed));
        }
    }
    let next = version(&cluster.config_map(&namespace, "y").await?)?;
    let (x, y) = (format!("{namespace}/x"), format!("{namespace}/y"));
    let expected = [("ADDED", &*x, created), ("ADDED", &*y, next)];
    for (mut watch, is_replayed) in watches {
        sees(&mut watch, &expected[usize::from(!is_replayed)..]).await?;
    }
    Ok(())
}

/// 83: an apiserver without WatchList refuses initial events by request, and those of version "0"
/// have no mark at their end.
pub async fn without_watch_list_initial_events_are_not_marked(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let setup = Setup {
        watch_list: false,
        ..Setup::default()
    };
    let cluster = &cluster.own(setup).await?;
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let created = version(&cluster.config_map(&namespace, "x").await?)?;
    caught_up(cluster, &collection, created).await?;
    let target = format!("{collection}?watch=1&{WATCH_LIST}");
    let causes = [(
        "FieldValueForbidden",
        concat!(
            "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature ",
            "gate is enabled"
        )
        .to_owned(),
        "sendInitialEvents",
    )];
    expect_invalid(&cluster.admin().get(&target).await?, &causes)?;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        for query in ["resourceVersion=0", ""] {
            let query = format!("{query}&allowWatchBookmarks=true&timeoutSeconds=4");
            let watch = watching(&collection, &query, accept);
            watches.push(cluster.admin().watch(watch).await?);
        }
    }
    for mut watch in watches {
        sees(&mut watch, &[("ADDED", &format!("{namespace}/x"), created)]).await?;
        let mut next = watch.next().await?;
        while let Some(event) = next {
            let is_plain = event.kind == "BOOKMARK" && !event.ends_initial_events;
            ensure!(is_plain, "{event:?}");
            next = watch.next().await?;
        }
    }
    Ok(())
}
