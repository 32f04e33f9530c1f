//! The life of a request, in one function.
//!
//! Owns: the order of the steps, which is kube-apiserver's order of errors (as
//! `DefaultBuildHandlerChain`, 1.36): what is asked, is the server leaving, its timeout, who asks,
//! cache or not, may they, answer. Steps do not know each other.
//! Refuses: to decide anything itself, and to buffer.
//! Invariant: nothing reaches the cache without an [`Identity`] and a permit for exactly this
//! request, and every request gets one answer and is counted once.
//!
//! ```text
//!   request ─► RequestInfo ─► leaving ─► timeout= ─► Identity ─► screen ─► discovery ─► form ─► Read
//!               500 text      429 text    400         401          │          │          │       │
//!                                                       └──────────┴──────────┴───────┴─► passthrough
//!   Read ─► Permit ─► cache ─► answer                            (not cached, paging) ────┘
//!           403         └─► shared read ─► answer  (not fresh, not ready, not in history)
//! ```

mod answered;
mod heartbeat;

use std::{sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use watershed_cache::{Resource, ResourceVersion, encoding::Encoding};
use watershed_config::Live;

use self::answered::{AUDIT_ID, Answered, completed, local};
use crate::{
    authn::{Authenticator, Credential, Identity},
    authz::{Attributes, Authorizer, Marks, Permit, Tenures},
    body::Body,
    budget::ListBudget,
    caches::{CacheKey, Caches, Uncached},
    callers::{Callers, Kind, Place},
    discovery::GroupVersionResource,
    drain::Drain,
    heartbeats::{Absorber, Head},
    listener::{ConnectionInfo, Protocol},
    metrics::{Metrics, ReasonLabels, RequestLabels},
    negotiate::{Action, Endpoint, ErrorsOf, negotiate},
    passthrough::Passthrough,
    request::{self, Query, RequestInfo, RequestInfoError, Verb},
    serve::{self, Compressor, Instead, Read, Reason, Representation, answer::Answerer},
    shared_reads::{Bounds, Shared, SharedKey, SharedReads},
    status::{ErrorFormat, Status},
    upstream::Upstream,
};

/// How much longer than its own deadline a forwarded request may take: the apiserver, which keeps
/// the same one, is given the time to say so itself.
const OWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything a request meets. One for the whole proxy.
pub(crate) struct Handler {
    pub(crate) authenticator: Authenticator<Upstream>,
    pub(crate) authorizer: Arc<Authorizer<Upstream>>,
    pub(crate) tenures: Arc<Tenures>,
    pub(crate) caches: Caches,
    pub(crate) callers: Callers,
    /// Unless heartbeats are forwarded like any other write.
    pub(crate) absorber: Option<Absorber>,
    pub(crate) passthrough: Passthrough,
    pub(crate) shared_reads: SharedReads,
    pub(crate) compressor: Compressor,
    pub(crate) budget: Arc<ListBudget>,
    pub(crate) metrics: Metrics,
    pub(crate) live: watch::Receiver<Arc<Live>>,
    pub(crate) drain: Drain,
}

/// A request that was understood.
struct Asked<'a> {
    request: &'a Request<Incoming>,
    connection: &'a Arc<ConnectionInfo>,
    info: &'a RequestInfo,
    query: &'a Query,
    errors: ErrorsOf<'a>,
    /// When its time is over, if it is no stream.
    deadline: Instant,
    /// What its caller showed, and what had been lost before its permit was asked for.
    claim: (Credential, Marks),
}

impl Asked<'_> {
    /// What it reads of `resource` and how the answer is to be written.
    fn read(&self, resource: &Resource) -> Result<(Representation, Read), Instead> {
        let action = match self.info.verb {
            Verb::List => Action::List,
            Verb::Watch => Action::Watch,
            _ => Action::Get,
        };
        let endpoint = Endpoint {
            action,
            custom: resource.custom,
        };
        let headers = self.request.headers();
        let negotiated = negotiate(headers, self.query, endpoint);
        let representation = Representation::of(negotiated, headers, action)?;
        let read = Read::classify(self.info, self.query, resource, true)?;
        Ok((representation, read))
    }
}

impl Handler {
    /// Answers one request. Cancelled when the client goes away.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
    ) -> Response<Body> {
        let audit_id = request.headers().get(AUDIT_ID).cloned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let info = match info_of(&request, &query) {
            Ok(info) => info,
            Err(error) => {
                let mut response = local(error.status(), errors_of(&request, &query));
                // This error comes before the filter that adds it.
                response.headers_mut().remove(header::CACHE_CONTROL);
                return completed(response, audit_id);
            }
        };
        if self.drain.is_leaving() && !outlives_shutdown(&request) {
            let mut response = local(Status::shutting_down(), errors_of(&request, &query));
            response.headers_mut().remove(header::CACHE_CONTROL);
            if connection.protocol == Protocol::Http2 {
                response.headers_mut().remove(header::CONNECTION);
            }
            self.count(&info, "refused", response.status());
            return completed(response, audit_id);
        }
        let Answered { served, response } = self.answer(request, &connection, &info, &query).await;
        self.count(&info, served, response.status());
        completed(response, audit_id)
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Arc<ConnectionInfo>,
        info: &RequestInfo,
        query: &Query,
    ) -> Answered {
        let live = Arc::clone(&self.live.borrow());
        let errors = errors_of(&request, query);
        let deadline = match request::timeout(info, query, live.limits.request_timeout) {
            Ok(deadline) => deadline,
            Err(status) => return Answered::refused(status, errors),
        };
        let proof = connection.proof();
        let identified = self.authenticator.authenticate(
            request.headers(),
            (&proof, &connection.subject, connection.peer.ip()),
            &live.authentication,
        );
        let identity = match identified.await {
            Ok(identity) => identity,
            Err(error) => {
                tracing::debug!(client.addr = %connection.peer, %error, "not authenticated");
                connection.let_go();
                return Answered::refused(error.status(), errors);
            }
        };
        // A front proxy proved who it is itself, and others share its connection.
        if identity.user.is_anonymous() && identity.credential != Credential::FrontProxy {
            connection.let_go();
        }
        let place = match self.enter(connection, &identity, deadline, &live) {
            Ok(place) => place,
            Err(status) => return Answered::limited(status, errors),
        };
        if let Some(absorber) = &self.absorber
            && let Some(head) = Head::of(&request, query, &identity.user)
        {
            let beat = (absorber, head, request);
            let patience = deadline.unwrap_or(live.limits.request_timeout);
            let caller = (connection, &identity, place);
            return Box::pin(self.heartbeat(beat, caller, (info, query), patience)).await;
        }
        let begun = Instant::now();
        let asked = Asked {
            request: &request,
            connection,
            info,
            query,
            errors,
            deadline: begun + deadline.unwrap_or(live.limits.request_timeout),
            claim: (identity.credential, self.tenures.marks()),
        };
        // Boxed once: with and without a deadline this future would keep room for it three times.
        let answering = Box::pin(self.cached_answer(&asked, &identity));
        let answer = match deadline {
            Some(deadline) => match tokio::time::timeout(deadline, answering).await {
                Ok(answer) => answer,
                Err(_) => return Answered::refused(Status::request_timeout(), errors),
            },
            None => answering.await,
        };
        match answer {
            Ok(answered) => answered.with_warning(identity.warning).keep(place),
            Err(reason) => {
                let due = deadline.map(|deadline| begun + deadline + OWN_TIMEOUT);
                let format = errors.format();
                let carried = (&identity, place);
                // Boxed: most requests are answered here and need no room for it.
                let request = request.map(Body::from);
                Box::pin(self.forwarded(request, connection, carried, (reason, due), &format)).await
            }
        }
    }

    /// The apiserver's answer, which may take until it is due.
    async fn forwarded(
        &self,
        mut request: Request<Body>,
        connection: &ConnectionInfo,
        (identity, place): (&Identity, Option<Place>),
        (reason, due): (Reason, Option<Instant>),
        errors: &ErrorFormat,
    ) -> Answered {
        self.authenticator.strip(request.headers_mut());
        let carried = (identity, place);
        // Boxed: with and without a deadline this future would keep room for it several times.
        let forwarding = Box::pin(
            self.passthrough
                .forward(request, connection, carried, errors),
        );
        let forwarded = match due {
            Some(due) => timeout_at(due, forwarding).await,
            None => Ok(forwarding.await),
        };
        let late = || Status::request_timeout().into_response(errors);
        let answered = Answered {
            served: reason.as_str(),
            response: forwarded.unwrap_or_else(|_| late().map(Body::full)),
        };
        // The header that asks for it went no further, unless with a token.
        match identity.credential {
            Credential::Bearer => answered,
            Credential::FrontProxy | Credential::Certificate | Credential::Anonymous => {
                answered.with_warning(identity.warning)
            }
        }
    }

    /// The caller's place among those with something under way. What has no deadline is a stream.
    fn enter(
        &self,
        connection: &ConnectionInfo,
        identity: &Identity,
        deadline: Option<Duration>,
        live: &Live,
    ) -> Result<Option<Place>, Status> {
        let kind = deadline.map_or(Kind::Stream, |_| Kind::Request);
        let caller = (&*identity.user, &connection.caller);
        let entered = self.callers.enter(caller, kind, &live.limits);
        entered.map_err(|full| {
            let reason = ReasonLabels { reason: full.limit };
            self.metrics.requests_limited.get_or_create(&reason).inc();
            full.status()
        })
    }

    /// The answer from the cache or by a shared read, a refusal included, or why the request is
    /// passed through.
    async fn cached_answer(
        &self,
        asked: &Asked<'_>,
        identity: &Identity,
    ) -> Result<Answered, Reason> {
        let Asked {
            request,
            info,
            errors,
            ..
        } = asked;
        serve::screen(request.headers(), info)?;
        let named = named(info);
        let resource = self.caches.resource(&named).await;
        let resource = resource.map_err(Reason::Uncached)?;
        let read = match asked.read(&resource) {
            Err(Instead::Forward(reason)) => return Err(reason),
            Err(Instead::Refuse(status)) => Err(status),
            Ok(read) => Ok(read),
        };
        let live = Arc::clone(&self.live.borrow());
        let attributes = Attributes::new(Arc::clone(&identity.user), info);
        let permit = self.authorizer.authorize(&attributes, &live.authorization);
        let permit = match permit.await {
            Ok(permit) => permit,
            Err(error) => {
                let target = request.uri().path_and_query().map_or("/", |it| it.as_str());
                return Ok(Answered::cached(local(
                    error.status(&attributes, target),
                    *errors,
                )));
            }
        };
        match read {
            // Boxed, so that what waits for a review needs no room for what follows.
            Ok(read) => Box::pin(self.permitted(asked, permit, (&resource, named), read)).await,
            Err(status) => Ok(Answered::cached(local(*status, *errors))),
        }
    }

    /// The answer to a read that its caller may make.
    async fn permitted(
        &self,
        asked: &Asked<'_>,
        permit: Permit,
        (resource, gvr): (&Resource, GroupVersionResource),
        (representation, mut read): (Representation, Read),
    ) -> Result<Answered, Reason> {
        let Asked {
            request,
            info,
            query,
            errors,
            ..
        } = asked;
        debug_assert!(permit.covers(info), "a permit is for one request");
        let key = CacheKey {
            gvr,
            encoding: representation.held(resource),
        };
        let encoding = representation.form.encoding;
        let cached = match self.caches.find(&key).await {
            Ok(cached) => cached,
            Err(Uncached::NotReady) => {
                let unready = self.unready(asked, permit, (&key, encoding, &read));
                return Box::pin(unready).await;
            }
            Err(why) => return Err(Reason::Uncached(why)),
        };
        if !cached.cache.watch_list_enabled() {
            read = match Read::classify(info, query, resource, false) {
                Ok(read) => read,
                Err(Instead::Forward(reason)) => return Err(reason),
                Err(Instead::Refuse(status)) => {
                    return Ok(Answered::cached(local(*status, *errors)));
                }
            };
        }
        let limits = self.live.borrow().limits.clone();
        let answerer = Answerer {
            cached: &cached,
            representation,
            errors: *errors,
            connection: asked.connection,
            tenures: (&self.tenures, asked.claim),
            metrics: &self.metrics,
            patience: limits.consistent_read_timeout,
            compressor: (&self.compressor, limits.compressed_lists),
            budget: (&self.budget, limits.initial_list_bytes),
            deadline: asked.deadline,
            stall_max: limits.request_timeout,
        };
        match answerer.answer(&permit, read.clone()).await {
            Ok(response) => Ok(Answered::cached(response)),
            Err(Reason::Uncached(Uncached::NotReady)) => {
                Box::pin(self.unready(asked, permit, (&key, encoding, &read))).await
            }
            Err(reason) => {
                let shared = SharedKey::new(request, encoding, info.verb == Verb::List);
                let lowest = read.lowest(&cached.cache);
                Box::pin(self.share(asked, permit, (shared, lowest), reason)).await
            }
        }
    }

    /// What becomes of a read whose cache is being filled.
    async fn unready(
        &self,
        asked: &Asked<'_>,
        permit: Permit,
        (key, encoding, read): (&CacheKey, Encoding, &Read),
    ) -> Result<Answered, Reason> {
        if !read.is_forwarded_unready(asked.info) {
            let status = Status::initializing(self.caches.unready_for(key));
            return Ok(Answered::cached(local(status, asked.errors)));
        }
        let is_list = asked.info.verb == Verb::List;
        let shared = SharedKey::new(asked.request, encoding, is_list);
        let reason = Reason::Uncached(Uncached::NotReady);
        let lowest = ResourceVersion::default();
        self.share(asked, permit, (shared, lowest), reason).await
    }

    /// Answers by the next read for everybody who asks the same.
    async fn share(
        &self,
        asked: &Asked<'_>,
        permit: Permit,
        (key, lowest): (SharedKey, ResourceVersion),
        reason: Reason,
    ) -> Result<Answered, Reason> {
        let bounds = Bounds::from(&self.live.borrow().limits);
        let reading = Box::pin(self.shared_reads.read(permit, (key, lowest), bounds));
        let response = match reading.await {
            Shared::Answer(response) => response,
            Shared::Refused(status) => local(status, asked.errors),
            Shared::Alone => return Err(reason),
        };
        Ok(Answered {
            served: "shared",
            response,
        })
    }

    fn count(&self, info: &RequestInfo, served: &'static str, code: StatusCode) {
        let verb = match &info.verb {
            Verb::Get => "GET",
            Verb::List => "LIST",
            Verb::Watch => "WATCH",
            Verb::Create => "POST",
            Verb::Update => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            Verb::DeleteCollection => "DELETECOLLECTION",
            Verb::Proxy => "PROXY",
            Verb::None | Verb::Method(_) => "OTHER",
        };
        // Names nobody serves must not become labels: only resources that have or had a cache do.
        let resource = if self.caches.knows(info) {
            info.resource.clone()
        } else {
            String::new()
        };
        let labels = RequestLabels {
            verb,
            resource,
            served,
            code: code.as_u16(),
        };
        self.metrics.requests.get_or_create(&labels).inc();
    }
}

/// What is asked, of one host: of two, each hop could believe another.
fn info_of(request: &Request<Incoming>, query: &Query) -> Result<RequestInfo, RequestInfoError> {
    if request
        .headers()
        .get_all(header::HOST)
        .iter()
        .nth(1)
        .is_some()
    {
        return Err(RequestInfoError::Malformed);
    }
    RequestInfo::parse(request.method(), request.uri(), query)
}

/// What a server that is leaving still answers: probes, scrapes and other apiservers (as
/// `hasExemptPathPrefix`, 1.36).
fn outlives_shutdown(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    let agent = request.headers().get(header::USER_AGENT);
    ["/readyz", "/livez", "/healthz", "/metrics"]
        .iter()
        .any(|probe| path.starts_with(probe))
        || agent.is_some_and(|it| it.as_bytes().starts_with(b"kube-apiserver/"))
}

/// The resource a request names.
fn named(info: &RequestInfo) -> GroupVersionResource {
    GroupVersionResource {
        group: info.group.as_str().into(),
        version: info.version.as_str().into(),
        resource: info.resource.as_str().into(),
    }
}

fn errors_of<'a>(request: &'a Request<Incoming>, query: &'a Query) -> ErrorsOf<'a> {
    ErrorsOf {
        headers: request.headers(),
        query,
    }
}
