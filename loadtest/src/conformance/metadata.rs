//! PartialObjectMetadata: objects without anything but their metadata.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Cluster;
use super::cluster::config_maps;
use super::expect::expect;
use super::representations::{ask, filled};
use super::scene::{WATCH_LIST, at_version, begin, enveloped, version, watching};
use crate::apiserver::schema::open_envelope;
use crate::client::{Event, JSON, PROTOBUF, Request};
use crate::kubelet::protobuf::{Fields, find};

/// What a metadata informer accepts, of lists and of watches.
const METADATA_LIST: &str = concat!(
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
);
const METADATA: &str = concat!(
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
);
/// The same in JSON.
const JSON_METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const JSON_METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The metadata of a built-in object, as it stands in the bytes of a GET.
async fn metadata(cluster: &Cluster, target: &str) -> anyhow::Result<(String, Bytes)> {
    let text = cluster.direct().get(target).await?.text();
    let (_, rest) = text.split_once("\"metadata\":").context("no metadata")?;
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    values.next().context("no value")??;
    let own = rest[..values.byte_offset()].to_owned();
    let request = Request::get(target).header("accept", PROTOBUF);
    let body = cluster.direct().whole(request).await?.body;
    let own_protobuf = find(open_envelope(&body)?.raw, 1)?.context("no metadata")?;
    Ok((own, Bytes::copy_from_slice(own_protobuf)))
}

/// 122: a metadata informer gets the objects' own metadata, in JSON with a type of its own on each.
pub async fn metadata_alone_is_listed_as_it_stands_in_the_object(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    for name in ["x", "y"] {
        cluster.create(&collection, &filled(name, "a")).await?;
    }
    let x = metadata(cluster, &format!("{collection}/x")).await?;
    let y = metadata(cluster, &format!("{collection}/y")).await?;

    let answer = ask(cluster, &collection, JSON_METADATA_LIST).await?;
    let version = version(&answer.json()?)?;
    let type_meta = r#""kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1""#;
    let list_meta = r#""kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1""#;
    let body = format!(
        "{{{list_meta},\"metadata\":{{\"resourceVersion\":\"{version}\"}},\"items\":[\
         {{{type_meta},\"metadata\":{}}},{{{type_meta},\"metadata\":{}}}]}}\n",
        x.0, y.0
    );
    expect(&answer, 200, JSON, &body)?;
    let answer = ask(cluster, &format!("{collection}/x"), JSON_METADATA).await?;
    expect(
        &answer,
        200,
        JSON,
        &format!("{{{type_meta},\"metadata\":{}}}\n", x.0),
    )?;

    let answer = ask(cluster, &collection, METADATA_LIST).await?;
    ensure!(
        answer.header("content-type") == PROTOBUF,
        "{:?}",
        answer.headers
    );
    let envelope = open_envelope(&answer.body)?;
    let own = (envelope.api_version, envelope.kind);
    ensure!(
        own == ("meta.k8s.io/v1", "PartialObjectMetadataList"),
        "{own:?}"
    );
    let mut items = Vec::new();
    for field in Fields::new(envelope.raw) {
        let field = field?;
        if field.number == 2 {
            let fields = Fields::new(field.bytes).collect::<Result<Vec<_>, _>>()?;
            ensure!(fields.len() == 1 && fields[0].number == 1, "{fields:?}");
            items.push(Bytes::copy_from_slice(fields[0].bytes));
        }
    }
    ensure!(items == [x.1, y.1], "{items:?}");
    Ok(())
}

/// 122: watches of metadata alone follow selectors as any other, a DELETED with the old metadata
/// included.
pub async fn metadata_alone_is_watched_by_the_law_of_selectors(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    begin(cluster, &collection).await?;
    let stored = cluster.create(&collection, &filled("x", "a")).await?;
    let mut watches = Vec::new();
    for accept in [JSON_METADATA, METADATA] {
        let query = format!("{WATCH_LIST}&labelSelector=app%3Da");
        let watch = cluster
            .admin()
            .watch(watching(&collection, &query, accept))
            .await?;
        let content_type = watch.headers().get("content-type").context("no type")?;
        let is_json = content_type == JSON;
        ensure!(is_json == (accept == JSON_METADATA), "{content_type:?}");
        watches.push(watch);
    }
    let target = format!("{collection}/x");
    let change = async |app: &str, data: &str| {
        let body = json!({"metadata": {"labels": {"app": app}}, "data": {"k": data}});
        cluster.change("PATCH", &target, &body).await
    };
    for watch in &mut watches {
        is_metadata(&watch.event_now().await?, ("ADDED", &stored))?;
        is_bookmark_of_metadata(&watch.event_now().await?)?;
    }
    let changed = change("a", "w").await?;
    let left = version(&change("b", "w").await?)?;
    let returned = change("a", "u").await?;
    for mut watch in watches {
        is_metadata(&watch.change().await?, ("MODIFIED", &changed))?;
        is_metadata(
            &watch.change().await?,
            ("DELETED", &at_version(&changed, left)),
        )?;
        is_metadata(&watch.change().await?, ("ADDED", &returned))?;
    }
    Ok(())
}

/// The event holds a PartialObjectMetadata with the metadata of this object, in either encoding.
fn is_metadata(event: &Event, (kind, object): (&str, &Value)) -> anyhow::Result<()> {
    ensure!(event.kind == kind, "expected {kind}, came {event:?}");
    ensure!(
        event.version == version(object)?,
        "{event:?} is not {object}"
    );
    if event.raw.starts_with(b"{") {
        let expected = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"]});
        ensure!(event.object()? == expected, "{event:?} is not {expected}");
        return Ok(());
    }
    let envelope = open_envelope(enveloped(event)?)?;
    let own = (envelope.api_version, envelope.kind);
    ensure!(
        own == ("meta.k8s.io/v1", "PartialObjectMetadata"),
        "{own:?}"
    );
    let fields = Fields::new(envelope.raw).collect::<Result<Vec<_>, _>>()?;
    ensure!(
        fields.len() == 1 && fields[0].number == 1,
        "more than metadata: {fields:?}"
    );
    Ok(())
}

/// The event is the end of the initial events, in the form of the objects.
fn is_bookmark_of_metadata(event: &Event) -> anyhow::Result<()> {
    let is_end = event.kind == "BOOKMARK" && event.ends_initial_events;
    ensure!(is_end, "expected the end, came {event:?}");
    if event.raw.starts_with(b"{") {
        let expected = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": event.version.to_string(),
                "annotations": {"k8s.io/initial-events-end": "true"}}});
        ensure!(event.object()? == expected, "{event:?}");
        return Ok(());
    }
    let envelope = open_envelope(enveloped(event)?)?;
    let own = (envelope.api_version, envelope.kind);
    ensure!(
        own == ("meta.k8s.io/v1", "PartialObjectMetadata"),
        "{own:?}"
    );
    Ok(())
}

/// 123: a list is not one object's metadata, and one object no list's.
pub async fn a_list_is_not_the_metadata_of_one_object(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let collection = config_maps(&namespace);
    cluster.config_map(&namespace, "x").await?;
    let refused = |message: &str| {
        format!(
            "{{\n  \"kind\": \"Status\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {{}},\n  \
             \"status\": \"Failure\",\n  \"message\": \"{message}\",\n  \
             \"reason\": \"NotAcceptable\",\n  \"code\": 406\n}}"
        )
    };
    for (target, accept, message) in [
        (
            collection.clone(),
            JSON_METADATA,
            concat!(
                "you requested PartialObjectMetadata, but the requested object is a list ",
                "(*core.ConfigMapList)"
            ),
        ),
        (
            format!("{collection}/x"),
            JSON_METADATA_LIST,
            concat!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ",
                "(*core.ConfigMap)"
            ),
        ),
    ] {
        let request = Request::get(target).header("accept", accept);
        expect(
            &cluster.admin().whole(request).await?,
            406,
            JSON,
            &refused(message),
        )?;
    }
    Ok(())
}
