//! The body of a write as a value: JSON, YAML or protobuf.
//!
//! Owns content types, the checks of kind, version, name and namespace against the path, strict
//! field validation, and the texts of everything that can be wrong with a body, as the codec
//! factory and the create and update handlers of 1.36 phrase them.
//! Refuses defaults and semantics.
//!
//! Invariant: a decoded object carries the kind and apiVersion of the resource it was sent to.

use serde_json::{Map, Value};

use super::Request;
use super::go_json::{TimeLayout, sanitize, syntax_error, time_error};
use super::strategy::remove;
use crate::apiserver::schema::{Schema, open_envelope};
use crate::apiserver::status::{Cause, Status};

const ACCEPTED: &str = "the body of the request was in an unknown format - accepted media types \
                        include: application/json, application/yaml, \
                        application/vnd.kubernetes.protobuf";
const ACCEPTED_CUSTOM: &str = "the body of the request was in an unknown format - accepted media \
                               types include: application/json, application/yaml";
const PROTOBUF_PREFIX: &[u8] = b"k8s\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// The object of the request's body, its kind, version and namespace checked.
pub(super) fn object(request: &Request<'_>) -> Result<Value, Status> {
    let resource = request.resource;
    let format = format(request)?;
    let (api_version, kind) = (resource.api_version(), resource.kind.as_str());
    let body = &request.exchange.body;
    let mut object = match format {
        Format::Protobuf => protobuf(body, &api_version, kind)?,
        Format::Json | Format::Yaml => text(format, body, kind)?,
    };
    check_type(&mut object, &api_version, kind)?;
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    check_fields(request, &object)?;
    check_namespace(request, &mut object)?;
    remove(&mut object["metadata"], "selfLink");
    Ok(object)
}

/// A body of another kind than the resource's, such as DeleteOptions or a Scale.
pub(super) fn other(request: &Request<'_>, api_version: &str, kind: &str) -> Result<Value, Status> {
    let body = &request.exchange.body;
    match format(request)? {
        Format::Protobuf => protobuf(body, api_version, kind),
        format => text(format, body, kind),
    }
}

/// Refuses a body whose name is not the one of the path.
pub(super) fn check_name(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let (sent, wanted) = (
        object["metadata"]["name"].as_str().unwrap_or_default(),
        request.name(),
    );
    if sent.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    if sent != wanted {
        return Err(Status::bad_request(format!(
            "the name of the object ({sent}) does not match the name on the URL ({wanted})"
        )));
    }
    Ok(())
}

/// Refuses a body of another namespace; an empty one is filled in.
pub(super) fn check_namespace(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    let wanted = request.object_namespace();
    let sent = object["metadata"]["namespace"].as_str().unwrap_or_default();
    if sent != wanted && !sent.is_empty() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if wanted.is_empty() {
        remove(&mut object["metadata"], "namespace");
    } else {
        object["metadata"]["namespace"] = Value::from(wanted);
    }
    Ok(())
}

/// Finds malformed times; the only scalars whose mistakes clients of leases are tested with.
pub(super) fn time_mistake(kind: &str, object: &Value) -> Option<String> {
    let fields: &[(&str, TimeLayout)] = match kind {
        "Lease" => &[
            ("/spec/renewTime", TimeLayout::Micros),
            ("/spec/acquireTime", TimeLayout::Micros),
        ],
        "Event" => &[
            ("/eventTime", TimeLayout::Micros),
            ("/firstTimestamp", TimeLayout::Seconds),
            ("/lastTimestamp", TimeLayout::Seconds),
        ],
        _ => &[],
    };
    let mut fields = fields.iter().filter_map(|(pointer, layout)| {
        let text = object.pointer(pointer)?.as_str()?;
        time_error(*layout, text)
    });
    fields.next()
}

/// Unknown fields, as strict validation names them: `unknown field "spec.bogus"`.
pub(super) fn unknown_fields(request: &Request<'_>, object: &Value) -> Vec<String> {
    if request.resource.custom.is_some() {
        return Vec::new();
    }
    let printed = request.printed_form(object);
    let mut unknown = Vec::new();
    find_unknown(object, &printed, "", &mut unknown);
    unknown
}

/// Does with unknown fields what the request wants: warns of them, ignores them, or returns the
/// text of the refusal.
pub(super) fn judge_unknown(
    request: &Request<'_>,
    object: &Value,
) -> Result<Option<String>, Status> {
    let validation = request
        .exchange
        .query
        .first("fieldValidation")
        .unwrap_or_default();
    if !matches!(validation, "" | "Ignore" | "Warn" | "Strict") {
        let text = format!(
            "Unsupported value: \"{validation}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
        );
        let cause = Cause::field("FieldValueNotSupported", text, "fieldValidation");
        return Err(Status::invalid(
            "meta.k8s.io",
            "CreateOptions",
            "",
            vec![cause],
        ));
    }
    if validation == "Ignore" {
        return Ok(None);
    }
    let unknown = unknown_fields(request, object);
    if validation == "Strict" && !unknown.is_empty() {
        return Ok(Some(format!(
            "strict decoding error: {}",
            unknown.join(", ")
        )));
    }
    for warning in unknown {
        request.warn(warning);
    }
    Ok(None)
}

fn find_unknown(sent: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (sent, known) {
        (Value::Object(sent), Value::Object(known)) => {
            for (key, value) in sent {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match known.get(key) {
                    Some(known) => find_unknown(value, known, &path, unknown),
                    // Empty values and a secret's write-only field are dropped, not unknown.
                    None if is_empty(value) || key == "stringData" => {}
                    None => unknown.push(format!("unknown field \"{path}\"")),
                }
            }
        }
        (Value::Array(sent), Value::Array(known)) => {
            for (index, (sent, known)) in sent.iter().zip(known).enumerate() {
                find_unknown(sent, known, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
    }
}

fn format(request: &Request<'_>) -> Result<Format, Status> {
    let custom = request.resource.custom.is_some();
    let header = request.exchange.headers.get(http::header::CONTENT_TYPE);
    let header = header
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match header.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" if !custom => Ok(Format::Protobuf),
        _ if custom => Err(Status::unsupported_media_type(ACCEPTED_CUSTOM)),
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

fn text(format: Format, body: &[u8], kind: &str) -> Result<Value, Status> {
    let parsed = match format {
        Format::Yaml => parse_yaml(body),
        Format::Json | Format::Protobuf => parse_json(body).map_err(|_| {
            format!(
                "couldn't get version/kind; json parse error: {}",
                syntax_error(body)
            )
        }),
    };
    let value = parsed.map_err(|error| unrecognized(kind, &error, body))?;
    if value.is_object() {
        return Ok(value);
    }
    let what = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null | Value::Object(_) => "null",
    };
    let error = format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value \
         of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
         \"json:\\\"kind,omitempty\\\"\" }}"
    );
    Err(unrecognized(kind, &error, body))
}

/// Reads JSON as Go does, which replaces what is no Unicode.
fn parse_json(body: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(body).or_else(|_| serde_json::from_slice(&sanitize(body)))
}

/// Reads YAML as a JSON value.
pub(super) fn parse_yaml(body: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(body).map_err(|_| "yaml: invalid UTF-8".to_owned())?;
    serde_saphyr::from_str(text).map_err(|error| format!("yaml: {error}"))
}

fn protobuf(body: &[u8], api_version: &str, kind: &str) -> Result<Value, Status> {
    if !body.starts_with(PROTOBUF_PREFIX) {
        let error = "provided data does not appear to be a protobuf message, expected prefix \
                     [107 56 115 0]";
        return Err(unrecognized(kind, error, body));
    }
    let envelope =
        open_envelope(body).map_err(|error| unrecognized(kind, &error.to_string(), body))?;
    let sent = if envelope.kind.is_empty() {
        kind
    } else {
        envelope.kind
    };
    let version = if envelope.api_version.is_empty() {
        api_version
    } else {
        envelope.api_version
    };
    Schema::builtin()
        .from_protobuf(version, sent, envelope.raw)
        .map_err(|error| {
            let short = api_version.rsplit('/').next().unwrap_or_default();
            Status::bad_request(format!(
                "{sent} in version \"{short}\" cannot be handled as a {kind}: {error}"
            ))
        })
}

fn unrecognized(kind: &str, error: &str, body: &[u8]) -> Status {
    let summary = summary(body);
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {error} ({summary})"
    ))
}

/// The beginning of a body as error texts show it.
fn summary(body: &[u8]) -> String {
    const SUMMARY_LEN_MAX: usize = 30;
    let head = &body[..body.len().min(SUMMARY_LEN_MAX)];
    let more = if body.len() > SUMMARY_LEN_MAX {
        " ..."
    } else {
        ""
    };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => format!("{}{more}", crate::apiserver::authn::hex(head)),
    }
}

fn check_type(object: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    let sent = object["apiVersion"].as_str().unwrap_or_default();
    if !sent.is_empty() && sent != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({sent}) does not match the expected API version \
             ({api_version})"
        )));
    }
    let sent = object["kind"].as_str().unwrap_or_default();
    if !sent.is_empty() && sent != kind {
        let short = api_version.rsplit('/').next().unwrap_or_default();
        return Err(Status::bad_request(format!(
            "{sent} in version \"{short}\" cannot be handled as a {kind}: converting \
             ({api_version}.{sent}) to ({api_version}.{kind}): unknown conversion"
        )));
    }
    object["apiVersion"] = Value::from(api_version);
    object["kind"] = Value::from(kind);
    Ok(())
}

fn check_fields(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if let Some(mistake) = time_mistake(&request.resource.kind, object) {
        return Err(request.cannot_be_handled(&mistake));
    }
    if request.resource.custom.is_none() {
        let (version, kind) = (request.resource.api_version(), &request.resource.kind);
        if let Err(error) = Schema::builtin().json(&version, kind, object) {
            return Err(request.cannot_be_handled(&error.to_string()));
        }
    }
    let unknown = judge_unknown(request, object)?;
    unknown.map_or(Ok(()), |why| Err(request.cannot_be_handled(&why)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_are_summarised_as_text_or_hex() {
        assert_eq!(summary(b"{bad"), "{bad");
        assert_eq!(summary(b""), "<empty>");
        assert_eq!(summary(&[0, 1]), "0001");
        assert_eq!(summary(&[b'{'; 31]), format!("{} ...", "{".repeat(30)));
    }

    #[test]
    fn only_filled_fields_can_be_unknown() {
        let mut unknown = Vec::new();
        let sent = json!({"spec": {"known": 1, "bogus": 1, "empty": {}, "list": [{"x": 1}]}});
        let known = json!({"spec": {"known": 1, "list": [{}]}});
        find_unknown(&sent, &known, "", &mut unknown);
        let expected = [
            "unknown field \"spec.bogus\"",
            "unknown field \"spec.list[0].x\"",
        ];
        assert_eq!(unknown, expected);
    }

    #[test]
    fn another_kind_or_version_is_refused() {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod"});
        assert!(check_type(&mut pod, "v1", "Pod").is_ok());
        assert!(check_type(&mut pod, "v1", "Service").is_err());
        assert!(check_type(&mut pod, "apps/v1", "Pod").is_err());
        let mut bare = json!({});
        assert!(check_type(&mut bare, "v1", "Pod").is_ok());
        assert_eq!(bare["kind"], "Pod");
    }
}
