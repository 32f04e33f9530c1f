//! What GET, LIST and WATCH have in common: the order of checks before storage, and GET itself.
//!
//! Owns the sequence negotiation → options → validation → field labels → name, as `get.go` of
//! kube-apiserver 1.36, and the single-object read. Refuses to stream. Invariant: no storage is
//! touched before every check has passed.

use std::sync::Arc;

use http::StatusCode;

use super::body::Response;
use super::negotiate::{self, Endpoint};
use super::request::{ListOptions, go_quote, parse_resource_version};
use super::resources::Resource;
use super::selectors::{FieldSelector, Selection};
use super::server::{Exchange, State};
use super::status::Status;
use super::store::{FRESHNESS_TIMEOUT, Scope, StoreError};

/// A checked LIST or WATCH.
#[derive(Debug)]
pub struct Selected {
    /// Its options, defaulted.
    pub options: ListOptions,
    /// What passes.
    pub selection: Selection,
    /// The narrowest scope of storage that holds all that passes.
    pub scope: Scope,
    /// The storage key is known: a read of one object.
    pub single: bool,
}

impl Endpoint {
    /// What a resource can be encoded as.
    pub fn of(resource: &Resource) -> Self {
        Self {
            custom: resource.custom.is_some(),
            transforms: true,
        }
    }
}

/// Runs the checks of a LIST or WATCH.
pub fn select(state: &State, exchange: &Exchange, resource: &Resource) -> Result<Selected, Status> {
    negotiate::negotiate(&exchange.headers, &exchange.query, Endpoint::of(resource))?;
    let mut options = ListOptions::decode(&exchange.query)?;
    let (labels, fields) = options.selectors()?;
    options.default_watch(state.watch_list());
    options.validate(state.watch_list())?;
    let fields = fields
        .convert(resource)
        .map_err(|error| Status::bad_request(error.0))?;
    let fields = named(fields, &exchange.info.name)?;
    let selection = Selection {
        namespace: exchange.info.namespace.clone(),
        labels,
        fields,
    };
    // The namespace of a namespace object is its own name in paths, not a scope.
    let selection = if resource.namespaced {
        selection
    } else {
        Selection {
            namespace: String::new(),
            ..selection
        }
    };
    let (scope, single) = scope(resource, &selection);
    Ok(Selected {
        options,
        selection,
        scope,
        single,
    })
}

fn named(fields: FieldSelector, name: &str) -> Result<FieldSelector, Status> {
    if name.is_empty() {
        return Ok(fields);
    }
    if fields.is_empty() {
        return Ok(FieldSelector::exact("metadata.name", name));
    }
    if fields.required("metadata.name") == Some(name) {
        return Ok(fields);
    }
    Err(Status::bad_request(
        "fieldSelector metadata.name doesn't match requested name",
    ))
}

fn scope(resource: &Resource, selection: &Selection) -> (Scope, bool) {
    let namespace = if selection.namespace.is_empty() {
        selection
            .fields
            .required("metadata.namespace")
            .unwrap_or("")
    } else {
        &selection.namespace
    };
    match selection.fields.required("metadata.name") {
        Some(name) if !resource.namespaced => return (Scope::Key(name.to_owned()), true),
        Some(name) if !namespace.is_empty() => {
            return (Scope::Key(format!("{namespace}/{name}")), true);
        }
        Some(_) | None => {}
    }
    let triggered = matches!(
        resource.storage.as_str(),
        "pods" | "resourceslices.resource.k8s.io"
    );
    if triggered && let Some(node) = selection.fields.required("spec.nodeName") {
        return (Scope::Trigger(node.to_owned()), false);
    }
    if resource.namespaced && !namespace.is_empty() {
        return (Scope::Namespace(namespace.to_owned()), false);
    }
    (Scope::All, false)
}

/// Turns a refusal of the store into the Status of a read.
pub fn refused(error: StoreError, resource: &Resource) -> Status {
    match error {
        StoreError::TooLarge { requested, current } => {
            Status::too_large_resource_version(requested, current, resource.cached)
        }
        StoreError::Compacted => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        StoreError::Expired { .. } => Status::expired(error.to_string()),
        StoreError::NotFound | StoreError::AlreadyExists | StoreError::Conflict { .. } => {
            Status::internal(&error.to_string())
        }
    }
}

/// GET of one object.
pub async fn get(
    state: &Arc<State>,
    exchange: &Exchange,
    resource: &Resource,
) -> Result<Response, Status> {
    negotiate::negotiate(&exchange.headers, &exchange.query, Endpoint::of(resource))?;
    let query = &exchange.query;
    if query.first("export").is_some_and(super::request::go_bool) {
        let text = "the export parameter, deprecated since v1.14, is no longer supported";
        return Err(Status::bad_request(text));
    }
    let name = exchange.info.name.as_str();
    check_name(name)?;
    let version = query.first("resourceVersion").unwrap_or("");
    let cached = resource.cached && state.cache_ready(resource).is_ok();
    let requested = parse_resource_version(version).map_err(|text| {
        if cached {
            Status::unknown(text)
        } else {
            Status::bad_request(format!("invalid resource version: {text}"))
        }
    })?;
    let namespace = if resource.namespaced {
        exchange.info.namespace.as_str()
    } else {
        ""
    };
    let store = &state.store;
    let object = if version.is_empty() || !cached {
        let current = store.revision();
        if requested > current {
            return Err(Status::too_large_resource_version(
                requested, current, false,
            ));
        }
        store.read(resource, namespace, name)
    } else {
        if requested > 0 {
            let fresh = store
                .wait_until_fresh(resource, requested, FRESHNESS_TIMEOUT)
                .await;
            fresh.map_err(|error| refused(error, resource))?;
        }
        store.read_cached(resource, namespace, name).1
    };
    match object {
        Some(object) => state.answer_object(exchange, resource, StatusCode::OK, &object),
        None => Err(missing(resource, name)),
    }
}

fn missing(resource: &Resource, name: &str) -> Status {
    // The virtual resource names its kind instead of its path.
    let named = match resource.resource.as_str() {
        "componentstatuses" => "componentstatus",
        other => other,
    };
    Status::not_found(&resource.group, named, name)
}

fn check_name(name: &str) -> Result<(), Status> {
    let wrong = match name {
        "." | ".." => Some(format!("may not be '{name}'")),
        name => ['/', '%']
            .into_iter()
            .find(|c| name.contains(*c))
            .map(|c| format!("may not contain '{c}'")),
    };
    match wrong {
        Some(text) => Err(Status::bad_request(format!(
            "Name parameter invalid: {}: {text}",
            go_quote(name)
        ))),
        None => Ok(()),
    }
}
