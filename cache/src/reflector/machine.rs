//! The list-and-watch state machine: as client-go `reflector.go`, 1.36, without its way back in
//! versions.
//!
//! ```text
//!                ┌──────── 410 ─────────┬──────── 410 ─────────┐
//!                ▼                      │                      │
//!   start ──► WatchList ─replaced─► Streaming ─ended, cut──► Watch
//!                │                      ▲                    │ ▲
//!                │                      └───────opened───────┘ │
//!                └─unknown, ended early─► List ────replaced────┘
//!
//!   any failure ──► Backoff ──► on
//! ```

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::encoding::{EventType, ListPage, WatchEvent, decode_list};
use crate::error::OverBudget;
use crate::resource_version::ResourceVersion;
use crate::store::Store;

use super::delays::Delays;
use super::stream::{BATCH, EventStream, StreamEnd};
use super::{ListRequest, ListerWatcher, ReflectorStatus, Upstream, UpstreamError, WatchRequest};

/// Where the reflector stands. A step takes the state and returns the next.
#[derive(Debug)]
enum State<B> {
    /// Wants a whole new state as one stream of initial events, not older than the own version.
    /// Leaves to Streaming with the end bookmark, to List if the server cannot, to Backoff if it fails.
    WatchList,
    /// Wants a whole new state as a list; in one piece after a page expired under it.
    /// Leaves to Watch when it is complete, to Backoff on failure.
    List { paged: bool },
    /// Has a state and no stream; history and watchers stay as they are.
    /// Leaves to Streaming, to WatchList when the own version expired, to Backoff on failure.
    Watch,
    /// Applies what the stream brings.
    /// Leaves to Watch when it ends or breaks, to WatchList on 410, to Backoff on nonsense.
    Streaming(EventStream<B>),
    /// Sits out a delay.
    /// Leaves to the state inside.
    Backoff { delay: Duration, then: Box<Self> },
}

/// Drives the states.
pub(super) struct Machine<'a, L> {
    upstream: &'a Upstream<'a, L>,
    rng: fastrand::Rng,
    delays: Delays,
}

/// What a step leads to; the objects outgrowing their budget ends the machine.
type Step<L> = Result<State<<L as ListerWatcher>::Body>, OverBudget>;

impl<'a, L: ListerWatcher> Machine<'a, L> {
    pub(super) fn new(upstream: &'a Upstream<'a, L>) -> Self {
        let mut rng = upstream
            .options
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            upstream,
            delays: Delays::new(rng.fork()),
            rng,
        }
    }

    pub(super) async fn run(mut self) -> Result<Infallible, OverBudget> {
        let mut state = State::WatchList;
        loop {
            state = match state {
                State::WatchList => self.watch_list().await?,
                State::List { paged } => self.list(paged).await?,
                State::Watch => self.watch().await,
                State::Streaming(stream) => self.stream(stream).await?,
                State::Backoff { delay, then } => {
                    tokio::time::sleep(delay).await;
                    *then
                }
            }
        }
    }

    async fn watch_list(&mut self) -> Step<L> {
        let request = WatchRequest {
            resource_version: self.lowest(),
            send_initial_events: true,
            timeout: self.watch_timeout(),
        };
        let opened = self.upstream.open(request).await;
        let refused = opened
            .as_ref()
            .err()
            .is_some_and(UpstreamError::is_unknown_option);
        let knowledge = &self.upstream.shared.no_initial_events;
        knowledge.store(refused, Ordering::Relaxed);
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => return Ok(self.sync_failed(&error)),
        };
        let mut store = self.upstream.writer.lock().collect();
        loop {
            match stream.next().await {
                Ok(WatchEvent::Object {
                    event_type: EventType::Deleted,
                    object,
                }) => {
                    store.remove(object.key());
                }
                Ok(WatchEvent::Object { object, .. }) => {
                    self.upstream
                        .writer
                        .lock()
                        .collect_into(&mut store, object)?;
                }
                Ok(WatchEvent::Bookmark {
                    initial_events_end: false,
                    ..
                }) => {}
                Ok(WatchEvent::Bookmark {
                    resource_version,
                    template,
                    ..
                }) => {
                    *self.upstream.shared.template.lock() = template; // before it is needed
                    let replaced = self.replace(resource_version, store);
                    if !replaced {
                        return Ok(self.went_back(resource_version));
                    }
                    return Ok(State::Streaming(stream));
                }
                Ok(WatchEvent::Error(status)) => return Ok(self.sync_failed(&status.into())),
                Err(StreamEnd::Clean) => {
                    return Ok(self.retry(
                        "the initial events never ended",
                        State::List { paged: true },
                    ));
                }
                Err(end) => return Ok(self.broke(end, State::WatchList)),
            }
        }
    }

    async fn list(&mut self, paged: bool) -> Step<L> {
        let limit = paged.then_some(self.upstream.options.page_size);
        let mut request = ListRequest {
            limit,
            not_older_than: self.lowest(),
            ..ListRequest::default()
        };
        let mut store = self.upstream.writer.lock().collect();
        let mut version = None;
        loop {
            let first = request.continue_token.is_none();
            let page = match self.upstream.page(request).await {
                Ok(page) => page,
                Err(error) if !first && error.is_expired() => {
                    return Ok(State::List { paged: false });
                }
                Err(error) => return Ok(self.failed(&error, State::WatchList)),
            };
            let version = *version.get_or_insert(page.resource_version);
            let endless = page.objects.is_empty() && page.continue_token.is_some();
            if endless || version != page.resource_version {
                self.upstream.shared.counters.malformed.bump();
                return Ok(self.retry("the pages of a list do not fit together", State::WatchList));
            }
            for object in page.objects {
                self.upstream
                    .writer
                    .lock()
                    .collect_into(&mut store, object)?;
            }
            if page.continue_token.is_none() {
                let replaced = self.replace(version, store);
                return Ok(if replaced {
                    State::Watch
                } else {
                    self.went_back(version)
                });
            }
            request = ListRequest {
                limit,
                continue_token: page.continue_token,
                ..ListRequest::default()
            };
        }
    }

    async fn watch(&mut self) -> State<L::Body> {
        let after = self.upstream.writer.lock().resumes_after();
        let request = WatchRequest {
            resource_version: Some(after),
            send_initial_events: false,
            timeout: self.watch_timeout(),
        };
        match self.upstream.open(request).await {
            Ok(stream) => {
                self.upstream.shared.set_status(ReflectorStatus::Live);
                State::Streaming(stream)
            }
            Err(error) => self.failed(&error, State::Watch),
        }
    }

    async fn stream(&mut self, mut stream: EventStream<L::Body>) -> Step<L> {
        let mut objects = Vec::with_capacity(BATCH);
        loop {
            if self.upstream.writer.lock().is_disordered() {
                let disorder = "an event came after it was vouched for".into();
                return Ok(self.broke(StreamEnd::Malformed(disorder), State::WatchList));
            }
            let came = stream.batch(&mut objects).await;
            let is_full = objects.len() == BATCH;
            if !objects.is_empty() {
                self.upstream.writer.lock().apply_all(objects.drain(..))?;
            }
            match came {
                Ok(None) if is_full => tokio::task::yield_now().await, // others share the thread
                Ok(None) => {}
                Ok(Some(WatchEvent::Object { .. })) => unreachable!("objects are in the batch"),
                Ok(Some(WatchEvent::Bookmark {
                    resource_version,
                    template,
                    ..
                })) => {
                    self.upstream
                        .writer
                        .lock()
                        .advance(resource_version, Some(template));
                }
                Ok(Some(WatchEvent::Error(status))) => {
                    return Ok(self.failed(&status.into(), State::Watch));
                }
                Err(StreamEnd::Malformed(what)) => {
                    return Ok(self.broke(StreamEnd::Malformed(what), State::Watch));
                }
                Err(end) if stream.was_futile() => return Ok(self.broke(end, State::Watch)),
                Err(StreamEnd::Clean) => return Ok(State::Watch),
                Err(StreamEnd::Cut(what)) => {
                    self.upstream.shared.counters.cuts.bump();
                    tracing::debug!(resource = %self.resource(), error = what, "watch was cut");
                    return Ok(State::Watch);
                }
            }
        }
    }

    /// Puts the new state in place, unless it is older than the own version.
    fn replace(&mut self, version: ResourceVersion, store: Store) -> bool {
        let mut writer = self.upstream.writer.lock();
        if version < writer.lowest() {
            return false;
        }
        writer.replace_store(version, store);
        drop(writer);
        tracing::info!(resource = %self.resource(), resource_version = %version, "listed");
        self.upstream.shared.set_status(ReflectorStatus::Live);
        true
    }

    /// A lagging apiserver: discard, ask again later.
    fn went_back(&mut self, version: ResourceVersion) -> State<L::Body> {
        let own = self.upstream.writer.lock().lowest();
        self.retry(
            &format!("a list at {version} is older than {own}"),
            State::WatchList,
        )
    }

    /// A WatchList did not come about. Servers that do not know it say 400 or 422; those that
    /// cannot do it say 500.
    fn sync_failed(&mut self, error: &UpstreamError) -> State<L::Body> {
        match error {
            error if error.is_unknown_option() => State::List { paged: true },
            UpstreamError::Status { code: 500, .. } => {
                self.failed(error, State::List { paged: true })
            }
            UpstreamError::Status { .. } | UpstreamError::Transport(_) => {
                self.failed(error, State::WatchList)
            }
        }
    }

    /// A request was refused or a stream ended with an error.
    fn failed(&mut self, error: &UpstreamError, then: State<L::Body>) -> State<L::Body> {
        let (code, retry_after) = match error {
            UpstreamError::Transport(_) => return self.retry(&error.to_string(), then),
            UpstreamError::Status {
                code, retry_after, ..
            } => (*code, *retry_after),
        };
        match code {
            _ if error.is_expired() => {
                tracing::info!(resource = %self.resource(), %error, "expired, listing anew");
                let delay = self.delays.after_expiry();
                State::Backoff {
                    delay,
                    then: Box::new(State::WatchList),
                }
            }
            401 => {
                self.upstream.shared.set_status(ReflectorStatus::Denied {
                    message: error.to_string(),
                });
                State::Backoff {
                    delay: self.delays.after_refusal(),
                    then: Box::new(then),
                }
            }
            403 => self.refused(ReflectorStatus::Denied {
                message: error.to_string(),
            }),
            404 => self.refused(ReflectorStatus::Gone),
            _ => {
                let delay = self.delays.after_failure(retry_after);
                self.wait(&error.to_string(), delay, then)
            }
        }
    }

    /// The resource is not ours to cache: let go of it, look again now and then.
    fn refused(&mut self, status: ReflectorStatus) -> State<L::Body> {
        tracing::warn!(resource = %self.resource(), ?status, "the apiserver refused");
        self.upstream.writer.lock().close();
        self.upstream.shared.set_status(status);
        State::Backoff {
            delay: self.delays.after_refusal(),
            then: Box::new(State::WatchList),
        }
    }

    /// A stream ended in a way that opening it again at once will not mend.
    fn broke(&mut self, end: StreamEnd, then: State<L::Body>) -> State<L::Body> {
        let counters = &self.upstream.shared.counters;
        match end {
            StreamEnd::Clean => self.retry("a watch ended as soon as it began", then),
            StreamEnd::Cut(what) => {
                counters.cuts.bump();
                self.retry(&what, then)
            }
            StreamEnd::Malformed(what) => {
                counters.malformed.bump();
                self.retry(&what, then)
            }
        }
    }

    fn retry(&mut self, error: &str, then: State<L::Body>) -> State<L::Body> {
        let delay = self.delays.after_failure(None);
        self.wait(error, delay, then)
    }

    fn wait(&mut self, error: &str, delay: Duration, then: State<L::Body>) -> State<L::Body> {
        tracing::info!(resource = %self.resource(), error, ?delay, "retrying");
        self.upstream.shared.set_status(ReflectorStatus::Retrying {
            last_error: error.into(),
        });
        State::Backoff {
            delay,
            then: Box::new(then),
        }
    }

    /// What a new state must not be older than, once there is something.
    fn lowest(&self) -> Option<ResourceVersion> {
        let lowest = self.upstream.writer.lock().lowest();
        (lowest > ResourceVersion::default()).then_some(lowest)
    }

    /// Staggered, so that the watches of a cluster do not all end together.
    fn watch_timeout(&mut self) -> Duration {
        let shortest = self.upstream.options.watch_timeout_min.as_secs();
        Duration::from_secs(self.rng.u64(shortest..=shortest * 2))
    }

    fn resource(&self) -> &str {
        &self.upstream.shared.resource.resource
    }
}

impl UpstreamError {
    /// How servers say that they do not know `sendInitialEvents`.
    fn is_unknown_option(&self) -> bool {
        matches!(
            self,
            Self::Status {
                code: 400 | 422,
                ..
            }
        )
    }

    /// Whether the version asked for is gone.
    pub(super) fn is_expired(&self) -> bool {
        match self {
            Self::Status { code, reason, .. } => *code == 410 || reason == "Expired",
            Self::Transport(_) => false,
        }
    }
}

impl<L: ListerWatcher> Upstream<'_, L> {
    /// Gets and decodes one page.
    pub(super) async fn page(&self, request: ListRequest) -> Result<ListPage, UpstreamError> {
        let listing = self.lister_watcher.list(request);
        let body = tokio::time::timeout(self.options.request_timeout, listing)
            .await
            .map_err(|_elapsed| UpstreamError::Transport("no answer to the list".into()))??;
        decode_list(self.shared.encoding, &self.shared.resource, body).map_err(|error| {
            self.shared.counters.malformed.bump();
            UpstreamError::Transport(format!("the list makes no sense: {error}"))
        })
    }
}
