//! DELETE: one object or a collection of them.
//!
//! Owns DeleteOptions (from the body, else the query), preconditions, the grace period of pods and
//! what a deletion answers. What holds an object back (finalizers, grace) is the store's business.
//!
//! Invariant: a pod that runs somewhere is only marked; its kubelet ends it with a grace of zero.

use http::StatusCode;
use serde_json::Value;

use super::{Request, decode, strategy, subresources};
use crate::apiserver::body::Response;
use crate::apiserver::crd;
use crate::apiserver::request::ListOptions;
use crate::apiserver::schema::{ListMeta, Schema, custom_list_json, list_json, sorted_json};
use crate::apiserver::selectors::Selection;
use crate::apiserver::status::{Details, Status};
use crate::apiserver::store::{Deleted, StoreError, Stored, Updated};

/// What a deletion insists on and how gentle it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeleteOptions {
    pub(super) grace_seconds: Option<i64>,
    uid: Option<String>,
    resource_version: Option<String>,
    dry_run: bool,
}

impl DeleteOptions {
    pub(super) fn from_value(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            grace_seconds: value["gracePeriodSeconds"].as_i64(),
            uid: text(&value["preconditions"]["uid"]),
            resource_version: text(&value["preconditions"]["resourceVersion"]),
            dry_run: value["dryRun"]
                .as_array()
                .is_some_and(|stages| !stages.is_empty()),
        }
    }

    fn decode(request: &Request<'_>) -> Result<Self, Status> {
        let mut options = if request.exchange.body.is_empty() {
            let seconds = request.exchange.query.first("gracePeriodSeconds");
            Self {
                grace_seconds: seconds.and_then(|text| text.parse().ok()),
                ..Self::default()
            }
        } else {
            let body = decode::other(request, "meta.k8s.io/v1", "DeleteOptions")?;
            Self::from_value(&body)
        };
        options.dry_run |= request.dry_run();
        Ok(options)
    }
}

pub(super) fn one(request: &Request<'_>) -> Result<Response, Status> {
    let options = DeleteOptions::decode(request)?;
    delete(request, &options)
}

/// Deletes the object the request names.
pub(super) fn delete(request: &Request<'_>, options: &DeleteOptions) -> Result<Response, Status> {
    let resource = request.resource;
    let protected = matches!(request.name(), "default" | "kube-system" | "kube-public");
    if resource.kind == "Namespace" && protected {
        let text = "this namespace may not be deleted";
        let details = Details::object("", "namespaces", request.name());
        let text = format!("namespaces \"{}\" is forbidden: {text}", request.name());
        return Err(Status::forbidden(text, details));
    }
    loop {
        let old = request.read()?;
        check_preconditions(request, options, &old)?;
        let grace = grace_seconds(request, options, &old.value);
        if options.dry_run {
            return gone(request, &old);
        }
        if crd::awaits_cleanup(resource, &old) {
            return retire(request, &old);
        }
        let (namespace, name) = (request.object_namespace(), request.name());
        let expected = Some(old.resource_version);
        match request
            .state
            .store
            .delete(resource, (namespace, name), expected, grace)
        {
            Ok(Deleted::Gone(last)) => {
                request.written(name);
                return gone(request, &last);
            }
            Ok(Deleted::Pending(stored)) => {
                request.written(name);
                return request.answer_stored(StatusCode::OK, &stored);
            }
            Err(StoreError::Conflict { .. }) => {} // written in between: judge it again
            Err(error) => return Err(request.store_error(name, &error)),
        }
    }
}

/// Marks a CRD, answers with it, and lets it and its objects go.
fn retire(request: &Request<'_>, old: &Stored) -> Result<Response, Status> {
    let marked = crd::marked_for_deletion(old);
    match request
        .state
        .store
        .update(request.resource, marked, old.resource_version)
    {
        Ok(Updated::Written(stored) | Updated::Unchanged(stored) | Updated::Removed(stored)) => {
            let answer = request.answer_stored(StatusCode::OK, &stored);
            request.written(request.name());
            answer
        }
        Err(error) => Err(request.store_error(request.name(), &error)),
    }
}

fn gone(request: &Request<'_>, old: &Stored) -> Result<Response, Status> {
    if strategy::returns_deleted(request.resource) && request.resource.custom.is_none() {
        return request.answer_stored(StatusCode::OK, old);
    }
    let resource = request.resource;
    let mut details = Details::object(&resource.group, &resource.resource, &old.name);
    details.uid = old.value["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let status = Status {
        success: true,
        details: Some(Box::new(details)),
        ..Status::default()
    };
    Ok(request.state.answer_status(request.exchange, &status))
}

/// The seconds a pod is given; none for other kinds, zero for pods that run nowhere or are done.
fn grace_seconds(request: &Request<'_>, options: &DeleteOptions, old: &Value) -> Option<i64> {
    if request.resource.kind != "Pod" || request.resource.custom.is_some() {
        return None;
    }
    let spec = &old["spec"];
    let unbound = spec["nodeName"].as_str().is_none_or(str::is_empty);
    let done = matches!(
        old["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if unbound || done {
        return Some(0);
    }
    let wanted = options
        .grace_seconds
        .or_else(|| spec["terminationGracePeriodSeconds"].as_i64());
    let wanted = wanted.unwrap_or(30).max(0);
    // A second deletion may only shorten what is left.
    let left = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    Some(left.map_or(wanted, |left| wanted.min(left)))
}

fn check_preconditions(
    request: &Request<'_>,
    options: &DeleteOptions,
    old: &Stored,
) -> Result<(), Status> {
    let version = old.resource_version.to_string();
    let uid = old.value["metadata"]["uid"].as_str().unwrap_or_default();
    let refuse = |inner: String| {
        let (group, kind) = (&request.resource.group, &request.resource.kind);
        Err(Status::conflict(group, kind, request.name(), &inner))
    };
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        return refuse(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The \
             object might have been deleted and then recreated"
        ));
    }
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != version)
    {
        return refuse(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion \
             in record ({version}). The object might have been modified"
        ));
    }
    Ok(())
}

/// Deletes everything a list with the request's selectors would show, and answers with that list.
pub(super) fn collection(request: &Request<'_>) -> Result<Response, Status> {
    let options = DeleteOptions::decode(request)?;
    let query = ListOptions::decode(&request.exchange.query)?;
    let (labels, fields) = query.selectors()?;
    let resource = request.resource;
    let fields = fields
        .convert(resource)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    let selection = Selection {
        labels,
        fields,
        ..Selection::default()
    };
    let namespace = request.object_namespace();
    let namespace = (!namespace.is_empty()).then_some(namespace);
    let all = request.state.store.read_all(resource, namespace);
    let revision = request.state.store.revision();
    let matching = all
        .into_iter()
        .filter(|stored| selection.matches(resource, &stored.value));
    let matching: Vec<_> = matching.collect();
    for stored in &matching {
        if options.dry_run {
            continue;
        }
        let grace = grace_seconds(request, &options, &stored.value);
        let deleted =
            request
                .state
                .store
                .delete(resource, (&stored.namespace, &stored.name), None, grace);
        match deleted {
            Ok(_) => request.written(&stored.name),
            Err(StoreError::NotFound) => {} // somebody else was faster
            Err(error) => return Err(request.store_error(&stored.name, &error)),
        }
    }
    list(request, revision, &matching)
}

fn list(
    request: &Request<'_>,
    revision: u64,
    objects: &[std::sync::Arc<Stored>],
) -> Result<Response, Status> {
    let resource = request.resource;
    let (version, kind) = (resource.api_version(), &resource.kind);
    let metadata = ListMeta {
        resource_version: revision.to_string(),
        ..ListMeta::default()
    };
    let custom = resource.custom.is_some();
    let mut items = Vec::with_capacity(objects.len());
    for stored in objects {
        items.push(if custom {
            sorted_json(&stored.value)
        } else {
            let item = Schema::builtin().json_item(&version, kind, &stored.value);
            item.map_err(|error| Status::internal(&error.to_string()))?
        });
    }
    let items = items.iter().map(Vec::as_slice);
    let mut body = if custom {
        custom_list_json(&version, &resource.list_kind(), &metadata, items)
    } else {
        list_json(&version, &resource.list_kind(), &metadata, items)
    };
    body.push(b'\n');
    let response = http::Response::builder()
        .status(StatusCode::OK)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.into());
    Ok(response.expect("constant headers are valid"))
}

/// A pod's eviction is its deletion with the options the eviction carries.
pub(super) fn eviction(request: &Request<'_>) -> Result<Response, Status> {
    let body = decode::other(request, "policy/v1", "Eviction")?;
    let options = DeleteOptions::from_value(&body["deleteOptions"]);
    delete(request, &options)?;
    Ok(subresources::created(request))
}
