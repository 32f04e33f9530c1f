//! The answers from the cache: GET, LIST and WATCH, once they are permitted.
//!
//! Owns: turning a [`Read`] and a ready cache into a response, or into a reason to pass the request
//! through after all.
//! Refuses: to answer without a [`Permit`], and to decide what becomes of what it cannot answer.
//! Invariant: the head and the body are those kube-apiserver gives; once the stream of a watch has
//! begun, errors are one `ERROR` event and the end (as `endpoints/handlers/watch.go`, 1.36).

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use tokio::time::Instant;
use watershed_cache::{
    CacheError, Selection, Snapshot, WatchCache, WatchStart, Watcher,
    encoding::{self, Encoding, ListMeta},
};

use super::{
    Compressor, Content, Freshness, Page, Read, Reason, Representation, Start, WatchBody,
    compress::{GZIP_MIN, Part, Question},
    fresh::Stale,
    list::Walk,
    sending::{Pieces, Sending},
    watch::{Admitted, Held},
};
use crate::{
    authn::Credential,
    authz::{Marks, Permit, Tenure, Tenures},
    body::Body,
    budget::{Busy, ListBudget, Place, Priority},
    caches::{Cached, Uncached},
    listener::ConnectionInfo,
    metrics::{Metrics, ResourceLabels},
    negotiate::ErrorsOf,
    status::Status,
};

/// Seconds after which a client that found the cache busy should come back.
const RETRY_AFTER: u32 = 1;

/// Lists longer than this are sent without a length, as Go's server sends what it has not buffered
/// whole. In bytes.
const LENGTH_KNOWN_MAX: usize = 2048;

/// The group of leases.
const COORDINATION: &str = "coordination.k8s.io";

/// What every answer needs besides the question.
pub(crate) struct Answerer<'a> {
    /// The cache.
    pub(crate) cached: &'a Cached,
    /// How it is written.
    pub(crate) representation: Representation,
    /// How errors are written.
    pub(crate) errors: ErrorsOf<'a>,
    /// Whose stream it is.
    pub(crate) connection: &'a Arc<ConnectionInfo>,
    /// By what watches are asked about again; what this caller showed; and what had been lost before
    /// its permit was asked for.
    pub(crate) tenures: (&'a Arc<Tenures>, (Credential, Marks)),
    /// Families.
    pub(crate) metrics: &'a Metrics,
    /// How long a consistent read waits for its proof.
    pub(crate) patience: Duration,
    /// For long answers, and how many bytes of them may be remembered.
    pub(crate) compressor: (&'a Compressor, u64),
    /// Of running lists, and how many bytes they may hold together.
    pub(crate) budget: (&'a ListBudget, u64),
    /// When the time for an answer that is no stream is over.
    pub(crate) deadline: Instant,
    /// How long a client may take none of the initial events of its watch.
    pub(crate) stall_max: Duration,
}

/// An answer, or why there is none from the cache.
type Answer = Result<Response<Body>, Reason>;

impl Answerer<'_> {
    /// Answers `read`.
    pub(crate) async fn answer(&self, permit: &Permit, read: Read) -> Answer {
        let answer = match read {
            Read::Get {
                freshness,
                namespace,
                name,
            } => self.get(freshness, &namespace, &name).await,
            Read::List {
                freshness,
                selection,
                page,
            } => self.list(freshness, &selection, &page).await,
            Read::Watch {
                start,
                selection,
                bookmarks,
                timeout,
            } => {
                let deadline = Instant::now() + timeout;
                self.watch(permit, (start, bookmarks), selection, deadline)
                    .await
            }
        };
        answer.map(|mut response| {
            for warning in self.cached.warnings.current() {
                response.headers_mut().append(header::WARNING, warning);
            }
            response
        })
    }

    async fn get(&self, freshness: Freshness, namespace: &str, name: &str) -> Answer {
        let snapshot = match freshness.snapshot(self.cache(), self.patience).await {
            Ok(snapshot) => snapshot,
            Err(stale) => return self.stale(stale, Verb::Get),
        };
        let Some(object) = snapshot.get(namespace, name) else {
            let resource = self.cache().resource();
            let status = Status::not_found(&resource.group, &resource.resource, name);
            return Ok(self.error(status));
        };
        let Representation { form, pretty, .. } = self.representation;
        let body = form.get_body(object);
        if !pretty && body.len() <= GZIP_MIN {
            return Ok(self.ok(Body::full(body)));
        }
        let part = || Part::Object {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let content = Content::object(body, self.representation);
        self.send(&snapshot, part, content, None).await
    }

    async fn list(&self, freshness: Freshness, selection: &Selection, page: &Page) -> Answer {
        let snapshot = match freshness.snapshot(self.cache(), self.patience).await {
            Ok(snapshot) => snapshot,
            Err(stale) => return self.stale(stale, Verb::List),
        };
        let place = match self.admit(&snapshot, selection).await {
            Ok(place) => place,
            Err(Busy { retry_after }) => return Ok(self.error(Status::overloaded(retry_after))),
        };
        let cut = page.cut(&snapshot, selection);
        let meta = ListMeta {
            resource_version: snapshot.resource_version(),
            continue_token: cut.continue_token.as_deref(),
            remaining: cut.remaining,
        };
        let resource = self.cache().resource();
        let part = || Part::List {
            selection: selection.clone(),
            page: page.clone(),
        };
        let walk = Walk::new(&snapshot, selection, &page.start, cut.objects);
        let content = Content::list(resource, self.representation, &meta, walk);
        self.send(&snapshot, part, content, place).await
    }

    /// A place among the running lists for the selected objects of `snapshot`; none is needed for
    /// one object.
    async fn admit(
        &self,
        snapshot: &Snapshot,
        selection: &Selection,
    ) -> Result<Option<Place>, Busy> {
        if selection.name.is_some() {
            return Ok(None);
        }
        let resource = self.cache().resource();
        let of_node = selection.fields.trigger_value().is_some();
        let is_lease = &*resource.resource == "leases" && &*resource.group == COORDINATION;
        let priority = if of_node || is_lease {
            Priority::Node
        } else {
            Priority::Collection
        };
        let (budget, bytes_max) = self.budget;
        let place = budget.admit(snapshot.bytes() as u64, priority, bytes_max);
        place.await.map(Some)
    }

    /// Sends `content`, which is a part of `snapshot`.
    async fn send(
        &self,
        snapshot: &Snapshot,
        part: impl FnOnce() -> Part,
        mut content: Content,
        place: Option<Place>,
    ) -> Answer {
        if !content.is_longer_than(LENGTH_KNOWN_MAX) {
            return Ok(self.ok(Body::full(content.whole())));
        }
        let sending = |pieces| {
            let sending = Sending::new(pieces, place, self.deadline);
            self.ok(Body::Long(Box::new(sending), None))
        };
        if !self.representation.gzip || !content.is_longer_than(GZIP_MIN) {
            return Ok(sending(Pieces::Written(Box::new(content))));
        }
        let question = Question {
            state: snapshot.id(),
            resource_version: snapshot.resource_version(),
            part: part(),
            representation: self.representation,
        };
        let (compressor, bytes_max) = self.compressor;
        let compressing = compressor.compress(question, &content, bytes_max);
        let compressed = Box::pin(compressing).await;
        let mut response = sending(compressed.map_err(|_lost| Reason::Representation)?);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        Ok(response)
    }

    async fn watch(
        &self,
        permit: &Permit,
        (start, bookmarks): (Start, bool),
        selection: Selection,
        deadline: Instant,
    ) -> Answer {
        let mut admitted = None;
        let start = match start {
            Start::After(version) => WatchStart::After(version),
            Start::Now(Freshness::Any) => WatchStart::Now,
            Start::Now(freshness) => match freshness
                .snapshot_to_watch(self.cache(), self.patience)
                .await
            {
                Ok(snapshot) => WatchStart::After(snapshot.resource_version()),
                Err(stale) => return self.stale(stale, Verb::Watch),
            },
            Start::Initial {
                freshness,
                end_bookmark,
            } => match freshness
                .snapshot_to_watch(self.cache(), self.patience)
                .await
            {
                Ok(snapshot) => {
                    match self.admit(&snapshot, &selection).await {
                        Ok(place) => {
                            admitted = place.map(|place| Admitted {
                                _place: place,
                                patience: self.stall_max,
                            });
                        }
                        Err(Busy { retry_after }) => {
                            return Ok(self.error(Status::overloaded(retry_after)));
                        }
                    }
                    WatchStart::Initial {
                        snapshot,
                        end_bookmark,
                    }
                }
                Err(stale) => return self.stale(stale, Verb::Watch),
            },
        };
        match self.cache().watch(selection, start, bookmarks, deadline) {
            Ok(watcher) => {
                let mut watcher = watcher.in_form(self.representation.form);
                // Without bookmarks it would not know how far it has come.
                if bookmarks && self.cached.is_quiet_for(permit.user()) {
                    watcher = watcher.without_heartbeats();
                }
                Ok(self.stream(permit, watcher, admitted))
            }
            Err(CacheError::Expired { requested, oldest }) => {
                let oldest = oldest.get().saturating_sub(1);
                Ok(self.error_event(&Status::expired_watch(requested.get(), oldest)))
            }
            Err(error) => self.stale(error.into(), Verb::Watch),
        }
    }

    /// What a client is told when there is no state to answer from.
    fn stale(&self, stale: Stale, verb: Verb) -> Answer {
        match (stale, verb) {
            (Stale::TooLarge { requested, current }, verb) => {
                let status = Status::resource_version_too_large(requested.get(), current.get());
                Ok(match verb {
                    Verb::Get | Verb::List => self.error(status),
                    Verb::Watch => self.error_event(&status),
                })
            }
            (Stale::Elsewhere, _) => Err(Reason::Exact),
            (Stale::Unproven, Verb::Get | Verb::List) => Err(Reason::NotFresh),
            (Stale::Unproven, Verb::Watch) => Ok(self.error_event(&self.lagging())),
            (Stale::NotReady, _) => Err(Reason::Uncached(Uncached::NotReady)),
            (Stale::Busy, _) => Ok(self.error(Status::too_many_requests(
                "too many requests are waiting, please try again later",
                RETRY_AFTER,
            ))),
        }
    }

    /// How the stream of a consistent watch ends that found no state new enough: as that of an
    /// apiserver whose cache, or whose storage, does not keep up.
    fn lagging(&self) -> Status {
        let (seen, current) = (
            self.cache().upstream_seen(),
            self.cache().resource_version(),
        );
        if seen > current {
            Status::resource_version_too_large(seen.get(), current.get())
        } else {
            Status::deadline_exceeded()
        }
    }

    fn stream(
        &self,
        permit: &Permit,
        watcher: Watcher,
        admitted: Option<Admitted>,
    ) -> Response<Body> {
        let resource = self.cache().resource();
        let labels = ResourceLabels {
            group: resource.group.to_string(),
            resource: resource.resource.to_string(),
        };
        let open = self.metrics.watchers.get_or_create(&labels).clone();
        let delays = self.metrics.watch_delivery_seconds.clone();
        let (tenures, claim) = self.tenures;
        self.connection.join(&tenures.revocations);
        let watch = Held {
            watcher,
            connection: Arc::clone(self.connection),
        };
        let tenure = Tenure::new(tenures, permit, claim, &watch);
        let body = WatchBody::new((watch, tenure), admitted, (open, delays));
        self.streamed(Body::Watch(Box::new(body), None))
    }

    /// A stream of one error.
    fn error_event(&self, status: &Status) -> Response<Body> {
        let encoding = self.encoding();
        let encoded = match encoding {
            Encoding::Json => status.json(),
            Encoding::Protobuf => status.protobuf(),
        };
        let encoded = encoded.strip_suffix(b"\n").unwrap_or(&encoded);
        let frame = encoding::error_frame(encoding, encoded);
        self.streamed(Body::stream(tokio_stream::once(Ok(frame))))
    }

    fn streamed(&self, body: Body) -> Response<Body> {
        head(StatusCode::OK, self.encoding().watch_content_type(), body)
    }

    fn ok(&self, body: Body) -> Response<Body> {
        head(StatusCode::OK, self.encoding().media_type(), body)
    }

    fn encoding(&self) -> Encoding {
        self.representation.form.encoding
    }

    fn error(&self, status: Status) -> Response<Body> {
        status.into_response(&self.errors.format()).map(Body::full)
    }

    fn cache(&self) -> &WatchCache {
        &self.cached.cache
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Get,
    List,
    Watch,
}

fn head(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}
