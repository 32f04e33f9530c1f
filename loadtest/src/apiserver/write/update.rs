//! PUT and PATCH: existing objects, whole or by difference.
//!
//! Owns optimistic concurrency: which resource version and uid a write insists on, when it may do
//! without, and how often a patch is tried again on a newer object. Owns server-side apply, as a
//! merge of what was sent into what is stored. What a patch does to a document is in
//! [`patch`](crate::apiserver::patch).
//!
//! Invariant: a write is made only on the object it was computed from.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::managed_fields::{self, Topology, Writer};
use super::strategy::{prepare_update, remove, validate, validate_change};
use super::{Request, apply, create, decode, defaults, now, strategy};
use crate::apiserver::body::Response;
use crate::apiserver::patch::{self, MergeKeys, PatchError};
use crate::apiserver::resources::Resource;
use crate::apiserver::schema::{Schema, sorted_json};
use crate::apiserver::status::{Cause, Status};
use crate::apiserver::store::{StoreError, Stored, Updated};

/// How often a patch without a resource version is computed anew.
const ATTEMPTS_MAX: usize = 5;

/// A whole object.
pub(super) fn put(request: &Request<'_>, subresource: &str) -> Result<Response, Status> {
    let object = decode::object(request)?;
    decode::check_name(request, &object)?;
    let Ok(old) = request.read() else {
        return put_missing(request, subresource, object);
    };
    check_uid(
        request,
        &object,
        old.value["metadata"]["uid"].as_str().unwrap_or_default(),
    )?;
    let sent = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    let conditional = !matches!(sent, "" | "0");
    if !conditional && !strategy::allows_unconditional_update(request.resource) {
        return Err(unconditional(request));
    }
    if conditional && sent != old.resource_version.to_string() {
        return Err(modified(request));
    }
    let mut old = old;
    for _ in 0..ATTEMPTS_MAX {
        match write(request, subresource, &old, object.clone(), None) {
            Err(Failure::Conflict) if !conditional => old = request.read()?,
            Err(Failure::Conflict) => return Err(modified(request)),
            Err(Failure::Refused(status)) => return Err(*status),
            Ok(response) => return Ok(response),
        }
    }
    Err(modified(request))
}

fn put_missing(
    request: &Request<'_>,
    subresource: &str,
    mut object: Value,
) -> Result<Response, Status> {
    check_uid(request, &object, "")?;
    if !subresource.is_empty() || !strategy::allows_create_on_update(request.resource) {
        return Err(request.not_found());
    }
    let sent = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    if !matches!(sent, "" | "0") {
        return Err(modified(request));
    }
    remove(&mut object["metadata"], "resourceVersion");
    create::create(request, object)
}

/// A difference: JSON Patch, merge patch, strategic merge patch, or apply.
pub(super) fn patch(request: &Request<'_>, subresource: &str) -> Result<Response, Status> {
    let patch = Patch::decode(request)?;
    for _ in 0..ATTEMPTS_MAX {
        let old = match request.read() {
            Ok(old) => old,
            Err(missing) => match &patch {
                Patch::Apply {
                    object, manager, ..
                } if subresource.is_empty() => {
                    return apply::missing(request, object, manager);
                }
                Patch::Apply { .. } | Patch::Json(_) | Patch::Merge(_) | Patch::Strategic(_) => {
                    return Err(missing);
                }
            },
        };
        let (object, entries) = patch.apply(request, subresource, &old)?;
        let sent = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default();
        let uid = old.value["metadata"]["uid"].as_str().unwrap_or_default();
        check_uid(request, &object, uid)?;
        let insisted = sent != old.resource_version.to_string() && !sent.is_empty();
        if insisted {
            return Err(modified(request));
        }
        match write(request, subresource, &old, object, entries) {
            Err(Failure::Conflict) => {}
            Err(Failure::Refused(status)) => return Err(*status),
            Ok(response) => return Ok(response),
        }
    }
    Err(modified(request))
}

enum Failure {
    /// Somebody else wrote in between.
    Conflict,
    Refused(Box<Status>),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Finishes an object made from `old` and stores it; `entries` are the managed fields of an apply.
fn write(
    request: &Request<'_>,
    subresource: &str,
    old: &Arc<Stored>,
    mut object: Value,
    entries: Option<Vec<Value>>,
) -> Result<Response, Failure> {
    let resource = request.resource;
    if resource.custom.is_none() {
        defaults::apply(&resource.kind, &mut object);
    }
    let mut object = request.stored_form(object)?; // so that only real changes count as changes
    let applied = entries.is_some();
    let entries = entries.unwrap_or_else(|| entries_of(&object, &old.value));
    prepare_update(resource, subresource, &old.value, &mut object);
    remove(&mut object["metadata"], "managedFields");
    let entries = if applied {
        entries
    } else {
        own_changes(request, subresource, old, &object, &entries)
    };
    if !entries.is_empty() {
        object["metadata"]["managedFields"] = Value::Array(entries);
    }
    object["metadata"]["resourceVersion"] = json!(old.resource_version.to_string());
    let mut causes = validate(resource, &object);
    causes.extend(validate_change(resource, &old.value, &object));
    if !causes.is_empty() {
        let (group, kind) = (&resource.group, &resource.kind);
        return Err(Status::invalid(group, kind, request.name(), causes).into());
    }
    let object = request.stored_form(object)?;
    if request.dry_run() {
        return Ok(request.answer(StatusCode::OK, object)?);
    }
    let answer = match request
        .state
        .store
        .update(resource, object.clone(), old.resource_version)
    {
        Ok(Updated::Written(stored) | Updated::Unchanged(stored)) => {
            request.answer_stored(StatusCode::OK, &stored)
        }
        // The object is gone; the answer shows it as it was written, at its last version.
        Ok(Updated::Removed(_)) => request.answer(StatusCode::OK, object),
        Err(StoreError::Conflict { .. }) => return Err(Failure::Conflict),
        Err(error) => return Err(request.store_error(request.name(), &error).into()),
    };
    request.written(request.name());
    Ok(answer?)
}

/// The entries the client sent back, unless it sent none; an empty list resets them.
pub(super) fn entries_of(object: &Value, old: &Value) -> Vec<Value> {
    let sent = object["metadata"]["managedFields"].as_array();
    let old = old["metadata"]["managedFields"].as_array();
    sent.or(old).cloned().unwrap_or_default()
}

fn own_changes(
    request: &Request<'_>,
    subresource: &str,
    old: &Stored,
    object: &Value,
    entries: &[Value],
) -> Vec<Value> {
    if entries.is_empty() {
        return Vec::new(); // fields nobody owns are not tracked from the middle of their life
    }
    let resource = request.resource;
    let api_version = resource.api_version();
    let (mut before, mut after) = (
        request.printed_form(&old.value),
        request.printed_form(object),
    );
    if subresource.is_empty() && strategy::has_status(resource) {
        remove(&mut before, "status");
        remove(&mut after, "status");
    }
    let changes = managed_fields::compare(topology(resource), &before, &after);
    let writer = Writer {
        manager: &request.manager(),
        operation: "Update",
        api_version: &api_version,
        subresource,
        time: &now(),
    };
    managed_fields::update(entries, writer, &changes)
}

pub(super) fn topology(resource: &Resource) -> Topology<'_> {
    Topology::of(if resource.custom.is_some() {
        ""
    } else {
        &resource.kind
    })
}

enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply {
        object: Value,
        force: bool,
        manager: String,
    },
}

impl Patch {
    fn decode(request: &Request<'_>) -> Result<Self, Status> {
        let header = request.exchange.headers.get(http::header::CONTENT_TYPE);
        let header = header
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = header.split(';').next().unwrap_or_default().trim();
        let body = &request.exchange.body;
        let json = || {
            serde_json::from_slice(body).map_err(|_| {
                let error = super::go_json::syntax_error(body);
                Status::bad_request(format!("error decoding patch: {error}"))
            })
        };
        match media_type {
            "application/json-patch+json" => Ok(Self::Json(json()?)),
            "application/merge-patch+json" => Ok(Self::Merge(json()?)),
            "application/strategic-merge-patch+json" if request.resource.custom.is_some() => {
                Err(Status::unsupported_media_type(PATCHES_OF_CUSTOM))
            }
            "application/strategic-merge-patch+json" => Ok(Self::Strategic(json()?)),
            "application/apply-patch+yaml" => Self::decode_apply(request),
            _ => {
                let mut status = Status::unsupported_media_type("415: Unsupported Media Type");
                status.details = Some(Box::default());
                Err(status)
            }
        }
    }

    fn decode_apply(request: &Request<'_>) -> Result<Self, Status> {
        let query = &request.exchange.query;
        let manager = query.first("fieldManager").unwrap_or_default().to_owned();
        if manager.is_empty() {
            let text = "Required value: is required for apply patch";
            let cause = Cause::field("FieldValueRequired", text, "fieldManager");
            return Err(Status::invalid(
                "meta.k8s.io",
                "PatchOptions",
                "",
                vec![cause],
            ));
        }
        let mut object = decode::parse_yaml(&request.exchange.body)
            .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
        if !object.is_object() {
            return Err(Status::bad_request("error decoding YAML: not an object"));
        }
        if object["metadata"]
            .get("managedFields")
            .is_some_and(|fields| !fields.is_null())
        {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        if !object["metadata"].is_object() {
            object["metadata"] = Value::Object(Map::new());
        }
        if let Some(why) = decode::judge_unknown(request, &object)? {
            return Err(request.cannot_be_handled(&why));
        }
        let force = query
            .first("force")
            .is_some_and(|force| force != "false" && force != "0");
        Ok(Self::Apply {
            object,
            force,
            manager,
        })
    }

    /// The object after the patch, and the managed fields when the patch decides them.
    fn apply(
        &self,
        request: &Request<'_>,
        subresource: &str,
        old: &Stored,
    ) -> Result<(Value, Option<Vec<Value>>), Status> {
        let patched = match self {
            Self::Json(operations) => {
                let patched = patch::json_patch(&old.value, operations);
                patched.map_err(|error| patch_error(request, error))?
            }
            Self::Merge(difference) => {
                let patched = patch::merge(&old.value, difference);
                if let Some(mistake) = decode::time_mistake(&request.resource.kind, &patched) {
                    return Err(merge_mistake(request, old, difference, &patched, &mistake));
                }
                patched
            }
            Self::Strategic(difference) => {
                let keys = MergeKeys::of(&request.resource.kind);
                let patched = patch::strategic_merge(&old.value, difference, keys);
                patched.map_err(|error| patch_error(request, error))?
            }
            Self::Apply {
                object,
                force,
                manager,
            } => {
                let applied = apply::onto(request, subresource, old, object, (manager, *force))?;
                return Ok((applied.0, Some(applied.1)));
            }
        };
        Ok((checked(request, patched)?, None))
    }
}

const PATCHES_OF_CUSTOM: &str = "the body of the request was in an unknown format - accepted media types include: \
     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
     application/apply-patch+cbor";

/// A patched object must still be one: same name, same namespace, right types.
pub(super) fn checked(request: &Request<'_>, mut object: Value) -> Result<Value, Status> {
    let resource = request.resource;
    decode::check_name(request, &object)?;
    decode::check_namespace(request, &mut object)?;
    if let Some(mistake) = decode::time_mistake(&resource.kind, &object) {
        return Err(invalid_patch(&object, &mistake));
    }
    if resource.custom.is_none() {
        let (version, kind) = (resource.api_version(), &resource.kind);
        if let Err(error) = Schema::builtin().json(&version, kind, &object) {
            return Err(invalid_patch(&object, &error.to_string()));
        }
    }
    if let Some(why) = decode::judge_unknown(request, &object)? {
        return Err(Status::bad_request(why));
    }
    Ok(object)
}

pub(super) fn patch_error(request: &Request<'_>, error: PatchError) -> Status {
    match error {
        PatchError::Malformed(text) => Status::bad_request(text),
        PatchError::Unprocessable(text) => {
            let mut status = Status::invalid("", "", "", Vec::new());
            let _ = request;
            status.message =
                format!("the server rejected our request due to an error in our request: {text}");
            status.details = Some(Box::default());
            status
        }
    }
}

fn invalid_patch(object: &Value, mistake: &str) -> Status {
    let text = String::from_utf8_lossy(&sorted_json(object)).into_owned();
    let message = format!(
        "Invalid value: {}: {mistake}",
        super::super::authz::go_quote(&text)
    );
    Status::invalid(
        "",
        "",
        "",
        vec![Cause::field("FieldValueInvalid", message, "patch")],
    )
}

/// The refusal of a merge patch prints the merged document: what the patch touched with sorted
/// keys, the rest as it was.
fn merge_mistake(
    request: &Request<'_>,
    old: &Stored,
    difference: &Value,
    patched: &Value,
    mistake: &str,
) -> Status {
    let (version, kind) = (request.resource.api_version(), &request.resource.kind);
    let raw = Schema::builtin()
        .json(&version, kind, &old.value)
        .unwrap_or_default();
    let raw: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(&raw).unwrap_or_default();
    let members = patched
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| {
            let text = match raw.get(key) {
                Some(raw) if difference.get(key).is_none() => raw.get().to_owned(),
                Some(_) | None => String::from_utf8_lossy(&sorted_json(value)).into_owned(),
            };
            format!("\"{key}\":{text}")
        });
    let text = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
    let message = format!(
        "Invalid value: {}: {mistake}",
        super::super::authz::go_quote(&text)
    );
    Status::invalid(
        "",
        "",
        "",
        vec![Cause::field("FieldValueInvalid", message, "patch")],
    )
}

fn check_uid(request: &Request<'_>, object: &Value, actual: &str) -> Result<(), Status> {
    let sent = object["metadata"]["uid"].as_str().unwrap_or_default();
    if sent.is_empty() || sent == actual {
        return Ok(());
    }
    let resource = request.resource;
    let prefix = if resource.group.is_empty() || resource.custom.is_none() {
        resource.resource.clone()
    } else {
        format!("{}/{}", resource.group, resource.resource)
    };
    let namespace = request.object_namespace();
    let scope = if namespace.is_empty() {
        String::new()
    } else {
        format!("{namespace}/")
    };
    let name = request.name();
    let inner = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{prefix}/{scope}{name}, \
         ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {sent}, \
         UID in object meta: {actual}"
    );
    Err(Status::conflict(
        &resource.group,
        &resource.resource,
        name,
        &inner,
    ))
}

fn modified(request: &Request<'_>) -> Status {
    let (group, resource) = (&request.resource.group, &request.resource.resource);
    Status::conflict(group, resource, request.name(), super::MODIFIED)
}

fn unconditional(request: &Request<'_>) -> Status {
    let text = "Invalid value: 0: must be specified for an update";
    let cause = Cause::field("FieldValueInvalid", text, "metadata.resourceVersion");
    let (group, resource) = (&request.resource.group, &request.resource.resource);
    Status::invalid(group, resource, request.name(), vec![cause])
}

/// GET, PUT or PATCH of a subresource that is the object itself, such as `status`.
pub(super) fn object_subresource(
    request: &Request<'_>,
    subresource: &str,
) -> Result<Response, Status> {
    match request.exchange.method {
        Method::GET => request.answer_stored(StatusCode::OK, request.read()?.as_ref()),
        Method::PUT => put(request, subresource),
        Method::PATCH => patch(request, subresource),
        _ => Err(Status::method_not_allowed()),
    }
}
