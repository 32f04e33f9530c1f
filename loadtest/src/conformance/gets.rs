//! Reading one object.

use anyhow::{Context as _, ensure};

use super::expect::{expect, expect_status};
use super::lists::{NEVER, delete, expect_never, filled, set};
use super::scene::version;
use super::{Cluster, Setup};
use crate::client::{JSON, Request};

/// 57: version "0" shows what is there; what is not is named in a 404.
pub async fn an_object_at_zero_is_there_or_not_found(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, versions) = filled(cluster, &["x"]).await?;
    let object = format!("{collection}/x");
    let reached = format!("{object}?resourceVersion={}", versions[0]);
    let reached = cluster.admin().get(&reached).await?;
    ensure!(version(&reached.ok()?)? >= versions[0]);
    let zero = cluster
        .admin()
        .get(&format!("{object}?resourceVersion=0"))
        .await?;
    expect(&zero, 200, JSON, &reached.text())?;

    let missing = format!("{collection}/y?resourceVersion=");
    for at in ["", "0", &versions[0].to_string()] {
        let answer = cluster.admin().get(&format!("{missing}{at}")).await?;
        let details = r#"{"name":"y","kind":"configmaps"}"#;
        expect_status(
            &answer,
            404,
            "NotFound",
            "configmaps \"y\" not found",
            details,
        )?;
    }
    delete(cluster, &object).await?;
    let gone = cluster.admin().get(&object).await?;
    let details = r#"{"name":"x","kind":"configmaps"}"#;
    expect_status(
        &gone,
        404,
        "NotFound",
        "configmaps \"x\" not found",
        details,
    )
}

/// 58: a version that does not come is waited for three seconds.
pub async fn an_object_at_a_version_that_never_comes_is_waited_for(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, versions) = filled(cluster, &["x"]).await?;
    let asked = versions[0] + NEVER;
    let target = |name: &str| format!("{collection}/{name}?resourceVersion={asked}");
    let (there, missing) = (target("x"), target("y"));
    let client = cluster.admin();
    let (there, missing) = futures_util::try_join!(client.get(&there), client.get(&missing))?;
    expect_never(&there, asked, versions[0])?;
    expect_never(&missing, asked, versions[0])
}

/// 59: a version that is no number is an error nobody has classified.
pub async fn a_version_of_an_object_that_is_no_number_is_a_bare_500(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    for (sent, value, why) in [
        ("abc", "abc", "invalid syntax"),
        ("-1", "-1", "invalid syntax"),
        ("%2B7", "+7", "invalid syntax"),
        (
            "18446744073709551616",
            "18446744073709551616",
            "value out of range",
        ),
    ] {
        let target = format!("{collection}/x?resourceVersion={sent}");
        let message = format!(
            "resourceVersion: Invalid value: \"{value}\": strconv.ParseUint: parsing \
             \"{value}\": {why}"
        );
        let answer = cluster.admin().get(&target).await?;
        expect_status(&answer, 500, "", &message, "").with_context(|| target)?;
    }
    let seven = cluster
        .admin()
        .get(&format!("{collection}/x?resourceVersion=007"))
        .await?;
    ensure!(seven.status == 200, "{}", seven.text());
    Ok(())
}

/// 60: what another client was told is written is in every later GET without a version.
pub async fn a_get_without_a_version_shows_every_write_before_it(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    let object = format!("{collection}/x");
    for round in 0..15 {
        let written = set(cluster, &object, &round.to_string()).await?;
        let shown = cluster.admin().get(&object).await?.ok()?;
        ensure!(version(&shown)? == written, "{shown} instead of {written}");
        let unset = format!("{object}?resourceVersion=");
        let shown = cluster.admin().get(&unset).await?.ok()?;
        ensure!(version(&shown)? == written, "{shown} instead of {written}");
    }
    // One's own write as well, whichever way it went.
    let body = serde_json::json!({"data": {"v": "own"}});
    let own = Request::new("PATCH", &*object).json(&body);
    let written = version(&cluster.admin().whole(own).await?.ok()?)?;
    let shown = cluster.admin().get(&object).await?.ok()?;
    ensure!(version(&shown)? == written, "{shown} instead of {written}");
    delete(cluster, &object).await?;
    ensure!(cluster.admin().get(&object).await?.status == 404);
    Ok(())
}

/// 60: also while the events of the apiserver do not come.
pub async fn a_get_without_a_version_is_not_stale_when_the_stream_lags(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    cluster.embedded()?;
    let own = cluster.own(Setup::default()).await?;
    let (collection, _) = filled(&own, &["x"]).await?;
    let object = format!("{collection}/x");
    own.admin().get(&object).await?.ok()?;
    own.embedded()?.lag(true);
    let written = set(&own, &object, "late").await?;
    let zero = own
        .admin()
        .get(&format!("{object}?resourceVersion=0"))
        .await?;
    ensure!(version(&zero.ok()?)? < written, "it does not lag");
    let shown = own.admin().get(&object).await?.ok()?;
    ensure!(version(&shown)? == written, "{shown} instead of {written}");
    own.embedded()?.lag(false);
    own.end().await;
    Ok(())
}
