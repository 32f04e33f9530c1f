//! Pods that are not stored but told: a list of many, and a stream of updates as fast as it is read.
//!
//! Owns a script in the place of the collection of pods, for measuring what takes events in: no
//! store could write them as fast. Update `k` is about pod `k × stride mod pods`, so that updates
//! are scattered and the version of every pod after `k` updates is known without keeping any.
//! Updates come when they are released through `/debug/torrent?events=N`. Refuses everything but
//! lists and watches of all pods in JSON. Invariant: what is told agrees with [`Torrent::version`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::body::{Body, Response};
use super::request::Query;
use super::server::Exchange;

/// The version of every pod before the first update; all versions have ten digits.
pub const FIRST_VERSION: u64 = 1_000_000_000;

/// Bytes after which a piece of a stream is handed on.
const PIECE: usize = 48 << 10;

/// A capital stands for each digit that differs between pods and updates.
const POD: &str = concat!(
    r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"app-NNNNNN","generateName":"app-","#,
    r#""namespace":"team-TT","uid":"6d7a1c0e-6f0b-4e5a-9c1e-000000NNNNNN","#,
    r#""resourceVersion":"VVVVVVVVVV","creationTimestamp":"2026-01-01T00:00:00Z","#,
    r#""labels":{"app":"app","pod-template-hash":"5d9c7bd8f4","tier":"web"},"#,
    r#""annotations":{"counter":"VVVVVVVVVV","note":""#,
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    r#""}},"spec":{"containers":[{"name":"main","#,
    r#""image":"registry.example/app:1.2.3","resources":{"requests":{"cpu":"100m","memory":"128Mi"}},"#,
    r#""imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","#,
    r#""serviceAccountName":"default","nodeName":"node-HHHHH","schedulerName":"default-scheduler"},"#,
    r#""status":{"phase":"Running","conditions":[{"type":"Ready","status":"True","#,
    r#""lastProbeTime":null,"lastTransitionTime":"2026-01-01T00:00:05Z"}],"hostIP":"10.0.0.1","#,
    r#""podIP":"10.1.2.3","podIPs":[{"ip":"10.1.2.3"}],"startTime":"2026-01-01T00:00:00Z","#,
    r#""qosClass":"Burstable"}}"#
);

/// See the module text.
#[derive(Debug)]
pub struct Torrent {
    pods: u64,
    stride: u64,
    /// By pod, the number of its first update.
    first: Vec<u64>,
    released: watch::Sender<u64>,
    sent: AtomicU64,
    template: Template,
}

#[derive(Debug)]
struct Template {
    text: Vec<u8>,
    /// Where digits go, and which.
    digits: Vec<(std::ops::Range<usize>, u8)>,
}

impl Torrent {
    /// A script about so many pods; no update is released.
    ///
    /// # Panics
    /// Without a pod, or with a million and more.
    #[must_use]
    pub fn new(pods: u64) -> Self {
        assert!((1..1_000_000).contains(&pods), "names have six digits");
        let coprime = |stride: &u64| gcd(*stride, pods) == 1;
        let stride = (61_803..).find(coprime).expect("the next prime is one");
        let mut first = vec![0; pods as usize];
        for number in 1..=pods {
            first[(number * stride % pods) as usize] = number;
        }
        Self {
            pods,
            stride,
            first,
            released: watch::Sender::new(0),
            sent: AtomicU64::new(0),
            template: Template::new(POD),
        }
    }

    /// The version of a pod after so many updates.
    #[must_use]
    pub fn version(&self, pod: u64, updates: u64) -> u64 {
        let first = self.first[pod as usize];
        match updates.checked_sub(first) {
            None => FIRST_VERSION,
            Some(since) => FIRST_VERSION + first + since / self.pods * self.pods,
        }
    }

    /// Bytes of JSON of all pods, each as it is sent alone.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pods * self.template.text.len() as u64
    }

    /// Releases more updates, or with `stop` none beyond those sent, and tells how far it is: `{"pods":…,"released":…,"sent":…}`.
    pub(super) fn control(&self, query: &Query) -> Response {
        let events = query.first("events").and_then(|text| text.parse().ok());
        if query.first("stop").is_some() {
            let sent = self.sent.load(Ordering::SeqCst);
            self.released.send_modify(|released| *released = sent);
        }
        self.released
            .send_modify(|released| *released += events.unwrap_or(0));
        let (released, sent) = (*self.released.borrow(), self.sent.load(Ordering::SeqCst));
        let pods = self.pods;
        json(format!("{{\"pods\":{pods},\"released\":{released},\"sent\":{sent}}}").into())
    }

    /// Answers a list or a watch of all pods.
    pub(super) fn serve(self: &Arc<Self>, exchange: &Exchange) -> Response {
        let accept = exchange.headers.get("accept").map(HeaderValue::as_bytes);
        if !accept.is_none_or(|accept| accept.starts_with(b"application/json")) {
            let mut refused = Response::new(Body::Empty);
            *refused.status_mut() = StatusCode::NOT_ACCEPTABLE;
            return refused;
        }
        let query = &exchange.query;
        let number = |name| query.first(name).and_then(|text| text.parse::<u64>().ok());
        if !query
            .first("watch")
            .is_some_and(|it| it == "true" || it == "1")
        {
            return json(self.list(number("limit").filter(|limit| *limit > 0)));
        }
        let begins = query.first("sendInitialEvents") == Some("true");
        let seconds = number("timeoutSeconds").unwrap_or(300);
        let now = *self.released.borrow();
        let from = number("resourceVersion").and_then(|version| version.checked_sub(FIRST_VERSION));
        let told = Told {
            torrent: Arc::clone(self),
            initial: if begins { 0..self.pods } else { 0..0 },
            announces: begins,
            next: if begins {
                now + 1
            } else {
                from.unwrap_or(now) + 1
            },
            released: self.released.subscribe(),
            deadline: Instant::now() + Duration::from_secs(seconds),
            has_ended: false,
        };
        let mut response = Response::new(Body::stream(told.pieces()));
        content(&mut response);
        response
    }

    fn list(&self, limit: Option<u64>) -> Bytes {
        let updates = self.sent.load(Ordering::SeqCst);
        let count = limit.unwrap_or(self.pods).min(self.pods);
        let left = self.pods - count;
        let rest = if left > 0 {
            format!(",\"continue\":\"more\",\"remainingItemCount\":{left}")
        } else {
            String::new()
        };
        let version = FIRST_VERSION + updates;
        let mut body = BytesMut::from(
            format!(
                "{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\
                 \"{version}\"{rest}}},\"items\":["
            )
            .as_bytes(),
        );
        for pod in 0..count {
            if pod > 0 {
                body.extend_from_slice(b",");
            }
            self.template
                .append(pod, self.version(pod, updates), &mut body);
        }
        body.extend_from_slice(b"]}\n");
        body.freeze()
    }

    fn append_event(&self, word: &str, (pod, version): (u64, u64), out: &mut BytesMut) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        self.template.append(pod, version, out);
        out.extend_from_slice(b"}\n");
    }
}

/// One watch.
struct Told {
    torrent: Arc<Torrent>,
    initial: std::ops::Range<u64>,
    /// Whether the end of the initial events is still to be announced.
    announces: bool,
    /// Number of the next update.
    next: u64,
    released: watch::Receiver<u64>,
    deadline: Instant,
    has_ended: bool,
}

impl Told {
    fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::unfold(self, |mut told| async move {
            let piece = told.piece().await?;
            Some((Ok(piece), told))
        })
    }

    async fn piece(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::with_capacity(PIECE + 2 * POD.len());
        let torrent = Arc::clone(&self.torrent);
        let start = self.next - 1;
        while piece.len() < PIECE
            && let Some(pod) = self.initial.next()
        {
            torrent.append_event("ADDED", (pod, torrent.version(pod, start)), &mut piece);
        }
        if piece.is_empty() && std::mem::take(&mut self.announces) {
            let mark = r#""annotations":{"k8s.io/initial-events-end":"true"},"#;
            return Some(bookmark(FIRST_VERSION + start, mark));
        }
        if !piece.is_empty() {
            return Some(piece.freeze());
        }
        let mut released = *self.released.borrow_and_update();
        while released < self.next {
            if self.has_ended {
                return None;
            }
            match timeout_at(self.deadline, self.released.changed()).await {
                Ok(Ok(())) => released = *self.released.borrow_and_update(),
                Ok(Err(_)) | Err(_) => {
                    self.has_ended = true;
                    return Some(bookmark(FIRST_VERSION + self.next - 1, ""));
                }
            }
        }
        while self.next <= released && piece.len() < PIECE {
            let pod = self.next * torrent.stride % torrent.pods;
            torrent.append_event("MODIFIED", (pod, FIRST_VERSION + self.next), &mut piece);
            self.next += 1;
        }
        torrent.sent.fetch_max(self.next - 1, Ordering::SeqCst);
        Some(piece.freeze())
    }
}

impl Template {
    fn new(text: &str) -> Self {
        let text = text.as_bytes().to_vec();
        let mut digits = Vec::new();
        for (mark, width) in [(b'N', 6), (b'T', 2), (b'V', 10), (b'H', 5)] {
            let run = vec![mark; width];
            let places = text.windows(width).enumerate();
            let places = places.filter(|(_, window)| *window == run);
            digits.extend(places.map(|(at, _)| (at..at + width, mark)));
        }
        Self { text, digits }
    }

    fn append(&self, pod: u64, version: u64, out: &mut BytesMut) {
        let start = out.len();
        out.extend_from_slice(&self.text);
        let object = &mut out[start..];
        for (place, mark) in &self.digits {
            let mut number = match mark {
                b'N' => pod,
                b'T' => pod % 20,
                b'V' => version,
                _ => pod % 1_000,
            };
            for digit in object[place.clone()].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
    }
}

fn bookmark(version: u64, annotations: &str) -> Bytes {
    format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{{\
         \"resourceVersion\":\"{version}\",{annotations}\"creationTimestamp\":null}},\
         \"spec\":{{\"containers\":null}},\"status\":{{}}}}}}\n"
    )
    .into()
}

fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::Full(body));
    content(&mut response);
    response
}

fn content(response: &mut Response) {
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_updates_that_were_told() {
        let torrent = Torrent::new(100);
        let mut versions = vec![FIRST_VERSION; 100];
        for update in 1..=350 {
            versions[(update * torrent.stride % 100) as usize] = FIRST_VERSION + update;
            for pod in 0..100 {
                assert_eq!(torrent.version(pod, update), versions[pod as usize]);
            }
        }
        let list: serde_json::Value = serde_json::from_slice(&torrent.list(None)).unwrap();
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 100);
        assert_eq!(items[7]["metadata"]["name"], "app-000007");
        assert_eq!(items[7]["metadata"]["resourceVersion"], "1000000000");
        assert_eq!(items[7]["spec"]["nodeName"], "node-00007");
    }
}
