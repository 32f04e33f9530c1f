//! A client of the cache that believes nothing: it folds what it is sent and compares with the
//! model.

use futures_util::{FutureExt, StreamExt};
use tokio::time::{Duration, Instant};
use watershed_cache::selector::{FieldSelector, LabelSelector};
use watershed_cache::{
    CacheError, ResourceVersion, Selection, Snapshot, WatchCache, WatchStart, Watcher,
};

use crate::model::{Apiserver, Pod, View};

/// What a client asks for: namespace, name, node, app; each one or any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted([Option<&'static str>; 4]);

pub(crate) const WANTED: [Wanted; 9] = [
    Wanted([None, None, None, None]),
    Wanted([Some("a"), None, None, None]),
    Wanted([Some("a-b"), None, None, None]),
    Wanted([Some("b"), Some("p3"), None, None]),
    Wanted([None, Some("p3"), None, None]),
    Wanted([None, None, Some("n1"), None]),
    Wanted([Some("a"), None, Some("n2"), None]),
    Wanted([None, None, None, Some("web")]),
    Wanted([Some("b"), None, Some(""), Some("db")]),
];

impl Wanted {
    pub(crate) fn selects(&self, pod: &Pod) -> bool {
        let values = [&pod.namespace, &pod.name, &pod.node, &pod.app];
        self.0
            .iter()
            .zip(values)
            .all(|(wanted, value)| wanted.is_none_or(|wanted| wanted == value))
    }

    pub(crate) fn selection(&self, cache: &WatchCache) -> Selection {
        let [namespace, name, node, app] = self.0;
        let fields = node
            .map(|node| format!("spec.nodeName={node}"))
            .unwrap_or_default();
        let labels = app.map(|app| format!("app={app}")).unwrap_or_default();
        let fields = FieldSelector::parse(&fields).expect("a field selector");
        Selection {
            namespace: namespace.map(Into::into),
            name: name.map(Into::into),
            labels: LabelSelector::parse(&labels).expect("a label selector"),
            fields: fields
                .bind(&cache.resource().fields)
                .expect("pods have these fields"),
        }
    }
}

pub(crate) struct Client {
    wanted: Wanted,
    watcher: Option<Watcher>,
    view: View,
    /// What it may resume from; the view is the state at it.
    version: u64,
    /// Initial events are still coming.
    initial: bool,
}

impl Client {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            watcher: None,
            view: View::new(),
            version: 0,
            initial: false,
        }
    }

    /// Opens the watch again if it ended: resumes, or starts over when it must or is given a
    /// snapshot to start from.
    pub(crate) fn reopen(&mut self, cache: &WatchCache, lasts: Duration, afresh: Option<Snapshot>) {
        if self.watcher.is_some() {
            return;
        }
        let deadline = Instant::now() + lasts;
        let selection = self.wanted.selection(cache);
        if self.version > 0 && afresh.is_none() {
            let start = WatchStart::After(ResourceVersion::new(self.version));
            match cache.watch(selection.clone(), start, true, deadline) {
                Ok(watcher) => {
                    self.watcher = Some(watcher);
                    return;
                }
                Err(CacheError::NotReady) => return,
                Err(CacheError::Expired { requested, oldest }) => {
                    assert!(requested.get() == self.version && requested < oldest);
                }
                Err(other) => panic!("unexpected {other}"),
            }
        }
        let Some(snapshot) = afresh.or_else(|| cache.snapshot().ok()) else {
            return;
        };
        let start = WatchStart::Initial {
            snapshot,
            end_bookmark: true,
        };
        if let Ok(watcher) = cache.watch(selection, start, true, deadline) {
            *self = Self {
                watcher: Some(watcher),
                initial: true,
                ..Self::new(self.wanted)
            };
        }
    }

    /// Hangs up. Initial events that were not complete are worth nothing.
    pub(crate) fn close(&mut self) {
        self.watcher = None;
        if self.initial {
            *self = Self::new(self.wanted);
        }
    }

    /// Reads up to `items` pieces; true when there was no more.
    pub(crate) fn read(&mut self, items: usize, model: &Apiserver) -> bool {
        for _ in 0..items {
            let Some(watcher) = &mut self.watcher else {
                return true;
            };
            match watcher.next().now_or_never() {
                None => return true,
                Some(None) => {
                    self.close();
                    return true;
                }
                Some(Some(frames)) => {
                    for frame in frames
                        .split(|&byte| byte == b'\n')
                        .filter(|frame| !frame.is_empty())
                    {
                        self.fold(frame, model);
                    }
                }
            }
        }
        false
    }

    fn fold(&mut self, frame: &[u8], model: &Apiserver) {
        let frame: serde_json::Value = serde_json::from_slice(frame).expect("a frame is JSON");
        let find = |pointer: &str| frame.pointer(pointer).and_then(|value| value.as_str());
        let text = |pointer: &str| find(pointer).expect("every frame has it");
        let version = text("/object/metadata/resourceVersion")
            .parse()
            .expect("a number");
        let key = || {
            let namespace = text("/object/metadata/namespace");
            format!("{namespace}/{}", text("/object/metadata/name"))
        };
        match text("/type") {
            "BOOKMARK" => {
                let end = find("/object/metadata/annotations/k8s.io~1initial-events-end").is_some();
                assert_eq!(
                    end, self.initial,
                    "exactly one bookmark ends the initial events"
                );
                self.initial = false;
                assert!(version >= self.version, "versions never go back");
                self.version = version;
                let expected = model.view(version, |pod| self.wanted.selects(pod));
                assert_eq!(
                    self.view, expected,
                    "{:?} at bookmark {version}",
                    self.wanted
                );
                return;
            }
            "ADDED" => assert_eq!(self.view.insert(key(), version), None, "added once"),
            "MODIFIED" => {
                let old = self.view.insert(key(), version);
                assert!(
                    old.is_some_and(|old| old < version),
                    "modified what was there"
                );
            }
            "DELETED" => assert!(self.view.remove(&key()).is_some(), "deleted what was there"),
            other => panic!("unexpected {other}"),
        }
        if !self.initial {
            assert!(version > self.version, "{version} after {}", self.version);
            self.version = version;
            let expected = model.view(version, |pod| self.wanted.selects(pod));
            assert_eq!(self.view, expected, "{:?} at {version}", self.wanted);
        }
    }

    /// A watch that has nothing left to read shows exactly the state of the cache.
    pub(crate) fn is_up_to_date(&self, own: u64, model: &Apiserver) -> bool {
        let expected = model.view(own, |pod| self.wanted.selects(pod));
        self.watcher.is_some() && !self.initial && self.view == expected
    }

    pub(crate) fn is_open(&self) -> bool {
        self.watcher.is_some()
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }
}
