//! What cases about watches are made of: where one starts, what it shall see, and what it sees.
//!
//! Owns the reading of events and objects in both encodings into one form, and a custom resource
//! for who needs one. Refuses tolerance: events are compared one by one, in order, with their
//! versions. Invariant: a comparison ends with an event that has to come, so that one too many
//! before it is seen without waiting.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Cluster;
use super::cluster::until;
use crate::apiserver::schema::{Envelope, Schema, open_envelope};
use crate::client::{Client, Event, JSON, PROTOBUF, Request, Watch};
use crate::kubelet::protobuf::find;

/// The encodings a watch can have.
pub(super) const ENCODINGS: [&str; 2] = [JSON, PROTOBUF];

/// What a client adds to ask for initial events and the bookmark that ends them.
pub(super) const WATCH_LIST: &str =
    "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

/// Kind, key and version of an event.
pub(super) type Sight<'a> = (&'a str, &'a str, u64);

/// A request for a watch of a collection in one encoding.
pub(super) fn watching(collection: &str, query: &str, accept: &str) -> Request {
    Request::get(format!("{collection}?watch=1&{query}")).header("accept", accept)
}

/// Opens a watch of a collection that starts after a version.
///
/// # Errors
/// When it is refused.
pub(super) async fn watch_after(
    client: &Client,
    collection: &str,
    version: u64,
    accept: &str,
) -> anyhow::Result<Watch> {
    let query = format!("resourceVersion={version}");
    client.watch(watching(collection, &query, accept)).await
}

/// Reads a collection in every encoding, so that from here on a cache in the way has its history,
/// and returns the newest version.
///
/// # Errors
/// When it is not served in JSON.
pub(super) async fn begin(cluster: &Cluster, collection: &str) -> anyhow::Result<u64> {
    let protobuf = Request::get(collection).header("accept", PROTOBUF);
    cluster.admin().whole(protobuf).await?;
    version(&cluster.admin().get(collection).await?.ok()?)
}

/// The version of an object or a list.
///
/// # Errors
/// When it has none.
pub(super) fn version(object: &Value) -> anyhow::Result<u64> {
    let text = object["metadata"]["resourceVersion"].as_str();
    Ok(text
        .with_context(|| format!("no version in {object}"))?
        .parse()?)
}

/// The next events of a watch without bookmarks are exactly these.
///
/// # Errors
/// When one is not, with both.
pub(super) async fn sees(watch: &mut Watch, expected: &[Sight<'_>]) -> anyhow::Result<()> {
    for (index, &sight) in expected.iter().enumerate() {
        let event = watch.event_now().await?;
        ensure!(
            (event.kind.as_str(), event.key.as_str(), event.version) == sight,
            "event {index}: expected {sight:?}, came {event:?}"
        );
    }
    Ok(())
}

/// A watch ends cleanly and says nothing more.
///
/// # Errors
/// When something comes, or it breaks off.
pub(super) async fn ends(watch: &mut Watch) -> anyhow::Result<()> {
    let next = watch.next().await?;
    ensure!(next.is_none(), "expected the end, came {next:?}");
    Ok(())
}

/// A collection as `namespace/name`, `name` or the like in the key of an event.
pub(super) fn key(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// The object of an event, whatever its encoding.
///
/// # Errors
/// When the frame is not of that encoding, or of a kind no schema is known of.
pub(super) fn object(event: &Event) -> anyhow::Result<Value> {
    if event.raw.starts_with(b"{") {
        return event.object();
    }
    decoded(enveloped(event)?)
}

/// The bytes of a protobuf event's object, envelope included.
///
/// # Errors
/// When the frame is no protobuf.
pub(super) fn enveloped(event: &Event) -> anyhow::Result<&[u8]> {
    let message = event.raw.get(4..).context("half a length")?;
    let extension = find(message, 2)?.context("no object")?;
    find(extension, 1)?.context("an empty object")
}

/// A built-in object in protobuf, as a value.
///
/// # Errors
/// When it is not, or of a kind no schema is known of.
pub(super) fn decoded(body: &[u8]) -> anyhow::Result<Value> {
    let Envelope {
        api_version,
        kind,
        raw,
    } = open_envelope(body)?;
    let schema = Schema::builtin();
    let object = schema.from_protobuf(api_version, kind, raw)?;
    // As it is printed: some fields are there in JSON though they have no value.
    Ok(serde_json::from_slice(&schema.json(
        api_version,
        kind,
        &object,
    )?)?)
}

/// The object with another version.
pub(super) fn at_version(object: &Value, version: u64) -> Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = Value::from(version.to_string());
    object
}

/// Names of the objects in a list, in its order.
///
/// # Errors
/// When it is not a list.
pub(super) async fn names(client: &Client, target: &str) -> anyhow::Result<Vec<String>> {
    let list = client.get(target).await?.ok()?;
    let items = list["items"].as_array().context("no items")?;
    let name = |item: &Value| {
        item["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(items.iter().map(name).collect())
}

/// A custom resource that one case defines for itself.
#[derive(Clone, Debug)]
pub(super) struct Custom {
    /// Its group, which no other case has.
    pub(super) group: String,
    /// The path of its definition.
    definition: String,
}

impl Custom {
    /// Defines namespaced Widgets with the selectable field `spec.color`, and waits until they are
    /// served under test.
    ///
    /// # Errors
    /// When they are not in time.
    pub(super) async fn define(cluster: &Cluster) -> anyhow::Result<Self> {
        let group = format!("{}.example.com", cluster.prefix());
        let name = format!("widgets.{group}");
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let body = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"plural": "widgets", "singular": "widget", "kind": "Widget",
                    "listKind": "WidgetList"},
                "versions": versions("first")}});
        cluster.create(definitions, &body).await?;
        let custom = Self {
            definition: format!("{definitions}/{name}"),
            group,
        };
        custom.served(cluster).await?;
        Ok(custom)
    }

    /// Changes what a Widget is described as, so that the apiserver starts over serving them.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) async fn redefine(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let change = json!({"spec": {"versions": versions("second")}});
        cluster.change("PATCH", &self.definition, &change).await?;
        Ok(())
    }

    /// Waits until Widgets are served; by the apiserver itself first, so that no proxy learns that
    /// there are none.
    pub(super) async fn served(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let discovery = format!("/apis/{}/v1", self.group);
        let all = format!("{discovery}/widgets");
        until("widgets are served by the apiserver", async || {
            let listed = cluster.direct().get(&discovery).await?;
            let is_listed = listed.status == 200 && listed.text().contains("\"widgets\"");
            Ok(is_listed && cluster.direct().get(&all).await?.status == 200)
        })
        .await?;
        until("widgets are served", async || {
            Ok(cluster.admin().get(&all).await?.status == 200)
        })
        .await
    }

    /// The path of the Widgets of a namespace.
    pub(super) fn collection(&self, namespace: &str) -> String {
        format!("/apis/{}/v1/namespaces/{namespace}/widgets", self.group)
    }

    /// A Widget of this name and color.
    pub(super) fn widget(&self, name: &str, color: &str) -> Value {
        json!({"apiVersion": format!("{}/v1", self.group), "kind": "Widget",
            "metadata": {"name": name}, "spec": {"color": color}})
    }
}

fn versions(description: &str) -> Value {
    let schema = json!({"type": "object", "description": description, "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"color": {"type": "string"}}}}});
    json!([{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": schema},
        "selectableFields": [{"jsonPath": ".spec.color"}]}])
}
