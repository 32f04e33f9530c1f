//! The naive model: an apiserver that keeps everything and computes every answer from the whole
//! log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use watershed_cache::{ListRequest, ListerWatcher, UpstreamError, WatchRequest};

pub(crate) type Body = ReceiverStream<Result<Bytes, UpstreamError>>;

/// Versions of the selected objects by key.
pub(crate) type View = BTreeMap<String, u64>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) app: String,
    pub(crate) version: u64,
}

impl Pod {
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn json(&self, version: u64, head: &str) -> String {
        let Self {
            namespace,
            name,
            node,
            app,
            ..
        } = self;
        format!(
            r#"{{{head}"metadata":{{"name":"{name}","namespace":"{namespace}","resourceVersion":"{version}","labels":{{"app":"{app}"}}}},"spec":{{"nodeName":"{node}"}},"status":{{}}}}"#
        )
    }
}

const HEAD: &str = r#""kind":"Pod","apiVersion":"v1","#;

/// Pods by key.
pub(crate) type State = BTreeMap<String, Arc<Pod>>;

/// One write: the pod as it is from `version` on, or was.
#[derive(Clone, Debug)]
struct Write {
    version: u64,
    pod: Arc<Pod>,
    event_type: &'static str,
}

/// An upstream watch somebody has open.
struct Stream {
    chunks: mpsc::Sender<Result<Bytes, UpstreamError>>,
    /// First write not sent yet.
    next: usize,
}

/// What goes wrong from now on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// WatchList is unknown.
    pub(crate) no_watch_list: bool,
    /// New requests fail.
    pub(crate) down: bool,
    /// Lists not older than something come from a lagging replica that does not keep its word.
    pub(crate) lagging: bool,
}

/// See the module text.
pub(crate) struct Apiserver {
    log: Vec<Write>,
    /// The state after each write.
    states: Vec<(u64, State)>,
    pub(crate) version: u64,
    /// Watches and pages at or above this are served.
    compacted: u64,
    streams: Vec<Stream>,
    pub(crate) faults: Faults,
    rng: fastrand::Rng,
}

impl Apiserver {
    pub(crate) fn new(rng: fastrand::Rng) -> Self {
        Self {
            log: Vec::new(),
            states: vec![(0, State::default())],
            version: 1,
            compacted: 0,
            streams: Vec::new(),
            faults: Faults::default(),
            rng,
        }
    }

    /// The state at a version.
    pub(crate) fn at(&self, version: u64) -> &State {
        let later = self
            .states
            .partition_point(|(written, _)| *written <= version);
        &self.states[later - 1].1
    }

    /// What a selection sees at a version.
    pub(crate) fn view(&self, version: u64, selects: impl Fn(&Pod) -> bool) -> View {
        let selected = self.at(version).iter().filter(|(_, pod)| selects(pod));
        selected
            .map(|(key, pod)| (key.clone(), pod.version))
            .collect()
    }

    /// Creates, changes or deletes some pod.
    pub(crate) fn write(&mut self) {
        self.version += self.rng.u64(1..4);
        let namespace = ["a", "a-b", "b"][self.rng.usize(..3)].to_owned();
        let name = format!("p{}", self.rng.u8(..6));
        let node = ["", "n1", "n2"][self.rng.usize(..3)].to_owned();
        let app = ["web", "db"][self.rng.usize(..2)].to_owned();
        let mut pod = Arc::new(Pod {
            namespace,
            name,
            node,
            app,
            version: self.version,
        });
        let mut state = self.at(self.version).clone();
        let event_type = match state.remove(&pod.key()) {
            None => "ADDED",
            Some(old) if self.rng.u8(..3) == 0 => {
                pod = old;
                "DELETED"
            }
            Some(_) => "MODIFIED",
        };
        if event_type != "DELETED" {
            state.insert(pod.key(), Arc::clone(&pod));
        }
        self.states.push((self.version, state));
        self.log.push(Write {
            version: self.version,
            pod,
            event_type,
        });
    }

    /// Something else was written.
    pub(crate) fn write_elsewhere(&mut self) {
        self.version += self.rng.u64(1..20);
    }

    /// Forgets history up to now, nearly.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.version.saturating_sub(self.rng.u64(..6));
    }

    /// Breaks or ends every stream, some in the middle of a frame.
    pub(crate) fn cut(&mut self) {
        for stream in self.streams.drain(..) {
            let _ = match self.rng.u8(..4) {
                0 => Ok(()),
                1 => stream
                    .chunks
                    .try_send(Err(UpstreamError::Transport("reset".into()))),
                2 => stream
                    .chunks
                    .try_send(Ok(Bytes::from_static(b"{\"type\":\"ADD"))),
                _ => stream
                    .chunks
                    .try_send(Ok(Bytes::from_static(b"{\"what\":0}\n"))),
            };
        }
    }

    /// Sends some of what the streams have not had yet; all of it and a bookmark when `all`.
    pub(crate) fn pump(&mut self, all: bool) {
        let Self {
            log,
            streams,
            rng,
            version,
            ..
        } = self;
        streams.retain_mut(|stream| {
            let left = log.len() - stream.next;
            let count = if all { left } else { rng.usize(..=left.min(3)) };
            let mut text = String::new();
            for write in &log[stream.next..stream.next + count] {
                frame(
                    &mut text,
                    write.event_type,
                    &write.pod.json(write.version, HEAD),
                );
            }
            stream.next += count;
            if stream.next == log.len() && (all || rng.bool()) {
                frame(&mut text, "BOOKMARK", &bookmark(*version, ""));
            }
            send(&stream.chunks, rng, &text)
        });
    }

    fn list(&mut self, request: &ListRequest) -> Result<Bytes, UpstreamError> {
        if self.faults.down {
            return Err(UpstreamError::Transport("refused".into()));
        }
        let (version, from) = match (&request.continue_token, request.not_older_than) {
            (Some(token), _) => {
                let (version, from) = token.split_once('.').expect("a token of ours");
                (
                    version.parse().expect("a token of ours"),
                    from.replace('_', "/"),
                )
            }
            (None, Some(_)) if self.faults.lagging => (self.compacted, String::new()),
            (None, Some(least)) => (
                self.rng.u64(least.get()..=self.version.max(least.get())),
                String::new(),
            ),
            (None, None) => (self.version, String::new()),
        };
        if request.continue_token.is_some() && version < self.compacted {
            return Err(expired());
        }
        let state = self.at(version);
        let mut rest = state.range(from..);
        let page: Vec<_> = rest
            .by_ref()
            .take(request.limit.unwrap_or(usize::MAX))
            .collect();
        let items: Vec<_> = page
            .iter()
            .map(|(_, pod)| pod.json(pod.version, ""))
            .collect();
        let next = rest
            .next()
            .map(|(key, _)| format!(",\"continue\":\"{version}.{}\"", key.replace('/', "_")));
        Ok(Bytes::from(format!(
            "{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"{version}\"{}}},\"items\":[{}]}}",
            next.unwrap_or_default(),
            items.join(",")
        )))
    }

    fn watch(&mut self, request: &WatchRequest) -> Result<Body, UpstreamError> {
        if self.faults.down {
            return Err(UpstreamError::Transport("refused".into()));
        }
        let (chunks, body) = mpsc::channel(4096);
        let mut text = String::new();
        let from = if request.send_initial_events {
            if self.faults.no_watch_list {
                let (reason, message) = ("Invalid".into(), String::new());
                return Err(UpstreamError::Status {
                    code: 422,
                    reason,
                    message,
                    retry_after: None,
                });
            }
            for pod in self.at(self.version).values() {
                frame(&mut text, "ADDED", &pod.json(pod.version, HEAD));
            }
            let end = r#","annotations":{"k8s.io/initial-events-end":"true"}"#;
            frame(&mut text, "BOOKMARK", &bookmark(self.version, end));
            self.version
        } else {
            let from = request
                .resource_version
                .expect("a watch starts somewhere")
                .get();
            if from < self.compacted && self.rng.bool() {
                return Err(expired());
            }
            if from < self.compacted {
                frame(
                    &mut text,
                    "ERROR",
                    r#"{"kind":"Status","code":410,"reason":"Expired"}"#,
                );
                send(&chunks, &mut self.rng, &text);
                return Ok(ReceiverStream::new(body));
            }
            from
        };
        send(&chunks, &mut self.rng, &text);
        let next = self.log.partition_point(|write| write.version <= from);
        self.streams.push(Stream { chunks, next });
        Ok(ReceiverStream::new(body))
    }
}

fn frame(text: &mut String, event_type: &str, object: &str) {
    writeln!(text, "{{\"type\":\"{event_type}\",\"object\":{object}}}").expect("memory is enough");
}

fn bookmark(version: u64, more: &str) -> String {
    format!(
        r#"{{{HEAD}"metadata":{{"resourceVersion":"{version}"{more}}},"spec":{{"containers":null}},"status":{{}}}}"#
    )
}

/// Sends text in chunks cut anywhere. False when nobody reads.
fn send(
    chunks: &mpsc::Sender<Result<Bytes, UpstreamError>>,
    rng: &mut fastrand::Rng,
    text: &str,
) -> bool {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rng.usize(1..=rest.len()));
        if chunks.try_send(Ok(Bytes::copy_from_slice(chunk))).is_err() {
            return false;
        }
        rest = after;
    }
    !chunks.is_closed()
}

fn expired() -> UpstreamError {
    let (reason, message) = ("Expired".into(), "too old".into());
    UpstreamError::Status {
        code: 410,
        reason,
        message,
        retry_after: None,
    }
}

/// The model as a reflector sees it.
#[derive(Clone)]
pub(crate) struct Upstream(pub(crate) Arc<Mutex<Apiserver>>);

impl ListerWatcher for Upstream {
    type Body = Body;

    async fn list(&self, request: ListRequest) -> Result<Bytes, UpstreamError> {
        tokio::task::yield_now().await;
        self.0.lock().list(&request)
    }

    async fn watch(&self, request: WatchRequest) -> Result<Body, UpstreamError> {
        tokio::task::yield_now().await;
        self.0.lock().watch(&request)
    }
}
