//! Lists: at which resource version, of which objects, in what order.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::cluster::config_maps;
use super::expect::expect_status;
use super::scene::version;
use super::{Cluster, Setup};
use crate::client::{Answer, Client};

/// How far from any version a version is that never comes.
pub(super) const NEVER: u64 = 1_000_000_000;

/// A list as an answer gave it.
#[derive(Debug)]
pub(super) struct List {
    /// The version it is of.
    pub(super) version: u64,
    /// `continue`, if it goes on.
    pub(super) token: Option<String>,
    /// `remainingItemCount`, if it says so.
    pub(super) remaining: Option<i64>,
    /// Its objects.
    pub(super) items: Vec<Value>,
}

impl List {
    /// The names of its objects, in its order.
    pub(super) fn names(&self) -> Vec<&str> {
        let names = self.items.iter().map(|item| &item["metadata"]["name"]);
        names.filter_map(Value::as_str).collect()
    }
}

/// The list at a target.
///
/// # Errors
/// When it is refused or no list.
pub(super) async fn list(client: &Client, target: &str) -> anyhow::Result<List> {
    let answer = client.get(target).await?;
    listed(&answer).with_context(|| target.to_owned())
}

pub(super) fn listed(answer: &Answer) -> anyhow::Result<List> {
    let mut body = answer.ok()?;
    let metadata = &body["metadata"];
    let token = metadata["continue"].as_str().map(str::to_owned);
    Ok(List {
        version: version(&body)?,
        token: token.filter(|token| !token.is_empty()),
        remaining: metadata["remainingItemCount"].as_i64(),
        items: match body["items"].take() {
            Value::Array(items) => items,
            other => anyhow::bail!("items are {other}"),
        },
    })
}

/// A namespace with ConfigMaps of these names, and the versions they were created at.
pub(super) async fn filled(
    cluster: &Cluster,
    names: &[&str],
) -> anyhow::Result<(String, Vec<u64>)> {
    let namespace = cluster.namespace("a").await?;
    let mut versions = Vec::new();
    for name in names {
        versions.push(version(&cluster.config_map(&namespace, name).await?)?);
    }
    Ok((config_maps(&namespace), versions))
}

/// Sets `data.v` of a ConfigMap as another client; returns its new version.
pub(super) async fn set(cluster: &Cluster, object: &str, value: &str) -> anyhow::Result<u64> {
    let body = json!({"data": {"v": value}});
    version(&cluster.change("PATCH", object, &body).await?)
}

/// Deletes an object as another client.
pub(super) async fn delete(cluster: &Cluster, object: &str) -> anyhow::Result<()> {
    cluster.change("DELETE", object, &json!({})).await?;
    Ok(())
}

/// 24: what another client was told is written is in every later list without a version.
pub async fn a_list_without_a_version_shows_every_write_before_it(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    let own = cluster.name("a");
    let everywhere = format!("/api/v1/configmaps?fieldSelector=metadata.namespace%3D{own}");
    for round in 0..10 {
        let value = round.to_string();
        let written = set(cluster, &format!("{collection}/x"), &value).await?;
        for target in [&collection, &everywhere, &format!("{collection}?limit=1")] {
            let list = list(cluster.admin(), target).await?;
            ensure!(
                list.version >= written,
                "{target}: {list:?} after {written}"
            );
            ensure!(list.items[0]["data"]["v"] == value, "{target}: {list:?}");
        }
    }
    Ok(())
}

/// 24: also while the events of the apiserver do not come.
pub async fn a_list_without_a_version_is_not_stale_when_the_stream_lags(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    cluster.embedded()?;
    let own = cluster.own(Setup::default()).await?;
    let (collection, _) = filled(&own, &["x"]).await?;
    list(own.admin(), &collection).await?;
    own.embedded()?.lag(true);
    let written = set(&own, &format!("{collection}/x"), "late").await?;
    let zero = format!("{collection}?resourceVersion=0");
    let stale = list(own.admin(), &zero).await?;
    ensure!(stale.version < written, "{stale:?} does not lag");
    let fresh = list(own.admin(), &collection).await?;
    ensure!(fresh.version >= written, "{fresh:?} after {written}");
    ensure!(fresh.items[0]["data"]["v"] == "late", "{fresh:?}");
    own.embedded()?.lag(false);
    own.end().await;
    Ok(())
}

/// 25: version "0" is answered at once from what is there, which never gets older.
pub async fn version_zero_is_answered_at_once_and_never_goes_back(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, versions) = filled(cluster, &["x"]).await?;
    let zero = format!("{collection}?resourceVersion=0");
    let mut newest = 0;
    for round in 0..10 {
        let value = round.to_string();
        let written = set(cluster, &format!("{collection}/x"), &value).await?;
        let anything = list(cluster.admin(), &zero).await?;
        ensure!(anything.version >= newest, "{anything:?} after {newest}");
        let at_least = format!("{collection}?resourceVersion={written}");
        let reached = list(cluster.admin(), &at_least).await?;
        ensure!(reached.version >= written);
        let later = list(cluster.admin(), &zero).await?;
        ensure!(
            later.version >= reached.version,
            "{later:?} after {reached:?}"
        );
        ensure!(later.items[0]["data"]["v"] == value, "{later:?}");
        newest = later.version;
    }
    // No more than there is.
    let now = list(cluster.admin(), &zero).await?.version;
    let current = list(cluster.direct(), &collection).await?.version;
    ensure!(now <= current && now >= versions[0], "{now} of {current}");
    Ok(())
}

/// 26, 34: with version "0" the limit is ignored.
pub async fn version_zero_knows_no_limit(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, versions) = filled(cluster, &["x", "y", "z"]).await?;
    let at_least = format!("{collection}?resourceVersion={}", versions[2]);
    list(cluster.admin(), &at_least).await?;
    for query in [
        "resourceVersion=0&limit=1",
        "resourceVersion=0&limit=1&resourceVersionMatch=NotOlderThan",
    ] {
        let list = list(cluster.admin(), &format!("{collection}?{query}")).await?;
        ensure!(list.names() == ["x", "y", "z"], "{query}: {list:?}");
        let ends = list.token.is_none() && list.remaining.is_none();
        ensure!(ends, "{query}: {list:?}");
    }
    Ok(())
}

/// 27: a list at a version is of that one or a newer one, and as the collection was then.
pub async fn a_list_at_a_version_is_not_older(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    for round in 0..10 {
        let value = round.to_string();
        let written = set(cluster, &format!("{collection}/x"), &value).await?;
        for query in ["", "&resourceVersionMatch=NotOlderThan"] {
            let target = format!("{collection}?resourceVersion={written}{query}");
            let list = list(cluster.admin(), &target).await?;
            ensure!(list.version >= written, "{target}: {list:?}");
            ensure!(list.items[0]["data"]["v"] == value, "{target}: {list:?}");
        }
    }
    Ok(())
}

/// The answer to a read at a version that never came: 504 after three seconds, with how far the
/// cache was, which is `newest` or further.
pub(super) fn expect_never(answer: &Answer, asked: u64, newest: u64) -> anyhow::Result<()> {
    ensure!(
        answer.elapsed >= Duration::from_millis(2900),
        "{:?}",
        answer.elapsed
    );
    ensure!(
        answer.elapsed < Duration::from_secs(15),
        "{:?}",
        answer.elapsed
    );
    let (message, current) = too_large(answer, asked)?;
    ensure!(current >= newest, "{message} after {newest}");
    let details = r#"{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1}"#;
    expect_status(answer, 504, "Timeout", &message, details)?;
    ensure!(answer.header("retry-after") == "1", "{:?}", answer.headers);
    Ok(())
}

/// The message of such an answer and the version in it.
pub(super) fn too_large(answer: &Answer, asked: u64) -> anyhow::Result<(String, u64)> {
    let status = answer.json()?;
    let message = status["message"].as_str().context("no message")?;
    let start = format!("Timeout: Too large resource version: {asked}, current: ");
    let current = message.strip_prefix(&start);
    let current = current.with_context(|| message.to_owned())?.parse()?;
    Ok((message.to_owned(), current))
}

/// 28: a version that does not come is waited for three seconds.
pub async fn a_version_that_never_comes_is_waited_for_three_seconds(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, versions) = filled(cluster, &["x"]).await?;
    let asked = versions[0] + NEVER;
    let targets = [
        "",
        "&resourceVersionMatch=NotOlderThan&limit=1",
        "&labelSelector=a",
    ];
    let targets = targets.map(|more| format!("{collection}?resourceVersion={asked}{more}"));
    let asking = targets.iter().map(|target| cluster.admin().get(target));
    for (answer, target) in futures_util::future::join_all(asking)
        .await
        .iter()
        .zip(&targets)
    {
        let answer = answer
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        expect_never(answer, asked, versions[0]).with_context(|| target.clone())?;
    }
    Ok(())
}

/// 28: so is one that has to be met exactly.
pub async fn an_exact_version_that_never_comes_is_waited_for(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, versions) = filled(cluster, &["x"]).await?;
    let asked = versions[0] + NEVER;
    let targets = ["&resourceVersionMatch=Exact", "&limit=1"];
    let targets = targets.map(|more| format!("{collection}?resourceVersion={asked}{more}"));
    let asking = targets.iter().map(|target| cluster.admin().get(target));
    for (answer, target) in futures_util::future::join_all(asking)
        .await
        .iter()
        .zip(&targets)
    {
        let answer = answer
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        expect_never(answer, asked, versions[0]).with_context(|| target.clone())?;
    }
    Ok(())
}

/// A refusal of list options: reason of the cause, its message, the field.
type Cause = (&'static str, &'static str, &'static str);

const MATCH: &str = "resourceVersionMatch";
const NO_MATCH_WITHOUT_VERSION: Cause = (
    "FieldValueForbidden",
    "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
    MATCH,
);
const NO_EXACT_ZERO: Cause = (
    "FieldValueForbidden",
    "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
    MATCH,
);
const NO_SUCH_MATCH: Cause = (
    "FieldValueNotSupported",
    "Unsupported value: \"foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
    MATCH,
);
const NO_INITIAL_EVENTS: Cause = (
    "FieldValueForbidden",
    "Forbidden: sendInitialEvents is forbidden for list",
    "sendInitialEvents",
);
pub(super) const NO_MATCH_WITH_TOKEN: Cause = (
    "FieldValueForbidden",
    "Forbidden: resourceVersionMatch is forbidden when continue is provided",
    MATCH,
);

/// Asserts that options are refused for these causes.
pub(super) fn expect_invalid(answer: &Answer, causes: &[Cause]) -> anyhow::Result<()> {
    let error = |(_, message, field): &Cause| format!("{field}: {message}");
    let errors: Vec<String> = causes.iter().map(error).collect();
    let errors = match errors.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let cause = |(reason, message, field): &Cause| {
        let message = Value::from(*message);
        format!(r#"{{"reason":"{reason}","message":{message},"field":"{field}"}}"#)
    };
    let causes: Vec<String> = causes.iter().map(cause).collect();
    let details = format!(
        r#"{{"group":"meta.k8s.io","kind":"ListOptions","causes":[{}]}}"#,
        causes.join(",")
    );
    let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {errors}");
    expect_status(answer, 422, "Invalid", &message, &details)
}

/// 33, 36, 37, 39: options that do not go together are all named, in their order.
pub async fn options_of_a_list_that_do_not_go_together_are_refused(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    let refused: [(&str, &[Cause]); 8] = [
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            &[NO_EXACT_ZERO],
        ),
        ("resourceVersionMatch=Exact", &[NO_MATCH_WITHOUT_VERSION]),
        (
            "resourceVersionMatch=NotOlderThan",
            &[NO_MATCH_WITHOUT_VERSION],
        ),
        (
            "resourceVersionMatch=foo&resourceVersion=1",
            &[NO_SUCH_MATCH],
        ),
        (
            "resourceVersionMatch=foo",
            &[NO_MATCH_WITHOUT_VERSION, NO_SUCH_MATCH],
        ),
        ("sendInitialEvents=false", &[NO_INITIAL_EVENTS]),
        ("sendInitialEvents", &[NO_INITIAL_EVENTS]),
        (
            "sendInitialEvents=true&resourceVersionMatch=foo",
            &[NO_MATCH_WITHOUT_VERSION, NO_SUCH_MATCH, NO_INITIAL_EVENTS],
        ),
    ];
    for (query, causes) in refused {
        let answer = cluster
            .admin()
            .get(&format!("{collection}?{query}"))
            .await?;
        expect_invalid(&answer, causes).with_context(|| query)?;
    }
    Ok(())
}

/// 38: a version is what Go reads as an unsigned number.
pub async fn a_version_of_a_list_is_an_unsigned_number(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    let syntax = "invalid syntax";
    for (sent, value, why) in [
        ("abc", "abc", syntax),
        ("-1", "-1", syntax),
        ("%2B7", "+7", syntax),
        ("%207", " 7", syntax),
        ("7%20", "7 ", syntax),
        ("1e3", "1e3", syntax),
        ("0x1", "0x1", syntax),
        (
            "18446744073709551616",
            "18446744073709551616",
            "value out of range",
        ),
    ] {
        let answer = cluster
            .admin()
            .get(&format!("{collection}?resourceVersion={sent}"))
            .await?;
        let message = format!(
            "invalid resource version: resourceVersion: Invalid value: \"{value}\": \
             strconv.ParseUint: parsing \"{value}\": {why}"
        );
        expect_status(&answer, 400, "BadRequest", &message, "").with_context(|| sent)?;
    }
    for query in [
        "resourceVersion=007",
        "resourceVersion=0007&resourceVersionMatch=NotOlderThan",
    ] {
        let list = list(cluster.admin(), &format!("{collection}?{query}")).await?;
        ensure!(list.version >= 7, "{query}: {list:?}");
    }
    Ok(())
}
