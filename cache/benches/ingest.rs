//! An event's whole way in: a chunk of the upstream body to a published state, through a reflector.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use watershed_cache::encoding::{Encoding, ListMeta, append_list_item, list_head, list_tail};
use watershed_cache::{
    ListRequest, ListerWatcher, Reflector, ReflectorOptions, ResourceVersion, UpstreamError,
    WatchCache, WatchRequest,
};

use crate::case::{Case, Steps};
use crate::subject;

const OBJECTS: usize = 100_000;

/// Events per run.
const EVENTS: usize = 256;

/// Bytes of a chunk: an HTTP/2 frame of the usual size.
const CHUNK: usize = 16 << 10;

pub(crate) fn cases() -> Vec<Case> {
    let case = Case::new("ingest/json event among 100000", steps);
    vec![case.of(EVENTS as u64).runs(20)]
}

fn steps() -> Steps {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let upstream = Upstream::default();
    let (writer, cache) = subject::empty_cache();
    let mut reflector: Pin<Box<dyn Future<Output = ()>>> = Box::pin(Reflector::run(
        writer,
        upstream.clone(),
        ReflectorOptions::default(),
        std::future::pending(),
    ));
    until(&runtime, &mut reflector, &cache, 1);
    let (mut made, mut reached) = (1, 1);
    Steps::chunks(
        move || {
            made += EVENTS as u64;
            chunks(made)
        },
        move |chunks| {
            upstream.send(chunks);
            reached += EVENTS as u64;
            until(&runtime, &mut reflector, &cache, reached);
        },
    )
}

/// Updates up to `version`.
fn chunks(version: u64) -> Vec<Bytes> {
    let frames: Vec<u8> = (version - EVENTS as u64 + 1..=version)
        .flat_map(|version| subject::frame(subject::scattered(version, OBJECTS), version))
        .collect();
    let frames = Bytes::from(frames);
    let cuts = (0..frames.len()).step_by(CHUNK);
    cuts.map(|at| frames.slice(at..frames.len().min(at + CHUNK)))
        .collect()
}

/// Runs the reflector until the cache has reached `version`.
fn until(
    runtime: &Runtime,
    reflector: &mut Pin<Box<dyn Future<Output = ()>>>,
    cache: &WatchCache,
    version: u64,
) {
    runtime.block_on(std::future::poll_fn(|context| {
        assert!(reflector.as_mut().poll(context).is_pending(), "never ends");
        if cache.resource_version() >= ResourceVersion::new(version) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
}

/// Answers with [`OBJECTS`] pods, then with what is sent.
#[derive(Clone, Default)]
struct Upstream(Arc<Mutex<Body>>);

#[derive(Default)]
struct Body {
    chunks: VecDeque<Bytes>,
    reader: Option<Waker>,
}

impl Upstream {
    fn send(&self, chunks: Vec<Bytes>) {
        let mut body = self.0.lock();
        body.chunks.extend(chunks);
        if let Some(reader) = body.reader.take() {
            reader.wake();
        }
    }
}

impl ListerWatcher for Upstream {
    type Body = Self;

    async fn list(&self, _request: ListRequest) -> Result<Bytes, UpstreamError> {
        let meta = ListMeta {
            resource_version: ResourceVersion::new(1),
            continue_token: None,
            remaining: None,
        };
        let head = list_head(Encoding::Json, &subject::PODS, &meta, 0);
        let mut body = bytes::BytesMut::from(&head[..]);
        for name in 0..OBJECTS {
            append_list_item(&subject::pod(name, 1), name == 0, &mut body);
        }
        body.extend_from_slice(&list_tail(Encoding::Json, &subject::PODS, &meta));
        Ok(body.freeze())
    }

    async fn watch(&self, request: WatchRequest) -> Result<Self, UpstreamError> {
        if request.send_initial_events {
            return Err(UpstreamError::Status {
                code: 422,
                reason: "Invalid".into(),
                message: "sendInitialEvents is unknown".into(),
                retry_after: None,
            });
        }
        Ok(self.clone())
    }
}

impl Stream for Upstream {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = self.0.lock();
        match body.chunks.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(chunk))),
            None => {
                body.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
