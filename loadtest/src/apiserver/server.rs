//! The path of a request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;

use super::Profile;
use super::authn::{Authenticator, UserInfo};
use super::authz::Authorizer;
use super::body::Response;
use super::request::{Query, RequestInfo};
use super::resources::{Registry, Resource};
use super::status::Status;
use super::store::{Store, Stored};

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

#[expect(unused_variables, clippy::todo, reason = "signatures first")]
impl State {
    /// Answers a stored object in the encoding the request negotiated (JSON, pretty, YAML, protobuf, Table, partial
    /// metadata), with the given code.
    pub fn answer_object(
        &self,
        exchange: &Exchange,
        resource: &Resource,
        code: StatusCode,
        object: &Stored,
    ) -> Result<Response, Status> {
        todo!()
    }

    /// Answers an object that is not stored (reviews, scales): `kind` and `apiVersion` are read from the value.
    pub fn answer_value(
        &self,
        exchange: &Exchange,
        code: StatusCode,
        value: &Value,
    ) -> Result<Response, Status> {
        todo!()
    }

    /// Answers a Status in the encoding the request negotiated; used for errors and for deletions.
    pub fn answer_status(&self, exchange: &Exchange, status: &Status) -> Response {
        todo!()
    }
}
