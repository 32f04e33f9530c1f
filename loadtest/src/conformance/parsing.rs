//! How paths, queries and numbers are read.

use anyhow::ensure;

use super::Cluster;
use super::cluster::config_maps;
use crate::client::Request;

/// Whether a GET of this target is a watch: its first bytes are an event, those of a list a list.
async fn is_watch(cluster: &Cluster, target: &str) -> anyhow::Result<bool> {
    let mut open = cluster.admin().send(Request::get(target)).await?;
    ensure!(open.status() == 200, "{target}: {}", open.status());
    let first = open.chunk().await?.unwrap_or_default();
    ensure!(
        first.starts_with(b"{\"type\":\"ADDED\"")
            != first.starts_with(b"{\"kind\":\"ConfigMapList\"")
    );
    Ok(first.starts_with(b"{\"type\":"))
}

/// 1, 2: every value of `watch` but `0` and `false` is true, the empty one too.
pub async fn an_empty_or_odd_value_of_watch_is_true(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    cluster.config_map(&namespace, "x").await?;
    let truths = [
        ("watch", true),
        ("watch=", true),
        ("watch=no", true),
        ("watch=1", true),
        ("watch=TRUE", true),
        ("watch=0", false),
        ("watch=false", false),
        ("watch=False", false),
        ("watch=FALSE", false),
        ("Watch=1", false),
    ];
    for (query, expected) in truths {
        let target = format!("{}?{query}", config_maps(&namespace));
        ensure!(is_watch(cluster, &target).await? == expected, "{target}");
    }
    Ok(())
}

/// 3: of a repeated parameter the first value counts.
pub async fn the_first_value_of_watch_counts(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    cluster.config_map(&namespace, "x").await?;
    for (query, expected) in [("watch=1&watch=0", true), ("watch=0&watch=1", false)] {
        let target = format!("{}?{query}", config_maps(&namespace));
        ensure!(is_watch(cluster, &target).await? == expected, "{target}");
    }
    Ok(())
}
