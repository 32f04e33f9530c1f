//! The server around the store: its state, and answers in the format a client negotiated.
//!
//! Owns what every handler may use and the last step of every answer. `server/handler` is the life
//! of a request, `server/route` the table of paths, `server/access` authorization,
//! `server/connection` sockets. Refuses to know resources in particular. Invariant: an answer's
//! encoding follows from the request's headers alone.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Profile;
use super::authn::{Authenticator, UserInfo};
use super::authz::Authorizer;
use super::body::{Body, Response};
use super::counters::Counters;
use super::faults::Faults;
use super::lifecycle::Lifecycle;
use super::negotiate::{self, Endpoint, Transform};
use super::render::{self, IncludeObject};
use super::request::{Query, RequestInfo};
use super::resources::{Registry, Resource};
use super::status::Status;
use super::store::{Store, Stored};
use super::torrent::Torrent;

mod access;
mod connection;
mod handler;
mod route;

pub(super) use connection::serve as serve_connections;

/// What every handler may use.
#[derive(Debug)]
pub struct State {
    /// Flags and gates.
    pub profile: Profile,
    /// Objects and watch caches.
    pub store: Arc<Store>,
    /// What is served.
    pub registry: Registry,
    /// Who asks.
    pub authenticator: Authenticator,
    /// What they may; the store tells it of every change.
    pub authorizer: Arc<Authorizer>,
    /// Told instead of the stored pods, if at all.
    pub torrent: Option<Arc<Torrent>>,
    /// What was asked.
    pub counters: Counters,
    /// Misbehaviour on demand.
    pub faults: Faults,
    /// How far its end has come.
    pub lifecycle: Lifecycle,
    /// Cancelled when the server shuts down: watches end, connections close after their last
    /// answer.
    pub shutdown: CancellationToken,
    /// Connections and what outlives a request on them; waited for at the end.
    pub tasks: TaskTracker,
}

/// One request, authenticated and authorised, its body read.
#[derive(Debug)]
pub struct Exchange {
    /// Method.
    pub method: Method,
    /// Target as sent.
    pub uri: Uri,
    /// Headers as sent.
    pub headers: HeaderMap,
    /// Body (empty for reads).
    pub body: Bytes,
    /// Who asks, after impersonation.
    pub user: UserInfo,
    /// What path and method say.
    pub info: RequestInfo,
    /// The query.
    pub query: Query,
}

impl State {
    /// Whether a GET for a target would be allowed to a user, groups of all who are known included.
    #[must_use]
    pub fn would_allow(&self, user: &UserInfo, target: &str) -> bool {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let info = RequestInfo::parse(&Method::GET, path, &Query::parse(query));
        info.is_ok_and(|info| {
            let question = access::attributes(&info, user);
            self.authorizer.authorize(&question).allowed
        })
    }

    /// Whether the WatchList gate is on.
    pub fn watch_list(&self) -> bool {
        self.profile.watch_list && !self.faults.refuses_watch_list()
    }

    /// Whether the cache of a resource answers; 429 while it is being filled, as `ready.go`, 1.36.
    pub fn cache_ready(&self, resource: &Resource) -> Result<(), Status> {
        let ready = self.store.ready(resource, self.faults.holds_caches());
        ready.map_err(|since| {
            let patience = (0.06 * since.as_secs_f64()).exp().clamp(1.0, 30.0);
            Status::too_many_requests("storage is (re)initializing", patience as u32)
        })
    }

    /// Answers a stored object in the encoding the request negotiated (JSON, pretty, YAML,
    /// protobuf, Table, partial metadata), with the given code.
    pub fn answer_object(
        &self,
        exchange: &Exchange,
        resource: &Resource,
        code: StatusCode,
        object: &Stored,
    ) -> Result<Response, Status> {
        let endpoint = Endpoint::of(resource);
        let format = negotiate::negotiate(&exchange.headers, &exchange.query, endpoint)?;
        let include = match format.transform {
            Transform::Table(_) => IncludeObject::parse(&exchange.query)?,
            Transform::None | Transform::Partial(_) | Transform::PartialList(_) => {
                IncludeObject::default()
            }
        };
        let body = render::object(resource, object, format, include)?;
        Ok(self.answer_bytes(exchange, code, format.media.content_type(), body))
    }

    /// Answers an object that is not stored (reviews, scales): `kind` and `apiVersion` are read
    /// from the value.
    pub fn answer_value(
        &self,
        exchange: &Exchange,
        code: StatusCode,
        value: &Value,
    ) -> Result<Response, Status> {
        let endpoint = Endpoint {
            custom: false,
            transforms: false,
        };
        let format = negotiate::negotiate(&exchange.headers, &exchange.query, endpoint)?;
        let body = render::value(value, format)?;
        Ok(self.answer_bytes(exchange, code, format.media.content_type(), body))
    }

    /// Answers a Status in the encoding the request negotiated; used for errors and for deletions.
    pub fn answer_status(&self, exchange: &Exchange, status: &Status) -> Response {
        let format = negotiate::negotiate_error(&exchange.headers, &exchange.query);
        let (content_type, body) = render::status(status, format);
        let mut response = self.answer_bytes(exchange, status.http_code(), content_type, body);
        if let Some(seconds) = status.retry_after() {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// Answers bytes, compressed where the request and their length ask for it.
    pub fn answer_bytes(
        &self,
        exchange: &Exchange,
        code: StatusCode,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Response {
        let compressed = negotiate::compresses(&exchange.headers, body.len())
            .then(|| gzip(&body))
            .flatten();
        let encoded = compressed.is_some();
        let mut response = Response::new(Body::from(compressed.unwrap_or(body)));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if encoded {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        response
    }
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}
