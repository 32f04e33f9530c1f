//! Subresources: views of an object, and actions on it.
//!
//! Owns what a subresource is of which kind: `status`, `finalize` and `approval` are the object
//! itself; `scale` is a view of its replicas; `binding`, `eviction`, `token` and `log` act.
//! Streaming into containers (`exec`, `attach`, `portforward`, `proxy`) is refused: there are no
//! containers.
//!
//! Invariant: a subresource that discovery does not list is a 404.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Request, decode, delete, update};
use crate::apiserver::body::{Body, Response};
use crate::apiserver::patch;
use crate::apiserver::status::Status;
use crate::apiserver::store::{StoreError, Stored, Updated};

pub(super) fn serve(request: &Request<'_>) -> Result<Response, Status> {
    let (resource, info) = (request.resource, &request.exchange.info);
    let subresource = info.subresource.as_str();
    if !resource
        .subresources
        .iter()
        .any(|known| known == subresource)
    {
        return Err(Status::no_such_resource());
    }
    let post = request.exchange.method == Method::POST;
    match subresource {
        "scale" => scale(request),
        "binding" if post => bind(request),
        "eviction" if post => delete::eviction(request),
        "token" if post => token(request),
        "binding" | "eviction" | "token" => Err(Status::method_not_allowed()),
        "log" => log(request),
        "exec" | "attach" | "portforward" | "proxy" => {
            request.read()?;
            let text = "streaming into containers is not supported: this server has none";
            Err(Status::bad_request(text))
        }
        same_object => update::object_subresource(request, same_object),
    }
}

/// The replicas of a workload as `autoscaling/v1` Scale.
fn scale(request: &Request<'_>) -> Result<Response, Status> {
    let old = request.read()?;
    let paths = ScalePaths::of(request);
    let shown = paths.view(&old);
    let wanted = match request.exchange.method {
        Method::GET => {
            return request
                .state
                .answer_value(request.exchange, StatusCode::OK, &shown);
        }
        Method::PUT => decode::other(request, "autoscaling/v1", "Scale")?,
        Method::PATCH => {
            let difference: Value = serde_json::from_slice(&request.exchange.body)
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
            if difference.is_array() {
                patch::json_patch(&shown, &difference)
                    .map_err(|error| Status::bad_request(error.to_string()))?
            } else {
                patch::merge(&shown, &difference)
            }
        }
        _ => return Err(Status::method_not_allowed()),
    };
    let sent = wanted["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    if !sent.is_empty() && sent != old.resource_version.to_string() {
        return Err(request.store_error(
            request.name(),
            &StoreError::Conflict {
                current: old.resource_version,
            },
        ));
    }
    let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
    let mut object = old.value.clone();
    let changed = object.pointer(&paths.spec).and_then(Value::as_i64) != Some(replicas);
    place(&mut object, &paths.spec, json!(replicas));
    if changed && let Some(generation) = object["metadata"]["generation"].as_i64() {
        object["metadata"]["generation"] = json!(generation + 1);
    }
    let stored = if request.dry_run() {
        old
    } else {
        match request
            .state
            .store
            .update(request.resource, object, old.resource_version)
        {
            Ok(
                Updated::Written(stored) | Updated::Unchanged(stored) | Updated::Removed(stored),
            ) => stored,
            Err(error) => return Err(request.store_error(request.name(), &error)),
        }
    };
    request
        .state
        .answer_value(request.exchange, StatusCode::OK, &paths.view(&stored))
}

/// Where a kind keeps its replicas, as JSON pointers.
struct ScalePaths {
    spec: String,
    status: String,
    selector: Option<String>,
}

impl ScalePaths {
    fn of(request: &Request<'_>) -> Self {
        let pointer = |path: &Value| {
            let path = path.as_str().unwrap_or_default();
            path.replace('.', "/")
        };
        match &request.resource.custom {
            Some(custom) => {
                let scale = &custom.version["subresources"]["scale"];
                Self {
                    spec: pointer(&scale["specReplicasPath"]),
                    status: pointer(&scale["statusReplicasPath"]),
                    selector: Some(pointer(&scale["labelSelectorPath"])),
                }
            }
            None => Self {
                spec: "/spec/replicas".to_owned(),
                status: "/status/replicas".to_owned(),
                selector: None,
            },
        }
    }

    fn view(&self, stored: &Stored) -> Value {
        let object = &stored.value;
        let metadata = &object["metadata"];
        let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let selector = match &self.selector {
            Some(pointer) => object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            None => {
                let labels = object["spec"]["selector"]["matchLabels"].as_object();
                let pairs = labels.into_iter().flatten();
                let pairs = pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
                pairs.collect::<Vec<_>>().join(",")
            }
        };
        json!({
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": stored.resource_version.to_string(),
                "creationTimestamp": metadata["creationTimestamp"],
            },
            "spec": {"replicas": count(&self.spec)},
            "status": {"replicas": count(&self.status), "selector": selector},
        })
    }
}

/// Sets the value at a pointer, making the objects on the way.
fn place(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for member in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[member];
    }
    *at = value;
}

/// Puts a pod on a node; `pods/x/binding`.
fn bind(request: &Request<'_>) -> Result<Response, Status> {
    let body = decode::other(request, "v1", "Binding")?;
    let node = body["target"]["name"].as_str().unwrap_or_default();
    let old = request.read()?;
    let refuse = |text: String| {
        let inner = format!("pod {} {text}", request.name());
        Err(Status::conflict("", "pods/binding", request.name(), &inner))
    };
    if !old.value["metadata"]["deletionTimestamp"].is_null() {
        return refuse("is being deleted, cannot be assigned to a host".to_owned());
    }
    let bound = old.value["spec"]["nodeName"].as_str().unwrap_or_default();
    if !bound.is_empty() {
        return refuse(format!("is already assigned to node \"{bound}\""));
    }
    let mut pod = old.value.clone();
    pod["spec"]["nodeName"] = json!(node);
    let now = super::now();
    let conditions = super::defaults::section(&mut pod, "status");
    super::defaults::set(conditions, "conditions", json!([]));
    if let Some(conditions) = conditions["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(json!({
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": null,
            "lastTransitionTime": now,
        }));
    }
    if !request.dry_run()
        && let Err(error) = request
            .state
            .store
            .update(request.resource, pod, old.resource_version)
    {
        return Err(request.store_error(request.name(), &error));
    }
    Ok(created(request))
}

/// The 201 Success of an action.
pub(super) fn created(request: &Request<'_>) -> Response {
    let status = Status {
        success: true,
        code: 201,
        ..Status::default()
    };
    request.state.answer_status(request.exchange, &status)
}

/// A token for a service account; `serviceaccounts/x/token`.
fn token(request: &Request<'_>) -> Result<Response, Status> {
    let mut body = decode::other(request, "authentication.k8s.io/v1", "TokenRequest")?;
    let account = request.read()?;
    let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    let uid = account.value["metadata"]["uid"]
        .as_str()
        .unwrap_or_default();
    let tokens = request.state.authenticator.service_accounts();
    let issued = tokens.issue(request.namespace(), request.name(), uid, seconds);
    body["kind"] = json!("TokenRequest");
    body["apiVersion"] = json!("authentication.k8s.io/v1");
    body["metadata"] = json!({
        "name": request.name(),
        "namespace": request.namespace(),
        "creationTimestamp": super::now(),
    });
    body["spec"]["expirationSeconds"] = json!(seconds);
    if !body["spec"]["audiences"].is_array() {
        body["spec"]["audiences"] = json!(["https://kubernetes.default.svc"]);
    }
    body["status"] = json!({
        "token": issued.token,
        "expirationTimestamp": issued.expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    request
        .state
        .answer_value(request.exchange, StatusCode::CREATED, &body)
}

/// The log of a container that never ran: one line about it.
fn log(request: &Request<'_>) -> Result<Response, Status> {
    if request.exchange.method != Method::GET {
        return Err(Status::method_not_allowed());
    }
    let pod = request.read()?;
    if pod.value["spec"]["nodeName"]
        .as_str()
        .is_none_or(str::is_empty)
    {
        let text = format!("pod {} does not have a host assigned", request.name());
        let mut status = Status::bad_request(text);
        status.details = Some(Box::default());
        return Err(status);
    }
    let text = format!("{} runs nowhere: its kubelet is hollow\n", request.name());
    let response = http::Response::builder()
        .status(StatusCode::OK)
        .header(http::header::CONTENT_TYPE, "text/plain")
        .body(Body::from(text));
    Ok(response.expect("constant headers are valid"))
}
