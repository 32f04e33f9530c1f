//! What a watch delivers, and to whom its selectors let it.

use anyhow::ensure;
use serde_json::{Value, json};

use super::Cluster;
use super::cluster::config_maps;
use super::expect::expect_status;
use super::scene::{Custom, ENCODINGS, begin, names, version, watching};
use super::transitions::{Selector, selected, sights, transitions};
use crate::client::JSON;

fn app(object: &Value) -> Option<&str> {
    object["metadata"]["labels"]["app"].as_str()
}

fn labelled(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": app}}, "data": {"is": app}})
}

/// 84, 85, 86, 87, 88: an object that begins to match is ADDED, one that goes on matching is
/// MODIFIED, one that ceases to is DELETED with its old content at the new version, and one that
/// never did is not seen, its deletion included; replayed history tells the same.
pub async fn an_object_enters_and_leaves_a_label_selector(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let target = format!("{collection}/o");
    let selectors: [Selector; 8] = [
        ("labelSelector=app%3Da", |it| app(it) == Some("a")),
        ("labelSelector=app%3Db", |it| app(it) == Some("b")),
        ("labelSelector=app%21%3Da", |it| app(it) != Some("a")),
        ("labelSelector=app%20in%20(a,c)", |it| {
            matches!(app(it), Some("a" | "c"))
        }),
        ("labelSelector=app%20notin%20(a,b)", |it| {
            !matches!(app(it), Some("a" | "b"))
        }),
        ("labelSelector=app", |it| app(it).is_some()),
        ("labelSelector=%21app", |it| app(it).is_none()),
        (
            "labelSelector=app%3Da&fieldSelector=metadata.name%21%3Do",
            |it| app(it) == Some("a") && it["metadata"]["name"] != "o",
        ),
    ];
    let story = async {
        cluster.create(&collection, &labelled("o", "b")).await?;
        for (app, value) in [("a", "1"), ("a", "2"), ("b", "3"), ("c", "4")] {
            let body = json!({"metadata": {"labels": {"app": app}}, "data": {"v": value}});
            cluster.change("PATCH", &target, &body).await?;
        }
        cluster.change("DELETE", &target, &json!({})).await?;
        cluster.create(&collection, &labelled("o", "a")).await?;
        cluster.change("DELETE", &target, &json!({})).await?;
        for app in ["a", "b", "c"] {
            cluster
                .create(&collection, &labelled(&format!("last-{app}"), app))
                .await?;
        }
        version(&cluster.config_map(&namespace, "last").await?)
    };
    let whole = (&*collection, "");
    let happened = transitions(cluster, whole, (&ENCODINGS, &selectors), story).await?;

    let at: Vec<u64> = happened.iter().map(|seen| seen.version).collect();
    let a = sights(&happened, selectors[0].1)?;
    let expected = [
        ("ADDED", at[1]),
        ("MODIFIED", at[2]),
        ("DELETED", at[3]),
        ("ADDED", at[6]),
        ("DELETED", at[7]),
        ("ADDED", at[8]),
    ];
    ensure!(a == expected, "{a:?}");
    let left = &selected(&happened, selectors[0].1)?[2].object;
    ensure!(app(left) == Some("a") && left["data"]["v"] == "2", "{left}");
    Ok(())
}

/// 84, 85, 87, 88: a field selector is entered and left as a label selector is, in both encodings.
pub async fn an_object_enters_and_leaves_a_field_selector(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, run) = ("/api/v1/nodes", cluster.prefix());
    let name = cluster.name("n");
    let target = format!("{collection}/{name}");
    let off = |it: &Value| it["spec"]["unschedulable"] == true;
    let selectors: [Selector; 3] = [
        ("fieldSelector=spec.unschedulable%3Dtrue", off),
        ("fieldSelector=spec.unschedulable%3Dfalse", |it| {
            it["spec"]["unschedulable"] != true
        }),
        ("fieldSelector=spec.unschedulable%21%3Dfalse", off),
    ];
    let node = |name: &str, off: bool| {
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"run": run}}, "spec": {"unschedulable": off}})
    };
    let story = async {
        cluster.create(collection, &node(&name, false)).await?;
        for (off, value) in [
            (true, "1"),
            (true, "2"),
            (false, "3"),
            (false, "4"),
            (true, "5"),
        ] {
            let body = json!({"metadata": {"annotations": {"v": value}},
                "spec": {"unschedulable": off}});
            cluster.change("PATCH", &target, &body).await?;
        }
        cluster.change("DELETE", &target, &json!({})).await?;
        cluster
            .create(collection, &node(&cluster.name("off"), true))
            .await?;
        version(
            &cluster
                .create(collection, &node(&cluster.name("on"), false))
                .await?,
        )
    };
    let all = format!("labelSelector=run%3D{run}");
    let story = transitions(cluster, (collection, &all), (&ENCODINGS, &selectors), story);
    let happened = story.await?;
    let kinds: Vec<_> = sights(&happened, off)?.iter().map(|it| it.0).collect();
    let expected = ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED", "ADDED"];
    ensure!(kinds == expected, "{kinds:?}");
    for name in ["off", "on"] {
        let target = format!("{collection}/{}", cluster.name(name));
        cluster.change("DELETE", &target, &json!({})).await?;
    }
    Ok(())
}

/// 84, 85, 87, 88: so it is with the fields a definition makes selectable.
pub async fn an_object_enters_and_leaves_a_custom_field_selector(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let custom = Custom::define(cluster).await?;
    let collection = custom.collection(&namespace);
    let target = format!("{collection}/o");
    let selectors: [Selector; 2] = [
        ("fieldSelector=spec.color%3Dred", |it| {
            it["spec"]["color"] == "red"
        }),
        ("fieldSelector=spec.color%21%3Dred", |it| {
            it["spec"]["color"] != "red"
        }),
    ];
    let story = async {
        cluster
            .create(&collection, &custom.widget("o", "blue"))
            .await?;
        for (color, size) in [("red", 1), ("red", 2), ("green", 3), ("red", 4)] {
            let body = json!({"spec": {"color": color, "size": size}});
            cluster.change("PATCH", &target, &body).await?;
        }
        cluster.change("DELETE", &target, &json!({})).await?;
        cluster
            .create(&collection, &custom.widget("red", "red"))
            .await?;
        version(
            &cluster
                .create(&collection, &custom.widget("blue", "blue"))
                .await?,
        )
    };
    let whole = (&*collection, "");
    transitions(cluster, whole, (&[JSON], &selectors), story).await?;
    Ok(())
}

/// 94: a field that cannot be selected by is refused, in the words of its resource, whether it is
/// listed or watched.
pub async fn an_unknown_field_is_refused_in_the_words_of_its_resource(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let core = format!("/api/v1/namespaces/{namespace}");
    let known = "is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
    for (collection, field, message) in [
        (
            "/api/v1/namespaces".to_owned(),
            "metadata.namespace",
            "field label not supported: metadata.namespace".to_owned(),
        ),
        (
            format!("{core}/configmaps"),
            "data.x",
            format!("\"data.x\" {known}"),
        ),
        (
            format!("{core}/pods"),
            "spec.foo",
            "field label not supported: spec.foo".to_owned(),
        ),
        (
            format!("/apis/batch/v1/namespaces/{namespace}/jobs"),
            "spec.foo",
            "field label \"spec.foo\" not supported for Job".to_owned(),
        ),
    ] {
        for watch in ["", "&watch=1"] {
            let target = format!("{collection}?fieldSelector={field}%3Da{watch}");
            let answer = cluster.admin().get(&target).await?;
            expect_status(&answer, 400, "BadRequest", &message, "")?;
        }
    }
    Ok(())
}

/// 95: what is not in a set need not be there at all; the set of nothing is the set of the empty
/// value; lists and initial events agree.
pub async fn an_absent_label_is_in_no_set_and_outside_of_all(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let mut newest = 0;
    for (name, labels) in [
        ("a-none", json!({})),
        ("b-x", json!({"a": "x"})),
        ("c-empty", json!({"a": ""})),
        ("d-10", json!({"a": "10"})),
        ("e-9", json!({"a": "9", "b": "1"})),
    ] {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "labels": labels}});
        newest = version(&cluster.create(&collection, &body).await?)?;
    }
    for (selector, expected) in [
        ("a%20notin%20(x)", &["a-none", "c-empty", "d-10", "e-9"][..]),
        ("a%20in%20()", &["c-empty"]),
        ("a%20in%20(,x)", &["b-x", "c-empty"]),
        ("a%3D", &["c-empty"]),
        ("a%21%3D", &["a-none", "b-x", "d-10", "e-9"]),
        ("a%3E9", &["d-10"]),
        ("a%3C10", &["e-9"]),
        ("a%3E5,b", &["e-9"]),
        ("a,%21b", &["b-x", "c-empty", "d-10"]),
        ("%21a", &["a-none"]),
    ] {
        let query = format!("resourceVersion={newest}&labelSelector={selector}");
        let listed = names(cluster.admin(), &format!("{collection}?{query}")).await?;
        ensure!(listed == expected, "{selector}: {listed:?}");
        let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        for accept in ENCODINGS {
            let request = watching(&collection, &format!("{initial}&{query}"), accept);
            let mut watch = cluster.admin().watch(request).await?;
            for name in expected {
                let event = watch.event_now().await?;
                let own = (event.kind.as_str(), event.key);
                ensure!(
                    own == ("ADDED", format!("{namespace}/{name}")),
                    "{selector}: {own:?}"
                );
            }
        }
    }
    Ok(())
}

/// 88: a watch by name sees the history of that name alone, and one by namespace of the cluster's
/// that namespace's.
pub async fn a_name_and_a_namespace_are_selectors(cluster: &Cluster) -> anyhow::Result<()> {
    let (one, other) = (cluster.namespace("a").await?, cluster.namespace("b").await?);
    let from = begin(cluster, &config_maps(&one)).await?;
    let mut at = Vec::new();
    for (namespace, name) in [
        (&one, "x"),
        (&other, "x"),
        (&one, "y"),
        (&other, "y"),
        (&one, "x2"),
    ] {
        let created = version(&cluster.config_map(namespace, name).await?)?;
        at.push(("ADDED", format!("{namespace}/{name}"), created));
    }
    let all = "/api/v1/configmaps".to_owned();
    for (collection, selector, expected) in [
        (config_maps(&one), String::new(), &[0, 2, 4][..]),
        (config_maps(&one), "metadata.name%3Dx".into(), &[0]),
        (config_maps(&one), "metadata.name%21%3Dx".into(), &[2, 4]),
        (
            config_maps(&other),
            format!("metadata.namespace%3D{other}"),
            &[1, 3],
        ),
        (
            all.clone(),
            format!("metadata.namespace%3D{other}"),
            &[1, 3],
        ),
        (
            all,
            format!("metadata.name%3Dy,metadata.namespace%3D{one}"),
            &[2],
        ),
    ] {
        for accept in ENCODINGS {
            let query = format!("resourceVersion={from}&fieldSelector={selector}");
            let mut watch = cluster
                .admin()
                .watch(watching(&collection, &query, accept))
                .await?;
            for index in expected {
                let event = watch.event_now().await?;
                let (kind, key, version) = &at[*index];
                let own = (event.kind.as_str(), &event.key, &event.version);
                ensure!(own == (*kind, key, version), "{selector}: {event:?}");
            }
        }
    }
    Ok(())
}
