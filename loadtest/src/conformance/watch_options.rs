//! The options of watches: which go together, and what a path with `/watch/` makes of them.

use anyhow::ensure;
use serde_json::json;

use super::Cluster;
use super::cluster::config_maps;
use super::expect::{expect_status, go_string};
use super::initial_events::caught_up;
use super::scene::{ENCODINGS, WATCH_LIST, begin, sees, version};
use crate::client::{Answer, Request};

/// 69: a version that is no number is refused before there is a stream, without a reason.
pub async fn a_version_that_is_no_number_is_refused_before_the_stream(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let target = format!("{}?watch=1&resourceVersion=abc", config_maps(&namespace));
    let answer = cluster.admin().whole(Request::get(target)).await?;
    let message = "resourceVersion: Invalid value: \"abc\": \
                   strconv.ParseUint: parsing \"abc\": invalid syntax";
    expect_status(&answer, 500, "", message, "")
}

/// 76: options of initial events that do not go together are refused, every cause by name.
pub async fn options_that_do_not_go_together_are_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let requires = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    let unless = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
    let unsupported = "Unsupported value: \"Exact\": supported values: \"NotOlderThan\"";
    let forbidden = |why: &str| ("FieldValueForbidden", format!("Forbidden: {why}"));
    let unknown = || ("FieldValueNotSupported", unsupported.to_owned());
    for (query, causes) in [
        ("sendInitialEvents=true", vec![forbidden(requires)]),
        ("sendInitialEvents=false", vec![forbidden(requires)]),
        (
            "resourceVersionMatch=NotOlderThan&resourceVersion=5",
            vec![forbidden(unless)],
        ),
        (
            "resourceVersionMatch=Exact&sendInitialEvents=true",
            vec![forbidden(requires), unknown()],
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=5",
            vec![forbidden(unless), unknown()],
        ),
    ] {
        let target = format!("{}?watch=1&{query}", config_maps(&namespace));
        let answer = cluster.admin().get(&target).await?;
        let causes = causes
            .into_iter()
            .map(|it| (it.0, it.1, "resourceVersionMatch"));
        expect_invalid(&answer, &causes.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// 79, 80, 82: the path with `/watch/` watches, but its options are those of a LIST, nothing is
/// added to them, and the name in it is a selector another name may not contradict.
pub async fn a_watch_by_path_has_the_options_of_a_list(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let x = version(&cluster.config_map(&namespace, "x").await?)?;
    let y = version(&cluster.config_map(&namespace, "y").await?)?;
    caught_up(cluster, &collection, y).await?;
    let path = format!("/api/v1/watch/namespaces/{namespace}/configmaps");

    let target = format!("/api/v1/watch/configmaps?{WATCH_LIST}&resourceVersion={y}");
    let causes = [(
        "FieldValueForbidden",
        "Forbidden: sendInitialEvents is forbidden for list".to_owned(),
        "sendInitialEvents",
    )];
    expect_invalid(&cluster.admin().get(&target).await?, &causes)?;
    let target = format!("{path}/x?fieldSelector=metadata.name=y");
    let message = "fieldSelector metadata.name doesn't match requested name";
    let answer = cluster.admin().get(&target).await?;
    expect_status(&answer, 400, "BadRequest", message, "")?;

    let mut watches = Vec::new();
    for accept in ENCODINGS {
        for (query, sights) in [
            ("?allowWatchBookmarks=true".to_owned(), 0..2),
            ("?resourceVersion=0".into(), 0..2),
            ("?watch=false".into(), 0..2),
            ("?labelSelector=nope".into(), 0..0),
            (format!("?resourceVersion={x}"), 1..2),
            ("/x".into(), 0..1),
            ("/x?fieldSelector=metadata.name=x".into(), 0..1),
            ("/nope".into(), 0..0),
        ] {
            let request = Request::get(format!("{path}{query}")).header("accept", accept);
            watches.push((cluster.admin().watch(request).await?, sights));
        }
    }
    let names = ["x", "y"].map(|name| format!("{namespace}/{name}"));
    let all = [("ADDED", &*names[0], x), ("ADDED", &*names[1], y)];
    let change = json!({"metadata": {"labels": {"nope": "1"}}});
    let target = format!("{collection}/x");
    let changed = version(&cluster.change("PATCH", &target, &change).await?)?;
    let last = version(&cluster.config_map(&namespace, "nope").await?)?;
    for (mut watch, sights) in watches {
        sees(&mut watch, &all[sights]).await?;
        let event = watch.change().await?;
        ensure!([changed, last].contains(&event.version), "{event:?}");
    }
    Ok(())
}

/// Checks that list options are refused for these causes: reason, message, field.
///
/// # Errors
/// When they are not.
pub(super) fn expect_invalid(
    answer: &Answer,
    causes: &[(&str, String, &str)],
) -> anyhow::Result<()> {
    let errors: Vec<_> = causes
        .iter()
        .map(|(_, text, field)| format!("{field}: {text}"))
        .collect();
    let errors = match errors.as_slice() {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {errors}");
    let causes: Vec<_> = causes
        .iter()
        .map(|(reason, text, field)| {
            let text = go_string(text);
            format!(r#"{{"reason":"{reason}","message":{text},"field":"{field}"}}"#)
        })
        .collect();
    let details = format!(
        r#"{{"group":"meta.k8s.io","kind":"ListOptions","causes":[{}]}}"#,
        causes.join(",")
    );
    expect_status(answer, 422, "Invalid", &message, &details)
}
