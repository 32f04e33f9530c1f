//! POST: new objects.
//!
//! Owns the order of the steps (decode, defaults, ownership, admission, strategy, validation,
//! store) and what only creation does: generated names, uid and creation time, the address of a
//! service, and the life of the namespace.
//!
//! Invariant: an object is created in a namespace that exists and is not being deleted.

use http::StatusCode;
use serde_json::{Value, json};

use super::managed_fields::{self, Topology, Writer};
use super::strategy::remove;
use super::{Request, admission, decode, defaults, names, now, strategy};
use crate::apiserver::body::Response;
use crate::apiserver::resources::Resource;
use crate::apiserver::reviews;
use crate::apiserver::schema::Schema;
use crate::apiserver::server::State;
use crate::apiserver::status::{Cause, Details, Status};
use crate::apiserver::store::StoreError;

pub(super) fn serve(request: &Request<'_>) -> Result<Response, Status> {
    let object = decode::object(request)?;
    create(request, object)
}

/// Creates a decoded object; a PUT of a missing one ends up here too.
pub(super) fn create(request: &Request<'_>, mut object: Value) -> Result<Response, Status> {
    let resource = request.resource;
    if object["metadata"]["resourceVersion"]
        .as_str()
        .is_some_and(|version| !version.is_empty())
    {
        let text = "resourceVersion should not be set on objects to be created";
        return Err(Status::bad_request(text));
    }
    let generated = name_object(request, &mut object)?;
    admission::check(request, Some(&object))?;
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    check_namespace_life(request, &name)?;
    let now = now();
    own_fields(request, &mut object);
    prepare(request.state, resource, &mut object, &now);
    if resource.kind == "CertificateSigningRequest" {
        let user = &request.exchange.user;
        object["spec"]["username"] = json!(user.name);
        object["spec"]["groups"] = json!(user.groups);
    }
    let mut causes: Vec<Cause> = names::check(&resource.resource, &name)
        .into_iter()
        .collect();
    causes.extend(strategy::validate(resource, &object));
    if !causes.is_empty() {
        return Err(Status::invalid(
            &resource.group,
            &resource.kind,
            &name,
            causes,
        ));
    }
    if let Some(warning) = strategy::warning(resource, &object) {
        request.warn(warning.to_owned());
    }
    let object = request.stored_form(object)?;
    if request.dry_run() {
        let taken = request
            .state
            .store
            .read(resource, request.object_namespace(), &name);
        if taken.is_some() {
            return Err(request.store_error(&name, &StoreError::AlreadyExists));
        }
        return request.answer(StatusCode::CREATED, object);
    }
    let ttl = (resource.resource == "events").then_some(request.state.profile.event_ttl);
    let stored = match request.state.store.create(resource, object, ttl) {
        Ok(stored) => stored,
        Err(StoreError::AlreadyExists) if generated => {
            // The suffix was taken: rare enough to let the client try again, as upstream says.
            let (group, resource) = (&resource.group, &resource.resource);
            return Err(Status::already_exists(group, resource, &name));
        }
        Err(error) => return Err(request.store_error(&name, &error)),
    };
    request.written(&name);
    request.answer_stored(StatusCode::CREATED, &stored)
}

/// Creates an object of the server's own, past authorisation and ownership of fields; an existing
/// one of that name is left alone.
pub(in super::super) fn create_trusted(state: &State, resource: &Resource, mut object: Value) {
    defaults::apply(&resource.kind, &mut object);
    prepare(state, resource, &mut object, &now());
    let (version, kind) = (resource.api_version(), &resource.kind);
    let stored = Schema::builtin().stored(&version, kind, &object);
    let stored = stored.expect("the server's own objects follow the schema");
    // AlreadyExists is the purpose: the object is there.
    let _ = state.store.create(resource, stored, None);
}

/// Identity and times of a new object.
fn new_metadata(object: &mut Value, now: &str) {
    let metadata = &mut object["metadata"];
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        remove(metadata, field);
    }
    metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
    metadata["creationTimestamp"] = json!(now);
}

fn prepare(state: &State, resource: &Resource, object: &mut Value, now: &str) {
    new_metadata(object, now);
    strategy::prepare_create(resource, object, now);
    if resource.kind == "Service" && resource.custom.is_none() {
        allocate_addresses(state, resource, object);
    }
}

/// Applies defaults and names the writer as owner of every field it sent.
fn own_fields(request: &Request<'_>, object: &mut Value) {
    if request.resource.custom.is_none() {
        defaults::apply(&request.resource.kind, object);
    }
    remove(&mut object["metadata"], "managedFields");
    let entries = owned_on_create(request, object);
    if !entries.is_empty() {
        object["metadata"]["managedFields"] = Value::Array(entries);
    }
}

/// The managed fields of a new object: everything in it but its status.
pub(in super::super) fn owned_on_create(request: &Request<'_>, object: &Value) -> Vec<Value> {
    let resource = request.resource;
    let api_version = resource.api_version();
    let custom = resource.custom.is_some();
    let mut after = request.printed_form(object);
    let mut before = if custom {
        Value::Null
    } else {
        empty(&api_version, &resource.kind)
    };
    if strategy::has_status(resource) || reviews::is_review(resource) {
        remove(&mut after, "status");
        remove(&mut before, "status");
    }
    let topology = Topology::of(if custom { "" } else { &resource.kind });
    let mut changes = managed_fields::compare(topology, &before, &after);
    changes.removed = managed_fields::FieldSet::default();
    let writer = Writer {
        manager: &request.manager(),
        operation: "Update",
        api_version: &api_version,
        subresource: "",
        time: &now(),
    };
    managed_fields::update(&[], writer, &changes)
}

/// The object nothing was ever written to, as the server prints it.
fn empty(api_version: &str, kind: &str) -> Value {
    let schema = Schema::builtin();
    let printed = schema.json(api_version, kind, &json!({}));
    let printed = printed
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    printed.unwrap_or(Value::Null)
}

/// Fills in a generated name; true when it did.
fn name_object(request: &Request<'_>, object: &mut Value) -> Result<bool, Status> {
    let metadata = &mut object["metadata"];
    if metadata["name"]
        .as_str()
        .is_some_and(|name| !name.is_empty())
    {
        return Ok(false);
    }
    let prefix = metadata["generateName"].as_str().unwrap_or_default();
    if prefix.is_empty() {
        let text = "Required value: name or generateName is required";
        let cause = Cause::field("FieldValueRequired", text, "metadata.name");
        let (group, kind) = (&request.resource.group, &request.resource.kind);
        return Err(Status::invalid(group, kind, "", vec![cause]));
    }
    metadata["name"] = json!(names::generate(prefix));
    Ok(true)
}

/// Admission plugin NamespaceLifecycle: 404 without the namespace, 403 while it terminates.
fn check_namespace_life(request: &Request<'_>, name: &str) -> Result<(), Status> {
    let namespace = request.object_namespace();
    if namespace.is_empty() {
        return Ok(());
    }
    let namespaces = request.state.registry.find("", "v1", "namespaces");
    let namespaces = namespaces.ok_or_else(|| Status::internal("namespaces are not served"))?;
    let Some(found) = request.state.store.read(&namespaces, "", namespace) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    if found.value["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    let resource = request.resource;
    let text = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let qualified = resource.qualified();
    let mut details = Details::object(&resource.group, &resource.resource, name);
    details.causes = vec![Cause::field(
        "NamespaceTerminating",
        format!("namespace {namespace} is being terminated"),
        "metadata.namespace",
    )];
    Err(Status::forbidden(
        format!("{qualified} \"{name}\" is forbidden: {text}"),
        details,
    ))
}

/// Gives a service its cluster address and node ports.
fn allocate_addresses(state: &State, resource: &Resource, object: &mut Value) {
    let services = state.store.read_all(resource, None);
    let taken = |address: &str| {
        services
            .iter()
            .any(|service| service.value["spec"]["clusterIP"] == address)
    };
    let spec = &mut object["spec"];
    if spec["type"] == "ExternalName" {
        return;
    }
    if spec["clusterIP"].as_str().is_none_or(str::is_empty) {
        // 10.96.0.0/12 holds a million addresses, so a free one is found at once.
        let mut address = random_address();
        while taken(&address) {
            address = random_address();
        }
        spec["clusterIP"] = json!(address);
    }
    spec["clusterIPs"] = json!([spec["clusterIP"].clone()]);
    defaults::set(spec, "ipFamilies", json!(["IPv4"]));
    defaults::set(spec, "ipFamilyPolicy", json!("SingleStack"));
    if matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
        defaults::each(&mut spec["ports"], |port| {
            defaults::set(port, "nodePort", json!(fastrand::u32(30_000..32_768)));
        });
    }
    object["status"] = json!({"loadBalancer": {}});
}

fn random_address() -> String {
    let host = fastrand::u32(2..(1 << 20) - 1);
    format!(
        "10.{}.{}.{}",
        96 + (host >> 16),
        (host >> 8) & 255,
        host & 255
    )
}
