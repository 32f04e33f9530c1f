//! The one place where an error becomes a Kubernetes `Status`.
//!
//! Owns the `Status` value, its constructors (one per row of the error catalogue of kube-apiserver
//! 1.36) and its four renderings: compact JSON, indented JSON, YAML and protobuf. Key order,
//! omitted fields and texts are wire constants. Refuses to know about requests: who may see which
//! encoding is decided in `negotiate`. Invariant: the HTTP code of an answer is `code`, or 200
//! where a success carries none.

use serde_json::{Value, json};

use super::yaml;

mod encoding;

pub use encoding::{go_string, indent, proto};

/// What an API call answers when it does not answer with an object (metav1 `Status`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `Success` instead of `Failure`.
    pub success: bool,
    /// HTTP status code; 0 leaves the field out and means 200.
    pub code: u16,
    /// Machine-readable reason; empty leaves the field out.
    pub reason: String,
    /// Human-readable text; empty leaves the field out.
    pub message: String,
    /// `details`; `Some` of an empty value renders `{}`.
    pub details: Option<Box<Details>>,
    /// `metadata.continue`, set only on an expired continue token.
    pub continue_token: String,
}

/// `StatusDetails`; empty members are left out of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// Resource (usually plural) or kind.
    pub kind: String,
    /// UID of the object.
    pub uid: String,
    /// What was wrong, one entry per mistake.
    pub causes: Vec<Cause>,
    /// Seconds to wait; also sent as `Retry-After` when above 0.
    pub retry_after_seconds: u32,
}

/// One mistake inside a `Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason.
    pub reason: String,
    /// Human-readable text.
    pub message: String,
    /// Path of the field, as `spec.replicas`.
    pub field: String,
}

impl Cause {
    /// A cause about one field.
    pub fn field(reason: &str, message: impl Into<String>, field: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            field: field.to_owned(),
        }
    }
}

impl Status {
    fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            ..Self::default()
        }
    }

    fn with(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// 400 `BadRequest`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    /// 401 `Unauthorized`.
    pub fn unauthorized() -> Self {
        Self::failure(401, "Unauthorized", "Unauthorized")
    }

    /// 403 `Forbidden`: `message` is the whole text.
    pub fn forbidden(message: impl Into<String>, details: Details) -> Self {
        Self::failure(403, "Forbidden", message).with(details)
    }

    /// 404 of the storage: `pods "x" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let qualified = qualified(group, resource);
        Self::failure(404, "NotFound", format!("{qualified} \"{name}\" not found"))
            .with(Details::object(group, resource, name))
    }

    /// 404 of the router: no such path.
    pub fn no_such_resource() -> Self {
        Self::failure(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
        .with(Details::default())
    }

    /// 405 of the router.
    pub fn method_not_allowed() -> Self {
        Self::failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .with(Details::default())
    }

    /// 405 of a handler: `watch is not supported on resources of kind "componentstatuses"`.
    pub fn not_supported(group: &str, resource: &str, action: &str) -> Self {
        let qualified = qualified(group, resource);
        let text = format!("{action} is not supported on resources of kind \"{qualified}\"");
        Self::failure(405, "MethodNotAllowed", text).with(Details::object(group, resource, ""))
    }

    /// 406 of a handler.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::failure(406, "NotAcceptable", message)
    }

    /// 409 `AlreadyExists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let qualified = qualified(group, resource);
        Self::failure(
            409,
            "AlreadyExists",
            format!("{qualified} \"{name}\" already exists"),
        )
        .with(Details::object(group, resource, name))
    }

    /// 409 `Conflict` with the given inner error.
    pub fn conflict(group: &str, resource: &str, name: &str, inner: &str) -> Self {
        let qualified = qualified(group, resource);
        let text = format!("Operation cannot be fulfilled on {qualified} \"{name}\": {inner}");
        Self::failure(409, "Conflict", text).with(Details::object(group, resource, name))
    }

    /// 410 `Expired`.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    /// 415 of a write.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::failure(415, "UnsupportedMediaType", message)
    }

    /// 422 `Invalid`: `kind` is a kind (`Pod`), the message is derived from the causes as Go's
    /// aggregate prints them.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for cause in &causes {
            let text = format!("{}: {}", cause.field, cause.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let joined = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = qualified(group, kind);
        Self::failure(
            422,
            "Invalid",
            format!("{qualified} \"{name}\" is invalid: {joined}"),
        )
        .with(Details {
            causes,
            ..Details::object(group, kind, name)
        })
    }

    /// 429 `TooManyRequests` with a wait in seconds.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::failure(429, "TooManyRequests", message).with(Details {
            retry_after_seconds,
            ..Details::default()
        })
    }

    /// 500 without a reason: an error the apiserver did not expect.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::failure(500, "", message)
    }

    /// 500 `InternalError`.
    pub fn internal(message: &str) -> Self {
        let cause = Cause {
            message: message.to_owned(),
            ..Cause::default()
        };
        Self::failure(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        )
        .with(Details {
            causes: vec![cause],
            ..Details::default()
        })
    }

    /// 503 while shutting down.
    pub fn shutting_down() -> Self {
        Self::failure(503, "ServiceUnavailable", "apiserver is shutting down")
    }

    /// 504: the requested resource version is above the current one. etcd's own answer carries no
    /// wait.
    pub fn too_large_resource_version(requested: u64, current: u64, from_cache: bool) -> Self {
        let text = format!("Timeout: Too large resource version: {requested}, current: {current}");
        let cause = Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        };
        Self::failure(504, "Timeout", text).with(Details {
            causes: vec![cause],
            retry_after_seconds: u32::from(from_cache),
            ..Details::default()
        })
    }

    /// The HTTP status code of the answer.
    pub fn http_code(&self) -> http::StatusCode {
        http::StatusCode::from_u16(self.code).unwrap_or(http::StatusCode::OK)
    }

    /// Seconds for the `Retry-After` header.
    pub fn retry_after(&self) -> Option<u32> {
        self.details
            .as_ref()
            .map(|d| d.retry_after_seconds)
            .filter(|s| *s > 0)
    }

    /// Compact JSON without a newline, members in the struct order of metav1.
    pub fn json(&self) -> String {
        let mut out = String::from(r#"{"kind":"Status","apiVersion":"v1","metadata":{"#);
        if !self.continue_token.is_empty() {
            push_member(&mut out, "continue", &go_string(&self.continue_token));
        }
        out.push('}');
        let status = if self.success { "Success" } else { "Failure" };
        push_member(&mut out, "status", &go_string(status));
        push_text(&mut out, "message", &self.message);
        push_text(&mut out, "reason", &self.reason);
        if let Some(details) = &self.details {
            push_member(&mut out, "details", &details.json());
        }
        if self.code != 0 {
            push_member(&mut out, "code", &self.code.to_string());
        }
        out.push('}');
        out
    }

    /// The fields as a value, for YAML.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.json()).unwrap_or_else(|_| json!({}))
    }

    /// YAML with sorted keys.
    pub fn yaml(&self) -> String {
        yaml::render(&self.value()).unwrap_or_default()
    }

    /// Protobuf with the `k8s\0` envelope.
    pub fn protobuf(&self) -> Vec<u8> {
        let mut raw = Vec::new();
        let mut meta = Vec::new();
        proto::bytes(&mut meta, 1, b"");
        proto::bytes(&mut meta, 2, b"");
        proto::bytes(&mut meta, 3, self.continue_token.as_bytes());
        proto::bytes(&mut raw, 1, &meta);
        proto::bytes(
            &mut raw,
            2,
            if self.success { b"Success" } else { b"Failure" },
        );
        proto::bytes(&mut raw, 3, self.message.as_bytes());
        proto::bytes(&mut raw, 4, self.reason.as_bytes());
        if let Some(details) = &self.details {
            proto::bytes(&mut raw, 5, &details.protobuf());
        }
        proto::varint(&mut raw, 6, u64::from(self.code));
        proto::envelope("v1", "Status", &raw)
    }
}

impl Details {
    /// Names one object or one resource.
    pub fn object(group: &str, resource: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: resource.to_owned(),
            ..Self::default()
        }
    }

    fn json(&self) -> String {
        let mut out = String::from("{");
        push_text(&mut out, "name", &self.name);
        push_text(&mut out, "group", &self.group);
        push_text(&mut out, "kind", &self.kind);
        push_text(&mut out, "uid", &self.uid);
        if !self.causes.is_empty() {
            let causes: Vec<String> = self.causes.iter().map(Cause::json).collect();
            push_member(&mut out, "causes", &format!("[{}]", causes.join(",")));
        }
        if self.retry_after_seconds > 0 {
            push_member(
                &mut out,
                "retryAfterSeconds",
                &self.retry_after_seconds.to_string(),
            );
        }
        out.push('}');
        out
    }

    fn protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        proto::bytes(&mut out, 1, self.name.as_bytes());
        proto::bytes(&mut out, 2, self.group.as_bytes());
        proto::bytes(&mut out, 3, self.kind.as_bytes());
        for cause in &self.causes {
            let mut inner = Vec::new();
            proto::bytes(&mut inner, 1, cause.reason.as_bytes());
            proto::bytes(&mut inner, 2, cause.message.as_bytes());
            proto::bytes(&mut inner, 3, cause.field.as_bytes());
            proto::bytes(&mut out, 4, &inner);
        }
        proto::varint(&mut out, 5, u64::from(self.retry_after_seconds));
        proto::bytes(&mut out, 6, self.uid.as_bytes());
        out
    }
}

impl Cause {
    fn json(&self) -> String {
        let mut out = String::from("{");
        push_text(&mut out, "reason", &self.reason);
        push_text(&mut out, "message", &self.message);
        push_text(&mut out, "field", &self.field);
        out.push('}');
        out
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

fn push_text(out: &mut String, key: &str, text: &str) {
    if !text.is_empty() {
        push_member(out, key, &go_string(text));
    }
}

fn push_member(out: &mut String, key: &str, raw: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push('"');
    out.push_str(key);
    out.push_str("\":");
    out.push_str(raw);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_status_equals_the_golden_vector() {
        let status = Status::expired("too old resource version: 5 (1000)");
        assert_eq!(
            status.json(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 5 (1000)","reason":"Expired","code":410}"#
        );
        let hex: String = status
            .protobuf()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            "6b3873000a0c0a0276311206537461747573\
             12410a060a0012001a0012074661696c7572651a22746f6f206f6c64207265736f757263652076657273696f6e3a20352028313030302922074578706972656430\
             9a031a002200"
        );
    }

    #[test]
    fn duplicate_causes_are_named_once_in_the_message() {
        let cause = Cause::field("FieldValueForbidden", "Forbidden: no", "a");
        let status = Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause.clone(), cause]);
        assert_eq!(
            status.message,
            "ListOptions.meta.k8s.io \"\" is invalid: a: Forbidden: no"
        );
    }
}
