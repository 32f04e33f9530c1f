//! Paths outside the resource tree: discovery, OpenAPI, version, health, metrics.
//!
//! Owns the documents clients learn the API from. They are made from the registry on every
//! request, so a new CRD shows at once. Refuses authorisation and everything under a resource.
//!
//! Invariant: what discovery lists is served, with exactly these verbs.

mod health;
mod openapi;

use std::sync::Arc;

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::body::{Body, Response};
use super::resources::Resource;
use super::server::{Exchange, State};

/// Answers a non-resource path; `None` when there is no such path (`404 page not found`).
pub fn serve(state: &Arc<State>, exchange: &Exchange) -> Option<Response> {
    if exchange.method != Method::GET && exchange.method != Method::HEAD {
        return None;
    }
    let path = exchange.info.path.trim_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        [""] => Some(root(state, exchange)),
        ["version"] => Some(plain(version(state), "application/json")),
        ["healthz" | "livez" | "readyz", ..] => {
            health::serve(&segments, &exchange.query, state.lifecycle.is_terminating())
        }
        ["metrics"] => Some(metrics(state)),
        ["openapi", "v2"] => Some(openapi::v2(state, exchange)),
        ["openapi", "v3", rest @ ..] => openapi::v3(state, rest),
        ["api"] => Some(groups_or(state, exchange, true, || versions(exchange))),
        ["apis"] => Some(groups_or(state, exchange, false, || group_list(state))),
        ["api", "v1"] => resource_list(state, exchange, "", "v1"),
        ["apis", group] => group_document(state, group)
            .map(|group| typed(state, exchange, with_type(group, "APIGroup"))),
        ["apis", group, version] => resource_list(state, exchange, group, version),
        _ => None,
    }
}

/// The version, indented as kube-apiserver 1.36 always prints it.
fn version(state: &State) -> String {
    VERSION.replace("GIT_VERSION", state.profile.version)
}

const VERSION: &str = r#"{
  "major": "1",
  "minor": "36",
  "emulationMajor": "1",
  "emulationMinor": "36",
  "minCompatibilityMajor": "1",
  "minCompatibilityMinor": "35",
  "gitVersion": "GIT_VERSION",
  "gitCommit": "$Format:%H$",
  "gitTreeState": "",
  "buildDate": "1970-01-01T00:00:00Z",
  "goVersion": "go1.26.6",
  "compiler": "gc",
  "platform": "linux/amd64"
}"#;

fn versions(exchange: &Exchange) -> Value {
    let host = exchange
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.or_else(|| exchange.uri.authority().map(http::uri::Authority::as_str));
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": host.unwrap_or_default()},
        ],
    })
}

fn group_list(state: &State) -> Value {
    let groups: Vec<Value> = group_names(state)
        .iter()
        .filter_map(|group| group_document(state, group))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// Served groups besides the core one, in the registry's order.
fn group_names(state: &State) -> Vec<String> {
    let mut names: Vec<String> = state
        .registry
        .all()
        .iter()
        .map(|resource| resource.group.clone())
        .collect();
    names.dedup();
    names.retain(|name| !name.is_empty());
    names
}

/// Versions of a group, the preferred one first: stable before beta before alpha, newer first.
fn versions_of(state: &State, group: &str) -> Vec<String> {
    let all = state.registry.all();
    let own = all.iter().filter(|resource| resource.group == group);
    let mut versions: Vec<String> = own.map(|resource| resource.version.clone()).collect();
    versions.sort_unstable_by_key(|version| std::cmp::Reverse(rank(version)));
    versions.dedup();
    versions
}

/// Kubernetes' order of versions: (stability, major, minor).
fn rank(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    for (word, stability) in [("beta", 2), ("alpha", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return (
                stability,
                major.parse().unwrap_or(0),
                minor.parse().unwrap_or(0),
            );
        }
    }
    rest.parse().map_or((0, 0, 0), |major| (3, major, 0))
}

fn group_document(state: &State, group: &str) -> Option<Value> {
    let versions: Vec<Value> = versions_of(state, group)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": group, "versions": versions, "preferredVersion": preferred}))
}

fn with_type(mut document: Value, kind: &str) -> Value {
    document["kind"] = json!(kind);
    document["apiVersion"] = json!("v1");
    document
}

fn resources_of(state: &State, group: &str, version: &str) -> Vec<Arc<Resource>> {
    let all = state.registry.all().into_iter();
    all.filter(|resource| resource.group == group && resource.version == version)
        .collect()
}

fn resource_list(
    state: &State,
    exchange: &Exchange,
    group: &str,
    version: &str,
) -> Option<Response> {
    let served = resources_of(state, group, version);
    let group_version = served.first()?.api_version();
    let mut entries = Vec::new();
    for resource in &served {
        let mut entry = json!({
            "name": resource.resource,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        entries.push(entry);
        for subresource in &resource.subresources {
            let (kind, verbs, of) = subresource_facts(resource, subresource);
            let mut entry = json!({
                "name": format!("{}/{subresource}", resource.resource),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": kind,
                "verbs": verbs,
            });
            if let Some((group, version)) = of {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            entries.push(entry);
        }
    }
    let document = json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": entries,
    });
    Some(typed(state, exchange, document))
}

type SubresourceFacts<'a> = (
    &'a str,
    &'static [&'static str],
    Option<(&'static str, &'static str)>,
);

/// Kind, verbs and, where it differs from the resource's, group and version of a subresource.
fn subresource_facts<'a>(resource: &'a Resource, subresource: &str) -> SubresourceFacts<'a> {
    match subresource {
        "scale" => (
            "Scale",
            &["get", "patch", "update"],
            Some(("autoscaling", "v1")),
        ),
        "binding" => ("Binding", &["create"], None),
        "eviction" => ("Eviction", &["create"], Some(("policy", "v1"))),
        "token" => (
            "TokenRequest",
            &["create"],
            Some(("authentication.k8s.io", "v1")),
        ),
        "exec" => ("PodExecOptions", &["create", "get"], None),
        "attach" => ("PodAttachOptions", &["create", "get"], None),
        "portforward" => ("PodPortForwardOptions", &["create", "get"], None),
        "proxy" => (
            "PodProxyOptions",
            &["create", "delete", "get", "patch", "update"],
            None,
        ),
        "log" => (&resource.kind, &["get"], None),
        "finalize" => (&resource.kind, &["update"], None),
        _ => (&resource.kind, &["get", "patch", "update"], None),
    }
}

/// The aggregated document when the client asks for it, else the plain one.
fn groups_or(
    state: &State,
    exchange: &Exchange,
    core: bool,
    plain: impl FnOnce() -> Value,
) -> Response {
    let accepted = exchange.headers.get_all(header::ACCEPT).iter();
    let accepted: Vec<String> = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.replace(' ', ""))
        .collect();
    for range in accepted {
        if !range.contains("as=APIGroupDiscoveryList") || !range.starts_with("application/json") {
            if range.starts_with("application/json") {
                break;
            }
            continue;
        }
        if range.contains("v=v2;") || range.ends_with("v=v2") {
            return aggregated(state, core);
        }
    }
    typed(state, exchange, plain())
}

fn aggregated(state: &State, core: bool) -> Response {
    let groups = if core {
        vec![String::new()]
    } else {
        group_names(state)
    };
    let items: Vec<Value> = groups
        .iter()
        .map(|group| aggregated_group(state, group))
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let response = http::Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, kind)
        .header(header::VARY, "Accept")
        .body(Body::from(document.to_string()));
    response.expect("constant headers are valid")
}

fn aggregated_group(state: &State, group: &str) -> Value {
    let versions: Vec<Value> = versions_of(state, group)
        .iter()
        .map(|version| {
            let resources = resources_of(state, group, version);
            let resources: Vec<Value> = resources
                .iter()
                .map(|resource| aggregated_resource(resource))
                .collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({})
    } else {
        json!({"name": group})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|name| {
            let (of, verbs, place) = subresource_facts(resource, name);
            let (group, version) =
                place.unwrap_or((resource.group.as_str(), resource.version.as_str()));
            json!({"subresource": name, "responseKind": kind(group, version, of), "verbs": verbs})
        })
        .collect();
    let mut entry = json!({
        "resource": resource.resource,
        "responseKind": kind(&resource.group, &resource.version, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    for (member, list) in [
        ("shortNames", &resource.short_names),
        ("categories", &resource.categories),
    ] {
        if !list.is_empty() {
            entry[member] = json!(list);
        }
    }
    if !subresources.is_empty() {
        entry["subresources"] = json!(subresources);
    }
    entry
}

fn root(state: &State, exchange: &Exchange) -> Response {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for group in group_names(state) {
        paths.push(format!("/apis/{group}"));
        let versions = versions_of(state, &group);
        paths.extend(
            versions
                .iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    let rest = [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
    ];
    paths.extend(rest.map(str::to_owned));
    paths.push("/version".to_owned());
    typed(state, exchange, json!({"paths": paths}))
}

fn metrics(state: &State) -> Response {
    let mut text = String::from(
        "# HELP apiserver_storage_objects Number of stored objects.\n\
         # TYPE apiserver_storage_objects gauge\n",
    );
    for resource in state.registry.all() {
        if resource.allows("list") {
            let count = state.store.read_all(&resource, None).len();
            let name = resource.qualified();
            text.push_str(&format!(
                "apiserver_storage_objects{{resource=\"{name}\"}} {count}\n"
            ));
        }
    }
    plain(text, "text/plain; version=0.0.4; charset=utf-8")
}

/// A document in the encoding asked for where the schema knows it, else JSON in struct order.
fn typed(state: &State, exchange: &Exchange, document: Value) -> Response {
    match state.answer_value(exchange, StatusCode::OK, &document) {
        Ok(response) => response,
        Err(status) => state.answer_status(exchange, &status),
    }
}

fn plain(text: String, media_type: &str) -> Response {
    let response = http::Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, media_type)
        .body(Body::from(text));
    response.expect("constant headers are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_are_preferred_and_newer_ones_first() {
        let mut versions = ["v1alpha1", "v2beta1", "v1", "v2", "v1beta2", "odd"];
        versions.sort_unstable_by_key(|version| std::cmp::Reverse(rank(version)));
        assert_eq!(
            versions,
            ["v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "odd"]
        );
    }
}
