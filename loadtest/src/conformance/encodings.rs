//! Media types: which one is chosen, and who is refused in which words.

use anyhow::ensure;

use super::Cluster;
use super::cluster::config_maps;
use super::expect::expect;
use super::scene::{Custom, watching};
use crate::client::{Answer, JSON, PROTOBUF, Request};
use crate::kubelet::decode::{Status, unwrap};

const YAML: &str = "application/yaml";

/// What the router of a built-in collection says it has.
const ROUTER: &str = concat!(
    r"406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, ",
    "application/vnd.kubernetes.protobuf, application/json;stream=watch, ",
    "application/vnd.kubernetes.protobuf;stream=watch"
);

/// What the handler of any resource says it has.
const HANDLER: &str = concat!(
    "only the following media types are accepted: application/json, application/yaml, ",
    "application/vnd.kubernetes.protobuf"
);

const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";

async fn ask(cluster: &Cluster, target: &str, accept: &str) -> anyhow::Result<Answer> {
    let request = Request::get(target).header("accept", accept);
    cluster.admin().whole(request).await
}

/// The Widgets of a namespace with one in it, and the path of the ConfigMaps beside them.
async fn both(cluster: &Cluster) -> anyhow::Result<(Custom, String, String)> {
    let namespace = cluster.namespace("a").await?;
    let custom = Custom::define(cluster).await?;
    let widgets = custom.collection(&namespace);
    cluster.create(&widgets, &custom.widget("x", "red")).await?;
    cluster.config_map(&namespace, "x").await?;
    Ok((custom, widgets, config_maps(&namespace)))
}

/// 115: of what is accepted the first that is served is sent; custom resources have no protobuf.
pub async fn the_first_media_type_that_is_served_is_sent(cluster: &Cluster) -> anyhow::Result<()> {
    let (_, widgets, config_maps) = both(cluster).await?;
    let kubelet = "application/vnd.kubernetes.protobuf,application/json";
    for (target, content_type) in [
        (config_maps.clone(), PROTOBUF),
        (format!("{config_maps}/x"), PROTOBUF),
        (format!("{config_maps}/nope"), PROTOBUF),
        (widgets.clone(), JSON),
        (format!("{widgets}/x"), JSON),
        (format!("{widgets}/nope"), PROTOBUF), // a Status, which has protobuf
    ] {
        let answer = ask(cluster, &target, kubelet).await?;
        ensure!(
            answer.header("content-type") == content_type,
            "{target}: {:?}",
            answer.headers
        );
        ensure!(answer.body.starts_with(b"k8s\0") == (content_type == PROTOBUF));
    }
    let answer = ask(
        cluster,
        &config_maps,
        "application/json,application/vnd.kubernetes.protobuf",
    );
    ensure!(answer.await?.header("content-type") == JSON);
    Ok(())
}

/// 116: whoever accepts nothing but protobuf gets no custom resource, but is told so in protobuf.
pub async fn a_custom_resource_has_no_protobuf_but_its_refusal_has(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (_, widgets, _) = both(cluster).await?;
    for target in [
        widgets.clone(),
        format!("{widgets}/x"),
        format!("{widgets}?watch=1"),
    ] {
        let answer = ask(cluster, &target, PROTOBUF).await?;
        let own = (answer.status, answer.header("content-type"));
        ensure!(own == (406, PROTOBUF), "{target}: {own:?}");
        let expected = Status {
            code: 406,
            reason: "NotAcceptable".to_owned(),
            message: HANDLER.to_owned(),
        };
        let status = Status::decode(unwrap(&answer.body)?)?;
        ensure!(status == expected, "{target}: {status:?}");
    }
    Ok(())
}

/// The indented Status of a refusal, as JSON that a person reads.
fn indented(message: &str, details: &str) -> String {
    format!(
        "{{\n  \"kind\": \"Status\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {{}},\n  \
         \"status\": \"Failure\",\n  \"message\": \"{message}\",\n  \
         \"reason\": \"NotAcceptable\",\n{details}  \"code\": 406\n}}"
    )
}

/// 117: what is served to nobody is refused by the router of built-in resources and by the handler
/// of custom ones, to both as indented JSON, since a refusal has no other form either.
pub async fn a_media_type_nobody_serves_is_refused_in_indented_json(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (_, widgets, config_maps) = both(cluster).await?;
    let router = indented(ROUTER, "  \"details\": {},\n");
    let handler = indented(HANDLER, "");
    for watch in ["", "?watch=1"] {
        let answer = ask(cluster, &format!("{config_maps}{watch}"), "text/html").await?;
        expect(&answer, 406, JSON, &router)?;
        let answer = ask(cluster, &format!("{widgets}{watch}"), "text/html").await?;
        expect(&answer, 406, JSON, &handler)?;
    }
    // A route to one object has no streams to offer.
    let without_streams = ROUTER
        .split(", application/json;stream")
        .next()
        .unwrap_or_default();
    let answer = ask(cluster, &format!("{config_maps}/x"), "text/html").await?;
    expect(
        &answer,
        406,
        JSON,
        &indented(without_streams, "  \"details\": {},\n"),
    )
}

/// 118: the router of built-in resources knows no `application/*`, though the handler does, as the
/// compact JSON of the refusal shows; custom resources have no such router.
pub async fn a_half_wildcard_is_understood_behind_the_router_only(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (_, widgets, config_maps) = both(cluster).await?;
    let refused = format!(
        concat!(
            r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","#,
            r#""message":"{}","reason":"NotAcceptable","details":{{}},"code":406}}"#,
            "\n"
        ),
        ROUTER
    );
    let answer = ask(cluster, &config_maps, "application/*").await?;
    expect(&answer, 406, JSON, &refused)?;
    for target in [widgets.clone(), format!("{widgets}/x")] {
        let answer = ask(cluster, &target, "application/*").await?;
        let own = (answer.status, answer.header("content-type"));
        ensure!(own == (200, JSON), "{target}: {own:?}");
    }
    Ok(())
}

/// 119: the weight of a media type orders and never excludes.
pub async fn a_weight_of_zero_excludes_nothing(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let target = config_maps(&namespace);
    for (accept, content_type, start) in [
        ("application/json;q=0", JSON, "{\"kind\":\"ConfigMapList\","),
        (
            "*/*;q=0.1, application/yaml;q=0.9",
            YAML,
            "apiVersion: v1\n",
        ),
        (
            "application/json;q=0.1,application/yaml",
            YAML,
            "apiVersion: v1\n",
        ),
        ("*/*", JSON, "{\"kind\":"),
    ] {
        let answer = ask(cluster, &target, accept).await?;
        let own = (answer.status, answer.header("content-type"));
        ensure!(own == (200, content_type), "{accept}: {own:?}");
        ensure!(
            answer.text().starts_with(start),
            "{accept}: {}",
            answer.text()
        );
    }
    Ok(())
}

/// 120: YAML does not stream, which is said in YAML.
pub async fn yaml_does_not_stream(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let body = "apiVersion: v1\ncode: 406\nkind: Status\n\
                message: 'only the following media types are accepted: \
                application/json;stream=watch,\n  \
                application/vnd.kubernetes.protobuf;stream=watch'\n\
                metadata: {}\nreason: NotAcceptable\nstatus: Failure\n";
    let request = watching(&config_maps(&namespace), "", YAML);
    expect(&cluster.admin().whole(request).await?, 406, YAML, body)
}

/// 121: a form that only objects have leaves an error none, so it is indented JSON.
pub async fn an_error_is_not_transformed(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let target = format!("{}/nope", config_maps(&namespace));
    let body = "{\n  \"kind\": \"Status\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {},\n  \
                \"status\": \"Failure\",\n  \"message\": \"configmaps \\\"nope\\\" not found\",\n  \
                \"reason\": \"NotFound\",\n  \"details\": {\n    \"name\": \"nope\",\n    \
                \"kind\": \"configmaps\"\n  },\n  \"code\": 404\n}";
    expect(&ask(cluster, &target, TABLE).await?, 404, JSON, body)?;
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    expect(&ask(cluster, &target, metadata).await?, 404, JSON, body)
}

/// 124: a stream in JSON is called JSON, one in protobuf a stream of it.
pub async fn only_a_protobuf_stream_is_called_a_stream(cluster: &Cluster) -> anyhow::Result<()> {
    let (_, widgets, config_maps) = both(cluster).await?;
    for (collection, accept, content_type) in [
        (&config_maps, JSON, JSON),
        (&config_maps, "application/json;stream=watch", JSON),
        (&config_maps, "*/*", JSON),
        (
            &config_maps,
            PROTOBUF,
            "application/vnd.kubernetes.protobuf;stream=watch",
        ),
        (
            &config_maps,
            "application/vnd.kubernetes.protobuf;stream=watch",
            "application/vnd.kubernetes.protobuf;stream=watch",
        ),
        (
            &widgets,
            "application/vnd.kubernetes.protobuf,application/json",
            JSON,
        ),
    ] {
        let watch = cluster
            .admin()
            .watch(watching(collection, "", accept))
            .await?;
        let own = watch.headers().get("content-type");
        ensure!(
            own.is_some_and(|own| own == content_type),
            "{accept}: {own:?}"
        );
        let caching = watch.headers().get("cache-control");
        ensure!(
            caching.is_some_and(|own| own == "no-cache, private"),
            "{caching:?}"
        );
        ensure!(watch.headers().get("content-length").is_none());
    }
    Ok(())
}
