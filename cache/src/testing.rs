//! Objects, selections and frames as short text, for the tests of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::encoding::{Encoding, EventType};
use crate::interest::Selection;
use crate::selector::{FieldSelector, LabelSelector};
use crate::watch_cache::{Options, WatchCache, Writer};
use crate::watcher::{WatchStart, Watcher};
use crate::{Object, Resource, ResourceVersion};

pub(crate) fn pods() -> Arc<Resource> {
    Arc::new(Resource::pods())
}

pub(crate) const fn rv(number: u64) -> ResourceVersion {
    ResourceVersion::new(number)
}

/// The JSON of a pod. `what` is `namespace/name`, then in any order `@node` and `+app`.
pub(crate) fn pod_json(what: &str, version: u64) -> String {
    let mut words = what.split(' ');
    let (namespace, name) = words
        .next()
        .and_then(|key| key.split_once('/'))
        .expect("ns/name");
    let (mut node, mut app) = ("", "none");
    for word in words {
        match word.split_at(1) {
            ("@", rest) => node = rest,
            ("+", rest) => app = rest,
            (sign, _) => panic!("{sign} means nothing"),
        }
    }
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}","uid":"u-{name}","resourceVersion":"{version}","labels":{{"app":"{app}"}}}},"spec":{{"nodeName":"{node}"}},"status":{{}}}}"#
    )
}

pub(crate) fn pod(what: &str, version: u64) -> Object {
    let json = pod_json(what, version);
    Object::decode(Encoding::Json, &pods(), json.as_bytes()).expect("a pod decodes")
}

/// A selection: empty, or words `ns=…`, `name=…`, `node=…`, `app=…`.
pub(crate) fn select(what: &str) -> Selection {
    let (mut namespace, mut name, mut labels, mut fields) =
        (None, None, "".to_owned(), "".to_owned());
    for word in what.split_whitespace() {
        let (key, value) = word.split_once('=').expect("key=value");
        match key {
            "ns" => namespace = Some(value.into()),
            "name" => name = Some(value.into()),
            "node" => fields = format!("spec.nodeName={value}"),
            "app" => labels = format!("app={value}"),
            other => panic!("{other} means nothing"),
        }
    }
    let fields = FieldSelector::parse(&fields).expect("a field selector");
    Selection {
        namespace,
        name,
        labels: LabelSelector::parse(&labels).expect("a label selector"),
        fields: fields.bind(&pods().fields).expect("a pod has these fields"),
    }
}

/// A cache that was synced at `version` with these pods.
pub(crate) fn cache_of(version: u64, objects: &[(&str, u64)]) -> (Writer, WatchCache) {
    cache_with(Options::default(), version, objects)
}

pub(crate) fn cache_with(
    options: Options,
    version: u64,
    objects: &[(&str, u64)],
) -> (Writer, WatchCache) {
    let (mut writer, cache) = WatchCache::new(pods(), Encoding::Json, options);
    let objects = objects.iter().map(|(what, version)| pod(what, *version));
    writer
        .replace(rv(version), objects)
        .expect("within the budget");
    (writer, cache)
}

impl Writer {
    /// An upsert, as the upstream would send it.
    pub(crate) fn put(&mut self, what: &str, version: u64) {
        self.apply(EventType::Modified, pod(what, version))
            .expect("within the budget");
    }

    /// A deletion, as the upstream would send it.
    pub(crate) fn delete(&mut self, what: &str, version: u64) {
        self.apply(EventType::Deleted, pod(what, version))
            .expect("within the budget");
    }

    /// A plain bookmark.
    pub(crate) fn bookmark(&mut self, version: u64) {
        self.advance(rv(version), None);
    }
}

impl WatchCache {
    /// A watch of an hour without bookmarks.
    pub(crate) fn watch_after(&self, what: &str, version: u64) -> Watcher {
        let start = WatchStart::After(rv(version));
        self.watch(select(what), start, false, in_seconds(3600))
            .expect("within the window")
    }

    /// A watch with initial events and bookmarks that lasts `seconds`.
    pub(crate) fn watch_list(&self, what: &str, seconds: u64) -> Watcher {
        let snapshot = self.snapshot().expect("ready");
        let start = WatchStart::Initial {
            snapshot,
            end_bookmark: true,
        };
        self.watch(select(what), start, true, in_seconds(seconds))
            .expect("within the window")
    }
}

pub(crate) fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Everything a watcher yields without waiting, as [`lines`]; `END` when it ended.
pub(crate) fn drain(watcher: &mut Watcher) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(item) = watcher.next().now_or_never() {
        match item {
            Some(bytes) => seen.extend(lines(&bytes)),
            None => {
                seen.push("END".into());
                break;
            }
        }
    }
    seen
}

/// Opens a watch with initial events at some moment and folds it until `z/end` has come.
pub(crate) async fn fold_until_the_end(cache: WatchCache, what: &str) -> Vec<String> {
    let mut watcher = cache.watch_list(what, 3600);
    let (mut view, mut initial) = (BTreeMap::new(), true);
    while initial || !view.contains_key("z/end") {
        let frames = watcher.next().await.expect("no end before");
        for line in lines(&frames) {
            let (event_type, object) = line.split_once(' ').unwrap();
            let key = object.split('@').next().unwrap().to_owned();
            let (held, new) = (view.contains_key(&key), object.to_owned());
            match event_type {
                "ADDED" => assert!(!held && view.insert(key, new).is_none(), "{line}"),
                "MODIFIED" => assert!(held && view.insert(key, new).is_some(), "{line}"),
                "DELETED" => assert!(view.remove(&key).is_some(), "{line}"),
                _ => initial = false,
            }
        }
    }
    view.into_values().collect()
}

/// Frames as `TYPE key@version`, bookmarks as `BOOKMARK @version`, with ` end` after the initial
/// events.
pub(crate) fn lines(frames: &Bytes) -> Vec<String> {
    let text = std::str::from_utf8(frames).expect("JSON is text");
    assert!(text.ends_with('\n'), "frames are whole");
    text.lines().map(line).collect()
}

fn line(frame: &str) -> String {
    let frame: serde_json::Value = serde_json::from_str(frame).expect("a frame is JSON");
    let text = |pointer: &str| {
        frame
            .pointer(pointer)
            .and_then(|value| value.as_str())
            .unwrap_or("")
    };
    let version = text("/object/metadata/resourceVersion");
    match text("/type") {
        "BOOKMARK" => {
            let end = text("/object/metadata/annotations/k8s.io~1initial-events-end") == "true";
            format!("BOOKMARK @{version}{}", if end { " end" } else { "" })
        }
        event_type => {
            let (namespace, name) = (
                text("/object/metadata/namespace"),
                text("/object/metadata/name"),
            );
            format!("{event_type} {namespace}/{name}@{version}")
        }
    }
}
