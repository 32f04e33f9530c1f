//! Field selectors: Go's splitting and escapes, the labels each resource accepts, and their values
//! in an object.

use std::borrow::Cow;

use serde_json::Value;

use super::SelectorError;
use crate::apiserver::resources::Resource;

/// One term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldRequirement {
    /// Field label.
    pub key: String,
    /// `true` for `!=`.
    pub negated: bool,
    /// Unescaped value.
    pub value: String,
}

/// Terms that all must hold, in canonical order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Parses a selector; empty selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let Some((key, operator, value)) = split_operator(term) else {
                let text = format!("invalid selector: '{text}'; can't understand '{term}'");
                return Err(SelectorError(text));
            };
            let value = unescape(value)?;
            // Go drops such a term, whatever its operator.
            if key.is_empty() && value.is_empty() {
                continue;
            }
            requirements.push(FieldRequirement {
                key: key.to_owned(),
                negated: operator == "!=",
                value,
            });
        }
        Ok(Self { requirements })
    }

    /// One `key=value` term.
    pub fn exact(key: &str, value: &str) -> Self {
        let term = FieldRequirement {
            key: key.to_owned(),
            negated: false,
            value: value.to_owned(),
        };
        Self {
            requirements: vec![term],
        }
    }

    /// The terms.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value the first `=` term of a label demands.
    pub fn required(&self, key: &str) -> Option<&str> {
        let term = self
            .requirements
            .iter()
            .find(|r| r.key == key && !r.negated)?;
        Some(&term.value)
    }

    /// Whether the fields of an object pass; a missing field reads as empty.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Cow<'a, str>) -> bool {
        self.requirements
            .iter()
            .all(|r| (value(&r.key) == r.value.as_str()) != r.negated)
    }

    /// Checks every label against those of the resource and turns aliases into stored labels.
    pub fn convert(mut self, resource: &Resource) -> Result<Self, SelectorError> {
        for requirement in &mut self.requirements {
            match supported(resource, &requirement.key) {
                Some(label) => requirement.key = label,
                None => return Err(SelectorError(unsupported(resource, &requirement.key))),
            }
        }
        Ok(self)
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_operator(term: &str) -> Option<(&str, &str, &str)> {
    for index in term.char_indices().map(|(index, _)| index) {
        for operator in ["!=", "==", "="] {
            if let Some(value) = term[index..].strip_prefix(operator) {
                return Some((&term[..index], operator, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let error = |text: String| SelectorError(format!("invalid field selector: {text}"));
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => return Err(error(format!("invalid escape sequence: \\{other}"))),
                None => return Err(error("invalid escape sequence: \\".to_owned())),
            },
            ',' | '=' => {
                return Err(error(format!(
                    "unescaped character in value: {}",
                    u32::from(c)
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

const NAMESPACED: [&str; 2] = ["metadata.name", "metadata.namespace"];

/// The labels a built-in resource lists explicitly; `None` for those with only name and namespace.
fn explicit(resource: &Resource) -> Option<&'static [&'static str]> {
    Some(
        match (resource.group.as_str(), resource.resource.as_str()) {
            ("", "pods") => &[
                "metadata.name",
                "metadata.namespace",
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.podIPs",
                "status.nominatedNodeName",
            ],
            ("", "nodes") => &["metadata.name", "spec.unschedulable"],
            ("", "services") => &[
                "metadata.name",
                "metadata.namespace",
                "spec.clusterIP",
                "spec.type",
            ],
            ("", "secrets") => &["metadata.name", "metadata.namespace", "type"],
            ("", "namespaces") => &["metadata.name", "status.phase"],
            ("", "replicationcontrollers") => {
                &["metadata.name", "metadata.namespace", "status.replicas"]
            }
            ("", "events") => &[
                "metadata.name",
                "metadata.namespace",
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            ("events.k8s.io", "events") => &[
                "metadata.name",
                "metadata.namespace",
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "regarding.resourceVersion",
                "regarding.fieldPath",
                "reason",
                "reportingController",
                "type",
            ],
            ("batch", "jobs") => &["metadata.name", "metadata.namespace", "status.successful"],
            ("certificates.k8s.io", "certificatesigningrequests") => {
                &["metadata.name", "spec.signerName"]
            }
            ("resource.k8s.io", "resourceslices") => {
                &["metadata.name", "spec.nodeName", "spec.driver"]
            }
            _ => return None,
        },
    )
}

/// The label under which the value is looked up, if the resource accepts `key`.
fn supported(resource: &Resource, key: &str) -> Option<String> {
    if let Some(custom) = &resource.custom {
        let known = key == "metadata.name"
            || (key == "metadata.namespace" && resource.namespaced)
            || custom.selectable_fields.iter().any(|field| field == key);
        return known.then(|| key.to_owned());
    }
    let pods = resource.group.is_empty() && resource.resource == "pods";
    if pods && key == "spec.host" {
        return Some("spec.nodeName".to_owned());
    }
    let labels = explicit(resource).unwrap_or(&NAMESPACED);
    labels.contains(&key).then(|| {
        if resource.group == "events.k8s.io" {
            match key {
                "reportingController" => "reportingComponent".to_owned(),
                key => key.replace("regarding.", "involvedObject."),
            }
        } else {
            key.to_owned()
        }
    })
}

fn unsupported(resource: &Resource, key: &str) -> String {
    let name = (resource.group.as_str(), resource.resource.as_str());
    if resource.custom.is_none() {
        if name == ("batch", "jobs") {
            return format!("field label \"{key}\" not supported for Job");
        }
        if name == ("resource.k8s.io", "resourceslices") {
            return format!(
                "field label not supported for resource.k8s.io/{}, Kind=ResourceSlice: {key}",
                resource.version
            );
        }
        if explicit(resource).is_none() {
            return format!(
                "\"{key}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            );
        }
    }
    format!("field label not supported: {key}")
}

/// The value of a stored object's field label; empty when the object has none.
pub fn field_value<'a>(resource: &Resource, object: &'a Value, label: &str) -> Cow<'a, str> {
    let at = |pointer: &str| object.pointer(pointer);
    let text = |pointer: &str| Cow::Borrowed(at(pointer).and_then(Value::as_str).unwrap_or(""));
    let flag = |pointer: &str| {
        let set = at(pointer).and_then(Value::as_bool).unwrap_or(false);
        Cow::Borrowed(if set { "true" } else { "false" })
    };
    let number =
        |pointer: &str| Cow::Owned(at(pointer).and_then(Value::as_i64).unwrap_or(0).to_string());
    if resource.custom.is_none() {
        match (resource.resource.as_str(), label) {
            ("pods", "spec.hostNetwork") => return flag("/spec/hostNetwork"),
            ("pods", "status.podIPs") => return Cow::Borrowed(""),
            ("pods", "status.podIP") => return pod_ip(object),
            ("nodes", "spec.unschedulable") => return flag("/spec/unschedulable"),
            ("replicationcontrollers", "status.replicas") => return number("/status/replicas"),
            ("jobs", "status.successful") => return number("/status/succeeded"),
            ("events", "source") => {
                let source = text("/source/component");
                return if source.is_empty() {
                    text("/reportingComponent")
                } else {
                    source
                };
            }
            _ => {}
        }
    }
    let mut current = object;
    for part in label.split('.') {
        current = match current.get(part) {
            Some(next) => next,
            None => return Cow::Borrowed(""),
        };
    }
    match current {
        Value::String(text) => Cow::Borrowed(text),
        Value::Null | Value::Array(_) | Value::Object(_) => Cow::Borrowed(""),
        Value::Bool(_) | Value::Number(_) => Cow::Owned(current.to_string()),
    }
}

fn pod_ip(object: &Value) -> Cow<'_, str> {
    let first = object
        .pointer("/status/podIPs/0/ip")
        .or_else(|| object.pointer("/status/podIP"));
    Cow::Borrowed(first.and_then(Value::as_str).unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apiserver::resources::Registry;

    #[test]
    fn terms_split_at_the_first_operator() {
        let cases = [
            ("a=b", Some(("a", false, "b"))),
            ("a==b", Some(("a", false, "b"))),
            ("a!=b", Some(("a", true, "b"))),
            ("a=b\\,c\\=d", Some(("a", false, "b,c=d"))),
            ("", None),
        ];
        for (text, expected) in cases {
            let selector = FieldSelector::parse(text).unwrap();
            let first = selector.requirements.first();
            let seen = first.map(|r| (r.key.as_str(), r.negated, r.value.as_str()));
            assert_eq!(seen, expected, "{text}");
        }
    }

    #[test]
    fn syntax_errors_read_as_in_go() {
        let cases = [
            ("foo", "invalid selector: 'foo'; can't understand 'foo'"),
            (
                "a=b\\x",
                "invalid field selector: invalid escape sequence: \\x",
            ),
            (
                "a=b=c",
                "invalid field selector: unescaped character in value: 61",
            ),
        ];
        for (text, message) in cases {
            let error = FieldSelector::parse(text).map_err(|e| e.0);
            assert_eq!(error, Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn unknown_labels_are_refused_in_the_words_of_their_resource() {
        let registry = Registry::builtin();
        let cases = [
            ("", "pods", "field label not supported: spec.foo"),
            (
                "batch",
                "jobs",
                "field label \"spec.foo\" not supported for Job",
            ),
            (
                "",
                "configmaps",
                "\"spec.foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            ),
        ];
        for (group, resource, message) in cases {
            let resource = registry.find(group, "v1", resource).unwrap();
            let selector = FieldSelector::exact("spec.foo", "1").convert(&resource);
            assert_eq!(selector.map_err(|e| e.0), Err(message.to_owned()));
        }
    }

    #[test]
    fn the_old_name_of_a_pods_node_still_selects() {
        let pods = Registry::builtin().find("", "v1", "pods").unwrap();
        let selector = FieldSelector::exact("spec.host", "n1")
            .convert(&pods)
            .unwrap();
        let pod = json!({"spec": {"nodeName": "n1"}});
        assert!(selector.matches(|label| field_value(&pods, &pod, label)));
    }
}
