//! The reflector in dialogue with an apiserver played by the test.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::encoding::Encoding;
use crate::testing::{pod_json, pods, rv, select};
use crate::watch_cache::{Options, WatchCache};

use super::*;

mod consistent;
mod past;
mod sync;

type Body = ReceiverStream<Result<Bytes, UpstreamError>>;

/// What the reflector asked.
enum Asked {
    List(ListRequest, oneshot::Sender<Result<Bytes, UpstreamError>>),
    Watch(WatchRequest, oneshot::Sender<Result<Body, UpstreamError>>),
}

/// The reflector's end of the dialogue.
struct Scripted(mpsc::Sender<Asked>);

impl ListerWatcher for Scripted {
    type Body = Body;

    async fn list(&self, request: ListRequest) -> Result<Bytes, UpstreamError> {
        let (answer, answered) = oneshot::channel();
        self.0
            .send(Asked::List(request, answer))
            .await
            .expect("the test listens");
        answered
            .await
            .unwrap_or_else(|_| Err(UpstreamError::Transport("hung up".into())))
    }

    async fn watch(&self, request: WatchRequest) -> Result<Body, UpstreamError> {
        let (answer, answered) = oneshot::channel();
        self.0
            .send(Asked::Watch(request, answer))
            .await
            .expect("the test listens");
        answered
            .await
            .unwrap_or_else(|_| Err(UpstreamError::Transport("hung up".into())))
    }
}

/// The test's end: the apiserver.
struct Apiserver {
    asked: mpsc::Receiver<Asked>,
    cache: WatchCache,
    reflector: JoinHandle<()>,
}

impl Drop for Apiserver {
    fn drop(&mut self) {
        self.reflector.abort();
    }
}

fn start() -> Apiserver {
    start_with(Options::default())
}

fn start_with(options: Options) -> Apiserver {
    let (writer, cache) = WatchCache::new(pods(), Encoding::Json, options);
    let (questions, asked) = mpsc::channel(8);
    let options = ReflectorOptions {
        seed: Some(1),
        ..ReflectorOptions::default()
    };
    let run = Reflector::run(writer, Scripted(questions), options, std::future::pending());
    Apiserver {
        asked,
        cache,
        reflector: tokio::spawn(run),
    }
}

/// A reflector that synced these at `version` and streams on from there.
async fn synced(version: u64, objects: &[(&str, u64)]) -> (Apiserver, Stream) {
    let mut server = start();
    let stream = server.sync(version, objects).await;
    (server, stream)
}

impl Apiserver {
    async fn asked(&mut self) -> Asked {
        let asked = tokio::time::timeout(Duration::from_secs(600), self.asked.recv()).await;
        asked
            .expect("a question within ten minutes")
            .expect("the reflector runs")
    }

    async fn list(&mut self) -> (ListRequest, oneshot::Sender<Result<Bytes, UpstreamError>>) {
        match self.asked().await {
            Asked::List(request, answer) => (request, answer),
            Asked::Watch(request, _) => panic!("expected a list, got {request:?}"),
        }
    }

    async fn watch(&mut self) -> (WatchRequest, oneshot::Sender<Result<Body, UpstreamError>>) {
        match self.asked().await {
            Asked::Watch(request, answer) => (request, answer),
            Asked::List(request, _) => panic!("expected a watch, got {request:?}"),
        }
    }

    /// Expects a watch after `version` and opens it.
    async fn resume(&mut self, version: u64) -> Stream {
        let (request, answer) = self.watch().await;
        assert_eq!(request.resource_version, Some(rv(version)));
        assert!(!request.send_initial_events);
        open(answer)
    }

    /// Expects a WatchList and refuses it.
    async fn refuse_watch_list(&mut self, error: UpstreamError) {
        let (request, answer) = self.watch().await;
        assert!(request.send_initial_events);
        answer.send(Err(error)).expect("the reflector waits");
    }

    /// Expects a WatchList and answers it.
    async fn sync(&mut self, version: u64, objects: &[(&str, u64)]) -> Stream {
        let (request, answer) = self.watch().await;
        assert!(request.send_initial_events);
        let stream = open(answer);
        for (what, version) in objects {
            stream.event("ADDED", what, *version).await;
        }
        stream.bookmark(version, true).await;
        self.reaches(version).await;
        stream
    }

    /// Waits until the cache is complete up to `version`.
    async fn reaches(&self, version: u64) {
        let ready = tokio::time::timeout(Duration::from_secs(60), self.cache.ready());
        ready.await.expect("ready within a minute");
        let reached = self
            .cache
            .wait_until_fresh(rv(version), Duration::from_secs(60))
            .await;
        reached.expect("fresh within a minute");
    }

    /// The objects as `key@version`.
    fn listed(&self) -> Vec<String> {
        let (snapshot, everything) = (self.cache.snapshot().expect("ready"), select(""));
        let entry = |object: &std::sync::Arc<crate::Object>| {
            format!("{}@{}", object.key(), object.resource_version())
        };
        snapshot.iter(&everything).map(entry).collect()
    }

    /// Waits for a status that `is` what the test wants.
    async fn status(&self, is: impl FnMut(&ReflectorStatus) -> bool) -> ReflectorStatus {
        let mut status = self.cache.status();
        let status = tokio::time::timeout(Duration::from_secs(600), status.wait_for(is)).await;
        status
            .expect("the status within ten minutes")
            .expect("the cache lives")
            .clone()
    }
}

/// The body of one watch. Dropped, it ends cleanly.
struct Stream(mpsc::Sender<Result<Bytes, UpstreamError>>);

fn open(answer: oneshot::Sender<Result<Body, UpstreamError>>) -> Stream {
    let (chunks, body) = mpsc::channel(8);
    assert!(
        answer.send(Ok(ReceiverStream::new(body))).is_ok(),
        "the reflector waits"
    );
    Stream(chunks)
}

impl Stream {
    async fn send(&self, text: impl Into<String>) {
        self.0
            .send(Ok(Bytes::from(text.into())))
            .await
            .expect("the reflector reads");
    }

    async fn event(&self, event_type: &str, what: &str, version: u64) {
        let object = pod_json(what, version);
        self.send(format!(
            "{{\"type\":\"{event_type}\",\"object\":{object}}}\n"
        ))
        .await;
    }

    async fn bookmark(&self, version: u64, end: bool) {
        let annotation = r#","annotations":{"k8s.io/initial-events-end":"true"}"#;
        let annotation = if end { annotation } else { "" };
        self.send(format!(
            "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{{\
             \"resourceVersion\":\"{version}\"{annotation}}},\"spec\":{{\"containers\":null}},\"status\":{{}}}}}}\n"
        ))
        .await;
    }

    async fn error(&self, code: u16, reason: &str) {
        self.send(format!(
            "{{\"type\":\"ERROR\",\"object\":{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{{}},\
             \"status\":\"Failure\",\"message\":\"no\",\"reason\":\"{reason}\",\"code\":{code}}}}}\n"
        ))
        .await;
    }

    async fn cut(self) {
        self.0
            .send(Err(UpstreamError::Transport("reset".into())))
            .await
            .expect("the reflector reads");
    }

    fn end(self) {}
}

/// A page of a list.
fn page(version: u64, objects: &[(&str, u64)], next: Option<&str>) -> Result<Bytes, UpstreamError> {
    let next = next
        .map(|token| format!(",\"continue\":\"{token}\""))
        .unwrap_or_default();
    let items: Vec<_> = objects
        .iter()
        .map(|(what, version)| {
            pod_json(what, *version).replace(r#""kind":"Pod","apiVersion":"v1","#, "")
        })
        .collect();
    Ok(Bytes::from(format!(
        "{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"{version}\"{next}}},\
         \"items\":[{}]}}\n",
        items.join(",")
    )))
}

fn status(code: u16, retry_after: Option<u32>) -> UpstreamError {
    let reason = if code == 410 { "Expired" } else { "Other" };
    UpstreamError::Status {
        code,
        reason: reason.into(),
        message: "no".into(),
        retry_after,
    }
}
