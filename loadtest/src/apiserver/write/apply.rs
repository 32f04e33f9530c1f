//! Server-side apply: what a manager sends becomes what it owns.
//!
//! Owns the merge of an applied configuration into the stored object, the removal of what the
//! manager no longer sends and nobody else owns, and conflicts with other managers. The merge of
//! lists follows the strategic merge keys, which agree with the list maps of the schema for the
//! types people apply.
//!
//! Invariant: without force, no value of another manager changes.

use http::StatusCode;
use serde_json::{Value, json};

use super::managed_fields::{self, Writer};
use super::update::{checked, entries_of, patch_error, topology};
use super::{Request, create, decode, now};
use crate::apiserver::body::Response;
use crate::apiserver::patch::{self, MergeKeys};
use crate::apiserver::status::{Cause, Details, Status};
use crate::apiserver::store::{Stored, Updated};

/// Server-side apply onto an existing object.
pub(super) fn onto(
    request: &Request<'_>,
    subresource: &str,
    old: &Stored,
    sent: &Value,
    (manager, force): (&str, bool),
) -> Result<(Value, Vec<Value>), Status> {
    let resource = request.resource;
    let api_version = resource.api_version();
    let time = now();
    let writer = Writer {
        manager,
        operation: "Apply",
        api_version: &api_version,
        subresource,
        time: &time,
    };
    let topology = topology(resource);
    let entries = entries_of(&Value::Null, &old.value);
    let claimed = managed_fields::all_fields(topology, sent);
    let kind = if resource.custom.is_some() {
        ""
    } else {
        resource.kind.as_str()
    };
    let mut merged = patch::strategic_merge(&old.value, sent, MergeKeys::of(kind))
        .map_err(|error| patch_error(request, error))?;
    let changes = managed_fields::compare(topology, &old.value, &merged);
    let conflicts = managed_fields::conflicts(&entries, writer, &changes.written);
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    let mut others: Vec<Value> = entries;
    if force {
        others = managed_fields::take(&others, writer, &changes.written);
    }
    let before = managed_fields::applied_before(&others, writer);
    let rest: Vec<Value> = others
        .iter()
        .filter(|entry| entry["manager"] != manager || entry["operation"] != "Apply")
        .cloned()
        .collect();
    for path in before.paths() {
        let kept = claimed.paths().iter().any(|claim| claim.starts_with(&path));
        if !kept && !managed_fields::owned(&rest, &path) {
            managed_fields::remove_path(topology, &mut merged, &path);
        }
    }
    let entries = managed_fields::apply(&others, writer, &claimed);
    let object = checked(request, merged)?;
    Ok((object, entries))
}

/// Server-side apply of an object that does not exist: it is created.
pub(super) fn missing(
    request: &Request<'_>,
    object: &Value,
    manager: &str,
) -> Result<Response, Status> {
    let mut object = object.clone();
    object["metadata"]["name"] = json!(request.name());
    decode::check_namespace(request, &mut object)?;
    let claimed = managed_fields::all_fields(topology(request.resource), &object);
    let api_version = request.resource.api_version();
    let writer = Writer {
        manager,
        operation: "Apply",
        api_version: &api_version,
        subresource: "",
        time: &now(),
    };
    let entries = managed_fields::apply(&[], writer, &claimed);
    let created = create::create(request, object)?;
    // The creation named the user agent as owner; an apply owns what it sent.
    if let Ok(stored) = request.read()
        && !request.dry_run()
    {
        let mut value = stored.value.clone();
        value["metadata"]["managedFields"] = Value::Array(entries);
        let updated = request
            .state
            .store
            .update(request.resource, value, stored.resource_version);
        if let Ok(Updated::Written(stored)) = updated {
            return request.answer_stored(StatusCode::CREATED, &stored);
        }
    }
    Ok(created)
}

fn conflict(conflicts: &[(String, Vec<String>)]) -> Status {
    let causes: Vec<Cause> = conflicts
        .iter()
        .flat_map(|(manager, paths)| {
            paths.iter().map(move |path| {
                let text = format!("conflict with {manager}");
                Cause::field("FieldManagerConflict", text, path)
            })
        })
        .collect();
    let listed = match conflicts {
        [(manager, paths)] if paths.len() == 1 => format!("{manager}: {}", paths[0]),
        several => {
            let lines = several.iter().map(|(manager, paths)| {
                let paths: Vec<String> = paths.iter().map(|path| format!("- {path}")).collect();
                format!("{manager}:\n{}", paths.join("\n"))
            });
            format!(
                "conflicts with {}",
                lines.collect::<Vec<_>>().join("\nconflicts with ")
            )
        }
    };
    let (count, plural) = (causes.len(), if causes.len() == 1 { "" } else { "s" });
    let listed = if count == 1 {
        format!("conflict with {listed}")
    } else {
        listed
    };
    let mut status = Status::conflict("", "", "", "");
    status.message = format!("Apply failed with {count} conflict{plural}: {listed}");
    status.details = Some(Box::new(Details {
        causes,
        ..Details::default()
    }));
    status
}
