//! OpenAPI: enough for `kubectl explain`, `apply` and server-side validation.
//!
//! Owns one OpenAPI v3 document per group and version, made from the field table of the built-in
//! kinds and the schemas of CRDs, and the empty v2 document clients fall back from. Paths carry
//! only what kubectl looks for: kinds, and that `PATCH` knows `fieldValidation` and `dryRun`.
//! Refuses descriptions: the table has none.
//!
//! Invariant: every `$ref` of a document has its schema in the same document.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use super::plain;
use crate::apiserver::body::{Body, Response};
use crate::apiserver::resources::Resource;
use crate::apiserver::server::{Exchange, State};

/// The v2 document: valid, and empty.
pub(super) fn v2(_: &State, exchange: &Exchange) -> Response {
    let accept = exchange
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if !accept.unwrap_or_default().contains("proto-openapi") {
        let document = json!({
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": "v1.36.0"},
            "paths": {},
            "definitions": {},
        });
        return plain(document.to_string(), "application/json");
    }
    // swagger = "2.0", info {title = "Kubernetes", version = "v1.36.0"}, empty paths.
    let body: &[u8] = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.0\x42\x00";
    let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let response = http::Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body));
    response.expect("constant headers are valid")
}

/// The index of v3 documents, or one of them.
pub(super) fn v3(state: &State, path: &[&str]) -> Option<Response> {
    match path {
        [] => {
            let mut paths = Map::new();
            for resource in state.registry.all() {
                let place = place(&resource);
                let relative = json!({"serverRelativeURL": format!("/openapi/v3/{place}")});
                paths.insert(place, relative);
            }
            Some(plain(
                json!({"paths": paths}).to_string(),
                "application/json",
            ))
        }
        ["api", "v1"] => document(state, "", "v1"),
        ["apis", group, version] => document(state, group, version),
        _ => None,
    }
}

fn place(resource: &Resource) -> String {
    let prefix = if resource.group.is_empty() {
        "api"
    } else {
        "apis"
    };
    format!("{prefix}/{}", resource.api_version())
}

fn document(state: &State, group: &str, version: &str) -> Option<Response> {
    let all = state.registry.all().into_iter();
    let served: Vec<_> = all
        .filter(|resource| resource.group == group && resource.version == version)
        .collect();
    if served.is_empty() {
        return None;
    }
    let mut paths = Map::new();
    let mut schemas = Schemas::default();
    for resource in &served {
        let kind = kind_of(resource);
        let name = match &resource.custom {
            Some(custom) => {
                schemas.add_custom(resource, &custom.version["schema"]["openAPIV3Schema"])
            }
            None => schemas.add_kind(&resource.api_version(), &resource.kind),
        };
        let Some(name) = name else { continue };
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        let (collection, object) = item_paths(resource);
        paths.insert(collection, collection_path(&kind, &reference));
        paths.insert(object, object_path(&kind, &reference));
        schemas.mark(&name, &kind);
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": schemas.done},
    });
    Some(plain(document.to_string(), "application/json"))
}

fn kind_of(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn item_paths(resource: &Resource) -> (String, String) {
    let (place, plural) = (place(resource), &resource.resource);
    let collection = if resource.namespaced {
        format!("/{place}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("/{place}/{plural}")
    };
    let object = format!("{collection}/{{name}}");
    (collection, object)
}

fn operation(action: &str, kind: &Value, reference: &Value) -> Value {
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"]
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}))
        .collect();
    json!({
        "parameters": parameters,
        "responses": {"200": {
            "description": "OK",
            "content": {"application/json": {"schema": reference}},
        }},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind,
    })
}

fn collection_path(kind: &Value, reference: &Value) -> Value {
    json!({
        "get": operation("list", kind, reference),
        "post": operation("post", kind, reference),
    })
}

fn object_path(kind: &Value, reference: &Value) -> Value {
    json!({
        "get": operation("get", kind, reference),
        "put": operation("put", kind, reference),
        "patch": operation("patch", kind, reference),
        "delete": operation("delete", kind, reference),
    })
}

/// The schemas of one document.
#[derive(Default)]
struct Schemas {
    done: Map<String, Value>,
}

impl Schemas {
    /// Adds a kind of the table with everything it refers to; its schema's name.
    fn add_kind(&mut self, api_version: &str, kind: &str) -> Option<String> {
        let found = TYPES.values().find(|known| {
            known.is_kind && known.api_version == api_version && known.name == kind
        })?;
        let mut wanted = vec![found.key()];
        let mut seen = BTreeSet::new();
        while let Some(key) = wanted.pop() {
            if !seen.insert(key.clone()) || self.done.contains_key(&schema_name(&key)) {
                continue;
            }
            let Some(known) = TYPES.get(&key) else {
                continue;
            };
            self.done
                .insert(schema_name(&key), known.schema(&mut wanted));
        }
        Some(schema_name(&found.key()))
    }

    fn add_custom(&mut self, resource: &Resource, schema: &Value) -> Option<String> {
        let mut schema = schema.clone();
        if !schema.is_object() {
            schema = json!({"type": "object"});
        }
        let text = json!({"type": "string"});
        for member in ["apiVersion", "kind"] {
            schema["properties"][member] = text.clone();
        }
        let metadata = self.add_kind("v1", "Pod").and_then(|_| {
            TYPES
                .contains_key(OBJECT_META)
                .then(|| reference(OBJECT_META))
        });
        self.done.retain(|name, _| name.contains(".meta."));
        schema["properties"]["metadata"] = metadata.unwrap_or_else(|| json!({"type": "object"}));
        let group: Vec<&str> = resource.group.split('.').rev().collect();
        let name = format!("{}.{}.{}", group.join("."), resource.version, resource.kind);
        self.done.insert(name.clone(), schema);
        Some(name)
    }

    fn mark(&mut self, name: &str, kind: &Value) {
        if let Some(schema) = self.done.get_mut(name) {
            schema["x-kubernetes-group-version-kind"] = json!([kind]);
        }
    }
}

const OBJECT_META: &str = "meta.ObjectMeta";

/// A message of the field table.
#[derive(Debug)]
struct Type {
    package: &'static str,
    api_version: &'static str,
    name: &'static str,
    is_kind: bool,
    /// JSON name and type, as the table has it.
    fields: Vec<(&'static str, &'static str)>,
}

impl Type {
    fn key(&self) -> String {
        format!("{}.{}", self.package, self.name)
    }

    fn schema(&self, wanted: &mut Vec<String>) -> Value {
        let mut properties = Map::new();
        if self.is_kind {
            properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
            properties.insert("kind".to_owned(), json!({"type": "string"}));
        }
        self.add_fields(&mut properties, wanted);
        json!({"type": "object", "properties": properties})
    }

    fn add_fields(&self, properties: &mut Map<String, Value>, wanted: &mut Vec<String>) {
        for (name, kind) in &self.fields {
            let bare = kind.trim_end_matches('?').trim_start_matches('*');
            if *name == "+" {
                if let Some(inlined) = TYPES.get(&self.resolve(bare)) {
                    inlined.add_fields(properties, wanted);
                }
                continue;
            }
            let schema = if let Some(item) = bare.strip_prefix("[]") {
                json!({"type": "array", "items": self.value_schema(item, wanted)})
            } else if let Some(item) = bare.strip_prefix("{}") {
                let item = self.value_schema(item, wanted);
                json!({"type": "object", "additionalProperties": item})
            } else {
                self.value_schema(bare, wanted)
            };
            properties.insert((*name).to_owned(), schema);
        }
    }

    fn resolve(&self, name: &str) -> String {
        if name.contains('.') {
            name.to_owned()
        } else {
            format!("{}.{name}", self.package)
        }
    }

    fn value_schema(&self, name: &str, wanted: &mut Vec<String>) -> Value {
        match name {
            "string" | "Duration" | "Quantity" => json!({"type": "string"}),
            "bool" => json!({"type": "boolean"}),
            "int32" | "int64" => json!({"type": "integer", "format": name}),
            "double" => json!({"type": "number", "format": "double"}),
            "bytes" => json!({"type": "string", "format": "byte"}),
            "Time" | "MicroTime" => json!({"type": "string", "format": "date-time"}),
            "IntOrString" => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            "Strings" => json!({"type": "array", "items": {"type": "string"}}),
            "FieldsV1" | "RawExtension" => json!({"type": "object"}),
            _ => {
                let key = self.resolve(name);
                if !TYPES.contains_key(&key) {
                    return json!({}); // a value of any shape
                }
                wanted.push(key.clone());
                reference(&key)
            }
        }
    }
}

fn reference(key: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", schema_name(key))})
}

/// `io.k8s.api.PACKAGE.VERSION.NAME`, as upstream names schemas.
fn schema_name(key: &str) -> String {
    let Some(known) = TYPES.get(key) else {
        return key.to_owned();
    };
    let version = known.api_version.rsplit('/').next().unwrap_or_default();
    let base = match known.package {
        "meta" => "io.k8s.apimachinery.pkg.apis.meta".to_owned(),
        package => format!("io.k8s.api.{package}"),
    };
    format!("{base}.{version}.{}", known.name)
}

/// The field table by `package.Name`.
static TYPES: LazyLock<BTreeMap<String, Type>> = LazyLock::new(|| {
    let mut types: Vec<Type> = Vec::new();
    let (mut package, mut api_version) = ("", "");
    for line in include_str!("../schema/types.txt").lines() {
        let mut words = line.split_whitespace();
        if line.starts_with(' ') {
            let fields = words.filter_map(|word| {
                let (name, rest) = word.split_once('=')?;
                let (_, kind) = rest.split_once(':')?;
                Some((name, kind))
            });
            if let Some(last) = types.last_mut() {
                last.fields.extend(fields);
            }
            continue;
        }
        match (words.next(), words.next()) {
            (Some("package"), Some(name)) => {
                (package, api_version) = (name, words.next().unwrap_or_default());
            }
            (Some(what @ ("kind" | "type")), Some(name)) => types.push(Type {
                package,
                api_version,
                name,
                is_kind: what == "kind",
                fields: Vec::new(),
            }),
            _ => {}
        }
    }
    types
        .into_iter()
        .map(|known| (known.key(), known))
        .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    match value {
                        Value::String(target) if key == "$ref" => {
                            found.insert(target.rsplit('/').next().unwrap().to_owned());
                        }
                        other => references(other, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_has_its_schema() {
        let mut schemas = Schemas::default();
        assert!(schemas.add_kind("v1", "Pod").is_some());
        assert!(schemas.add_kind("apps/v1", "Deployment").is_some());
        let mut found = BTreeSet::new();
        references(&Value::Object(schemas.done.clone()), &mut found);
        assert!(found.len() > 50);
        for name in found {
            assert!(schemas.done.contains_key(&name), "{name}");
        }
    }
}
