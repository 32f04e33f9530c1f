//! Streams as such: what a bookmark may claim, and what stands around the events.

use std::time::Duration;

use anyhow::ensure;
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::time::Instant;

use super::Cluster;
use super::cluster::config_maps;
use super::scene::{ENCODINGS, WATCH_LIST, begin, version, watch_after, watching};
use super::transitions::{Seen, read_to};
use crate::client::{JSON, Watch};

/// Beyond the list: whatever happens, a bookmark comes after every event up to its version, in
/// every encoding and under every selector.
pub async fn a_bookmark_never_comes_ahead_of_an_event(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let elsewhere = cluster.namespace("b").await?;
    let collection = config_maps(&namespace);
    let from = begin(cluster, &collection).await?;
    let mut everything = watch_after(cluster.direct(), &collection, from, JSON).await?;
    let mut requests = Vec::new();
    for odd_only in [false, true] {
        for start in [format!("resourceVersion={from}"), WATCH_LIST.to_owned()] {
            let selector = if odd_only {
                "labelSelector=odd%3Dtrue"
            } else {
                ""
            };
            let query = format!("{start}&{selector}&allowWatchBookmarks=true&timeoutSeconds=5");
            for accept in ENCODINGS {
                requests.push((watching(&collection, &query, accept), odd_only));
            }
        }
    }
    let opened = requests.into_iter().map(async |(request, odd_only)| {
        anyhow::Ok((cluster.admin().watch(request).await?, odd_only))
    });
    let write = async {
        // Longer than it takes to open them, and then to the bookmark before their end.
        let over = Instant::now() + Duration::from_secs(7);
        let mut last = from;
        for round in 0.. {
            let odd = (round % 2 == 1).to_string();
            let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("c{round:09}"), "labels": {"odd": odd}}});
            last = version(&cluster.create(&collection, &body).await?)?;
            cluster
                .config_map(&elsewhere, &format!("noise-{round}"))
                .await?;
            if Instant::now() > over {
                break;
            }
        }
        anyhow::Ok(last)
    };
    let (watches, last) = tokio::try_join!(try_join_all(opened), write)?;
    let happened = read_to(&mut everything, last).await?;
    for (watch, odd_only) in watches {
        let is_seen = |seen: &Seen| !odd_only || seen.object["metadata"]["labels"]["odd"] == "true";
        let seen = happened.iter().filter(|seen| is_seen(seen));
        in_order(watch, seen.map(|seen| seen.version).collect()).await?;
    }
    Ok(())
}

/// A watch of objects that are only ever created, to its end: their events in order, with no
/// bookmark ahead of one, and one bookmark at least after the initial events.
async fn in_order(mut watch: Watch, expected: Vec<u64>) -> anyhow::Result<()> {
    let mut expected = expected.into_iter().peekable();
    let mut bookmarks = 0;
    while let Some(event) = watch.next().await? {
        if event.kind == "BOOKMARK" {
            bookmarks += u32::from(!event.ends_initial_events);
            let missing = expected.peek().filter(|next| **next <= event.version);
            ensure!(missing.is_none(), "{missing:?} comes after {event:?}");
        } else {
            let next = expected.next();
            ensure!(
                next == Some(event.version),
                "{next:?} is missing before {event:?}"
            );
        }
    }
    ensure!(bookmarks > 0, "no bookmark came");
    Ok(())
}
