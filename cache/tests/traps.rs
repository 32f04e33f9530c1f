//! What has killed or hurt other caches of watches, each as the law that would have saved them.
//!
//! | incident | law | where |
//! |---|---|---|
//! | kine#731: progress was sent ahead of queued events, and caches missed them for good | no bookmark ahead of an event | `src/watcher/tests/bookmarks.rs`: `a_bookmark_follows_every_event_up_to_it`; `tests/sim` |
//! | the same, upstream of here | an event behind a bookmark leads to a new state | `src/reflector/tests/sync.rs`: `an_event_behind_what_was_vouched_for_leads_to_a_new_state` |
//! | etcd#19710: a proxy kept progress to itself, so nothing behind it could be read consistently | progress goes through | here |
//! | etcd#14478: a cached range without an end of life | nothing cached answers a consistent read by itself | `src/reflector/tests/consistent.rs`: `a_stalled_upstream_never_yields_a_proof` |
//! | etcd#9988: watches that joined others missed events | who joins has no gap and no double | `src/watcher/tests/wakeups.rs`: `watches_opened_while_another_thread_writes_have_no_gap_and_no_double`; `tests/sim` |
//! | selectors judged by the new object only | old and new are judged each by itself, replays included | `tests/sim` |
//! | kubernetes#142062: decoded objects cost 5.2 times their bytes | an object costs its bytes and little more | here |
//! | k8s-1m: collecting a long history paused everything | history goes a little at a time | `src/window.rs`: `no_push_frees_a_history_that_grew_old_all_at_once` |
//! | events of one version, the stream cut between them | a version is resumed from below until it is complete | `src/reflector/tests/sync.rs`: `a_cut_between_deletions_of_one_version_loses_none` |
//! | felix#1537: a connection into a black hole looked alive | a silent stream is a dead one | `src/reflector/tests/sync.rs`: `silence_beyond_the_bound_is_a_dead_stream` |
//! | calico#5173: a replica that lagged took effect as if it were new | an older state is discarded | `src/reflector/tests/sync.rs`: `an_older_list_is_discarded_however_often_it_comes`; `tests/sim` |
//! | openyurt#2593: panics on answers that made no sense | damaged bytes are never a panic | `src/encoding/tests.rs`: `damaged_bytes_are_never_a_panic` |
//!
//! Those that take sockets stand in the proxy's `tests/wire/traps.rs`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use watershed_cache::encoding::{
    Encoding, ListMeta, append_list_item, list_head, list_item_len, list_tail,
};
use watershed_cache::selector::{BoundFieldSelector, LabelSelector};
use watershed_cache::{
    CacheError, FieldSet, ListRequest, ListerWatcher, Object, Options, Reflector, ReflectorOptions,
    Resource, ResourceVersion, Selection, Snapshot, UpstreamError, WatchCache, WatchRequest,
    WatchStart,
};

type Chunks = mpsc::Sender<Result<Bytes, UpstreamError>>;
type Body = Pin<Box<dyn Stream<Item = Result<Bytes, UpstreamError>> + Send>>;

const PATIENCE: Duration = Duration::from_secs(3);

fn pods() -> Arc<Resource> {
    Arc::new(Resource::pods())
}

fn everything() -> Selection {
    Selection {
        namespace: None,
        name: None,
        labels: LabelSelector::default(),
        fields: BoundFieldSelector::default(),
    }
}

/// An apiserver with many pods, at a version that only bookmarks tell.
#[derive(Clone, Default)]
struct Origin(Arc<Mutex<(u64, Vec<Chunks>)>>);

const PODS: usize = 100;

fn pod(number: usize, head: &str) -> String {
    format!(
        r#"{{{head}"metadata":{{"name":"p{number:03}","namespace":"a","resourceVersion":"5"}},"spec":{{}},"status":{{}}}}"#
    )
}

impl Origin {
    fn bookmark(&self, end: bool) -> Bytes {
        let version = self.0.lock().0;
        let end = if end {
            r#","annotations":{"k8s.io/initial-events-end":"true"}"#
        } else {
            ""
        };
        format!(
            r#"{{"type":"BOOKMARK","object":{{"kind":"Pod","apiVersion":"v1","metadata":{{"resourceVersion":"{version}"{end}}}}}}}"#
        )
        .into()
    }

    /// Something else was written; whoever watches is told so or not.
    fn progress(&self, version: u64, is_told: bool) {
        self.0.lock().0 = version;
        let bookmark = self.bookmark(false);
        if is_told {
            let streams = &self.0.lock().1;
            streams
                .iter()
                .for_each(|it| drop(it.try_send(Ok(bookmark.clone()))));
        }
    }
}

impl ListerWatcher for Origin {
    type Body = ReceiverStream<Result<Bytes, UpstreamError>>;

    async fn list(&self, request: ListRequest) -> Result<Bytes, UpstreamError> {
        let version = self.0.lock().0;
        assert_eq!(
            request.limit,
            Some(1),
            "a large collection is probed by one object"
        );
        let item = pod(0, "");
        Ok(Bytes::from(format!(
            r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"{version}","continue":"x"}},"items":[{item}]}}"#
        )))
    }

    async fn watch(&self, request: WatchRequest) -> Result<Self::Body, UpstreamError> {
        let (chunks, body) = mpsc::channel(2 * PODS);
        if request.send_initial_events {
            for number in 0..PODS {
                let object = pod(number, r#""kind":"Pod","apiVersion":"v1","#);
                let frame = format!(r#"{{"type":"ADDED","object":{object}}}"#);
                chunks.try_send(Ok(frame.into())).expect("there is room");
            }
            chunks
                .try_send(Ok(self.bookmark(true)))
                .expect("there is room");
        } else if request.timeout < Duration::from_secs(10) {
            chunks
                .try_send(Ok(self.bookmark(false)))
                .expect("there is room");
        }
        self.0.lock().1.push(chunks);
        Ok(ReceiverStream::new(body))
    }
}

/// A cache as the upstream of another, as one proxy is of the next.
struct Tier(WatchCache);

impl Tier {
    async fn state(&self, least: Option<ResourceVersion>) -> Result<Snapshot, UpstreamError> {
        let state = match least {
            None => self.0.consistent(PATIENCE).await,
            Some(least) => match self.0.wait_until_fresh(least, PATIENCE).await {
                Ok(()) => self.0.snapshot(),
                Err(error) => Err(error),
            },
        };
        state.map_err(|error: CacheError| UpstreamError::Transport(error.to_string()))
    }
}

impl ListerWatcher for Tier {
    type Body = Body;

    async fn list(&self, request: ListRequest) -> Result<Bytes, UpstreamError> {
        let state = self.state(request.not_older_than).await?;
        let (encoding, resource) = (self.0.encoding(), self.0.resource());
        let selection = everything();
        let limit = request.limit.unwrap_or(usize::MAX);
        let objects: Vec<_> = state.iter(&selection).take(limit).collect();
        let meta = ListMeta {
            resource_version: state.resource_version(),
            continue_token: (objects.len() < state.len()).then_some("x"),
            remaining: None,
        };
        let items = objects.iter().map(|object| list_item_len(object)).sum();
        let mut body = BytesMut::from(&list_head(encoding, resource, &meta, items)[..]);
        for (place, object) in objects.iter().enumerate() {
            append_list_item(object, place == 0, &mut body);
        }
        body.extend_from_slice(&list_tail(encoding, resource, &meta));
        Ok(body.freeze())
    }

    async fn watch(&self, request: WatchRequest) -> Result<Body, UpstreamError> {
        let start = match request.resource_version {
            Some(version) if !request.send_initial_events => WatchStart::After(version),
            least => WatchStart::Initial {
                snapshot: self.state(least).await?,
                end_bookmark: true,
            },
        };
        let deadline = Instant::now() + request.timeout;
        let watcher = self.0.watch(everything(), start, true, deadline);
        let watcher = watcher.map_err(|error| UpstreamError::Transport(error.to_string()))?;
        Ok(Box::pin(watcher.map(Ok)))
    }
}

fn cache<L: ListerWatcher + 'static>(upstream: L) -> WatchCache {
    let (writer, cache) = WatchCache::new(pods(), Encoding::Json, Options::default());
    let options = ReflectorOptions {
        seed: Some(1),
        ..ReflectorOptions::default()
    };
    tokio::spawn(Reflector::run(
        writer,
        upstream,
        options,
        std::future::pending(),
    ));
    cache
}

/// etcd#19710: the grpc-proxy coalesced watches and kept their progress notifications to itself, so
/// that neither a consistent read nor a WatchList ever came to an end behind it.
#[tokio::test(start_paused = true)]
async fn progress_of_a_quiet_resource_goes_through_every_tier() {
    let origin = Origin::default();
    origin.progress(10, false);
    let first = cache(origin.clone());
    let second = cache(Tier(first.clone()));
    let third = cache(Tier(second.clone()));
    third.ready().await;
    let start = WatchStart::Initial {
        snapshot: third.snapshot().unwrap(),
        end_bookmark: false,
    };
    let deadline = Instant::now() + Duration::from_secs(3600);
    let mut watcher = third.watch(everything(), start, true, deadline).unwrap();
    let initial = watcher.next().await.unwrap();
    assert_eq!(initial.split(|&byte| byte == b'\n').count(), PODS + 1);

    // Somebody asks: each tier proves itself by the one before it.
    origin.progress(500, false);
    let patience = Duration::from_secs(10);
    let proven = third.consistent(patience).await.unwrap();
    assert_eq!((proven.resource_version().get(), proven.len()), (500, PODS));

    // Nobody asks: bookmarks come by themselves, one after the other.
    origin.progress(900, true);
    loop {
        let bookmark = watcher.next().await.expect("it lasts an hour");
        let bookmark = String::from_utf8_lossy(&bookmark);
        assert!(bookmark.contains("BOOKMARK"), "{bookmark}");
        if bookmark.contains("\"900\"") {
            break;
        }
    }
    assert_eq!(third.resource_version().get(), 900);
}

/// kubernetes#142062: a cache of decoded objects took 5.2 times their encoded size. A ratio of byte
/// counts, over objects a real apiserver sent.
#[test]
fn an_object_costs_its_bytes_and_a_small_index() {
    let recorded: Vec<Value> =
        serde_json::from_str(include_str!("data/objects.json")).expect("recordings are JSON");
    let (mut sent, mut held) = (0, 0);
    for recording in recorded.iter().filter(|it| it["list"] != true) {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let Some(bytes) = bytes(recording, encoding) else {
                continue;
            };
            let object = Object::decode(encoding, &resource(recording), &bytes);
            let object = object.expect("it was recorded");
            let rounded_up = bytes.len() + bytes.len() / 4; // as the allocator does, at worst
            let most = rounded_up + INDEX + 16 * object.labels().len();
            let memory = object.memory();
            assert!(memory >= bytes.len(), "what is held is counted");
            assert!(memory <= most, "{}: {memory} of {most}", object.key());
            sent += bytes.len();
            held += memory;
        }
    }
    assert!(sent > 40_000, "there are recordings");
    assert!(held < 2 * sent, "{held} bytes for {sent}");
}

/// What an object may take besides its bytes and labels: itself, its key, and where uid and fields
/// stand.
const INDEX: usize = 250;

fn resource(recording: &Value) -> Resource {
    let text = |field: &str| recording[field].as_str().expect("a text");
    let [group, version, resource] = ["group", "version", "resource"].map(text);
    let fields = FieldSet::builtin(group, version, resource);
    Resource {
        group: group.into(),
        version: version.into(),
        resource: resource.into(),
        kind: text("kind").into(),
        namespaced: true,
        custom: group.ends_with("example.com"),
        fields: fields.unwrap_or_else(FieldSet::unknown),
    }
}

/// The body of a recording; protobuf is kept in hexadecimal.
fn bytes(recording: &Value, encoding: Encoding) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Json => {
            let text = recording["json"].as_str()?;
            Some(text.trim_end().as_bytes().to_vec())
        }
        Encoding::Protobuf => {
            let digits = recording["protobuf"].as_str()?.as_bytes().chunks(2);
            let text = |pair| std::str::from_utf8(pair).expect("digits");
            let byte = |pair| u8::from_str_radix(text(pair), 16).expect("digits");
            Some(digits.map(byte).collect())
        }
    }
}
