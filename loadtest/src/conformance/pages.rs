//! Lists in pages: what a token means, and whose it is.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::cluster::{config_maps, until};
use super::expect::{expect_status, go_string};
use super::lists::{List, NO_MATCH_WITH_TOKEN, delete, expect_invalid, filled, list, set};
use super::scene::version;
use super::{Cluster, Setup};
use crate::client::Client;

const FIVE: [&str; 5] = ["c0", "c1", "c2", "c3", "c4"];

/// The page after a list.
async fn next(client: &Client, collection: &str, (page, more): (&List, &str)) -> Page {
    let token = page.token.as_ref().context("it does not go on")?;
    list(client, &format!("{collection}?continue={token}{more}")).await
}

type Page = anyhow::Result<List>;

/// A token as its text says it: version of the format, revision, start.
fn token(format: &str, revision: i64, start: &str) -> String {
    let start = go_string(start);
    let text = format!(r#"{{"v":"{format}","rv":{revision},"start":{start}}}"#);
    URL_SAFE_NO_PAD.encode(text)
}

/// The revision and start in a token.
fn read(token: &str) -> anyhow::Result<(i64, String)> {
    let text: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token)?)?;
    ensure!(text["v"] == "meta.k8s.io/v1", "{text}");
    let start = text["start"].as_str().context("no start")?;
    let revision = text["rv"].as_i64().context("no revision")?;
    Ok((revision, start.to_owned()))
}

/// 35: a page may be of a version that is not older than one; its token names that version.
pub async fn a_page_that_is_not_older_goes_on_at_its_own_version(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, versions) = filled(cluster, &["x", "y", "z"]).await?;
    let query = "limit=1&resourceVersionMatch=NotOlderThan";
    let target = format!("{collection}?{query}&resourceVersion={}", versions[2]);
    let first = list(cluster.admin(), &target).await?;
    ensure!(
        first.names() == ["x"] && first.version >= versions[2],
        "{first:?}"
    );
    ensure!(first.remaining == Some(2), "{first:?}");
    let (revision, _) = read(first.token.as_ref().context("it goes on")?)?;
    ensure!(u64::try_from(revision)? == first.version, "{first:?}");
    let rest = next(cluster.admin(), &collection, (&first, "")).await?;
    ensure!(
        rest.names() == ["y", "z"] && rest.version == first.version,
        "{rest:?}"
    );
    Ok(())
}

/// 40: pages are of one version, say how much is left, and end without a token.
pub async fn pages_are_of_one_version_and_say_what_remains(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &FIVE).await?;
    let client = cluster.admin();
    let first = list(client, &format!("{collection}?limit=2")).await?;
    ensure!(first.names() == ["c0", "c1"], "{first:?}");
    ensure!(first.remaining == Some(3), "{first:?}");
    let second = next(client, &collection, (&first, "&limit=2")).await?;
    ensure!(second.names() == ["c2", "c3"], "{second:?}");
    ensure!(second.remaining == Some(1), "{second:?}");
    let third = next(client, &collection, (&second, "&limit=2")).await?;
    ensure!(third.names() == ["c4"], "{third:?}");
    ensure!(
        third.token.is_none() && third.remaining.is_none(),
        "{third:?}"
    );
    let versions = [first.version, second.version, third.version];
    ensure!(
        versions.iter().all(|own| *own == first.version),
        "{versions:?}"
    );
    // A page may have another length than the one before, or none.
    let longer = next(client, &collection, (&first, "&limit=10")).await?;
    let rest = next(client, &collection, (&first, "")).await?;
    for page in [longer, rest] {
        ensure!(page.names() == ["c2", "c3", "c4"], "{page:?}");
        ensure!(
            page.version == first.version && page.token.is_none(),
            "{page:?}"
        );
    }
    Ok(())
}

/// A namespace with these ConfigMaps, labelled `app=a` where `true`.
async fn labelled(cluster: &Cluster, names: &[(&str, bool)]) -> anyhow::Result<String> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    for (name, is_a) in names {
        let app = if *is_a { "a" } else { "b" };
        let metadata = json!({"name": name, "labels": {"app": app, "of": namespace}});
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        cluster.create(&collection, &body).await?;
    }
    Ok(collection)
}

/// 41: with a selector it is not known how much is left.
pub async fn a_selected_page_does_not_say_what_remains(cluster: &Cluster) -> anyhow::Result<()> {
    let objects = [
        ("c0", true),
        ("c1", false),
        ("c2", true),
        ("c3", false),
        ("c4", true),
    ];
    let collection = labelled(cluster, &objects).await?;
    let client = cluster.admin();
    let selector = "&labelSelector=app%3Da";
    let first = list(client, &format!("{collection}?limit=2{selector}")).await?;
    ensure!(first.names() == ["c0", "c2"], "{first:?}");
    ensure!(
        first.token.is_some() && first.remaining.is_none(),
        "{first:?}"
    );
    let more = format!("&limit=2{selector}");
    let second = next(client, &collection, (&first, &more)).await?;
    ensure!(
        second.names() == ["c4"] && second.token.is_none(),
        "{second:?}"
    );
    ensure!(
        second.version == first.version && second.remaining.is_none(),
        "{second:?}"
    );
    let by_field = "&fieldSelector=metadata.name!%3Dc1";
    let first = list(client, &format!("{collection}?limit=2{by_field}")).await?;
    ensure!(
        first.names() == ["c0", "c2"] && first.remaining.is_none(),
        "{first:?}"
    );
    ensure!(first.token.is_some(), "{first:?}");
    Ok(())
}

/// 42: a page ends where its limit is met; the next may find that nothing is left.
pub async fn the_last_match_of_a_full_page_is_followed_by_an_empty_one(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let objects = [("c0", false), ("c1", true), ("c2", false)];
    let collection = labelled(cluster, &objects).await?;
    let client = cluster.admin();
    let selector = "&limit=1&labelSelector=app%3Da";
    let first = list(client, &format!("{collection}?{}", &selector[1..])).await?;
    ensure!(
        first.names() == ["c1"] && first.token.is_some(),
        "{first:?}"
    );
    ensure!(first.remaining.is_none(), "{first:?}");
    let second = next(client, &collection, (&first, selector)).await?;
    ensure!(
        second.items.is_empty() && second.token.is_none(),
        "{second:?}"
    );
    ensure!(second.version == first.version, "{second:?}");
    // Where the match is the last object there is nothing to come back for.
    let last = "&limit=1&fieldSelector=metadata.name!%3Dc0,metadata.name!%3Dc1";
    let only = list(client, &format!("{collection}?{}", &last[1..])).await?;
    ensure!(only.names() == ["c2"] && only.token.is_none(), "{only:?}");
    Ok(())
}

/// 43, 54: a limit that is met exactly, too large, zero or negative ends the list.
pub async fn a_limit_that_leaves_nothing_ends_the_list(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &FIVE).await?;
    for limit in ["5", "6", "0", "-5", "9223372036854775807"] {
        let list = list(cluster.admin(), &format!("{collection}?limit={limit}")).await?;
        ensure!(list.names() == FIVE, "{limit}: {list:?}");
        ensure!(
            list.token.is_none() && list.remaining.is_none(),
            "{limit}: {list:?}"
        );
    }
    Ok(())
}

/// 44: what is written between pages is on none of them.
pub async fn later_pages_are_of_the_first_pages_version(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &FIVE).await?;
    let client = cluster.admin();
    let first = list(client, &format!("{collection}?limit=2")).await?;
    delete(cluster, &format!("{collection}/c3")).await?;
    cluster.config_map(&cluster.name("a"), "c2b").await?;
    let changed = set(cluster, &format!("{collection}/c4"), "new").await?;
    list(client, &format!("{collection}?resourceVersion={changed}")).await?;
    let rest = next(client, &collection, (&first, "&limit=10")).await?;
    ensure!(rest.names() == ["c2", "c3", "c4"], "{rest:?}");
    ensure!(rest.version == first.version, "{rest:?} after {first:?}");
    ensure!(rest.items[2]["data"].is_null(), "{rest:?}");
    let second = next(client, &collection, (&first, "&limit=2")).await?;
    ensure!(
        second.names() == ["c2", "c3"] && second.remaining == Some(1),
        "{second:?}"
    );
    Ok(())
}

/// 45: a token carries its version; another one is refused, "0" is none but ends the limit.
pub async fn a_token_goes_with_no_other_version(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, versions) = filled(cluster, &FIVE).await?;
    let client = cluster.admin();
    let first = list(client, &format!("{collection}?limit=1")).await?;
    let token = first.token.as_ref().context("it goes on")?;
    let with = format!("{collection}?limit=1&continue={token}");
    for at in ["5", &versions[4].to_string()] {
        let answer = client.get(&format!("{with}&resourceVersion={at}")).await?;
        let message = "specifying resource version is not allowed when using continue";
        expect_status(&answer, 400, "BadRequest", message, "")?;
    }
    let rest = list(client, &format!("{with}&resourceVersion=0")).await?;
    ensure!(
        rest.names() == FIVE[1..] && rest.version == first.version,
        "{rest:?}"
    );
    ensure!(rest.token.is_none() && rest.remaining.is_none(), "{rest:?}");
    for query in ["&resourceVersion=5", "&resourceVersion=0"] {
        let target = format!("{with}{query}&resourceVersionMatch=NotOlderThan");
        expect_invalid(&client.get(&target).await?, &[NO_MATCH_WITH_TOKEN])?;
    }
    Ok(())
}

/// 46: a token that is none, or of another format, or climbs out of its collection, is refused.
pub async fn a_bad_token_is_refused_with_the_reason(cluster: &Cluster) -> anyhow::Result<()> {
    const V1: &str = "meta.k8s.io/v1";
    let (collection, versions) = filled(cluster, &["c0"]).await?;
    let at = i64::try_from(versions[0])?;
    let empty = "encoded start key empty (version meta.k8s.io/v1)";
    let refused = [
        (
            URL_SAFE_NO_PAD.encode("x"),
            "invalid character 'x' looking for beginning of value",
        ),
        ("!!!".to_owned(), "illegal base64 data at input byte 0"),
        (token(V1, at, "../../x"), "../../x"),
        (token(V1, at, "/../x"), "/../x"),
        (token(V1, at, "a/../b"), "a/../b"),
        (token(V1, at, "./a"), "./a"),
        (token(V1, at, "a//b"), "a//b"),
        (token(V1, at, "//a"), "//a"),
        (token(V1, at, "a/"), "a/"),
        (token(V1, at, ".."), ".."),
        (
            token("v2", at, "a"),
            "server does not recognize this encoded version v2",
        ),
        (
            token(V1, 0, "a"),
            "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        ),
        (token(V1, at, ""), empty),
        (
            URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":5}"#),
            empty,
        ),
    ];
    for (token, why) in refused {
        let target = format!("{collection}?limit=1&continue={token}");
        let answer = cluster.admin().get(&target).await?;
        let message = format!("invalid continue token: continue key is not valid: {why}");
        expect_status(&answer, 400, "BadRequest", &message, "").with_context(|| token)?;
    }
    let root = format!("{collection}?limit=1&continue={}", token(V1, at, "/"));
    let all = list(cluster.admin(), &root).await?;
    ensure!(
        all.names() == ["c0"] && all.version == versions[0],
        "{all:?}"
    );
    Ok(())
}

/// 47: a token whose revision is compacted is 410, with one that goes on with the present.
pub async fn an_expired_token_is_replaced_by_one_that_goes_on_with_the_present(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let own = cluster.own(Setup::default()).await?;
    let (collection, _) = filled(&own, &FIVE).await?;
    let client = own.admin();
    let first = list(client, &format!("{collection}?limit=2")).await?;
    delete(&own, &format!("{collection}/c3")).await?;
    let changed = set(&own, &format!("{collection}/c4"), "new").await?;
    own.compact(changed).await?;
    let old = first.token.as_ref().context("it goes on")?;
    let target = format!("{collection}?limit=2&continue={old}");
    let mut replacement = String::new();
    until("a token is expired", async || {
        let answer = client.get(&target).await?;
        if answer.status == 200 {
            // An apiserver may have the past in memory until it hears of the compaction.
            ensure!(answer.text().contains("\"c3\""), "{}", answer.text());
            return Ok(false);
        }
        let status = answer.json()?;
        replacement = status["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        expect_replaced(&answer.text(), answer.status, &replacement)?;
        Ok(true)
    })
    .await?;
    let (revision, start) = read(&replacement)?;
    ensure!(revision == -1, "{revision}");
    ensure!(start.trim_start_matches('/') == "c1\0", "{start:?}");
    let rest = list(
        client,
        &format!("{collection}?limit=2&continue={replacement}"),
    )
    .await?;
    ensure!(rest.names() == ["c2", "c4"], "{rest:?}");
    ensure!(
        rest.version >= changed && rest.items[1]["data"]["v"] == "new",
        "{rest:?}"
    );
    ensure!(rest.token.is_none(), "{rest:?}");
    own.end().await;
    Ok(())
}

/// The whole body of a 410 about a token.
fn expect_replaced(body: &str, status: u16, replacement: &str) -> anyhow::Result<()> {
    let message = "The provided continue parameter is too old to display a consistent list \
        result. You can start a new list without the continue parameter, or use the continue \
        token in this response to retrieve the remainder of the results. Continuing with the \
        provided token results in an inconsistent list - objects that were created, modified, \
        or deleted between the time the first chunk was returned and now may show up in the \
        list.";
    let expected = format!(
        "{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{{\"continue\":\
         \"{replacement}\"}},\"status\":\"Failure\",\"message\":\"{message}\",\
         \"reason\":\"Expired\",\"code\":410}}\n"
    );
    ensure!(status == 410 && body == expected, "{status} {body}");
    Ok(())
}

/// 48: tokens are the apiserver's own: each server goes on where the other stopped, and both
/// spellings of a start mean the same.
pub async fn a_token_is_good_wherever_it_is_from(cluster: &Cluster) -> anyhow::Result<()> {
    let collection = labelled(cluster, &FIVE.map(|name| (name, true))).await?;
    let own = cluster.name("a");
    let all = format!("/api/v1/configmaps?labelSelector=of%3D{own}");
    let (tested, apiserver) = (cluster.admin(), cluster.direct());
    for (minting, taking) in [(tested, apiserver), (apiserver, tested), (tested, tested)] {
        let first = list(minting, &format!("{collection}?limit=2")).await?;
        let (revision, start) = read(first.token.as_ref().context("it goes on")?)?;
        ensure!(u64::try_from(revision)? == first.version, "{first:?}");
        ensure!(start == "/c1\0", "{start:?}");
        let rest = next(taking, &collection, (&first, "&limit=5")).await?;
        ensure!(
            rest.names() == FIVE[2..] && rest.version == first.version,
            "{rest:?}"
        );
        for start in ["c1\0", "/c1\0"] {
            let own = token("meta.k8s.io/v1", revision, start);
            let page = list(taking, &format!("{collection}?limit=2&continue={own}")).await?;
            ensure!(page.names() == ["c2", "c3"], "{start:?}: {page:?}");
            ensure!(page.version == first.version, "{start:?}: {page:?}");
        }
        let first = list(minting, &format!("{all}&limit=2")).await?;
        let (_, start) = read(first.token.as_ref().context("it goes on")?)?;
        ensure!(start == format!("/{own}/c1\0"), "{start:?}");
        let token = first.token.context("it goes on")?;
        let rest = list(taking, &format!("{all}&continue={token}")).await?;
        ensure!(
            rest.names() == FIVE[2..] && rest.version == first.version,
            "{rest:?}"
        );
    }
    let changed = set(cluster, &format!("{collection}/c4"), "new").await?;
    for start in ["c1\0", "/c1\0"] {
        let own = token("meta.k8s.io/v1", -1, start);
        let now = list(tested, &format!("{collection}?limit=9&continue={own}")).await?;
        ensure!(
            now.names() == FIVE[2..] && now.version >= changed,
            "{now:?}"
        );
        ensure!(now.items[2]["data"]["v"] == "new", "{now:?}");
    }
    ensure!(version(&cluster.direct().get(&collection).await?.ok()?)? >= changed);
    Ok(())
}
