//! Lists of the past: exactly at a version, until that is compacted.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::cluster::{config_maps, until};
use super::expect::expect_status;
use super::lists::{List, NEVER, delete, list, listed, set, too_large};
use super::scene::version;
use super::{Cluster, Setup};

/// A ConfigMap `x` whose `data.v` is 1 and then 2, and `y`, which is deleted.
struct Past {
    collection: String,
    /// `x` is there, with 1.
    first: u64,
    /// So is `y`.
    both: u64,
    /// `x` has 2.
    changed: u64,
    /// `y` is gone and `z` there.
    now: u64,
}

impl Past {
    async fn make(cluster: &Cluster) -> anyhow::Result<Self> {
        let namespace = cluster.namespace("a").await?;
        let collection = config_maps(&namespace);
        let x = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"},
            "data": {"v": "1"}});
        let first = version(&cluster.create(&collection, &x).await?)?;
        let both = version(&cluster.config_map(&namespace, "y").await?)?;
        let changed = set(cluster, &format!("{collection}/x"), "2").await?;
        delete(cluster, &format!("{collection}/y")).await?;
        let now = version(&cluster.config_map(&namespace, "z").await?)?;
        let target = format!("{collection}?resourceVersion={now}");
        list(cluster.admin(), &target).await?;
        Ok(Self {
            collection,
            first,
            both,
            changed,
            now,
        })
    }

    /// Asserts that a list is exactly of a version and has these objects, `x` with this value.
    async fn expect(
        &self,
        cluster: &Cluster,
        query: &str,
        (at, names, value): (u64, &[&str], &str),
    ) -> anyhow::Result<List> {
        let target = format!("{}?resourceVersion={at}{query}", self.collection);
        let list = list(cluster.admin(), &target).await?;
        ensure!(list.version == at, "{target}: {list:?}");
        ensure!(list.names() == names, "{target}: {list:?}");
        let x = list
            .items
            .iter()
            .find(|item| item["metadata"]["name"] == "x");
        let shown = x.map_or(&Value::Null, |x| &x["data"]["v"]);
        ensure!(x.is_none() || *shown == value, "{target}: {list:?}");
        Ok(list)
    }
}

/// 29: with a limit and nothing else, a version is exact.
pub async fn a_limit_makes_a_version_exact(cluster: &Cluster) -> anyhow::Result<()> {
    let past = Past::make(cluster).await?;
    let first = past
        .expect(cluster, "&limit=1", (past.first, &["x"], "1"))
        .await?;
    ensure!(
        first.token.is_none() && first.remaining.is_none(),
        "{first:?}"
    );
    let both = past
        .expect(cluster, "&limit=1", (past.both, &["x"], "1"))
        .await?;
    ensure!(both.remaining == Some(1), "{both:?}");
    let token = both.token.context("it goes on")?;
    let next = format!("{}?limit=1&continue={token}", past.collection);
    let next = list(cluster.admin(), &next).await?;
    ensure!(
        next.version == past.both && next.names() == ["y"],
        "{next:?}"
    );
    let nothing = past.expect(cluster, "&limit=1&labelSelector=a", (past.both, &[], ""));
    ensure!(nothing.await?.token.is_none());
    let changed = past.expect(cluster, "&limit=5", (past.changed, &["x", "y"], "2"));
    ensure!(changed.await?.token.is_none());
    Ok(())
}

/// 30: a list of one object by name is not exact by a limit: it is what is there now.
pub async fn one_object_by_name_is_never_exact_by_a_limit(cluster: &Cluster) -> anyhow::Result<()> {
    let past = Past::make(cluster).await?;
    let one = format!("{}?fieldSelector=metadata.name%3Dx", past.collection);
    let target = format!("{one}&limit=1&resourceVersion={}", past.first);
    let now = list(cluster.admin(), &target).await?;
    ensure!(now.version >= past.now, "{now:?} before {}", past.now);
    ensure!(
        now.items[0]["data"]["v"] == "2" && now.token.is_none(),
        "{now:?}"
    );

    // From the store, which waits for nothing and suggests no time to come back.
    let asked = past.now + NEVER;
    let answer = cluster
        .admin()
        .get(&format!("{one}&limit=1&resourceVersion={asked}"))
        .await?;
    let (message, current) = too_large(&answer, asked)?;
    ensure!(current >= past.now, "{message} after {}", past.now);
    let details = r#"{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}]}"#;
    expect_status(&answer, 504, "Timeout", &message, details)?;
    ensure!(
        answer.headers.get("retry-after").is_none(),
        "{:?}",
        answer.headers
    );
    Ok(())
}

/// 31: `Exact` shows the collection as it was, what is deleted since included.
pub async fn an_exact_list_shows_the_past(cluster: &Cluster) -> anyhow::Result<()> {
    let past = Past::make(cluster).await?;
    let exact = "&resourceVersionMatch=Exact";
    past.expect(cluster, exact, (past.first, &["x"], "1"))
        .await?;
    past.expect(cluster, exact, (past.both, &["x", "y"], "1"))
        .await?;
    past.expect(cluster, exact, (past.changed, &["x", "y"], "2"))
        .await?;
    past.expect(cluster, exact, (past.now, &["x", "z"], "2"))
        .await?;
    let limited = format!("{exact}&limit=1");
    let page = past
        .expect(cluster, &limited, (past.changed, &["x"], "2"))
        .await?;
    ensure!(
        page.remaining == Some(1) && page.token.is_some(),
        "{page:?}"
    );
    for (name, names) in [("x", &["x"][..]), ("y", &["y"]), ("z", &[])] {
        let one = format!("{exact}&fieldSelector=metadata.name%3D{name}");
        past.expect(cluster, &one, (past.both, names, "1")).await?;
    }
    Ok(())
}

/// 32: an exact list of what was compacted is 410.
pub async fn an_exact_list_of_what_was_compacted_is_expired(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let own = cluster.own(Setup::default()).await?;
    let past = Past::make(&own).await?;
    let targets = ["&resourceVersionMatch=Exact", "&limit=1"];
    let targets =
        targets.map(|more| format!("{}?resourceVersion={}{more}", past.collection, past.first));
    own.compact(past.now).await?;
    for target in &targets {
        // An apiserver may have the past in memory until it hears of the compaction.
        until("an exact list is expired", async || {
            let answer = own.admin().get(target).await?;
            if answer.status == 200 {
                let list = listed(&answer)?;
                ensure!(list.version == past.first, "{list:?}");
                ensure!(list.items[0]["data"]["v"] == "1", "{list:?}");
                return Ok(false);
            }
            let text = "The resourceVersion for the provided list is too old.";
            expect_status(&answer, 410, "Expired", text, "")?;
            Ok(true)
        })
        .await
        .with_context(|| target.clone())?;
    }
    // What is asked for as not older is there.
    let target = format!("{}?resourceVersion={}", past.collection, past.first);
    let list = list(own.admin(), &target).await?;
    ensure!(
        list.names() == ["x", "z"] && list.version >= past.now,
        "{list:?}"
    );
    own.end().await;
    Ok(())
}
