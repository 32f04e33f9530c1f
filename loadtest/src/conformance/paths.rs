//! How paths and methods are read.

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::Cluster;
use super::cluster::config_maps;
use super::expect::{TEXT, expect, expect_forbidden, expect_status};
use super::parsing::{bad_request, labelled, names};
use crate::client::{JSON, Request};

const NOT_FOUND: &str = "the server could not find the requested resource";
const NO_METHOD: &str = "the server does not allow this method on the requested resource";

/// 4: with a name in the path, `watch=1` means nothing: it is a GET, and authorised as one.
pub async fn a_get_of_a_name_is_no_watch(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let object = format!("{}/x", config_maps(&namespace));
    let plain = cluster.direct().get(&object).await?;
    let target = format!("{object}?watch=1");
    let answer = cluster.admin().get(&target).await?;
    expect(&answer, 200, JSON, &plain.text())?;

    let rule = |verb| json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": [verb]});
    let (getter, watcher) = (cluster.name("getter"), cluster.name("watcher"));
    cluster.allow(&getter, &namespace, &rule("get")).await?;
    cluster.allow(&watcher, &namespace, &rule("watch")).await?;
    let answer = cluster.client(&cluster.user(&getter, None)?)?;
    expect(&answer.get(&target).await?, 200, JSON, &plain.text())?;
    let refused = cluster.client(&cluster.user(&watcher, None)?)?;
    expect_forbidden(
        &refused.get(&target).await?,
        &format!(
            "configmaps \"x\" is forbidden: User \"{watcher}\" cannot get resource \
             \"configmaps\" in API group \"\" in the namespace \"{namespace}\""
        ),
        r#"{"name":"x","kind":"configmaps"}"#,
    )
}

/// 16: a trailing slash is nothing; an empty segment is a segment: here the resource is empty and
/// the name is `pods`.
pub async fn a_trailing_slash_is_nothing_and_an_empty_segment_is_a_segment(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let collection = config_maps(&namespace);
    ensure!(names(cluster, &format!("{collection}/")).await? == ["x"]);
    let encoded = format!("/api/v1/namespaces/{namespace}%2Fconfig%6Daps");
    ensure!(names(cluster, &encoded).await? == ["x"]);
    let object = cluster.admin().get(&format!("{collection}/x/")).await?;
    let plain = cluster.direct().get(&format!("{collection}/x")).await?;
    expect(&object, 200, JSON, &plain.text())?;

    let user = cluster.name("alice");
    let alice = cluster.client(&cluster.user(&user, None)?)?;
    let answer = cluster.admin().get("/api/v1//pods").await?;
    expect_status(&answer, 404, "NotFound", NOT_FOUND, "{}")?;
    let no_resource = format!(
        "forbidden: User \"{user}\" cannot get resource \"\" in API group \"\" at the cluster scope"
    );
    let answer = alice.get("/api/v1//pods").await?;
    expect_forbidden(&answer, &no_resource, r#"{"name":"pods"}"#)?;

    // Authorised as a list of pods, and then found by nobody.
    let answer = cluster.admin().get("//api/v1/pods").await?;
    expect(&answer, 404, TEXT, "404 page not found\n")?;
    let no_pods = format!(
        "pods is forbidden: User \"{user}\" cannot list resource \"pods\" in API group \"\" at \
         the cluster scope"
    );
    let answer = alice.get("//api/v1/pods").await?;
    expect_forbidden(&answer, &no_pods, r#"{"kind":"pods"}"#)?;
    // An empty namespace is no namespace.
    let answer = alice.get("/api/v1/namespaces//pods").await?;
    expect_forbidden(&answer, &no_pods, r#"{"kind":"pods"}"#)?;
    // Dots are names.
    let dots = format!("/api/v1/namespaces/{namespace}/../{namespace}/configmaps");
    let answer = cluster.admin().get(&dots).await?;
    expect_status(&answer, 404, "NotFound", NOT_FOUND, "{}")
}

/// 17: a path without what its prefix asks for is an internal error, in text, for everyone.
pub async fn a_path_that_cannot_be_read_is_an_internal_error(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let nobody = cluster.client(&cluster.user(&cluster.name("alice"), None)?)?;
    for client in [cluster.admin(), &nobody] {
        for (target, shown) in [
            ("/api/v1/watch", "/api/v1/watch"),
            ("/api/v1/watch/", "/api/v1/watch/"),
            ("/api/v1/proxy", "/api/v1/proxy"),
            (
                "/apis/apps/v1/watch?a=%3Cb&c",
                "/apis/apps/v1/watch?a=%3Cb&amp;c",
            ),
        ] {
            let answer = client.get(target).await?;
            let body = format!(
                "Internal Server Error: \"{shown}\": failed to create RequestInfo: unable to \
                 determine kind and namespace from url, {shown}\n"
            );
            expect(&answer, 500, TEXT, &body)?;
        }
    }
    Ok(())
}

/// 18: a method a path does not have is refused, after authorization and without `Allow`.
pub async fn a_collection_is_only_read_and_created_in(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    let user = cluster.name("alice");
    let alice = cluster.client(&cluster.user(&user, None)?)?;
    for (method, verb) in [
        ("PUT", "update"),
        ("PATCH", "patch"),
        ("OPTIONS", ""),
        ("TRACE", ""),
        ("FOO", ""),
    ] {
        let request = Request::new(method, &collection);
        let answer = cluster.admin().whole(request.clone()).await?;
        expect_status(&answer, 405, "MethodNotAllowed", NO_METHOD, "{}")?;
        ensure!(answer.headers.get("allow").is_none(), "{method}: Allow");
        let answer = alice.whole(request).await?;
        let message = format!(
            "configmaps is forbidden: User \"{user}\" cannot {verb} resource \"configmaps\" in \
             API group \"\" in the namespace \"{namespace}\""
        );
        expect_forbidden(&answer, &message, r#"{"kind":"configmaps"}"#)?;
    }
    let answer = cluster
        .admin()
        .whole(Request::new("PUT", &collection))
        .await?;
    let length = answer.body.len().to_string();
    for target in [collection.clone(), format!("{collection}/x")] {
        let head = Request::new("HEAD", &target);
        let answer = cluster.admin().whole(head.clone()).await?;
        expect(&answer, 405, JSON, "")?;
        ensure!(answer.header("content-length") == length, "{answer:?}");
        expect(&alice.whole(head).await?, 403, JSON, "")?;
    }
    let answer = cluster
        .admin()
        .whole(Request::new("POST", "/api/v1/pods"))
        .await?;
    expect_status(&answer, 405, "MethodNotAllowed", NO_METHOD, "{}")
}

/// 19: what no route leads to is not found: a Status within the groups that are built in, text
/// outside.
pub async fn what_is_not_served_is_not_found(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = labelled(cluster, &["x"]).await?;
    let collection = config_maps(&namespace);
    for target in [
        "/api/v1/pods/x",
        "/api/v1/nope",
        "/api/v2/pods",
        "/apis/apps/v1/nope",
        "/apis/apps/v9/deployments",
        &format!("/api/v1/namespaces/{namespace}/nodes"),
        &format!("{collection}/x/y"),
        &format!("{collection}/x/y/z"),
    ] {
        let answer = cluster.admin().get(target).await?;
        expect_status(&answer, 404, "NotFound", NOT_FOUND, "{}")
            .with_context(|| target.to_owned())?;
    }
    for target in [
        "/apis/nope.example/v1/foos",
        "/apis/nope.example/v1/foos?watch=1",
        "/nope",
    ] {
        let answer = cluster.admin().get(target).await?;
        expect(&answer, 404, TEXT, "404 page not found\n").with_context(|| target.to_owned())?;
        let sniffing = answer.header("x-content-type-options");
        ensure!(
            sniffing == "nosniff",
            "{target}: X-Content-Type-Options: {sniffing}"
        );
    }
    Ok(())
}

/// 20: nobody checks that a namespace exists before reading in it.
pub async fn a_namespace_that_does_not_exist_is_empty(cluster: &Cluster) -> anyhow::Result<()> {
    let nowhere = cluster.name("nowhere");
    for (resource, kind) in [("pods", "PodList"), ("configmaps", "ConfigMapList")] {
        let target = format!("/api/v1/namespaces/{nowhere}/{resource}");
        let answer = cluster.admin().get(&target).await?;
        let list = answer.ok()?;
        let version = list["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default();
        ensure!(
            version.parse::<u64>().is_ok_and(|own| own > 0),
            "{version:?}"
        );
        let body = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\
             \"{version}\"}},\"items\":[]}}\n"
        );
        expect(&answer, 200, JSON, &body)?;
    }
    Ok(())
}

/// 21: a name that could not be a path segment is refused before anything is looked up.
pub async fn a_name_that_cannot_be_is_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let target = format!("{}/a%25b", config_maps(&namespace));
    let answer = cluster.admin().get(&target).await?;
    bad_request(
        &answer,
        r#"Name parameter invalid: "a%b": may not contain '%'"#,
    )?;
    let answer = cluster
        .admin()
        .get(&format!("{target}?resourceVersion=0"))
        .await?;
    bad_request(
        &answer,
        r#"Name parameter invalid: "a%b": may not contain '%'"#,
    )
}
