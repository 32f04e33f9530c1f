//! The watches of a kubelet: which there are, and the loop that keeps one going.
//!
//! Owns streams and their frames. Refuses rules: what comes next is [`Reflector`]'s, what an event
//! means is [`View`](super::view::View)'s.
//! Invariant: a watch ends only when its kubelet or the last pod that needs it ends.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use h2::RecvStream;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::client::{Call, CallError, read, retry_after};
use super::decode::{Change, Event, FrameSplitter};
use super::pods::News;
use super::reflector::{End, Reflector, Seen, Subject};
use super::view::View;
use super::{INFORMER_TIMEOUTS, Kubelet, MOUNT_TIMEOUTS};
use crate::measure::micros;

/// A 403 may come while the graph of pods and what they mount is behind the pods: right after a
/// binding, and after a deletion that this kubelet has not heard of. So many in a row are an error.
const FORBIDDEN_MAX: u32 = 3;

/// Watches that start with the kubelet.
pub(super) fn informers(node: &str) -> [Subject; 4] {
    let subject = |resource, path: &str, field_selector: &str| Subject {
        resource,
        path: path.to_owned(),
        field_selector: field_selector.to_owned(),
    };
    [
        subject("nodes", "/api/v1/nodes", &format!("metadata.name={node}")),
        subject("services", "/api/v1/services", "spec.clusterIP!=None"),
        subject("csidrivers", "/apis/storage.k8s.io/v1/csidrivers", ""),
        subject("runtimeclasses", "/apis/node.k8s.io/v1/runtimeclasses", ""),
    ]
}

/// Watches one of the kubelet's informers until the kubelet ends.
pub(super) async fn informer(
    kubelet: Arc<Kubelet>,
    subject: Subject,
    news: Option<mpsc::Sender<News>>,
) {
    let watch = Watch::new(kubelet, subject, INFORMER_TIMEOUTS, news);
    watch.run(true).await;
}

/// Watches the pods bound here, from the time the own node is in sync.
pub(super) async fn own_pods(kubelet: Arc<Kubelet>, news: mpsc::Sender<News>) {
    let mut synced = kubelet.node_synced.subscribe();
    if synced.wait_for(|synced| *synced).await.is_err() {
        return;
    }
    let subject = Subject {
        resource: "pods",
        path: "/api/v1/pods".to_owned(),
        field_selector: format!("spec.nodeName={}", kubelet.name),
    };
    informer(kubelet, subject, Some(news)).await;
}

/// Watches an object that a pod mounts, until `stop`.
pub(super) async fn mounted(kubelet: Arc<Kubelet>, subject: Subject, stop: CancellationToken) {
    let watch = Watch::new(Arc::clone(&kubelet), subject.clone(), MOUNT_TIMEOUTS, None);
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch.run(false) => {}
    }
    kubelet.views.lock().remove(&subject);
}

struct Watch {
    kubelet: Arc<Kubelet>,
    reflector: Reflector,
    view: Arc<Mutex<View>>,
    news: Option<mpsc::Sender<News>>,
    /// Pods of initial events, until they are complete.
    initial: Vec<News>,
    /// Times in a row that the server answered 403.
    forbidden: u32,
}

impl Watch {
    fn new(
        kubelet: Arc<Kubelet>,
        subject: Subject,
        timeouts: RangeInclusive<u64>,
        news: Option<mpsc::Sender<News>>,
    ) -> Self {
        let view = Arc::<Mutex<View>>::default();
        kubelet
            .views
            .lock()
            .insert(subject.clone(), Arc::clone(&view));
        let reflector = Reflector::new(subject, timeouts, Rng::new());
        Self {
            kubelet,
            reflector,
            view,
            news,
            initial: Vec::new(),
            forbidden: 0,
        }
    }

    /// Streams for ever; the first sync is a step of the kubelet's start if `starting`.
    async fn run(mut self, starting: bool) {
        let mut starting = starting;
        loop {
            let before = self.reflector.counts();
            let target = self.reflector.request(&self.view.lock());
            let resumed = self.reflector.counts().resumes - before.resumes;
            let stats = &self.kubelet.stats;
            stats.resumes.fetch_add(resumed, Ordering::Relaxed); // now, for it may run for long
            let end = self.stream(target, &mut starting).await;
            let wait = self
                .reflector
                .ended(&end, &self.view.lock(), Instant::now());
            self.count(before, &end);
            if !wait.is_zero() {
                sleep(wait).await;
            }
        }
    }

    fn count(&mut self, before: super::reflector::Counts, end: &End) {
        let (stats, after) = (&self.kubelet.stats, self.reflector.counts());
        stats
            .relists
            .fetch_add(after.relists - before.relists, Ordering::Relaxed);
        stats
            .excused
            .fetch_add(after.excused - before.excused, Ordering::Relaxed);
        stats
            .watch_failures
            .fetch_add(after.failures - before.failures, Ordering::Relaxed);
        let is_forbidden = matches!(end, End::Refused { code: 403, .. });
        self.forbidden = if is_forbidden { self.forbidden + 1 } else { 0 };
        match end {
            End::Clean | End::Error { code: 410 | 429 } | End::Refused { code: 429, .. } => {}
            End::Refused { code: 403, .. } if self.forbidden < FORBIDDEN_MAX => {}
            End::Refused { .. } | End::Error { .. } | End::Malformed => {
                let subject = self.reflector.subject();
                let (name, path) = (&self.kubelet.name, &subject.path);
                stats.errors.add(format!(
                    "{name}: watch {path} {}: {end:?}",
                    subject.field_selector
                ));
            }
        }
    }

    async fn stream(&mut self, target: String, starting: &mut bool) -> End {
        let response = match self.kubelet.client.open(&Call::read(target)).await {
            Ok(response) => response,
            Err(CallError::Closed) => std::future::pending().await,
            // client-go takes a transport error here for an empty watch; its next request waits
            // for the new connection.
            Err(CallError::Connection(_) | CallError::Timeout(_) | CallError::Body) => {
                sleep(Duration::from_millis(10)).await;
                return End::Clean;
            }
        };
        if response.status() != StatusCode::OK {
            let code = response.status().as_u16();
            return End::Refused {
                code,
                retry_after: retry_after(response.headers()),
            };
        }
        let stats = Arc::clone(&self.kubelet.stats);
        let _open = Open::new(&stats.watches);
        self.reflector.opened(Instant::now());
        self.initial.clear();
        self.read(response.into_body(), starting).await
    }

    async fn read(&mut self, mut body: RecvStream, starting: &mut bool) -> End {
        let mut splitter = FrameSplitter::default();
        loop {
            let Ok(Some(chunk)) = read(&mut body).await else {
                return End::Clean;
            };
            self.kubelet
                .stats
                .bytes
                .fetch_add(chunk.len() as u64, Ordering::Relaxed);
            splitter.push(&chunk);
            loop {
                match splitter.next_frame() {
                    Ok(None) => break,
                    Err(_) => return End::Malformed,
                    Ok(Some(frame)) => {
                        if let Some(end) = self.frame(&frame, starting).await {
                            return end;
                        }
                    }
                }
            }
        }
    }

    async fn frame(&mut self, frame: &[u8], starting: &mut bool) -> Option<End> {
        let Ok(event) = Event::decode(frame) else {
            return Some(End::Malformed);
        };
        let news = self.news_of(&event);
        let seen = self.reflector.event(event, &mut self.view.lock());
        let stats = &self.kubelet.stats;
        match seen {
            Ok(Seen::Failed(end)) => return Some(end),
            Ok(Seen::Bookmark) => _ = stats.bookmarks.fetch_add(1, Ordering::Relaxed),
            Ok(Seen::Initial) => {
                stats.initial_events.fetch_add(1, Ordering::Relaxed);
                self.initial.extend(news);
            }
            Ok(Seen::Live(sent)) => {
                stats.events.fetch_add(1, Ordering::Relaxed);
                if let Some(sent) = sent {
                    stats.latency.record_micros(micros().saturating_sub(sent));
                }
                self.tell(news).await;
            }
            Ok(Seen::Synced) => self.synced(starting).await,
            Err(rule) => {
                let subject = self.reflector.subject();
                let selector = &subject.field_selector;
                let name = &self.kubelet.name;
                let text = Event::decode(frame).map_or_else(|error| error.to_string(), describe);
                stats.violation(rule, format!("{name}: {} {selector}: {text}", subject.path));
                self.tell(news).await;
            }
        }
        None
    }

    async fn synced(&mut self, starting: &mut bool) {
        if std::mem::take(starting) {
            self.kubelet.step();
        }
        if self.reflector.subject().resource == "nodes" {
            self.kubelet.node_synced.send_replace(true);
        }
        if self.news.is_some() {
            let keys = self.view.lock().entries().keys().cloned().collect();
            self.tell(Some(News::Only(keys))).await;
            for news in std::mem::take(&mut self.initial) {
                self.tell(Some(news)).await;
            }
        }
    }

    fn news_of(&self, event: &Event<'_>) -> Option<News> {
        self.news.as_ref()?;
        match event {
            Event::Object {
                change: Change::Deleted,
                object,
            } => Some(News::Gone(object.key())),
            Event::Object {
                change: Change::Added | Change::Modified,
                object,
            } => News::pod(object).ok(),
            Event::Bookmark { .. } | Event::Error(_) => None,
        }
    }

    async fn tell(&self, news: Option<News>) {
        if let (Some(sender), Some(news)) = (&self.news, news) {
            // The receiver lives in the same task and ends with it.
            let _ = sender.send(news).await;
        }
    }
}

fn describe(event: Event<'_>) -> String {
    match event {
        Event::Object { change, object } => {
            format!(
                "{change:?} {} at {}",
                object.key(),
                object.metadata.resource_version
            )
        }
        Event::Bookmark {
            resource_version, ..
        } => format!("bookmark at {resource_version}"),
        Event::Error(status) => status.message,
    }
}

/// Counts an open watch until it is dropped.
struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(open: &'a AtomicU64) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
