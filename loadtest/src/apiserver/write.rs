//! Everything that is no read of an object: writes, reviews and subresources.
//!
//! Owns the routing of such requests by method and path, the context every write needs, and what
//! is common to them: who is recorded as the manager, whether the write is a dry run, and how a
//! changed CRD reaches the registry. One file each for decoding, creating, updating, deleting and
//! the subresources. Refuses to authorise (done before) and to store (the store's).
//!
//! Invariant: a write reaches the store at most once, and its answer shows what was stored.

mod admission;
mod apply;
mod create;
mod decode;
mod defaults;
mod delete;
mod go_json;
mod managed_fields;
mod names;
mod strategy;
mod subresources;
mod update;

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use super::authz::go_quote;
use super::body::Response;
use super::resources::Resource;
use super::reviews;
use super::schema::Schema;
use super::server::{Exchange, State};
use super::status::Status;
use super::store::Stored;
use super::{crd, store::StoreError};

pub(super) use create::{create_trusted, owned_on_create};

/// The body of a review, its type checked, without the namespace rules of stored objects.
pub(super) fn review_body(request: &Request<'_>) -> Result<Value, Status> {
    decode::object(request)
}

/// Answers POST, PUT, PATCH and DELETE of resources, and every request of a subresource that is
/// no plain read (`status` and `scale` reads included, `log` too): the caller keeps GET, LIST and
/// WATCH without a subresource for itself.
///
/// # Errors
/// With the Status to answer.
pub async fn serve(state: &Arc<State>, exchange: &Exchange) -> Result<Response, Status> {
    let info = &exchange.info;
    let found = state
        .registry
        .find(&info.group, &info.version, &info.resource);
    let Some(resource) = found else {
        return Err(Status::no_such_resource());
    };
    let warnings = Mutex::default();
    let request = Request {
        state,
        exchange,
        resource: &resource,
        warnings: &warnings,
    };
    let answer = route(&request);
    let warnings = warnings.into_inner();
    if warnings.is_empty() {
        return answer;
    }
    let mut response = answer.unwrap_or_else(|status| state.answer_status(exchange, &status));
    for warning in warnings {
        let text = format!("299 - {}", go_quote(&warning));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    Ok(response)
}

fn route(request: &Request<'_>) -> Result<Response, Status> {
    let (resource, info) = (request.resource, &request.exchange.info);
    if reviews::is_review(resource) {
        return reviews::serve(request);
    }
    request.check_scope()?;
    if exchange_writes(request) {
        admission::check(request, None)?;
    }
    if !info.subresource.is_empty() {
        return subresources::serve(request);
    }
    let named = !info.name.is_empty();
    match (&request.exchange.method, named) {
        (&Method::POST, false) if resource.allows("create") => create::serve(request),
        // Custom resources are dispatched by verb alone.
        (&Method::POST, true) if resource.custom.is_some() => create::serve(request),
        (&Method::PUT, true) if resource.allows("update") => update::put(request, ""),
        (&Method::PATCH, true) if resource.allows("patch") => update::patch(request, ""),
        (&Method::PUT | &Method::PATCH, false) if resource.custom.is_some() => {
            Err(Status::bad_request("name must be provided"))
        }
        (&Method::DELETE, true) if resource.allows("delete") => delete::one(request),
        (&Method::DELETE, false) if resource.allows("deletecollection") => {
            delete::collection(request)
        }
        _ => Err(Status::method_not_allowed()),
    }
}

/// Whether the request changes an object it names; creations are checked with their object.
fn exchange_writes(request: &Request<'_>) -> bool {
    let exchange = request.exchange;
    let acts = !exchange.info.subresource.is_empty() || exchange.method != Method::POST;
    exchange.method != Method::GET && !exchange.info.name.is_empty() && acts
}

/// One write: the server, the request, and what it is about.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) state: &'a Arc<State>,
    pub(super) exchange: &'a Exchange,
    pub(super) resource: &'a Arc<Resource>,
    /// What the answer will warn of.
    warnings: &'a Mutex<Vec<String>>,
}

impl Request<'_> {
    /// Adds a `Warning` header to the answer, whatever it is; once per text.
    fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.exchange.info.namespace
    }

    /// The namespace objects of the request are in; a namespace itself is in none.
    pub(super) fn object_namespace(&self) -> &str {
        if self.resource.namespaced {
            self.namespace()
        } else {
            ""
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.exchange.info.name
    }

    /// A namespaced resource needs a namespace to be written, a cluster-wide one must have none.
    fn check_scope(&self) -> Result<(), Status> {
        let info = &self.exchange.info;
        let namespaced = !info.namespace.is_empty();
        if self.resource.resource == "namespaces" || self.resource.namespaced == namespaced {
            return Ok(());
        }
        // The cluster-wide collection of a namespaced resource has a route, but only for reads.
        if self.resource.namespaced && info.name.is_empty() {
            return Err(Status::method_not_allowed());
        }
        Err(Status::no_such_resource())
    }

    pub(super) fn dry_run(&self) -> bool {
        self.exchange.query.first("dryRun") == Some("All")
    }

    /// The field manager: the query's, else the user agent up to its first slash.
    fn manager(&self) -> String {
        let agent = self.exchange.headers.get(http::header::USER_AGENT);
        let agent = agent
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or_default();
        let agent = agent.split('/').next().unwrap_or_default();
        let asked = self
            .exchange
            .query
            .first("fieldManager")
            .filter(|name| !name.is_empty());
        let manager: String = asked
            .unwrap_or(agent)
            .chars()
            .take(MANAGER_LEN_MAX)
            .collect();
        if manager.is_empty() {
            "unknown".to_owned()
        } else {
            manager
        }
    }

    /// The object in stored form: defaults and all, unknown and empty fields gone.
    fn stored_form(&self, object: Value) -> Result<Value, Status> {
        let (version, kind) = (self.resource.api_version(), &self.resource.kind);
        if self.resource.custom.is_some() || !Schema::builtin().knows(&version, kind) {
            return Ok(object);
        }
        let stored = Schema::builtin().stored(&version, kind, &object);
        stored.map_err(|error| self.cannot_be_handled(&error.to_string()))
    }

    /// The object as the server prints it, which ownership of fields is reckoned on.
    fn printed_form(&self, object: &Value) -> Value {
        let (version, kind) = (self.resource.api_version(), &self.resource.kind);
        if self.resource.custom.is_some() {
            return object.clone();
        }
        let printed = Schema::builtin().json(&version, kind, object).ok();
        printed
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_else(|| object.clone())
    }

    fn cannot_be_handled(&self, why: &str) -> Status {
        let (version, kind) = (&self.resource.version, &self.resource.kind);
        Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    }

    pub(super) fn not_found(&self) -> Status {
        Status::not_found(&self.resource.group, &self.resource.resource, self.name())
    }

    fn store_error(&self, name: &str, error: &StoreError) -> Status {
        let (group, resource) = (&self.resource.group, &self.resource.resource);
        match error {
            StoreError::NotFound => Status::not_found(group, resource, name),
            StoreError::AlreadyExists => Status::already_exists(group, resource, name),
            StoreError::Conflict { .. } => Status::conflict(group, resource, name, MODIFIED),
            StoreError::Expired { .. } | StoreError::Compacted | StoreError::TooLarge { .. } => {
                Status::internal(&error.to_string())
            }
        }
    }

    pub(super) fn read(&self) -> Result<Arc<Stored>, Status> {
        let stored = self
            .state
            .store
            .read(self.resource, self.object_namespace(), self.name());
        stored.ok_or_else(|| self.not_found())
    }

    /// Answers with an object that is not (or no longer) in the store.
    pub(super) fn answer(&self, code: StatusCode, value: Value) -> Result<Response, Status> {
        let version = value["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default();
        let stored = match version.parse() {
            Ok(version) => Stored::new(value, version),
            Err(_) => {
                // A dry run of a creation: the object has no version, and shows none.
                return self.state.answer_value(self.exchange, code, &value);
            }
        };
        self.state
            .answer_object(self.exchange, self.resource, code, &stored)
    }

    pub(super) fn answer_stored(
        &self,
        code: StatusCode,
        stored: &Stored,
    ) -> Result<Response, Status> {
        self.state
            .answer_object(self.exchange, self.resource, code, stored)
    }

    /// Follows up a write: a CRD changes what is served.
    pub(super) fn written(&self, name: &str) {
        if self.resource.kind == "CustomResourceDefinition" {
            crd::changed(self.state, name);
        }
    }
}

/// The inner text of a 409 of optimistic concurrency.
const MODIFIED: &str = "the object has been modified; please apply your changes to the latest \
                        version and try again";
const MANAGER_LEN_MAX: usize = 128;

/// Now, RFC 3339 in whole seconds.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
